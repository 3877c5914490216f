//! The successor's side as a state machine.
//!
//! Whoever drives it feeds it one [`Event`] after another and carries out the [`Action`]s each
//! returns, in their order. Until it is told to serve, it owns nothing: it may close its copies of
//! descriptors, and that is all it may do to them.

use std::time::Duration;

use super::step::{ADOPT_MAX, Step, WAIT_FOR_OFFER_MAX};
use super::wire::{FORMATS_READ, Prepare, Refused, ToSuccessor};
use super::word::Move;

/// What happens to the successor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The process runs and has the channel.
    Start,
    /// The predecessor has said something. What came with it (the shared word, listeners, lanes,
    /// numbers) the driver has put aside.
    Message(ToSuccessor),
    /// The channel has ended, and all that came on it has been handled.
    ChannelEnded,
    /// The workers are built: after [`Action::Build`].
    Built {
        /// How many, at least 1.
        workers: u32,
    },
    /// A worker has the states of all workers of the predecessor and has loaded them: after
    /// [`Action::StartAdopting`]. A lane that ends before is not worth a report: what it means,
    /// the channel says.
    WorkerLoaded {
        /// Connections it has adopted.
        connections: u64,
        /// Those it could not.
        refused: Vec<Refused>,
    },
    /// A worker has handled the mail it had: after [`Action::Settle`].
    WorkerSettled {
        /// Whether there was none since it reported last, so that it has sent none either.
        idle: bool,
    },
    /// How [`Action::Try`] has ended.
    Tried {
        /// What was tried.
        attempt: Move,
        /// Whether it was made.
        won: bool,
    },
    /// The time asked for by [`Action::Timer`] is over.
    TimedOut(Step),
    /// Something has failed on this side, or it is to stop.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What the successor is to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Say something on the channel. An error is no news: the channel's end is an event.
    Send(Tell),
    /// Read the configuration, build workers and whatever listeners are missing (which do not
    /// listen yet), and see that there is room for all: ends with [`Event::Built`] or
    /// [`Event::Failed`].
    Build(Prepare),
    /// All listeners and lanes are there: let the workers receive from their lanes.
    StartAdopting,
    /// Let all workers handle the mail they have.
    Settle,
    /// Make a move with the shared word, and report how it ended before anything else.
    Try(Move),
    /// It owns everything: poll, with whatever was not adopted closed first.
    Serve,
    /// The predecessor has died in the middle, and its connections with it: shut down what is
    /// parked, so that their clients learn of it, and serve the listeners.
    ServeListenersOnly,
    /// Close the copies of all descriptors, and do nothing else to them: they are not ours.
    Discard,
    /// Set the timer, of which there is one: this replaces what it was set to.
    Timer(Step, Duration),
    /// End the process.
    Exit {
        /// Why.
        reason: String,
    },
}

/// What the successor says; the driver knows the facts that go with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Tell {
    /// HELLO.
    Hello,
    /// READY.
    Ready {
        /// How many workers it has.
        workers: u32,
    },
    /// REFUSED.
    Refused {
        /// Why.
        reason: String,
    },
    /// As many NOT ADOPTED as it takes, and ADOPTED.
    Adopted {
        /// Connections it has adopted.
        connections: u64,
        /// Those it could not.
        refused: Vec<Refused>,
    },
    /// ACTIVE.
    Active,
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine {
    dry_run: bool,
    workers: u32,
    /// Whether FROZEN has come. It comes on another socket than the states, so perhaps after them.
    frozen: bool,
    listeners_left: u32,
    connections: u64,
    refused: Vec<Refused>,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    /// Next: Waiting, by Start.
    Idle,
    /// Next: Building, by PREPARE.
    Waiting,
    /// Next: Receiving, by Built.
    Building,
    /// Next: Adopting, by the last listener and the last lane.
    Receiving { lanes_left: u32 },
    /// Next: Settling, or Adopted in a dry run, by the last worker that has loaded.
    Adopting { left: u32 },
    /// Next: Settled, by the last report of a round in which all were idle.
    Settling { left: u32, all_idle: bool },
    /// Next: Adopted, when FROZEN has come.
    Settled,
    /// Next: Taking, by OFFER or the channel's end.
    Adopted,
    /// From all between Receiving and Adopted. Next: Serving if the move was made, else Over.
    Taking(Claim),
    /// It is the server.
    Serving,
    /// It has given up. From all but Taking and Serving.
    Over,
}

