//! A server at work: what its owner can do with it, and how it obeys signals.

use std::io::{self, PipeReader, Read};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::alongside::{self, Awaited, Control};
use super::center::{Begun, Center, Fate, Identity, Successor};
use super::crew::{Crew, WorkerThread};
use super::foundation::Foundation;
use super::holdings::Label;
use super::operate::Operations;
use super::orders::{self, Given, Orders, Wanted};
use super::trim::Trimmer;
use super::upgrade::{self, Source};
use super::{Builder, routes};
use crate::app::{Outgoing, Post, Undeliverable};
use crate::base::network::{ListenAddr, UnixAddr};
use crate::config::Settings;
use crate::control::{self, ControlListener, UpgradeOutcome, UpgradeRequest};
use crate::hub::{RoomRef, WorkerIndex};
use crate::net::listener::{self, Unlink};
use crate::net::order::Order;
use crate::net::socket_file;
use crate::net::stop::Stop;
use crate::net::worker::adopting::{Finding, Instruction};
use crate::supervisor::Ending;
use crate::sys::bell::Rung;
use crate::sys::poll::wait_readable;
use crate::sys::signals::Signals;

/// How often the main thread looks whether its workers are there: while they serve, and while they
/// stop.
const SERVING_LOOK: Duration = Duration::from_secs(1);
const STOPPING_LOOK: Duration = Duration::from_millis(20);

/// How long the end waits for operators to hear the outcome of what they have asked for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A server at work.
pub struct Running {
    addresses: Vec<ListenAddr>,
    center: Arc<Center>,
    threads: Vec<WorkerThread>,
    unlink: Vec<Unlink>,
    control: Option<Control>,
    /// Readable once there is something to look at.
    wake: PipeReader,
    /// What the server that this one is alongside still has.
    awaited: Awaited,
    /// The workers have been told that nobody comes any more.
    seen_out: bool,
}

/// A server that serves nobody yet, because what it would serve is not its own, or is not there.
/// It has every descriptor and every thread it needs: from here on nothing can fail.
pub(super) struct Standby {
    running: Running,
    crew: Crew,
    control: Option<(ControlListener, control::Standby)>,
    /// Bound, not listening.
    silent: Vec<(ListenAddr, OwnedFd)>,
    /// Unix sockets that are the predecessor's yet.
    inherited_paths: Vec<UnixAddr>,
}

impl Standby {
    /// # Errors
    /// Descriptors or threads are lacking.
    pub(super) fn new(
        builder: &Builder,
        settings: &Settings,
        mut foundation: Foundation,
        identity: Identity,
        findings: &Rung<(WorkerIndex, Finding)>,
    ) -> io::Result<Self> {
        let hands = foundation.deal_listeners(settings.workers.max(1));
        let max = foundation.connections_max;
        let mut crew = Crew::spawn(builder, settings, max, hands, findings)?;
        let Foundation {
            addresses,
            unlink,
            control,
            holdings,
            silent,
            inherited_paths,
            awaited,
            ..
        } = foundation;
        let (wake, waker) = io::pipe()?;
        let shared = crew.shared.clone();
        let center = Arc::new(Center::new(shared, holdings, identity, settings, waker));
        let prepare = |listener: ControlListener| {
            let standby = control::prepare(&listener, Arc::new(Operations(center.clone())))?;
            io::Result::Ok((listener, standby))
        };
        let control = control.map(prepare).transpose()?;
        let threads = std::mem::take(&mut crew.threads);
        let running = Running {
            addresses,
            center,
            threads,
            unlink,
            control: None,
            wake,
            awaited,
            seen_out: false,
        };
        Ok(Self { running, crew, control, silent, inherited_paths })
    }

    /// Tells the workers.
    pub(super) fn instruct(&self, instruction: impl FnMut(usize) -> Instruction) {
        self.crew.instruct(instruction);
    }

    /// Connection ids go on from here.
    pub(super) fn skip_ids(&self, upcoming: u64) {
        self.crew.shared.ids.skip_to(upcoming);
    }

    /// Lets the sockets listen that do not yet. One that cannot is given up; returns the first such
    /// failure.
    pub(super) fn listen(&mut self) -> io::Result<()> {
        let mut outcome = Ok(());
        for (address, socket) in self.silent.drain(..) {
            match listener::listen(&socket) {
                Ok(()) => {
                    self.running.center.holdings().add(Label::Listener(address), socket);
                }
                Err(error) => {
                    tracing::error!(%address, %error, "one socket fewer listens");
                    outcome = outcome.and(Err(error));
                }
            }
        }
        outcome
    }

    /// Ends what a server has left that drained beside another one at our addresses.
    pub(super) fn steer_nowhere(&self) {
        alongside::steer_nowhere(&self.running.center.holdings());
    }

