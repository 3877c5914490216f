//! Answers that are not a 101. Each ends its connection.

use std::borrow::Cow;
use std::time::SystemTime;

use super::{HeadError, http_date, is_token};

/// The methods of everything that is served here (RFC 9110 §9.3).
const METHODS: &str = "GET, HEAD, OPTIONS";

/// An answer after which the connection is closed: a page, or a refusal with a short text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Cow<'static, [u8]>,
    /// Only the head is sent: the answer to a HEAD.
    head_only: bool,
}

impl Response {
    /// An answer with a body of this media type. A status that cannot have one, or that ends nothing
    /// (1xx, 204, 205, 304, and numbers that are no status), becomes 500.
    pub fn new(status: u16, media_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        let status = match status {
            204 | 205 | 304 => 500,
            200..=599 => status,
            _ => 500,
        };
        Self { status, headers: Vec::new(), body: body.into(), head_only: false }
            .with_header("Content-Type", media_type)
    }

    /// A short plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.into().into_bytes())
    }

    /// The answer to OPTIONS: which methods there are.
    pub fn methods() -> Self {
        Self { status: 204, headers: Vec::new(), body: Cow::default(), head_only: true }
            .with_header("Allow", METHODS)
    }

    /// Without its body, but with the length of it: the answer to HEAD (RFC 9110 §9.3.2).
    #[must_use]
    pub fn head_only(self) -> Self {
        Self { head_only: true, ..self }
    }

    /// With one more header field. Control characters in the value become spaces. A field is left out
    /// if its name is no token, or if it says where the response ends, which is not the caller's to
    /// say. Nothing a caller passes on can split the response.
    #[must_use]
    pub fn with_header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (name, mut value) = (name.into(), value.into());
        if value.contains(char::is_control) {
            value = value.replace(char::is_control, " ").into();
        }
        let frames = ["Content-Length", "Transfer-Encoding", "Connection", "Trailer"]
            .iter()
            .any(|framing| name.eq_ignore_ascii_case(framing));
        if is_token(name.as_bytes()) && !frames {
            self.headers.push((name, value));
        }
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The whole response on the wire, made at this `time`, with Content-Length and
    /// `Connection: close`.
    pub fn to_bytes(&self, time: SystemTime) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} {}\r\n", self.status, phrase(self.status));
        let mut line = |name: &str, value: &str| {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            text.push_str("\r\n");
        };
        line("Date", &http_date(time));
        for (name, value) in &self.headers {
            line(name, value);
        }
        // RFC 9110 §7.8: whoever sends Upgrade names it in Connection, too.
        let upgrades = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        line("Connection", if upgrades { "Upgrade, close" } else { "close" });
        // RFC 9110 §8.6: a 204 has none.
        if self.status != 204 {
            line("Content-Length", &self.body.len().to_string());
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if !self.head_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// A request refused: what its sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status: an error (400 to 599) or a redirection (300 to 399, but 304).
    pub status: u16,
    /// Why, in one line, for a human. It is sent, so it holds no secret.
    pub reason: Cow<'static, str>,
    /// Header fields beside those that every response has.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
}

impl Refusal {
    /// A refusal without further header fields. A status that refuses nothing (101, which would have
    /// the client speak WebSocket to a socket that is about to close, 200, 304, ...) becomes 500.
    pub fn new(status: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status: refusing(status), reason: reason.into(), headers: Vec::new() }
    }

    /// With one more header field.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// 404.
    pub fn not_found() -> Self {
        Self::new(404, "there is nothing at this path")
    }

    /// 405 with Allow.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "only GET, HEAD and OPTIONS are allowed here").with_header("Allow", METHODS)
    }

    /// 426 with what to upgrade to (RFC 9110 §15.5.22, RFC 6455 §4.4).
    pub fn upgrade_required(reason: &'static str) -> Self {
        Self::new(426, reason)
            .with_header("Upgrade", "websocket")
            .with_header("Sec-WebSocket-Version", "13")
    }

    /// The response: the reason is its body, one line.
    pub fn to_response(&self) -> Response {
        let response = Response::text(refusing(self.status), format!("{}\n", self.reason));
        self.headers
            .iter()
            .fold(response, |response, (name, value)| response.with_header(*name, value.clone()))
    }
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        Self::new(error.status(), error.reason())
    }
}

