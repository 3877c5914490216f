//! `steadfast client` as a process, against `steadfast serve`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Longest that any one thing may take. Generous: only a test that fails waits for it.
const WAIT: Duration = Duration::from_secs(120);

const ROUTES: &str = "
[[routes]]
path = '/echo'
app = 'echo'
subprotocols = ['two', 'three']

[[routes]]
path = '/rooms/{name}'
app = 'rooms'

[[routes]]
path = '/secret'
app = 'echo'
tokens = ['open-sesame']
";

fn steadfast() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.env_remove("NO_COLOR");
    command
}

/// The server; killed when dropped, its successors included, with its folder.
struct Server {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Server {
    fn start(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("steadfast-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        // The control socket's folder has to be its owner's alone.
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&folder, private).expect("a folder of ours");
        let config = folder.join("server.toml");
        std::fs::write(&config, ROUTES).expect("a file");
        // Between our letting go of a port and the server's taking it somebody else may have it.
        for _ in 0..5 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = free.local_addr().expect("a bound address");
            drop(free);
            let mut child = steadfast()
                .args([
                    "serve",
                    "--no-supervisor",
                    "--workers",
                    "2",
                    "--listen",
                    &address.to_string(),
                ])
                .args(["--listen", &format!("unix:{}", folder.join("socket").display())])
                .arg("--config")
                .arg(&config)
                .arg("--control")
                .arg(folder.join("control"))
                .stdin(Stdio::null())
                // A group of its own, so that its successors can be found and ended.
                .process_group(0)
                .spawn()
                .expect("the binary starts");
            if accepts(address, &mut child) {
                return Self { child, address, folder };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("the server never came to accept connections");
    }

    fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// What the server answers to a verb, in JSON; the verb has to succeed.
    #[track_caller]
    fn operate(&self, verb: &str) -> serde_json::Value {
        let control = self.folder.join("control");
        let output = steadfast().args([verb, "--json", "--control"]).arg(control).output();
        let output = output.expect("the binary starts");
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{answer}");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// Replaces the server while it has this many connections, and waits for the end of the one
    /// that served.
    #[track_caller]
    fn upgrade(&mut self, connections: u64) {
        let before = self.operate("status")["pid"].clone();
        let outcome = self.operate("upgrade");
        assert_eq!(outcome["connections"], connections, "{outcome}");
        assert_eq!(outcome["refused"], serde_json::json!([]), "{outcome}");
        assert_ne!(outcome["pid"], before, "{outcome}");
        let until = Instant::now() + WAIT;
        // Until the predecessor has ended both may answer.
        while is_alive(&before) {
            let _ = self.child.try_wait();
            assert!(Instant::now() < until, "process {before} does not end");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.operate("status")["pid"], outcome["pid"], "{outcome}");
    }

    /// The client on a path of this server, with this input.
    fn client(&self, flags: &[&str], path: &str, input: &[u8]) -> Run {
        run(&[flags, &[&self.url(path)]].concat(), input)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ =
            Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn accepts(address: SocketAddr, child: &mut Child) -> bool {
    let until = Instant::now() + WAIT;
    while Instant::now() < until && child.try_wait().expect("a child's status").is_none() {
        if TcpStream::connect(address).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Whether a process runs; one that has ended may still have a status nobody has taken.
fn is_alive(pid: &serde_json::Value) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
}

/// What a client came to.
struct Run {
    status: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl Run {
    #[track_caller]
    fn assert(&self, status: i32, out: &str, err_part: &str) {
        assert_eq!(self.status, Some(status), "{}", self.err);
        assert_eq!(String::from_utf8_lossy(&self.out), out, "{}", self.err);
        assert!(self.err.contains(err_part), "{:?} lacks {err_part:?}", self.err);
    }
}

fn run(args: &[&str], input: &[u8]) -> Run {
    let mut live = Live::start(args);
    let (mut stdin, input) = (live.stdin.take().expect("piped"), input.to_vec());
    // A client that does not want it all closes the pipe.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let run = live.end();
    writer.join().expect("the writer does not panic");
    run
}

/// A client at work; killed when dropped.
struct Live {
    child: Child,
    stdin: Option<ChildStdin>,
    stderr: Option<BufReader<ChildStderr>>,
    err: String,
}

impl Live {
    fn start(args: &[&str]) -> Self {
        let mut child = steadfast()
            .arg("client")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdin = child.stdin.take();
        let stderr = child.stderr.take().map(BufReader::new);
        Self { child, stdin, stderr, err: String::new() }
    }

    /// Reads stderr until a line has this in it.
    fn wait_for(&mut self, part: &str) {
        let stderr = self.stderr.as_mut().expect("not at its end");
        while !self.err.contains(part) {
            let len = stderr.read_line(&mut self.err).expect("text");
            assert_ne!(len, 0, "{:?} lacks {part:?}", self.err);
        }
    }

    /// Sends a line and reads one, which has to be the same.
    #[track_caller]
    fn assert_echo(&mut self, stdout: &mut BufReader<ChildStdout>, line: &str) {
        writeln!(self.stdin.as_mut().expect("not at its end"), "{line}").expect("a reader");
        let mut echo = String::new();
        stdout.read_line(&mut echo).expect("text");
        assert_eq!(echo, format!("{line}\n"), "{}", self.err);
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for its end.
    fn end(mut self) -> Run {
        let (sender, read) = mpsc::channel();
        let mut stdout = self.child.stdout.take().expect("piped");
        let mut stderr = self.stderr.take().expect("not at its end");
        let mut err = std::mem::take(&mut self.err);
        thread::spawn(move || {
            let reader = thread::spawn(move || {
                stderr.read_to_string(&mut err).expect("text");
                err
            });
            let mut out = Vec::new();
            stdout.read_to_end(&mut out).expect("a pipe");
            let _ = sender.send((out, reader.join().expect("no panic")));
        });
        let (out, err) = read.recv_timeout(WAIT).expect("the client ends in time");
        let status = self.child.wait().expect("a child's status").code();
        Run { status, out, err }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_pipe_is_echoed_line_by_line() {
    let server = Server::start("echo");
    let run = server.client(&[], "/echo", b"hi\n\n/ping\n\xc3\xbc");
    run.assert(0, "hi\n\n/ping\nü\n", "closed: 1000");
    assert!(run.err.contains("compressed"), "{}", run.err);
    let run = server.client(&["--no-compress"], "/echo", b"hi\n");
    run.assert(0, "hi\n", "connected");
    assert!(!run.err.contains("compressed"), "{}", run.err);
    let run = server.client(&["--quiet"], "/echo", b"");
    run.assert(0, "", "");
    assert_eq!(run.err, "");
    let many: String = (0..100_000).map(|line| format!("line {line}\n")).collect();
    let run = server.client(&[], "/echo", many.as_bytes());
    assert!(run.out == many.as_bytes(), "{} bytes; {}", run.out.len(), run.err);
}

#[test]
fn ten_megabytes_come_back_as_they_went() {
    let server = Server::start("big");
    // Noise, and what can be compressed.
    let mut state = 1_u64;
    let bytes: Vec<u8> = (0..10_000_000_u32)
        .map(|at| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if at < 5_000_000 { (state >> 33) as u8 } else { (at >> 12) as u8 }
        })
        .collect();
    let run = server.client(&["--binary", "--raw"], "/echo", &bytes);
    assert_eq!(run.status, Some(0), "{}", run.err);
    assert!(run.out == bytes, "{} bytes; {}", run.out.len(), run.err);
}

#[test]
fn binary_messages() {
    let server = Server::start("binary");
    let dump = |hex: &str, ascii: &str| format!("00000000  {hex:<47}  |{ascii}|\n");
    let run = server.client(&["--binary"], "/echo", b"a\n\xff");
    run.assert(0, &dump("61 0a ff", "a.."), "");
    let run = server.client(&["--interactive", "--binary"], "/echo", b"ab\n");
    run.assert(0, &dump("61 62", "ab"), "");
    let run = server.client(&[], "/echo", b"fine\n\xff\nnot sent\n");
    run.assert(1, "fine\n", "not UTF-8");
}

#[test]
fn commands_and_close_codes() {
    let server = Server::start("commands");
    let input = b"/ping are you there\n/pong\n//slash\n/nope\n/close 3001 so long\nnot sent\n";
    let run = server.client(&["--interactive"], "/echo", input);
    run.assert(0, "/slash\n", "closed: 3001 so long");
    assert!(run.err.contains("pong: are you there\n"), "{}", run.err);
    assert!(run.err.contains("no command /nope"), "{}", run.err);

    // Beyond the server's message_bytes_max; it says why, though our Close crosses its own.
    let run = server.client(&[], "/echo", &vec![b'x'; 3 << 20]);
    run.assert(1, "", "closed by the server: 1009");
}

#[test]
fn enough_is_enough() {
    let server = Server::start("messages");
    server.client(&["-n", "2"], "/echo", b"1\n2\n3\n").assert(0, "1\n2\n", "");
    let run = server.client(&["-n", "3", "--wait", "0.2"], "/echo", b"1\n");
    run.assert(1, "1\n", "1 of 3 messages came");

    // A listener whose input has ended waits for what others say.
    let mut listener = Live::start(&["-n", "1", &server.url("/rooms/lobby")]);
    drop(listener.stdin.take());
    listener.wait_for("connected");
    server.client(&[], "/rooms/lobby", b"news\n").assert(0, "", "");
    listener.end().assert(0, "news\n", "closed: 1000");
}

#[test]
fn what_the_handshake_asks_for() {
    let server = Server::start("handshake");
    let run = server.client(&["-s", "one", "-s", "two"], "/echo", b"");
    run.assert(0, "", "subprotocol two");
    server.client(&[], "/none", b"").assert(1, "", "404 Not Found\nthere is nothing");
    server.client(&[], "/secret", b"").assert(1, "", "401 Unauthorized\n");
    let token = ["-H", "Authorization: Bearer open-sesame"];
    server.client(&token, "/secret", b"hi\n").assert(0, "hi\n", "");
    let run = server.client(&["--origin", "http://elsewhere.example"], "/echo", b"");
    run.assert(1, "", "403 Forbidden");

    let socket = format!("unix:{}:/echo", server.folder.join("socket").display());
    run_ok(&[&socket], b"hi\n", "hi\n");
}

#[track_caller]
fn run_ok(args: &[&str], input: &[u8], out: &str) {
    run(args, input).assert(0, out, "");
}

#[test]
fn a_server_that_is_gone() {
    let mut server = Server::start("gone");
    let mut client = Live::start(&["--interactive", &server.url("/echo")]);
    client.wait_for("connected");
    server.child.kill().expect("it runs");
    server.child.wait().expect("it ends");
    client.end().assert(1, "", "connection lost");
    server.client(&[], "/echo", b"").assert(1, "", "cannot connect");
}

#[test]
fn an_upgraded_server_keeps_its_connection() {
    let mut server = Server::start("upgraded");
    for flags in [&[][..], &["--no-compress"]] {
        let mut client = Live::start(&[flags, &["--interactive", &server.url("/echo")]].concat());
        let mut stdout = BufReader::new(client.child.stdout.take().expect("piped"));
        client.wait_for("connected");
        client.assert_echo(&mut stdout, "before");
        for round in 0..3 {
            server.upgrade(1);
            client.assert_echo(&mut stdout, &format!("after {round}"));
        }
        let stdin = client.stdin.as_mut().expect("not at its end");
        stdin.write_all(b"/ping still there\n").expect("a reader");
        client.wait_for("pong: still there");
        assert!(!client.err.contains("closed"), "{}", client.err);
        drop(client.stdin.take());
        client.wait_for("closed: 1000");
        assert_eq!(client.err.matches("connected").count(), 1, "{}", client.err);
        assert_eq!(client.child.wait().expect("a child's status").code(), Some(0));
    }
}

#[test]
fn signals_close() {
    let server = Server::start("signals");
    for name in ["-INT", "-TERM", "-HUP"] {
        let mut client = Live::start(&["--interactive", &server.url("/echo")]);
        client.wait_for("connected");
        client.signal(name);
        client.end().assert(0, "", "closed: 1000");
    }

    // Before the connection is open there is nothing to close.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = silent.local_addr().expect("a bound address");
    let client = Live::start(&[&format!("ws://{address}/")]);
    let _connection = silent.accept().expect("the client connects");
    client.signal("-INT");
    assert_eq!(client.end().status, Some(130));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let server = Server::start("head");
    let mut client = Live::start(&["--quiet", &server.url("/echo")]);
    let mut stdin = client.stdin.take().expect("piped");
    let writer = thread::spawn(move || while stdin.write_all(b"y\n").is_ok() {});
    let mut stdout = client.child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 2]).expect("an echo");
    drop(stdout);
    assert_eq!(client.child.wait().expect("a child's status").code(), Some(0));
    writer.join().expect("no panic");
}

#[test]
fn wrong_usage() {
    for (args, part) in [
        (&["example.org"][..], "no scheme"),
        (&["wss://127.0.0.1/"], "TLS"),
        (&["-H", "no colon", "ws://127.0.0.1/"], "Name: value"),
        (&["-H", "Upgrade: h2c", "ws://127.0.0.1/"], "\"Upgrade\" cannot be sent"),
        (&["-s", "a b", "ws://127.0.0.1/"], "\"a b\" cannot be offered"),
        (&["--wait", "-1", "ws://127.0.0.1/"], ""),
        (&[], "URL"),
    ] {
        run(args, b"").assert(2, "", part);
    }
}

#[test]
fn the_help_says_how_it_ends() {
    let run = run(&["--help"], b"");
    assert_eq!(run.status, Some(0));
    let help = String::from_utf8(run.out).expect("text");
    for part in ["/ping", "--wait", "Exit status: 0", "echo hi |"] {
        assert!(help.contains(part), "{help}");
    }
}
