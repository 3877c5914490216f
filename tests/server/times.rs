//! Time-outs and rates, with times short enough to wait for. What must not end by then is judged by
//! what the peer is told; what must, by waiting for it.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::support::{CLOSE, FIN, MIB, PING, PONG, Server, TEXT, frame, request, wait_until};

#[test]
fn a_handshake_has_its_time_and_a_drip_does_not_extend_it() {
    let server = Server::start("workers = 1\nhead.handshake_timeout = \"1s\"\n");
    let begun = Instant::now();
    let mut client = server.connect();
    client.stream.set_nodelay(true).unwrap();
    let mut silent = server.connect();
    let head = request("/echo", &"X-Slow: yes\r\n".repeat(20));
    for byte in head.as_bytes() {
        if client.stream.write_all(&[*byte]).is_err() || begun.elapsed() > Duration::from_secs(2) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(client.response().status, 408);
    assert!(begun.elapsed() >= Duration::from_millis(800), "too early");
    // Who has said nothing is told nothing.
    silent.expect_end();
    server.wait_fds(0);
}

#[test]
fn a_silent_peer_is_pinged_and_a_dead_one_dropped() {
    // Pings that waited for the handshake's time to be over would never come.
    let server = Server::start(
        "workers = 1\nlimits.ping_interval = \"200ms\"\nlimits.pong_timeout = \"3s\"\n\
         head.handshake_timeout = \"1h\"\n",
    );
    let mut client = server.open("/echo");
    let begun = Instant::now();
    for _ in 0..4 {
        let ping = client.any_frame();
        assert_eq!(ping.opcode, PING);
        client.send(FIN | PONG, &ping.payload);
    }
    assert!(begun.elapsed() >= Duration::from_millis(400), "pings come too fast");
    client.assert_echo("alive");
    // No answer from now on.
    while let Some(frame) = client.try_any_frame().expect("an end without a reset") {
        assert_eq!(frame.opcode, PING);
    }
    drop(client);
    server.wait_fds(0);
}

#[test]
fn any_bytes_are_a_sign_of_life() {
    let server = Server::start(
        "workers = 1\nlimits.ping_interval = \"200ms\"\nlimits.pong_timeout = \"3s\"\n",
    );
    let mut client = server.open("/echo");
    // Longer than a ping and the time for its answer.
    let message = frame(FIN | TEXT, &[b'a'; 400]);
    for byte in &message {
        client.send_bytes(&[*byte]);
        std::thread::sleep(Duration::from_millis(10));
    }
    client.expect_text(&"a".repeat(400));
}

#[test]
fn an_idle_connection_is_closed_pongs_or_not() {
    let server = Server::start(
        "workers = 1\nlimits.ping_interval = \"200ms\"\nlimits.idle_timeout = \"3s\"\n",
    );
    let mut client = server.open("/echo");
    let mut pings = 0;
    let code = loop {
        let frame = client.any_frame();
        match frame.opcode {
            PING => {
                pings += 1;
                client.send(FIN | PONG, b"");
            }
            CLOSE => break frame.close_code(),
            _ => panic!("{frame:?}"),
        }
    };
    assert_eq!(code, Some(1001));
    assert!(pings >= 2, "{pings} pings in three seconds");
    client.expect_end();
}

#[test]
fn a_peer_that_does_not_finish_closing_is_dropped() {
    let server = Server::start("workers = 1\nlimits.close_timeout = \"300ms\"\n");
    let mut client = server.open("/echo");
    client.send(FIN | CLOSE, &1000_u16.to_be_bytes());
    client.expect_close(1000);
    // Our side stays open, as that of a peer that has vanished does.
    server.wait_fds(0);
    let mut refused = server.connect();
    refused.send_bytes(request("/nothing", "").as_bytes());
    assert_eq!(refused.response().status, 404);
    server.wait_fds(0);
}

#[test]
fn a_peer_that_takes_nothing_is_dropped_though_it_sends_pongs() {
    let server = Server::start(
        "workers = 1\nlimits.write_timeout = \"1s\"\nlimits.ping_interval = \"200ms\"\n\
         limits.queue_bytes_max = \"64 KiB\"\n",
    );
    let mut client = server.connect_narrow();
    client.upgrade("/echo", "");
    let messages = frame(FIN | TEXT, &[b'a'; 60_000]).repeat(300);
    // Reading is paused behind the replies that nobody takes, so that not all of it fits.
    match client.flood(&messages, messages.len(), Duration::from_millis(300)) {
        Ok(sent) => assert!(sent < messages.len(), "nothing is paused"),
        // We were slow, and have been dropped for it.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    client.stream.set_nonblocking(true).unwrap();
    wait_until("the peer is dropped", || {
        // The socket is full, and gone any moment now.
        let _ = client.stream.write(&frame(FIN | PONG, b""));
        server.fds() == server.fds_base()
    });
    let status = server.verb("status").arg("--json").output().expect("status can be asked");
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("\"stalled\":1"), "{status}");
    server.expect_log("the peer has taken nothing for limits.write_timeout");
}

#[test]
fn a_half_closed_peer_gets_its_answers_and_is_gone() {
    let server = Server::start("workers = 1\n");
    let mut client = server.open("/echo");
    client.send(TEXT, b"begun");
    client.stream.shutdown(Shutdown::Write).unwrap();
    client.expect_end();
    server.wait_fds(0);
    // What it has asked for before is answered, a large answer to a slow reader, too.
    let mut asking = server.connect_narrow();
    asking.upgrade("/echo", "");
    let large = "x".repeat(MIB / 2);
    asking.send_text(&large);
    for number in 0..30 {
        asking.send_text(&number.to_string());
    }
    asking.stream.shutdown(Shutdown::Write).unwrap();
    asking.expect_text(&large);
    for number in 0..30 {
        asking.expect_text(&number.to_string());
    }
    asking.expect_end();
    server.wait_fds(0);
    let mut page = server.connect();
    page.send_bytes(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    page.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(page.response().status, 200, "an HTTP client may half-close");
}

#[test]
fn messages_a_second() {
    let server = Server::start("workers = 1\nlimits.message_rate_max = 5\n");
    let mut client = server.open("/echo");
    client.send_bytes(&frame(FIN | TEXT, b"x").repeat(6));
    for _ in 0..5 {
        client.expect_text("x");
    }
    client.expect_close(1008);
}

#[test]
fn a_slow_reader_of_the_last_word_gets_it_all() {
    // Reading is paused when it breaks a rule; the end must come as soon as it has read.
    let server = Server::start("workers = 1\nlimits.close_timeout = \"60s\"\n");
    let mut client = server.connect_narrow();
    client.upgrade("/echo", "");
    let mut bytes = frame(FIN | TEXT, &vec![b'a'; 1024 * 1024]).repeat(12);
    bytes.extend(frame(FIN | CLOSE, &1000_u16.to_be_bytes()));
    let writer = {
        let mut stream = client.stream.try_clone().unwrap();
        std::thread::spawn(move || stream.write_all(&bytes))
    };
    std::thread::sleep(Duration::from_millis(200));
    for _ in 0..12 {
        assert_eq!(client.frame().payload.len(), 1024 * 1024);
    }
    client.expect_close(1000);
    writer.join().unwrap().unwrap();
    drop(client);
    server.wait_fds(0);
}
