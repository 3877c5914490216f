//! The supervisor's process: what the machine decides, done.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;
use std::{env, process};

use super::machine::{Action, End, Ending, Event, Order, Part, Pid};
use super::message::{Kept, Packet, ToServer, ToSupervisor, pair, receive, send, send_kept};
use super::notify::Notifier;
use super::program::started;
use super::role;
use super::state::{Child, State};
use crate::base::text::cut_reason;
use crate::handover::ownership::OwnershipWord;
use crate::sys::pidfd::Pidfd;
use crate::sys::poll::wait_readable;
use crate::sys::signals::{Sender, Signal, Signals};
use crate::sys::spawn::Program;
use crate::sys::terminal::Hup;
use crate::sys::{children, clock, descriptors, exec, packets, stderr};

/// Is the supervisor until there is nothing left to supervise, and returns the exit status.
/// `arguments` are this process's own, its name first: the server gets the same. To be called
/// before other threads are started, since it takes the signals over.
///
/// # Errors
/// No descriptor left, no signals to be had.
pub fn begin(arguments: Vec<OsString>) -> io::Result<u8> {
    let mut supervisor = Supervisor::new(State::new(), arguments)?;
    supervisor.feed(Event::Begin);
    supervisor.run()
}

/// Goes on as [`begin`] does, with what this process knew as another program.
///
/// # Errors
/// As [`begin`].
pub fn resume(state: State, arguments: Vec<OsString>) -> io::Result<u8> {
    let supervisor = Supervisor::new(state, arguments)?;
    tracing::info!("the supervisor goes on as the new program");
    #[cfg(feature = "fault-points")]
    crate::sys::fault::point("supervisor-resumed");
    supervisor.run()
}

struct Supervisor {
    arguments: Vec<OsString>,
    /// What goes with it when it becomes another program.
    state: State,
    signals: Signals,
    notifier: Notifier,
    /// The server that has asked for a successor.
    asked_by: Pid,
    /// Which request of it that was.
    request: u64,
    /// The program to become.
    upcoming: Option<Option<PathBuf>>,
    status: Option<u8>,
}

