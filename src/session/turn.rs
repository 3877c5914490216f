//! What one turn of a worker's loop produces for its sockets.

use std::ops::Range;

use crate::base::meter::Meter;
use crate::base::spare::Spare;
use crate::ws::deflate::{Deflater, Strength};
use crate::ws::header::Header;
use crate::ws::mask::{Mask, MaskKeys};
use crate::ws::{Opcode, Role, encode};

/// Bytes of the turn beyond which the worker flushes before it goes on. Small enough to stay in
/// the second-level cache between being written and being sent.
pub const TURN_BYTES_FLUSH: usize = 64 * 1024;

/// Most bytes of the turn, but for the frame that reaches this size. A turn comes to so much only if
/// an app answers with far more than it was sent; what follows then has memory of its own, which
/// counts in the out queue of its connection. The bound keeps ranges within [`u32`].
pub(crate) const TURN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Payloads from this size on are not copied to the turn's buffer but queued as they are.
pub const LARGE_PAYLOAD_BYTES: usize = 32 * 1024;

// The last frame fits, too: a header is at most 14 bytes.
const _: () = assert!(TURN_BYTES_MAX + 2 * LARGE_PAYLOAD_BYTES < u32::MAX as usize);

/// Output of an earlier message is kept as a buffer for the next up to this size in bytes.
pub(crate) const DEFLATED_KEPT_MAX: usize = 1024 * 1024;

/// The frames of one turn, one behind the other, and the tools to make them: one a worker.
///
/// Connections hold ranges of it only between two flushes; what a socket does not take is copied
/// out (see [`OutQueue`](super::out_queue::OutQueue)), so that the buffer starts empty each time.
#[derive(Debug)]
pub struct Turn {
    bytes: Vec<u8>,
    deflater: Deflater,
    /// Output of the deflater for the message at hand.
    deflated: Vec<u8>,
    /// Large buffers between messages, incoming and outgoing.
    spare: Spare,
    /// Counts what connections share.
    meter: Meter,
    /// The keys of our frames in the client role.
    mask_keys: Option<MaskKeys>,
}

impl Turn {
    /// For a server's worker.
    pub fn server() -> Self {
        Self {
            bytes: Vec::new(),
            deflater: Deflater::default(),
            deflated: Vec::new(),
            spare: Spare::default(),
            meter: Meter::default(),
            mask_keys: None,
        }
    }

    /// For a client, with its masking keys.
    pub fn client(mask_keys: MaskKeys) -> Self {
        Self { mask_keys: Some(mask_keys), ..Self::server() }
    }

    /// The same, whose shared bytes count with `meter`.
    #[must_use]
    pub fn metered(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// Counts what connections share.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Our side of the connections.
    pub fn role(&self) -> Role {
        if self.mask_keys.is_some() { Role::Client } else { Role::Server }
    }

    /// Large buffers that are used again.
    pub fn spare(&mut self) -> &mut Spare {
        &mut self.spare
    }

    /// Whether memory is kept only for the sake of being used again.
    pub fn keeps_spare(&self) -> bool {
        self.spare.keeps_some() || self.deflated.capacity() > TURN_BYTES_FLUSH
    }

    /// Gives back what was of no use since this was last called.
    pub fn give_back_unused(&mut self) {
        self.spare.give_back_unused();
        self.deflated.clear();
        self.deflated.shrink_to(TURN_BYTES_FLUSH);
    }

    /// The bytes of a range handed out since the last [`clear`](Self::clear).
    pub fn slice(&self, range: Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// Whether so much has come together that it should be flushed first.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= TURN_BYTES_FLUSH
    }

    /// Every range has been sent or copied out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * TURN_BYTES_FLUSH);
    }

    /// Appends a whole frame. `None`, and nothing is appended, if the payload is
    /// [large](LARGE_PAYLOAD_BYTES) or the buffer is full: then the frame needs memory of its own.
    #[inline]
    pub fn append_frame(
        &mut self,
        opcode: Opcode,
        rsv1: bool,
        payload: &[u8],
    ) -> Option<Range<u32>> {
        let start = self.bytes.len();
        if payload.len() >= LARGE_PAYLOAD_BYTES || start >= TURN_BYTES_MAX {
            return None;
        }
        let header = self.header(opcode, rsv1, payload.len());
        encode::frame(&mut self.bytes, header, payload);
        // Both are within the bound asserted above.
        Some(start as u32..self.bytes.len() as u32)
    }

    /// Compresses a payload; `None` if it would not shrink. The result is to be
    /// [put back](Self::put_deflated).
    pub fn take_deflated(&mut self, strength: Strength, payload: &[u8]) -> Option<Vec<u8>> {
        if self.deflated.capacity() > DEFLATED_KEPT_MAX {
            self.deflated = Vec::new();
        }
        let shrunk = self.deflater.deflate(strength, payload, &mut self.deflated);
        shrunk.then(|| std::mem::take(&mut self.deflated))
    }

    /// Puts back what [`take_deflated`](Self::take_deflated) gave, to be used again.
    pub fn put_deflated(&mut self, deflated: Vec<u8>) {
        self.deflated = deflated;
    }

    /// The header of a whole frame, with a fresh masking key in the client role.
    pub fn header(&mut self, opcode: Opcode, rsv1: bool, len: usize) -> Header {
        let mask = self.mask_keys.as_mut().map(MaskKeys::next_key);
        Header { fin: true, rsv1, opcode, mask, len: len as u64 }
    }

    /// Masks a payload in place for a header made by [`header`](Self::header).
    pub fn mask_payload(header: &Header, payload: &mut [u8]) {
        if let Some(key) = header.mask {
            Mask::new(key).apply(payload);
        }
    }
}
