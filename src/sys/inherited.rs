//! Descriptors that whoever started this process has handed over at a known number.
//!
//! Which descriptors those are is looked up before `main`, and thus before Rust code of this process
//! can have opened any. So a number can be taken by safe code at any time: it is one that nobody in
//! this process owns, or it is refused.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::credentials::peer_credentials;
use super::spawn::NUMBER_MIN;

/// The descriptors this process began with and nobody has taken: each has one owner.
static HANDED_OVER: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Run by the C library before `main`.
// SAFETY: an entry of this section is a pointer to a function of the C calling convention. It needs
// nothing that is set up later: it reads a directory and allocates.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = look_what_is_there;

extern "C" fn look_what_is_there() {
    // Without /proc nothing can be handed over: `take` says so.
    let Ok(numbers) = fs::read_dir("/proc/self/fd") else { return };
    let numbers = numbers.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let numbers: Vec<RawFd> = numbers.filter(|number| *number >= NUMBER_MIN).collect();
    // The directory's own descriptor is closed by now.
    handed_over().extend(numbers.into_iter().filter(|number| is_open(*number)));
}

fn handed_over() -> MutexGuard<'static, BTreeSet<RawFd>> {
    HANDED_OVER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: this request takes no argument.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Takes the descriptor `number`, from then on closed by exec().
///
/// # Errors
/// `NotFound` if this process did not begin with it, or if it has been taken.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if !handed_over().remove(&number) {
        let text = format!("no descriptor {number} was handed over to this process");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    // SAFETY: it was open before this process had code of its own, and it has just been removed from
    // the set of those that nobody owns.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: this request takes an integer.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(descriptor)
}

/// The process that has made the socket pair of which descriptor `number`, handed over and not taken,
/// is one end; `None` if it is no such thing. Takes nothing.
pub fn maker(number: RawFd) -> Option<u32> {
    let handed_over = handed_over();
    if !handed_over.contains(&number) {
        return None;
    }
    // SAFETY: it is open, and nobody can take it, and close it, while the set is locked.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    peer_credentials(socket).ok().map(|credentials| credentials.pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::packets;
    use crate::sys::spawn::Program;
    use std::env;
    use std::ffi::OsString;
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd, IntoRawFd};

    /// Its value is the process that has made the pair of which one end is handed over.
    const MAKER: &str = "STEADFAST_TEST_INHERITED";

    const PAIR: RawFd = 70;
    const OTHER: RawFd = 71;

    #[test]
    fn what_is_handed_over_is_taken_once() {
        let (ours, theirs) = packets::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let arguments = ["test", "--exact", "sys::inherited::tests::child"].map(OsString::from);
        let program = Program {
            path: &env::current_exe().unwrap(),
            arguments: &arguments,
            environment: &[(MAKER.into(), std::process::id().to_string().into())],
            descriptors: &[(PAIR, theirs.as_fd()), (OTHER, null.as_fd())],
            own_group: false,
        };
        let mut child = program.start().unwrap();
        drop(theirs);
        assert!(child.wait().unwrap().success());
        // It has sent this over what it was given.
        let mut buffer = [0; 8];
        let received = packets::receive(&ours, &mut buffer, &mut Vec::new(), None).unwrap();
        assert_eq!(received, packets::Received::Packet(1));
    }

    /// What that process does.
    #[test]
    fn child() {
        let Ok(pid) = env::var(MAKER) else { return };
        assert_eq!(maker(PAIR), pid.parse().ok());
        assert_eq!(maker(OTHER), None, "it is no socket");
        let pair = take(PAIR).unwrap();
        assert_eq!(maker(PAIR), None, "it has an owner");
        assert_eq!(take(PAIR).unwrap_err().kind(), io::ErrorKind::NotFound);
        // SAFETY: this request takes no argument.
        let flags = unsafe { libc::fcntl(pair.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
        packets::send(&pair, b"x", &[], false).unwrap();
        // A number that is free again is not handed over a second time.
        drop(pair);
        assert_eq!(take(PAIR).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(take(OTHER).unwrap());
    }

    #[test]
    fn what_this_process_opens_itself_is_not_to_be_had() {
        let (one, _other) = packets::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        for number in [one.as_raw_fd(), file.as_raw_fd(), 0, 1, 2, -1, 1_000_000] {
            assert_eq!(take(number).unwrap_err().kind(), io::ErrorKind::NotFound, "{number}");
            assert_eq!(maker(number), None, "{number}");
        }
        // Nor if it is given up without being closed.
        let number = file.into_raw_fd();
        assert_eq!(take(number).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
