//! The predecessor's side of an upgrade: starts the new program and carries out what the state
//! machine of [`handover::predecessor`](crate::handover::predecessor) decides.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use super::center::{Center, Successor};
use super::history::by_reason;
use super::launch::{Launched, Process};
use super::line::{Heard, Line};
use crate::base::format::Format;
use crate::control::{
    Failed, FailureKind, Give, OnProgress, PauseSteps, Progress, Refused, UpgradeOutcome,
    UpgradeRequest, Upgraded,
};
use crate::handover::ownership::OwnershipWord;
use crate::handover::predecessor::{Action, Event, Outcome, Plan, Predecessor};
use crate::handover::wire::{ToPredecessor, ToSuccessor};
use crate::handover::{Step, Timeline};
use crate::hub::WorkerIndex;
use crate::net::lane::Origin;
use crate::net::order::{Order, Outlets, Report};
use crate::sys::bell::{Bell, Rung};
use crate::sys::clock;
use crate::sys::packets;

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

/// How long a successor may leave what it is sent unread.
const UNREAD_MAX: Duration = Duration::from_secs(2);

/// How long to wait while other processes of this user have as many descriptors under way as one
/// may: each of them takes its own soon.
const UNDER_WAY_MAX: Duration = Duration::from_secs(10);

/// What operators are told of a successor that is dead.
const ENDED: &str = "the new process has ended";

/// Hands everything over to another process. Returns when the outcome is known.
///
/// # Errors
/// Why everything goes on as before.
pub(super) fn hand_over(
    center: &Center,
    source: Source<'_>,
    progress: OnProgress<'_>,
) -> Result<Upgraded, Failed> {
    let mut times = Timeline::default();
    times.enter(Step::Start, clock::monotonic_ns());
    let bell = Bell::new().map_err(|error| refused(&error))?;
    let (aborts, asked) = bell.channel();
    center.begin_upgrade(aborts)?;
    let mut upgrade = Upgrade { center, times, moved: None };
    let is_rehearsal = source.is_rehearsal();
    let outcome = upgrade.run(source, progress, bell, asked);
    let Upgrade { times, moved, .. } = upgrade;
    let step = times.last().unwrap_or(Step::Start);
    match &outcome {
        Ok(upgraded) if moved.is_some() => log(upgraded),
        Ok(_) => tracing::info!("an upgrade would succeed"),
        Err(failed) if moved.is_some() => tracing::error!(error = %failed, "crashed"),
        Err(failed) => {
            tracing::error!(error = %failed, %step, "not upgraded; everything goes on as before");
            // A dry run was none, whatever came of it.
            if !is_rehearsal {
                center.remember(UpgradeOutcome::Failed(failed.clone()));
            }
        }
    }
    center.end_upgrade(moved);
    outcome
}

fn log(upgraded: &Upgraded) {
    let PauseSteps { freeze_us, settle_us, save_us, load_us, take_us } =
        upgraded.pause_steps.unwrap_or_default();
    tracing::info!(
        connections = upgraded.connections,
        refused = refusals(&upgraded.refused),
        format = upgraded.format,
        pause_us = upgraded.pause_us,
        freeze_us,
        settle_us,
        save_us,
        load_us,
        take_us,
        total_ms = upgraded.total_ms,
        predecessor = std::process::id(),
        successor = upgraded.pid,
        "upgraded"
    );
}

fn refused(error: &io::Error) -> Failed {
    Failed::new(FailureKind::Refused, reason_of(error))
}

fn refusals(refused: &[Refused]) -> u64 {
    refused.iter().map(|refused| refused.connections).sum()
}

/// An upgrade, and what it comes to.
struct Upgrade<'c> {
    center: &'c Center,
    times: Timeline,
    /// Everything has been taken over.
    moved: Option<Successor>,
}

