//! The side that takes, as a state machine.
//!
//! ```text
//! Waiting ─► Preparing ─► Adopting ─► Settling ─► Adopted ─► Over
//! ```
//!
//! Until the shared word says TAKEN, by our own change of it, nothing here is ours: each end but
//! that one gives everything up untouched.

use super::wire::{REFUSALS_MAX, ToPredecessor, ToSuccessor};
use crate::base::format::Format;
use crate::base::text::cut_reason;
use crate::net::lane::Origin;

/// Rounds of settling; mail between workers makes two hops at most.
const SETTLE_ROUNDS_MAX: u32 = 64;

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The predecessor says.
    Message(ToSuccessor),
    /// The channel has ended without `Abort`: the predecessor is dead.
    ChannelEnded,
    /// Sockets are bound, limits checked, with so many workers; or it cannot be done.
    Prepared(Result<u16, String>),
    /// A worker has parked all that was there.
    WorkerLevel,
    /// A worker has loaded all its states.
    WorkerLoaded {
        /// How many can be served.
        connections: u64,
        /// Which cannot, and why.
        refused: Vec<(Origin, String)>,
    },
    /// A worker has taken its mail.
    WorkerSettled {
        /// Nothing was under way.
        idle: bool,
    },
    /// A worker cannot adopt.
    WorkerBroken(String),
    /// What came of [`Action::Take`]: true if the connections are ours.
    Taken(bool),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(ToPredecessor),
    /// All holdings are there: bind what is missing, check what can be checked.
    Prepare,
    /// All lanes are there: start the workers, which adopt.
    Adopt {
        /// Workers of the predecessor.
        senders: u16,
        /// Nothing is to be moved.
        rehearsal: bool,
    },
    /// Connection ids go on from here.
    SkipIds(u64),
    /// Have the workers take their mail.
    Settle,
    /// Change the word to TAKEN: from OFFERED or, if the predecessor is dead, from whatever but
    /// REVOKED. Say whether it could be done.
    Take {
        /// The predecessor is dead.
        orphaned: bool,
    },
    /// Everything is ours: serve it.
    Serve,
    /// The predecessor has died with its connections: end them, serve what comes.
    ServeAnew,
    /// Give everything up and end, because.
    Discard(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing is known yet.
    // Call: Prepare  Next: Gathering
    Waiting,
    /// What goes with the connections comes in.
    // Call: Holding  Next: Preparing
    Gathering { left: u32 },
    /// They are looked at.
    // Call: Prepared  Next: Joining
    Preparing,
    /// Lanes come in.
    // Call: Lane  Next: Adopting
    Joining { left: u16, workers: u16 },
    /// Descriptors and states come in, past us, to the workers.
    // Call: WorkerLoaded  Next: Settling
    Adopting { level: u16, left: u16, workers: u16 },
    /// Mail between the workers' hubs.
    // Call: WorkerSettled  Next: Settling, Adopted
    Settling { left: u16, workers: u16, idle: bool, round: u32 },
    /// All is loaded, and not ours.
    // Call: Offer, ChannelEnded  Next: Taking
    Adopted,
    /// The word decides.
    // Call: Taken  Next: Over
    Taking { orphaned: bool, loaded: bool },
    /// All is said.
    Over,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Successor {
    state: State,
    senders: u16,
    rehearsal: bool,
    connections: u64,
    refused: Vec<(Origin, String)>,
}

impl Successor {
    /// Begins: `build` and `pid` are ours.
    pub fn new(build: &str, pid: u32) -> (Self, Vec<Action>) {
        let machine = Self {
            state: State::Waiting,
            senders: 0,
            rehearsal: false,
            connections: 0,
            refused: Vec::new(),
        };
        let hello = ToPredecessor::Hello {
            protocol: super::wire::PROTOCOL,
            formats: Format::RANGE,
            build: build.to_owned(),
            pid,
        };
        (machine, vec![Action::Send(hello)])
    }

    /// Connections that can be served, and those that cannot, and why.
    pub fn adopted_connections(&self) -> (u64, &[(Origin, String)]) {
        (self.connections, &self.refused)
    }

    /// Takes in what has happened; the actions are to be carried out in order.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        match (&mut self.state, event) {
            (State::Over, _) => vec![],
            (State::Taking { orphaned, loaded }, Event::Taken(ours)) => {
                let (orphaned, loaded) = (*orphaned, *loaded);
                self.taken(ours, orphaned, loaded)
            }
            // The word decides, whatever else happens.
            (State::Taking { .. }, _) => vec![],
            (_, Event::Message(ToSuccessor::Abort { reason })) => self.discard(reason),
            (State::Waiting | State::Gathering { .. }, Event::ChannelEnded) => {
                self.discard("the predecessor died before anything was handed over".to_owned())
            }
            (_, Event::ChannelEnded) if self.rehearsal => {
                self.discard("the predecessor died during a rehearsal".to_owned())
            }
            (state, Event::ChannelEnded) => {
                let loaded = matches!(state, State::Adopted);
                self.state = State::Taking { orphaned: true, loaded };
                vec![Action::Take { orphaned: true }]
            }
            (State::Waiting, Event::Message(ToSuccessor::Prepare { format, .. }))
                if Format::from_number(format).is_none() =>
            {
                let (oldest, newest) = Format::RANGE;
                self.refuse(format!(
                    "the predecessor writes states of format {format}, this program reads \
                     {oldest} to {newest}"
                ))
            }
            (
                State::Waiting,
                Event::Message(ToSuccessor::Prepare { workers, holdings, rehearsal, .. }),
            ) => {
                (self.senders, self.rehearsal) = (workers, rehearsal);
                self.state = State::Gathering { left: holdings };
                self.gathered()
            }
            (State::Gathering { left }, Event::Message(ToSuccessor::Holding { .. })) => {
                *left = left.saturating_sub(1);
                self.gathered()
            }
            (State::Preparing, Event::Prepared(Ok(workers))) => {
                self.state = State::Joining { left: workers, workers };
                vec![Action::Send(ToPredecessor::Ready { workers })]
            }
            (State::Preparing, Event::Prepared(Err(reason))) => self.refuse(reason),
            (State::Joining { left, workers }, Event::Message(ToSuccessor::Lane)) => {
                *left = left.saturating_sub(1);
                if *left > 0 {
                    return vec![];
                }
                let workers = *workers;
                self.state = State::Adopting { level: 0, left: workers, workers };
                vec![Action::Adopt { senders: self.senders, rehearsal: self.rehearsal }]
            }
            (_, Event::Message(ToSuccessor::Frozen { ids_upcoming, .. })) => {
                vec![Action::SkipIds(ids_upcoming)]
            }
            (_, Event::WorkerBroken(reason)) => self.refuse(reason),
            (State::Adopting { level, workers, .. }, Event::WorkerLevel) => {
                *level += 1;
                let parked = *level == *workers;
                if parked { vec![Action::Send(ToPredecessor::Parked)] } else { vec![] }
            }
            (
                State::Adopting { left, workers, .. },
                Event::WorkerLoaded { connections, refused },
            ) => {
                *left = left.saturating_sub(1);
                let (done, workers) = (*left == 0, *workers);
                self.connections += connections;
                self.refused.extend(refused);
                if done { self.settle(workers, 1) } else { vec![] }
            }
            (
                State::Settling { left, workers, idle, round },
                Event::WorkerSettled { idle: its },
            ) => {
                *left = left.saturating_sub(1);
                *idle &= its;
                match (*left, *idle, *round) {
                    (1.., _, _) => vec![],
                    (0, true, _) => self.adopted(),
                    (0, false, SETTLE_ROUNDS_MAX..) => {
                        self.refuse("messages between workers do not come to rest".to_owned())
                    }
                    (0, false, round) => {
                        let workers = *workers;
                        self.settle(workers, round + 1)
                    }
                }
            }
            // A rehearsal takes nothing, whatever is offered.
            (State::Adopted, Event::Message(ToSuccessor::Offer)) if !self.rehearsal => {
                self.state = State::Taking { orphaned: false, loaded: true };
                vec![Action::Take { orphaned: false }]
            }
            (_, Event::Message(message)) => {
                self.refuse(format!("the predecessor sent {message:?} out of turn"))
            }
            (_, _) => vec![],
        }
    }

    fn gathered(&mut self) -> Vec<Action> {
        if self.state != (State::Gathering { left: 0 }) {
            return vec![];
        }
        self.state = State::Preparing;
        vec![Action::Prepare]
    }

    fn settle(&mut self, workers: u16, round: u32) -> Vec<Action> {
        self.state = State::Settling { left: workers, workers, idle: true, round };
        vec![Action::Settle]
    }

    fn adopted(&mut self) -> Vec<Action> {
        self.state = State::Adopted;
        let refusals = self.refused.chunks(REFUSALS_MAX).map(|connections| {
            let connections = connections.to_vec();
            Action::Send(ToPredecessor::Refusals { connections })
        });
        let adopted = ToPredecessor::Adopted { connections: self.connections };
        refusals.chain([Action::Send(adopted)]).collect()
    }

    fn taken(&mut self, ours: bool, orphaned: bool, loaded: bool) -> Vec<Action> {
        self.state = State::Over;
        match (ours, orphaned, loaded) {
            (false, _, _) => vec![Action::Discard("the predecessor has taken it back".to_owned())],
            (true, false, _) => vec![Action::Serve, Action::Send(ToPredecessor::Active)],
            (true, true, true) => vec![Action::Serve],
            (true, true, false) => vec![Action::ServeAnew],
        }
    }

    fn refuse(&mut self, reason: String) -> Vec<Action> {
        let reason = cut_reason(reason);
        self.state = State::Over;
        vec![
            Action::Send(ToPredecessor::Refused { reason: reason.clone() }),
            Action::Discard(reason),
        ]
    }

    fn discard(&mut self, reason: String) -> Vec<Action> {
        self.state = State::Over;
        vec![Action::Discard(reason)]
    }
}
