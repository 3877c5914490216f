//! Layer 2: one connection's life as a state machine, free of I/O.
//!
//! ```text
//! Head ─► Deciding ─► Open ─► Closing ─► Lingering ─► Done
//!   └────────┴─────────┴────────────────────┘
//! ```
//!
//! The caller feeds received bytes ([`Session::receive`]), passes on what the app says
//! ([`Session::accept`], [`Session::send`], [`Session::close`], …), reports what becomes of the
//! socket ([`Session::peer_finished`], [`Session::lost`]) and the time ([`Session::on_deadline`]),
//! and writes what [`Session::flush`] hands out. Time is an argument everywhere.

pub mod delivery;
mod freeze;
pub mod handshake;
pub mod holding;
pub mod out_queue;
mod partial_head;
pub mod timers;
pub mod turn;

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::DeflateParams;
use crate::base::limits::{HeadLimits, Limits};
use crate::base::rate::RateLimit;
use crate::base::tick::Tick;
use crate::http::{HeadError, ProxyError};
use crate::ws::deflate::{Inflater, Strength};
use crate::ws::header::CONTROL_PAYLOAD_BYTES_MAX;
use crate::ws::{
    CloseCode, CloseFrame, Decoder, DirectRoom, Incoming, Input, Message, Opcode, ProtocolError,
    Role, Rules, Unfinished,
};

use delivery::{Delivery, SlowConsumer};
use out_queue::{Flushed, OutQueue};
use partial_head::{Expected, PartialHead};
use turn::Turn;

/// Bytes read and thrown away after all is said, before the peer is cut off: enough for what a
/// peer had under way when we closed, so that no RST destroys our last words.
pub(crate) const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// What a session works with: its worker's, its route's, and the time.
#[derive(Debug)]
pub struct Env<'a> {
    /// Where frames of this turn go.
    pub turn: &'a mut Turn,
    /// The limits of the connection's route.
    pub limits: &'a Limits,
    /// How messages are compressed, where the peer agreed to it.
    pub compression: &'a Compression,
    /// The time.
    pub now: Tick,
}

/// How a route compresses messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// zlib's level, 1 (fast) to 9 (small).
    pub level: u8,
    /// Payloads below this size in bytes are sent as they are.
    pub threshold_bytes: usize,
}

impl Compression {
    /// How to compress a payload for a receiver with this window; `None` if not at all.
    pub fn strength(&self, payload_len: usize, window_bits: u8) -> Option<Strength> {
        let worth_it = payload_len >= self.threshold_bytes;
        worth_it.then_some(Strength { level: self.level, window_bits })
    }
}

/// What a session tells its caller.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'e> {
    /// The PROXY header is complete; where the connection comes from, unless the proxy does not
    /// say. See [`Session::expect_proxy_header`].
    Proxied(Option<SocketAddr>),
    /// There is no valid PROXY header where one must be: the connection is done, without a word.
    BadProxy(ProxyError),
    /// The head is complete, blank line included. Answer with [`Session::accept`] or
    /// [`Session::refuse`], now or later.
    Head(Vec<u8>),
    /// The head will not do; answer with [`Session::refuse`].
    BadHead(HeadError),
    /// The handshake took too long; answer with [`Session::refuse`]. `head_complete` tells whose
    /// fault it is: the peer's if false, the app's, which has not decided, if true.
    Overdue {
        /// The whole head had arrived.
        head_complete: bool,
    },
    /// A message.
    Message(Message<'e>),
    /// A ping, which has been answered (not after our own Close).
    Ping(Cow<'e, [u8]>),
    /// A pong.
    Pong(Cow<'e, [u8]>),
    /// The open connection is over; no event follows.
    Closed(Closed),
}

/// How an open connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The code that was received or, if we began it, sent; `None` for a Close without one and for
    /// a connection that broke.
    pub code: Option<CloseCode>,
    /// The reason that came or went with it.
    pub reason: String,
    /// Who ended it.
    pub by: ClosedBy,
}

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosedBy {
    /// The peer sent a Close first.
    Peer,
    /// We did: the app, a limit, the peer's violation.
    Us,
    /// Nobody: the transport broke or the peer fell silent.
    Lost,
}

impl ClosedBy {
    /// For a log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Us => "us",
            Self::Lost => "lost",
        }
    }
}

