//! Stopping: closes spread over time, so that clients come back as a trickle and not as a storm.
//!
//! ```text
//! Stop ─► grace ─► connections are closed one by one ─► all are gone: through
//!         serving  newcomers get 503
//!
//! Leave ─► those who still wait at the listeners get 503 ─► the listeners are closed ─► the end
//! ```
//!
//! `Leave` comes when all workers are through, since rooms have their homes on any of them, and when
//! the kernel lets nobody join the listeners' queues any more.

use std::time::Duration;

use crate::base::slab::Key;
use crate::base::tick::Tick;
use crate::ws::{CloseCode, CloseFrame};

/// How long a listener goes on accepting once the kernel refuses newcomers: handshakes that were half
/// done then are finished, or given up.
const SETTLE: Duration = Duration::from_millis(50);

/// How long a fast stop waits for what it has to say to go out, and any stop at its very end.
const FAST: Duration = Duration::from_secs(1);

/// How long a worker that may leave waits to be told so, which says that nobody can come any more:
/// whoever owns the server may have let go of it.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// How a server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Close with 1012, and let close handshakes finish.
    Drain {
        /// Before that serve as before, for this long: load balancers that have learned meanwhile
        /// that this server is not ready send nobody more.
        grace: Duration,
        /// The closes are spread over this time.
        spread: Duration,
    },
    /// Close with 1001 at once, and go.
    Fast,
}

impl Stop {
    /// A drain without a grace.
    pub fn drain(spread: Duration) -> Self {
        Self::Drain { grace: Duration::ZERO, spread }
    }

    /// Whether it is a drain.
    pub fn is_drain(self) -> bool {
        matches!(self, Self::Drain { .. })
    }
}

/// A worker's stop under way.
#[derive(Debug)]
pub struct Stopping {
    how: Stop,
    /// When connections begin to be closed.
    begins: Tick,
    /// Connections that were there then; `None` until then.
    keys: Option<Vec<Key>>,
    /// The first so many have been told.
    told: usize,
    /// The first so many have gone, at least.
    gone: usize,
    /// Since when all workers are through.
    may_leave: Option<Tick>,
    /// Since when nobody can come any more.
    leaving: Option<Tick>,
}

impl Stopping {
    /// Begins at `now`.
    pub fn new(how: Stop, now: Tick) -> Self {
        let begins = match how {
            Stop::Drain { grace, .. } if !grace.is_zero() => now.after(grace),
            Stop::Drain { .. } | Stop::Fast => now,
        };
        Self { how, begins, keys: None, told: 0, gone: 0, may_leave: None, leaving: None }
    }

    /// How it stops.
    pub fn how(&self) -> Stop {
        self.how
    }

    /// Whether everything is served as before yet.
    pub fn is_grace(&self) -> bool {
        self.keys.is_none()
    }

    /// Whether the connections that there are by `now` are to be [closed](Self::close).
    pub fn ends_grace(&self, now: Tick) -> bool {
        self.is_grace() && now >= self.begins
    }

    /// These connections are closed from now on.
    pub fn close(&mut self, keys: Vec<Key>) {
        self.keys = Some(keys);
    }

    /// The connections whose turn it is to be closed by `now`: their share of the time that has
    /// passed.
    pub fn due(&mut self, now: Tick) -> &[Key] {
        let from = self.told;
        self.told = self.due_by(now);
        self.keys().get(from..self.told).unwrap_or_default()
    }

    /// Whether some have their turn by `now`, and have not had it.
    pub fn has_due(&self, now: Tick) -> bool {
        self.ends_grace(now) || self.told < self.due_by(now)
    }

    fn keys(&self) -> &[Key] {
        self.keys.as_deref().unwrap_or_default()
    }

    fn due_by(&self, now: Tick) -> usize {
        let keys = self.keys();
        match self.how {
            Stop::Drain { spread, .. } if now < self.begins.after(spread) && !spread.is_zero() => {
                let passed = now.since(self.begins).as_secs_f64() / spread.as_secs_f64();
                ((keys.len() as f64 * passed) as usize).min(keys.len())
            }
            Stop::Drain { .. } | Stop::Fast => keys.len(),
        }
    }

    /// Whether all connections have gone, or have had their time; `close_timeout` is the longest of
    /// their routes'. Each of them is asked for once, for all calls together.
    pub fn is_through(
        &mut self,
        now: Tick,
        close_timeout: Duration,
        is_there: impl Fn(Key) -> bool,
    ) -> bool {
        if self.is_grace() {
            return false;
        }
        while let Some(&key) = self.keys().get(self.gone)
            && !is_there(key)
        {
            self.gone += 1;
        }
        let until = match self.how {
            Stop::Drain { spread, .. } => self.begins.after(spread).after(close_timeout),
            Stop::Fast => self.begins.after(FAST),
        };
        now >= until || (self.told == self.keys().len() && self.gone == self.keys().len())
    }

