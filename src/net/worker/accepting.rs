//! New connections.

use std::io::{self, ErrorKind};
use std::time::Duration;

use mio::Token;

use super::Worker;
use crate::app::Peer;
use crate::base::slab::Key;
use crate::net::connection::{Connection, NO_ROUTE};
use crate::net::stream::Stream;
use crate::session::Session;

/// Most connections accepted a turn and listener; then those that are there have their turn.
pub(crate) const ACCEPT_BUDGET: usize = 256;

/// How long nothing is accepted after the system or the limit had no room.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Worker {
    pub(super) fn accept(&mut self, index: usize) {
        if self.dispatcher.mode.is_frozen() || self.dispatcher.now < self.accept_after {
            self.accept_again(index);
            return;
        }
        for _ in 0..ACCEPT_BUDGET {
            let Some(listener) = self.listeners.get(index) else {
                return;
            };
            if !self.accounts.enter(self.index) {
                self.pause_accepting(index, "the limit of connections is reached");
                return;
            }
            match listener.accept() {
                Ok((stream, peer)) => {
                    if std::mem::take(&mut self.accept_paused) {
                        tracing::info!("new connections are accepted again");
                    }
                    self.open(stream, peer);
                }
                Err(error) => {
                    self.accounts.leave(self.index);
                    match error.kind() {
                        ErrorKind::WouldBlock => return,
                        // Nobody waits at a socket that could not begin to listen.
                        ErrorKind::InvalidInput => return,
                        // The peer gave up while it waited.
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                        _ => {
                            self.pause_accepting(index, &error.to_string());
                            return;
                        }
                    }
                }
            }
        }
        self.accept_again(index);
    }

    /// Accepts as many of those that wait as a turn has time for, if there is room for them. Whether
    /// nobody waits any more.
    pub(super) fn empty(&mut self, index: usize) -> bool {
        self.accept_ready.retain(|&ready| ready != index);
        self.accept(index);
        !self.accept_ready.contains(&index)
    }

    /// An edge-triggered listener does not tell twice, so it is looked at again by itself.
    pub(super) fn accept_again(&mut self, index: usize) {
        if !self.accept_ready.contains(&index) {
            self.accept_ready.push(index);
        }
    }

    fn pause_accepting(&mut self, index: usize, reason: &str) {
        if !std::mem::replace(&mut self.accept_paused, true) {
            let connections = self.accounts.connections();
            tracing::warn!(reason, connections, "no new connections are accepted for now");
        }
        self.accept_after = self.dispatcher.now.after(ACCEPT_PAUSE);
        self.accept_again(index);
    }

    fn open(&mut self, stream: Stream, peer: Peer) {
        let mut session = Session::new(&self.dispatcher.head_limits, self.dispatcher.now);
        if self.dispatcher.gate.expects_proxy_header(peer) {
            session.expect_proxy_header();
        }
        let deadline = session.deadline(&self.dispatcher.routes[usize::from(NO_ROUTE)].limits);
        let id = self.dispatcher.ids.allocate();
        let conn = Connection { session, id, peer, armed: deadline, ..Connection::vacant(stream) };
        match self.insert(conn) {
            Ok(key) => {
                self.wheel.insert(deadline, key);
                if let Some(moving) = &mut self.moving {
                    moving.out.opened(key);
                }
                tracing::trace!(connection = %id, %peer, "accepted");
            }
            Err(error) => {
                tracing::warn!(connection = %id, %error, "a connection cannot be watched");
                self.accounts.leave(self.index);
            }
        }
    }

    /// Gives a connection its place, and its socket its registration.
    pub(super) fn insert(&mut self, mut conn: Connection) -> io::Result<Key> {
        let registry = self.poll.registry();
        let mut registered = Ok(());
        let key = self.conns.insert_with_key(|key| {
            registered = conn.stream.register(registry, Token(key.to_u64() as usize));
            conn
        });
        if let Err(error) = registered {
            self.conns.remove(key);
            return Err(error);
        }
        Ok(key)
    }
}
