//! Which path leads where.

use std::borrow::Cow;

use crate::app::erased::AnyApp;
use crate::app::middleware::Chain;
use crate::base::limits::Limits;
use crate::http::Response;
use crate::session::Compression;
use crate::session::handshake::DeflatePolicy;

/// A route as one worker has it.
pub struct Route {
    /// Its path.
    pub pattern: Pattern,
    /// The name of what is done there, by which it is found again in another process.
    pub app: Box<str>,
    /// What is done there.
    pub target: Target,
    /// The middleware in front of it.
    pub chain: Chain,
    /// What its connections may cost.
    pub limits: Limits,
    /// How its messages are compressed, where that was agreed.
    pub compression: Compression,
    /// Subprotocols it speaks.
    pub subprotocols: Vec<String>,
    /// What it agrees to of permessage-deflate.
    pub deflate: Option<DeflatePolicy>,
}

/// What a route does.
pub enum Target {
    /// Answers with this page.
    Page(Response),
    /// Opens WebSocket connections to an app.
    App(Box<dyn AnyApp>),
    /// Nothing: for connections without a route.
    Nothing,
}

/// A path pattern: literal segments and at most one that captures, such as `/rooms/{name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Param,
}

impl Pattern {
    /// Reads a pattern that has been checked: it begins with `/`.
    pub fn new(text: &str) -> Self {
        let segment = |text: &str| match text.starts_with('{') && text.ends_with('}') {
            true => Segment::Param,
            false => Segment::Literal(text.to_owned()),
        };
        Self { text: text.into(), segments: text.split('/').skip(1).map(segment).collect() }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a path, as it was sent, matches. Segments are told apart before they are decoded,
    /// so that `%2F` is part of a name. `Some(None)` matches without a parameter.
    pub fn matches(&self, path: &str) -> Option<Option<String>> {
        let mut parts = path.split('/').skip(1);
        let mut param = None;
        for segment in &self.segments {
            let part = crate::http::percent_decode(parts.next()?, false).ok()?;
            match segment {
                Segment::Literal(literal) if *literal == part => {}
                Segment::Param if !part.is_empty() => param = Some(Cow::into_owned(part)),
                _ => return None,
            }
        }
        parts.next().is_none().then_some(param)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let cases = [
            ("/", "/", Some(None)),
            ("/", "", None),
            ("/", "/x", None),
            ("/echo", "/echo", Some(None)),
            ("/echo", "/ech%6f", Some(None)),
            ("/echo", "/echo/", None),
            ("/rooms/{name}", "/rooms/a", Some(Some("a"))),
            ("/rooms/{name}", "/rooms/a%2Fb", Some(Some("a/b"))),
            ("/rooms/{name}", "/rooms/gr%C3%B6n", Some(Some("grön"))),
            ("/rooms/{name}", "/rooms/", None),
            ("/rooms/{name}", "/rooms", None),
            ("/rooms/{name}", "/rooms/a/b", None),
            ("/{tenant}/feed", "/acme/feed", Some(Some("acme"))),
        ];
        for (pattern, path, expected) in cases {
            let matched = Pattern::new(pattern).matches(path);
            let expected = expected.map(|param: Option<&str>| param.map(str::to_owned));
            assert_eq!(matched, expected, "{pattern} {path}");
        }
    }
}
