//! The syntaxes that only the configuration knows: addresses, networks, origins, path patterns, log
//! levels, secrets.

use super::{AllowedOrigins, Secret};
use crate::app::middleware::OriginPolicy;
use crate::base::network::{IpNetwork, ListenAddr, TrustedProxies};
use crate::base::syntax::{List, Or, Problem, Raw, Syntax, Text, quoted};
use crate::http::{Address, Authority, is_token};
use crate::net::route::Pattern;

/// Addresses to listen on.
pub(super) const LISTEN: List<ListenAddr> = List {
    name: "addresses",
    value_name: "ADDR",
    allowed: "addresses such as \"127.0.0.1:8000\", \"[::]:80\" or \"unix:/run/steadfast.sock\"",
    least: 1,
    secret: false,
    parse: |text| text.parse(),
    print: |address| quoted(&address.written()),
};

/// Networks, and `unix`.
pub(super) const PROXIES: List<TrustedProxy> = List {
    name: "networks",
    value_name: "NETWORK",
    allowed: "networks such as \"10.0.0.0/8\" or \"::1\", and \"unix\" for every peer on a Unix \
              socket",
    least: 0,
    secret: false,
    parse: |text| match text {
        "unix" => Ok(TrustedProxy::Unix),
        _ => text.parse().map(TrustedProxy::Network),
    },
    print: |proxy| match proxy {
        TrustedProxy::Network(network) => quoted(&network.to_string()),
        TrustedProxy::Unix => quoted("unix"),
    },
};

/// Origins, `same-host`, `*`.
pub(super) const ORIGINS: List<AllowedOrigin> = List {
    name: "origins",
    value_name: "ORIGIN",
    allowed: "origins such as \"https://example.org\", \"http://localhost:3000\", \
              \"https://*.example.org\", \"chrome-extension://*\" or \"file://\", \
              \"same-host\", or \"*\" alone for all",
    least: 0,
    secret: false,
    parse: |text| match text {
        "*" => Ok(AllowedOrigin::Any),
        "same-host" => Ok(AllowedOrigin::SameHost),
        _ => origin(text).map(AllowedOrigin::Origin),
    },
    print: |origin| match origin {
        AllowedOrigin::Any => quoted("*"),
        AllowedOrigin::SameHost => quoted("same-host"),
        AllowedOrigin::Origin(origin) => quoted(origin),
    },
};

/// Hosts, or any.
pub(super) const HOSTS: Or<List<String>> = Or(
    "any",
    List {
        name: "hosts",
        value_name: "HOST",
        allowed: "hosts such as \"example.org\", \"localhost:8000\" or \"[::1]\"",
        least: 1,
        secret: false,
        parse: |text| match Authority::parse(text) {
            // A name in the grammar of URIs, but of no host; it would be taken for a wildcard.
            Some(_) if !text.contains('*') => Ok(text.to_ascii_lowercase()),
            _ => Err(format!("{text:?} is not a host")),
        },
        print: |host| quoted(host),
    },
);

/// Subprotocol names.
pub(super) const SUBPROTOCOLS: List<String> = List {
    name: "names",
    value_name: "NAME",
    allowed: "names of letters, digits and !#$%&'*+-.^_`|~",
    least: 0,
    secret: false,
    parse: |text| match is_token(text.as_bytes()) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not a subprotocol's name")),
    },
    print: |name| quoted(name),
};

/// Bearer tokens.
pub(super) const TOKENS: List<Secret> = List {
    name: "secrets",
    value_name: "SECRET",
    allowed: "secrets of letters, digits and !#$%&'*+-.^_`|~, so that each also fits a subprotocol",
    // An empty list could be read as "nobody" and as "everybody".
    least: 1,
    secret: true,
    parse: |text| match text {
        "" => Err("a secret is empty".to_owned()),
        _ if is_token(text.as_bytes()) => Ok(Secret::new(text)),
        _ => Err("a secret has a character that is not allowed".to_owned()),
    },
    print: |_| "…".to_owned(),
};

/// A route's path pattern.
pub(super) const PATTERN: Text = Text {
    title: "route's path",
    value_name: "PATTERN",
    allowed: "a path such as \"/echo\" or \"/rooms/{name}\": segments of letters, digits and \
              -._~!$&'()+,;=:@%, or {parameter}",
    check: |text| Pattern::parse(text).map(drop),
};

/// A room space's name.
pub(super) const ROOM_SPACE: Or<Text> = Or(
    "own",
    Text {
        title: "",
        value_name: "SPACE",
        allowed: "a name of up to 255 bytes, such as another route's path",
        check: |text| match text.len() {
            0 => Err("the name is empty".to_owned()),
            1..=255 => Ok(()),
            _ => Err("the name is over 255 bytes".to_owned()),
        },
    },
);

/// An app's name.
pub(super) const APP: Text = Text {
    title: "",
    value_name: "APP",
    allowed: "the name of an app",
    check: |text| match text {
        "" => Err("the name is empty".to_owned()),
        _ => Ok(()),
    },
};

/// A level filter.
pub(super) const LEVEL: Text = Text {
    title: "level",
    value_name: "LEVEL",
    allowed: "off, error, warn, info, debug or trace, then perhaps levels of modules: \
              \"info,steadfast::net=debug\"",
    check: check_level,
};

