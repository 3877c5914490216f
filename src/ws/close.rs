//! Close codes and the body of a Close frame (RFC 6455 §5.5.1, §7.4).

use super::{ProtocolError, utf8};
use crate::base::snapshot::{Reader, SnapshotError, Writer};

/// Longest reason of a Close frame in bytes: a control frame's 125 less the code.
pub const REASON_BYTES_MAX: usize = 123;

/// A status code of a Close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The endpoint goes away: shutting down, or idle for too long.
    pub const GOING_AWAY: Self = Self(1001);
    /// Protocol error.
    pub const PROTOCOL: Self = Self(1002);
    /// A type of data the app does not accept.
    pub const UNSUPPORTED: Self = Self(1003);
    /// Data that is not what its type says, such as text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// Policy: rates, fragments, slow consumers.
    pub const POLICY: Self = Self(1008);
    /// Message too big.
    pub const TOO_BIG: Self = Self(1009);
    /// The server failed.
    pub const INTERNAL: Self = Self(1011);
    /// Service restart: come back (used by a drain).
    pub const RESTART: Self = Self(1012);

    /// Whether the code may be on the wire. 1004, 1005, 1006 and 1015 are reserved, below 1000 and
    /// 1016 to 2999 unassigned, 5000 and above undefined (RFC 6455 §7.4.2 and the IANA registry).
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// The body of a Close frame that has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    /// Why the connection is closed.
    pub code: CloseCode,
    /// A reason for people; at most [`REASON_BYTES_MAX`] bytes, often empty.
    pub reason: String,
}

impl CloseFrame {
    /// A frame with its reason cut to what fits, at a character's boundary. A code that must not be
    /// on the wire becomes 1011: it is our side's mistake.
    pub fn new(code: CloseCode, reason: &str) -> Self {
        let code = if code.is_sendable() { code } else { CloseCode::INTERNAL };
        let end = reason.floor_char_boundary(REASON_BYTES_MAX);
        Self { code, reason: reason[..end].to_owned() }
    }

    /// Reads a Close body; `None` is a body of no bytes, which is valid (RFC 6455 §5.5.1).
    ///
    /// # Errors
    /// One byte, a code that must not be on the wire, a reason that is not UTF-8.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, ProtocolError> {
        let (code, reason) = match body {
            [] => return Ok(None),
            [_] => return Err(ProtocolError::CloseBodyTooShort),
            [high, low, reason @ ..] => (CloseCode(u16::from_be_bytes([*high, *low])), reason),
        };
        if !code.is_sendable() {
            return Err(ProtocolError::InvalidCloseCode);
        }
        let reason = utf8::check(reason)?.to_owned();
        Ok(Some(Self { code, reason }))
    }

    /// The body as it goes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(2 + self.reason.len());
        body.extend_from_slice(&self.code.0.to_be_bytes());
        body.extend_from_slice(self.reason.as_bytes());
        body
    }

    /// Writes code and reason.
    pub fn save(&self, writer: &mut Writer) {
        let Self { code, reason } = self;
        writer.u16(code.0);
        writer.str(reason);
    }

    /// Reads what [`CloseFrame::save`] wrote.
    ///
    /// # Errors
    /// As [`Reader`]; what no Close frame may hold.
    pub fn load(reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let (code, reason) = (CloseCode(reader.u16()?), reader.str()?);
        if !code.is_sendable() || reason.len() > REASON_BYTES_MAX {
            return Err(SnapshotError::Invalid("Close frame"));
        }
        Ok(Self { code, reason: reason.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_assigned_codes_may_be_on_the_wire() {
        let sendable: Vec<u16> =
            (0..=u16::MAX).filter(|&code| CloseCode(code).is_sendable()).collect();
        let mut expected = vec![1000, 1001, 1002, 1003];
        expected.extend(1007..=1014);
        expected.extend(3000..=4999);
        assert_eq!(sendable, expected);
    }

    #[test]
    fn a_body_is_read_back() {
        let frame = CloseFrame::new(CloseCode::POLICY, "größer");
        assert_eq!(CloseFrame::decode(&frame.encode()), Ok(Some(frame)));
        assert_eq!(CloseFrame::decode(&[]), Ok(None));
    }

    #[test]
    fn a_snapshot_is_read_back_and_a_bad_one_is_not() {
        let load = |frame: &CloseFrame| {
            let mut writer = Writer::new();
            frame.save(&mut writer);
            CloseFrame::load(&mut Reader::new(writer.as_bytes()))
        };
        let frame = CloseFrame::new(CloseCode::RESTART, "größer");
        assert_eq!(load(&frame), Ok(frame.clone()));
        let bad = Err(SnapshotError::Invalid("Close frame"));
        assert_eq!(load(&CloseFrame { code: CloseCode(1005), ..frame.clone() }), bad);
        assert_eq!(load(&CloseFrame { reason: "x".repeat(124), ..frame }), bad);
    }

    #[test]
    fn bad_bodies_are_refused() {
        let cases: [(&[u8], ProtocolError); 4] = [
            (&[3], ProtocolError::CloseBodyTooShort),
            (&1005_u16.to_be_bytes(), ProtocolError::InvalidCloseCode),
            (&[0, 0], ProtocolError::InvalidCloseCode),
            (&[3, 232, 0xff], ProtocolError::InvalidUtf8),
        ];
        for (body, error) in cases {
            assert_eq!(CloseFrame::decode(body), Err(error), "{body:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let frame = CloseFrame::new(CloseCode::NORMAL, &"ü".repeat(100));
        assert_eq!(frame.reason.len(), 122);
        assert_eq!(CloseFrame::new(CloseCode(1005), "").code, CloseCode::INTERNAL);
        assert!(frame.encode().len() <= 125);
    }
}
