//! All connections of a run on one event loop.
//!
//! Each sender has one timer: for the next piece of its message, or for its next message. Times are
//! absolute and evenly phased, so that the rate is what was asked for, however late a turn is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::account::Faults;
use super::connection::{Connection, End, Manner, Role, Tools};
use super::figures::{Delays, Span};
use super::frame::Codec;
use super::message::{Random, SIZE_MIN, Size};
use super::visitors::{FIRST_TOKEN, Visitors, Visits};
use crate::handshake::Opening;

/// Most descriptions of what went wrong that are kept.
pub(super) const EXAMPLES_MAX: usize = 8;
/// Longest sleep: how soon commands from another thread are noticed.
const SLEEP_MAX: Duration = Duration::from_millis(10);
/// What is on its way at the end must come before nothing at all has come for this long.
const STALL: Duration = Duration::from_secs(10);
/// One read takes all that an ordinary connection has in flight.
const READ_BYTES: usize = 256 * 1024;
/// How often a connection that does not read says that it is there: well within the 25 s after
/// which the server asks, and the 10 s for the answer.
const LIFE_INTERVAL_NS: u64 = 5_000_000_000;
/// How often visitors are looked through for those that wait for too long.
const EXPIRY_INTERVAL_NS: u64 = 100_000_000;
/// Messages of and to connections that do not read: so long that few make megabytes.
const SLOW_BYTES: usize = 16 * 1024;
/// Messages a second to each of them: 640 KiB, so that queues grow over several upgrades. An echo
/// makes none while its socket is full.
const SLOW_RATE: f64 = 40.0;
/// The receive buffer of a connection that does not read; the kernel doubles it.
const SLOW_RECEIVE_BYTES: usize = 4 * 1024;
/// The same once it reads on: through a window of some kilobytes, megabytes would take minutes.
const READ_ON_RECEIVE_BYTES: usize = 1024 * 1024;
/// RFC 7692 §7.1.1: neither side may keep anything from one message to the next.
const DEFLATE_OFFER: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// What is sent to a server.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where the server is.
    pub address: SocketAddr,
    /// Connections to `/echo`, each with a stream of its own.
    pub connections: usize,
    /// Messages a second of each sender.
    pub rate: f64,
    /// How long they are.
    pub size: Size,
    /// Writes a message of an echo is split into, at random places and spread over half the time
    /// until the next; 1 splits none.
    pub split: usize,
    /// One message in so many is split; 1 splits all.
    pub split_one_in: usize,
    /// Most frames of a message of an echo.
    pub fragments_max: usize,
    /// Whether permessage-deflate is used, on all but the slow.
    pub compressed: bool,
    /// Rooms, each with a publisher.
    pub rooms: usize,
    /// Members of each room, besides the publisher.
    pub members: usize,
    /// Connections that do not read until the end: every other one echoes, the rest are members
    /// of one room.
    pub slow: usize,
    /// What is sent to each of them, in bytes of payload.
    pub slow_bytes: usize,
    /// New connections a second, each for one echo.
    pub churn: f64,
    /// Ends the streams after so many messages of each sender; `None` goes on until told.
    pub messages_max: Option<u64>,
}

impl Load {
    /// No connections at all, to be changed.
    pub fn none(address: SocketAddr) -> Self {
        Self {
            address,
            connections: 0,
            rate: 20.0,
            size: Size::Fixed(100),
            split: 1,
            split_one_in: 1,
            fragments_max: 1,
            compressed: false,
            rooms: 0,
            members: 20,
            slow: 0,
            slow_bytes: 4 * 1024 * 1024,
            churn: 0.0,
            messages_max: None,
        }
    }

    /// Connections that stay; visitors come on top.
    pub fn connections_all(&self) -> usize {
        let slow_publisher = usize::from(self.slow > 1);
        self.connections + self.rooms * (self.members + 1) + self.slow + slow_publisher
    }

    fn slow_messages(&self) -> u64 {
        self.slow_bytes.div_ceil(SLOW_BYTES) as u64
    }

