//! A process by a descriptor (pidfd_open(2)): unlike its id, the descriptor never comes to stand for
//! another process, so a signal that is sent too late reaches nobody.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use super::poll::wait_readable;
use super::signals::{PASSED_ON, Signal};

/// One process, whether it runs or has ended.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// The process that has this id now. The caller knows that it is the one meant: it is a child
    /// that has not been reaped, or this process itself.
    ///
    /// # Errors
    /// No process has this id; no descriptor is left; ENOSYS before Linux 5.3.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the call takes integers alone, and opens its descriptor close-on-exec.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above has just opened it, and nothing else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }))
    }

    /// The process a descriptor stands for that was received from another process.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Whether the process has ended, reaped or not.
    pub fn has_ended(&self) -> bool {
        // Readable from then on.
        wait_readable(&[self.0.as_fd()], Some(Duration::ZERO)).is_ok_and(|ready| ready[0])
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has been reaped, or may not be sent signals.
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        self.send_number(signal.number(), ptr::null())
    }

    /// Sends a signal that this process was sent: the receiver can tell that it is no other one.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn pass_on(&self, signal: Signal) -> io::Result<()> {
        // SAFETY: a siginfo_t is integers and a union of plain data; all zeros is a valid one.
        let mut info: libc::siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
        info.si_signo = signal.number();
        info.si_code = PASSED_ON;
        self.send_number(signal.number(), &info)
    }

    /// Ends the process at once (SIGKILL).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn kill(&self) -> io::Result<()> {
        self.send_number(libc::SIGKILL, ptr::null())
    }

    fn send_number(&self, signal: libc::c_int, info: *const libc::siginfo_t) -> io::Result<()> {
        let fd = self.0.as_raw_fd();
        // SAFETY: `info` is null or points to a value that outlives the call.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::signals::{Sender, Signals};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{self, Command};
    use std::thread;

    #[test]
    fn a_signal_reaches_its_process_and_no_other() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pidfd = Pidfd::open(child.id()).unwrap();
        assert!(!pidfd.has_ended());
        pidfd.send(Signal::Term).unwrap();
        wait_readable(&[pidfd.as_fd()], None).unwrap();
        assert!(pidfd.has_ended(), "though it is not reaped");
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        assert!(pidfd.has_ended());
        assert_eq!(pidfd.kill().unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn what_is_passed_on_can_be_told_from_what_is_sent() {
        // Signals to a process go to any thread that does not block them: a process of its own. It
        // ignores what this one was told to ignore, as HUP by nohup(1).
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pidfd = Pidfd::open(child.id()).unwrap();
        pidfd.pass_on(Signal::Usr2).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGUSR2));
        thread::spawn(|| {
            let signals = Signals::take_over().unwrap();
            // SAFETY: pthread_self is always valid, and the number is a valid signal's.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGHUP) };
            assert_eq!(
                signals.read_from().unwrap(),
                Some((Signal::Hup, Sender::Process(process::id())))
            );
        })
        .join()
        .unwrap();
    }

    #[test]
    fn groups_and_nobody_are_errors() {
        for pid in [0, u32::MAX, 1 << 31] {
            assert_eq!(Pidfd::open(pid).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{pid}");
        }
        assert!(!Pidfd::open(process::id()).unwrap().has_ended());
    }
}
