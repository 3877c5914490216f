//! The machine alone: each path by hand, then every order of events up to a depth, then long runs.

use std::collections::BTreeMap;

use super::*;
use crate::base::testing::Sequence;

const ZERO: Duration = Duration::ZERO;

const DRAIN: Order = Order::End(Ending::Drain);
const FAST: Order = Order::End(Ending::Fast);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn spawn(part: Part, generation: u64) -> Action {
    Action::Spawn { part, program: None, generation }
}

/// Actions without the log.
fn handle(machine: &mut Machine, now: Duration, event: Event) -> Vec<Action> {
    let mut actions = machine.handle(now, event);
    actions.retain(|action| !matches!(action, Action::Log(..)));
    actions
}

/// A server, process 10, that serves since time 0.
fn serving() -> Machine {
    let mut machine = Machine::default();
    assert_eq!(handle(&mut machine, ZERO, Event::Begin), [spawn(Part::Server, 1)]);
    assert_eq!(handle(&mut machine, ZERO, Event::Started(Part::Server, 10)), []);
    assert_eq!(
        handle(&mut machine, ZERO, Event::Serving(10)),
        [Action::KeepListeners(10), Action::Notify(Notice::Ready)]
    );
    machine
}

/// As [`serving`], with a successor, process 11.
fn with_successor(program: Option<&str>) -> Machine {
    let mut machine = serving();
    let program = program.map(PathBuf::from);
    assert_eq!(
        handle(&mut machine, ZERO, Event::StartSuccessor(10, program.clone())),
        [
            Action::Notify(Notice::Reloading),
            Action::Spawn { part: Part::Successor, program, generation: 2 }
        ]
    );
    assert_eq!(handle(&mut machine, ZERO, Event::Started(Part::Successor, 11)), []);
    machine
}

const KILLED: End = End::Killed(9);

#[test]
fn a_crashed_server_is_restarted_later_each_time() {
    let mut machine = serving();
    let mut now = seconds(1);
    let mut delays = Vec::new();
    for pid in 10..22 {
        assert_eq!(handle(&mut machine, now, Event::ChildExited(pid, KILLED)), []);
        let restart_at = machine.deadline().unwrap();
        delays.push((restart_at - now).as_millis());
        assert_eq!(handle(&mut machine, restart_at - Duration::from_nanos(1), Event::Tick), []);
        now = restart_at;
        let generation = u64::from(pid) - 8;
        assert_eq!(handle(&mut machine, now, Event::Tick), [spawn(Part::Server, generation)]);
        handle(&mut machine, now, Event::Started(Part::Server, pid + 1));
        handle(&mut machine, now, Event::Serving(pid + 1));
    }
    assert_eq!(delays[..8], [50, 100, 200, 400, 800, 1_600, 3_200, 6_400]);
    assert!(delays[8..].iter().all(|delay| *delay == 10_000), "{delays:?}");
    // One that was stable for a while begins anew.
    now += STABLE_AFTER;
    handle(&mut machine, now, Event::ChildExited(22, End::Exited(1)));
    assert_eq!(machine.deadline(), Some(now + RESTART_DELAY_MIN));
}

#[test]
fn a_server_that_never_served_is_not_restarted() {
    for (end, status) in [(End::Exited(2), 2), (End::Exited(1), 1), (End::Killed(11), 139)] {
        let mut machine = Machine::default();
        handle(&mut machine, ZERO, Event::Begin);
        handle(&mut machine, ZERO, Event::Started(Part::Server, 10));
        let actions = handle(&mut machine, ZERO, Event::ChildExited(10, end));
        assert_eq!(actions, [Action::Exit(status)]);
    }
    let mut machine = Machine::default();
    handle(&mut machine, ZERO, Event::Begin);
    let event = Event::NotStarted(Part::Server, "no memory".to_owned());
    assert_eq!(handle(&mut machine, ZERO, event), [Action::Exit(1)]);
}

