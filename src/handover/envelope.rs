//! What is around the bytes of a snapshot: whether it is one, of which format, whole and as it was
//! written.
//!
//! ```text
//! 8 bytes magic | u16 format | u16 zero | u32 checksum | u64 length of the body | body
//! ```
//!
//! Numbers are little-endian. The checksum is CRC-32 (of zlib) over the format, the length and
//! the body: it is against bugs and torn writes; who could forge a body could forge it too.

use std::fmt;

use flate2::Crc;

use super::wire::Formats;

/// Bytes before the body.
pub const HEAD_BYTES: usize = 24;

/// The first bytes of every snapshot. The end of a line and a byte that is no text, as in PNG:
/// whatever treats it as text spoils it.
const MAGIC: [u8; 8] = *b"STEADY\n\xff";

/// Why bytes are not a snapshot that can be read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeError {
    /// They do not begin as one.
    NotASnapshot,
    /// It is of a format this build does not read.
    UnknownFormat {
        /// Its format.
        found: u16,
        /// Those that are read.
        read: Formats,
    },
    /// It is longer or shorter than it says.
    WrongLength {
        /// Bytes of the body it says it has.
        stated: u64,
        /// Bytes there are.
        found: u64,
    },
    /// It is not what was written.
    Corrupted,
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASnapshot => write!(f, "this is not a snapshot"),
            Self::UnknownFormat { found, read } => {
                write!(f, "the snapshot has format {found}, and this build reads {read}")
            }
            Self::WrongLength { stated, found } => {
                write!(f, "the snapshot has {found} bytes and says it has {stated}")
            }
            Self::Corrupted => write!(f, "the snapshot's checksum is wrong"),
        }
    }
}

impl std::error::Error for EnvelopeError {}

/// What is to be written before `body`.
pub fn seal(format: u16, body: &[u8]) -> [u8; HEAD_BYTES] {
    let length = body.len() as u64;
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..10].copy_from_slice(&format.to_le_bytes());
    head[12..16].copy_from_slice(&checksum(format, length, body).to_le_bytes());
    head[16..].copy_from_slice(&length.to_le_bytes());
    head
}

/// The format and the body of a snapshot.
///
/// # Errors
/// See [`EnvelopeError`].
pub fn open(snapshot: &[u8], read: Formats) -> Result<(u16, &[u8]), EnvelopeError> {
    let head = snapshot.first_chunk::<HEAD_BYTES>().ok_or(EnvelopeError::NotASnapshot)?;
    let body = &snapshot[HEAD_BYTES..];
    let number = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let (format, zero) = (number(8), number(10));
    if head[..8] != MAGIC {
        return Err(EnvelopeError::NotASnapshot);
    }
    // Before all the rest, which another format may have elsewhere.
    if !read.contains(format) {
        return Err(EnvelopeError::UnknownFormat { found: format, read });
    }
    let [.., a, b, c, d, e, f, g, h] = *head;
    let stated = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let found = body.len() as u64;
    if stated != found {
        return Err(EnvelopeError::WrongLength { stated, found });
    }
    let written = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
    if zero != 0 || written != checksum(format, stated, body) {
        return Err(EnvelopeError::Corrupted);
    }
    Ok((format, body))
}

fn checksum(format: u16, length: u64, body: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(&format.to_le_bytes());
    crc.update(&length.to_le_bytes());
    crc.update(body);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Formats = Formats { first: 2, last: 3 };

    fn sealed(format: u16, body: &[u8]) -> Vec<u8> {
        [&seal(format, body)[..], body].concat()
    }

    #[test]
    fn what_is_sealed_is_opened() {
        for body in [&b""[..], b"x", &[7; 100_000]] {
            for format in [2, 3] {
                assert_eq!(open(&sealed(format, body), READ), Ok((format, body)));
            }
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let expected = b"STEADY\n\xff\x01\0\0\0\x60\x77\x5e\xb5\x04\0\0\0\0\0\0\0body";
        assert_eq!(sealed(1, b"body"), expected);
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_seen() {
        let snapshot = sealed(2, b"the state of a connection");
        for at in 0..8 * snapshot.len() {
            let mut flipped = snapshot.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(open(&flipped, READ).is_err(), "bit {at}");
        }
        for length in 0..snapshot.len() {
            assert!(open(&snapshot[..length], READ).is_err(), "{length} bytes");
        }
        let longer = [&snapshot[..], b"x"].concat();
        assert_eq!(open(&longer, READ), Err(EnvelopeError::WrongLength { stated: 25, found: 26 }));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(open(b"", READ), Err(EnvelopeError::NotASnapshot));
        assert_eq!(open(&[0; 100], READ), Err(EnvelopeError::NotASnapshot));
        for format in [1, 4] {
            let error = open(&sealed(format, b"body"), READ).unwrap_err();
            assert_eq!(error, EnvelopeError::UnknownFormat { found: format, read: READ });
            let text = format!("the snapshot has format {format}, and this build reads 2 to 3");
            assert_eq!(error.to_string(), text);
        }
        let mut changed = sealed(2, b"body");
        *changed.last_mut().unwrap() = b'Y';
        assert_eq!(open(&changed, READ), Err(EnvelopeError::Corrupted));
    }
}
