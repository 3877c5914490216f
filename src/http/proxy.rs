//! The header that a proxy puts before a connection's first byte to say who is on its other side:
//! the PROXY protocol of HAProxy, versions 1 (text) and 2 (binary).
//!
//! Only for connections from trusted proxies, and there it must be present: a header that anyone
//! may leave out is one that anyone may forge.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, line break included (PROXY protocol §2.1).
const V1_BYTES_MAX: usize = 107;

/// First bytes of version 1.
const V1_SIGNATURE: &[u8] = b"PROXY ";

/// First bytes of version 2 (§2.2).
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The fixed part of version 2: signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// The longest address block of version 2: two Unix paths of 108 bytes.
const UNIX_ADDRESSES_BYTES: usize = 216;

/// Most bytes that the extensions (type, length, value) of version 2 may take. Cloud balancers and
/// certificate names come to some hundred bytes.
const EXTENSIONS_BYTES_MAX: usize = 4096;

/// Longest header that is read; with so many bytes [`parse`] always comes to a result.
pub const PROXY_BYTES_MAX: usize = V2_FIXED_BYTES + UNIX_ADDRESSES_BYTES + EXTENSIONS_BYTES_MAX;

/// What the first bytes of a connection come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyParsing {
    /// A whole header.
    Done {
        /// Where the proxied connection comes from. `None` if the proxy speaks for itself (LOCAL),
        /// does not know, or was connected to over a Unix socket: then the address of our own
        /// socket holds.
        source: Option<SocketAddr>,
        /// Bytes of the header; what follows belongs to the proxied connection.
        len: usize,
    },
    /// A header so far, but not all of it.
    NeedMore,
}

/// Why the first bytes are no PROXY header. There is no answer to it: the connection is dropped
/// (§2: a receiver must not guess).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyError {
    /// Neither version's signature.
    NotProxy,
    /// Longer than its version allows, or than [`PROXY_BYTES_MAX`].
    TooLong,
    /// A line of version 1 outside the grammar of §2.1.
    BadLine,
    /// A version other than 2, or a command other than LOCAL and PROXY, in the binary form.
    BadCommand,
    /// A family or transport that is not assigned, or datagrams, which this stream does not carry.
    BadFamily,
    /// Addresses or extensions of version 2 that do not fit its length.
    BadLength,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotProxy => "no PROXY header",
            Self::TooLong => "the PROXY header is too long",
            Self::BadLine => "the PROXY line is malformed",
            Self::BadCommand => "the PROXY header has an unknown version or command",
            Self::BadFamily => "the PROXY header is for another kind of socket",
            Self::BadLength => "the PROXY header's parts do not fit its length",
        })
    }
}

impl std::error::Error for ProxyError {}

/// Looks for a PROXY header at the front of `bytes`, which begin at the connection's first byte.
///
/// A call looks at no more than the longest line of version 1, 107 bytes, or at the fixed part of
/// version 2, 16 bytes, until that is whole, and then once at the rest: so a header that arrives byte
/// by byte costs at most 107 times what it costs in one piece.
///
/// # Errors
/// As soon as no further byte could make it a header.
pub fn parse(bytes: &[u8]) -> Result<ProxyParsing, ProxyError> {
    if begins_like(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else if begins_like(bytes, V1_SIGNATURE) {
        parse_v1(bytes)
    } else {
        Err(ProxyError::NotProxy)
    }
}

/// As far as there are bytes, they are the signature's.
fn begins_like(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(one, other)| one == other)
}

/// `PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n`.
fn parse_v1(bytes: &[u8]) -> Result<ProxyParsing, ProxyError> {
    let bounded = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = bounded.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return match bytes.len() >= V1_BYTES_MAX {
            true => Err(ProxyError::TooLong),
            false => Ok(ProxyParsing::NeedMore),
        };
    };
    match &bounded[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if end + 1 < V1_BYTES_MAX => return Ok(ProxyParsing::NeedMore),
        [b'\r'] => return Err(ProxyError::TooLong),
        _ => return Err(ProxyError::BadLine),
    }
    let line = std::str::from_utf8(&bounded[..end]).map_err(|_| ProxyError::BadLine)?;
    let source = parse_line(line).ok_or(ProxyError::BadLine)?;
    Ok(ProxyParsing::Done { source, len: end + 2 })
}

