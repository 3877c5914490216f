//! Who owns the connections, in a word of memory that the processes share.
//!
//! The predecessor, its successor and, where that is not its child, the predecessor's supervisor
//! have it. Each change is one compare-and-swap, so of those who want the connections exactly one
//! wins, whoever dies meanwhile.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::memory::SharedWord;

/// Who owns the connections: the values of the shared word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The predecessor.
    Preparing,
    /// The predecessor, until the successor takes them.
    Offered,
    /// The successor.
    Taken,
    /// The predecessor, for good.
    Revoked,
}

impl Ownership {
    /// The word's value.
    fn word(self) -> u32 {
        match self {
            Self::Preparing => 0,
            Self::Offered => 1,
            Self::Taken => 2,
            Self::Revoked => 3,
        }
    }
}

/// The shared word.
#[derive(Debug)]
pub struct OwnershipWord(SharedWord);

impl OwnershipWord {
    /// A new one: the predecessor's.
    ///
    /// # Errors
    /// No descriptor or no memory left.
    pub fn create() -> io::Result<Self> {
        SharedWord::create().map(Self)
    }

    /// The one of another process, whose descriptor came from there.
    ///
    /// # Errors
    /// It is no shared word; no memory left.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        SharedWord::from_fd(fd).map(Self)
    }

    /// The predecessor lets the successor take them; false if they are no more the predecessor's
    /// to offer.
    #[must_use]
    pub fn offer(&self) -> bool {
        self.change(&[Ownership::Preparing], Ownership::Offered)
    }

    /// The successor takes them; whether they are its own now. An orphaned one, whose predecessor
    /// is dead, needs no offer.
    #[must_use]
    pub fn take(&self, orphaned: bool) -> bool {
        let from: &[Ownership] = match orphaned {
            true => &[Ownership::Preparing, Ownership::Offered],
            false => &[Ownership::Offered],
        };
        self.change(from, Ownership::Taken)
    }

    /// The predecessor, or its supervisor for it, takes them back; whether they are the
    /// predecessor's for good.
    #[must_use]
    pub fn revoke(&self) -> bool {
        self.change(&[Ownership::Preparing, Ownership::Offered], Ownership::Revoked)
            || self.0.load() == Ownership::Revoked.word()
    }

    fn change(&self, from: &[Ownership], to: Ownership) -> bool {
        // In the order in which they follow each other, so that a change meanwhile is met, too.
        from.iter().any(|from| self.0.compare_exchange(from.word(), to.word()).is_ok())
    }
}

impl AsFd for OwnershipWord {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> (OwnershipWord, OwnershipWord) {
        let ours = OwnershipWord::create().unwrap();
        let copy = ours.as_fd().try_clone_to_owned().unwrap();
        let theirs = OwnershipWord::from_fd(copy).unwrap();
        (ours, theirs)
    }

    #[test]
    fn only_what_is_offered_is_taken_but_by_an_orphan() {
        let (predecessor, successor) = shared();
        assert!(!successor.take(false));
        assert!(predecessor.offer());
        assert!(!predecessor.offer(), "it is offered already");
        assert!(successor.take(false));
        assert!(!predecessor.revoke());
        let (_, orphan) = shared();
        assert!(orphan.take(true));
        let (predecessor, orphan) = shared();
        assert!(predecessor.offer());
        assert!(orphan.take(true));
    }

    #[test]
    fn what_is_taken_back_stays() {
        for offered in [false, true] {
            let (predecessor, successor) = shared();
            assert_eq!(offered, offered && predecessor.offer());
            assert!(predecessor.revoke());
            assert!(!successor.take(false));
            assert!(!successor.take(true));
            assert!(!predecessor.offer());
            assert!(predecessor.revoke(), "it is the predecessor's");
        }
    }
}
