//! What middleware and apps see of a request before the handshake is accepted.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::base::snapshot::{Reader, SnapshotError, Writer};
use crate::http::{Head, HeadError};

/// What a subprotocol that is really a token begins with: browsers can set no header but this.
const BEARER_PREFIX: &str = "bearer.";

/// Most bearer tokens of one request that are looked at. There are three ways to present one; a
/// request with more tries tokens out, at the cost of a comparison with each token of the route.
pub const BEARER_TOKENS_MAX: usize = 4;

/// Who is on the other side, as the socket or a trusted proxy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peer {
    /// Its address; `None` on a Unix socket without a proxy that names one.
    pub addr: Option<IpAddr>,
    /// Its port, if known: X-Forwarded-For names none.
    pub port: Option<u16>,
}

impl Peer {
    /// Writes address and port.
    pub fn save(self, writer: &mut Writer) {
        let Self { addr, port } = self;
        match addr {
            None => writer.u8(0),
            Some(IpAddr::V4(ip)) => {
                writer.u8(4);
                writer.raw(&ip.octets());
            }
            Some(IpAddr::V6(ip)) => {
                writer.u8(6);
                writer.raw(&ip.octets());
            }
        }
        writer.option(port, Writer::u16);
    }

    /// Reads what [`Peer::save`] wrote.
    ///
    /// # Errors
    /// As [`Reader`]; an address of another family.
    pub fn load(reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let addr = match reader.u8()? {
            0 => None,
            4 => Some(IpAddr::from(reader.array::<4>()?)),
            6 => Some(IpAddr::from(reader.array::<16>()?)),
            _ => return Err(SnapshotError::Invalid("address")),
        };
        Ok(Self { addr, port: reader.option(Reader::u16)? })
    }
}

impl From<SocketAddr> for Peer {
    /// An IPv4 address mapped into IPv6 (a dual-stack listener) becomes plain IPv4.
    fn from(address: SocketAddr) -> Self {
        Self { addr: Some(address.ip().to_canonical()), port: Some(address.port()) }
    }
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self { addr: Some(address.to_canonical()), port: None }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addr, self.port) {
            (Some(addr), Some(port)) => SocketAddr::new(addr, port).fmt(f),
            (Some(addr), None) => addr.fmt(f),
            (None, _) => f.write_str("unix"),
        }
    }
}

/// What a route's pattern captured: `{name}` in `/rooms/{name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param<'a> {
    /// The parameter's name in the pattern.
    pub name: &'a str,
    /// The path's segment, decoded; never empty.
    pub value: Cow<'a, str>,
}

/// A request that has a route. Its path decodes to UTF-8.
#[derive(Clone)]
pub struct Request<'a> {
    head: &'a Head<'a>,
    path: Cow<'a, str>,
    params: Vec<Param<'a>>,
    peer: Peer,
}

impl<'a> Request<'a> {
    /// The request of a head.
    ///
    /// # Errors
    /// [`HeadError::BadPercentEncoding`] if the path is not UTF-8.
    pub fn new(head: &'a Head<'a>, peer: Peer) -> Result<Self, HeadError> {
        Ok(Self { head, path: head.decoded_path()?, params: Vec::new(), peer })
    }

    /// With what the route's pattern captured.
    #[must_use]
    pub fn with_params(mut self, params: Vec<Param<'a>>) -> Self {
        self.params = params;
        self
    }

    /// The head as it was sent.
    pub fn head(&self) -> &'a Head<'a> {
        self.head
    }

    /// The path, decoded.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the route's pattern captured under this name, decoded: of `/rooms/{name}`,
    /// `param("name")`. `None` if the pattern has no such parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|param| param.name == name).map(|param| &*param.value)
    }

    /// All that the route's pattern captured, in its order.
    pub fn params(&self) -> &[Param<'a>] {
        &self.params
    }

    /// The first query parameter of this name, decoded (`+` is a space). `None` if there is none, or its
    /// bytes are not UTF-8.
    pub fn query(&self, name: &str) -> Option<Cow<'a, str>> {
        self.head.query_value(name).ok().flatten()
    }

    /// The first value of a header field, if it is UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.head.header(name)
    }

    /// Origin, if it is UTF-8. To decide about it, use
    /// [`OriginPolicy`](super::middleware::OriginPolicy), which also sees those that are not.
    pub fn origin(&self) -> Option<&'a str> {
        self.header("origin")
    }

    /// `host[:port]` that the request is for.
    pub fn host(&self) -> Option<&'a str> {
        self.head.host()
    }

    /// Who asks.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The subprotocols offered, in order of preference, without those that are tokens.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> {
        self.offered().filter(|offered| !offered.starts_with(BEARER_PREFIX))
    }

    /// The bearer tokens presented: in Authorization (RFC 6750 §2.1), as `?token=` (§2.3 with a
    /// shorter name), or as a subprotocol `bearer.<token>`.
    ///
    /// The subprotocol is for browsers and is never echoed. As a browser fails a connection in which
    /// none of the subprotocols it offered is agreed on, it offers one that the route speaks as well:
    /// `new WebSocket(url, ["chat", "bearer.…"])`. A token sent so must be a token of HTTP, too
    /// (base64url without padding is). Of more than [`BEARER_TOKENS_MAX`] the first ones are returned.
    pub fn bearer_tokens(&self) -> Vec<Cow<'a, str>> {
        let authorization = self.header("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then(|| Cow::Borrowed(token.trim_start_matches(' ')))
        });
        let subprotocols = self
            .offered()
            .filter_map(|offered| offered.strip_prefix(BEARER_PREFIX))
            .map(Cow::Borrowed);
        let all = authorization.into_iter().chain(self.query("token")).chain(subprotocols);
        all.take(BEARER_TOKENS_MAX).collect()
    }

    fn offered(&self) -> impl Iterator<Item = &'a str> {
        let head = self.head;
        head.fields()
            .list("sec-websocket-protocol")
            .filter_map(|offered| std::str::from_utf8(offered).ok())
    }
}

