//! Signals: TERM drains, INT is fast.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{CLOSE, Client, FIN, Server, request, wait_until};

/// Reads up to the server's Close, answers it, and tells when it came.
fn closed(mut client: Client, code: u16, since: Instant) -> Duration {
    let frame = client.frame();
    let at = since.elapsed();
    assert_eq!(frame.close_code(), Some(code), "{frame:?}");
    client.send(FIN | CLOSE, &code.to_be_bytes());
    client.expect_end();
    at
}

/// Waits until each worker knows that the server drains: the log says so before that.
#[track_caller]
fn wait_until_it_drains(server: &Server) {
    // The kernel gives a new connection to either worker: so many in a row are not one worker's.
    const IN_A_ROW: usize = 20;
    let mut refused = 0;
    wait_until("a drain", || {
        let mut client = server.connect();
        client.send_bytes(request("/echo", "").as_bytes());
        refused = if client.response().status == 503 { refused + 1 } else { 0 };
        refused == IN_A_ROW
    });
}

#[test]
fn term_drains_spread_over_its_time() {
    const CONNECTIONS: usize = 60;
    let mut server = Server::start("workers = 2\ndrain_duration = \"2s\"\n");
    let clients: Vec<Client> = (0..CONNECTIONS).map(|_| server.open("/echo")).collect();
    let since = Instant::now();
    server.signal("TERM");
    let readers: Vec<_> = clients
        .into_iter()
        .map(|client| thread::spawn(move || closed(client, 1012, since)))
        .collect();
    let mut at: Vec<Duration> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    at.sort();
    assert_eq!(server.exit_status(), Some(0));
    // Counts in each half, not exact times: the threads of this test share the cores.
    let early = at.iter().filter(|at| **at < Duration::from_millis(500)).count();
    assert!(early < CONNECTIONS * 3 / 4, "{early} of {CONNECTIONS} in the first quarter: {at:?}");
    assert!(at[CONNECTIONS - 1] >= Duration::from_millis(1_500), "all over after {:?}", at.last());
}

#[test]
fn a_room_works_until_its_members_are_told() {
    // The room's home is most probably a worker without connections of its own; a lone connection
    // is told at the end of the drain.
    let mut server = Server::start("workers = 8\ndrain_duration = \"1h\"\n");
    let mut client = server.open("/rooms/a?self=1");
    client.assert_echo("before");
    server.signal("TERM");
    let since = Instant::now();
    // Idle workers could think themselves done half a second after the signal.
    while since.elapsed() < Duration::from_millis(1_500) {
        client.assert_echo("still here");
        thread::sleep(Duration::from_millis(50));
    }
    server.signal("TERM");
    closed(client, 1001, since);
    assert_eq!(server.exit_status(), Some(0));
}

#[test]
fn at_the_limit_of_connections_none_that_waits_is_reset() {
    let mut server = Server::start("workers = 1\nconnections_max = 2\ndrain_duration = \"1s\"\n");
    let open: Vec<Client> = (0..2).map(|_| server.open("/echo")).collect();
    // In the kernel's queue, for which there is no room.
    let mut waiting: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for client in &mut waiting {
        use std::io::Write;
        client.stream.write_all(request("/echo", "").as_bytes()).unwrap();
    }
    wait_until("the limit", || server.log().contains("the limit of connections is reached"));
    let since = Instant::now();
    server.signal("TERM");
    for client in open {
        closed(client, 1012, since);
    }
    // Each goes when it has its answer, which makes room for the next.
    for mut client in waiting {
        assert_eq!(client.response().status, 503);
    }
    assert_eq!(server.exit_status(), Some(0));
}

