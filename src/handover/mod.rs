//! Layer 5: a successor takes over every connection of its predecessor, or nothing has happened.
//!
//! ```text
//! predecessor                                   successor
//!   starts the new binary, joined by a channel
//!                                        ◄─────  Hello: what it reads, who it is
//!   Prepare, holdings                    ─────►  reads its configuration, binds what is new
//!                                                 starts its workers, which wait
//!                                        ◄─────  Ready, or Refused            nothing has moved
//!   lanes; on them descriptors, and the
//!   states of what has nothing to do     ─────►  parks and loads, while all are still served here
//!   freezes: nobody is served            ─────►                               the pause begins
//!   states that have changed since       ─────►  loads them
//!                                        ◄─────  Adopted
//!   Offer                                ─────►  takes it, and serves         the pause ends
//!                                        ◄─────  Active
//! ```
//!
//! A message cannot decide who owns the connections, for the sender never knows whether it arrived.
//! A word in shared memory does ([`ownership`]): the successor reads and writes only after it has
//! changed OFFERED to TAKEN, the predecessor thaws only after it has changed the word to REVOKED, and
//! exactly one of them can.
//!
//! [`predecessor`] and [`successor`] are state machines without I/O: events in, actions out. The
//! server's composition root joins them to sockets, workers and time.

pub mod ownership;
pub mod predecessor;
pub mod step;
pub mod successor;
pub mod wire;

pub use step::{Step, Timeline};

#[cfg(test)]
mod tests;
