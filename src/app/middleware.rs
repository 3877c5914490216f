//! What may refuse a handshake before an app hears of it: a chain per route.
//!
//! Each worker has its own chain; what the workers must share (how many connections an address has)
//! is behind an `Arc` in the middleware. Built in are [`AllowedHosts`], [`OriginPolicy`],
//! [`ConnectionsPerIp`] and [`BearerTokens`].

use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::guarded::{Factory, Guarded, Panicked};
use super::request::{Peer, Request};
pub use crate::http::Refusal;
use crate::http::{Address, Authority};

/// One gate that a handshake must pass.
pub trait Middleware: Send {
    /// Lets a request pass, or refuses it with a status.
    ///
    /// # Errors
    /// The refusal to answer with.
    fn check(&mut self, request: &Request<'_>) -> Result<(), Refusal>;

    /// A connection that passed has ended (or was refused further on). Called exactly once for each
    /// that passed.
    fn release(&mut self, _peer: &Peer) {}

    /// A connection that passed in another process has been taken over from it: it is not checked
    /// again, but released when it has ended. For a middleware that counts, whatever its limit is.
    fn adopt(&mut self, _peer: &Peer) {}
}

/// One gate of a chain. It may be user code: a panic ends here.
pub struct AnyGate(Guarded<Box<dyn Middleware>>);

impl AnyGate {
    /// Wraps a middleware.
    pub fn new(middleware: impl Middleware + 'static) -> Self {
        Self(Guarded::new(Box::new(middleware)))
    }

    /// The panic hook has reported it, and there is nobody left to tell.
    fn release(&mut self, peer: &Peer) {
        let _ = self.0.run(|gate| gate.release(peer));
    }
}

/// Makes a middleware for a route of one worker.
pub type MiddlewareFactory = Factory<AnyGate>;

/// Wraps a closure that makes a middleware.
pub fn factory<M: Middleware + 'static>(
    make: impl Fn() -> M + Send + Sync + 'static,
) -> MiddlewareFactory {
    Factory::new(move || AnyGate::new(make()))
}

/// The gates of one route, in order. If one panics the request is refused with 500.
#[derive(Default)]
pub struct Chain {
    gates: Vec<AnyGate>,
}

impl Chain {
    /// A chain of these gates.
    pub fn new(gates: Vec<AnyGate>) -> Self {
        Self { gates }
    }

