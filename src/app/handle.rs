//! Reaching a connection, or a room, from any thread.

use std::fmt;
use std::sync::Arc;

use super::outgoing::Outgoing;
use crate::base::id::ConnectionId;
use crate::base::slab::Key;
use crate::http::Refusal;
use crate::hub::{RoomRef, Space, WorkerIndex};
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
    /// Another process has taken over the connection, or the rooms. There, the handle that
    /// [`App::load`](super::App::load) was given reaches it.
    Moved,
    /// No route has this room space.
    NoSpace,
}

impl fmt::Display for Undeliverable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the worker's mailbox is full",
            Self::Stopped => "the server has stopped",
            Self::Moved => "another process has taken over",
            Self::NoSpace => "no route has this room space",
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
    fn publish(&self, room: RoomRef<'_>, message: Outgoing<'_>) -> Result<(), Undeliverable>;

    /// The room space of this name; see [`Spaces`](crate::hub::Spaces).
    fn space(&self, name: &str) -> Option<Space>;
}

/// The way to the mailboxes, with a `Debug` that shows nothing.
#[derive(Clone)]
pub struct PostBox(pub Arc<dyn Post>);

impl fmt::Debug for PostBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostBox")
    }
}

/// One connection, for any thread; cheap to clone. Commands to a connection that has ended are
/// dropped in silence: it can end at any moment anyway. A command that was accepted before an upgrade
/// is carried out before the connection moves, or moves with it.
#[derive(Clone)]
pub struct Handle {
    id: ConnectionId,
    address: Address,
    space: Space,
    post: Arc<dyn Post>,
}

impl Handle {
    /// A handle to the connection at `address`, on a route whose rooms are in `space`.
    pub fn new(id: ConnectionId, address: Address, space: Space, post: Arc<dyn Post>) -> Self {
        Self { id, address, space, post }
    }

    /// The connection's id, as it is in logs.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Sends a message. Before the handshake is accepted there is nothing to send it on, and it is
    /// dropped.
    ///
    /// # Errors
    /// See [`Undeliverable`].
    pub fn send(&self, message: impl Into<Outgoing<'static>>) -> Result<(), Undeliverable> {
        self.post.command(self.address, Command::Send(message.into()))
    }

    /// Begins the close handshake. A handshake that is not decided yet is refused: with 403 and the
    /// reason.
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

    /// Sends a message to every member of a room of the connection's route.
    ///
    /// # Errors
    /// See [`Undeliverable`].
    pub fn publish<'m>(
        &self,
        room: &str,
        message: impl Into<Outgoing<'m>>,
    ) -> Result<(), Undeliverable> {
        self.post.publish(RoomRef { space: self.space, name: room }, message.into())
    }

    /// Sends a message to every member of a room behind another route: `space` is that route's path
    /// pattern, or its `room_space`.
    ///
    /// # Errors
    /// See [`Undeliverable`].
    pub fn publish_in<'m>(
        &self,
        space: &str,
        room: &str,
        message: impl Into<Outgoing<'m>>,
    ) -> Result<(), Undeliverable> {
        let space = self.post.space(space).ok_or(Undeliverable::NoSpace)?;
        self.post.publish(RoomRef { space, name: room }, message.into())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("id", &self.id).field("address", &self.address).finish()
    }
}
