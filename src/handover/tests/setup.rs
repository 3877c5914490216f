//! What a world is made of, and what may happen in it.

use crate::base::slab::Key;
use crate::hub::WorkerIndex;
use crate::net::lane::Origin;

#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    /// Of the predecessor.
    pub(super) workers: u16,
    /// Workers of the successor.
    pub(super) lanes: u16,
    pub(super) rehearsal: bool,
    /// Whether the successor refuses one connection, and the last worker of the predecessor has
    /// one that cannot be saved.
    pub(super) refuses: bool,
    pub(super) faults: Faults,
    /// A rule that one of the drivers breaks, to see that it is noticed.
    pub(super) broken: Option<Broken>,
}

impl Setup {
    /// Connections that stay with the predecessor: what the first adopter refuses, and what the
    /// last worker cannot save.
    pub(super) fn refusals(self) -> Vec<Origin> {
        let both = vec![origin(0, 0), origin(self.workers - 1, self.lanes)];
        if self.refuses { both } else { Vec::new() }
    }
}

/// A worker has one connection for each lane, and may have another that cannot be saved.
pub(super) fn origin(worker: WorkerIndex, lane: u16) -> Origin {
    let key = Key::from_u64(1 << 32 | u64::from(lane)).expect("of the first generation");
    Origin { worker, key }
}

/// A rule of the handover, broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// The predecessor thaws without having changed the word.
    ThawsWithoutRevoking,
    /// The predecessor revokes what has been taken.
    RevokesWhatIsTaken,
    /// The successor serves without having changed the word.
    ServesWithoutTaking,
    /// The successor takes what has been revoked.
    TakesWhatIsRevoked,
    /// The successor says that it serves before it does.
    SaysActiveTooSoon,
    /// The successor does not say what it refuses, and counts it.
    HidesRefusals,
    /// The predecessor does not freeze before it saves.
    SavesWhileServing,
    /// The predecessor never looks at its timer.
    ForgetsTheTime,
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// So many of the two may be killed.
    pub(super) deaths: u8,
    /// Of each side, at any time.
    pub(super) timeouts: u8,
    /// Of the predecessor, by an operator or a failure.
    pub(super) aborts: u8,
    /// Of the successor.
    pub(super) failures: u8,
    /// One process, or one worker, does nothing more, and does not end.
    pub(super) stalls: u8,
    /// Reports of a worker, of either side, that there was mail to settle. No fault.
    pub(super) busy_rounds: u8,
}

/// What may happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transition {
    /// The next action of one side is carried out.
    PredecessorActs,
    SuccessorActs,
    /// An event is handled.
    PredecessorHearsWorker,
    SuccessorHearsWorker,
    PredecessorReceives,
    SuccessorReceives,
    PredecessorSeesTheEnd,
    SuccessorSeesTheEnd,
    /// A worker carries out its next order; the last two with mail found.
    Worker(usize),
    Adopter(usize),
    BusyWorker(usize),
    BusyAdopter(usize),
    /// The predecessor sees a successor off that it has given up.
    PredecessorEndsSuccessor,
    PredecessorExits,
    PredecessorTimesOut,
    SuccessorTimesOut,
    Abort,
    Failure,
    PreparationFails,
    PredecessorDies,
    SuccessorDies,
    Stall(Part),
}

/// What may stall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Predecessor,
    Successor,
    Worker(usize),
    Adopter(usize),
}

impl Transition {
    pub(super) fn is_fault(self) -> bool {
        matches!(
            self,
            Self::PredecessorTimesOut
                | Self::SuccessorTimesOut
                | Self::Abort
                | Self::Failure
                | Self::PreparationFails
                | Self::PredecessorDies
                | Self::SuccessorDies
                | Self::Stall(_)
        )
    }

    /// Whether it comes by itself, if only one waits long enough.
    pub(super) fn is_bound_to_come(self, stalled: bool) -> bool {
        let is_timeout = matches!(self, Self::PredecessorTimesOut | Self::SuccessorTimesOut);
        !self.is_fault() || stalled && is_timeout
    }

    /// Whose doing it is.
    pub(super) fn part(self) -> Option<Part> {
        Some(match self {
            Self::PredecessorActs
            | Self::PredecessorHearsWorker
            | Self::PredecessorReceives
            | Self::PredecessorSeesTheEnd
            | Self::PredecessorEndsSuccessor
            | Self::PredecessorExits
            | Self::PredecessorTimesOut
            | Self::Abort => Part::Predecessor,
            Self::SuccessorActs
            | Self::PreparationFails
            | Self::SuccessorHearsWorker
            | Self::SuccessorReceives
            | Self::SuccessorSeesTheEnd
            | Self::SuccessorTimesOut
            | Self::Failure => Part::Successor,
            Self::Worker(at) | Self::BusyWorker(at) => Part::Worker(at),
            Self::Adopter(at) | Self::BusyAdopter(at) => Part::Adopter(at),
            Self::PredecessorDies | Self::SuccessorDies | Self::Stall(_) => return None,
        })
    }
}

/// How it may end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum End {
    /// The successor serves, and the predecessor knows.
    Moved,
    /// The predecessor goes on.
    Aborted,
    Rehearsed,
    /// The predecessor is dead, and the successor serves all it had.
    Inherited,
    /// The predecessor is dead with all its connections; the successor serves its listeners.
    ListenersOnly,
    /// Nobody serves, and it is the supervisor's turn.
    Crashed,
}
