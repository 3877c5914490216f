//! How a server may come to its addresses beside being started on free ones: taking everything over
//! from a server that somebody else has started, and sharing the addresses with it until that drains.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::*;

/// `steadfast serve` with a supervisor, as an operator starts it.
struct Service {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
    /// Where its processes look how to die, in a build that can.
    fault: PathBuf,
}

impl Service {
    /// Starts it, and does not wait.
    fn spawn(address: SocketAddr, args: &[&str]) -> Self {
        Self::spawn_by(&mut steadfast(), address, args, fresh_path(".fault"))
    }

    /// Starts another one, to take over from this one or to be alongside.
    fn beside(&self, args: &[&str]) -> Self {
        self.beside_by(&mut steadfast(), args)
    }

    /// The same by another command, whose last argument is the program.
    fn beside_by(&self, command: &mut Command, args: &[&str]) -> Self {
        Self::spawn_by(command, self.address, args, self.fault.clone())
    }

    fn spawn_by(command: &mut Command, address: SocketAddr, args: &[&str], fault: PathBuf) -> Self {
        let log = fresh_path(".log");
        // Without the feature it would be a setting that nobody knows.
        if cfg!(feature = "fault-points") {
            command.env("STEADFAST_FAULT", &fault);
        }
        let child = command
            .args(["serve", "--workers", "2", "--listen", &address.to_string()])
            .args(args)
            .stderr(File::create(&log).expect("a log file"))
            .process_group(0)
            .spawn()
            .expect("the program starts");
        Self { child, address, log, fault }
    }

    /// Starts the first server of an address, and waits until it serves.
    #[track_caller]
    fn start(args: &[&str]) -> Self {
        // Between our letting go of a port and the server's taking it somebody else may have it.
        for _ in 0..5 {
            let mut service = Self::spawn(free_address(), args);
            let mut ended = false;
            wait_until("a server", || {
                ended = service.child.try_wait().expect("a status").is_some();
                ended || service.serves()
            });
            if !ended {
                return service;
            }
        }
        panic!("the server found no free port");
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn serves(&self) -> bool {
        self.log().contains("steadfast serves")
    }

    #[track_caller]
    fn wait_until_it_serves(&mut self) {
        wait_until("a server", || {
            let status = self.child.try_wait().expect("a status");
            assert!(status.is_none(), "{status:?}: {}", self.log());
            self.serves()
        });
    }

    #[track_caller]
    fn wait_for_its_end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("an end", || {
            status = self.child.try_wait().expect("a status");
            status.is_some()
        });
        status.expect("waited for")
    }

