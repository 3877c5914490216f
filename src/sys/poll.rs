//! Waiting for one of a few descriptors, by poll(2): for threads that have no event loop.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Waits until a descriptor is readable, has ended or has failed, at most `timeout` (for ever with
/// `None`), and returns which of them are; none after the timeout.
///
/// # Errors
/// Those of poll(2) but EINTR: none are to be expected.
pub fn wait_readable(
    descriptors: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
) -> io::Result<Vec<bool>> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut polls: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    wait(&mut polls, deadline)?;
    Ok(polls.iter().map(|poll| poll.revents != 0).collect())
}

/// Waits until a descriptor takes bytes, or has failed.
///
/// # Errors
/// As [`wait_readable`].
pub fn wait_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    wait(&mut [libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 }], None)
}

fn wait(polls: &mut [libc::pollfd], deadline: Option<Instant>) -> io::Result<()> {
    loop {
        // Rounded up, so that the last wait is not a loop around a poll that does not wait.
        let timeout_ms = deadline.map_or(-1, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        let count = polls.len() as libc::nfds_t;
        // SAFETY: `polls` holds `count` valid entries, writable while the call lasts.
        if unsafe { libc::poll(polls.as_mut_ptr(), count, timeout_ms) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn it_names_those_that_are_ready_or_have_ended() {
        let (quiet, _quiet_writer) = io::pipe().unwrap();
        let (written, mut writer) = io::pipe().unwrap();
        let (ended, ended_writer) = io::pipe().unwrap();
        let all = [quiet.as_fd(), written.as_fd(), ended.as_fd()];
        assert_eq!(wait_readable(&all, Some(Duration::ZERO)).unwrap(), [false; 3]);
        writer.write_all(b"x").unwrap();
        assert_eq!(wait_readable(&all, None).unwrap(), [false, true, false]);
        drop(ended_writer);
        assert_eq!(wait_readable(&all, None).unwrap(), [false, true, true]);
    }

    #[test]
    fn it_waits_as_long_as_it_is_told() {
        let (quiet, _writer) = io::pipe().unwrap();
        let start = Instant::now();
        let timeout = Duration::from_millis(20);
        assert_eq!(wait_readable(&[quiet.as_fd()], Some(timeout)).unwrap(), [false]);
        assert!(start.elapsed() >= timeout);
    }
}
