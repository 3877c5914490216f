//! Where the time of a pause goes, as its predecessor sees it.

use std::time::Duration;

use crate::control::PauseSteps;
use crate::sys::clock;

/// A step of the pause begins, but for the first one, where the one before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The workers are told to freeze.
    Freeze,
    /// All are frozen.
    Settle,
    /// No mail is under way.
    Save,
    /// A worker has sent its states; the last one counts.
    Saved,
    /// All is loaded there.
    Loaded,
    /// The successor serves.
    Over,
}

/// The moments there have been, by the clock that the successor has, too, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct PauseClock {
    at: [Option<u64>; 6],
}

impl PauseClock {
    pub(super) fn mark(&mut self, moment: Moment) {
        let at = &mut self.at[moment as usize];
        // Settling takes several rounds.
        if moment == Moment::Saved || at.is_none() {
            *at = Some(clock::monotonic_ns());
        }
    }

    /// When it began.
    pub(super) fn frozen_ns(&self) -> Option<u64> {
        self.at[Moment::Freeze as usize]
    }

    /// How long it has lasted, or did last; `None` if it has not begun.
    pub(super) fn pause(&self) -> Option<Duration> {
        let end_ns = self.at[Moment::Over as usize].unwrap_or_else(clock::monotonic_ns);
        Some(Duration::from_nanos(end_ns.saturating_sub(self.frozen_ns()?)))
    }

    /// What the steps took, once it is over.
    pub(super) fn steps(&self) -> Option<PauseSteps> {
        let us = |from: Moment, to: Moment| {
            let (from, to) = (self.at[from as usize]?, self.at[to as usize]?);
            Some(to.saturating_sub(from) / 1_000)
        };
        Some(PauseSteps {
            freeze_us: us(Moment::Freeze, Moment::Settle)?,
            settle_us: us(Moment::Settle, Moment::Save)?,
            save_us: us(Moment::Save, Moment::Saved)?,
            load_us: us(Moment::Saved, Moment::Loaded)?,
            take_us: us(Moment::Loaded, Moment::Over)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_the_whole() {
        let mut clock = PauseClock::default();
        assert_eq!((clock.frozen_ns(), clock.pause()), (None, None));
        let moments = [
            Moment::Freeze,
            Moment::Settle,
            Moment::Settle,
            Moment::Save,
            Moment::Saved,
            Moment::Saved,
            Moment::Loaded,
            Moment::Over,
        ];
        for moment in moments {
            assert_eq!(clock.steps(), None);
            clock.mark(moment);
        }
        let PauseSteps { freeze_us, settle_us, save_us, load_us, take_us } = clock.steps().unwrap();
        let whole = clock.pause().unwrap();
        let sum = freeze_us + settle_us + save_us + load_us + take_us;
        // Each is cut to whole microseconds.
        assert!((sum..sum + 6).contains(&(whole.as_micros() as u64)));
    }
}
