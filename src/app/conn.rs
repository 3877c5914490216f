//! What an app can do with the connection it is being told about.

use std::borrow::Cow;
use std::sync::Arc;

use super::fanout;
use super::handle::{Address, Handle, Post};
use super::request::Peer;
use crate::base::id::ConnectionId;
use crate::hub::{Hub, JoinError, Mail, Memberships, WorkerIndex};
use crate::session::delivery::Delivery;
use crate::session::{Env, Session};
use crate::ws::{CloseCode, CloseFrame, Message, Opcode};

/// A message to be sent. Made from `&str` and `String` (text), `&[u8]` and `Vec<u8>` (binary), and
/// from a received [`Message`], whose memory it takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing<'m> {
    pub(crate) opcode: Opcode,
    pub(crate) payload: Cow<'m, [u8]>,
}

impl<'m> Outgoing<'m> {
    /// A text message.
    pub fn text(text: impl Into<Cow<'m, str>>) -> Self {
        let payload = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self { opcode: Opcode::Text, payload }
    }

    /// A binary message.
    pub fn binary(bytes: impl Into<Cow<'m, [u8]>>) -> Self {
        Self { opcode: Opcode::Binary, payload: bytes.into() }
    }
}

impl<'m> From<&'m str> for Outgoing<'m> {
    fn from(text: &'m str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Outgoing<'_> {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl<'m> From<&'m [u8]> for Outgoing<'m> {
    fn from(bytes: &'m [u8]) -> Self {
        Self::binary(bytes)
    }
}

impl From<Vec<u8>> for Outgoing<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

impl<'m> From<Message<'m>> for Outgoing<'m> {
    fn from(message: Message<'m>) -> Self {
        match message {
            Message::Text(text) => Self::text(text),
            Message::Binary(bytes) => Self::binary(bytes),
        }
    }
}

/// What an app's callbacks leave for the worker to carry out right after them.
#[derive(Debug, Default)]
pub struct Intents {
    /// Ordered messages for the members of rooms here.
    pub deliveries: Vec<RoomDelivery>,
    /// For the hubs of other workers.
    pub mail: Vec<(WorkerIndex, Mail)>,
}

/// A message for the members here of a room.
#[derive(Debug)]
pub struct RoomDelivery {
    /// The room.
    pub room: Arc<str>,
    /// The message.
    pub delivery: Delivery,
    /// The member who does not get it.
    pub except: Option<Address>,
}

/// The connection a callback is about.
#[derive(Debug)]
pub struct Conn<'a> {
    pub(crate) id: ConnectionId,
    pub(crate) address: Address,
    pub(crate) path: &'a str,
    pub(crate) subprotocol: Option<&'a str>,
    pub(crate) peer: Peer,
    pub(crate) session: &'a mut Session,
    pub(crate) memberships: &'a mut Memberships,
    pub(crate) hub: &'a mut Hub,
    pub(crate) intents: &'a mut Intents,
    pub(crate) env: Env<'a>,
    pub(crate) post: &'a PostBox,
}

/// The way to the mailboxes, with a `Debug` that shows nothing.
#[derive(Clone)]
pub struct PostBox(pub Arc<dyn Post>);

impl std::fmt::Debug for PostBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PostBox")
    }
}

impl<'a> Conn<'a> {
    /// Unique over the life of the server, handovers included; it is in every log line about
    /// this connection.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The decoded path of the request, without its query.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The subprotocol agreed on.
    pub fn subprotocol(&self) -> Option<&'a str> {
        self.subprotocol
    }

    /// Who is on the other side.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Bytes queued for this peer that its socket has not taken.
    pub fn queued_bytes(&self) -> usize {
        self.session.queued()
    }

    /// Sends a message. A peer that does not read costs no more than the queue limit: above it
    /// nothing further is read from it until it has caught up.
    pub fn send<'m>(&mut self, message: impl Into<Outgoing<'m>>) {
        let Outgoing { opcode, payload } = message.into();
        self.session.send(opcode, payload, &mut self.env);
    }

    /// Begins the close handshake; messages that still arrive are not passed on.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.session.close(CloseFrame::new(code, reason), &mut self.env);
    }

    /// Joins a room.
    ///
    /// # Errors
    /// The name is too long, or the connection is in too many rooms.
    pub fn join(&mut self, room: &str) -> Result<(), JoinError> {
        let window = self.session.deflate_window(self.env.turn.role());
        let mail = &mut self.intents.mail;
        let rooms_max = self.env.limits.rooms_max;
        self.hub.join(
            self.memberships,
            self.address.key,
            window,
            room,
            rooms_max,
            &mut |to, item| {
                mail.push((to, item));
            },
        )
    }

    /// Leaves a room; false if it was not a member.
    pub fn leave(&mut self, room: &str) -> bool {
        let window = self.session.deflate_window(self.env.turn.role());
        let mail = &mut self.intents.mail;
        self.hub.leave(self.memberships, window, room, &mut |to, item| mail.push((to, item)))
    }

    /// The rooms this connection is in.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.hub.rooms_of(*self.memberships)
    }

    /// Sends a message to all members of a room; to this connection itself only if `to_self`.
    pub fn publish<'m>(&mut self, room: &str, message: impl Into<Outgoing<'m>>, to_self: bool) {
        let except = (!to_self).then_some(self.address);
        fanout::publish(self.hub, self.intents, &mut self.env, room, &message.into(), except);
    }

    /// A handle to this connection for other threads.
    pub fn handle(&self) -> Handle {
        Handle::new(self.id, self.address, self.post.0.clone())
    }
}
