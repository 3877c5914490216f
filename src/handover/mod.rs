//! Layer 5: the handover of every live connection from a process, the *predecessor*, to the one
//! that replaces it, the *successor*.
//!
//! ```text
//! predecessor                              successor
//!                                 ──────►  HELLO                    what it can read and write
//! PREPARE                         ──────►  builds its workers
//!                                 ◄──────  READY or REFUSED         nothing has moved yet
//! listeners, lanes, descriptors   ──────►  parks them, polls none   everyone is still served
//! FROZEN, states                  ──────►  loads them               the pause begins
//!                                 ◄──────  ADOPTED
//! OFFER                           ──────►  takes it, serves         the pause ends
//!                                 ◄──────  ACTIVE
//! ```
//!
//! The two are joined by one pair of packet sockets, the *channel*, and one more pair for each
//! worker of the successor, its *lane*, which all workers of the predecessor write to. Who owns
//! the connections is decided by a word in memory that both share, and by nothing else
//! ([`word`]): messages can be lost with the one who sends them.
//!
//! The machines of both sides ([`predecessor`], [`successor`]) do no I/O and read no clock: they
//! are told events and answer with actions.

pub mod envelope;
pub mod predecessor;
pub mod step;
pub mod successor;
pub mod wire;
pub mod word;

#[cfg(test)]
mod tests;
