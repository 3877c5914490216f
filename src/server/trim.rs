//! Memory that the allocator keeps goes back to the system when a flood is over.
//!
//! glibc gives back a block of its own only if nothing lies behind it, so that a process keeps what
//! it once needed. To go through all blocks takes as long as there is much to give back, so it is
//! done once a flood, when it has ebbed.

use std::fs;
use std::time::{Duration, Instant};

use crate::sys::memory_limits;

/// Growth that is worth it, in bytes, beside a fifth of what there was.
const GROWTH_MIN: usize = 16 * 1024 * 1024;

/// Looks in a row in which memory has not grown: then it is calm.
const CALM_LOOKS: u32 = 5;

/// Growth between two looks that counts as none, in bytes.
const NOISE: usize = 1024 * 1024;

/// Time between two looks, at least.
const LOOK: Duration = Duration::from_secs(1);

/// Watches how much memory the process has.
#[derive(Debug)]
pub(super) struct Trimmer {
    next: Instant,
    /// What it had after memory was last given back, or the least since.
    base: usize,
    last: usize,
    calm: u32,
    /// The most that connections held at a look since then: what they have given up since is with
    /// the allocator, and counts as no growth.
    held: usize,
}

impl Trimmer {
    pub(super) fn new() -> Self {
        let now = resident().unwrap_or(0);
        Self { next: Instant::now(), base: now, last: now, calm: 0, held: 0 }
    }

    /// Looks if it is time to, and gives memory back if there is reason to. Connections hold `held`
    /// bytes.
    pub(super) fn look(&mut self, held: usize) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + LOOK;
        let Some(now) = resident() else {
            return;
        };
        if self.is_time(now, held) {
            memory_limits::give_back();
            let after = resident().unwrap_or(now);
            tracing::debug!(before = now, after, "memory given back");
            (self.base, self.last, self.held) = (after, after, held);
        }
    }

    fn is_time(&mut self, now: usize, held: usize) -> bool {
        self.base = self.base.min(now);
        self.calm = if now > self.last + NOISE { 0 } else { self.calm + 1 };
        self.last = now;
        self.held = self.held.max(held);
        let has_grown = now > self.base + GROWTH_MIN.max(self.base / 5);
        let has_ebbed = held + GROWTH_MIN <= self.held;
        (has_grown || has_ebbed) && self.calm >= CALM_LOOKS
    }
}

/// The bytes of this process that are in memory.
fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn a_flood_that_has_ebbed_is_the_time() {
        assert!(resident().is_some_and(|bytes| bytes > MIB));
        let mut trimmer = Trimmer { base: 100 * MIB, last: 100 * MIB, ..Trimmer::new() };
        for _ in 0..20 {
            assert!(!trimmer.is_time(115 * MIB, 0), "that is not much");
        }
        for bytes in 1..50 {
            assert!(!trimmer.is_time(115 * MIB + bytes * 10 * MIB, 0), "it grows");
        }
        let looks = (0..20).take_while(|_| !trimmer.is_time(500 * MIB, 400 * MIB)).count();
        assert_eq!(looks, CALM_LOOKS as usize - 1);
        // What there is left is in use, and no reason to look again and again.
        trimmer.base = 490 * MIB;
        assert!((0..20).all(|_| !trimmer.is_time(495 * MIB, 400 * MIB)));
        // Until connections give it up, which the system does not see.
        assert!(trimmer.is_time(495 * MIB, 300 * MIB));
    }
}
