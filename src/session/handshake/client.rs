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
use crate::http::{Authority, ResponseHead, check_target, is_token};

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
        let (scheme, rest) = url.split_once("://").ok_or(bad("it has no scheme"))?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err(bad("its scheme is neither ws nor wss")),
        };
        if rest.contains('#') {
            return Err(bad("a WebSocket URL has no fragment"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = match target.starts_with('/') {
            true => target.to_owned(),
            false => format!("/{target}"),
        };
        check_target(&target).map_err(|_| bad("its path or query must be percent-encoded"))?;
        let parsed = Authority::parse(authority).ok_or(bad("its host or port is invalid"))?;
        Ok(Self {
            secure,
            host: parsed.host.trim_matches(['[', ']']).to_owned(),
            port: parsed.port.unwrap_or(if secure { 443 } else { 80 }),
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
            return Err(ClientError::Refused {
                status: head.status(),
                phrase: head.phrase(),
            });
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
        let offered = self
            .subprotocols
            .iter()
            .find(|offered| offered.as_bytes() == name);
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
            _ => Err(ClientError::BadAnswer(
                "it has an extension that was not offered",
            )),
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
        let ours = [
            "upgrade",
            "connection",
            "content-length",
            "transfer-encoding",
        ];
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
mod tests {
    use super::super::{DeflatePolicy, Policy, check};
    use super::*;
    use crate::base::limits::HeadLimits;
    use crate::http::Head;

    fn options() -> ClientOptions<'static> {
        ClientOptions {
            key: *b"the sample nonce",
            subprotocols: &[],
            headers: &[],
            deflate: false,
        }
    }

    fn url() -> ClientUrl {
        ClientUrl::parse("ws://example.org/chat").unwrap()
    }

    fn answer(handshake: &ClientHandshake, bytes: &[u8]) -> Result<ClientAgreed, ClientError> {
        handshake.check_response(&ResponseHead::parse(bytes, &HeadLimits::default()).unwrap())
    }

    #[test]
    fn urls() {
        let url = ClientUrl::parse("WS://[::1]:8000?a=b").unwrap();
        assert_eq!(
            (url.secure, url.host.as_str(), url.port),
            (false, "::1", 8000)
        );
        assert_eq!(
            (url.authority.as_str(), url.target.as_str()),
            ("[::1]:8000", "/?a=b")
        );
        let url = ClientUrl::parse("wss://example.org").unwrap();
        assert_eq!(
            (url.secure, url.port, url.target.as_str()),
            (true, 443, "/")
        );
        for bad in [
            "example.org",
            "ftp://a/",
            "ws://",
            "ws://a b/",
            "ws://a/#b",
            "ws://a/b c",
            "ws://a:x/",
            "ws://a/\r\nX: y",
            "ws://u:p@a/",
        ] {
            assert!(
                matches!(ClientUrl::parse(bad), Err(ClientError::BadUrl(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_request() {
        let handshake = ClientHandshake::new(
            &url(),
            &ClientOptions {
                subprotocols: &["a".to_owned(), "b".to_owned()],
                headers: &[("Origin".to_owned(), "http://example.org".to_owned())],
                deflate: true,
                ..options()
            },
        );
        assert_eq!(
            std::str::from_utf8(handshake.unwrap().request()).unwrap(),
            "GET /chat HTTP/1.1\r\n\
             Host: example.org\r\n\
             Upgrade: websocket\r\n\
             Connection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: a, b\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
             client_no_context_takeover; client_max_window_bits\r\n\
             Origin: http://example.org\r\n\r\n"
        );
    }

    #[test]
    fn what_cannot_be_sent() {
        for (name, value) in [
            ("X", "a\r\nY: b"),
            ("X Y", "a"),
            ("", "a"),
            ("Connection", "close"),
            ("sec-websocket-key", "a"),
            ("Content-Length", "0"),
        ] {
            let headers = [(name.to_owned(), value.to_owned())];
            let options = ClientOptions {
                headers: &headers,
                ..options()
            };
            let error = ClientHandshake::new(&url(), &options).unwrap_err();
            assert_eq!(error, ClientError::BadHeader(name.to_owned()));
        }
        for names in [&["a b"][..], &["a", "a"], &[""]] {
            let subprotocols: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let options = ClientOptions {
                subprotocols: &subprotocols,
                ..options()
            };
            let error = ClientHandshake::new(&url(), &options).unwrap_err();
            assert!(matches!(error, ClientError::BadSubprotocol(_)));
        }
    }

    #[test]
    fn a_host_header_replaces_that_of_the_url() {
        let headers = [("host".to_owned(), "other".to_owned())];
        let options = ClientOptions {
            headers: &headers,
            ..options()
        };
        let handshake = ClientHandshake::new(&url(), &options).unwrap();
        let head = Head::parse(handshake.request(), &HeadLimits::default()).unwrap();
        assert_eq!(head.host(), Some("other"));
    }

    /// Both sides of this module understand each other.
    #[test]
    fn client_and_server_agree() {
        let subprotocols = ["a".to_owned(), "b".to_owned()];
        for (deflate, server_window_bits, client_window_bits) in [
            (false, 15, None),
            (true, 15, None),
            (true, 9, Some(9)),
            (true, 12, Some(14)),
        ] {
            let options = ClientOptions {
                subprotocols: &subprotocols,
                deflate,
                ..options()
            };
            let client = ClientHandshake::new(&url(), &options).unwrap();
            let head = Head::parse(client.request(), &HeadLimits::default()).unwrap();
            let agreed = check(&head).unwrap().agree(&Policy {
                subprotocols: &subprotocols[1..],
                deflate: Some(DeflatePolicy {
                    server_window_bits,
                    client_window_bits,
                }),
            });
            let joined = answer(&client, &agreed.response()).unwrap();
            assert_eq!(joined.subprotocol.as_deref(), Some("b"));
            assert_eq!(joined.deflate.is_some(), deflate);
            // The server did not name its window, so the client must expect the largest.
            let client_bits = |params: DeflateParams| params.client_window_bits;
            assert_eq!(
                joined.deflate.map(client_bits),
                agreed.deflate.map(client_bits)
            );
        }
    }

    #[test]
    fn answers() {
        const OK: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\
             Connection: upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        let subprotocols = ["a".to_owned()];
        let offering = ClientOptions {
            subprotocols: &subprotocols,
            deflate: true,
            ..options()
        };
        let offering = ClientHandshake::new(&url(), &offering).unwrap();
        let plain = ClientHandshake::new(&url(), &options()).unwrap();

        let fine = |handshake: &ClientHandshake, more: &str| {
            answer(handshake, format!("{OK}{more}\r\n").as_bytes())
        };
        assert!(fine(&plain, "").is_ok());
        assert!(fine(&offering, "").is_ok());
        assert!(fine(&offering, "Sec-WebSocket-Protocol: a\r\n").is_ok());
        let extension = |value: &str| {
            let header = format!("Sec-WebSocket-Extensions: permessage-deflate{value}\r\n");
            fine(&offering, &header).map(|agreed| {
                let params = agreed.deflate.unwrap();
                (params.server_window_bits, params.client_window_bits)
            })
        };
        let both = "; server_no_context_takeover; client_no_context_takeover";
        assert_eq!(extension(both), Ok((15, 15)));
        assert_eq!(extension("; server_no_context_takeover"), Ok((15, 15)));
        let windows = "; server_max_window_bits=8; client_max_window_bits=9";
        assert_eq!(extension(&format!("{both}{windows}")), Ok((8, 9)));
        for bad in [
            "",
            "; client_no_context_takeover",
            "; server_no_context_takeover; server_no_context_takeover",
            "; server_no_context_takeover; client_max_window_bits",
            "; server_no_context_takeover; client_max_window_bits=8",
            "; server_no_context_takeover; server_max_window_bits",
            "; server_no_context_takeover; server_max_window_bits=16",
            "; server_no_context_takeover; unknown",
            "; server_no_context_takeover, permessage-deflate; server_no_context_takeover",
            ";",
        ] {
            assert!(
                matches!(extension(bad), Err(ClientError::BadAnswer(_))),
                "{bad}"
            );
        }
        for more in [
            "Sec-WebSocket-Protocol: a\r\n",
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n",
        ] {
            assert!(
                matches!(fine(&plain, more), Err(ClientError::BadAnswer(_))),
                "{more}"
            );
        }
        for more in [
            "Sec-WebSocket-Protocol: A\r\n",
            "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n",
            "Sec-WebSocket-Extensions: x\r\n",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        ] {
            assert!(
                matches!(fine(&offering, more), Err(ClientError::BadAnswer(_))),
                "{more}"
            );
        }
        for (from, to) in [
            ("HTTP/1.1", "HTTP/1.0"),
            ("Upgrade: WebSocket\r\n", ""),
            ("Connection: upgrade\r\n", ""),
            ("s3pP", "S3pP"),
            ("Sec-WebSocket-Accept", "X"),
        ] {
            let bytes = format!("{OK}\r\n").replacen(from, to, 1);
            let result = answer(&plain, bytes.as_bytes());
            assert!(matches!(result, Err(ClientError::BadAnswer(_))), "{bytes}");
        }
        assert_eq!(
            answer(&plain, b"HTTP/1.1 403 No\r\n\r\n"),
            Err(ClientError::Refused {
                status: 403,
                phrase: "No".to_owned()
            })
        );
    }
}
