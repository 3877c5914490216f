//! UTF-8 as RFC 6455 §8.1 wants it: whole, or piece by piece with the earliest possible failure.

use super::ProtocolError;
use crate::base::snapshot::{Reader, SnapshotError, Writer};

/// Checks a whole text.
///
/// # Errors
/// [`ProtocolError::InvalidUtf8`].
pub fn check(bytes: &[u8]) -> Result<&str, ProtocolError> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| ProtocolError::InvalidUtf8)
}

/// Checks a text that arrives in pieces: plain state between them, at most the three bytes of a
/// character that is not whole yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utf8Stream {
    /// The first bytes of a character that can still become valid; `carry[..len]`.
    carry: [u8; 3],
    len: u8,
}

impl Utf8Stream {
    /// Checks the next piece. Each of its bytes is looked at once; at most three that were held back
    /// are looked at again, four at a time.
    ///
    /// # Errors
    /// [`ProtocolError::InvalidUtf8`] as soon as no continuation could make the text valid.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), ProtocolError> {
        while self.len > 0 {
            let Some((&next, rest)) = piece.split_first() else {
                return Ok(());
            };
            let have = usize::from(self.len);
            let mut character = [0; 4];
            character[..have].copy_from_slice(&self.carry[..have]);
            character[have] = next;
            piece = rest;
            match std::str::from_utf8(&character[..=have]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => {
                    return Err(ProtocolError::InvalidUtf8);
                }
                Err(_) => {
                    // Incomplete: four bytes never are, so `have` is at most 2 here.
                    self.carry[have] = next;
                    self.len += 1;
                }
            }
        }
        match simdutf8::compat::from_utf8(piece) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(ProtocolError::InvalidUtf8),
            Err(error) => {
                let tail = &piece[error.valid_up_to()..];
                self.carry[..tail.len()].copy_from_slice(tail);
                self.len = tail.len() as u8;
                Ok(())
            }
        }
    }

    /// The text ends here.
    ///
    /// # Errors
    /// [`ProtocolError::InvalidUtf8`] in the middle of a character.
    pub fn finish(self) -> Result<(), ProtocolError> {
        if self.len == 0 { Ok(()) } else { Err(ProtocolError::InvalidUtf8) }
    }

    /// The bytes of a character that is not whole yet.
    pub fn carry(&self) -> &[u8] {
        &self.carry[..usize::from(self.len)]
    }

    /// Writes the bytes held back.
    pub fn save(&self, writer: &mut Writer) {
        let Self { carry: _, len: _ } = self;
        writer.bytes(self.carry());
    }

    /// Reads what [`Utf8Stream::save`] wrote.
    ///
    /// # Errors
    /// As [`Reader`]; bytes that do not begin a character, or are a whole one.
    pub fn load(reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let carry = reader.bytes()?;
        let mut loaded = Self::default();
        match loaded.push(carry) {
            Ok(()) if loaded.carry() == carry => Ok(loaded),
            _ => Err(SnapshotError::Invalid("part of a character")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The naive twin: the whole text at once, by the standard library.
    fn earliest_failure(bytes: &[u8]) -> Option<usize> {
        (1..=bytes.len()).find(
            |&end| matches!(std::str::from_utf8(&bytes[..end]), Err(e) if e.error_len().is_some()),
        )
    }

    fn moved(stream: Utf8Stream) -> Utf8Stream {
        let mut writer = Writer::new();
        stream.save(&mut writer);
        let mut reader = Reader::new(writer.as_bytes());
        let loaded = Utf8Stream::load(&mut reader).unwrap();
        assert_eq!((reader.remaining(), loaded.carry()), (0, stream.carry()));
        loaded
    }

    #[test]
    fn only_the_beginning_of_a_character_is_loaded() {
        for carry in
            [&b"a"[..], b"\xff", b"\xc3\xa9", b"\xf0\x9f\xa6\x80", b"a\xc3", b"\xe2\x82\xac\xc3"]
        {
            let mut writer = Writer::new();
            writer.bytes(carry);
            let loaded = Utf8Stream::load(&mut Reader::new(writer.as_bytes()));
            assert_eq!(loaded, Err(SnapshotError::Invalid("part of a character")), "{carry:?}");
        }
    }

    #[test]
    fn fails_at_the_earliest_byte_however_it_is_split() {
        let texts: [&[u8]; 9] = [
            b"plain ascii, longer than a register so that the fast path is met: 0123456789",
            "κόσμε — größer 日本語 🦀".as_bytes(),
            b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
            b"\xf4\x90\x80\x80",
            b"abc\xc0\xaf",
            b"\xe0\x80\x80",
            b"ok\xff",
            b"\xf0\x9f\xa6",
            b"\x80",
        ];
        for text in texts {
            let expected = earliest_failure(text);
            for size in 1..=text.len() {
                let mut stream = Utf8Stream::default();
                let mut seen = 0;
                let mut failed = None;
                for piece in text.chunks(size) {
                    seen += piece.len();
                    stream = moved(stream);
                    if stream.push(piece).is_err() {
                        failed = Some(seen);
                        break;
                    }
                }
                let piece_of_failure = expected.map(|at| at.div_ceil(size) * size);
                assert_eq!(
                    failed,
                    piece_of_failure.map(|end| end.min(text.len())),
                    "{text:?} in pieces of {size}"
                );
                if failed.is_none() {
                    assert_eq!(stream.finish().is_ok(), std::str::from_utf8(text).is_ok());
                }
            }
        }
    }
}
