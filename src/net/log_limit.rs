//! A bound on log lines that a peer can cause at the level `info` or above.
//!
//! Each place in the code that logs by [`limited!`] has [`LINES_PER_SECOND_MAX`] lines a second,
//! for all threads together. The next line after that says how many were left out.

use std::sync::{Mutex, PoisonError};

/// Most lines a second of one place in the code. 10: enough to see what is going on and who is
/// concerned; a flood of them says no more, and costs a disk.
pub(crate) const LINES_PER_SECOND_MAX: u32 = 10;

/// The lines of one place.
#[derive(Debug)]
pub(crate) struct LogLimit(Mutex<State>);

#[derive(Debug)]
struct State {
    /// When `lines` were written, in seconds of the monotonic clock.
    second: u64,
    lines: u32,
    /// Lines left out that no line has told of.
    left_out: u64,
}

impl LogLimit {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(State { second: 0, lines: 0, left_out: 0 }))
    }

    /// Whether a line may be written in this second; if so, how many were left out before it.
    pub(crate) fn pass(&self, second: u64) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.second != second {
            (state.second, state.lines) = (second, 0);
        }
        if state.lines == LINES_PER_SECOND_MAX {
            state.left_out += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

/// Logs as the macro of `tracing` with the name of the level does, but a bounded number of lines a
/// second.
macro_rules! limited {
    ($level:ident, $($line:tt)+) => {{
        static LIMIT: crate::net::log_limit::LogLimit = crate::net::log_limit::LogLimit::new();
        let second = crate::sys::clock::monotonic_ns() / 1_000_000_000;
        if let Some(left_out) = LIMIT.pass(second) {
            if left_out > 0 {
                tracing::$level!(left_out, "lines like the next were left out");
            }
            tracing::$level!($($line)+);
        }
    }};
}

pub(crate) use limited;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_lines_and_the_next_tells_of_the_rest() {
        let limit = LogLimit::new();
        for _ in 0..LINES_PER_SECOND_MAX {
            assert_eq!(limit.pass(7), Some(0));
        }
        for _ in 0..1_000 {
            assert_eq!(limit.pass(7), None);
        }
        assert_eq!(limit.pass(8), Some(1_000));
        assert_eq!(limit.pass(8), Some(0));
    }
}
