//! The opening handshake, client side (RFC 6455 §3 and §4.1).
//!
//! [`ClientUrl`] says where to connect to, [`ClientHandshake::new`] writes the request, and
//! [`ClientHandshake::check_response`] is what the client makes of the answer.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::accept_value;
use super::extensions::{self, CLIENT_OFFER, Extension};
use crate::base::DeflateParams;
use crate::http::{Address, Authority, ResponseHead, check_target, is_token};

/// A `ws` URL, taken apart (RFC 6455 §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientUrl {
    /// Whether it is `wss`.
    pub secure: bool,
    /// Name or address to connect to; IPv6 without brackets.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// `host[:port]` as written, for the Host header.
    pub authority: String,
    /// Path and query, for the request line.
    pub target: String,
}

impl ClientUrl {
    /// Parses `ws://host[:port][/path][?query]`, or `wss` (`http` and `https` mean the same).
    ///
    /// # Errors
    /// [`ClientError::BadUrl`] with what is wrong.
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let bad = ClientError::BadUrl;
        let address = Address::split(url).ok_or(bad("it has no scheme"))?;
        let port = address.default_port().ok_or(bad("its scheme is neither ws nor wss"))?;
        if address.rest.contains('#') {
            return Err(bad("a WebSocket URL has no fragment"));
        }
        let target = match address.rest.starts_with('/') {
            true => address.rest.to_owned(),
            false => format!("/{}", address.rest),
        };
        check_target(&target).map_err(|_| bad("its path or query must be percent-encoded"))?;
        let authority = address.authority;
        let parsed = Authority::parse(authority).ok_or(bad("its host or port is invalid"))?;
        Ok(Self {
            secure: port == 443,
            host: parsed.host.trim_matches(['[', ']']).to_owned(),
            port: parsed.port.unwrap_or(port),
            authority: authority.to_owned(),
            target,
        })
    }
}

/// What the client wants.
#[derive(Debug, Clone, Copy)]
pub struct ClientOptions<'o> {
    /// 16 bytes nobody can predict (RFC 6455 §4.1); randomness is an argument in this layer.
    pub key: [u8; 16],
    /// Subprotocols to offer, in order of preference.
    pub subprotocols: &'o [String],
    /// Further header fields. A Host among them replaces that of the URL.
    pub headers: &'o [(String, String)],
    /// Whether to offer permessage-deflate.
    pub deflate: bool,
}

/// A handshake that waits for its answer.
#[derive(Clone)]
pub struct ClientHandshake {
    accept: [u8; 28],
    subprotocols: Vec<String>,
    deflate: bool,
    request: Vec<u8>,
}

/// What the server agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAgreed {
    /// The subprotocol, one of those offered.
    pub subprotocol: Option<String>,
    /// permessage-deflate, if it is used.
    pub deflate: Option<DeflateParams>,
}

