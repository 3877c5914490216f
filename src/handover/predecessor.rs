//! The predecessor's side as a state machine.
//!
//! Whoever drives it feeds it one [`Event`] after another and carries out the [`Action`]s each
//! returns, in their order. It must keep its end of the channel open until [`Action::Done`], and
//! nobody else may hold a copy of that end: when the end is closed, the successor takes the
//! predecessor for dead.

use std::time::Duration;

use super::step::Step;
use super::wire::{FORMATS_WRITTEN, Hello, PROTOCOL, Refused, ToPredecessor};
use super::word::Move;

/// What happens to the predecessor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The successor has been started, or has called.
    Start {
        /// Whether nothing is to move: it is only tried what would.
        dry_run: bool,
    },
    /// The successor has said something.
    Message(ToPredecessor),
    /// The channel has ended, and all that came on it has been handled.
    ChannelEnded,
    /// A worker has sent copies of all its descriptors: after [`Order::PreCopy`].
    WorkerCopied,
    /// A worker has stopped: after [`Order::Freeze`].
    WorkerFrozen,
    /// A worker has handled the mail it had: after [`Order::Settle`].
    WorkerSettled {
        /// Whether there was none since it reported last, so that it has sent none either.
        idle: bool,
    },
    /// A worker has sent the states of its connections: after [`Order::Save`].
    WorkerSaved {
        /// How many states; a connection that cannot be saved is not among them.
        connections: u64,
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
    /// It is to be called off: an operator says so, the server is to stop, or something has failed
    /// on this side.
    Abort {
        /// Why.
        reason: String,
    },
}

/// What the predecessor is to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Say something on the channel. An error is no news: the channel's end is an event.
    Send(Tell),
    /// Give all workers an order; each reports back, except where the order says otherwise.
    Ask(Order),
    /// Make a move with the shared word, and report how it ended before anything else.
    Try(Move),
    /// Set the timer, of which there is one: this replaces what it was set to.
    Timer(Step, Duration),
    /// A step has begun.
    Progress(Step),
    /// End the successor's process (SIGKILL): it does not leave, and its copies keep connections
    /// from being closed.
    Kill,
    /// It is over.
    Done(Outcome),
}

/// What the predecessor says; the driver knows the facts and descriptors that go with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Tell {
    /// PREPARE, with this format of the snapshots.
    Prepare {
        /// See [`wire::Prepare`](super::wire::Prepare).
        format: u16,
    },
    /// Every LISTENER, PORT LOCK and CONTROL.
    Listeners,
    /// A LANE for each worker of the successor. The workers of the predecessor get the other ends
    /// with the next order.
    Lanes {
        /// How many.
        count: u32,
    },
    /// FROZEN.
    Frozen,
    /// OFFER.
    Offer,
    /// ABORT.
    Abort {
        /// Why.
        reason: String,
    },
}

/// What the workers of the predecessor are to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Order {
    /// Send copies of all descriptors over the lanes, and what changes from then on. From now on
    /// a connection is ended by shutdown() before close().
    PreCopy,
    /// Stop reading, writing and accepting.
    Freeze,
    /// Handle the mail that is there, as far as the out queues.
    Settle,
    /// Send the states of all connections over the lanes. In a dry run it is the first order, and
    /// the workers go on serving.
    Save,
    /// Go on as if nothing had happened, whatever the orders before were. No report.
    Thaw,
    /// No copy is left in another process: close() alone ends a connection again. No report.
    CopiesGone,
    /// Give up, by a bare close(), all connections whose states were sent, but for these; close
    /// these and those that could not be saved, with 1012. No report.
    Release(Vec<Refused>),
}

