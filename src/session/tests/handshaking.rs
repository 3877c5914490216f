//! Head, Deciding, and the way out of them.

use super::*;

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_head_in_pieces_and_bytes_behind_it() {
    let mut bench = Bench::new();
    for byte in &HEAD[..HEAD.len() - 1] {
        assert_eq!(bench.receive_head(&mut [*byte]), None);
        assert!(bench.session.wants_read() && bench.session.is_handshaking());
    }
    let mut last = *b"\nbehind it";
    let mut input = Input::new(&mut last);
    let event = bench.session.receive_head(&mut input, &bench.head_limits, bench.now);
    assert_eq!(event, Some(Event::Head(HEAD.to_vec())));
    assert_eq!(input.rest(), b"behind it");
    assert!(!bench.session.wants_read() && bench.session.is_handshaking());
    assert_eq!(bench.flushed(), (Next::Wait, vec![]));
}

#[test]
fn the_limit_counts_a_head_to_its_last_byte() {
    let limit = HeadLimits::default().head_bytes_max;
    for (len, fits) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        let bytes = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(len - 23));
        assert_eq!(bytes.len(), len);
        for step in [1, 1_000, len] {
            let mut bench = Bench::new();
            let mut events = vec![];
            for piece in bytes.clone().into_bytes().chunks_mut(step) {
                events.extend(bench.receive_head(piece));
            }
            let expected = match fits {
                true => Event::Head(bytes.clone().into_bytes()),
                false => Event::BadHead(HeadError::HeadTooLarge),
            };
            assert_eq!(events, [expected], "{len} bytes, {step} at a time");
        }
    }
}

#[test]
fn what_is_no_http_is_refused_before_its_end_and_with_its_end_alike() {
    for bytes in [&b"\x16\x03\x01"[..], b"\x16\x03\x01\r\n\r\n"] {
        let mut bench = Bench::new();
        let event = bench.receive_head(&mut bytes.to_vec());
        assert_eq!(event, Some(Event::BadHead(HeadError::NotHttp)));
    }
}

#[test]
fn a_response_may_come_in_pieces_too() {
    let answer = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
    for step in 1..=answer.len() {
        let mut bench = Bench::new();
        bench.session.expect_response();
        let mut events = vec![];
        for piece in answer.to_vec().chunks_mut(step) {
            events.extend(bench.receive_head(piece));
        }
        assert_eq!(events, [Event::Head(answer.to_vec())], "{step} bytes at a time");
    }
}

#[test]
fn accepted_later_with_frames_that_came_meanwhile() {
    let mut bench = Bench::new();
    bench.receive_head(&mut HEAD.to_vec());
    assert_eq!(bench.receive(&masked(Opcode::Text, b"early")), [], "parked");
    assert_eq!(bench.flush(), Next::Wait, "nothing to resume yet");
    assert!(!bench.send(b"too early"));

    bench.with(|session, env| session.accept(b"101", None, env));
    assert!(bench.session.is_open() && !bench.session.wants_read(), "the parked ones come first");
    assert_eq!(bench.flushed(), (Next::Resume, b"101".to_vec()));
    let parked = bench.session.take_parked().expect("parked");
    assert_eq!(bench.receive(&parked), [text("early")]);
    assert!(bench.session.wants_read());
    assert_eq!(bench.flush(), Next::Wait);
}

#[test]
fn accepted_only_once_and_only_when_it_is_asked_for() {
    let mut bench = Bench::new();
    bench.with(|session, env| session.accept(b"101", None, env));
    assert!(!bench.session.is_open(), "there is no head yet");
    bench.receive_head(&mut HEAD.to_vec());
    bench.with(|session, env| session.accept(b"101", None, env));
    bench.with(|session, env| session.accept(b"again", None, env));
    bench.with(|session, env| session.refuse(b"refused", env));
    assert_eq!(bench.flushed(), (Next::Wait, b"101".to_vec()));
    assert!(bench.session.is_open());
}

#[test]
fn a_refusal_goes_out_then_our_fin_and_what_still_comes_is_thrown_away() {
    let mut bench = Bench::new();
    bench.receive_head(&mut HEAD.to_vec());
    bench.session.park(b"a body");
    bench.with(|session, env| session.refuse(b"400, because", env));
    bench.socket.room = 4;
    assert_eq!(bench.flushed(), (Next::Wait, b"400,".to_vec()));
    bench.socket.room = 100;
    assert_eq!(bench.flushed(), (Next::ShutdownWrite, b" because".to_vec()));
    assert_eq!(bench.flush(), Next::Wait, "shut down only once");
    assert!(bench.session.wants_read());
    assert_eq!(bench.receive(&[b'x'; 100]), []);
    assert_eq!(bench.flush(), Next::Wait);
    assert_eq!(bench.finished(), None);
    assert_eq!(bench.flush(), Next::Drop);
}

