//! Sec-WebSocket-Extensions: its grammar (RFC 6455 §9.1) and permessage-deflate's parameters
//! (RFC 7692 §7.1).

use std::borrow::Cow;
use std::fmt;

use crate::base::DeflateParams;
use crate::http::is_token;

/// The name of the one extension spoken here.
pub(super) const DEFLATE: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// What a client offers. It wants no context takeover either way, as no state is kept here, and
/// leaves the window of what it sends to the server: servers that answer `client_max_window_bits`
/// may only do so if it was offered.
pub(super) const CLIENT_OFFER: &str = "permessage-deflate; server_no_context_takeover; \
                                       client_no_context_takeover; client_max_window_bits";

/// One element of the header: a name and its parameters, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extension<'a> {
    name: &'a str,
    params: Vec<(&'a str, Option<Cow<'a, str>>)>,
}

/// The header is outside its grammar.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads one header line's extensions. Empty list elements are ignored (RFC 9110 §5.6.1).
///
/// Each byte is looked at a fixed number of times. An element takes two bytes at least and some 40
/// bytes of memory: the bound of both is `head_bytes_max`.
pub(super) fn parse<'a>(
    value: &'a [u8],
    extensions: &mut Vec<Extension<'a>>,
) -> Result<(), Malformed> {
    let value = std::str::from_utf8(value).map_err(|_| Malformed)?;
    let mut scan = Scan { rest: value };
    loop {
        while scan.take(',') {}
        if scan.rest.is_empty() {
            return Ok(());
        }
        let name = scan.token()?;
        let mut params = Vec::new();
        while scan.take(';') {
            let param = scan.token()?;
            let value = scan.take('=').then(|| scan.value()).transpose()?;
            params.push((param, value));
        }
        extensions.push(Extension { name, params });
        if !scan.rest.is_empty() && !scan.rest.starts_with(',') {
            return Err(Malformed);
        }
    }
}

/// A cursor that stands on no white space after each step.
struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    fn advance(&mut self, rest: &'a str) {
        self.rest = rest.trim_start_matches([' ', '\t']);
    }

    fn take(&mut self, separator: char) -> bool {
        let found = self.rest.strip_prefix(separator);
        if let Some(rest) = found {
            self.advance(rest);
        }
        found.is_some()
    }

    fn token(&mut self) -> Result<&'a str, Malformed> {
        let ends = |c: char| !c.is_ascii() || !is_token(&[c as u8]);
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.advance(rest);
        if token.is_empty() {
            return Err(Malformed);
        }
        Ok(token)
    }

    /// A token, or a quoted string that is one once it is unquoted (RFC 6455 §9.1).
    fn value(&mut self) -> Result<Cow<'a, str>, Malformed> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            return self.token().map(Cow::Borrowed);
        };
        let mut text = String::new();
        let mut chars = quoted.chars();
        loop {
            match chars.next().ok_or(Malformed)? {
                '"' => break,
                '\\' => text.push(chars.next().ok_or(Malformed)?),
                other => text.push(other),
            }
        }
        self.advance(chars.as_str());
        if !is_token(text.as_bytes()) {
            return Err(Malformed);
        }
        Ok(Cow::Owned(text))
    }
}

/// How a route compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeflatePolicy {
    /// Largest window we compress with, as its base-2 logarithm, 9 to 15.
    pub server_window_bits: u8,
    /// Largest window the client is asked to compress with, 9 to 15. It is asked only if it said
    /// that it can be. `None` leaves it alone: we inflate with 15 in any case.
    pub client_window_bits: Option<u8>,
}

impl Default for DeflatePolicy {
    fn default() -> Self {
        Self { server_window_bits: 15, client_window_bits: None }
    }
}

/// An accepted offer: the parameters, and which of them the answer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeflateAnswer {
    pub(super) params: DeflateParams,
    names_server_window: bool,
    names_client_window: bool,
}

