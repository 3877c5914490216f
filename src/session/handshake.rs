//! The opening handshake, server side (RFC 6455 §4.2, RFC 7692 §5 and §7).
//!
//! [`check`] decides whether a head is a WebSocket handshake and what it offers, [`Offer::agree`]
//! what of it the route's [`Policy`] takes, and [`Agreed::response`] is the 101. The other side is
//! in [`client`].

use std::fmt;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{GeneralPurposeConfig, STANDARD};

use crate::base::DeflateParams;
use crate::http::{Head, Refusal, http_date, is_token};

pub mod client;
mod extensions;

pub use extensions::DeflatePolicy;
use extensions::{DeflateAnswer, Extension};

/// Appended to the key before it is hashed (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// 16 bytes of base64 end in a group whose last 4 bits mean nothing. RFC 6455 §4.1's own example
/// key has some of them set, so they need not be zero.
const KEY_ENGINE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// What a route accepts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policy<'p> {
    /// Subprotocols that the app speaks.
    pub subprotocols: &'p [String],
    /// How to compress; `None` declines permessage-deflate.
    pub deflate: Option<DeflatePolicy>,
}

/// A valid handshake: what the client offers.
#[derive(Clone)]
pub struct Offer<'a> {
    key: &'a [u8],
    subprotocols: Vec<&'a str>,
    extensions: Vec<Extension<'a>>,
}

/// What both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The value of Sec-WebSocket-Accept.
    pub accept: [u8; 28],
    /// The subprotocol; one that the client offered.
    pub subprotocol: Option<String>,
    /// permessage-deflate, if it is used.
    pub deflate: Option<DeflateParams>,
    /// How the server words the above.
    answer: Option<DeflateAnswer>,
}

/// Decides whether this request is a handshake that can be accepted.
///
/// # Errors
/// 405 for a method that nothing here has; 426 if it does not ask for WebSocket, version 13 (HTTP/1.0 cannot:
/// RFC 9110 §7.8 ignores its Upgrade); 400 for a handshake that is malformed.
pub fn check<'a>(head: &Head<'a>) -> Result<Offer<'a>, Refusal> {
    let fields = head.fields();
    match head.method() {
        "GET" => {}
        "HEAD" => return Err(Refusal::upgrade_required("a WebSocket handshake is a GET")),
        _ => return Err(Refusal::method_not_allowed()),
    }
    if head.is_http_1_0() {
        return Err(Refusal::upgrade_required("a WebSocket handshake needs HTTP/1.1"));
    }
    if !fields.has_token("upgrade", "websocket") {
        return Err(Refusal::upgrade_required(
            "this is a WebSocket endpoint: the Upgrade header does not say websocket",
        ));
    }
    if !fields.has_token("connection", "upgrade") {
        return Err(Refusal::upgrade_required(
            "this is a WebSocket endpoint: the Connection header does not say Upgrade",
        ));
    }
    let mut versions = fields.all("sec-websocket-version");
    if versions.next() != Some(b"13") {
        return Err(Refusal::upgrade_required("only WebSocket version 13 is spoken here"));
    }
    if versions.next().is_some() {
        return Err(Refusal::new(400, "Sec-WebSocket-Version is repeated"));
    }
    if head.has_body() {
        return Err(Refusal::new(400, "a WebSocket handshake has no body"));
    }
    let mut extensions = Vec::new();
    for value in fields.all("sec-websocket-extensions") {
        extensions::parse(value, &mut extensions)
            .map_err(|_| Refusal::new(400, "Sec-WebSocket-Extensions is malformed"))?;
    }
    Ok(Offer { key: parse_key(head)?, subprotocols: parse_subprotocols(head)?, extensions })
}

impl Offer<'_> {
    /// The subprotocols offered, in the client's order of preference.
    pub fn subprotocols(&self) -> &[&str] {
        &self.subprotocols
    }

    /// Takes what the policy allows: the first subprotocol that the client offers and the server
    /// speaks, and the first permessage-deflate offer that can be served. What cannot be agreed on
    /// is left out; the handshake succeeds nevertheless (RFC 6455 §4.2.2, RFC 7692 §5.1).
    ///
    /// Each subprotocol offered is compared with each that the route speaks, which its configuration
    /// bounds; each extension offered is looked at once.
    pub fn agree(&self, policy: &Policy<'_>) -> Agreed {
        let subprotocol = self
            .subprotocols
            .iter()
            .find(|offered| policy.subprotocols.iter().any(|spoken| spoken == *offered))
            .map(|&offered| offered.to_owned());
        let answer = policy
            .deflate
            .and_then(|policy| self.extensions.iter().find_map(|offer| policy.answer(offer)));
        Agreed {
            accept: accept_value(self.key),
            subprotocol,
            deflate: answer.map(|answer| answer.params),
            answer,
        }
    }
}

/// A subprotocol may carry a bearer token, so none is shown.
impl fmt::Debug for Offer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("subprotocols", &self.subprotocols.len())
            .field("extensions", &self.extensions)
            .finish_non_exhaustive()
    }
}

impl Agreed {
    /// The 101 response on the wire, made at this `time`.
    pub fn response(&self, time: SystemTime) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(320);
        bytes.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nDate: ");
        bytes.extend_from_slice(http_date(time).as_bytes());
        bytes.extend_from_slice(
            b"\r\nUpgrade: websocket\r\n\
              Connection: Upgrade\r\n\
              Sec-WebSocket-Accept: ",
        );
        bytes.extend_from_slice(&self.accept);
        if let Some(subprotocol) = &self.subprotocol {
            bytes.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            bytes.extend_from_slice(subprotocol.as_bytes());
        }
        if let Some(answer) = &self.answer {
            bytes.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
            bytes.extend_from_slice(answer.to_string().as_bytes());
        }
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes
    }
}

/// Sec-WebSocket-Accept for a key: base64 of SHA-1 of key and GUID (RFC 6455 §4.2.2).
pub fn accept_value(key: &[u8]) -> [u8; 28] {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(GUID);
    let mut accept = [0; 28];
    let written = STANDARD.encode_slice(hash.digest().bytes(), &mut accept);
    debug_assert_eq!(written, Ok(28), "20 bytes are 28 of base64");
    accept
}

/// The key as sent: it is hashed as text. Its 24 characters must decode to 16 bytes.
fn parse_key<'a>(head: &Head<'a>) -> Result<&'a [u8], Refusal> {
    let mut keys = head.headers("sec-websocket-key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(Refusal::new(400, "Sec-WebSocket-Key must be there exactly once"));
    };
    // `decode_slice` wants room for the three bytes that each group of four could hold.
    let mut decoded = [0; 18];
    match KEY_ENGINE.decode_slice(key, &mut decoded) {
        Ok(16) => Ok(key),
        _ => Err(Refusal::new(400, "Sec-WebSocket-Key is not 16 bytes in base64")),
    }
}

/// Repeated names are let through: what matters is that the one echoed was offered.
fn parse_subprotocols<'a>(head: &Head<'a>) -> Result<Vec<&'a str>, Refusal> {
    head.fields()
        .list("sec-websocket-protocol")
        .map(|name| match std::str::from_utf8(name) {
            Ok(text) if is_token(name) => Ok(text),
            _ => Err(Refusal::new(400, "Sec-WebSocket-Protocol is malformed")),
        })
        .collect()
}

#[cfg(test)]
mod tests;
