//! A client with a codec of its own, which knows nothing of the server's code.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{KIB, WAIT};

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
pub const FIN: u8 = 0x80;
pub const RSV1: u8 = 0x40;

/// A request for a WebSocket.
pub fn request(path: &str, lines: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    )
}

/// A frame of a client: `first` is FIN, RSV1 and opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    let key = [0x1f, 0x2e, 0x3d, 0x4c];
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// The header of a client's frame, with the masking key that [`frame`] uses.
pub fn header(first: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match len {
        0..=125 => bytes.push(0x80 | len as u8),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(len.to_be_bytes());
        }
    }
    bytes.extend([0x1f, 0x2e, 0x3d, 0x4c]);
    bytes
}

/// A frame as it came from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub rsv1: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn text(&self) -> &str {
        assert_eq!((self.opcode, self.rsv1), (TEXT, false), "{self:?}");
        std::str::from_utf8(&self.payload).expect("UTF-8")
    }

    /// The code of a Close; `None` without one.
    pub fn close_code(&self) -> Option<u16> {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        self.payload.first_chunk().map(|code| u16::from_be_bytes(*code))
    }
}

/// A response of the server.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    /// The one value of a header; `None` if it is not there.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(other, _)| other == name);
        let value = values.next().map(|(_, value)| &**value);
        assert!(values.next().is_none(), "{name} is repeated: {self:?}");
        value
    }
}

/// What can be read from and written to: TCP or a Unix socket.
pub trait Transport: Read + Write + Send {
    fn set_timeouts(&self, time: Option<Duration>) -> io::Result<()>;
}

impl Transport for TcpStream {
    fn set_timeouts(&self, time: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(time)?;
        self.set_write_timeout(time)
    }
}

impl Transport for std::os::unix::net::UnixStream {
    fn set_timeouts(&self, time: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(time)?;
        self.set_write_timeout(time)
    }
}

/// One connection of a client, and a codec of its own.
pub struct Client<S = TcpStream> {
    pub stream: S,
    received: Vec<u8>,
    at: usize,
}

impl<S: Transport> Client<S> {
    pub fn over(stream: S) -> Self {
        stream.set_timeouts(Some(WAIT)).expect("a timeout above zero");
        Self { stream, received: Vec::new(), at: 0 }
    }

    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes bytes");
    }

    #[track_caller]
    pub fn send(&mut self, first: u8, payload: &[u8]) {
        self.send_bytes(&frame(first, payload));
    }

    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.send(FIN | TEXT, text.as_bytes());
    }

    /// Does the handshake and returns the 101.
    #[track_caller]
    pub fn upgrade(&mut self, path: &str, lines: &str) -> Response {
        self.send_bytes(request(path, lines).as_bytes());
        let response = self.response();
        assert_eq!(response.status, 101, "{response:?}");
        assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        response
    }

    /// More bytes; false at the end of the stream.
    pub fn fill(&mut self) -> io::Result<bool> {
        if self.at > 0 {
            self.received.drain(..self.at);
            self.at = 0;
        }
        let mut buffer = [0; 64 * KIB];
        let len = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.received.extend_from_slice(&buffer[..len]);
        Ok(len > 0)
    }

    /// What has come and was not taken as a response or a frame.
    pub fn received_text(&self) -> &str {
        std::str::from_utf8(&self.received[self.at..]).expect("UTF-8")
    }

    /// A response with its body, which ends with the connection, or a 101.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        let end = loop {
            let rest = &self.received[self.at..];
            if let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
                break self.at + end;
            }
            assert!(self.fill().expect("a response"), "the end instead of a response");
        };
        let head = String::from_utf8(self.received[self.at..end].to_vec()).expect("ASCII");
        self.at = end + 4;
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {status_line}"));
        let headers = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no header: {line}")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut response = Response { status, headers, body: String::new() };
        if status != 101 {
            while self.fill().expect("the body, then a clean end") {}
            response.body = String::from_utf8(self.received.split_off(self.at)).expect("UTF-8");
            let length = response.header("content-length").map(str::parse);
            assert_eq!(length, Some(Ok(response.body.len())), "{response:?}");
        }
        response
    }

    /// The next frame that is no ping; `None` at the end of the stream. Pings are answered: one comes
    /// whenever the connection was silent for a while, which on a busy machine can be any time.
    pub fn try_frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            match self.try_any_frame()? {
                Some(ping) if ping.opcode == PING => self.answer(&ping),
                other => return Ok(other),
            }
        }
    }

    /// The next frame, be it a ping; `None` at the end of the stream.
    pub fn try_any_frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some((frame, len)) = parse(&self.received[self.at..]) {
                self.at += len;
                return Ok(Some(frame));
            }
            if !self.fill()? {
                return match self.received.len() == self.at {
                    true => Ok(None),
                    false => Err(io::Error::new(ErrorKind::UnexpectedEof, "the end in a frame")),
                };
            }
        }
    }

    /// The next frame, which has to come, and may be a ping.
    #[track_caller]
    pub fn any_frame(&mut self) -> Frame {
        self.try_any_frame().expect("a frame").expect("a frame and not the end")
    }

    /// The next frame that is no ping, which has to come.
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        self.try_frame().expect("a frame").expect("a frame and not the end")
    }

    /// Asserts that the next frame is this text.
    #[track_caller]
    pub fn expect_text(&mut self, text: &str) {
        assert_eq!(self.frame().text(), text);
    }

    #[track_caller]
    pub fn assert_echo(&mut self, text: &str) {
        self.send_text(text);
        self.expect_text(text);
    }

    /// Asserts that a Close with this code comes next, and after it the end, without a reset.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        assert_eq!(self.frame().close_code(), Some(code));
        self.expect_end();
    }

    /// The code of the Close that comes behind any number of other frames, and the stream's end.
    #[track_caller]
    pub fn skip_to_close(&mut self) -> Option<u16> {
        loop {
            let frame = self.frame();
            if frame.opcode == CLOSE {
                self.expect_end();
                return frame.close_code();
            }
        }
    }

    /// Asserts that the connection ends, or is reset.
    #[track_caller]
    pub fn expect_lost(&mut self) {
        loop {
            match self.try_frame() {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    let kind = error.kind();
                    return assert_ne!(kind, ErrorKind::WouldBlock, "no end within {WAIT:?}");
                }
            }
        }
    }

    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.try_frame().expect("an end without a reset"), None);
    }

    /// Reads, to the last byte, what [`open_slow`](super::Server::open_slow) has asked for.
    #[track_caller]
    pub fn expect_queued(&mut self) {
        for number in 0..QUEUED {
            assert!(self.frame().payload == queued(number), "message {number}");
        }
        self.assert_echo("all read");
    }

    /// The close handshake.
    #[track_caller]
    pub fn close(&mut self, code: u16) {
        self.send(FIN | CLOSE, &code.to_be_bytes());
        self.expect_close(code);
    }

    /// Whether nothing has come within the blink of an eye; reads what has.
    pub fn is_silent_so_far(&mut self) -> bool {
        self.received.len() == self.at && self.is_silent_for(Duration::from_millis(20))
    }

    /// Whether nothing but pings has come within `time`.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        assert_eq!(self.received.len(), self.at, "something has come already");
        let until = Instant::now() + time;
        let silent = loop {
            let left = until.saturating_duration_since(Instant::now());
            self.stream.set_timeouts(Some(left.max(Duration::from_millis(1)))).expect("above zero");
            match self.fill() {
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
                Ok(false) => break false,
                Ok(true) => {}
            }
            while let Some((ping, len)) = parse(&self.received[self.at..])
                && ping.opcode == PING
            {
                self.at += len;
                self.answer(&ping);
            }
            if self.at < self.received.len() {
                break false;
            }
        };
        self.stream.set_timeouts(Some(WAIT)).expect("a timeout above zero");
        silent
    }

    /// Answers a ping, if the server still takes an answer: what else it has to say comes with its
    /// next frames.
    fn answer(&mut self, ping: &Frame) {
        let _ = self.stream.write_all(&frame(FIN | PONG, &ping.payload));
    }
}