fn parse_line(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // The receiver must ignore anything presented before the line break (§2.1).
        return Some(None);
    }
    let address = |word: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let (source, _destination) = (address(words.next()?)?, address(words.next()?)?);
    let (port, _destination_port) = (parse_port(words.next()?)?, parse_port(words.next()?)?);
    words.next().is_none().then_some(Some(SocketAddr::new(source, port)))
}

/// Decimal, without sign and without leading zeros.
fn parse_port(word: &str) -> Option<u16> {
    let canonical = word == "0" || word.starts_with(|first| matches!(first, '1'..='9'));
    canonical.then(|| word.parse().ok())?
}

/// Signature, version and command, family and transport, length; addresses; extensions.
fn parse_v2(bytes: &[u8]) -> Result<ProxyParsing, ProxyError> {
    let rest = bytes.get(V2_SIGNATURE.len()..).unwrap_or_default();
    let Some(&command) = rest.first() else {
        return Ok(ProxyParsing::NeedMore);
    };
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::BadCommand),
    };
    let Some(&family) = rest.get(1) else {
        return Ok(ProxyParsing::NeedMore);
    };
    // What LOCAL says of a family is to be ignored (§2.2).
    let addresses_bytes = match family {
        _ if local => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => UNIX_ADDRESSES_BYTES,
        _ => return Err(ProxyError::BadFamily),
    };
    let &[_, _, high, low, ..] = rest else {
        return Ok(ProxyParsing::NeedMore);
    };
    let len = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if len > PROXY_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    if len < V2_FIXED_BYTES + addresses_bytes {
        return Err(ProxyError::BadLength);
    }
    let Some(body) = bytes.get(V2_FIXED_BYTES..len) else {
        return Ok(ProxyParsing::NeedMore);
    };
    let (addresses, extensions) = body.split_at(addresses_bytes);
    if !local && family != 0x00 && !are_extensions(extensions) {
        return Err(ProxyError::BadLength);
    }
    let source = match addresses {
        [a, b, c, d, _, _, _, _, high, low, _, _] => {
            let port = u16::from_be_bytes([*high, *low]);
            Some(SocketAddr::new(Ipv4Addr::new(*a, *b, *c, *d).into(), port))
        }
        _ if family == 0x21 && !local => {
            let ip: [u8; 16] = addresses[..16].try_into().expect("36 bytes");
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            Some(SocketAddr::new(Ipv6Addr::from(ip).into(), port))
        }
        _ => None,
    };
    Ok(ProxyParsing::Done { source, len })
}

