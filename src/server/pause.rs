//! Where the time of a pause goes, as its predecessor sees it.

use std::time::Instant;

use crate::control::PauseSteps;

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

/// The moments there have been.
#[derive(Debug, Default)]
pub(super) struct PauseClock {
    at: [Option<Instant>; 6],
}

impl PauseClock {
    pub(super) fn mark(&mut self, moment: Moment) {
        let at = &mut self.at[moment as usize];
        // Settling takes several rounds.
        if moment == Moment::Saved || at.is_none() {
            *at = Some(Instant::now());
        }
    }

    /// What the steps took, once it is over.
    pub(super) fn steps(&self) -> Option<PauseSteps> {
        let us = |from: Moment, to: Moment| {
            let (from, to) = (self.at[from as usize]?, self.at[to as usize]?);
            Some(to.saturating_duration_since(from).as_micros() as u64)
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
        let whole = clock.at[5].unwrap() - clock.at[0].unwrap();
        let sum = freeze_us + settle_us + save_us + load_us + take_us;
        // Each is cut to whole microseconds.
        assert!((sum..sum + 6).contains(&(whole.as_micros() as u64)));
    }
}