#[test]
fn a_peer_that_never_stops_sending_is_cut_off() {
    let mut bench = Bench::new();
    bench.receive_head(&mut HEAD.to_vec());
    bench.with(|session, env| session.refuse(b"400", env));
    assert_eq!(bench.flush(), Next::ShutdownWrite);
    let piece = vec![b'x'; LINGER_BYTES_MAX / 4];
    for _ in 0..4 {
        assert_eq!(bench.receive(&piece), []);
        assert!(!bench.session.is_done());
    }
    assert_eq!(bench.receive(b"x"), []);
    assert_eq!(bench.flush(), Next::Drop);
}

#[test]
fn the_head_has_a_deadline_that_bytes_do_not_move() {
    let mut bench = Bench::new();
    let due = bench.now.after(bench.head_limits.handshake_timeout);
    assert_eq!(bench.deadline(), due);
    bench.after(Duration::from_secs(9));
    assert_eq!(bench.receive_head(&mut HEAD[..5].to_vec()), None);
    assert_eq!((bench.deadline(), bench.with(Session::on_deadline)), (due, None));
    assert_eq!(bench.wait(), Some(Event::Overdue { head_complete: false }));
    bench.with(|session, env| session.refuse(b"408", env));
    assert_eq!(bench.flushed(), (Next::ShutdownWrite, b"408".to_vec()));
    assert_eq!(bench.deadline(), bench.now.after(bench.limits.close_timeout));
}

#[test]
fn a_peer_that_says_nothing_gets_no_answer() {
    let mut bench = Bench::new();
    assert_eq!(bench.wait(), None);
    assert_eq!(bench.flushed(), (Next::Drop, vec![]));
}

#[test]
fn an_app_that_does_not_decide_is_overdue() {
    let mut bench = Bench::new();
    bench.receive_head(&mut HEAD.to_vec());
    assert_eq!(bench.wait(), Some(Event::Overdue { head_complete: true }));
    bench.with(|session, env| session.refuse(b"503", env));
    assert_eq!(bench.flushed(), (Next::ShutdownWrite, b"503".to_vec()));
}

#[test]
fn a_peer_that_leaves_before_it_is_open_is_no_event() {
    let mut bench = Bench::new();
    bench.receive_head(&mut HEAD[..5].to_vec());
    assert_eq!(bench.finished(), None);
    assert_eq!(bench.flush(), Next::Drop);

    let mut bench = Bench::new();
    bench.receive_head(&mut HEAD.to_vec());
    assert_eq!(bench.session.lost(), None);
    bench.with(|session, env| session.accept(b"too late", None, env));
    assert_eq!(bench.flushed(), (Next::Drop, vec![]));
}

#[test]
fn a_proxy_header_comes_first() {
    let mut bytes = [b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n", HEAD, b"behind"].concat();
    let mut bench = Bench::new();
    bench.session.expect_proxy_header();
    let mut input = Input::new(&mut bytes);
    let mut next = || bench.session.receive_head(&mut input, &bench.head_limits, bench.now);
    assert_eq!(next(), Some(Event::Proxied(Some("192.0.2.1:1".parse().unwrap()))));
    assert_eq!(next(), Some(Event::Head(HEAD.to_vec())));
    assert_eq!(next(), None);
    assert_eq!(input.rest(), b"behind");
}

#[test]
fn without_its_proxy_header_a_connection_is_dropped_without_a_word() {
    let mut bench = Bench::new();
    bench.session.expect_proxy_header();
    let event = bench.receive_head(&mut HEAD.to_vec());
    assert_eq!(event, Some(Event::BadProxy(ProxyError::NotProxy)));
    bench.with(|session, env| session.refuse(b"400", env));
    assert_eq!(bench.flushed(), (Next::Drop, vec![]));

    let mut bench = Bench::new();
    bench.session.expect_proxy_header();
    assert_eq!(bench.receive_head(&mut b"PROXY TC".to_vec()), None);
    assert_eq!(bench.wait(), None, "half a PROXY header is no request to answer");
    assert_eq!(bench.flushed(), (Next::Drop, vec![]));
}
