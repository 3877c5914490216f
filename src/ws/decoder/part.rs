//! What a decoder has of a header, or of a control frame, that has not wholly arrived.

use super::super::ProtocolError;
use super::super::header::{CONTROL_PAYLOAD_BYTES_MAX, HEADER_BYTES_MAX, Header, Opcode, Parsing};
use super::super::mask::Mask;
use super::{Input, Rules};
use crate::base::snapshot::{Reader, SnapshotError, Writer};
use crate::base::tick::Tick;

/// Part of a header.
#[derive(Debug)]
pub(super) struct PartialHeader {
    /// `bytes[..have]` have arrived, at least one.
    pub(super) bytes: [u8; HEADER_BYTES_MAX],
    pub(super) have: u8,
    /// See [`Unfinished::begun`].
    pub(super) begun: Tick,
}

/// Part of a control frame's payload.
#[derive(Debug)]
pub(super) struct PartialControl {
    pub(super) opcode: Opcode,
    pub(super) len: u8,
    pub(super) mask: Option<Mask>,
    /// Less than `len` bytes of the unmasked payload.
    pub(super) payload: Vec<u8>,
    /// See [`Unfinished::begun`].
    pub(super) begun: Tick,
}

impl PartialHeader {
    /// Goes on with the input; `None` after all of it is consumed.
    pub(super) fn complete(
        &mut self,
        input: &mut Input<'_>,
        rules: &Rules,
    ) -> Result<Option<Header>, ProtocolError> {
        let before = usize::from(self.have);
        let added = input.rest().len().min(HEADER_BYTES_MAX - before);
        self.bytes[before..before + added].copy_from_slice(&input.rest()[..added]);
        match Header::decode(&self.bytes[..before + added], rules.role, rules.deflate)? {
            Parsing::Done(header, len) => {
                input.take(len - before);
                Ok(Some(header))
            }
            Parsing::NeedMore(_) => {
                input.take(added);
                self.have += added as u8;
                Ok(None)
            }
        }
    }
}

impl PartialControl {
    pub(super) fn save(&self, now: Tick, writer: &mut Writer) {
        let Self { opcode, len, mask, payload, begun } = self;
        writer.u8(*opcode as u8);
        writer.u8(*len);
        writer.option(*mask, |writer, mask| mask.save(writer));
        writer.bytes(payload);
        writer.past(*begun, now);
    }

    pub(super) fn load(now: Tick, reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let opcode = Opcode::from_bits(reader.u8()?).filter(|opcode| opcode.is_control());
        let opcode = opcode.ok_or(SnapshotError::Invalid("opcode"))?;
        let len = reader.u8()?;
        let mask = reader.option(Mask::load)?;
        let payload = reader.bytes()?;
        if usize::from(len) > CONTROL_PAYLOAD_BYTES_MAX || payload.len() >= usize::from(len) {
            return Err(SnapshotError::Invalid("length of a control frame"));
        }
        Ok(Self { opcode, len, mask, payload: payload.to_vec(), begun: reader.past(now)? })
    }
}
