//! Open, Closing, Lingering: messages, control frames, both close handshakes, back-pressure.

use super::*;
use crate::ws::Opcode::{Binary, Close, Ping, Pong, Text};

#[test]
fn messages_go_both_ways() {
    let mut bench = Bench::open();
    let bytes = [masked(Text, "größer".as_bytes()), masked(Binary, &[0, 1])].concat();
    assert_eq!(bench.receive(&bytes), [text("größer"), binary(&[0, 1])]);
    assert!(bench.send(b"one") && bench.send(b"") && bench.send(&[7; 40_000]));
    let frames = [plain(Binary, b"one"), plain(Binary, b""), plain(Binary, &[7; 40_000])];
    assert_eq!(bench.session.queued(), frames.concat().len());
    assert_eq!(bench.flushed(), (Next::Wait, frames.concat()));
    assert_eq!(bench.session.queued(), 0);
}

#[test]
fn what_is_worth_it_is_compressed_where_that_was_agreed() {
    let long = vec![b'a'; 5_000];
    for (deflate, compressed) in [(None, false), (Some(DEFLATE), true)] {
        let mut bench = Bench::open_with(deflate, b"");
        bench.send(&long);
        bench.send(b"short");
        let (_, bytes) = bench.flushed();
        let rsv1 = bytes[0] & 0x40 != 0;
        assert_eq!((rsv1, bytes.len() < 100), (compressed, compressed));
        assert!(bytes.ends_with(&plain(Binary, b"short")));
    }
}

#[test]
fn every_ping_of_a_turn_is_answered() {
    let mut bench = Bench::open();
    // A large reply is queued apart, which does not make the socket a blocked one.
    bench.send(&[7; 40_000]);
    let pings = [masked(Ping, b"1"), masked(Ping, b"2"), masked(Pong, b"")].concat();
    let pong = Event::Pong(Cow::Borrowed(&b""[..]));
    assert_eq!(bench.receive(&pings), [ping(b"1"), ping(b"2"), pong]);
    let (_, bytes) = bench.flushed();
    assert!(bytes.ends_with(&[plain(Pong, b"1"), plain(Pong, b"2")].concat()));
}

#[test]
fn a_blocked_socket_gets_the_newest_pong_only_and_first() {
    let mut bench = Bench::open();
    bench.socket.room = 0;
    bench.send(b"data");
    bench.flush();
    assert_eq!(bench.receive(&[masked(Ping, b"1"), masked(Ping, b"2")].concat()).len(), 2);
    bench.send(b"more");
    bench.flush();
    bench.socket.room = usize::MAX;
    let expected = [plain(Pong, b"2"), plain(Binary, b"data"), plain(Binary, b"more")].concat();
    assert_eq!(bench.flushed(), (Next::Wait, expected));
}

#[test]
fn nothing_overtakes_the_answer_to_the_handshake() {
    for room in 0..3 {
        let mut bench = Bench::open_with(None, b"101");
        bench.socket.room = room;
        bench.flush();
        bench.receive(&masked(Ping, b"early"));
        bench.socket.room = usize::MAX;
        bench.flush();
        let expected = [&b"101"[..], &plain(Pong, b"early")].concat();
        assert_eq!(bench.taken(), expected, "blocked after {room}");
    }
}

#[test]
fn nothing_follows_a_close() {
    for room in 0..6 {
        let mut bench = Bench::open();
        bench.socket.room = room;
        bench.send(b"data");
        bench.flush();
        bench.receive(&masked(Ping, b"p"));
        bench.close(CloseCode::NORMAL, "");
        bench.flush();
        bench.socket.room = usize::MAX;
        bench.flush();
        let close = plain(Close, &body(CloseCode::NORMAL, ""));
        let expected = [plain(Binary, b"data"), plain(Pong, b"p"), close].concat();
        assert_eq!(bench.taken(), expected, "blocked after {room}");
    }
}

#[test]
fn our_pings_keep_to_125_bytes() {
    let mut bench = Bench::open();
    bench.with(|session, env| session.ping(&[9; 200], env));
    assert_eq!(bench.flushed().1, plain(Ping, &[9; 125]));
}

#[test]
fn the_peers_close_is_answered_with_its_code() {
    let code = CloseCode(4001);
    for (sent, answer, expected) in [
        (body(code, "bye"), body(code, ""), closed(Some(code), "bye", ClosedBy::Peer)),
        (vec![], vec![], closed(None, "", ClosedBy::Peer)),
    ] {
        let mut bench = Bench::open();
        bench.send(b"under way");
        let bytes = [masked(Close, &sent), masked(Text, b"never")].concat();
        assert_eq!(bench.receive(&bytes), [expected]);
        assert!(!bench.session.is_open() && !bench.send(b"too late"));
        let frames = [plain(Binary, b"under way"), plain(Close, &answer)].concat();
        assert_eq!(bench.flushed(), (Next::ShutdownWrite, frames));
        assert_eq!(bench.finished(), None);
        assert_eq!(bench.flushed(), (Next::Drop, vec![]));
    }
}

