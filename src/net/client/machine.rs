//! The client's side of a connection without its socket: handshake, session, what is reported.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use super::{ClientEvent, ClientSettings, ConnectError, Ending};
use crate::base::tick::Tick;
use crate::http::ResponseHead;
use crate::session::handshake::client::{ClientError, ClientHandshake};
use crate::session::turn::Turn;
use crate::session::{Closed, ClosedBy, Env, Event, Next, Session};
use crate::sys::rand;
use crate::ws::deflate::Inflater;
use crate::ws::mask::{MASK_BLOCK_BYTES, MaskKeys};
use crate::ws::{CloseFrame, Input, Opcode};

/// Most bytes of a refusal's body that are kept.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// How long a refusal's body may take after its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

type OnEvent<'f> = dyn FnMut(&mut Link<'_>, ClientEvent<'_>) + 'f;

pub(super) struct Machine {
    phase: Phase,
    session: Session,
    tools: Tools,
    inflater: Inflater,
}

enum Phase {
    /// The answer's head is awaited.
    // Next: Refused, Open, Over
    Answer(Box<ClientHandshake>),
    /// It is no 101; its body is arriving.
    // Next: Over
    Refused(Box<Refused>),
    /// Messages flow, or our Close awaits its answer.
    // Next: Over
    Open,
    /// The last event has been reported.
    Over,
}

struct Refused {
    status: u16,
    phrase: String,
    body: Vec<u8>,
    length: BodyLength,
    deadline: Tick,
}

/// What tells a body's end, apart from that of the connection (RFC 9112 §6.3).
enum BodyLength {
    Known(usize),
    Chunked,
    Unknown,
}

struct Tools {
    turn: Turn,
    settings: ClientSettings,
    close_timeout: Duration,
    now: Tick,
    /// What we closed with.
    closing: Option<CloseFrame>,
    /// The socket takes no more.
    mute: bool,
}

impl Tools {
    fn env(&mut self) -> Env<'_> {
        Env {
            turn: &mut self.turn,
            limits: &self.settings.limits,
            compression: &self.settings.compression,
            now: self.now,
        }
    }
}

/// What a client can do with its connection. Nothing of it has an effect unless the connection is
/// open.
pub struct Link<'c> {
    session: &'c mut Session,
    tools: &'c mut Tools,
}

impl Link<'_> {
    /// Sends a message: [`Opcode::Text`], whose payload is UTF-8, or [`Opcode::Binary`]. False if
    /// the connection is not open.
    pub fn send(&mut self, opcode: Opcode, payload: Cow<'_, [u8]>) -> bool {
        self.session.send(opcode, payload, &mut self.tools.env())
    }

    /// Sends a ping of at most 125 bytes.
    pub fn ping(&mut self, payload: &[u8]) {
        self.session.ping(payload, &mut self.tools.env());
    }

    /// Sends a pong of at most 125 bytes that nobody has asked for.
    pub fn pong(&mut self, payload: &[u8]) {
        self.session.pong(payload, &mut self.tools.env());
    }

    /// Begins the close handshake. What the server says before it answers is still reported.
    pub fn close(&mut self, frame: CloseFrame) {
        if self.session.is_open() {
            self.tools.closing = Some(frame.clone());
            self.session.close(frame, &mut self.tools.env());
        }
    }

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        self.session.is_open()
    }

    /// Bytes waiting to be written. Who sends without being asked stops while they are many.
    pub fn queued(&self) -> usize {
        self.session.queued()
    }
}

impl Machine {
    pub(super) fn new(
        session: Session,
        handshake: ClientHandshake,
        mut settings: ClientSettings,
    ) -> Result<Self, ConnectError> {
        let mut mask_block = [0; MASK_BLOCK_BYTES];
        rand::fill(&mut mask_block).map_err(ConnectError::Random)?;
        let mask_keys = MaskKeys::new(mask_block, |block| {
            rand::fill(block).expect("getrandom(2), which worked before, does not fail");
        });
        // Ours counts from the last byte and not from the Close.
        let close_timeout = std::mem::replace(&mut settings.limits.close_timeout, Duration::MAX);
        Ok(Self {
            phase: Phase::Answer(Box::new(handshake)),
            session,
            tools: Tools {
                turn: Turn::client(mask_keys),
                settings,
                close_timeout,
                now: Tick::START,
                closing: None,
                mute: false,
            },
            inflater: Inflater::default(),
        })
    }

    // ---- what comes in ----

