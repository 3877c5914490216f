//! Deadlines of an open connection and of its end.

use super::*;
use crate::ws::Opcode::{Close, Ping, Pong, Text};

const SECOND: Duration = Duration::from_secs(1);

/// Pings every 20 s, gives up after 10.
fn bench() -> Bench {
    let mut bench = Bench::open();
    bench.limits.ping_interval = Some(20 * SECOND);
    bench.limits.pong_timeout = 10 * SECOND;
    bench
}

#[test]
fn a_silent_peer_is_pinged_and_then_given_up() {
    let mut bench = bench();
    let start = bench.now;
    assert_eq!(bench.deadline(), start.after(20 * SECOND));
    assert_eq!(bench.wait(), None);
    assert_eq!(bench.flushed(), (Next::Wait, plain(Ping, b"")));
    assert_eq!(bench.deadline(), start.after(30 * SECOND));
    assert_eq!(bench.wait(), Some(closed(None, "", ClosedBy::Lost)));
    assert_eq!(bench.flushed(), (Next::Drop, vec![]));
}

#[test]
fn any_inbound_byte_is_a_sign_of_life() {
    for bytes in [masked(Pong, b""), masked(Text, b"x"), vec![0x81]] {
        let mut bench = bench();
        assert_eq!(bench.wait(), None);
        bench.after(9 * SECOND);
        bench.receive(&bytes);
        assert_eq!(bench.deadline(), bench.now.after(20 * SECOND));
        bench.after(2 * SECOND);
        assert_eq!(bench.with(Session::on_deadline), None);
        assert!(bench.session.is_open());
    }
}

#[test]
fn outbound_progress_is_a_sign_of_life_too() {
    let mut bench = bench();
    bench.socket.room = 0;
    bench.send(&[0; 50]);
    bench.flush();
    assert_eq!(bench.wait(), None);
    bench.after(9 * SECOND);
    bench.socket.room = 1;
    bench.flush();
    assert_eq!(bench.deadline(), bench.now.after(10 * SECOND));
    bench.after(9 * SECOND);
    bench.flush();
    assert_eq!(bench.deadline(), bench.now.after(SECOND), "a blocked write is none");
    assert_eq!(bench.wait(), Some(closed(None, "", ClosedBy::Lost)));
}

#[test]
fn nobody_is_given_up_while_we_do_not_read() {
    let mut bench = bench();
    bench.limits.queue_bytes_max = 10;
    bench.socket.room = 0;
    bench.send(&[0; 50]);
    bench.flush();
    assert_eq!(bench.receive(&masked(Text, b"x")), [], "paused");
    for _ in 0..5 {
        assert_eq!(bench.wait(), None);
        assert!(bench.session.is_open() && bench.deadline() > bench.now);
    }
    bench.socket.room = usize::MAX;
    assert_eq!(bench.flush(), Next::Resume);
    assert_eq!(bench.deadline(), bench.now.after(10 * SECOND), "from now on it counts");
    assert_eq!(bench.wait(), Some(closed(None, "", ClosedBy::Lost)));
}

#[test]
fn without_pings_nothing_is_ever_due() {
    let mut bench = bench();
    bench.limits.ping_interval = None;
    assert_eq!(bench.deadline(), Tick::NEVER);
    bench.after(1_000 * SECOND);
    assert_eq!(bench.with(Session::on_deadline), None);
    assert!(bench.session.is_open());
}

#[test]
fn a_connection_without_messages_is_idle() {
    let mut bench = bench();
    bench.limits.idle_timeout = Some(5 * SECOND);
    let start = bench.now;
    bench.after(SECOND);
    bench.receive(&masked(Ping, b"no message"));
    assert_eq!(bench.deadline(), start.after(5 * SECOND));
    bench.receive(&masked(Text, b"a message"));
    assert_eq!(bench.deadline(), bench.now.after(5 * SECOND));
    bench.after(SECOND);
    bench.send(b"the other way");
    assert_eq!(bench.deadline(), bench.now.after(5 * SECOND));
    bench.flushed();
    let event = bench.wait();
    assert_eq!(event, Some(closed(Some(CloseCode::GOING_AWAY), "idle", ClosedBy::Us)));
    let frame = plain(Close, &body(CloseCode::GOING_AWAY, "idle"));
    assert_eq!(bench.flushed(), (Next::ShutdownWrite, frame));
}

#[test]
fn a_close_that_is_not_answered() {
    let mut bench = bench();
    bench.close(CloseCode::NORMAL, "bye");
    bench.flush();
    let due = bench.now.after(bench.limits.close_timeout);
    bench.after(SECOND);
    assert_eq!(bench.receive(&masked(Text, b"not a Close")), []);
    assert_eq!(bench.deadline(), due, "nothing else moves it");
    assert_eq!(bench.wait(), Some(closed(Some(CloseCode::NORMAL), "bye", ClosedBy::Us)));
    assert_eq!(bench.flush(), Next::Drop);
}

#[test]
fn a_fin_that_does_not_come() {
    let mut bench = bench();
    bench.receive(&masked(Close, b""));
    assert_eq!(bench.flush(), Next::ShutdownWrite);
    assert_eq!(bench.deadline(), bench.now.after(bench.limits.close_timeout));
    assert_eq!(bench.wait(), None, "its end has been told");
    assert_eq!(bench.flush(), Next::Drop);
}
