//! What can be wrong with a head, and what the peer is told about it.

use std::fmt;

/// Why a head was refused. Each variant has one status and one line of explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// The first bytes are no HTTP request (a TLS ClientHello, say).
    NotHttp,
    /// The bytes given are not one head that ends with its blank line.
    Incomplete,
    /// Request line or status line outside the grammar of RFC 9112 §3 and §4.
    BadStartLine,
    /// Request target outside the grammar of RFC 9112 §3.2.
    BadTarget,
    /// A byte in the request target that is no visible ASCII: it has to be percent-encoded (RFC 3986
    /// §2).
    UnencodedTarget,
    /// Percent-encoding that is broken, or that does not decode to UTF-8.
    BadPercentEncoding,
    /// Request target longer than `target_bytes_max`.
    TargetTooLong,
    /// Head longer than `head_bytes_max`.
    HeadTooLarge,
    /// More header fields than `headers_max`.
    TooManyHeaders,
    /// A major version other than 1.
    VersionUnsupported,
    /// A line that ends in LF without CR (RFC 9112 §2.2 lets a server refuse it; lenient parsers
    /// are how requests get smuggled).
    BareLf,
    /// A CR without LF.
    BareCr,
    /// A header line without colon, or with a name that is no token.
    BadFieldName,
    /// White space between name and colon (RFC 9112 §5.1).
    SpaceBeforeColon,
    /// A folded header line (RFC 9112 §5.2).
    ObsFold,
    /// NUL or another control character in a header value.
    BadFieldValue,
    /// HTTP/1.1 without Host (RFC 9112 §3.2).
    HostMissing,
    /// More than one Host.
    HostRepeated,
    /// A Host, or the authority of an absolute-form target, that is no `host[:port]`.
    HostInvalid,
    /// Content-Length that is no number, or several that differ (RFC 9112 §6.3).
    BadContentLength,
    /// Transfer-Encoding together with Content-Length, in HTTP/1.0 (RFC 9112 §6.1), or without
    /// `chunked` at its end and nowhere else: nobody knows where such a body ends (§6.3).
    BadTransferEncoding,
}

impl HeadError {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::VersionUnsupported => 505,
            _ => 400,
        }
    }

    /// One line for a human, without anything the peer sent.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotHttp => "this is not an HTTP request (this port speaks plain HTTP, not TLS)",
            Self::Incomplete => "the head does not end with one blank line",
            Self::BadStartLine => "the first line is malformed",
            Self::BadTarget => "the request target is malformed",
            Self::UnencodedTarget => {
                "the request target has a byte that must be percent-encoded (no visible ASCII)"
            }
            Self::BadPercentEncoding => "the request target has broken percent-encoding",
            Self::TargetTooLong => "the request target is too long",
            Self::HeadTooLarge => "the head is too large",
            Self::TooManyHeaders => "there are too many header fields",
            Self::VersionUnsupported => "only HTTP/1.1 is spoken here",
            Self::BareLf => "a line ends in LF without CR",
            Self::BareCr => "a CR is not followed by LF",
            Self::BadFieldName => "a header field has no valid name",
            Self::SpaceBeforeColon => "white space before the colon of a header field",
            Self::ObsFold => "a header field is folded over several lines",
            Self::BadFieldValue => "a header field has a control character in its value",
            Self::HostMissing => "the Host header field is missing",
            Self::HostRepeated => "the Host header field is repeated",
            Self::HostInvalid => "the host is invalid",
            Self::BadContentLength => "Content-Length is invalid or contradicts itself",
            Self::BadTransferEncoding => {
                "Transfer-Encoding has to end in chunked, and is not allowed with Content-Length or \
                 in HTTP/1.0"
            }
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for HeadError {}
