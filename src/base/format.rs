//! The formats that a connection's state can be written in.
//!
//! A state moves to a process of another build, which may be newer or older. The two agree on the
//! newest format that the one writes and the other reads (`Hello` says which those are), so
//! that each build gets along with the one before it in both directions. The [`Writer`] knows which format it
//! writes and the [`Reader`] which it reads: a `save` and its `load` ask them.
//!
//! What may be skipped can be added to a format at any time, as an optional record
//! ([`Writer::record`]). Everything else needs a new format:
//!
//! 1. Here, add its constant, make it [`Format::NEWEST`], and the one before it [`Format::OLDEST`];
//!    `NEXT` is the one behind it again.
//! 2. Below, give the difference a name, as a question to the format (`has_…`). Ask it in the
//!    `save` *and* in the `load` of what is different, and nowhere else.
//! 3. Of a format that is no longer read, drop the questions whose answer is always yes.
//! 4. `cargo test --test upgrades golden -- --ignored` writes `tests/golden/format-N`. From its release on
//!    what is in there is never changed or removed.
//!
//! The tests' feature `format-next` does just that with a format of no release, so that two builds
//! that really differ can hand over to each other.
//!
//! [`Writer`]: super::snapshot::Writer
//! [`Writer::record`]: super::snapshot::Writer::record
//! [`Reader`]: super::snapshot::Reader

use std::fmt;

/// A format that this build writes and reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Format(u32);

impl Format {
    /// That of version 0.1.
    pub const ONE: Self = Self(1);

    /// One that is in no release: what the tests' feature `format-next` adds.
    const NEXT: Self = Self(2);

    /// The oldest one that this build writes and reads.
    pub const OLDEST: Self = Self::ONE;

    /// The newest one that this build writes and reads.
    pub const NEWEST: Self = if cfg!(feature = "format-next") { Self::NEXT } else { Self::ONE };

    /// The numbers of the oldest and the newest.
    pub const RANGE: (u32, u32) = (Self::OLDEST.0, Self::NEWEST.0);

    /// The format of this number, if this build has it.
    pub fn from_number(number: u32) -> Option<Self> {
        let (oldest, newest) = Self::RANGE;
        (oldest..=newest).contains(&number).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// All that this build has, the oldest first.
    pub fn all() -> impl Iterator<Item = Self> {
        let (oldest, newest) = Self::RANGE;
        (oldest..=newest).map(Self)
    }

    /// The newest that this build and one that has `theirs`, the oldest and the newest, have both.
    pub fn common(theirs: (u32, u32)) -> Option<Self> {
        newest_common(Self::RANGE, theirs).and_then(Self::from_number)
    }

    // ---- what is different from when on ----

    /// Points in time of a session are varints; before, they were of four bytes.
    pub(crate) fn has_short_times(self) -> bool {
        self >= Self::NEXT
    }

    /// A connection's peer has a record of its own; before, it was a field of `Who`.
    pub(crate) fn has_peer_record(self) -> bool {
        self >= Self::NEXT
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The largest number in both ranges, each from its first to its second.
fn newest_common(ours: (u32, u32), theirs: (u32, u32)) -> Option<u32> {
    let (oldest, newest) = (ours.0.max(theirs.0), ours.1.min(theirs.1));
    (oldest <= newest).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_both_have() {
        for (ours, theirs, expected) in [
            ((1, 1), (1, 1), Some(1)),
            ((1, 1), (1, 2), Some(1)),
            ((1, 2), (1, 1), Some(1)),
            ((1, 2), (1, 2), Some(2)),
            ((1, 2), (2, 3), Some(2)),
            ((2, 3), (1, 2), Some(2)),
            ((1, 1), (2, 3), None),
            ((2, 3), (1, 1), None),
            ((1, 9), (4, 5), Some(5)),
            ((4, 5), (0, u32::MAX), Some(5)),
            // Nonsense has nothing in common with anybody.
            ((1, 2), (2, 1), None),
            ((1, 2), (0, 0), None),
        ] {
            assert_eq!(newest_common(ours, theirs), expected, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn this_build_has_what_it_says_and_the_one_before() {
        let (oldest, newest) = Format::RANGE;
        let numbers: Vec<u32> = Format::all().map(Format::number).collect();
        assert_eq!(numbers, (oldest..=newest).collect::<Vec<_>>());
        assert!(newest - oldest <= 1, "older ones are of no use any more");
        assert_eq!(Format::from_number(oldest - 1), None);
        assert_eq!(Format::from_number(newest + 1), None);
        assert_eq!(Format::common(Format::RANGE), Some(Format::NEWEST));
    }
}
