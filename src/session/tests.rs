//! A session under virtual time: the bytes it writes *and* the events it tells.

use super::*;
use crate::ws::mask::MaskKeys;
use crate::ws::{Header, encode};
use std::time::Duration;

mod freezing;
mod handshaking;
mod open;
mod timers;

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

const DEFLATE: DeflateParams = DeflateParams { server_window_bits: 15, client_window_bits: 15 };

/// A socket that takes `room` bytes and then blocks.
#[derive(Default)]
struct Socket {
    room: usize,
    taken: Vec<u8>,
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = bytes.len().min(self.room);
        self.room -= len;
        self.taken.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A session and all that it works with.
struct Bench {
    session: Session,
    turn: Turn,
    inflater: Inflater,
    limits: Limits,
    head_limits: HeadLimits,
    compression: Compression,
    now: Tick,
    socket: Socket,
}

impl Bench {
    /// At its first byte; the socket takes everything.
    fn new() -> Self {
        let head_limits = HeadLimits::default();
        let now = Tick::new(1_000);
        Self {
            session: Session::new(&head_limits, now),
            turn: Turn::server(),
            inflater: Inflater::default(),
            limits: Limits::default(),
            head_limits,
            compression: Compression { level: 6, threshold_bytes: 64 },
            now,
            socket: Socket { room: usize::MAX, taken: vec![] },
        }
    }

    /// Behind a handshake.
    fn open() -> Self {
        Self::open_with(None, b"")
    }

    fn open_with(deflate: Option<DeflateParams>, answer: &[u8]) -> Self {
        let mut bench = Self::new();
        let mut head = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        assert!(matches!(bench.receive_head(&mut head), Some(Event::Head(_))));
        bench.with(|session, env| session.accept(answer, deflate, env));
        bench
    }

    /// In the client role, behind a handshake.
    fn client() -> Self {
        let mut bench = Self::open();
        bench.turn = Turn::client(MaskKeys::new([7; 256], |_| {}));
        bench
    }

    fn with<T>(&mut self, what: impl FnOnce(&mut Session, &mut Env<'_>) -> T) -> T {
        let mut env = Env {
            turn: &mut self.turn,
            limits: &self.limits,
            compression: &self.compression,
            now: self.now,
        };
        what(&mut self.session, &mut env)
    }

    fn receive_head(&mut self, bytes: &mut [u8]) -> Option<Event<'static>> {
        self.receive_head_of(&mut Input::new(bytes))
    }

    fn receive_head_of(&mut self, input: &mut Input<'_>) -> Option<Event<'static>> {
        self.session.receive_head(input, &self.head_limits, self.now)
    }

    /// Feeds bytes, parks what is left, and says what happened.
    fn receive(&mut self, bytes: &[u8]) -> Vec<Event<'static>> {
        self.receive_input(&mut Input::new(&mut bytes.to_vec()))
    }

    fn receive_input(&mut self, input: &mut Input<'_>) -> Vec<Event<'static>> {
        let mut events = vec![];
        let Self { session, turn, inflater, limits, compression, now, .. } = self;
        let mut env = Env { turn, limits, compression, now: *now };
        while let Some(event) = session.receive(input, &mut env, inflater) {
            events.push(owned(event));
        }
        session.park(input.rest());
        events
    }

    fn send(&mut self, payload: &[u8]) -> bool {
        let payload = Cow::Owned(payload.to_vec());
        self.with(|session, env| session.send(Opcode::Binary, payload, env))
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        let frame = CloseFrame::new(code, reason);
        self.with(|session, env| session.close(frame, env));
    }

    /// Ends the turn.
    fn flush(&mut self) -> Next {
        let Self { session, turn, socket, limits, now, .. } = self;
        let next = session.flush(turn, socket, limits, *now).expect("this socket does not break");
        turn.clear();
        next
    }

    /// What the socket has taken since this was last asked.
    fn taken(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.socket.taken)
    }

    /// Ends the turn, and what it has written.
    fn flushed(&mut self) -> (Next, Vec<u8>) {
        let next = self.flush();
        (next, self.taken())
    }

    fn finished(&mut self) -> Option<Event<'static>> {
        self.session.peer_finished(&self.limits, self.now)
    }

    fn deadline(&self) -> Tick {
        self.session.deadline(&self.limits)
    }

    /// Goes to the next deadline, and does what is due then.
    fn wait(&mut self) -> Option<Event<'static>> {
        self.now = self.deadline();
        assert_ne!(self.now, Tick::NEVER, "nothing is ever due");
        self.with(Session::on_deadline)
    }

    fn after(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }
}

fn owned(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Message(Message::Text(text)) => {
            Event::Message(Message::Text(Cow::Owned(text.into_owned())))
        }
        Event::Message(Message::Binary(bytes)) => {
            Event::Message(Message::Binary(Cow::Owned(bytes.into_owned())))
        }
        Event::Ping(payload) => Event::Ping(Cow::Owned(payload.into_owned())),
        Event::Pong(payload) => Event::Pong(Cow::Owned(payload.into_owned())),
        Event::Closed(closed) => Event::Closed(closed),
        other => panic!("no event of an open connection: {other:?}"),
    }
}

/// A client's frame.
fn masked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    encode::frame(&mut out, Header { fin: true, rsv1: false, opcode, mask: MASK, len: 0 }, payload);
    out
}

/// A server's frame.
fn plain(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    encode::frame(&mut out, Header { fin: true, rsv1: false, opcode, mask: None, len: 0 }, payload);
    out
}

/// The body of a Close.
fn body(code: CloseCode, reason: &str) -> Vec<u8> {
    CloseFrame::new(code, reason).encode()
}

fn text(text: &str) -> Event<'static> {
    Event::Message(Message::Text(Cow::Owned(text.to_owned())))
}

fn binary(bytes: &[u8]) -> Event<'static> {
    Event::Message(Message::Binary(Cow::Owned(bytes.to_vec())))
}

fn ping(payload: &[u8]) -> Event<'static> {
    Event::Ping(Cow::Owned(payload.to_vec()))
}

fn closed(code: Option<CloseCode>, reason: &str, by: ClosedBy) -> Event<'static> {
    Event::Closed(Closed { code, reason: reason.to_owned(), by })
}
