//! Deaths of the two sides of a handover, without a supervisor, below one, and as a user with few
//! rights and few files.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::scene::*;
use crate::support::*;

const LIVES: [Life; 3] = [Life::ALONE, Life::SUPERVISED, Life::LOWLY];

/// The successor fails at `point`: nothing has happened, and the next one succeeds. The predecessor
/// says `reason`, and, if the successor was its child, what that has ended with.
#[track_caller]
fn the_predecessor_goes_on(point: &str, how: &str, reason: &str, ending: &str) {
    in_each_life(&LIVES, |life| {
        let mut scene = Scene::new(life);
        scene.die_at(point, how);
        let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
        let reason = match life.supervised {
            true => reason.to_owned(),
            false => format!("{reason}{ending}"),
        };
        assert!(!upgraded && said.contains(&reason), "{point}: {said}");
        scene.assert_unharmed();
        scene.live();
        scene.cut.send_bytes(&in_two().0);
        scene.server.upgrade();
        scene.cut.send_bytes(&in_two().1);
        scene.cut.expect_text("in two parts");
        talk(&mut scene.members, "with the next successor");
        leave(scene);
    });
}

/// The predecessor dies at `point`, with its connections: whoever comes is served.
#[track_caller]
fn the_successor_begins_anew(point: &str, how: &str) {
    in_each_life(&LIVES, |life| {
        let mut scene = Scene::new(life);
        scene.die_at(point, how);
        let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
        assert!(!upgraded && !said.trim().is_empty(), "{point}: {said}");
        scene.server.follow_the_dead();
        scene.live();
        scene.assert_lost();
        scene.assert_served_anew();
        scene.server.upgrade();
        scene.server.assert_healthy();
        leave(scene);
    });
}

/// The predecessor dies at `point`, when all was handed over: nobody notices.
#[track_caller]
fn the_successor_takes_over(point: &str) {
    in_each_life(&LIVES, |life| {
        let mut scene = Scene::new(life);
        scene.die_at(point, "kill");
        let (_, said) = scene.server.upgrade_by_verb(&[]);
        assert!(!said.trim().is_empty(), "{point}: {said}");
        scene.server.follow_the_dead();
        scene.live();
        scene.assert_unharmed();
        scene.server.upgrade();
        talk(&mut scene.members, "with the next successor");
        leave(scene);
    });
}

#[test]
fn the_successor_dies_in_its_first_breath() {
    the_predecessor_goes_on(
        "successor-hello",
        "exit",
        "the new process has ended",
        " (it ended with exit status: 1",
    );
}

#[test]
fn the_successor_dies_while_it_prepares() {
    the_predecessor_goes_on(
        "successor-prepared",
        "kill",
        "the new process has ended",
        " (it ended with signal: 9",
    );
}

#[test]
fn the_successor_dies_among_parked_connections() {
    the_predecessor_goes_on(
        "successor-parking",
        "kill",
        "the new process has ended",
        " (it ended with signal: 9",
    );
}

#[test]
fn a_worker_of_the_successor_panics_among_parked_connections() {
    the_predecessor_goes_on("successor-parking", "panic", "a worker panicked", "");
}

#[test]
fn the_successor_dies_with_everything_loaded() {
    the_predecessor_goes_on(
        "successor-loaded",
        "kill",
        "the new process has ended",
        " (it ended with signal: 9",
    );
}

#[test]
fn the_successor_dies_before_the_offer() {
    the_predecessor_goes_on(
        "successor-adopted",
        "kill",
        "the new process has ended",
        " (it ended with signal: 9",
    );
}

#[test]
fn the_predecessors_upgrade_panics() {
    for point in
        ["predecessor-ready", "predecessor-frozen", "predecessor-saved", "predecessor-adopted"]
    {
        the_predecessor_goes_on(point, "panic", "this process panicked", "");
    }
}

#[test]
fn the_successor_never_says_hello() {
    the_predecessor_goes_on("begun", "stop", "took too long (in step start)", "");
}

#[test]
fn the_successor_hangs_while_it_prepares() {
    the_predecessor_goes_on("successor-prepared", "stop", "took too long (in step prepare)", "");
}

#[test]
fn the_successor_hangs_with_everything_loaded() {
    the_predecessor_goes_on("successor-loaded", "stop", "took too long (in step load)", "");
}

#[test]
fn the_successor_hangs_before_the_offer() {
    the_predecessor_goes_on("successor-adopted", "stop", "took too long (in step take)", "");
}

/// Everybody is served again after `pause_max`, and not only when the successor has been given up
/// and is gone.
#[test]
fn a_successor_that_hangs_in_the_pause_costs_no_more_than_that() {
    const PAUSE_MAX: Duration = Duration::from_millis(500);
    in_each_life(&[Life::ALONE, Life::LOWLY], |life| {
        let server = start_mortal(life, "workers = 2\npause_max = '500ms'\n");
        die_at(&server, "successor-adopted", "stop");
        let mut client = server.open("/echo");
        let verb = server.verb("upgrade").spawn().expect("the binary starts");
        let mut longest = Duration::ZERO;
        let mut number = 0;
        wait_until("a pause", || {
            let begun = Instant::now();
            client.assert_echo(&format!("number {number}"));
            number += 1;
            longest = longest.max(begun.elapsed());
            longest >= PAUSE_MAX / 2
        });
        let output = verb.wait_with_output().expect("a child's end");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("took too long (in step take)"), "{said}");
        // A fixed time of five seconds it was once.
        assert!(longest < PAUSE_MAX + Duration::from_secs(2), "{longest:?}");
        client.assert_echo("after it");
    });
}

#[test]
fn the_successor_dies_as_the_owner() {
    in_each_life(&LIVES, |life| {
        let mut scene = Scene::new(life);
        scene.die_at("successor-taken", "kill");
        let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
        assert!(!upgraded && said.contains("all connections with it"), "{said}");
        scene.assert_lost();
        if !life.supervised {
            assert_eq!(scene.server.exit_status(), Some(1));
            let refused = TcpStream::connect(scene.server.address).expect_err("nobody listens");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            return;
        }
        // The supervisor has kept the listeners: whoever comes meanwhile waits, and is served.
        scene.server.assert_healthy();
        scene.live();
        scene.server.follow_the_dead();
        scene.server.upgrade();
        scene.server.assert_healthy();
        leave(scene);
    });
}

#[test]
fn the_predecessor_dies_before_anything_has_moved() {
    the_successor_begins_anew("predecessor-ready", "kill");
}

#[test]
fn the_predecessor_dies_while_it_copies() {
    the_successor_begins_anew("predecessor-copying", "kill");
}

#[test]
fn the_predecessor_dies_frozen() {
    the_successor_begins_anew("predecessor-frozen", "kill");
}

#[test]
fn the_predecessor_dies_with_half_of_the_states_sent() {
    the_successor_begins_anew("predecessor-saving", "late");
}

#[test]
fn the_predecessor_dies_with_all_states_sent() {
    the_successor_takes_over("predecessor-adopted");
}

#[test]
fn the_predecessor_dies_behind_its_offer() {
    the_successor_takes_over("predecessor-offered");
}
