//! Descriptors that whoever started this process has handed over at a known number.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use super::credentials::peer_credentials;
use super::spawn::NUMBER_MIN;

/// The numbers that have been taken: each descriptor has one owner.
static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes the descriptor `number`, from then on closed by exec(). To be called at the beginning,
/// and only for numbers this process has been told of: before it opens any of its own, which have
/// the lowest numbers that are free.
///
/// # Errors
/// EBADF if it is not open; `AlreadyExists` if it has been taken; `InvalidInput` for a standard
/// stream.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number < NUMBER_MIN {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if taken.contains(&number) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // SAFETY: this request takes an integer.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    taken.insert(number);
    // SAFETY: it is open, was handed over to this process as a whole, and is taken only once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The process that has made the socket pair of which descriptor `number` is one end; `None` if it
/// is no such thing, or not open. Takes nothing.
pub fn maker(number: RawFd) -> Option<u32> {
    // SAFETY: this request takes no argument.
    let is_open = number >= 0 && unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    if !is_open {
        return None;
    }
    // SAFETY: it is open. Were another thread to close it meanwhile, the call below would ask about
    // another file, or fail: it changes nothing.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    peer_credentials(socket).ok().map(|credentials| credentials.pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::packets;
    use std::fs::File;
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn a_pair_knows_its_maker() {
        let (one, other) = packets::pair().unwrap();
        assert_eq!(maker(one.as_raw_fd()), Some(std::process::id()));
        drop(other);
        assert_eq!(maker(one.as_raw_fd()), Some(std::process::id()), "of a dead one, too");
        let file = File::open("/dev/null").unwrap();
        for number in [file.as_raw_fd(), -1, 1_000_000] {
            assert_eq!(maker(number), None, "{number}");
        }
    }

    #[test]
    fn each_is_taken_once() {
        let number = File::open("/dev/null").unwrap().into_raw_fd();
        let owned = take(number).unwrap();
        let again = take(number).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        drop(owned);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert_eq!(take(1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(take(1_000_000).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
