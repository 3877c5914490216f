//! The table of every key. What is not here cannot be configured; what is here is in the
//! reference, has an environment variable, and is read (`tests` hold all three).

use super::Shape;

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// Dotted, as one would write it at the top of a file: `limits.message_bytes_max`. A key of
    /// routes begins with `routes.`.
    pub name: &'static str,
    /// Where it may be written.
    pub scope: Scope,
    /// What may be written.
    pub shape: Shape,
    /// What it does.
    pub meaning: &'static str,
    /// Why the default is what it is; empty if there is nothing to argue.
    pub reason: &'static str,
    /// For a limit: what happens beyond it.
    pub beyond: Option<&'static str>,
}

/// Where a key may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Once for the server.
    Server,
    /// In each `[[routes]]`.
    Route,
    /// For the server, and in a route for that route alone: what a route leaves out it inherits.
    Both,
}

const fn key(name: &'static str, shape: Shape, meaning: &'static str) -> Key {
    Key { name, scope: Scope::Server, shape, meaning, reason: "", beyond: None }
}

impl Key {
    const fn inherited(self) -> Self {
        Self { scope: Scope::Both, ..self }
    }

    const fn of_route(self) -> Self {
        Self { scope: Scope::Route, ..self }
    }

    const fn because(self, reason: &'static str) -> Self {
        Self { reason, ..self }
    }

    const fn beyond(self, beyond: &'static str) -> Self {
        Self { beyond: Some(beyond), ..self }
    }

    /// The environment variable that mirrors it; for a key of one route, that route's.
    pub fn environment(&self, route: Option<usize>) -> String {
        environment_name(&self.name_in(route))
    }

    /// The flag that sets it for the server: `--log-level`. Keys of routes have none.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace(['.', '_'], "-"))
    }

    /// Its name for the server, or in the route of this index: `routes.0.limits.rooms_max`.
    pub(super) fn name_in(&self, route: Option<usize>) -> String {
        match route {
            None => self.name.to_owned(),
            Some(route) => {
                let name = self.name.strip_prefix("routes.").unwrap_or(self.name);
                format!("routes.{route}.{name}")
            }
        }
    }
}

/// The environment variable for a key's full name.
pub fn environment_name(name: &str) -> String {
    format!("STEADFAST_{}", name.to_ascii_uppercase().replace('.', "_"))
}

/// The key of this name, written for the server or in a route.
pub(super) fn find(name: &str, in_route: bool) -> Option<&'static Key> {
    KEYS.iter().find(|key| match (key.scope, in_route) {
        (Scope::Server | Scope::Both, false) | (Scope::Both, true) => key.name == name,
        (Scope::Route, true) => key.name.strip_prefix("routes.") == Some(name),
        (Scope::Server, true) | (Scope::Route, false) => false,
    })
}

/// Whether keys of this section exist: `limits`.
pub(super) fn is_section(name: &str, in_route: bool) -> bool {
    KEYS.iter().any(|key| {
        let allowed = if in_route { key.scope == Scope::Both } else { key.scope != Scope::Route };
        let below = key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        allowed && below
    })
}

/// A number nobody means to reach: what fits every counter the value ends up in.
const COUNT_MAX: u64 = u32::MAX as u64;
const OFF: Option<&str> = Some("off");
const AUTO: Option<&str> = Some("auto");

const fn count(min: u64, max: u64, word: Option<&'static str>) -> Shape {
    Shape::Count { min, max, word }
}