impl Client<TcpStream> {
    /// Breaks the connection: what the peer gets is a reset.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("an open socket");
    }

    /// Writes as much of `bytes`, over and over, as is taken until nothing is for `pause`;
    /// returns how many that were. A multiple of `bytes` may end in the middle.
    pub fn flood(&mut self, bytes: &[u8], max: usize, pause: Duration) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(pause))?;
        let mut sent = 0;
        let outcome = loop {
            if sent >= max {
                break Ok(sent);
            }
            match self.stream.write(&bytes[sent % bytes.len()..]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(sent),
                Err(error) => break Err(error),
            }
        };
        self.stream.set_write_timeout(Some(WAIT))?;
        outcome
    }
}

/// Messages that a slow client asks for: more than the buffers of both sockets hold.
pub const QUEUED: usize = 16;

/// What is in one of them.
pub fn queued(number: usize) -> Vec<u8> {
    (0..60_000_u32).map(|i| (i.wrapping_mul(number as u32 + 7) >> 3) as u8).collect()
}

/// A frame of a server at the start of `bytes`, and its length on the wire.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "a server's frame is masked");
    let (len, start) = match second {
        126 => (u64::from(u16::from_be_bytes(*bytes.get(2..4)?.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*bytes.get(2..10)?.first_chunk()?), 10),
        len => (u64::from(len), 2),
    };
    let end = start + usize::try_from(len).expect("a sane length");
    let payload = bytes.get(start..end)?.to_vec();
    assert_eq!(first & 0x30, 0, "RSV2 or RSV3 is set");
    let (fin, rsv1, opcode) = (first & FIN != 0, first & RSV1 != 0, first & 0x0f);
    Some((Frame { fin, rsv1, opcode, payload }, end))
}

/// Publishes until each member has heard of it, and empties them all.
pub fn settle_room(publisher: &mut Client, members: &mut [Client]) {
    for (index, member) in members.iter_mut().enumerate() {
        // Its join has reached the room's home once it hears a message.
        let mark = format!("settle {index}");
        let until = Instant::now() + WAIT;
        loop {
            publisher.send_text(&mark);
            publisher.expect_text(&mark);
            if !member.is_silent_so_far() {
                break;
            }
            assert!(Instant::now() < until, "a member that hears nothing");
        }
    }
    publisher.send_text("settled");
    publisher.expect_text("settled");
    for member in members {
        while member.frame().text() != "settled" {}
    }
}
