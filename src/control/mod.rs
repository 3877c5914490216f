//! Layer 5: the control socket, through which an operator asks a running server for its status, an
//! upgrade, or a drain.
//!
//! ```text
//! steadfast upgrade ─ Client ══ one JSON object a line ══ serve ─► Operator (the server)
//!                      ▲ progress … progress, outcome ◄─────────────┘
//! ```
//!
//! - `message` has the requests and replies, `line` reads them under a bound.
//! - `path` says where the socket is, [`ControlListener`] listens there.
//! - [`serve`] answers on threads of its own, whoever else may be connected and silent.
//! - [`Client`] is the other end, for the command line.
//!
//! Only the server's own user and root are served. The listener is passed on at a handover; its
//! path is then the successor's.

mod client;
mod line;
mod listener;
mod message;
pub mod path;
mod serve;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

pub use client::{Client, ClientError, TakingOver};
pub use listener::ControlListener;
pub use message::{
    Activity, DrainRequest, Drained, Failed, FailureKind, Outcome, PauseSteps, Progress, Record,
    Refused, Request, Status, UpgradeOutcome, UpgradeRequest, Upgraded,
};
pub use serve::{CONNECTIONS_MAX, IDLE_TIME_MAX, Serving, Standby, prepare, serve};

/// Told how far a request is. To be called at each change and, while there is none, at least ten
/// times a second: it never waits, and answers `Break` once nobody is there to hear the outcome.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// Gives the process at the other end of the control socket one end of a new channel of packets,
/// and returns the other. To be called once.
pub type Give<'a> = &'a mut dyn FnMut() -> io::Result<OwnedFd>;

/// What the control socket lets somebody do with a server. Each call comes on a thread of its own,
/// several of them at once.
pub trait Operator: Send + Sync {
    /// What the server is and does. Answers at once, whatever else is under way.
    fn status(&self) -> Status;

    /// Replaces the server's process, and returns when the outcome is known. When `progress`
    /// answers `Break`, the upgrade is aborted if that is still possible.
    ///
    /// # Errors
    /// Why the process that was there goes on; [`FailureKind::InProgress`] if an upgrade runs.
    fn upgrade(
        &self,
        request: &UpgradeRequest,
        progress: OnProgress<'_>,
    ) -> Result<Upgraded, Failed>;

    /// Hands everything over to the process that asks for it, which `give` gives one end of a
    /// channel; the other one is returned. Returns when the outcome is known; otherwise as
    /// [`upgrade`](Self::upgrade).
    ///
    /// # Errors
    /// As there.
    fn hand_over(&self, give: Give<'_>, progress: OnProgress<'_>) -> Result<Upgraded, Failed>;

    /// Closes every connection, spread over a time, and returns when none is left; then the
    /// server stops. Once begun, it goes on even if nobody waits for it.
    ///
    /// # Errors
    /// Why it has not begun, or did not come to its end.
    fn drain(&self, request: &DrainRequest, progress: OnProgress<'_>) -> Result<Drained, Failed>;
}
