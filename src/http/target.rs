//! Request targets (RFC 9112 §3.2, RFC 3986), percent-decoding, redaction.

use std::borrow::Cow;

use super::{Address, Authority, HeadError};

/// A request target, taken apart but not decoded.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// The host of an absolute-form target; it overrides Host (RFC 9112 §3.2.2).
    pub(super) authority: Option<&'a str>,
    /// The path; `*` and the authority of CONNECT count as paths that no route has.
    pub(super) path: &'a str,
    /// What follows the first `?`.
    pub(super) query: Option<&'a str>,
}

impl<'a> Target<'a> {
    pub(super) fn parse(method: &str, raw: &'a str) -> Result<Self, HeadError> {
        check_bytes(raw)?;
        if raw.starts_with('/') {
            return Ok(Self::split(None, raw));
        }
        if let Some(url) = Address::split(raw) {
            // Those of HTTP and WebSocket have a default port.
            url.default_port().ok_or(HeadError::BadTarget)?;
            Authority::parse(url.authority).ok_or(HeadError::HostInvalid)?;
            return Ok(Self::split(Some(url.authority), url.rest));
        }
        // Valid for these two methods only, and then refused for the method.
        let valid = match method {
            "OPTIONS" => raw == "*",
            "CONNECT" => Authority::parse(raw).is_some_and(|authority| authority.port.is_some()),
            _ => false,
        };
        if !valid {
            return Err(HeadError::BadTarget);
        }
        Ok(Self { authority: None, path: raw, query: None })
    }

    fn split(authority: Option<&'a str>, text: &'a str) -> Self {
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        Self { authority, path, query }
    }
}

/// Checks an origin-form target (`/path?query`), as a client is about to send it.
///
/// # Errors
/// [`HeadError::BadTarget`] or [`HeadError::BadPercentEncoding`].
pub fn check_target(target: &str) -> Result<(), HeadError> {
    match target.starts_with('/') {
        true => check_bytes(target),
        false => Err(HeadError::BadTarget),
    }
}

/// What a target may hold: the characters of RFC 3986, whole percent-triplets, and those that the
/// URL standard of the browsers leaves as they are although RFC 3986 would encode them, among them a
/// `%` in the query that begins no triplet.
fn check_bytes(raw: &str) -> Result<(), HeadError> {
    let bytes = raw.as_bytes();
    let mut in_query = false;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'?' => in_query = true,
            b'%' if !in_query && triplet(&bytes[at..]).is_none() => {
                return Err(HeadError::BadPercentEncoding);
            }
            b'#' | b'"' | b'<' | b'>' => return Err(HeadError::BadTarget),
            0x21..=0x7e => {}
            _ => return Err(HeadError::UnencodedTarget),
        }
    }
    Ok(())
}

/// The byte that a percent-triplet at the beginning of `bytes` stands for.
fn triplet(bytes: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    match bytes {
        [b'%', high, low, ..] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// Decodes the percent-triplets of a path.
///
/// # Errors
/// [`HeadError::BadPercentEncoding`] for a broken triplet or bytes that are not UTF-8.
pub fn percent_decode(text: &str) -> Result<Cow<'_, str>, HeadError> {
    decode(text, |byte| match byte {
        // A triplet would have been decoded.
        b'%' => None,
        other => Some(other),
    })
}

/// Decodes a name or a value of a query as browsers do: `+` is a space, and a `%` that begins no
/// triplet stands for itself.
///
/// # Errors
/// [`HeadError::BadPercentEncoding`] for bytes that are not UTF-8.
pub(super) fn query_decode(text: &str) -> Result<Cow<'_, str>, HeadError> {
    decode(text, |byte| match byte {
        b'+' => Some(b' '),
        other => Some(other),
    })
}

/// `plain` is what a byte stands for that begins no triplet.
fn decode(text: &str, plain: impl Fn(u8) -> Option<u8>) -> Result<Cow<'_, str>, HeadError> {
    if text.bytes().all(|byte| byte != b'%' && plain(byte) == Some(byte)) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        match triplet(rest) {
            Some(byte) => {
                decoded.push(byte);
                rest = &rest[3..];
            }
            None => {
                decoded.push(plain(first).ok_or(HeadError::BadPercentEncoding)?);
                rest = after;
            }
        }
    }
    let decoded = String::from_utf8(decoded).map_err(|_| HeadError::BadPercentEncoding)?;
    Ok(Cow::Owned(decoded))
}

/// The first query parameter of this name, decoded; its value is empty without `=`. A parameter before
/// it whose name is not UTF-8 has another name.
pub(super) fn query_value<'a>(
    query: Option<&'a str>,
    name: &str,
) -> Result<Option<Cow<'a, str>>, HeadError> {
    for pair in query.unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !pair.is_empty() && query_decode(key).is_ok_and(|key| key == name) {
            return query_decode(value).map(Some);
        }
    }
    Ok(None)
}

/// A target fit for a log: without its query, which may hold a token under any name, behind any
/// separator, or without a name.
pub fn redact_target(target: &str) -> Cow<'_, str> {
    match target.split_once('?') {
        Some((path, _)) => Cow::Owned(format!("{path}?[redacted]")),
        None => Cow::Borrowed(target),
    }
}
