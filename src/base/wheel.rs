//! A hashed timer wheel: what is due when, at a constant cost an entry.
//!
//! There is no cancelling. Whoever owns the key remembers the tick its live entry stands for and
//! ignores entries of other ticks: moving a deadline later costs nothing until the old entry comes
//! up, and only moving it earlier needs a second entry.
//!
//! Invariant: an entry waits in the slot of the first tick at which it may fire, modulo the
//! number of slots; a slot's bit in `occupied` is set if and only if the slot is not empty.

use crate::base::tick::Tick;

/// Slots of the wheel: the horizon, 1,024 ticks or 102.4 s. An entry further away is met and left
/// in place once each time the wheel turns past it.
const SLOTS: usize = 1_024;

const WORD_BITS: usize = u64::BITS as usize;

/// An emptied slot gives its memory back when it had room for more than this many entries.
const SLOT_CAPACITY_KEPT: usize = 16;

/// Entries of a tick and a key, given back when their tick has come.
///
/// An entry takes four bytes and the size of a key.
#[derive(Debug)]
pub struct Wheel<K> {
    /// Everything due at or before this tick has been given back.
    now: Tick,
    slots: Box<[Vec<(Tick, K)>]>,
    occupied: [u64; SLOTS / WORD_BITS],
    len: usize,
}

impl<K: Copy> Wheel<K> {
    /// An empty wheel that stands at `now`.
    pub fn new(now: Tick) -> Self {
        Self {
            now,
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; SLOTS / WORD_BITS],
            len: 0,
        }
    }

    /// Number of entries, stale ones included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry for `key` at `at`. One whose tick has already been passed fires at the next
    /// tick, under its own `at`; one at [`Tick::NEVER`] is not kept.
    pub fn insert(&mut self, at: Tick, key: K) {
        if at == Tick::NEVER {
            return;
        }
        let fires = at.max(Tick::new(self.now.ticks().saturating_add(1)));
        let slot = slot_of(fires);
        self.slots[slot].push((at, key));
        self.occupied[slot / WORD_BITS] |= 1 << (slot % WORD_BITS);
        self.len += 1;
    }

    /// Moves on to `now` and appends all entries due by then to `due`, in no promised order. Does
    /// nothing if the wheel is already there.
    pub fn advance(&mut self, now: Tick, due: &mut Vec<(Tick, K)>) {
        let mut left = (now.ticks().saturating_sub(self.now.ticks()) as usize).min(SLOTS);
        let mut slot = (slot_of(self.now) + 1) % SLOTS;
        while let Some(distance) = self.distance_to_occupied(slot)
            && distance < left
        {
            slot = (slot + distance) % SLOTS;
            self.empty_slot(slot, now, due);
            slot = (slot + 1) % SLOTS;
            left -= distance + 1;
        }
        self.now = self.now.max(now);
    }

    /// The tick by which [`Wheel::advance`] should next be called, always after the one it was
    /// last called for; `None` if there is no entry. Nothing is due before it. It is exact within
    /// the horizon of 1,024 ticks; an entry further away may be announced whole turns early.
    pub fn next(&self) -> Option<Tick> {
        let distance = self.distance_to_occupied((slot_of(self.now) + 1) % SLOTS)?;
        let ticks = self.now.ticks().saturating_add(1 + distance as u32);
        Some(Tick::new(ticks))
    }

    /// How many slots after `from`, in turning order, the first occupied one lies.
    fn distance_to_occupied(&self, from: usize) -> Option<usize> {
        const WORDS: usize = SLOTS / WORD_BITS;
        let bits_from = u64::MAX << (from % WORD_BITS);
        // The word `from` is in comes first with its upper part, and last with its lower part.
        (0..=WORDS).find_map(|turn| {
            let index = (from / WORD_BITS + turn) % WORDS;
            let word = match turn {
                0 => self.occupied[index] & bits_from,
                WORDS => self.occupied[index] & !bits_from,
                _ => self.occupied[index],
            };
            (word != 0).then(|| {
                let slot = index * WORD_BITS + word.trailing_zeros() as usize;
                (slot + SLOTS - from) % SLOTS
            })
        })
    }

    /// Moves the entries of one slot that are due to `due`; those of later turns stay.
    fn empty_slot(&mut self, slot: usize, now: Tick, due: &mut Vec<(Tick, K)>) {
        let entries = &mut self.slots[slot];
        let before = entries.len();
        due.extend(entries.extract_if(.., |(at, _)| *at <= now));
        self.len -= before - entries.len();
        if !entries.is_empty() {
            return;
        }
        if entries.capacity() > SLOT_CAPACITY_KEPT {
            *entries = Vec::new();
        }
        self.occupied[slot / WORD_BITS] &= !(1 << (slot % WORD_BITS));
    }
}

