//! The head of a response, as the client role reads it (RFC 9112 §4).

use std::fmt;

use super::HeadError;
use super::fields::{Fields, take_line};
use super::head::parse_version;
use crate::base::limits::HeadLimits;

/// A response head, borrowed from its bytes.
#[derive(Clone)]
pub struct ResponseHead<'a> {
    status: u16,
    phrase: &'a [u8],
    minor_version: u8,
    fields: Fields<'a>,
}

impl<'a> ResponseHead<'a> {
    /// Parses a whole head, its blank line included and nothing after it; its end is found by
    /// [`find_head_end`](super::find_head_end). A status line that ends after the status is
    /// accepted: servers without a phrase often leave its space out, too.
    ///
    /// # Errors
    /// The first thing that is wrong; here the statuses of the errors have no meaning.
    pub fn parse(bytes: &'a [u8], limits: &HeadLimits) -> Result<Self, HeadError> {
        if bytes.len() > limits.head_bytes_max {
            return Err(HeadError::HeadTooLarge);
        }
        let mut rest = bytes;
        let line = take_line(&mut rest)?;
        let mut parts = line.splitn(3, |&byte| byte == b' ');
        let minor_version = parse_version(parts.next().unwrap_or_default())?;
        let status = match parts.next() {
            Some(&[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(HeadError::BadStartLine),
        };
        let phrase = parts.next().unwrap_or_default();
        if phrase.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control()) {
            return Err(HeadError::BadStartLine);
        }
        let fields = Fields::parse(rest, limits.headers_max)?;
        Ok(Self { status, phrase, minor_version, fields })
    }

    /// The status, 100 to 999.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase, fit for a terminal: what is not UTF-8 or a control character is replaced.
    pub fn phrase(&self) -> String {
        String::from_utf8_lossy(self.phrase).replace(char::is_control, " ")
    }

    /// Whether the version is HTTP/1.0.
    pub fn is_http_1_0(&self) -> bool {
        self.minor_version == 0
    }

    /// All header fields.
    pub fn fields(&self) -> &Fields<'a> {
        &self.fields
    }
}

/// Values may be cookies, so only the names are shown.
impl fmt::Debug for ResponseHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| name).collect();
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("headers", &names)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        use HeadError::*;
        type Case = (&'static [u8], Result<(u16, &'static str), HeadError>);
        let cases: &[Case] = &[
            (b"HTTP/1.1 101 Switching Protocols", Ok((101, "Switching Protocols"))),
            (b"HTTP/1.0 200 ", Ok((200, ""))),
            (b"HTTP/1.1 404", Ok((404, ""))),
            (b"HTTP/1.1 400 a\xc2\x9bb", Ok((400, "a b"))),
            (b"HTTP/1.1 099 No", Err(BadStartLine)),
            (b"HTTP/1.1 1000 No", Err(BadStartLine)),
            (b"HTTP/1.1  101 No", Err(BadStartLine)),
            (b"HTTP/1.1 101 \x1b[31m", Err(BadStartLine)),
            (b"HTTP/1.1", Err(BadStartLine)),
            (b"", Err(BadStartLine)),
            (b"ICY 200 OK", Err(BadStartLine)),
            (b"HTTP/2.0 200 OK", Err(VersionUnsupported)),
        ];
        for (line, expected) in cases {
            let bytes = [line, &b"\r\nServer: x\r\n\r\n"[..]].concat();
            let head = ResponseHead::parse(&bytes, &HeadLimits::default());
            let result = head.map(|head| {
                assert_eq!(head.fields().text("server"), Some("x"));
                (head.status(), head.phrase())
            });
            let expected = expected.map(|(status, phrase)| (status, phrase.to_owned()));
            assert_eq!(result, expected, "{:?}", line.escape_ascii().to_string());
        }
    }

    #[test]
    fn limits_hold() {
        let limits = HeadLimits { head_bytes_max: 40, headers_max: 1, ..HeadLimits::default() };
        let parse = |bytes: &[u8]| ResponseHead::parse(bytes, &limits).map(|_| ());
        assert_eq!(parse(b"HTTP/1.1 101 x\r\nA: b\r\n\r\n"), Ok(()));
        let many = b"HTTP/1.1 101 x\r\nA: b\r\nA: b\r\n\r\n";
        assert_eq!(parse(many), Err(HeadError::TooManyHeaders));
        let large = b"HTTP/1.1 101 x\r\nA: bbbbbbbbbbbbbbbbbbbb\r\n\r\n";
        assert_eq!(parse(large), Err(HeadError::HeadTooLarge));
    }
}
