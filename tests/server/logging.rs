//! The log's reader: one that reads nothing holds up nobody, one that is slow loses nothing.

use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::{
    Client, House, Life, free_address, is_alive, kill, number_in, steadfast, wait_until,
};

/// A server whose log goes into a pipe.
struct Piped {
    child: Child,
    house: House,
    address: std::net::SocketAddr,
}

impl Piped {
    fn start(life: Life, level: &str) -> (Self, PipeReader) {
        let house = House::new(life);
        let address = free_address();
        let (reader, writer) = io::pipe().expect("a pipe");
        let mut command = steadfast();
        command.arg("serve").args((!life.supervised).then_some("--no-supervisor"));
        command.args(["--listen", &address.to_string(), "--workers", "1", "--log-level", level]);
        command.env("XDG_RUNTIME_DIR", house.folder()).stderr(OwnedFd::from(writer));
        let child = command.spawn().expect("the binary starts");
        let piped = Self { child, house, address };
        wait_until("a server", || piped.try_pid().is_some());
        (piped, reader)
    }

    fn verb(&self, verb: &str) -> Command {
        let mut command = steadfast();
        command.args([verb, "--listen", &self.address.to_string()]).stdout(Stdio::piped());
        command.env("XDG_RUNTIME_DIR", self.house.folder());
        command
    }

    /// The process that serves.
    fn try_pid(&self) -> Option<u32> {
        let said = self.verb("status").arg("--json").stderr(Stdio::null()).output();
        number_in(&String::from_utf8_lossy(&said.expect("the binary starts").stdout), "pid")
    }

    fn open(&self, path: &str) -> Client {
        let stream = std::net::TcpStream::connect(self.address).expect("an accepted connection");
        let mut client = Client::over(stream);
        client.upgrade(path, "");
        client
    }

    /// At `debug`, a line about the request, one about the opening and one about the end of each
    /// connection: more than 1.5 KiB. (A query would not be in them.)
    fn cause_lines(&self, connections: usize) {
        let path = format!("/rooms/{}", "%78".repeat(240));
        for _ in 0..connections {
            self.open(&path).close(1000);
        }
    }

    fn exit_status(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the server's end", || {
            status = self.child.try_wait().expect("a child's status");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        self.house.clear();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the end on a thread of its own, 4 KiB at a time with a pause after each.
fn read_slowly(mut reader: PipeReader) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        let mut part = [0; 4_096];
        loop {
            match reader.read(&mut part).expect("a pipe") {
                0 => return String::from_utf8(text).expect("UTF-8"),
                len => text.extend_from_slice(&part[..len]),
            }
            thread::sleep(Duration::from_millis(1));
        }
    })
}

/// Reads until a line says that others were dropped.
fn read_to_report(reader: &mut PipeReader) {
    let mut text = Vec::new();
    let mut part = [0; 4_096];
    while !String::from_utf8_lossy(&text).contains("log lines dropped") {
        let len = reader.read(&mut part).expect("a pipe");
        assert!(len > 0, "nothing says that lines were dropped");
        text.extend_from_slice(&part[..len]);
    }
}

/// Its lines fill the pipe (64 KiB) and the queue (1 MiB).
const TOO_MANY: usize = 1_000;

fn serves_upgrades_and_stops_unread(life: Life) {
    let (mut server, mut reader) = Piped::start(life, "debug");
    let mut client = server.open("/echo");
    server.cause_lines(TOO_MANY);
    let predecessor = server.try_pid();
    let upgrade = server.verb("upgrade").output().expect("the binary starts");
    assert!(upgrade.status.success(), "{}", String::from_utf8_lossy(&upgrade.stdout));
    client.assert_echo("still here");
    server.cause_lines(TOO_MANY);
    let successor = server.try_pid().expect("a server");
    assert_ne!(predecessor, Some(successor));
    read_to_report(&mut reader);
    server.cause_lines(TOO_MANY);
    client.close(1000);
    kill(if life.supervised { server.child.id() } else { successor }, "TERM");
    assert_eq!(server.exit_status().code(), Some(0));
    wait_until("the successor's end", || !is_alive(successor));
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_server() {
    serves_upgrades_and_stops_unread(Life::ALONE);
}

#[test]
fn nor_a_supervisor() {
    serves_upgrades_and_stops_unread(Life::SUPERVISED);
}

/// Its lines fill the pipe several times over, and not the queue.
const MANY: usize = 200;

#[test]
fn a_slow_reader_misses_nothing() {
    let (mut server, reader) = Piped::start(Life::ALONE, "debug");
    server.cause_lines(MANY);
    kill(server.child.id(), "TERM");
    let text = read_slowly(reader).join().expect("all that was written");
    assert_eq!(server.exit_status().code(), Some(0));
    assert_eq!(text.matches(r#""message":"closed""#).count(), MANY);
    assert!(!text.contains("dropped"));
    assert!(text.lines().all(|line| line.starts_with('{') && line.ends_with('}')));
    assert!(text.lines().last().expect("lines").contains("stopped"));
}

#[test]
fn an_abort_is_behind_the_lines_before_it() {
    let (mut server, reader) = Piped::start(Life::ALONE, "debug");
    server.cause_lines(MANY);
    let reading = read_slowly(reader);
    kill(server.child.id(), "ABRT");
    let text = reading.join().expect("all that was written");
    assert_eq!(server.exit_status().signal(), Some(6));
    assert_eq!(text.matches(r#""message":"closed""#).count(), MANY);
}