#[test]
fn after_a_restart_a_wrong_configuration_is_tried_again() {
    let mut machine = serving();
    handle(&mut machine, ZERO, Event::ChildExited(10, KILLED));
    handle(&mut machine, seconds(1), Event::Tick);
    handle(&mut machine, seconds(1), Event::Started(Part::Server, 11));
    assert_eq!(handle(&mut machine, seconds(1), Event::ChildExited(11, End::Exited(2))), []);
    assert!(machine.deadline().is_some());
}

#[test]
fn an_upgrade_ends_a_row_of_crashes() {
    let mut machine = serving();
    for (pid, next) in [(10, 20), (20, 21)] {
        handle(&mut machine, ZERO, Event::ChildExited(pid, KILLED));
        let at = machine.deadline().unwrap();
        handle(&mut machine, at, Event::Tick);
        handle(&mut machine, at, Event::Started(Part::Server, next));
        handle(&mut machine, at, Event::Serving(next));
    }
    handle(&mut machine, ZERO, Event::StartSuccessor(21, None));
    handle(&mut machine, ZERO, Event::Started(Part::Successor, 22));
    handle(&mut machine, ZERO, Event::Serving(22));
    handle(&mut machine, ZERO, Event::NotStarted(Part::Probe, String::new()));
    handle(&mut machine, ZERO, Event::ChildExited(22, KILLED));
    assert_eq!(machine.deadline(), Some(RESTART_DELAY_MIN));
}

#[test]
fn signals_become_orders() {
    let mut machine = serving();
    for signal in [Signal::Hup, Signal::Usr2] {
        let actions = handle(&mut machine, ZERO, Event::Signal(signal));
        assert_eq!(actions, [Action::Order(10, Order::Upgrade)]);
    }
    for signal in [Signal::Usr1, Signal::Child] {
        assert_eq!(handle(&mut machine, ZERO, Event::Signal(signal)), []);
    }
    assert_eq!(
        handle(&mut machine, ZERO, Event::Signal(Signal::Term)),
        [Action::Notify(Notice::Stopping), Action::DropListeners, Action::Order(10, DRAIN)]
    );
    // Impatience is an order, too; an upgrade makes no sense any more.
    for signal in [Signal::Term, Signal::Int] {
        let actions = handle(&mut machine, ZERO, Event::Signal(signal));
        assert_eq!(actions, [Action::Order(10, FAST)]);
    }
    assert_eq!(handle(&mut machine, ZERO, Event::Signal(Signal::Hup)), []);
    // What would be a crash is none now.
    assert_eq!(handle(&mut machine, ZERO, Event::ChildExited(10, KILLED)), [Action::Exit(137)]);
    assert_eq!(handle(&mut machine, ZERO, Event::Signal(Signal::Term)), []);
}

#[test]
fn one_term_to_all_processes_is_one_drain() {
    // The server has obeyed its own before the supervisor reads its.
    let mut machine = serving();
    handle(&mut machine, ZERO, Event::Stopping(10));
    let actions = handle(&mut machine, ZERO, Event::Signal(Signal::Term));
    assert_eq!(actions, [Action::Order(10, DRAIN)]);
    // Another one to the supervisor is the second.
    let actions = handle(&mut machine, ZERO, Event::Signal(Signal::Term));
    assert_eq!(actions, [Action::Order(10, FAST)]);

    // The predecessor hands on what came in the pause, whether it is heard before or after.
    let mut moved = with_successor(None);
    handle(&mut moved, ZERO, Event::Serving(11));
    handle(&mut moved, ZERO, Event::NotStarted(Part::Probe, String::new()));
    let drain_both = [Action::Order(11, DRAIN), Action::Order(10, DRAIN)];
    let asked = Event::EndAsked(10, Ending::Drain);
    for events in
        [[Event::Signal(Signal::Term), asked.clone()], [asked, Event::Signal(Signal::Term)]]
    {
        let mut machine = moved.clone();
        let actions = events.map(|event| handle(&mut machine, ZERO, event));
        assert_eq!(actions[0][..2], [Action::Notify(Notice::Stopping), Action::DropListeners]);
        assert_eq!(actions[0][2..], drain_both);
        assert_eq!(actions[1], drain_both);
    }
    // It was sent to nobody else: the server drains, and the supervisor starts no other one.
    handle(&mut moved, ZERO, Event::EndAsked(10, Ending::Drain));
    handle(&mut moved, ZERO, Event::ChildExited(10, End::Exited(0)));
    assert_eq!(handle(&mut moved, ZERO, Event::ChildExited(11, KILLED)), [Action::Exit(137)]);
    // An order is the strongest of what was asked for.
    let mut machine = serving();
    handle(&mut machine, ZERO, Event::Signal(Signal::Int));
    let actions = handle(&mut machine, ZERO, Event::Signal(Signal::Term));
    assert_eq!(actions, [Action::Order(10, FAST)]);
}

