//! The load client's whole protocol: masked binary frames to send, and the check of what returns.
//!
//! A message's payload is a slice of one random pattern, and which slice follows from the message's
//! sequence number. So the bytes a server must send are known in full and in advance: its reply is
//! compared byte for byte, header included, with a `memcmp`, and one that is masked, short, out of
//! order, of another connection or of another kind cannot pass. Likewise what goes to the server
//! is a slice of the same pattern, masked once at the start: the slices begin at multiples of four,
//! so one masking key (RFC 6455 §5.3) fits them all.

use std::fmt;
use std::io::IoSlice;

/// The masking key of every frame. Servers cannot tell that it does not change.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// How many different slices of the pattern there are before they repeat; a power of two.
const SLICES: u64 = 1 << 14;
/// FIN, binary.
const FIRST_BYTE: u8 = 0x82;

/// Sequence number of a message of one connection or one room, from 0.
pub type Sequence = u64;

/// All messages of one payload size, as sent and as expected back.
#[derive(Debug)]
pub struct Frames {
    size: usize,
    fragments: usize,
    /// Of a message in one frame.
    sent_header: Vec<u8>,
    reply_header: Vec<u8>,
    pattern: Vec<u8>,
    masked: Vec<u8>,
}

impl Frames {
    /// Messages of `size` bytes of payload, each in one frame.
    pub fn new(size: usize) -> Self {
        Self::fragmented(size, 1)
    }

    /// The same, each sent in so many fragments of one size.
    ///
    /// # Panics
    /// If the fragments' size is not a multiple of four, which the slices of the pattern need.
    pub fn fragmented(size: usize, fragments: usize) -> Self {
        assert!(fragments == 1 || size.is_multiple_of(4 * fragments), "{size} B in {fragments}");
        let pattern = noise(size + 4 * SLICES as usize);
        let masked = pattern.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        let mut sent_header = header(size, 0x80);
        sent_header.extend(KEY);
        Self { size, fragments, sent_header, reply_header: header(size, 0), pattern, masked }
    }

    /// Length of a message as sent, headers and keys included.
    pub fn sent_len(&self) -> usize {
        match self.fragments {
            1 => self.sent_header.len() + self.size,
            fragments => fragments * self.fragment_header(0).len() + self.size,
        }
    }

    /// Whether each message is one frame.
    pub fn are_whole(&self) -> bool {
        self.fragments == 1
    }

    /// Appends message `sequence`, masked, to `out`.
    pub fn append(&self, sequence: Sequence, out: &mut Vec<u8>) {
        if self.are_whole() {
            out.extend_from_slice(&self.sent_header);
            out.extend_from_slice(self.masked(sequence));
            return;
        }
        let fragments = self.masked(sequence).chunks(self.size / self.fragments);
        for (index, fragment) in fragments.enumerate() {
            out.extend(self.fragment_header(index));
            out.extend_from_slice(fragment);
        }
    }

    /// The header of fragment `index`: FIN in the last one, the opcode in the first one only.
    fn fragment_header(&self, index: usize) -> Vec<u8> {
        let mut header = header(self.size / self.fragments, 0x80);
        let fin = if index + 1 == self.fragments { FIRST_BYTE & 0x80 } else { 0 };
        let opcode = if index == 0 { FIRST_BYTE & 0x0f } else { 0 };
        header[0] = fin | opcode;
        header.extend(KEY);
        header
    }

    /// Message `sequence`, masked, without its first `skip` bytes: header and payload, uncopied.
    /// Of messages in one frame only.
    pub fn slices(&self, sequence: Sequence, skip: usize) -> [IoSlice<'_>; 2] {
        let header = &self.sent_header[skip.min(self.sent_header.len())..];
        let payload = &self.masked(sequence)[skip.saturating_sub(self.sent_header.len())..];
        [IoSlice::new(header), IoSlice::new(payload)]
    }

