//! Lines from a socket, under a bound of length and of time.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes read at once.
const CHUNK_BYTES: usize = 4096;

/// Why there is no line.
#[derive(Debug)]
pub(super) enum NoLine {
    /// The other end has closed, perhaps in the middle of one.
    Ended,
    /// It is longer than the bound.
    TooLong,
    /// It did not come in time.
    TimedOut,
    /// Reading failed.
    Io(io::Error),
}

/// Splits what arrives into lines.
#[derive(Debug)]
pub(super) struct Lines {
    bytes_max: usize,
    /// What has arrived and is not returned yet.
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are known to hold no line feed.
    searched: usize,
}

impl Lines {
    /// Lines of `bytes_max` bytes at most, their line feed not counted.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, buffer: Vec::new(), searched: 0 }
    }

    /// The next line without its line feed, if it is whole within `timeout`: a byte now and then
    /// does not prolong it.
    pub(super) fn next(
        &mut self,
        stream: &mut UnixStream,
        timeout: Duration,
    ) -> Result<Vec<u8>, NoLine> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(line) = self.take_line()? {
                return Ok(line);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoLine::TimedOut);
            }
            stream.set_read_timeout(Some(left)).map_err(NoLine::Io)?;
            let mut chunk = [0; CHUNK_BYTES];
            match stream.read(&mut chunk) {
                Ok(0) => return Err(NoLine::Ended),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                    io::ErrorKind::ConnectionReset => return Err(NoLine::Ended),
                    _ => return Err(NoLine::Io(error)),
                },
            }
        }
    }

    fn take_line(&mut self) -> Result<Option<Vec<u8>>, NoLine> {
        let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let length = found.map_or(self.buffer.len(), |at| self.searched + at);
        if length > self.bytes_max {
            return Err(NoLine::TooLong);
        }
        if found.is_none() {
            self.searched = length;
            return Ok(None);
        }
        let rest = self.buffer.split_off(length + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.pop();
        self.searched = 0;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::thread;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn lines_come_whole_however_they_arrive() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(5);
        let text = b"one\n\nthree\n12345\nrest";
        let writer = thread::spawn(move || {
            for byte in text {
                theirs.write_all(&[*byte]).unwrap();
            }
        });
        for expected in ["one", "", "three", "12345"] {
            assert_eq!(lines.next(&mut ours, LONG).unwrap(), expected.as_bytes());
        }
        assert!(matches!(lines.next(&mut ours, LONG), Err(NoLine::Ended)));
        writer.join().unwrap();
    }

    #[test]
    fn a_line_beyond_the_bound_is_refused_before_its_end() {
        for text in ["123456", "123456\n", "1\n123456"] {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(text.as_bytes()).unwrap();
            let mut lines = Lines::new(5);
            if text.starts_with("1\n") {
                assert_eq!(lines.next(&mut ours, LONG).unwrap(), b"1");
            }
            assert!(matches!(lines.next(&mut ours, LONG), Err(NoLine::TooLong)), "{text}");
        }
    }

    #[test]
    fn bytes_now_and_then_do_not_prolong_it() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let writer = thread::spawn(move || {
            while theirs.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        let mut lines = Lines::new(1 << 20);
        let outcome = lines.next(&mut ours, Duration::from_millis(50));
        assert!(matches!(outcome, Err(NoLine::TimedOut)), "{outcome:?}");
        drop(ours);
        writer.join().unwrap();
    }
}