#[test]
fn one_hup_to_all_processes_is_one_upgrade() {
    for signal in [Signal::Hup, Signal::Usr2] {
        // The server has asked for its successor before the supervisor reads its own.
        assert_eq!(handle(&mut with_successor(None), ZERO, Event::Signal(signal)), []);
    }
}

#[test]
fn a_server_that_stops_by_itself_is_not_restarted() {
    let mut machine = serving();
    assert_eq!(
        handle(&mut machine, ZERO, Event::Stopping(10)),
        [Action::Notify(Notice::Stopping), Action::DropListeners]
    );
    let ended = Event::ChildExited(10, End::Exited(0));
    assert_eq!(handle(&mut machine, ZERO, ended.clone()), [Action::Exit(0)]);
    assert_eq!(handle(&mut serving(), ZERO, ended), [Action::Exit(0)]);
}

#[test]
fn a_stop_while_there_is_no_server_is_the_end() {
    let mut machine = serving();
    handle(&mut machine, ZERO, Event::ChildExited(10, KILLED));
    assert_eq!(
        handle(&mut machine, ZERO, Event::Signal(Signal::Term)),
        [Action::Notify(Notice::Stopping), Action::DropListeners, Action::Exit(0)]
    );
}

#[test]
fn a_successor_takes_over_and_the_supervisor_follows() {
    let mut machine = with_successor(Some("/new"));
    let program = Some(PathBuf::from("/new"));
    let probe = Action::Spawn { part: Part::Probe, program: program.clone(), generation: 2 };
    assert_eq!(
        handle(&mut machine, ZERO, Event::Serving(11)),
        [Action::KeepListeners(11), Action::Notify(Notice::Ready), probe]
    );
    assert_eq!(handle(&mut machine, ZERO, Event::Started(Part::Probe, 12)), []);
    // The predecessor's end is nothing special.
    assert_eq!(handle(&mut machine, ZERO, Event::ChildExited(10, End::Exited(0))), []);
    let actions = handle(&mut machine, ZERO, Event::ChildExited(12, End::Exited(0)));
    assert_eq!(actions, [Action::ExecSelf { program: program.clone() }]);

    // All of it crosses the exec.
    let written = serde_json::to_vec(&machine).unwrap();
    let mut machine: Machine = serde_json::from_slice(&written).unwrap();
    assert_eq!(handle(&mut machine, ZERO, Event::Tick), []);
    // From now on the new program is the one, for upgrades and for restarts.
    let spawn = |part| Action::Spawn { part, program: program.clone(), generation: 3 };
    assert_eq!(
        handle(&mut machine.clone(), ZERO, Event::StartSuccessor(11, None)),
        [Action::Notify(Notice::Reloading), spawn(Part::Successor)]
    );
    handle(&mut machine, ZERO, Event::ChildExited(11, KILLED));
    assert_eq!(handle(&mut machine, seconds(1), Event::Tick), [spawn(Part::Server)]);
}

