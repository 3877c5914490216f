//! permessage-deflate (RFC 7692) without state between messages.
//!
//! zlib's state cannot be saved, so it must not outlive a message: both sides agree on
//! `no_context_takeover`, and one inflater and one deflater a window size serve all connections of
//! a worker.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::ProtocolError;

/// What a sender removes from the end of a message and a receiver puts back (RFC 7692 §7.2.1).
const SYNC_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The tail, and a final empty block. Data that ended where its message did reads it as just
/// that; data that was cut off does not.
const TAIL_AND_END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];

/// Most final blocks in one message. A sender has no need of more than one a fragment; each costs
/// us a reset for two bytes of theirs.
pub(crate) const FINAL_BLOCKS_MAX: u32 = 1_024;

/// Output of an earlier message is kept as a buffer for the next up to this size in bytes.
pub(crate) const BUFFER_KEPT_MAX: usize = 1024 * 1024;

/// What a byte of input costs, in bytes of output: a block of 11 bytes can hold nothing but tables
/// of codes, which zlib takes 2 µs to build, and one of 2 bytes can end the stream, which has to be
/// reset in 0.2 µs. Most input costs much less than this, and its output counts besides.
const INPUT_WORK: usize = 16;

/// Inflates messages, one at a time, into a buffer of its own. Takes every window size.
///
/// Work per received byte is bounded: deflate gives at most 1,032 bytes for one, a message's output
/// is moved at most twice on average while it grows, and final blocks are counted.
#[derive(Debug, Default)]
pub struct Inflater {
    raw: Option<Decompress>,
    out: Vec<u8>,
    work: usize,
}

impl Inflater {
    /// Inflates the payload of a compressed message; never holds more than `max` bytes and a
    /// block of output.
    ///
    /// # Errors
    /// [`ProtocolError::MessageTooBig`] as soon as the output exceeds `max` bytes,
    /// [`ProtocolError::InvalidDeflate`] for anything that is not a whole deflate stream.
    pub fn inflate(&mut self, payload: &[u8], max: usize) -> Result<&[u8], ProtocolError> {
        if self.out.capacity() > BUFFER_KEPT_MAX {
            self.out = Vec::new();
        }
        self.out.clear();
        let outcome = self.inflate_to_out(payload, max);
        self.work += payload.len() * INPUT_WORK + self.out.len();
        outcome.map(|()| &*self.out)
    }

    /// What has been done since this was last asked for: a unit is about a byte of output.
    pub fn take_work(&mut self) -> usize {
        std::mem::take(&mut self.work)
    }

    fn inflate_to_out(&mut self, payload: &[u8], max: usize) -> Result<(), ProtocolError> {
        // An empty message is one zero byte (RFC 7692 §7.2.3.6); some send none, and mean the same.
        if payload.is_empty() {
            return Ok(());
        }
        let raw = self.raw.get_or_insert_with(|| Decompress::new(false));
        raw.reset(false);
        // A final block may end the stream before the message (RFC 7692 §7.2.3.4): a new one
        // begins behind it. If it ends exactly with the message, no tail belongs to it.
        if Self::feed(raw, &mut self.out, payload, max)? == Status::StreamEnd {
            return Ok(());
        }
        // Nothing is to come out of the tail: what does was cut off in the middle of a block.
        let whole = self.out.len();
        match Self::feed(raw, &mut self.out, &TAIL_AND_END, whole) {
            Ok(Status::StreamEnd) => Ok(()),
            Ok(Status::Ok | Status::BufError) | Err(_) => Err(ProtocolError::InvalidDeflate),
        }
    }