#[test]
fn new_connections_meanwhile_are_answered_and_none_that_waits_is_reset() {
    let mut server = Server::start("workers = 2\ndrain_duration = \"1h\"\n");
    let open = server.open("/echo");
    // Connected, but their requests come only when the server stops already.
    let mut waiting: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    server.signal("TERM");
    wait_until_it_drains(&server);
    for client in &mut waiting {
        use std::io::Write;
        // It has been told already, maybe.
        let _ = client.stream.write_all(request("/echo", "").as_bytes());
    }
    for client in &mut waiting {
        let response = client.response();
        assert_eq!(response.status, 503);
        assert_eq!(response.header("retry-after"), Some("1"));
    }
    // Whoever comes now is answered, too, for as long as the drain lasts.
    for _ in 0..20 {
        let mut client = server.connect();
        client.send_bytes(request("/echo", "").as_bytes());
        let response = client.response();
        assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    }
    server.signal("TERM");
    closed(open, 1001, Instant::now());
    assert_eq!(server.exit_status(), Some(0));
    assert!(TcpStream::connect(server.address).is_err(), "somebody still listens");
}

#[test]
fn in_the_grace_everything_is_served_but_it_is_not_ready() {
    let mut server = Server::start(
        "workers = 2\ndrain_grace = \"1s\"\ndrain_duration = \"1h\"\n\
         [[routes]]\npath = \"/echo\"\napp = \"echo\"\n\
         [[routes]]\npath = \"/ready\"\napp = \"ready\"\n\
         [[routes]]\npath = \"/health\"\napp = \"health\"\n",
    );
    let status = |path: &str| {
        let mut client = server.connect();
        client.send_bytes(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        client.response().status
    };
    assert_eq!((status("/ready"), status("/health")), (200, 200));
    server.signal("TERM");
    wait_until("a server that is not ready", || status("/ready") == 503);
    assert_eq!(status("/health"), 200);
    // One that came in the grace, if there is any of it left on a busy machine.
    let mut late = server.connect();
    late.send_bytes(request("/echo", "").as_bytes());
    let is_late = late.response().status == 101;
    if is_late {
        late.assert_echo("in the grace");
    }
    wait_until("the end of the grace", || {
        let mut client = server.connect();
        client.send_bytes(request("/echo", "").as_bytes());
        client.response().status == 503
    });
    assert_eq!((status("/ready"), status("/health")), (503, 200), "until it ends");
    if is_late {
        late.assert_echo("the drain has just begun");
    }
    server.signal("TERM");
    assert_eq!(server.exit_status(), Some(0));
}

#[test]
fn whoever_comes_and_says_nothing_holds_up_no_drain() {
    // A handshake would have ten minutes here.
    let mut server = Server::start("workers = 2\ndrain_duration = \"200ms\"\n");
    let member = server.open("/echo");
    let since = Instant::now();
    server.signal("TERM");
    let _silent: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    closed(member, 1012, since);
    assert_eq!(server.exit_status(), Some(0));
}

#[test]
fn int_is_fast() {
    let mut server = Server::start("workers = 2\ndrain_duration = \"1h\"\n");
    let clients: Vec<Client> = (0..20).map(|_| server.open("/echo")).collect();
    let mut deaf = server.open("/echo");
    let mut half_open = server.connect();
    half_open.send_bytes(b"GET /echo HTTP/1.1\r\n");
    let since = Instant::now();
    server.signal("INT");
    let readers: Vec<_> = clients
        .into_iter()
        .map(|client| thread::spawn(move || closed(client, 1001, since)))
        .collect();
    for reader in readers {
        reader.join().unwrap();
    }
    assert_eq!(half_open.response().status, 503);
    assert_eq!(server.exit_status(), Some(0), "a peer that does not answer is not waited for");
    assert_eq!(deaf.frame().close_code(), Some(1001));
}

#[test]
fn a_second_signal_makes_a_drain_fast() {
    let mut server = Server::start("workers = 2\ndrain_duration = \"1h\"\n");
    let client = server.open("/echo");
    server.signal("TERM");
    wait_until("the drain", || server.log().contains("draining"));
    server.signal("TERM");
    closed(client, 1001, Instant::now());
    assert_eq!(server.exit_status(), Some(0));
}

#[test]
fn a_drain_of_nobody_ends_at_once() {
    let mut server = Server::start("workers = 2\ndrain_duration = \"1h\"\n");
    server.signal("TERM");
    assert_eq!(server.exit_status(), Some(0));
}