/// What a move of the successor is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Claim {
    /// All that it was offered.
    Offered,
    /// All that it has adopted from a predecessor that has died since.
    Inherited,
    /// The listeners of a predecessor that has died before.
    Listeners,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// Before it has said HELLO.
    pub fn new() -> Self {
        Self {
            dry_run: false,
            workers: 0,
            frozen: false,
            listeners_left: 0,
            connections: 0,
            refused: Vec::new(),
            state: State::Idle,
        }
    }

    /// Whether it is the server now.
    pub fn is_serving(&self) -> bool {
        self.state == State::Serving
    }

    /// Whether nothing is asked for any more: it serves or has given up.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Serving | State::Over)
    }

    /// What is to be done about an event.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        match (&self.state, event) {
            (State::Serving | State::Over, _) => Vec::new(),
            (State::Taking(claim), Event::Tried { won, .. }) => self.take_tried(*claim, won),
            // The move that is under way decides, whatever else happens.
            (State::Taking(_), _) | (_, Event::Tried { .. }) => Vec::new(),
            (State::Idle, Event::Start) => {
                self.state = State::Waiting;
                let time_max = Step::Prepare.time_max();
                vec![Action::Send(Tell::Hello), Action::Timer(Step::Prepare, time_max)]
            }
            (_, Event::Start) => Vec::new(),
            (_, Event::Message(message)) => self.received(message),
            (_, Event::ChannelEnded) => self.orphaned(),
            (State::Building, Event::Built { workers }) => self.built(workers),
            (_, Event::Built { .. }) => Vec::new(),
            (_, Event::WorkerLoaded { connections, refused }) => self.loaded(connections, refused),
            (_, Event::WorkerSettled { idle }) => self.settled(idle),
            (_, Event::TimedOut(step)) if self.step() == Some(step) => {
                self.refuse(format!("the predecessor's step {step} did not end in time"))
            }
            (_, Event::TimedOut(_)) => Vec::new(),
            (_, Event::Failed { reason }) => self.refuse(reason),
        }
    }

    fn received(&mut self, message: ToSuccessor) -> Vec<Action> {
        match (&mut self.state, message) {
            (_, ToSuccessor::Abort { reason }) => self.give_up(reason),
            (State::Waiting, ToSuccessor::Prepare(prepare)) => self.prepare(prepare),
            (State::Receiving { .. }, ToSuccessor::Listener { .. }) if self.listeners_left > 0 => {
                self.listeners_left -= 1;
                self.adopt_if_complete()
            }
            (State::Receiving { lanes_left: lanes_left @ 1.. }, ToSuccessor::Lane { .. }) => {
                *lanes_left -= 1;
                self.adopt_if_complete()
            }
            // For the driver alone.
            (
                State::Receiving { .. },
                ToSuccessor::PortLock { .. } | ToSuccessor::Control { .. },
            ) => Vec::new(),
            (
                State::Adopting { .. } | State::Settling { .. } | State::Settled,
                ToSuccessor::Frozen { .. },
            ) if !self.frozen && !self.dry_run => {
                self.frozen = true;
                self.adopted_if_complete()
            }
            (State::Adopted, ToSuccessor::Offer) if !self.dry_run => {
                self.take(Claim::Offered, Move::Take)
            }
            (_, message) => {
                let name = match message {
                    ToSuccessor::Prepare(_) => "PREPARE",
                    ToSuccessor::Listener { .. } => "LISTENER",
                    ToSuccessor::PortLock { .. } => "PORT LOCK",
                    ToSuccessor::Control { .. } => "CONTROL",
                    ToSuccessor::Lane { .. } => "LANE",
                    ToSuccessor::Frozen { .. } => "FROZEN",
                    ToSuccessor::Offer => "OFFER",
                    ToSuccessor::Abort { .. } => "ABORT",
                };
                self.refuse(format!("the predecessor sent {name} out of order"))
            }
        }
    }

    fn prepare(&mut self, prepare: Prepare) -> Vec<Action> {
        if !FORMATS_READ.contains(prepare.format) {
            let format = prepare.format;
            return self.refuse(format!(
                "the predecessor writes snapshots of format {format}, and this build reads \
                 {FORMATS_READ}"
            ));
        }
        self.dry_run = prepare.dry_run;
        // None are handed over in a dry run, whatever the count says.
        self.listeners_left = if prepare.dry_run { 0 } else { prepare.listeners };
        self.state = State::Building;
        let time_max = Step::Prepare.time_max();
        vec![Action::Timer(Step::Prepare, time_max), Action::Build(prepare)]
    }

    fn built(&mut self, workers: u32) -> Vec<Action> {
        self.workers = workers;
        self.state = State::Receiving { lanes_left: workers };
        vec![Action::Timer(Step::Copy, ADOPT_MAX), Action::Send(Tell::Ready { workers })]
    }

    fn adopt_if_complete(&mut self) -> Vec<Action> {
        if self.listeners_left > 0 || self.state != (State::Receiving { lanes_left: 0 }) {
            return Vec::new();
        }
        self.state = State::Adopting { left: self.workers };
        vec![Action::StartAdopting]
    }

    fn loaded(&mut self, connections: u64, refused: Vec<Refused>) -> Vec<Action> {
        let State::Adopting { left } = &mut self.state else {
            return Vec::new();
        };
        *left -= 1;
        self.connections = self.connections.saturating_add(connections);
        self.refused.extend(refused);
        if *left > 0 {
            return Vec::new();
        }
        if self.dry_run {
            return self.adopted();
        }
        self.state = State::Settling { left: self.workers, all_idle: true };
        vec![Action::Settle]
    }

    fn settled(&mut self, idle: bool) -> Vec<Action> {
        let State::Settling { left, all_idle } = &mut self.state else {
            return Vec::new();
        };
        *left -= 1;
        *all_idle &= idle;
        match (*left, *all_idle) {
            (0, true) => {
                self.state = State::Settled;
                self.adopted_if_complete()
            }
            (0, false) => {
                (*left, *all_idle) = (self.workers, true);
                vec![Action::Settle]
            }
            _ => Vec::new(),
        }
    }

    fn adopted_if_complete(&mut self) -> Vec<Action> {
        match self.state == State::Settled && self.frozen {
            true => self.adopted(),
            false => Vec::new(),
        }
    }

    fn adopted(&mut self) -> Vec<Action> {
        self.state = State::Adopted;
        let refused = std::mem::take(&mut self.refused);
        let tell = Tell::Adopted { connections: self.connections, refused };
        vec![Action::Timer(Step::Offer, WAIT_FOR_OFFER_MAX), Action::Send(tell)]
    }

    /// The predecessor has died, without having called it off.
    fn orphaned(&mut self) -> Vec<Action> {
        if !self.dry_run && self.listeners_left == 0 {
            match self.state {
                State::Adopted => return self.take(Claim::Inherited, Move::TakeOver),
                State::Receiving { .. }
                | State::Adopting { .. }
                | State::Settling { .. }
                | State::Settled => return self.take(Claim::Listeners, Move::TakeOver),
                _ => {}
            }
        }
        self.give_up("the predecessor has ended".to_owned())
    }

    fn take(&mut self, claim: Claim, attempt: Move) -> Vec<Action> {
        self.state = State::Taking(claim);
        vec![Action::Try(attempt)]
    }

    fn take_tried(&mut self, claim: Claim, won: bool) -> Vec<Action> {
        if !won {
            return self.give_up("the predecessor has called it off".to_owned());
        }
        self.state = State::Serving;
        match claim {
            Claim::Offered => vec![Action::Serve, Action::Send(Tell::Active)],
            Claim::Inherited => vec![Action::Serve],
            Claim::Listeners => vec![Action::ServeListenersOnly],
        }
    }

    fn refuse(&mut self, reason: String) -> Vec<Action> {
        let mut actions = vec![Action::Send(Tell::Refused { reason: reason.clone() })];
        actions.extend(self.give_up(reason));
        actions
    }

    fn give_up(&mut self, reason: String) -> Vec<Action> {
        self.state = State::Over;
        vec![Action::Discard, Action::Exit { reason }]
    }

    /// What the timer is set to.
    fn step(&self) -> Option<Step> {
        match self.state {
            State::Waiting | State::Building => Some(Step::Prepare),
            State::Receiving { .. }
            | State::Adopting { .. }
            | State::Settling { .. }
            | State::Settled => Some(Step::Copy),
            State::Adopted => Some(Step::Offer),
            State::Idle | State::Taking(_) | State::Serving | State::Over => None,
        }
    }
}

