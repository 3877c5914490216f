//! A session goes on in another process, whatever state it is in.

use super::*;
use crate::base::snapshot::{Reader, SnapshotError, Writer};
use crate::base::testing::check_loader;
use crate::session::turn::LARGE_PAYLOAD_BYTES;
use crate::ws::Opcode::{Binary, Close, Ping, Pong, Text};

const SECOND: Duration = Duration::from_secs(1);

impl Bench {
    fn save(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.session.save(&self.limits, self.now, &mut writer);
        writer.into_bytes()
    }

    /// To a process whose clock shows `now`.
    fn move_to(&mut self, now: Tick) {
        self.session.spill(&self.turn);
        self.turn.clear();
        let saved = self.save();
        self.session = Session::load(now, &mut Reader::new(&saved)).expect("just saved");
        self.now = now;
    }
}

/// Sessions in every state, with everything that each can hold.
fn every_state() -> Vec<(&'static str, Bench)> {
    let mut states = vec![("vacant", Bench { session: Session::vacant(), ..Bench::new() })];
    states.push(("fresh", Bench::new()));

    let mut proxied = Bench::new();
    proxied.session.expect_proxy_header();
    assert_eq!(proxied.receive_head(&mut b"PROXY TCP4 1".to_vec()), None);
    states.push(("in a PROXY header", proxied));

    let mut head = Bench::new();
    assert_eq!(head.receive_head(&mut b"GET / HTTP/1.1\r\nHost".to_vec()), None);
    states.push(("in a head", head));

    let mut response = Bench::new();
    response.session.expect_response();
    assert_eq!(response.receive_head(&mut b"HTTP/1.1 101 S\r\n".to_vec()), None);
    states.push(("in a response", response));

    let mut deciding = Bench::new();
    deciding.receive_head(&mut b"GET / HTTP/1.1\r\n\r\n".to_vec());
    deciding.session.park(&masked(Text, b"early"));
    states.push(("deciding", deciding));

    for (name, bytes) in [
        ("open", vec![]),
        ("in a header", masked(Binary, &[1; 300])[..5].to_vec()),
        ("in a message", masked(Text, "größer".as_bytes())[..9].to_vec()),
        ("in a ping", masked(Ping, b"ping")[..8].to_vec()),
    ] {
        let mut bench = Bench::open_with(Some(DEFLATE), b"answer");
        bench.receive(&bytes);
        bench.session.spill(&bench.turn);
        states.push((name, bench));
    }

    let mut slow = Bench::open();
    slow.limits.queue_bytes_max = 100;
    slow.socket.room = 7;
    slow.send(&[1; 60]);
    slow.flush();
    slow.send(&[2; LARGE_PAYLOAD_BYTES]);
    slow.receive(&masked(Ping, b"p"));
    slow.receive(&masked(Text, b"waits"));
    slow.wait();
    slow.flush();
    assert!(slow.session.paused && slow.session.parked.is_some() && slow.session.awaits_pong());
    // So that every byte of it can be damaged in good time.
    slow.socket.room = LARGE_PAYLOAD_BYTES;
    slow.flush();
    slow.socket.room = 0;
    states.push(("slow", slow));

    let mut urgent = Bench::open();
    urgent.socket.room = 3;
    urgent.send(&[1; 60]);
    urgent.flush();
    urgent.receive(&masked(Ping, b"p"));
    states.push(("with a pong that overtakes", urgent));

    let mut closing = Bench::open();
    closing.close(CloseCode::RESTART, "later");
    closing.session.spill(&closing.turn);
    closing.receive(&masked(Text, b"cut off")[..4]);
    states.push(("closing", closing));

    let mut lingering = Bench::open();
    lingering.receive(&masked(Close, b""));
    lingering.session.spill(&lingering.turn);
    states.push(("lingering", lingering));

    let mut shut = Bench::open();
    shut.receive(&masked(Close, b""));
    assert_eq!(shut.flush(), Next::ShutdownWrite);
    shut.receive(b"more");
    states.push(("shut", shut));

    let mut finished = Bench::open();
    finished.socket.room = 0;
    finished.receive(&masked(Close, b""));
    finished.flush();
    finished.finished();
    states.push(("finished", finished));

    let mut done = Bench::open();
    done.session.lost();
    states.push(("done", done));
    states
}

#[test]
fn every_state_is_loaded_and_nothing_else_harms() {
    for (_, bench) in every_state() {
        check_loader(&bench.save(), |reader| {
            let session = Session::load(bench.now, reader)?;
            let mut writer = Writer::new();
            session.save(&bench.limits, bench.now, &mut writer);
            Ok(writer.into_bytes())
        });
    }
}

