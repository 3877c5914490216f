//! What an app can do with the connection it is being told about.

use super::fanout;
use super::handle::{Address, Handle, PostBox};
use super::intents::Intents;
use super::outgoing::Outgoing;
use super::request::Peer;
use crate::base::id::ConnectionId;
use crate::hub::{Hub, JoinError, Memberships, RoomRef, Space};
use crate::session::{Env, Session};
use crate::ws::{CloseCode, CloseFrame};

/// The connection a callback is about.
#[derive(Debug)]
pub struct Conn<'a> {
    pub(crate) id: ConnectionId,
    pub(crate) address: Address,
    pub(crate) path: &'a str,
    pub(crate) subprotocol: Option<&'a str>,
    pub(crate) peer: Peer,
    pub(crate) space: Space,
    pub(crate) session: &'a mut Session,
    pub(crate) memberships: &'a mut Memberships,
    pub(crate) hub: &'a mut Hub,
    pub(crate) intents: &'a mut Intents,
    pub(crate) env: Env<'a>,
    pub(crate) post: &'a PostBox,
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

    /// Joins a room of the route's space: rooms of this name behind other routes are other rooms,
    /// unless the routes are configured to share a `room_space`. Costs at most `limits.rooms_max`
    /// steps, as does [`leave`](Self::leave).
    ///
    /// # Errors
    /// The name is too long, or the connection is in too many rooms.
    pub fn join(&mut self, room: &str) -> Result<(), JoinError> {
        let window = self.session.deflate_window(self.env.turn.role());
        let mail = &mut self.intents.mail;
        let rooms_max = self.env.limits.rooms_max;
        let room = RoomRef { space: self.space, name: room };
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
        let room = RoomRef { space: self.space, name: room };
        self.hub.leave(self.memberships, window, room, &mut |to, item| mail.push((to, item)))
    }

    /// The rooms this connection is in.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.hub.rooms_of(*self.memberships)
    }

    /// Sends a message to all members of a room of the route's space; to this connection itself only if `to_self`.
    pub fn publish<'m>(&mut self, room: &str, message: impl Into<Outgoing<'m>>, to_self: bool) {
        let room = RoomRef { space: self.space, name: room };
        let except = (!to_self).then_some(self.address);
        fanout::publish(self.hub, self.intents, &mut self.env, room, &message.into(), except);
    }

    /// A handle to this connection for other threads.
    pub fn handle(&self) -> Handle {
        Handle::new(self.id, self.address, self.space, self.post.0.clone())
    }
}
