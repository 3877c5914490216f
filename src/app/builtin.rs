//! The built-in apps: echo and rooms. They use nothing that a user's own app could not.

use super::handle::Handle;
use super::request::Request;
use super::{App, CloseCode, Conn, Decision, Message, Refusal};
use crate::base::limits::ROOM_NAME_BYTES_MAX;

/// Sends every message back.
#[derive(Debug, Default)]
pub struct Echo;

impl App for Echo {
    type State = ();

    fn handshake(&mut self, _: &Request<'_>, _: &Handle) -> Decision<()> {
        Decision::Accept(())
    }

    fn message(&mut self, conn: &mut Conn<'_>, (): &mut (), message: Message<'_>) {
        conn.send(message);
    }
}

/// Passes every message on to all other members of the room that the path names; with `?self=1`
/// to the sender, too. All members see one order.
#[derive(Debug, Default)]
pub struct Rooms;

/// A member of a room.
#[derive(Debug)]
pub struct Member {
    room: Box<str>,
    /// Gets its own messages, too.
    to_self: bool,
}

impl App for Rooms {
    type State = Member;

    fn handshake(&mut self, request: &Request<'_>, _: &Handle) -> Decision<Member> {
        let to_self = match request.query("self").as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(_) => return Decision::Refuse(Refusal::new(400, "self is neither 0 nor 1")),
        };
        let Some(room) = request.param().filter(|name| name.len() <= ROOM_NAME_BYTES_MAX) else {
            return Decision::Refuse(Refusal::new(414, "the room's name is over 255 bytes"));
        };
        Decision::Accept(Member { room: room.into(), to_self })
    }

    fn open(&mut self, conn: &mut Conn<'_>, member: &mut Member) {
        if conn.join(&member.room).is_err() {
            conn.close(CloseCode::POLICY, "in too many rooms");
        }
    }

    fn message(&mut self, conn: &mut Conn<'_>, member: &mut Member, message: Message<'_>) {
        conn.publish(&member.room, message, member.to_self);
    }
}
