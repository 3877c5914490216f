//! What tests of the whole server share: the binary on a port of its own, a client that knows
//! nothing of the server's code, and a look at the process from outside.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part of it")]

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

mod client;
mod house;

pub use client::*;
pub use house::*;

/// Longest that any one answer may take. Generous: only a test that fails waits for it, and a machine
/// that does much else is no fault of the server's.
pub const WAIT: Duration = Duration::from_secs(120);

pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * 1024;

/// Waits until something holds; fails if it does not come to.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < until, "never came to be: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A folder for what tests write.
pub fn scratch() -> PathBuf {
    let folder = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("steadfast-test-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

/// A path in the scratch folder that nothing else has.
pub fn fresh_path(suffix: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    scratch().join(format!("{}{suffix}", NUMBER.fetch_add(1, Ordering::Relaxed)))
}

/// A port that was free a moment ago.
pub fn free_address() -> SocketAddr {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    free.local_addr().expect("a bound address")
}

/// The server's binary: the one cargo has built for this test, the one named by
/// `STEADFAST_BINARY`, or the one beside the running program.
fn binary() -> PathBuf {
    if let Some(built) = option_env!("CARGO_BIN_EXE_steadfast") {
        return built.into();
    }
    if let Some(named) = std::env::var_os("STEADFAST_BINARY") {
        return named.into();
    }
    let program = std::env::current_exe().expect("a running program has a path");
    program.with_file_name("steadfast")
}

/// The command for the binary, with nothing of this process's environment that could matter.
pub fn steadfast() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STEADFAST_") {
            command.env_remove(name);
        }
    }
    command.env("XDG_RUNTIME_DIR", scratch()).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// What a server gives a test's clients more time for than other clients: a client that waits for its
/// turn on a busy machine is not dead. Keys that the configuration names itself are left alone.
fn patience(config: &str) -> Vec<(&'static str, &'static str)> {
    let mut keys = vec![
        ("pong_timeout", "STEADFAST_LIMITS_PONG_TIMEOUT"),
        ("write_timeout", "STEADFAST_LIMITS_WRITE_TIMEOUT"),
        ("handshake_timeout", "STEADFAST_HEAD_HANDSHAKE_TIMEOUT"),
    ];
    keys.retain(|(key, _)| !config.contains(key));
    keys.into_iter().map(|(_, variable)| (variable, "10m")).collect()
}

/// The binary, serving; killed when dropped, its successors included.
pub struct Server {
    child: Child,
    /// The process that serves: the child, or a successor of it.
    pid: u32,
    pub address: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    fds_base: usize,
    /// What is known of it if it has processes of more groups than one.
    house: Option<House>,
}

impl Server {
    /// Starts it with a configuration (TOML, without `listen`) and waits until it serves.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same, with more arguments.
    pub fn start_with(config: &str, args: &[&str]) -> Self {
        Self::start_in(config, args, &[])
    }

    /// The same, with more in its environment.
    pub fn start_in(config: &str, args: &[&str], environment: &[(&str, &Path)]) -> Self {
        // Between our letting go of a port and the server's taking it somebody else may have it.
        for _ in 0..5 {
            let address = free_address();
            let config_path = fresh_path(".toml");
            fs::write(&config_path, config).expect("a written configuration");
            let log = fresh_path(".log");
            let child = steadfast()
                // The process that serves is the one to be looked at.
                .args(["serve", "--no-supervisor", "--listen", &address.to_string(), "--config"])
                .arg(&config_path)
                .args(args)
                .envs(patience(config))
                .envs(environment.iter().copied())
                .stderr(File::create(&log).expect("a log file"))
                // A group of its own, so that its successors can be found and ended.
                .process_group(0)
                .spawn()
                .expect("the binary starts");
            let pid = child.id();
            let config = config_path;
            let mut server = Self { child, pid, address, config, log, fds_base: 0, house: None };
            if server.comes_up() {
                server.fds_base = server.fds();
                return server;
            }
            let log = server.log();
            assert!(log.contains("cannot listen"), "the server did not start:\n{log}");
        }
        panic!("the server found no free port");
    }

