//! What the unit tests of several layers share.

use super::shared::SharedBytes;
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
    check_loader_given(&[], saved, resave);
}

/// The same of one whose reader has been given these bodies.
pub(crate) fn check_loader_given(
    bodies: &[SharedBytes],
    saved: &[u8],
    resave: impl Fn(&mut Reader<'_>) -> Result<Vec<u8>, SnapshotError>,
) {
    let resave_bytes = |bytes: &[u8]| resave(&mut Reader::new(bytes).with_bodies(bodies));
    let mut reader = Reader::new(saved).with_bodies(bodies);
    assert_eq!(resave(&mut reader).as_deref(), Ok(saved), "what was saved is loaded");
    assert_eq!(reader.finish(), Ok(()));
    for end in 0..saved.len() {
        assert!(resave_bytes(&saved[..end]).is_err(), "cut at {end}: {saved:x?}");
    }
    for at in 0..saved.len() {
        for flip in 1..=u8::MAX {
            let mut damaged = saved.to_vec();
            damaged[at] ^= flip;
            if let Ok(again) = resave_bytes(&damaged) {
                assert!(again.len() <= saved.len(), "byte {at} with {flip:x}: {saved:x?}");
            }
        }
    }
}