fn slot_of(tick: Tick) -> usize {
    tick.ticks() as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::Key;
    use crate::base::testing::Sequence;

    fn advance(wheel: &mut Wheel<u64>, now: u32) -> Vec<(u32, u64)> {
        let mut due = Vec::new();
        wheel.advance(Tick::new(now), &mut due);
        due.into_iter().map(|(at, key)| (at.ticks(), key)).collect()
    }

    #[test]
    fn an_entry_fires_at_its_tick_and_once() {
        let mut wheel = Wheel::new(Tick::START);
        wheel.insert(Tick::new(3), 1);
        assert_eq!(wheel.next(), Some(Tick::new(3)));
        assert_eq!(advance(&mut wheel, 2), []);
        assert_eq!(advance(&mut wheel, 3), [(3, 1)]);
        assert_eq!(advance(&mut wheel, 5_000), []);
        assert_eq!(wheel.next(), None);
        assert!(wheel.is_empty());
    }

    #[test]
    fn an_entry_of_the_past_fires_at_the_next_tick_under_its_own() {
        let mut wheel = Wheel::new(Tick::new(2_000));
        wheel.insert(Tick::new(2_000), 1);
        wheel.insert(Tick::new(7), 2);
        assert_eq!(wheel.next(), Some(Tick::new(2_001)));
        assert_eq!(advance(&mut wheel, 2_000), []);
        assert_eq!(advance(&mut wheel, 2_001), [(2_000, 1), (7, 2)]);
    }

    #[test]
    fn entries_beyond_the_horizon_wait_for_their_turn() {
        let horizon = SLOTS as u32;
        let mut wheel = Wheel::new(Tick::new(10));
        let at = 10 + 3 * horizon + 5;
        wheel.insert(Tick::new(at), 1);
        wheel.insert(Tick::new(10 + horizon), 2);
        assert_eq!(wheel.next(), Some(Tick::new(15)), "early, but not late");
        assert_eq!(advance(&mut wheel, 15), []);
        assert_eq!(advance(&mut wheel, 10 + horizon - 1), []);
        assert_eq!(advance(&mut wheel, 10 + horizon), [(10 + horizon, 2)]);
        assert_eq!(advance(&mut wheel, at - 1), []);
        assert_eq!(wheel.next(), Some(Tick::new(at)));
        assert_eq!(advance(&mut wheel, at), [(at, 1)]);
    }

    #[test]
    fn a_long_sleep_gives_back_everything_due() {
        let mut wheel = Wheel::new(Tick::START);
        for at in 1..=5_000 {
            wheel.insert(Tick::new(at), u64::from(at));
        }
        assert_eq!(advance(&mut wheel, 4_500).len(), 4_500);
        assert_eq!(wheel.len(), 500);
        assert_eq!(wheel.next(), Some(Tick::new(4_501)));
    }

    #[test]
    fn never_is_not_kept_and_time_does_not_go_back() {
        let mut wheel = Wheel::new(Tick::new(100));
        wheel.insert(Tick::NEVER, 1);
        assert!(wheel.is_empty());
        wheel.insert(Tick::new(101), 2);
        assert_eq!(advance(&mut wheel, 50), []);
        assert_eq!(wheel.next(), Some(Tick::new(101)));
    }

    #[test]
    fn memory_goes_back_when_a_crowded_slot_is_emptied() {
        assert_eq!(size_of::<(Tick, Key)>(), 12);
        let mut wheel = Wheel::new(Tick::START);
        for key in 0..10_000 {
            wheel.insert(Tick::new(9), key);
        }
        assert!(wheel.slots[9].capacity() >= 10_000);
        assert_eq!(advance(&mut wheel, 9).len(), 10_000);
        assert_eq!(wheel.slots[9].capacity(), 0);
    }

    /// The naive twin: a Vec that is searched.
    #[test]
    fn it_does_what_a_searched_list_does() {
        for seed in 0..8 {
            let mut random = Sequence::new(seed);
            // Near a multiple of the horizon, and near the end of time.
            let mut now = [1_000, u32::MAX - 400_000][seed as usize % 2];
            let mut wheel = Wheel::new(Tick::new(now));
            let mut twin: Vec<(u32, u64)> = Vec::new();
            for step in 0..20_000 {
                if random.below(3) > 0 {
                    let ahead = match random.below(4) {
                        0 => random.below(3_000),
                        _ => random.below(100),
                    };
                    // Some lie a little in the past.
                    let at = (now - 5).saturating_add(ahead as u32);
                    wheel.insert(Tick::new(at), step);
                    twin.push((at, step));
                } else {
                    let next = twin.iter().map(|(at, _)| *at.max(&(now + 1))).min();
                    let announced = wheel.next().map(Tick::ticks);
                    assert_eq!(announced.is_some(), next.is_some());
                    assert!(announced > Some(now) || announced.is_none());
                    assert!(announced <= next, "{announced:?} is later than {next:?}");
                    let horizon = now + SLOTS as u32;
                    if twin.iter().all(|(at, _)| *at <= horizon) {
                        assert_eq!(announced, next);
                    }
                    now += match random.below(50) {
                        0 => random.below(2_500) as u32,
                        _ => random.below(12) as u32,
                    };
                    let was = wheel.now.ticks();
                    let mut due = advance(&mut wheel, now);
                    due.sort_unstable();
                    let mut expected: Vec<_> =
                        twin.extract_if(.., |(at, _)| now > was && *at <= now).collect();
                    expected.sort_unstable();
                    assert_eq!(due, expected);
                }
                assert_eq!(wheel.len(), twin.len());
            }
            assert!(now < u32::MAX - 1_000, "the run stays clear of Tick::NEVER");
        }
    }
}