    fn masked(&self, sequence: Sequence) -> &[u8] {
        &self.masked[slice_start(sequence)..][..self.size]
    }

    fn payload(&self, sequence: Sequence) -> &[u8] {
        &self.pattern[slice_start(sequence)..][..self.size]
    }
}

/// Where a message's payload begins in the pattern. The multiplier is odd, so `SLICES` messages in
/// a row have as many different payloads, and neighbours are far apart.
fn slice_start(sequence: Sequence) -> usize {
    (sequence.wrapping_mul(0x9e37) % SLICES) as usize * 4
}

/// The header of a whole binary message, without key; length in its shortest form (RFC 6455 §5.2).
pub(crate) fn header(size: usize, mask_bit: u8) -> Vec<u8> {
    let mut header = vec![FIRST_BYTE];
    match size {
        0..=125 => header.push(mask_bit | size as u8),
        126..=0xffff => {
            header.push(mask_bit | 126);
            header.extend((size as u16).to_be_bytes());
        }
        _ => {
            header.push(mask_bit | 127);
            header.extend((size as u64).to_be_bytes());
        }
    }
    header
}

/// Random-looking bytes, the same in each run (xorshift64).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What one connection has received of the stream it must receive.
#[derive(Debug, Clone)]
pub struct Replies {
    sequence: Sequence,
    /// Bytes of the frame of `sequence` that have arrived and were right.
    position: usize,
}

impl Replies {
    /// A connection whose first reply is message `sequence`.
    pub fn starting_at(sequence: Sequence) -> Self {
        Self { sequence, position: 0 }
    }

    /// Compares the next `bytes` of the stream with what they must be; returns how many replies
    /// they completed.
    pub fn check(&mut self, frames: &Frames, mut bytes: &[u8]) -> Result<u64, Mismatch> {
        let header_len = frames.reply_header.len();
        let begun_at = self.sequence;
        while !bytes.is_empty() {
            let (expected, from) = match self.position.checked_sub(header_len) {
                None => (&frames.reply_header[..], self.position),
                Some(from) => (frames.payload(self.sequence), from),
            };
            let expected = &expected[from..];
            let (now, rest) = bytes.split_at(expected.len().min(bytes.len()));
            if *now != expected[..now.len()] {
                return Err(self.mismatch(now, expected, header_len));
            }
            self.position += now.len();
            bytes = rest;
            if self.position == header_len + frames.size {
                self.position = 0;
                self.sequence += 1;
            }
        }
        Ok(self.sequence - begun_at)
    }

    #[cold]
    fn mismatch(&self, got: &[u8], expected: &[u8], header_len: usize) -> Mismatch {
        let differs = got.iter().zip(expected).position(|(a, b)| a != b);
        let at = differs.expect("the slices were found to differ");
        let position = self.position + at;
        let kind = match position {
            0 => Kind::FirstByte(got[at]),
            1 if got[at] & 0x80 != 0 => Kind::Masked,
            _ if position < header_len => Kind::Length,
            _ => Kind::Payload(position - header_len),
        };
        Mismatch { sequence: self.sequence, kind }
    }
}

/// A reply that is not what was sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    sequence: Sequence,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    FirstByte(u8),
    Masked,
    Length,
    Payload(usize),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reply {}: ", self.sequence)?;
        match self.kind {
            Kind::FirstByte(0x88) => write!(f, "the server sent a Close"),
            Kind::FirstByte(byte) => {
                write!(f, "its first byte is {byte:#04x}, not {FIRST_BYTE:#04x} (FIN, binary)")
            }
            Kind::Masked => write!(f, "it is masked"),
            Kind::Length => write!(f, "its length is not what was sent"),
            Kind::Payload(at) => write!(f, "its payload differs from byte {at} on"),
        }
    }
}

