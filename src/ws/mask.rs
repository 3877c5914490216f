//! Masking (RFC 6455 §5.3): an XOR with a four-byte key, the same both ways.

use std::fmt;

use crate::base::snapshot::{Reader, SnapshotError, Writer};

/// Bytes between a copy and the XOR: they stay in the first-level cache.
const CACHED_STEP: usize = 8 * 1024;

/// Bytes from which a piece is worth vector registers; a shorter one is done before they are set up.
const VECTOR_MIN: usize = 1024;

/// Bytes of one step of it: a cache line.
const VECTOR_BYTES: usize = 64;

/// The masking key of one frame and how far into the payload it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask {
    /// The key, rotated so that its first byte is the one for the next byte of payload.
    key: [u8; 4],
}

impl Mask {
    /// A key at the start of its frame's payload.
    pub const fn new(key: [u8; 4]) -> Self {
        Self { key }
    }

    /// Writes the key as it stands: it goes on where this one is.
    pub fn save(self, writer: &mut Writer) {
        let Self { key } = self;
        writer.raw(&key);
    }

    /// Reads what [`Mask::save`] wrote.
    ///
    /// # Errors
    /// As [`Reader`].
    pub fn load(reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Ok(Self { key: reader.array()? })
    }

    /// Masks or unmasks the next piece of the payload in place.
    pub fn apply(&mut self, piece: &mut [u8]) {
        if piece.len() < VECTOR_MIN {
            return self.apply_words(piece);
        }
        // Vectors that lie across cache lines take half as long again.
        let start = piece.as_ptr().align_offset(VECTOR_BYTES).min(VECTOR_BYTES);
        let (start, rest) = piece.split_at_mut(start);
        self.apply_words(start);
        let rest = apply_vectors(self.key, rest);
        self.apply_words(rest);
    }

    fn apply_words(&mut self, piece: &mut [u8]) {
        let piece_len = piece.len();
        let wide = u128::from_ne_bytes(std::array::from_fn(|i| self.key[i % 4]));
        let mut steps = piece.chunks_exact_mut(16);
        for step in &mut steps {
            let step: &mut [u8; 16] = step.try_into().expect("chunks of 16 bytes");
            *step = (u128::from_ne_bytes(*step) ^ wide).to_ne_bytes();
        }
        for (byte, key) in steps.into_remainder().iter_mut().zip(self.key.iter().cycle()) {
            *byte ^= key;
        }
        self.key.rotate_left(piece_len % 4);
    }

    /// Appends the next piece of the payload to `out`, masked or unmasked.
    pub fn apply_into(&mut self, out: &mut Vec<u8>, piece: &[u8]) {
        out.reserve(piece.len());
        for step in piece.chunks(CACHED_STEP) {
            let start = out.len();
            out.extend_from_slice(step);
            self.apply(&mut out[start..]);
        }
    }
}

/// Masks as much of a long piece as is a multiple of 64 bytes, and returns what is left of it. The
/// compiler makes vector instructions of this shape; of a loop over integers it does not.
#[inline(never)]
fn apply_vectors(key: [u8; 4], piece: &mut [u8]) -> &mut [u8] {
    let wide: [u8; VECTOR_BYTES] = std::array::from_fn(|i| key[i % 4]);
    let (steps, rest) = piece.as_chunks_mut::<VECTOR_BYTES>();
    for step in steps {
        for (byte, key) in step.iter_mut().zip(wide) {
            *byte ^= key;
        }
    }
    rest
}

/// Bytes of random keys that are fetched at once: as many as getrandom(2) gives without being
/// interrupted.
pub const MASK_BLOCK_BYTES: usize = 256;

/// Masking keys for the frames of a client: each comes from the system's random source, as RFC 6455
/// §10.3 asks, and not from another one. They are fetched in blocks of 64.
pub struct MaskKeys {
    block: Box<[u8; MASK_BLOCK_BYTES]>,
    used: usize,
    refill: fn(&mut [u8]),
}

impl MaskKeys {
    /// Keys from a first block of random bytes, and from those that `refill` fetches after it.
    pub fn new(block: [u8; MASK_BLOCK_BYTES], refill: fn(&mut [u8])) -> Self {
        Self { block: Box::new(block), used: 0, refill }
    }

    /// The key of the next frame.
    pub fn next_key(&mut self) -> [u8; 4] {
        if self.used == MASK_BLOCK_BYTES {
            (self.refill)(&mut *self.block);
            self.used = 0;
        }
        let key = std::array::from_fn(|i| self.block[self.used + i]);
        self.used += key.len();
        key
    }
}

/// The keys of frames to come must not be told.
impl fmt::Debug for MaskKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskKeys").field("used", &self.used).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_definition_however_it_is_split() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let plain: Vec<u8> = (0..VECTOR_MIN + 250).map(|i| (i * 31 % 251) as u8).collect();
        let naive: Vec<u8> = (0..plain.len()).map(|i| plain[i] ^ key[i % 4]).collect();
        for first in 0..=plain.len() {
            let mut bytes = plain.clone();
            let mut mask = Mask::new(key);
            let (head, tail) = bytes.split_at_mut(first);
            mask.apply(head);
            mask.apply(tail);
            assert_eq!(bytes, naive, "split at {first}");

            let mut copied = vec![];
            let mut mask = Mask::new(key);
            mask.apply_into(&mut copied, &plain[..first]);
            mask.apply_into(&mut copied, &plain[first..]);
            assert_eq!(copied, naive, "copied, split at {first}");

            let mut copied = vec![];
            let mut mask = Mask::new(key);
            mask.apply_into(&mut copied, &plain[..first]);
            let mut writer = Writer::new();
            mask.save(&mut writer);
            let mut mask = Mask::load(&mut Reader::new(writer.as_bytes())).unwrap();
            mask.apply_into(&mut copied, &plain[first..]);
            assert_eq!(copied, naive, "saved between, split at {first}");
        }
    }

    #[test]
    fn each_key_is_taken_once_from_a_block_and_then_from_the_next() {
        let first = std::array::from_fn(|i| i as u8);
        let mut keys = MaskKeys::new(first, |bytes| {
            bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = !(i as u8));
        });
        let taken: Vec<u8> = (0..128).flat_map(|_| keys.next_key()).collect();
        assert_eq!(taken[..MASK_BLOCK_BYTES], first);
        assert_eq!(taken[MASK_BLOCK_BYTES..], first.map(|byte| !byte));
        assert_eq!(format!("{keys:?}"), "MaskKeys { used: 256, .. }");
    }
}