#[test]
fn a_program_that_can_be_no_supervisor_does_not_become_it() {
    let probing = || {
        let mut machine = with_successor(None);
        handle(&mut machine, ZERO, Event::Serving(11));
        handle(&mut machine, ZERO, Event::Started(Part::Probe, 12));
        machine
    };
    for end in [End::Exited(1), End::Killed(6)] {
        assert_eq!(handle(&mut probing(), ZERO, Event::ChildExited(12, end)), []);
    }
    let mut machine = probing();
    assert_eq!(machine.deadline(), Some(PROBE_TIME_MAX));
    assert_eq!(handle(&mut machine, PROBE_TIME_MAX, Event::Tick), [Action::Kill(12)]);
    assert_eq!(handle(&mut machine, PROBE_TIME_MAX, Event::ChildExited(12, KILLED)), []);
    assert_eq!(machine.deadline(), None);
}

#[test]
fn a_successor_that_fails_leaves_the_server_alone() {
    let mut machine = with_successor(Some("/bad"));
    let actions = handle(&mut machine, ZERO, Event::ChildExited(11, End::Exited(2)));
    assert_eq!(actions, [Action::Notify(Notice::Ready)]);
    // The bad program is forgotten.
    assert_eq!(
        handle(&mut machine, ZERO, Event::StartSuccessor(10, None)),
        [Action::Notify(Notice::Reloading), spawn(Part::Successor, 2)]
    );
    let why = Event::NotStarted(Part::Successor, "it is gone".to_owned());
    let actions = handle(&mut machine, ZERO, why);
    assert!(matches!(&actions[0], Action::Refuse(10, why) if why.contains("it is gone")));
    assert_eq!(actions[1..], [Action::Notify(Notice::Ready)]);
}

#[test]
fn a_successor_that_is_given_up_is_killed() {
    let mut machine = with_successor(None);
    let actions = handle(&mut machine, ZERO, Event::GivenUp(10));
    assert_eq!(actions, [Action::Kill(11), Action::Notify(Notice::Ready)]);
    assert_eq!(handle(&mut machine, ZERO, Event::GivenUp(10)), []);
    assert_eq!(handle(&mut machine, ZERO, Event::Serving(11)), [], "too late");
    assert_eq!(handle(&mut machine, ZERO, Event::ChildExited(11, KILLED)), []);
}

#[test]
fn another_attempt_ends_the_one_before() {
    let mut machine = with_successor(Some("/slow"));
    assert_eq!(
        handle(&mut machine, ZERO, Event::StartSuccessor(10, None)),
        [Action::Kill(11), Action::Notify(Notice::Reloading), spawn(Part::Successor, 2)]
    );
    handle(&mut machine, ZERO, Event::Started(Part::Successor, 12));
    assert_eq!(handle(&mut machine, ZERO, Event::ChildExited(11, KILLED)), []);
    assert_eq!(handle(&mut machine, ZERO, Event::Serving(11)), [], "too late");
}

#[test]
fn only_the_server_gets_a_successor_and_not_while_it_stops() {
    let refused = |machine: &mut Machine, pid| {
        let actions = handle(machine, ZERO, Event::StartSuccessor(pid, None));
        matches!(&actions[..], [Action::Refuse(to, _)] if *to == pid)
    };
    assert!(refused(&mut with_successor(None), 11));
    let mut machine = serving();
    handle(&mut machine, ZERO, Event::Signal(Signal::Term));
    assert!(refused(&mut machine, 10));
    let mut machine = serving();
    handle(&mut machine, ZERO, Event::Moved(10));
    assert!(refused(&mut machine, 10));
}

