//! Visitors: new connections at a steady rate, each of which shakes hands, sends one message, gets
//! it back, and leaves with a Close. None may be refused, reset or left waiting.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::AddAssign;

use anyhow::Result;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::SockAddr;

use super::frame::{Incoming, Outgoing, Reader, append_close, append_message};
use super::message::{Message, Random, SIZE_MIN, Size};
use crate::handshake::{HEAD_BYTES_MAX, Opening, PATIENCE, is_accepted};

/// Tokens from here on are visitors'.
pub(super) const FIRST_TOKEN: usize = 1 << 24;
/// Most visitors at once. A server that answers none of them must not use up the descriptors.
const AT_ONCE_MAX: usize = 4_000;

/// What visitors have met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Visits {
    /// Those that came and left as they should.
    pub complete: u64,
    /// Connections refused.
    pub refused: u64,
    /// Connections reset.
    pub reset: u64,
    /// Other failures: a wrong answer, an early end, no answer in ten seconds.
    pub failed: u64,
    /// Longest time from connect to the echo, in nanoseconds.
    pub delay_max: u64,
}

impl Visits {
    /// All that went wrong.
    pub fn faults(&self) -> u64 {
        self.refused + self.reset + self.failed
    }
}

impl AddAssign for Visits {
    fn add_assign(&mut self, other: Self) {
        let Self { complete, refused, reset, failed, delay_max } = other;
        self.complete += complete;
        self.refused += refused;
        self.reset += reset;
        self.failed += failed;
        self.delay_max = self.delay_max.max(delay_max);
    }
}

impl fmt::Display for Visits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { complete, refused, reset, failed, .. } = self;
        write!(f, "complete {complete}, refused {refused}, reset {reset}, failed {failed}")
    }
}

/// All that are there at present, and the counts of those that were.
#[derive(Debug)]
pub(super) struct Visitors {
    address: std::net::SocketAddr,
    present: Vec<Option<Visitor>>,
    /// Free places in `present`.
    free: Vec<usize>,
    /// How many have come so far.
    come: u64,
    pub(super) visits: Visits,
    /// What the first failures were.
    pub(super) examples: Vec<String>,
}

#[derive(Debug)]
struct Visitor {
    stream: TcpStream,
    number: u32,
    came_ns: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Next: the socket becomes writable, and the request is sent.
    Connecting,
    /// Next: the response's head ends, and the message is sent.
    Handshaking(Vec<u8>),
    /// Next: the echo, then Close is sent; then the server's Close and the end of TCP.
    Talking { reader: Reader, echoed: bool, closed: bool },
}

/// Why a visit is over.
enum Outcome {
    Complete,
    Failed(String),
    Io(io::Error),
}

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Visitors {
    pub(super) fn new(address: std::net::SocketAddr) -> Self {
        Self {
            address,
            present: Vec::new(),
            free: Vec::new(),
            come: 0,
            visits: Visits::default(),
            examples: Vec::new(),
        }
    }

    /// How many are there.
    pub(super) fn present(&self) -> usize {
        self.present.len() - self.free.len()
    }

    /// One more begins to connect.
    pub(super) fn come(&mut self, registry: &Registry, now_ns: u64) -> Result<()> {
        if self.present() >= AT_ONCE_MAX {
            self.count(Outcome::Failed(format!("{AT_ONCE_MAX} wait already")));
            return Ok(());
        }
        let number = self.come;
        self.come += 1;
        let socket = self.opening().socket(number as usize)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&SockAddr::from(self.address)) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                self.count(Outcome::Io(error));
                return Ok(());
            }
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        let place = self.free.pop().unwrap_or_else(|| {
            self.present.push(None);
            self.present.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(FIRST_TOKEN + place), interest)?;
        let visitor =
            Visitor { stream, number: number as u32, came_ns: now_ns, stage: Stage::Connecting };
        self.present[place] = Some(visitor);
        Ok(())
    }

    /// Something has happened to the one with this token.
    pub(super) fn handle(&mut self, token: Token, now_ns: u64, random: &mut Random) {
        let place = token.0 - FIRST_TOKEN;
        let opening = self.opening();
        let Some(visitor) = self.present.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        match visitor.advance(&opening, random, now_ns, &mut self.visits.delay_max) {
            Ok(()) => {}
            Err(outcome) => self.leave(place, outcome),
        }
    }

    /// Sends those away that have waited for too long.
    pub(super) fn expire(&mut self, now_ns: u64) {
        for place in 0..self.present.len() {
            let Some(visitor) = &self.present[place] else {
                continue;
            };
            if now_ns.saturating_sub(visitor.came_ns) > PATIENCE.as_nanos() as u64 {
                let stage = match visitor.stage {
                    Stage::Connecting => "the connection",
                    Stage::Handshaking(_) => "the handshake",
                    Stage::Talking { echoed: false, .. } => "the echo",
                    Stage::Talking { echoed: true, .. } => "the close",
                };
                let text = format!("waited {} s for {stage}", PATIENCE.as_secs());
                self.leave(place, Outcome::Failed(text));
            }
        }
    }

    fn opening(&self) -> Opening<'static> {
        let (path, extensions, receive_bytes) = ("/echo", None, None);
        Opening { address: self.address, path, extensions, receive_bytes }
    }

    fn leave(&mut self, place: usize, outcome: Outcome) {
        self.present[place] = None;
        self.free.push(place);
        self.count(outcome);
    }

    fn count(&mut self, outcome: Outcome) {
        let text = match outcome {
            Outcome::Complete => {
                self.visits.complete += 1;
                return;
            }
            Outcome::Io(error) => {
                match error.kind() {
                    ErrorKind::ConnectionRefused => self.visits.refused += 1,
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.visits.reset += 1,
                    _ => self.visits.failed += 1,
                }
                error.to_string()
            }
            Outcome::Failed(text) => {
                self.visits.failed += 1;
                text
            }
        };
        if self.examples.len() < super::streams::EXAMPLES_MAX {
            self.examples.push(format!("a visitor: {text}"));
        }
    }
}

