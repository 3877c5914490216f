//! Two processes, a channel and a word, as far as the machines can tell. What their drivers do with
//! an action is done here in the same order.

use std::collections::VecDeque;
use std::time::Duration;

use super::setup::{Broken, End, Part, Setup, Transition, origin};
use crate::handover::ownership::Ownership;
use crate::handover::predecessor::{self, Outcome, Plan, Predecessor};
use crate::handover::successor::{self, Successor};
use crate::handover::wire::{ToPredecessor, ToSuccessor};
use crate::hub::WorkerIndex;
use crate::net::lane::Origin;

#[derive(Clone, Debug)]
pub(super) struct World {
    setup: Setup,
    word: Ownership,
    old: Old,
    new: New,
    to_new: VecDeque<ToSuccessor>,
    to_old: VecDeque<ToPredecessor>,
    /// Whether a fault has happened.
    faulty: bool,
    stalled: Option<Part>,
    ready_sent: bool,
    adopted_sent: bool,
}

/// The predecessor's process.
#[derive(Clone, Debug)]
struct Old {
    machine: Predecessor,
    alive: bool,
    killed: bool,
    acts: VecDeque<OldAct>,
    reports: VecDeque<predecessor::Event>,
    end_seen: bool,
    workers: Vec<Worker>,
    /// There is a deadline.
    timed: bool,
    outcome: Option<Outcome>,
}

/// An action, or a part of one that the process may die after.
#[derive(Clone, Debug)]
enum OldAct {
    Do(predecessor::Action),
    Packet(ToSuccessor),
    Order(Order),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    PreCopy,
    Rehearse,
    Freeze,
    Settle,
    Save,
    Thaw,
    Release,
}

#[derive(Clone, Debug)]
struct Worker {
    mail: VecDeque<Order>,
    serves: bool,
    /// It has sent all descriptors there were.
    level: bool,
    saved: bool,
}

