//! What a snapshot travels in: a mark, a version, a length and a checksum around the bytes.
//!
//! ```text
//! envelope: "STDF" | u32 format | u64 length | u64 checksum | body
//! ```
//!
//! The checksum (FNV-1a over words, 64 bits) finds what is cut, mixed up or overwritten; it keeps
//! nobody from forging: who may hand over state is decided by who holds the socket.

use std::fmt;

const MARK: [u8; 4] = *b"STDF";

/// The version of the format that this build writes.
pub const FORMAT: u32 = 1;

/// The oldest version that this build reads.
pub const FORMAT_MIN: u32 = 1;

/// Bytes before the body.
const HEAD_BYTES: usize = 24;

/// Why bytes are not an envelope that can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeError {
    /// It does not begin as one.
    NotAnEnvelope,
    /// It is of a version that this build does not read.
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
            Self::UnknownFormat(format) => write!(
                f,
                "the snapshot is of format {format}; this build reads {FORMAT_MIN} to {FORMAT}"
            ),
            Self::WrongLength { declared, present } => {
                write!(f, "the snapshot has {present} bytes and should have {declared}")
            }
            Self::WrongChecksum => write!(f, "the snapshot is damaged"),
        }
    }
}

impl std::error::Error for EnvelopeError {}

/// Puts a body into an envelope.
pub fn seal(body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(HEAD_BYTES + body.len());
    sealed.extend(MARK);
    sealed.extend(FORMAT.to_le_bytes());
    sealed.extend((body.len() as u64).to_le_bytes());
    sealed.extend(checksum(body).to_le_bytes());
    sealed.extend(body);
    sealed
}

/// The body of an envelope.
///
/// # Errors
/// See [`EnvelopeError`].
pub fn open(sealed: &[u8]) -> Result<&[u8], EnvelopeError> {
    let Some((head, body)) = sealed.split_at_checked(HEAD_BYTES) else {
        return Err(EnvelopeError::NotAnEnvelope);
    };
    if head[..4] != MARK {
        return Err(EnvelopeError::NotAnEnvelope);
    }
    let format = u32::from_le_bytes(head[4..8].try_into().expect("four bytes"));
    if !(FORMAT_MIN..=FORMAT).contains(&format) {
        return Err(EnvelopeError::UnknownFormat(format));
    }
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let (declared, present) = (number(8), body.len() as u64);
    if declared != present {
        return Err(EnvelopeError::WrongLength { declared, present });
    }
    if number(16) != checksum(body) {
        return Err(EnvelopeError::WrongChecksum);
    }
    Ok(body)
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

    #[test]
    fn what_is_sealed_is_opened() {
        for len in [0, 1, 7, 8, 9, 1_000] {
            let body: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            assert_eq!(open(&seal(&body)), Ok(&body[..]));
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
        assert_eq!(open(&sealed[..10]), Err(EnvelopeError::NotAnEnvelope));
        assert_eq!(
            open(&sealed[..sealed.len() - 1]),
            Err(EnvelopeError::WrongLength { declared: 5, present: 4 })
        );
        let long = [&sealed[..], b"!"].concat();
        assert_eq!(open(&long), Err(EnvelopeError::WrongLength { declared: 5, present: 6 }));
        let mut newer = sealed;
        newer[4] = FORMAT as u8 + 1;
        let error = open(&newer).unwrap_err();
        assert_eq!(error.to_string(), "the snapshot is of format 2; this build reads 1 to 1");
    }
}
