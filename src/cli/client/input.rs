//! Standard input for an event loop: read by a thread, as epoll does not take regular files.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use mio::Waker;

/// Bytes read at once; with `--binary`, what a pipe gives at once is one message.
const CHUNK_BYTES: usize = 64 * 1024;

/// Most chunks read ahead of who sends them.
const CHUNKS_AHEAD: usize = 2;

/// Longest line, in bytes.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What comes in.
#[derive(Debug)]
pub(super) enum Given {
    Bytes(Vec<u8>),
    End,
    Failed(io::Error),
}

/// Reads `source` to its end in a thread of its own, and wakes the loop for each piece. The thread
/// waits while [`CHUNKS_AHEAD`] pieces have not been fetched.
pub(super) fn read(mut source: impl Read + Send + 'static, waker: Arc<Waker>) -> Receiver<Given> {
    let (sender, receiver) = mpsc::sync_channel(CHUNKS_AHEAD);
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let given = match source.read(&mut buffer) {
                Ok(0) => Given::End,
                Ok(len) => Given::Bytes(buffer[..len].to_vec()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Given::Failed(error),
            };
            let is_last = !matches!(given, Given::Bytes(_));
            // Nobody wants it any more, or nobody can be told: the client is ending.
            if sender.send(given).is_err() || waker.wake().is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// Puts lines together from pieces.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
}

/// A line has more than [`LINE_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    /// Hands each line that ends in `bytes` to `each`, without its line feed.
    pub(super) fn push<E: From<TooLong>>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if self.partial.is_empty() {
                each(line)?;
            } else {
                self.extend(line)?;
                each(&std::mem::take(&mut self.partial))?;
            }
        }
        Ok(self.extend(rest)?)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.partial.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(TooLong);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// What the input ended with, if not with a line feed.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        let last = std::mem::take(&mut self.partial);
        (!last.is_empty()).then_some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_at_every_cut() {
        let text = b"one\n\ntwo\nthree";
        for cut in 0..=text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for piece in [&text[..cut], &text[cut..]] {
                let pushed = lines.push(piece, |line| {
                    found.push(String::from_utf8(line.to_vec()).unwrap());
                    Ok::<_, TooLong>(())
                });
                assert_eq!(pushed, Ok(()));
            }
            assert_eq!(found, ["one", "", "two"], "cut at {cut}");
            assert_eq!(lines.finish().as_deref(), Some(&b"three"[..]));
            assert_eq!(lines.finish(), None);
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        let half = vec![b'x'; LINE_BYTES_MAX / 2];
        let mut push = || lines.push(&half, |_| Ok::<_, TooLong>(()));
        assert_eq!((push(), push(), push()), (Ok(()), Ok(()), Err(TooLong)));
    }

    #[test]
    fn everything_that_is_read_arrives() {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
        let given = read(io::Cursor::new(bytes.clone()), waker);
        let mut received = Vec::new();
        loop {
            match given.recv().unwrap() {
                Given::Bytes(bytes) => received.extend_from_slice(&bytes),
                Given::End => break,
                Given::Failed(error) => panic!("{error}"),
            }
        }
        assert!(received == bytes, "{} bytes of {}", received.len(), bytes.len());
    }
}
