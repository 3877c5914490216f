//! How often something may happen: a token bucket that holds one second's worth.

use crate::base::snapshot::{Reader, SnapshotError, Writer};
use crate::base::tick::{TICK_MS, Tick};

const TICKS_PER_SECOND: u32 = (1_000 / TICK_MS) as u32;

/// State of one token bucket, 8 bytes; the rate is an argument, because it is the same for all
/// connections of a route.
///
/// It counts what has been used instead of what is left, so that a fresh one is full at any rate.
/// The unit is a tenth of a token: one tick's refill at a rate of 1 a second.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Tenths of a token in use as of `seen`; at most ten times the rate.
    used: u32,
    /// When `used` was last brought up to date.
    seen: Tick,
}

impl RateLimit {
    /// A full bucket.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a token, or says that there is none: up to `per_second` at once, and that many a
    /// second in the long run.
    pub fn allow(&mut self, now: Tick, per_second: u32) -> bool {
        self.refill(now, per_second);
        let used = u64::from(self.used) + u64::from(TICKS_PER_SECOND);
        let size = u64::from(per_second) * u64::from(TICKS_PER_SECOND);
        match u32::try_from(used) {
            Ok(used) if u64::from(used) <= size => {
                self.used = used;
                true
            }
            _ => false,
        }
    }

    /// Writes the state as of `now`; the rate is the one given to [`RateLimit::allow`].
    pub fn save(&self, now: Tick, per_second: u32, writer: &mut Writer) {
        let mut refilled = self.clone();
        refilled.refill(now, per_second);
        let Self { used, seen: _ } = refilled;
        writer.u32(used);
    }

    /// Reads what [`RateLimit::save`] wrote; `now` is the reader's own time.
    ///
    /// # Errors
    /// As [`Reader`].
    pub fn load(now: Tick, reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let used = reader.u32()?;
        Ok(Self { used, seen: now })
    }

    fn refill(&mut self, now: Tick, per_second: u32) {
        let ticks = now.ticks().saturating_sub(self.seen.ticks());
        // The rate may have been lowered since, here or in the process this was saved in.
        let used = self.used.min(per_second.saturating_mul(TICKS_PER_SECOND));
        self.used = used.saturating_sub(ticks.saturating_mul(per_second));
        self.seen = now.max(self.seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::testing::Sequence;

    fn allowed(bucket: &mut RateLimit, now: u32, per_second: u32) -> u32 {
        let mut count = 0;
        while count < 10_000 && bucket.allow(Tick::new(now), per_second) {
            count += 1;
        }
        count
    }

    #[test]
    fn a_second_is_worth_the_rate_and_no_more_is_saved_up() {
        assert_eq!(size_of::<RateLimit>(), 8);
        let mut bucket = RateLimit::new();
        assert_eq!(allowed(&mut bucket, 1_000, 100), 100);
        assert_eq!(allowed(&mut bucket, 1_000, 100), 0);
        assert_eq!(allowed(&mut bucket, 1_001, 100), 10);
        assert_eq!(allowed(&mut bucket, 1_006, 100), 50);
        assert_eq!(allowed(&mut bucket, 9_000, 100), 100);
    }

    #[test]
    fn slow_rates_wait_for_a_whole_token() {
        let mut bucket = RateLimit::new();
        assert_eq!(allowed(&mut bucket, 0, 1), 1);
        assert_eq!(allowed(&mut bucket, 9, 1), 0);
        assert_eq!(allowed(&mut bucket, 10, 1), 1);
        assert_eq!(allowed(&mut bucket, 100, 0), 0);
    }

    #[test]
    fn the_largest_rate_does_not_overflow() {
        let mut bucket = RateLimit::new();
        assert_eq!(allowed(&mut bucket, 5, u32::MAX), 10_000);
        bucket.used = u32::MAX;
        assert!(!bucket.allow(Tick::new(5), u32::MAX));
        assert!(bucket.allow(Tick::NEVER, u32::MAX));
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let mut bucket = RateLimit::new();
        assert_eq!(allowed(&mut bucket, 50, 10), 10);
        assert_eq!(allowed(&mut bucket, 20, 10), 0);
        assert_eq!(allowed(&mut bucket, 51, 10), 1);
    }

    #[test]
    fn a_lowered_rate_is_refilled_within_a_second() {
        let mut bucket = RateLimit::new();
        assert_eq!(allowed(&mut bucket, 50, 1_000), 1_000);
        assert_eq!(allowed(&mut bucket, 50, 10), 0);
        assert_eq!(allowed(&mut bucket, 60, 10), 10);
    }

    /// The naive twin: tokens as a float, with a cap.
    #[test]
    fn it_does_what_a_float_does() {
        let mut random = Sequence::new(3);
        for per_second in [1, 3, 10, 100, 12_345] {
            let (mut bucket, mut tokens, mut now) = (RateLimit::new(), f64::from(per_second), 0);
            for _ in 0..5_000 {
                let ticks = random.below(4) as u32;
                now += ticks;
                tokens = f64::from(ticks * per_second).mul_add(0.1, tokens);
                tokens = tokens.min(per_second.into());
                for _ in 0..random.below(u64::from(per_second) + 2) {
                    let expected = tokens > 1.0 - 1e-6;
                    assert_eq!(bucket.allow(Tick::new(now), per_second), expected);
                    tokens -= f64::from(u8::from(expected));
                }
            }
        }
    }

    #[test]
    fn it_goes_on_in_another_process_where_it_was() {
        let mut bucket = RateLimit::new();
        assert_eq!(allowed(&mut bucket, 1_000, 10), 10);
        // Saved 0.3 s later; the reader's clock is another one.
        let mut writer = Writer::new();
        bucket.save(Tick::new(1_003), 10, &mut writer);
        for age in [0, 500, 9_999] {
            let mut reader = Reader::new(writer.as_bytes());
            let mut loaded = RateLimit::load(Tick::new(age), &mut reader).unwrap();
            assert_eq!(reader.finish(), Ok(()));
            assert_eq!(allowed(&mut loaded, age, 10), 3, "age {age}");
        }
    }
}
