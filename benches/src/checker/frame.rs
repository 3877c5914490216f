//! Frames as a client sends and receives them (RFC 6455 §5, RFC 7692 §6), apart from the server's
//! own code. What the server may send is held tighter than the RFC does: no message of Steadfast's
//! is fragmented.

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::message::{Random, SIZE_MAX};
use crate::frames::header;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// Longest payload of a control frame (RFC 6455 §5.5).
const CONTROL_LEN_MAX: u64 = 125;
/// What a compressed message leaves out at its end (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// A message as it is sent.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Text, or binary.
    pub text: bool,
    /// Whether `payload` is compressed.
    pub compressed: bool,
    /// Into how many frames it is cut, at random places; at least 1.
    pub fragments: usize,
    /// All of it, not masked.
    pub payload: &'a [u8],
}

/// Appends a message, masked with new keys.
pub fn append_message(message: &Outgoing<'_>, random: &mut Random, out: &mut Vec<u8>) {
    let Outgoing { text, compressed, fragments, payload } = *message;
    let mut cuts: Vec<usize> =
        (1..fragments).map(|_| random.below(payload.len() + 1)).chain([payload.len()]).collect();
    cuts.sort_unstable();
    let mut opcode = if text { TEXT } else { BINARY } | if compressed { RSV1 } else { 0 };
    let mut from = 0;
    for (number, &to) in cuts.iter().enumerate() {
        let fin = if number + 1 == cuts.len() { FIN } else { 0 };
        append(fin | opcode, &payload[from..to], random, out);
        opcode = CONTINUATION;
        from = to;
    }
}

/// Appends a Pong: the answer to a Ping, or a sign of life that nobody asked for (§5.5.3).
pub fn append_pong(payload: &[u8], random: &mut Random, out: &mut Vec<u8>) {
    append(FIN | PONG, payload, random, out);
}

/// Appends a Close of code 1000.
pub fn append_close(random: &mut Random, out: &mut Vec<u8>) {
    append(FIN | CLOSE, &1000_u16.to_be_bytes(), random, out);
}

fn append(first_byte: u8, payload: &[u8], random: &mut Random, out: &mut Vec<u8>) {
    let mut header = header(payload.len(), 0x80);
    header[0] = first_byte;
    out.extend(header);
    let key = (random.bits() as u32).to_ne_bytes();
    out.extend(key);
    let from = out.len();
    out.extend_from_slice(payload);
    for (byte, key) in out[from..].iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// One frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole message, perhaps compressed.
    Message {
        /// Text, or binary.
        text: bool,
        /// Whether `payload` is compressed.
        compressed: bool,
        /// Application data.
        payload: &'a [u8],
    },
    /// To be answered with a Pong of the same payload.
    Ping(&'a [u8]),
    /// An answer, to be ignored.
    Pong,
    /// The server's end of the connection.
    Close {
        /// Its code; `None` if it has none.
        code: Option<u16>,
        /// Its reason.
        reason: String,
    },
}

/// Bytes that Steadfast must not send; what follows them has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// The server has masked a frame.
    Masked,
    /// The length is not in its shortest form, or beyond all that was sent.
    Length,
    /// Another first byte than those of whole messages and control frames.
    FirstByte(u8),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masked => write!(f, "a frame is masked"),
            Self::Length => write!(f, "a frame's length is wrong"),
            Self::FirstByte(byte) => write!(f, "a frame's first byte is {byte:#04x}"),
        }
    }
}

/// The bytes of a frame that has not wholly arrived.
#[derive(Debug, Default)]
pub struct Reader {
    pending: Vec<u8>,
}

impl Reader {
    /// Takes the next `bytes` of the stream and hands on each frame that they complete.
    ///
    /// # Errors
    /// The first violation. Nothing may be fed after it.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Incoming<'_>),
    ) -> Result<(), Violation> {
        if self.pending.is_empty() {
            let used = frames(bytes, &mut take)?;
            self.pending.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        self.pending.extend_from_slice(bytes);
        let used = frames(&self.pending, &mut take)?;
        if used == self.pending.len() {
            // A rare large frame must not keep its memory for the rest of the run.
            self.pending = Vec::new();
        } else {
            self.pending.drain(..used);
        }
        Ok(())
    }

    /// Whether a frame has begun and not ended.
    pub fn is_within_a_frame(&self) -> bool {
        !self.pending.is_empty()
    }
}

