//! A session's loader: arbitrary bytes neither panic nor take more memory than there are bytes
//! for, and what loads is saved and loaded again as the same. It can be driven, too, whatever it
//! holds: what follows the snapshot is received.

#![no_main]

use libfuzzer_sys::fuzz_target;
use steadfast::base::limits::{HeadLimits, Limits};
use steadfast::base::snapshot::{Reader, Writer};
use steadfast::base::tick::Tick;
use steadfast::session::turn::Turn;
use steadfast::session::{Compression, Env, Event, Next, Session};
use steadfast::ws::deflate::Inflater;
use steadfast::ws::{Input, Message};

const NOW: Tick = Tick::new(1_000_000);

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    let Ok(session) = Session::load(NOW, &mut reader) else {
        return;
    };
    let used = bytes.len() - reader.remaining();
    let limits = Limits {
        message_bytes_max: 100_000,
        control_rate_max: Some(u32::MAX),
        message_rate_max: Some(u32::MAX),
        ..Limits::default()
    };
    let saved = save(&session, &limits);
    assert!(saved.len() <= used, "{} bytes of {used}", saved.len());
    let mut reader = Reader::new(&saved);
    let again = Session::load(NOW, &mut reader).expect("just saved");
    assert_eq!(reader.finish(), Ok(()));
    assert_eq!(save(&again, &limits), saved, "loaded and saved again");
    drive(again, &limits, &bytes[used..]);
});

fn save(session: &Session, limits: &Limits) -> Vec<u8> {
    let mut writer = Writer::new();
    session.save(limits, NOW, &mut writer);
    writer.into_bytes()
}

/// What a worker does with it: parked bytes, new ones, what waits for the socket, the time.
fn drive(mut session: Session, limits: &Limits, bytes: &[u8]) {
    let (mut turn, mut inflater) = (Turn::server(), Inflater::default());
    let compression = Compression { level: 1, threshold_bytes: 64 };
    let mut pieces = vec![bytes.to_vec()];
    pieces.extend(session.take_parked());
    let mut written = vec![];
    while let Some(mut piece) = pieces.pop() {
        let mut env = Env { turn: &mut turn, limits, compression: &compression, now: NOW };
        let mut input = Input::new(&mut piece);
        while session.is_handshaking() {
            match session.receive_head(&mut input, &HeadLimits::default(), NOW) {
                Some(Event::Head(_)) => session.accept(b"answer", None, &mut env),
                Some(Event::BadHead(_)) => session.refuse(b"refusal", &mut env),
                Some(_) => {}
                None => break,
            }
        }
        while let Some(event) = session.receive(&mut input, &mut env, &mut inflater) {
            if let Event::Message(Message::Text(text)) = event {
                assert!(std::str::from_utf8(text.as_bytes()).is_ok());
            }
        }
        session.park(input.rest());
        if session.flush(&mut turn, &mut written, limits, NOW).expect("a Vec takes everything")
            == Next::Resume
        {
            pieces.extend(session.take_parked());
        }
        turn.clear();
    }
    let mut env = Env { turn: &mut turn, limits, compression: &compression, now: NOW };
    session.on_deadline(&mut env);
}
