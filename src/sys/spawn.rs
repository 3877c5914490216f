//! Starting another program with descriptors of ours.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use super::signals;

/// The number of the first descriptor that is handed over; the next ones follow.
pub const FIRST: RawFd = 3;

/// Makes a command hand over exactly these descriptors, numbered from [`FIRST`], beside the
/// standard ones; whatever else is open ends with exec. Our signals stay blocked until the program
/// takes them over, so that none finds it unprepared.
pub fn hand_over(command: &mut Command, descriptors: &[BorrowedFd<'_>]) {
    let fds: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let signals = signals::all();
    let prepare = move || {
        // Above all numbers that are to be taken first, so that none is overwritten.
        let above = FIRST + fds.len() as RawFd;
        let mut copies = [0; 8];
        for (copy, &fd) in copies.iter_mut().zip(&fds) {
            // SAFETY: fcntl takes descriptors and no memory.
            *copy = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, above) })?;
        }
        for (number, &copy) in (FIRST..above).zip(&copies) {
            // SAFETY: dup2 takes descriptors and no memory.
            check(unsafe { libc::dup2(copy, number) })?;
        }
        let (first, flag) = (above as libc::c_uint, libc::CLOSE_RANGE_CLOEXEC as libc::c_int);
        // SAFETY: close_range takes numbers and, with this flag, closes nothing before exec.
        check(unsafe { libc::close_range(first, libc::c_uint::MAX, flag) })?;
        // SAFETY: `signals` is an initialised signal set; the old mask is not asked for.
        check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, ptr::null_mut()) })?;
        Ok(())
    };
    assert!(descriptors.len() <= 8, "a handful of descriptors");
    // SAFETY: the closure runs between fork and exec and makes system calls only, all of them
    // async-signal-safe; it allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes a descriptor that was handed over to this process at its start, by its number, and sees
/// to it that it ends with the next exec.
///
/// # Errors
/// There is none of this number.
pub fn inherited(number: RawFd) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: fcntl takes a descriptor, open or not, and no memory.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and the caller has been told its number by who handed it over: no other
    // code of this process knows of it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn what_is_handed_over_is_there_and_nothing_else() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (mut other_reader, mut other_writer) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "cat <&4 >&3; ls /proc/self/fd >&3"]);
        hand_over(&mut command, &[writer.as_fd(), other_reader.as_fd()]);
        let mut child = command.spawn().unwrap();
        drop(writer);
        other_writer.write_all(b"through\n").unwrap();
        drop(other_writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success());
        // `ls` itself has the folder open.
        assert_eq!(text, "through\n0\n1\n2\n3\n4\n5\n");
        drop(command);
        assert_eq!(other_reader.read(&mut [0]).unwrap(), 0);
    }
}