    pub(super) fn feed(&mut self, bytes: &mut [u8], on_event: &mut OnEvent<'_>) {
        let mut input = Input::new(bytes);
        if let Phase::Answer(_) = self.phase {
            let limits = &self.tools.settings.head_limits;
            match self.session.receive_head(&mut input, limits, self.tools.now) {
                Some(Event::Head(head)) => self.on_head(&head, on_event),
                Some(Event::BadHead(error)) => self.fail(ConnectError::BadHead(error), on_event),
                _ => return,
            }
        }
        match &mut self.phase {
            Phase::Refused(refused) => {
                if refused.is_complete_with(input.rest()) {
                    self.refused(on_event);
                }
            }
            _ => self.receive(&mut input, on_event),
        }
    }

    pub(super) fn feed_parked(&mut self, on_event: &mut OnEvent<'_>) {
        if let Some(mut parked) = self.session.take_parked() {
            self.feed(&mut parked, on_event);
        }
    }

    fn on_head(&mut self, head: &[u8], on_event: &mut OnEvent<'_>) {
        let Phase::Answer(handshake) = &self.phase else {
            return;
        };
        let head = match ResponseHead::parse(head, &self.tools.settings.head_limits) {
            Ok(head) => head,
            Err(error) => return self.fail(ConnectError::BadHead(error), on_event),
        };
        match handshake.check_response(&head) {
            Ok(agreed) => {
                self.phase = Phase::Open;
                self.session.accept(&[], agreed.deflate, &mut self.tools.env());
                on_event(&mut self.link(), ClientEvent::Open(agreed));
            }
            Err(ClientError::Refused { status, phrase }) => {
                self.phase = Phase::Refused(Box::new(Refused {
                    status,
                    phrase,
                    body: Vec::new(),
                    length: BodyLength::of(&head),
                    deadline: self.tools.now.after(BODY_TIMEOUT),
                }));
            }
            Err(error) => self.fail(error.into(), on_event),
        }
    }

    fn receive(&mut self, input: &mut Input<'_>, on_event: &mut OnEvent<'_>) {
        loop {
            let was_open = self.session.is_open();
            let mut env = self.tools.env();
            let Some(event) = self.session.receive(input, &mut env, &mut self.inflater) else {
                break;
            };
            let event = match event {
                Event::Message(message) => ClientEvent::Message(message),
                Event::Ping(payload) => {
                    let mut link = Link { session: &mut self.session, tools: &mut self.tools };
                    on_event(&mut link, ClientEvent::Ping(&payload));
                    continue;
                }
                Event::Pong(payload) => {
                    let mut link = Link { session: &mut self.session, tools: &mut self.tools };
                    on_event(&mut link, ClientEvent::Pong(&payload));
                    continue;
                }
                Event::Closed(closed) => {
                    self.phase = Phase::Over;
                    let asked = if was_open { None } else { self.tools.closing.take() };
                    ClientEvent::Closed(Ending::of(closed, asked))
                }
                Event::Proxied(_) | Event::BadProxy(_) => continue,
                Event::Head(_) | Event::BadHead(_) | Event::Overdue { .. } => continue,
            };
            let mut link = Link { session: &mut self.session, tools: &mut self.tools };
            on_event(&mut link, event);
        }
        self.session.park(input.rest());
    }

    pub(super) fn peer_finished(&mut self, on_event: &mut OnEvent<'_>) {
        match self.phase {
            Phase::Over => {
                let env = self.tools.env();
                self.session.peer_finished(env.limits, env.now);
            }
            _ => self.lost(None, on_event),
        }
    }

    pub(super) fn lost(&mut self, error: Option<io::Error>, on_event: &mut OnEvent<'_>) {
        match self.phase {
            Phase::Answer(_) => self.fail(ConnectError::Unanswered(error), on_event),
            Phase::Refused(_) => self.refused(on_event),
            Phase::Open => {
                self.phase = Phase::Over;
                self.session.lost();
                let ending = match self.tools.closing {
                    Some(_) => Ending::Unanswered,
                    None => Ending::Lost(error),
                };
                on_event(&mut self.link(), ClientEvent::Closed(ending));
            }
            Phase::Over => {
                self.session.lost();
            }
        }
    }

    /// A refusal is complete, or will not become so.
    fn refused(&mut self, on_event: &mut OnEvent<'_>) {
        if let Phase::Refused(refused) = std::mem::replace(&mut self.phase, Phase::Over) {
            let Refused { status, phrase, body, length, .. } = *refused;
            let mut body =
                if matches!(length, BodyLength::Chunked) { unchunk(&body) } else { body };
            body.truncate(BODY_BYTES_MAX);
            self.fail(ConnectError::Refused { status, phrase, body }, on_event);
        }
    }

