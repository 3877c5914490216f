//! A slab: values in numbered slots, found by a key that knows whether the slot has been given to
//! somebody else since.
//!
//! Invariant: a slot is occupied if and only if it is not on the free list, and no key with a
//! vacant slot's current generation has been handed out. So one comparison of generations tells
//! a live key from a stale one.

use std::fmt;
use std::num::NonZeroU32;

/// Slots of a page. A page is allocated whole, when the pages before it are full, and never moves:
/// growth copies nothing and never holds twice the memory.
const PAGE_SLOTS: usize = 256;

/// Generations count from 1 to this, then start over. The value above it is left out so that
/// [`Key::to_u64`] stays below [`Key::RESERVED`].
const GENERATION_MAX: u32 = u32::MAX - 1;

const FREE_LIST_END: u32 = u32::MAX;

/// Names one value of a [`Slab`] for as long as it is in there, and nothing afterwards.
///
/// A slot's generation starts over after 4,294,967,294 removals from that one slot; only a stale
/// key kept for exactly that many could then be mistaken for a live one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    index: u32,
    generation: NonZeroU32,
}

impl Key {
    /// [`Key::to_u64`] is below this for every key; from here on, numbers are free for other
    /// uses (an event loop's tokens for its listener and its waker).
    pub const RESERVED: u64 = (u32::MAX as u64) << 32;

    /// A key that no slab hands out.
    pub const NOBODY: Self = Self { index: FREE_LIST_END, generation: NonZeroU32::MIN };

    /// The slot's number. Two live keys of one slab never share it.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Which of the slot's successive values this is, from 1.
    pub fn generation(self) -> u32 {
        self.generation.get()
    }

    /// The key as one number: generation in the upper half, index in the lower.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation.get()) << 32 | u64::from(self.index)
    }

    /// The inverse of [`Key::to_u64`]; `None` for what it never returns.
    pub fn from_u64(number: u64) -> Option<Self> {
        if number >= Self::RESERVED {
            return None;
        }
        let generation = NonZeroU32::new((number >> 32) as u32)?;
        // The lower half is the index.
        let index = number as u32;
        Some(Self { index, generation })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}#{})", self.index, self.generation)
    }
}

struct Slot<T> {
    /// Of the value in here, or, while vacant, of the next one.
    generation: NonZeroU32,
    /// While vacant: the next slot of the free list.
    next_free: u32,
    value: Option<T>,
}

/// Values of one type, each found by its [`Key`] in constant time.
///
/// Costs 8 bytes a slot beyond `Option<T>`. Memory is kept for reuse until the slab is dropped.
pub struct Slab<T> {
    pages: Vec<Box<[Slot<T>; PAGE_SLOTS]>>,
    /// First slot of the free list, most recently freed first: its memory is likely in a cache.
    free: u32,
    len: usize,
}

impl<T> Slab<T> {
    /// An empty slab; allocates nothing.
    pub const fn new() -> Self {
        Self { pages: Vec::new(), free: FREE_LIST_END, len: 0 }
    }

