//! The predecessor's side of an upgrade: starts the new program and carries out what the state
//! machine of [`handover::predecessor`](crate::handover::predecessor) decides.

use std::collections::VecDeque;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::foundation::{Inherited, ListenerCopies};
use super::launch::{Launched, Process, Supervision};
use super::lock::PortLock;
use super::pause::{Moment, PauseClock};
use super::steer::Steered;
use crate::base::format::Format;
use crate::base::id::ConnectionIds;
use crate::base::network::ListenAddr;
use crate::control::{
    Failed, FailureKind, Give, OnProgress, Progress, Record, Refused, Step, UpgradeOutcome,
    UpgradeRequest, Upgraded,
};
use crate::handover::ownership::OwnershipWord;
use crate::handover::predecessor::{self, Action, Event, Outcome, Plan, Predecessor};
use crate::handover::wire::{MESSAGE_BYTES_MAX, ToPredecessor, ToSuccessor};
use crate::hub::WorkerIndex;
use crate::net::accounts::Accounts;
use crate::net::lane::Origin;
use crate::net::mailbox::Mailboxes;
use crate::net::order::{Order, Outlets, Report};
use crate::net::stop::Stop;
use crate::sys::clock;
use crate::sys::packets::{self, Received};

/// Where a successor comes from.
pub(super) enum Source<'s> {
    /// It is started.
    Launch(&'s UpgradeRequest),
    /// It has called us, and is to be given its end of the channel.
    Caller(Give<'s>),
}

impl Source<'_> {
    /// Nothing is to move.
    fn is_rehearsal(&self) -> bool {
        matches!(self, Self::Launch(request) if request.dry_run)
    }
}

/// How often whoever asked for an upgrade is told how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);

/// How long the thread that listens to the channel waits before it looks whether it is still
/// needed.
const CHANNEL_LOOK: Duration = Duration::from_millis(100);

/// How long a successor may leave what it is sent unread.
const UNREAD_MAX: Duration = Duration::from_secs(2);

/// How long to wait while other processes of this user have as many descriptors under way as one
/// may: each of them takes its own soon.
const UNDER_WAY_MAX: Duration = Duration::from_secs(10);

/// What operators are told of a successor that is dead.
const ENDED: &str = "the new process has ended";

/// What an upgrade needs of the running server; shared by the threads that may begin one.
pub(super) struct Center {
    pub(super) mailboxes: Arc<Mailboxes>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) ids: Arc<ConnectionIds>,
    pub(super) workers: usize,
    /// By the address that was configured.
    pub(super) listeners: ListenerCopies,
    pub(super) locks: Mutex<Vec<(ListenAddr, PortLock)>>,
    /// Where operators call.
    pub(super) control: Mutex<Option<OwnedFd>>,
    /// Over how long connections are closed.
    pub(super) drain: Duration,
    pub(super) supervision: Supervision,
    pub(super) generation: u64,
    pub(super) started: Instant,
    /// The workers have been told to stop.
    pub(super) stopping: AtomicBool,
    /// New connections go to another server while this one drains.
    pub(super) steered: Mutex<Option<Steered>>,
    /// Ends when the center does, which wakes the main thread; written to when it has to look.
    pub(super) waker: PipeWriter,
    pub(super) upgrade: UpgradeState,
}

/// What a server that was alongside another one may gain when that ends.
pub(super) struct Gained<'g> {
    pub(super) locks: &'g mut Vec<(ListenAddr, PortLock)>,
    pub(super) control: &'g mut Option<OwnedFd>,
}

/// Whether an upgrade is under way, and what has become of it.
#[derive(Debug, Default)]
pub(super) struct UpgradeState {
    /// The way to the one that is under way.
    events: Mutex<Option<Sender<Event>>>,
    /// The process that has taken over, by its own account; 0 before.
    moved_to: AtomicU32,
    /// It is no child of ours or of our supervisor's.
    to_caller: AtomicBool,
    /// It ended as soon as it had.
    lost: AtomicBool,
    /// The last upgrades, the oldest first.
    history: Mutex<Vec<Record>>,
    /// No operator reaches this process any more; and how to wait for that.
    control_left: Mutex<bool>,
    changed: Condvar,
}

