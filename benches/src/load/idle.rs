//! Idle: what one more open connection costs in memory, as the slope between two numbers of them.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll};

use super::{Report, Target, open_registered, read_all};
use crate::process::Processes;

/// Memory counts as settled once it has been the same for this long.
const SETTLED: Duration = Duration::from_millis(500);
/// Memory that does not settle for this long is taken as it is then.
const SETTLING_MAX: Duration = Duration::from_secs(5);

/// How many connections to hold.
#[derive(Debug, Clone, clap::Args)]
pub struct Idle {
    /// Connections at the first measurement.
    #[arg(long)]
    pub from: usize,
    /// Connections at the second.
    #[arg(long)]
    pub to: usize,
}

/// Runs it.
pub fn run(target: &Target, idle: &Idle) -> Result<Report> {
    ensure!(idle.from < idle.to, "the slope needs two numbers in order");
    let mut poll = Poll::new()?;
    let mut connections = Vec::with_capacity(idle.to);
    let server = Processes::below(target.pid)?;

    open_until(idle.from, target, &poll, &mut connections)?;
    let low = settled(&server)?;
    open_until(idle.to, target, &poll, &mut connections)?;
    let high = settled(&server)?;
    attend(&mut poll, &connections)?;

    let mut report = Report::default();
    let more = (idle.to - idle.from) as f64;
    report.set("bytes_per_connection", (high as f64 - low as f64) / more);
    report.set("bytes_low", low as f64);
    report.set("bytes_high", high as f64);
    Ok(report)
}

fn open_until(
    number: usize,
    target: &Target,
    poll: &Poll,
    connections: &mut Vec<TcpStream>,
) -> Result<()> {
    for number in connections.len()..number {
        connections.push(open_registered(target, number, poll, Interest::READABLE)?);
    }
    Ok(())
}

/// The server's anonymous memory, in bytes, once it no longer changes.
fn settled(server: &Processes) -> Result<u64> {
    let begin = Instant::now();
    let mut bytes = server.anonymous_memory()?;
    let mut since = Instant::now();
    while since.elapsed() < SETTLED && begin.elapsed() < SETTLING_MAX {
        thread::sleep(Duration::from_millis(50));
        let now = server.anonymous_memory()?;
        if now != bytes {
            bytes = now;
            since = Instant::now();
        }
    }
    Ok(bytes)
}

/// Looks at what the connections were sent meanwhile: pings are answered, whatever else came
/// (a Close, an end) is an error, for then not all were open.
fn attend(poll: &mut Poll, connections: &[TcpStream]) -> Result<()> {
    let mut events = Events::with_capacity(1024);
    let mut input = [0; 1024];
    loop {
        poll.poll(&mut events, Some(Duration::ZERO))?;
        if events.is_empty() {
            return Ok(());
        }
        for event in &events {
            let number = event.token().0;
            let mut stream = &connections[number];
            read_all(stream, &mut input, |mut bytes| {
                while let [first, len, rest @ ..] = bytes {
                    let len = usize::from(*len);
                    ensure!(*first == 0x89 && rest.len() >= len, "not a ping: {bytes:x?}");
                    let (payload, rest) = rest.split_at(len);
                    // Masked with the key zero, which leaves the payload as it is.
                    let mut pong = vec![0x8a, 0x80 | len as u8, 0, 0, 0, 0];
                    pong.extend(payload);
                    stream.write_all(&pong)?;
                    bytes = rest;
                }
                Ok(())
            })
            .with_context(|| format!("connection {number}"))?;
        }
    }
}
