//! Limits of a process that an upgrade meets: of open files, of descriptors under way between
//! processes of one user, of a file's size.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use steadfast::sys::packets;

use super::scene::*;
use crate::support::*;

/// Sets a limit of a process that runs, as its own user may: root lacks that right in some
/// containers.
fn limit(life: Life, pid: u32, limit: &str) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string(), limit]);
    if let Some(uid) = life.user.filter(|_| is_root()) {
        command.uid(uid).gid(uid).current_dir("/");
    }
    assert!(command.status().expect("prlimit runs").success(), "{limit}");
}

#[test]
fn a_successor_with_too_few_files_refuses() {
    in_each_life(&[Life::SUPERVISED, Life::LOWLY], |life| {
        let mut scene = Scene::new(life);
        let supervisor = scene.server.first_pid();
        // The hard limit is what a successor can have.
        limit(life, supervisor, "--nofile=100:300");
        scene.server.upgrade();
        scene.assert_unharmed();
        for (files, reason) in [
            (150, "leaves room for 9 connections, and there are 22; raise it (ulimit -n"),
            (110, "the limit of 110 open files leaves no room for connections; raise it"),
            // Too few for the supervisor to begin anything.
            (8, "the successor cannot be started: Too many open files"),
        ] {
            limit(life, supervisor, &format!("--nofile={files}:{files}"));
            let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
            assert!(!upgraded && said.contains(reason), "{files}: {said}");
            talk(&mut scene.members, "meanwhile");
        }
        scene.server.assert_healthy();
    });
}

#[test]
fn the_soft_limit_of_files_is_raised_in_each_generation() {
    let mut scene = Scene::new(Life::LOWLY);
    for generation in 1..4 {
        let status = scene.server.status();
        // Of 300, the hard limit, 141 are for other things: see `descriptors` in the server.
        assert_eq!(number_in(&status, "connections_max"), Some(159), "{generation}: {status}");
        scene.server.upgrade();
    }
    scene.assert_unharmed();
}

/// What is kept for other things than connections suffices for an upgrade of a full server.
#[test]
fn a_full_server_with_many_workers_and_addresses_upgrades() {
    let life = Life { files: Some((900, 900)), ..Life::LOWLY };
    let mut server = Server::start_by(life, "workers = 64\n", |house, mut command| {
        command.args(["--listen", &free_address().to_string()]);
        as_user(life, command, house)
    });
    let status = server.status();
    let max = number_in(&status, "connections_max").expect("a figure");
    assert!((50..400).contains(&max), "{status}");
    let mut clients: Vec<Client> = (0..max).map(|_| server.open("/echo")).collect();
    for _ in 0..2 {
        let (upgraded, said) = server.upgrade_by_verb(&[]);
        assert!(upgraded && said.contains("\"refused\":[]"), "{said}");
        server.follow_status();
        for (number, client) in clients.iter_mut().enumerate() {
            client.assert_echo(&format!("client {number}"));
        }
    }
}

/// A process that keeps descriptors under way, as this test's own program can do.
struct Crowd {
    process: Child,
}

const CROWD: &str = "DEATHS_CROWD";

