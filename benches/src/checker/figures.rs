//! Delays: how they are distributed, and the worst of a window of time.

/// Each power of two is divided into this many steps: figures are exact to 1.6 %.
const STEPS: u64 = 64;
const STEPS_LOG2: u32 = STEPS.ilog2();

/// How often each value was seen, up to 1.6 %; the largest exactly.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let indices = index(u64::MAX) + 1;
        Self { counts: vec![0; indices], count: 0, max: 0 }
    }
}

impl Histogram {
    /// One value more.
    pub fn record(&mut self, value: u64) {
        self.counts[index(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest; 0 if there is none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value that this share of all (0 to 1) does not exceed; 0 if there is none.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = (share * self.count as f64).ceil() as u64;
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank.max(1) {
                return largest(index).min(self.max);
            }
        }
        self.max
    }
}

fn index(value: u64) -> usize {
    // Below STEPS each value has an index of its own, above it each STEPS-th of a power of two.
    let shift = value.max(1).ilog2().saturating_sub(STEPS_LOG2);
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

/// The largest value of an index.
fn largest(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let step = index - shift * STEPS;
    (step << shift) | ((1 << shift) - 1)
}

/// Delays and silences in nanoseconds, of the whole run and of the window that is open.
#[derive(Debug, Default)]
pub struct Delays {
    whole: Span,
    window: Option<Span>,
}

/// Figures of a span of time, in nanoseconds.
#[derive(Debug, Default, Clone)]
pub struct Span {
    /// From a message's last byte sent to its last byte received.
    pub delays: Histogram,
    /// Longest time between two messages received on one connection.
    pub silence_max: u64,
}

impl Delays {
    /// A message has come `delay` after it was sent.
    pub fn delay(&mut self, delay: u64) {
        for span in self.spans() {
            span.delays.record(delay);
        }
    }

    /// A connection has received nothing for this long.
    pub fn silence(&mut self, silence: u64) {
        for span in self.spans() {
            span.silence_max = span.silence_max.max(silence);
        }
    }

    /// Begins a window.
    pub fn open_window(&mut self) {
        self.window = Some(Span::default());
    }

    /// Ends it; empty if none was open.
    pub fn close_window(&mut self) -> Span {
        self.window.take().unwrap_or_default()
    }

    /// The whole run.
    pub fn whole(&self) -> &Span {
        &self.whole
    }

    fn spans(&mut self) -> impl Iterator<Item = &mut Span> {
        [&mut self.whole].into_iter().chain(self.window.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_within_its_step() {
        let mut last = 0;
        for value in (0..4_096).chain((12..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit])) {
            let index = index(value);
            assert!(index >= last, "{value}");
            last = index;
            let largest = largest(index);
            assert!(largest >= value && largest - value <= value / STEPS, "{value}: {largest}");
        }
        assert_eq!(largest(index(u64::MAX)), u64::MAX);
    }

    #[test]
    fn quantiles_are_ranks() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.max()), (0, 0));
        for value in 1..=100 {
            histogram.record(value);
        }
        histogram.record(1_000_000);
        assert_eq!(histogram.count(), 101);
        assert_eq!(histogram.quantile(0.5), 51);
        assert_eq!(histogram.quantile(0.99), 100);
        assert_eq!(histogram.quantile(1.0), 1_000_000);
        assert_eq!(histogram.max(), 1_000_000);
    }

    #[test]
    fn a_window_has_what_came_while_it_was_open() {
        let mut delays = Delays::default();
        delays.delay(9);
        delays.open_window();
        delays.delay(5);
        delays.silence(7);
        let window = delays.close_window();
        delays.silence(8);
        assert_eq!((window.delays.max(), window.delays.count(), window.silence_max), (5, 1, 7));
        assert_eq!(delays.whole().delays.max(), 9);
        assert_eq!(delays.whole().silence_max, 8);
    }
}
