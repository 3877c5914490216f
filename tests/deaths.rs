//! Upgrades of the real binary in which one of the two processes dies or hangs, at each step: who
//! owns the connections is never in doubt, and nobody waits for the dead.
//!
//! Runs by `cargo test --features fault-points --test deaths`: a program built so looks at each step
//! whether it is to end there.

mod support;

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::PathBuf;

use support::*;

/// Messages the slow client has asked for, more than the buffers of both sockets hold.
const QUEUED: usize = 16;

/// A server with connections in every sort of trouble, which dies where it is told to.
struct Scene {
    server: Server,
    fault: PathBuf,
    /// In the middle of a frame.
    cut: Client,
    /// Has not read its answers.
    slow: Client,
    members: Vec<Client>,
}

impl Scene {
    fn new() -> Self {
        let fault = fresh_path(".fault");
        let server = Server::start_in("workers = 2\n", &[], &[("STEADFAST_FAULT", &fault)]);
        let mut slow = server.connect_narrow();
        slow.upgrade("/echo", "");
        for number in 0..QUEUED {
            slow.send(FIN | BINARY, &payload(number));
        }
        wait_until("a full queue", || server.memory() > 512 * KIB);
        server.wait_idle();
        let mut cut = server.open("/echo");
        cut.send_bytes(&in_two().0);
        let mut members: Vec<Client> = (0..20).map(|_| server.open("/rooms/a?self=1")).collect();
        talk(&mut members, "before");
        Self { server, fault, cut, slow, members }
    }

    /// From now on a process that comes to `point` meets its fate.
    fn die_at(&self, point: &str, how: &str) {
        fs::write(&self.fault, format!("{point}:{how}")).expect("a written file");
    }

    /// From now on nobody dies.
    fn live(&self) {
        fs::write(&self.fault, "").expect("a written file");
    }

    /// Asserts that nobody has lost a byte.
    #[track_caller]
    fn assert_unharmed(&mut self) {
        self.cut.send_bytes(&in_two().1);
        self.cut.expect_text("in two parts");
        for number in 0..QUEUED {
            assert!(self.slow.frame().payload == payload(number), "message {number}");
        }
        self.slow.assert_echo("all read");
        talk(&mut self.members, "after");
        self.server.assert_healthy();
    }

    /// Asserts that all connections are at their end.
    #[track_caller]
    fn assert_lost(&mut self) {
        let others = [&mut self.cut, &mut self.slow];
        for client in others.into_iter().chain(&mut self.members) {
            let end = loop {
                match client.try_frame() {
                    Ok(Some(_)) => {}
                    Ok(None) => break true,
                    Err(error) => break error.kind() != ErrorKind::WouldBlock,
                }
            };
            assert!(end, "no end within {WAIT:?}");
        }
    }

    /// Asserts that what serves now has no connection but new ones, and says why.
    #[track_caller]
    fn assert_served_anew(&mut self) {
        self.server.assert_healthy();
        let mut newcomers: Vec<Client> =
            (0..3).map(|_| self.server.open("/rooms/a?self=1")).collect();
        talk(&mut newcomers, "anew");
        let mut status = String::new();
        wait_until("three connections", || {
            let output = self.server.verb("status").arg("--json").output();
            status = String::from_utf8(output.expect("the binary starts").stdout).expect("UTF-8");
            status.contains("\"connections\":3,")
        });
        assert!(status.contains("the predecessor has died"), "{status}");
        assert!(!status.contains("pause_us"), "no such thing as an upgrade has been: {status}");
    }
}

fn payload(number: usize) -> Vec<u8> {
    (0..60_000_u32).map(|i| (i.wrapping_mul(number as u32 + 7) >> 3) as u8).collect()
}

fn in_two() -> (Vec<u8>, Vec<u8>) {
    let mut first = frame(FIN | TEXT, b"in two parts");
    let second = first.split_off(9);
    (first, second)
}

/// Asserts that what a member says reaches every member once.
#[track_caller]
fn talk(members: &mut [Client], text: &str) {
    for speaker in [0, members.len() - 1] {
        let text = format!("{text} {speaker}");
        members[speaker].send_text(&text);
        for member in &mut *members {
            member.expect_text(&text);
        }
    }
}

/// The successor fails at `point`: nothing has happened, and the next one succeeds.
#[track_caller]
fn the_predecessor_goes_on(point: &str, how: &str, reason: &str) {
    let mut scene = Scene::new();
    scene.die_at(point, how);
    let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
    assert!(!upgraded && said.contains(reason), "{point}: {said}");
    scene.assert_unharmed();
    scene.live();
    scene.cut.send_bytes(&in_two().0);
    scene.server.upgrade();
    scene.cut.send_bytes(&in_two().1);
    scene.cut.expect_text("in two parts");
    talk(&mut scene.members, "with the next successor");
}

/// The predecessor dies at `point`, with its connections: whoever comes is served.
#[track_caller]
fn the_successor_begins_anew(point: &str, how: &str) {
    let mut scene = Scene::new();
    scene.die_at(point, how);
    let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
    assert!(!upgraded && !said.trim().is_empty(), "{point}: {said}");
    scene.server.follow();
    scene.live();
    scene.assert_lost();
    scene.assert_served_anew();
    scene.server.upgrade();
    scene.server.assert_healthy();
}

/// The predecessor dies at `point`, when all was handed over: nobody notices.
#[track_caller]
fn the_successor_takes_over(point: &str) {
    let mut scene = Scene::new();
    scene.die_at(point, "kill");
    let (_, said) = scene.server.upgrade_by_verb(&[]);
    assert!(!said.trim().is_empty(), "{point}: {said}");
    scene.server.follow();
    scene.live();
    scene.assert_unharmed();
    scene.server.upgrade();
    talk(&mut scene.members, "with the next successor");
}

#[test]
fn the_successor_dies_in_its_first_breath() {
    the_predecessor_goes_on("successor-hello", "exit", "the new process has ended");
}

#[test]
fn the_successor_dies_while_it_prepares() {
    the_predecessor_goes_on(
        "successor-prepared",
        "kill",
        "the new process has ended (it ended with signal: 9",
    );
}

#[test]
fn the_successor_dies_among_parked_connections() {
    the_predecessor_goes_on(
        "successor-parking",
        "kill",
        "the new process has ended (it ended with signal: 9",
    );
}

#[test]
fn the_successor_dies_with_everything_loaded() {
    the_predecessor_goes_on(
        "successor-loaded",
        "kill",
        "the new process has ended (it ended with signal: 9",
    );
}

#[test]
fn the_successor_dies_before_the_offer() {
    the_predecessor_goes_on(
        "successor-adopted",
        "kill",
        "the new process has ended (it ended with signal: 9",
    );
}

#[test]
fn the_successor_hangs_with_everything_loaded() {
    the_predecessor_goes_on("successor-loaded", "stop", "took too long (in step state)");
}

#[test]
fn the_successor_hangs_before_the_offer() {
    the_predecessor_goes_on("successor-adopted", "stop", "took too long (in step offer)");
}

#[test]
fn the_successor_dies_as_the_owner() {
    let mut scene = Scene::new();
    scene.die_at("successor-taken", "kill");
    let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
    assert!(!upgraded && said.contains("all connections with it"), "{said}");
    scene.assert_lost();
    assert_eq!(scene.server.exit_status(), Some(1));
    let refused = TcpStream::connect(scene.server.address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
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
