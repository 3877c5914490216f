//! A bell: lets a thread wait for other threads and for descriptors at once.
//!
//! ```text
//! Rung ── value ──► Receiver      the thread polls the bell beside its descriptors, and takes
//!      └─ a byte ─► Bell          what has come without waiting
//! ```

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

/// The end of the thread that waits.
#[derive(Debug)]
pub struct Bell {
    woken: PipeReader,
    clapper: Arc<Clapper>,
}

#[derive(Debug)]
struct Clapper {
    /// A byte is in the pipe, or about to be: so there is never more than one, and whoever rings
    /// never waits.
    rung: AtomicBool,
    waker: PipeWriter,
}

impl Bell {
    /// A bell that nobody rings yet. It has two descriptors.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> io::Result<Self> {
        let (woken, waker) = io::pipe()?;
        Ok(Self { woken, clapper: Arc::new(Clapper { rung: AtomicBool::new(false), waker }) })
    }

    /// A channel whose sender rings this bell.
    pub fn channel<T>(&self) -> (Rung<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::channel();
        (Rung { sender, clapper: self.clapper.clone() }, receiver)
    }

    /// Silences the bell once it is readable; then everything that was sent is there to be taken.
    ///
    /// # Errors
    /// None is to be expected.
    pub fn hush(&mut self) -> io::Result<()> {
        self.woken.read_exact(&mut [0])?;
        // Whoever sends from here on rings again; what was sent before is looked at next.
        self.clapper.rung.store(false, Ordering::SeqCst);
        Ok(())
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}

/// A sender that rings.
#[derive(Debug)]
pub struct Rung<T> {
    sender: Sender<T>,
    clapper: Arc<Clapper>,
}

impl<T> Rung<T> {
    /// Sends. If nobody takes it any more, it is dropped.
    pub fn send(&self, value: T) {
        if self.sender.send(value).is_ok() && !self.clapper.rung.swap(true, Ordering::SeqCst) {
            // An empty pipe has room; one without a reader is nobody's concern.
            let _ = (&self.clapper.waker).write_all(&[0]);
        }
    }
}

impl<T> Clone for Rung<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), clapper: self.clapper.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::sys::poll::wait_readable;

    fn is_rung(bell: &Bell) -> bool {
        wait_readable(&[bell.as_fd()], Some(Duration::ZERO)).unwrap()[0]
    }

    #[test]
    fn it_rings_once_for_many_values_and_never_blocks() {
        let mut bell = Bell::new().unwrap();
        let (numbers, taken) = bell.channel();
        assert!(!is_rung(&bell));
        // More than a pipe has room for.
        (0..100_000).for_each(|number| numbers.send(number));
        assert!(is_rung(&bell));
        bell.hush().unwrap();
        assert!(!is_rung(&bell));
        assert!(taken.try_iter().eq(0..100_000));
        numbers.send(7);
        assert!(is_rung(&bell));
        drop(taken);
        numbers.send(8);
    }

    #[test]
    fn nothing_is_missed_however_the_threads_meet() {
        const COUNT: u32 = 20_000;
        let mut bell = Bell::new().unwrap();
        let (numbers, taken) = bell.channel();
        let (texts, said) = bell.channel::<String>();
        let senders = [
            thread::spawn(move || (0..COUNT).for_each(|number| numbers.send(number))),
            thread::spawn(move || (0..COUNT).for_each(|number| texts.send(number.to_string()))),
        ];
        let (mut next, mut next_said) = (0, 0);
        while next < COUNT || next_said < COUNT {
            for number in taken.try_iter() {
                assert_eq!(number, next);
                next += 1;
            }
            for text in said.try_iter() {
                assert_eq!(text, next_said.to_string());
                next_said += 1;
            }
            if next == COUNT && next_said == COUNT {
                break;
            }
            // A value that has rung for nobody would leave this waiting.
            let ready = wait_readable(&[bell.as_fd()], Some(Duration::from_secs(60))).unwrap();
            assert!(ready[0], "{next} and {next_said} of {COUNT}");
            bell.hush().unwrap();
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }
}
