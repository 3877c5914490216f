//! The manual, as doc pages.
//!
//! | page | for |
//! |---|---|
//! | [`operating`] | who runs a server: start, stop, logs, proxies, systemd |
//! | [`upgrading`] | who replaces its program or its configuration: what is promised, rolling out and back, containers |
//! | [`configuration`] | every key, its default and its reason |
//! | [`limits`] | what a peer can make the server hold or do, and what follows beyond it |
//! | [`apps`] | who writes an app of his own |
//! | [`protocol`] | who asks how much of RFC 6455 and RFC 7692 is here, and where |
//!
//! The tour of the code is on [the crate's page](crate). `tests/manual.rs` holds the pages to what
//! there is: paths, flags, verbs, make targets, configurations. `configuration` and `limits` are
//! written from the code itself.

// Of two definitions of a link the first holds: here the page's module, and where the file is read
// by itself the one at its end.

#[doc = include_str!("apps.md")]
pub mod apps {}

#[doc = include_str!("configuration.md")]
pub mod configuration {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = "[configuration]: self::configuration"]
#[doc = "[upgrading]: self::upgrading"]
#[doc = ""]
#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = "[apps]: self::apps"]
#[doc = ""]
#[doc = include_str!("upgrading.md")]
pub mod upgrading {}

#[doc = "[limits]: self::limits"]
#[doc = ""]
#[doc = include_str!("protocol.md")]
pub mod protocol {}

/// The README's code is held to compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
