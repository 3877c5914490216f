//! The head of a request: where it ends, and what it says (RFC 9112 §2, §3).

use std::borrow::Cow;
use std::fmt;

use super::Authority;
use super::fields::{Fields, is_token, is_token_byte, take_line};
use super::target::{Target, query_value};
use super::{HeadError, percent_decode, redact_target};
use crate::base::limits::HeadLimits;

/// Longest method. The longest registered one has 17 bytes; the bound is what lets
/// [`check_partial`] stop early.
pub(crate) const METHOD_BYTES_MAX: usize = 32;

/// Finds the end of a head: the offset just after its blank line.
///
/// `searched` is how many of `bytes` an earlier call has seen in vain (0 at first): only what is
/// new is looked at, so a head that arrives byte by byte costs no more than one that arrives whole.
/// Lines that end in a bare LF end a head too: it is then refused at once, not at the deadline.
pub fn find_head_end(bytes: &[u8], searched: usize) -> Option<usize> {
    // A blank line is `\n\n` or `\n\r\n`: two of its bytes may have been seen before.
    let mut at = searched.saturating_sub(2);
    while let Some(found) = bytes.get(at..)?.iter().position(|&byte| byte == b'\n') {
        at += found + 1;
        match bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// What is certain about a head that is still incomplete: `bytes` has no end of a head yet, and
/// `searched` bytes of it were checked before. Each call costs at most a few dozen bytes, and the
/// one in which the target passes its limit the length of that limit.
///
/// # Errors
/// [`HeadError::NotHttp`], [`HeadError::TargetTooLong`] or [`HeadError::HeadTooLarge`], as soon as
/// no further byte can change that.
pub fn check_partial(bytes: &[u8], searched: usize, limits: &HeadLimits) -> Result<(), HeadError> {
    // One empty line before the request line is ignored (RFC 9112 §2.2).
    let skipped = match bytes {
        [b'\r', b'\n', ..] => 2,
        [] | [b'\r'] => return Ok(()),
        _ => 0,
    };
    let line = &bytes[skipped..];
    let method_len =
        line.iter().take(METHOD_BYTES_MAX + 1).take_while(|&&byte| is_token_byte(byte)).count();
    match line.get(method_len) {
        _ if method_len > METHOD_BYTES_MAX => return Err(HeadError::NotHttp),
        None => {}
        Some(b' ') if method_len > 0 => {
            let target = skipped + method_len + 1;
            let limit = target.saturating_add(limits.target_bytes_max);
            if bytes.len() > limit && searched <= limit {
                let ended = |byte: &u8| matches!(byte, b' ' | b'\r' | b'\n');
                if !bytes[target..=limit].iter().any(ended) {
                    return Err(HeadError::TargetTooLong);
                }
            }
        }
        Some(_) => return Err(HeadError::NotHttp),
    }
    if bytes.len() >= limits.head_bytes_max {
        return Err(HeadError::HeadTooLarge);
    }
    Ok(())
}

/// A request head, borrowed from its bytes.
///
/// What holds for every `Head`: the version is HTTP/1.x, the target is within the grammar, HTTP/1.1
/// has exactly one valid Host, and Content-Length and Transfer-Encoding do not contradict.
#[derive(Clone)]
pub struct Head<'a> {
    method: &'a str,
    raw_target: &'a str,
    target: Target<'a>,
    minor_version: u8,
    host: Option<&'a str>,
    content_length: Option<u64>,
    fields: Fields<'a>,
}

impl<'a> Head<'a> {
    /// Parses a whole head, its blank line included and nothing after it (see [`find_head_end`]).
    ///
    /// # Errors
    /// The first thing that is wrong; its [`status`](HeadError::status) is the answer.
    pub fn parse(bytes: &'a [u8], limits: &HeadLimits) -> Result<Self, HeadError> {
        let mut rest = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let line = take_line(&mut rest)?;
        let (method, raw_target, minor_version) = parse_request_line(line, limits)?;
        if bytes.len() > limits.head_bytes_max {
            return Err(HeadError::HeadTooLarge);
        }
        let target = Target::parse(method, raw_target)?;
        let fields = Fields::parse(rest, limits.headers_max)?;
        let host = parse_host(&fields, minor_version)?;
        let content_length = fields.content_length()?;
        if fields.first("transfer-encoding").is_some() {
            let codings: Vec<&[u8]> = fields.list("transfer-encoding").collect();
            let chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
            let ends_chunked =
                codings.iter().position(chunked) == Some(codings.len().wrapping_sub(1));
            if content_length.is_some() || minor_version == 0 || !ends_chunked {
                return Err(HeadError::BadTransferEncoding);
            }
        }
        Ok(Self {
            method,
            raw_target,
            minor_version,
            host: target.authority.or(host),
            target,
            content_length,
            fields,
        })
    }

    /// The method, as sent: methods have case (RFC 9110 §9.1).
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The request target as sent. It may hold a token: logs take [`redact_target`] of it.
    pub fn target(&self) -> &'a str {
        self.raw_target
    }

    /// The path, not decoded: routes split it at `/` first and decode each segment, else a `%2F`
    /// would become a wall. `/` if an absolute-form target has none.
    pub fn path(&self) -> &'a str {
        self.target.path
    }

    /// The path, decoded as a whole.
    ///
    /// # Errors
    /// [`HeadError::BadPercentEncoding`] if it is not UTF-8.
    pub fn decoded_path(&self) -> Result<Cow<'a, str>, HeadError> {
        percent_decode(self.target.path)
    }

    /// What follows the first `?`, not decoded.
    pub fn query(&self) -> Option<&'a str> {
        self.target.query
    }

    /// The first query parameter of this name, decoded (`+` is a space), empty if it has no `=`.
    ///
    /// # Errors
    /// [`HeadError::BadPercentEncoding`] if it is not UTF-8.
    pub fn query_value(&self, name: &str) -> Result<Option<Cow<'a, str>>, HeadError> {
        query_value(self.target.query, name)
    }

    /// Whether the version is HTTP/1.0. A minor version above 1 counts as 1.1 (RFC 9110 §2.5).
    pub fn is_http_1_0(&self) -> bool {
        self.minor_version == 0
    }

    /// `host[:port]` that the request is for: of the absolute-form target, else of Host. `None` only
    /// in HTTP/1.0.
    pub fn host(&self) -> Option<&'a str> {
        self.host
    }

    /// Whether the request announces a body.
    pub fn has_body(&self) -> bool {
        self.content_length.is_some_and(|length| length > 0)
            || self.fields.first("transfer-encoding").is_some()
    }

    /// All header fields.
    pub fn fields(&self) -> &Fields<'a> {
        &self.fields
    }

    /// The first value of a header field, if it is UTF-8. The name's case does not matter.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.fields.text(name)
    }

    /// Every value of a header field, as bytes.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.all(name)
    }
}