impl std::error::Error for Mismatch {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a right server sends for `sequence`, built without [`Replies`].
    fn reply(frames: &Frames, sequence: Sequence) -> Vec<u8> {
        let mut sent = Vec::new();
        frames.append(sequence, &mut sent);
        let header_len = sent.len() - frames.size;
        let key = sent[header_len - 4..header_len].to_vec();
        let mut reply = sent[..header_len - 4].to_vec();
        reply[1] &= 0x7f;
        let payload = sent[header_len..].iter().zip(key.iter().cycle());
        reply.extend(payload.map(|(byte, key)| byte ^ key));
        reply
    }

    fn kind(frames: &Frames, bytes: &[u8]) -> Option<Kind> {
        let result = Replies::starting_at(7).check(frames, bytes);
        result.err().map(|mismatch| mismatch.kind)
    }

    #[test]
    fn right_replies_pass_however_they_are_cut() {
        for size in [1, 20, 125, 126, 65_535, 65_536] {
            let frames = Frames::new(size);
            let stream: Vec<u8> = (7..10).flat_map(|n| reply(&frames, n)).collect();
            for piece_len in [1, 2, 3, 127, 4_096, stream.len()] {
                let mut replies = Replies::starting_at(7);
                let pieces = stream.chunks(piece_len);
                let complete: u64 =
                    pieces.map(|piece| replies.check(&frames, piece).unwrap()).sum();
                assert_eq!(complete, 3, "{size} bytes in pieces of {piece_len}");
            }
        }
    }

    #[test]
    fn wrong_replies_do_not() {
        let frames = Frames::new(125);
        let right = reply(&frames, 7);

        assert_eq!(kind(&frames, &reply(&frames, 8)), Some(Kind::Payload(0)));

        let mut masked = right.clone();
        masked[1] |= 0x80;
        assert_eq!(kind(&frames, &masked), Some(Kind::Masked));

        let mut short = right[..right.len() - 1].to_vec();
        short[1] -= 1;
        assert_eq!(kind(&frames, &short), Some(Kind::Length));

        let mut last_byte = right.clone();
        *last_byte.last_mut().unwrap() ^= 1;
        assert_eq!(kind(&frames, &last_byte), Some(Kind::Payload(124)));

        for first_byte in [0x02, 0x81, 0x88, 0x89, 0xc2] {
            let mut other = right.clone();
            other[0] = first_byte;
            assert_eq!(kind(&frames, &other), Some(Kind::FirstByte(first_byte)));
        }
    }

    #[test]
    fn slices_are_the_frame_from_any_byte_on() {
        let frames = Frames::new(300);
        let mut whole = Vec::new();
        frames.append(5, &mut whole);
        assert_eq!(whole.len(), frames.sent_len());
        for skip in 0..whole.len() {
            let [header, payload] = frames.slices(5, skip);
            let sent = [&header[..], &payload[..]].concat();
            assert_eq!(sent, whole[skip..], "without {skip} bytes");
        }
    }

    #[test]
    fn fragments_are_a_message_once_their_headers_are_gone() {
        let frames = Frames::fragmented(1_200, 3);
        let mut sent = Vec::new();
        frames.append(5, &mut sent);
        assert_eq!(sent.len(), frames.sent_len());
        let mut payload = Vec::new();
        let mut first_bytes = Vec::new();
        for fragment in sent.chunks(sent.len() / 3) {
            first_bytes.push(fragment[0]);
            assert_eq!(fragment[1..8], [0x80 | 126, 1, 144, KEY[0], KEY[1], KEY[2], KEY[3]]);
            payload.extend(fragment[8..].iter().zip(KEY.iter().cycle()).map(|(a, b)| a ^ b));
        }
        assert_eq!(first_bytes, [0x02, 0x00, 0x80]);
        assert_eq!(payload, frames.payload(5));
    }

    #[test]
    fn payloads_do_not_repeat_soon() {
        let frames = Frames::new(20);
        let starts: std::collections::HashSet<usize> = (0..SLICES).map(slice_start).collect();
        assert_eq!(starts.len(), SLICES as usize);
        assert_ne!(frames.payload(0), frames.payload(1));
    }
}