const fn bytes(min: u64, max: u64) -> Shape {
    Shape::Bytes { min, max }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const SOME_TIME: Shape = Shape::Duration { zero: false, off: false };
const TIME_OR_OFF: Shape = Shape::Duration { zero: false, off: true };
const ANY_TIME: Shape = Shape::Duration { zero: true, off: false };

/// Every key, in the order of the reference.
pub static KEYS: &[Key] = &[
    key("listen", Shape::Listen, "Where to listen: TCP addresses and Unix sockets.")
        .because("reachable from this machine alone until somebody decides otherwise"),
    key("workers", count(1, 512, AUTO), "Threads, each with an event loop; `auto` is one a core."),
    key(
        "control",
        Shape::Path,
        "The control socket; left out: `$XDG_RUNTIME_DIR/steadfast/<port>.sock`, \
        else `/run/steadfast/<port>.sock`, else `/tmp/steadfast-<uid>/<port>.sock`.",
    ),
    key(
        "connections_max",
        count(1, COUNT_MAX, AUTO),
        "Most connections in all; `auto` is what the \
        descriptor limit allows less a reserve.",
    )
    .because("a server out of descriptors cannot even log why")
    .beyond("no more are accepted until one closes"),
    key(
        "drain_duration",
        ANY_TIME,
        "The time over which a drain spreads its closes (1012); `0s` closes \
        all at once.",
    )
    .because("clients come back as a trickle; most supervisors kill after 30 s or more"),
    key(
        "trusted_proxies",
        Shape::Proxies,
        "Peers that may say for whom they speak, by network; `unix` is \
        every peer on a Unix socket.",
    )
    .because("whoever is believed can take any address"),
    key(
        "proxy_protocol",
        Shape::Boolean,
        "Connections from trusted proxies begin with a PROXY protocol \
        header, version 1 or 2. Needs `trusted_proxies`.",
    ),
    key(
        "forwarded_for",
        Shape::Boolean,
        "The peer's address is taken from the X-Forwarded-For of trusted \
        proxies. Needs `trusted_proxies`.",
    ),
    key("log.level", Shape::LogLevel, "What is logged."),
    key(
        "log.format",
        Shape::Choice(&["auto", "human", "json"]),
        "`auto` is `human` if stderr is a \
        terminal, else `json`.",
    ),
    key(
        "head.head_bytes_max",
        bytes(256, MIB),
        "Longest request head, from the method to the blank line.",
    )
    .because("cookies of browsers come to 8 KiB and more")
    .beyond("431"),
    key(
        "head.target_bytes_max",
        bytes(1, MIB),
        "Longest request target; at most `head.head_bytes_max`.",
    )
    .because("what RFC 9110 §4.1 recommends to support")
    .beyond("414"),
    key("head.headers_max", count(1, 10_000, None), "Most header fields.")
        .because("as the large HTTP servers have it")
        .beyond("431"),
    key(
        "head.handshake_timeout",
        SOME_TIME,
        "Time from accept to a complete head, in total: a drip of \
        bytes does not extend it.",
    )
    .because("a half-open handshake holds a descriptor")
    .beyond("the connection is closed"),
    key(
        "limits.message_bytes_max",
        bytes(1, GIB),
        "Longest message after reassembly and inflation.",
    )
    .because("a message is held in memory as a whole")
    .beyond("1009")
    .inherited(),
    key("limits.fragments_max", count(1, COUNT_MAX, None), "Most fragments of one message.")
        .because("bounds what endless empty fragments cost")
        .beyond("1008")
        .inherited(),
    key(
        "limits.queue_bytes_max",
        bytes(1, GIB),
        "Most bytes waiting in a connection's out queue. An empty \
        queue always admits one maximal message.",
    )
    .because("one slow reader must not hold the server's memory")
    .beyond("a reply pauses reading from that peer; a push closes it with 1008")
    .inherited(),
    key("limits.ping_interval", TIME_OR_OFF, "A peer silent for this long is sent a ping.")
        .because("below the 30 s and 60 s after which common proxies drop an idle connection")
        .beyond("a ping is sent")
        .inherited(),
    key(
        "limits.pong_timeout",
        SOME_TIME,
        "After a ping, the time for an inbound byte or outbound progress. \
        Suspended while reading from the peer is paused.",
    )
    .because("a dead peer is noticed within 35 s")
    .beyond("the connection is dropped")
    .inherited(),
    key(
        "limits.idle_timeout",
        TIME_OR_OFF,
        "The time without a message in either direction after which a \
        connection is closed.",
    )
    .because("quiet is normal for most apps, and pings find the dead")
    .beyond("1001")
    .inherited(),
    key(
        "limits.close_timeout",
        SOME_TIME,
        "The time for the peer to answer our Close and to finish TCP.",
    )
    .because("a round trip and a retransmission, with room")
    .beyond("the socket is dropped")
    .inherited(),
    key(
        "limits.control_rate_max",
        count(1, COUNT_MAX, OFF),
        "Control frames a second a peer may send.",
    )
    .because("each asks for an answer; honest clients send one in seconds")
    .beyond("1008")
    .inherited(),
    key("limits.message_rate_max", count(1, COUNT_MAX, OFF), "Messages a second a peer may send.")
        .because("what is sane depends on the app")
        .beyond("1008")
        .inherited(),
    key("limits.rooms_max", count(1, COUNT_MAX, None), "Rooms one connection may be in.")
        .because("bounds what leaving them costs")
        .beyond("the join is refused")
        .inherited(),
    key("deflate.enabled", Shape::Boolean, "Whether offers of permessage-deflate are accepted.")
        .inherited(),
    key("deflate.level", count(1, 9, None), "zlib's level: 1 is fast, 9 is small.")
        .because("most of the saving at a fraction of the time")
        .inherited(),
    key("deflate.threshold_bytes", bytes(0, GIB), "Shorter messages are sent as they are.")
        .because("short texts hardly shrink, and a packet is a packet")
        .inherited(),
    key(
        "deflate.server_window_bits",
        count(9, 15, None),
        "Largest window this server compresses with, as a \
        power of two (RFC 7692 §7.1.2.1); a client may ask for a smaller one.",
    )
    .because("memory is a worker's, not a connection's, so the largest is cheap")
    .inherited(),
    key(
        "routes.path",
        Shape::Pattern,
        "The path pattern: literal segments and `{parameter}`s. Required.",
    )
    .of_route(),
    key(
        "routes.app",
        Shape::App,
        "What is served there: `page`, `echo`, `rooms` (whose path needs a \
        `{name}`), or an app of your own binary. Required.",
    )
    .of_route(),
    key(
        "routes.allowed_origins",
        Shape::Origins,
        "Which browsers' pages may connect: origins, `same-host`, \
        or `*`. `null` never matches; clients without Origin are no browsers and may.",
    )
    .because("otherwise any page could use its visitors' cookies here")
    .beyond("403")
    .of_route(),
    key(
        "routes.subprotocols",
        Shape::Subprotocols,
        "Subprotocols spoken there, most wanted first.",
    )
    .of_route(),
    key(
        "routes.tokens",
        Shape::Tokens,
        "Bearer tokens, one of which a handshake has to carry; left out: \
        none is asked for.",
    )
    .beyond("401")
    .of_route(),
    key(
        "routes.tokens_file",
        Shape::Path,
        "Instead of `tokens`: a file with one a line, `#` begins a comment \
        line. Relative to the configuration file.",
    )
    .of_route(),
    key(
        "routes.connections_per_ip_max",
        count(1, COUNT_MAX, OFF),
        "Most connections of one IP address on \
        this route.",
    )
    .because("proxies and NAT put many people behind one address")
    .beyond("429")
    .of_route(),
];
