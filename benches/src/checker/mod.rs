//! The stream checker: does a server keep every byte of every connection?
//!
//! Connections send numbered messages at a known rate, and each compares every byte that returns
//! with what must return. It counts what must never happen ([`Faults`]) and measures how late
//! answers come. It knows nothing of the server but RFC 6455, RFC 7692 and the paths `/echo` and
//! `/rooms/{name}`, and shares no code with it.
//!
//! | module | what lives there |
//! |---|---|
//! | [`message`] | what a numbered message says; its bytes follow from its number |
//! | [`account`] | lost, repeated, reordered, corrupted, disconnected: the counts of one stream |
//! | [`frame`] | frames to send and frames received, compression |
//! | [`figures`] | delays and silences |
//! | `connection` | one connection: pieces to send, its reader, its account |
//! | [`visitors`] | new connections all the time, each for one echo |
//! | [`streams`] | all connections of a run on one event loop |
//! | [`running`] | the loop on a thread of its own, and questions to it |

pub mod account;
mod connection;
pub mod figures;
pub mod frame;
pub mod message;
pub mod running;
pub mod streams;
pub mod visitors;

pub use account::Faults;
pub use running::{Running, WindowFigures};
pub use streams::{Load, Streams, Totals};
pub use visitors::Visits;
