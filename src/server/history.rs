//! The upgrades there have been, as operators are told of them and successors remember them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::control::{Record, Refused, UpgradeOutcome};
use crate::net::lane::Origin;

/// Upgrades that are remembered.
const RECORDS_MAX: usize = 10;

/// The last upgrades, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct History(Vec<Record>);

impl History {
    /// Adds an upgrade that has just ended.
    pub(super) fn add(&mut self, outcome: UpgradeOutcome) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.push(Record { at_unix_ms: since.as_millis() as u64, outcome });
        let surplus = self.0.len().saturating_sub(RECORDS_MAX);
        self.0.drain(..surplus);
    }

    /// The records, for an operator.
    pub(super) fn records(&self) -> Vec<Record> {
        self.0.clone()
    }

    /// As JSON, for a successor.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// The inverse of [`to_json`](Self::to_json). What an older or a newer build wrote may be of no
    /// use here; it is history.
    pub(super) fn of_json(json: &str) -> Self {
        Self(serde_json::from_str(json).unwrap_or_default())
    }
}

/// Refused connections, counted by their reason.
pub(super) fn by_reason(refused: &[(Origin, String)]) -> Vec<Refused> {
    let mut reasons: Vec<Refused> = Vec::new();
    for (_, reason) in refused {
        match reasons.iter_mut().find(|known| known.reason == *reason) {
            Some(known) => known.connections += 1,
            None => reasons.push(Refused { reason: reason.clone(), connections: 1 }),
        }
    }
    reasons
}
