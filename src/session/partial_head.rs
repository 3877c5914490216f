//! What comes before the frames: a PROXY header if one is expected, then a request or response
//! head; collected until it is whole.

use crate::base::limits::HeadLimits;
use crate::base::snapshot::{Reader, SnapshotError, Writer};
use crate::http::proxy::{self, PROXY_BYTES_MAX};
use crate::http::{HeadError, ProxyParsing, check_partial, find_head_end};
use crate::ws::Input;

use super::Event;

/// What has arrived of the head.
#[derive(Debug, Default)]
pub(super) struct PartialHead {
    pub(super) expected: Expected,
    /// Of what is expected; empty again between PROXY header and request.
    bytes: Vec<u8>,
    /// Bytes that hold no end of the head.
    searched: usize,
}

/// What the next bytes have to be.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// A PROXY header, and a request behind it.
    ProxyHeader,
    /// A request.
    #[default]
    Request,
    /// A response: we are the client.
    Response,
}

impl PartialHead {
    /// Bytes of memory that it takes, and how many bytes have arrived.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.bytes.capacity(), self.bytes.len())
    }

    /// Takes what it needs from the input: all of it, unless an event says that a part is whole.
    ///
    /// Work per received byte is bounded, and so are the bytes: of a head only what is new is
    /// searched, and a few dozen bytes of its beginning are looked at each time (see
    /// [`check_partial`]); a PROXY header makes at most 107 bytes be looked at again (see
    /// [`proxy::parse`]). A head is parsed once, when it is whole.
    pub(super) fn receive(
        &mut self,
        input: &mut Input<'_>,
        limits: &HeadLimits,
    ) -> Option<Event<'static>> {
        let bytes_max = match self.expected {
            Expected::ProxyHeader => PROXY_BYTES_MAX,
            Expected::Request | Expected::Response => limits.head_bytes_max,
        };
        let before = self.bytes.len();
        let rest = input.rest();
        self.bytes.extend_from_slice(&rest[..rest.len().min(bytes_max.saturating_sub(before))]);
        let event = match self.expected {
            Expected::ProxyHeader => self.end_proxy_header(),
            Expected::Request | Expected::Response => self.end_head(limits),
        };
        match event {
            Some((event, end)) => {
                input.skip(end - before);
                Some(event)
            }
            None => {
                input.discard();
                None
            }
        }
    }

    /// The event of a PROXY header that is whole or wrong, and where it ends.
    fn end_proxy_header(&mut self) -> Option<(Event<'static>, usize)> {
        match proxy::parse(&self.bytes) {
            Ok(ProxyParsing::NeedMore) => None,
            Ok(ProxyParsing::Done { source, len }) => {
                *self = Self::default();
                Some((Event::Proxied(source), len))
            }
            Err(error) => Some((Event::BadProxy(error), self.bytes.len())),
        }
    }

    /// The event of a head that is whole or wrong, and where it ends.
    fn end_head(&mut self, limits: &HeadLimits) -> Option<(Event<'static>, usize)> {
        let end = find_head_end(&self.bytes, self.searched);
        // A head that is whole passes the same checks as one that lacks its last byte, so that the
        // answer does not depend on how its bytes were cut.
        let part = &self.bytes[..end.map_or(self.bytes.len(), |end| end - 1)];
        let checked = match self.expected {
            Expected::Response if part.len() >= limits.head_bytes_max => {
                Err(HeadError::HeadTooLarge)
            }
            Expected::Response => Ok(()),
            _ => check_partial(part, self.searched, limits),
        };
        self.searched = part.len();
        if let Err(error) = checked {
            return Some((Event::BadHead(error), self.bytes.len()));
        }
        let end = end?;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.truncate(end);
        Some((Event::Head(bytes), end))
    }

    /// Writes what has arrived.
    pub(super) fn save(&self, writer: &mut Writer) {
        // How far it was searched is not written: who goes on has limits of its own to check.
        let Self { expected, bytes, searched: _ } = self;
        writer.u8(match expected {
            Expected::ProxyHeader => 0,
            Expected::Request => 1,
            Expected::Response => 2,
        });
        writer.bytes(bytes);
    }

    /// Reads what [`PartialHead::save`] wrote.
    pub(super) fn load(reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let expected = match reader.u8()? {
            0 => Expected::ProxyHeader,
            1 => Expected::Request,
            2 => Expected::Response,
            _ => return Err(SnapshotError::Invalid("kind of a head")),
        };
        let bytes = reader.bytes()?;
        // Whatever is whole has been taken out, so that its end lies in what is yet to come.
        let is_part = match expected {
            Expected::ProxyHeader => matches!(proxy::parse(bytes), Ok(ProxyParsing::NeedMore)),
            Expected::Request | Expected::Response => find_head_end(bytes, 0).is_none(),
        };
        if !is_part {
            return Err(SnapshotError::Invalid("part of a head"));
        }
        Ok(Self { expected, bytes: bytes.to_vec(), searched: 0 })
    }

    /// Whether nothing has arrived of what HTTP could answer.
    pub(super) fn is_silent(&self) -> bool {
        self.expected == Expected::ProxyHeader || self.bytes.is_empty()
    }
}
