//! Lines for stderr that never wait for whoever reads it.
//!
//! A pipe that nobody reads takes 64 KiB, and then every write to it waits for ever. So lines go
//! into a bounded queue, and one thread writes them. What does not fit is dropped and counted; the
//! thread reports the count once lines are written again.
//!
//! O_NONBLOCK on stderr would be no way out: it belongs to the open file, which the shell, the
//! service manager and the predecessor share.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::env;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::poll::wait_writable;

/// How long an end of the process, an exec or an abort waits for the lines before it.
pub const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Most bytes of one write, unless a single line is longer: so much goes into a pipe as a whole
/// (PIPE_BUF), and the lines of processes that share stderr do not mix.
const WRITE_BYTES_MAX: usize = 4_096;

/// How often a process that is about to abort looks whether its lines are written.
const ABORT_LOOK_MS: i64 = 1;

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Starts the thread that writes. At most `bytes_max` bytes wait for it. `report` makes the line,
/// with its newline, that says how many lines were dropped.
///
/// # Errors
/// No thread can be started, or one was started before: then lines are written as before.
pub fn start(
    bytes_max: usize,
    report: impl FnMut(u64) -> Vec<u8> + Send + 'static,
) -> io::Result<()> {
    if QUEUE.get().is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // The thread waits for the queue to be there, so that none is there without its thread.
    let body = || QUEUE.wait().run(io::stderr(), report);
    spawn_deaf(thread::Builder::new().name("log".to_owned()), body)?;
    let _ = QUEUE.set(Queue::new(bytes_max));
    flush_before_abort()
}

/// Whether stderr is read by journald: `JOURNAL_STREAM` names its device and inode
/// (systemd.exec(5)). A process that was given another stderr inherits the variable all the same.
pub fn is_journal() -> bool {
    let Some(named) = env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let found = stderr.and_then(|stderr| stderr.metadata());
    found.is_ok_and(|found| named.to_str() == Some(&format!("{}:{}", found.dev(), found.ino())))
}

/// Writes a line, which gets its newline if it has none: by way of the thread if that was started.
pub fn write_line(line: &[u8]) {
    match QUEUE.get() {
        Some(queue) => queue.push(line),
        None => {
            let mut line = line.to_vec();
            end_line(&mut line);
            // There is nowhere to complain.
            let _ = write_all(io::stderr().as_fd(), &line);
        }
    }
}

/// Waits until every line so far is written, at most [`FLUSH_MAX`], and returns how many bytes are
/// not.
pub fn flush() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.flush(FLUSH_MAX))
}

/// Lines that wait to be written.
#[derive(Debug)]
struct Queue {
    bytes_max: usize,
    state: Mutex<State>,
    /// Something is to be written or reported.
    added: Condvar,
    /// [`State::written`] has grown.
    written: Condvar,
    /// Bytes queued and not written, for those who cannot wait for the lock.
    unwritten: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    pending: VecDeque<u8>,
    /// Lines that found no room and have not been reported.
    dropped: u64,
    /// Bytes in all, ever; what failed to be written counts as written.
    queued: u64,
    written: u64,
}

