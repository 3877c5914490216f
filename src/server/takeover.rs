//! The successor's side of an upgrade: carries out what the state machine of
//! [`handover::successor`](crate::handover::successor) decides.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use super::center::Identity;
use super::foundation::{Foundation, Inherited};
use super::history::{History, by_reason};
use super::launch::Supervision;
use super::line::{Heard, Line};
use super::running::{Running, Standby};
use super::{Builder, Entry, orders};
use crate::config::Settings;
use crate::control::{Failed, FailureKind, UpgradeOutcome, Upgraded};
use crate::handover::ownership::OwnershipWord;
use crate::handover::successor::{Action, Event, Successor};
use crate::handover::wire::{ToPredecessor, ToSuccessor};
use crate::handover::{Step, Timeline};
use crate::hub::WorkerIndex;
use crate::net::worker::adopting::{Adoption, Finding, Instruction};
use crate::sys::bell::{Bell, Rung};
use crate::sys::clock;
use crate::sys::packets;
use crate::sys::signals::Signals;

/// How long to wait for the predecessor's next word. It has time-outs of its own for every step,
/// all of them shorter, so this is for one that hangs.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(120);

/// Takes everything over from the predecessor at the other end of the channel. `called_at` is where
/// the predecessor was found, if it has not started us.
///
/// # Errors
/// Why that was called off: there is nothing to serve.
pub(super) fn take_over(
    builder: &Builder,
    settings: &Settings,
    entry: Entry,
    channel: OwnedFd,
    called_at: Option<PathBuf>,
    supervision: Supervision,
    signals: &Signals,
) -> Result<Running, String> {
    let bell = match Bell::new() {
        Ok(bell) => bell,
        Err(error) => {
            refuse(&channel, &error.to_string());
            return Err(error.to_string());
        }
    };
    let (findings, found) = bell.channel();
    let takeover = Takeover {
        builder,
        settings,
        entry,
        is_supervised: supervision.link().is_some(),
        supervision,
        signals,
        line: Line::new(channel, bell),
        findings,
        found,
        has_called: called_at.is_some(),
        inherited: Inherited { called_at, ..Inherited::default() },
        generation: 1,
        connections: 0,
        format: 0,
        history: History::default(),
        times: Timeline::default(),
        word: None,
        lanes: Vec::new(),
        standby: None,
    };
    takeover.run()
}

/// Tells the predecessor that this process cannot even begin.
pub(super) fn refuse(channel: &OwnedFd, reason: &str) {
    let message = ToPredecessor::Refused { reason: reason.to_owned() };
    // If it is gone, nobody is interested any more.
    let _ = message.encode().and_then(|bytes| packets::send(channel, &bytes, &[], false));
}

struct Takeover<'t> {
    builder: &'t Builder,
    settings: &'t Settings,
    entry: Entry,
    is_supervised: bool,
    supervision: Supervision,
    signals: &'t Signals,
    /// To the predecessor. It rings when the workers have found something.
    line: Line,
    /// For the workers.
    findings: Rung<(WorkerIndex, Finding)>,
    found: Receiver<(WorkerIndex, Finding)>,
    /// The predecessor has not started us.
    has_called: bool,
    inherited: Inherited,
    generation: u64,
    /// Of the predecessor, when it began.
    connections: u64,
    /// What it writes states in.
    format: u32,
    /// The upgrades there have been.
    history: History,
    /// When this one began, and its pause.
    times: Timeline,
    word: Option<OwnershipWord>,
    lanes: Vec<OwnedFd>,
    /// All that is needed to serve, from before the predecessor hears that we are ready.
    standby: Option<Standby>,
}

/// What follows from an action.
enum Next {
    Nothing,
    Feed(Event),
    Serving(Running),
    Discard(String),
}

