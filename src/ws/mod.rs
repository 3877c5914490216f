//! Layer 1: the WebSocket protocol's frames and messages (RFC 6455 §5, RFC 7692), free of I/O.
//!
//! ```text
//! bytes ─► header ─► unmask ─► assembly (fragments, UTF-8, inflate) ─► Incoming
//! bytes ◄─ header ◄─ mask ◄── deflate ◄──────────────────────────────── message
//! ```
//!
//! [`Decoder`] is the receiving side, [`encode`] the sending one. Neither answers anything: who
//! replies to a ping or a Close is the business of [`session`](crate::session).

pub mod close;
pub mod decoder;
pub mod deflate;
pub mod encode;
pub mod error;
pub mod header;
pub mod mask;
pub mod utf8;

pub use close::{CloseCode, CloseFrame};
pub use decoder::{Decoder, DirectRoom, Incoming, Input, Message, Rules, Unfinished};
pub use error::ProtocolError;
pub use header::{Header, Opcode};

/// Which side of the connection we are: it decides who masks (RFC 6455 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Frames we receive are masked, frames we send are not.
    Server,
    /// Frames we receive are not masked, frames we send are.
    Client,
}
