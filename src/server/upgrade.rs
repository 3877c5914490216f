//! The predecessor's side of an upgrade: starts the new program and carries out what the state
//! machine of [`handover::predecessor`](crate::handover::predecessor) decides.

use std::fmt;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::foundation::ListenerCopies;
use super::launch;
use super::lock::PortLock;
use crate::base::id::ConnectionIds;
use crate::base::network::ListenAddr;
use crate::handover::Ownership;
use crate::handover::predecessor::{Action, Event, Outcome, Plan, Predecessor};
use crate::handover::wire::{MESSAGE_BYTES_MAX, ToPredecessor, ToSuccessor};
use crate::hub::WorkerIndex;
use crate::net::accounts::Accounts;
use crate::net::lane::Origin;
use crate::net::mailbox::Mailboxes;
use crate::net::worker::moving::{Order, Outlets, Report};
use crate::sys::memory::SharedWord;
use crate::sys::packets;

/// How long the thread that listens to the channel waits before it looks whether it is still
/// needed.
const CHANNEL_LOOK: Duration = Duration::from_millis(100);

/// How long a successor that was given up may take to end by itself.
const ENDING: Duration = Duration::from_secs(2);

/// What an upgrade needs of the running server; shared by the threads that may begin one.
pub(super) struct Center {
    pub(super) mailboxes: Arc<Mailboxes>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) ids: Arc<ConnectionIds>,
    pub(super) workers: usize,
    /// By the address that was configured.
    pub(super) listeners: ListenerCopies,
    pub(super) locks: Vec<(ListenAddr, PortLock)>,
    /// Over how long connections that could not move are closed.
    pub(super) drain: Duration,
    pub(super) generation: u64,
    /// Ends when the center does, which wakes the main thread; written to when it has to look.
    pub(super) waker: PipeWriter,
    pub(super) upgrade: UpgradeState,
}

/// Whether an upgrade is under way, and what has become of it.
#[derive(Debug, Default)]
pub(super) struct UpgradeState {
    /// The way to the one that is under way.
    events: Mutex<Option<Sender<Event>>>,
    /// The process that has taken over; 0 before.
    moved_to: AtomicU32,
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upgrade {
    /// The new program; without it, the one this process was started by.
    pub binary: Option<PathBuf>,
    /// Try everything, and move nothing.
    pub dry_run: bool,
}

/// How far an upgrade has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// `start`, `prepare`, `copy`, `freeze`, `state`, `offer` or `done`.
    pub step: &'static str,
    /// Connections now.
    pub connections: usize,
}

/// What came of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgraded {
    /// The new process.
    pub pid: u32,
    /// Its generation.
    pub generation: u64,
    /// Connections that have moved, or in a dry run would have.
    pub connections: u64,
    /// Connections that have not, or would not, by where they are here, and why.
    pub refused: Vec<String>,
    /// From the freeze until the successor served; zero in a dry run.
    pub pause: Duration,
    /// From the beginning to the end.
    pub total: Duration,
}

/// Why there was no upgrade. Everything goes on as before.
#[derive(Debug)]
pub enum UpgradeFailed {
    /// Another one is under way.
    InProgress,
    /// The new program cannot be started.
    NotStarted(io::Error),
    /// Nothing was moved, because.
    Aborted(String),
}

impl fmt::Display for UpgradeFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InProgress => write!(f, "another upgrade is in progress"),
            Self::NotStarted(error) => write!(f, "the new program cannot be started: {error}"),
            Self::Aborted(reason) => write!(f, "{reason}"),
        }
    }
}

impl std::error::Error for UpgradeFailed {}