/// What the caller has to do after a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Wait,
    /// Go on with the bytes that were parked, then with reading; and flush again, which may have
    /// something else to say.
    Resume,
    /// Shut down the writing side of the socket.
    ShutdownWrite,
    /// Drop the connection.
    Drop,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    state: State,
    out: OutQueue,
    /// Received and not decoded: reading was paused, or the handshake is not decided.
    #[expect(clippy::box_collection, reason = "8 bytes in every connection instead of 24")]
    parked: Option<Box<Vec<u8>>>,
    deflate: Option<DeflateParams>,
    /// Reading is paused until the out queue has drained.
    paused: bool,
    control_rate: RateLimit,
    message_rate: RateLimit,
    /// When the last byte came in.
    last_inbound: Tick,
    /// When the socket last took a byte, or bytes began to wait for it.
    last_outbound: Tick,
    /// When the last message went either way.
    last_message: Tick,
    /// When the ping was sent that nothing has followed yet; else `NEVER`.
    pinged: Tick,
    /// When the present state has lasted too long; `NEVER` while open.
    deadline: Tick,
}

#[derive(Debug)]
enum State {
    /// The head is arriving.
    // Call: receive_head  Next: Deciding, Done
    Head(Box<PartialHead>),
    /// The head is with the caller.
    // Call: accept, refuse  Next: Open, Lingering, Done
    Deciding,
    /// Messages flow.
    // Call: receive, send, close  Next: Closing, Lingering, Done
    Open(Decoder),
    /// Our Close is queued, the peer's is awaited.
    // Call: receive  Next: Lingering, Done
    Closing(Decoder, Box<CloseFrame>),
    /// All is said. What waits goes out, then our FIN; the peer's FIN is awaited.
    // Call: receive, flush, peer_finished  Next: Done
    Lingering { discarded: usize, shut: bool, peer_finished: bool },
    /// To be dropped.
    Done,
}

impl Session {
    /// A connection that was just accepted, or a client's whose request was just sent.
    pub fn new(head_limits: &HeadLimits, now: Tick) -> Self {
        Self {
            state: State::Head(Box::default()),
            out: OutQueue::default(),
            parked: None,
            deflate: None,
            paused: false,
            control_rate: RateLimit::new(),
            message_rate: RateLimit::new(),
            last_inbound: now,
            last_outbound: now,
            last_message: now,
            pinged: Tick::NEVER,
            deadline: now.after(head_limits.handshake_timeout),
        }
    }

    /// The connection comes from a proxy that puts a PROXY header before the request. To be called
    /// before the first byte is received.
    pub fn expect_proxy_header(&mut self) {
        if let State::Head(partial) = &mut self.state {
            partial.expected = Expected::ProxyHeader;
        }
    }

    /// We are the client: the head that arrives is a response. To be called before the first byte
    /// is received.
    pub fn expect_response(&mut self) {
        if let State::Head(partial) = &mut self.state {
            partial.expected = Expected::Response;
        }
    }

    // ---- what comes in ----

