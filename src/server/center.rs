//! What the threads of a running server share: the main thread, which obeys signals, and those that
//! answer operators and carry out upgrades.

use std::io::{PipeWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::alongside::{Steered, To};
use super::crew::Shared;
use super::history::History;
use super::holdings::Holdings;
use super::launch::Supervision;
use crate::base::network::ListenAddr;
use crate::config::Settings;
use crate::control::{Failed, FailureKind, Record, UpgradeOutcome};
use crate::net::order::Order;
use crate::net::stop::Stop;
use crate::sys::bell::Rung;
use crate::sys::interfaces::{self, Refuge};
use crate::sys::pidfd::Pidfd;

/// How long the outcome of an upgrade waits for the main thread to let go of the control socket.
const CONTROL_LEFT_MAX: Duration = Duration::from_secs(1);

/// What the threads of a running server share.
pub(super) struct Center {
    /// What the workers share.
    pub(super) crew: Shared,
    /// Addresses it listens on, as they were configured.
    pub(super) listen: Vec<String>,
    /// What goes with the connections.
    holdings: Mutex<Holdings>,
    /// Who watches over us.
    pub(super) supervision: Supervision,
    /// What becomes of us.
    upgrade: UpgradeState,
    /// The longest that nobody is served for the sake of an upgrade.
    pub(super) pause_max: Duration,
    /// How it ends without a successor.
    ending: Ending,
    /// 1 for the process that was started, one more for each that serves after it.
    pub(super) generation: u64,
    pub(super) started: Instant,
    /// Ends when the center does, which wakes the main thread; written to when it has to look.
    waker: PipeWriter,
}

/// Whether an upgrade is under way, and what has become of those before.
#[derive(Debug, Default)]
struct UpgradeState {
    fate: Mutex<Fate>,
    history: Mutex<History>,
    /// No operator reaches this process any more; and how to wait for that.
    control_left: Mutex<bool>,
    changed: Condvar,
}

/// What becomes of this process.
#[derive(Debug, Clone, Default)]
pub(super) enum Fate {
    /// It serves.
    #[default]
    Serves,
    /// It serves, and an upgrade is under way, which ends for a reason that is sent here.
    Upgrades(Rung<String>),
    /// Another process serves.
    Moved(Successor),
}

/// The process that has taken everything over, and what it is to us.
#[derive(Debug, Clone)]
pub(super) enum Successor {
    /// A child of ours or of our supervisor's.
    Child(Arc<Pidfd>),
    /// It has come by itself.
    Caller,
    /// It ended as soon as it had taken over.
    Lost,
}

/// What has become of an order to stop.
#[derive(Debug, Clone)]
pub(super) enum Begun {
    /// The workers have been told.
    Stopping,
    /// They had been before.
    Already,
    /// They have not: an upgrade is under way.
    Upgrading,
    /// They have not: another process has taken everything over.
    Moved(Successor),
}

/// How a server ends.
#[derive(Debug)]
struct Ending {
    /// How it drains.
    drain: Stop,
    /// The workers have been told to stop.
    begun: AtomicBool,
    /// New connections go to another server while this one drains.
    steered: Mutex<Steered>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole, whatever happens to the thread that makes it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who a server is among those before and after it.
#[derive(Debug, Default)]
pub(super) struct Identity {
    /// Who watches over it.
    pub(super) supervision: Supervision,
    /// 1 for the process that was started, one more for each that serves after it.
    pub(super) generation: u64,
    /// The last upgrades.
    pub(super) history: History,
}

impl Center {
    /// Of a server that serves; `waker` wakes the main thread.
    pub(super) fn new(
        crew: Shared,
        holdings: Holdings,
        Identity { supervision, generation, history }: Identity,
        settings: &Settings,
        waker: PipeWriter,
    ) -> Self {
        Self {
            crew,
            listen: settings.listen.iter().map(ToString::to_string).collect(),
            holdings: Mutex::new(holdings),
            supervision,
            upgrade: UpgradeState { history: Mutex::new(history), ..UpgradeState::default() },
            pause_max: settings.pause_max,
            ending: Ending {
                drain: Stop::Drain { grace: settings.drain_grace, spread: settings.drain_duration },
                begun: AtomicBool::new(false),
                steered: Mutex::default(),
            },
            generation,
            started: Instant::now(),
            waker,
        }
    }

    /// Has the main thread look at once what has changed.
    pub(super) fn wake(&self) {
        // If the pipe is full it has not looked at what was written before.
        let _ = (&self.waker).write_all(&[0]);
    }

    // ---- holdings ----

    /// What goes with the connections.
    pub(super) fn holdings(&self) -> MutexGuard<'_, Holdings> {
        lock(&self.holdings)
    }

    /// Leaves copies of what is to survive a crash of ours with the supervisor, and says that we
    /// serve.
    pub(super) fn leave_copies(&self) {
        self.supervision.serving(&self.holdings().iter().collect::<Vec<_>>());
    }

    /// Lets `gain` add to the holdings, and say whether it has: the supervisor gets copies then.
    /// Does nothing during an upgrade, for which it is too late.
    pub(super) fn gain(&self, gain: impl FnOnce(&mut Holdings) -> bool) {
        // None can begin meanwhile.
        let fate = lock(&self.upgrade.fate);
        if matches!(*fate, Fate::Serves) && gain(&mut self.holdings()) {
            self.leave_copies();
        }
    }

    // ---- the end without a successor ----

    /// How it drains.
    pub(super) fn drain(&self) -> Stop {
        self.ending.drain
    }

    /// Over how long connections that stay behind in an upgrade are closed.
    pub(super) fn spread(&self) -> Duration {
        match self.ending.drain {
            Stop::Drain { spread, .. } => spread,
            Stop::Fast => Duration::ZERO,
        }
    }

    /// Whether the workers have been told to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.ending.begun.load(Ordering::SeqCst)
    }

    /// Tells the workers to stop.
    pub(super) fn stop(&self, stop: Stop) {
        if !self.ending.begun.swap(true, Ordering::SeqCst) && stop.is_drain() {
            *lock(&self.ending.steered) = Steered::away_from(&self.holdings(), To::All);
        }
        self.supervision.stopping();
        self.crew.mailboxes.order_all(&Order::Stop(stop));
        self.wake();
    }

    /// Tells the workers to stop, unless an upgrade is under way or has been; none begins meanwhile.
    pub(super) fn begin_to_stop(&self, stop: Stop) -> Begun {
        // Held to the end.
        let fate = lock(&self.upgrade.fate);
        match &*fate {
            Fate::Upgrades(_) => Begun::Upgrading,
            Fate::Moved(successor) => Begun::Moved(successor.clone()),
            Fate::Serves if self.is_stopping() && stop.is_drain() => Begun::Already,
            Fate::Serves => {
                self.stop(stop);
                Begun::Stopping
            }
        }
    }

    /// Tells the workers to end at once what they have not given away.
    pub(super) fn stop_what_is_left(&self) {
        self.crew.mailboxes.order_all(&Order::Stop(Stop::Fast));
    }

    /// Has the kernel let nobody join the queues of our listeners any more: newcomers go to whoever is
    /// alongside, or are refused.
    pub(super) fn shut_doors(&self) {
        let holdings = self.holdings();
        let mut steered = lock(&self.ending.steered);
        // Somebody may have come alongside during the drain.
        let last = Steered::away_from(&holdings, To::Lasting);
        for (address, socket) in holdings.listeners() {
            if matches!(address, ListenAddr::Unix(_)) || last.steers(address) {
                continue;
            }
            match interfaces::refuse_newcomers(socket) {
                Ok(Refuge::Unused(_)) => {}
                Ok(Refuge::Local(_)) => {
                    tracing::debug!(%address, "clients of this machine may be reset at the end");
                }
                Err(error) => {
                    tracing::warn!(%address, %error, "who comes at the very end may be reset");
                }
            }
        }
        *steered = last;
    }

    /// Everything is over: whoever listens beside us goes on without us.
    pub(super) fn close_listeners(&self) {
        self.holdings().drop_listeners();
        lock(&self.ending.steered).end();
    }

    // ---- upgrades ----

    /// Begins an upgrade, which ends for a reason that is sent to `aborts`.
    ///
    /// # Errors
    /// One is under way, or there will be none any more.
    pub(super) fn begin_upgrade(&self, aborts: Rung<String>) -> Result<(), Failed> {
        let mut fate = lock(&self.upgrade.fate);
        if !matches!(*fate, Fate::Serves) {
            let reason = "another upgrade is in progress";
            return Err(Failed::new(FailureKind::InProgress, reason));
        }
        if self.is_stopping() {
            return Err(Failed::new(FailureKind::Stopping, "the server is stopping"));
        }
        *fate = Fate::Upgrades(aborts);
        Ok(())
    }

    /// Ends the upgrade that was begun: it has come to nothing, or another process serves. Returns
    /// once the main thread knows.
    pub(super) fn end_upgrade(&self, moved: Option<Successor>) {
        let has_moved = moved.is_some();
        *lock(&self.upgrade.fate) = moved.map_or(Fate::Serves, Fate::Moved);
        self.wake();
        if has_moved {
            // Whoever hears the outcome may ask again at once, and means the successor.
            let left = lock(&self.upgrade.control_left);
            let waited =
                self.upgrade.changed.wait_timeout_while(left, CONTROL_LEFT_MAX, |left| !*left);
            drop(waited);
        }
    }

    /// No operator reaches this process any more.
    pub(super) fn control_is_left(&self) {
        *lock(&self.upgrade.control_left) = true;
        self.upgrade.changed.notify_all();
    }

    /// What becomes of this process, as far as it is known.
    pub(super) fn fate(&self) -> Fate {
        lock(&self.upgrade.fate).clone()
    }

    /// Ends the upgrade that is under way, if there is one and that can still be. The waker tells
    /// when its outcome is known.
    pub(super) fn abort_upgrade(&self, reason: &str) {
        if let Fate::Upgrades(aborts) = &*lock(&self.upgrade.fate) {
            aborts.send(reason.to_owned());
        }
    }

    /// The upgrades there have been.
    pub(super) fn history(&self) -> History {
        lock(&self.upgrade.history).clone()
    }

    /// The same, as records, the oldest first.
    pub(super) fn records(&self) -> Vec<Record> {
        lock(&self.upgrade.history).records()
    }

    /// Remembers an upgrade that has ended.
    pub(super) fn remember(&self, outcome: UpgradeOutcome) {
        lock(&self.upgrade.history).add(outcome);
    }
}