#[test]
fn our_close_waits_for_the_peers() {
    let mut bench = Bench::open();
    bench.close(CloseCode::RESTART, "come back");
    bench.close(CloseCode::NORMAL, "only the first counts");
    let frame = plain(Close, &body(CloseCode::RESTART, "come back"));
    assert_eq!(bench.flushed(), (Next::Wait, frame));
    assert!(!bench.session.is_open() && !bench.send(b"too late"));
    assert_eq!(bench.receive(&[masked(Text, b"unheard"), masked(Ping, b"")].concat()), []);
    assert!(bench.session.wants_read());
    let expected = closed(Some(CloseCode::RESTART), "come back", ClosedBy::Us);
    assert_eq!(bench.receive(&masked(Close, &body(CloseCode(4000), ""))), [expected]);
    assert_eq!(bench.flushed(), (Next::ShutdownWrite, vec![]));
    assert_eq!(bench.finished(), None);
    assert_eq!(bench.flush(), Next::Drop);
}

#[test]
fn a_violation_is_answered_and_ends_it() {
    let mut bench = Bench::open();
    let bytes = [&masked(Text, b"ok")[..], b"\x81\x01x", &masked(Text, b"never")].concat();
    let reason = ProtocolError::Unmasked.reason();
    let expected = closed(Some(CloseCode::PROTOCOL), reason, ClosedBy::Us);
    assert_eq!(bench.receive(&bytes), [text("ok"), expected]);
    let frame = plain(Close, &body(CloseCode::PROTOCOL, reason));
    assert_eq!(bench.flushed(), (Next::ShutdownWrite, frame));
}

#[test]
fn a_failure_is_told_once_and_moves_nothing_that_is_over() {
    let mut bench = Bench::open();
    let fail = |session: &mut Session, env: &mut Env<'_>| {
        session.fail_with(CloseFrame::new(CloseCode::INTERNAL, "failed"), env)
    };
    bench.close(CloseCode::NORMAL, "");
    assert!(matches!(bench.with(fail), Event::Closed(_)));
    let frame = plain(Close, &body(CloseCode::NORMAL, ""));
    assert_eq!(bench.flushed(), (Next::ShutdownWrite, frame), "one Close is enough");
    bench.after(Duration::from_secs(1));
    let due = bench.deadline();
    bench.with(fail);
    assert_eq!((bench.flush(), bench.deadline()), (Next::Wait, due));
    bench.session.lost();
    bench.with(fail);
    assert_eq!(bench.flushed(), (Next::Drop, vec![]));
}

#[test]
fn a_peer_that_sends_no_more_gets_what_was_said_to_it() {
    let mut bench = Bench::open();
    bench.socket.room = 3;
    bench.send(b"an answer");
    assert_eq!(bench.flush(), Next::Wait);
    assert_eq!(bench.finished(), Some(closed(None, "", ClosedBy::Lost)));
    assert!(!bench.session.is_open() && !bench.send(b"too late"));
    assert_eq!(bench.flush(), Next::Wait);
    let timeout = Limits::default().close_timeout;
    assert_eq!(bench.deadline(), bench.now.after(timeout), "it has to take it");
    bench.socket.room = usize::MAX;
    assert_eq!(bench.flushed(), (Next::Drop, plain(Binary, b"an answer")));

    let mut bench = Bench::open();
    bench.close(CloseCode::NORMAL, "bye");
    let expected = closed(Some(CloseCode::NORMAL), "bye", ClosedBy::Us);
    assert_eq!(bench.finished(), Some(expected));
    let frame = plain(Close, &body(CloseCode::NORMAL, "bye"));
    assert_eq!(bench.flushed(), (Next::Drop, frame));
}

#[test]
fn a_peer_that_is_gone() {
    let mut bench = Bench::open();
    assert_eq!(bench.finished(), Some(closed(None, "", ClosedBy::Lost)));
    assert_eq!(bench.flushed(), (Next::Drop, vec![]));

    let mut bench = Bench::open();
    bench.send(b"never sent");
    assert_eq!(bench.session.lost(), Some(closed(None, "", ClosedBy::Lost)));
    assert_eq!((bench.session.lost(), bench.session.queued()), (None, 0));
    assert_eq!(bench.flushed(), (Next::Drop, vec![]));

    let mut bench = Bench::open();
    bench.close(CloseCode::NORMAL, "bye");
    let expected = closed(Some(CloseCode::NORMAL), "bye", ClosedBy::Us);
    assert_eq!(bench.session.lost(), Some(expected));
    assert_eq!(bench.flushed(), (Next::Drop, vec![]));
}