    fn fail(&mut self, error: ConnectError, on_event: &mut OnEvent<'_>) {
        self.phase = Phase::Over;
        self.session.lost();
        on_event(&mut self.link(), ClientEvent::Failed(error));
    }

    // ---- what goes out ----

    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<Next> {
        let Tools { turn, settings, now, mute, .. } = &mut self.tools;
        let next = match mute {
            false => self.session.flush(turn, socket, &settings.limits, *now),
            true => self.session.flush(turn, &mut io::sink(), &settings.limits, *now),
        };
        turn.clear();
        next
    }

    /// The socket takes no more: what is written from now on goes nowhere.
    pub(super) fn give_up_writing(&mut self) {
        self.tools.mute = true;
    }

    pub(super) fn link(&mut self) -> Link<'_> {
        Link { session: &mut self.session, tools: &mut self.tools }
    }

    // ---- time ----

    pub(super) fn now(&self) -> Tick {
        self.tools.now
    }

    pub(super) fn set_now(&mut self, now: Tick) {
        self.tools.now = now;
    }

    pub(super) fn close_timeout(&self) -> Duration {
        self.tools.close_timeout
    }

    pub(super) fn deadline(&self) -> Tick {
        match &self.phase {
            Phase::Refused(refused) => refused.deadline,
            _ => self.session.deadline(&self.tools.settings.limits),
        }
    }

    /// The deadline has passed.
    pub(super) fn on_deadline(&mut self, on_event: &mut OnEvent<'_>) {
        match self.phase {
            Phase::Answer(_) => self.fail(ConnectError::TimedOut, on_event),
            Phase::Open if self.session.is_open() => {
                match self.session.on_deadline(&mut self.tools.env()) {
                    Some(Event::Closed(Closed { by: ClosedBy::Lost, .. })) => {
                        self.phase = Phase::Over;
                        let ending = Ending::Lost(Some(io::ErrorKind::TimedOut.into()));
                        on_event(&mut self.link(), ClientEvent::Closed(ending));
                    }
                    Some(Event::Closed(closed)) => {
                        self.phase = Phase::Over;
                        let CloseFrame { code, reason } = frame_of(closed);
                        let ending = Ending::ByUs(CloseFrame { code, reason });
                        on_event(&mut self.link(), ClientEvent::Closed(ending));
                    }
                    _ => {}
                }
            }
            _ => self.lost(None, on_event),
        }
    }

    // ---- what is ----

    pub(super) fn wants_read(&self) -> bool {
        matches!(self.phase, Phase::Refused(_)) || self.session.wants_read()
    }

    pub(super) fn queued(&self) -> usize {
        self.session.queued()
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Open) && !self.session.is_open()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_over() && self.session.is_done()
    }
}

impl Ending {
    /// `asked` is what we closed with, if we did so before this came.
    fn of(closed: Closed, asked: Option<CloseFrame>) -> Self {
        match closed.by {
            ClosedBy::Peer => Self::ByServer(closed.code, closed.reason),
            ClosedBy::Lost => Self::Lost(None),
            ClosedBy::Us => match (frame_of(closed), asked) {
                (frame, Some(asked)) if frame == asked => Self::ByUs(frame),
                (frame, _) => Self::Violation(frame),
            },
        }
    }
}

fn frame_of(closed: Closed) -> CloseFrame {
    let code = closed.code.expect("what we end, we end with a code");
    CloseFrame { code, reason: closed.reason }
}

impl BodyLength {
    fn of(head: &ResponseHead<'_>) -> Self {
        let fields = head.fields();
        if fields.has_token("transfer-encoding", "chunked") {
            return Self::Chunked;
        }
        match fields.text("content-length").and_then(|length| length.parse().ok()) {
            Some(length) => Self::Known(length),
            None => Self::Unknown,
        }
    }
}

impl Refused {
    /// Takes more of the body; whether that was all, or all that is wanted.
    fn is_complete_with(&mut self, bytes: &[u8]) -> bool {
        self.body.extend_from_slice(bytes);
        let len = self.body.len();
        len >= BODY_BYTES_MAX
            || match self.length {
                BodyLength::Known(length) => len >= length,
                BodyLength::Chunked => self.body.ends_with(b"0\r\n\r\n"),
                BodyLength::Unknown => false,
            }
    }
}

/// A chunked body (RFC 9112 §7.1) as far as it goes: it is only shown.
fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let size = str::from_utf8(&rest[..end]).ok();
        let size = size.and_then(|line| line.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let Some(size @ 1..) = size else {
            break;
        };
        rest = &rest[end + 2..];
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        rest = rest.get(size.saturating_add(2)..).unwrap_or_default();
    }
    body
}
