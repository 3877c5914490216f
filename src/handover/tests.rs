//! Both machines against each other, in every order of events: any message late, either side dead
//! at any instruction, time-outs, aborts and failures at any step.
//!
//! [`world::World`] is two processes with their workers, the channel and the shared word; it lists
//! what may happen next, and checks after each move that nobody serves what the other does.

mod setup;
mod world;

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use setup::{Broken, End, Faults, Setup, Transition, origin};
use world::World;

use super::predecessor::{Action, Event, Outcome, Plan, Predecessor};
use super::successor::{self, Successor};
use super::wire::{PROTOCOL, ToPredecessor, ToSuccessor};
use crate::base::format::Format;
use crate::base::testing::Sequence;

/// What an exploration has seen.
#[derive(Debug, Default)]
struct Seen {
    states: usize,
    ends: HashSet<End>,
}

/// Goes through every state that can be reached; an error is a broken rule, and the way to it.
fn try_explore(setup: Setup) -> Result<Seen, String> {
    let mut seen = Seen::default();
    let mut visited = HashSet::new();
    // What led to each state: the one before, and the transition from there.
    let mut history: Vec<(usize, Option<Transition>)> = vec![(0, None)];
    let mut stack = vec![(World::new(setup), 0)];
    while let Some((world, at)) = stack.pop() {
        let transitions = world.transitions();
        match world.end(&transitions) {
            Ok(end) => seen.ends.extend(end),
            Err(problem) => return Err(format!("{problem}:\n{}{world:#?}", path(&history, at))),
        }
        for transition in transitions {
            let mut next = world.clone();
            history.push((at, Some(transition)));
            if let Err(problem) = next.make(transition) {
                return Err(format!("{problem}:\n{}{next:#?}", path(&history, history.len() - 1)));
            }
            match visited.insert(fingerprint(&next)) {
                true => stack.push((next, history.len() - 1)),
                false => drop(history.pop()),
            }
        }
    }
    seen.states = visited.len();
    Ok(seen)
}

#[track_caller]
fn explore(setup: Setup) -> Seen {
    try_explore(setup).unwrap_or_else(|problem| panic!("{problem}"))
}

/// Goes one random way to its end, and says which that is.
fn walk(setup: Setup, seed: u64) -> End {
    let mut random = Sequence::new(seed);
    let mut world = World::new(setup);
    let mut path = Vec::new();
    loop {
        let transitions = world.transitions();
        match world.end(&transitions) {
            Ok(Some(end)) => return end,
            Ok(None) => {}
            Err(problem) => panic!("seed {seed}: {problem}:\n{path:?}"),
        }
        // Faults are rare, so that they come at every step and not all in the first.
        let (faults, others): (Vec<_>, Vec<_>) =
            transitions.into_iter().partition(|transition| transition.is_fault());
        let kind = if others.is_empty() || random.below(40) == 0 { &faults } else { &others };
        let Some(transition) = kind.get(random.below(kind.len().max(1) as u64) as usize) else {
            continue;
        };
        path.push(*transition);
        if let Err(problem) = world.make(*transition) {
            panic!("seed {seed}: {problem}:\n{path:?}");
        }
    }
}

/// A number that stands for a state: of its text, which shows all there is.
fn fingerprint(world: &World) -> u64 {
    let mut text = HashedText(DefaultHasher::new());
    write!(text, "{world:?}").expect("hashing does not fail");
    text.0.finish()
}

struct HashedText(DefaultHasher);

impl Write for HashedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

fn path(history: &[(usize, Option<Transition>)], mut at: usize) -> String {
    let mut names = Vec::new();
    while let (before, Some(transition)) = history[at] {
        names.push(format!("{transition:?}\n"));
        at = before;
    }
    names.reverse();
    names.concat()
}

const NO_FAULTS: Faults =
    Faults { deaths: 0, timeouts: 0, aborts: 0, failures: 0, stalls: 0, busy_rounds: 1 };

const ALL_FAULTS: Faults =
    Faults { deaths: 2, timeouts: 1, aborts: 1, failures: 1, stalls: 0, busy_rounds: 1 };

const SMALL: Setup = Setup {
    workers: 1,
    lanes: 1,
    rehearsal: false,
    refuses: false,
    faults: ALL_FAULTS,
    broken: None,
};

fn ends(expected: &[End]) -> HashSet<End> {
    expected.iter().copied().collect()
}