#[test]
fn a_successor_may_take_over_from_a_server_that_has_crashed() {
    let mut machine = with_successor(None);
    assert_eq!(handle(&mut machine, ZERO, Event::ChildExited(10, KILLED)), []);
    assert_eq!(machine.deadline(), Some(ORPHAN_TIME_MAX));
    assert_eq!(
        handle(&mut machine, ZERO, Event::Serving(11)),
        [Action::KeepListeners(11), Action::Notify(Notice::Ready), spawn(Part::Probe, 2)]
    );

    // It ends as well, or does nothing.
    let mut machine = with_successor(None);
    handle(&mut machine, ZERO, Event::ChildExited(10, KILLED));
    let mut silent = machine.clone();
    assert_eq!(handle(&mut machine, ZERO, Event::ChildExited(11, KILLED)), []);
    assert_eq!(handle(&mut machine, seconds(1), Event::Tick), [spawn(Part::Server, 2)]);
    assert_eq!(handle(&mut silent, ORPHAN_TIME_MAX, Event::Tick), [Action::Kill(11)]);
    let later = ORPHAN_TIME_MAX + seconds(1);
    assert_eq!(handle(&mut silent, later, Event::Tick), [spawn(Part::Server, 2)]);
}

#[test]
fn a_stop_in_the_middle_of_an_upgrade_reaches_whoever_serves() {
    // The predecessor aborts the upgrade and stops.
    let mut machine = with_successor(None);
    handle(&mut machine, ZERO, Event::Signal(Signal::Term));
    let actions = handle(&mut machine, ZERO, Event::ChildExited(10, End::Exited(0)));
    assert_eq!(actions, [Action::Kill(11), Action::Order(11, DRAIN)]);
    let actions = handle(&mut machine, ZERO, Event::ChildExited(11, KILLED));
    assert_eq!(actions, [Action::Exit(0)]);

    // The successor was faster.
    let mut machine = with_successor(None);
    handle(&mut machine, ZERO, Event::Signal(Signal::Int));
    let actions = handle(&mut machine, ZERO, Event::Serving(11));
    assert_eq!(actions, [Action::Order(11, FAST)]);
    assert_eq!(handle(&mut machine, ZERO, Event::ChildExited(10, End::Exited(0))), []);
    let actions = handle(&mut machine, ZERO, Event::ChildExited(11, End::Exited(0)));
    assert_eq!(actions, [Action::Exit(0)]);
}

#[test]
fn predecessors_that_still_close_connections_are_waited_for_a_while() {
    let leaving = || {
        let mut machine = with_successor(None);
        handle(&mut machine, ZERO, Event::Serving(11));
        handle(&mut machine, ZERO, Event::NotStarted(Part::Probe, String::new()));
        let actions = handle(&mut machine, ZERO, Event::Signal(Signal::Term));
        assert_eq!(actions[2..], [Action::Order(11, DRAIN), Action::Order(10, DRAIN)]);
        let actions = handle(&mut machine, ZERO, Event::ChildExited(11, End::Exited(0)));
        assert_eq!(actions, [Action::Order(10, DRAIN)]);
        machine
    };
    let actions = handle(&mut leaving(), ZERO, Event::ChildExited(10, End::Exited(0)));
    assert_eq!(actions, [Action::Exit(0)]);
    let actions = handle(&mut leaving(), LEAVE_TIME_MAX, Event::Tick);
    assert_eq!(actions, [Action::Kill(10), Action::Exit(0)]);
}

#[test]
fn a_server_that_has_moved_elsewhere_is_not_restarted() {
    let mut machine = serving();
    assert_eq!(handle(&mut machine, ZERO, Event::Moved(10)), [Action::DropListeners]);
    assert_eq!(handle(&mut machine, ZERO, Event::ChildExited(10, KILLED)), [Action::Exit(0)]);
}

