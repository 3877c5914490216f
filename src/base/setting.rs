//! Keys of the configuration, each written once: [`settings!`] declares a struct, and from the same
//! lines come the table of keys and the code that reads them.
//!
//! # How to add a key
//!
//! Write one entry in the declaration of its section:
//!
//! ```text
//! /// Longest message after reassembly and inflation.                 ← what it does: the manual,
//! message_bytes_max: usize as Size(1, GIB), default MIB,                `--help` and rustdoc
//!     because "a message is held in memory as a whole", beyond "1009";
//! ```
//!
//! - `as` names the value's syntax: [`super::syntax`] has switches, counts, sizes, times, words, texts,
//!   lists and paths; `crate::config` has those that only it knows. `Or("off", …)` makes an `Option`.
//! - `because` argues the default; `beyond` says what follows beyond a limit. Both may be left out, but a
//!   key of `head`, of `limits`, or that ends in `_max` is a limit and has both.
//! - Sections: `HeadLimits` and `Limits` in `base/limits.rs`; `Settings` (keys without a section), `Log`,
//!   `Deflate` and `Route` in `config/settings.rs`.
//!
//! The flag, the environment variable, the error messages and the listing of `check-config` follow by
//! themselves. Then run `BLESS=1 cargo test --lib reference`, which writes the manual's tables, and use
//! the field. What depends on more than one key is checked in `config/resolve.rs`.

use super::syntax::{Describe, Syntax};

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// Dotted, as one would write it at the top of a file: `limits.message_bytes_max`. A key of
    /// routes begins with `routes.`.
    pub name: &'static str,
    /// Where it may be written.
    pub scope: Scope,
    /// What may be written.
    pub syntax: &'static dyn Describe,
    pub(crate) doc: &'static str,
    /// Why the default is what it is; empty if there is nothing to argue.
    pub reason: &'static str,
    /// For a limit: what happens beyond it; else empty.
    pub beyond: &'static str,
}

/// Where a key may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Once for the server.
    Server,
    /// In each `[[routes]]`.
    Route,
    /// For the server, and in a route for that route alone: a route inherits each key that it
    /// leaves out.
    Both,
}

impl Key {
    /// What it does.
    pub fn meaning(&self) -> &'static str {
        self.doc.trim_start()
    }

    /// The environment variable that mirrors it; for a key of one route, that route's.
    pub fn environment(&self, route: Option<usize>) -> String {
        format!("STEADFAST_{}", self.name_in(route).to_ascii_uppercase().replace('.', "_"))
    }

    /// The flag that sets it for the server: `--log-level`. Keys of routes have none.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace(['.', '_'], "-"))
    }

    /// Its name as it is written in this place: `message_bytes_max` is `limits.message_bytes_max`
    /// in both, `routes.path` is `path` in a route. `None` if it cannot be written there.
    pub(crate) fn written(&self, in_route: bool) -> Option<&'static str> {
        match (self.scope, in_route) {
            (Scope::Server | Scope::Both, false) | (Scope::Both, true) => Some(self.name),
            (Scope::Route, true) => self.name.strip_prefix("routes."),
            (Scope::Server, true) | (Scope::Route, false) => None,
        }
    }

    /// Its name for the server, or in the route of this index: `routes.0.limits.rooms_max`.
    pub(crate) fn name_in(&self, route: Option<usize>) -> String {
        match route {
            None => self.name.to_owned(),
            Some(route) => {
                let name = self.name.strip_prefix("routes.").unwrap_or(self.name);
                format!("routes.{route}.{name}")
            }
        }
    }
}

/// A struct whose fields are keys; [`settings!`] implements it.
pub(crate) trait Section: Sized {
    /// The keys that are its own fields.
    const KEYS: &'static [Key];

    /// Its own keys, then those of its sections and of its tables.
    fn keys() -> impl Iterator<Item = &'static Key>;

    /// The defaults.
    fn initial() -> Self;

    /// Shows each key with its field to the visitor, in the order of [`keys`](Self::keys); tables
    /// are left out.
    fn visit(&mut self, visitor: &mut impl Visitor);
}

/// Reads or shows keys one by one.
pub(crate) trait Visitor {
    fn key<T>(&mut self, key: &'static Key, syntax: &impl Syntax<T>, value: &mut T);
}

/// Declares a section of the configuration: see the module's head.
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        pub struct $Name:ident, $prefix:literal of $scope:ident {
            $(
                $(#[doc = $doc:literal])+
                $key:ident: $Type:ty as $syntax:expr, default $default:expr
                    $(, because $reason:literal)? $(, beyond $beyond:literal)?;
            )*
        }
        $(sections { $($(#[$section_doc:meta])+ $section:ident: $Section:ty;)* })?
        $(tables { $($(#[$table_doc:meta])+ $table:ident: $Row:ty;)* })?
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $Name {
            $(
                $(#[doc = $doc])+
                $(#[doc = concat!("\n\nThe default: ", $reason, ".")])?
                $(#[doc = concat!("\n\nBeyond it: ", $beyond, ".")])?
                pub $key: $Type,
            )*
            $($($(#[$section_doc])+ pub $section: $Section,)*)?
            $($($(#[$table_doc])+ pub $table: Vec<$Row>,)*)?
        }

        impl $crate::base::setting::Section for $Name {
            const KEYS: &'static [$crate::base::setting::Key] = &[$(
                $crate::base::setting::Key {
                    name: concat!($prefix, stringify!($key)),
                    scope: $crate::base::setting::Scope::$scope,
                    syntax: &$syntax,
                    doc: concat!($($doc),+),
                    reason: concat!($($reason)?),
                    beyond: concat!($($beyond)?),
                },
            )*];

            fn keys() -> impl Iterator<Item = &'static $crate::base::setting::Key> {
                Self::KEYS.iter()
                    $($(.chain(<$Section as $crate::base::setting::Section>::KEYS))*)?
                    $($(.chain(<$Row as $crate::base::setting::Section>::KEYS))*)?
            }

            fn initial() -> Self {
                Self {
                    $($key: $default,)*
                    $($($section: $crate::base::setting::Section::initial(),)*)?
                    $($($table: Vec::new(),)*)?
                }
            }

            fn visit(&mut self, visitor: &mut impl $crate::base::setting::Visitor) {
                let mut keys = Self::KEYS.iter();
                $(visitor.key(keys.next().expect("a key a field"), &$syntax, &mut self.$key);)*
                $($($crate::base::setting::Section::visit(&mut self.$section, visitor);)*)?
            }
        }
    };
}

pub(crate) use settings;