    fn check(&self) -> Result<()> {
        ensure!(self.rate > 0.0 && self.rate <= 10_000.0, "a rate is over 0 and up to 10,000");
        let least = self.split.min(self.split_one_in).min(self.fragments_max);
        ensure!(least >= 1, "a message has at least one piece");
        ensure!((0.0..=10_000.0).contains(&self.churn), "churn is up to 10,000");
        ensure!(self.size.of(0, 0) >= SIZE_MIN, "a message has at least {SIZE_MIN} bytes");
        Ok(())
    }
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Totals {
    /// What must be zero.
    pub faults: Faults,
    /// What visitors met.
    pub visits: Visits,
    /// Messages sent by streams.
    pub sent: u64,
    /// Messages received by streams: rooms deliver one to each member.
    pub received: u64,
    /// Delays and the longest silence.
    pub span: Span,
    /// The latest that the checker itself was with a message, in nanoseconds. Delays count from
    /// when a message was really sent.
    pub lag_max: u64,
    /// What the first things that went wrong were.
    pub examples: Vec<String>,
}

/// A running load.
#[derive(Debug)]
pub struct Streams {
    load: Load,
    poll: Poll,
    events: Events,
    began: Instant,
    connections: Vec<Connection>,
    tools: Tools,
    /// When each timer is due, and whose it is.
    timers: BinaryHeap<Reverse<(u64, Timer)>>,
    visitors: Visitors,
    /// Whether senders make new messages.
    sending: bool,
    /// When anything was last received.
    heard_ns: u64,
    lag_max: u64,
    examples: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A sender's: its next piece or message; when the latter is due.
    Sender { number: usize, message_ns: u64 },
    /// A connection that does not read says that it is there.
    Life { number: usize },
    /// The next visitor comes.
    Visitor,
    /// Visitors that have waited for too long leave.
    Expiry,
}

impl Streams {
    /// Opens all connections; nothing is sent yet.
    pub fn open(load: &Load) -> Result<Self> {
        load.check()?;
        let tools = Tools {
            codec: Codec::default(),
            random: Random::new(1),
            delays: Delays::default(),
            input: vec![0; READ_BYTES],
            payload: Vec::new(),
            scratch: Vec::new(),
        };
        let mut streams = Self {
            load: load.clone(),
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            began: Instant::now(),
            connections: Vec::with_capacity(load.connections_all()),
            tools,
            timers: BinaryHeap::new(),
            visitors: Visitors::new(load.address),
            sending: true,
            heard_ns: 0,
            lag_max: 0,
            examples: Vec::new(),
        };
        streams.open_echoes()?;
        streams.open_rooms()?;
        streams.open_slow()?;
        Ok(streams)
    }

    fn open_echoes(&mut self) -> Result<()> {
        let Load { size, split, split_one_in, fragments_max, compressed, .. } = self.load;
        let manner =
            Manner { size, pieces: split, split_one_in, fragments_max, compressed, slow: false };
        for _ in 0..self.load.connections {
            self.add("/echo", Role::Echo, manner)?;
        }
        Ok(())
    }

    fn open_rooms(&mut self) -> Result<()> {
        let Load { size, compressed, rooms, members, .. } = self.load;
        let manner =
            Manner { size, pieces: 1, split_one_in: 1, fragments_max: 1, compressed, slow: false };
        for room in 0..rooms {
            let path = format!("/rooms/checker-{room}");
            let publisher = self.add(&path, Role::Publisher, manner)?;
            for _ in 0..members {
                self.add(&path, Role::Member { publisher }, manner)?;
            }
        }
        Ok(())
    }

    fn open_slow(&mut self) -> Result<()> {
        let manner = Manner {
            size: Size::Fixed(SLOW_BYTES),
            pieces: 1,
            split_one_in: 1,
            fragments_max: 1,
            compressed: false,
            slow: true,
        };
        let members = self.load.slow / 2;
        for _ in members..self.load.slow {
            self.add("/echo", Role::Echo, manner)?;
        }
        if members > 0 {
            let path = "/rooms/checker-slow";
            let publisher = self.add(path, Role::Publisher, manner)?;
            for _ in 0..members {
                self.add(path, Role::Member { publisher }, manner)?;
            }
        }
        Ok(())
    }

    /// Opens one connection more; returns its number.
    fn add(&mut self, path: &str, role: Role, manner: Manner) -> Result<usize> {
        let number = self.connections.len();
        let slow = manner.slow && role != Role::Publisher;
        let opening = Opening {
            address: self.load.address,
            path,
            extensions: manner.compressed.then_some(DEFLATE_OFFER),
            receive_bytes: slow.then_some(SLOW_RECEIVE_BYTES),
        };
        let opened = opening.open(number).with_context(|| format!("connection {number}"))?;
        let (stream, head) = opened;
        if manner.compressed && !head.to_ascii_lowercase().contains("permessage-deflate") {
            bail!("the server declines permessage-deflate: {head}");
        }
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(number), interest)?;
        self.connections.push(Connection::new(stream, number, role, manner));
        Ok(number)
    }