    /// Asks every gate, up to the first that refuses; those before it are released again.
    ///
    /// # Errors
    /// The first refusal.
    pub fn check(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        for at in 0..self.gates.len() {
            let verdict = self.gates[at].0.run(|gate| gate.check(request));
            let panicked = |Panicked| Err(Refusal::new(500, "an internal error"));
            if let Err(refusal) = verdict.unwrap_or_else(panicked) {
                release(&mut self.gates[..at], request.peer());
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// A connection that passed the chain of another process has been taken over. A gate that panics
    /// does not keep the others from hearing of it.
    pub fn adopt(&mut self, peer: &Peer) {
        for gate in &mut self.gates {
            let _ = gate.0.run(|gate| gate.adopt(peer));
        }
    }

    /// A connection that passed the chain has ended.
    pub fn release(&mut self, peer: &Peer) {
        release(&mut self.gates, peer);
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain of {} gates", self.gates.len())
    }
}

/// In the opposite order of passing. A gate that panics does not keep the others from their release.
fn release(gates: &mut [AnyGate], peer: &Peer) {
    gates.iter_mut().rev().for_each(|gate| gate.release(peer));
}

/// From which web pages a browser may connect (RFC 6455 §10.2, RFC 6454).
///
/// A request without Origin comes from no browser and passes. Pages of the host that the request is
/// for pass, unless [`without_same_host`](Self::without_same_host). `null` (a sandboxed frame, a local
/// file in most browsers) never passes, not even with `*`.
#[derive(Debug, Clone)]
pub struct OriginPolicy {
    any: bool,
    same_host: bool,
    listed: Vec<Listed>,
}

/// What is allowed beside the same host.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Listed {
    /// `scheme://host[:port]`.
    Origin(String),
    /// `scheme://*.domain[:port]`: this is `scheme://domain[:port]`, which is not among them.
    Subdomains(String),
    /// `scheme://*`, and `file://`, whose pages have no host.
    Scheme(String),
}

impl Listed {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = Address::split(text).is_some();
        if is_scheme && (authority == "*" || text.eq_ignore_ascii_case(FILE)) {
            return Some(Self::Scheme(scheme.to_owned()));
        }
        if let Some(domain) = authority.strip_prefix("*.") {
            let origin = format!("{scheme}://{domain}");
            // A whole top-level domain is nobody's.
            let is_domain = Origin::parse(&origin)?.authority.host.contains('.');
            return is_domain.then_some(Self::Subdomains(origin));
        }
        (!text.contains('*')).then_some(())?;
        Origin::parse(text).map(|_| Self::Origin(text.to_owned()))
    }

    /// Whether an origin is meant, which is given as it was sent, and as it was read: none is read of
    /// [`FILE`].
    fn has(&self, sent: &str, origin: Option<&Origin<'_>>) -> bool {
        match self {
            Self::Scheme(scheme) => {
                sent.split_once("://").is_some_and(|(its, _)| its.eq_ignore_ascii_case(scheme))
            }
            Self::Origin(listed) => {
                let both = Origin::parse(listed).zip(origin);
                both.is_some_and(|(listed, origin)| listed.same_as(origin))
            }
            Self::Subdomains(domain) => {
                let both = Origin::parse(domain).zip(origin);
                both.is_some_and(|(domain, origin)| domain.has_subdomain(origin))
            }
        }
    }
}

/// What browsers that do not send `null` send for pages of the local file system.
const FILE: &str = "file://";

impl Default for OriginPolicy {
    fn default() -> Self {
        Self { any: false, same_host: true, listed: Vec::new() }
    }
}

impl OriginPolicy {
    /// Allows these beside the same host: each is `scheme://host[:port]`, `scheme://*.domain[:port]`
    /// for all subdomains, `scheme://*` for all hosts, `file://`, or `*` for every origin but `null`.
    ///
    /// # Errors
    /// The entry that is none of these, with what is wrong about it.
    pub fn new(origins: &[String]) -> Result<Self, String> {
        let mut policy = Self::default();
        for origin in origins {
            if origin == "*" {
                policy.any = true;
            } else if let Some(listed) = Listed::parse(origin) {
                policy.listed.push(listed);
            } else {
                return Err(format!(
                    "{origin:?} is no origin: write scheme://host, scheme://host:port, \
                     scheme://*.domain, scheme://*, file:// or *"
                ));
            }
        }
        Ok(policy)
    }

    /// Takes away that pages of the host that the request is for may connect.
    #[must_use]
    pub fn without_same_host(mut self) -> Self {
        self.same_host = false;
        self
    }

    fn allows(&self, origin: &[u8], host: Option<&str>) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else {
            return false;
        };
        let parsed = Origin::parse(origin);
        if parsed.is_none() && !origin.eq_ignore_ascii_case(FILE) {
            return false;
        }
        let host = host.and_then(Authority::parse);
        // A proxy may have ended the TLS of the page's scheme, so that scheme's port is the default
        // of Host as well.
        let same_host = parsed
            .zip(host)
            .is_some_and(|(origin, host)| host.same_as(&origin.authority, origin.default_port()));
        self.any
            || (self.same_host && same_host)
            || self.listed.iter().any(|listed| listed.has(origin, parsed.as_ref()))
    }
}

impl Middleware for OriginPolicy {
    fn check(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        let mut origins = request.head().headers("origin");
        let allowed = match (origins.next(), origins.next()) {
            (None, _) => true,
            (Some(origin), None) => self.allows(origin, request.host()),
            (Some(_), Some(_)) => false,
        };
        match allowed {
            true => Ok(()),
            false => Err(Refusal::new(
                403,
                "pages of this origin may not connect here: \
                 it has to be listed in the route's key allowed_origins",
            )),
        }
    }
}

