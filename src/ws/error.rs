//! What can be wrong with what a peer sends, and what the peer is told (RFC 6455 §7.4.1).

use std::fmt;

use super::CloseCode;

/// A violation that fails the connection. One table, [`ProtocolError::close_code`] and `Display`,
/// says with which close code and reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// A reserved bit without an extension that defines it, or RSV1 where RFC 7692 §6 forbids it.
    ReservedBits,
    /// Opcodes 3 to 7 and 11 to 15 (RFC 6455 §5.2).
    ReservedOpcode,
    /// A client's frame without mask (RFC 6455 §5.1).
    Unmasked,
    /// A server's frame with mask (RFC 6455 §5.1).
    Masked,
    /// A control frame without FIN (RFC 6455 §5.5).
    FragmentedControl,
    /// A control frame of more than 125 bytes (RFC 6455 §5.5).
    ControlTooLong,
    /// A length that is not in its shortest form (RFC 6455 §5.2).
    LengthNotMinimal,
    /// A 64-bit length with its top bit set (RFC 6455 §5.2).
    LengthTopBit,
    /// A continuation frame when no message is under way (RFC 6455 §5.4).
    UnexpectedContinuation,
    /// A new data frame in the middle of a message (RFC 6455 §5.4).
    ExpectedContinuation,
    /// A close code that must not be on the wire (RFC 6455 §7.4).
    InvalidCloseCode,
    /// A Close body of one byte (RFC 6455 §5.5.1).
    CloseBodyTooShort,
    /// Text, or a Close reason, that is not UTF-8 (RFC 6455 §8.1).
    InvalidUtf8,
    /// Compressed data that is not deflate, or that does not end where the message does.
    InvalidDeflate,
    /// More than `message_bytes_max`, declared, assembled or inflated.
    MessageTooBig,
    /// More than `fragments_max` fragments.
    TooManyFragments,
}

impl ProtocolError {
    /// The code of the Close frame that this error is answered with.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::Unmasked
            | Self::Masked
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::LengthNotMinimal
            | Self::LengthTopBit
            | Self::UnexpectedContinuation
            | Self::ExpectedContinuation
            | Self::InvalidCloseCode
            | Self::CloseBodyTooShort => CloseCode::PROTOCOL,
            Self::InvalidUtf8 | Self::InvalidDeflate => CloseCode::INVALID_DATA,
            Self::MessageTooBig => CloseCode::TOO_BIG,
            Self::TooManyFragments => CloseCode::POLICY,
        }
    }

    /// The reason sent with it; short, since a Close body holds 125 bytes.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bit set",
            Self::ReservedOpcode => "reserved opcode",
            Self::Unmasked => "client frame not masked",
            Self::Masked => "server frame masked",
            Self::FragmentedControl => "fragmented control frame",
            Self::ControlTooLong => "control frame over 125 bytes",
            Self::LengthNotMinimal => "length not in its shortest form",
            Self::LengthTopBit => "length with its top bit set",
            Self::UnexpectedContinuation => "continuation without a message",
            Self::ExpectedContinuation => "new message inside a message",
            Self::InvalidCloseCode => "invalid close code",
            Self::CloseBodyTooShort => "close body of one byte",
            Self::InvalidUtf8 => "invalid UTF-8",
            Self::InvalidDeflate => {
                "invalid compressed data (a context kept in spite of client_no_context_takeover?)"
            }
            Self::MessageTooBig => "message too big",
            Self::TooManyFragments => "too many fragments",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for ProtocolError {}