impl Queue {
    fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            state: Mutex::default(),
            added: Condvar::new(),
            written: Condvar::new(),
            unwritten: AtomicU64::new(0),
        }
    }

    /// Nothing in here panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        let len = line.len() as u64 + u64::from(!line.ends_with(b"\n"));
        if state.queued - state.written + len > self.bytes_max as u64 {
            state.dropped += 1;
        } else {
            state.pending.extend(line);
            if !line.ends_with(b"\n") {
                state.pending.push_back(b'\n');
            }
            state.queued += len;
            self.unwritten.store(state.queued - state.written, Ordering::Release);
        }
        drop(state);
        self.added.notify_one();
    }

    /// Moves whole lines into `batch` as soon as there are any, and returns how many were dropped.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        batch.clear();
        let state = self.lock();
        let idle = |state: &mut State| state.pending.is_empty() && state.dropped == 0;
        let waited = self.added.wait_while(state, idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let most = state.pending.len().min(WRITE_BYTES_MAX);
        let is_end = |byte: &u8| *byte == b'\n';
        let last = state.pending.range(..most).rposition(is_end);
        let end = last.or_else(|| state.pending.iter().position(is_end));
        batch.extend(state.pending.drain(..end.map_or(0, |end| end + 1)));
        if state.pending.is_empty() && state.pending.capacity() > WRITE_BYTES_MAX {
            // A burst's memory is not held for ever.
            state.pending = VecDeque::new();
        }
        std::mem::take(&mut state.dropped)
    }

    fn settle(&self, bytes: usize) {
        let mut state = self.lock();
        state.written += bytes as u64;
        self.unwritten.store(state.queued - state.written, Ordering::Release);
        drop(state);
        self.written.notify_all();
    }

    /// The thread's life.
    fn run(&self, out: impl AsFd, mut report: impl FnMut(u64) -> Vec<u8>) {
        let mut batch = Vec::new();
        let mut dropped = 0;
        loop {
            dropped += self.take(&mut batch);
            match write_all(out.as_fd(), &batch) {
                Ok(()) if dropped == 0 => {}
                Ok(()) => {
                    if write_all(out.as_fd(), &report(dropped)).is_ok() {
                        dropped = 0;
                    }
                }
                // Nobody reads any more, or a disk is full. That may pass.
                Err(_) => dropped += batch.iter().filter(|byte| **byte == b'\n').count() as u64,
            }
            self.settle(batch.len());
        }
    }

    fn flush(&self, within: Duration) -> u64 {
        let until = Instant::now() + within;
        let mut state = self.lock();
        let goal = state.queued;
        while state.written < goal {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.written.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        goal.saturating_sub(state.written)
    }
}

fn end_line(line: &mut Vec<u8>) {
    if !line.ends_with(b"\n") {
        line.push(b'\n');
    }
}

/// Not by way of the standard library's stderr: its lock is held while a write waits.
fn write_all(out: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: `bytes` are readable while the call lasts.
        let count = unsafe { libc::write(out.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        if let Ok(count) = usize::try_from(count) {
            bytes = &bytes[count..];
            continue;
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            // Another process that shares it has set O_NONBLOCK.
            io::ErrorKind::WouldBlock => wait_writable(out)?,
            _ => return Err(error),
        }
    }
    Ok(())
}

/// Starts a thread that takes no signal: it is started before those of the process are taken over,
/// and the default action of most is to end the process.
fn spawn_deaf(builder: thread::Builder, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises `all`, which is then read; the old mask goes to `before`.
    let result = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr())
    };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    let spawned = builder.spawn(body);
    // SAFETY: the call above has succeeded, so it has initialised `before`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    spawned.map(drop)
}

