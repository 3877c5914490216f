//! The steps of an upgrade, and when each was entered: one vocabulary for the state machine, the
//! control socket, the log and the figures.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A step of an upgrade, as the predecessor sees it; they come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The new process starts, and has not said hello.
    Start,
    /// It reads its configuration, binds what is new and checks what it needs.
    Prepare,
    /// Descriptors and states go to the successor while everybody is served.
    Copy,
    /// The workers stop reading, writing and accepting: the pause begins.
    Freeze,
    /// Messages between workers are delivered.
    Settle,
    /// The states that have changed since they were copied go to the successor.
    Save,
    /// The successor loads the rest of them.
    Load,
    /// The successor may take over, and decides.
    Take,
    /// It is over: the pause has ended.
    Done,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 9] = [
        Self::Start,
        Self::Prepare,
        Self::Copy,
        Self::Freeze,
        Self::Settle,
        Self::Save,
        Self::Load,
        Self::Take,
        Self::Done,
    ];

    /// The step's name, as in JSON and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Prepare => "prepare",
            Self::Copy => "copy",
            Self::Freeze => "freeze",
            Self::Settle => "settle",
            Self::Save => "save",
            Self::Load => "load",
            Self::Take => "take",
            Self::Done => "done",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When each step was entered, in nanoseconds of the system's monotonic clock, which both processes
/// read alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline([Option<u64>; Step::ALL.len()]);

impl Timeline {
    /// Notes that a step is entered. Only the first time counts; returns whether it was.
    pub fn enter(&mut self, step: Step, at_ns: u64) -> bool {
        let entered = &mut self.0[step as usize];
        let is_first = entered.is_none();
        entered.get_or_insert(at_ns);
        is_first
    }

    /// When a step was entered, if it was.
    pub fn entered_ns(&self, step: Step) -> Option<u64> {
        self.0[step as usize]
    }

    /// The last step that was entered before the end.
    pub fn last(&self) -> Option<Step> {
        let steps = Step::ALL.into_iter().rev().filter(|step| *step != Step::Done);
        steps.into_iter().find(|step| self.entered_ns(*step).is_some())
    }

    /// How long a step took: until the next one that was entered. Zero if it was passed over;
    /// `None` if it lasts, or is still to come.
    pub fn duration(&self, step: Step) -> Option<Duration> {
        let later = &self.0[step as usize + 1..];
        let end_ns = later.iter().flatten().next()?;
        let begin_ns = self.entered_ns(step).unwrap_or(*end_ns);
        Some(Duration::from_nanos(end_ns.saturating_sub(begin_ns)))
    }

    /// How long the pause was, or has lasted until `now_ns`; `None` if it has not begun.
    pub fn pause(&self, now_ns: u64) -> Option<Duration> {
        Some(self.until_done(self.entered_ns(Step::Freeze)?, now_ns))
    }

    /// How long the whole took, or has lasted until `now_ns`.
    pub fn total(&self, now_ns: u64) -> Duration {
        self.until_done(self.entered_ns(Step::Start).unwrap_or(now_ns), now_ns)
    }

    fn until_done(&self, begin_ns: u64, now_ns: u64) -> Duration {
        let end_ns = self.entered_ns(Step::Done).unwrap_or(now_ns);
        Duration::from_nanos(end_ns.saturating_sub(begin_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_have_their_order_and_their_names() {
        assert!(Step::ALL.is_sorted());
        for (place, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, place);
            let json = serde_json::to_string(&step).unwrap();
            assert_eq!(json, format!("\"{step}\""));
            assert_eq!(serde_json::from_str::<Step>(&json).unwrap(), step);
        }
    }

    #[test]
    fn the_steps_of_a_pause_are_the_whole() {
        let mut times = Timeline::default();
        assert_eq!((times.pause(5), times.last(), times.total(5)), (None, None, Duration::ZERO));
        for (place, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(times.duration(step), None);
            assert!(times.enter(step, 100 + 10 * place as u64));
            assert!(!times.enter(step, 7), "settling takes several rounds");
        }
        let pause = Step::ALL.into_iter().filter(|step| *step >= Step::Freeze);
        let sum: Duration = pause.filter_map(|step| times.duration(step)).sum();
        assert_eq!(times.pause(9_000), Some(sum));
        assert_eq!(times.total(9_000), Duration::from_nanos(80));
        assert_eq!(times.last(), Some(Step::Take));
    }

    #[test]
    fn a_step_that_was_passed_over_took_no_time() {
        let mut times = Timeline::default();
        times.enter(Step::Start, 10);
        times.enter(Step::Prepare, 20);
        times.enter(Step::Save, 50);
        assert_eq!(times.duration(Step::Prepare), Some(Duration::from_nanos(30)));
        assert_eq!(times.duration(Step::Freeze), Some(Duration::ZERO));
        assert_eq!(times.duration(Step::Save), None, "it lasts");
        assert_eq!(times.pause(60), None, "a rehearsal has none");
        assert_eq!(times.total(60), Duration::from_nanos(50));
        times.enter(Step::Done, 70);
        assert_eq!(times.last(), Some(Step::Save));
        assert_eq!(times.duration(Step::Save), Some(Duration::from_nanos(20)));
    }
}
