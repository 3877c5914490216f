//! How many bytes are held, counted where they are taken and given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the bytes that one worker holds, and with them those of all workers. Copies count
/// together.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    own: Arc<AtomicUsize>,
    total: Arc<AtomicUsize>,
}

impl Meter {
    /// A meter of its own that adds to the total of `of`.
    pub fn beside(of: &Self) -> Self {
        Self { own: Arc::default(), total: of.total.clone() }
    }

    /// Bytes counted with this meter.
    pub fn own(&self) -> usize {
        self.own.load(Ordering::Relaxed)
    }

    /// Bytes counted with all meters.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Counts bytes in.
    pub fn add(&self, bytes: usize) {
        self.own.fetch_add(bytes, Ordering::Relaxed);
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes out that were counted in.
    pub fn subtract(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Ordering::Relaxed);
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_for_itself_and_for_all() {
        let first = Meter::default();
        let second = Meter::beside(&first);
        first.add(5);
        second.add(7);
        second.clone().subtract(2);
        assert_eq!((first.own(), second.own()), (5, 5));
        assert_eq!((first.total(), second.total()), (10, 10));
    }
}
