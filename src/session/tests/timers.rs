//! Deadlines of an open connection and of its end.

use super::*;
use crate::ws::Opcode::{Binary, Close, Ping, Pong, Text};

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
    bench.limits.write_timeout = None;
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

/// A peer that holds half a message between two frames, sends a pong each second and takes all.
fn holds_half_a_message(bench: &mut Bench, seconds: u32) {
    for _ in 0..seconds {
        bench.after(SECOND);
        assert_eq!(bench.with(Session::on_deadline), None);
        assert_eq!(bench.receive(&masked(Pong, b"")), [Event::Pong(Cow::Borrowed(b""))]);
        bench.flushed();
    }
}

#[test]
fn a_message_that_does_not_come_is_given_up() {
    let mut bench = bench();
    let mut fragment = masked(Text, &[b'x'; 4_096]);
    fragment[0] &= 0x7f;
    assert_eq!(bench.receive(&fragment), []);
    let due = bench.now.after(61 * SECOND);
    holds_half_a_message(&mut bench, 60);
    // 4 KiB of payload have a second of their own.
    assert_eq!(bench.deadline(), due);
    let reason = "message too slow";
    assert_eq!(bench.wait(), Some(closed(Some(CloseCode::POLICY), reason, ClosedBy::Us)));
}

#[test]
fn a_message_at_the_least_rate_is_never_late() {
    let mut bench = bench();
    let bytes = masked(Binary, &vec![7; 1_000_000]);
    let rate = bench.limits.progress_rate_min;
    let mut events = Vec::new();
    for piece in bytes.chunks(rate) {
        bench.after(SECOND);
        assert_eq!(bench.with(Session::on_deadline), None);
        events.extend(bench.receive(piece));
    }
    assert_eq!(events, [binary(&vec![7; 1_000_000])]);
    assert!(bench.session.unfinished().is_none());
}

#[test]
fn the_time_in_which_we_do_not_read_is_not_the_messages() {
    let mut bench = bench();
    bench.limits.queue_bytes_max = 10;
    bench.limits.ping_interval = None;
    bench.receive(&masked(Text, b"hello")[..8]);
    bench.after(10 * SECOND);
    bench.socket.room = 0;
    bench.send(&[0; 50]);
    bench.flush();
    assert_eq!(bench.receive(b"x"), [], "paused");
    bench.after(50 * SECOND);
    assert_eq!(bench.with(Session::on_deadline), None);
    bench.socket.room = usize::MAX;
    assert_eq!(bench.flush(), Next::Resume);
    assert_eq!(bench.deadline(), bench.now.after(50 * SECOND), "10 s were used up");
    bench.session.was_frozen(5 * SECOND);
    bench.after(5 * SECOND);
    assert_eq!(bench.deadline(), bench.now.after(50 * SECOND), "a freeze");
}

#[test]
fn a_peer_that_takes_nothing_is_dropped_whatever_it_says() {
    for queue_bytes_max in [10, 1_000_000] {
        let mut bench = bench();
        bench.limits.queue_bytes_max = queue_bytes_max;
        bench.socket.room = 0;
        bench.after(1_000 * SECOND);
        bench.session.last_inbound = bench.now;
        bench.send(&[0; 50]);
        bench.flush();
        let due = bench.now.after(60 * SECOND);
        let mut closed_by = None;
        while closed_by.is_none() {
            bench.after(SECOND);
            bench.receive(&masked(Pong, b""));
            bench.session.take_parked();
            bench.flush();
            closed_by = bench.with(Session::on_deadline);
        }
        assert_eq!(closed_by, Some(closed(None, "", ClosedBy::Lost)));
        assert_eq!(bench.now, due);
        assert_eq!(bench.flush(), Next::Drop);
    }
}

#[test]
fn each_byte_taken_gives_a_peer_its_time_again() {
    let mut bench = bench();
    bench.limits.ping_interval = None;
    bench.socket.room = 0;
    bench.send(&[0; 50]);
    bench.flush();
    for _ in 0..10 {
        bench.after(59 * SECOND);
        bench.socket.room = 1;
        bench.flush();
        assert!(!bench.session.is_stalled(&bench.limits, bench.now));
        assert_eq!(bench.deadline(), bench.now.after(60 * SECOND));
    }
    bench.session.was_frozen(5 * SECOND);
    assert_eq!(bench.deadline(), bench.now.after(65 * SECOND));
    assert_eq!(bench.wait(), Some(closed(None, "", ClosedBy::Lost)));
}

/// How a peer behaves: what it says each second, and whether it takes what it is sent.
#[derive(Debug, Clone, Copy)]
struct Peer {
    says: &'static [u8],
    takes: usize,
}

