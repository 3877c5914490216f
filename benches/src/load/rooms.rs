//! Rooms: one publisher, many receivers. The publisher sends message n once every receiver has had
//! message n minus the number in flight, so that no receiver can fall further behind than that
//! without the run standing still, which is an error.

use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll};

use super::{READ_BYTES, Report, Target, Window, open_registered, read_all, wait, written};
use crate::frames::{Frames, Replies};

/// What to publish.
#[derive(Debug, Clone, clap::Args)]
pub struct Rooms {
    /// Payload of a message in bytes.
    #[arg(long)]
    pub size: usize,
    /// Publications in flight.
    #[arg(long)]
    pub in_flight: u64,
    /// Members that receive; the publisher is one more.
    #[arg(long)]
    pub receivers: usize,
    /// Publications that all receivers have had before the measured window.
    #[arg(long)]
    pub warmup: u64,
    /// Publications of the measured window.
    #[arg(long)]
    pub publications: u64,
}

/// Runs it. A message of the report is one delivery.
pub fn run(target: &Target, rooms: &Rooms) -> Result<Report> {
    let frames = Frames::new(rooms.size);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut receivers = Vec::with_capacity(rooms.receivers);
    for number in 0..rooms.receivers {
        let stream = open_registered(target, number, &poll, Interest::READABLE)?;
        receivers.push((stream, Replies::starting_at(0)));
    }
    let stream =
        open_registered(target, rooms.receivers, &poll, Interest::READABLE | Interest::WRITABLE)?;
    let mut publisher = Publisher { stream, published: 0, output: Vec::new(), position: 0 };

    let mut window = Window::new(target.pid, rooms.warmup, rooms.publications)?;
    let mut input = vec![0; READ_BYTES];
    let mut progress = Progress::new(rooms.receivers, rooms.in_flight);
    let mut received = vec![0; rooms.receivers];
    publisher.publish(&frames, rooms.in_flight)?;
    loop {
        wait(&mut poll, &mut events)?;
        for event in &events {
            let number = event.token().0;
            if let Some((stream, replies)) = receivers.get_mut(number) {
                read_all(stream, &mut input, |bytes| {
                    for _ in 0..replies.check(&frames, bytes)? {
                        progress.count(received[number]);
                        received[number] += 1;
                    }
                    Ok(())
                })
                .with_context(|| format!("receiver {number}"))?;
            } else if event.is_readable() {
                read_all(&publisher.stream, &mut input, |_| {
                    bail!("the publisher was sent something")
                })?;
            }
            if let Some(report) = window.advance(progress.complete, rooms.receivers as u64)? {
                ensure!(publisher.published <= progress.complete + rooms.in_flight);
                return Ok(report);
            }
        }
        publisher.publish(&frames, progress.complete + rooms.in_flight)?;
    }
}

/// How many receivers have had each publication that is in flight.
struct Progress {
    receivers: usize,
    /// Publications that all have had.
    complete: u64,
    counts: Vec<usize>,
}

impl Progress {
    fn new(receivers: usize, in_flight: u64) -> Self {
        Self { receivers, complete: 0, counts: vec![0; in_flight as usize] }
    }

    /// One more receiver has had `publication`. Receivers get them in order, so they also become
    /// complete in order.
    fn count(&mut self, publication: u64) {
        let slot = (publication % self.counts.len() as u64) as usize;
        self.counts[slot] += 1;
        if self.counts[slot] == self.receivers {
            self.counts[slot] = 0;
            self.complete = publication + 1;
        }
    }
}

struct Publisher {
    stream: TcpStream,
    published: u64,
    output: Vec<u8>,
    position: usize,
}

impl Publisher {
    /// Publishes what comes before `allowed`.
    fn publish(&mut self, frames: &Frames, allowed: u64) -> Result<()> {
        for sequence in self.published..allowed {
            frames.append(sequence, &mut self.output);
        }
        self.published = self.published.max(allowed);
        if self.position < self.output.len() {
            self.position += written(self.stream.write(&self.output[self.position..]))?;
        }
        if self.position == self.output.len() {
            self.output.clear();
            self.position = 0;
        }
        Ok(())
    }
}
