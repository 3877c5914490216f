//! Layer 5: the supervisor, the small process that `steadfast serve` starts as.
//!
//! It has the process id that a service manager, a container or a shell knows, and keeps it. It
//! owns no connection: it starts the server and, when the server asks for it, the successor; keeps
//! copies of the listeners, so that they stay open when the server crashes, and starts another one
//! then; takes the signals and orders the server what they stand for; and becomes the new program in place once a successor serves.
//!
//! ```text
//!   service manager ── signals ──► supervisor ◄══ link ══► server
//!                   ◄─ notices ──     ║                      ║ channel
//!                                     ╚══════ link ══════► successor
//! ```
//!
//! - `machine` decides; it is pure. `run` is the thin rest.
//! - `message` is what goes over a link, [`Link`] the server's end of it.
//! - `state` is what goes along when it becomes another program.
//! - [`Role`] says what a process has been started as.
//!
//! If the supervisor is killed, the server goes on, and sees the end of its link.

mod link;
pub mod machine;
mod message;
mod notify;
mod program;
mod role;
mod run;
mod state;

pub use link::{Link, LinkEvent, Start};
pub use machine::{Ending, Order};
pub use message::Kept;
pub use program::{Started, note_start, started};
pub use role::Role;
pub use run::{begin, resume};
pub use state::State;