impl Center {
    /// The process that has taken everything over.
    pub(super) fn moved_to(&self) -> Option<u32> {
        Some(self.upgrade.moved_to.load(Ordering::SeqCst)).filter(|pid| *pid != 0)
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

    fn events(&self) -> std::sync::MutexGuard<'_, Option<Sender<Event>>> {
        self.upgrade.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands everything over to a new process. Returns when the outcome is known.
    ///
    /// # Errors
    /// See [`UpgradeFailed`].
    pub(super) fn upgrade(
        self: &Arc<Self>,
        upgrade: &Upgrade,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Upgraded, UpgradeFailed> {
        let (sender, events) = mpsc::channel();
        {
            let mut current = self.events();
            if current.is_some() || self.moved_to().is_some() {
                return Err(UpgradeFailed::InProgress);
            }
            *current = Some(sender.clone());
        }
        let outcome = self.attempt(upgrade, progress, sender, &events);
        match &outcome {
            Ok(upgraded) if !upgrade.dry_run => {
                self.upgrade.moved_to.store(upgraded.pid, Ordering::SeqCst);
                tracing::info!(
                    connections = upgraded.connections,
                    refused = upgraded.refused.len(),
                    pause_ms = upgraded.pause.as_secs_f64() * 1e3,
                    total_ms = upgraded.total.as_secs_f64() * 1e3,
                    predecessor = std::process::id(),
                    successor = upgraded.pid,
                    "upgraded"
                );
            }
            Ok(_) => tracing::info!("an upgrade would succeed"),
            Err(error) => tracing::error!(%error, "not upgraded; everything goes on as before"),
        }
        *self.events() = None;
        // The main thread looks at once.
        let _ = (&self.waker).write_all(&[0]);
        outcome
    }

    fn attempt(
        self: &Arc<Self>,
        upgrade: &Upgrade,
        progress: &mut dyn FnMut(Progress),
        sender: Sender<Event>,
        events: &Receiver<Event>,
    ) -> Result<Upgraded, UpgradeFailed> {
        let begun = Instant::now();
        let launched =
            launch::launch(upgrade.binary.as_deref()).map_err(UpgradeFailed::NotStarted)?;
        let plan = Plan {
            generation: self.generation,
            workers: self.workers as u16,
            connections: self.accounts.connections() as u64,
            listeners: self.listeners.len() as u32,
            locks: self.locks.len() as u32,
            rehearsal: upgrade.dry_run,
        };
        let word = SharedWord::create().map_err(UpgradeFailed::NotStarted)?;
        let mut attempt = Attempt {
            center: self,
            channel: Arc::new(launched.channel),
            word,
            sender,
            over: Arc::new(AtomicBool::new(false)),
            frozen_at: None,
            pause: Duration::ZERO,
        };
        let outcome = attempt.run(plan, progress, events);
        attempt.over.store(true, Ordering::SeqCst);
        let pause = attempt.pause;
        let pid = launched.child.id();
        match outcome {
            Outcome::Aborted(reason) => {
                drop(attempt);
                Err(UpgradeFailed::Aborted(end(launched.child, reason)))
            }
            Outcome::Moved { connections, refused } => {
                let refused = refused.iter().map(describe).collect();
                let generation = self.generation + 1;
                Ok(Upgraded {
                    pid,
                    generation,
                    connections,
                    refused,
                    pause,
                    total: begun.elapsed(),
                })
            }
            Outcome::Rehearsed { connections, refused } => {
                drop(attempt);
                end(launched.child, String::new());
                let refused = refused.iter().map(describe).collect();
                let generation = self.generation;
                Ok(Upgraded {
                    pid,
                    generation,
                    connections,
                    refused,
                    pause,
                    total: begun.elapsed(),
                })
            }
        }
    }
}

fn describe((origin, reason): &(Origin, String)) -> String {
    format!("worker {} {:?}: {reason}", origin.worker, origin.key)
}

/// Sees a successor off that is not needed; says what it has said of its own end.
fn end(mut child: Child, reason: String) -> String {
    let until = Instant::now() + ENDING;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return reason,
            Ok(Some(status)) => return format!("{reason} (it ended with {status})"),
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return format!("{reason} (it was killed)");
            }
        }
    }
}

/// One upgrade under way.
struct Attempt<'c> {
    center: &'c Arc<Center>,
    channel: Arc<OwnedFd>,
    word: SharedWord,
    sender: Sender<Event>,
    /// Nobody listens to the channel any more.
    over: Arc<AtomicBool>,
    frozen_at: Option<Instant>,
    pause: Duration,
}

