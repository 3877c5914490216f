//! Ctrl-C in a terminal, which goes to a whole process group, and a server that crashes.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::*;

#[test]
fn ctrl_c_after_ten_upgrades_ends_them_all() {
    let mut server = Server::start_living(Life::SUPERVISED, "workers = 2\n", &[]);
    let mut client = server.open("/echo");
    for round in 0..10 {
        server.upgrade();
        client.assert_echo(&format!("round {round}"));
    }
    // The group that a shell has made for what was started.
    kill(format!("-{}", server.first_pid()), "INT");
    client.expect_close(1001);
    drop(client);
    assert_eq!(server.exit_status(), Some(0));
    server.wait_for_processes(&[]);
    let refused = TcpStream::connect(server.address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_server_that_crashes_comes_back_later_each_time_and_says_so() {
    let mut server = Server::start_living(Life::SUPERVISED, "workers = 2\n", &[]);
    for (generation, delay_ms) in [(2, 50), (3, 100), (4, 200), (5, 400)] {
        let killed_at = Instant::now();
        kill(server.pid(), "KILL");
        // Nobody is refused meanwhile, for the supervisor has kept the listeners.
        server.assert_healthy();
        server.follow_the_dead();
        assert!(killed_at.elapsed() >= Duration::from_millis(delay_ms));
        let status = server.status();
        assert_eq!(number_in(&status, "generation"), Some(generation), "{status}");
        let line = format!("the server was ended by signal 9; another one starts in {delay_ms}ms");
        server.expect_log(&line);
    }
    // What it was started with is gone; it is tried again until it is there.
    let config = std::fs::read_to_string(server.config()).expect("a configuration");
    server.configure("workers = 'many'\n");
    kill(server.pid(), "KILL");
    wait_until("an attempt", || server.log().contains("the server has ended with status 2"));
    server.configure(&config);
    server.follow_the_dead();
    server.assert_healthy();
    kill(server.first_pid(), "TERM");
    assert_eq!(server.exit_status(), Some(0));
    server.wait_for_processes(&[]);
}