#[cfg(test)]
mod tests {
    //! What one side alone shows; the rest is in `handover/tests.rs`.

    use super::*;
    use crate::handover::wire::FORMAT;

    fn prepare(dry_run: bool) -> Prepare {
        Prepare {
            format: FORMAT,
            generation: 0,
            pid: 1,
            workers: 1,
            listeners: 1,
            connections: 3,
            ids_upcoming: 0,
            dry_run,
            network_namespace: None,
        }
    }

    fn listener() -> ToSuccessor {
        let address = "127.0.0.1:8000".parse().unwrap();
        ToSuccessor::Listener { address, worker: 0 }
    }

    /// A machine of one worker after `messages`, each event of its own as soon as it can be.
    fn machine(prepare: Prepare, messages: &[ToSuccessor]) -> Machine {
        let mut machine = Machine::new();
        machine.handle(Event::Start);
        machine.handle(Event::Message(ToSuccessor::Prepare(prepare)));
        machine.handle(Event::Built { workers: 1 });
        for message in messages {
            machine.handle(Event::Message(message.clone()));
        }
        machine
    }

    #[track_caller]
    fn assert_refuses(actions: &[Action], expected: &str) {
        let reason = expected.to_owned();
        let tell = Tell::Refused { reason: reason.clone() };
        assert_eq!(actions, [Action::Send(tell), Action::Discard, Action::Exit { reason }]);
    }