impl DeflatePolicy {
    /// The answer to one offer, or `None` to decline it (RFC 7692 §5.1): it is another extension,
    /// or has a parameter that is unknown, repeated, invalid, or cannot be served.
    ///
    /// Both `no_context_takeover` parameters are answered without having been offered, which
    /// RFC 7692 §7.1.1 allows.
    pub(super) fn answer(&self, offer: &Extension<'_>) -> Option<DeflateAnswer> {
        let offered = Parameters::read(offer)?;
        let server_limit = match offered.server_max_window_bits {
            None => 15,
            // zlib has no window of 256 bytes; it would use 512 and the peer could not inflate.
            Some(None | Some(..=8)) => return None,
            Some(Some(bits)) => bits,
        };
        let client_limit = offered.client_max_window_bits.flatten().unwrap_or(15);
        // An answer is of use only if it asks for less than the client would do by itself.
        let asked = self
            .client_window_bits
            .filter(|&asked| offered.client_max_window_bits.is_some() && asked < client_limit);
        Some(DeflateAnswer {
            params: DeflateParams {
                server_window_bits: self.server_window_bits.clamp(9, 15).min(server_limit),
                client_window_bits: asked.unwrap_or(client_limit),
            },
            names_server_window: offered.server_max_window_bits.is_some(),
            names_client_window: asked.is_some(),
        })
    }
}

impl fmt::Display for DeflateAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DEFLATE}; {SERVER_NO_CONTEXT_TAKEOVER}; {CLIENT_NO_CONTEXT_TAKEOVER}")?;
        if self.names_server_window {
            let bits = self.params.server_window_bits;
            write!(f, "; {SERVER_MAX_WINDOW_BITS}={bits}")?;
        }
        if self.names_client_window {
            let bits = self.params.client_window_bits;
            write!(f, "; {CLIENT_MAX_WINDOW_BITS}={bits}")?;
        }
        Ok(())
    }
}

/// What a client makes of the server's answer to [`CLIENT_OFFER`]: `None` if it must fail the
/// connection (RFC 7692 §7.1: parameters that are unknown, repeated or invalid in an answer).
///
/// Without `server_no_context_takeover` it fails, too (§7.1.1.1: a server that accepts the offer
/// answers it). `client_no_context_takeover` may be absent: we keep no context anyway. A
/// `client_max_window_bits` of 8 fails, as zlib cannot compress so.
pub(super) fn accept_answer(answer: &Extension<'_>) -> Option<DeflateParams> {
    let answered = Parameters::read(answer)?;
    let bits = |param: Option<Option<u8>>| match param {
        None => Some(15),
        Some(bits) => bits,
    };
    let server_window_bits = bits(answered.server_max_window_bits)?;
    let client_window_bits = bits(answered.client_max_window_bits).filter(|&bits| bits >= 9)?;
    answered
        .server_no_context_takeover
        .then_some(DeflateParams { server_window_bits, client_window_bits })
}

/// The parameters of permessage-deflate, as far as their grammar goes.
#[derive(Default)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    /// Outer: whether it is there. Inner: its value, 8 to 15.
    server_max_window_bits: Option<Option<u8>>,
    client_max_window_bits: Option<Option<u8>>,
}

impl Parameters {
    fn read(extension: &Extension<'_>) -> Option<Self> {
        if extension.name != DEFLATE {
            return None;
        }
        let mut read = Self::default();
        for (name, value) in &extension.params {
            let value = value.as_deref();
            let fresh = match *name {
                SERVER_NO_CONTEXT_TAKEOVER if value.is_none() => {
                    !std::mem::replace(&mut read.server_no_context_takeover, true)
                }
                CLIENT_NO_CONTEXT_TAKEOVER if value.is_none() => {
                    !std::mem::replace(&mut read.client_no_context_takeover, true)
                }
                SERVER_MAX_WINDOW_BITS => {
                    let bits = window_bits(value)?;
                    read.server_max_window_bits.replace(bits).is_none()
                }
                CLIENT_MAX_WINDOW_BITS => {
                    let bits = window_bits(value)?;
                    read.client_max_window_bits.replace(bits).is_none()
                }
                _ => false,
            };
            if !fresh {
                return None;
            }
        }
        Some(read)
    }
}

/// A decimal number from 8 to 15 without leading zeros (RFC 7692 §7.1.2); `None` outside of that.
fn window_bits(value: Option<&str>) -> Option<Option<u8>> {
    match value {
        None => Some(None),
        Some("8") => Some(Some(8)),
        Some("9") => Some(Some(9)),
        Some(two) if two.len() == 2 && two.starts_with('1') => {
            two.parse().ok().filter(|&bits| bits <= 15).map(Some)
        }
        Some(_) => None,
    }
}