/// Without values of headers and of secret query parameters.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("head", &self.head)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::HeadLimits;
    use crate::base::testing::check_loader;

    fn with_request<T>(target: &str, lines: &str, run: impl FnOnce(&Request<'_>) -> T) -> T {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let head = Head::parse(bytes.as_bytes(), &HeadLimits::default()).unwrap();
        run(&Request::new(&head, Peer::default()).unwrap())
    }

    #[test]
    fn a_request_tells_what_was_asked() {
        let lines = "Origin: http://a\r\nSec-WebSocket-Protocol: x, bearer.t\r\n\
                     Sec-WebSocket-Protocol: y\r\n";
        with_request("/rooms/a%2Fb?self=1", lines, |request| {
            assert_eq!(request.path(), "/rooms/a/b");
            assert_eq!(request.head().path(), "/rooms/a%2Fb");
            assert_eq!(request.query("self").as_deref(), Some("1"));
            assert_eq!(request.query("other"), None);
            assert_eq!(request.origin(), Some("http://a"));
            assert_eq!(request.host(), Some("a"));
            assert_eq!(request.subprotocols().collect::<Vec<_>>(), ["x", "y"]);
            assert_eq!(request.param("name"), None);
            let params = vec![Param { name: "name", value: "a/b".into() }];
            let request = request.clone().with_params(params);
            assert_eq!((request.param("name"), request.param("x")), (Some("a/b"), None));
        });
    }

    #[test]
    fn tokens_come_three_ways() {
        let tokens = |target: &str, lines: &str| {
            with_request(target, lines, |request| {
                let shown = format!("{request:?}");
                assert!(!shown.contains("hush"), "{shown}");
                request.bearer_tokens().join(" ")
            })
        };
        assert_eq!(tokens("/", ""), "");
        assert_eq!(tokens("/", "Authorization: Bearer hush\r\n"), "hush");
        assert_eq!(tokens("/", "authorization: bEARER  hush\r\n"), "hush");
        assert_eq!(tokens("/", "Authorization: Basic hush\r\n"), "");
        assert_eq!(tokens("/", "Authorization: Bearer\r\n"), "");
        assert_eq!(tokens("/?x=1&token=hush%21", ""), "hush!");
        assert_eq!(tokens("/", "Sec-WebSocket-Protocol: a, bearer.hush.b\r\n"), "hush.b");
        let all = "Authorization: Bearer hush1\r\nSec-WebSocket-Protocol: bearer.hush3\r\n";
        assert_eq!(tokens("/?token=hush2", all), "hush1 hush2 hush3");
        let many = format!("Sec-WebSocket-Protocol: {}\r\n", "bearer.hush, ".repeat(500));
        assert_eq!(tokens("/", &many), "hush hush hush hush");
    }

    #[test]
    fn a_path_that_does_not_decode_is_no_request() {
        let head = b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n";
        let head = Head::parse(head, &HeadLimits::default()).unwrap();
        let error = Request::new(&head, Peer::default()).unwrap_err();
        assert_eq!(error.status(), 400);
    }

    #[test]
    fn a_parameter_that_does_not_decode_harms_nobody() {
        for target in ["/?%80=a&b=1", "/?a=%ff&b=1", "/?%&b=1", "/?b=1&b=%ff"] {
            with_request(target, "", |request| {
                assert_eq!(request.query("b").as_deref(), Some("1"), "{target}");
                assert_eq!(request.query("a"), None, "{target}");
            });
        }
    }

    #[test]
    fn peers() {
        let socket: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(Peer::from(socket).to_string(), "192.0.2.1:80");
        let socket: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(Peer::from(socket).to_string(), "[2001:db8::1]:80");
        assert_eq!(Peer::from(socket.ip()).to_string(), "2001:db8::1");
        assert_eq!(Peer::default().to_string(), "unix");
    }

    #[test]
    fn a_peer_is_the_same_in_another_process() {
        let socket: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        for peer in [Peer::default(), socket.into(), v4.into()] {
            let mut writer = Writer::new();
            peer.save(&mut writer);
            check_loader(writer.as_bytes(), |reader| {
                let mut writer = Writer::new();
                Peer::load(reader)?.save(&mut writer);
                Ok(writer.into_bytes())
            });
            assert_eq!(Peer::load(&mut Reader::new(writer.as_bytes())), Ok(peer));
        }
    }
}
