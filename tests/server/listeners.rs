//! Where the server listens: Unix sockets, taken ports, wrong configuration.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, Server, WAIT, exists, fresh_path, scratch, steadfast};

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
    let (code, text) = run(&["--listen", "nonsense"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("nonsense"), "{text}");
}