/// For which hosts a request may be, by its Host field (RFC 9110 §7.4).
///
/// Against DNS rebinding: a page of an attacker whose name comes to lead to this server is a page of
/// the same host for its browser and for [`OriginPolicy`], but its requests name the attacker's host.
#[derive(Debug, Clone)]
pub struct AllowedHosts {
    hosts: Vec<String>,
}

impl AllowedHosts {
    /// Allows these: `host`, on any port, or `host:port`.
    ///
    /// # Errors
    /// The entry that is no host, with what is wrong about it.
    pub fn new(hosts: Vec<String>) -> Result<Self, String> {
        let is_host = |host: &str| Authority::parse(host).is_some() && !host.contains('*');
        match hosts.iter().find(|host| !is_host(host)) {
            Some(host) => Err(format!("{host:?} is no host: write a name, or name:port")),
            None => Ok(Self { hosts }),
        }
    }

    fn allows(&self, host: &str) -> bool {
        let Some(asked) = Authority::parse(host) else { return false };
        self.hosts.iter().filter_map(|listed| Authority::parse(listed)).any(|listed| {
            // Without a port it is the scheme's, which a proxy may have changed.
            let asked_ports = asked.port.map_or(vec![80, 443], |port| vec![port]);
            let same_port = listed.port.is_none_or(|port| asked_ports.contains(&port));
            let bare = |authority| Authority { port: None, ..authority };
            same_port && bare(listed).same_as(&bare(asked), 0)
        })
    }
}

impl Middleware for AllowedHosts {
    fn check(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        match request.host().is_some_and(|host| self.allows(host)) {
            true => Ok(()),
            // RFC 9110 §15.5.20.
            false => Err(Refusal::new(421, "this host is not served here")),
        }
    }
}

/// `scheme://host[:port]` (RFC 6454 §6.2).
#[derive(Clone, Copy)]
struct Origin<'a> {
    address: Address<'a>,
    authority: Authority<'a>,
}

impl<'a> Origin<'a> {
    /// `None` for `null` and all else that names no place.
    fn parse(text: &'a str) -> Option<Self> {
        let address = Address::split(text).filter(|address| address.rest.is_empty())?;
        Some(Self { address, authority: Authority::parse(address.authority)? })
    }

    /// 0 for schemes that have none: it stands for "no port" on both sides.
    fn default_port(&self) -> u16 {
        self.address.default_port().unwrap_or(0)
    }

    fn same_as(&self, other: &Self) -> bool {
        self.address.scheme.eq_ignore_ascii_case(other.address.scheme)
            && self.authority.same_as(&other.authority, self.default_port())
    }

    /// Whether the other one is this one with labels in front of its host.
    fn has_subdomain(&self, other: &Self) -> bool {
        let host = other.authority.host;
        let tail = host.len().checked_sub(self.authority.host.len());
        let Some((labels, domain)) = tail.and_then(|at| host.split_at_checked(at)) else {
            return false;
        };
        let domain = Authority { host: domain, ..other.authority };
        labels.strip_suffix('.').is_some_and(|labels| !labels.is_empty())
            && self.same_as(&Self { authority: domain, ..*other })
    }
}

/// How many parts the counts are split into, so that workers rarely wait for each other.
const SHARDS: usize = 16;

/// How many connections each address has, over all workers.
///
/// IPv6 is counted per /64, which is the smallest net that one customer gets. Trees and not hash
/// maps: the keys are a peer's choice, and this layer has no randomness to seed a hash with.
#[derive(Debug, Default)]
pub struct IpCounts {
    shards: [Mutex<BTreeMap<Ipv6Addr, u32>>; SHARDS],
}

impl IpCounts {
    /// How many connections count for this address now.
    pub fn count(&self, addr: IpAddr) -> u32 {
        let net = net_of(addr);
        self.shard(net).get(&net).copied().unwrap_or(0)
    }

    fn enter(&self, net: Ipv6Addr, max: u32) -> bool {
        let mut shard = self.shard(net);
        match shard.get_mut(&net) {
            Some(count) if *count >= max => false,
            Some(count) => {
                *count += 1;
                true
            }
            None if max == 0 => false,
            None => {
                shard.insert(net, 1);
                true
            }
        }
    }

