//! What a worker may do at the moment. Each activity asks at the one place where it begins:
//!
//! ```text
//!            accept       read         write        deadlines   messages for members
//! Serving    yes          yes          yes          fire        within the queue's limit
//! Stopping   yes, 503*    yes          yes          fire        within the queue's limit
//! Frozen     noted        noted        noted        wait        all are queued
//! ```
//!
//! \* After `drain_grace`; until then as if it served.
//!
//! epoll reports each change once, so a frozen worker notes each report. When the worker serves
//! again, it does for each connection what it would have done at the time.

use crate::base::slab::Key;
use crate::base::tick::Tick;
use crate::net::gate::Welcome;
use crate::net::stop::{Stop, Stopping};

/// A worker's mode.
#[derive(Debug, Default)]
pub enum Mode {
    /// It serves.
    #[default]
    Serving,
    /// A handover is at its point of decision: another process may own the connections.
    Frozen(Frozen),
    /// It serves its connections until they are closed, and no new ones.
    Stopping(Stopping),
}

/// What has to be done once a worker is no longer frozen.
#[derive(Debug, Default)]
pub struct Frozen {
    /// When it froze.
    pub since: Tick,
    /// epoll has reported these sockets as broken.
    pub broken: Vec<Key>,
    /// It has been told to stop.
    pub stop: Option<Stop>,
}

impl Mode {
    /// Whether no socket may be touched.
    pub fn is_frozen(&self) -> bool {
        matches!(self, Self::Frozen(_))
    }

    /// Whether it will be over soon.
    pub fn is_stopping(&self) -> bool {
        matches!(self, Self::Stopping(_))
    }

    /// Who is let in.
    pub fn welcome(&self) -> Welcome {
        match self {
            Self::Serving | Self::Frozen(_) => Welcome::All,
            Self::Stopping(stopping) if stopping.is_grace() => Welcome::NotReady,
            Self::Stopping(_) => Welcome::Nobody,
        }
    }
}
