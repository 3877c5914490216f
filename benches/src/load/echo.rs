//! Echo: a number of connections, each of which keeps a number of messages in flight.

use std::io::{IoSlice, Write};

use anyhow::{Context, Result};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll};

use super::{READ_BYTES, Report, Target, Window, open_registered, read_all, wait, written};
use crate::frames::{Frames, Replies, Sequence};

/// Messages up to this length are copied together for a write; longer ones leave uncopied, unless
/// they are in fragments.
const COPY_BYTES_MAX: usize = 4096;
/// Most frames of one vectored write.
const VECTORED_FRAMES_MAX: usize = 16;

/// What to send.
#[derive(Debug, Clone, clap::Args)]
pub struct Echo {
    /// Payload of a message in bytes.
    #[arg(long)]
    pub size: usize,
    /// Fragments each message is sent in.
    #[arg(long, default_value_t = 1)]
    pub fragments: usize,
    /// Messages in flight on each connection.
    #[arg(long)]
    pub in_flight: u64,
    /// Connections.
    #[arg(long)]
    pub connections: usize,
    /// Replies, over all connections, before the measured window.
    #[arg(long)]
    pub warmup: u64,
    /// Replies of the measured window.
    #[arg(long)]
    pub messages: u64,
}

/// Runs it.
pub fn run(target: &Target, echo: &Echo) -> Result<Report> {
    let frames = Frames::fragmented(echo.size, echo.fragments);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections = Vec::with_capacity(echo.connections);
    for number in 0..echo.connections {
        let stream =
            open_registered(target, number, &poll, Interest::READABLE | Interest::WRITABLE)?;
        connections.push(Connection::new(stream, number, echo.in_flight));
    }

    let mut window = Window::new(target.pid, echo.warmup, echo.messages)?;
    let mut input = vec![0; READ_BYTES];
    let mut output = Vec::new();
    let mut count = 0;
    // All sockets are writable at first, and their first events start the traffic.
    loop {
        wait(&mut poll, &mut events)?;
        for event in &events {
            let number = event.token().0;
            let connection = &mut connections[number];
            if event.is_readable() {
                count += connection
                    .receive(&frames, &mut input)
                    .with_context(|| format!("connection {number}"))?;
            }
            connection.send(&frames, &mut output)?;
            if let Some(report) = window.advance(count, 1)? {
                return Ok(report);
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    replies: Replies,
    /// The message being sent, and how much of its frame has been.
    sequence: Sequence,
    position: usize,
    /// Messages before this one may be sent.
    allowed: Sequence,
}

impl Connection {
    fn new(stream: TcpStream, number: usize, in_flight: u64) -> Self {
        // Each connection begins elsewhere, so that a reply to another's message is noticed.
        let first = number as Sequence * 97;
        Self {
            stream,
            replies: Replies::starting_at(first),
            sequence: first,
            position: 0,
            allowed: first + in_flight,
        }
    }

    /// Checks what has arrived; each reply allows one more message.
    fn receive(&mut self, frames: &Frames, input: &mut [u8]) -> Result<u64> {
        let mut complete = 0;
        read_all(&self.stream, input, |bytes| {
            complete += self.replies.check(frames, bytes)?;
            Ok(())
        })?;
        self.allowed += complete;
        Ok(complete)
    }

    /// Sends what is allowed, in as few writes as possible.
    fn send(&mut self, frames: &Frames, output: &mut Vec<u8>) -> Result<()> {
        while self.sequence < self.allowed {
            let sent = if frames.sent_len() <= COPY_BYTES_MAX || !frames.are_whole() {
                output.clear();
                for sequence in self.sequence..self.allowed {
                    frames.append(sequence, output);
                }
                written(self.stream.write(&output[self.position..]))?
            } else {
                let mut slices = [IoSlice::new(&[]); 2 * VECTORED_FRAMES_MAX];
                let mut skip = self.position;
                let mut filled = 0;
                for sequence in (self.sequence..self.allowed).take(VECTORED_FRAMES_MAX) {
                    slices[filled..filled + 2].copy_from_slice(&frames.slices(sequence, skip));
                    filled += 2;
                    skip = 0;
                }
                written(self.stream.write_vectored(&slices[..filled]))?
            };
            if sent == 0 {
                return Ok(());
            }
            let position = self.position + sent;
            self.sequence += (position / frames.sent_len()) as u64;
            self.position = position % frames.sent_len();
        }
        Ok(())
    }
}
