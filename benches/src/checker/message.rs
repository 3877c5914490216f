//! What a numbered message says: who sent it, its number, when, and bytes that follow from all
//! three. So a message is checked against nothing but itself and the place where it arrived.

use std::str::FromStr;

use anyhow::{Context, Result, ensure};

/// Stream, sequence and time, in hexadecimal digits: they fit text messages as well.
const HEAD_LEN: usize = 8 + 16 + 16;
/// Shortest payload: a head, and enough that follows from it to notice a head that was changed.
pub const SIZE_MIN: usize = HEAD_LEN + 8;
/// Longest payload: the server's default limit of a message.
pub const SIZE_MAX: usize = 1024 * 1024;

/// What a text message is filled with: characters of one to four bytes, so that a cut between two
/// bytes is often one within a character.
const CHARACTERS: [&str; 16] =
    ["a", "e", "n", "t", " ", "r", "i", "s", "o", "ß", "é", "д", "€", "—", "中", "😀"];
const CHARACTER_LEN_MAX: usize = 4;

/// One numbered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The connection that sends it.
    pub stream: u32,
    /// Its number on this connection, from 0.
    pub sequence: u64,
    /// When it was made, in nanoseconds of the checker's clock.
    pub made_ns: u64,
}

impl Message {
    /// Whether it is sent as text; every other one is.
    pub fn is_text(&self) -> bool {
        self.sequence % 2 == 1
    }

    /// Replaces `payload` with what it says, in `size` bytes (at least [`SIZE_MIN`]).
    pub fn write(&self, size: usize, payload: &mut Vec<u8>) {
        payload.clear();
        let Self { stream, sequence, made_ns } = self;
        payload.extend(format!("{stream:08x}{sequence:016x}{made_ns:016x}").as_bytes());
        let mut random = Random::new(u64::from(*stream) ^ sequence.rotate_left(32) ^ made_ns);
        if self.is_text() {
            while payload.len() + CHARACTER_LEN_MAX <= size {
                let character = CHARACTERS[random.below(CHARACTERS.len())];
                payload.extend(character.as_bytes());
            }
            payload.resize(size, b'.');
        } else {
            while payload.len() < size {
                payload.extend(random.bits().to_le_bytes());
            }
            payload.truncate(size);
        }
    }

    /// The message that `payload` is, to its last byte; `None` if it is none. `scratch` is
    /// overwritten.
    pub fn read(payload: &[u8], text: bool, size: Size, scratch: &mut Vec<u8>) -> Option<Self> {
        let head = str::from_utf8(payload.get(..HEAD_LEN)?).ok()?;
        let number = |from: usize, to: usize| u64::from_str_radix(&head[from..to], 16).ok();
        let message = Self {
            stream: u32::try_from(number(0, 8)?).ok()?,
            sequence: number(8, 24)?,
            made_ns: number(24, 40)?,
        };
        let expected_len = size.of(message.stream, message.sequence);
        if payload.len() != expected_len || message.is_text() != text {
            return None;
        }
        message.write(expected_len, scratch);
        (payload == scratch.as_slice()).then_some(message)
    }
}

/// How long messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// All have this many bytes of payload.
    Fixed(usize),
    /// From [`SIZE_MIN`] to 70,000 bytes, most of them short, in all three forms of a frame's
    /// length. A message's stream and number decide.
    Mixed,
}

impl Size {
    /// Length of the payload of a message.
    pub fn of(self, stream: u32, sequence: u64) -> usize {
        let (least, most) = match self {
            Self::Fixed(size) => return size,
            Self::Mixed => match Random::new(sequence ^ u64::from(stream) << 40).below(200) {
                0 => (65_536, 70_000),
                1..4 => (2_049, 65_535),
                4..40 => (126, 2_048),
                _ => (SIZE_MIN, 125),
            },
        };
        least + Random::new(sequence << 20 ^ u64::from(stream)).below(most - least + 1)
    }
}

impl FromStr for Size {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "mixed" {
            return Ok(Self::Mixed);
        }
        let size = text.parse().context("neither a number of bytes nor \"mixed\"")?;
        ensure!(
            (SIZE_MIN..=SIZE_MAX).contains(&size),
            "a message has {SIZE_MIN} to {SIZE_MAX} bytes"
        );
        Ok(Self::Fixed(size))
    }
}

/// Random-looking numbers that follow from a seed (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Those of `seed`.
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give similar numbers, and zero none but zeros (splitmix64).
        let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((self.bits() >> 32) % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [Size; 4] =
        [Size::Fixed(SIZE_MIN), Size::Fixed(100), Size::Fixed(70_001), Size::Mixed];

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let (mut payload, mut scratch) = (Vec::new(), Vec::new());
        for size in SIZES {
            for sequence in 0..100 {
                let message = Message { stream: 17, sequence, made_ns: 1 << 40 | sequence };
                message.write(size.of(17, sequence), &mut payload);
                let read = Message::read(&payload, message.is_text(), size, &mut scratch);
                assert_eq!(read, Some(message), "{size:?}");
                assert_eq!(Message::read(&payload, !message.is_text(), size, &mut scratch), None);
                assert!(!message.is_text() || str::from_utf8(&payload).is_ok());
            }
        }
    }

    #[test]
    fn no_byte_of_it_can_change_unnoticed() {
        let (mut payload, mut scratch) = (Vec::new(), Vec::new());
        let size = Size::Fixed(100);
        for sequence in [6, 7] {
            let message = Message { stream: 3, sequence, made_ns: 12_345 };
            message.write(100, &mut payload);
            for at in 0..payload.len() {
                for bit in 0..8 {
                    payload[at] ^= 1 << bit;
                    let read = Message::read(&payload, message.is_text(), size, &mut scratch);
                    payload[at] ^= 1 << bit;
                    assert_eq!(read, None, "bit {bit} of byte {at}");
                }
            }
            payload.pop();
            assert_eq!(Message::read(&payload, message.is_text(), size, &mut scratch), None);
        }
    }

    #[test]
    fn mixed_sizes_have_all_forms_of_a_length() {
        let sizes: Vec<usize> = (0..2_000).map(|sequence| Size::Mixed.of(5, sequence)).collect();
        for (least, most) in [(SIZE_MIN, 125), (126, 65_535), (65_536, 70_000)] {
            assert!(sizes.iter().any(|size| (least..=most).contains(size)), "{least} to {most}");
        }
        assert!(sizes.iter().all(|size| (SIZE_MIN..=70_000).contains(size)));
    }

    #[test]
    fn sizes_are_numbers_or_mixed() {
        assert_eq!("mixed".parse::<Size>().unwrap(), Size::Mixed);
        assert_eq!("48".parse::<Size>().unwrap(), Size::Fixed(48));
        for wrong in ["", "47", "1048577", "small"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
