//! The same bytes to our decoder and to tungstenite's, as servers without compression.
//!
//! They have to come to the same messages and the same end. Where they may differ, and why:
//!
//! 1. *Lengths not in their shortest form* are violations here (RFC 6455 §5.2: "the minimal number
//!    of bytes MUST be used"), in control frames any but the shortest form; tungstenite takes them.
//! 2. *Close code 1014* is assigned (IANA registry) and taken here; tungstenite refuses it.
//! 3. *Early failure*: we fail as soon as a violation is certain, tungstenite once the frame has
//!    arrived. So when we have failed and it waits, it is given the rest of the frame, as zeros,
//!    and then has to fail, too.
//! 4. *Several violations in one frame*: a header that breaks the protocol is 1002 here even if
//!    its length is above the limit as well; tungstenite looks at the length first. The other way
//!    round, a frame that is too large is 1009 here from its header alone, where tungstenite may
//!    find in the payload that it is not UTF-8. A Close with a bad code and a reason that is not
//!    UTF-8 is 1002 here and 1007 there.
//! 5. *A close code that must not be sent* is a violation that we answer with 1002; tungstenite
//!    answers the same, but reports it as a Close with that code.

use std::io::{self, Read, Write};

use steadfast::base::spare::Spare;
use steadfast::ws::deflate::Inflater;
use steadfast::ws::{CloseCode, Decoder, Incoming, Input, Message, ProtocolError, Role, Rules};
use tungstenite::protocol::{self as theirs, WebSocketConfig};

/// Longest message, for both.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4_096;

/// What a decoder has come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) items: Vec<Item>,
    pub(crate) end: End,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It waits for more bytes.
    Waiting,
    /// With a Close.
    Closed(Option<(u16, String)>),
    /// With a violation that is answered with this code.
    Failed(u16),
}

/// Asserts that both agree about `bytes`, up to the divergences above.
pub(crate) fn assert_agreement(bytes: &[u8]) {
    let (ours, error) = ours(bytes);
    let mut theirs = theirs_of(bytes);
    let length_forms = [ProtocolError::LengthNotMinimal, ProtocolError::ControlTooLong];
    if error.is_some_and(|error| length_forms.contains(&error)) {
        assert!(theirs.items.starts_with(&ours.items), "{bytes:x?}");
        return; // 1.
    }
    if matches!(ours.end, End::Failed(_)) && theirs.end == End::Waiting {
        let completed = [bytes, &[0; MESSAGE_BYTES_MAX + 14]].concat();
        theirs = theirs_of(&completed); // 3.
    }
    assert_eq!(ours.items, theirs.items, "{bytes:x?}");
    let same = match (&ours.end, &theirs.end) {
        (End::Closed(Some((1014, _))), End::Closed(Some((1002, _)))) => true, // 2.
        (End::Failed(1002), End::Failed(1009)) | (End::Failed(1009), End::Failed(1007)) => true, // 4.
        (End::Failed(1002), End::Failed(1007)) => error == Some(ProtocolError::InvalidCloseCode), // 4.
        (End::Failed(1002), End::Closed(Some((1002, _)))) => {
            error == Some(ProtocolError::InvalidCloseCode) // 5.
        }
        (one, other) => one == other,
    };
    assert!(same, "{:?} ({error:?}) and {:?}: {bytes:x?}", ours.end, theirs.end);
}

fn ours(bytes: &[u8]) -> (Outcome, Option<ProtocolError>) {
    let rules = Rules {
        role: Role::Server,
        deflate: false,
        message_bytes_max: MESSAGE_BYTES_MAX,
        fragments_max: u32::MAX,
    };
    let mut bytes = bytes.to_vec();
    let mut input = Input::new(&mut bytes);
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
    let mut items = vec![];
    loop {
        let incoming =
            match decoder.decode(&mut input, &rules, &mut inflater, &mut Spare::default()) {
                Ok(Some(incoming)) => incoming,
                Ok(None) => return (Outcome { items, end: End::Waiting }, None),
                Err(error) => {
                    let CloseCode(code) = error.close_code();
                    return (Outcome { items, end: End::Failed(code) }, Some(error));
                }
            };
        items.push(match incoming {
            Incoming::Message(Message::Text(text)) => Item::Text(text.into_owned()),
            Incoming::Message(Message::Binary(bytes)) => Item::Binary(bytes.into_owned()),
            Incoming::Ping(payload) => Item::Ping(payload.into_owned()),
            Incoming::Pong(payload) => Item::Pong(payload.into_owned()),
            Incoming::Close(body) => {
                let body = body.map(|body| (body.code.0, body.reason));
                return (Outcome { items, end: End::Closed(body) }, None);
            }
        });
    }
}

fn theirs_of(bytes: &[u8]) -> Outcome {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut socket =
        theirs::WebSocket::from_raw_socket(Wire(bytes), theirs::Role::Server, Some(config));
    let mut items = vec![];
    let end = loop {
        use tungstenite::Error;
        items.push(match socket.read() {
            Ok(tungstenite::Message::Text(text)) => Item::Text(text.as_str().to_owned()),
            Ok(tungstenite::Message::Binary(bytes)) => Item::Binary(bytes.to_vec()),
            Ok(tungstenite::Message::Ping(payload)) => Item::Ping(payload.to_vec()),
            Ok(tungstenite::Message::Pong(payload)) => Item::Pong(payload.to_vec()),
            Ok(tungstenite::Message::Close(body)) => {
                let body = body.map(|body| (body.code.into(), body.reason.as_str().to_owned()));
                break End::Closed(body);
            }
            Ok(tungstenite::Message::Frame(_)) => unreachable!("read returns whole messages"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                break End::Waiting;
            }
            Err(Error::Utf8(_)) => break End::Failed(1007),
            Err(Error::Capacity(_)) => break End::Failed(1009),
            Err(Error::Protocol(_)) => break End::Failed(1002),
            Err(other) => panic!("not a matter of the bytes: {other}"),
        });
    };
    Outcome { items, end }
}

/// Gives its bytes and then blocks; takes everything.
struct Wire<'b>(&'b [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
