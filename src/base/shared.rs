//! Bytes that many connections hold together: the body of a room's large message.
//!
//! They stay shared in a snapshot: who holds them names them by a number, and [`Bodies`] has the
//! bytes, once.

use std::collections::HashMap;
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

/// The shared bytes that snapshots for one reader name, numbered from 0 on. They last until the
/// last snapshot is written, so that no other bytes come by their number.
#[derive(Debug, Clone, Default)]
pub struct Bodies {
    all: Vec<SharedBytes>,
    numbers: HashMap<usize, usize>,
    /// So many have been passed on.
    told: usize,
}

impl Bodies {
    /// The number of these bytes: the next one, if they have none yet.
    pub fn number(&mut self, bytes: &SharedBytes) -> usize {
        *self.numbers.entry(bytes.id()).or_insert_with(|| {
            self.all.push(bytes.clone());
            self.all.len() - 1
        })
    }

    /// Whether these bytes have a number.
    pub fn has(&self, bytes: &SharedBytes) -> bool {
        self.numbers.contains_key(&bytes.id())
    }

    /// All of them, by number.
    pub fn all(&self) -> &[SharedBytes] {
        &self.all
    }

    /// Those that this has not been asked for yet, each with its number.
    pub fn take_news(&mut self) -> impl Iterator<Item = (usize, &SharedBytes)> {
        let told = std::mem::replace(&mut self.told, self.all.len());
        self.all.iter().enumerate().skip(told)
    }

    /// How many bytes the news have.
    pub fn news_len(&self) -> usize {
        self.all[self.told..].iter().map(|bytes| bytes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_one_number_each_and_are_passed_on_once() {
        let meter = Meter::default();
        let [first, second] = [1, 2].map(|byte| SharedBytes::new(vec![byte; 10], &meter));
        let mut bodies = Bodies::default();
        let numbers = [&first, &second, &first.clone()].map(|bytes| bodies.number(bytes));
        assert_eq!((numbers, bodies.news_len()), ([0, 1, 0], 20));
        let news = bodies.take_news().map(|(number, bytes)| (number, bytes[0]));
        assert_eq!(news.collect::<Vec<_>>(), [(0, 1), (1, 2)]);
        assert_eq!((bodies.take_news().count(), bodies.number(&second)), (0, 1));
        // The number stays theirs though nobody else has them any more.
        drop((first, second));
        assert_eq!(bodies.number(&SharedBytes::new(vec![3; 10], &meter)), 2);
        assert_eq!((bodies.news_len(), meter.total()), (10, 30));
    }

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