#[test]
fn whose_a_contested_servers_connections_are_is_decided_when_it_crashes() {
    let contested = || {
        let mut machine = serving();
        assert_eq!(handle(&mut machine, ZERO, Event::Contested(10)), []);
        machine
    };
    let crashed = || {
        let mut machine = contested();
        assert_eq!(handle(&mut machine, ZERO, Event::ChildExited(10, KILLED)), []);
        assert_eq!(machine.deadline(), Some(CONTEST_TIME));
        assert_eq!(handle(&mut machine, CONTEST_TIME, Event::Tick), [Action::Decide]);
        machine
    };
    // Nobody has it: another server starts.
    let mut machine = crashed();
    handle(&mut machine, CONTEST_TIME, Event::Decided(false));
    let later = machine.deadline().unwrap();
    assert_eq!(handle(&mut machine, later, Event::Tick), [spawn(Part::Server, 2)]);
    // The other process has: a second server would be a rival.
    let actions = handle(&mut crashed(), CONTEST_TIME, Event::Decided(true));
    assert_eq!(actions, [Action::DropListeners, Action::Exit(137)]);
    // A stop does not wait for it.
    let mut machine = contested();
    handle(&mut machine, ZERO, Event::ChildExited(10, KILLED));
    let actions = handle(&mut machine, ZERO, Event::Signal(Signal::Term));
    assert_eq!(actions.last(), Some(&Action::Exit(0)));
    // It is off, or it has come to its end: all is as ever.
    let mut machine = contested();
    handle(&mut machine, ZERO, Event::Uncontested(10));
    handle(&mut machine, ZERO, Event::ChildExited(10, KILLED));
    assert_eq!(machine.deadline(), Some(RESTART_DELAY_MIN));
    let mut machine = contested();
    handle(&mut machine, ZERO, Event::Moved(10));
    let actions = handle(&mut machine, ZERO, Event::ChildExited(10, End::Exited(0)));
    assert_eq!(actions, [Action::Exit(0)]);
}

#[test]
fn processes_of_others_are_nothing_to_it() {
    for mut machine in [serving(), with_successor(None)] {
        let before = machine.clone();
        for event in [
            Event::ChildExited(99, KILLED),
            Event::Serving(99),
            Event::Stopping(99),
            Event::Contested(99),
            Event::Moved(99),
        ] {
            assert_eq!(handle(&mut machine, ZERO, event), []);
        }
        assert_eq!(machine, before);
    }
}

/// The machine among processes that do what they like.
#[derive(Clone)]
struct World {
    machine: Machine,
    now: Duration,
    /// Children that live, with their part, and whether they were killed or have a successor.
    children: BTreeMap<Pid, (Part, bool)>,
    next_pid: Pid,
    status: Option<u8>,
    /// Whether the next thing that is to be started can be.
    can_start: bool,
    /// What has happened, for whoever has to find out why a test fails.
    history: Vec<Event>,
}

impl World {
    fn new() -> Self {
        let children = BTreeMap::new();
        let (machine, now) = (Machine::default(), ZERO);
        let mut world = Self {
            machine,
            now,
            children,
            next_pid: 10,
            status: None,
            can_start: true,
            history: Vec::new(),
        };
        world.feed(Event::Begin);
        world
    }

    fn feed(&mut self, event: Event) {
        self.history.push(event.clone());
        if let Event::ChildExited(pid, _) = event {
            self.children.remove(&pid);
        }
        let taken_over = match event {
            Event::Serving(pid) if !self.machine.is_server(pid) => Some(pid),
            _ => None,
        };
        let actions = self.machine.handle(self.now, event);
        // Whoever was the server before is a predecessor now.
        if let Some(pid) = taken_over.filter(|pid| self.machine.is_server(*pid)) {
            let others = self.children.iter_mut().filter(|(other, _)| **other != pid);
            others.for_each(|(_, child)| child.1 = true);
        }
        for action in actions {
            assert_eq!(self.status, None, "{action:?} after the end");
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Spawn { part, .. } => {
                let rivals =
                    self.children.values().filter(|child| !child.1 && child.0 != Part::Probe);
                let rivals = rivals.count();
                match part {
                    Part::Server => assert_eq!(rivals, 0, "two servers: {:?}", self.history),
                    Part::Successor => {
                        assert_eq!(rivals, 1, "a successor of one server: {:?}", self.history)
                    }
                    Part::Probe => {}
                }
                if self.can_start {
                    let pid = self.next_pid;
                    self.next_pid += 1;
                    self.children.insert(pid, (part, false));
                    self.feed(Event::Started(part, pid));
                } else {
                    self.feed(Event::NotStarted(part, "no".to_owned()));
                }
            }
            Action::Order(pid, _) | Action::Refuse(pid, _) => {
                assert!(self.children.contains_key(&pid), "{pid} has been reaped");
            }
            Action::Kill(pid) => {
                self.children.get_mut(&pid).expect("it has not been reaped").1 = true;
            }
            Action::Exit(status) => {
                let left = self.children.values().filter(|child| !child.1).count();
                assert_eq!(left, 0, "left behind: {:?}", self.children);
                self.status = Some(status);
            }
            Action::ExecSelf { .. } => {
                let written = serde_json::to_vec(&self.machine).unwrap();
                self.machine = serde_json::from_slice(&written).unwrap();
            }
            // The other process has done so where nothing else can be done either.
            Action::Decide => self.feed(Event::Decided(!self.can_start)),
            Action::KeepListeners(_) | Action::DropListeners => {}
            Action::Notify(_) | Action::Log(..) => {}
        }
    }