/// Has SIGABRT wait for the lines, at most [`FLUSH_MAX`], before it ends the process: whether it
/// comes from abort(3) or from outside.
fn flush_before_abort() -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeroes are a valid sigaction, sigemptyset initialises the mask it is given, and
    // the handler makes async-signal-safe calls alone. The old action is not asked for.
    let result = unsafe {
        let action = action.assume_init_mut();
        libc::sigemptyset(&mut action.sa_mask);
        action.sa_sigaction = on_abort as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGABRT, action, ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Allocates nothing and takes no lock: the thread that aborts may hold any.
extern "C" fn on_abort(signal: libc::c_int) {
    let looks = FLUSH_MAX.as_millis() as i64 / ABORT_LOOK_MS;
    let pause = libc::timespec { tv_sec: 0, tv_nsec: ABORT_LOOK_MS * 1_000_000 };
    for _ in 0..looks {
        if QUEUE.get().is_none_or(|queue| queue.unwritten.load(Ordering::Acquire) == 0) {
            break;
        }
        // SAFETY: `pause` is readable while the call lasts, and the rest is not asked for.
        unsafe { libc::nanosleep(&pause, ptr::null_mut()) };
    }
    // SAFETY: SIG_DFL is a valid disposition. The signal is blocked in its handler, so the second
    // one ends the process when this returns.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, PipeReader, Read, Write};
    use std::sync::Arc;

    /// A queue, and what its thread writes to.
    fn queue(bytes_max: usize) -> (Arc<Queue>, PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        (queue_to(bytes_max, writer), reader)
    }

    /// Its thread waits for more until the test's process ends.
    fn queue_to(bytes_max: usize, out: impl AsFd + Send + 'static) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(bytes_max));
        let writing = queue.clone();
        let report = |dropped| format!("{dropped} dropped\n").into_bytes();
        thread::spawn(move || writing.run(out, report));
        queue
    }

    fn line(number: usize) -> String {
        format!("line {number} {}\n", "x".repeat(100))
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_what_is_dropped_is_counted() {
        const LINES: usize = 20_000;
        let (queue, reader) = queue(256 * 1024);
        // That this ends is the test: the pipe takes 64 KiB of more than 2 MB.
        (0..LINES).for_each(|number| queue.push(line(number).as_bytes()));
        assert!(queue.flush(Duration::from_millis(20)) > 0);
        assert!(queue.lock().pending.len() <= 256 * 1024);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let (mut written, mut dropped) = (0, 0);
        let mut next = 0;
        while written + dropped < LINES {
            let found = lines.next().unwrap();
            let words: Vec<&str> = found.split(' ').collect();
            match words[..] {
                [count, "dropped"] => dropped += count.parse::<usize>().unwrap(),
                _ => {
                    let number = words[1].parse().unwrap();
                    assert!(number >= next && found == line(number).trim_end(), "{found}");
                    next = number + 1;
                    written += 1;
                }
            }
        }
        assert!(dropped > 0 && written >= 256 * 1024 / line(LINES).len(), "{written} written");
        queue.push(b"after");
        assert_eq!(lines.next().unwrap(), "after");
    }

    #[test]
    fn nothing_is_lost_while_the_reader_is_slow_within_the_bound() {
        const LINES: usize = 4_000;
        let (queue, reader) = queue(1024 * 1024);
        let started = Instant::now();
        (0..LINES).for_each(|number| queue.push(line(number).as_bytes()));
        let pushed = started.elapsed();
        // Reads no sooner than it takes to fill the pipe.
        thread::sleep(Duration::from_millis(50));
        let mut lines = BufReader::with_capacity(512, reader).lines().map(Result::unwrap);
        for number in 0..LINES {
            assert_eq!(lines.next().unwrap(), line(number).trim_end());
        }
        assert_eq!(queue.flush(FLUSH_MAX), 0);
        assert!(pushed < Duration::from_secs(10), "{pushed:?}");
    }

    #[test]
    fn lines_of_several_processes_do_not_mix() {
        let (mut reader, writer) = io::pipe().unwrap();
        let queues = [0, 1].map(|_| queue_to(1024 * 1024, writer.try_clone().unwrap()));
        drop(writer);
        let text = |queue: usize| format!("{queue}{}\n", format!("{queue}").repeat(1_000));
        for _ in 0..200 {
            for (index, queue) in queues.iter().enumerate() {
                queue.push(text(index).as_bytes());
            }
        }
        let mut all = vec![0; 400 * text(0).len()];
        reader.read_exact(&mut all).unwrap();
        for line in String::from_utf8(all).unwrap().split_inclusive('\n') {
            assert!(line == text(0) || line == text(1), "{line}");
        }
    }

    #[test]
    fn a_line_is_written_whatever_its_length_and_gets_its_newline() {
        let (queue, reader) = queue(100_000);
        let long = "y".repeat(50_000);
        queue.push(long.as_bytes());
        queue.push("z".repeat(200_000).as_bytes());
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), long);
        assert_eq!(lines.next().unwrap(), "1 dropped");
    }

    #[test]
    fn a_reader_that_has_gone_costs_lines_and_nothing_else() {
        let (mut reader, writer) = io::pipe().unwrap();
        // One that reads again later cannot be had of a pipe: a file that takes nothing will do.
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let queue = queue_to(1_000, full);
        (0..100).for_each(|_| queue.push(b"nobody sees this"));
        assert_eq!(queue.flush(FLUSH_MAX), 0);
        let piped = queue_to(1_000, writer.try_clone().unwrap());
        drop(writer);
        piped.push(b"seen");
        let mut seen = [0; 5];
        reader.read_exact(&mut seen).unwrap();
        drop(reader);
        piped.push(b"unseen");
        assert_eq!(piped.flush(FLUSH_MAX), 0);
    }

    #[test]
    fn a_descriptor_that_others_have_made_non_blocking_is_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        // SAFETY: this request takes an integer.
        let set = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        assert_eq!(set, 0);
        while writer.write(&[b'\n'; 4_096]).is_ok() {}
        let queue = queue_to(1_000, writer);
        queue.push(b"at last");
        assert!(queue.flush(Duration::from_millis(20)) > 0);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        assert_eq!(lines.find(|line| !line.is_empty()).unwrap(), "at last");
    }
}
