//! The built-in apps: echo and rooms. They use nothing that a user's own app could not.

use super::handle::Handle;
use super::request::Request;
use super::{
    App, CloseCode, Conn, Decision, Message, NotMovable, Reader, Refusal, SnapshotError, Writer,
};
use crate::base::limits::ROOM_NAME_BYTES_MAX;

/// Sends every message back.
#[derive(Debug, Default)]
pub struct Echo;

impl App for Echo {
    type State = ();

    const SAVES_AHEAD: bool = true;

    fn handshake(&mut self, _: &Request<'_>, _: &Handle) -> Decision<()> {
        Decision::Accept(())
    }

    fn message(&mut self, conn: &mut Conn<'_>, (): &mut (), message: Message<'_>) {
        conn.send(message);
    }

    fn save(&self, (): &(), _: &mut Writer) -> Result<(), NotMovable> {
        Ok(())
    }

    fn load(&mut self, _: &Handle, _: &mut Reader<'_>) -> Result<(), SnapshotError> {
        Ok(())
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

    const SAVES_AHEAD: bool = true;

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

    fn save(&self, member: &Member, writer: &mut Writer) -> Result<(), NotMovable> {
        let Member { room, to_self } = member;
        writer.str(room);
        writer.bool(*to_self);
        Ok(())
    }

    fn load(&mut self, _: &Handle, reader: &mut Reader<'_>) -> Result<Member, SnapshotError> {
        let room = reader.str()?;
        if room.len() > ROOM_NAME_BYTES_MAX {
            return Err(SnapshotError::Invalid("room's name"));
        }
        Ok(Member { room: room.into(), to_self: reader.bool()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::erased::{AnyApp, AnyState, erase};
    use crate::app::handle::{Address, Command, Post, Undeliverable};
    use crate::app::{Outgoing, Request};
    use crate::base::id::ConnectionId;
    use crate::base::slab::Slab;
    use crate::base::testing::check_loader;
    use std::sync::Arc;

    struct Nowhere;

    impl Post for Nowhere {
        fn command(&self, _: Address, _: Command) -> Result<(), Undeliverable> {
            Err(Undeliverable::Stopped)
        }

        fn publish(&self, _: &str, _: Outgoing<'_>) -> Result<(), Undeliverable> {
            Err(Undeliverable::Stopped)
        }
    }

    fn handle() -> Handle {
        let key = Slab::new().insert(());
        Handle::new(ConnectionId::from_u64(1), Address { worker: 0, key }, Arc::new(Nowhere))
    }

    fn save(app: &dyn AnyApp, state: &AnyState) -> Result<Vec<u8>, NotMovable> {
        let mut writer = Writer::new();
        app.save(state, &mut writer)?;
        Ok(writer.into_bytes())
    }

    #[test]
    fn the_built_in_apps_load_what_they_save() {
        let member = AnyState::new(Member { room: "größer".into(), to_self: true });
        let states = [(erase(Echo), AnyState::new(())), (erase(Rooms), member)];
        for (app, state) in states {
            let app = std::cell::RefCell::new(app);
            let saved = save(&**app.borrow(), &state).unwrap();
            check_loader(&saved, |reader| {
                let loaded = app.borrow_mut().load(&handle(), reader).expect("no panic")?;
                Ok(save(&**app.borrow(), &loaded).expect("it can be saved"))
            });
        }
    }

    struct Panics;

    impl App for Panics {
        type State = ();

        fn handshake(&mut self, _: &Request<'_>, _: &Handle) -> Decision<()> {
            Decision::Accept(())
        }

        fn message(&mut self, _: &mut Conn<'_>, (): &mut (), _: Message<'_>) {}

        fn save(&self, (): &(), _: &mut Writer) -> Result<(), NotMovable> {
            panic!("in save");
        }

        fn load(&mut self, _: &Handle, _: &mut Reader<'_>) -> Result<(), SnapshotError> {
            panic!("in load");
        }
    }

    struct Stays;

    impl App for Stays {
        type State = ();

        fn handshake(&mut self, _: &Request<'_>, _: &Handle) -> Decision<()> {
            Decision::Accept(())
        }

        fn message(&mut self, _: &mut Conn<'_>, (): &mut (), _: Message<'_>) {}
    }

    #[test]
    fn an_app_that_panics_or_says_nothing_keeps_its_connections() {
        let state = AnyState::new(());
        let (mut panics, mut stays) = (erase(Panics), erase(Stays));
        let reason = save(&*panics, &state).unwrap_err().to_string();
        assert_eq!(reason, "its app panicked in save");
        assert!(panics.load(&handle(), &mut Reader::new(&[])).is_err());
        let reason = save(&*stays, &state).unwrap_err().to_string();
        assert_eq!(reason, "its app does not save its state");
        let loaded = stays.load(&handle(), &mut Reader::new(&[])).unwrap();
        assert!(matches!(loaded, Err(SnapshotError::Invalid(_))));
    }
}
