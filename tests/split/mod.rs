//! Scripted sessions, cut at every point: how the bytes are cut must not change what happens nor
//! what is written. Nor must it that the session goes on in another process there.

mod drive;
mod scripts;

use drive::{Driven, Seen};
use scripts::Script;
use steadfast::base::limits::Limits;
use steadfast::base::spare::Spare;
use steadfast::ws::deflate::Inflater;
use steadfast::ws::{Decoder, Incoming, Input, Message, Role, Rules};

/// Scripts of at most so many bytes are also cut at every pair of points.
const PAIRS_BYTES_MAX: usize = 64;

/// Longer ones are cut at some hundred points, and fed in some sizes, instead of at all.
const LONG_BYTES: usize = 4_096;

/// What a slow socket takes a piece: nothing, a part of a frame, some frames, everything.
const ROOMS: [usize; 4] = [0, 3, 150, usize::MAX];

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    seen: Vec<Seen>,
    written: Vec<u8>,
}

fn run<'a>(script: &Script, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut driven = Driven::new(script.start, script.app, script.limits.clone());
    for piece in pieces {
        driven.receive(piece);
    }
    outcome(driven)
}

fn outcome(driven: Driven) -> Outcome {
    Outcome { written: driven.written().to_vec(), seen: driven.seen }
}

/// The same with a socket that takes `room` bytes a piece, and everything in the end; behind the
/// pieces that `moves` names by their number the session goes on in another process.
fn run_slowly<'a>(
    script: &Script,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    room: usize,
    moves: impl Fn(usize) -> bool,
) -> Outcome {
    let mut driven = Driven::new(script.start, script.app, script.limits.clone());
    for (number, piece) in pieces.into_iter().enumerate() {
        driven.set_room(room);
        match moves(number) {
            true => driven.receive_and_move(piece),
            false => driven.receive(piece),
        }
    }
    driven.set_room(usize::MAX);
    driven.receive(&[]);
    outcome(driven)
}

#[test]
fn whole_scripts_do_what_they_should() {
    for script in scripts::all() {
        let outcome = run(&script, [&script.bytes[..]]);
        assert_eq!(outcome.seen, script.expected, "{}", script.name);
        let frames = check_head(&script, &outcome);
        check_frames(&script, &outcome.seen, frames);
    }
}

#[test]
fn byte_by_byte_and_in_all_sizes() {
    for script in scripts::all() {
        let whole = run(&script, [&script.bytes[..]]);
        for size in points(script.bytes.len()) {
            let outcome = run(&script, script.bytes.chunks(size));
            assert_eq!(outcome, whole, "{} in pieces of {size}", script.name);
        }
    }
}

#[test]
fn cut_at_every_point() {
    for script in scripts::all() {
        let whole = run(&script, [&script.bytes[..]]);
        for at in points(script.bytes.len()) {
            let (one, two) = script.bytes.split_at(at);
            assert_eq!(run(&script, [one, two]), whole, "{} cut at {at}", script.name);
        }
    }
}

#[test]
fn short_ones_cut_at_every_pair_of_points() {
    for script in scripts::all() {
        let len = script.bytes.len();
        if len > PAIRS_BYTES_MAX {
            continue;
        }
        let whole = run(&script, [&script.bytes[..]]);
        for first in 0..=len {
            for second in first..=len {
                let (rest, three) = script.bytes.split_at(second);
                let (one, two) = rest.split_at(first);
                let outcome = run(&script, [one, two, three]);
                assert_eq!(outcome, whole, "{} cut at {first} and {second}", script.name);
            }
        }
    }
}

#[test]
fn moved_at_every_point() {
    for script in scripts::all() {
        for room in ROOMS {
            for at in points(script.bytes.len()) {
                let (one, two) = script.bytes.split_at(at);
                let stays = run_slowly(&script, [one, two], room, |_| false);
                let moves = run_slowly(&script, [one, two], room, |number| number == 0);
                assert_eq!(moves, stays, "{} moved at {at}, room {room}", script.name);
            }
        }
    }
}

