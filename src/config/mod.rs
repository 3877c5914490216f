//! Layer 6: the configuration, from what was written to what is in force.
//!
//! ```text
//! defaults ◄─ TOML file ◄─ STEADFAST_* environment ◄─ flags      (the right one wins, key by key)
//!      └──────────┴──────────────┴──────────────────────┘
//!                        │ written: one raw value a key, with where it was written
//!                        ▼
//!                     resolve: parse, inherit, check  ──► [`Settings`], or every error at once
//! ```
//!
//! - `keys` is the table of every key: name, allowed values, meaning, reason. The manual's
//!   reference, the flags' help and the environment's names are made from it.
//! - `written` collects the sources into one map from key to raw value and origin.
//! - `value` turns raw values into typed ones.
//! - `resolve` reads the map into [`Settings`] and checks what depends on more than one key.
//!
//! Nothing here opens a file or reads the environment: the caller hands both in ([`Sources`]).

mod error;
mod keys;
#[cfg(test)]
mod reference;
mod resolve;
mod route;
mod value;
mod written;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

use crate::base::limits::{HeadLimits, Limits};

pub use crate::base::network::{IpNetwork, ListenAddr, TrustedProxies};
pub use error::{Error, Errors, Place};
pub use keys::{KEYS, Key, Scope, environment_name};
pub use route::AllowedOrigins;
pub use value::{Shape, parse_duration};

/// Everything the server needs to know, complete and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen; at least one, no two the same.
    pub listen: Vec<ListenAddr>,
    /// Threads with an event loop each, 1 to 512.
    pub workers: usize,
    /// The control socket; `None` is the default place, which depends on the port and the user.
    pub control: Option<PathBuf>,
    /// Most connections in all; `None` is what the descriptor limit allows less a reserve.
    /// Never less than `workers`.
    pub connections_max: Option<usize>,
    /// What is logged and how.
    pub log: Log,
    /// The time over which a drain spreads its closes. Zero closes all at once.
    pub drain_duration: Duration,
    /// Addresses allowed to speak for others, by PROXY protocol or X-Forwarded-For. Not empty if
    /// one of the two is on.
    pub trusted_proxies: TrustedProxies,
    /// Connections from trusted proxies begin with a PROXY protocol header (v1 or v2).
    pub proxy_protocol: bool,
    /// Take the peer's address from the X-Forwarded-For of trusted proxies.
    pub forwarded_for: bool,
    /// What a request head may cost.
    pub head: HeadLimits,
    /// What a connection may cost unless its route says otherwise. Routes have already inherited
    /// it: look at [`Route::limits`].
    pub limits: Limits,
    /// permessage-deflate unless the route says otherwise; already inherited, see
    /// [`Route::deflate`].
    pub deflate: Deflate,
    /// What is served where; no two patterns are the same but for their parameters' names.
    pub routes: Vec<Route>,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A level (`off`, `error`, `warn`, `info`, `debug`, `trace`), and after it, separated by
    /// commas, levels for single modules: `info,steadfast::net=debug`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
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

/// permessage-deflate (RFC 7692) as this server does it: no state between messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deflate {
    /// Whether offers are accepted.
    pub enabled: bool,
    /// zlib's level, 1 (fast) to 9 (small).
    pub level: u8,
    /// Messages shorter than this many bytes are sent as they are.
    pub threshold_bytes: usize,
    /// Largest LZ77 window this server compresses with, as a power of two: 9 to 15
    /// (RFC 7692 §7.1.2.1). A client's offer may ask for a smaller one.
    pub server_window_bits: u8,
}

impl Default for Deflate {
    fn default() -> Self {
        Self { enabled: true, level: 1, threshold_bytes: 128, server_window_bits: 15 }
    }
}

/// One path pattern and what is served there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `/`, `/echo`, `/rooms/{name}`: each segment is literal or a `{parameter}`; none is empty,
    /// no parameter repeats.
    pub path: String,
    /// Name of the app, one of [`Context::apps`].
    pub app: String,
    /// Which browsers' pages may connect.
    pub allowed_origins: AllowedOrigins,
    /// Subprotocols the route speaks, most wanted first; empty: the header is left out.
    pub subprotocols: Vec<String>,
    /// Bearer tokens, one of which the handshake has to carry; empty: none is asked for.
    pub tokens: Vec<Secret>,
    /// Most connections of one IP address on this route; `None` is no limit.
    pub connections_per_ip_max: Option<usize>,
    /// What one connection may cost.
    pub limits: Limits,
    /// permessage-deflate on this route.
    pub deflate: Deflate,
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

/// Gives a file's text.
pub type ReadFile = dyn Fn(&Path) -> io::Result<String>;

/// Where values are written, by rising precedence.
#[derive(Default)]
pub struct Sources<'a> {
    /// The configuration file's name (for messages, and as the base of relative paths in it)
    /// and text.
    pub file: Option<(PathBuf, String)>,
    /// The environment. Only names that begin with `STEADFAST_` are looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// Keys of the server given by flags, with their values; of a list, the items with commas
    /// between them.
    pub flags: Vec<(&'static Key, String)>,
    /// Reads the files that keys such as `tokens_file` name.
    pub read_file: Option<&'a ReadFile>,
}

/// What the configuration is resolved against: the machine, and the program it configures.
#[derive(Debug, Clone)]
pub struct Context {
    /// Processors: the default of `workers`, at least 1.
    pub cores: usize,
    /// Names that a route's `app` may have.
    pub apps: Vec<String>,
    /// The routes if none are configured: path pattern and app.
    pub routes_default: Vec<(String, String)>,
}

impl Context {
    /// The built-in apps on their default paths.
    pub fn new(cores: usize) -> Self {
        let routes = [("/", "page"), ("/echo", "echo"), ("/rooms/{name}", "rooms")];
        let routes = routes.map(|(path, app)| (path.to_owned(), app.to_owned()));
        Self {
            cores: cores.max(1),
            apps: routes.iter().map(|(_, app)| app.clone()).collect(),
            routes_default: routes.to_vec(),
        }
    }
}

/// A configuration that holds, and where each of its values comes from.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The values.
    pub settings: Settings,
    /// Each key with its value and origin, in the order of the reference; what a route inherits
    /// is left out.
    pub listing: Vec<Listed>,
}

/// One line of [`Resolved::listing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key: `workers`, `routes.0.path`.
    pub key: String,
    /// Its value as one would write it in the file; a secret is not shown, and for a path left
    /// out it is empty.
    pub value: String,
    /// Where it was written.
    pub origin: Origin,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere.
    Default,
    /// In the configuration file.
    File {
        /// The line, from 1.
        line: usize,
    },
    /// In this environment variable.
    Environment(String),
    /// With this flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File { line } => write!(formatter, "line {line}"),
            Self::Environment(name) => formatter.write_str(name),
            Self::Flag(flag) => formatter.write_str(flag),
        }
    }
}

/// Merges the sources and checks the result.
///
/// # Errors
/// Every error found, in the order of the sources: unknown keys and variables, values that are
/// not what the key allows; and, once each value is right by itself, values that do not go
/// together.
pub fn resolve(sources: &Sources<'_>, context: &Context) -> Result<Resolved, Errors> {
    resolve::resolve(sources, context)
}

impl Settings {
    /// The settings of a server for which nothing was configured.
    ///
    /// # Panics
    /// If the context's default routes are not valid.
    pub fn defaults(context: &Context) -> Self {
        resolve(&Sources::default(), context).expect("the context's default routes hold").settings
    }
}