impl Upgrade<'_> {
    fn run(
        &mut self,
        source: Source<'_>,
        progress: OnProgress<'_>,
        bell: Bell,
        asked: Receiver<String>,
    ) -> Result<Upgraded, Failed> {
        let center = self.center;
        let is_rehearsal = source.is_rehearsal();
        let word = OwnershipWord::create().map_err(|error| refused(&error))?;
        let launched = match source {
            Source::Launch(request) => center.supervision.launch(request.binary.as_deref()),
            Source::Caller(give) => {
                // Should we die from here on, the supervisor has to know whose everything is.
                center.supervision.contested(word.as_fd());
                give().map(|channel| Launched { process: Process::Caller, channel })
            }
        };
        let Launched { process, channel } = launched.map_err(|error| refused(&error))?;
        let (reports, reported) = bell.channel();
        let mut attempt = Attempt {
            center,
            word,
            line: Line::new(channel, bell),
            asked,
            reports,
            reported,
            times: &mut self.times,
            build: String::new(),
            pid: 0,
            format: Format::NEWEST,
        };
        let outcome = attempt.run(is_rehearsal, progress);
        let Attempt { build, pid, format, .. } = attempt;
        let pid = process.id().unwrap_or(pid);
        let now_ns = clock::monotonic_ns();
        let times = self.times.clone();
        let upgraded = |connections, refused: &[(Origin, String)]| Upgraded {
            dry_run: is_rehearsal,
            generation: center.generation + u64::from(!is_rehearsal),
            pid: if is_rehearsal { std::process::id() } else { pid },
            build,
            format: format.number(),
            connections,
            refused: by_reason(refused),
            pause_us: times.pause(now_ns).unwrap_or_default().as_micros() as u64,
            pause_steps: PauseSteps::of(&times),
            total_ms: times.total(now_ns).as_millis() as u64,
        };
        match outcome {
            Outcome::Aborted(reason) => {
                center.supervision.uncontested();
                Err(Failed::new(FailureKind::Aborted, process.end(reason, &center.supervision)))
            }
            Outcome::Moved { connections, refused } => {
                self.moved = Some(match process.into_pidfd() {
                    Some(pidfd) => Successor::Child(Arc::new(pidfd)),
                    None => {
                        center.supervision.moved();
                        Successor::Caller
                    }
                });
                Ok(upgraded(connections, &refused))
            }
            Outcome::Lost(reason) => {
                // Its status is not taken, so that nobody else gets its id while we wind up.
                self.moved = Some(Successor::Lost);
                // It has died before its own supervisor was to start it again.
                center.supervision.uncontested();
                let reason = format!("{reason}, and all connections with it, which it had taken");
                Err(Failed::new(FailureKind::Failed, reason))
            }
            Outcome::Rehearsed { connections, refused } => {
                let upgraded = upgraded(connections, &refused);
                process.end(String::new(), &center.supervision);
                Ok(upgraded)
            }
        }
    }
}

/// The dealings with one successor.
struct Attempt<'a> {
    center: &'a Center,
    word: OwnershipWord,
    /// To the successor. It rings when there is something in the next two.
    line: Line,
    /// Reasons to abort.
    asked: Receiver<String>,
    reported: Receiver<(WorkerIndex, Report)>,
    /// For the workers.
    reports: Rung<(WorkerIndex, Report)>,
    times: &'a mut Timeline,
    /// Of the successor, by its own account.
    build: String,
    pid: u32,
    /// Of the states, once it is known what the successor reads.
    format: Format,
}

