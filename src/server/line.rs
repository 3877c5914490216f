//! The line between the two processes of an upgrade, as the thread sees it that drives one side: it
//! hears the other process and the threads of its own.

use std::error::Error;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::handover::wire::MESSAGE_BYTES_MAX;
use crate::sys::bell::Bell;
use crate::sys::packets::{self, Received};
use crate::sys::poll::wait_readable;

/// To the other process.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) channel: OwnedFd,
    /// Rings when a thread of this process has something to say.
    bell: Bell,
    /// For a message.
    buffer: Vec<u8>,
}

/// What there was to hear.
#[derive(Debug)]
pub(super) enum Heard<T, M> {
    /// From a thread of this process.
    Here(T),
    /// From the other process, with what came along.
    There(M, Vec<OwnedFd>),
    /// The other process has ended.
    Ended,
    /// Nobody has said anything.
    Nothing,
}

impl Line {
    pub(super) fn new(channel: OwnedFd, bell: Bell) -> Self {
        Self { channel, bell, buffer: vec![0; MESSAGE_BYTES_MAX] }
    }

    /// Listens for at most `time`; `here` takes what the threads of this process have said.
    ///
    /// # Errors
    /// A message that is none.
    pub(super) fn listen<T, M, E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        time: Duration,
        here: impl Fn() -> Option<T>,
        decode: impl Fn(&[u8]) -> Result<M, E>,
    ) -> io::Result<Heard<T, M>> {
        let until = Instant::now() + time;
        loop {
            if let Some(said) = here() {
                return Ok(Heard::Here(said));
            }
            let (mut descriptors, now) = (Vec::new(), Some(Duration::ZERO));
            match packets::receive(&self.channel, &mut self.buffer, &mut descriptors, now)? {
                Received::Nothing => {}
                Received::Ended => return Ok(Heard::Ended),
                Received::Packet(len) => {
                    let message = decode(&self.buffer[..len]).map_err(io::Error::other)?;
                    return Ok(Heard::There(message, descriptors));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Heard::Nothing);
            }
            if wait_readable(&[self.channel.as_fd(), self.bell.as_fd()], Some(left))?[1] {
                self.bell.hush()?;
            }
        }
    }
}
