//! One message on its way to many receivers: encoded once, shared by all of them.

use std::ops::Range;

use super::Compression;
use super::out_queue::{Body, OutQueue};
use super::turn::Turn;
use crate::base::shared::SharedBytes;
use crate::ws::header::Header;
use crate::ws::{Opcode, encode};

/// A receiver whose queue has no room for a message: it is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowConsumer;

/// A message as whole frames: for receivers without compression, and for those with.
#[derive(Debug)]
pub struct Delivery {
    plain: Encoded,
    /// With the smallest window among the receivers; whoever has a larger one can read it too.
    deflated: Option<Encoded>,
}

#[derive(Debug)]
enum Encoded {
    /// In the turn's buffer, which takes it if it is small.
    InTurn(Range<u32>),
    /// Large: on its own, and shared even by receivers that keep it waiting.
    Shared(SharedBytes),
}

impl Encoded {
    fn new(turn: &mut Turn, opcode: Opcode, rsv1: bool, payload: &[u8]) -> Self {
        if let Some(range) = turn.append_frame(opcode, rsv1, payload) {
            return Self::InTurn(range);
        }
        let mut frame = Vec::new();
        encode::frame(&mut frame, Header { fin: true, rsv1, opcode, mask: None, len: 0 }, payload);
        Self::Shared(SharedBytes::new(frame, turn.meter()))
    }

    fn len(&self) -> usize {
        match self {
            Self::InTurn(range) => range.len(),
            Self::Shared(frame) => frame.len(),
        }
    }
}

impl Delivery {
    /// Encodes a message of a server. `window_bits` is the smallest agreed window among the
    /// receivers that have the extension, if any has.
    pub fn new(
        turn: &mut Turn,
        opcode: Opcode,
        payload: &[u8],
        compression: &Compression,
        window_bits: Option<u8>,
    ) -> Self {
        let plain = Encoded::new(turn, opcode, false, payload);
        let strength = window_bits.and_then(|bits| compression.strength(payload.len(), bits));
        let deflated = strength.and_then(|strength| {
            let deflated = turn.take_deflated(strength, payload)?;
            let encoded = Encoded::new(turn, opcode, true, &deflated);
            turn.put_deflated(deflated);
            Some(encoded)
        });
        Self { plain, deflated }
    }

    /// Most bytes a receiver has to queue.
    pub(super) fn len(&self) -> usize {
        self.plain.len()
    }

    /// Queues the form that the receiver reads.
    #[inline]
    pub(super) fn queue(&self, out: &mut OutQueue, has_deflate: bool, turn: &Turn) {
        let encoded = match &self.deflated {
            Some(deflated) if has_deflate => deflated,
            _ => &self.plain,
        };
        match encoded {
            Encoded::InTurn(range) => out.push(turn, range.clone()),
            Encoded::Shared(frame) => out.push_large(turn, None, Body::Shared(frame.clone())),
        }
    }
}
