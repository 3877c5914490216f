//! Two processes, a channel and a word, as far as the machines can tell.

use std::collections::VecDeque;

use crate::handover::predecessor::{self, Action as PAction, Event as PEvent, Order, Outcome};
use crate::handover::step::Step;
use crate::handover::successor::{self, Action as SAction, Event as SEvent};
use crate::handover::wire::{FORMATS_READ, FORMATS_WRITTEN, Hello, PROTOCOL, Prepare, Refused};
use crate::handover::wire::{ToPredecessor, ToSuccessor};
use crate::handover::word::Move;

/// What the word is to whom it lets own; see `word.rs`.
const TAKEN: u32 = 2;
const REVOKED: u32 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Setup {
    /// Of the predecessor.
    pub(super) workers: u32,
    /// Workers of the successor.
    pub(super) lanes: u32,
    pub(super) dry_run: bool,
    /// Whether the successor refuses one connection.
    pub(super) refuses: bool,
    pub(super) faults: Faults,
}

/// What may still go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Faults {
    /// Each side may be killed once.
    pub(super) deaths: bool,
    /// Any timer may fire as soon as it is set.
    pub(super) timeouts: bool,
    /// Of the predecessor, by an operator or a failure.
    pub(super) aborts: u8,
    /// Of the successor.
    pub(super) failures: u8,
    /// Reports of a worker, of either side, that there was mail to settle. No fault.
    pub(super) busy_rounds: u8,
}

/// What may happen next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Transition {
    Begin,
    /// The next action of one side is carried out.
    PredecessorActs,
    SuccessorActs,
    /// An event is handled.
    PredecessorLearnsOfItsMove,
    SuccessorLearnsOfItsMove,
    PredecessorHearsWorker,
    SuccessorHearsWorker,
    PredecessorReceives,
    SuccessorReceives,
    PredecessorSeesTheEnd,
    SuccessorSeesTheEnd,
    /// A worker carries out its next order; the last two with mail found.
    Worker(usize),
    Adopter(usize),
    BusyWorker(usize),
    BusyAdopter(usize),
    PredecessorExits,
    PredecessorTimesOut,
    SuccessorTimesOut,
    Abort,
    Failure,
    PredecessorDies,
    SuccessorDies,
}

impl Transition {
    pub(super) fn is_fault(self) -> bool {
        matches!(
            self,
            Self::PredecessorTimesOut
                | Self::SuccessorTimesOut
                | Self::Abort
                | Self::Failure
                | Self::PredecessorDies
                | Self::SuccessorDies
        )
    }
}

