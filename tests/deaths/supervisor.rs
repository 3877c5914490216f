//! Deaths of the supervisor at every step of an upgrade: the upgrade succeeds without it, whoever
//! serves goes on, and says that nobody watches over it any more.

use std::io::ErrorKind;
use std::net::TcpStream;

use super::scene::*;
use crate::support::*;

const LIVES: [Life; 2] = [Life::SUPERVISED, Life::LOWLY];

/// The supervisor dies when somebody comes to `point`: by its own hand, or by that of the process
/// that does.
#[track_caller]
fn the_upgrade_needs_no_supervisor(point: &str) {
    in_each_life(&LIVES, |life| {
        let mut scene = Scene::new(life);
        let (supervisor, predecessor) = (scene.server.first_pid(), scene.server.pid());
        let how = match point.starts_with("supervisor-") {
            true => "kill".to_owned(),
            false => format!("kill {supervisor}"),
        };
        scene.die_at(point, &how);
        let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
        assert!(upgraded, "{point}: {said}");
        wait_until("the supervisor's death", || !is_alive(supervisor));
        scene.live();
        assert_eq!(scene.server.exit_status(), None, "it was killed");

        // The successor serves, and nobody else is left.
        scene.server.follow_status();
        let successor = scene.server.pid();
        assert_ne!(successor, predecessor);
        scene.server.wait_for_processes(&[successor]);
        scene.assert_unharmed();
        let mut status = String::new();
        wait_until("the server knows", || {
            status = scene.server.status();
            status.contains("\"supervisor_pid\":null")
        });
        assert!(status.contains("\"generation\":2,"), "{status}");
        scene.server.expect_log("the supervisor is gone");

        // It upgrades by itself.
        let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
        assert!(upgraded, "{point}: {said}");
        scene.server.follow_status();
        scene.server.wait_for_processes(&[scene.server.pid()]);
        talk(&mut scene.members, "with the next successor");

        // And drains as it is told.
        scene.server.signal("TERM");
        let Scene { server, cut, slow, members } = scene;
        for mut client in [cut, slow].into_iter().chain(members) {
            assert_eq!(client.frame().close_code(), Some(1012));
            client.send(FIN | CLOSE, &1012_u16.to_be_bytes());
            client.expect_end();
        }
        server.wait_for_processes(&[]);
        let refused = TcpStream::connect(server.address).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn it_dies_when_it_is_asked_for_a_successor() {
    the_upgrade_needs_no_supervisor("supervisor-asked");
}

#[test]
fn it_dies_before_it_has_told_of_the_successor() {
    the_upgrade_needs_no_supervisor("supervisor-started");
}

#[test]
fn it_dies_when_it_has_told_of_the_successor() {
    the_upgrade_needs_no_supervisor("supervisor-told");
}

#[test]
fn it_dies_before_the_successor_knows_what_it_is() {
    the_upgrade_needs_no_supervisor("begun");
}

#[test]
fn it_dies_when_the_successor_has_said_hello() {
    the_upgrade_needs_no_supervisor("successor-hello");
}

#[test]
fn it_dies_while_the_successor_prepares() {
    the_upgrade_needs_no_supervisor("successor-prepared");
}

#[test]
fn it_dies_before_anything_has_moved() {
    the_upgrade_needs_no_supervisor("predecessor-ready");
}

#[test]
fn it_dies_while_the_predecessor_copies() {
    the_upgrade_needs_no_supervisor("predecessor-copying");
}

#[test]
fn it_dies_while_connections_are_parked() {
    the_upgrade_needs_no_supervisor("successor-parking");
}

#[test]
fn it_dies_while_all_stands_still() {
    the_upgrade_needs_no_supervisor("predecessor-frozen");
}

#[test]
fn it_dies_while_states_are_saved() {
    the_upgrade_needs_no_supervisor("predecessor-saving");
}

#[test]
fn it_dies_when_states_are_loaded() {
    the_upgrade_needs_no_supervisor("successor-loaded");
}

#[test]
fn it_dies_before_the_offer() {
    the_upgrade_needs_no_supervisor("predecessor-adopted");
}

#[test]
fn it_dies_behind_the_offer() {
    the_upgrade_needs_no_supervisor("predecessor-offered");
}

#[test]
fn it_dies_when_the_connections_are_taken() {
    the_upgrade_needs_no_supervisor("successor-taken");
}

#[test]
fn it_dies_when_it_hears_who_serves() {
    the_upgrade_needs_no_supervisor("supervisor-serving");
}

#[test]
fn it_dies_while_the_new_program_is_asked_what_it_can() {
    the_upgrade_needs_no_supervisor("supervisor-probing");
}

#[test]
fn it_dies_before_it_becomes_the_new_program() {
    the_upgrade_needs_no_supervisor("supervisor-executing");
}

#[test]
fn it_dies_before_it_knows_what_it_was() {
    the_upgrade_needs_no_supervisor("supervisor-reading");
}

#[test]
fn it_dies_as_the_new_program() {
    the_upgrade_needs_no_supervisor("supervisor-resumed");
}

/// The supervisor does not answer for a while, as when its machine has no memory left.
#[test]
fn status_does_not_wait_for_a_supervisor_that_is_asked_for_a_successor() {
    in_each_life(&LIVES, |life| {
        let mut scene = Scene::new(life);
        scene.die_at("supervisor-asked", "hold");
        let mut verb = scene.server.verb("upgrade").spawn().expect("the binary starts");
        scene.wait_held("supervisor-asked");
        let status = scene.server.status();
        assert!(status.contains("\"activity\":\"upgrading\""), "{status}");
        scene.live();
        // It would have been given up meanwhile.
        assert!(verb.wait().expect("a child's end").success());
        scene.server.follow_status();
        scene.assert_unharmed();
        leave(scene);
    });
}
