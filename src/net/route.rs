//! Which path leads where.

use std::borrow::Cow;

use crate::app::erased::AnyApp;
use crate::app::middleware::Chain;
use crate::app::request::Param;
use crate::base::limits::Limits;
use crate::http::{Response, percent_decode};
use crate::hub::Space;
use crate::session::Compression;
use crate::session::handshake::DeflatePolicy;

/// A route as one worker has it.
pub struct Route {
    /// Its path.
    pub pattern: Pattern,
    /// Where its rooms are; routes of another space do not reach them.
    pub space: Space,
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
    /// Says whether the server is alive, which it is.
    Health,
    /// Says whether new clients should come: not while it drains.
    Ready,
    /// Opens WebSocket connections to an app.
    App(Box<dyn AnyApp>),
    /// Nothing: for connections without a route.
    Nothing,
}

/// A path pattern: literal segments, and segments that capture a parameter, such as
/// `/rooms/{name}`. Nothing else has a meaning in a pattern, and what looks as if it had one in
/// other programs (`*`, `:name`) is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// Decoded.
    Literal(Box<str>),
    Param(Box<str>),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, for whoever wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(format!("{text:?} does not begin with \"/\""));
        };
        let mut segments = Vec::new();
        if path.is_empty() {
            segments.push(Segment::Literal("".into()));
            return Ok(Self { text: text.into(), segments });
        }
        for written in path.split('/') {
            let segment = Segment::parse(written).map_err(|problem| match problem {
                Problem::Empty => format!("{text:?} has an empty segment"),
                Problem::Dots => {
                    format!("{text:?} has a segment {written:?}, which clients remove")
                }
                Problem::Syntax => format!(
                    "{written:?} in {text:?} would be a literal; a parameter is a whole segment {{name}}"
                ),
                Problem::Bytes => format!("{written:?} in {text:?} is not a segment of a path"),
            })?;
            if let Segment::Param(name) = &segment
                && segments.contains(&segment)
            {
                return Err(format!("the parameter {{{name}}} is in {text:?} twice"));
            }
            segments.push(segment);
        }
        Ok(Self { text: text.into(), segments })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of its parameters, in their order.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Param(name) => Some(&**name),
            Segment::Literal(_) => None,
        })
    }

    /// Whether the two match the same paths: they differ in their parameters' names at most.
    pub fn matches_as(&self, other: &Self) -> bool {
        let same = |(ours, theirs): (&Segment, &Segment)| match (ours, theirs) {
            (Segment::Param(_), Segment::Param(_)) => true,
            _ => ours == theirs,
        };
        self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(same)
    }

    /// Whether a path matches. Compares no more bytes than the pattern has, whatever the path.
    pub fn matches(&self, path: &PathSegments<'_>) -> bool {
        let matches = |(segment, part): (&Segment, &Cow<'_, str>)| match segment {
            Segment::Literal(literal) => **literal == **part,
            Segment::Param(_) => !part.is_empty(),
        };
        self.segments.len() == path.0.len() && self.segments.iter().zip(&path.0).all(matches)
    }

    /// What the parameters are in a path that matches.
    pub fn capture<'p>(&'p self, path: PathSegments<'p>) -> Vec<Param<'p>> {
        let param = |(segment, value): (&'p Segment, Cow<'p, str>)| match segment {
            Segment::Param(name) => Some(Param { name, value }),
            Segment::Literal(_) => None,
        };
        self.segments.iter().zip(path.0).filter_map(param).collect()
    }
}

enum Problem {
    Empty,
    Dots,
    Syntax,
    Bytes,
}

impl Segment {
    fn parse(text: &str) -> Result<Self, Problem> {
        let is_name = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            !name.is_empty() && name.bytes().all(plain)
        };
        if let Some(name) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'))
            && is_name(name)
        {
            return Ok(Self::Param(name.into()));
        }
        match text {
            "" => return Err(Problem::Empty),
            "." | ".." => return Err(Problem::Dots),
            _ if text.starts_with(':') || text.contains('*') => return Err(Problem::Syntax),
            _ => {}
        }
        if !text.bytes().all(is_path_byte) {
            return Err(Problem::Bytes);
        }
        let decoded = percent_decode(text).map_err(|_| Problem::Bytes)?;
        Ok(Self::Literal(decoded.into()))
    }
}

/// `pchar` of RFC 3986 §3.3.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%".contains(&byte)
}

