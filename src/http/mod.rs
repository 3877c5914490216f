//! Layer 1: HTTP/1.1 as far as a WebSocket server needs it (RFC 9110, RFC 9112).
//!
//! One request a connection: its head is found ([`find_head_end`]), parsed strictly
//! ([`Head::parse`]), and answered once, by a 101 (`session::handshake`) or by a [`Response`] after
//! which the connection is closed. Nothing here copies a head or knows a socket. The client role
//! reads its answer with [`ResponseHead`].

mod address;
mod date;
mod error;
mod fields;
pub(crate) mod head;
pub mod proxy;
mod response;
mod response_head;
mod target;

pub use address::{Address, Authority};
pub use date::http_date;
pub use error::HeadError;
pub use fields::{Fields, is_token};
pub use head::{Head, check_partial, find_head_end};
pub use proxy::{ProxyError, ProxyParsing};
pub use response::{Refusal, Response};
pub use response_head::ResponseHead;
pub use target::{check_target, percent_decode, redact_target};
