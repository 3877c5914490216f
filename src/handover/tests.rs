//! Both machines against each other, in every order of events: any message late, either side dead
//! at any instruction, time-outs, aborts and failures at any step.
//!
//! [`world::World`] is two processes with their workers, the channel and the shared word; it lists
//! what may happen next, and checks after each move that nobody serves what the other does.

mod world;

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};

use world::{End, Faults, Setup, Transition, World};

/// What an exploration has seen.
#[derive(Default)]
struct Seen {
    states: usize,
    ends: HashSet<End>,
}

/// Goes through every state that can be reached.
fn explore(setup: Setup) -> Seen {
    let mut seen = Seen::default();
    let mut visited = HashSet::new();
    // What led to each state: the one before, and the transition from there.
    let mut history: Vec<(usize, Option<Transition>)> = vec![(0, None)];
    let mut stack = vec![(World::new(setup), 0)];
    while let Some((world, at)) = stack.pop() {
        let transitions = world.transitions();
        match world.end(&transitions) {
            Ok(end) => seen.ends.extend(end),
            Err(problem) => panic!("{problem}:\n{}{world:#?}", path(&history, at)),
        }
        for transition in transitions {
            let mut next = world.clone();
            history.push((at, Some(transition)));
            if let Err(problem) = next.make(transition) {
                panic!("{problem}:\n{}{next:#?}", path(&history, history.len() - 1));
            }
            match visited.insert(fingerprint(&next)) {
                true => stack.push((next, history.len() - 1)),
                false => drop(history.pop()),
            }
        }
    }
    seen.states = visited.len();
    seen
}

/// Goes one random way to its end, and says which that is.
fn walk(setup: Setup, seed: u64) -> End {
    let mut random = Random(seed);
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
        let Some(transition) = kind.get(random.below(kind.len().max(1))) else {
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

/// SplitMix64: a failure repeats from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

const ALL_FAULTS: Faults =
    Faults { deaths: true, timeouts: 1, aborts: 1, failures: 1, busy_rounds: 1 };

const NO_FAULTS: Faults =
    Faults { deaths: false, timeouts: 0, aborts: 0, failures: 0, busy_rounds: 1 };

const SMALL: Setup =
    Setup { workers: 1, lanes: 1, rehearsal: false, refuses: false, faults: ALL_FAULTS };

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
    let deaths = Faults { deaths: true, ..NO_FAULTS };
    let others = Faults { timeouts: 1, aborts: 1, busy_rounds: 0, ..NO_FAULTS };
    for faults in [deaths, others] {
        let seen = explore(Setup { workers: 2, faults, ..SMALL });
        assert!(seen.ends.is_superset(&ends(&[End::Moved, End::Aborted])), "{:?}", seen.ends);
    }
}

#[test]
fn there_is_one_owner_on_long_random_ways() {
    let faults = Faults { busy_rounds: 3, ..ALL_FAULTS };
    let mut seen = HashSet::new();
    for seed in 0..6_000 {
        let rehearsal = seed % 8 == 0;
        seen.insert(walk(
            Setup { workers: 3, lanes: 4, refuses: seed % 2 == 0, rehearsal, faults },
            seed,
        ));
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}
