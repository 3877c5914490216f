//! The client role over a socket: connects, sends the request, and drives a [`Session`].
//!
//! ```text
//! Endpoint ─► Client::connect ─► register ─► on_io, drive ─► ClientEvents
//!                                               ▲               │
//!                                               └──── Link ◄────┘ send, ping, close
//! ```
//!
//! One connection in an event loop that the caller owns, or in one of its own
//! ([`Client::run`]). Nothing here reconnects.

mod connect;
mod error;
mod machine;

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Registry, Token};

use crate::base::limits::{HeadLimits, Limits};
use crate::base::tick::Tick;
use crate::net::stream::Stream;
use crate::session::handshake::client::ClientAgreed;
use crate::session::{Compression, Next, Session};
use crate::ws::{CloseCode, CloseFrame, Message};

pub use connect::{Endpoint, Wishes};
pub use error::ConnectError;
pub use machine::Link;

use machine::Machine;

/// The receive buffer, in bytes.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Most bytes read in one [`Client::drive`]: its caller has other things to do, too.
const READ_BUDGET: usize = 4 * RECEIVE_BYTES;

/// How long the server may take, all being said, to end the TCP connection.
const LINGER: Duration = Duration::from_secs(1);

/// What a client holds the server to, and how it compresses.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Of the answer's head. Its `handshake_timeout` holds for connecting and for the answer, each.
    pub head_limits: HeadLimits,
    /// Of the open connection. `close_timeout` counts from the last byte in or out, so that much
    /// may still arrive after our Close.
    pub limits: Limits,
    /// How messages are compressed, if the server agrees.
    pub compression: Compression,
}

/// A user has chosen the server: generous limits, no rates. No pings either, as TCP's keep-alive
/// finds a dead server and nobody sees it.
impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            head_limits: HeadLimits::default(),
            limits: Limits {
                message_bytes_max: 64 * 1024 * 1024,
                fragments_max: 131_072,
                queue_bytes_max: 1024 * 1024,
                ping_interval: None,
                control_rate_max: None,
                close_timeout: Duration::from_secs(10),
                ..Limits::default()
            },
            compression: Compression { level: 6, threshold_bytes: 64 },
        }
    }
}

