//! What a snapshot travels in: a mark, its format, a length and a checksum around the bytes.
//!
//! ```text
//! envelope: "STDF" | u32 format | u64 length | u64 checksum | body
//! ```
//!
//! The checksum (FNV-1a over words, 64 bits) finds what is cut, mixed up or overwritten; it keeps
//! nobody from forging: who may hand over state is decided by who holds the socket. The head is the
//! same in every format; which formats there are, and how to add one, is in [`format`](super::format).

use std::fmt;

use super::format::Format;
use super::snapshot::Reader;

const MARK: [u8; 4] = *b"STDF";

/// Bytes before the body.
pub const HEAD_BYTES: usize = 24;

/// Why bytes are not an envelope that can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeError {
    /// It does not begin as one.
    NotAnEnvelope,
    /// It is of a format that this build does not read.
    UnknownFormat(u32),
    /// Its body is shorter or longer than it says.
    WrongLength {
        /// What it says.
        declared: u64,
        /// What is there.
        present: u64,
    },
    /// Its body is not what was put in.
    WrongChecksum,
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnEnvelope => write!(f, "these bytes are no snapshot"),
            Self::UnknownFormat(format) => {
                let (oldest, newest) = Format::RANGE;
                write!(
                    f,
                    "the snapshot is of format {format}; this build reads {oldest} to {newest}"
                )
            }
            Self::WrongLength { declared, present } => {
                write!(f, "the snapshot has {present} bytes and should have {declared}")
            }
            Self::WrongChecksum => write!(f, "the snapshot is damaged"),
        }
    }
}

impl std::error::Error for EnvelopeError {}

/// What goes before a body of this format to make an envelope of it.
pub fn head(format: Format, body: &[u8]) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&MARK);
    head[4..8].copy_from_slice(&format.number().to_le_bytes());
    head[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
    head[16..].copy_from_slice(&checksum(body).to_le_bytes());
    head
}

/// A reader of an envelope's body, in its format.
///
/// # Errors
/// See [`EnvelopeError`].
pub fn open(sealed: &[u8]) -> Result<Reader<'_>, EnvelopeError> {
    let Some((head, body)) = sealed.split_at_checked(HEAD_BYTES) else {
        return Err(EnvelopeError::NotAnEnvelope);
    };
    if head[..4] != MARK {
        return Err(EnvelopeError::NotAnEnvelope);
    }
    let number = u32::from_le_bytes(head[4..8].try_into().expect("four bytes"));
    let format = Format::from_number(number).ok_or(EnvelopeError::UnknownFormat(number))?;
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let (declared, present) = (number(8), body.len() as u64);
    if declared != present {
        return Err(EnvelopeError::WrongLength { declared, present });
    }
    if number(16) != checksum(body) {
        return Err(EnvelopeError::WrongChecksum);
    }
    Ok(Reader::of(format, body))
}

/// FNV-1a over little-endian words of eight bytes, the last one filled up with zeroes: its length
/// is in the envelope.
fn checksum(body: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    let (words, rest) = body.as_chunks::<8>();
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for word in words {
        hash = step(hash, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    step(hash, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(body: &[u8]) -> Vec<u8> {
        [&head(Format::NEWEST, body)[..], body].concat()
    }

    fn error_of(sealed: &[u8]) -> EnvelopeError {
        open(sealed).expect_err("not to be opened")
    }

    #[test]
    fn what_is_sealed_is_opened() {
        for len in [0, 1, 7, 8, 9, 1_000] {
            let body: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            for format in Format::all() {
                let sealed = [&head(format, &body)[..], &body].concat();
                let mut reader = open(&sealed).unwrap();
                assert_eq!(reader.format(), format);
                assert!(body.iter().all(|byte| reader.u8() == Ok(*byte)));
                assert_eq!(reader.finish(), Ok(()));
            }
        }
    }

    #[test]
    fn every_change_of_a_byte_is_found() {
        let sealed = seal(b"some state of a connection");
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(open(&changed).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn cut_long_and_foreign_ones_say_what_is_wrong() {
        let sealed = seal(b"state");
        assert_eq!(error_of(&sealed[..10]), EnvelopeError::NotAnEnvelope);
        assert_eq!(
            error_of(&sealed[..sealed.len() - 1]),
            EnvelopeError::WrongLength { declared: 5, present: 4 }
        );
        let long = [&sealed[..], b"!"].concat();
        assert_eq!(error_of(&long), EnvelopeError::WrongLength { declared: 5, present: 6 });
        let (oldest, newest) = Format::RANGE;
        for unknown in [oldest - 1, newest + 1] {
            let mut other = sealed.clone();
            other[4..8].copy_from_slice(&unknown.to_le_bytes());
            let error = error_of(&other).to_string();
            assert!(error.ends_with(&format!("this build reads {oldest} to {newest}")), "{error}");
            assert!(error.contains(&format!("of format {unknown};")), "{error}");
        }
    }
}
