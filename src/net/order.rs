//! What the main thread and a handover's thread ask of a worker, and what it answers.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::base::format::Format;
use crate::base::slab::Key;
use crate::hub::WorkerIndex;
use crate::net::stop::Stop;
use crate::sys::bell::Rung;

/// An order. A worker carries its orders out one after another, each at the end of a turn, after
/// the flush; so nothing lies in the turn's buffer then.
#[derive(Debug, Clone)]
pub enum Order {
    /// Stop. A frozen worker does so as soon as it is thawed.
    Stop(Stop),
    /// All workers are through with their stop, and the kernel lets nobody come: end.
    Leave,
    /// Begin to send the connections' descriptors.
    PreCopy(Outlets),
    /// Stop reading, writing and accepting.
    Freeze,
    /// Take the mail there is.
    Settle,
    /// Send the connections' states.
    Save {
        /// What the pause may come to: whoever has more to be saved than fits stays.
        pause_max: Duration,
    },
    /// Send the states of connections that go on being served, to see whether they would load.
    Rehearse(Outlets),
    /// Go on as if nothing had happened.
    Thaw,
    /// The successor owns all connections but `kept`, which are drained here.
    Release {
        /// Those that could not move.
        kept: Arc<[Key]>,
        /// Over how long they are closed.
        drain: Duration,
    },
}

impl Order {
    /// Whether it says who owns the connections, or that all ends: it is given once, and whoever gives
    /// it waits for no answer.
    pub fn decides(&self) -> bool {
        matches!(self, Self::Stop(_) | Self::Leave | Self::Thaw | Self::Release { .. })
    }
}

/// Where a worker sends to: the successor's workers, and the handover's thread.
#[derive(Debug, Clone)]
pub struct Outlets {
    /// One for each worker of the successor.
    pub lanes: Arc<[OwnedFd]>,
    /// What the successor reads states in.
    pub format: Format,
    /// What has become of an order.
    pub reports: Rung<(WorkerIndex, Report)>,
}

/// What a worker answers.
#[derive(Debug)]
pub enum Report {
    /// Every descriptor has been sent once.
    Copied,
    /// Nothing is read, written or accepted any more.
    Frozen,
    /// The mail there was has been taken.
    Settled {
        /// There was none, and none waits to go out.
        idle: bool,
    },
    /// All states have been sent.
    Saved {
        /// How many, with those that were sent ahead.
        connections: usize,
        /// Connections that cannot be moved, and why.
        kept: Vec<(Key, String)>,
    },
    /// An order cannot be carried out.
    Failed(io::Error),
}