/// The status, if it is one that refuses a request.
fn refusing(status: u16) -> u16 {
    match status {
        304 => 500,
        300..=599 => status,
        _ => 500,
    }
}

/// Reason phrases (RFC 9110 §15); others have none, which is legal (RFC 9112 §4).
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn refusals_say_why_and_close() {
        assert_eq!(
            String::from_utf8(Refusal::method_not_allowed().to_response().to_bytes(UNIX_EPOCH))
                .unwrap(),
            "HTTP/1.1 405 Method Not Allowed\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Allow: GET, HEAD, OPTIONS\r\n\
             Connection: close\r\n\
             Content-Length: 44\r\n\r\n\
             only GET, HEAD and OPTIONS are allowed here\n"
        );
        assert_eq!(
            String::from_utf8(Refusal::upgrade_required("no").to_response().to_bytes(UNIX_EPOCH))
                .unwrap(),
            "HTTP/1.1 426 Upgrade Required\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Upgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n\
             Connection: Upgrade, close\r\n\
             Content-Length: 3\r\n\r\n\
             no\n"
        );
    }

    #[test]
    fn the_answer_to_head_has_the_length_but_no_body() {
        let bytes = Response::text(200, "hello").head_only().to_bytes(UNIX_EPOCH);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("\r\nContent-Length: 5\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn the_answer_to_options_has_no_length() {
        assert_eq!(
            String::from_utf8(Response::methods().to_bytes(UNIX_EPOCH)).unwrap(),
            "HTTP/1.1 204 No Content\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             Allow: GET, HEAD, OPTIONS\r\n\
             Connection: close\r\n\r\n"
        );
    }

    #[test]
    fn headers_cannot_split_the_response() {
        let response = Response::text(400, "")
            .with_header("X-Room", "a\r\nSet-Cookie: b")
            .with_header("X-Other\r\nName", "c");
        let text = String::from_utf8(response.to_bytes(UNIX_EPOCH)).unwrap();
        assert!(text.contains("\r\nX-Room: a  Set-Cookie: b\r\n"));
        assert!(!text.contains("X-Other"));
    }

    #[test]
    fn a_response_ends_where_we_say() {
        let response = Response::text(400, "x")
            .with_header("content-length", "9")
            .with_header("Transfer-Encoding", "chunked")
            .with_header("CONNECTION", "keep-alive");
        let text = String::from_utf8(response.to_bytes(UNIX_EPOCH)).unwrap();
        assert!(text.contains("Connection: close\r\nContent-Length: 1\r\n\r\nx"), "{text}");
        assert!(
            !text.contains("chunked") && !text.contains("keep-alive") && !text.contains("h: 9")
        );
    }

    #[test]
    fn what_is_no_refusal_refuses_all_the_same() {
        for status in [0, 99, 100, 101, 103, 199, 200, 204, 299, 304, 600, 1_000, u16::MAX] {
            let mut refusal = Refusal::new(status, "no");
            assert_eq!(refusal.status, 500, "{status}");
            refusal.status = status;
            let bytes = refusal.to_response().to_bytes(UNIX_EPOCH);
            assert!(bytes.starts_with(b"HTTP/1.1 500 Internal Server Error\r\n"), "{status}");
        }
        for status in [300, 302, 308, 400, 418, 421, 503, 599] {
            assert_eq!(Refusal::new(status, "no").to_response().status(), status);
        }
        for status in [100, 101, 204, 205, 304, 999] {
            assert_eq!(Response::text(status, "x").status(), 500, "{status}");
        }
        assert_eq!(Response::text(200, "x").status(), 200);
    }

    #[test]
    fn a_head_error_is_a_refusal() {
        let refusal = Refusal::from(HeadError::TooManyHeaders);
        assert_eq!((refusal.status, refusal.to_response().status()), (431, 431));
    }
}
