//! A whole session, driven by operations: what a peer, an app, a room, a clock and a socket that
//! takes some bytes and then blocks may do, in any order.
//!
//! What holds: nothing panics; what was written is the answer to the handshake and then whole
//! frames, with every message in its order, and nothing behind a Close; an opened connection is
//! closed exactly once; deadlines that were dealt with lie in the future; the queue is bounded.

#![no_main]

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use steadfast::base::DeflateParams;
use steadfast::base::limits::{HeadLimits, Limits};
use steadfast::base::spare::Spare;
use steadfast::base::tick::Tick;
use steadfast::session::delivery::Delivery;
use steadfast::session::turn::Turn;
use steadfast::session::{Closed, Compression, Env, Event, Next, Session};
use steadfast::ws::deflate::Inflater;
use steadfast::ws::{
    CloseCode, CloseFrame, Decoder, Header, Incoming, Input, Opcode, Role, Rules, encode,
};

/// Longest message that is sent or taken.
const MESSAGE_BYTES_MAX: usize = 70_000;

const QUEUE_BYTES_MAX: usize = 100_000;

const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\nno";

#[derive(Debug, Arbitrary)]
struct Run {
    /// Bits: a PROXY header is expected; decisions come later; compression; the app echoes; idle
    /// time-out.
    how: u8,
    operations: Vec<Operation>,
}

#[derive(Debug, Arbitrary)]
enum Operation {
    /// The request, if it has not been sent.
    Request,
    /// Anything at all.
    Bytes(Vec<u8>),
    /// Frames in one piece, or a frame cut in two.
    Frames(Vec<Frame>, Option<u8>),
    Accept,
    Refuse,
    Send {
        text: bool,
        len: u16,
        times: u8,
    },
    Deliver {
        text: bool,
        len: u16,
    },
    Ping(u8),
    Close(u16),
    Fail,
    /// Ticks.
    Wait(u8),
    /// The socket takes so many more bytes, times the second number.
    Room(u8, u8),
    Flush,
    HalfClose,
    Lost,
}

#[derive(Debug, Arbitrary)]
struct Frame {
    fin: bool,
    rsv1: bool,
    opcode: u8,
    payload: Vec<u8>,
    /// The payload this often.
    times: u8,
}

impl Frame {
    fn encode(&self, out: &mut Vec<u8>) {
        let opcodes = [
            Opcode::Text,
            Opcode::Binary,
            Opcode::Continuation,
            Opcode::Ping,
            Opcode::Pong,
            Opcode::Close,
        ];
        let opcode = opcodes[usize::from(self.opcode) % opcodes.len()];
        let payload = match opcode.is_control() {
            true => self.payload[..self.payload.len().min(125)].to_vec(),
            false => self.payload.repeat(usize::from(self.times).max(1)),
        };
        let fin = self.fin || opcode.is_control();
        let mask = Some([1, 2, 3, 4]);
        encode::frame(out, Header { fin, rsv1: self.rsv1, opcode, mask, len: 0 }, &payload);
    }
}

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

struct World {
    session: Session,
    turn: Turn,
    inflater: Inflater,
    limits: Limits,
    head_limits: HeadLimits,
    compression: Compression,
    now: Tick,
    socket: Socket,
    later: bool,
    deflate: bool,
    echo: bool,
    requested: bool,
    /// Messages that must come out, in this order.
    expected: VecDeque<Vec<u8>>,
    opened: bool,
    refused: bool,
    closed: Option<Closed>,
    shut: bool,
    /// The socket broke or the peer was given up: what was queued is gone.
    lost: bool,
    counter: u8,
}

fuzz_target!(|run: Run| {
    let mut world = World::new(run.how);
    for operation in &run.operations {
        world.operate(operation);
        world.check();
    }
    world.end();
});

/// Borrows the fields that an [`Env`] is made of, and leaves the session free.
macro_rules! env {
    ($world:expr) => {
        Env {
            turn: &mut $world.turn,
            limits: &$world.limits,
            compression: &$world.compression,
            now: $world.now,
        }
    };
}