impl Attempt<'_> {
    fn plan(&self, rehearsal: bool) -> Plan {
        let center = self.center;
        Plan {
            generation: center.generation,
            workers: center.crew.workers as u16,
            connections: center.crew.accounts.connections() as u64,
            holdings: center.holdings().len() as u32,
            rehearsal,
            begun_ns: self.times.entered_ns(Step::Start).unwrap_or_default(),
            time_namespace: clock::time_namespace(),
            history: center.history().to_json(),
            pause_max: center.pause_max,
        }
    }

    fn run(&mut self, rehearsal: bool, progress: OnProgress<'_>) -> Outcome {
        let (mut machine, actions) = Predecessor::new(self.plan(rehearsal));
        let mut queue = VecDeque::from(actions);
        let mut deadline = Instant::now();
        let mut was_alone = false;
        loop {
            while let Some(action) = queue.pop_front() {
                let carry_out = AssertUnwindSafe(|| self.carry_out(action, &mut deadline));
                let panicked = |_| Err(io::Error::other("this process panicked"));
                let event = match catch_unwind(carry_out).unwrap_or_else(panicked) {
                    Ok(None) => continue,
                    Ok(Some(Next::Feed(event))) => event,
                    Ok(Some(Next::Done(outcome))) => return outcome,
                    // An action that fails does what a dead successor would. Nobody else would have
                    // the workers go on.
                    Err(error) => {
                        tracing::debug!(%error, "upgrade");
                        queue.clear();
                        Event::ChannelEnded(reason_of(&error))
                    }
                };
                queue.extend(self.feed(&mut machine, event));
            }
            let connections = self.center.crew.accounts.connections() as u64;
            let pause = self.times.pause(clock::monotonic_ns());
            let pause_us = pause.map(|pause| pause.as_micros() as u64);
            let step = machine.step();
            let is_alone = progress(Progress::Upgrade { step, connections, pause_us }).is_break();
            let event = match is_alone && !mem::replace(&mut was_alone, true) {
                true => Event::AbortAsked("nobody waits for it".to_owned()),
                false => match self.next_event(deadline.min(Instant::now() + PROGRESS_EVERY)) {
                    Some(event) => event,
                    None if Instant::now() < deadline => continue,
                    None => Event::TimedOut,
                },
            };
            queue.extend(self.feed(&mut machine, event));
        }
    }

    fn feed(&mut self, machine: &mut Predecessor, event: Event) -> Vec<Action> {
        if let Event::Message(ToPredecessor::Hello { build, pid, .. }) = &event {
            self.build.clone_from(build);
            self.pid = *pid;
        }
        let actions = machine.handle(event);
        let step = machine.step();
        if self.times.enter(step, clock::monotonic_ns()) {
            tracing::debug!(%step, "upgrade");
        }
        actions
    }

    /// What the workers, the successor or an operator say; `None` if nobody says anything until
    /// then.
    fn next_event(&mut self, until: Instant) -> Option<Event> {
        let here = || match self.reported.try_recv() {
            Ok((worker, report)) => Some(event_of(worker, report)),
            Err(_) => self.asked.try_recv().ok().map(Event::AbortAsked),
        };
        let left = until.saturating_duration_since(Instant::now());
        match self.line.listen(left, here, ToPredecessor::decode) {
            Ok(Heard::Here(event)) => Some(event),
            Ok(Heard::There(message, _)) => Some(Event::Message(message)),
            Ok(Heard::Ended) => Some(Event::ChannelEnded(ENDED.to_owned())),
            Ok(Heard::Nothing) => None,
            Err(error) => Some(Event::ChannelEnded(error.to_string())),
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
                self.center.crew.mailboxes.order_all(&Order::PreCopy(outlets));
            }
            Action::Rehearse { lanes, format } => {
                let outlets = self.make_lanes(lanes, format)?;
                self.center.crew.mailboxes.order_all(&Order::Rehearse(outlets));
            }
            Action::Freeze => {
                self.center.crew.mailboxes.set_frozen(true);
                self.center.crew.mailboxes.order_all(&Order::Freeze);
            }
            Action::Settle => {
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("predecessor-frozen");
                self.center.crew.mailboxes.order_all(&Order::Settle);
            }
            Action::Save => {
                let ids_upcoming = self.center.crew.ids.upcoming();
                let at_ns = self.times.entered_ns(Step::Freeze).unwrap_or_default();
                self.send(&ToSuccessor::Frozen { ids_upcoming, at_ns })?;
                self.center
                    .crew
                    .mailboxes
                    .order_all(&Order::Save { pause_max: self.center.pause_max });
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("predecessor-saved");
            }
            Action::Offer => {
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
                self.center.crew.mailboxes.set_frozen(false);
                self.center.crew.mailboxes.order_all(&Order::Thaw);
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
            for (label, descriptor) in self.center.holdings().iter() {
                self.send_with(&ToSuccessor::Holding { label }, &[descriptor])?;
            }
        }
        Ok(())
    }

    fn send_with(&self, message: &ToSuccessor, with: &[BorrowedFd<'_>]) -> io::Result<()> {
        // It reads all the time, or it is dead: a full channel is as good as an ended one, but a
        // few packets may pile up while it starts.
        let (begun, bytes) = (Instant::now(), message.encode()?);
        loop {
            match packets::send(&self.line.channel, &bytes, with, false) {
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
        let reports = self.reports.clone();
        Ok(Outlets { lanes: lanes.into(), format, reports })
    }

    fn release(&mut self, kept: &[Origin]) {
        let kept_at = kept.iter().map(|origin| (origin.worker, origin.key));
        self.center.crew.mailboxes.set_moved(kept_at);
        let mut by_worker = vec![Vec::new(); self.center.crew.workers];
        for Origin { worker, key } in kept {
            // A successor may refuse what it was never sent.
            if let Some(keys) = by_worker.get_mut(usize::from(*worker)) {
                keys.push(*key);
            }
        }
        for (worker, keys) in by_worker.into_iter().enumerate() {
            let order = Order::Release { kept: keys.into(), drain: self.center.spread() };
            self.center.crew.mailboxes.order_one(worker as WorkerIndex, order);
        }
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