    /// Everything that can happen next.
    fn possible(&self) -> Vec<Event> {
        let mut events = vec![Event::Tick];
        for signal in [Signal::Term, Signal::Hup] {
            events.push(Event::Signal(signal));
        }
        for (pid, (part, _)) in &self.children {
            for end in [End::Exited(0), KILLED] {
                events.push(Event::ChildExited(*pid, end));
            }
            if *part != Part::Probe {
                let of_server = [
                    Event::Serving,
                    Event::GivenUp,
                    Event::Stopping,
                    Event::Contested,
                    Event::Uncontested,
                    Event::Moved,
                ];
                events.extend(of_server.map(|event| event(*pid)));
                events.push(Event::StartSuccessor(*pid, None));
                events.push(Event::EndAsked(*pid, Ending::Drain));
            }
        }
        events
    }

    /// Whatever has been, a TERM and the end of all children is the end.
    fn comes_to_an_end(mut self) {
        self.feed(Event::Signal(Signal::Term));
        for _ in 0..100 {
            if self.status.is_some() {
                return;
            }
            match self.children.keys().next() {
                Some(pid) => self.feed(Event::ChildExited(*pid, End::Exited(0))),
                None => self.advance(),
            }
        }
        panic!("it does not end: {:?}", self.machine);
    }

    fn advance(&mut self) {
        self.now = self.machine.deadline().unwrap_or(self.now).max(self.now);
        self.feed(Event::Tick);
    }
}

fn explore(world: &World, depth: usize) {
    world.clone().comes_to_an_end();
    if depth == 0 || world.status.is_some() {
        return;
    }
    for can_start in [true, false] {
        for event in world.possible() {
            let mut next = World { can_start, ..world.clone() };
            match event {
                Event::Tick => next.advance(),
                event => next.feed(event),
            }
            // Where nothing was to be started both are the same.
            if can_start || next.next_pid == world.next_pid {
                explore(&next, depth - 1);
            }
        }
    }
}

#[test]
fn every_order_of_events_up_to_a_depth_holds() {
    explore(&World::new(), 4);
    // And from the middle of an upgrade.
    let mut world = World::new();
    world.feed(Event::Serving(10));
    world.feed(Event::StartSuccessor(10, None));
    explore(&world, 4);
}

#[test]
fn long_lives_hold() {
    for seed in 0..2_000 {
        let mut random = Sequence::new(seed);
        let mut world = World::new();
        for _ in 0..60 {
            let possible = world.possible();
            let event = possible[random.below(possible.len() as u64) as usize].clone();
            // Most lives are to be long ones.
            let is_end = matches!(
                event,
                Event::Signal(Signal::Term)
                    | Event::EndAsked(..)
                    | Event::Moved(_)
                    | Event::Stopping(_)
            );
            if world.status.is_some() || (is_end && random.below(20) > 0) {
                continue;
            }
            world.can_start = random.below(8) > 0;
            match event {
                Event::Tick => world.advance(),
                event => world.feed(event),
            }
        }
        world.can_start = true;
        world.comes_to_an_end();
    }
}