/// The segments of a request's path, decoded: taken apart once, however many routes there are.
#[derive(Debug, Clone)]
pub struct PathSegments<'a>(Vec<Cow<'a, str>>);

impl<'a> PathSegments<'a> {
    /// Takes a path apart, as it was sent. Segments are told apart before they are decoded, so that
    /// `%2F` is part of a name. `None` for a path that no pattern of up to `segments_max` segments
    /// can match.
    pub fn split(path: &'a str, segments_max: usize) -> Option<Self> {
        let mut segments = Vec::new();
        for part in path.split('/').skip(1) {
            if segments.len() == segments_max {
                return None;
            }
            segments.push(percent_decode(part).ok()?);
        }
        Some(Self(segments))
    }
}

/// The route of a path: the first whose pattern matches. The first of all is for connections without
/// a route. Costs a pass over the path, and for each route at most its pattern's length.
pub fn find<'p>(routes: &[Route], path: &'p str) -> Option<(usize, PathSegments<'p>)> {
    let routes = routes.iter().map(|route| &route.pattern).enumerate().skip(1);
    let segments_max = routes.clone().map(|(_, pattern)| pattern.segments.len()).max()?;
    let path = PathSegments::split(path, segments_max)?;
    let (index, _) = { routes }.find(|(_, pattern)| pattern.matches(&path))?;
    Some((index, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pattern: &str, path: &str) -> Option<String> {
        let pattern = Pattern::parse(pattern).unwrap();
        let path = PathSegments::split(path, 5).filter(|path| pattern.matches(path))?;
        let params = pattern.capture(path);
        let shown = params.iter().map(|Param { name, value }| format!("{name}={value}"));
        Some(shown.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn patterns() {
        let cases = [
            ("/", "/", Some("")),
            ("/", "", None),
            ("/", "/x", None),
            ("/echo", "/echo", Some("")),
            ("/echo", "/ech%6f", Some("")),
            ("/ech%6F", "/echo", Some("")),
            ("/a%2Fb", "/a%2fb", Some("")),
            ("/a%2Fb", "/a/b", None),
            ("/echo", "/echo/", None),
            ("/rooms/{name}", "/rooms/a", Some("name=a")),
            ("/rooms/{name}", "/rooms/a%2Fb", Some("name=a/b")),
            ("/rooms/{name}", "/rooms/gr%C3%B6n", Some("name=grön")),
            ("/rooms/{name}", "/rooms/", None),
            ("/rooms/{name}", "/rooms", None),
            ("/rooms/{name}", "/rooms/a/b", None),
            ("/{tenant}/feed", "/acme/feed", Some("tenant=acme")),
            ("/r/{name}/{x}", "/r/alpha/1", Some("name=alpha x=1")),
            ("/{x}/{name}", "/1/alpha", Some("x=1 name=alpha")),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(params(pattern, path).as_deref(), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "",
            "a",
            "//",
            "/a/",
            "/a//b",
            "/.",
            "/a/..",
            "/*",
            "/a*",
            "/a/*",
            "/a/{*rest}",
            "/:name",
            "/a/:name",
            "/{}",
            "/{a-b}",
            "/x{a}",
            "/{a}x",
            "/{a",
            "/{a}/{a}",
            "/[a]",
            "/<a>",
            "/a?b",
            "/a#b",
            "/a b",
            "/ä",
            "/%",
            "/%zz",
            "/%ff",
            "/a\\b",
            "/(.*)",
            "/a|b",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_that_match_the_same_paths_are_known() {
        let pattern = |text| Pattern::parse(text).unwrap();
        assert!(pattern("/rooms/{name}").matches_as(&pattern("/r%6Foms/{room}")));
        assert!(!pattern("/rooms/{name}").matches_as(&pattern("/rooms/name")));
        assert!(pattern("/a/{b}/c").params().eq(["b"]));
        assert_eq!(pattern("/a/b/c").params().count(), 0);
    }

    /// No route costs more because the path is long, and what cannot match is not decoded.
    #[test]
    fn a_path_is_taken_apart_once_and_no_further_than_needed() {
        let long = "/a".repeat(4_000);
        assert!(PathSegments::split(&long, 3).is_none());
        let exact = PathSegments::split("/a/%62/c", 3).unwrap();
        assert_eq!(exact.0, ["a", "b", "c"]);
    }
}
