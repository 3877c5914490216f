//! Header fields, of requests and of responses alike (RFC 9110 §5, RFC 9112 §5).

use super::HeadError;

/// The header fields of one head, borrowed from its bytes, in the order they came.
///
/// Names are ASCII tokens. Values are without surrounding white space and may hold obs-text
/// (bytes from 0x80), so they are bytes; [`text`](Self::text) gives them as a string.
#[derive(Clone, Default)]
pub struct Fields<'a> {
    list: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Fields<'a> {
    /// Reads field lines up to and including the blank line, which must be the end of `rest`.
    pub(super) fn parse(mut rest: &'a [u8], headers_max: usize) -> Result<Self, HeadError> {
        let mut list = Vec::with_capacity(16.min(headers_max));
        loop {
            let line = take_line(&mut rest)?;
            if line.is_empty() {
                break;
            }
            if list.len() == headers_max {
                return Err(HeadError::TooManyHeaders);
            }
            list.push(parse_line(line)?);
        }
        if !rest.is_empty() {
            return Err(HeadError::Incomplete);
        }
        Ok(Self { list })
    }

    /// The first value of a field, whatever the case of its name.
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The first value of a field if it is UTF-8.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.first(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Every value of a field, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.list
            .iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|&(_, value)| value)
    }

    /// The elements of a comma-separated list that may be spread over several lines, without empty
    /// ones (RFC 9110 §5.6.1). Not for fields whose elements hold quoted strings.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(trim)
            .filter(|element| !element.is_empty())
    }

    /// Whether a list has this token, in any case (`Connection: keep-alive, Upgrade`).
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.list.iter().copied()
    }

    /// The agreed value of Content-Length. RFC 9110 §8.6: repeated equal values may pass.
    pub(super) fn content_length(&self) -> Result<Option<u64>, HeadError> {
        let mut agreed = None;
        for value in self.all("content-length") {
            for element in value.split(|&byte| byte == b',') {
                let length = parse_length(trim(element)).ok_or(HeadError::BadContentLength)?;
                if agreed.is_some_and(|other| other != length) {
                    return Err(HeadError::BadContentLength);
                }
                agreed = Some(length);
            }
        }
        Ok(agreed)
    }
}

/// Whether this is a token (RFC 9110 §5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Takes one line without its CRLF.
pub(super) fn take_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], HeadError> {
    let bytes = *rest;
    let end = bytes.iter().position(|&byte| byte == b'\n').ok_or(HeadError::Incomplete)?;
    let line = bytes[..end].strip_suffix(b"\r").ok_or(HeadError::BareLf)?;
    if line.contains(&b'\r') {
        return Err(HeadError::BareCr);
    }
    *rest = &bytes[end + 1..];
    Ok(line)
}

/// Without surrounding optional white space (RFC 9110 §5.6.3).
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn parse_line(line: &[u8]) -> Result<(&str, &[u8]), HeadError> {
    if line[0] == b' ' || line[0] == b'\t' {
        return Err(HeadError::ObsFold);
    }
    let colon = line.iter().position(|&byte| byte == b':').ok_or(HeadError::BadFieldName)?;
    let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
    if !is_token(name) {
        return Err(match trim(name) {
            inner if inner.len() < name.len() && is_token(inner) => HeadError::SpaceBeforeColon,
            _ => HeadError::BadFieldName,
        });
    }
    let is_value_byte = |&byte: &u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    if !value.iter().all(is_value_byte) {
        return Err(HeadError::BadFieldValue);
    }
    let name = std::str::from_utf8(name).map_err(|_| HeadError::BadFieldName)?;
    Ok((name, value))
}

/// `1*DIGIT` within u64. Not `str::parse`, which also takes a sign.
fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |length, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}