#[test]
fn too_many_frames_a_second_are_a_matter_of_policy() {
    let policy = closed(Some(CloseCode::POLICY), "too many frames", ClosedBy::Us);
    for (opcode, limits) in [
        (Ping, Limits { control_rate_max: Some(3), ..Limits::default() }),
        (Text, Limits { message_rate_max: Some(3), ..Limits::default() }),
    ] {
        let mut bench = Bench::open();
        bench.limits = limits;
        assert_eq!(bench.receive(&masked(opcode, b"").repeat(3)).len(), 3);
        bench.after(Duration::from_secs(1));
        assert_eq!(bench.receive(&masked(opcode, b"").repeat(3)).len(), 3);
        assert_eq!(bench.receive(&masked(opcode, b"").repeat(2)), [policy.clone_closed()]);
        let close = plain(Close, &body(CloseCode::POLICY, "too many frames"));
        let (next, bytes) = bench.flushed();
        assert!(next == Next::ShutdownWrite && bytes.ends_with(&close));
    }
}

impl Event<'_> {
    fn clone_closed(&self) -> Event<'static> {
        match self {
            Self::Closed(closed) => Event::Closed(closed.clone()),
            other => panic!("not the end: {other:?}"),
        }
    }
}

#[test]
fn replies_above_the_mark_pause_reading_until_half_of_it() {
    let mut bench = Bench::open();
    bench.limits.queue_bytes_max = 100;
    bench.socket.room = 0;
    bench.send(&[1; 99]);
    assert_eq!(bench.flush(), Next::Wait);
    let two = [masked(Text, b"1"), masked(Text, b"2")].concat();
    assert_eq!(bench.receive(&two), [], "101 bytes wait");
    assert!(!bench.session.wants_read());
    bench.socket.room = 50;
    assert_eq!(bench.flush(), Next::Wait, "51 bytes wait");
    assert!(!bench.session.wants_read());
    bench.socket.room = 1;
    assert_eq!(bench.flush(), Next::Resume, "50 bytes wait");
    let parked = bench.session.take_parked().expect("both messages");
    assert_eq!(bench.receive(&parked), [text("1"), text("2")]);
    assert!(bench.session.wants_read());
}

#[test]
fn a_close_ends_a_pause() {
    let mut bench = Bench::open();
    bench.limits.queue_bytes_max = 100;
    bench.socket.room = 0;
    bench.send(&[1; 200]);
    bench.flush();
    let close = [masked(Text, b"unheard"), masked(Close, &[])].concat();
    assert_eq!(bench.receive(&close), []);
    bench.close(CloseCode::NORMAL, "");
    assert_eq!(bench.flush(), Next::Resume);
    let parked = bench.session.take_parked().expect("what was parked");
    assert_eq!(bench.receive(&parked), [closed(Some(CloseCode::NORMAL), "", ClosedBy::Us)]);
    bench.socket.room = usize::MAX;
    assert_eq!(bench.flush(), Next::ShutdownWrite);
}

#[test]
fn a_violation_in_what_was_parked_ends_a_pause_too() {
    let mut bench = Bench::open();
    bench.limits.queue_bytes_max = 100;
    bench.socket.room = 0;
    bench.send(&[1; 200]);
    bench.flush();
    assert_eq!(bench.receive(b"\xff"), []);
    bench.with(|session, env| {
        session.fail_with(CloseFrame::new(CloseCode::GOING_AWAY, ""), env);
    });
    assert_eq!(bench.flush(), Next::Resume, "reading goes on, to find the peer's FIN");
    assert_eq!(bench.session.take_parked(), None);
    bench.socket.room = usize::MAX;
    assert_eq!(bench.flush(), Next::ShutdownWrite);
}

#[test]
fn a_push_that_finds_no_room_names_a_slow_consumer() {
    let mut bench = Bench::open();
    bench.limits.queue_bytes_max = 100;
    bench.socket.room = 0;
    let push = |bench: &mut Bench, len: usize| {
        let Bench { session, turn, limits, compression, now, .. } = bench;
        let delivery = Delivery::new(turn, Binary, &vec![5; len], compression, None);
        session.deliver(&delivery, turn, limits, *now)
    };
    assert_eq!(push(&mut bench, 50_000), Ok(()), "an empty queue takes one of any size");
    assert_eq!(push(&mut bench, 1), Err(SlowConsumer));
    bench.socket.room = usize::MAX;
    assert_eq!(bench.flushed(), (Next::Wait, plain(Binary, &[5; 50_000])));

    assert_eq!(push(&mut bench, 48), Ok(()));
    assert_eq!(push(&mut bench, 48), Ok(()), "exactly 100 bytes");
    assert_eq!(push(&mut bench, 0), Err(SlowConsumer));
    assert_eq!(bench.flushed().1, plain(Binary, &[5; 48]).repeat(2), "nothing of what failed");

    bench.close(CloseCode::NORMAL, "");
    bench.flushed();
    assert_eq!(push(&mut bench, 1), Ok(()), "no concern of a connection that closes");
    assert_eq!(bench.flushed(), (Next::Wait, vec![]));
}

