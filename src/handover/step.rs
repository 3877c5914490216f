//! The steps of a handover, as an operator sees them, and how long each may take.

use std::fmt;
use std::time::Duration;

/// The successor starts, reads its configuration and builds its workers: seconds at most. Longer
/// ones hang.
const PREPARE_MAX: Duration = Duration::from_secs(30);

/// Everybody is served meanwhile, so there is no hurry: a million connections take 3 s.
const COPY_MAX: Duration = Duration::from_secs(60);

/// Nobody is served from here on. A worker stops as soon as it looks into its mailbox, so one that
/// takes this long is stuck.
const FREEZE_MAX: Duration = Duration::from_secs(2);

/// Some milliseconds for tens of thousands of idle connections, but there may be gigabytes queued.
/// With the steps around it, below the 20 s after which clients commonly give a server up.
const STATE_MAX: Duration = Duration::from_secs(10);

/// The successor only has to be scheduled.
const OFFER_MAX: Duration = Duration::from_secs(5);

/// How long the successor waits for all that comes between READY and its ADOPTED: more than the
/// predecessor gives the steps in it, so that it is the predecessor that gives up first and can
/// say why.
pub(super) const ADOPT_MAX: Duration = Duration::from_secs(90);

/// And how long it waits for the offer then.
pub(super) const WAIT_FOR_OFFER_MAX: Duration = Duration::from_secs(20);

/// How long a successor that has been told to leave may take, before it is ended.
pub(super) const LEAVE_MAX: Duration = Duration::from_secs(5);

/// A step of a handover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The successor starts.
    Prepare,
    /// Descriptors are copied to it.
    Copy,
    /// The workers stop and settle.
    Freeze,
    /// The states of the connections are sent and loaded.
    State,
    /// The successor is to take them.
    Offer,
    /// It is over.
    Done,
}

impl Step {
    /// Its name in progress reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Copy => "copy",
            Self::Freeze => "freeze",
            Self::State => "state",
            Self::Offer => "offer",
            Self::Done => "done",
        }
    }

    /// How long the predecessor gives it.
    pub fn time_max(self) -> Duration {
        match self {
            Self::Prepare => PREPARE_MAX,
            Self::Copy => COPY_MAX,
            Self::Freeze => FREEZE_MAX,
            Self::State => STATE_MAX,
            Self::Offer => OFFER_MAX,
            Self::Done => LEAVE_MAX,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_predecessor_gives_up_first() {
        let time = |steps: &[Step]| steps.iter().map(|step| step.time_max()).sum::<Duration>();
        assert!(ADOPT_MAX > time(&[Step::Copy, Step::Freeze, Step::State]));
        assert!(WAIT_FOR_OFFER_MAX > time(&[Step::State, Step::Offer]));
    }

    #[test]
    fn the_longest_pause_is_below_what_clients_wait() {
        let steps = [Step::Freeze, Step::State, Step::Offer];
        assert!(steps.map(Step::time_max).iter().sum::<Duration>() < Duration::from_secs(20));
    }
}