#[test]
fn without_faults_all_is_moved_in_every_order() {
    for (workers, lanes) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        let seen = explore(Setup { workers, lanes, faults: NO_FAULTS, ..SMALL });
        assert_eq!(seen.ends, ends(&[End::Moved]), "{workers} workers, {lanes} lanes");
        assert!(seen.states > 40, "{}", seen.states);
    }
    let seen = explore(Setup { workers: 2, refuses: true, faults: NO_FAULTS, ..SMALL });
    assert_eq!(seen.ends, ends(&[End::Moved]));
}

#[test]
fn a_rehearsal_moves_nothing() {
    let setup = Setup { workers: 2, lanes: 2, rehearsal: true, refuses: true, ..SMALL };
    let seen = explore(Setup { faults: NO_FAULTS, ..setup });
    assert_eq!(seen.ends, ends(&[End::Rehearsed]));
    let seen = explore(Setup { workers: 1, lanes: 1, ..setup });
    assert_eq!(seen.ends, ends(&[End::Rehearsed, End::Aborted, End::Crashed]));
}

#[test]
fn there_is_one_owner_whatever_fails() {
    let seen = explore(SMALL);
    let all = [End::Moved, End::Aborted, End::Inherited, End::ListenersOnly, End::Crashed];
    assert_eq!(seen.ends, ends(&all));
    assert!(seen.states > 5_000, "{}", seen.states);
}

#[test]
fn there_is_one_owner_of_what_several_workers_have() {
    let deaths = Faults { deaths: 2, ..NO_FAULTS };
    let others = Faults { timeouts: 1, aborts: 1, busy_rounds: 0, ..NO_FAULTS };
    for faults in [deaths, others] {
        let seen = explore(Setup { workers: 2, faults, ..SMALL });
        assert!(seen.ends.is_superset(&ends(&[End::Moved, End::Aborted])), "{:?}", seen.ends);
    }
}