    /// What comes before the frames, while it is arriving: a PROXY header if one is expected, then
    /// the request (or response) head. Consumes its bytes and leaves what follows; `None` if more
    /// is needed, or if the head is complete already.
    pub fn receive_head(
        &mut self,
        input: &mut Input<'_>,
        limits: &HeadLimits,
        now: Tick,
    ) -> Option<Event<'static>> {
        self.last_inbound = now;
        let State::Head(partial) = &mut self.state else {
            return None;
        };
        let event = partial.receive(input, limits)?;
        match event {
            Event::Head(_) | Event::BadHead(_) => self.state = State::Deciding,
            Event::BadProxy(_) => self.state = State::Done,
            _ => {}
        }
        Some(event)
    }

    /// The next thing the peer said on the open connection. `None` when the input is used up, or
    /// when reading is paused: then the caller parks the rest ([`park`](Self::park)).
    #[inline]
    pub fn receive<'e>(
        &mut self,
        input: &'e mut Input<'_>,
        env: &mut Env<'_>,
        inflater: &'e mut Inflater,
    ) -> Option<Event<'e>> {
        if self.paused && self.is_open() {
            return None;
        }
        self.last_inbound = env.now;
        self.pinged = Tick::NEVER;
        if self.should_pause(env.limits) {
            return None;
        }
        let rules = self.rules(env);
        match &mut self.state {
            State::Open(decoder) => match decoder.decode(input, &rules, inflater, env.turn.spare())
            {
                Ok(None) => {
                    decoder.mark(env.now);
                    None
                }
                Ok(Some(incoming)) => Some(self.on_incoming(incoming, env)),
                Err(error) => Some(self.fail(error, env)),
            },
            State::Closing(..) => self.receive_closing(input, &rules, env, inflater),
            State::Lingering { discarded, .. } => {
                *discarded += input.rest().len();
                if *discarded > LINGER_BYTES_MAX {
                    self.state = State::Done;
                }
                input.discard();
                None
            }
            State::Head(_) | State::Deciding => None,
            State::Done => {
                input.discard();
                None
            }
        }
    }

    fn rules(&self, env: &Env<'_>) -> Rules {
        Rules {
            role: env.turn.role(),
            deflate: self.deflate.is_some(),
            message_bytes_max: env.limits.message_bytes_max,
            fragments_max: env.limits.fragments_max,
        }
    }

    fn on_incoming<'e>(&mut self, incoming: Incoming<'e>, env: &mut Env<'_>) -> Event<'e> {
        let (rate, per_second) = match &incoming {
            Incoming::Message(_) => (&mut self.message_rate, env.limits.message_rate_max),
            _ => (&mut self.control_rate, env.limits.control_rate_max),
        };
        if let Some(per_second) = per_second
            && !rate.allow(env.now, per_second)
        {
            return self.fail_with(CloseFrame::new(CloseCode::POLICY, "too many frames"), env);
        }
        match incoming {
            Incoming::Message(message) => {
                self.last_message = env.now;
                Event::Message(message)
            }
            Incoming::Ping(payload) => {
                self.pong(&payload, env);
                Event::Ping(payload)
            }
            Incoming::Pong(payload) => Event::Pong(payload),
            Incoming::Close(body) => {
                self.answer_close(body.as_ref(), env);
                let code = body.as_ref().map(|body| body.code);
                let reason = body.map(|body| body.reason).unwrap_or_default();
                Event::Closed(Closed { code, reason, by: ClosedBy::Peer })
            }
        }
    }

    /// After our own Close. A server throws away everything but the peer's Close (RFC 6455 §1.4).
    /// A client still gets what the server said before its own: the answers to what went out ahead
    /// of our Close. Pings are not answered any more. A Close that is no answer to ours crossed it,
    /// and says why the server has closed.
    fn receive_closing<'e>(
        &mut self,
        input: &'e mut Input<'_>,
        rules: &Rules,
        env: &mut Env<'_>,
        inflater: &'e mut Inflater,
    ) -> Option<Event<'e>> {
        let State::Closing(decoder, sent) = &mut self.state else {
            return None;
        };
        match rules.role {
            Role::Server => match decoder.find_close(input, rules, env.turn.spare()) {
                Ok(false) => None,
                Ok(true) | Err(_) => self.closed(env),
            },
            Role::Client => match decoder.decode(input, rules, inflater, env.turn.spare()) {
                Ok(None) => None,
                Ok(Some(Incoming::Message(message))) => Some(Event::Message(message)),
                Ok(Some(Incoming::Ping(payload))) => Some(Event::Ping(payload)),
                Ok(Some(Incoming::Pong(payload))) => Some(Event::Pong(payload)),
                Ok(Some(Incoming::Close(answer))) => match answer {
                    Some(theirs)
                        if theirs.code != CloseCode::NORMAL && theirs.code != sent.code =>
                    {
                        self.linger(env.limits, env.now);
                        let CloseFrame { code, reason } = theirs;
                        Some(Event::Closed(Closed { code: Some(code), reason, by: ClosedBy::Peer }))
                    }
                    _ => self.closed(env),
                },
                Err(error) => Some(self.fail(error, env)),
            },
        }
    }

    /// Our Close has been answered.
    fn closed(&mut self, env: &mut Env<'_>) -> Option<Event<'static>> {
        let State::Closing(_, sent) = &mut self.state else {
            return None;
        };
        let nothing = CloseFrame { code: CloseCode::NORMAL, reason: String::new() };
        let CloseFrame { code, reason } = std::mem::replace(&mut **sent, nothing);
        self.linger(env.limits, env.now);
        Some(Event::Closed(Closed { code: Some(code), reason, by: ClosedBy::Us }))
    }

    /// Where the next bytes of a large message belong, if reading them there from the socket saves
    /// a copy. [`receive_direct`](Self::receive_direct) tells how many there are.
    pub fn direct_room(&mut self) -> Option<DirectRoom<'_>> {
        match &mut self.state {
            State::Open(decoder) => decoder.direct_room(),
            _ => None,
        }
    }

    /// So many bytes were appended to [`direct_room`](Self::direct_room). To be followed by
    /// [`receive`](Self::receive) with an empty input, for the message may be whole now.
    pub fn receive_direct(&mut self, len: usize, env: &mut Env<'_>) -> Option<Event<'static>> {
        self.last_inbound = env.now;
        self.pinged = Tick::NEVER;
        let State::Open(decoder) = &mut self.state else {
            return None;
        };
        let received = decoder.received_direct(len);
        received.err().map(|error| self.fail(error, env))
    }

    /// Whether [`receive`](Self::receive) may have something to give without any input, because
    /// it was not called, or paused, after [`receive_direct`](Self::receive_direct).
    pub fn holds_whole_frame(&self) -> bool {
        match &self.state {
            State::Open(decoder) | State::Closing(decoder, _) => decoder.holds_whole_frame(),
            _ => false,
        }
    }

    /// Keeps received bytes for later: reading is paused, or the handshake is not decided.
    ///
    /// At most what one read has brought: nothing more is read while bytes are parked. They are
    /// copied once for each time that they are parked again, before which half a queue has drained
    /// or a turn's budget of work has been used up.
    pub fn park(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.parked.get_or_insert_default().extend_from_slice(rest);
        }
    }

    /// The bytes parked, to be fed again; `None` as long as what they were parked for lasts.
    pub fn take_parked(&mut self) -> Option<Vec<u8>> {
        if self.paused || matches!(self.state, State::Deciding) {
            return None;
        }
        self.parked.take().map(|parked| *parked)
    }

    /// Whether the socket should be read: not while replies wait for a slow reader, not while
    /// the handshake is undecided.
    pub fn wants_read(&self) -> bool {
        !self.paused
            && self.parked.is_none()
            && !matches!(self.state, State::Deciding | State::Done)
    }

    fn should_pause(&mut self, limits: &Limits) -> bool {
        let open = matches!(self.state, State::Open(_));
        self.paused |= open && self.out.len() > limits.queue_bytes_max;
        open && self.paused
    }

    /// The peer's FIN: it sends no more, and may read yet (RFC 9293 §3.6). The connection is over; what
    /// waits to be written goes out, by `close_timeout`.
    pub fn peer_finished(&mut self, limits: &Limits, now: Tick) -> Option<Event<'static>> {
        let was_over = matches!(self.state, State::Lingering { .. });
        let says =
            matches!(self.state, State::Open(_) | State::Closing(..)) && !self.out.is_empty();
        if !was_over && !says {
            return self.lost();
        }
        let event = if was_over { None } else { self.end() };
        if says {
            self.linger(limits, now);
        }
        if let State::Lingering { peer_finished, .. } = &mut self.state {
            *peer_finished = true;
            if self.out.is_empty() {
                self.state = State::Done;
            }
        }
        event
    }

    /// The socket broke.
    pub fn lost(&mut self) -> Option<Event<'static>> {
        let event = self.end();
        self.out.clear();
        event
    }

    /// The peer is gone without a Close that we had to answer.
    fn end(&mut self) -> Option<Event<'static>> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Open(_) => {
                let closed = Closed { code: None, reason: String::new(), by: ClosedBy::Lost };
                Some(Event::Closed(closed))
            }
            State::Closing(_, sent) => {
                let closed =
                    Closed { code: Some(sent.code), reason: sent.reason, by: ClosedBy::Us };
                Some(Event::Closed(closed))
            }
            _ => None,
        }
    }

    // ---- what goes out ----

    /// Accepts the handshake: `answer` is the 101 response, or nothing in the client role.
    pub fn accept(&mut self, answer: &[u8], deflate: Option<DeflateParams>, env: &mut Env<'_>) {
        if !matches!(self.state, State::Deciding) {
            return;
        }
        self.out.push_answer(answer);
        self.deflate = deflate;
        self.state = State::Open(Decoder::default());
        self.deadline = Tick::NEVER;
        self.last_message = env.now;
        self.last_inbound = env.now;
        self.last_outbound = env.now;
    }

    /// Answers the head, even one that is not complete, with something else than a WebSocket: a
    /// page or a refusal, then the end.
    pub fn refuse(&mut self, response: &[u8], env: &mut Env<'_>) {
        if self.is_handshaking() {
            self.out.push_bytes(env.turn, response.to_vec());
            self.linger(env.limits, env.now);
        }
    }

    /// Sends a message; false, and nothing is sent, if the connection is not open.
    #[inline]
    pub fn send(&mut self, opcode: Opcode, payload: Cow<'_, [u8]>, env: &mut Env<'_>) -> bool {
        if !matches!(self.state, State::Open(_)) {
            return false;
        }
        self.last_message = env.now;
        let strength = self
            .deflate_window(env.turn.role())
            .and_then(|bits| env.compression.strength(payload.len(), bits));
        if let Some(strength) = strength
            && let Some(deflated) = env.turn.take_deflated(strength, &payload)
        {
            self.out.push_frame(env.turn, opcode, true, Cow::Borrowed(&deflated));
            env.turn.put_deflated(deflated);
        } else {
            self.out.push_frame(env.turn, opcode, false, payload);
        }
        true
    }

    /// Sends a message that nobody asked for: pushed from another thread, say.
    ///
    /// # Errors
    /// [`SlowConsumer`] if the queue has no room for it; nothing is queued then. An empty queue
    /// has room for every message.
    pub fn push(
        &mut self,
        opcode: Opcode,
        payload: Cow<'_, [u8]>,
        env: &mut Env<'_>,
    ) -> Result<(), SlowConsumer> {
        if self.is_open() && !self.has_room(payload.len(), env.limits) {
            return Err(SlowConsumer);
        }
        self.send(opcode, payload, env);
        Ok(())
    }

    /// Queues a message that many receivers get.
    ///
    /// # Errors
    /// [`SlowConsumer`] if the queue has no room for it; nothing is queued then. An empty queue
    /// has room for every message.
    #[inline]
    pub fn deliver(
        &mut self,
        delivery: &Delivery,
        turn: &Turn,
        limits: &Limits,
        now: Tick,
    ) -> Result<(), SlowConsumer> {
        if !matches!(self.state, State::Open(_)) {
            return Ok(());
        }
        if !self.has_room(delivery.len(), limits) {
            return Err(SlowConsumer);
        }
        self.last_message = now;
        delivery.queue(&mut self.out, self.deflate.is_some(), turn);
        Ok(())
    }

    /// Whether a push of so many bytes keeps within the queue's bound. An empty queue has room for
    /// every message.
    pub fn has_room(&self, len: usize, limits: &Limits) -> bool {
        let queued = self.out.len();
        queued == 0 || queued + len <= limits.queue_bytes_max
    }

    /// Whether the peer may send compressed messages.
    pub fn has_deflate(&self) -> bool {
        self.deflate.is_some()
    }

    /// The window our compressed messages to this peer may use; `None` without the extension.
    pub fn deflate_window(&self, role: Role) -> Option<u8> {
        self.deflate.map(|deflate| match role {
            Role::Server => deflate.server_window_bits,
            Role::Client => deflate.client_window_bits,
        })
    }

    /// Sends a ping; a payload of more than 125 bytes is cut.
    pub fn ping(&mut self, payload: &[u8], env: &mut Env<'_>) {
        if matches!(self.state, State::Open(_)) {
            let len = payload.len().min(CONTROL_PAYLOAD_BYTES_MAX);
            self.control(Opcode::Ping, &payload[..len], env);
        }
    }

    /// Sends a pong. Pings are answered without this: it is for the pong that nobody has asked for
    /// (RFC 6455 §5.5.3).
    pub fn pong(&mut self, payload: &[u8], env: &mut Env<'_>) {
        if !matches!(self.state, State::Open(_)) {
            return;
        }
        if self.out.is_blocked() {
            // Only while the socket is blocked may pongs be left out (RFC 6455 §5.5.3).
            self.out.replace_urgent(env.turn.header(Opcode::Pong, false, payload.len()), payload);
        } else {
            self.control(Opcode::Pong, payload, env);
        }
    }

    fn control(&mut self, opcode: Opcode, payload: &[u8], env: &mut Env<'_>) {
        self.out.push_frame(env.turn, opcode, false, Cow::Borrowed(payload));
    }

    /// Queues a Close, behind everything else: nothing may follow it (RFC 6455 §5.5.1).
    fn last_words(&mut self, body: &[u8], env: &mut Env<'_>) {
        self.out.settle();
        self.control(Opcode::Close, body, env);
    }

    /// Begins the close handshake; the peer has `close_timeout` to answer.
    pub fn close(&mut self, frame: CloseFrame, env: &mut Env<'_>) {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Open(decoder) => {
                self.last_words(&frame.encode(), env);
                self.state = State::Closing(decoder, Box::new(frame));
                self.deadline = env.now.after(env.limits.close_timeout);
            }
            other => self.state = other,
        }
    }

    /// Ends the connection at once with a Close, without waiting for the peer's: a violation, a
    /// limit, a dead peer, a server that stops fast. One that is over already is left alone.
    pub fn fail_with(&mut self, frame: CloseFrame, env: &mut Env<'_>) -> Event<'static> {
        if matches!(self.state, State::Open(_)) {
            self.last_words(&frame.encode(), env);
        }
        if !matches!(self.state, State::Lingering { .. } | State::Done) {
            self.linger(env.limits, env.now);
        }
        let CloseFrame { code, reason } = frame;
        Event::Closed(Closed { code: Some(code), reason, by: ClosedBy::Us })
    }

    fn fail(&mut self, error: ProtocolError, env: &mut Env<'_>) -> Event<'static> {
        self.fail_with(CloseFrame::new(error.close_code(), error.reason()), env)
    }

    fn answer_close(&mut self, body: Option<&CloseFrame>, env: &mut Env<'_>) {
        // The code is echoed (RFC 6455 §5.5.1), the reason is theirs.
        let echo = body.map(|body| body.code.0.to_be_bytes());
        self.last_words(echo.as_ref().map_or(&[][..], |code| &code[..]), env);
        self.linger(env.limits, env.now);
    }

    fn linger(&mut self, limits: &Limits, now: Tick) {
        self.state = State::Lingering { discarded: 0, shut: false, peer_finished: false };
        self.deadline = now.after(limits.close_timeout);
        self.parked = None;
    }

    /// Writes what the socket takes and says what is to be done next.
    ///
    /// # Errors
    /// The socket's; the connection is [`lost`](Self::lost) then.
    #[inline]
    pub fn flush(
        &mut self,
        turn: &mut Turn,
        socket: &mut impl Write,
        limits: &Limits,
        now: Tick,
    ) -> io::Result<Next> {
        let (before, waited) = (self.out.len(), self.out.is_blocked());
        let flushed = self.out.flush(turn, socket)?;
        let after = self.out.len();
        // The write time-out counts from the last byte taken, or from when bytes began to wait.
        if after < before || (after > 0 && !waited) {
            self.last_outbound = now;
        }
        let unpause = self.paused && (after <= limits.queue_bytes_max / 2 || !self.is_open());
        if unpause {
            self.paused = false;
            // Nothing was read since then.
            self.was_not_read(now.since(self.last_inbound));
        }
        let undecided = matches!(self.state, State::Deciding | State::Done);
        let resume = unpause || (self.parked.is_some() && !self.paused && !undecided);
        Ok(match &mut self.state {
            State::Lingering { peer_finished: true, .. } if flushed == Flushed::Empty => Next::Drop,
            State::Lingering { shut: shut @ false, .. } if flushed == Flushed::Empty => {
                *shut = true;
                Next::ShutdownWrite
            }
            State::Done => Next::Drop,
            _ if resume => Next::Resume,
            _ => Next::Wait,
        })
    }

    // ---- what is ----

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether the connection can be dropped.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the request head has not been answered.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Head(_) | State::Deciding)
    }

    /// Whether a ping was sent that nothing has followed yet.
    pub fn awaits_pong(&self) -> bool {
        self.pinged != Tick::NEVER
    }

    /// The message (or frame) that the peer has begun and not ended, if it is open: for who looks for
    /// memory that is held without progress.
    pub fn unfinished(&self) -> Option<Unfinished> {
        match &self.state {
            State::Open(decoder) => decoder.unfinished(),
            _ => None,
        }
    }

    /// We have not read for so long, for a reason of our own: it does not count against a message
    /// that is under way.
    pub fn was_not_read(&mut self, time: Duration) {
        if let State::Open(decoder) = &mut self.state {
            decoder.was_not_read(time);
        }
    }

    /// Bytes waiting to be written.
    pub fn queued(&self) -> usize {
        self.out.len()
    }
}

#[cfg(test)]
mod tests;
