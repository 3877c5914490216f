//! A TERM to every process of the service while an upgrade stands at one of its steps: whoever has
//! the connections in the end drains them, once.

use std::process::{Command, Stdio};

use super::scene::*;
use crate::support::*;

const LIVES: [Life; 3] = [Life::ALONE, Life::SUPERVISED, Life::LOWLY];

/// TERM to all when somebody has come to `point`, and everybody is told to come back.
#[track_caller]
fn it_is_one_drain(point: &str) {
    in_each_life(&LIVES, |life| {
        let scene = Scene::new(life);
        scene.die_at(point, "hold");
        let mut verb = scene.server.verb("upgrade");
        // It is no process of the service.
        verb.env_remove("STEADFAST_FAULT").stdout(Stdio::null()).stderr(Stdio::null());
        let mut verb = verb.spawn().expect("the binary starts");
        scene.wait_held(point);
        let mut pids = scene.server.house().processes();
        pids.retain(|pid| *pid != verb.id());
        let mut kill = Command::new("kill");
        kill.args(["-s", "TERM", "--"]).args(pids.iter().map(u32::to_string));
        kill.stderr(Stdio::null()).status().expect("kill runs");
        scene.live();
        let Scene { server, cut, slow, members } = scene;
        for mut client in [cut, slow].into_iter().chain(members) {
            let code = loop {
                let frame = client.frame();
                if frame.opcode == CLOSE {
                    break frame.close_code();
                }
            };
            assert_eq!(code, Some(1012), "{point}:\n{}", server.log());
            client.send(FIN | CLOSE, &1012_u16.to_be_bytes());
            client.expect_end();
        }
        server.wait_for_processes(&[]);
        verb.wait().expect("a child's end");
        assert!(!server.log().contains("another one starts"), "{}", server.log());
    });
}

#[test]
fn while_the_successor_greets() {
    it_is_one_drain("successor-hello");
}

#[test]
fn while_the_successor_prepares() {
    it_is_one_drain("successor-prepared");
}

#[test]
fn before_anything_has_moved() {
    it_is_one_drain("predecessor-ready");
}

#[test]
fn while_the_predecessor_copies() {
    it_is_one_drain("predecessor-copying");
}

#[test]
fn while_all_stands_still() {
    it_is_one_drain("predecessor-frozen");
}

#[test]
fn when_states_are_saved() {
    it_is_one_drain("predecessor-saved");
}

#[test]
fn when_states_are_loaded() {
    it_is_one_drain("successor-loaded");
}

#[test]
fn behind_the_offer() {
    it_is_one_drain("predecessor-offered");
}

#[test]
fn when_the_connections_are_taken() {
    it_is_one_drain("successor-taken");
}