/// Hands on the frames that `bytes` begins with; returns how long they are.
fn frames(bytes: &[u8], take: &mut impl FnMut(Incoming<'_>)) -> Result<usize, Violation> {
    let mut used = 0;
    while let Some((frame, len)) = first_frame(&bytes[used..])? {
        take(frame);
        used += len;
    }
    Ok(used)
}

/// The frame that `bytes` begins with, and its length with its header; `None` if more is needed.
fn first_frame(bytes: &[u8]) -> Result<Option<(Incoming<'_>, usize)>, Violation> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if second & 0x80 != 0 {
        return Err(Violation::Masked);
    }
    let extended_len = match second {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some((extended, rest)) = rest.split_at_checked(extended_len) else {
        return Ok(None);
    };
    let (len, shortest) = match extended_len {
        0 => (u64::from(*second), 0),
        _ => (
            extended.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
            if extended_len == 2 { 126 } else { 65_536 },
        ),
    };
    let control = first & 0x08 != 0;
    // A compressed message can be a little longer than it is otherwise.
    let most = if control { CONTROL_LEN_MAX } else { SIZE_MAX as u64 + 1024 };
    if len < shortest || len > most {
        return Err(Violation::Length);
    }
    let Some(payload) = rest.get(..len as usize) else {
        return Ok(None);
    };
    let frame = match first & !RSV1 {
        byte if byte == FIN | TEXT || byte == FIN | BINARY => {
            Incoming::Message { text: byte == FIN | TEXT, compressed: first & RSV1 != 0, payload }
        }
        _ if first & RSV1 != 0 => return Err(Violation::FirstByte(*first)),
        byte if byte == FIN | PING => Incoming::Ping(payload),
        byte if byte == FIN | PONG => Incoming::Pong,
        byte if byte == FIN | CLOSE => close(payload),
        _ => return Err(Violation::FirstByte(*first)),
    };
    Ok(Some((frame, 2 + extended_len + payload.len())))
}

fn close(payload: &[u8]) -> Incoming<'static> {
    let (code, reason) = match payload.split_at_checked(2) {
        Some((code, reason)) => (Some(u16::from_be_bytes([code[0], code[1]])), reason),
        None => (None, payload),
    };
    Incoming::Close { code, reason: String::from_utf8_lossy(reason).into_owned() }
}

/// Compresses and inflates single messages: neither side keeps anything from one to the next.
#[derive(Debug)]
pub struct Codec {
    compress: Compress,
    decompress: Decompress,
    buffer: Vec<u8>,
}

impl Default for Codec {
    fn default() -> Self {
        Self {
            compress: Compress::new(Compression::fast(), false),
            decompress: Decompress::new(false),
            buffer: Vec::new(),
        }
    }
}

impl Codec {
    /// A message, compressed (RFC 7692 §7.2.1).
    pub fn compress(&mut self, payload: &[u8]) -> &[u8] {
        self.compress.reset();
        self.buffer.clear();
        // What cannot be compressed may become longer by an eighth. A flush is complete once it has
        // left room in the buffer.
        self.buffer.reserve(payload.len() + payload.len() / 8 + 64);
        let mut left = payload;
        loop {
            let before = self.compress.total_in();
            let status = self.compress.compress_vec(left, &mut self.buffer, FlushCompress::Sync);
            assert!(status.is_ok(), "deflate takes any bytes");
            left = &left[(self.compress.total_in() - before) as usize..];
            if left.is_empty() && self.buffer.len() < self.buffer.capacity() {
                break;
            }
            self.buffer.reserve(self.buffer.len() / 2);
        }
        assert!(self.buffer.ends_with(&TAIL), "a synchronising flush ends with an empty block");
        self.buffer.truncate(self.buffer.len() - TAIL.len());
        &self.buffer
    }