    /// Feeds all of `input`; the status is the one at its end.
    fn feed(
        raw: &mut Decompress,
        out: &mut Vec<u8>,
        mut input: &[u8],
        max: usize,
    ) -> Result<Status, ProtocolError> {
        const STEP: usize = 16 * 1024;
        let mut final_blocks = 0;
        loop {
            if out.capacity() - out.len() < STEP / 2 {
                out.reserve(STEP.max(out.len()).min(max.saturating_sub(out.len()) + STEP));
            }
            let (read, written) = (raw.total_in(), out.len());
            let status = raw
                .decompress_vec(input, out, FlushDecompress::None)
                .map_err(|_| ProtocolError::InvalidDeflate)?;
            if out.len() > max {
                return Err(ProtocolError::MessageTooBig);
            }
            input = &input[(raw.total_in() - read) as usize..];
            if status == Status::StreamEnd {
                if input.is_empty() {
                    return Ok(status);
                }
                final_blocks += 1;
                if final_blocks > FINAL_BLOCKS_MAX {
                    return Err(ProtocolError::InvalidDeflate);
                }
                raw.reset(false);
            } else if input.is_empty() && out.len() < out.capacity() {
                // All read, and room left over: nothing more is to come out of it.
                return Ok(Status::Ok);
            } else if status == Status::BufError && out.len() == written {
                return Err(ProtocolError::InvalidDeflate);
            }
        }
    }
}

/// Deflates messages, one at a time.
#[derive(Debug, Default)]
pub struct Deflater {
    /// By level and window; made when first used (a window of 15 bits takes some 300 KiB).
    made: Vec<(Strength, Compress)>,
}

/// How hard to compress, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strength {
    /// zlib's level, 1 (fast) to 9 (small).
    pub level: u8,
    /// What the receiver has agreed to: a window of 2 to the power of 9 to 15 bytes.
    pub window_bits: u8,
}

impl Deflater {
    /// Replaces the content of `out` by the payload of a compressed message (RFC 7692 §7.2.1).
    /// False if that would not be smaller than `payload`: then it is to be sent as it is.
    pub fn deflate(&mut self, strength: Strength, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let mut raw = self.take(strength);
        raw.reset();
        out.clear();
        // Room for the worst case, fixed Huffman codes of 9 bits a byte: a stream must be finished
        // even if it does not shrink, because zlib-rs's `reset` does not clear what is pending.
        out.reserve(payload.len() + payload.len() / 8 + 64);
        let mut input = payload;
        loop {
            let read = raw.total_in();
            if raw.compress_vec(input, out, FlushCompress::Sync).is_err() {
                return false;
            }
            input = &input[(raw.total_in() - read) as usize..];
            if input.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(64);
        }
        self.made.push((strength, raw));
        let len = out.len().saturating_sub(SYNC_TAIL.len());
        out.truncate(len);
        len < payload.len()
    }

