//! A clock that all processes of a machine read alike.
#![allow(unsafe_code)]

use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;

/// Nanoseconds of CLOCK_MONOTONIC: they count from the start of the machine, and two processes may
/// compare them (`std::time::Instant` has no number to give away).
pub fn monotonic_ns() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `time` is a valid place to write to while the call lasts.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) };
    assert_eq!(result, 0, "this clock is always there and the place to write to is valid");
    // SAFETY: the call has succeeded, so it has written the whole structure.
    let time = unsafe { time.assume_init() };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The time namespace of this process (time_namespaces(7)): processes of two of them read
/// [`monotonic_ns`] differently. 0 if the system does not say, or has none.
pub fn time_namespace() -> u64 {
    fs::metadata("/proc/self/ns/time").map_or(0, |namespace| namespace.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn it_runs_as_the_clock_of_the_standard_library() {
        let outer = Instant::now();
        let start = monotonic_ns();
        let inner = Instant::now();
        thread::sleep(Duration::from_millis(5));
        let inner = inner.elapsed();
        let elapsed = Duration::from_nanos(monotonic_ns() - start);
        assert!(inner <= elapsed && elapsed <= outer.elapsed(), "{inner:?}, {elapsed:?}");
    }
}