/// How a handover has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The successor owns the connections, and this process has nothing more to do than to close
    /// those that were refused.
    Moved {
        /// The connections the successor could not adopt.
        refused: Vec<Refused>,
        /// Whether it has said that it serves: if not, it has probably died since it took them.
        active: bool,
    },
    /// Nothing has moved, and this process goes on.
    Aborted {
        /// Why.
        reason: String,
    },
    /// A dry run has ended as it should.
    DryRun {
        /// The connections the successor could not adopt.
        would_refuse: Vec<Refused>,
    },
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine {
    /// How many reports an order brings.
    workers: u32,
    dry_run: bool,
    channel_open: bool,
    /// Whether the workers have had an order: then they have to be told how it ends.
    workers_asked: bool,
    refused: Vec<Refused>,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    /// Next: Greeting, by Start.
    Idle,
    /// Next: Preparing, by HELLO.
    Greeting,
    /// Next: Copying, or Saving in a dry run, by READY.
    Preparing,
    /// Next: Freezing, by the last report.
    Copying { left: u32 },
    /// Next: Settling, by the last report.
    Freezing { left: u32 },
    /// Next: Saving, by the last report of a round in which all were idle.
    Settling { left: u32, all_idle: bool },
    /// Next: Offering, or Revoking in a dry run, by the last report and ADOPTED, in any order.
    Saving { left: u32, saved: u64, adopted: Option<u64> },
    /// Next: Offered, if the move was made, else Taken.
    Offering,
    /// Next: Over, by ACTIVE.
    Offered,
    /// From all above. Next: Leaving or Over if the move was made, else Taken or Over.
    Revoking { ending: Ending, active: bool },
    /// The successor owns. Next: Over, by ACTIVE, the channel's end or the timer.
    Taken,
    /// The predecessor has gone on. Next: Over, by the channel's end or the timer.
    Leaving { outcome: Outcome },
    /// Nothing is asked for any more.
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Ending {
    Abort { reason: String },
    DryRun,
}

impl Machine {
    /// For a predecessor with that many workers, at least 1.
    pub fn new(workers: u32) -> Self {
        Self {
            workers,
            dry_run: false,
            channel_open: true,
            workers_asked: false,
            refused: Vec::new(),
            state: State::Idle,
        }
    }

    /// Whether nothing is asked for any more.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// What is to be done about an event.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        if event == Event::ChannelEnded {
            self.channel_open = false;
        }
        match &mut self.state {
            State::Over => Vec::new(),
            State::Revoking { active, .. } => match event {
                Event::Tried { attempt: Move::Revoke, won } => self.revoke_tried(won),
                Event::Message(ToPredecessor::Active { .. }) => {
                    *active = true;
                    Vec::new()
                }
                // The move that is under way decides, whatever else happens.
                _ => Vec::new(),
            },
            State::Taken => match event {
                Event::Message(ToPredecessor::Active { .. }) => self.moved(true),
                Event::ChannelEnded | Event::TimedOut(Step::Offer) => self.moved(false),
                _ => Vec::new(),
            },
            State::Leaving { .. } => match event {
                Event::ChannelEnded => self.left(Vec::new()),
                Event::TimedOut(Step::Done) => self.left(vec![Action::Kill]),
                _ => Vec::new(),
            },
            _ => self.handle_before_the_end(event),
        }
    }

    /// An event in one of the states in which the handover can still be called off.
    fn handle_before_the_end(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Start { dry_run } => self.started(dry_run),
            Event::Message(message) => self.received(message),
            Event::ChannelEnded => self.abort("the successor has ended".to_owned()),
            Event::TimedOut(step) if self.step() == Some(step) => {
                let seconds = step.time_max().as_secs();
                self.abort(format!("the step {step} took longer than {seconds} s"))
            }
            Event::Abort { reason } => self.abort(reason),
            Event::Tried { attempt: Move::Offer, won } => self.offer_tried(won),
            Event::WorkerCopied
            | Event::WorkerFrozen
            | Event::WorkerSettled { .. }
            | Event::WorkerSaved { .. } => self.reported(&event),
            Event::TimedOut(_) | Event::Tried { .. } => Vec::new(),
        }
    }

    fn started(&mut self, dry_run: bool) -> Vec<Action> {
        if self.state != State::Idle {
            return Vec::new();
        }
        self.dry_run = dry_run;
        self.state = State::Greeting;
        begin(Step::Prepare, [])
    }

    fn received(&mut self, message: ToPredecessor) -> Vec<Action> {
        match (&mut self.state, message) {
            (_, ToPredecessor::Refused { reason }) => {
                self.abort(format!("the successor refuses: {reason}"))
            }
            (State::Greeting, ToPredecessor::Hello(hello)) => self.greeted(&hello),
            (State::Preparing, ToPredecessor::Ready { workers, .. }) => self.prepared(workers),
            (State::Saving { adopted: None, .. }, ToPredecessor::NotAdopted { refused }) => {
                self.refused.extend(refused);
                Vec::new()
            }
            (
                State::Saving { adopted: adopted @ None, .. },
                ToPredecessor::Adopted { connections },
            ) => {
                *adopted = Some(connections);
                self.offer_if_complete()
            }
            (State::Offered, ToPredecessor::Active { .. }) => self.moved(true),
            (_, message) => {
                let name = match message {
                    ToPredecessor::Hello(_) => "HELLO",
                    ToPredecessor::Ready { .. } => "READY",
                    ToPredecessor::Refused { .. } => "REFUSED",
                    ToPredecessor::NotAdopted { .. } => "NOT ADOPTED",
                    ToPredecessor::Adopted { .. } => "ADOPTED",
                    ToPredecessor::Active { .. } => "ACTIVE",
                };
                self.abort(format!("the successor sent {name} out of order"))
            }
        }
    }

    fn greeted(&mut self, hello: &Hello) -> Vec<Action> {
        if hello.protocol != PROTOCOL {
            let theirs = hello.protocol;
            return self.abort(format!(
                "the successor speaks version {theirs} of the handover's protocol, and this \
                 build {PROTOCOL}"
            ));
        }
        let Some(format) = FORMATS_WRITTEN.newest_common(hello.formats_read) else {
            let read = hello.formats_read;
            return self.abort(format!(
                "the successor reads snapshots of format {read}, and this build writes \
                 {FORMATS_WRITTEN}"
            ));
        };
        self.state = State::Preparing;
        vec![Action::Send(Tell::Prepare { format })]
    }

    fn prepared(&mut self, lanes: u32) -> Vec<Action> {
        if lanes == 0 {
            return self.abort("the successor has no workers".to_owned());
        }
        self.workers_asked = true;
        let lanes = Action::Send(Tell::Lanes { count: lanes });
        if self.dry_run {
            self.state = State::Saving { left: self.workers, saved: 0, adopted: None };
            return begin(Step::State, [lanes, Action::Ask(Order::Save)]);
        }
        self.state = State::Copying { left: self.workers };
        let listeners = Action::Send(Tell::Listeners);
        begin(Step::Copy, [listeners, lanes, Action::Ask(Order::PreCopy)])
    }

    /// A worker's report. One that does not belong to the step is of no account.
    fn reported(&mut self, event: &Event) -> Vec<Action> {
        let workers = self.workers;
        match (&mut self.state, event) {
            (State::Copying { left }, Event::WorkerCopied) => {
                *left -= 1;
                if *left > 0 {
                    return Vec::new();
                }
                self.state = State::Freezing { left: workers };
                begin(Step::Freeze, [Action::Ask(Order::Freeze)])
            }
            (State::Freezing { left }, Event::WorkerFrozen) => {
                *left -= 1;
                if *left > 0 {
                    return Vec::new();
                }
                self.state = State::Settling { left: workers, all_idle: true };
                vec![Action::Send(Tell::Frozen), Action::Ask(Order::Settle)]
            }
            (State::Settling { left, all_idle }, Event::WorkerSettled { idle }) => {
                *left -= 1;
                *all_idle &= idle;
                match (*left, *all_idle) {
                    (0, true) => {
                        self.state = State::Saving { left: workers, saved: 0, adopted: None };
                        begin(Step::State, [Action::Ask(Order::Save)])
                    }
                    (0, false) => {
                        (*left, *all_idle) = (workers, true);
                        vec![Action::Ask(Order::Settle)]
                    }
                    _ => Vec::new(),
                }
            }
            (State::Saving { left: left @ 1.., saved, .. }, Event::WorkerSaved { connections }) => {
                *left -= 1;
                *saved = saved.saturating_add(*connections);
                self.offer_if_complete()
            }
            _ => Vec::new(),
        }
    }

    fn offer_if_complete(&mut self) -> Vec<Action> {
        let State::Saving { left: 0, saved, adopted: Some(adopted) } = self.state else {
            return Vec::new();
        };
        let refused = self.refused.len() as u64;
        if adopted.checked_add(refused) != Some(saved) {
            return self.abort(format!(
                "{saved} connections were sent, and the successor has adopted {adopted} and \
                 refused {refused}"
            ));
        }
        if self.dry_run {
            return self.revoke(Ending::DryRun);
        }
        self.state = State::Offering;
        begin(Step::Offer, [Action::Try(Move::Offer)])
    }

    fn offer_tried(&mut self, won: bool) -> Vec<Action> {
        if self.state != State::Offering {
            return Vec::new();
        }
        if won {
            self.state = State::Offered;
            return vec![Action::Send(Tell::Offer)];
        }
        // Only the successor can have been faster.
        self.state = State::Taken;
        Vec::new()
    }

    fn abort(&mut self, reason: String) -> Vec<Action> {
        self.revoke(Ending::Abort { reason })
    }

    fn revoke(&mut self, ending: Ending) -> Vec<Action> {
        self.state = State::Revoking { ending, active: false };
        vec![Action::Try(Move::Revoke)]
    }

    fn revoke_tried(&mut self, won: bool) -> Vec<Action> {
        let State::Revoking { ending, active } = std::mem::replace(&mut self.state, State::Over)
        else {
            return Vec::new();
        };
        // In a dry run nothing was given that could have been taken.
        if won || self.dry_run {
            return self.go_on(ending);
        }
        if active || !self.channel_open {
            return self.moved(active);
        }
        self.state = State::Taken;
        vec![Action::Timer(Step::Offer, Step::Offer.time_max())]
    }

    /// The predecessor owns for good: serve first, then see the successor off.
    fn go_on(&mut self, ending: Ending) -> Vec<Action> {
        let (reason, outcome) = match ending {
            Ending::Abort { reason } => (reason.clone(), Outcome::Aborted { reason }),
            Ending::DryRun => {
                let would_refuse = std::mem::take(&mut self.refused);
                ("the dry run is over".to_owned(), Outcome::DryRun { would_refuse })
            }
        };
        let mut actions = Vec::new();
        if self.workers_asked {
            actions.push(Action::Ask(Order::Thaw));
        }
        self.state = State::Leaving { outcome };
        if !self.channel_open {
            actions.extend(self.left(Vec::new()));
            return actions;
        }
        actions.push(Action::Send(Tell::Abort { reason }));
        actions.push(Action::Timer(Step::Done, Step::Done.time_max()));
        actions
    }

    /// The successor is gone, or will be after `actions`.
    fn left(&mut self, mut actions: Vec<Action>) -> Vec<Action> {
        if let State::Leaving { outcome } = std::mem::replace(&mut self.state, State::Over) {
            if self.workers_asked {
                actions.push(Action::Ask(Order::CopiesGone));
            }
            actions.push(Action::Done(outcome));
        }
        actions
    }

    /// The successor owns: give up what it has.
    fn moved(&mut self, active: bool) -> Vec<Action> {
        self.state = State::Over;
        let refused = std::mem::take(&mut self.refused);
        vec![
            Action::Ask(Order::Release(refused.clone())),
            Action::Progress(Step::Done),
            Action::Done(Outcome::Moved { refused, active }),
        ]
    }

    /// The step whose time is being taken.
    fn step(&self) -> Option<Step> {
        match self.state {
            State::Idle | State::Over => None,
            State::Greeting | State::Preparing => Some(Step::Prepare),
            State::Copying { .. } => Some(Step::Copy),
            State::Freezing { .. } | State::Settling { .. } => Some(Step::Freeze),
            State::Saving { .. } => Some(Step::State),
            State::Offering | State::Offered | State::Revoking { .. } | State::Taken => {
                Some(Step::Offer)
            }
            State::Leaving { .. } => Some(Step::Done),
        }
    }
}

/// The actions at the beginning of a step, before `actions`.
fn begin<const N: usize>(step: Step, actions: [Action; N]) -> Vec<Action> {
    let first = [Action::Progress(step), Action::Timer(step, step.time_max())];
    first.into_iter().chain(actions).collect()
}

#[cfg(test)]
mod tests;