/// How it may end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum End {
    /// The successor serves, and the predecessor knows.
    Moved,
    /// It serves, and the predecessor has not heard so from it.
    MovedUnseen,
    /// The predecessor goes on.
    Aborted,
    DryRun,
    /// The predecessor is dead, and the successor serves all it had.
    Inherited,
    /// The predecessor is dead with all its connections; the successor serves its listeners.
    ListenersOnly,
    /// Nobody serves, and it is the supervisor's turn.
    Crashed,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct World {
    setup: Setup,
    word: u32,
    predecessor: Predecessor,
    successor: Successor,
    to_successor: VecDeque<ToSuccessor>,
    to_predecessor: VecDeque<ToPredecessor>,
    /// Whether a fault has happened.
    faulty: bool,
    adopted_sent: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Predecessor {
    machine: predecessor::Machine,
    alive: bool,
    killed: bool,
    acts: VecDeque<PAct>,
    tried: VecDeque<PEvent>,
    reports: VecDeque<PEvent>,
    timer: Option<Step>,
    end_seen: bool,
    workers: Vec<Worker>,
    outcome: Option<Outcome>,
}

/// An action, or one packet of an action that sends several.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum PAct {
    Do(PAction),
    Packet(ToSuccessor),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Worker {
    mail: VecDeque<Order>,
    serves: bool,
    saved: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Successor {
    machine: successor::Machine,
    alive: bool,
    killed: bool,
    /// It has given up by itself.
    gave_up: bool,
    acts: VecDeque<SAct>,
    tried: VecDeque<SEvent>,
    reports: VecDeque<SEvent>,
    timer: Option<Step>,
    end_seen: bool,
    adopters: Vec<VecDeque<Adopt>>,
    serving: Option<Serving>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum SAct {
    Do(SAction),
    Packet(ToPredecessor),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Adopt {
    Load,
    Settle,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Serving {
    All,
    ListenersOnly,
}

fn check(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        let worker = Worker { mail: VecDeque::new(), serves: true, saved: false };
        let mut predecessor = Predecessor {
            machine: predecessor::Machine::new(setup.workers),
            alive: true,
            killed: false,
            acts: VecDeque::new(),
            tried: VecDeque::new(),
            reports: VecDeque::new(),
            timer: None,
            end_seen: false,
            workers: vec![worker; setup.workers as usize],
            outcome: None,
        };
        let mut successor = Successor {
            machine: successor::Machine::new(),
            alive: true,
            killed: false,
            gave_up: false,
            acts: VecDeque::new(),
            tried: VecDeque::new(),
            reports: VecDeque::new(),
            timer: None,
            end_seen: false,
            adopters: vec![VecDeque::new(); setup.lanes as usize],
            serving: None,
        };
        predecessor.handle(PEvent::Start { dry_run: setup.dry_run });
        successor.handle(SEvent::Start);
        Self {
            setup,
            word: 0,
            predecessor,
            successor,
            to_successor: VecDeque::new(),
            to_predecessor: VecDeque::new(),
            faulty: false,
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
        let (p, s) = (&self.predecessor, &self.successor);
        if p.alive {
            // The driver does one thing after another.
            let listens = p.acts.is_empty();
            let silent = self.to_predecessor.is_empty();
            add(Transition::PredecessorActs, !listens);
            add(Transition::PredecessorLearnsOfItsMove, listens && !p.tried.is_empty());
            add(Transition::PredecessorHearsWorker, listens && !p.reports.is_empty());
            add(Transition::PredecessorReceives, listens && !silent);
            let ended = !s.alive && silent && !p.end_seen;
            add(Transition::PredecessorSeesTheEnd, listens && ended);
            for (at, worker) in p.workers.iter().enumerate() {
                add(Transition::Worker(at), !worker.mail.is_empty());
                let settles = worker.mail.front() == Some(&Order::Settle);
                add(Transition::BusyWorker(at), settles && faults.busy_rounds > 0);
            }
            let moved = matches!(p.outcome, Some(Outcome::Moved { .. }));
            let idle = p.workers.iter().all(|worker| worker.mail.is_empty());
            add(Transition::PredecessorExits, moved && idle);
            let times_out = faults.timeouts && listens && p.timer.is_some();
            add(Transition::PredecessorTimesOut, times_out);
            add(Transition::Abort, listens && faults.aborts > 0 && p.outcome.is_none());
            add(Transition::PredecessorDies, faults.deaths && !s.killed);
        }
        if s.alive {
            let listens = s.acts.is_empty();
            let silent = self.to_successor.is_empty();
            add(Transition::SuccessorActs, !listens);
            add(Transition::SuccessorLearnsOfItsMove, listens && !s.tried.is_empty());
            add(Transition::SuccessorHearsWorker, listens && !s.reports.is_empty());
            add(Transition::SuccessorReceives, listens && !silent);
            let ended = !p.alive && silent && !s.end_seen;
            add(Transition::SuccessorSeesTheEnd, listens && ended);
            let all_sent = p.workers.iter().all(|worker| worker.saved);
            for (at, mail) in s.adopters.iter().enumerate() {
                let settles = mail.front() == Some(&Adopt::Settle);
                let loads = mail.front() == Some(&Adopt::Load) && all_sent;
                add(Transition::Adopter(at), settles || loads);
                add(Transition::BusyAdopter(at), settles && faults.busy_rounds > 0);
            }
            let times_out = faults.timeouts && listens && s.timer.is_some();
            add(Transition::SuccessorTimesOut, times_out);
            add(Transition::Failure, listens && faults.failures > 0);
            add(Transition::SuccessorDies, faults.deaths && !p.killed);
        }
        open
    }

    /// Lets it happen. An error is a broken rule.
    pub(super) fn make(&mut self, transition: Transition) -> Result<(), String> {
        self.faulty |= transition.is_fault();
        let (p, s) = (&mut self.predecessor, &mut self.successor);
        match transition {
            Transition::Begin => {}
            Transition::PredecessorActs => self.predecessor_acts()?,
            Transition::SuccessorActs => self.successor_acts()?,
            Transition::PredecessorLearnsOfItsMove => {
                let event = p.tried.pop_front().expect("listed as open");
                p.handle(event);
            }
            Transition::SuccessorLearnsOfItsMove => {
                let event = s.tried.pop_front().expect("listed as open");
                s.handle(event);
            }
            Transition::PredecessorHearsWorker => {
                let event = p.reports.pop_front().expect("listed as open");
                p.handle(event);
            }
            Transition::SuccessorHearsWorker => {
                let event = s.reports.pop_front().expect("listed as open");
                s.handle(event);
            }
            Transition::PredecessorReceives => {
                let message = self.to_predecessor.pop_front().expect("listed as open");
                p.handle(PEvent::Message(message));
            }
            Transition::SuccessorReceives => {
                let message = self.to_successor.pop_front().expect("listed as open");
                s.handle(SEvent::Message(message));
            }
            Transition::PredecessorSeesTheEnd => {
                p.end_seen = true;
                p.handle(PEvent::ChannelEnded);
            }
            Transition::SuccessorSeesTheEnd => {
                s.end_seen = true;
                s.handle(SEvent::ChannelEnded);
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
            Transition::PredecessorExits => p.stop(),
            Transition::PredecessorTimesOut => {
                let step = p.timer.take().expect("listed as open");
                p.handle(PEvent::TimedOut(step));
            }
            Transition::SuccessorTimesOut => {
                let step = s.timer.take().expect("listed as open");
                s.gave_up |= s.handle(SEvent::TimedOut(step));
            }
            Transition::Abort => {
                self.setup.faults.aborts -= 1;
                p.handle(PEvent::Abort { reason: "by the operator".to_owned() });
            }
            Transition::Failure => {
                self.setup.faults.failures -= 1;
                s.gave_up |= s.handle(SEvent::Failed { reason: "no memory".to_owned() });
            }
            Transition::PredecessorDies => {
                p.killed = true;
                p.stop();
            }
            Transition::SuccessorDies => {
                s.killed = true;
                s.stop();
            }
        }
        self.check_owner()
    }

    /// One owner at most, and the word says so.
    fn check_owner(&self) -> Result<(), String> {
        let (p, s) = (&self.predecessor, &self.successor);
        let predecessor_serves = p.alive && p.workers.iter().any(|worker| worker.serves);
        let successor_serves = s.alive && s.serving.is_some();
        check(!(predecessor_serves && successor_serves), "both serve")?;
        check(!successor_serves || self.word == TAKEN, "the successor serves what is not taken")?;
        check(!(successor_serves && self.setup.dry_run), "a dry run has moved something")
    }

    fn predecessor_acts(&mut self) -> Result<(), String> {
        let p = &mut self.predecessor;
        let action = match p.acts.pop_front().expect("listed as open") {
            PAct::Packet(packet) => {
                if self.successor.alive {
                    self.to_successor.push_back(packet);
                }
                return Ok(());
            }
            PAct::Do(action) => action,
        };
        match action {
            PAction::Send(tell) => {
                let packets = self.packets(tell);
                let acts = packets.into_iter().rev().map(PAct::Packet);
                acts.for_each(|act| self.predecessor.acts.push_front(act));
            }
            PAction::Ask(order) => {
                for worker in &mut p.workers {
                    worker.mail.push_back(order.clone());
                }
            }
            PAction::Try(attempt) => {
                let won = apply(&mut self.word, attempt);
                p.tried.push_back(PEvent::Tried { attempt, won });
            }
            PAction::Timer(step, _) => p.timer = Some(step),
            PAction::Progress(_) => {}
            PAction::Kill => {
                check(self.word != TAKEN, "a successor is ended that owns")?;
                self.successor.stop();
            }
            PAction::Done(outcome) => {
                let moved = matches!(outcome, Outcome::Moved { .. });
                check(moved == (self.word == TAKEN), "the outcome is not what the word says")?;
                p.timer = None;
                check(p.outcome.replace(outcome).is_none(), "it ends twice")?;
            }
        }
        Ok(())
    }

    fn packets(&self, tell: predecessor::Tell) -> Vec<ToSuccessor> {
        let address: crate::base::network::ListenAddr =
            "127.0.0.1:8000".parse().expect("an address");
        match tell {
            predecessor::Tell::Prepare { format } => vec![ToSuccessor::Prepare(Prepare {
                format,
                generation: 0,
                pid: 1,
                workers: self.setup.workers,
                listeners: 1,
                connections: 0,
                ids_upcoming: 0,
                dry_run: self.setup.dry_run,
                network_namespace: None,
            })],
            predecessor::Tell::Listeners => {
                let listener = ToSuccessor::Listener { address: address.clone(), worker: 0 };
                vec![ToSuccessor::PortLock { address }, listener]
            }
            predecessor::Tell::Lanes { count } => {
                (0..count).map(|worker| ToSuccessor::Lane { worker }).collect()
            }
            predecessor::Tell::Frozen => vec![ToSuccessor::Frozen { at_ns: 0, ids_upcoming: 0 }],
            predecessor::Tell::Offer => vec![ToSuccessor::Offer],
            predecessor::Tell::Abort { reason } => vec![ToSuccessor::Abort { reason }],
        }
    }

    fn worker_acts(&mut self, at: usize, idle: bool) -> Result<(), String> {
        let (word, dry_run) = (self.word, self.setup.dry_run);
        let p = &mut self.predecessor;
        let worker = &mut p.workers[at];
        let report = match worker.mail.pop_front().expect("listed as open") {
            Order::PreCopy => PEvent::WorkerCopied,
            Order::Freeze => {
                worker.serves = false;
                PEvent::WorkerFrozen
            }
            Order::Settle => PEvent::WorkerSettled { idle },
            Order::Save => {
                check(!worker.serves || dry_run, "states are saved while they change")?;
                worker.saved = true;
                PEvent::WorkerSaved { connections: self.setup.lanes.into() }
            }
            Order::Thaw => {
                check(word == REVOKED || dry_run, "a thaw without a revocation")?;
                worker.serves = true;
                return Ok(());
            }
            Order::CopiesGone => return check(!self.successor.alive, "a copy is left"),
            Order::Release(refused) => {
                check(word == TAKEN, "connections are given up that nobody has taken")?;
                return check(refused.is_empty() || self.setup.refuses, "unknown refusals");
            }
        };
        p.reports.push_back(report);
        Ok(())
    }

    fn successor_acts(&mut self) -> Result<(), String> {
        let s = &mut self.successor;
        let action = match s.acts.pop_front().expect("listed as open") {
            SAct::Packet(packet) => {
                self.adopted_sent |= matches!(packet, ToPredecessor::Adopted { .. });
                if self.predecessor.alive {
                    self.to_predecessor.push_back(packet);
                }
                return Ok(());
            }
            SAct::Do(action) => action,
        };
        match action {
            SAction::Send(tell) => {
                let acts = packets(tell).into_iter().rev().map(SAct::Packet);
                acts.for_each(|act| s.acts.push_front(act));
            }
            SAction::Build(_) => {
                s.reports.push_back(SEvent::Built { workers: self.setup.lanes });
            }
            SAction::StartAdopting => {
                s.adopters.iter_mut().for_each(|mail| mail.push_back(Adopt::Load));
            }
            SAction::Settle => {
                s.adopters.iter_mut().for_each(|mail| mail.push_back(Adopt::Settle));
            }
            SAction::Try(attempt) => {
                let won = apply(&mut self.word, attempt);
                s.tried.push_back(SEvent::Tried { attempt, won });
            }
            SAction::Serve => s.serving = Some(Serving::All),
            SAction::ServeListenersOnly => {
                check(!self.predecessor.alive, "what the predecessor has is shut down")?;
                s.serving = Some(Serving::ListenersOnly);
            }
            SAction::Discard => check(s.serving.is_none(), "what is served is discarded")?,
            SAction::Timer(step, _) => s.timer = Some(step),
            SAction::Exit { reason } => {
                check(!reason.contains("out of order"), &reason)?;
                s.stop();
            }
        }
        Ok(())
    }

    fn adopter_acts(&mut self, at: usize, idle: bool) {
        let s = &mut self.successor;
        let report = match s.adopters[at].pop_front().expect("listed as open") {
            Adopt::Load => {
                let refuses = self.setup.refuses && at == 0;
                let refused = Refused { worker: 0, key: 1, reason: "no such route".to_owned() };
                SEvent::WorkerLoaded {
                    connections: u64::from(self.setup.workers) - u64::from(refuses),
                    refused: if refuses { vec![refused] } else { Vec::new() },
                }
            }
            Adopt::Settle => SEvent::WorkerSettled { idle },
        };
        s.reports.push_back(report);
    }

    /// Whether it is over, and how: if nothing is left to happen but faults. An error is a broken
    /// rule.
    pub(super) fn end(&self, open: &[Transition]) -> Result<Option<End>, String> {
        let (p, s) = (&self.predecessor, &self.successor);
        let times_out = |transition: &Transition| {
            matches!(transition, Transition::PredecessorTimesOut | Transition::SuccessorTimesOut)
        };
        let waits = open.iter().all(|transition| transition.is_fault());
        if !waits || (self.faulty && open.iter().any(times_out)) {
            return Ok(None);
        }
        let predecessor_serves = p.alive && p.workers.iter().all(|worker| worker.serves);
        let serving = s.serving.filter(|_| s.alive);
        check(!p.alive || p.outcome.is_some(), "the predecessor waits for ever")?;
        check(!s.alive || s.machine.is_over(), "the successor waits for ever")?;
        if !p.killed && !s.killed {
            check(predecessor_serves != serving.is_some(), "nobody has died, and nobody serves")?;
            check(serving != Some(Serving::ListenersOnly), "connections are lost without a death")?;
        }
        if s.killed && !p.killed {
            check(predecessor_serves == (self.word != TAKEN), "a death cost what it need not")?;
        }
        if p.killed && !s.killed {
            check(serving.is_some() == (self.word == TAKEN), "who has taken does not serve")?;
            let may_inherit = self.adopted_sent && !s.gave_up && !self.setup.dry_run;
            if may_inherit && self.word != REVOKED {
                check(serving == Some(Serving::All), "what was adopted is lost")?;
            }
        }
        check(serving != Some(Serving::All) || self.adopted_sent, "more is served than adopted")?;
        let end = match (&p.outcome, serving) {
            (Some(Outcome::Moved { active: true, .. }), Some(Serving::All)) => End::Moved,
            (Some(Outcome::Moved { .. }), Some(Serving::All)) => End::MovedUnseen,
            (_, Some(Serving::All)) => End::Inherited,
            (_, Some(Serving::ListenersOnly)) => End::ListenersOnly,
            (Some(Outcome::Aborted { reason }), None) if predecessor_serves => {
                check(self.faulty, reason)?;
                check(!reason.contains("out of order"), reason)?;
                End::Aborted
            }
            (Some(Outcome::DryRun { would_refuse }), None) if predecessor_serves => {
                check(would_refuse.is_empty() != self.setup.refuses, "the refusal is lost")?;
                End::DryRun
            }
            _ => End::Crashed,
        };
        if let Some(Outcome::Moved { refused, active: true }) = &p.outcome {
            check(refused.is_empty() != self.setup.refuses, "the refusal is lost")?;
        }
        check(self.faulty || end != End::Crashed, "a crash without a fault")?;
        Ok(Some(end))
    }
}

fn apply(word: &mut u32, attempt: Move) -> bool {
    match attempt.apply(*word) {
        Some(next) => {
            *word = next;
            true
        }
        None => false,
    }
}

fn packets(tell: successor::Tell) -> Vec<ToPredecessor> {
    match tell {
        successor::Tell::Hello => vec![ToPredecessor::Hello(Hello {
            protocol: PROTOCOL,
            formats_read: FORMATS_READ,
            formats_written: FORMATS_WRITTEN,
            build: String::new(),
            pid: 2,
        })],
        successor::Tell::Ready { workers } => {
            vec![ToPredecessor::Ready { workers, descriptors_free: 1 }]
        }
        successor::Tell::Refused { reason } => vec![ToPredecessor::Refused { reason }],
        successor::Tell::Adopted { connections, refused } => {
            let parts = ToPredecessor::not_adopted(&refused);
            parts.chain([ToPredecessor::Adopted { connections }]).collect()
        }
        successor::Tell::Active => vec![ToPredecessor::Active { at_ns: 0 }],
    }
}

impl Predecessor {
    fn handle(&mut self, event: PEvent) {
        self.acts.extend(self.machine.handle(event).into_iter().map(PAct::Do));
    }

    fn stop(&mut self) {
        self.alive = false;
        self.acts.clear();
        self.tried.clear();
        self.reports.clear();
        self.timer = None;
        self.workers.iter_mut().for_each(|worker| worker.mail.clear());
    }
}

impl Successor {
    /// Whether it does anything about the event.
    fn handle(&mut self, event: SEvent) -> bool {
        let actions = self.machine.handle(event);
        let acts = !actions.is_empty();
        self.acts.extend(actions.into_iter().map(SAct::Do));
        acts
    }

    fn stop(&mut self) {
        self.alive = false;
        self.acts.clear();
        self.tried.clear();
        self.reports.clear();
        self.timer = None;
        self.adopters.iter_mut().for_each(VecDeque::clear);
    }
}