/// Header values hold cookies and tokens, so only names are shown.
impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| name).collect();
        f.debug_struct("Head")
            .field("method", &self.method)
            .field("target", &redact_target(self.raw_target))
            .field("headers", &names)
            .finish()
    }
}

/// `method SP request-target SP HTTP-version` (RFC 9112 §3).
fn parse_request_line<'a>(
    line: &'a [u8],
    limits: &HeadLimits,
) -> Result<(&'a str, &'a str, u8), HeadError> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadError::BadStartLine);
    };
    if !is_token(method) || method.len() > METHOD_BYTES_MAX || target.is_empty() {
        return Err(HeadError::BadStartLine);
    }
    if target.len() > limits.target_bytes_max {
        return Err(HeadError::TargetTooLong);
    }
    let minor_version = parse_version(version)?;
    let method = std::str::from_utf8(method).map_err(|_| HeadError::BadStartLine)?;
    let target = std::str::from_utf8(target).map_err(|_| HeadError::UnencodedTarget)?;
    Ok((method, target, minor_version))
}

/// `HTTP/1.x` → x (RFC 9112 §2.3).
pub(super) fn parse_version(version: &[u8]) -> Result<u8, HeadError> {
    match version {
        [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] => {
            match major {
                b'1' => Ok(minor - b'0'),
                _ => Err(HeadError::VersionUnsupported),
            }
        }
        _ => Err(HeadError::BadStartLine),
    }
}

fn parse_host<'a>(fields: &Fields<'a>, minor_version: u8) -> Result<Option<&'a str>, HeadError> {
    let mut hosts = fields.all("host");
    let Some(host) = hosts.next() else {
        return match minor_version {
            0 => Ok(None),
            _ => Err(HeadError::HostMissing),
        };
    };
    if hosts.next().is_some() {
        return Err(HeadError::HostRepeated);
    }
    let host = std::str::from_utf8(host).map_err(|_| HeadError::HostInvalid)?;
    Authority::parse(host).ok_or(HeadError::HostInvalid)?;
    Ok(Some(host))
}

#[cfg(test)]
mod tests;