#[test]
fn there_is_one_owner_on_long_random_ways() {
    let faults = Faults { busy_rounds: 3, stalls: 1, ..ALL_FAULTS };
    let mut seen = HashSet::new();
    for seed in 0..6_000 {
        let rehearsal = seed % 8 == 0;
        seen.insert(walk(
            Setup { workers: 3, lanes: 4, refuses: seed % 2 == 0, rehearsal, faults, broken: None },
            seed,
        ));
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}

#[test]
fn whoever_hangs_is_not_waited_for() {
    let faults = Faults { stalls: 1, ..NO_FAULTS };
    for (workers, lanes) in [(1, 1), (1, 2)] {
        let seen = explore(Setup { workers, lanes, faults, ..SMALL });
        // Who hangs after the offer is inherited from.
        let all = [End::Moved, End::Aborted, End::Inherited, End::Crashed];
        assert_eq!(seen.ends, ends(&all), "{workers} workers, {lanes} lanes");
    }
    let seen = explore(Setup { faults: Faults { deaths: 1, busy_rounds: 0, ..faults }, ..SMALL });
    assert!(seen.ends.contains(&End::ListenersOnly), "{:?}", seen.ends);
}

#[test]
fn what_is_refused_stays_whatever_fails() {
    let faults = Faults { busy_rounds: 0, timeouts: 0, ..ALL_FAULTS };
    let seen = explore(Setup { refuses: true, faults, ..SMALL });
    assert!(seen.ends.is_superset(&ends(&[End::Moved, End::Aborted])), "{:?}", seen.ends);
}

/// The rules that are watched are watched: a driver that breaks one is found out.
#[test]
fn a_broken_rule_is_noticed() {
    for (broken, rule) in [
        (Broken::ThawsWithoutRevoking, "a thaw without a revocation"),
        (Broken::RevokesWhatIsTaken, "the successor serves what is not taken"),
        (Broken::ServesWithoutTaking, "the successor serves what is not taken"),
        (Broken::TakesWhatIsRevoked, "the outcome is not what the word says"),
        (Broken::SaysActiveTooSoon, "connections are given up that nobody has taken"),
        (Broken::HidesRefusals, "a refused connection does not stay"),
        (Broken::SavesWhileServing, "states are saved while they change"),
        (Broken::ForgetsTheTime, "the predecessor waits for ever"),
    ] {
        let faults = Faults { stalls: 1, timeouts: 1, aborts: 1, ..NO_FAULTS };
        let setup = Setup { refuses: true, faults, broken: Some(broken), ..SMALL };
        let problem = try_explore(setup).expect_err(rule);
        assert!(problem.starts_with(rule), "{broken:?}: {problem}");
    }
}

// ---- one side alone ----

#[test]
fn states_are_written_in_the_newest_format_that_both_have() {
    let (oldest, newest) = Format::RANGE;
    for (theirs, expected) in [
        ((oldest, newest), newest),
        ((oldest, oldest), oldest),
        ((newest, newest + 1), newest),
        ((oldest - 1, oldest), oldest),
        ((oldest - 1, newest + 1), newest),
    ] {
        for rehearsal in [false, true] {
            let (mut machine, _) = Predecessor::new(plan(rehearsal));
            let actions = machine.handle(hello_with(theirs));
            let Action::Send(ToSuccessor::Prepare { format, .. }) = actions[0] else {
                panic!("{theirs:?}: {actions:?}");
            };
            assert_eq!(format, expected, "{theirs:?}");
            let ready = machine.handle(Event::Message(ToPredecessor::Ready { workers: 1 }));
            let (Action::PreCopy { format, .. } | Action::Rehearse { format, .. }) = ready[0]
            else {
                panic!("{theirs:?}: {ready:?}");
            };
            assert_eq!(format.number(), expected, "{theirs:?}");
        }
    }
}

#[test]
fn without_a_format_in_common_the_predecessor_goes_on_and_says_why() {
    let (oldest, newest) = Format::RANGE;
    for theirs in [(newest + 1, newest + 2), (0, oldest - 1), (newest, oldest - 1)] {
        let (mut machine, _) = Predecessor::new(plan(false));
        assert_eq!(machine.handle(hello_with(theirs)), [Action::Revoke], "{theirs:?}");
        let actions = machine.handle(Event::Revoked(true));
        let [Action::Send(ToSuccessor::Abort { .. }), Action::Thaw, Action::Done(outcome)] =
            &actions[..]
        else {
            panic!("{theirs:?}: {actions:?}");
        };
        let reason = format!(
            "this program writes states of formats {oldest} to {newest}, the new program (9.9) \
             reads {} to {}; go by way of a version that has formats of both, or drain and start \
             anew",
            theirs.0, theirs.1
        );
        assert_eq!(*outcome, Outcome::Aborted(reason));
    }
}

fn plan(rehearsal: bool) -> Plan {
    Plan {
        generation: 1,
        workers: 1,
        connections: 3,
        holdings: 0,
        rehearsal,
        begun_ns: 0,
        time_namespace: 0,
        history: String::new(),
        pause_max: Duration::from_secs(1),
    }
}

fn hello() -> Event {
    hello_with(Format::RANGE)
}

fn hello_with(formats: (u32, u32)) -> Event {
    let build = "9.9".to_owned();
    Event::Message(ToPredecessor::Hello { protocol: PROTOCOL, formats, build, pid: 2 })
}

/// A predecessor of one worker that rehearses and has sent three connections.
fn predecessor_that_has_saved_three() -> Predecessor {
    let (mut machine, _) = Predecessor::new(plan(true));
    machine.handle(hello());
    machine.handle(Event::Message(ToPredecessor::Ready { workers: 1 }));
    machine.handle(Event::WorkerSaved { worker: 0, connections: 3, kept: Vec::new() });
    machine
}

#[test]
fn nothing_is_given_up_that_nobody_accounts_for() {
    let adopted = |connections| Event::Message(ToPredecessor::Adopted { connections });
    for connections in [2, 4, u64::MAX] {
        let mut machine = predecessor_that_has_saved_three();
        assert_eq!(machine.handle(adopted(connections)), [Action::Revoke], "{connections}");
    }
    let mut machine = predecessor_that_has_saved_three();
    let connections = vec![(origin(0, 0), String::new())];
    machine.handle(Event::Message(ToPredecessor::Refusals { connections }));
    let actions = machine.handle(adopted(2));
    assert!(matches!(actions[2], Action::Done(Outcome::Rehearsed { connections: 2, .. })));
}

#[test]
fn there_is_one_answer() {
    let (mut machine, _) = Predecessor::new(plan(true));
    machine.handle(hello());
    machine.handle(Event::Message(ToPredecessor::Ready { workers: 1 }));
    let adopted = || Event::Message(ToPredecessor::Adopted { connections: 3 });
    assert_eq!(machine.handle(adopted()), []);
    assert_eq!(machine.handle(adopted()), [Action::Revoke]);
}

#[test]
fn settling_has_an_end() {
    let (mut machine, _) = Predecessor::new(plan(false));
    machine.handle(hello());
    machine.handle(Event::Message(ToPredecessor::Ready { workers: 1 }));
    machine.handle(Event::WorkerCopied);
    machine.handle(Event::Message(ToPredecessor::Parked));
    assert_eq!(machine.handle(Event::WorkerFrozen), [Action::Settle]);
    let mut rounds = 1;
    while machine.handle(Event::WorkerSettled { idle: false }) == [Action::Settle] {
        rounds += 1;
        assert!(rounds < 1_000, "for ever");
    }
    assert_eq!(machine.handle(Event::Revoked(true)).len(), 3, "it is called off");
}

/// Whoever waits for the outcome goes with the successor if they are one, and may be missed first.
#[test]
fn what_has_been_taken_is_moved_only_if_the_successor_lives() {
    let ended = || Event::ChannelEnded("it has ended".to_owned());
    for (event, lives) in
        [(Event::Message(ToPredecessor::Active), true), (Event::TimedOut, true), (ended(), false)]
    {
        let (mut machine, _) = Predecessor::new(plan(false));
        for event in [
            hello(),
            Event::Message(ToPredecessor::Ready { workers: 1 }),
            Event::WorkerCopied,
            Event::Message(ToPredecessor::Parked),
            Event::WorkerFrozen,
            Event::WorkerSettled { idle: true },
            Event::WorkerSaved { worker: 0, connections: 3, kept: vec![] },
        ] {
            machine.handle(event);
        }
        let adopted = Event::Message(ToPredecessor::Adopted { connections: 3 });
        assert_eq!(machine.handle(adopted), [Action::Offer]);
        let asked = || Event::AbortAsked("nobody waits for it".to_owned());
        assert_eq!(machine.handle(asked()), [Action::Revoke]);
        assert!(matches!(machine.handle(Event::Revoked(false))[..], [Action::Timer(_)]));
        assert_eq!(machine.handle(asked()), []);
        match &machine.handle(event)[..] {
            [Action::Release(_), Action::Done(Outcome::Moved { connections: 3, .. })] => {
                assert!(lives);
            }
            [Action::Release(_), Action::Done(Outcome::Lost(_))] => assert!(!lives),
            other => panic!("{other:?}"),
        }
    }
}

/// A successor of one worker, which has been given its lane.
fn successor_that_adopts(rehearsal: bool) -> Successor {
    let (mut machine, _) = Successor::new("", 2);
    machine.handle(successor::Event::Message(prepare(Format::NEWEST.number(), rehearsal)));
    machine.handle(successor::Event::Prepared(Ok(1)));
    machine.handle(successor::Event::Message(ToSuccessor::Lane));
    let loaded = successor::Event::WorkerLoaded { connections: 3, refused: Vec::new() };
    assert_eq!(machine.handle(loaded), [successor::Action::Settle]);
    machine
}

fn prepare(format: u32, rehearsal: bool) -> ToSuccessor {
    ToSuccessor::Prepare {
        generation: 1,
        format,
        workers: 1,
        connections: 3,
        holdings: 0,
        rehearsal,
        begun_ns: 0,
        time_namespace: 0,
        history: String::new(),
    }
}

#[test]
fn adopters_do_not_settle_for_ever() {
    let mut machine = successor_that_adopts(false);
    let busy = || successor::Event::WorkerSettled { idle: false };
    let mut rounds = 1;
    let last = loop {
        let actions = machine.handle(busy());
        if actions != [successor::Action::Settle] {
            break actions;
        }
        rounds += 1;
        assert!(rounds < 1_000, "for ever");
    };
    let refused = successor::Action::Send(ToPredecessor::Refused {
        reason: "messages between workers do not come to rest".to_owned(),
    });
    assert_eq!(last[0], refused);
}

#[test]
fn a_rehearsal_takes_nothing_whatever_is_offered() {
    for event in [successor::Event::Message(ToSuccessor::Offer), successor::Event::ChannelEnded] {
        let mut machine = successor_that_adopts(true);
        let adopted = machine.handle(successor::Event::WorkerSettled { idle: true });
        assert!(matches!(adopted[..], [successor::Action::Send(ToPredecessor::Adopted { .. })]));
        let actions = machine.handle(event);
        assert!(matches!(actions[..], [.., successor::Action::Discard(_)]), "{actions:?}");
    }
}

#[test]
fn a_format_unknown_here_is_refused_before_anything_moves() {
    let (oldest, newest) = Format::RANGE;
    for format in [oldest - 1, newest + 1] {
        let (mut machine, _) = Successor::new("", 2);
        let actions = machine.handle(successor::Event::Message(prepare(format, false)));
        assert!(
            matches!(actions[0], successor::Action::Send(ToPredecessor::Refused { .. })),
            "{actions:?}"
        );
    }
}