impl Syntax<AllowedOrigins> for List<AllowedOrigin> {
    fn parse(&self, raw: &Raw) -> Result<AllowedOrigins, Problem> {
        let items: Vec<AllowedOrigin> = Syntax::parse(self, raw)?;
        if items.len() > 1 && items.contains(&AllowedOrigin::Any) {
            return Err("\"*\" is not alone in the list".to_owned().into());
        }
        let mut allowed = AllowedOrigins { same_host: false, ..AllowedOrigins::default() };
        for item in items {
            match item {
                AllowedOrigin::Any => allowed.any = true,
                AllowedOrigin::SameHost => allowed.same_host = true,
                AllowedOrigin::Origin(origin) => allowed.origins.push(origin),
            }
        }
        Ok(allowed)
    }

    fn print(&self, value: &AllowedOrigins) -> String {
        let AllowedOrigins { any, same_host, origins } = value;
        let mut items = Vec::new();
        items.extend(any.then_some(AllowedOrigin::Any));
        items.extend(same_host.then_some(AllowedOrigin::SameHost));
        items.extend(origins.iter().cloned().map(AllowedOrigin::Origin));
        self.print(&items)
    }
}

#[derive(Debug, PartialEq)]
pub(super) enum AllowedOrigin {
    Any,
    SameHost,
    Origin(String),
}

/// `scheme://host[:port]` as browsers serialise it (RFC 6454 §6.2): lower case, no default port; `*.` may
/// stand for subdomains and `*` for all hosts. What may be meant by it, [`OriginPolicy`] knows.
fn origin(text: &str) -> Result<String, String> {
    if text == "null" {
        return Err("\"null\" is every sandboxed page's origin and never allowed".to_owned());
    }
    let lower = text.to_ascii_lowercase();
    let Some(address) = Address::split(&lower) else {
        return Err(format!("{text:?} has no scheme such as https://"));
    };
    if !address.rest.is_empty() {
        return Err(format!("{text:?} has a path; an origin ends with its host or port"));
    }
    let wildcard = if address.authority.starts_with("*.") { "*." } else { "" };
    if address.authority == "*" || lower == "file://" || !wildcard.is_empty() {
        OriginPolicy::new(std::slice::from_ref(&lower))
            .map_err(|_| format!("{text:?} is neither an origin nor a pattern of some"))?;
        if wildcard.is_empty() {
            return Ok(lower);
        }
    }
    // What a URL may have in its place of a host but no browser's origin has: `*`, percent-triplets.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[:]".contains(&byte);
    let authority = Authority::parse(&address.authority[wildcard.len()..])
        .filter(|authority| authority.host.bytes().all(plain) && authority.port != Some(0));
    let Some(Authority { host, port }) = authority else {
        return Err(format!("{text:?} is not an origin"));
    };
    let scheme = address.scheme;
    Ok(match port.filter(|port| Some(*port) != address.default_port()) {
        None => format!("{scheme}://{wildcard}{host}"),
        Some(port) => format!("{scheme}://{wildcard}{host}:{port}"),
    })
}

impl Syntax<TrustedProxies> for List<TrustedProxy> {
    fn parse(&self, raw: &Raw) -> Result<TrustedProxies, Problem> {
        let items: Vec<TrustedProxy> = Syntax::parse(self, raw)?;
        let mut proxies = TrustedProxies::default();
        for proxy in items {
            match proxy {
                TrustedProxy::Network(network) => proxies.networks.push(network),
                TrustedProxy::Unix => proxies.unix = true,
            }
        }
        Ok(proxies)
    }

    fn print(&self, value: &TrustedProxies) -> String {
        let TrustedProxies { networks, unix } = value;
        let mut items: Vec<_> = networks.iter().copied().map(TrustedProxy::Network).collect();
        items.extend(unix.then_some(TrustedProxy::Unix));
        self.print(&items)
    }
}

#[derive(Debug, PartialEq)]
pub(super) enum TrustedProxy {
    Network(IpNetwork),
    Unix,
}

/// tracing-subscriber takes `inof` for a target and logs everything of it: be stricter.
fn check_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for (index, part) in text.split(',').enumerate() {
        match part.split_once('=') {
            None if index > 0 => return Err(format!("{part:?} in {text:?} is not module=level")),
            None if LEVELS.contains(&part) => {}
            None => return Err(format!("{part:?} is not a level")),
            Some((_, level)) if !LEVELS.contains(&level) => {
                return Err(format!("{level:?} in {text:?} is not a level"));
            }
            Some((module, _)) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                if module.is_empty() || !module.chars().all(plain) {
                    return Err(format!("{module:?} in {text:?} is not a module"));
                }
            }
        }
    }
    Ok(())
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
            ("chrome-extension://*", "chrome-extension://*"),
            ("FILE://", "file://"),
            ("https://*.Example.org:443", "https://*.example.org"),
            ("https://*.example.org:8443", "https://*.example.org:8443"),
        ] {
            assert_eq!(origin(text).as_deref(), Ok(expected));
        }
        for text in ["https://", "https://a:0", "https://a:99999", "https://u@h", "https://[::z]"] {
            assert_eq!(origin(text), Err(format!("{text:?} is not an origin")));
        }
        for text in ["https://*.org", "https://*."] {
            let error = format!("{text:?} is neither an origin nor a pattern of some");
            assert_eq!(origin(text), Err(error));
        }
        for text in ["https://a*.example.org", "https://a.*.org", "https://*.a.*", "https://**"] {
            assert_eq!(origin(text), Err(format!("{text:?} is not an origin")));
        }
    }
}