impl World {
    fn new(how: u8) -> Self {
        let head_limits = HeadLimits { head_bytes_max: 300, ..HeadLimits::default() };
        let now = Tick::new(1_000);
        let mut session = Session::new(&head_limits, now);
        if how & 1 != 0 {
            session.expect_proxy_header();
        }
        let limits = Limits {
            message_bytes_max: MESSAGE_BYTES_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            fragments_max: 16,
            ping_interval: Some(Duration::from_secs(2)),
            pong_timeout: Duration::from_secs(1),
            idle_timeout: (how & 16 != 0).then_some(Duration::from_secs(5)),
            close_timeout: Duration::from_secs(1),
            ..Limits::default()
        };
        Self {
            session,
            turn: Turn::server(),
            inflater: Inflater::default(),
            limits,
            head_limits,
            compression: Compression { level: 1, threshold_bytes: 64 },
            now,
            socket: Socket::default(),
            later: how & 2 != 0,
            deflate: how & 4 != 0,
            echo: how & 8 != 0,
            requested: false,
            expected: VecDeque::new(),
            opened: false,
            refused: false,
            closed: None,
            shut: false,
            lost: false,
            counter: 0,
        }
    }

    fn operate(&mut self, operation: &Operation) {
        match operation {
            Operation::Request => {
                if !self.requested {
                    self.requested = true;
                    self.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
                }
            }
            Operation::Bytes(bytes) => self.receive(bytes),
            Operation::Frames(frames, cut) => {
                let mut bytes = vec![];
                frames.iter().take(40).for_each(|frame| frame.encode(&mut bytes));
                let cut = cut.map_or(bytes.len(), |cut| usize::from(cut).min(bytes.len()));
                self.receive(&bytes[..cut]);
                if cut < bytes.len() {
                    self.receive(&bytes[cut..]);
                }
            }
            Operation::Accept => self.accept(),
            Operation::Refuse => self.refuse(),
            Operation::Send { text, len, times } => {
                for _ in 0..*times % 4 + 1 {
                    // An app that is no reply's origin has to look at the queue itself.
                    if self.session.queued() <= QUEUE_BYTES_MAX {
                        let payload = self.payload(*len);
                        self.send(*text, &payload);
                    }
                }
            }
            Operation::Deliver { text, len } => self.deliver(*text, *len),
            Operation::Ping(len) => self.session.ping(&vec![b'p'; (*len).into()], &mut env!(self)),
            Operation::Close(code) => {
                let code = CloseCode(*code);
                if code.is_sendable() {
                    self.session.close(CloseFrame::new(code, "app"), &mut env!(self));
                }
            }
            Operation::Fail => {
                if self.session.is_open() {
                    let frame = CloseFrame::new(CloseCode::INTERNAL, "failed");
                    let event = self.session.fail_with(frame, &mut env!(self));
                    self.closed(event);
                }
            }
            Operation::Wait(ticks) => self.wait(*ticks),
            Operation::Room(bytes, times) => {
                self.socket.room += usize::from(*bytes) * usize::from(*times);
                self.flush();
            }
            Operation::Flush => self.flush(),
            Operation::HalfClose => {
                if self.session.wants_read() {
                    let lingers = self.closed.is_some() || self.refused;
                    self.lost |= !lingers;
                    if let Some(event) = self.session.peer_finished(&self.limits, self.now) {
                        self.closed(event);
                    }
                }
            }
            Operation::Lost => self.lose(),
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        if let Some(event) = self.session.lost() {
            self.closed(event);
        }
        assert!(self.session.is_done() && self.session.queued() == 0);
    }

    /// Text that tells one message from the next, and shrinks.
    fn payload(&mut self, len: u16) -> Vec<u8> {
        self.counter = self.counter.wrapping_add(1);
        let mut payload = format!("{} ", self.counter).into_bytes();
        payload.resize(usize::from(len), b'a' + self.counter % 26);
        payload
    }

    fn send(&mut self, text: bool, payload: &[u8]) {
        let opcode = if text { Opcode::Text } else { Opcode::Binary };
        let message = Cow::Owned(payload.to_vec());
        if self.session.send(opcode, message, &mut env!(self)) {
            self.expected.push_back(payload.to_vec());
        }
    }

    fn deliver(&mut self, text: bool, len: u16) {
        let payload = self.payload(len);
        let opcode = if text { Opcode::Text } else { Opcode::Binary };
        let window = self.deflate.then_some(9);
        let delivery = Delivery::new(&mut self.turn, opcode, &payload, &self.compression, window);
        let queued = self.session.queued();
        let open = self.session.is_open();
        match self.session.deliver(&delivery, &self.turn, &self.limits, self.now) {
            Ok(()) if open => self.expected.push_back(payload),
            Ok(()) => assert_eq!(self.session.queued(), queued),
            Err(_) => {
                assert!(queued > 0 && queued + payload.len() + 10 > QUEUE_BYTES_MAX);
                assert_eq!(self.session.queued(), queued);
            }
        }
    }

    fn accept(&mut self) {
        let deflate = DeflateParams { server_window_bits: 9, client_window_bits: 15 };
        let deflate = self.deflate.then_some(deflate);
        self.session.accept(ANSWER, deflate, &mut env!(self));
        if !self.opened && self.session.is_open() {
            assert!(!self.refused);
            self.opened = true;
        }
    }

    fn refuse(&mut self) {
        let deciding = self.session.is_handshaking() && self.requested_is_complete();
        self.session.refuse(REFUSAL, &mut env!(self));
        self.refused |= deciding && !self.session.is_handshaking();
    }

    fn requested_is_complete(&self) -> bool {
        !self.opened && !self.refused && !self.session.is_done()
    }

    /// What a worker does with a readable socket.
    fn receive(&mut self, bytes: &[u8]) {
        if self.session.wants_read() {
            self.feed(&mut bytes.to_vec());
        }
    }

    fn feed(&mut self, bytes: &mut [u8]) {
        let mut input = Input::new(bytes);
        while self.session.is_handshaking() {
            match self.session.receive_head(&mut input, &self.head_limits, self.now) {
                Some(Event::Head(_)) if self.later => {}
                Some(Event::Head(_)) => self.accept(),
                Some(Event::BadHead(_)) => self.refuse(),
                Some(Event::Proxied(_)) => {}
                Some(Event::BadProxy(_)) => assert!(self.session.is_done()),
                Some(other) => panic!("no event of a head: {other:?}"),
                None => break,
            }
        }
        loop {
            let before = self.session.queued();
            let event = self.session.receive(&mut input, &mut env!(self), &mut self.inflater);
            let Some(event) = event else {
                break;
            };
            assert!(self.opened && self.closed.is_none(), "{event:?} out of place");
            match event {
                Event::Message(message) => {
                    let (opcode, payload) = (message.opcode(), message.as_bytes().to_vec());
                    assert!(payload.len() <= MESSAGE_BYTES_MAX);
                    if self.echo {
                        assert!(before <= QUEUE_BYTES_MAX, "reading should have been paused");
                        self.send(opcode == Opcode::Text, &payload);
                    }
                }
                Event::Ping(payload) | Event::Pong(payload) => assert!(payload.len() <= 125),
                Event::Closed(closed) => self.closed = Some(closed),
                other => panic!("no event of an open connection: {other:?}"),
            }
        }
        self.session.park(input.rest());
    }

    fn closed(&mut self, event: Event<'static>) {
        let Event::Closed(closed) = event else {
            panic!("not the end: {event:?}");
        };
        assert!(self.opened, "closed before it was open");
        assert_eq!(self.closed.replace(closed), None, "closed twice");
    }

    fn wait(&mut self, ticks: u8) {
        self.now = Tick::new(self.now.ticks() + u32::from(ticks));
        if self.session.is_done() {
            return;
        }
        let event = self.session.on_deadline(&mut env!(self));
        match event {
            Some(Event::Overdue { .. }) => self.refuse(),
            Some(event) => self.closed(event),
            None => {}
        }
        if self.session.is_done() {
            self.lost = true;
        } else {
            assert!(self.session.deadline(&self.limits) > self.now, "due again at once");
        }
    }

    /// What a worker does at the end of a turn.
    fn flush(&mut self) {
        loop {
            let next = self.session.flush(&mut self.turn, &mut self.socket, &self.limits, self.now);
            self.turn.clear();
            match next.expect("this socket does not break") {
                Next::Wait => break,
                Next::Resume => {
                    let mut parked = self.session.take_parked().unwrap_or_default();
                    self.feed(&mut parked);
                }
                Next::ShutdownWrite => {
                    assert!(!self.shut, "shut down twice");
                    self.shut = true;
                }
                Next::Drop => {
                    let over = self.closed.is_some() || self.refused;
                    assert!(self.session.is_done() || over);
                    break;
                }
            }
        }
    }

    fn check(&mut self) {
        let queued = self.session.queued();
        // The mark, one message, and the frames of one operation.
        assert!(queued < QUEUE_BYTES_MAX + 8 * MESSAGE_BYTES_MAX, "{queued} bytes queued");
        // A turn ends: what it produced is written or copied out.
        self.flush();
        if self.socket.room > 0 {
            assert_eq!(self.session.queued(), 0, "room left, and bytes too");
        }
    }

    /// Lets everything out, and reads it as the peer does.
    fn end(&mut self) {
        self.socket.room = usize::MAX / 2;
        self.flush();
        self.flush();
        let cut_off = self.lost || self.session.is_done();
        let queued = self.session.queued();
        assert_eq!(queued, 0);
        if self.session.is_done() {
            assert_eq!(self.opened, self.closed.is_some(), "each opened one is closed");
        }
        let mut taken = std::mem::take(&mut self.socket.taken);
        if self.refused {
            assert!(REFUSAL.starts_with(&taken) && (cut_off || taken == REFUSAL));
            return;
        }
        if !self.opened {
            assert!(taken.is_empty());
            return;
        }
        if taken.len() < ANSWER.len() {
            assert!(cut_off && ANSWER.starts_with(&taken));
            return;
        }
        assert!(taken.starts_with(ANSWER));
        self.read_frames(&mut taken[ANSWER.len()..], cut_off);
    }

    fn read_frames(&mut self, bytes: &mut [u8], cut_off: bool) {
        let rules = Rules {
            role: Role::Client,
            deflate: self.deflate,
            message_bytes_max: MESSAGE_BYTES_MAX,
            fragments_max: 1,
        };
        let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
        let mut input = Input::new(bytes);
        let mut close_seen = false;
        loop {
            let incoming = decoder.decode(&mut input, &rules, &mut inflater, &mut Spare::default());
            let Some(incoming) = incoming.expect("we keep to the protocol") else {
                break;
            };
            assert!(!close_seen, "something follows our Close: {incoming:?}");
            match incoming {
                Incoming::Message(message) => {
                    let expected = self.expected.pop_front().expect("a message nobody sent");
                    assert!(message.as_bytes() == expected, "out of order or damaged");
                }
                Incoming::Close(_) => close_seen = true,
                Incoming::Ping(_) | Incoming::Pong(_) => {}
            }
        }
        if !cut_off {
            let mut next = *b"\x81\0";
            let mut next = Input::new(&mut next);
            let next = decoder.decode(&mut next, &rules, &mut inflater, &mut Spare::default());
            assert!(
                matches!(next, Ok(Some(Incoming::Message(_)))),
                "the last frame is cut: {next:?}"
            );
            assert!(self.expected.is_empty(), "messages are missing");
            assert_eq!(close_seen, self.closed.is_some() || self.shut || !self.session.is_open());
        }
    }
}