/// Why a client gets no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// The URL is no WebSocket URL.
    BadUrl(&'static str),
    /// A header field that is to be sent is invalid, or belongs to the handshake. With its name.
    BadHeader(String),
    /// A subprotocol that is to be offered is no token, or repeated.
    BadSubprotocol(String),
    /// The server answered something else than 101.
    Refused {
        /// Its status.
        status: u16,
        /// Its reason phrase, without control characters.
        phrase: String,
    },
    /// The server said 101, but not as RFC 6455 §4.1 wants it.
    BadAnswer(&'static str),
}

impl ClientHandshake {
    /// Writes the request.
    ///
    /// # Errors
    /// [`ClientError::BadHeader`], [`ClientError::BadSubprotocol`].
    pub fn new(url: &ClientUrl, options: &ClientOptions<'_>) -> Result<Self, ClientError> {
        check_subprotocols(options.subprotocols)?;
        check_headers(options.headers)?;
        let key = STANDARD.encode(options.key);
        let mut lines = vec![format!("GET {} HTTP/1.1", url.target)];
        if !options.headers.iter().any(|(name, _)| is_host(name)) {
            lines.push(format!("Host: {}", url.authority));
        }
        lines.push("Upgrade: websocket".to_owned());
        lines.push("Connection: Upgrade".to_owned());
        lines.push(format!("Sec-WebSocket-Key: {key}"));
        lines.push("Sec-WebSocket-Version: 13".to_owned());
        if !options.subprotocols.is_empty() {
            let names = options.subprotocols.join(", ");
            lines.push(format!("Sec-WebSocket-Protocol: {names}"));
        }
        if options.deflate {
            lines.push(format!("Sec-WebSocket-Extensions: {CLIENT_OFFER}"));
        }
        for (name, value) in options.headers {
            lines.push(format!("{name}: {value}"));
        }
        Ok(Self {
            accept: accept_value(key.as_bytes()),
            subprotocols: options.subprotocols.to_vec(),
            deflate: options.deflate,
            request: format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes(),
        })
    }

    /// The request on the wire.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Decides whether the answer opens the connection (RFC 6455 §4.1, RFC 7692 §7.1).
    ///
    /// # Errors
    /// [`ClientError::Refused`] for another status than 101, [`ClientError::BadAnswer`] for a 101
    /// that lacks something or takes what was not offered.
    pub fn check_response(&self, head: &ResponseHead<'_>) -> Result<ClientAgreed, ClientError> {
        let bad = |reason| Err(ClientError::BadAnswer(reason));
        if head.status() != 101 {
            return Err(ClientError::Refused { status: head.status(), phrase: head.phrase() });
        }
        if head.is_http_1_0() {
            return bad("it is HTTP/1.0");
        }
        let fields = head.fields();
        if !fields.has_token("upgrade", "websocket") {
            return bad("Upgrade does not say websocket");
        }
        if !fields.has_token("connection", "upgrade") {
            return bad("Connection does not say Upgrade");
        }
        let mut accepts = fields.all("sec-websocket-accept");
        if accepts.next() != Some(&self.accept) || accepts.next().is_some() {
            return bad("Sec-WebSocket-Accept does not fit our key");
        }
        Ok(ClientAgreed {
            subprotocol: self.check_subprotocol(head)?,
            deflate: self.check_extensions(head)?,
        })
    }

    fn check_subprotocol(&self, head: &ResponseHead<'_>) -> Result<Option<String>, ClientError> {
        let mut answered = head.fields().all("sec-websocket-protocol");
        let Some(name) = answered.next() else {
            return Ok(None);
        };
        let offered = self.subprotocols.iter().find(|offered| offered.as_bytes() == name);
        match (offered, answered.next()) {
            (Some(offered), None) => Ok(Some(offered.clone())),
            (_, Some(_)) => Err(ClientError::BadAnswer("it has several subprotocols")),
            (None, None) => Err(ClientError::BadAnswer("its subprotocol was not offered")),
        }
    }

    fn check_extensions(
        &self,
        head: &ResponseHead<'_>,
    ) -> Result<Option<DeflateParams>, ClientError> {
        let mut answered: Vec<Extension<'_>> = Vec::new();
        for value in head.fields().all("sec-websocket-extensions") {
            extensions::parse(value, &mut answered)
                .map_err(|_| ClientError::BadAnswer("Sec-WebSocket-Extensions is malformed"))?;
        }
        match answered.as_slice() {
            [] => Ok(None),
            [answer] if self.deflate => extensions::accept_answer(answer)
                .map(Some)
                .ok_or(ClientError::BadAnswer("its extension cannot be used")),
            _ => Err(ClientError::BadAnswer("it has an extension that was not offered")),
        }
    }
}

/// The request may hold tokens, so it is not shown.
impl fmt::Debug for ClientHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientHandshake").finish_non_exhaustive()
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadUrl(reason) => write!(f, "this is no WebSocket URL: {reason}"),
            Self::BadHeader(name) => write!(f, "the header field {name:?} cannot be sent"),
            Self::BadSubprotocol(name) => write!(f, "the subprotocol {name:?} cannot be offered"),
            Self::Refused { status, phrase } => {
                write!(f, "the server answered {status} {phrase}")
            }
            Self::BadAnswer(reason) => write!(f, "the server's answer is invalid: {reason}"),
        }
    }
}

impl std::error::Error for ClientError {}

fn check_subprotocols(names: &[String]) -> Result<(), ClientError> {
    for (at, name) in names.iter().enumerate() {
        // RFC 6455 §4.1: all are unique.
        if !is_token(name.as_bytes()) || names[..at].contains(name) {
            return Err(ClientError::BadSubprotocol(name.clone()));
        }
    }
    Ok(())
}

fn check_headers(headers: &[(String, String)]) -> Result<(), ClientError> {
    for (at, (name, value)) in headers.iter().enumerate() {
        let ours = ["upgrade", "connection", "content-length", "transfer-encoding"];
        let lower = name.to_ascii_lowercase();
        let repeats_host = is_host(name) && headers[..at].iter().any(|(name, _)| is_host(name));
        if !is_token(name.as_bytes())
            || value.contains(|c: char| c.is_ascii_control() && c != '\t')
            || ours.contains(&lower.as_str())
            || lower.starts_with("sec-websocket-")
            || repeats_host
        {
            return Err(ClientError::BadHeader(name.clone()));
        }
    }
    Ok(())
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host")
}

#[cfg(test)]
mod tests;