impl UpgradeState {
    /// None is under way; there have been these.
    pub(super) fn new(history: Vec<Record>) -> Self {
        Self { history: Mutex::new(history), ..Self::default() }
    }
}

/// How long the outcome of an upgrade waits for the main thread to let go of the control socket.
const CONTROL_LEFT_MAX: Duration = Duration::from_secs(1);

/// Upgrades that are remembered.
const HISTORY_MAX: usize = 10;

impl Center {
    /// Leaves what is to survive a crash of ours with the supervisor, and says that we serve.
    pub(super) fn leave_copies(&self) {
        let (held, control) = (self.locks(), self.control());
        let listeners =
            self.listeners.iter().map(|(at, socket)| (Inherited::listener(at), socket.as_fd()));
        let locks = held.iter().map(|(at, lock)| (Inherited::lock(at), lock.as_fd()));
        let control = control.iter().map(|socket| (Inherited::control(), socket.as_fd()));
        self.supervision.serving(&listeners.chain(locks).chain(control).collect::<Vec<_>>());
    }

    /// The locks of our addresses.
    fn locks(&self) -> MutexGuard<'_, Vec<(ListenAddr, PortLock)>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where operators call.
    fn control(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `gain` see what it can gain, and say whether it has; that is handed over, and survives a
    /// crash, as the rest. Does nothing during an upgrade, of which it is too late to be a part.
    pub(super) fn gain(&self, gain: impl FnOnce(&mut Gained<'_>) -> bool) {
        // None can begin meanwhile.
        let events = self.events();
        if events.is_some() || self.moved_to().is_some() {
            return;
        }
        let gains = gain(&mut Gained { locks: &mut self.locks(), control: &mut self.control() });
        if gains {
            self.leave_copies();
        }
    }

    /// Whether an upgrade is under way.
    pub(super) fn is_upgrading(&self) -> bool {
        self.events().is_some()
    }

    /// Has the main thread look at once what has changed.
    pub(super) fn wake(&self) {
        // If the pipe is full it has not looked at what was written before.
        let _ = (&self.waker).write_all(&[0]);
    }

    /// Whether the workers have been told to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Tells the workers to stop.
    pub(super) fn stop(&self, stop: Stop) {
        if !self.stopping.swap(true, Ordering::SeqCst) && matches!(stop, Stop::Drain(_)) {
            *self.steered() = Some(Steered::away_from(&self.listeners));
        }
        self.supervision.stopping();
        self.mailboxes.order_all(&Order::Stop(stop));
    }

    /// Everything is over: whoever listens beside us goes on without us.
    pub(super) fn steer_no_more(&self) {
        *self.steered() = None;
    }

    fn steered(&self) -> MutexGuard<'_, Option<Steered>> {
        self.steered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process that has taken everything over.
    pub(super) fn moved_to(&self) -> Option<u32> {
        Some(self.upgrade.moved_to.load(Ordering::SeqCst)).filter(|pid| *pid != 0)
    }

    /// The same, if it is ours to pass signals on to.
    pub(super) fn moved_to_child(&self) -> Option<u32> {
        self.moved_to().filter(|_| !self.upgrade.to_caller.load(Ordering::SeqCst))
    }

    /// Whether the process that has taken everything over is dead already.
    pub(super) fn is_lost(&self) -> bool {
        self.upgrade.lost.load(Ordering::SeqCst)
    }

    /// Ends the upgrade that is under way, if that can still be; false if none is. The waker tells
    /// when its outcome is known.
    pub(super) fn abort_upgrade(&self, reason: &str) -> bool {
        let events = self.events();
        if let Some(events) = &*events {
            let _ = events.send(Event::AbortAsked(reason.to_owned()));
        }
        events.is_some()
    }

    fn events(&self) -> MutexGuard<'_, Option<Sender<Event>>> {
        self.upgrade.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upgrades there have been, the oldest first.
    pub(super) fn history(&self) -> Vec<Record> {
        self.upgrade.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands everything over to another process. Returns when the outcome is known.
    ///
    /// # Errors
    /// Why everything goes on as before.
    pub(super) fn hand_over(
        self: &Arc<Self>,
        source: Source<'_>,
        progress: OnProgress<'_>,
    ) -> Result<Upgraded, Failed> {
        let (sender, events) = mpsc::channel();
        {
            let mut current = self.events();
            if current.is_some() || self.moved_to().is_some() {
                let reason = "another upgrade is in progress";
                return Err(Failed::new(FailureKind::InProgress, reason));
            }
            if self.is_stopping() {
                return Err(Failed::new(FailureKind::Stopping, "the server is stopping"));
            }
            *current = Some(sender.clone());
        }
        let is_caller = matches!(source, Source::Caller(_));
        self.upgrade.to_caller.store(is_caller, Ordering::SeqCst);
        let outcome = self.attempt(source, progress, sender, &events);
        match &outcome {
            Ok(upgraded) if !upgraded.dry_run => {
                self.upgrade.moved_to.store(upgraded.pid, Ordering::SeqCst);
                tracing::info!(
                    connections = upgraded.connections,
                    refused = refusals(&upgraded.refused),
                    format = upgraded.format,
                    pause_us = upgraded.pause_us,
                    steps = ?upgraded.pause_steps.unwrap_or_default(),
                    total_ms = upgraded.total_ms,
                    predecessor = std::process::id(),
                    successor = upgraded.pid,
                    "upgraded"
                );
            }
            Ok(_) => tracing::info!("an upgrade would succeed"),
            Err(failed) if self.is_lost() => tracing::error!(error = %failed, "crashed"),
            Err(failed) => {
                tracing::error!(error = %failed, "not upgraded; everything goes on as before");
                let mut history =
                    self.upgrade.history.lock().unwrap_or_else(PoisonError::into_inner);
                remember(&mut history, UpgradeOutcome::Failed(failed.clone()));
            }
        }
        *self.events() = None;
        self.wake();
        if self.moved_to().is_some() {
            // Whoever hears the outcome may ask again at once, and means the successor.
            let left = self.upgrade.control_left.lock().unwrap_or_else(PoisonError::into_inner);
            let waited =
                self.upgrade.changed.wait_timeout_while(left, CONTROL_LEFT_MAX, |left| !*left);
            drop(waited);
        }
        outcome
    }

    /// No operator reaches this process any more.
    pub(super) fn control_is_left(&self) {
        *self.upgrade.control_left.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.upgrade.changed.notify_all();
    }

    fn attempt(
        self: &Arc<Self>,
        source: Source<'_>,
        progress: OnProgress<'_>,
        sender: Sender<Event>,
        events: &Receiver<Event>,
    ) -> Result<Upgraded, Failed> {
        let refused = |error: io::Error| Failed::new(FailureKind::Refused, reason_of(&error));
        let begun = Instant::now();
        let plan = Plan {
            generation: self.generation,
            workers: self.workers as u16,
            connections: self.accounts.connections() as u64,
            listeners: self.listeners.len() as u32,
            locks: self.locks().len() as u32,
            control: self.control().is_some(),
            rehearsal: source.is_rehearsal(),
            begun_ns: clock::monotonic_ns(),
            history: serde_json::to_string(&self.history()).unwrap_or_default(),
        };
        let word = OwnershipWord::create().map_err(refused)?;
        let launched = match source {
            Source::Launch(request) => self.supervision.launch(request.binary.as_deref()),
            Source::Caller(give) => {
                // Should we die from here on, the supervisor has to know whose everything is.
                self.supervision.contested(word.as_fd());
                give().map(|channel| Launched { process: Process::Caller, channel })
            }
        };
        let Launched { process, channel } = launched.map_err(refused)?;
        let dry_run = plan.rehearsal;
        let mut attempt = Attempt {
            center: self,
            channel: Arc::new(channel),
            word,
            sender,
            over: Arc::new(AtomicBool::new(false)),
            build: String::new(),
            pid: 0,
            format: Format::NEWEST,
            clock: PauseClock::default(),
        };
        let outcome = attempt.run(plan, progress, events);
        attempt.over.store(true, Ordering::SeqCst);
        let Attempt { build, pid, format, clock, .. } = attempt;
        let pid = process.id().unwrap_or(pid);
        let upgraded = |connections, refused: &[(Origin, String)]| Upgraded {
            dry_run,
            generation: self.generation + u64::from(!dry_run),
            pid: if dry_run { std::process::id() } else { pid },
            build,
            format: format.number(),
            connections,
            refused: by_reason(refused),
            pause_us: clock.pause().unwrap_or_default().as_micros() as u64,
            pause_steps: clock.steps(),
            total_ms: begun.elapsed().as_millis() as u64,
        };
        match outcome {
            Outcome::Aborted(reason) => {
                self.supervision.uncontested();
                Err(Failed::new(FailureKind::Aborted, process.end(reason)))
            }
            Outcome::Moved { connections, refused } => {
                if matches!(process, Process::Caller) {
                    self.supervision.moved();
                }
                Ok(upgraded(connections, &refused))
            }
            Outcome::Lost(reason) => {
                // Its status is not taken, so that nobody else gets its id while we wind up.
                self.upgrade.moved_to.store(pid, Ordering::SeqCst);
                self.upgrade.lost.store(true, Ordering::SeqCst);
                // It has died before its own supervisor was to start it again.
                self.supervision.uncontested();
                let reason = format!("{reason}, and all connections with it, which it had taken");
                Err(Failed::new(FailureKind::Failed, reason))
            }
            Outcome::Rehearsed { connections, refused } => {
                let upgraded = upgraded(connections, &refused);
                process.end(String::new());
                Ok(upgraded)
            }
        }
    }
}

/// Adds an upgrade that has just ended to those that are remembered.
pub(super) fn remember(history: &mut Vec<Record>, outcome: UpgradeOutcome) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    history.push(Record { at_unix_ms: since.as_millis() as u64, outcome });
    let surplus = history.len().saturating_sub(HISTORY_MAX);
    history.drain(..surplus);
}

/// Refused connections, counted by their reason.
pub(super) fn by_reason(refused: &[(Origin, String)]) -> Vec<Refused> {
    let mut reasons: Vec<Refused> = Vec::new();
    for (_, reason) in refused {
        match reasons.iter_mut().find(|known| known.reason == *reason) {
            Some(known) => known.connections += 1,
            None => reasons.push(Refused { reason: reason.clone(), connections: 1 }),
        }
    }
    reasons
}

fn refusals(refused: &[Refused]) -> u64 {
    refused.iter().map(|refused| refused.connections).sum()
}

/// One upgrade under way.
struct Attempt<'c> {
    center: &'c Arc<Center>,
    channel: Arc<OwnedFd>,
    word: OwnershipWord,
    sender: Sender<Event>,
    /// Nobody listens to the channel any more.
    over: Arc<AtomicBool>,
    /// Of the successor, by its own account.
    build: String,
    pid: u32,
    /// Of the states, once it is known what the successor reads.
    format: Format,
    clock: PauseClock,
}

impl Attempt<'_> {
    fn run(&mut self, plan: Plan, progress: OnProgress<'_>, events: &Receiver<Event>) -> Outcome {
        let listening = self.listen_to_channel();
        let (mut machine, mut actions) = Predecessor::new(plan);
        if let Err(error) = listening {
            actions = machine.handle(Event::ChannelEnded(error.to_string()));
        }
        let mut deadline = Instant::now();
        loop {
            let mut queue = VecDeque::from(std::mem::take(&mut actions));
            while let Some(action) = queue.pop_front() {
                match self.carry_out(action, &mut deadline) {
                    Ok(None) => {}
                    Ok(Some(Next::Feed(event))) => queue.extend(machine.handle(event)),
                    Ok(Some(Next::Done(outcome))) => return outcome,
                    // An action that fails does what a dead successor would.
                    Err(error) => {
                        tracing::debug!(%error, "upgrade");
                        queue.clear();
                        queue.extend(machine.handle(Event::ChannelEnded(reason_of(&error))));
                    }
                }
            }
            let connections = self.center.accounts.connections() as u64;
            let pause_us = self.clock.pause().map(|pause| pause.as_micros() as u64);
            if progress(Progress { step: step_of(&machine), done: 0, connections, pause_us })
                .is_break()
            {
                actions = machine.handle(Event::AbortAsked("nobody waits for it".to_owned()));
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let event = match events.recv_timeout(left.min(PROGRESS_EVERY)) {
                Ok(event) => event,
                Err(_) if left > PROGRESS_EVERY => continue,
                Err(_) => Event::TimedOut,
            };
            match &event {
                Event::Message(ToPredecessor::Hello { build, pid, .. }) => {
                    self.build.clone_from(build);
                    self.pid = *pid;
                }
                Event::WorkerSaved { .. } => self.clock.mark(Moment::Saved),
                _ => {}
            }
            actions = machine.handle(event);
        }
    }

    fn carry_out(&mut self, action: Action, deadline: &mut Instant) -> io::Result<Option<Next>> {
        match action {
            Action::Send(message @ ToSuccessor::Abort { .. }) => {
                // If it is dead, it need not be told.
                let _ = self.send(&message);
            }
            Action::Send(message) => self.send(&message)?,
            Action::PreCopy { lanes, format } => {
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("predecessor-ready");
                let outlets = self.make_lanes(lanes, format)?;
                self.center.mailboxes.order_all(&Order::PreCopy(outlets));
            }
            Action::Rehearse { lanes, format } => {
                let outlets = self.make_lanes(lanes, format)?;
                self.center.mailboxes.order_all(&Order::Rehearse(outlets));
            }
            Action::Freeze => {
                self.clock.mark(Moment::Freeze);
                self.center.mailboxes.set_frozen(true);
                self.center.mailboxes.order_all(&Order::Freeze);
            }
            Action::Settle => {
                self.clock.mark(Moment::Settle);
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("predecessor-frozen");
                self.center.mailboxes.order_all(&Order::Settle);
            }
            Action::Save => {
                self.clock.mark(Moment::Save);
                let ids_upcoming = self.center.ids.upcoming();
                let at_ns = self.clock.frozen_ns().expect("it has been frozen");
                self.send(&ToSuccessor::Frozen { ids_upcoming, at_ns })?;
                self.center.mailboxes.order_all(&Order::Save);
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("predecessor-saved");
            }
            Action::Offer => {
                self.clock.mark(Moment::Loaded);
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("predecessor-adopted");
                if !self.word.offer() {
                    return Err(io::Error::other("the connections are not ours to offer"));
                }
                self.send(&ToSuccessor::Offer)?;
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("predecessor-offered");
            }
            Action::Revoke => return Ok(Some(Next::Feed(Event::Revoked(self.word.revoke())))),
            Action::Thaw => {
                self.center.mailboxes.set_frozen(false);
                self.center.mailboxes.order_all(&Order::Thaw);
            }
            Action::Release(kept) => self.release(&kept),
            Action::Timer(time) => *deadline = Instant::now() + time,
            Action::Done(outcome) => return Ok(Some(Next::Done(outcome))),
        }
        Ok(None)
    }

    fn send(&self, message: &ToSuccessor) -> io::Result<()> {
        let word = [self.word.as_fd()];
        let with: &[BorrowedFd<'_>] =
            if matches!(message, ToSuccessor::Prepare { .. }) { &word } else { &[] };
        self.send_with(message, with)?;
        if matches!(message, ToSuccessor::Prepare { .. }) {
            for (address, listener) in &self.center.listeners {
                let message = ToSuccessor::Listener { address: address.to_string() };
                self.send_with(&message, &[listener.as_fd()])?;
            }
            for (address, lock) in &*self.center.locks() {
                let message = ToSuccessor::Lock { address: address.to_string() };
                self.send_with(&message, &[lock.as_fd()])?;
            }
            if let Some(control) = &*self.center.control() {
                self.send_with(&ToSuccessor::Control, &[control.as_fd()])?;
            }
        }
        Ok(())
    }

    fn send_with(&self, message: &ToSuccessor, with: &[BorrowedFd<'_>]) -> io::Result<()> {
        // It reads all the time, or it is dead: a full channel is as good as an ended one, but a
        // few packets may pile up while it starts.
        let begun = Instant::now();
        loop {
            match packets::send(&*self.channel, &message.encode(), with, false) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && begun.elapsed() < UNREAD_MAX
                        || error.kind() == io::ErrorKind::QuotaExceeded
                            && begun.elapsed() < UNDER_WAY_MAX =>
                {
                    thread::sleep(Duration::from_millis(1));
                }
                outcome => return outcome,
            }
        }
    }

    /// A lane for each worker of the successor, whose ends are sent to it.
    fn make_lanes(&mut self, count: u16, format: Format) -> io::Result<Outlets> {
        self.format = format;
        let mut lanes = Vec::with_capacity(count.into());
        for _ in 0..count {
            let (ours, theirs) = packets::pair()?;
            self.send_with(&ToSuccessor::Lane, &[theirs.as_fd()])?;
            lanes.push(ours);
        }
        let (reports, receiver) = mpsc::channel::<(WorkerIndex, Report)>();
        let sender = self.sender.clone();
        let forward = move || {
            while let Ok((worker, report)) = receiver.recv() {
                let _ = sender.send(event_of(worker, report));
            }
        };
        thread::Builder::new().name("upgrade-reports".to_owned()).spawn(forward)?;
        Ok(Outlets { lanes: lanes.into(), format, reports })
    }

    fn release(&mut self, kept: &[Origin]) {
        self.clock.mark(Moment::Over);
        self.center.mailboxes.set_frozen(false);
        for worker in 0..self.center.workers as WorkerIndex {
            let keys = kept.iter().filter(|origin| origin.worker == worker);
            let kept = keys.map(|origin| origin.key).collect();
            let order = Order::Release { kept, drain: self.center.drain };
            self.center.mailboxes.order_one(worker, order);
        }
    }

    /// Feeds what comes on the channel to the machine, on a thread of its own.
    fn listen_to_channel(&self) -> io::Result<()> {
        let (channel, sender, over) =
            (self.channel.clone(), self.sender.clone(), self.over.clone());
        let listen = move || {
            let mut buffer = vec![0; MESSAGE_BYTES_MAX];
            while !over.load(Ordering::SeqCst) {
                let mut descriptors = Vec::new();
                let look = Some(CHANNEL_LOOK);
                let event = match packets::receive(&*channel, &mut buffer, &mut descriptors, look) {
                    Ok(Received::Nothing) => continue,
                    Ok(Received::Ended) => Event::ChannelEnded(ENDED.to_owned()),
                    Ok(Received::Packet(len)) => match ToPredecessor::decode(&buffer[..len]) {
                        Ok(message) => Event::Message(message),
                        Err(error) => Event::ChannelEnded(error.to_string()),
                    },
                    Err(error) => Event::ChannelEnded(error.to_string()),
                };
                let ended = matches!(event, Event::ChannelEnded(_));
                if sender.send(event).is_err() || ended {
                    return;
                }
            }
        };
        thread::Builder::new().name("upgrade-channel".to_owned()).spawn(listen).map(drop)
    }
}

/// The step, as operators know it.
fn step_of(machine: &Predecessor) -> Step {
    match machine.step() {
        predecessor::Step::Start | predecessor::Step::Prepare => Step::Prepare,
        predecessor::Step::Copy => Step::Copy,
        predecessor::Step::Freeze => Step::Freeze,
        predecessor::Step::State => Step::State,
        predecessor::Step::Offer => Step::Offer,
        predecessor::Step::Done => Step::Done,
    }
}

enum Next {
    Feed(Event),
    Done(Outcome),
}

/// Whoever writes to a dead process may learn of it before whoever reads.
fn reason_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ENDED.to_owned(),
        // They are written to memory that is a file.
        io::ErrorKind::FileTooLarge => {
            "what is handed over is larger than a file may be; raise the limit (ulimit -f, LimitFSIZE=)"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

fn event_of(worker: WorkerIndex, report: Report) -> Event {
    match report {
        Report::Copied => Event::WorkerCopied,
        Report::Frozen => Event::WorkerFrozen,
        Report::Settled { idle } => Event::WorkerSettled { idle },
        Report::Saved { connections, kept } => {
            Event::WorkerSaved { worker, connections: connections as u64, kept }
        }
        Report::Failed(error) => Event::WorkerFailed(reason_of(&error)),
    }
}