/// Seconds until a connection is dropped; `None` after a day.
fn seconds_to_live(mut bench: Bench, peer: Peer) -> Option<u32> {
    for second in 1..86_400 {
        bench.after(SECOND);
        let mut said = peer.says.to_vec();
        let is_silent = said.is_empty();
        let mut input = Input::new(&mut said);
        if !is_silent && bench.session.wants_read() {
            match bench.receive_head_of(&mut input) {
                Some(Event::BadHead(_)) => refuse(&mut bench),
                _ => drop(bench.receive_input(&mut input)),
            }
        }
        bench.socket.room = peer.takes;
        if let Some(Event::Overdue { .. }) = bench.with(Session::on_deadline) {
            refuse(&mut bench);
        }
        loop {
            match bench.flush() {
                Next::Drop => return Some(second),
                Next::Resume => drop(bench.session.take_parked()),
                Next::ShutdownWrite => {}
                Next::Wait => break,
            }
        }
    }
    None
}

fn refuse(bench: &mut Bench) {
    bench.with(|session, env| session.refuse(b"HTTP/1.1 400 No\r\n\r\n", env));
}

/// Every state beside every silent or slow peer: the connection ends, and in time.
#[test]
fn nothing_lasts_for_ever() {
    const SILENT: Peer = Peer { says: b"", takes: usize::MAX };
    const DEAF: Peer = Peer { says: b"", takes: 0 };
    // Behind a head or within a payload, any byte will do; of a pong, with a key of zeros, all.
    const DRIPS: Peer = Peer { says: b"a", takes: usize::MAX };
    const PONGS: Peer = Peer { says: &[0x8a, 0x80, 0, 0, 0, 0], takes: usize::MAX };
    const DEAF_PONGS: Peer = Peer { takes: 0, ..PONGS };
    const DEAF_DRIPS: Peer = Peer { takes: 0, ..DRIPS };

    let fresh = |part: &'static [u8]| {
        move || {
            let mut bench = Bench::new();
            assert_eq!(bench.receive_head(&mut part.to_vec()), None);
            bench
        }
    };
    let proxied = || {
        let mut bench = Bench::new();
        bench.session.expect_proxy_header();
        assert_eq!(bench.receive_head(&mut b"PROXY TCP4 ".to_vec()), None);
        bench
    };
    let deciding = || {
        let mut bench = Bench::new();
        bench.receive_head(&mut b"GET / HTTP/1.1\r\n\r\n".to_vec());
        bench
    };
    let after = |bytes: Vec<u8>| {
        move || {
            let mut bench = Bench::open();
            bench.receive(&bytes);
            bench
        }
    };
    let message = masked(Binary, &[1; 100_000]);
    let mut fragment = masked(Binary, &[1; 100]);
    fragment[0] &= 0x7f;
    let ping = masked(Ping, &[0; 125]);
    let waiting = |queue_bytes_max: usize| {
        move || {
            let mut bench = Bench::open();
            bench.limits.queue_bytes_max = queue_bytes_max;
            bench.socket.room = 0;
            bench.send(&[0; 1_000]);
            bench.flush();
            bench.receive(&masked(Text, b"x"));
            bench
        }
    };
    let closing = || {
        let mut bench = Bench::open();
        bench.close(CloseCode::NORMAL, "");
        bench
    };
    let lingering = || {
        let mut bench = Bench::open();
        bench.receive(&masked(Close, b""));
        bench
    };

    type Make = Box<dyn Fn() -> Bench>;
    let states: Vec<(&str, Make, &[Peer], u32)> = vec![
        ("no head", Box::new(fresh(b"")), &[SILENT, DRIPS, DEAF_DRIPS], 15),
        (
            "part of a head",
            Box::new(fresh(b"GET / HTTP/1.1\r\n")),
            &[SILENT, DRIPS, DEAF_DRIPS],
            15,
        ),
        ("part of a PROXY header", Box::new(proxied), &[SILENT, DRIPS], 15),
        ("deciding", Box::new(deciding), &[SILENT, DRIPS, DEAF_DRIPS], 15),
        ("open", Box::new(after(vec![])), &[SILENT, DEAF], 35),
        ("part of a header", Box::new(after(message[..1].to_vec())), &[SILENT, DEAF], 35),
        ("a header", Box::new(after(message[..14].to_vec())), &[SILENT, DRIPS, DEAF_DRIPS], 67),
        ("part of a ping", Box::new(after(ping[..7].to_vec())), &[SILENT, DRIPS], 67),
        (
            "part of a message",
            Box::new(after(message[..50_000].to_vec())),
            &[DRIPS, DEAF_DRIPS],
            79,
        ),
        ("a fragment", Box::new(after(fragment)), &[PONGS, DEAF_PONGS], 67),
        ("bytes that wait", Box::new(waiting(1_000_000)), &[DEAF, DEAF_PONGS], 61),
        ("reading is paused", Box::new(waiting(10)), &[DEAF, DEAF_PONGS, DEAF_DRIPS], 61),
        ("closing", Box::new(closing), &[SILENT, DEAF, PONGS, DEAF_PONGS], 6),
        ("lingering", Box::new(lingering), &[SILENT, DEAF, DRIPS, DEAF_DRIPS], 6),
    ];
    for (state, make, peers, most) in &states {
        for &peer in *peers {
            let lived = seconds_to_live(make(), peer);
            assert!(lived.is_some_and(|lived| lived <= *most), "{state}, {peer:?}: {lived:?}");
        }
    }
    // The measure itself: whoever answers and takes stays.
    assert_eq!(seconds_to_live(Bench::open(), PONGS), None);
}
