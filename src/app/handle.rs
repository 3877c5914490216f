//! Reaching a connection, or a room, from any thread.

use std::fmt;
use std::sync::Arc;

use super::conn::Outgoing;
use crate::base::id::ConnectionId;
use crate::base::slab::Key;
use crate::http::Refusal;
use crate::hub::WorkerIndex;
use crate::ws::{CloseCode, CloseFrame};

/// Where a connection lives in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Its worker.
    pub worker: WorkerIndex,
    /// Its place there.
    pub key: Key,
}

/// What a worker is asked to do with one of its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send a message.
    Send(Outgoing<'static>),
    /// Begin the close handshake.
    Close(CloseFrame),
    /// Accept the handshake that the app answered with [`Decision::Later`](super::Decision::Later).
    Accept,
    /// Refuse it.
    Refuse(Refusal),
}

/// Why a command cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undeliverable {
    /// The worker's mailbox is full: try again later, or give up on it.
    Full,
    /// The server has stopped.
    Stopped,
}

impl fmt::Display for Undeliverable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the worker's mailbox is full",
            Self::Stopped => "the server has stopped",
        })
    }
}

impl std::error::Error for Undeliverable {}

/// How commands reach workers; implemented by the mailboxes.
pub trait Post: Send + Sync {
    /// Passes a command on to a connection.
    ///
    /// # Errors
    /// The mailbox is full, or the server has stopped.
    fn command(&self, to: Address, command: Command) -> Result<(), Undeliverable>;

    /// Passes a message on to a room.
    ///
    /// # Errors
    /// The mailbox is full, or the server has stopped.
    fn publish(&self, room: &str, message: Outgoing<'_>) -> Result<(), Undeliverable>;
}

/// One connection, for any thread; cheap to clone. Commands to a connection that is gone are
/// dropped in silence: it can go at any moment anyway.
#[derive(Clone)]
pub struct Handle {
    id: ConnectionId,
    address: Address,
    post: Arc<dyn Post>,
}

impl Handle {
    /// A handle to the connection at `address`.
    pub fn new(id: ConnectionId, address: Address, post: Arc<dyn Post>) -> Self {
        Self { id, address, post }
    }

    /// The connection's id, as it is in logs.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Sends a message.
    ///
    /// # Errors
    /// See [`Undeliverable`].
    pub fn send(&self, message: impl Into<Outgoing<'static>>) -> Result<(), Undeliverable> {
        self.post.command(self.address, Command::Send(message.into()))
    }

    /// Begins the close handshake.
    ///
    /// # Errors
    /// See [`Undeliverable`].
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), Undeliverable> {
        self.post.command(self.address, Command::Close(CloseFrame::new(code, reason)))
    }

    /// Accepts the handshake.
    ///
    /// # Errors
    /// See [`Undeliverable`].
    pub fn accept(&self) -> Result<(), Undeliverable> {
        self.post.command(self.address, Command::Accept)
    }

    /// Refuses the handshake.
    ///
    /// # Errors
    /// See [`Undeliverable`].
    pub fn refuse(&self, refusal: Refusal) -> Result<(), Undeliverable> {
        self.post.command(self.address, Command::Refuse(refusal))
    }

    /// Sends a message to every member of a room.
    ///
    /// # Errors
    /// See [`Undeliverable`].
    pub fn publish<'m>(
        &self,
        room: &str,
        message: impl Into<Outgoing<'m>>,
    ) -> Result<(), Undeliverable> {
        self.post.publish(room, message.into())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("id", &self.id).field("address", &self.address).finish()
    }
}
