//! Every setting of the server: its key, its default and its reason, each written once. How a key is
//! added: `base/setting.rs`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::syntax::{
    APP, HOSTS, LEVEL, LISTEN, ORIGINS, PATTERN, PROXIES, ROOM_SPACE, SUBPROTOCOLS, TOKENS,
};
use crate::base::limits::{HeadLimits, Limits};
use crate::base::network::{ListenAddr, TrustedProxies};
use crate::base::setting::{Section, settings};
use crate::base::syntax::{COUNT_MAX, Choice, Count, FilePath, GIB, Or, Size, Switch, Time};

settings! {
    /// Everything the server needs to know, complete and checked.
    pub struct Settings, "" of Server {
        /// Where to listen: TCP addresses and Unix sockets.
        listen: Vec<ListenAddr> as LISTEN,
            default vec![ListenAddr::Tcp(([127, 0, 0, 1], 8000).into())],
            because "reachable from this machine alone until somebody decides otherwise";
        /// Threads, each with an event loop; `auto` is one a core.
        workers: usize as Or("auto", Count(1, 512)), default 0;
        /// The control socket; left out: `$XDG_RUNTIME_DIR/steadfast/<port>.sock`,
        /// else `/run/steadfast/<port>.sock`, else `/tmp/steadfast-<uid>/<port>.sock`.
        control: Option<PathBuf> as FilePath, default None;
        /// Most connections in all; `auto` is what the descriptor limit allows less a reserve.
        connections_max: Option<usize> as Or("auto", Count(1, COUNT_MAX)), default None,
            because "a server out of descriptors cannot even log why",
            beyond "no more are accepted until one closes";
        /// Most bytes that all connections hold together in unfinished messages, parked bytes and out
        /// queues; `auto` is a quarter of the smallest of the machine's memory, the limits of the
        /// control groups, RLIMIT_AS and RLIMIT_DATA.
        memory_max: Option<usize> as Or("auto", Size(1, 1 << 50)), default None,
            because "an upgrade holds it up to three times, and a server out of memory loses everybody",
            beyond "those that make no progress are not read, then closed with 1008";
        /// How long a drain goes on serving as before, while routes of the app `ready` answer 503.
        drain_grace: Duration as Time { zero: true }, default Duration::ZERO,
            because "load balancers take a while to learn it: on Kubernetes, set some seconds";
        /// The time over which a drain spreads its closes (1012); `0s` closes all at once.
        drain_duration: Duration as Time { zero: true }, default Duration::from_secs(10),
            because "clients come back as a trickle; most supervisors kill after 30 s or more";
        /// The longest an upgrade may keep everybody waiting, from the freeze until the new process
        /// serves.
        pause_max: Duration as Time { zero: false }, default Duration::from_secs(1),
            because "clients take a server that is silent for seconds for a dead one",
            beyond "the upgrade is called off, and everybody is served as before";
        /// Networks of trusted proxies, whose PROXY header or X-Forwarded-For is believed; `unix` is
        /// every peer on a Unix socket.
        trusted_proxies: TrustedProxies as PROXIES, default TrustedProxies::default(),
            because "whoever is believed can take any address";
        /// Connections from trusted proxies begin with a PROXY protocol header, version 1 or 2. Needs
        /// `trusted_proxies`.
        proxy_protocol: bool as Switch, default false;
        /// The peer's address is taken from the X-Forwarded-For of trusted proxies. Needs
        /// `trusted_proxies`.
        forwarded_for: bool as Switch, default false;
    }
    sections {
        /// What is logged and how.
        log: Log;
        /// What a request head may cost.
        head: HeadLimits;
        /// What a connection may cost unless its route says otherwise. Routes have already inherited
        /// it: look at [`Route::limits`].
        limits: Limits;
        /// permessage-deflate unless the route says otherwise; already inherited, see
        /// [`Route::deflate`].
        deflate: Deflate;
    }
    tables {
        /// What is served where; no two patterns are the same but for their parameters' names.
        routes: Route;
    }
}

settings! {
    /// What is logged and how.
    pub struct Log, "log." of Server {
        /// What is logged.
        level: String as LEVEL, default "info".to_owned();
        /// `auto` is `human` if stderr is a terminal, else `json`.
        format: LogFormat as Choice { noun: "a log format", words: LOG_FORMATS },
            default LogFormat::Auto;
    }
}