impl Crowd {
    /// So many, of this user.
    fn new(user: u32, count: usize) -> Self {
        let program = env::current_exe().expect("a running program has a path");
        let mut command = Command::new(accessible_copy(&program));
        command.args(["--exact", "deaths::limits::crowd", "--nocapture", "--test-threads=1"]);
        command.env(CROWD, count.to_string()).uid(user).gid(user).current_dir("/");
        let (stdin, stdout) = (Stdio::piped(), Stdio::piped());
        let mut process = command.stdin(stdin).stdout(stdout).spawn().expect("it starts");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut lines = lines.map_while(Result::ok);
        assert!(lines.any(|line| line.contains("under way")), "it ends too early");
        Self { process }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What that process is.
#[test]
fn crowd() {
    let Some(count) = env::var(CROWD).ok().and_then(|count| count.parse::<usize>().ok()) else {
        return;
    };
    let null = File::open("/dev/null").expect("it is there");
    let (_unread, ours) = packets::pair().expect("two descriptors");
    let all = vec![null.as_fd(); count];
    for part in all.chunks(packets::DESCRIPTORS_MAX) {
        packets::send(&ours, b"x", part, false).expect("there is room");
    }
    println!("{count} are under way");
    stdout().flush().expect("somebody reads it");
    let _ = stdin().read_line(&mut String::new());
}

/// A user of one test's own: what is under way counts for all processes of a user.
fn lone_user(uid: u32) -> Option<Life> {
    if !is_root() {
        say_untested("descriptors under way, for which a test needs a user of its own");
        return None;
    }
    Some(Life { user: Some(uid), ..Life::LOWLY })
}

#[test]
fn an_upgrade_goes_on_though_hardly_any_descriptor_may_be_under_way() {
    let Some(life) = lone_user(64_001) else { return };
    let mut scene = Scene::new(life);
    // One packet makes them more than the 300 files of a process; then none may follow until that
    // has been received.
    let _crowd = Crowd::new(64_001, 299);
    for _ in 0..3 {
        scene.server.upgrade();
    }
    scene.assert_unharmed();
}

#[test]
fn an_upgrade_waits_while_no_descriptor_may_be_under_way() {
    let Some(life) = lone_user(64_002) else { return };
    let mut scene = Scene::new(life);
    scene.die_at("predecessor-ready", "hold");
    let upgrade = scene.server.verb("upgrade").spawn().expect("the binary starts");
    scene.wait_held("predecessor-ready");
    let crowd = Crowd::new(64_002, 301);
    scene.live();
    for _ in 0..5 {
        talk(&mut scene.members, "meanwhile");
        assert!(scene.server.status().contains("\"activity\":\"upgrading\""));
    }
    drop(crowd);
    let output = upgrade.wait_with_output().expect("a child's end");
    assert!(output.status.success(), "{output:?}");
    scene.assert_unharmed();
}

#[test]
fn a_supervisor_hears_who_serves_though_no_descriptor_may_be_under_way() {
    let Some(life) = lone_user(64_003) else { return };
    let crowd = Crowd::new(64_003, 301);
    let mut server = Server::start_living(life, "workers = 2\n", &[]);
    server.expect_log("keeps no copies of the listeners");
    drop(crowd);
    // Else its first server's death would be the end.
    kill(server.pid(), "KILL");
    server.follow_the_dead();
    server.assert_healthy();
}

#[test]
fn states_larger_than_a_file_may_be_stay_where_they_are() {
    for life in [Life::SUPERVISED, Life::LOWLY] {
        let mut scene = Scene::new(life);
        let (server, supervisor) = (scene.server.pid(), scene.server.first_pid());
        // The soft limit, which can be raised again. The log is a file, too: its lines get lost.
        let soft = |size: &str| limit(life, server, &format!("--fsize={size}:"));
        soft("100");
        let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
        assert!(!upgraded && said.contains("raise the limit (ulimit -f"), "{said}");
        assert!(is_alive(server));
        talk(&mut scene.members, "meanwhile");
        // Not even the supervisor's own state, nor the word of who owns the connections.
        soft("0");
        limit(life, supervisor, "--fsize=0:");
        let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
        assert!(!upgraded && said.contains("raise the limit (ulimit -f"), "{said}");
        soft("unlimited");
        scene.assert_unharmed();
        let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
        assert!(upgraded, "{said}");
        scene.server.follow_status();
        talk(&mut scene.members, "by the successor");
        assert!(is_alive(supervisor), "it goes on as the program it was");
        for pid in [supervisor, scene.server.pid()] {
            limit(life, pid, "--fsize=unlimited:");
        }
        let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
        assert!(upgraded, "{said}");
        talk(&mut scene.members, "by the next one");
    }
}