impl Takeover<'_> {
    fn run(mut self) -> Result<Running, String> {
        let build = env!("CARGO_PKG_VERSION");
        let (mut machine, actions) = Successor::new(build, std::process::id());
        let mut actions = VecDeque::from(actions);
        let mut running = None;
        loop {
            while let Some(action) = actions.pop_front() {
                match self.carry_out(action, &machine) {
                    Next::Nothing => {}
                    Next::Feed(event) => actions.extend(machine.handle(event)),
                    Next::Serving(serving) => {
                        // If it is the same supervisor's, it has to know before the predecessor
                        // ends. If not, it is only when the predecessor has let go that this
                        // supervisor may start a server again; before, the other one does.
                        if !self.has_called {
                            serving.leave_copies();
                        }
                        running = Some(serving);
                    }
                    Next::Discard(reason) => {
                        tracing::info!(reason, "not taken over");
                        if let Some(standby) = self.standby {
                            standby.discard();
                        }
                        return Err(reason);
                    }
                }
            }
            if let Some(running) = running {
                if self.has_called {
                    running.leave_copies();
                }
                return Ok(running);
            }
            let event = self.next_event().unwrap_or_else(|reason| {
                // Whatever it is, nothing may be taken from a predecessor that lives.
                Event::Message(ToSuccessor::Abort { reason })
            });
            actions.extend(machine.handle(event));
        }
    }

    /// What the workers or the predecessor say.
    ///
    /// # Errors
    /// The predecessor is silent, or talks nonsense.
    fn next_event(&mut self) -> Result<Event, String> {
        let found = || self.found.try_recv().ok().map(|(_, finding)| event_of(finding));
        match self.line.listen(PREDECESSOR_TIMEOUT, found, ToSuccessor::decode) {
            Ok(Heard::Here(event)) => Ok(event),
            Ok(Heard::There(message, descriptors)) => Ok(self.take_in(message, descriptors)),
            Ok(Heard::Ended) => Ok(Event::ChannelEnded),
            Ok(Heard::Nothing) => Err("the predecessor is silent".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Keeps what comes with a message, and makes an event of it.
    fn take_in(&mut self, message: ToSuccessor, descriptors: Vec<OwnedFd>) -> Event {
        let mut descriptors = descriptors.into_iter();
        let kept = match (&message, descriptors.next()) {
            (
                ToSuccessor::Prepare {
                    generation,
                    format,
                    connections,
                    begun_ns,
                    time_namespace,
                    history,
                    ..
                },
                Some(word),
            ) => {
                self.generation = generation + 1;
                self.connections = *connections;
                self.format = *format;
                self.times.enter(Step::Start, *begun_ns);
                self.history = History::of_json(history);
                OwnershipWord::from_fd(word)
                    .map(|word| self.word = Some(word))
                    .map_err(|error| error.to_string())
                    .and_then(|()| check_clock(*time_namespace, *begun_ns))
            }
            (ToSuccessor::Holding { label }, Some(descriptor)) => {
                self.inherited.holdings.add_labelled(label, descriptor);
                Ok(())
            }
            (ToSuccessor::Lane, Some(lane)) => {
                self.lanes.push(lane);
                Ok(())
            }
            (ToSuccessor::Frozen { at_ns, .. }, None) => {
                self.times.enter(Step::Freeze, *at_ns);
                Ok(())
            }
            (ToSuccessor::Offer | ToSuccessor::Abort { .. }, None) => Ok(()),
            _ => Err(format!("{message:?} came with too few or too many descriptors")),
        };
        match kept {
            Ok(()) => Event::Message(message),
            Err(reason) => Event::WorkerBroken(reason),
        }
    }

    fn carry_out(&mut self, action: Action, machine: &Successor) -> Next {
        match action {
            Action::Send(message) => {
                #[cfg(feature = "fault-points")]
                match message {
                    ToPredecessor::Ready { .. } => crate::sys::fault::point("successor-prepared"),
                    ToPredecessor::Adopted { .. } => crate::sys::fault::point("successor-loaded"),
                    _ => {}
                }
                // If it is gone, its end comes by itself; and once we serve, it need not know.
                let sent = message.encode();
                let _ = sent.and_then(|bytes| packets::send(&self.line.channel, &bytes, &[], true));
                #[cfg(feature = "fault-points")]
                match message {
                    ToPredecessor::Hello { .. } => crate::sys::fault::point("successor-hello"),
                    ToPredecessor::Adopted { .. } => crate::sys::fault::point("successor-adopted"),
                    _ => {}
                }
                Next::Nothing
            }
            Action::Prepare => Next::Feed(Event::Prepared(self.prepare())),
            Action::Adopt { senders, rehearsal } => {
                let mut lanes = self.lanes.drain(..);
                if let Some(standby) = &self.standby {
                    standby.instruct(|_| match lanes.next() {
                        Some(lane) => {
                            let senders = senders.into();
                            Instruction::Adopt(Adoption { lane, senders, rehearsal })
                        }
                        // The machine has waited for one for each.
                        None => Instruction::Discard,
                    });
                }
                Next::Nothing
            }
            Action::SkipIds(upcoming) => {
                if let Some(standby) = &self.standby {
                    standby.skip_ids(upcoming);
                }
                Next::Nothing
            }
            Action::Settle => {
                if let Some(standby) = &self.standby {
                    standby.instruct(|_| Instruction::Settle);
                }
                Next::Nothing
            }
            Action::Take { orphaned } => {
                orders::begin_anew(self.signals, self.is_supervised);
                let taken = self.standby.is_some()
                    && self.word.as_ref().is_some_and(|word| word.take(orphaned));
                Next::Feed(Event::Taken(taken))
            }
            Action::Serve => self.serve(machine, Instruction::Serve, false),
            Action::ServeAnew => self.serve(machine, Instruction::ServeAnew, true),
            Action::Discard(reason) => Next::Discard(reason),
        }
    }

    fn prepare(&mut self) -> Result<u16, String> {
        let inherited = std::mem::take(&mut self.inherited);
        let foundation = Foundation::bind(self.settings, self.entry, inherited)
            .map_err(|error| error.to_string())?;
        let (room, connections) = (foundation.room, self.connections);
        if connections > room as u64 {
            return Err(format!(
                "the limit of open files leaves room for {room} connections, and there are \
                 {connections}; raise it (ulimit -n, LimitNOFILE=)"
            ));
        }
        let identity = Identity {
            supervision: std::mem::take(&mut self.supervision),
            generation: self.generation,
            history: std::mem::take(&mut self.history),
        };
        let standby =
            Standby::new(self.builder, self.settings, foundation, identity, &self.findings)
                .map_err(|error| error.to_string())?;
        self.standby = Some(standby);
        Ok(self.settings.workers.max(1) as u16)
    }

    /// Everything is ours, `anew` without the connections there were. Nothing of this can fail.
    fn serve(
        &mut self,
        machine: &Successor,
        serve: impl Fn(Sender<()>) -> Instruction,
        anew: bool,
    ) -> Next {
        #[cfg(feature = "fault-points")]
        crate::sys::fault::point("successor-taken");
        let mut standby = self.standby.take().expect("it is taken only if there is one");
        // Each socket that cannot has been reported, and costs itself alone.
        let _ = standby.listen();
        // The pause is over when all workers serve.
        Next::Serving(standby.serve(serve, || {
            Some(if anew {
                let reason = "the predecessor has died, and all connections with it";
                tracing::error!("{reason}");
                UpgradeOutcome::Failed(Failed::new(FailureKind::Failed, reason))
            } else {
                UpgradeOutcome::Upgraded(self.upgraded(machine))
            })
        }))
    }

    fn upgraded(&mut self, machine: &Successor) -> Upgraded {
        let now_ns = clock::monotonic_ns();
        self.times.enter(Step::Done, now_ns);
        let (connections, refused) = machine.adopted_connections();
        Upgraded {
            dry_run: false,
            generation: self.generation,
            pid: std::process::id(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            format: self.format,
            connections,
            refused: by_reason(refused),
            pause_us: self.times.pause(now_ns).unwrap_or_default().as_micros() as u64,
            pause_steps: None,
            total_ms: self.times.total(now_ns).as_millis() as u64,
        }
    }
}

/// With another clock than the predecessor's, all connections would seem to have been idle for as
/// long as the two are apart.
fn check_clock(theirs: u64, begun_ns: u64) -> Result<(), String> {
    let ours = clock::time_namespace();
    let is_another = theirs != ours && theirs != 0 && ours != 0;
    if is_another || begun_ns > clock::monotonic_ns() {
        return Err(
            "the predecessor is in another time namespace than this process, so that their \
                    clocks differ; start it in the same one"
                .to_owned(),
        );
    }
    Ok(())
}

fn event_of(finding: Finding) -> Event {
    match finding {
        Finding::Level => Event::WorkerLevel,
        Finding::Loaded { connections, refused } => {
            Event::WorkerLoaded { connections: connections as u64, refused }
        }
        Finding::Settled { idle } => Event::WorkerSettled { idle },
        Finding::Broken(error) => Event::WorkerBroken(error.to_string()),
    }
}
