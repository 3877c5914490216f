//! Descriptors that whoever started this process has handed over at a known number.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::IntoRawFd;

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