impl Default for Log {
    fn default() -> Self {
        Self::initial()
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `Human` if stderr is a terminal, else `Json`.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

const LOG_FORMATS: &[(&str, LogFormat)] =
    &[("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];

settings! {
    /// permessage-deflate (RFC 7692) as this server does it: no state between messages.
    pub struct Deflate, "deflate." of Both {
        /// Whether offers of permessage-deflate are accepted.
        enabled: bool as Switch, default true;
        /// zlib's level: 1 is fast, 9 is small.
        level: u8 as Count(1, 9), default 1,
            because "most of the saving at a fraction of the time";
        /// Shorter messages are sent as they are.
        threshold_bytes: usize as Size(0, GIB), default 128,
            because "short texts hardly shrink, and a packet is a packet";
        /// Largest window this server compresses with, as a power of two (RFC 7692 §7.1.2.1); a client
        /// may ask for a smaller one.
        server_window_bits: u8 as Count(9, 15), default 15,
            because "memory is a worker's, not a connection's, so the largest is cheap";
    }
}

impl Default for Deflate {
    fn default() -> Self {
        Self::initial()
    }
}

settings! {
    /// One path pattern and what is served there.
    pub struct Route, "routes." of Route {
        /// The path pattern: literal segments and `{parameter}`s. Required.
        path: String as PATTERN, default String::new();
        /// What is served there: `page`, `echo`, `rooms` (whose path needs a `{name}`), or an app of
        /// your own binary. Required.
        app: String as APP, default String::new();
        /// Which browsers' pages may connect: origins, `https://*.example.org` for all subdomains,
        /// `chrome-extension://*` for all of a scheme, `file://`, `same-host`, or `*` for all but
        /// `null`, which never matches. Clients without Origin are no browsers and may.
        allowed_origins: AllowedOrigins as ORIGINS,
            default AllowedOrigins::default(),
            because "otherwise any page could use its visitors' cookies here", beyond "403";
        /// For which hosts a request may be, by its Host field: names or addresses, with a port or on
        /// any port; `any` for all. List the names that clients use where a browser may run on the same
        /// machine or network: a page of another name that comes to lead here (DNS rebinding) is turned
        /// away then.
        allowed_hosts: Option<Vec<String>> as HOSTS, default None,
            because "only who runs the server knows its names, and proxies may send others",
            beyond "421";
        /// Subprotocols spoken there, most wanted first.
        subprotocols: Vec<String> as SUBPROTOCOLS, default Vec::new();
        /// Bearer tokens, one of which a handshake has to carry; left out: none is asked for.
        tokens: Vec<Secret> as TOKENS, default Vec::new(), beyond "401";
        /// Instead of `tokens`: a file with one a line, `#` begins a comment line. Relative to the
        /// configuration file.
        tokens_file: Option<PathBuf> as FilePath, default None;
        /// Most connections of one IP address on this route.
        connections_per_ip_max: Option<usize> as Or("off", Count(1, COUNT_MAX)), default None,
            because "proxies and NAT put many people behind one address", beyond "429";
        /// Where its rooms are. A name means the same room on routes of one space alone; `own` is the
        /// space named by the route's path. Routes that share one agree on `limits` and `deflate`.
        room_space: Option<String> as ROOM_SPACE, default None,
            because "what protects a route protects its rooms";
    }
    sections {
        /// What one connection may cost.
        limits: Limits;
        /// permessage-deflate on this route.
        deflate: Deflate;
    }
}

impl Route {
    /// The name of the space its rooms are in: its path pattern, unless it shares another one.
    pub fn space(&self) -> &str {
        self.room_space.as_deref().unwrap_or(&self.path)
    }
}

/// Which origins (RFC 6454) may connect from a browser. No `Origin` at all is not a browser and is
/// none of this policy's business; `null` never matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigins {
    /// Every origin may (`*`).
    pub any: bool,
    /// An origin whose host and port are those of the request's Host may (`same-host`).
    pub same_host: bool,
    /// These may: in lower case, without their scheme's default port.
    pub origins: Vec<String>,
}

impl Default for AllowedOrigins {
    fn default() -> Self {
        Self { any: false, same_host: true, origins: Vec::new() }
    }
}

/// A text that must not be seen in logs: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself. `==` on it leaks its beginning through time: compare in constant time.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}