/// A chain of as many processes as there are bytes.
#[test]
fn moved_behind_every_byte() {
    for script in scripts::all() {
        if script.bytes.len() > LONG_BYTES {
            continue;
        }
        for room in ROOMS {
            let pieces = || script.bytes.chunks(1);
            let stays = run_slowly(&script, pieces(), room, |_| false);
            let moves = run_slowly(&script, pieces(), room, |_| true);
            assert_eq!(moves, stays, "{}, room {room}", script.name);
        }
        let whole = run(&script, [&script.bytes[..]]);
        let moves = run_slowly(&script, script.bytes.chunks(1), usize::MAX, |_| true);
        assert_eq!(moves, whole, "{}", script.name);
    }
}

/// A FIN at any point ends a session for good.
#[test]
fn cut_off_at_every_point() {
    for script in scripts::all() {
        for at in points(script.bytes.len()) {
            let mut driven = Driven::new(script.start, script.app, script.limits.clone());
            driven.receive(&script.bytes[..at]);
            driven.finish();
            let seen = &driven.seen;
            assert_eq!(seen.last(), Some(&Seen::Dropped), "{} cut off at {at}", script.name);
            let closed = seen.iter().filter(|seen| matches!(seen, Seen::Closed(..))).count();
            let opened = !matches!(script.start, drive::Start::Head | drive::Start::Proxy)
                || seen.contains(&Seen::Accepted);
            assert_eq!(closed, usize::from(opened), "{} cut off at {at}", script.name);
        }
    }
}

/// 1 to `len`; with gaps if that is a lot.
fn points(len: usize) -> impl Iterator<Item = usize> {
    let stride = if len <= LONG_BYTES { 1 } else { len / 97 };
    (1..=len).step_by(stride)
}

/// Checks the HTTP answer, and returns the frames behind it.
fn check_head<'o>(script: &Script, outcome: &'o Outcome) -> &'o [u8] {
    let status = outcome.seen.iter().find_map(|seen| match seen {
        Seen::Accepted => Some(101),
        Seen::Refused(status) => Some(*status),
        _ => None,
    });
    let Some(status) = status else {
        return &outcome.written;
    };
    let line = format!("HTTP/1.1 {status} ");
    assert!(outcome.written.starts_with(line.as_bytes()), "{}", script.name);
    if status != 101 {
        return &[];
    }
    let end = outcome.written.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    &outcome.written[end + 4..]
}

/// What was written answers what was seen: message by message, ping by ping, Close by Close.
fn check_frames(script: &Script, seen: &[Seen], frames: &[u8]) {
    let limits = Limits::default();
    let rules = Rules {
        role: Role::Client,
        deflate: true,
        message_bytes_max: limits.message_bytes_max,
        fragments_max: 1,
    };
    let mut bytes = frames.to_vec();
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
    let mut input = Input::new(&mut bytes);
    let mut answers = vec![];
    while let Some(incoming) =
        decoder.decode(&mut input, &rules, &mut inflater, &mut Spare::default()).expect("valid")
    {
        answers.push(match incoming {
            Incoming::Message(Message::Text(text)) => Seen::Text(text.into_owned()),
            Incoming::Message(Message::Binary(bytes)) => Seen::Binary(bytes.into_owned()),
            Incoming::Pong(payload) => Seen::Ping(payload.into_owned()),
            Incoming::Ping(_) => panic!("{}: a ping nobody asked for", script.name),
            Incoming::Close(body) => {
                Seen::Closed(body.map(|body| body.code.0), steadfast::session::ClosedBy::Us)
            }
        });
    }
    let mut next = *b"\x81\0";
    let mut next = Input::new(&mut next);
    let next = decoder.decode(&mut next, &rules, &mut inflater, &mut Spare::default());
    let is_whole = matches!(next, Ok(Some(Incoming::Message(_))));
    assert!(is_whole, "{}: the last frame is cut", script.name);
    let expected: Vec<Seen> = seen
        .iter()
        .filter_map(|seen| match seen {
            Seen::Text(_) | Seen::Binary(_) | Seen::Ping(_) => Some(seen.clone()),
            Seen::Closed(code, _) => Some(Seen::Closed(*code, steadfast::session::ClosedBy::Us)),
            _ => None,
        })
        .collect();
    assert_eq!(answers, expected, "{}", script.name);
}
