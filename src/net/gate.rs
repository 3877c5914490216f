//! From a request head to a verdict: route, handshake, middleware, app.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::app::handle::PostBox;
use crate::app::{Address, Decision, Handle, Peer, Refusal, Request, Response};
use crate::base::limits::HeadLimits;
use crate::base::network::TrustedProxies;
use crate::http::{Head, redact_target};
use crate::net::connection::{Connection, Facts, Pending, RouteIndex};
use crate::net::log_limit::limited;
use crate::net::refusals::Refusals;
use crate::net::route::{self, Route, Target};
use crate::session::handshake::{self, Policy};

/// Who is let in, as far as it is the same for all routes.
#[derive(Debug, Default)]
pub struct Gate {
    /// Who may speak for others.
    pub trusted_proxies: TrustedProxies,
    /// X-Forwarded-For of trusted proxies names the peer.
    pub forwarded_for: bool,
    /// Connections of trusted proxies begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Who was not.
    pub refusals: Arc<Refusals>,
}

/// To what a request comes.
pub struct Reception<'a> {
    /// Where its connection will be reached.
    pub address: Address,
    /// How.
    pub post: &'a PostBox,
    /// Who is let in at the moment.
    pub welcome: Welcome,
    /// When it is.
    pub time: SystemTime,
}

/// Who is let in while a server serves, begins to drain, and drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Welcome {
    /// Everybody.
    All,
    /// Everybody, but load balancers are told to send nobody more.
    NotReady,
    /// Nobody.
    Nobody,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It gets this answer, and no connection.
    Answer(Response),
    /// The handshake is accepted.
    Accept(Box<Pending>),
    /// The app will say.
    Later(Box<Pending>),
}

impl Gate {
    /// Decides about a head, and leaves what is known then in `conn`.
    pub fn decide(
        &self,
        routes: &mut [Route],
        head: &[u8],
        limits: &HeadLimits,
        conn: &mut Connection,
        to: &Reception<'_>,
    ) -> Verdict {
        let head = match Head::parse(head, limits) {
            Ok(head) => head,
            Err(error) => {
                let refusal = Refusal::from(error);
                self.refusals.note(&refusal, conn.id, conn.peer, None);
                return Verdict::Answer(refusal.to_response());
            }
        };
        let verdict = self.try_decide(routes, &head, conn, to).unwrap_or_else(|refusal| {
            self.refusals.note(&refusal, conn.id, conn.peer, Some(&head));
            Verdict::Answer(refusal.to_response())
        });
        match verdict {
            Verdict::Answer(response) if head.method() == "HEAD" => {
                Verdict::Answer(response.head_only())
            }
            verdict => verdict,
        }
    }

    fn try_decide(
        &self,
        routes: &mut [Route],
        head: &Head<'_>,
        conn: &mut Connection,
        to: &Reception<'_>,
    ) -> Result<Verdict, Refusal> {
        conn.peer = self.peer(conn.peer, head);
        let request = Request::new(head, conn.peer)?;
        tracing::debug!(
            connection = %conn.id, peer = %conn.peer, method = head.method(),
            path = &*redact_target(head.target()), "request"
        );
        let found = route::find(routes, head.path());
        let answers_drain = found.as_ref().is_some_and(|(index, _)| {
            matches!(routes[*index].target, Target::Health | Target::Ready)
        });
        if to.welcome == Welcome::Nobody && !answers_drain {
            return Err(stopping());
        }
        let Some((index, path)) = found else {
            return match head.method() {
                // The server as a whole (RFC 9110 §9.3.7).
                "OPTIONS" if head.path() == "*" => Ok(Verdict::Answer(Response::methods())),
                // Its target has no path.
                "CONNECT" => Err(Refusal::method_not_allowed()),
                _ => Err(Refusal::not_found()),
            };
        };
        match head.method() {
            "GET" | "HEAD" => {}
            "OPTIONS" => return Ok(Verdict::Answer(Response::methods())),
            _ => return Err(Refusal::method_not_allowed()),
        }
        let route = &mut routes[index];
        let app = match &mut route.target {
            Target::App(app) => app,
            target => {
                let page = page(target, to.welcome)?;
                route.chain.check(&request)?;
                route.chain.release(&conn.peer);
                return Ok(Verdict::Answer(page));
            }
        };
        let offer = handshake::check(head)?;
        let request = request.with_params(route.pattern.capture(path));
        route.chain.check(&request)?;
        // From here on the middleware counts this connection: it is released when it is dropped.
        conn.route = index as RouteIndex;
        conn.passed = true;
        let handle = Handle::new(conn.id, to.address, route.space, to.post.0.clone());
        let decision = app.handshake(&request, &handle).map_err(|_| {
            limited!(error, connection = %conn.id, "the app panicked in handshake");
            Refusal::new(500, "an internal error")
        })?;
        let policy = Policy { subprotocols: &route.subprotocols, deflate: route.deflate };
        let agreed = offer.agree(&policy);
        let subprotocol = agreed.subprotocol.as_ref().and_then(|agreed| {
            route.subprotocols.iter().position(|spoken| spoken == agreed).map(|index| index as u8)
        });
        conn.facts = (subprotocol.is_some() || request.path() != route.pattern.as_str())
            .then(|| Box::new(Facts { path: request.path().into(), subprotocol }));
        let pending =
            Box::new(Pending { answer: agreed.response(to.time), deflate: agreed.deflate });
        match decision {
            Decision::Accept(state) => {
                conn.state = Some(state);
                Ok(Verdict::Accept(pending))
            }
            Decision::Later(state) => {
                conn.state = Some(state);
                Ok(Verdict::Later(pending))
            }
            Decision::Refuse(refusal) => Err(refusal),
        }
    }

