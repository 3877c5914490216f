//! What the workers count together.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::base::meter::Meter;
use crate::hub::WorkerIndex;

/// Connections in all and of each worker, and how many may be; likewise the bytes that they hold.
#[derive(Debug)]
pub struct Accounts {
    connections: AtomicUsize,
    by_worker: Box<[AtomicUsize]>,
    connections_max: usize,
    stalled: AtomicU64,
    /// Workers whose connections are gone, in a stop.
    through: Box<[AtomicBool]>,
    held: Box<[Meter]>,
    memory_max: usize,
}

impl Accounts {
    /// Of so many workers, with room for so many connections, which may hold so many bytes.
    pub fn new(workers: usize, connections_max: usize, memory_max: usize) -> Self {
        let by_worker = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        let all = Meter::default();
        Self {
            connections: AtomicUsize::new(0),
            by_worker,
            connections_max,
            stalled: AtomicU64::new(0),
            through: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            held: (0..workers).map(|_| Meter::beside(&all)).collect(),
            memory_max,
        }
    }

    /// Connections now, of all workers.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections now, of each worker by its index.
    pub fn connections_by_worker(&self) -> impl Iterator<Item = usize> {
        self.by_worker.iter().map(|count| count.load(Ordering::Relaxed))
    }

    /// How many connections may be.
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Connections that this process has dropped because they took nothing for `limits.write_timeout`.
    pub fn stalled(&self) -> u64 {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Counts one of them.
    pub(super) fn count_stalled(&self) {
        self.stalled.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether all workers are through with a stop: the connections there were are gone.
    pub fn are_all_through(&self) -> bool {
        self.through.iter().all(|through| through.load(Ordering::Acquire))
    }

    /// A worker is through with its stop, or has ended.
    pub(super) fn set_through(&self, worker: WorkerIndex) {
        self.through[usize::from(worker)].store(true, Ordering::Release);
    }

    /// Bytes that connections hold: unfinished messages, parked bytes, out queues.
    pub fn held(&self) -> usize {
        self.held.first().map_or(0, Meter::total)
    }

    /// How many bytes connections may hold.
    pub fn memory_max(&self) -> usize {
        self.memory_max
    }

    /// Counts the bytes that a worker's connections hold.
    pub fn meter(&self, worker: WorkerIndex) -> &Meter {
        &self.held[usize::from(worker)]
    }

    /// A worker's part of [`memory_max`](Self::memory_max).
    pub(super) fn memory_share(&self) -> usize {
        self.memory_max / self.held.len().max(1)
    }

    /// Counts a connection of a worker in, if there is room for it.
    pub(super) fn enter(&self, worker: WorkerIndex) -> bool {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        if before >= self.connections_max {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.by_worker[usize::from(worker)].fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Counts a connection in that was there before us, room or not.
    pub(super) fn enter_adopted(&self, worker: WorkerIndex) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.by_worker[usize::from(worker)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection out.
    pub(super) fn leave(&self, worker: WorkerIndex) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.by_worker[usize::from(worker)].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_counts_for_all() {
        let accounts = Accounts::new(2, 2, 100);
        assert!(accounts.enter(0) && accounts.enter(1) && !accounts.enter(1));
        accounts.enter_adopted(1);
        assert_eq!(accounts.connections(), 3);
        assert_eq!(accounts.connections_by_worker().collect::<Vec<_>>(), [1, 2]);
        accounts.leave(0);
        assert_eq!(accounts.connections(), 2);
        assert_eq!(accounts.connections_by_worker().collect::<Vec<_>>(), [0, 2]);
        accounts.set_through(1);
        assert!(!accounts.are_all_through());
        accounts.set_through(0);
        assert!(accounts.are_all_through());
        accounts.meter(1).add(30);
        assert_eq!(
            (accounts.held(), accounts.meter(0).own(), accounts.memory_share()),
            (30, 0, 50)
        );
    }
}
