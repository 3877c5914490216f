//! Sets of slots of a slab: a bit each.

/// A set of slots.
#[derive(Debug, Default)]
pub(super) struct Slots(Vec<u64>);

impl FromIterator<u32> for Slots {
    fn from_iter<I: IntoIterator<Item = u32>>(slots: I) -> Self {
        let mut all = Self::default();
        slots.into_iter().for_each(|slot| all.insert(slot));
        all
    }
}

impl Slots {
    pub(super) fn insert(&mut self, slot: u32) {
        let word = slot as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (slot % 64);
    }

    /// Whether it was there.
    #[inline]
    pub(super) fn remove(&mut self, slot: u32) -> bool {
        let was = self.contains(slot);
        if was {
            self.0[slot as usize / 64] &= !(1 << (slot % 64));
        }
        was
    }

    #[inline]
    pub(super) fn contains(&self, slot: u32) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// The lowest slot from `slot` on that is here and not in `other`.
    pub(super) fn next_without(&self, other: &Self, slot: u32) -> Option<u32> {
        let first = slot as usize / 64;
        let mut mask = u64::MAX << (slot % 64);
        for (index, word) in self.0.iter().enumerate().skip(first) {
            let left = word & !other.0.get(index).unwrap_or(&0) & mask;
            if left != 0 {
                return Some(index as u32 * 64 + left.trailing_zeros());
            }
            mask = u64::MAX;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::testing::Sequence;
    use std::collections::BTreeSet;

    /// The naive twin: ordered sets of numbers.
    #[test]
    fn it_does_what_a_set_of_numbers_does() {
        let mut random = Sequence::new(5);
        let (mut slots, mut others) = (Slots::default(), Slots::default());
        let (mut twin, mut other_twin) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..5_000 {
            let slot = random.below(700) as u32;
            match random.below(4) {
                0 => assert_eq!(slots.remove(slot), twin.remove(&slot)),
                1 => {
                    others.insert(slot);
                    other_twin.insert(slot);
                }
                2 => assert_eq!(others.remove(slot), other_twin.remove(&slot)),
                _ => {
                    slots.insert(slot);
                    twin.insert(slot);
                }
            }
            let slot = random.below(1_000) as u32;
            assert_eq!(slots.contains(slot), twin.contains(&slot));
            let next = twin.range(slot..).find(|slot| !other_twin.contains(slot));
            assert_eq!(slots.next_without(&others, slot), next.copied());
        }
    }
}