    fn comes_up(&mut self) -> bool {
        let until = Instant::now() + WAIT;
        while Instant::now() < until {
            if self.child.try_wait().expect("a child's status").is_some() {
                return false;
            }
            // It says so when it has opened all that it keeps open.
            if (self.log().contains("steadfast serves") || self.serves_in_silence())
                && let Ok(mut probe) = TcpStream::connect(self.address)
            {
                // Its end comes behind the server's having let go of it: the count of
                // descriptors is the base then.
                probe.shutdown(std::net::Shutdown::Write).expect("a connected socket");
                probe.set_read_timeout(Some(WAIT)).expect("a timeout above zero");
                return matches!(probe.read(&mut [0; 16]), Ok(0));
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Changes the configuration, for the next process that reads it.
    pub fn configure(&self, config: &str) {
        fs::write(&self.config, config).expect("a written configuration");
    }

    /// Has it hand everything over to a successor, and waits until that serves and the predecessor
    /// is gone.
    #[track_caller]
    pub fn upgrade(&mut self) {
        let before = self.pid;
        let logged = self.logged_of_upgrade();
        let mut successor = None;
        wait_until("a successor", || {
            let log = logged(self);
            assert_eq!(failure_in(&log), None);
            successor = log.lines().rev().find_map(|line| successor_in(line, before));
            successor.is_some()
        });
        self.pid = successor.expect("found above");
        let child = &mut self.child;
        wait_until("the predecessor's end", || match child.id() == before {
            true => child.try_wait().expect("a child's status").is_some(),
            false => !is_alive(before),
        });
    }

    /// The verb, with which an operator reaches this server.
    pub fn verb(&self, verb: &str) -> Command {
        let mut command = steadfast();
        command.args([verb, "--listen", &self.address.to_string()]);
        if let Some(house) = &self.house {
            command.env("XDG_RUNTIME_DIR", house.folder());
            command.args(house.user().map(|uid| format!("--user={uid}")));
        }
        command.stdout(Stdio::piped());
        command
    }

    /// Has an operator ask for an upgrade; whether it succeeded, and what was said of it.
    pub fn upgrade_by_verb(&self, args: &[&str]) -> (bool, String) {
        let output = self.verb("upgrade").args(args).output().expect("the binary starts");
        let said = [output.stdout, output.stderr].concat();
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "{code:?}: {}", String::from_utf8_lossy(&said));
        (code == Some(0), String::from_utf8(said).expect("UTF-8"))
    }

    /// Connections of each worker, as an operator is told.
    #[track_caller]
    pub fn by_worker(&self) -> Vec<usize> {
        let output = self.verb("status").arg("--json").output().expect("the binary starts");
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        let (_, counts) = said.split_once(r#""connections_by_worker":["#).expect("counts");
        let (counts, _) = counts.split_once(']').expect("a list");
        counts.split(',').map(|count| count.parse().expect("a number")).collect()
    }

    /// After the death of the first process: its successor is the server now.
    #[track_caller]
    pub fn follow(&mut self) {
        let first = self.child.id();
        self.exit_status();
        let in_group = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // After the name: state, parent, process group.
            let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
            fields.split(' ').nth(2) == Some(&first.to_string()) && is_alive(*pid)
        };
        let processes = fs::read_dir("/proc").expect("processes").flatten();
        let mut pids =
            processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        self.pid = pids.find(in_group).expect("a process that is left");
    }

    /// Asks for an upgrade that cannot succeed, and waits until that is known.
    #[track_caller]
    pub fn upgrade_in_vain(&mut self) -> String {
        let logged = self.logged_of_upgrade();
        wait_until("a failure", || failure_in(&logged(self)).is_some());
        failure_in(&logged(self)).expect("found above").to_owned()
    }

    /// Asks for an upgrade; what is returned gives what has been logged since then. Lines of the one
    /// before may come now: to log is to queue.
    fn logged_of_upgrade(&self) -> impl Fn(&Self) -> String + use<> {
        let begun = |log: &str| log.matches("\"upgrading\"").count();
        let before = begun(&self.log());
        self.signal("USR2");
        move |server| {
            let log = server.log();
            let since = log.rsplit("\"upgrading\"").next().filter(|_| begun(&log) > before);
            since.unwrap_or_default().to_owned()
        }
    }

    /// Waits until it has logged this.
    #[track_caller]
    pub fn expect_log(&self, text: &str) {
        wait_until(text, || self.log().contains(text));
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal by its name (`TERM`).
    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(kill.expect("kill runs").success());
    }

    /// Sets the limit on its open files while it runs.
    pub fn limit_files(&self, files: usize) {
        let status = Command::new("prlimit")
            .args(["--pid", &self.pid().to_string(), &format!("--nofile={files}:20000")])
            .status();
        assert!(status.expect("prlimit runs").success());
    }

    /// The exit status, once it has ended by itself.
    #[track_caller]
    pub fn exit_status(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the server's end", || {
            status = self.child.try_wait().expect("a child's status");
            status.is_some()
        });
        status.expect("it has ended").code()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child's status").is_none()
    }

