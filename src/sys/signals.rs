//! Signals as something to read: blocked in every thread, and taken from a signalfd(2).
//!
//! No handler of theirs runs in the middle of anything, and the event loop learns of a signal as it does of
//! a readable socket.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

/// The signals a server acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// SIGTERM.
    Term,
    /// SIGINT: Ctrl-C.
    Int,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGCHLD: a child has ended, perhaps several.
    Child,
}

impl Signal {
    const ALL: [Self; 6] = [Self::Term, Self::Int, Self::Hup, Self::Usr1, Self::Usr2, Self::Child];

    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Hup => "HUP",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Child => "CHLD",
        }
    }

    pub(super) fn number(self) -> libc::c_int {
        match self {
            Self::Term => libc::SIGTERM,
            Self::Int => libc::SIGINT,
            Self::Hup => libc::SIGHUP,
            Self::Usr1 => libc::SIGUSR1,
            Self::Usr2 => libc::SIGUSR2,
            Self::Child => libc::SIGCHLD,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who has sent a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The process of this id; 0 if it is outside this one's container.
    Process(u32),
    /// A predecessor passes on what it was sent ([`Pidfd::pass_on`](super::pidfd::Pidfd::pass_on)).
    Predecessor,
    /// The kernel, as when a terminal hangs up.
    Kernel,
}

/// The `si_code` of a signal that is passed on: negative, as those of processes have to be, and
/// used by no system call (sigaction(2)).
pub(super) const PASSED_ON: libc::c_int = -1000;

/// What a wait came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// This signal has arrived.
    Signal(Signal),
    /// There is something to read from what was to wake.
    Woken,
    /// Neither.
    TimedOut,
}

/// Reads this process's signals.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks every [`Signal`] in the calling thread, from now until it ends, and in all threads
    /// it starts from now on; and ignores SIGPIPE and SIGXFSZ in the whole process, so that writing
    /// to a closed socket, or more than the limit on a file's size allows (which holds for memory
    /// that is a file, too), is an error like any other.
    ///
    /// To be called before any other thread is started: one that does not block the signals would
    /// die of them, and the process with it. What was pending before is read too.
    ///
    /// # Errors
    /// Those of signalfd(2): no descriptor or no memory left.
    pub fn take_over() -> io::Result<Self> {
        let set = all_signals();
        // SAFETY: `set` is an initialised signal set; the old mask is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) } {
            0 => {}
            // It returns the error instead of setting errno.
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        for number in [libc::SIGPIPE, libc::SIGXFSZ] {
            // SAFETY: SIG_IGN is a valid disposition of both, and no handler is installed.
            if unsafe { libc::signal(number, libc::SIG_IGN) } == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: `set` is an initialised signal set; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above has just opened `fd`, and nothing else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// The next signal that has arrived; `None` if there is none. Never waits. Signals of one kind
    /// that arrive before the first of them is read are one.
    ///
    /// # Errors
    /// Those of read(2): none are to be expected.
    pub fn read(&self) -> io::Result<Option<Signal>> {
        Ok(self.read_from()?.map(|(signal, _)| signal))
    }

    /// As [`read`](Self::read), with the sender. Of several signals that are read as one, the first
    /// one's.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_from(&self) -> io::Result<Option<(Signal, Sender)>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        loop {
            // SAFETY: `info` is writable for `size` bytes while the call lasts.
            let count = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
            if count == size as isize {
                break;
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            }
        }
        // SAFETY: the kernel writes whole structures only, and `size` bytes have been read.
        let info = unsafe { info.assume_init() };
        let mut all = Signal::ALL.into_iter();
        let signal = all.find(|signal| u32::try_from(signal.number()) == Ok(info.ssi_signo));
        let signal = signal.expect("the descriptor reports the signals of its set alone");
        let sender = match info.ssi_code {
            PASSED_ON => Sender::Predecessor,
            libc::SI_KERNEL => Sender::Kernel,
            _ => Sender::Process(info.ssi_pid),
        };
        Ok(Some((signal, sender)))
    }
}

impl Signals {
    /// Waits for a signal, for `wake` to become readable or to end, or for `timeout`.
    ///
    /// # Errors
    /// Those of poll(2) and read(2): none are to be expected.
    pub fn wait(&self, wake: BorrowedFd<'_>, timeout: Duration) -> io::Result<Waited> {
        if let Some(signal) = self.read()? {
            return Ok(Waited::Signal(signal));
        }
        let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut polls = [poll(self.fd.as_raw_fd()), poll(wake.as_raw_fd())];
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `polls` are two valid pollfds while the call lasts.
        if unsafe { libc::poll(polls.as_mut_ptr(), 2, timeout_ms) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            return Ok(Waited::TimedOut);
        }
        Ok(match self.read()? {
            Some(signal) => Waited::Signal(signal),
            None if polls[1].revents != 0 => Waited::Woken,
            None => Waited::TimedOut,
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The set of every [`Signal`].
pub(super) fn all_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set it is given.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for signal in Signal::ALL {
        // SAFETY: `set` is initialised and the number is a valid signal's.
        unsafe { libc::sigaddset(&mut set, signal.number()) };
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::thread;

    /// Sends a signal to the calling thread: the threads of the other tests do not block it.
    fn raise(signal: Signal) {
        // SAFETY: pthread_self is always valid, and the number is a valid signal's.
        let result = unsafe { libc::pthread_kill(libc::pthread_self(), signal.number()) };
        assert_eq!(result, 0);
    }

    /// In a thread of its own: what is blocked there stays blocked.
    fn in_a_thread(test: impl FnOnce() + Send + 'static) {
        thread::spawn(test).join().unwrap();
    }

    #[test]
    fn each_signal_is_read_once_and_kills_nobody() {
        in_a_thread(|| {
            let signals = Signals::take_over().unwrap();
            assert_eq!(signals.read().unwrap(), None);
            for signal in Signal::ALL {
                raise(signal);
                raise(signal);
                assert_eq!(signals.read().unwrap(), Some(signal));
                assert_eq!(signals.read().unwrap(), None, "two pending of a kind are one");
            }
            Signal::ALL.into_iter().for_each(raise);
            let read = std::iter::from_fn(|| signals.read().unwrap());
            assert_eq!(read.collect::<HashSet<_>>(), HashSet::from(Signal::ALL));
        });
    }

    #[test]
    fn threads_started_later_block_them_too() {
        in_a_thread(|| {
            let signals = Signals::take_over().unwrap();
            thread::spawn(move || {
                raise(Signal::Term);
                assert_eq!(signals.read().unwrap(), Some(Signal::Term));
            })
            .join()
            .unwrap();
        });
    }
}
