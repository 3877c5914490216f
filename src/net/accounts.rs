//! What the workers count together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Connections in all, and how many may be.
#[derive(Debug)]
pub struct Accounts {
    connections: AtomicUsize,
    connections_max: usize,
}

impl Accounts {
    /// With room for so many connections.
    pub fn new(connections_max: usize) -> Self {
        Self { connections: AtomicUsize::new(0), connections_max }
    }

    /// Connections now, of all workers.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many connections may be.
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Counts a connection in, if there is room for it.
    pub(super) fn enter(&self) -> bool {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        if before >= self.connections_max {
            self.leave();
            return false;
        }
        true
    }

    /// Counts a connection in that was there before us, room or not.
    pub(super) fn enter_adopted(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection out.
    pub(super) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
