//! Handshakes and requests that were refused: counted by status, and logged.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::app::{Peer, Refusal};
use crate::base::id::ConnectionId;
use crate::http::{Head, redact_target};
use crate::net::log_limit::LogLimit;
use crate::sys::clock;

/// Refusals of all workers, by status: a few hundred at most, as there are no more statuses.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<u16, Refused>>);

#[derive(Debug)]
struct Refused {
    count: u64,
    /// A flood of one status hides no other.
    lines: LogLimit,
}

impl Refusals {
    /// How many there were, by status.
    pub fn by_status(&self) -> Vec<(u16, u64)> {
        self.lock().iter().map(|(status, refused)| (*status, refused.count)).collect()
    }

    /// Counts a refusal, and logs it at the level `info` unless there were many of its status in this
    /// second; `head` is the request, if it could be read.
    pub(super) fn note(
        &self,
        refusal: &Refusal,
        id: ConnectionId,
        peer: Peer,
        head: Option<&Head<'_>>,
    ) {
        let status = refusal.status;
        let passed = {
            let mut all = self.lock();
            let refused =
                all.entry(status).or_insert_with(|| Refused { count: 0, lines: LogLimit::new() });
            refused.count += 1;
            refused.lines.pass(clock::monotonic_ns() / 1_000_000_000)
        };
        let Some(left_out) = passed else { return };
        if left_out > 0 {
            tracing::info!(left_out, status, "lines like the next were left out");
        }
        let path = head.map(|head| redact_target(head.target()));
        let origin = head.and_then(|head| head.header("origin"));
        tracing::info!(
            connection = %id, %peer, status, reason = &*refusal.reason, path = path.as_deref(), origin,
            "request refused"
        );
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Refused>> {
        // Each change is whole, whatever happens to the thread that makes it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_counted() {
        let refusals = Refusals::default();
        for status in [404, 403, 404, 404] {
            let id = ConnectionId::from_u64(1);
            refusals.note(&Refusal::new(status, "no"), id, Peer::default(), None);
        }
        assert_eq!(refusals.by_status(), [(403, 1), (404, 3)]);
    }
}