    /// All workers are through.
    pub fn may_leave(&mut self, now: Tick) {
        let since = *self.may_leave.get_or_insert(now);
        if now >= since.after(LEAVE_WAIT) {
            self.leave(now);
        }
    }

    /// Nobody can come from now on.
    pub fn leave(&mut self, now: Tick) {
        self.leaving.get_or_insert(now);
    }

    /// Whether the listeners are to be closed once nobody waits there.
    pub fn has_settled(&self, now: Tick) -> bool {
        self.leaving.is_some_and(|since| now >= since.after(SETTLE))
    }

    /// Whether whoever is left, of those that came last, has had enough time.
    pub fn is_over(&self, now: Tick) -> bool {
        self.leaving.is_some_and(|since| now >= since.after(FAST))
    }

    /// Whether nobody can come any more.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// What a connection is told.
    pub fn close_frame(&self) -> CloseFrame {
        match self.how {
            Stop::Drain { .. } => CloseFrame::new(CloseCode::RESTART, "server restarts"),
            Stop::Fast => CloseFrame::new(CloseCode::GOING_AWAY, "server stops"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::Slab;

    fn keys(count: usize) -> Vec<Key> {
        let mut slab = Slab::new();
        (0..count).map(|number| slab.insert(number)).collect()
    }

    fn begun(how: Stop, now: Tick, keys: Vec<Key>) -> Stopping {
        let mut stopping = Stopping::new(how, now);
        assert!(stopping.ends_grace(now));
        stopping.close(keys);
        stopping
    }

    #[test]
    fn a_drain_is_spread_evenly_and_leaves_nobody_out() {
        let keys = keys(1_000);
        let how = Stop::drain(Duration::from_secs(10));
        let mut stopping = begun(how, Tick::new(50), keys.clone());
        let mut told = vec![];
        for tick in 50..=150 {
            let due = stopping.due(Tick::new(tick));
            assert!(due.len() <= 11, "{} at once", due.len());
            told.extend_from_slice(due);
            let through = stopping.is_through(Tick::new(tick), Duration::from_secs(5), |_| false);
            assert_eq!(through, tick == 150);
        }
        assert_eq!(told, keys);
        assert!(stopping.due(Tick::new(151)).is_empty());
    }

    #[test]
    fn a_fast_stop_and_a_drain_over_no_time_tell_everybody_at_once() {
        for how in [Stop::Fast, Stop::drain(Duration::ZERO)] {
            let mut stopping = begun(how, Tick::new(5), keys(10));
            assert_eq!(stopping.due(Tick::new(5)).len(), 10);
        }
    }

    #[test]
    fn in_the_grace_nobody_is_told() {
        let grace = Duration::from_secs(3);
        let how = Stop::Drain { grace, spread: Duration::ZERO };
        let mut stopping = Stopping::new(how, Tick::new(5));
        assert!(stopping.is_grace() && !stopping.has_due(Tick::new(34)));
        assert!(!stopping.is_through(Tick::new(500), Duration::ZERO, |_| false));
        assert!(stopping.has_due(Tick::new(35)) && stopping.ends_grace(Tick::new(35)));
        stopping.close(keys(3));
        assert!(!stopping.is_grace());
        assert_eq!(stopping.due(Tick::new(35)).len(), 3);
    }

    #[test]
    fn it_is_through_when_all_have_gone_or_have_had_their_time() {
        let keys = keys(3);
        let timeout = Duration::from_secs(5);
        let mut stopping = begun(Stop::drain(Duration::ZERO), Tick::new(0), keys.clone());
        stopping.due(Tick::new(0));
        assert!(!stopping.is_through(Tick::new(1), timeout, |key| key == keys[1]));
        // Each is asked for until it has gone, and not again.
        assert!(!stopping.is_through(Tick::new(2), timeout, |key| key != keys[0]));
        assert!(stopping.is_through(Tick::new(3), timeout, |key| key == keys[0]));
        let mut waits = begun(Stop::drain(Duration::ZERO), Tick::new(0), keys);
        waits.due(Tick::new(0));
        for (tick, leaves) in [(10, false), (59, false), (60, true)] {
            waits.may_leave(Tick::new(tick));
            assert_eq!(waits.is_leaving(), leaves, "{tick}");
        }
        assert!(!waits.is_through(Tick::new(50), timeout, |_| true));
        assert!(waits.is_through(Tick::new(51), timeout, |_| true));
    }
}