    /// Begins to send, and waits until each member of a room has had a message: its stream begins
    /// with that, and is whole from there on. Then the slow stop reading.
    pub fn begin(&mut self) -> Result<()> {
        let now_ns = self.now_ns();
        for connection in &mut self.connections {
            connection.listen_from(now_ns);
        }
        self.schedule_senders(now_ns);
        let deadline = Instant::now() + STALL;
        while self.connections.iter().any(Connection::awaits_its_first) {
            ensure!(Instant::now() < deadline, "members of rooms get nothing");
            self.turn()?;
        }
        self.stop_reading();
        Ok(())
    }

    fn schedule_senders(&mut self, now_ns: u64) {
        let senders = self.connections.iter().enumerate();
        let senders = senders.filter(|(_, connection)| connection.sends());
        let senders: Vec<usize> = senders.map(|(number, _)| number).collect();
        for (index, &number) in senders.iter().enumerate() {
            let phase_ns = self.interval_ns(number) as u128 * index as u128 / senders.len() as u128;
            let message_ns = now_ns + phase_ns as u64;
            self.timers.push(Reverse((message_ns, Timer::Sender { number, message_ns })));
        }
        if self.load.churn > 0.0 {
            self.timers.push(Reverse((now_ns, Timer::Visitor)));
            self.timers.push(Reverse((now_ns, Timer::Expiry)));
        }
    }

    /// The slow become deaf.
    fn stop_reading(&mut self) {
        let now_ns = self.now_ns();
        for number in 0..self.connections.len() {
            let connection = &mut self.connections[number];
            if connection.manner.slow && connection.role != Role::Publisher {
                connection.reading = false;
                let due_ns = now_ns + LIFE_INTERVAL_NS;
                self.timers.push(Reverse((due_ns, Timer::Life { number })));
            }
        }
    }