    fn leave(&self, net: Ipv6Addr) {
        let mut shard = self.shard(net);
        match shard.get_mut(&net) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                shard.remove(&net);
            }
        }
    }

    fn shard(&self, net: Ipv6Addr) -> MutexGuard<'_, BTreeMap<Ipv6Addr, u32>> {
        let mixed = net
            .octets()
            .iter()
            .fold(0_usize, |mixed, &octet| mixed.wrapping_mul(31).wrapping_add(usize::from(octet)));
        // Whoever panicked while holding it changed at most one number.
        self.shards[mixed % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one customer has: an IPv4 address, or an IPv6 net of 64 bits. IPv4 is kept as mapped.
fn net_of(addr: IpAddr) -> Ipv6Addr {
    match addr.to_canonical() {
        IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64),
    }
}

/// At most so many connections an address. Peers without one (Unix sockets) pass.
#[derive(Debug, Clone)]
pub struct ConnectionsPerIp {
    counts: Arc<IpCounts>,
    max: u32,
}

impl ConnectionsPerIp {
    /// At most `max` connections an address; `counts` is shared by the workers.
    pub fn new(counts: Arc<IpCounts>, max: u32) -> Self {
        Self { counts, max }
    }
}

impl Middleware for ConnectionsPerIp {
    fn check(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        match request.peer().addr {
            Some(addr) if !self.counts.enter(net_of(addr), self.max) => {
                Err(Refusal::new(429, "too many connections from this address"))
            }
            _ => Ok(()),
        }
    }

    fn release(&mut self, peer: &Peer) {
        if let Some(addr) = peer.addr {
            self.counts.leave(net_of(addr));
        }
    }

    fn adopt(&mut self, peer: &Peer) {
        if let Some(addr) = peer.addr {
            self.counts.enter(net_of(addr), u32::MAX);
        }
    }
}

/// Only who presents one of these tokens may connect; see [`Request::bearer_tokens`].
#[derive(Clone)]
pub struct BearerTokens {
    tokens: Vec<String>,
    /// Bytes of the longest: a longer one that is presented is none of them, and not compared. So a
    /// request costs no more than the configuration has it, however long its tokens are.
    longest: usize,
}

impl BearerTokens {
    /// Accepts these tokens.
    ///
    /// # Errors
    /// If there is none, or one is empty or holds anything but visible ASCII; without saying which.
    pub fn new(tokens: Vec<String>) -> Result<Self, &'static str> {
        let valid =
            |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        match tokens.is_empty() || !tokens.iter().all(valid) {
            true => Err("tokens must be a list of non-empty strings of visible ASCII"),
            false => {
                let longest = tokens.iter().map(String::len).max().unwrap_or_default();
                Ok(Self { tokens, longest })
            }
        }
    }
}

impl Middleware for BearerTokens {
    fn check(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        let presented = request.bearer_tokens();
        let plausible = presented.iter().filter(|presented| presented.len() <= self.longest);
        let known = plausible.fold(false, |known, presented| {
            let equals = |known, token: &String| known | equals(presented, token);
            self.tokens.iter().fold(known, equals)
        });
        let challenge = match (known, presented.is_empty()) {
            (true, _) => return Ok(()),
            // RFC 6750 §3.1: no error code for who presented nothing.
            (false, true) => "Bearer",
            (false, false) => "Bearer error=\"invalid_token\"",
        };
        let refusal = Refusal::new(401, "a valid bearer token is needed");
        Err(refusal.with_header("WWW-Authenticate", challenge))
    }
}

/// No token, not even its length.
impl fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerTokens({} redacted)", self.tokens.len())
    }
}

/// Equality in a time that depends on the presented text's length only, so that no answer tells how
/// much of a guess was right. `secret` is not empty.
fn equals(presented: &str, secret: &str) -> bool {
    let mut difference = presented.len() ^ secret.len();
    for (one, two) in presented.bytes().zip(secret.bytes().cycle()) {
        difference = black_box(difference | usize::from(one ^ two));
    }
    difference == 0
}

#[cfg(test)]
mod tests;
