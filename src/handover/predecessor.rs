//! The side that gives, as a state machine.
//!
//! ```text
//! Greeting ─► Preparing ─► Copying ─► Freezing ─► Settling ─► Saving ─► Adopting ─► Offered ─► Over
//! ```
//!
//! Everything but the offer can be taken back: until the shared word says TAKEN, each error, each
//! silence and each death ends with [`Action::Thaw`], and everybody is served as before.

use std::time::Duration;

use super::Step;
use super::wire::{PROTOCOL, ToPredecessor, ToSuccessor};
use crate::base::format::Format;
use crate::base::slab::Key;
use crate::base::text::cut_reason;
use crate::hub::WorkerIndex;
use crate::net::lane::Origin;

/// For the new program to start, and to check what it needs. It may have to read large files.
/// Tests in which it never comes do not wait for so long.
const PREPARE_TIMEOUT: Duration =
    Duration::from_secs(if cfg!(feature = "fault-points") { 6 } else { 30 });

/// For all descriptors to go out: some microseconds each, while everybody is served.
const COPY_TIMEOUT: Duration = Duration::from_secs(60);

/// Rounds of settling; mail between workers makes two hops at most, so three would do.
const SETTLE_ROUNDS_MAX: u32 = 64;

/// What a predecessor has to hand over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Our generation.
    pub generation: u64,
    /// Our workers.
    pub workers: u16,
    /// Connections now.
    pub connections: u64,
    /// Descriptors that go with the connections.
    pub holdings: u32,
    /// Try it, and move nothing.
    pub rehearsal: bool,
    /// When it began, in nanoseconds of the system's monotonic clock.
    pub begun_ns: u64,
    /// Whose clock that is; 0 if the system does not say.
    pub time_namespace: u64,
    /// The upgrades there have been, as JSON.
    pub history: String,
    /// From the freeze until the successor has taken the connections: nobody is served meanwhile.
    pub pause_max: Duration,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The successor says.
    Message(ToPredecessor),
    /// The channel has ended, or carries nonsense: the successor is gone.
    ChannelEnded(String),
    /// A worker has sent all its descriptors once.
    WorkerCopied,
    /// A worker serves nobody any more.
    WorkerFrozen,
    /// A worker has taken its mail; it had none, and has none to send.
    WorkerSettled {
        /// Nothing was under way.
        idle: bool,
    },
    /// A worker has sent its states.
    WorkerSaved {
        /// Which.
        worker: WorkerIndex,
        /// How many states.
        connections: u64,
        /// Connections that cannot be moved, and why.
        kept: Vec<(Key, String)>,
    },
    /// A worker cannot do what it was asked.
    WorkerFailed(String),
    /// The time of the last [`Action::Timer`] is over.
    TimedOut,
    /// Somebody wants it to end.
    AbortAsked(String),
    /// What came of [`Action::Revoke`]: true if the connections are ours for good.
    Revoked(bool),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this; with `Prepare` the word's descriptor, and after it all holdings.
    Send(ToSuccessor),
    /// Make so many lanes, send them, and have the workers begin to copy.
    PreCopy {
        /// One for each worker of the successor.
        lanes: u16,
        /// To write the states in.
        format: Format,
    },
    /// The same, but have the workers send the states of connections that they go on serving.
    Rehearse {
        /// As above.
        lanes: u16,
        /// As above.
        format: Format,
    },
    /// Have the workers freeze. The pause begins.
    Freeze,
    /// Have the workers take their mail.
    Settle,
    /// Have the workers send their states.
    Save,
    /// Change the word to OFFERED, then send `Offer`.
    Offer,
    /// Change the word to REVOKED, and say whether it could be done.
    Revoke,
    /// Have the workers go on.
    Thaw,
    /// Have the workers give up all connections but these.
    Release(Vec<Origin>),
    /// Wait for the next event no longer than this.
    Timer(Duration),
    /// It is over.
    Done(Outcome),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The successor serves all connections but these.
    Moved {
        /// How many it serves.
        connections: u64,
        /// What stays here to be drained, and why.
        refused: Vec<(Origin, String)>,
    },
    /// Nothing was to be moved, and so many would have been, but these.
    Rehearsed {
        /// How many would move.
        connections: u64,
        /// What would stay, and why.
        refused: Vec<(Origin, String)>,
    },
    /// Nothing has changed.
    Aborted(String),
    /// The successor has taken all connections, and has ended before it could say so.
    Lost(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The new program is starting.
    // Call: Hello  Next: Preparing
    Greeting,
    /// It checks what it can.
    // Call: Ready, Refused  Next: Copying, Saving
    Preparing(Format),
    /// Descriptors go out.
    // Call: WorkerCopied, Parked  Next: Freezing
    Copying { left: u16, parked: bool },
    /// Nobody is served any more.
    // Call: WorkerFrozen  Next: Settling
    Freezing { left: u16 },
    /// Mail that was under way comes to rest: until a round finds none anywhere.
    // Call: WorkerSettled  Next: Settling, Saving
    Settling { left: u16, idle: bool, round: u32 },
    /// States go out.
    // Call: WorkerSaved  Next: Adopting
    Saving { left: u16, answer: Option<u64> },
    /// The successor loads them.
    // Call: Adopted  Next: Offered, Over
    Adopting,
    /// Its decision.
    // Call: Active, ChannelEnded  Next: Over
    Offered,
    /// We want it back.
    // Call: Revoked  Next: Taken, Over
    Revoking { reason: String, ended: bool, step: Step },
    /// We wanted it back too late: it has been taken, and whether by somebody who lives shows soon.
    // Call: Active, ChannelEnded, TimedOut  Next: Over
    Taken,
    /// All is said.
    Over,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Predecessor {
    plan: Plan,
    state: State,
    /// States that were sent.
    saved: u64,
    adopted: u64,
    /// Connections the successor could not adopt, and why.
    refused: Vec<(Origin, String)>,
    /// Connections that could not even be saved, and why.
    kept: Vec<(Origin, String)>,
}

impl Predecessor {
    /// Begins, once the new program has been started.
    pub fn new(plan: Plan) -> (Self, Vec<Action>) {
        let machine = Self {
            plan,
            state: State::Greeting,
            saved: 0,
            adopted: 0,
            refused: Vec::new(),
            kept: Vec::new(),
        };
        (machine, vec![Action::Timer(PREPARE_TIMEOUT)])
    }

    /// How far it is; once it is to be taken back, how far it was.
    pub fn step(&self) -> Step {
        match self.state {
            State::Greeting => Step::Start,
            State::Preparing(_) => Step::Prepare,
            State::Copying { .. } => Step::Copy,
            State::Freezing { .. } => Step::Freeze,
            State::Settling { .. } => Step::Settle,
            State::Saving { .. } => Step::Save,
            State::Adopting => Step::Load,
            State::Offered | State::Taken => Step::Take,
            State::Revoking { step, .. } => step,
            State::Over => Step::Done,
        }
    }

    /// Takes in what has happened; the actions are to be carried out in order.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        match (&mut self.state, event) {
            (State::Over, _) => vec![],
            (State::Revoking { .. }, Event::Revoked(ours)) => self.revoked(ours),
            // Whatever else happens, the word decides.
            (State::Revoking { .. }, _) => vec![],
            (State::Taken, Event::ChannelEnded(reason)) => self.lost(reason),
            (State::Offered, Event::Message(ToPredecessor::Active))
            | (State::Taken, Event::Message(ToPredecessor::Active) | Event::TimedOut) => {
                self.moved()
            }
            (State::Taken, _) => vec![],
            (_, Event::Message(ToPredecessor::Refused { reason })) => self.revoke(reason),
            (_, Event::ChannelEnded(reason)) => self.revoke_from(reason, true),
            (_, Event::WorkerFailed(reason)) => self.revoke(reason),
            (_, Event::AbortAsked(reason)) => self.revoke(reason),
            (_, Event::TimedOut) => {
                let step = self.step();
                self.revoke(format!("the new process took too long (in step {step})"))
            }
            (State::Greeting, Event::Message(hello @ ToPredecessor::Hello { .. })) => {
                self.greeted(&hello)
            }
            (State::Preparing(format), Event::Message(ToPredecessor::Ready { workers })) => {
                let format = *format;
                self.ready(workers, format)
            }
            (State::Copying { left, .. }, Event::WorkerCopied) => {
                *left = left.saturating_sub(1);
                self.copied()
            }
            (State::Copying { parked, .. }, Event::Message(ToPredecessor::Parked)) => {
                *parked = true;
                self.copied()
            }
            (State::Freezing { left }, Event::WorkerFrozen) => {
                *left = left.saturating_sub(1);
                if *left > 0 { vec![] } else { self.settle(1) }
            }
            (State::Settling { left, idle, round }, Event::WorkerSettled { idle: its }) => {
                *left = left.saturating_sub(1);
                *idle &= its;
                match (*left, *idle, *round) {
                    (1.., _, _) => vec![],
                    (0, true, _) => {
                        self.state = State::Saving { left: self.plan.workers, answer: None };
                        vec![Action::Save]
                    }
                    (0, false, SETTLE_ROUNDS_MAX..) => {
                        self.revoke("messages between workers do not come to rest".to_owned())
                    }
                    (0, false, round) => self.settle(round + 1),
                }
            }
            (State::Saving { left, answer }, Event::WorkerSaved { worker, connections, kept }) => {
                *left = left.saturating_sub(1);
                let (done, answer) = (*left == 0, *answer);
                let kept = kept.into_iter().map(|(key, reason)| (Origin { worker, key }, reason));
                self.kept.extend(kept);
                self.saved = self.saved.saturating_add(connections);
                if done {
                    self.state = State::Adopting;
                }
                // It may have loaded the last states before we knew that they were sent.
                match answer {
                    Some(connections) if done => self.adopted(connections),
                    _ => vec![],
                }
            }
            // The last worker's report and the answer come on different ways.
            (
                State::Saving { answer: None, .. } | State::Adopting,
                Event::Message(ToPredecessor::Refusals { connections }),
            ) => {
                self.refused.extend(connections);
                vec![]
            }
            (
                State::Saving { answer: answer @ None, .. },
                Event::Message(ToPredecessor::Adopted { connections }),
            ) => {
                *answer = Some(connections);
                vec![]
            }
            (State::Adopting, Event::Message(ToPredecessor::Adopted { connections })) => {
                self.adopted(connections)
            }
            (_, Event::Message(message)) => {
                let step = self.step();
                self.revoke(format!("the new process sent {message:?} in step {step}"))
            }
            // A worker's report that comes after its step was given up.
            (_, _) => vec![],
        }
    }

    fn greeted(&mut self, hello: &ToPredecessor) -> Vec<Action> {
        let ToPredecessor::Hello { protocol, formats, build, .. } = hello else {
            return vec![];
        };
        if *protocol != PROTOCOL {
            return self.revoke(format!(
                "the new program speaks version {protocol} of the handover's protocol, this one {PROTOCOL}"
            ));
        }
        let Some(format) = Format::common(*formats) else {
            let ((oldest, newest), (theirs_oldest, theirs_newest)) = (Format::RANGE, *formats);
            return self.revoke(format!(
                "this program writes states of formats {oldest} to {newest}, the new program \
                 ({build}) reads {theirs_oldest} to {theirs_newest}; go by way of a version that \
                 has formats of both, or drain and start anew"
            ));
        };
        self.state = State::Preparing(format);
        let Plan {
            generation,
            workers,
            connections,
            holdings,
            rehearsal,
            begun_ns,
            time_namespace,
            history,
            pause_max: _,
        } = self.plan.clone();
        vec![
            Action::Send(ToSuccessor::Prepare {
                generation,
                format: format.number(),
                workers,
                connections,
                holdings,
                rehearsal,
                begun_ns,
                time_namespace,
                history,
            }),
            Action::Timer(PREPARE_TIMEOUT),
        ]
    }

    fn ready(&mut self, lanes: u16, format: Format) -> Vec<Action> {
        if lanes == 0 {
            return self.revoke("the new process has no workers".to_owned());
        }
        if self.plan.rehearsal {
            self.state = State::Saving { left: self.plan.workers, answer: None };
            return vec![Action::Rehearse { lanes, format }, Action::Timer(COPY_TIMEOUT)];
        }
        self.state = State::Copying { left: self.plan.workers, parked: false };
        vec![Action::PreCopy { lanes, format }, Action::Timer(COPY_TIMEOUT)]
    }

    /// The pause begins only once the successor has nothing left to do for connections that were
    /// there before.
    fn copied(&mut self) -> Vec<Action> {
        if self.state != (State::Copying { left: 0, parked: true }) {
            return vec![];
        }
        self.state = State::Freezing { left: self.plan.workers };
        vec![Action::Freeze, Action::Timer(self.plan.pause_max)]
    }

    fn settle(&mut self, round: u32) -> Vec<Action> {
        self.state = State::Settling { left: self.plan.workers, idle: true, round };
        vec![Action::Settle]
    }

    fn adopted(&mut self, connections: u64) -> Vec<Action> {
        // What is neither adopted nor refused would be given up here and served by nobody.
        let (saved, refused) = (self.saved, self.refused.len() as u64);
        if connections.checked_add(refused) != Some(saved) {
            return self.revoke(format!(
                "the new process was sent {saved} connections, and has adopted {connections} and refused {refused}"
            ));
        }
        self.adopted = connections;
        if self.plan.rehearsal {
            self.state = State::Over;
            let refused = self.take_refused();
            return vec![
                Action::Send(ToSuccessor::Abort { reason: "it was a rehearsal".to_owned() }),
                Action::Thaw,
                Action::Done(Outcome::Rehearsed { connections, refused }),
            ];
        }
        self.state = State::Offered;
        vec![Action::Offer]
    }

    fn revoke(&mut self, reason: String) -> Vec<Action> {
        self.revoke_from(reason, false)
    }

    fn revoke_from(&mut self, reason: String, ended: bool) -> Vec<Action> {
        let step = self.step();
        let reason = cut_reason(reason);
        self.state = State::Revoking { reason, ended, step };
        vec![Action::Revoke]
    }

    fn revoked(&mut self, ours: bool) -> Vec<Action> {
        let State::Revoking { reason, ended, .. } = std::mem::replace(&mut self.state, State::Over)
        else {
            return vec![];
        };
        match (ours, ended) {
            (true, _) => {}
            // It had taken them before: a success, whatever we thought of it, unless what we thought
            // of it is its death. Whoever waits for the outcome may have heard of that first.
            (false, false) => {
                self.state = State::Taken;
                return vec![Action::Timer(self.plan.pause_max)];
            }
            (false, true) => return self.lost(reason),
        }
        vec![
            Action::Send(ToSuccessor::Abort { reason: reason.clone() }),
            Action::Thaw,
            Action::Done(Outcome::Aborted(reason)),
        ]
    }

    fn moved(&mut self) -> Vec<Action> {
        self.state = State::Over;
        let refused = self.take_refused();
        let kept = refused.iter().map(|(origin, _)| *origin).collect();
        vec![
            Action::Release(kept),
            Action::Done(Outcome::Moved { connections: self.adopted, refused }),
        ]
    }

    /// With all connections, for it may have read from any.
    fn lost(&mut self, reason: String) -> Vec<Action> {
        self.state = State::Over;
        let kept = self.take_refused().iter().map(|(origin, _)| *origin).collect();
        vec![Action::Release(kept), Action::Done(Outcome::Lost(reason))]
    }

    /// All that stays here, and why.
    fn take_refused(&mut self) -> Vec<(Origin, String)> {
        let mut refused = std::mem::take(&mut self.refused);
        refused.append(&mut self.kept);
        refused
    }
}