#[test]
fn receivers_get_the_form_they_read() {
    let payload = vec![b'a'; 40_000];
    for deflate in [None, Some(DEFLATE)] {
        let mut bench = Bench::open_with(deflate, b"");
        let Bench { session, turn, limits, compression, now, .. } = &mut bench;
        let delivery = Delivery::new(turn, Text, &payload, compression, Some(9));
        assert_eq!(session.deliver(&delivery, turn, limits, *now), Ok(()));
        let (_, bytes) = bench.flushed();
        match deflate {
            None => assert_eq!(bytes, plain(Text, &payload)),
            Some(_) => assert!(bytes[0] == 0xc1 && bytes.len() < 500),
        }
    }
}

#[test]
fn a_client_masks_and_wants_no_masks() {
    let mut bench = Bench::client();
    assert_eq!(bench.receive(&plain(Text, b"hello")), [text("hello")]);
    bench.send(b"small");
    bench.send(&[3; 40_000]);
    assert_eq!(
        bench.receive(&masked(Text, b"x")),
        [closed(Some(CloseCode::PROTOCOL), ProtocolError::Masked.reason(), ClosedBy::Us)]
    );
    let (next, mut bytes) = bench.flushed();
    assert_eq!(next, Next::ShutdownWrite);
    let mut server = Bench::open();
    let mut events = server.receive(&std::mem::take(&mut bytes));
    let last = events.pop();
    assert_eq!(events, [binary(b"small"), binary(&[3; 40_000])]);
    let reason = ProtocolError::Masked.reason();
    assert_eq!(last, Some(closed(Some(CloseCode::PROTOCOL), reason, ClosedBy::Peer)));
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Session>() <= 96, "{}", size_of::<Session>());
}

/// Between our Close and the peer's, a bomb is not inflated, and what is no deflate stream is as
/// good as what is one.
#[test]
fn after_our_close_nothing_is_inflated() {
    let mut bench = Bench::open();
    bench.session.deflate = Some(DEFLATE);
    bench.close(CloseCode::NORMAL, "");
    let garbage = Header { fin: true, rsv1: true, opcode: Binary, mask: MASK, len: 0 };
    let mut bytes = Vec::new();
    encode::frame(&mut bytes, garbage, &[0xff; 1_000]);
    encode::frame(&mut bytes, Header { fin: false, ..garbage }, &[0xff; 1_000]);
    bytes.extend(masked(Pong, b""));
    let last = Header { rsv1: false, opcode: Opcode::Continuation, ..garbage };
    encode::frame(&mut bytes, last, &[0xff; 1_000]);
    assert_eq!(bench.receive(&bytes), []);
    assert!(matches!(bench.session.state, State::Closing(..)));
    let answer = masked(Close, &CloseFrame::new(CloseCode::NORMAL, "").encode());
    assert_eq!(bench.receive(&answer), [closed(Some(CloseCode::NORMAL), "", ClosedBy::Us)]);
}

#[test]
fn a_message_that_became_whole_during_a_pause_comes_after_it() {
    let mut bench = Bench::open();
    bench.limits.queue_bytes_max = 1_000;
    let payload = vec![5; 100_000];
    let bytes = masked(Binary, &payload);
    let copied = 40_000;
    assert_eq!(bench.receive(&bytes[..copied]), []);
    // A room's messages fill the queue before the rest of ours is there.
    bench.socket.room = 0;
    assert!(bench.send(&[1; 900]) && bench.send(&[2; 900]));
    let mut rest = &bytes[copied..];
    while let Some(room) = bench.session.direct_room() {
        let len = room.len.min(rest.len());
        room.buffer.extend_from_slice(&rest[..len]);
        rest = &rest[len..];
        let told = bench.with(|session, env| session.receive_direct(len, env));
        assert_eq!(told, None);
    }
    assert!(rest.is_empty() && bench.session.holds_whole_frame());
    assert_eq!(bench.receive(&[]), [], "paused");
    assert_eq!(bench.flush(), Next::Wait);
    bench.socket.room = usize::MAX;
    assert_eq!(bench.flush(), Next::Resume);
    assert!(bench.session.take_parked().is_none() && bench.session.holds_whole_frame());
    assert_eq!(bench.receive(&[]), [binary(&payload)]);
    assert!(!bench.session.holds_whole_frame());
}