    /// Takes the compressor out, so that one that failed half-way is not used again.
    fn take(&mut self, strength: Strength) -> Compress {
        match self.made.iter().position(|(made, _)| *made == strength) {
            Some(index) => self.made.swap_remove(index).1,
            None => {
                let level = Compression::new(u32::from(strength.level.clamp(1, 9)));
                let window_bits = strength.window_bits.clamp(9, 15);
                Compress::new_with_window_bits(level, false, window_bits)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    const FAST: Strength = Strength { level: 1, window_bits: 15 };

    fn inflate(payload: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        Inflater::default().inflate(payload, MAX).map(<[u8]>::to_vec)
    }

    /// Bytes without pattern, by a fixed linear congruential generator.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn the_examples_of_rfc_7692_section_7_2_3() {
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&hello).as_deref(), Ok(&b"Hello"[..]));
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        assert_eq!(inflate(&stored).as_deref(), Ok(&b"Hello"[..]));
        let final_block = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(inflate(&final_block).as_deref(), Ok(&b"Hello"[..]));
        let two_blocks =
            [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&two_blocks).as_deref(), Ok(&b"Hello"[..]));
        assert_eq!(
            inflate(&final_block[..7]).as_deref(),
            Ok(&b"Hello"[..]),
            "ends with its final block"
        );
        assert_eq!(inflate(&[0x00]).as_deref(), Ok(&b""[..]), "an empty message, §7.2.3.6");
    }

    #[test]
    fn every_window_is_read_back() {
        let text = "all work and no play makes a dull server; ".repeat(2_000);
        let mut deflater = Deflater::default();
        let mut inflater = Inflater::default();
        let mut out = vec![];
        for window_bits in 9..=15 {
            for _ in 0..2 {
                assert!(deflater.deflate(
                    Strength { level: 6, window_bits },
                    text.as_bytes(),
                    &mut out
                ));
                assert!(out.len() < text.len() / 10);
                assert_eq!(inflater.inflate(&out, MAX), Ok(text.as_bytes()), "{window_bits}");
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_sent_as_it_is() {
        let mut out = vec![];
        assert!(!Deflater::default().deflate(FAST, &noise(10_000), &mut out));
        assert!(!Deflater::default().deflate(FAST, b"", &mut out));
    }

    #[test]
    fn noise_leaves_nothing_behind_for_the_next_message() {
        let text = "all work and no play makes a dull server; ".repeat(50);
        for level in 1..=9 {
            let mut deflater = Deflater::default();
            let strength = Strength { level, window_bits: 15 };
            let mut out = vec![];
            for round in 0..12 {
                let noise = noise(16_945 + round * 17);
                deflater.deflate(strength, &noise, &mut out);
                assert_eq!(inflate(&out).as_deref(), Ok(&noise[..]), "level {level}, {round}");
                assert!(deflater.deflate(strength, text.as_bytes(), &mut out));
                assert_eq!(inflate(&out).as_deref(), Ok(text.as_bytes()), "level {level}, {round}");
            }
        }
    }

    #[test]
    fn output_is_capped_while_inflating() {
        let mut bomb = vec![];
        assert!(Deflater::default().deflate(FAST, &vec![0; 64 << 20], &mut bomb));
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&bomb, MAX), Err(ProtocolError::MessageTooBig));
        assert!(inflater.out.capacity() < 3 * MAX, "{}", inflater.out.capacity());

        let mut exact = vec![];
        assert!(Deflater::default().deflate(FAST, &vec![0; MAX], &mut exact));
        assert_eq!(inflater.inflate(&exact, MAX).map(<[u8]>::len), Ok(MAX));
        assert_eq!(inflater.inflate(&exact, MAX - 1), Err(ProtocolError::MessageTooBig));
    }

    #[test]
    fn final_blocks_are_counted() {
        let empty_final_block = [0x03, 0x00];
        assert_eq!(inflate(&empty_final_block.repeat(1_000)).as_deref(), Ok(&b""[..]));
        let too_many = empty_final_block.repeat(2_000);
        assert_eq!(inflate(&too_many), Err(ProtocolError::InvalidDeflate));
    }

    #[test]
    fn work_is_counted_even_if_nothing_comes_of_it() {
        let mut inflater = Inflater::default();
        let mut deflated = vec![];
        assert!(Deflater::default().deflate(FAST, &[7; 10_000], &mut deflated));
        assert_eq!(inflater.inflate(&deflated, MAX).map(<[u8]>::len), Ok(10_000));
        assert_eq!(inflater.take_work(), 10_000 + INPUT_WORK * deflated.len());
        assert!(inflater.inflate(&deflated, 100).is_err());
        assert!(inflater.take_work() > INPUT_WORK * deflated.len());
        assert_eq!(inflater.inflate(&[0x03, 0x00].repeat(1_000), MAX), Ok(&b""[..]));
        assert_eq!((inflater.take_work(), inflater.take_work()), (INPUT_WORK * 2_000, 0));
    }

    #[test]
    fn garbage_and_truncation_are_refused() {
        assert_eq!(inflate(&[0xff; 20]), Err(ProtocolError::InvalidDeflate));
        // Stored, 255 bytes announced, 3 there: the tail is taken for some of the others.
        let cut = [0, 255, 0, 0, 255, 61, 255, 128];
        assert_eq!(Inflater::default().inflate(&cut, 10), Err(ProtocolError::InvalidDeflate));
        let mut whole = vec![];
        assert!(Deflater::default().deflate(
            FAST,
            &[noise(500), vec![1; 5_000]].concat(),
            &mut whole
        ));
        for end in 1..whole.len() {
            assert_eq!(inflate(&whole[..end]), Err(ProtocolError::InvalidDeflate), "cut at {end}");
        }
    }
}
