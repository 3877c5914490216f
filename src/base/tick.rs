//! Time as the sans-I/O layers see it: whole ticks of 100 ms since a start that whoever owns the
//! clock has chosen.
//!
//! Four bytes a deadline instead of sixteen for an `Instant`, and a value that tests make up.

use std::time::Duration;

/// Length of one tick in milliseconds.
pub const TICK_MS: u64 = 100;

/// A point in time: the number of whole ticks (100 ms) since the start.
///
/// Arithmetic saturates at [`Tick::NEVER`], which 32 bits reach after 13 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(u32);

impl Tick {
    /// The start.
    pub const START: Self = Self(0);

    /// Later than every other tick: a deadline that is not set.
    pub const NEVER: Self = Self(u32::MAX);

    /// The `ticks`-th tick after the start.
    pub const fn new(ticks: u32) -> Self {
        Self(ticks)
    }

    /// The tick that `elapsed`, the time since the start, falls in (rounded down).
    pub fn from_elapsed(elapsed: Duration) -> Self {
        Self(saturate(elapsed.as_millis() / u128::from(TICK_MS)))
    }

    /// Time from the start to this tick.
    pub fn elapsed(self) -> Duration {
        Duration::from_millis(u64::from(self.0) * TICK_MS)
    }

    /// Ticks from the start to this tick.
    pub const fn ticks(self) -> u32 {
        self.0
    }

    /// The tick `time` after this one: rounded up to whole ticks, and at least one.
    ///
    /// The clock is read rounded down ([`Tick::from_elapsed`]), so what is due `now.after(time)`
    /// may come up to one tick early. The time-outs here are seconds.
    pub fn after(self, time: Duration) -> Self {
        let ticks = saturate(time.as_nanos().div_ceil(u128::from(TICK_MS) * 1_000_000));
        Self(self.0.saturating_add(ticks.max(1)))
    }

    /// Time from `earlier` to this tick; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::from(self.0.saturating_sub(earlier.0)) * TICK_MS)
    }
}

fn saturate(ticks: u128) -> u32 {
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_clock_rounds_down() {
        for (elapsed, tick) in [(0, 0), (99, 0), (100, 1), (199, 1), (25_000, 250)] {
            assert_eq!(Tick::from_elapsed(ms(elapsed)), Tick(tick), "{elapsed} ms");
        }
        assert_eq!(Tick(7).elapsed(), ms(700));
    }

    #[test]
    fn a_deadline_rounds_up_and_is_never_now() {
        for (time, ticks) in [(0, 1), (1, 1), (100, 1), (101, 2), (10_000, 100)] {
            assert_eq!(Tick(5).after(ms(time)), Tick(5 + ticks), "{time} ms");
        }
        let just_above = Duration::from_nanos(100_000_001);
        assert_eq!(Tick(0).after(just_above), Tick(2));
    }

    #[test]
    fn what_is_too_far_is_never() {
        assert_eq!(Tick(1).after(Duration::MAX), Tick::NEVER);
        assert_eq!(Tick::NEVER.after(ms(1)), Tick::NEVER);
        assert_eq!(Tick::from_elapsed(Duration::MAX), Tick::NEVER);
        assert!(Tick(u32::MAX - 1) < Tick::NEVER);
    }

    #[test]
    fn since_is_the_way_back_and_stops_at_zero() {
        assert_eq!(Tick(5).after(ms(300)).since(Tick(5)), ms(300));
        assert_eq!(Tick(5).since(Tick(9)), Duration::ZERO);
    }
}