    /// A message inflated (RFC 7692 §7.2.2); `None` if it is not deflate or too long.
    pub fn inflate(&mut self, payload: &[u8]) -> Option<&[u8]> {
        self.decompress.reset(false);
        self.buffer.clear();
        self.buffer.reserve(SIZE_MAX + 1);
        for input in [payload, &TAIL] {
            let before = self.decompress.total_in();
            let status =
                self.decompress.decompress_vec(input, &mut self.buffer, FlushDecompress::Sync);
            let used = self.decompress.total_in() - before;
            match status {
                Ok(Status::Ok | Status::BufError) if used == input.len() as u64 => {}
                _ => return None,
            }
        }
        Some(&self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmasked(frame: &[u8]) -> Vec<u8> {
        let header_len = match frame[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let (header, rest) = frame.split_at(header_len);
        let (key, payload) = rest.split_at(4);
        let payload = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        let mut frame = header.to_vec();
        frame[1] &= 0x7f;
        frame.extend(payload);
        frame
    }

    fn fed(bytes: &[u8], piece_len: usize) -> Result<Vec<String>, Violation> {
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        for piece in bytes.chunks(piece_len) {
            reader.feed(piece, |frame| seen.push(format!("{frame:?}")))?;
        }
        assert!(!reader.is_within_a_frame());
        Ok(seen)
    }

    #[test]
    fn whole_messages_are_read_however_they_are_cut() {
        let mut random = Random::new(1);
        for size in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; size];
            let mut frame = Vec::new();
            let message =
                Outgoing { text: true, compressed: true, fragments: 1, payload: &payload };
            append_message(&message, &mut random, &mut frame);
            let mut stream = unmasked(&frame);
            stream.extend([0x89, 2, 7, 8, 0x8a, 0]);
            let expected = [
                format!(
                    "{:?}",
                    Incoming::Message { text: true, compressed: true, payload: &payload }
                ),
                format!("{:?}", Incoming::Ping(&[7, 8])),
                format!("{:?}", Incoming::Pong),
            ];
            for piece_len in [1, 2, 3, 127, 4_096, stream.len()] {
                if size < 10_000 || piece_len > 100 {
                    assert_eq!(fed(&stream, piece_len).unwrap(), expected);
                }
            }
        }
    }

    #[test]
    fn what_steadfast_must_not_send_is_noticed() {
        let cases: [(&[u8], Violation); 9] = [
            (&[0x82, 0x80, 1, 2, 3, 4], Violation::Masked),
            (&[0x82, 126, 0, 125], Violation::Length),
            (&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Violation::Length),
            (&[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0], Violation::Length),
            (&[0x89, 126, 0, 126], Violation::Length),
            (&[0x02, 0], Violation::FirstByte(0x02)),
            (&[0x80, 0], Violation::FirstByte(0x80)),
            (&[0xa2, 0], Violation::FirstByte(0xa2)),
            (&[0xc9, 0], Violation::FirstByte(0xc9)),
        ];
        for (bytes, violation) in cases {
            assert_eq!(Reader::default().feed(bytes, |_| {}), Err(violation), "{bytes:x?}");
        }
    }

    #[test]
    fn a_close_has_its_code_and_reason() {
        let seen = fed(&[0x88, 4, 3, 0xf4, b'h', b'o', 0x88, 0], 3).unwrap();
        let close = |code, reason: &str| {
            format!("{:?}", Incoming::Close { code, reason: reason.to_owned() })
        };
        assert_eq!(seen, [close(Some(1012), "ho"), close(None, "")]);
    }

    #[test]
    fn fragments_are_one_message() {
        let mut random = Random::new(2);
        let payload: Vec<u8> = (0..=255).collect();
        for fragments in 1..6 {
            let mut out = Vec::new();
            let message = Outgoing { text: false, compressed: true, fragments, payload: &payload };
            append_message(&message, &mut random, &mut out);
            let (mut rest, mut firsts, mut joined) = (&out[..], Vec::new(), Vec::<u8>::new());
            while let [first, second, ..] = *rest {
                let (header_len, len) = match second & 0x7f {
                    126 => (4, usize::from(rest[2]) << 8 | usize::from(rest[3])),
                    len => (2, usize::from(len)),
                };
                let (frame, after) = rest.split_at(header_len + 4 + len);
                joined.extend(&unmasked(frame)[header_len..]);
                firsts.push(first);
                rest = after;
            }
            assert_eq!(joined, payload);
            let mut expected = vec![0x00; fragments];
            expected[0] = 0x42;
            expected[fragments - 1] |= 0x80;
            assert_eq!(firsts, expected);
        }
    }

    #[test]
    fn what_is_compressed_inflates() {
        let mut codec = Codec::default();
        let mut random = Random::new(3);
        // Of many lengths: what is left of a flush when the buffer is full is rarely a whole block.
        for len in [0, 1, 48, 5_000, SIZE_MAX].into_iter().chain((20_000..70_000).step_by(487)) {
            let noise: Vec<u8> = (0..len).map(|_| random.bits() as u8).collect();
            let text = "steadfast ".repeat(len / 10).into_bytes();
            for payload in [noise, text] {
                let compressed = codec.compress(&payload).to_vec();
                assert_eq!(codec.inflate(&compressed).unwrap(), payload, "{len}");
            }
        }
        assert_eq!(codec.inflate(&[0xff, 0xff]), None);
    }
}