impl Visitor {
    /// Goes as far as it can. The end of the visit comes as an error, whatever it is like.
    fn advance(
        &mut self,
        opening: &Opening<'_>,
        random: &mut Random,
        now_ns: u64,
        delay_max: &mut u64,
    ) -> Result<(), Outcome> {
        if let Stage::Connecting = self.stage {
            if let Some(error) = self.stream.take_error()? {
                return Err(error.into());
            }
            match self.stream.peer_addr() {
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                connected => connected?,
            };
            // What one visitor writes always fits into an empty socket.
            self.stream.write_all(opening.request().as_bytes())?;
            self.stage = Stage::Handshaking(Vec::new());
        }
        let mut buffer = [0; HEAD_BYTES_MAX];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(self.ended()),
                Ok(len) => self.take(&buffer[..len], random, now_ns, delay_max)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(
        &mut self,
        bytes: &[u8],
        random: &mut Random,
        now_ns: u64,
        delay_max: &mut u64,
    ) -> Result<(), Outcome> {
        let message = Message { stream: self.number, sequence: 0, made_ns: self.came_ns };
        let mut output = Vec::new();
        match &mut self.stage {
            Stage::Connecting => {}
            Stage::Handshaking(head) => {
                head.extend_from_slice(bytes);
                if head.len() > HEAD_BYTES_MAX {
                    return Err(Outcome::Failed("no end of the response's head".to_owned()));
                }
                if !head.ends_with(b"\r\n\r\n") {
                    return Ok(());
                }
                let head = String::from_utf8_lossy(head);
                if !is_accepted(&head) {
                    let status = head.lines().next().unwrap_or_default();
                    return Err(Outcome::Failed(format!("handshake refused: {status}")));
                }
                let mut payload = Vec::new();
                message.write(SIZE_MIN, &mut payload);
                let outgoing = Outgoing {
                    text: message.is_text(),
                    compressed: false,
                    fragments: 1,
                    payload: &payload,
                };
                append_message(&outgoing, random, &mut output);
                let reader = Reader::default();
                self.stage = Stage::Talking { reader, echoed: false, closed: false };
            }
            Stage::Talking { reader, echoed, closed } => {
                let mut wrong = None;
                let fed = reader.feed(bytes, |frame| match frame {
                    Incoming::Message { text, payload, .. } if !*echoed => {
                        let size = Size::Fixed(SIZE_MIN);
                        let echo = Message::read(payload, text, size, &mut Vec::new());
                        if echo == Some(message) {
                            *echoed = true;
                            *delay_max = (*delay_max).max(now_ns.saturating_sub(self.came_ns));
                            append_close(random, &mut output);
                        } else {
                            wrong = Some("the echo is wrong".to_owned());
                        }
                    }
                    Incoming::Close { code: Some(1000), .. } if *echoed => *closed = true,
                    other => wrong = Some(format!("unexpected: {other:?}")),
                });
                fed.map_err(|violation| Outcome::Failed(violation.to_string()))?;
                if let Some(text) = wrong {
                    return Err(Outcome::Failed(text));
                }
            }
        }
        self.stream.write_all(&output)?;
        Ok(())
    }

    /// The server has ended TCP.
    fn ended(&self) -> Outcome {
        match &self.stage {
            Stage::Talking { closed: true, .. } => Outcome::Complete,
            Stage::Talking { echoed: true, .. } => {
                Outcome::Failed("ended without Close".to_owned())
            }
            Stage::Talking { .. } => Outcome::Failed("ended instead of an echo".to_owned()),
            _ => Outcome::Failed("ended instead of a handshake".to_owned()),
        }
    }
}
