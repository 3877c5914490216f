//! `scheme://host[:port]`, as in URLs, in Origin and in Host.

use std::net::Ipv6Addr;

/// A URL's beginning, `scheme://authority`, and the rest of the URL.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// As written; schemes compare without case (RFC 3986 §3.1).
    pub scheme: &'a str,
    /// What is between `://` and the path, as written and unchecked.
    pub authority: &'a str,
    /// Path, query and fragment; may be empty.
    pub rest: &'a str,
}

impl<'a> Address<'a> {
    /// Splits a URL; `None` if it has no scheme.
    pub fn split(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let mut bytes = scheme.bytes();
        let is_scheme = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        is_scheme.then_some(Self { scheme, authority, rest })
    }

    /// The port that the scheme stands for; `None` if that is not known.
    pub fn default_port(&self) -> Option<u16> {
        let is = |scheme: &str| self.scheme.eq_ignore_ascii_case(scheme);
        match () {
            () if is("http") || is("ws") => Some(80),
            () if is("https") || is("wss") => Some(443),
            () => None,
        }
    }
}

/// `host[:port]`, as in Host and in URLs (RFC 3986 §3.2, without userinfo).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address in its brackets. Never empty.
    pub host: &'a str,
    /// The port, if one was written.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses it; `None` for an empty host (RFC 9110 §4.2.1), userinfo, a port above 65,535, or
    /// anything else outside the grammar. IPvFuture literals are refused: there are none.
    pub fn parse(text: &'a str) -> Option<Self> {
        let end = match text.strip_prefix('[') {
            Some(rest) => {
                let end = rest.find(']')?;
                rest[..end].parse::<Ipv6Addr>().ok()?;
                end + 2
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                is_name(&text.as_bytes()[..end]).then_some(end)?
            }
        };
        let (host, rest) = text.split_at(end);
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return None,
            // An empty port is the default one (RFC 3986 §6.2.3).
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
        };
        Some(Self { host, port })
    }

    /// Whether both name the same place, with this port where none is written. Names compare
    /// without case, addresses by value.
    pub fn same_as(&self, other: &Authority<'_>, default_port: u16) -> bool {
        let same_host = match (self.ipv6(), other.ipv6()) {
            (Some(one), Some(two)) => one == two,
            (None, None) => self.host.eq_ignore_ascii_case(other.host),
            _ => false,
        };
        same_host && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }

    fn ipv6(&self) -> Option<Ipv6Addr> {
        let inner = self.host.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse().ok()
    }
}

/// A non-empty `reg-name` of RFC 3986 §3.2.2; IPv4 addresses are among them.
fn is_name(name: &[u8]) -> bool {
    let valid = |(at, &byte): (usize, &u8)| match byte {
        b'%' => name.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
    };
    !name.is_empty() && name.iter().enumerate().all(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        for (url, expected) in [
            ("ws://a:1/b?c", Some(("ws", "a:1", "/b?c"))),
            ("HTTP://[::1]?a=://", Some(("HTTP", "[::1]", "?a=://"))),
            ("x+y://a#b", Some(("x+y", "a", "#b"))),
            ("https://", Some(("https", "", ""))),
            ("1s://a", None),
            ("://a", None),
            ("example.org", None),
        ] {
            let split = Address::split(url).map(|url| (url.scheme, url.authority, url.rest));
            assert_eq!(split, expected, "{url}");
        }
    }
}
