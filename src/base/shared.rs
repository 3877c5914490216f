//! Bytes that many connections hold together: the body of a room's large message.

use std::ops::Deref;
use std::sync::Arc;

use super::meter::Meter;

/// Bytes with many owners. They count once, however many owners they have, until the last one
/// gives them up.
#[derive(Debug, Clone)]
pub struct SharedBytes(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    meter: Meter,
}

impl SharedBytes {
    /// Shares bytes, which count with `meter` from now on.
    pub fn new(bytes: Vec<u8>, meter: &Meter) -> Self {
        meter.add(bytes.capacity());
        Self(Arc::new(Counted { bytes, meter: meter.clone() }))
    }

    /// The same for all copies, and for no other bytes as long as one of the copies lasts.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.meter.subtract(self.bytes.capacity());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_count_once_and_until_the_last_owner_goes() {
        let meter = Meter::default();
        let first = SharedBytes::new(vec![1; 1_000], &meter);
        let copies = vec![first.clone(); 100];
        assert_eq!((meter.total(), copies[99].id() == first.id()), (1_000, true));
        let other = SharedBytes::new(vec![1; 1_000], &meter);
        assert!(other.id() != first.id() && other[..] == first[..]);
        drop((first, other));
        assert_eq!(meter.total(), 1_000);
        drop(copies);
        assert_eq!(meter.total(), 0);
    }
}