impl Supervisor {
    fn new(state: State, arguments: Vec<OsString>) -> io::Result<Self> {
        // Of its own it has few open, but the limit holds for what all processes of its user have
        // sent and not received yet, too; and servers raise theirs.
        if let Err(error) = descriptors::raise_open_files() {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
        Ok(Self {
            arguments,
            state,
            signals: Signals::take_over()?,
            notifier: Notifier::new(env::var_os("NOTIFY_SOCKET")),
            asked_by: 0,
            request: 0,
            upcoming: None,
            status: None,
        })
    }

    fn run(mut self) -> io::Result<u8> {
        loop {
            // Signals before children: the signal of a child that ends from here on is still there
            // when this waits. And what has ended is looked at before the links and reported after
            // them: what a child has said before its end counts.
            let mut signals = Vec::new();
            while let Some((signal, sender)) = self.signals.read_from()? {
                signals.extend(self.meaning(signal, sender));
            }
            let mut ended = Vec::new();
            while let Some(child) = children::reap()? {
                ended.push(child);
            }
            self.hear_children();
            for signal in signals {
                self.feed(Event::Signal(signal));
            }
            for (pid, status) in ended {
                self.state.children.remove(&pid);
                self.feed(Event::ChildExited(pid, end(status)));
            }
            self.feed(Event::Tick);
            if let Some(status) = self.status {
                return Ok(status);
            }
            // Only now, as what has been read above would be lost.
            if let Some(program) = self.upcoming.take() {
                let error = self.become_program(program);
                self.feed(Event::NotExecuted(error.to_string()));
                continue;
            }
            self.wait()?;
        }
    }

    /// What a signal asks of this process: of a HUP it is not certain.
    fn meaning(&mut self, signal: Signal, sender: Sender) -> Option<Signal> {
        if signal != Signal::Hup {
            return Some(signal);
        }
        match self.state.terminal.hup(sender) {
            Hup::Sent => Some(Signal::Hup),
            Hup::HungUp => {
                tracing::info!("the terminal is gone; the server drains");
                Some(Signal::Term)
            }
            Hup::Nothing => None,
        }
    }

    /// Until a signal (a child's end is one, too), a message, or the machine's deadline.
    fn wait(&self) -> io::Result<()> {
        let links = self.state.children.values().filter_map(|child| child.link.as_ref());
        let all: Vec<BorrowedFd<'_>> =
            [self.signals.as_fd()].into_iter().chain(links.map(AsFd::as_fd)).collect();
        let timeout = self.state.machine.deadline().map(|deadline| deadline.saturating_sub(now()));
        wait_readable(&all, timeout).map(drop)
    }

    /// Reads all that has come over the links.
    fn hear_children(&mut self) {
        let pids: Vec<Pid> = self.state.children.keys().copied().collect();
        for pid in pids {
            while let Some(event) = self.hear(pid) {
                if let Some(event) = event {
                    self.feed(event);
                }
            }
        }
    }

    /// The next message of a child: `None` if there is none, `Some(None)` if it is no event.
    fn hear(&mut self, pid: Pid) -> Option<Option<Event>> {
        let child = self.state.children.get_mut(&pid)?;
        let link = child.link.as_ref()?;
        let (message, descriptors) = match receive(link, Some(Duration::ZERO)) {
            Ok(Packet::Message(message, descriptors)) => (message, descriptors),
            Ok(Packet::Nothing) => return None,
            Ok(Packet::Ended) => {
                child.link = None;
                return None;
            }
            Err(error) => {
                tracing::warn!(pid, %error, "a message of the server is lost");
                // One packet, or the link itself?
                if error.kind() != io::ErrorKind::InvalidData {
                    child.link = None;
                }
                return Some(None);
            }
        };
        Some(match message {
            ToSupervisor::Keep { labels } => {
                match pair(labels, descriptors) {
                    Ok(kept) => child.kept.extend(kept),
                    Err(error) => tracing::warn!(pid, %error, "listeners are not kept"),
                }
                None
            }
            ToSupervisor::Serving => {
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("supervisor-serving");
                Some(Event::Serving(pid))
            }
            ToSupervisor::StartSuccessor { binary, request } => {
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("supervisor-asked");
                (self.asked_by, self.request) = (pid, request);
                Some(Event::StartSuccessor(pid, binary))
            }
            ToSupervisor::Stopping => Some(Event::Stopping(pid)),
            ToSupervisor::End { ending } => Some(Event::EndAsked(pid, ending)),
            ToSupervisor::KillSuccessor => Some(Event::GivenUp(pid)),
            ToSupervisor::Contested => {
                match descriptors.into_iter().map(OwnershipWord::from_fd).next() {
                    Some(Ok(word)) => {
                        self.state.word = Some(word);
                        Some(Event::Contested(pid))
                    }
                    Some(Err(error)) => {
                        tracing::warn!(pid, %error, "whoever takes over cannot be waited for");
                        None
                    }
                    None => None,
                }
            }
            ToSupervisor::Uncontested => {
                self.state.word = None;
                Some(Event::Uncontested(pid))
            }
            ToSupervisor::Moved => Some(Event::Moved(pid)),
        })
    }

    /// Tells the machine what has happened, and does what it says.
    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.state.machine.handle(now(), event) {
                events.extend(self.act(action));
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn { part, program, generation } => {
                return Some(match self.spawn(part, program, generation) {
                    Ok(pid) => Event::Started(part, pid),
                    Err(error) => Event::NotStarted(part, error.to_string()),
                });
            }
            Action::Order(pid, order) => self.order(pid, order),
            Action::Kill(pid) => self.signal(pid, children::kill_group),
            Action::Refuse(pid, reason) => {
                let (reason, request) = (cut_reason(reason), self.request);
                self.send(pid, &ToServer::Failed { reason, request }, &[]);
            }
            Action::KeepListeners(pid) => {
                if let Some(child) = self.state.children.get_mut(&pid)
                    && !child.kept.is_empty()
                {
                    self.state.kept = std::mem::take(&mut child.kept);
                }
            }
            Action::DropListeners => {
                self.state.kept.clear();
                for child in self.state.children.values_mut() {
                    child.kept.clear();
                }
            }
            Action::Decide => return Some(Event::Decided(self.has_moved())),
            Action::Notify(notice) => self.notifier.send(notice),
            Action::ExecSelf { program } => self.upcoming = Some(program),
            Action::Exit(status) => self.status = Some(status),
            Action::Log(true, text) => tracing::warn!("{text}"),
            Action::Log(false, text) => tracing::info!("{text}"),
        }
        None
    }

    /// Whether somebody else's process has taken over; if not, it cannot any more.
    fn has_moved(&mut self) -> bool {
        let word = self.state.word.take();
        word.is_some_and(|word| !word.revoke())
    }

    /// By the link; a child that has none any more serves as if there were no supervisor, and obeys
    /// signals.
    fn order(&self, pid: Pid, order: Order) {
        match self.state.children.get(&pid) {
            Some(Child { link: Some(link), .. }) => {
                if let Err(error) = send(link, &ToServer::Order { order }, &[])
                    // Its end is yet to be taken note of.
                    && error.kind() != io::ErrorKind::BrokenPipe
                {
                    tracing::warn!(pid, %error, "a child does not hear what it is to do");
                }
            }
            _ => self.signal(pid, |pid| children::send(pid, signal(order))),
        }
    }

    fn signal(&self, pid: Pid, send: impl FnOnce(Pid) -> io::Result<()>) {
        if let Err(error) = send(pid) {
            tracing::warn!(pid, %error, "a child gets no signal");
        }
    }

