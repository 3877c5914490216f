//! Starting the successor: the program this process was started by, with the same arguments,
//! joined to us by a channel. The supervisor starts it, or without one we do.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::supervisor::{self, Link, LinkEvent};
use crate::sys::spawn::{self, Program};
use crate::sys::{children, inherited, packets, process};

/// Tells a new process that it is a successor without a supervisor: the number of its end of the
/// channel.
pub(super) const VARIABLE: &str = "STEADFAST_HANDOVER_FD";

/// The number of the channel in such a process.
const CHANNEL: RawFd = spawn::NUMBER_MIN;

/// How long the supervisor may take to start a process.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a successor that was given up may take to end by itself.
const ENDING: Duration = Duration::from_secs(2);

/// Who watches over this process, if anybody does.
#[derive(Debug, Default)]
pub(super) struct Supervision {
    link: Mutex<Option<Link>>,
    supervisor: Option<u32>,
}

/// A process that was started, and our end of the channel.
pub(super) struct Launched {
    pub(super) process: Process,
    pub(super) channel: OwnedFd,
}

/// A successor.
pub(super) enum Process {
    /// A child of ours.
    Child(Child),
    /// A child of the supervisor's.
    Other(u32),
}

impl Supervision {
    /// By the process at the other end of the link.
    pub(super) fn by(link: Link, supervisor: u32) -> Self {
        Self { link: Mutex::new(Some(link)), supervisor: Some(supervisor) }
    }

    fn link(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The supervisor, as long as it is there.
    pub(super) fn supervisor(&self) -> Option<u32> {
        self.supervisor.filter(|_| self.link().is_some())
    }

    /// Says that this process is the server, and leaves copies of what is to survive its crash.
    pub(super) fn serving(&self, kept: &[(String, BorrowedFd<'_>)]) {
        let kept: Vec<_> = kept.iter().map(|(label, socket)| (label.as_str(), *socket)).collect();
        self.tell(|link| {
            // Without copies a restart binds anew. Without the word of who serves, the supervisor
            // would take the predecessor's end for that of the server, and end this process.
            if let Err(error) = link.keep(&kept) {
                tracing::warn!(%error, "the supervisor keeps no copies of the listeners");
            }
            link.serving()
        });
    }

    /// Says that this process stops for good.
    pub(super) fn stopping(&self) {
        self.tell(Link::stopping);
    }

    /// What cannot be told is no harm: the end of the link is noticed, and said, by
    /// [`look`](Self::look).
    fn tell(&self, what: impl FnOnce(&Link) -> io::Result<()>) {
        if let Some(link) = &*self.link()
            && let Err(error) = what(link)
        {
            tracing::debug!(%error, "the supervisor is not told");
        }
    }

    /// Notices that the supervisor is gone.
    pub(super) fn look(&self) {
        // While somebody asks for a successor, he notices.
        let Ok(mut link) = self.link.try_lock() else {
            return;
        };
        let ended = |link: &Link| {
            matches!(link.receive(Duration::ZERO), Ok(Some(LinkEvent::Ended)) | Err(_))
        };
        if link.as_ref().is_some_and(ended) {
            lose(&mut link);
        }
    }

    /// Starts the program anew. Without a supervisor, or if it dies before it has, we do so: of a
    /// successor that it has started and we have not heard of, the channel ends, and it with it.
    ///
    /// # Errors
    /// It is not there, is no program, or processes or descriptors are lacking.
    pub(super) fn launch(&self, binary: Option<&Path>) -> io::Result<Launched> {
        let mut link = self.link();
        let Some(asked) = &*link else {
            return launch(binary);
        };
        match ask(asked, binary)? {
            Some(LinkEvent::Successor { pid, channel }) => {
                Ok(Launched { process: Process::Other(pid), channel })
            }
            Some(LinkEvent::Failed(reason)) => Err(io::Error::other(reason)),
            Some(LinkEvent::Ended) => {
                lose(&mut link);
                launch(binary)
            }
            None => Err(io::Error::other("the supervisor does not answer")),
        }
    }
}

/// Asks the supervisor for a successor, and waits for the answer.
fn ask(link: &Link, binary: Option<&Path>) -> io::Result<Option<LinkEvent>> {
    match link.start_successor(binary) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Some(LinkEvent::Ended)),
        outcome => outcome.and_then(|()| link.receive(START_TIME_MAX)),
    }
}

/// From now on there is no supervisor.
fn lose(link: &mut Option<Link>) {
    tracing::warn!("the supervisor is gone; nobody starts this server again if it crashes");
    *link = None;
}

impl Process {
    /// Its id.
    pub(super) fn id(&self) -> u32 {
        match self {
            Self::Child(child) => child.id(),
            Self::Other(pid) => *pid,
        }
    }

    /// Sees a successor off that is not needed; says what it has said of its own end.
    pub(super) fn end(mut self, reason: String) -> String {
        let until = Instant::now() + ENDING;
        loop {
            match &mut self {
                Self::Child(child) => match child.try_wait() {
                    Ok(Some(status)) if status.success() => return reason,
                    Ok(Some(status)) => return format!("{reason} (it ended with {status})"),
                    Ok(None) => {}
                    Err(_) => return reason,
                },
                // The supervisor takes its status, and logs it.
                Self::Other(pid) if !process::is_running(*pid) => return reason,
                Self::Other(_) => {}
            }
            if Instant::now() >= until {
                let _ = match &mut self {
                    Self::Child(child) => child.kill().and_then(|()| child.wait().map(drop)),
                    Self::Other(pid) => children::kill(*pid),
                };
                return format!("{reason} (it was killed)");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Starts the program as a child of ours.
fn launch(binary: Option<&Path>) -> io::Result<Launched> {
    let arguments: Vec<OsString> = env::args_os().collect();
    let path = match binary {
        Some(binary) => binary.to_owned(),
        None => supervisor::resolve_program(arguments.first().map_or(OsStr::new(""), |name| name))?,
    };
    let (channel, theirs) = packets::pair()?;
    let program = Program {
        path: &path,
        arguments: &arguments,
        environment: &[(VARIABLE.into(), CHANNEL.to_string().into())],
        descriptors: &[(CHANNEL, theirs.as_fd())],
        own_group: false,
    };
    let child = program
        .start()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(Launched { process: Process::Child(child), channel })
}

/// Our end of the channel, if this process was started as a successor without a supervisor.
///
/// # Errors
/// The variable is there and the channel is not.
pub(super) fn channel_of_environment() -> io::Result<Option<OwnedFd>> {
    let Some(number) = env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let number = number.to_str().and_then(|number| number.parse().ok());
    let number = number.filter(|number| *number >= CHANNEL);
    let number = number.ok_or_else(|| io::Error::other(format!("{VARIABLE} is no number")))?;
    inherited::take(number).map(Some)
}
