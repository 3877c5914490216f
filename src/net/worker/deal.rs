//! Which of the successor's workers gets which connection: always the one that has the fewest of
//! ours, so that each has as many as the others (within one) whichever slots are in use here.

/// Stands for no lane in [`Deal::lanes`]; there are fewer lanes than that.
const NONE: u16 = u16::MAX;

/// The lanes that one worker has dealt its connections to.
///
/// Invariant: `counts[lane]` is how often `lane` is in `lanes`.
#[derive(Debug)]
pub(super) struct Deal {
    /// By slot of the slab: the lane, two bytes each.
    lanes: Vec<u16>,
    counts: Vec<u32>,
    /// Of lanes that have equally few the first from this one on, so that the odd connections of
    /// several workers do not all go to the same one.
    first: usize,
}

impl Deal {
    /// Nothing is dealt yet to any of `lanes`, at least one; `worker` deals.
    pub(super) fn new(lanes: usize, worker: usize) -> Self {
        Self { lanes: Vec::new(), counts: vec![0; lanes], first: worker % lanes.max(1) }
    }

    /// Deals a slot to the lane with the fewest.
    pub(super) fn deal(&mut self, slot: u32) -> usize {
        let count = self.counts.len();
        let from_first = |lane: usize| (lane + count - self.first) % count;
        let lane = (0..count).min_by_key(|&lane| (self.counts[lane], from_first(lane)));
        let lane = lane.expect("there is a lane");
        let slot = slot as usize;
        if slot >= self.lanes.len() {
            self.lanes.resize(slot + 1, NONE);
        }
        debug_assert_eq!(self.lanes[slot], NONE, "each slot is dealt once");
        self.lanes[slot] = lane as u16;
        self.counts[lane] += 1;
        lane
    }

    /// The lane a slot was dealt to.
    pub(super) fn lane_of(&self, slot: u32) -> Option<usize> {
        self.lanes.get(slot as usize).filter(|lane| **lane != NONE).map(|lane| usize::from(*lane))
    }

    /// How many connections a lane has.
    pub(super) fn count(&self, lane: usize) -> u32 {
        self.counts[lane]
    }

    /// How many connections all lanes have.
    pub(super) fn total(&self) -> usize {
        self.counts.iter().map(|count| *count as usize).sum()
    }

    /// The connection in this slot has ended: its place in the lane is for another.
    pub(super) fn give_back(&mut self, slot: u32) -> Option<usize> {
        let lane = self.lane_of(slot)?;
        self.lanes[slot as usize] = NONE;
        self.counts[lane] -= 1;
        Some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::testing::Sequence;

    /// What all of `workers` workers, each with these slots in use, deal to each lane.
    fn dealt(workers: usize, lanes: usize, slots: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut sums = vec![0; lanes];
        for worker in 0..workers {
            let mut deal = Deal::new(lanes, worker);
            for slot in (0..1_000).filter(|slot| slots(*slot)) {
                deal.deal(slot);
            }
            assert!(spread(&deal.counts) <= 1, "{:?}", deal.counts);
            sums.iter_mut().zip(&deal.counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    }

    fn spread(counts: &[u32]) -> u32 {
        counts.iter().max().unwrap() - counts.iter().min().unwrap()
    }

    #[test]
    fn whatever_slots_live_all_lanes_get_as_many() {
        for (workers, lanes) in [(1, 4), (4, 1), (2, 3), (3, 2), (4, 4), (1, 512)] {
            for every in [1, 2, 3, 4, 12, 512] {
                let sums = dealt(workers, lanes, |slot| slot % every == 0);
                let workers = workers as u32;
                assert!(spread(&sums) <= workers, "{workers} to {lanes}, {every}th: {sums:?}");
                assert_eq!(sums.iter().sum::<u32>(), workers * 1_000_u32.div_ceil(every));
            }
        }
        // The odd ones of several workers go to several lanes.
        assert_eq!(dealt(4, 4, |slot| slot == 7), [1, 1, 1, 1]);
    }

    #[test]
    fn whoever_ends_leaves_its_place_to_the_next() {
        let mut deal = Deal::new(3, 0);
        let mut random = Sequence::new(7);
        let mut live: Vec<u32> = (0..90).collect();
        for slot in &live {
            deal.deal(*slot);
        }
        // All of one lane go.
        let gone: Vec<u32> = live.extract_if(.., |slot| deal.lane_of(*slot) == Some(1)).collect();
        gone.iter().for_each(|slot| assert_eq!(deal.give_back(*slot), Some(1)));
        assert_eq!(deal.counts, [30, 0, 30]);
        assert_eq!((deal.give_back(gone[0]), deal.lane_of(gone[0])), (None, None));
        // As many come, anywhere.
        for slot in 1_000..1_030 {
            assert_eq!(deal.deal(slot), 1);
        }
        for _ in 0..1_000 {
            let slot = live.swap_remove(random.below(live.len() as u64) as usize);
            let lane = deal.give_back(slot);
            assert_eq!(Some(deal.deal(slot)), lane, "it was the only one with a place");
            live.push(slot);
        }
        assert_eq!(deal.counts, [30, 30, 30]);
    }
}
