//! Answers that are not a 101. Each ends its connection.

use std::borrow::Cow;

use super::{HeadError, is_token};

/// An answer after which the connection is closed: a page, or a refusal with a short text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Cow<'static, [u8]>,
}

impl Response {
    /// An answer with a body of this media type.
    pub fn new(status: u16, media_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), media_type.into())],
            body: body.into(),
        }
    }

    /// A short plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.into().into_bytes())
    }

    /// With one more header field. Control characters in the value become spaces and a field whose
    /// name is no token is left out: nothing a caller passes on can split the response.
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
        if is_token(name.as_bytes()) {
            self.headers.push((name, value));
        }
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The whole response on the wire, with Content-Length and `Connection: close`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.to_bytes_without_body();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The same without its body, which is the answer to a HEAD (RFC 9110 §9.3.2).
    pub fn to_bytes_without_body(&self) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} {}\r\n", self.status, phrase(self.status));
        let mut line = |name: &str, value: &str| {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            text.push_str("\r\n");
        };
        for (name, value) in &self.headers {
            line(name, value);
        }
        // RFC 9110 §7.8: whoever sends Upgrade names it in Connection, too.
        let upgrades = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        line("Connection", if upgrades { "Upgrade, close" } else { "close" });
        line("Content-Length", &self.body.len().to_string());
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// A request refused: what its sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// Why, in one line, for a human. It is sent, so it holds no secret.
    pub reason: Cow<'static, str>,
    /// Header fields beside those that every response has.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
}

impl Refusal {
    /// A refusal without further header fields.
    pub fn new(status: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason: reason.into(), headers: Vec::new() }
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

    /// 405 with Allow: all that is served here is read with GET.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "only GET is allowed here").with_header("Allow", "GET")
    }

    /// 426 with what to upgrade to (RFC 9110 §15.5.22, RFC 6455 §4.4).
    pub fn upgrade_required(reason: &'static str) -> Self {
        Self::new(426, reason)
            .with_header("Upgrade", "websocket")
            .with_header("Sec-WebSocket-Version", "13")
    }

    /// The response: the reason is its body, one line.
    pub fn to_response(&self) -> Response {
        let response = Response::text(self.status, format!("{}\n", self.reason));
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

/// Reason phrases (RFC 9110 §15); others have none, which is legal (RFC 9112 §4).
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
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

    #[test]
    fn refusals_say_why_and_close() {
        assert_eq!(
            String::from_utf8(Refusal::method_not_allowed().to_response().to_bytes()).unwrap(),
            "HTTP/1.1 405 Method Not Allowed\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Allow: GET\r\n\
             Connection: close\r\n\
             Content-Length: 25\r\n\r\n\
             only GET is allowed here\n"
        );
        assert_eq!(
            String::from_utf8(Refusal::upgrade_required("no").to_response().to_bytes()).unwrap(),
            "HTTP/1.1 426 Upgrade Required\r\n\
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
        let bytes = Response::text(200, "hello").to_bytes_without_body();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("\r\nContent-Length: 5\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn headers_cannot_split_the_response() {
        let response = Response::text(400, "")
            .with_header("X-Room", "a\r\nSet-Cookie: b")
            .with_header("X-Other\r\nName", "c");
        let text = String::from_utf8(response.to_bytes()).unwrap();
        assert!(text.contains("\r\nX-Room: a  Set-Cookie: b\r\n"));
        assert!(!text.contains("X-Other"));
    }

    #[test]
    fn a_head_error_is_a_refusal() {
        let refusal = Refusal::from(HeadError::TooManyHeaders);
        assert_eq!((refusal.status, refusal.to_response().status()), (431, 431));
    }
}