    /// Serves what is ours from now on, and returns when all workers do. `outcome` is called then,
    /// and remembered before any operator can ask.
    pub(super) fn serve(
        self,
        serve: impl Fn(Sender<()>) -> Instruction,
        outcome: impl FnOnce() -> Option<UpgradeOutcome>,
    ) -> Running {
        let Self { mut running, crew, control, silent: _, inherited_paths } = self;
        crew.serve(serve);
        if let Some(outcome) = outcome() {
            running.center.remember(outcome);
        }
        for UnixAddr { path, access } in inherited_paths {
            if let Err(error) = socket_file::grant(&path, &access) {
                tracing::warn!(path = %path.display(), %error, "who may connect is as it was before");
            }
            running.unlink.push(Unlink::new(&path));
        }
        running.control = control.map(|(listener, standby)| (listener, standby.serve()));
        running
    }

    /// Gives everything up.
    pub(super) fn discard(self) {
        let Self { mut running, mut crew, .. } = self;
        crew.threads = std::mem::take(&mut running.threads);
        crew.disband();
    }
}

impl Running {
    /// Leaves what is to survive a crash of ours with the supervisor, and says that we serve.
    pub(super) fn leave_copies(&self) {
        self.center.leave_copies();
    }

    /// Where it listens, with the ports that were given where 0 was asked for.
    pub fn addresses(&self) -> &[ListenAddr] {
        &self.addresses
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.center.crew.accounts.connections()
    }

