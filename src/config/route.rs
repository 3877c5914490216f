//! What a route's keys allow: path patterns and origins.

use super::value::{Item, Problem, Raw, Shape, Value, quoted};
use crate::base::network::{IpNetwork, TrustedProxies};

/// Which origins (RFC 6454) may connect from a browser. No `Origin` at all is not a browser and is
/// none of this policy's business; `null` never matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigins {
    /// Every origin may (`*`).
    pub any: bool,
    /// An origin whose host and port are those of the request's Host may (`same-host`).
    pub same_host: bool,
    /// These may: in lower case, without their scheme's default port.
    pub origins: Vec<String>,
}

impl Default for AllowedOrigins {
    fn default() -> Self {
        Self { any: false, same_host: true, origins: Vec::new() }
    }
}

impl Value for AllowedOrigins {
    fn parse(raw: &Raw, shape: &Shape) -> Result<Self, Problem> {
        let items = Vec::<AllowedOrigin>::parse(raw, shape)?;
        if items.len() > 1 && items.contains(&AllowedOrigin::Any) {
            return Err("\"*\" is not alone in the list".to_owned().into());
        }
        let mut allowed = Self { any: false, same_host: false, origins: Vec::new() };
        for item in items {
            match item {
                AllowedOrigin::Any => allowed.any = true,
                AllowedOrigin::SameHost => allowed.same_host = true,
                AllowedOrigin::Origin(origin) => allowed.origins.push(origin),
            }
        }
        Ok(allowed)
    }

    fn show(&self, shape: &Shape) -> String {
        let Self { any, same_host, origins } = self;
        let mut items = Vec::new();
        items.extend(any.then_some(AllowedOrigin::Any));
        items.extend(same_host.then_some(AllowedOrigin::SameHost));
        items.extend(origins.iter().cloned().map(AllowedOrigin::Origin));
        items.show(shape)
    }
}

#[derive(PartialEq)]
enum AllowedOrigin {
    Any,
    SameHost,
    Origin(String),
}

impl Item for AllowedOrigin {
    fn parse_item(text: &str) -> Result<Self, String> {
        match text {
            "*" => Ok(Self::Any),
            "same-host" => Ok(Self::SameHost),
            _ => origin(text).map(Self::Origin),
        }
    }

    fn show_item(&self) -> String {
        match self {
            Self::Any => quoted("*"),
            Self::SameHost => quoted("same-host"),
            Self::Origin(origin) => quoted(origin),
        }
    }
}

/// `scheme://host[:port]` as browsers serialise it (RFC 6454 §6.2): lower case, no default port.
fn origin(text: &str) -> Result<String, String> {
    if text == "null" {
        return Err("\"null\" is every sandboxed page's origin and never allowed".to_owned());
    }
    let lower = text.to_ascii_lowercase();
    let Some((scheme, authority)) = lower.split_once("://") else {
        return Err(format!("{text:?} has no scheme such as https://"));
    };
    if authority.contains(['/', '?', '#']) {
        return Err(format!("{text:?} has a path; an origin ends with its host or port"));
    }
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    // The colons of an IPv6 address are inside brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if !(is_scheme && is_host && is_port) {
        return Err(format!("{text:?} is not an origin"));
    }
    Ok(match (scheme, port) {
        ("http", Some("80")) | ("https", Some("443")) | (_, None) => format!("{scheme}://{host}"),
        (_, Some(port)) => format!("{scheme}://{host}:{port}"),
    })
}

/// Whether `text` is a path pattern; the error says what is wrong.
pub(super) fn check_pattern(text: &str) -> Result<(), String> {
    let Some(path) = text.strip_prefix('/') else {
        return Err(format!("{text:?} does not begin with \"/\""));
    };
    if path.is_empty() {
        return Ok(());
    }
    let mut parameters: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match parameter(segment) {
            Some(name) if parameters.contains(&name) => {
                return Err(format!("the parameter {{{name}}} is in {text:?} twice"));
            }
            Some(name) => parameters.push(name),
            None if segment.is_empty() => return Err(format!("{text:?} has an empty segment")),
            None if matches!(segment, "." | "..") => {
                return Err(format!("{text:?} has a segment {segment:?}, which clients remove"));
            }
            None if !segment.bytes().all(is_path_byte) => {
                return Err(format!("{segment:?} in {text:?} is not a segment of a path"));
            }
            None => {}
        }
    }
    Ok(())
}

/// `{name}` as `name`.
fn parameter(segment: &str) -> Option<&str> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (!name.is_empty() && name.bytes().all(plain)).then_some(name)
}

/// `pchar` of RFC 3986 §3.3.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%".contains(&byte)
}

/// The pattern with its parameters' names taken out: equal for patterns that match the same paths.
pub(super) fn matched_paths(pattern: &str) -> String {
    let segments = pattern.split('/').map(|segment| match parameter(segment) {
        Some(_) => "{}",
        None => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Whether the pattern has the parameter `{name}`.
pub(super) fn has_parameter(pattern: &str, name: &str) -> bool {
    pattern.split('/').any(|segment| parameter(segment) == Some(name))
}

impl Value for TrustedProxies {
    fn parse(raw: &Raw, shape: &Shape) -> Result<Self, Problem> {
        let mut proxies = Self::default();
        for proxy in Vec::<TrustedProxy>::parse(raw, shape)? {
            match proxy {
                TrustedProxy::Network(network) => proxies.networks.push(network),
                TrustedProxy::Unix => proxies.unix = true,
            }
        }
        Ok(proxies)
    }

    fn show(&self, shape: &Shape) -> String {
        let Self { networks, unix } = self;
        let mut items: Vec<_> = networks.iter().copied().map(TrustedProxy::Network).collect();
        items.extend(unix.then_some(TrustedProxy::Unix));
        items.show(shape)
    }
}

#[derive(PartialEq)]
enum TrustedProxy {
    Network(IpNetwork),
    Unix,
}

impl Item for TrustedProxy {
    fn parse_item(text: &str) -> Result<Self, String> {
        match text {
            "unix" => Ok(Self::Unix),
            _ => text.parse().map(Self::Network),
        }
    }

    fn show_item(&self) -> String {
        match self {
            Self::Network(network) => quoted(&network.to_string()),
            Self::Unix => quoted("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_become_what_browsers_send() {
        for (text, expected) in [
            ("https://example.org", "https://example.org"),
            ("HTTPS://Example.ORG:443", "https://example.org"),
            ("http://example.org:443", "http://example.org:443"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://[::1]", "http://[::1]"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ] {
            assert_eq!(origin(text).as_deref(), Ok(expected));
        }
        for text in
            ["https://", "https://a:0", "https://a:99999", "1s://a", "https://u@h", "https://[::z]"]
        {
            assert_eq!(origin(text), Err(format!("{text:?} is not an origin")));
        }
    }

    #[test]
    fn patterns_that_match_the_same_paths_compare_equal() {
        assert_eq!(matched_paths("/rooms/{name}"), matched_paths("/rooms/{room}"));
        assert_ne!(matched_paths("/rooms/{name}"), matched_paths("/rooms/name"));
        assert!(has_parameter("/a/{b}/c", "b"));
        assert!(!has_parameter("/a/b/c", "b"));
    }
}