    /// Number of values in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of `key`, or `None` if it has been removed.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        let slot = &self.pages.get(page_of(key.index))?[slot_of(key.index)];
        if slot.generation != key.generation {
            return None;
        }
        slot.value.as_ref()
    }

    /// The value of `key`, or `None` if it has been removed.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = &mut self.pages.get_mut(page_of(key.index))?[slot_of(key.index)];
        if slot.generation != key.generation {
            return None;
        }
        slot.value.as_mut()
    }

    /// Whether `key` still names a value.
    pub fn contains(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// Takes a value in and returns its key.
    ///
    /// # Panics
    /// With four billion values in it.
    pub fn insert(&mut self, value: T) -> Key {
        self.insert_with_key(|_| value)
    }

    /// Takes in the value that `make` returns for its own key, and returns that key. If `make`
    /// panics, nothing has changed.
    ///
    /// # Panics
    /// With four billion values in it.
    pub fn insert_with_key(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        if self.free == FREE_LIST_END {
            self.add_page();
        }
        let index = self.free;
        let slot = &mut self.pages[page_of(index)][slot_of(index)];
        let generation = slot.generation;
        let key = Key { index, generation };
        slot.value = Some(make(key));
        self.free = slot.next_free;
        self.len += 1;
        key
    }

    /// Takes the value of `key` out; `None` if that has already happened.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.pages.get_mut(page_of(key.index))?;
        let slot = &mut slot[slot_of(key.index)];
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = following(slot.generation);
        slot.next_free = self.free;
        self.free = key.index;
        self.len -= 1;
        Some(value)
    }

    /// The key in use with the lowest index that is at least `index`. With it a walk can stop,
    /// let values come and go, and go on at `key.index() + 1` later.
    pub fn key_from(&self, index: u32) -> Option<Key> {
        let first_page = page_of(index);
        let mut skip = slot_of(index);
        for (page, slots) in self.pages.iter().enumerate().skip(first_page) {
            for (slot, content) in slots.iter().enumerate().skip(skip) {
                if content.value.is_some() {
                    return Some(key_of(page, slot, content.generation));
                }
            }
            skip = 0;
        }
        None
    }

    /// All values with their keys, by index.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let pages = self.pages.iter().enumerate();
        pages.flat_map(|(page, slots)| {
            slots.iter().enumerate().filter_map(move |(slot, content)| {
                let key = key_of(page, slot, content.generation);
                content.value.as_ref().map(|value| (key, value))
            })
        })
    }

    /// All values with their keys, by index.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        let pages = self.pages.iter_mut().enumerate();
        pages.flat_map(|(page, slots)| {
            let slots = slots.iter_mut().enumerate();
            slots.filter_map(move |(slot, content)| {
                let key = key_of(page, slot, content.generation);
                content.value.as_mut().map(|value| (key, value))
            })
        })
    }

    /// All keys in use, by index.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.iter().map(|(key, _)| key)
    }

    /// Adds a page of vacant slots to the (empty) free list, lowest index first.
    fn add_page(&mut self) {
        let first = self.pages.len() * PAGE_SLOTS;
        let last = first + PAGE_SLOTS - 1;
        assert!(last < FREE_LIST_END as usize, "a slab of u32 indices is full");
        let slots = (first..=last).map(|index| Slot {
            generation: NonZeroU32::MIN,
            next_free: if index == last { FREE_LIST_END } else { index as u32 + 1 },
            value: None,
        });
        // Through a Vec: an array literal would be built on the stack first.
        let page: Box<[Slot<T>]> = slots.collect();
        let Ok(page) = page.try_into() else {
            unreachable!("exactly PAGE_SLOTS slots were collected")
        };
        self.pages.push(page);
        self.free = first as u32;
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

fn page_of(index: u32) -> usize {
    index as usize / PAGE_SLOTS
}

fn slot_of(index: u32) -> usize {
    index as usize % PAGE_SLOTS
}

fn key_of(page: usize, slot: usize, generation: NonZeroU32) -> Key {
    Key { index: (page * PAGE_SLOTS + slot) as u32, generation }
}

fn following(generation: NonZeroU32) -> NonZeroU32 {
    match generation.get() {
        GENERATION_MAX => NonZeroU32::MIN,
        _ => generation.saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::testing::Sequence;
    use std::collections::HashMap;

    #[test]
    fn a_stale_key_names_nothing_even_when_its_slot_is_reused() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(second.index(), first.index());
        assert_ne!(second, first);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn keys_survive_the_way_through_a_number_and_leave_the_top_free() {
        let mut slab = Slab::new();
        for value in 0..1_000 {
            let key = slab.insert(value);
            assert_eq!(Key::from_u64(key.to_u64()), Some(key));
        }
        let largest = Key { index: u32::MAX, generation: NonZeroU32::new(GENERATION_MAX).unwrap() };
        assert_eq!(largest.to_u64(), Key::RESERVED - 1);
        assert_eq!(Key::from_u64(largest.to_u64()), Some(largest));
        assert_eq!(Key::from_u64(Key::RESERVED), None);
        assert_eq!(Key::from_u64(u64::MAX), None);
        assert_eq!(Key::from_u64(5), None, "generation 0 does not exist");
        assert_eq!(size_of::<Option<Key>>(), 8);
    }

    #[test]
    fn made_up_keys_of_vacant_or_missing_slots_name_nothing() {
        let mut slab = Slab::new();
        let key = slab.insert(1);
        let vacant = Key { index: key.index + 1, ..key };
        let beyond = Key { index: u32::MAX, ..key };
        for key in [vacant, beyond] {
            assert_eq!(slab.get(key), None);
            assert_eq!(slab.get_mut(key), None);
            assert_eq!(slab.remove(key), None);
        }
    }

    #[test]
    fn the_generation_starts_over_below_the_reserved_one() {
        let mut slab = Slab::new();
        let key = slab.insert(());
        slab.remove(key);
        slab.pages[0][0].generation = NonZeroU32::new(GENERATION_MAX).unwrap();
        let last = slab.insert(());
        assert!(last.to_u64() < Key::RESERVED);
        slab.remove(last);
        assert_eq!(slab.insert(()).generation(), 1);
    }

    #[test]
    fn growth_does_not_move_values() {
        let mut slab = Slab::new();
        let first = slab.insert(0_usize);
        let address: *const usize = slab.get(first).unwrap();
        for value in 1..10_000 {
            slab.insert(value);
        }
        assert!(std::ptr::eq(address, slab.get(first).unwrap()));
        assert_eq!(slab.pages.len(), 10_000_usize.div_ceil(PAGE_SLOTS));
    }

    #[test]
    fn a_value_may_know_its_key() {
        let mut slab = Slab::new();
        let key = slab.insert_with_key(|key| key);
        assert_eq!(slab.get(key), Some(&key));
    }

    #[test]
    fn a_panic_while_making_the_value_changes_nothing() {
        let mut slab = Slab::new();
        let kept = slab.insert(1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            slab.insert_with_key(|_| panic!("from the user's code"))
        }));
        assert!(panicked.is_err());
        assert_eq!(slab.len(), 1);
        let next = slab.insert(2);
        assert_eq!(next.index(), kept.index() + 1);
        assert_eq!(slab.iter().map(|(_, v)| *v).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_walk_by_index_meets_every_value_while_others_go() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..700).map(|value| slab.insert(value)).collect();
        for key in keys.iter().skip(1).step_by(2) {
            slab.remove(*key);
        }
        let mut met = Vec::new();
        let mut index = 0;
        while let Some(key) = slab.key_from(index) {
            met.push(slab.remove(key).unwrap());
            index = key.index() + 1;
        }
        assert_eq!(met, (0..700).step_by(2).collect::<Vec<_>>());
        assert!(slab.is_empty());
        assert_eq!(slab.key_from(0), None);
        assert_eq!(slab.key_from(u32::MAX), None);
    }

    /// The naive twin: a HashMap from key to value.
    #[test]
    fn it_does_what_a_hash_map_does() {
        for seed in 0..8 {
            let mut random = Sequence::new(seed);
            let mut slab = Slab::new();
            let mut twin = HashMap::new();
            let mut ever = Vec::new();
            for step in 0..20_000_u64 {
                // Phases of growth and of shrinking, so that pages fill and drain.
                let growing = (step / 4_000) % 2 == 0;
                let insert = random.below(10) < if growing { 7 } else { 3 };
                if insert || ever.is_empty() {
                    let key = slab.insert(step);
                    assert_eq!(twin.insert(key, step), None, "{key:?} handed out twice");
                    ever.push(key);
                } else {
                    let key = ever[random.below(ever.len() as u64) as usize];
                    assert_eq!(slab.get(key), twin.get(&key));
                    if random.below(4) == 0 {
                        if let Some(value) = slab.get_mut(key) {
                            *value += 1;
                        }
                        twin.entry(key).and_modify(|value| *value += 1);
                    }
                    assert_eq!(slab.remove(key), twin.remove(&key));
                }
                assert_eq!(slab.len(), twin.len());
            }
            assert!(slab.iter().all(|(key, value)| twin.get(&key) == Some(value)));
            assert_eq!(slab.iter().count(), twin.len());
            assert_eq!(slab.keys().count(), twin.len());
            let by_index = slab.keys().map(Key::index).collect::<Vec<_>>();
            assert!(by_index.is_sorted());
            let mut seen = 0;
            for (key, value) in slab.iter_mut() {
                assert_eq!(twin.get(&key), Some(&*value));
                seen += 1;
            }
            assert_eq!(seen, twin.len());
        }
    }
}
