//! Layer 4: the event loop. The only code that meets mio and sockets.
//!
//! Threads share nothing but mailboxes: each worker has its own listeners (SO_REUSEPORT), its own
//! connections and its own part of the hub.

pub mod accounts;
pub mod client;
pub mod connection;
pub mod dispatch;
pub mod gate;
pub mod lane;
pub mod listener;
pub(crate) mod log_limit;
pub mod mailbox;
pub mod mode;
pub mod order;
pub mod record;
pub mod refusals;
pub mod route;
pub mod socket_file;
pub mod states;
pub mod stop;
pub mod stream;
pub mod worker;
