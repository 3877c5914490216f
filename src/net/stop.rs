//! Stopping: closes spread over time, so that clients come back as a trickle and not as a storm.

use std::time::Duration;

use crate::base::slab::Key;
use crate::base::tick::Tick;
use crate::ws::{CloseCode, CloseFrame};

/// How long a listener goes on accepting after new connection attempts are being dropped: what
/// was half open then completes, or gives up.
pub const SETTLE: Duration = Duration::from_millis(500);

/// How long a fast stop waits for what it has to say to go out.
const FAST: Duration = Duration::from_secs(1);

/// How a server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Close with 1012, spread over this time, and let close handshakes finish.
    Drain(Duration),
    /// Close with 1001 at once, and go.
    Fast,
}

/// A worker's stop under way.
#[derive(Debug)]
pub struct Stopping {
    how: Stop,
    since: Tick,
    /// Open connections at the beginning; the first `closed` of them have been dealt with.
    keys: Vec<Key>,
    closed: usize,
}

impl Stopping {
    /// Begins at `now` with these connections.
    pub fn new(how: Stop, now: Tick, keys: Vec<Key>) -> Self {
        Self { how, since: now, keys, closed: 0 }
    }

    /// How it stops.
    pub fn how(&self) -> Stop {
        self.how
    }

    /// The connections whose turn it is to be closed by `now`: their share of the time that has
    /// passed.
    pub fn due(&mut self, now: Tick) -> &[Key] {
        let from = self.closed;
        self.closed = self.due_by(now);
        &self.keys[from..self.closed]
    }

    /// Whether some have their turn by `now`, and have not had it.
    pub fn has_due(&self, now: Tick) -> bool {
        self.closed < self.due_by(now)
    }

    fn due_by(&self, now: Tick) -> usize {
        match self.how {
            Stop::Drain(time) if now < self.since.after(time) && !time.is_zero() => {
                let passed = now.since(self.since).as_secs_f64() / time.as_secs_f64();
                ((self.keys.len() as f64 * passed) as usize).min(self.keys.len())
            }
            Stop::Drain(_) | Stop::Fast => self.keys.len(),
        }
    }

    /// Whether every connection had its turn.
    pub fn all_told(&self) -> bool {
        self.closed == self.keys.len()
    }

    /// When the listeners are given up.
    pub fn listeners_until(&self) -> Tick {
        match self.how {
            Stop::Drain(_) => self.since.after(SETTLE),
            Stop::Fast => self.since,
        }
    }

    /// When the worker ends whatever is left; `close_timeout` is the longest of its routes'.
    pub fn until(&self, close_timeout: Duration) -> Tick {
        match self.how {
            Stop::Drain(time) => self.since.after(time).after(SETTLE).after(close_timeout),
            Stop::Fast => self.since.after(FAST),
        }
    }

    /// What a connection is told.
    pub fn close_frame(&self) -> CloseFrame {
        match self.how {
            Stop::Drain(_) => CloseFrame::new(CloseCode::RESTART, "server restarts"),
            Stop::Fast => CloseFrame::new(CloseCode::GOING_AWAY, "server stops"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::Slab;

    #[test]
    fn a_drain_is_spread_evenly_and_leaves_nobody_out() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..1_000).map(|number| slab.insert(number)).collect();
        let start = Tick::new(50);
        let mut stopping = Stopping::new(Stop::Drain(Duration::from_secs(10)), start, keys.clone());
        let mut told = vec![];
        for tick in 50..=150 {
            let due = stopping.due(Tick::new(tick));
            assert!(due.len() <= 11, "{} at once", due.len());
            told.extend_from_slice(due);
            assert_eq!(stopping.all_told(), tick == 150);
        }
        assert_eq!(told, keys);
        assert!(stopping.due(Tick::new(151)).is_empty());
    }

    #[test]
    fn a_fast_stop_and_a_drain_over_no_time_tell_everybody_at_once() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..10).map(|number| slab.insert(number)).collect();
        for how in [Stop::Fast, Stop::Drain(Duration::ZERO)] {
            let mut stopping = Stopping::new(how, Tick::new(5), keys.clone());
            assert_eq!(stopping.due(Tick::new(5)).len(), 10);
            assert!(stopping.all_told());
        }
    }
}