/// What a client learns. [`Closed`](Self::Closed) and [`Failed`](Self::Failed) are the last event;
/// one of them comes.
#[derive(Debug)]
pub enum ClientEvent<'e> {
    /// The connection is open.
    Open(ClientAgreed),
    /// A message.
    Message(Message<'e>),
    /// A ping, which has been answered.
    Ping(&'e [u8]),
    /// A pong.
    Pong(&'e [u8]),
    /// The open connection is over.
    Closed(Ending),
    /// The connection never opened.
    Failed(ConnectError),
}

/// How an open connection ended.
#[derive(Debug)]
pub enum Ending {
    /// The server closed, with this code, if any, and reason.
    ByServer(Option<CloseCode>, String),
    /// We closed, and the server has answered.
    ByUs(CloseFrame),
    /// The server broke the protocol or a limit, and was told this.
    Violation(CloseFrame),
    /// The transport broke, or ended without a Close; with the socket's error, if it had one.
    Lost(Option<io::Error>),
    /// We closed, and the server has not answered in time, or the transport ended before.
    Unanswered,
}

/// One connection to a server.
pub struct Client {
    stream: Stream,
    machine: Machine,
    receive: Box<[u8]>,
    started: Instant,
    /// There may be something to read.
    unread: bool,
    /// The budget was used up: to be driven again at once.
    unfinished: bool,
    /// When a byte last came or went.
    progress: Tick,
    /// The socket takes no more; what is there to be read is read before that is reported.
    write_error: Option<io::Error>,
}

impl Client {
    /// Resolves the name, connects, and sends the request. Waits, at most as long as
    /// `settings.head_limits.handshake_timeout` (and the resolver).
    ///
    /// # Errors
    /// Wrong usage ([`ConnectError::is_usage`]), or the server cannot be reached.
    pub fn connect(
        endpoint: &Endpoint,
        wishes: &Wishes,
        settings: ClientSettings,
    ) -> Result<Self, ConnectError> {
        let (stream, handshake) = connect::connect(endpoint, wishes, &settings)?;
        let mut session = Session::new(&settings.head_limits, Tick::START);
        session.expect_response();
        let machine = Machine::new(session, handshake, settings)?;
        Ok(Self {
            stream,
            machine,
            receive: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            started: Instant::now(),
            unread: false,
            unfinished: false,
            progress: Tick::START,
            write_error: None,
        })
    }

    /// Lives the whole connection in an event loop of its own, until it is over.
    ///
    /// # Errors
    /// Those of epoll.
    pub fn run(
        mut self,
        mut on_event: impl FnMut(&mut Link<'_>, ClientEvent<'_>),
    ) -> io::Result<()> {
        const SOCKET: Token = Token(0);
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(1);
        self.register(poll.registry(), SOCKET)?;
        while !self.is_done() {
            match poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            events.iter().for_each(|event| self.on_io(event));
            self.drive(&mut on_event);
        }
        Ok(())
    }

    /// Registers the socket in the caller's event loop, once and for all.
    ///
    /// # Errors
    /// Those of epoll_ctl.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.stream.register(registry, token)
    }

    /// Takes note of an event of this socket; [`drive`](Self::drive) is due.
    pub fn on_io(&mut self, event: &mio::event::Event) {
        self.unread |= event.is_readable() || event.is_read_closed() || event.is_error();
    }

    /// When [`drive`](Self::drive) is due without an event; `None` is never.
    pub fn timeout(&self) -> Option<Duration> {
        if self.unfinished {
            return Some(Duration::ZERO);
        }
        let due = self.deadline();
        (due != Tick::NEVER).then(|| due.elapsed().saturating_sub(self.started.elapsed()))
    }

    /// Reads and writes what the socket has and takes, and does what is due.
    pub fn drive(&mut self, on_event: &mut dyn FnMut(&mut Link<'_>, ClientEvent<'_>)) {
        self.machine.set_now(Tick::from_elapsed(self.started.elapsed()));
        self.unfinished = false;
        self.read(on_event);
        self.flush(on_event);
        if self.deadline() <= self.machine.now() {
            self.machine.on_deadline(on_event);
            self.flush(on_event);
        }
        if !self.unfinished
            && let Some(error) = self.write_error.take()
        {
            self.machine.lost(Some(error), on_event);
        }
    }

    /// What can be done with the connection between two [`drive`](Self::drive)s. What is sent
    /// leaves with the next one.
    pub fn link(&mut self) -> Link<'_> {
        self.machine.link()
    }

    /// Whether all is over, and the client can be dropped.
    pub fn is_done(&self) -> bool {
        self.machine.is_done()
    }

    fn deadline(&self) -> Tick {
        let close_timeout = self.machine.close_timeout();
        match () {
            () if self.is_done() => Tick::NEVER,
            () if self.machine.is_over() => self.progress.after(LINGER),
            () if self.machine.is_closing() => self.progress.after(close_timeout),
            () => self.machine.deadline(),
        }
    }

    fn read(&mut self, on_event: &mut dyn FnMut(&mut Link<'_>, ClientEvent<'_>)) {
        let mut budget = READ_BUDGET;
        while self.unread && self.machine.wants_read() {
            if budget == 0 {
                self.unfinished = true;
                return;
            }
            match self.stream.read(&mut self.receive) {
                Ok(0) => {
                    self.unread = false;
                    self.machine.peer_finished(on_event);
                }
                Ok(len) => {
                    self.progress = self.machine.now();
                    budget = budget.saturating_sub(len);
                    self.machine.feed(&mut self.receive[..len], on_event);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.unread = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.unread = false;
                    self.machine.lost(Some(error), on_event);
                }
            }
        }
    }

    fn flush(&mut self, on_event: &mut dyn FnMut(&mut Link<'_>, ClientEvent<'_>)) {
        loop {
            let before = self.machine.queued();
            let next = self.machine.flush(&mut self.stream);
            if self.machine.queued() < before {
                self.progress = self.machine.now();
            }
            match next {
                Ok(Next::Resume) => {
                    self.machine.feed_parked(on_event);
                    self.read(on_event);
                }
                Ok(Next::ShutdownWrite) => {
                    // If this fails the peer is gone, and reading says so.
                    let _ = self.stream.shutdown_write();
                    return;
                }
                Ok(Next::Wait | Next::Drop) => return,
                Err(error) => {
                    // What the server said before is still there, perhaps with its reason.
                    self.machine.give_up_writing();
                    self.write_error = Some(error);
                    self.unread = true;
                    self.read(on_event);
                }
            }
        }
    }
}