    /// Open files now.
    pub fn fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a running server").count()
    }

    /// Open files when it had just started.
    pub fn fds_base(&self) -> usize {
        self.fds_base
    }

    /// Anonymous resident memory in bytes: heap and stacks.
    pub fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a running server");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).expect("RssAnon in status");
        kib.parse::<usize>().expect("a number") * KIB
    }

    /// CPU time used so far, user and system, in the clock ticks of proc_pid_stat(5): 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.expect("a running server");
        // The second field is the program's name in parentheses, which may hold spaces.
        let (_, fields) = stat.rsplit_once(") ").expect("a name in stat");
        let fields = fields.split(' ').skip(11).take(2);
        fields.map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// CPU ticks used in the next `time`.
    pub fn cpu_ticks_in(&self, time: Duration) -> u64 {
        let before = self.cpu_ticks();
        thread::sleep(time);
        self.cpu_ticks() - before
    }

    /// Waits until it uses no CPU to speak of: at most 10 ms in a quarter of a second.
    #[track_caller]
    pub fn wait_idle(&self) {
        wait_until("an idle server", || self.cpu_ticks_in(Duration::from_millis(250)) <= 1);
    }

    /// Waits until every connection but `open` ones has been let go of.
    #[track_caller]
    pub fn wait_fds(&self, open: usize) {
        let base = self.fds_base + open;
        let until = Instant::now() + WAIT;
        while self.fds() != base {
            assert!(Instant::now() < until, "{} files open, not {base}", self.fds());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A TCP connection to it.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::over(TcpStream::connect(self.address).expect("an accepted connection"))
    }

    /// A TCP connection from another address of this machine.
    pub fn connect_from(&self, source: Ipv4Addr) -> io::Result<Client> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // With a chosen address the port is chosen at connect, so that all addresses have theirs.
        socket.set_tcp_nodelay(true)?;
        socket.set_reuse_address(true)?;
        SockRef::from(&socket).bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
        socket.connect(&self.address.into())?;
        Ok(Client::over(socket.into()))
    }

    /// A TCP connection that takes few bytes before it has to be read.
    #[track_caller]
    pub fn connect_narrow(&self) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4 * KIB).expect("a small buffer");
        socket.connect(&self.address.into()).expect("an accepted connection");
        Client::over(socket.into())
    }

    /// An open WebSocket that has asked for messages and read none of them, until what is left of
    /// them is in the server's own queue; [`Client::expect_queued`] reads them.
    #[track_caller]
    pub fn open_slow(&self) -> Client {
        let mut client = self.connect_narrow();
        client.upgrade("/echo", "");
        for number in 0..QUEUED {
            client.send(FIN | BINARY, &queued(number));
        }
        wait_until("a full queue", || self.memory() > 512 * KIB);
        self.wait_idle();
        client
    }

    /// An open WebSocket.
    #[track_caller]
    pub fn open(&self, path: &str) -> Client {
        self.open_with(path, "")
    }

    /// An open WebSocket whose request had more header lines, each with its CRLF.
    #[track_caller]
    pub fn open_with(&self, path: &str, lines: &str) -> Client {
        let mut client = self.connect();
        client.upgrade(path, lines);
        client
    }

    /// Asserts that a connection opens, echoes and closes.
    #[track_caller]
    pub fn assert_healthy(&self) {
        let mut client = self.open("/echo");
        client.assert_echo("are you there?");
        client.close(1000);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(house) = &self.house {
            house.clear();
        }
        let group = format!("-{}", self.child.id());
        let _ =
            Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A successor is a child of init's by now, or of nobody who takes its status.
        let until = Instant::now() + WAIT;
        while is_alive(self.pid) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the server's last lines:");
            for line in &lines[lines.len().saturating_sub(20)..] {
                eprintln!("  {line}");
            }
        }
    }
}

/// The line that says why there was no upgrade.
fn failure_in(log: &str) -> Option<&str> {
    log.lines().find(|line| line.contains("not upgraded"))
}

/// The process that took over from `pid`, if the log line says so.
fn successor_in(line: &str, pid: u32) -> Option<u32> {
    let field = |name: &str| {
        let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
    };
    let upgraded = line.contains("\"upgraded\"") && field("predecessor") == Some(pid);
    upgraded.then(|| field("successor")).flatten()
}

/// Whether a process is there, and not only its status.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
}

/// Removes the files of this test run, for a program that ends (tests leave them to cargo).
pub fn remove_scratch() {
    let _ = fs::remove_dir_all(scratch());
}

/// Whether a path is there.
pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
