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
//! - `settings` declares every key: name, syntax, default, reason. The table of keys, the flags and
//!   their help, the environment's names and the manual's reference are made from it.
//! - `written` collects the sources into one map from key to raw value and origin.
//! - `syntax` has the syntaxes of values that only the configuration knows.
//! - `resolve` reads the map into [`Settings`] and checks what depends on more than one key.
//!
//! Nothing here opens a file or reads the environment: the caller hands both in ([`Sources`]).

mod error;
#[cfg(test)]
mod reference;
mod resolve;
mod routes;
mod settings;
mod syntax;
mod written;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::base::setting::Section;

pub use crate::base::network::{IpNetwork, ListenAddr, TrustedProxies};
pub use crate::base::setting::{Key, Scope};
pub use crate::base::syntax::{Describe, parse_duration};
pub use error::{Error, Errors, Place};
pub use settings::{AllowedOrigins, Deflate, Log, LogFormat, Route, Secret, Settings};

/// Every key, in the order of the reference.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    Settings::keys()
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

/// The built-in apps.
const APPS: [&str; 5] = ["page", "echo", "rooms", "health", "ready"];

impl Context {
    /// The built-in apps, the first three on their default paths.
    pub fn new(cores: usize) -> Self {
        let routes = [("/", "page"), ("/echo", "echo"), ("/rooms/{name}", "rooms")];
        let routes = routes.map(|(path, app)| (path.to_owned(), app.to_owned()));
        Self {
            cores: cores.max(1),
            apps: APPS.map(str::to_owned).to_vec(),
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
    /// What need not be wrong, but may be a slip: variables of the environment that no key has.
    pub warnings: Vec<Error>,
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
