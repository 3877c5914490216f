//! The decoder: fed in random pieces it comes to what it comes to when it is fed everything at
//! once. The first byte chooses the rules, the second one how to cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use steadfast::base::spare::Spare;
use steadfast::ws::deflate::Inflater;
use steadfast::ws::{Decoder, Incoming, Input, Message, Opcode, ProtocolError, Role, Rules};

#[derive(Debug, PartialEq)]
enum Item {
    Message(Opcode, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

#[derive(Debug, PartialEq)]
struct Outcome {
    items: Vec<Item>,
    error: Option<ProtocolError>,
}

fuzz_target!(|bytes: &[u8]| {
    let [rules, seed, bytes @ ..] = bytes else {
        return;
    };
    let rules = Rules {
        role: if rules & 1 == 0 { Role::Server } else { Role::Client },
        deflate: rules & 2 != 0,
        message_bytes_max: [100, 1_000, 70_000, 1 << 20][usize::from(rules >> 2 & 3)],
        fragments_max: [1, 4, 1_024, u32::MAX][usize::from(rules >> 4 & 3)],
    };
    // Where it has come to shows in what it makes of one more message of each role.
    let bytes = &[bytes, b"\x81\x80\0\0\0\0\x81\0"].concat()[..];
    let whole = decode([bytes].into_iter(), &rules);
    assert_eq!(decode(bytes.chunks(1), &rules), whole, "byte by byte");
    assert_eq!(decode(pieces(bytes, *seed).into_iter(), &rules), whole, "in pieces");
});

/// Cuts the bytes in pieces of 0 to 30 bytes, and now and then of more.
fn pieces(mut bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed) + 1;
    let mut pieces = vec![];
    while !bytes.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = (state >> 16) as usize % 31;
        let len = if state >> 28 == 0 { len * 40 } else { len };
        let (piece, rest) = bytes.split_at(len.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>, rules: &Rules) -> Outcome {
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
    let mut items = vec![];
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut input = Input::new(&mut piece);
        loop {
            match decoder.decode(&mut input, rules, &mut inflater, &mut Spare::default()) {
                Ok(Some(incoming)) => items.push(item(incoming, rules)),
                Ok(None) => break,
                Err(error) => return Outcome { items, error: Some(error) },
            }
        }
        assert!(input.rest().is_empty(), "None means that all was consumed");
    }
    Outcome { items, error: None }
}

fn item(incoming: Incoming<'_>, rules: &Rules) -> Item {
    match incoming {
        Incoming::Message(message) => {
            assert!(message.as_bytes().len() <= rules.message_bytes_max);
            if let Message::Text(text) = &message {
                assert!(std::str::from_utf8(text.as_bytes()).is_ok());
            }
            Item::Message(message.opcode(), message.as_bytes().to_vec())
        }
        Incoming::Ping(payload) => Item::Ping(control(payload.into_owned())),
        Incoming::Pong(payload) => Item::Pong(control(payload.into_owned())),
        Incoming::Close(body) => Item::Close(body.map(|body| {
            assert!(body.code.is_sendable());
            (body.code.0, body.reason)
        })),
    }
}

fn control(payload: Vec<u8>) -> Vec<u8> {
    assert!(payload.len() <= 125);
    payload
}
