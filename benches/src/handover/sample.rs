//! Descriptors, threads and memory of a process, from outside.

use std::fs;
use std::ops::AddAssign;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Processes;

/// Looks at a process after the first one, and the time between them.
const LOOKS: usize = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// What a process has at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Anonymous resident memory in bytes: heap and stacks.
    pub memory_bytes: u64,
}

impl AddAssign for Sample {
    fn add_assign(&mut self, other: Self) {
        let Self { descriptors, threads, memory_bytes } = other;
        self.descriptors += descriptors;
        self.threads += threads;
        self.memory_bytes += memory_bytes;
    }
}

impl Sample {
    /// That of one process.
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid} is gone"))?;
        let field = |name: &str| -> Result<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            let value = value.and_then(|value| value.split_whitespace().next());
            Ok(value.with_context(|| format!("no {name} in /proc/PID/status"))?.parse()?)
        };
        Ok(Self {
            descriptors: descriptors(pid)?,
            threads: field("Threads:")?,
            memory_bytes: field("RssAnon:")? * 1024,
        })
    }

    /// That of one process, without what it has for a moment only: the thread that answers whoever
    /// has just asked for its status, say.
    pub fn at_rest(pid: u32) -> Result<Self> {
        let mut least = Self::of(pid)?;
        for _ in 0..LOOKS {
            thread::sleep(BETWEEN_LOOKS);
            least = least.min(Self::of(pid)?);
        }
        Ok(least)
    }

    /// The smaller of both, figure by figure.
    fn min(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.min(other.descriptors),
            threads: self.threads.min(other.threads),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
        }
    }

    /// The sum over a process and all below it; those that end meanwhile count nothing.
    pub fn of_all_below(root: u32) -> Self {
        let mut sum = Self::default();
        if let Ok(processes) = Processes::below(root) {
            for sample in processes.pids().iter().flat_map(|&pid| Self::of(pid)) {
                sum += sample;
            }
        }
        sum
    }

    /// The larger of both, figure by figure.
    pub fn max(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
        }
    }
}

/// Since Linux 6.2 the size of /proc/PID/fd is their number; before, it is 0 and they are counted.
fn descriptors(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/fd");
    match fs::metadata(&folder)?.len() {
        0 => Ok(fs::read_dir(&folder)?.count() as u64),
        len => Ok(len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_what_it_opens() {
        let own = std::process::id();
        // Other tests open and close descriptors meanwhile, but not a thousand.
        let before = Sample::of(own).unwrap();
        let opened: Vec<_> = (0..900).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let after = Sample::of(own).unwrap();
        assert!(after.descriptors > before.descriptors + 500, "{before:?}, {after:?}");
        assert!(after.threads >= 1 && after.memory_bytes > 0);
        drop(opened);
        assert!(Sample::of_all_below(own).threads >= 1);
        assert!(Sample::of(u32::MAX).is_err());
    }
}
