//! Who owns the connections: a word in memory that both processes share.
//!
//! ```text
//! PREPARING ──Offer──► OFFERED ──Take──► TAKEN
//!     │                   │                ▲
//!     ├──────Revoke───────┴──► REVOKED     │
//!     └──────TakeOver (from both)──────────┘
//! ```
//!
//! Each move is one compare-and-swap, so exactly one side wins, whoever dies in between: the
//! predecessor goes on only after REVOKED, the successor polls only after TAKEN, and neither state
//! is ever left.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::memory::SharedWord;

/// The predecessor owns, and prepares.
const PREPARING: u32 = 0;
/// The predecessor has stopped and leaves it to the successor.
const OFFERED: u32 = 1;
/// The successor owns.
const TAKEN: u32 = 2;
/// The predecessor owns, for good.
const REVOKED: u32 = 3;

/// What a side may try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// The predecessor's, when the successor has adopted all.
    Offer,
    /// The predecessor's, before it goes on as if nothing had happened.
    Revoke,
    /// The successor's, when it is offered all.
    Take,
    /// The successor's, when the predecessor has died.
    TakeOver,
}

impl Move {
    /// What `word` becomes by this move; `None` if the move is not open any more.
    pub(super) fn apply(self, word: u32) -> Option<u32> {
        match (self, word) {
            (Self::Offer, PREPARING) => Some(OFFERED),
            (Self::Revoke, PREPARING | OFFERED) => Some(REVOKED),
            (Self::Take, OFFERED) => Some(TAKEN),
            (Self::TakeOver, PREPARING | OFFERED) => Some(TAKEN),
            _ => None,
        }
    }
}

/// The word of one handover, as one side has it.
#[derive(Debug)]
pub struct Ownership {
    word: SharedWord,
}

impl Ownership {
    /// A new handover's, for the predecessor; a copy of its descriptor goes with PREPARE.
    ///
    /// # Errors
    /// See [`SharedWord::create`].
    pub fn create() -> io::Result<Self> {
        SharedWord::create().map(|word| Self { word })
    }

    /// That of the predecessor whose descriptor it is.
    ///
    /// # Errors
    /// See [`SharedWord::from_fd`].
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        SharedWord::from_fd(fd).map(|word| Self { word })
    }

    /// Makes a move; `false` if the other side has made one that rules it out.
    pub fn attempt(&self, attempt: Move) -> bool {
        let mut word = self.word.load();
        while let Some(next) = attempt.apply(word) {
            match self.word.compare_exchange(word, next) {
                Ok(()) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    /// Whether the successor owns the connections.
    pub fn is_taken(&self) -> bool {
        self.word.load() == TAKEN
    }
}

impl AsFd for Ownership {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.word.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn sides() -> (Ownership, Ownership) {
        let predecessor = Ownership::create().unwrap();
        let fd = predecessor.as_fd().try_clone_to_owned().unwrap();
        (predecessor, Ownership::from_fd(fd).unwrap())
    }

    #[test]
    fn what_is_offered_is_taken_once() {
        let (predecessor, successor) = sides();
        assert!(!successor.attempt(Move::Take), "not offered yet");
        assert!(predecessor.attempt(Move::Offer));
        assert!(successor.attempt(Move::Take));
        assert!(predecessor.is_taken());
        for late in [Move::Offer, Move::Revoke, Move::Take, Move::TakeOver] {
            assert!(!predecessor.attempt(late), "{late:?}");
        }
        assert!(predecessor.is_taken());
    }

    #[test]
    fn what_is_revoked_is_not_taken() {
        for offered in [false, true] {
            let (predecessor, successor) = sides();
            if offered {
                assert!(predecessor.attempt(Move::Offer));
            }
            assert!(predecessor.attempt(Move::Revoke));
            for late in [Move::Offer, Move::Revoke, Move::Take, Move::TakeOver] {
                assert!(!successor.attempt(late), "{late:?}");
            }
            assert!(!successor.is_taken());
        }
    }

    #[test]
    fn taking_over_needs_no_offer() {
        let (predecessor, successor) = sides();
        assert!(successor.attempt(Move::TakeOver));
        assert!(!predecessor.attempt(Move::Revoke));
        let (predecessor, successor) = sides();
        assert!(predecessor.attempt(Move::Offer));
        assert!(successor.attempt(Move::TakeOver));
        assert!(!predecessor.attempt(Move::Revoke));
    }

    #[test]
    fn one_of_two_wins() {
        for _ in 0..200 {
            let (predecessor, successor) = sides();
            let taker = thread::spawn(move || successor.attempt(Move::TakeOver));
            predecessor.attempt(Move::Offer);
            let revoked = predecessor.attempt(Move::Revoke);
            assert_ne!(taker.join().unwrap(), revoked);
            assert_ne!(predecessor.is_taken(), revoked);
        }
    }
}
