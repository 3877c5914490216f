//! Starting the successor: the program this process was started by, with the same arguments,
//! joined to us by a channel. The supervisor starts it, or without one we do.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::supervisor::{Ending, Link, LinkEvent, Order, started};
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::{self, Program};
use crate::sys::{inherited, packets};

/// Tells a new process that it is a successor without a supervisor: the number of its end of the
/// channel.
pub(super) const VARIABLE: &str = "STEADFAST_HANDOVER_FD";

/// The number of the channel in such a process.
const CHANNEL: RawFd = spawn::NUMBER_MIN;

/// How long the supervisor may take to start a process.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a successor that was given up may take to end by itself.
const ENDING: Duration = Duration::from_secs(2);

/// Who watches over this process, if anybody does. What comes over the link is read by the main
/// thread alone, which passes on what a launch waits for.
#[derive(Debug, Default)]
pub(super) struct Supervision {
    link: Option<Link>,
    supervisor: Option<u32>,
    /// The supervisor is gone.
    is_lost: AtomicBool,
    /// Whoever waits for a successor.
    asking: Mutex<Option<Sender<LinkEvent>>>,
}

/// A process that was started, and our end of the channel.
pub(super) struct Launched {
    pub(super) process: Process,
    pub(super) channel: OwnedFd,
}

/// A successor.
pub(super) enum Process {
    /// A child of ours.
    Child(Child, Pidfd),
    /// A child of the supervisor's.
    Other(u32, Pidfd),
    /// It has come by itself. What its id is here is not known: it may live in another container.
    Caller,
}

impl Supervision {
    /// By the process at the other end of the link.
    pub(super) fn by(link: Link, supervisor: u32) -> Self {
        Self { link: Some(link), supervisor: Some(supervisor), ..Self::default() }
    }

    /// The link, as long as the supervisor is there.
    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_ref().filter(|_| !self.is_lost.load(Ordering::SeqCst))
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

    /// Says that this process was told to end while it was the server, which another one is now.
    pub(super) fn end(&self, ending: Ending) {
        self.tell(|link| link.end(ending));
    }

    /// Asks for the end of a successor that the supervisor has started.
    fn kill_successor(&self) {
        self.tell(Link::kill_successor);
    }

    /// Says that a process which is nobody's child here may take over, as `word` tells.
    pub(super) fn contested(&self, word: BorrowedFd<'_>) {
        self.tell(|link| link.contested(word));
    }

    /// Says that none does.
    pub(super) fn uncontested(&self) {
        self.tell(Link::uncontested);
    }

    /// Says that it has.
    pub(super) fn moved(&self) {
        self.tell(Link::moved);
    }

    /// What cannot be told is no harm: the end of the link is noticed, and said, by
    /// [`next_order`](Self::next_order).
    fn tell(&self, what: impl FnOnce(&Link) -> io::Result<()>) {
        if let Some(link) = self.link()
            && let Err(error) = what(link)
        {
            tracing::debug!(%error, "the supervisor is not told");
        }
    }

    /// What the supervisor orders, if it does. Notices, too, that it is gone. For the main thread.
    pub(super) fn next_order(&self) -> Option<Order> {
        while let Some(link) = self.link() {
            match link.receive(Duration::ZERO) {
                Ok(None) => break,
                Ok(Some(LinkEvent::Order(order))) => return Some(order),
                Ok(Some(answer @ (LinkEvent::Successor { .. } | LinkEvent::Failed(_)))) => {
                    self.answer(answer);
                }
                Ok(Some(LinkEvent::Ended)) | Err(_) => {
                    tracing::warn!(
                        "the supervisor is gone; nobody starts this server again if it crashes"
                    );
                    self.is_lost.store(true, Ordering::SeqCst);
                    self.answer(LinkEvent::Ended);
                }
            }
        }
        None
    }

    /// If nobody waits for it any more, the channel in it is closed, and the successor ends.
    fn answer(&self, answer: LinkEvent) {
        if let Some(asking) = self.asking().take() {
            let _ = asking.send(answer);
        }
    }