    const LANE: ToSuccessor = ToSuccessor::Lane { worker: 0 };
    const FROZEN: ToSuccessor = ToSuccessor::Frozen { at_ns: 1, ids_upcoming: 2 };

    #[test]
    fn nothing_is_adopted_before_all_is_there() {
        for first in [LANE, listener()] {
            let mut waiting = machine(prepare(false), &[]);
            assert_eq!(waiting.handle(Event::Message(first.clone())), []);
            let second = if first == LANE { listener() } else { LANE };
            assert_eq!(waiting.handle(Event::Message(second)), [Action::StartAdopting]);
        }
    }

    #[test]
    fn adopted_is_said_after_frozen_in_either_order() {
        let loaded = Event::WorkerLoaded { connections: 3, refused: Vec::new() };
        let settled = Event::WorkerSettled { idle: true };
        let frozen = Event::Message(FROZEN);
        let orders = [
            [&loaded, &settled, &frozen],
            [&loaded, &frozen, &settled],
            [&frozen, &loaded, &settled],
        ];
        for order in orders {
            let mut machine = machine(prepare(false), &[listener(), LANE]);
            let all: Vec<_> = order.iter().map(|event| machine.handle((*event).clone())).collect();
            let tell = Tell::Adopted { connections: 3, refused: Vec::new() };
            let adopted = Action::Send(tell);
            assert!(all[2].contains(&adopted) && !all[..2].concat().contains(&adopted));
        }
    }

    #[test]
    fn settling_goes_on_until_all_are_idle_in_one_round() {
        let mut machine = machine(prepare(false), &[listener(), LANE, FROZEN]);
        let loaded = Event::WorkerLoaded { connections: 3, refused: Vec::new() };
        assert_eq!(machine.handle(loaded), [Action::Settle]);
        for _ in 0..3 {
            let actions = machine.handle(Event::WorkerSettled { idle: false });
            assert_eq!(actions, [Action::Settle]);
        }
        let actions = machine.handle(Event::WorkerSettled { idle: true });
        assert!(matches!(actions[..], [_, Action::Send(Tell::Adopted { .. })]));
    }

    #[test]
    fn a_format_unknown_here_is_refused() {
        let mut machine = Machine::new();
        machine.handle(Event::Start);
        let newer = Prepare { format: FORMAT + 1, ..prepare(false) };
        assert_refuses(
            &machine.handle(Event::Message(ToSuccessor::Prepare(newer))),
            "the predecessor writes snapshots of format 2, and this build reads 1",
        );
    }

    #[test]
    fn what_is_out_of_order_is_refused() {
        for (dry_run, before, message, name) in [
            (false, vec![], ToSuccessor::Offer, "OFFER"),
            (false, vec![], FROZEN, "FROZEN"),
            (false, vec![listener()], listener(), "LISTENER"),
            (false, vec![LANE], LANE, "LANE"),
            (false, vec![listener(), LANE, FROZEN], FROZEN, "FROZEN"),
            (true, vec![], listener(), "LISTENER"),
            (true, vec![LANE], FROZEN, "FROZEN"),
        ] {
            let mut machine = machine(prepare(dry_run), &before);
            let expected = format!("the predecessor sent {name} out of order");
            assert_refuses(&machine.handle(Event::Message(message)), &expected);
        }
    }

    #[test]
    fn a_dry_run_takes_nothing_whatever_is_offered() {
        let loaded = Event::WorkerLoaded { connections: 3, refused: Vec::new() };
        for event in [Event::Message(ToSuccessor::Offer), Event::ChannelEnded] {
            let mut machine = machine(prepare(true), &[LANE]);
            let adopted = machine.handle(loaded.clone());
            assert!(matches!(adopted[..], [_, Action::Send(Tell::Adopted { .. })]));
            let actions = machine.handle(event);
            assert!(matches!(actions[..], [.., Action::Discard, Action::Exit { .. }]));
        }
    }

    #[test]
    fn a_predecessor_that_dies_before_it_gave_its_listeners_leaves_nothing() {
        let mut waiting = machine(prepare(false), &[LANE]);
        let actions = waiting.handle(Event::ChannelEnded);
        assert!(matches!(actions[..], [Action::Discard, Action::Exit { .. }]));
        let mut ready = machine(prepare(false), &[listener()]);
        assert_eq!(ready.handle(Event::ChannelEnded), [Action::Try(Move::TakeOver)]);
    }
}