/// The successor's process.
#[derive(Clone, Debug)]
struct New {
    machine: Successor,
    alive: bool,
    killed: bool,
    /// It has given up by itself.
    gave_up: bool,
    acts: VecDeque<successor::Action>,
    reports: VecDeque<successor::Event>,
    end_seen: bool,
    ids_skipped: bool,
    adopters: Vec<VecDeque<Adopt>>,
    serving: Option<Serving>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Adopt {
    Park,
    Load,
    Settle,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Serving {
    All,
    ListenersOnly,
}

fn check(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        let (old, first_of_old) = Predecessor::new(Plan {
            generation: 1,
            workers: setup.workers,
            connections: 3,
            holdings: 4,
            rehearsal: setup.rehearsal,
            begun_ns: 0,
            time_namespace: 0,
            history: String::new(),
            pause_max: Duration::from_secs(1),
        });
        let (new, first_of_new) = Successor::new("", 2);
        let worker = Worker { mail: VecDeque::new(), serves: true, level: false, saved: false };
        Self {
            setup,
            word: Ownership::Preparing,
            old: Old {
                machine: old,
                alive: true,
                killed: false,
                acts: first_of_old.into_iter().map(OldAct::Do).collect(),
                reports: VecDeque::new(),
                end_seen: false,
                workers: vec![worker; setup.workers.into()],
                timed: false,
                outcome: None,
            },
            new: New {
                machine: new,
                alive: true,
                killed: false,
                gave_up: false,
                acts: first_of_new.into(),
                reports: VecDeque::new(),
                end_seen: false,
                ids_skipped: false,
                adopters: vec![VecDeque::new(); setup.lanes.into()],
                serving: None,
            },
            to_new: VecDeque::new(),
            to_old: VecDeque::new(),
            faulty: false,
            stalled: None,
            ready_sent: false,
            adopted_sent: false,
        }
    }

    /// All that may happen next.
    pub(super) fn transitions(&self) -> Vec<Transition> {
        let mut open = Vec::new();
        let mut add = |transition, is_open| {
            if is_open {
                open.push(transition);
            }
        };
        let faults = self.setup.faults;
        let (old, new) = (&self.old, &self.new);
        // Whoever waits for what has stalled waits until its time is over.
        let times_out = faults.timeouts > 0 || self.stalled.is_some();
        let stalls = faults.stalls > 0;
        if old.alive {
            // The driver does one thing after another, and none after the outcome.
            let listens = old.acts.is_empty() && old.outcome.is_none();
            let silent = self.to_old.is_empty();
            add(Transition::PredecessorActs, !old.acts.is_empty());
            add(Transition::PredecessorHearsWorker, listens && !old.reports.is_empty());
            add(Transition::PredecessorReceives, listens && !silent);
            let ended = !new.alive && silent && !old.end_seen;
            add(Transition::PredecessorSeesTheEnd, listens && ended);
            for (at, worker) in old.workers.iter().enumerate() {
                add(Transition::Worker(at), !worker.mail.is_empty());
                let settles = worker.mail.front() == Some(&Order::Settle);
                add(Transition::BusyWorker(at), settles && faults.busy_rounds > 0);
            }
            let moved = matches!(old.outcome, Some(Outcome::Moved { .. } | Outcome::Lost(_)));
            let is_given_up = old.outcome.is_some() && !moved && new.alive;
            add(Transition::PredecessorEndsSuccessor, is_given_up);
            let is_idle = |(at, worker): (usize, &Worker)| {
                worker.mail.is_empty() || self.is_stalled(Part::Worker(at))
            };
            let idle = old.workers.iter().enumerate().all(is_idle);
            add(Transition::PredecessorExits, moved && idle);
            add(Transition::PredecessorTimesOut, listens && old.timed && times_out);
            add(Transition::Abort, listens && faults.aborts > 0);
            add(Transition::PredecessorDies, faults.deaths > 0);
            add(Transition::Stall(Part::Predecessor), stalls);
            add(Transition::Stall(Part::Worker(0)), stalls);
        }
        if new.alive {
            let listens = new.acts.is_empty() && new.serving.is_none();
            let silent = self.to_new.is_empty();
            add(Transition::SuccessorActs, !new.acts.is_empty());
            let prepares = new.acts.front() == Some(&successor::Action::Prepare);
            add(Transition::PreparationFails, prepares && faults.failures > 0);
            add(Transition::SuccessorHearsWorker, listens && !new.reports.is_empty());
            add(Transition::SuccessorReceives, listens && !silent);
            let ended = !old.alive && silent && !new.end_seen;
            add(Transition::SuccessorSeesTheEnd, listens && ended);
            // What was sent can be received whether or not the sender lives.
            let all_level = old.workers.iter().all(|worker| worker.level);
            let all_saved = old.workers.iter().all(|worker| worker.saved);
            for (at, mail) in new.adopters.iter().enumerate() {
                let settles = mail.front() == Some(&Adopt::Settle);
                let parks = mail.front() == Some(&Adopt::Park) && all_level;
                let loads = mail.front() == Some(&Adopt::Load) && all_saved;
                add(Transition::Adopter(at), settles || parks || loads);
                add(Transition::BusyAdopter(at), settles && faults.busy_rounds > 0);
            }
            add(Transition::SuccessorTimesOut, listens && times_out);
            add(Transition::Failure, listens && faults.failures > 0);
            add(Transition::SuccessorDies, faults.deaths > 0);
            add(Transition::Stall(Part::Successor), stalls);
            add(Transition::Stall(Part::Adopter(0)), stalls);
        }
        open.retain(|transition| transition.part().is_none_or(|part| !self.is_stalled(part)));
        open
    }

    /// A process stalls with all its workers.
    fn is_stalled(&self, part: Part) -> bool {
        match self.stalled {
            Some(Part::Predecessor) => matches!(part, Part::Predecessor | Part::Worker(_)),
            Some(Part::Successor) => matches!(part, Part::Successor | Part::Adopter(_)),
            stalled => stalled == Some(part),
        }
    }

    /// Lets it happen. An error is a broken rule.
    pub(super) fn make(&mut self, transition: Transition) -> Result<(), String> {
        self.faulty |= transition.is_fault();
        let (old, new) = (&mut self.old, &mut self.new);
        match transition {
            Transition::PredecessorActs => self.predecessor_acts()?,
            Transition::SuccessorActs => self.successor_acts()?,
            Transition::PredecessorHearsWorker => {
                let event = old.reports.pop_front().expect("listed as open");
                old.handle(event);
            }
            Transition::SuccessorHearsWorker => {
                let event = new.reports.pop_front().expect("listed as open");
                new.handle(event);
            }
            Transition::PredecessorReceives => {
                let message = self.to_old.pop_front().expect("listed as open");
                old.handle(predecessor::Event::Message(message));
            }
            Transition::SuccessorReceives => {
                let message = self.to_new.pop_front().expect("listed as open");
                let too_soon = self.setup.broken == Some(Broken::SaysActiveTooSoon);
                if too_soon && message == ToSuccessor::Offer {
                    self.to_old.push_back(ToPredecessor::Active);
                }
                new.handle(successor::Event::Message(message));
            }
            Transition::PredecessorSeesTheEnd => {
                old.end_seen = true;
                old.handle(ended());
            }
            Transition::SuccessorSeesTheEnd => {
                new.end_seen = true;
                new.handle(successor::Event::ChannelEnded);
            }
            Transition::Worker(at) => self.worker_acts(at, true)?,
            Transition::BusyWorker(at) => {
                self.setup.faults.busy_rounds -= 1;
                self.worker_acts(at, false)?;
            }
            Transition::Adopter(at) => self.adopter_acts(at, true),
            Transition::BusyAdopter(at) => {
                self.setup.faults.busy_rounds -= 1;
                self.adopter_acts(at, false);
            }
            Transition::PredecessorEndsSuccessor => {
                check(self.word != Ownership::Taken, "a successor is ended that owns")?;
                new.stop();
            }
            Transition::PredecessorExits => old.stop(),
            Transition::PredecessorTimesOut => {
                self.setup.faults.timeouts = self.setup.faults.timeouts.saturating_sub(1);
                old.timed = false;
                old.handle(predecessor::Event::TimedOut);
            }
            Transition::SuccessorTimesOut => {
                self.setup.faults.timeouts = self.setup.faults.timeouts.saturating_sub(1);
                let reason = "the predecessor is silent".to_owned();
                let abort = ToSuccessor::Abort { reason };
                new.gave_up |= new.handle(successor::Event::Message(abort));
            }
            Transition::Abort => {
                self.setup.faults.aborts -= 1;
                old.handle(predecessor::Event::AbortAsked("by the operator".to_owned()));
            }
            Transition::Failure => {
                self.setup.faults.failures -= 1;
                let broken = successor::Event::WorkerBroken("no memory".to_owned());
                new.gave_up |= new.handle(broken);
            }
            Transition::PreparationFails => {
                self.setup.faults.failures -= 1;
                new.acts.clear();
                let reason = "the configuration cannot be read".to_owned();
                new.gave_up |= new.handle(successor::Event::Prepared(Err(reason)));
            }
            Transition::PredecessorDies => {
                self.setup.faults.deaths -= 1;
                old.killed = true;
                old.stop();
            }
            Transition::SuccessorDies => {
                self.setup.faults.deaths -= 1;
                new.killed = true;
                new.stop();
            }
            Transition::Stall(part) => {
                self.setup.faults.stalls -= 1;
                self.stalled = Some(part);
            }
        }
        self.check_owner()
    }

    /// One owner at most, and the word says so.
    fn check_owner(&self) -> Result<(), String> {
        let (old, new) = (&self.old, &self.new);
        let old_serves = old.alive && old.workers.iter().any(|worker| worker.serves);
        let new_serves = new.alive && new.serving.is_some();
        check(!(old_serves && new_serves), "both serve")?;
        let is_taken = self.word == Ownership::Taken;
        check(!new_serves || is_taken, "the successor serves what is not taken")?;
        check(!(new_serves && self.setup.rehearsal), "a rehearsal has moved something")
    }

    fn predecessor_acts(&mut self) -> Result<(), String> {
        use predecessor::Action;
        let action = match self.old.acts.pop_front().expect("listed as open") {
            OldAct::Packet(packet) => {
                self.send_to_new(packet);
                return Ok(());
            }
            OldAct::Order(order) => {
                self.old.workers.iter_mut().for_each(|worker| worker.mail.push_back(order));
                return Ok(());
            }
            OldAct::Do(action) => action,
        };
        let old = &mut self.old;
        let broken = self.setup.broken;
        match action {
            Action::Send(message) => {
                let is_prepare = matches!(message, ToSuccessor::Prepare { .. });
                let with_it = ["listener 127.0.0.1:8000"; 2].into_iter().chain(["lock", "control"]);
                let with_it = with_it.map(|label| ToSuccessor::Holding { label: label.to_owned() });
                let with_it = with_it.filter(|_| is_prepare);
                old.act_first([message].into_iter().chain(with_it).map(OldAct::Packet));
            }
            Action::PreCopy { lanes, .. } => old.act_first(make_lanes(lanes, Order::PreCopy)),
            Action::Rehearse { lanes, .. } => old.act_first(make_lanes(lanes, Order::Rehearse)),
            Action::Freeze if broken == Some(Broken::SavesWhileServing) => {
                let frozen = || predecessor::Event::WorkerFrozen;
                old.reports.extend(old.workers.iter().map(|_| frozen()));
            }
            Action::Freeze => old.act_first([OldAct::Order(Order::Freeze)]),
            Action::Settle => old.act_first([OldAct::Order(Order::Settle)]),
            Action::Save => {
                let frozen = ToSuccessor::Frozen { ids_upcoming: 1, at_ns: 0 };
                old.act_first([OldAct::Packet(frozen), OldAct::Order(Order::Save)]);
            }
            Action::Offer if self.word == Ownership::Preparing => {
                self.word = Ownership::Offered;
                old.act_first([OldAct::Packet(ToSuccessor::Offer)]);
            }
            Action::Offer => old.fail(),
            Action::Revoke => {
                let won = matches!(self.word, Ownership::Preparing | Ownership::Offered)
                    || broken == Some(Broken::RevokesWhatIsTaken);
                if won && broken != Some(Broken::ThawsWithoutRevoking) {
                    self.word = Ownership::Revoked;
                }
                old.handle(predecessor::Event::Revoked(won));
            }
            Action::Thaw => old.act_first([OldAct::Order(Order::Thaw)]),
            Action::Release(kept) => {
                let is_taken = self.word == Ownership::Taken;
                check(is_taken, "connections are given up that nobody has taken")?;
                let mut kept = kept;
                kept.sort_unstable();
                check(kept == self.setup.refusals(), "a refused connection does not stay")?;
                old.act_first([OldAct::Order(Order::Release)]);
            }
            Action::Timer(_) => old.timed = broken != Some(Broken::ForgetsTheTime),
            Action::Done(outcome) => {
                let lost = matches!(outcome, Outcome::Lost(_));
                check(!lost || !self.new.alive, "who lives is called dead")?;
                let moved = lost || matches!(outcome, Outcome::Moved { .. });
                let is_taken = self.word == Ownership::Taken;
                check(moved == is_taken, "the outcome is not what the word says")?;
                check(old.acts.is_empty(), "something is left to do after the outcome")?;
                old.outcome = Some(outcome);
            }
        }
        Ok(())
    }

    fn send_to_new(&mut self, packet: ToSuccessor) {
        let is_abort = matches!(packet, ToSuccessor::Abort { .. });
        match self.new.alive {
            true => self.to_new.push_back(packet),
            false if is_abort => {}
            false => self.old.fail(),
        }
    }

    fn worker_acts(&mut self, at: usize, idle: bool) -> Result<(), String> {
        use predecessor::Event;
        let rehearsal = self.setup.rehearsal;
        let worker = &mut self.old.workers[at];
        let kept = (origin(0, self.setup.lanes).key, "a state of its own".to_owned());
        let keeps = self.setup.refuses && at + 1 == usize::from(self.setup.workers);
        let kept = if keeps { vec![kept] } else { Vec::new() };
        let connections = self.setup.lanes.into();
        let saved = Event::WorkerSaved { worker: at as WorkerIndex, connections, kept };
        let report = match worker.mail.pop_front().expect("listed as open") {
            Order::PreCopy => {
                worker.level = true;
                Event::WorkerCopied
            }
            Order::Rehearse => {
                check(rehearsal, "states are saved while they change")?;
                worker.saved = true;
                saved
            }
            Order::Freeze => {
                worker.serves = false;
                Event::WorkerFrozen
            }
            Order::Settle => Event::WorkerSettled { idle },
            Order::Save => {
                check(!worker.serves, "states are saved while they change")?;
                worker.saved = true;
                saved
            }
            Order::Thaw => {
                let is_ours = self.word == Ownership::Revoked || rehearsal;
                check(is_ours, "a thaw without a revocation")?;
                worker.serves = true;
                return Ok(());
            }
            Order::Release => {
                worker.serves = false;
                let is_taken = self.word == Ownership::Taken;
                return check(is_taken, "connections are given up that nobody has taken");
            }
        };
        self.old.reports.push_back(report);
        Ok(())
    }

    fn successor_acts(&mut self) -> Result<(), String> {
        use successor::{Action, Event};
        let new = &mut self.new;
        let broken = self.setup.broken;
        match new.acts.pop_front().expect("listed as open") {
            Action::Send(ToPredecessor::Refusals { .. })
                if broken == Some(Broken::HidesRefusals) => {}
            Action::Send(message) => {
                self.ready_sent |= matches!(message, ToPredecessor::Ready { .. });
                self.adopted_sent |= matches!(message, ToPredecessor::Adopted { .. });
                if self.old.alive {
                    self.to_old.push_back(message);
                }
            }
            Action::Prepare => drop(new.handle(Event::Prepared(Ok(self.setup.lanes)))),
            Action::Adopt { senders, rehearsal } => {
                check(senders == self.setup.workers, "another number of senders")?;
                check(rehearsal == self.setup.rehearsal, "another kind of handover")?;
                let steps = [Adopt::Park, Adopt::Load].into_iter().skip(rehearsal.into());
                new.adopters.iter_mut().for_each(|mail| mail.extend(steps.clone()));
            }
            Action::SkipIds(_) => new.ids_skipped = true,
            Action::Settle => {
                new.adopters.iter_mut().for_each(|mail| mail.push_back(Adopt::Settle));
            }
            Action::Take { orphaned } => {
                let won = self.word == Ownership::Offered
                    || orphaned && self.word == Ownership::Preparing
                    || broken == Some(Broken::ServesWithoutTaking)
                    || broken == Some(Broken::TakesWhatIsRevoked);
                if won && broken != Some(Broken::ServesWithoutTaking) {
                    self.word = Ownership::Taken;
                }
                new.handle(Event::Taken(won));
            }
            Action::Serve => {
                check(new.ids_skipped, "ids are given out twice")?;
                new.serving = Some(Serving::All);
            }
            Action::ServeAnew => {
                check(!self.old.alive, "what the predecessor has is shut down")?;
                new.serving = Some(Serving::ListenersOnly);
            }
            Action::Discard(reason) => {
                check(new.serving.is_none(), "what is served is discarded")?;
                check(!reason.contains("out of turn"), &reason)?;
                new.stop();
            }
        }
        Ok(())
    }

    fn adopter_acts(&mut self, at: usize, idle: bool) {
        use successor::Event;
        let report = match self.new.adopters[at].pop_front().expect("listed as open") {
            Adopt::Park => Event::WorkerLevel,
            Adopt::Load => {
                let refuses = self.setup.refuses && at == 0;
                let hides = self.setup.broken == Some(Broken::HidesRefusals);
                let refused = (origin(0, 0), "no such route".to_owned());
                Event::WorkerLoaded {
                    connections: u64::from(self.setup.workers) - u64::from(refuses && !hides),
                    refused: if refuses { vec![refused] } else { Vec::new() },
                }
            }
            Adopt::Settle => Event::WorkerSettled { idle },
        };
        self.new.reports.push_back(report);
    }

    /// Whether it is over, and how: if nothing is left to happen but faults. An error is a broken
    /// rule.
    pub(super) fn end(&self, open: &[Transition]) -> Result<Option<End>, String> {
        let stalled = self.stalled.is_some();
        if open.iter().any(|transition| transition.is_bound_to_come(stalled)) {
            return Ok(None);
        }
        let (old, new) = (&self.old, &self.new);
        let old_serves = self.predecessor_serves();
        let serving = new.serving.filter(|_| new.alive);
        let old_waits = old.alive && old.outcome.is_none();
        let new_waits = new.alive && new.serving.is_none();
        check(!old_waits || self.is_stalled(Part::Predecessor), "the predecessor waits for ever")?;
        check(!new_waits || self.is_stalled(Part::Successor), "the successor waits for ever")?;
        self.check_cost(old_serves, serving)?;
        let saved = u64::from(self.setup.workers) * u64::from(self.setup.lanes);
        let is_complete = |moved: u64, refused: &[(Origin, String)]| {
            let loaded = saved - u64::from(self.setup.refuses);
            let complete = moved == loaded && refused.len() == self.setup.refusals().len();
            check(complete, "some connections are not accounted for")
        };
        let end = match (&old.outcome, serving) {
            (Some(Outcome::Moved { connections, refused }), Some(Serving::All)) => {
                is_complete(*connections, refused)?;
                End::Moved
            }
            (_, Some(Serving::All)) => End::Inherited,
            (_, Some(Serving::ListenersOnly)) => End::ListenersOnly,
            (Some(Outcome::Aborted(reason)), None) if old_serves => {
                check(self.faulty && !reason.contains(" sent "), reason)?;
                End::Aborted
            }
            (Some(Outcome::Rehearsed { connections, refused }), None) if old_serves => {
                is_complete(*connections, refused)?;
                End::Rehearsed
            }
            _ => End::Crashed,
        };
        check(self.faulty || end != End::Crashed, "a crash without a fault")?;
        Ok(Some(end))
    }

    /// Whether all workers do that can.
    fn predecessor_serves(&self) -> bool {
        let mut workers = self.old.workers.iter().enumerate();
        let serves = |(at, worker): (usize, &Worker)| {
            worker.serves || self.stalled == Some(Part::Worker(at))
        };
        self.old.alive && workers.all(serves)
    }

    /// What has failed has cost no more than it had to.
    fn check_cost(&self, old_serves: bool, serving: Option<Serving>) -> Result<(), String> {
        let (old, new) = (&self.old, &self.new);
        let is_taken = self.word == Ownership::Taken;
        // A process that hangs with what it owns has to be killed, which is what a supervisor does.
        let old_hangs = old.alive && self.is_stalled(Part::Predecessor);
        let new_hangs = new.alive && self.is_stalled(Part::Successor);
        let old_killed = old.killed || old_hangs;
        let new_killed = new.killed || new_hangs;
        if !old_killed && !new_killed {
            check(old_serves != serving.is_some(), "nobody has died, and nobody serves")?;
            check(serving != Some(Serving::ListenersOnly), "connections are lost without a death")?;
        }
        if new_killed && !old_killed {
            check(old_serves != is_taken, "a death cost what it need not")?;
        }
        let can_adopt = !matches!(self.stalled, Some(Part::Successor));
        if old.killed && !new.killed && !new.gave_up && can_adopt && !self.setup.rehearsal {
            let may_serve = self.ready_sent && self.word != Ownership::Revoked;
            check(serving.is_some() == may_serve, "nobody serves the listeners")?;
            let may_inherit = self.adopted_sent && self.word != Ownership::Revoked;
            check((serving == Some(Serving::All)) == may_inherit, "what was adopted is lost")?;
        }
        Ok(())
    }
}

fn make_lanes(count: u16, order: Order) -> impl DoubleEndedIterator<Item = OldAct> {
    let lanes = (0..count).map(|_| OldAct::Packet(ToSuccessor::Lane));
    lanes.chain([OldAct::Order(order)])
}

fn ended() -> predecessor::Event {
    predecessor::Event::ChannelEnded("the new process has ended".to_owned())
}

impl Old {
    fn handle(&mut self, event: predecessor::Event) {
        self.acts.extend(self.machine.handle(event).into_iter().map(OldAct::Do));
    }

    fn act_first(&mut self, acts: impl IntoIterator<Item = OldAct, IntoIter: DoubleEndedIterator>) {
        acts.into_iter().rev().for_each(|act| self.acts.push_front(act));
    }

    /// What was to be done could not be: the driver drops the rest of it.
    fn fail(&mut self) {
        self.acts.clear();
        self.handle(ended());
    }

    fn stop(&mut self) {
        self.alive = false;
        self.acts.clear();
        self.reports.clear();
        self.workers.iter_mut().for_each(|worker| worker.mail.clear());
    }
}

impl New {
    /// Whether it does anything about the event.
    fn handle(&mut self, event: successor::Event) -> bool {
        let actions = self.machine.handle(event);
        let acts = !actions.is_empty();
        self.acts.extend(actions);
        acts
    }

    fn stop(&mut self) {
        self.alive = false;
        self.acts.clear();
        self.reports.clear();
        self.adopters.iter_mut().for_each(VecDeque::clear);
    }
}
