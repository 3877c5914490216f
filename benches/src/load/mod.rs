//! The load client: one thread on epoll that keeps a server busy and checks every reply.
//!
//! Each scenario returns a [`Report`] or an error; an error, be it a wrong reply, a lost message or
//! a closed connection, voids the run.

pub mod echo;
pub mod idle;
pub mod rooms;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::{Events, Interest, Poll, Token};

use crate::handshake::Opening;
use crate::process::{CpuTime, Processes};
use crate::sys;

/// A run that makes no progress for this long has failed: something was lost.
const STALL: Duration = Duration::from_secs(10);
/// What one read may bring. Large enough that one read takes all a connection has in flight,
/// up to what the caches hold.
const READ_BYTES: usize = 256 * 1024;
/// Where the server is and how to watch it.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Its address.
    #[arg(long)]
    pub address: SocketAddr,
    /// The path to open.
    #[arg(long)]
    pub path: String,
    /// Its process.
    #[arg(long)]
    pub pid: u32,
}

/// Figures of one run by name, printed as `name value`, one a line.
#[derive(Debug, Default)]
pub struct Report(BTreeMap<String, f64>);

impl Report {
    fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    /// The figure `name`, which the scenario of this report must have set.
    pub fn figure(&self, name: &str) -> Result<f64> {
        let figure = self.0.get(name).copied();
        figure.with_context(|| format!("the report has no {name}"))
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Result<Self> {
        let mut report = Self::default();
        for line in text.lines() {
            let (name, value) = line.split_once(' ').context("not a report")?;
            report.set(name, value.parse()?);
        }
        Ok(report)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.0 {
            writeln!(f, "{name} {value}")?;
        }
        Ok(())
    }
}

/// Opens connection `number` of a run. Blocking.
fn open(target: &Target, number: usize) -> Result<TcpStream> {
    let Target { address, path, .. } = target;
    let opening = Opening { address: *address, path, extensions: None, receive_bytes: None };
    Ok(opening.open(number)?.0)
}

/// [`open`], registered for `interest` with the connection's number as token.
fn open_registered(
    target: &Target,
    number: usize,
    poll: &Poll,
    interest: Interest,
) -> Result<mio::net::TcpStream> {
    let stream = open(target, number).with_context(|| format!("connection {number}"))?;
    let mut stream = mio::net::TcpStream::from_std(stream);
    poll.registry().register(&mut stream, Token(number), interest)?;
    Ok(stream)
}

/// Waits for events; that none comes for [`STALL`] is an error.
fn wait(poll: &mut Poll, events: &mut Events) -> Result<()> {
    loop {
        match poll.poll(events, Some(STALL)) {
            Ok(()) if events.is_empty() => bail!("stalled: messages were lost"),
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads all that has arrived, handing each piece to `take`.
///
/// A read that does not fill the buffer has emptied the socket: with edge-triggered epoll, epoll(7)
/// allows to wait then, which spares a read that finds nothing.
fn read_all(
    mut stream: &mio::net::TcpStream,
    buffer: &mut [u8],
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    loop {
        match stream.read(buffer) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(len) => {
                take(&buffer[..len])?;
                if len < buffer.len() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("reading"),
        }
    }
}

/// Turns "the socket is full" into 0 bytes written.
fn written(result: io::Result<usize>) -> Result<usize> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other.context("writing"),
    }
}

/// The measured part of a run: from the end of the warm-up on, for a number of messages.
#[derive(Debug)]
struct Window {
    server: Processes,
    begins_at: u64,
    ends_at: u64,
    begin: Option<Instants>,
}

#[derive(Debug)]
struct Instants {
    count: u64,
    server: CpuTime,
    load: Duration,
    wall: Instant,
}

impl Window {
    fn new(pid: u32, warmup: u64, messages: u64) -> Result<Self> {
        Ok(Self {
            server: Processes::below(pid)?,
            begins_at: warmup,
            ends_at: warmup + messages,
            begin: None,
        })
    }

    /// To be called as `count` grows; returns the report once the window is over. `each` is what
    /// one of what is counted stands for, in messages.
    fn advance(&mut self, count: u64, each: u64) -> Result<Option<Report>> {
        let limit = if self.begin.is_none() { self.begins_at } else { self.ends_at };
        if count < limit {
            return Ok(None);
        }
        let now = Instants {
            count,
            server: self.server.cpu_time()?,
            load: sys::own_cpu_time()?,
            wall: Instant::now(),
        };
        let Some(begin) = &self.begin else {
            self.begin = Some(now);
            return Ok(None);
        };

        let messages = ((now.count - begin.count) * each) as f64;
        let per_message = |time: Duration| time.as_nanos() as f64 / messages;
        let user = now.server.user_ticks - begin.server.user_ticks;
        let system = now.server.system_ticks - begin.server.system_ticks;
        let mut report = Report::default();
        report.set("messages", messages);
        report.set("server_ns", per_message(now.server.total - begin.server.total));
        report.set("load_ns", per_message(now.load - begin.load));
        report.set("messages_per_second", messages / (now.wall - begin.wall).as_secs_f64());
        report.set("system_share", system as f64 / (user + system).max(1) as f64);
        Ok(Some(report))
    }
}
