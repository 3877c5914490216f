//! Where the server listens: Unix sockets, taken ports, wrong configuration.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Client, Life, Server, WAIT, as_user, exists, free_address, fresh_path, kill, scratch,
    steadfast, wait_until, with_environment_of,
};

/// A short path: a socket's has 107 bytes at most.
fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("steadfast-{}-{name}.sock", std::process::id()))
}

#[test]
fn a_unix_socket() {
    let path = socket_path("serve");
    let mut server = Server::start_with(
        "workers = 2\n[[routes]]\npath = \"/echo\"\napp = \"echo\"\nconnections_per_ip_max = 1\n",
        &["--listen", &format!("unix:{}", path.display())],
    );
    // Its peers have no address, so none is counted.
    let mut clients: Vec<Client<UnixStream>> =
        (0..8).map(|_| Client::over(UnixStream::connect(&path).unwrap())).collect();
    for client in &mut clients {
        client.upgrade("/echo", "");
        client.assert_echo("over a Unix socket");
    }
    for mut client in clients {
        client.close(1000);
    }
    server.signal("INT");
    assert_eq!(server.exit_status(), Some(0));
    assert!(!exists(&path), "the socket's path is left behind");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a socket").permissions().mode() & 0o7777
}

#[test]
fn who_may_connect_to_a_unix_socket_is_said_with_its_path() {
    // By default it is up to the directory, whatever the umask is.
    for (options, expected) in [("", 0o666), ("?mode=0600", 0o600), ("?mode=0660&group=0", 0o660)] {
        let path = socket_path("mode");
        let listen = format!("unix:{}{options}", path.display());
        let mut server = Server::start_by(Life::ALONE, "workers = 2\n", |house, mut command| {
            command.args(["--listen", &listen]);
            let mut shell = Command::new("sh");
            shell.args(["-c", "umask 077; exec \"$0\" \"$@\""]);
            shell.arg(command.get_program()).args(command.get_args());
            as_user(Life::ALONE, with_environment_of(shell, &command), house)
        });
        assert_eq!(mode(&path), expected, "{options}");
        UnixStream::connect(&path).unwrap();
        server.signal("INT");
        assert_eq!(server.exit_status(), Some(0));
    }
    let (code, text) = run(&["--listen", "unix:/tmp/steadfast-x?group=no-such-group"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("the group no-such-group cannot be given"), "{text}");
}

/// A supervised server of a configuration file that can be changed; it ends with this.
struct Configured {
    child: Child,
    file: PathBuf,
    log: PathBuf,
}

impl Configured {
    fn start(config: &str) -> Self {
        let (file, log) = (fresh_path(".toml"), fresh_path(".log"));
        fs::write(&file, config).expect("a written configuration");
        let child = steadfast()
            .args(["serve", "--config"])
            .arg(&file)
            .stderr(File::create(&log).expect("a log file"))
            .process_group(0)
            .spawn()
            .expect("the binary starts");
        let configured = Self { child, file, log };
        configured.wait_for("steadfast serves");
        configured
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        wait_until(text, || fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text)));
    }

    /// Upgrades to another configuration.
    fn upgrade(&self, config: &str) {
        fs::write(&self.file, config).expect("a written configuration");
        kill(self.child.id(), "HUP");
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        kill(self.child.id(), "INT");
        let _ = self.child.wait();
    }
}

#[test]
fn an_upgrade_gives_a_unix_socket_the_mode_that_is_configured_then() {
    let path = socket_path("remode");
    let config =
        |mode: &str| format!("workers = 2\nlisten = [\"unix:{}?mode={mode}\"]\n", path.display());
    let server = Configured::start(&config("0600"));
    assert_eq!(mode(&path), 0o600);
    let mut client = Client::over(UnixStream::connect(&path).unwrap());
    client.upgrade("/echo", "");
    server.upgrade(&config("0640"));
    wait_until("the new mode", || mode(&path) == 0o640);
    client.assert_echo("moved");
}

#[test]
fn both_families_may_have_the_same_port() {
    let port = free_address().port();
    let config = |listen: &str| format!("workers = 2\nlisten = [{listen}]\n");
    let both = config(&format!("\"0.0.0.0:{port}\", \"[::]:{port}\""));
    let server = Configured::start(&both);
    let connects = |address: &str| {
        let mut client = Client::over(TcpStream::connect((address, port)).expect("a connection"));
        client.upgrade("/echo", "");
        client
    };
    let mut clients = [connects("127.0.0.1"), connects("::1")];
    server.upgrade(&both);
    server.wait_for("\"generation\":2");
    clients.iter_mut().for_each(|client| client.assert_echo("moved"));
    // A socket stays what it is.
    server.upgrade(&config(&format!("\"[::]:{port}\"")));
    server.wait_for("was bound for IPv6 alone");
    clients.iter_mut().for_each(|client| client.assert_echo("not moved"));
    drop(server);

    let one = config(&format!("\"[::]:{port}\""));
    let server = Configured::start(&one);
    let mut client = connects("127.0.0.1");
    server.upgrade(&both);
    server.wait_for("was bound for IPv4, too");
    client.assert_echo("not moved");
}

#[test]
fn a_socket_left_behind_is_replaced_but_no_other_file() {
    let path = socket_path("left");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listen = format!("unix:{}", path.display());
    let server = Server::start_with("workers = 1\n", &["--listen", &listen]);
    assert!(UnixStream::connect(&path).is_ok());
    // While one serves, another must not.
    let (code, text) = run(&["--listen", &listen]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("another server listens there"), "{text}");
    assert!(UnixStream::connect(&path).is_ok(), "the first one's socket is gone");
    drop(server);
    fs::remove_file(&path).unwrap();

    fs::write(&path, "precious").unwrap();
    let (code, text) = run(&["--listen", &listen]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no socket"), "{text}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
}

/// Runs the server with these arguments until it ends by itself.
#[track_caller]
fn run(args: &[&str]) -> (Option<i32>, String) {
    run_in(&scratch(), args)
}

/// The same, with a folder of its own for locks.
#[track_caller]
fn run_in(runtime: &Path, args: &[&str]) -> (Option<i32>, String) {
    let log = fresh_path(".log");
    let mut child = steadfast()
        .arg("serve")
        .args(args)
        .env("XDG_RUNTIME_DIR", runtime)
        .stderr(File::create(&log).unwrap())
        .spawn()
        .expect("the binary starts");
    let until = Instant::now() + WAIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it serves");
        }
        thread::sleep(Duration::from_millis(5));
    };
    (status.code(), fs::read_to_string(&log).unwrap())
}

#[test]
fn a_second_server_on_the_same_port_is_refused() {
    let server = Server::start("workers = 2\n");
    let address = server.address.to_string();
    let (code, text) = run(&["--listen", &address]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("another Steadfast serves {address}")), "{text}");
    // The lock's folder apart, the port itself tells.
    let (code, text) = run_in(&fresh_path("-runtime"), &["--listen", &address]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("another server listens there"), "{text}");
    server.assert_healthy();
}

#[test]
fn wrong_configuration_is_wrong_usage() {
    let (code, text) = run(&["--listen", "nonsense", "--workers", "many"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("nonsense") && text.contains("many"), "{text}");
    // Whoever reads the log of a service reads objects, also now.
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect(line);
        assert_eq!(line["level"], "ERROR");
    }
    let (code, text) = run(&["--listen", "unix:/nowhere/at/all.sock"]);
    assert_eq!(code, Some(1), "{text}");
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect(line);
    }
}