    /// Whether a connection from this peer begins with a PROXY header.
    pub fn expects_proxy_header(&self, socket: Peer) -> bool {
        self.proxy_protocol && self.trusted_proxies.trusts(socket.addr)
    }

    /// Who asks: the last address in X-Forwarded-For that no trusted proxy stands for, if the
    /// socket's own is a trusted proxy's.
    ///
    /// Costs a pass over the list, which is part of the head and no longer than that may be, and a look
    /// at the trusted networks for each entry that is read: from the end, up to the first that is not
    /// trusted or no address.
    fn peer(&self, socket: Peer, head: &Head<'_>) -> Peer {
        if !self.forwarded_for || !self.trusted_proxies.trusts(socket.addr) {
            return socket;
        }
        let listed: Vec<&[u8]> = head.fields().list("x-forwarded-for").collect();
        let mut peer = socket;
        for entry in listed.iter().rev() {
            let Some(ip) = std::str::from_utf8(entry).ok().and_then(forwarded_ip) else {
                break;
            };
            peer = ip.into();
            if !self.trusted_proxies.trusts(Some(ip)) {
                break;
            }
        }
        peer
    }
}

/// What is served over plain HTTP.
fn page(target: &Target, welcome: Welcome) -> Result<Response, Refusal> {
    match target {
        Target::Page(page) => Ok(page.clone()),
        Target::Health => Ok(Response::text(200, "alive\n")),
        Target::Ready if welcome == Welcome::All => Ok(Response::text(200, "ready\n")),
        Target::Ready => Err(stopping()),
        Target::App(_) | Target::Nothing => Err(Refusal::not_found()),
    }
}

/// What a handshake is told while the server stops.
pub fn stopping() -> Refusal {
    Refusal::new(503, "the server restarts").with_header("Retry-After", "1")
}

/// An address as proxies write it: bare, in brackets, with a port.
fn forwarded_ip(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let socket = || text.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip());
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        let gate = Gate {
            trusted_proxies: TrustedProxies {
                networks: vec!["10.0.0.0/8".parse().unwrap()],
                unix: true,
            },
            forwarded_for: true,
            proxy_protocol: false,
            refusals: Arc::default(),
        };
        let peer_of = |gate: &Gate, socket: Option<&str>, lines: &str| {
            let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            let head = Head::parse(bytes.as_bytes(), &HeadLimits::default()).unwrap();
            let socket =
                socket.map_or_else(Peer::default, |ip| ip.parse::<IpAddr>().unwrap().into());
            gate.peer(socket, &head).to_string()
        };
        let line = "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.9.9.9\r\n";
        assert_eq!(peer_of(&gate, Some("10.0.0.1"), line), "192.0.2.1");
        assert_eq!(peer_of(&gate, None, line), "192.0.2.1");
        assert_eq!(peer_of(&gate, Some("192.0.2.7"), line), "192.0.2.7");
        assert_eq!(peer_of(&gate, Some("10.0.0.1"), ""), "10.0.0.1");
        assert_eq!(peer_of(&gate, Some("10.0.0.1"), "X-Forwarded-For: junk\r\n"), "10.0.0.1");
        let ported = "X-Forwarded-For: [2001:db8::1]:443\r\n";
        assert_eq!(peer_of(&gate, Some("10.0.0.1"), ported), "2001:db8::1");
        let off = Gate { forwarded_for: false, ..gate };
        assert_eq!(peer_of(&off, Some("10.0.0.1"), line), "10.0.0.1");
    }
}