    /// Waits until something can be done, and does all that can be.
    pub fn turn(&mut self) -> Result<()> {
        let sleep = match self.timers.peek() {
            Some(Reverse((due_ns, _))) => {
                Duration::from_nanos(due_ns.saturating_sub(self.now_ns())).min(SLEEP_MAX)
            }
            None => SLEEP_MAX,
        };
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(sleep)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            let number = event.token().0;
            if number >= FIRST_TOKEN {
                let now_ns = self.now_ns();
                self.visitors.handle(event.token(), now_ns, &mut self.tools.random);
                continue;
            }
            if event.is_readable() || event.is_error() || event.is_read_closed() {
                self.read(number);
            }
            if event.is_writable() {
                self.write(number);
            }
        }
        self.events = events;
        self.fire_timers()
    }

    fn fire_timers(&mut self) -> Result<()> {
        let now_ns = self.now_ns();
        while let Some(&Reverse((due_ns, timer))) = self.timers.peek() {
            if due_ns > now_ns {
                break;
            }
            self.timers.pop();
            match timer {
                Timer::Sender { number, message_ns } => self.send(number, due_ns, message_ns),
                Timer::Life { number } => {
                    self.connections[number].show_life(&mut self.tools);
                    self.write(number);
                    let due_ns = now_ns + LIFE_INTERVAL_NS;
                    self.timers.push(Reverse((due_ns, Timer::Life { number })));
                }
                Timer::Visitor if self.sending => {
                    self.visitors.come(self.poll.registry(), now_ns)?;
                    let due_ns = due_ns + (1e9 / self.load.churn) as u64;
                    self.timers.push(Reverse((due_ns, Timer::Visitor)));
                }
                Timer::Visitor => {}
                Timer::Expiry => {
                    self.visitors.expire(now_ns);
                    self.timers.push(Reverse((now_ns + EXPIRY_INTERVAL_NS, Timer::Expiry)));
                }
            }
        }
        Ok(())
    }

    /// The next piece or message of a sender.
    fn send(&mut self, number: usize, due_ns: u64, message_ns: u64) {
        let interval_ns = self.interval_ns(number);
        let now_ns = self.now_ns();
        let connection = &mut self.connections[number];
        if !connection.is_open() {
            return;
        }
        if connection.is_within_a_message() {
            connection.release(now_ns);
        } else {
            let most = match connection.manner.slow {
                true => Some(self.load.slow_messages()),
                false => self.load.messages_max,
            };
            if !self.sending || most.is_some_and(|most| connection.made() >= most) {
                return;
            }
            if !connection.manner.slow || connection.is_flushed() {
                connection.make(now_ns, &mut self.tools);
            }
            self.lag_max = self.lag_max.max(now_ns.saturating_sub(due_ns));
        }
        let within_a_message = connection.is_within_a_message();
        let pieces = connection.manner.pieces as u64;
        self.write(number);

        let (due_ns, message_ns) = match within_a_message {
            true => (due_ns + interval_ns / 2 / pieces, message_ns),
            false => (message_ns + interval_ns, message_ns + interval_ns),
        };
        self.timers.push(Reverse((due_ns, Timer::Sender { number, message_ns })));
    }

    fn read(&mut self, number: usize) {
        let now_ns = self.now_ns();
        let sent = self.sent_to(number);
        let connection = &mut self.connections[number];
        let received = connection.received();
        let end = connection.receive(sent, now_ns, &mut self.tools);
        if connection.received() > received {
            self.heard_ns = now_ns;
        }
        self.end_if(number, end);
    }

    fn write(&mut self, number: usize) {
        let end = self.connections[number].flush();
        self.end_if(number, end);
    }

    fn end_if(&mut self, number: usize, end: Option<End>) {
        if let Some(end) = end {
            let connection = &mut self.connections[number];
            if self.examples.len() < EXAMPLES_MAX && connection.is_open() {
                self.examples.push(format!("connection {number}: {end}"));
            }
            connection.end();
        }
    }

    /// Messages sent so far of the stream that this connection receives.
    fn sent_to(&self, number: usize) -> u64 {
        match self.connections[number].role {
            Role::Echo | Role::Publisher => self.connections[number].sent(),
            Role::Member { publisher } => self.connections[publisher].sent(),
        }
    }

    fn interval_ns(&self, number: usize) -> u64 {
        let slow = self.connections[number].manner.slow;
        (1e9 / if slow { SLOW_RATE } else { self.load.rate }) as u64
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Begins a window: what is measured until its end is also measured apart.
    pub fn open_window(&mut self) {
        self.tools.delays.open_window();
    }

    /// Ends the window. Who waits for a message counts with the silence so far.
    pub fn close_window(&mut self) -> Span {
        let now_ns = self.now_ns();
        for number in 0..self.connections.len() {
            let sent = self.sent_to(number);
            if let Some(silence) = self.connections[number].silence(sent, now_ns) {
                self.tools.delays.silence(silence);
            }
        }
        self.tools.delays.close_window()
    }

    /// The faults so far; messages on their way are none.
    pub fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        for connection in &self.connections {
            faults += connection.faults();
        }
        faults
    }

    /// What visitors have met so far.
    pub fn visits(&self) -> Visits {
        self.visitors.visits
    }

    /// Sends no more and waits for all that is on its way; then has the slow read on, and waits
    /// for theirs. What does not come is lost.
    pub fn finish(&mut self) -> Result<Totals> {
        while self.has_more_to_make() {
            self.turn()?;
        }
        self.sending = false;
        self.await_the_rest()?;
        for number in 0..self.connections.len() {
            let connection = &mut self.connections[number];
            if !connection.reading && connection.is_open() {
                if let Some(stream) = connection.stream() {
                    SockRef::from(stream).set_recv_buffer_size(READ_ON_RECEIVE_BYTES)?;
                }
                connection.reading = true;
                self.read(number);
            }
        }
        self.await_the_rest()?;
        Ok(self.settle())
    }

    /// Waits until those that read have all that is on its way, or nothing comes any more.
    fn await_the_rest(&mut self) -> Result<()> {
        self.heard_ns = self.now_ns();
        while self.is_waiting() && self.now_ns() - self.heard_ns < STALL.as_nanos() as u64 {
            self.turn()?;
        }
        Ok(())
    }

    /// Whether senders whose messages are numbered off have not made them all.
    fn has_more_to_make(&self) -> bool {
        let Some(most) = self.load.messages_max else {
            return false;
        };
        let mut senders = self.connections.iter().filter(|connection| connection.sends());
        senders.any(|sender| !sender.manner.slow && sender.is_open() && sender.made() < most)
    }

    fn is_waiting(&self) -> bool {
        let waits = |number: usize| {
            let connection = &self.connections[number];
            connection.is_open()
                && connection.reading
                && (connection.is_within_a_message()
                    || !connection.is_flushed()
                    || connection.outstanding(self.sent_to(number)) > 0)
        };
        self.visitors.present() > 0 || (0..self.connections.len()).any(waits)
    }

    fn settle(&mut self) -> Totals {
        let (mut sent, mut received) = (0, 0);
        for number in 0..self.connections.len() {
            let of_its_stream = self.sent_to(number);
            let connection = &mut self.connections[number];
            connection.settle(of_its_stream);
            sent += connection.sent();
            received += connection.received();
        }
        Totals {
            faults: self.faults(),
            visits: self.visits(),
            sent,
            received,
            span: self.tools.delays.whole().clone(),
            lag_max: self.lag_max,
            examples: [&self.examples[..], &self.visitors.examples].concat(),
        }
    }
}