    fn send(&self, pid: Pid, message: &ToServer, descriptors: &[BorrowedFd<'_>]) {
        if let Err(error) = self.try_send(pid, message, descriptors) {
            tracing::warn!(pid, %error, "a child hears nothing more");
        }
    }

    fn try_send(
        &self,
        pid: Pid,
        message: &ToServer,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        match self.state.children.get(&pid).and_then(|child| child.link.as_ref()) {
            Some(link) => send(link, message, descriptors),
            None => Ok(()),
        }
    }

    /// The file and the arguments of a program; `None` is the one this process was started by.
    fn command(&self, program: Option<PathBuf>) -> (PathBuf, Vec<OsString>) {
        let mut arguments = self.arguments.clone();
        match (program, arguments.first_mut()) {
            (Some(program), Some(name)) => {
                name.clone_from(&program.clone().into_os_string());
                (program, arguments)
            }
            (Some(program), None) => (program.clone(), vec![program.into()]),
            (None, _) => (started().program().to_owned(), arguments),
        }
    }

    fn spawn(&mut self, part: Part, program: Option<PathBuf>, generation: u64) -> io::Result<Pid> {
        let (path, arguments) = self.command(program);
        let mut environment = vec![role::of_child(part)];
        environment.extend(started().environment(&path));
        let start = |descriptors: &[(RawFd, BorrowedFd<'_>)]| {
            start(&path, &arguments, &environment, descriptors)
        };
        let (pid, link) = match part {
            Part::Probe => {
                let state = self.state.write()?;
                let pid = start(&[(role::STATE_NUMBER, state.as_fd())])?;
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("supervisor-probing");
                (pid, None)
            }
            Part::Server => {
                let (ours, theirs) = packets::pair()?;
                self.send_start(&ours, generation, &self.state.kept)?;
                (start(&[(role::LINK_NUMBER, theirs.as_fd())])?, Some(ours))
            }
            Part::Successor => {
                let (ours, theirs) = packets::pair()?;
                let (of_predecessor, of_successor) = packets::pair()?;
                // It is given the listeners by its predecessor.
                self.send_start(&ours, generation, &[])?;
                let pid = start(&[
                    (role::LINK_NUMBER, theirs.as_fd()),
                    (role::CHANNEL_NUMBER, of_successor.as_fd()),
                ])?;
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("supervisor-started");
                let message = ToServer::Successor { pid, request: self.request };
                let told = Pidfd::open(pid).and_then(|pidfd| {
                    let descriptors = [of_predecessor.as_fd(), pidfd.as_fd()];
                    self.try_send(self.asked_by, &message, &descriptors)
                });
                if let Err(error) = told {
                    // Nobody would ever talk to it.
                    self.signal(pid, children::kill_group);
                    return Err(error);
                }
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("supervisor-told");
                (pid, Some(ours))
            }
        };
        self.state.children.insert(pid, Child { link, kept: Vec::new() });
        Ok(pid)
    }

    /// Before the child is there: what it is to read first.
    fn send_start(&self, link: &OwnedFd, generation: u64, kept: &[Kept]) -> io::Result<()> {
        let supervisor = process::id();
        send(link, &ToServer::Start { generation, supervisor, kept: kept.len() }, &[])?;
        let kept: Vec<_> = kept.iter().map(|kept| (&*kept.label, kept.fd.as_fd())).collect();
        send_kept(link, &kept, |labels| ToServer::Kept { labels })
    }

    /// Executes the new program in place of this one; returns only if that fails.
    fn become_program(&self, program: Option<PathBuf>) -> io::Error {
        let attempt = || -> io::Result<std::convert::Infallible> {
            let (path, arguments) = self.command(program);
            let file = self.state.write()?;
            let mut all = self.state.descriptors();
            all.push(file.as_fd());
            let mut environment = vec![role::of_supervisor(file.as_raw_fd())];
            environment.extend(started().environment(&path));
            // The thread that writes the log ends with this program.
            stderr::flush();
            #[cfg(feature = "fault-points")]
            crate::sys::fault::point("supervisor-executing");
            Err(exec::replace(&path, &arguments, &environment, &all))
        };
        match attempt() {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }
}

fn start(
    path: &Path,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
    descriptors: &[(RawFd, BorrowedFd<'_>)],
) -> io::Result<Pid> {
    // Ctrl-C in a terminal goes to a whole group: it is for the supervisor to pass on.
    let program = Program { path, arguments, environment, descriptors, own_group: true };
    Ok(program.start()?.id())
}

/// A clock that goes on through an exec.
fn now() -> Duration {
    Duration::from_nanos(clock::monotonic_ns())
}

/// The signal that says the same as an order.
fn signal(order: Order) -> Signal {
    match order {
        Order::End(Ending::Drain) => Signal::Term,
        Order::End(Ending::Fast) => Signal::Int,
        Order::Upgrade => Signal::Usr2,
    }
}

fn end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code as u8),
        (None, signal) => End::Killed(signal.unwrap_or_default() as u8),
    }
}
