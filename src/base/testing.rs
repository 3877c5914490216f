//! What the unit tests of several layers share.

use super::snapshot::{Reader, SnapshotError};

/// A deterministic sequence of pseudo-random numbers (SplitMix64), for the runs that compare a
/// type with its naive twin: a failure repeats from its seed.
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; `bound` is small, so that the bias of the remainder is too.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What has to hold of every loader: it takes all of what was saved; it refuses every part of it;
/// and whatever a damaged byte makes of it, it neither panics nor holds more than there are bytes
/// for. `resave` loads, and saves again.
pub(crate) fn check_loader(
    saved: &[u8],
    resave: impl Fn(&mut Reader<'_>) -> Result<Vec<u8>, SnapshotError>,
) {
    let mut reader = Reader::new(saved);
    assert_eq!(resave(&mut reader).as_deref(), Ok(saved), "what was saved is loaded");
    assert_eq!(reader.finish(), Ok(()));
    for end in 0..saved.len() {
        assert!(resave(&mut Reader::new(&saved[..end])).is_err(), "cut at {end}: {saved:x?}");
    }
    for at in 0..saved.len() {
        for flip in 1..=u8::MAX {
            let mut damaged = saved.to_vec();
            damaged[at] ^= flip;
            if let Ok(again) = resave(&mut Reader::new(&damaged)) {
                assert!(again.len() <= saved.len(), "byte {at} with {flip:x}: {saved:x?}");
            }
        }
    }
}