    /// Sends a message to every member of a room. `space` is the path pattern of the route that the
    /// members have come by, or the route's `room_space`.
    ///
    /// # Errors
    /// See [`Undeliverable`].
    pub fn publish<'m>(
        &self,
        space: &str,
        room: &str,
        message: impl Into<Outgoing<'m>>,
    ) -> Result<(), Undeliverable> {
        let mailboxes = &self.center.crew.mailboxes;
        let space = mailboxes.space(space).ok_or(Undeliverable::NoSpace)?;
        mailboxes.publish(RoomRef { space, name: room }, message.into())
    }

    /// Tells the workers to stop; returns at once.
    pub fn stop(&self, stop: Stop) {
        self.center.stop(stop);
    }

    /// Waits until the workers have stopped.
    ///
    /// # Errors
    /// A worker failed.
    pub fn join(mut self) -> io::Result<()> {
        while !self.has_ended() {
            self.see_out();
            let stopping = self.center.is_stopping();
            let look_after = if stopping { STOPPING_LOOK } else { SERVING_LOOK };
            if wait_readable(&[self.wake.as_fd()], Some(look_after))?[0] {
                self.wake.read_exact(&mut [0])?;
            }
        }
        let outcomes: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        let moved = matches!(self.center.fate(), Fate::Moved(_));
        self.center.close_listeners();
        if let Some((listener, serving)) = self.control {
            if !serving.finish(LAST_WORDS) {
                tracing::warn!("somebody did not hear the outcome of what he asked for");
            }
            if !moved {
                listener.remove();
            }
        }
        for outcome in outcomes {
            outcome.map_err(|_| io::Error::other("a worker panicked"))??;
        }
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Lets the workers end once all of them are through with their stop.
    fn see_out(&mut self) {
        if self.seen_out || !self.center.crew.accounts.are_all_through() {
            return;
        }
        self.seen_out = true;
        if matches!(self.center.fate(), Fate::Moved(_)) {
            // The sockets live on in the successor.
            self.unlink.drain(..).for_each(Unlink::leave);
        } else {
            // Newcomers do not find the others' queues from here on.
            self.unlink.clear();
            self.center.shut_doors();
        }
        self.center.crew.mailboxes.order_all(&Order::Leave);
    }

    pub(super) fn announce(&self, settings: &Settings) {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            generation = self.center.generation,
            workers = settings.workers,
            connections_max = self.center.crew.accounts.connections_max(),
            memory_max = self.center.crew.accounts.memory_max(),
            control = self.control.as_ref().map(|(it, _)| it.path().display().to_string()),
            "steadfast serves"
        );
        for address in &self.addresses {
            for route in &settings.routes {
                let scheme = if routes::is_http(&route.app) { "http" } else { "ws" };
                match address {
                    ListenAddr::Tcp(address) => {
                        tracing::info!("{}: {scheme}://{address}{}", route.app, route.path);
                    }
                    ListenAddr::Unix(_) => {
                        tracing::info!("{}: {scheme} at {address}, {}", route.app, route.path);
                    }
                }
            }
        }
    }

    /// Obeys orders until the workers have stopped.
    pub(super) fn obey(mut self, signals: &Signals) -> io::Result<()> {
        let mut orders = Orders::new(signals);
        // What waits for the outcome of an upgrade: that decides who is to end.
        let mut deferred: Option<Wanted> = None;
        let mut trimmer = Trimmer::new();
        loop {
            // First of all: the workers of an upgrade that succeeds end before its outcome is known.
            let fate = self.center.fate();
            let upgrading = matches!(fate, Fate::Upgrades(_));
            if !upgrading && self.has_ended() {
                break;
            }
            let moved = matches!(fate, Fate::Moved(_));
            if moved {
                self.leave_control();
            }
            let expected = self.center.is_stopping() || moved;
            if expected && !upgrading {
                self.see_out();
            }
            if self.threads.iter().any(JoinHandle::is_finished) && !expected && !upgrading {
                tracing::error!("a worker has ended; the others stop");
                self.stop(Stop::Fast);
                break;
            }
            if !expected {
                // What an operator has asked for is answered over it.
                if !upgrading {
                    self.look_after_control();
                }
                self.gain();
            }
            while let Some(given) = orders.next(&self.center.supervision)? {
                match given {
                    Given::Upgrade => self.upgrade(),
                    Given::End(wanted) => deferred = deferred.max(Some(wanted)),
                }
            }
            deferred = deferred.and_then(|wanted| self.end(wanted));
            if !expected {
                trimmer.look(self.center.crew.accounts.held());
            }
            // Orders come at once; that a worker has ended, with the next look.
            let look_after = if expected { STOPPING_LOOK } else { SERVING_LOOK };
            if orders.wait(&self.center.supervision, self.wake.as_fd(), look_after)? {
                self.wake.read_exact(&mut [0])?;
            }
        }
        self.leave_control();
        let fate = self.center.fate();
        self.join()?;
        match fate {
            Fate::Moved(Successor::Lost) => {
                return Err(io::Error::other("the successor has died with all connections"));
            }
            Fate::Moved(_) => tracing::info!("handed over"),
            Fate::Serves | Fate::Upgrades(_) => tracing::info!("stopped"),
        }
        Ok(())
    }

    /// Takes what was waited for and can be had. It is handed over, and survives a crash, as the rest.
    fn gain(&mut self) {
        let Self { awaited, control, center, .. } = self;
        if !awaited.is_empty() {
            let operations = || Arc::new(Operations(center.clone()));
            center.gain(|holdings| {
                awaited.gain(holdings, control, |listener| control::serve(listener, operations()))
            });
        }
    }

    /// Lets go of a control socket whose file is gone, as whatever cleans up directories of temporary
    /// files removes it: nobody reaches it. Another one is bound with the next look.
    fn look_after_control(&mut self) {
        let lost = self.control.take_if(|(listener, _)| listener.is_lost());
        if let Some((listener, _)) = lost {
            let path = listener.path().to_owned();
            tracing::warn!(path = %path.display(), "the control socket's file is gone: bound anew");
            self.awaited.control = Some(path);
        }
    }

    /// Operators who call from now on are the successor's.
    fn leave_control(&mut self) {
        if let Some((_, serving)) = &mut self.control {
            serving.close();
        }
        self.center.control_is_left();
    }

    /// Ends as it is wanted to; returns what waits for the outcome of an upgrade.
    fn end(&self, wanted: Wanted) -> Option<Wanted> {
        let connections = self.connections();
        let stop = match wanted.ending {
            Ending::Drain => self.center.drain(),
            Ending::Fast => Stop::Fast,
        };
        match self.center.begin_to_stop(stop) {
            Begun::Stopping => match stop {
                Stop::Drain { grace, spread } => {
                    let (grace_ms, spread_ms) = (grace.as_millis(), spread.as_millis());
                    let (grace_ms, spread_ms) = (grace_ms as u64, spread_ms as u64);
                    tracing::info!(grace_ms, spread_ms, connections, "draining");
                }
                Stop::Fast => tracing::info!(connections, "stopping"),
            },
            Begun::Already => {}
            Begun::Upgrading => {
                self.center.abort_upgrade("the server was told to stop");
                return Some(Wanted { was_deferred: true, ..wanted });
            }
            Begun::Moved(successor) => self.pass_on(&successor, wanted),
        }
        None
    }

    /// Another process has taken over: what this one was told to do is for that one to do.
    fn pass_on(&self, successor: &Successor, wanted: Wanted) {
        let Wanted { ending, by_signal, was_deferred } = wanted;
        // What is left here is being closed by and by.
        if ending == Ending::Fast {
            self.center.stop_what_is_left();
        }
        let supervision = &self.center.supervision;
        if supervision.link().is_some() {
            // The supervisor orders its processes what it was told itself. A signal that came when
            // everything had been given away was for this process alone.
            if by_signal && was_deferred {
                supervision.end(ending);
            }
        } else if let Successor::Child(successor) = successor {
            let drain = ending == Ending::Drain;
            tracing::info!(drain, "the order to end is passed on to the successor");
            let _ = orders::pass_on(successor, ending);
        }
    }

    /// Orders go on being obeyed while it runs.
    fn upgrade(&self) {
        tracing::info!("upgrading");
        let center = self.center.clone();
        let thread = thread::Builder::new().name("upgrade".to_owned());
        let spawned = thread.spawn(move || {
            // Nobody waits for the outcome, which is in the log.
            let request = UpgradeRequest::default();
            let source = Source::Launch(&request);
            let _ = upgrade::hand_over(&center, source, &mut |_| ControlFlow::Continue(()));
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "not upgraded: no thread can be started");
        }
    }
}
