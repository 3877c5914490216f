//! One connection of the checker: what it has to send, piece by piece, and what it has received.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;

use super::account::{Account, Faults};
use super::figures::Delays;
use super::frame::{self, Codec, Incoming, Outgoing, Reader, Violation};
use super::message::{Message, Random, Size};

/// What a connection is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Sends messages and gets them back.
    Echo,
    /// Sends messages to a room, and gets nothing.
    Publisher,
    /// Gets the messages of a publisher.
    Member {
        /// The publisher's number.
        publisher: usize,
    },
}

/// How messages are put into frames, and how frames are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) size: Size,
    /// Writes a message that is split is split into.
    pub(super) pieces: usize,
    /// One message in so many is split.
    pub(super) split_one_in: usize,
    /// Most frames of a message.
    pub(super) fragments_max: usize,
    pub(super) compressed: bool,
    /// Whether this is one of those that do not read until the end, or their publisher: their
    /// delays and silences say nothing.
    pub(super) slow: bool,
}

/// What all connections work with, one at a time.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) codec: Codec,
    pub(super) random: Random,
    pub(super) delays: Delays,
    /// What one read may bring.
    pub(super) input: Vec<u8>,
    pub(super) payload: Vec<u8>,
    pub(super) scratch: Vec<u8>,
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The server said Close.
    Closed { code: Option<u16>, reason: String },
    /// TCP ended without one.
    WithoutClose { within_a_frame: bool },
    /// What was received has no meaning any more.
    Violation(Violation),
    /// Reset, mostly.
    Failed(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { code: Some(code), reason } => write!(f, "Close {code} {reason:?}"),
            Self::Closed { code: None, .. } => write!(f, "Close without a code"),
            Self::WithoutClose { within_a_frame: false } => write!(f, "end of file"),
            Self::WithoutClose { within_a_frame: true } => write!(f, "end of file within a frame"),
            Self::Violation(violation) => write!(f, "{violation}"),
            Self::Failed(error) => write!(f, "{error}"),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// `None` once it has ended.
    stream: Option<TcpStream>,
    number: u32,
    pub(super) role: Role,
    pub(super) manner: Manner,
    reader: Reader,
    account: Account,
    /// Messages made so far.
    made: u64,
    /// Those of them whose last byte may have left.
    sent: u64,
    /// When each message that has been sent and not echoed was: the newest `len` of `sent`.
    sent_ns: VecDeque<u64>,
    output: Vec<u8>,
    /// How much of `output` has been written; at most `allowed`.
    written: usize,
    /// How much of it may be written by now.
    allowed: usize,
    /// How far `allowed` goes next, step by step.
    cuts: VecDeque<usize>,
    /// When it last received a message.
    heard_ns: u64,
    /// Whether it reads at all.
    pub(super) reading: bool,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, number: usize, role: Role, manner: Manner) -> Self {
        let account = match role {
            Role::Echo | Role::Publisher => Account::from_the_first(),
            Role::Member { .. } => Account::from_any(),
        };
        Self {
            stream: Some(stream),
            number: number as u32,
            role,
            manner,
            reader: Reader::default(),
            account,
            made: 0,
            sent: 0,
            sent_ns: VecDeque::new(),
            output: Vec::new(),
            written: 0,
            allowed: 0,
            cuts: VecDeque::new(),
            heard_ns: 0,
            reading: true,
        }
    }

    /// Makes the next message; its first piece may be written at once.
    pub(super) fn make(&mut self, now_ns: u64, tools: &mut Tools) {
        let Manner { size, fragments_max, compressed, .. } = self.manner;
        let Tools { codec, random, payload, .. } = tools;
        let message = Message { stream: self.number, sequence: self.made, made_ns: now_ns };
        message.write(size.of(self.number, self.made), payload);
        let payload = if compressed { codec.compress(payload) } else { payload };
        let fragments = 1 + random.below(fragments_max);
        let from = self.output.len();
        let outgoing = Outgoing { text: message.is_text(), compressed, fragments, payload };
        frame::append_message(&outgoing, random, &mut self.output);
        self.made += 1;

        let is_split = random.below(self.manner.split_one_in) == 0;
        let pieces = if is_split { self.manner.pieces } else { 1 };
        // Between the first byte and the last, so that each piece has some.
        let places = self.output.len() - from - 1;
        let mut cuts: Vec<usize> = (1..pieces).map(|_| from + 1 + random.below(places)).collect();
        cuts.sort_unstable();
        self.cuts.extend(cuts);
        self.cuts.push_back(self.output.len());
        self.release(now_ns);
    }

    /// Lets the next piece go. The message counts as sent with its last.
    pub(super) fn release(&mut self, now_ns: u64) {
        let Some(cut) = self.cuts.pop_front() else {
            return;
        };
        self.allowed = cut;
        if self.cuts.is_empty() {
            self.sent += 1;
            if self.role == Role::Echo {
                self.sent_ns.push_back(now_ns);
            }
        }
    }

    /// Says that it is there, as a peer that only waits must (a server pings who is silent, and
    /// this one may not read the ping).
    pub(super) fn show_life(&mut self, tools: &mut Tools) {
        if self.output.is_empty() {
            self.append_pong(&[], tools);
        }
    }

    /// Writes what may be written. Returns why the connection ended, if it did.
    pub(super) fn flush(&mut self) -> Option<End> {
        let stream = self.stream.as_mut()?;
        while self.written < self.allowed {
            match stream.write(&self.output[self.written..self.allowed]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Some(End::Failed(error)),
            }
        }
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
            self.allowed = 0;
        }
        None
    }

    /// Reads all there is. `sent` is how many messages of its stream have been sent.
    pub(super) fn receive(&mut self, sent: u64, now_ns: u64, tools: &mut Tools) -> Option<End> {
        if !self.reading {
            return None;
        }
        let mut input = std::mem::take(&mut tools.input);
        let end = self.read_all(&mut input, sent, now_ns, tools);
        tools.input = input;
        end
    }

    fn read_all(
        &mut self,
        input: &mut [u8],
        sent: u64,
        now_ns: u64,
        tools: &mut Tools,
    ) -> Option<End> {
        loop {
            match self.stream.as_mut()?.read(input) {
                Ok(0) => {
                    let within_a_frame = self.reader.is_within_a_frame();
                    return Some(End::WithoutClose { within_a_frame });
                }
                Ok(len) => {
                    if let Some(end) = self.take_bytes(&input[..len], sent, now_ns, tools) {
                        return Some(end);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Some(End::Failed(error)),
            }
        }
    }

    fn take_bytes(
        &mut self,
        bytes: &[u8],
        sent: u64,
        now_ns: u64,
        tools: &mut Tools,
    ) -> Option<End> {
        let mut reader = std::mem::take(&mut self.reader);
        let mut end = None;
        let fed = reader.feed(bytes, |frame| match frame {
            Incoming::Message { text, compressed, payload } => {
                self.take_message(text, compressed, payload, sent, now_ns, tools);
            }
            Incoming::Ping(payload) => self.append_pong(payload, tools),
            Incoming::Pong => {}
            Incoming::Close { code, reason } => end = Some(End::Closed { code, reason }),
        });
        self.reader = reader;
        if let Err(violation) = fed {
            self.account.receive_corrupted(sent);
            return Some(End::Violation(violation));
        }
        end.or_else(|| self.flush())
    }

    fn take_message(
        &mut self,
        text: bool,
        compressed: bool,
        payload: &[u8],
        sent: u64,
        now_ns: u64,
        tools: &mut Tools,
    ) {
        let payload = match compressed {
            false => Some(payload),
            true if self.manner.compressed => tools.codec.inflate(payload),
            true => None,
        };
        let size = self.manner.size;
        let message =
            payload.and_then(|payload| Message::read(payload, text, size, &mut tools.scratch));
        let Some(message) = message.filter(|message| self.is_due_here(message)) else {
            self.account.receive_corrupted(sent);
            return;
        };
        self.account.receive(message.sequence, sent);
        let delay = match self.role {
            Role::Echo => self.sent_at(message.sequence).map(|sent_ns| now_ns - sent_ns),
            _ => Some(now_ns.saturating_sub(message.made_ns)),
        };
        if let Some(delay) = delay.filter(|_| !self.manner.slow) {
            tools.delays.delay(delay);
            tools.delays.silence(now_ns.saturating_sub(self.heard_ns));
        }
        self.heard_ns = now_ns;
    }

    fn is_due_here(&self, message: &Message) -> bool {
        let stream = match self.role {
            Role::Echo => self.number as usize,
            Role::Member { publisher } => publisher,
            Role::Publisher => return false,
        };
        message.stream as usize == stream
    }

    /// When message `sequence` was sent, if it was and has not been received; forgets those before.
    fn sent_at(&mut self, sequence: u64) -> Option<u64> {
        let oldest = self.sent - self.sent_ns.len() as u64;
        let skip = sequence.checked_sub(oldest)?;
        if skip >= self.sent_ns.len() as u64 {
            return None;
        }
        self.sent_ns.drain(..skip as usize);
        self.sent_ns.pop_front()
    }

    /// A Pong goes out behind the message that has begun, of which none may be missing; while one
    /// is held back piece by piece, it waits with it.
    fn append_pong(&mut self, payload: &[u8], tools: &mut Tools) {
        let held_back = !self.cuts.is_empty();
        frame::append_pong(payload, &mut tools.random, &mut self.output);
        match self.cuts.back_mut().filter(|_| held_back) {
            Some(last) => *last = self.output.len(),
            None => self.allowed = self.output.len(),
        }
    }

    /// The connection has ended before the run.
    pub(super) fn end(&mut self) {
        if self.stream.take().is_some() {
            self.account.disconnect();
        }
        self.reading = false;
    }

    /// The silence begins to count.
    pub(super) fn listen_from(&mut self, now_ns: u64) {
        self.heard_ns = now_ns;
    }

    /// Time since it last received a message, if it waits for one.
    pub(super) fn silence(&self, sent: u64, now_ns: u64) -> Option<u64> {
        let waits = !self.manner.slow && self.outstanding(sent) > 0;
        waits.then(|| now_ns.saturating_sub(self.heard_ns))
    }

    /// Whether a piece of a message waits for its time.
    pub(super) fn is_within_a_message(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// Whether all that may be written has been.
    pub(super) fn is_flushed(&self) -> bool {
        self.written == self.allowed
    }

    pub(super) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    pub(super) fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }

    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// Messages that it has sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn received(&self) -> u64 {
        self.account.received()
    }

    pub(super) fn outstanding(&self, sent: u64) -> u64 {
        match self.role {
            Role::Publisher => 0,
            Role::Echo | Role::Member { .. } => self.account.outstanding(sent),
        }
    }

    /// Whether it has messages of its own.
    pub(super) fn sends(&self) -> bool {
        matches!(self.role, Role::Echo | Role::Publisher)
    }

    /// Whether it is a member of a room and has had no message yet.
    pub(super) fn awaits_its_first(&self) -> bool {
        matches!(self.role, Role::Member { .. }) && self.is_open() && self.received() == 0
    }

    /// Settles its account at the end of the run.
    pub(super) fn settle(&mut self, sent: u64) {
        if self.role != Role::Publisher {
            self.account.close(sent);
        }
    }

    pub(super) fn faults(&self) -> Faults {
        self.account.faults()
    }
}
