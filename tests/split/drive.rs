//! A session with an echo app, driven as a worker drives it, which writes down all that happens.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::UNIX_EPOCH;

use steadfast::base::DeflateParams;
use steadfast::base::limits::{HeadLimits, Limits};
use steadfast::base::snapshot::{Reader, Writer};
use steadfast::base::tick::Tick;
use steadfast::http::{Head, HeadError, ProxyError, Refusal};
use steadfast::session::handshake::{self, DeflatePolicy, Policy};
use steadfast::session::turn::Turn;
use steadfast::session::{ClosedBy, Compression, Env, Event, Next, Session};
use steadfast::ws::deflate::Inflater;
use steadfast::ws::{CloseFrame, Input, Message};

/// What happened, with everything owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Proxied(Option<SocketAddr>),
    BadProxy(ProxyError),
    /// A request whose handshake was accepted.
    Accepted,
    /// A request that was refused with this status.
    Refused(u16),
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Closed(Option<u16>, ClosedBy),
    /// We have shut down our side.
    ShutdownWrite,
    /// The connection is to be dropped.
    Dropped,
}

/// Where a connection is when its script begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At its first byte, which is a PROXY header's.
    Proxy,
    /// At its first byte, which is a request's.
    Head,
    /// Behind a handshake.
    Open { deflate: bool },
}

/// The clocks of the processes that a connection comes to.
const CLOCKS: [u32; 3] = [864_000, 7, 4_000_000_000];

/// A socket that takes `room` bytes and then blocks.
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

/// One connection under test.
pub(crate) struct Driven {
    session: Session,
    turn: Turn,
    inflater: Inflater,
    limits: Limits,
    head_limits: HeadLimits,
    compression: Compression,
    now: Tick,
    /// Moves so far.
    moves: usize,
    /// It is moved whenever something has been made and nothing written.
    moving: bool,
    /// Bytes that have arrived and were not read.
    unread: Vec<u8>,
    socket: Socket,
    /// All that has happened.
    pub(crate) seen: Vec<Seen>,
    /// How the app answers a message.
    app: App,
}

/// What the app does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum App {
    /// Sends it back.
    Echo,
    /// Sends it back, and begins a close handshake when it is "close".
    CloseOnRequest,
}

impl Driven {
    pub(crate) fn new(start: Start, app: App, limits: Limits) -> Self {
        let head_limits = HeadLimits { head_bytes_max: 1024, ..HeadLimits::default() };
        let mut driven = Self {
            session: Session::new(&head_limits, Tick::START),
            turn: Turn::server(),
            inflater: Inflater::default(),
            limits,
            head_limits,
            compression: Compression { level: 6, threshold_bytes: 32 },
            now: Tick::START,
            moves: 0,
            moving: false,
            unread: vec![],
            socket: Socket { room: usize::MAX, taken: vec![] },
            seen: vec![],
            app,
        };
        match start {
            Start::Proxy => driven.session.expect_proxy_header(),
            Start::Head => {}
            Start::Open { deflate } => driven.open(deflate),
        }
        driven
    }

    /// Behind a handshake that nothing is written down of.
    fn open(&mut self, deflate: bool) {
        let mut head = *b"GET / HTTP/1.1\r\n\r\n";
        let mut input = Input::new(&mut head);
        let event = self.session.receive_head(&mut input, &self.head_limits, self.now);
        assert!(matches!(event, Some(Event::Head(_))));
        let deflate =
            deflate.then_some(DeflateParams { server_window_bits: 15, client_window_bits: 15 });
        let mut env = Env {
            turn: &mut self.turn,
            limits: &self.limits,
            compression: &self.compression,
            now: self.now,
        };
        self.session.accept(b"", deflate, &mut env);
    }

    /// All that was written.
    pub(crate) fn written(&self) -> &[u8] {
        &self.socket.taken
    }

    /// The socket takes so many bytes more.
    pub(crate) fn set_room(&mut self, room: usize) {
        self.socket.room = room;
    }