    fn asking(&self) -> MutexGuard<'_, Option<Sender<LinkEvent>>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the program anew. Without a supervisor, or if it dies before it has, we do so: of a
    /// successor that it has started and we have not heard of, the channel ends, and it with it.
    ///
    /// # Errors
    /// It is not there, is no program, or processes or descriptors are lacking.
    pub(super) fn launch(&self, binary: Option<&Path>) -> io::Result<Launched> {
        match self.ask(binary)? {
            LinkEvent::Successor { pid, process, channel } => {
                Ok(Launched { process: Process::Other(pid, process), channel })
            }
            LinkEvent::Failed(reason) => Err(io::Error::other(reason)),
            LinkEvent::Ended | LinkEvent::Order(_) => launch(binary),
        }
    }

    /// Asks the supervisor for a successor, and waits for the answer.
    fn ask(&self, binary: Option<&Path>) -> io::Result<LinkEvent> {
        let (sender, answers) = mpsc::channel();
        {
            // The supervisor's loss is noticed before, or told to whoever asks then.
            let mut asking = self.asking();
            let Some(link) = self.link() else {
                return Ok(LinkEvent::Ended);
            };
            *asking = Some(sender);
            match link.start_successor(binary) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(LinkEvent::Ended);
                }
                outcome => outcome?,
            }
        }
        let answer = answers.recv_timeout(START_TIME_MAX);
        answer.map_err(|_| io::Error::other("the supervisor does not answer"))
    }
}

impl Process {
    /// Its id, if it is known here.
    pub(super) fn id(&self) -> Option<u32> {
        match self {
            Self::Child(child, _) => Some(child.id()),
            Self::Other(pid, _) => Some(*pid),
            Self::Caller => None,
        }
    }

    /// What it is signalled by, if it is ours to be.
    pub(super) fn into_pidfd(self) -> Option<Pidfd> {
        match self {
            Self::Child(_, pidfd) | Self::Other(_, pidfd) => Some(pidfd),
            Self::Caller => None,
        }
    }

    /// Sees a successor off that is not needed; says what it has said of its own end.
    pub(super) fn end(mut self, reason: String, supervision: &Supervision) -> String {
        let mut until = Instant::now() + ENDING;
        let mut is_asked = false;
        loop {
            match &mut self {
                Self::Child(child, _) => match child.try_wait() {
                    Ok(Some(status)) if status.success() => return reason,
                    Ok(Some(status)) => return format!("{reason} (it ended with {status})"),
                    Ok(None) => {}
                    Err(_) => return reason,
                },
                // The supervisor takes its status, and logs it.
                Self::Other(_, pidfd) if pidfd.has_ended() => {
                    return if is_asked { format!("{reason} (it was killed)") } else { reason };
                }
                Self::Other(..) => {}
                // It has heard of it, and is nobody's to kill.
                Self::Caller => return reason,
            }
            let is_others = matches!(self, Self::Other(..)) && supervision.link().is_some();
            if is_others && !is_asked && Instant::now() >= until {
                // It is the supervisor's to kill, with all that it has started.
                supervision.kill_successor();
                (is_asked, until) = (true, Instant::now() + ENDING);
            }
            if Instant::now() >= until {
                let _ = match &mut self {
                    Self::Child(child, _) => child.kill().and_then(|()| child.wait().map(drop)),
                    Self::Other(_, pidfd) => pidfd.kill(),
                    Self::Caller => Ok(()),
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
        None => started().program().to_owned(),
    };
    let (channel, theirs) = packets::pair()?;
    let mut environment = vec![(VARIABLE.into(), CHANNEL.to_string().into())];
    environment.extend(started().environment(&path));
    let program = Program {
        path: &path,
        arguments: &arguments,
        environment: &environment,
        descriptors: &[(CHANNEL, theirs.as_fd())],
        own_group: false,
    };
    let mut child = program
        .start()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    match Pidfd::open(child.id()) {
        Ok(pidfd) => Ok(Launched { process: Process::Child(child, pidfd), channel }),
        Err(error) => {
            child.kill().and_then(|()| child.wait())?;
            Err(error)
        }
    }
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