/// Deadlines, what it wants and what it says are the same behind a move, on a clock that is ahead
/// and on one that is behind.
#[test]
fn every_state_goes_on() {
    for clock in [400, 1_000, 90_000] {
        for ((name, mut stays), (_, mut moves)) in every_state().into_iter().zip(every_state()) {
            moves.move_to(Tick::new(clock));
            assert_eq!(moves.session.deadline, shifted(stays.session.deadline, &stays, &moves));
            assert_eq!(moves.deadline(), shifted(stays.deadline(), &stays, &moves), "{name}");
            assert_eq!(moves.session.wants_read(), stays.session.wants_read(), "{name}");
            assert_eq!(moves.session.queued(), stays.session.queued(), "{name}");
            for bench in [&mut stays, &mut moves] {
                bench.taken();
                bench.socket.room = usize::MAX;
            }
            assert_eq!(moves.flushed(), stays.flushed(), "{name}");
            assert_eq!(moves.session.take_parked(), stays.session.take_parked(), "{name}");
            if stays.deadline() != Tick::NEVER {
                assert_eq!(moves.wait(), stays.wait(), "{name}");
            }
            assert_eq!(moves.flushed(), stays.flushed(), "{name}");
        }
    }
}

/// A point in time of `from`'s clock on `to`'s.
fn shifted(tick: Tick, from: &Bench, to: &Bench) -> Tick {
    match tick {
        Tick::NEVER => tick,
        _ => Tick::new(tick.ticks() + to.now.ticks() - from.now.ticks()),
    }
}

#[test]
fn a_deadline_that_passed_meanwhile_is_due_at_once() {
    let mut bench = Bench::open();
    bench.limits.ping_interval = Some(SECOND);
    bench.after(60 * SECOND);
    bench.move_to(Tick::new(5_000));
    assert!(bench.deadline() < bench.now);
    assert_eq!(bench.with(Session::on_deadline), None);
    assert_eq!(bench.flushed(), (Next::Wait, plain(Ping, b"")));
}

/// A clock that has just started cannot say how long ago things were: they count as its start.
#[test]
fn a_younger_clock_forgets_the_past_but_no_deadline() {
    let mut bench = Bench::open();
    bench.limits.idle_timeout = Some(100 * SECOND);
    bench.limits.ping_interval = None;
    bench.after(60 * SECOND);
    bench.move_to(Tick::new(100));
    assert_eq!(bench.deadline(), Tick::START.after(100 * SECOND));
    bench.close(CloseCode::NORMAL, "");
    bench.flush();
    bench.after(2 * SECOND);
    let left = bench.deadline().since(bench.now);
    bench.move_to(Tick::START);
    assert_eq!(bench.deadline(), Tick::START.after(left));
}

#[test]
fn rates_are_used_up_on_both_sides_together() {
    let mut bench = Bench::open();
    bench.limits.message_rate_max = Some(5);
    for _ in 0..5 {
        assert_eq!(bench.receive(&masked(Text, b"x")), [text("x")]);
    }
    bench.move_to(Tick::new(77));
    let expected = closed(Some(CloseCode::POLICY), "too many frames", ClosedBy::Us);
    assert_eq!(bench.receive(&masked(Text, b"x")), [expected]);
}

#[test]
fn while_frozen_nobody_is_slow() {
    let mut bench = Bench::open();
    bench.limits.queue_bytes_max = 100;
    let Bench { session, turn, compression, limits, now, .. } = &mut bench;
    let mut expected = vec![];
    for number in 0..10 {
        let delivery = Delivery::new(turn, Binary, &[number; 90], compression, None);
        assert_eq!(session.deliver(&delivery, turn, limits, *now).is_ok(), number == 0);
        if number > 0 {
            session.deliver_unbounded(&delivery, turn, *now);
        }
        expected.extend_from_slice(&plain(Binary, &[number; 90]));
    }
    bench.move_to(Tick::new(3_000));
    assert_eq!(bench.session.queued(), expected.len());
    assert_eq!(bench.flushed(), (Next::Wait, expected));

    bench.receive(&masked(Close, b""));
    bench.flush();
    let delivery = Delivery::new(&mut bench.turn, Binary, b"x", &bench.compression, None);
    bench.session.deliver_unbounded(&delivery, &bench.turn, bench.now);
    assert_eq!(bench.session.queued(), 0, "not behind our Close");
}

/// The first write of the new process finds out what the socket takes; pongs wait no longer.
#[test]
fn a_pong_overtakes_in_the_new_process_too() {
    let mut bench = Bench::open();
    bench.socket.room = 10;
    bench.send(&[1; 60]);
    bench.flush();
    bench.send(&[2; LARGE_PAYLOAD_BYTES]);
    bench.receive(&masked(Ping, b"old"));
    bench.receive(&masked(Ping, b"new"));
    bench.move_to(Tick::new(9));
    bench.socket.room = usize::MAX;
    bench.flush();
    let frames =
        [plain(Binary, &[1; 60]), plain(Pong, b"new"), plain(Binary, &[2; LARGE_PAYLOAD_BYTES])];
    assert!(bench.taken() == frames.concat());
}

#[test]
fn what_precedes_an_answer_or_follows_a_fin_is_refused() {
    let shut = State::Lingering { discarded: 0, shut: true, peer_finished: false };
    for state in [State::Head(Box::default()), State::Deciding, shut] {
        let mut bench = Bench::open();
        bench.send(b"x");
        bench.session.spill(&bench.turn);
        bench.session.state = state;
        let loaded = Session::load(bench.now, &mut Reader::new(&bench.save()));
        assert!(matches!(loaded, Err(SnapshotError::Invalid(_))), "{loaded:?}");
    }
}