/// Whether the bytes are a sequence of type (1 byte), length (2 bytes) and value (§2.2.1).
fn are_extensions(mut bytes: &[u8]) -> bool {
    while let [_kind, high, low, rest @ ..] = bytes {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        match rest.get(len..) {
            Some(after) => bytes = after,
            None => return false,
        }
    }
    bytes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result for the whole, after asserting that no shorter piece gives another one: each is
    /// to be continued, or (an error) shows the same fault earlier.
    fn parse_every_way(bytes: &[u8]) -> Result<ProxyParsing, ProxyError> {
        let whole = parse(bytes);
        for end in 0..bytes.len() {
            match (parse(&bytes[..end]), whole) {
                (Ok(ProxyParsing::NeedMore), _) => {}
                (Ok(done), Ok(expected)) => {
                    assert_eq!(done, expected, "cut at {end}");
                    let ProxyParsing::Done { len, .. } = done else { unreachable!() };
                    assert!(len <= end, "took {len} of {end} bytes");
                }
                (early, whole) => assert_eq!(early, whole, "cut at {end}"),
            }
        }
        whole
    }

    fn done(source: &str, len: usize) -> Result<ProxyParsing, ProxyError> {
        Ok(ProxyParsing::Done { source: Some(source.parse().unwrap()), len })
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &len, body].concat()
    }

    #[test]
    fn lines_of_version_1() {
        let cases: [(&str, Result<ProxyParsing, ProxyError>); 6] = [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", done("192.0.2.1:56324", 45)),
            ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\nGET / HTTP/1.1\r\n", done("0.0.0.0:0", 32)),
            ("PROXY TCP6 2001:db8::1 ::1 65535 443\r\n", done("[2001:db8::1]:65535", 38)),
            ("PROXY UNKNOWN\r\n", Ok(ProxyParsing::Done { source: None, len: 15 })),
            (
                "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
                Ok(ProxyParsing::Done { source: None, len: 59 }),
            ),
            ("PROXY TCP4 192.0.2.1", Ok(ProxyParsing::NeedMore)),
        ];
        for (line, expected) in cases {
            assert_eq!(parse_every_way(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn bad_lines_are_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.2 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +6324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 056324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 ::1 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.1 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(parse_every_way(line.as_bytes()), Err(ProxyError::BadLine), "{line:?}");
        }
        for other in
            ["GET / HTTP/1.1\r\n", "PROXYTCP4 ", "proxy TCP4", "\r\n\r\n\0\r\nQUIT\r", "\0"]
        {
            assert_eq!(parse_every_way(other.as_bytes()), Err(ProxyError::NotProxy), "{other:?}");
        }
    }

    #[test]
    fn a_line_has_at_most_107_bytes() {
        let filled = |len: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(len - 16));
        let longest = filled(V1_BYTES_MAX);
        let done = ProxyParsing::Done { source: None, len: V1_BYTES_MAX };
        assert_eq!(parse_every_way(longest.as_bytes()), Ok(done));
        for len in [V1_BYTES_MAX + 1, V1_BYTES_MAX + 2, 500] {
            assert_eq!(parse_every_way(filled(len).as_bytes()), Err(ProxyError::TooLong), "{len}");
        }
    }

    #[test]
    fn headers_of_version_2() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 187];
        let with_extension = [&v4[..], &[4, 0, 3, 1, 2, 3, 0x20, 0, 0]].concat();
        let mut v6 = [0_u8; 36];
        v6[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        v6[32..].copy_from_slice(&[0xff, 0xff, 1, 187]);
        let own = |len| Ok(ProxyParsing::Done { source: None, len });
        let cases = [
            (v2(0x21, 0x11, &v4), done("192.0.2.1:56324", 28)),
            (v2(0x21, 0x11, &with_extension), done("192.0.2.1:56324", 37)),
            ([v2(0x21, 0x11, &v4), b"GET".to_vec()].concat(), done("192.0.2.1:56324", 28)),
            (v2(0x21, 0x21, &v6), done("[2001:db8::1]:65535", 52)),
            (v2(0x21, 0x31, &[b'/'; 216]), own(232)),
            (v2(0x21, 0x00, b"anything"), own(24)),
            (v2(0x20, 0x00, b""), own(16)),
            (v2(0x20, 0x11, &v4), own(28)),
            (v2(0x20, 0xff, b"whatever"), own(24)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse_every_way(&bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn bad_headers_of_version_2_are_refused() {
        use ProxyError::*;
        let cases = [
            (v2(0x22, 0x11, &[0; 12]), BadCommand),
            (v2(0x11, 0x11, &[0; 12]), BadCommand),
            (v2(0x21, 0x12, &[0; 12]), BadFamily),
            (v2(0x21, 0x41, &[0; 12]), BadFamily),
            (v2(0x21, 0x01, &[0; 12]), BadFamily),
            (v2(0x21, 0x11, &[0; 11]), BadLength),
            (v2(0x21, 0x21, &[0; 35]), BadLength),
            (v2(0x21, 0x31, &[0; 215]), BadLength),
            (v2(0x21, 0x11, &[0; 13]), BadLength),
            (v2(0x21, 0x11, &[&[0; 12][..], &[1, 0, 2, 9]].concat()), BadLength),
            (v2(0x21, 0x31, &vec![0; PROXY_BYTES_MAX - 15]), TooLong),
        ];
        for (bytes, error) in cases {
            assert_eq!(parse_every_way(&bytes), Err(error), "{bytes:x?}");
        }
    }

    #[test]
    fn the_longest_header_is_read() {
        let extension = |len: u16| [&[9][..], &len.to_be_bytes(), &vec![0; len.into()]].concat();
        let body = [vec![0; 216], extension(4096 - 3)].concat();
        let bytes = v2(0x21, 0x31, &body);
        assert_eq!(bytes.len(), PROXY_BYTES_MAX);
        assert_eq!(parse(&bytes), Ok(ProxyParsing::Done { source: None, len: PROXY_BYTES_MAX }));
    }
}