impl Attempt<'_> {
    fn run(
        &mut self,
        plan: Plan,
        progress: &mut dyn FnMut(Progress),
        events: &Receiver<Event>,
    ) -> Outcome {
        let listening = self.listen_to_channel();
        let (mut machine, mut actions) = Predecessor::new(plan);
        if let Err(error) = listening {
            actions = machine.handle(Event::ChannelEnded(error.to_string()));
        }
        let mut deadline = Instant::now();
        let mut step = "";
        loop {
            let mut queue = std::collections::VecDeque::from(actions);
            while let Some(action) = queue.pop_front() {
                match self.carry_out(action, &mut deadline) {
                    Ok(None) => {}
                    Ok(Some(Next::Feed(event))) => queue.extend(machine.handle(event)),
                    Ok(Some(Next::Done(outcome))) => return outcome,
                    // An action that fails does what a dead successor would.
                    Err(error) => {
                        tracing::debug!(%error, "upgrade");
                        queue.clear();
                        queue.extend(machine.handle(Event::ChannelEnded(error.to_string())));
                    }
                }
            }
            if machine.step() != step {
                step = machine.step();
                tracing::debug!(step, "upgrade");
                progress(Progress { step, connections: self.center.accounts.connections() });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let event = events.recv_timeout(left).unwrap_or(Event::TimedOut);
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
            Action::PreCopy { lanes } => {
                let outlets = self.make_lanes(lanes)?;
                self.center.mailboxes.order_all(&Order::PreCopy(outlets));
            }
            Action::Rehearse { lanes } => {
                let outlets = self.make_lanes(lanes)?;
                self.center.mailboxes.order_all(&Order::Rehearse(outlets));
            }
            Action::Freeze => {
                self.frozen_at = Some(Instant::now());
                self.center.mailboxes.set_frozen(true);
                self.center.mailboxes.order_all(&Order::Freeze);
            }
            Action::Settle => self.center.mailboxes.order_all(&Order::Settle),
            Action::Save => {
                let ids_upcoming = self.center.ids.upcoming();
                self.send(&ToSuccessor::Frozen { ids_upcoming })?;
                self.center.mailboxes.order_all(&Order::Save);
            }
            Action::Offer => {
                let (from, to) = (Ownership::Preparing.word(), Ownership::Offered.word());
                self.word.change(from, to).map_err(|_| io::Error::other("the word is not ours"))?;
                self.send(&ToSuccessor::Offer)?;
            }
            Action::Revoke => return Ok(Some(Next::Feed(Event::Revoked(self.revoke())))),
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
            for (address, lock) in &self.center.locks {
                let message = ToSuccessor::Lock { address: address.to_string() };
                self.send_with(&message, &[lock.as_fd()])?;
            }
        }
        Ok(())
    }

    fn send_with(&self, message: &ToSuccessor, with: &[BorrowedFd<'_>]) -> io::Result<()> {
        // It reads all the time, or it is dead: a full channel is as good as an ended one, but a
        // few packets may pile up while it starts.
        let until = Instant::now() + ENDING;
        loop {
            match packets::send(self.channel.as_fd(), &message.encode(), with, packets::Wait::No) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until =>
                {
                    thread::sleep(Duration::from_millis(1));
                }
                outcome => return outcome,
            }
        }
    }

    /// A lane for each worker of the successor, whose ends are sent to it.
    fn make_lanes(&self, count: u16) -> io::Result<Outlets> {
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
        Ok(Outlets { lanes: lanes.into(), reports })
    }

    /// Whether the connections are ours for good.
    fn revoke(&self) -> bool {
        let revoked = Ownership::Revoked.word();
        [Ownership::Preparing, Ownership::Offered]
            .into_iter()
            .any(|from| self.word.change(from.word(), revoked).is_ok())
    }

    fn release(&mut self, kept: &[Origin]) {
        self.pause = self.frozen_at.map_or(Duration::ZERO, |at| at.elapsed());
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
                let event =
                    match packets::receive(channel.as_fd(), &mut buffer, &mut descriptors, look) {
                        Ok(0) => Event::ChannelEnded("the new process has ended".to_owned()),
                        Ok(len) => match ToPredecessor::decode(&buffer[..len]) {
                            Ok(message) => Event::Message(message),
                            Err(error) => Event::ChannelEnded(error.to_string()),
                        },
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
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

enum Next {
    Feed(Event),
    Done(Outcome),
}

fn event_of(worker: WorkerIndex, report: Report) -> Event {
    match report {
        Report::Copied { .. } => Event::WorkerCopied,
        Report::Frozen => Event::WorkerFrozen,
        Report::Settled { idle } => Event::WorkerSettled { idle },
        Report::Saved { kept, .. } => Event::WorkerSaved { worker, kept },
        Report::Failed(error) => Event::WorkerFailed(error.to_string()),
    }
}