    fn verb(&self, verb: &str) -> Command {
        let mut command = steadfast();
        command.args([verb, "--listen", &self.address.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What whoever has the control socket says of itself, if anybody has.
    fn status(&self) -> Option<serde_json::Value> {
        let output = self.verb("status").arg("--json").output().expect("the binary runs");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        status["generation"].is_u64().then_some(status)
    }

    /// Whether the server at the control socket is this one's.
    fn has_control(&self) -> bool {
        let supervisor = self.status().and_then(|status| status["supervisor_pid"].as_u64());
        supervisor == Some(self.child.id().into())
    }

    fn connect(&self) -> Client {
        Client::over(TcpStream::connect(self.address).expect("somebody listens"))
    }

    fn open(&self, path: &str) -> Client {
        let mut client = self.connect();
        client.upgrade(path, "");
        client
    }

    /// From now on a process of its own, or of one that was started beside it, which comes to
    /// `point` meets its fate.
    #[cfg(feature = "fault-points")]
    fn die_at(&self, point: &str, how: &str) {
        fs::write(&self.fault, format!("{point}:{how}")).expect("a written file");
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = fs::write(&self.fault, "");
        for signal in ["INT", "KILL"] {
            let until = Instant::now() + Duration::from_secs(5);
            while Instant::now() < until {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                let pid = self.child.id().to_string();
                let _ = Command::new("kill").args(["-s", signal, &pid]).status();
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Half a message, sent before; the other half and its echo come after.
fn cut_message() -> (Vec<u8>, Vec<u8>) {
    let whole = frame(FIN | TEXT, "who is cut in the middle goes on".as_bytes());
    let (first, second) = whole.split_at(11);
    (first.to_vec(), second.to_vec())
}

#[track_caller]
fn goes_on(client: &mut Client, rest: &[u8]) {
    client.send_bytes(rest);
    client.expect_text("who is cut in the middle goes on");
}

#[test]
fn whoever_is_started_elsewhere_takes_everything_over() {
    let mut first = Service::start(&[]);
    let mut cut = first.open("/echo");
    let (half, rest) = cut_message();
    cut.send_bytes(&half);
    let mut member = first.open("/rooms/a?self=1");
    member.assert_echo("before");

    let mut second = first.beside(&["--takeover"]);
    second.wait_until_it_serves();
    goes_on(&mut cut, &rest);
    member.assert_echo("after");
    assert!(first.wait_for_its_end().success(), "{}", first.log());
    assert!(second.has_control(), "{:?}", second.status());
    assert_eq!(second.status().expect("a server")["generation"], 2);

    // It is a server like any other: it can be upgraded, taken over from, and stopped.
    let upgraded = second.verb("upgrade").output().expect("the binary runs");
    assert!(upgraded.status.success(), "{upgraded:?}");
    member.assert_echo("after an upgrade");
    let mut third = first.beside(&["--takeover", "--no-supervisor"]);
    third.wait_until_it_serves();
    member.assert_echo("without a supervisor");
    assert!(second.wait_for_its_end().success(), "{}", second.log());
    assert_eq!(third.status().expect("a server")["generation"], 4);
    third.signal("INT");
    assert_eq!(member.skip_to_close(), Some(1001));
    assert!(third.wait_for_its_end().success(), "{}", third.log());
}

#[test]
fn a_server_that_took_over_comes_back_after_a_crash() {
    let mut first = Service::start(&[]);
    let mut second = first.beside(&["--takeover"]);
    second.wait_until_it_serves();
    first.wait_for_its_end();
    let status = second.status().expect("a server");
    let pid = &status["pid"];
    let kill = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
    assert!(kill.expect("kill runs").success());
    wait_until("another server", || second.status().is_some_and(|status| status["pid"] != *pid));
    second.open("/echo").assert_echo("again");
    assert!(second.has_control());
}

#[test]
fn where_there_is_nobody_it_begins_as_usual() {
    let service = Service::start(&["--takeover"]);
    service.open("/echo").assert_echo("first");
    assert_eq!(service.status().expect("a server")["generation"], 1);
}

#[test]
fn what_cannot_be_taken_over_stays() {
    let first = Service::start(&[]);
    let mut client = first.open("/echo");
    let clients: Vec<Client> = (0..300).map(|_| first.open("/echo")).collect();
    // Too few descriptors for so many connections.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 200 && exec \"$0\" \"$@\""]).arg(steadfast().get_program());
    limited.env("XDG_RUNTIME_DIR", scratch()).stdin(Stdio::null()).stdout(Stdio::null());
    let mut second = first.beside_by(&mut limited, &["--takeover"]);
    assert_eq!(second.wait_for_its_end().code(), Some(1));
    let log = second.log();
    assert!(log.contains("nothing was taken over") && log.contains("ulimit -n"), "{log}");
    client.assert_echo("still here");
    assert!(first.has_control());
    drop(clients);

    // Where it listens with port 0 is not known, so whom to call is not either.
    let mut third = Service::spawn("127.0.0.1:0".parse().expect("an address"), &["--takeover"]);
    assert_eq!(third.wait_for_its_end().code(), Some(1));
    assert!(third.log().contains("give --control PATH"), "{}", third.log());

    // One at a time.
    let sleeper = write_program("#!/bin/sh\nexec sleep 60\n", 0o755);
    let mut upgrade = first.verb("upgrade").arg("--binary").arg(&sleeper).spawn().expect("a verb");
    wait_until("an upgrade under way", || {
        first.status().is_some_and(|status| status["activity"] == "upgrading")
    });
    let mut fourth = first.beside(&["--takeover"]);
    assert_eq!(fourth.wait_for_its_end().code(), Some(1));
    assert!(fourth.log().contains("another upgrade is in progress"), "{}", fourth.log());
    upgrade.kill().expect("a verb that runs");
    upgrade.wait().expect("its end");
    client.assert_echo("and still");
}

#[test]
fn whoever_asks_and_goes_leaves_everything_as_it_was() {
    let mut first = Service::start(&[]);
    let mut client = first.open("/echo");
    let control = scratch().join(format!("steadfast/{}.sock", first.address.port()));
    for _ in 0..3 {
        let mut caller = UnixStream::connect(&control).expect("a server");
        let request = b"{\"version\":1,\"request\":\"hand_over\"}\n";
        io::Write::write_all(&mut caller, request).expect("a request");
        // A read that takes no descriptors: the kernel closes the channel that came with the line.
        let mut line = [0; 256];
        let len = caller.read(&mut line).expect("a reply");
        assert!(line[..len].starts_with(b"{\"version\":1,\"reply\":\"channel\"}"), "{line:?}");
        drop(caller);
        client.assert_echo("whoever it was");
        wait_until("that to be over", || {
            first.status().is_some_and(|status| status["activity"] == "serving")
        });
    }
    let mut second = first.beside(&["--takeover"]);
    second.wait_until_it_serves();
    client.assert_echo("somebody who means it");
    assert!(first.wait_for_its_end().success(), "{}", first.log());
}

/// A command that runs the program in namespaces of its own; `None` where that is not permitted.
fn unshared(flags: &[&str], script: &str) -> Option<Command> {
    let probe = Command::new("unshare").args(flags).arg("true").stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("not tested: no namespaces may be made here (unshare {flags:?})");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(flags).args(["sh", "-c", script]).arg(steadfast().get_program());
    command.env("XDG_RUNTIME_DIR", scratch()).stdin(Stdio::null()).stdout(Stdio::null());
    Some(command)
}

#[test]
fn sockets_of_another_network_are_not_taken() {
    let first = Service::start(&[]);
    let mut client = first.open("/echo");
    let Some(mut elsewhere) = unshared(&["--net"], "exec \"$0\" \"$@\"") else {
        return;
    };
    let mut second = first.beside_by(&mut elsewhere, &["--takeover"]);
    assert_eq!(second.wait_for_its_end().code(), Some(1));
    assert!(second.log().contains("network namespace"), "{}", second.log());
    client.assert_echo("still here");
    assert!(first.has_control());
}

/// By another clock everybody would have been idle for too long, or not at all for hours.
#[test]
fn connections_of_another_time_are_not_taken() {
    let first = Service::start(&[]);
    let mut client = first.open("/echo");
    for ahead in ["100000", "-1"] {
        let flags = ["--time", "--monotonic", ahead, "--fork", "--kill-child"];
        let Some(mut elsewhere) = unshared(&flags, "exec \"$0\" \"$@\"") else {
            return;
        };
        let mut second = first.beside_by(&mut elsewhere, &["--takeover"]);
        assert_eq!(second.wait_for_its_end().code(), Some(1));
        assert!(second.log().contains("time namespace"), "{}", second.log());
        client.assert_echo("still here");
        assert!(first.has_control());
    }
}

/// As in two containers that share the control socket's directory, at different places.
#[test]
fn another_container_takes_over_by_a_path_of_its_own() {
    let (ours, theirs) = (fresh_path(".control"), fresh_path(".mounted"));
    for folder in [&ours, &theirs] {
        fs::create_dir(folder).expect("a new folder");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(folder, mode).expect("a folder of ours");
    }
    let socket = |folder: &Path| folder.join("a.sock").to_str().expect("UTF-8").to_owned();
    let mut first = Service::start(&["--control", &socket(&ours)]);
    let mut client = first.open("/echo");
    let script = format!(
        "mount --bind {} {} && exec \"$0\" \"$@\"",
        ours.to_str().expect("UTF-8"),
        theirs.to_str().expect("UTF-8"),
    );
    // The server is process 2 there, and no process of ours.
    let flags = ["--mount", "--pid", "--fork", "--kill-child"];
    let Some(mut container) = unshared(&flags, &script) else {
        return;
    };
    let args = ["--takeover", "--control", &socket(&theirs)];
    let mut second = first.beside_by(&mut container, &args);
    second.wait_until_it_serves();
    client.assert_echo("in another container");
    assert!(first.wait_for_its_end().success(), "{}", first.log());
    // From our side the same socket is still where it was.
    let status = || {
        let mut command = steadfast();
        command.args(["status", "--json", "--control", &socket(&ours)]).stdout(Stdio::piped());
        let output = command.output().expect("the binary runs");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("a status")
    };
    assert_eq!(status()["generation"], 2);
    assert!(status()["pid"].as_u64().expect("a number") < 100, "an id of the container's");
}

/// Connects, asks and leaves again and again, and counts what went wrong.
struct Visitors {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<(usize, Vec<String>)>>,
}

impl Visitors {
    fn begin(address: SocketAddr, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count)
            .map(|_| {
                let stop = stop.clone();
                thread::spawn(move || {
                    let (mut visits, mut faults) = (0, Vec::new());
                    while !stop.load(Ordering::SeqCst) {
                        match visit(address) {
                            Ok(()) => visits += 1,
                            Err(error) => faults.push(error.to_string()),
                        }
                    }
                    (visits, faults)
                })
            })
            .collect();
        Self { stop, threads }
    }

    /// How many visits there have been.
    #[track_caller]
    fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = 0;
        for thread in self.threads {
            let (visits, faults) = thread.join().expect("a thread without a panic");
            assert_eq!(faults, [""; 0]);
            all += visits;
        }
        all
    }
}

/// A request that is answered and closed by the server, whichever that is.
fn visit(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WAIT))?;
    io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    // A server that drains has said that one may try again: nobody was cut off.
    let answer = String::from_utf8_lossy(&answer);
    let head = answer.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
    let asks_again = head.starts_with("http/1.1 503 ") && head.contains("retry-after: 1");
    match head.starts_with("http/1.1 200 ") || asks_again {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::InvalidData, head)),
    }
}

#[test]
fn a_server_alongside_goes_on_alone_and_nobody_is_refused() {
    let mut first = Service::start(&["--drain-duration", "200ms"]);
    let mut old = first.open("/echo");
    let mut second = first.beside(&["--alongside"]);
    second.wait_until_it_serves();
    assert!(first.has_control(), "it takes nothing");
    old.assert_echo("nothing was taken");
    let connections = |service: &Service| service.status().map(|it| it["connections"].as_u64());
    assert_eq!(connections(&first), Some(Some(1)));
    // Both get some.
    let many: Vec<Client> = (0..64).map(|_| first.open("/echo")).collect();
    let of_first = connections(&first).flatten().expect("a count");
    assert!((2..65).contains(&of_first), "{of_first} of 65");
    drop(many);

    let visitors = Visitors::begin(first.address, 3);
    let drain = first.verb("drain").spawn().expect("the binary runs");
    assert_eq!(old.frame().close_code(), Some(1012));
    old.send(FIN | CLOSE, &1012_u16.to_be_bytes());
    old.expect_end();
    let drained = drain.wait_with_output().expect("its end");
    assert!(drained.status.success(), "{drained:?}");
    assert!(first.wait_for_its_end().success(), "{}", first.log());
    assert!(first.log().contains("new connections go to the server alongside"), "{}", first.log());
    wait_until("the control socket's new owner", || second.has_control());
    assert!(visitors.end() > 10);

    // The second is the server now, and all of it: nobody may come beside it unasked, new
    // connections are not steered any more, and it can be upgraded.
    let mut third = first.beside(&[]);
    assert_eq!(third.wait_for_its_end().code(), Some(1));
    assert!(third.log().contains("another Steadfast serves"), "{}", third.log());
    let mut client = second.open("/echo");
    let upgraded = second.verb("upgrade").output().expect("the binary runs");
    assert!(upgraded.status.success(), "{upgraded:?}");
    client.assert_echo("after an upgrade");
    assert!(second.has_control());
}

#[test]
fn a_server_alongside_is_upgraded_there_and_still_gains_what_it_waits_for() {
    let mut first = Service::start(&["--drain-duration", "200ms"]);
    let control = fresh_path(".sock");
    let control = control.to_str().expect("UTF-8");
    let mut second = first.beside(&["--alongside"]);
    second.wait_until_it_serves();
    second.signal("HUP");
    wait_until("an upgrade", || second.log().contains("\"upgraded\""));
    assert!(first.has_control(), "{control}");
    assert!(first.verb("drain").output().expect("the binary runs").status.success());
    assert!(first.wait_for_its_end().success());
    wait_until("the control socket's new owner", || second.has_control());
    assert_eq!(second.status().expect("a server")["generation"], 2);
    second.open("/echo").assert_echo("alone");
}

#[test]
fn a_unix_socket_cannot_be_shared() {
    let path = fresh_path(".sock");
    let path = format!("unix:{}", path.to_str().expect("UTF-8"));
    let address = free_address();
    let _first = {
        let mut service = Service::spawn(address, &["--listen", &path]);
        service.wait_until_it_serves();
        service
    };
    let mut second = Service::spawn(address, &["--alongside", "--listen", &path]);
    assert_eq!(second.wait_for_its_end().code(), Some(1));
    assert!(second.log().contains("cannot listen on unix:"), "{}", second.log());
    assert!(second.log().contains("it is not shared"), "{}", second.log());
}

/// A process that is told both does not guess.
#[test]
fn nobody_takes_over_and_shares_at_once() {
    let mut service = Service::spawn(free_address(), &["--takeover", "--alongside"]);
    assert_eq!(service.wait_for_its_end().code(), Some(2));
}

/// One of the two dies meanwhile: either the first service goes on, if need be with another server of
/// its supervisor's, or the second one does, and never both.
#[cfg(feature = "fault-points")]
mod deaths {
    use super::*;