    /// Receives bytes, and does what a worker does until there is nothing left to do.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        self.turn();
    }

    /// The same, and goes to another process in the middle of it and behind it.
    pub(crate) fn receive_and_move(&mut self, bytes: &[u8]) {
        self.moving = true;
        self.receive(bytes);
        self.moving = false;
        self.move_to_another_process();
        self.turn();
    }

    fn turn(&mut self) {
        while self.seen.last() != Some(&Seen::Dropped) {
            if self.session.wants_read() && !self.unread.is_empty() {
                let mut bytes = std::mem::take(&mut self.unread);
                let direct = self.receive_direct(&bytes);
                self.feed(&mut bytes[direct..]);
            }
            if self.moving {
                self.move_to_another_process();
            }
            let next = self.session.flush(&mut self.turn, &mut self.socket, &self.limits, self.now);
            self.turn.clear();
            match next.expect("this socket does not break") {
                Next::Wait if self.session.wants_read() && !self.unread.is_empty() => {}
                Next::Wait => return,
                Next::Resume => {
                    let mut parked = self.session.take_parked().unwrap_or_default();
                    self.feed(&mut parked);
                }
                Next::ShutdownWrite => self.seen.push(Seen::ShutdownWrite),
                Next::Drop => self.seen.push(Seen::Dropped),
            }
        }
    }

    /// What another process goes on with.
    pub(crate) fn save(&mut self) -> Vec<u8> {
        self.session.spill(&self.turn);
        let mut writer = Writer::new();
        self.session.save(&self.limits, self.now, &mut writer);
        writer.into_bytes()
    }

    /// Nothing of the old process is left but what was saved.
    fn move_to_another_process(&mut self) {
        let saved = self.save();
        self.now = Tick::new(CLOCKS[self.moves % CLOCKS.len()]);
        self.moves += 1;
        self.turn = Turn::server();
        self.inflater = Inflater::default();
        let mut reader = Reader::new(&saved);
        self.session = Session::load(self.now, &mut reader).expect("just saved");
        assert_eq!(reader.finish(), Ok(()));
    }

    /// Bytes of a large message go where they belong, as if they were read there; returns how many.
    fn receive_direct(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(room) = self.session.direct_room()
            && taken < bytes.len()
        {
            let len = room.len.min(bytes.len() - taken);
            room.buffer.extend_from_slice(&bytes[taken..taken + len]);
            taken += len;
            let mut env = Env {
                turn: &mut self.turn,
                limits: &self.limits,
                compression: &self.compression,
                now: self.now,
            };
            if let Some(event) = self.session.receive_direct(len, &mut env) {
                note(&mut self.seen, &event);
            }
            self.feed(&mut []);
        }
        taken
    }

    /// The peer's FIN.
    pub(crate) fn finish(&mut self) {
        if let Some(event) = self.session.peer_finished(&self.limits, self.now) {
            note(&mut self.seen, &event);
        }
        self.receive(&[]);
    }

    fn feed(&mut self, bytes: &mut [u8]) {
        let mut input = Input::new(bytes);
        while self.session.is_handshaking() {
            let event = self.session.receive_head(&mut input, &self.head_limits, self.now);
            match event {
                Some(event) => self.on_head_event(&event),
                None => break,
            }
        }
        loop {
            let mut env = Env {
                turn: &mut self.turn,
                limits: &self.limits,
                compression: &self.compression,
                now: self.now,
            };
            let event = self.session.receive(&mut input, &mut env, &mut self.inflater);
            let Some(event) = event else {
                break;
            };
            note(&mut self.seen, &event);
            if let Event::Message(message) = event {
                let asked = message.as_bytes() == b"close";
                let opcode = message.opcode();
                let reply = match message {
                    Message::Text(text) => Cow::Owned(text.into_owned().into_bytes()),
                    Message::Binary(bytes) => Cow::Owned(bytes.into_owned()),
                };
                self.session.send(opcode, reply, &mut env);
                if asked && self.app == App::CloseOnRequest {
                    let frame = CloseFrame::new(steadfast::ws::CloseCode::NORMAL, "as you wish");
                    self.session.close(frame, &mut env);
                }
            }
        }
        self.session.park(input.rest());
    }

    fn on_head_event(&mut self, event: &Event<'_>) {
        let refusal = match event {
            Event::Head(head) => match self.agree(head) {
                Ok((answer, deflate)) => {
                    self.seen.push(Seen::Accepted);
                    let mut env = Env {
                        turn: &mut self.turn,
                        limits: &self.limits,
                        compression: &self.compression,
                        now: self.now,
                    };
                    self.session.accept(&answer, deflate, &mut env);
                    return;
                }
                Err(refusal) => refusal,
            },
            Event::BadHead(error) => Refusal::from(*error),
            other => return note(&mut self.seen, other),
        };
        self.seen.push(Seen::Refused(refusal.status));
        let mut env = Env {
            turn: &mut self.turn,
            limits: &self.limits,
            compression: &self.compression,
            now: self.now,
        };
        self.session.refuse(&refusal.to_response().to_bytes(UNIX_EPOCH), &mut env);
    }

    fn agree(&self, head: &[u8]) -> Result<(Vec<u8>, Option<DeflateParams>), Refusal> {
        let bad = |error: HeadError| Refusal::from(error);
        let head = Head::parse(head, &self.head_limits).map_err(bad)?;
        let policy =
            Policy { subprotocols: &["chat".to_owned()], deflate: Some(DeflatePolicy::default()) };
        let agreed = handshake::check(&head)?.agree(&policy);
        Ok((agreed.response(UNIX_EPOCH), agreed.deflate))
    }
}

fn note(seen: &mut Vec<Seen>, event: &Event<'_>) {
    seen.push(match event {
        Event::Proxied(source) => Seen::Proxied(*source),
        Event::BadProxy(error) => Seen::BadProxy(*error),
        Event::Message(Message::Text(text)) => Seen::Text(text.clone().into_owned()),
        Event::Message(Message::Binary(bytes)) => Seen::Binary(bytes.clone().into_owned()),
        Event::Ping(payload) => Seen::Ping(payload.clone().into_owned()),
        Event::Pong(payload) => Seen::Pong(payload.clone().into_owned()),
        Event::Closed(closed) => Seen::Closed(closed.code.map(|code| code.0), closed.by),
        Event::Head(_) | Event::BadHead(_) | Event::Overdue { .. } => {
            panic!("answered elsewhere: {event:?}")
        }
    });
}
