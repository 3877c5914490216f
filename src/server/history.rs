//! The upgrades there have been, as operators are told of them and successors remember them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::text;
use crate::control::{Record, Refused, UpgradeOutcome};
use crate::handover::wire::HISTORY_BYTES_MAX;
use crate::net::lane::Origin;

/// Upgrades that are remembered.
const RECORDS_MAX: usize = 10;

/// Different reasons for which connections were refused in one of them; the others are counted.
const REASONS_MAX: usize = 16;

/// Bytes of each: with what JSON makes of control characters, one record has 25 KiB at most.
const REASON_BYTES_MAX: usize = 256;

/// The last upgrades, the oldest first: as many as fit into a message to a successor.
#[derive(Debug, Clone, Default)]
pub(super) struct History(Vec<Record>);

impl History {
    /// Adds an upgrade that has just ended.
    pub(super) fn add(&mut self, outcome: UpgradeOutcome) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.push(Record { at_unix_ms: since.as_millis() as u64, outcome });
        self.forget();
    }

    /// The records, for an operator.
    pub(super) fn records(&self) -> Vec<Record> {
        self.0.clone()
    }

    /// As JSON of at most [`HISTORY_BYTES_MAX`], for a successor.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// The inverse of [`to_json`](Self::to_json). What an older or a newer build wrote may be of no
    /// use here; it is history.
    pub(super) fn of_json(json: &str) -> Self {
        let mut history = Self(serde_json::from_str(json).unwrap_or_default());
        history.forget();
        history
    }

    /// Forgets the oldest, until the others fit.
    fn forget(&mut self) {
        let surplus = self.0.len().saturating_sub(RECORDS_MAX);
        self.0.drain(..surplus);
        while !self.0.is_empty() && self.to_json().len() > HISTORY_BYTES_MAX {
            self.0.remove(0);
        }
    }
}

/// Refused connections, counted by their reason, the most frequent first; one entry more counts
/// those of all other reasons.
pub(super) fn by_reason(refused: &[(Origin, String)]) -> Vec<Refused> {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for (_, reason) in refused {
        *counts.entry(text::cut(reason, REASON_BYTES_MAX)).or_default() += 1;
    }
    let mut counts: Vec<(&str, u64)> = counts.into_iter().collect();
    counts.sort_unstable_by_key(|(reason, connections)| (Reverse(*connections), *reason));
    let others = counts.split_off(REASONS_MAX.min(counts.len()));
    let of_others = (!others.is_empty()).then(|| Refused {
        reason: format!("… and {} other reasons", others.len()),
        connections: others.iter().map(|(_, connections)| connections).sum(),
    });
    let named = counts.into_iter();
    let named =
        named.map(|(reason, connections)| Refused { reason: reason.to_owned(), connections });
    named.chain(of_others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::Key;
    use crate::control::{Failed, FailureKind, Upgraded};
    use crate::handover::wire::{MESSAGE_BYTES_MAX, ToSuccessor};

    fn refused(reasons: impl IntoIterator<Item = String>) -> Vec<(Origin, String)> {
        let key = Key::from_u64(1 << 32).unwrap();
        reasons.into_iter().map(|reason| (Origin { worker: 0, key }, reason)).collect()
    }

    fn upgraded(reasons: impl IntoIterator<Item = String>) -> UpgradeOutcome {
        let refused = by_reason(&refused(reasons));
        UpgradeOutcome::Upgraded(Upgraded { refused, ..Upgraded::default() })
    }

    /// What a successor is told of the upgrades before it.
    fn prepare(history: &History) -> Vec<u8> {
        let message = ToSuccessor::Prepare {
            generation: 1,
            format: 1,
            workers: 1,
            connections: 1,
            holdings: 1,
            rehearsal: false,
            begun_ns: 1,
            time_namespace: 0,
            history: history.to_json(),
        };
        message.encode().expect("it fits")
    }

    #[test]
    fn reasons_are_counted_the_most_frequent_first_and_few_are_named() {
        let of = |text: &str| text.to_owned();
        assert_eq!(by_reason(&[]), []);
        let counted = by_reason(&refused([of("b"), of("a"), of("c"), of("b"), of("c"), of("b")]));
        let expected = [("b", 3), ("c", 2), ("a", 1)];
        assert!(
            counted.iter().map(|it| (it.reason.as_str(), it.connections)).eq(expected),
            "{counted:?}"
        );
        let twice = (0..1_000).chain(0..20).map(|number| format!("reason {number:04}"));
        let counted = by_reason(&refused(twice));
        assert_eq!(counted.len(), REASONS_MAX + 1);
        assert_eq!(counted[0], Refused { reason: of("reason 0000"), connections: 2 });
        let others = Refused { reason: of("… and 984 other reasons"), connections: 988 };
        assert_eq!(counted.last(), Some(&others));
    }

    #[test]
    fn a_history_always_fits_and_keeps_the_newest() {
        let mut history = History::default();
        // Control characters take six bytes each in JSON.
        let long = |number: usize| format!("{}{number}", "\u{1}".repeat(5_000));
        let unlike = |number: usize| format!("{number}{}", "\u{1}".repeat(5_000));
        for round in 0..30 {
            history.add(upgraded((0..1_000).map(unlike)));
            let reason = long(round);
            history.add(UpgradeOutcome::Failed(Failed::new(FailureKind::Aborted, reason)));
            history.add(upgraded([round.to_string()]));
            assert!(history.to_json().len() <= HISTORY_BYTES_MAX);
            assert!(prepare(&history).len() <= MESSAGE_BYTES_MAX);
            history = History::of_json(&history.to_json());
            let records = history.records();
            assert!(records.len() >= 3, "{}", records.len());
            assert_eq!(records.last().unwrap().outcome, upgraded([round.to_string()]));
        }
        for round in 0..30 {
            history.add(upgraded([round.to_string()]));
        }
        assert_eq!(history.records().len(), RECORDS_MAX);
        assert_eq!(History::of_json("another build's").records(), []);
    }
}