    /// Who is left, and whether with the connection there was.
    #[derive(Debug, PartialEq, Eq)]
    enum Left {
        First { connected: bool },
        Second { connected: bool },
    }

    #[track_caller]
    fn die_at(point: &str, how: &str) -> Left {
        let mut first = Service::start(&[]);
        let mut client = first.open("/echo");
        client.assert_echo("before");
        first.die_at(point, how);
        let mut second = first.beside(&["--takeover"]);
        let (mut of_first, mut of_second) = (None, None);
        wait_until("one of two", || {
            of_first = first.child.try_wait().expect("a status");
            of_second = second.child.try_wait().expect("a status");
            of_first.is_some() != of_second.is_some()
        });
        fs::write(&first.fault, "").expect("a written file");
        wait_until("a server", || first.has_control() || second.has_control());
        client.send_text("after");
        let connected = matches!(client.try_frame(), Ok(Some(frame)) if frame.text() == "after");
        // There is no other: all that come are served by the one that says so.
        let newcomers: Vec<Client> = (0..32).map(|_| first.open("/echo")).collect();
        wait_until("all of them", || {
            let status = first.status().expect("a server");
            status["connections"] == newcomers.len() + usize::from(connected)
        });
        let log = [first.log(), second.log()].join("\n\n");
        match (of_first, of_second) {
            (None, Some(status)) => {
                assert!(!status.success(), "{log}");
                assert!(first.has_control(), "{log}");
                Left::First { connected }
            }
            (Some(status), None) => {
                assert!(!status.success(), "a crash is none, {log}");
                assert!(second.has_control(), "{log}");
                Left::Second { connected }
            }
            both => panic!("{both:?}: {log}"),
        }
    }

    #[test]
    fn whoever_takes_over_dies_before_it_has() {
        for point in [
            "successor-hello",
            "successor-prepared",
            "successor-parking",
            "successor-loaded",
            "successor-adopted",
        ] {
            assert_eq!(die_at(point, "kill"), Left::First { connected: true }, "{point}");
        }
    }

    #[test]
    fn whoever_takes_over_dies_as_the_owner() {
        assert_eq!(die_at("successor-taken", "kill"), Left::First { connected: false });
    }

    #[test]
    fn whoever_is_taken_over_from_dies_with_its_connections() {
        for (point, how) in [
            ("predecessor-ready", "kill"),
            ("predecessor-copying", "kill"),
            ("predecessor-frozen", "kill"),
            ("predecessor-saving", "late"),
        ] {
            assert_eq!(die_at(point, how), Left::Second { connected: false }, "{point}");
        }
    }

    #[test]
    fn whoever_is_taken_over_from_dies_when_all_is_there() {
        for point in ["predecessor-adopted", "predecessor-offered"] {
            assert_eq!(die_at(point, "kill"), Left::Second { connected: true }, "{point}");
        }
    }
}
