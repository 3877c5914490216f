//! The built-in apps: echo and rooms. They use nothing that a user's own app could not.

use std::borrow::Cow;

use super::handle::Handle;
use super::request::{Param, Request};
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
///
/// The room is named by the route's `{name}`. If the pattern has further parameters, the name is
/// followed by their values in the order of the parameters' names, with a `/` before each; in all of
/// them `%` and `/` are percent-encoded then. So `/r/{name}/{x}` at `/r/alpha/1` is the room
/// `alpha/1`.
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
        let Some(room) = room_name(request.params()) else {
            return Decision::Refuse(Refusal::new(404, "this path names no room"));
        };
        if room.len() > ROOM_NAME_BYTES_MAX {
            return Decision::Refuse(Refusal::new(414, "the room's name is over 255 bytes"));
        }
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

/// The name of the room that a path names; `None` if its pattern has no `{name}`.
fn room_name<'r>(params: &'r [Param<'_>]) -> Option<Cow<'r, str>> {
    let name = params.iter().find(|param| param.name == "name")?;
    let mut others: Vec<_> = params.iter().filter(|param| param.name != "name").collect();
    if others.is_empty() {
        return Some(Cow::Borrowed(&name.value));
    }
    // Not in the pattern's order: a route that shares the space may have another one.
    others.sort_unstable_by_key(|param| param.name);
    let escaped = |param: &Param<'_>| param.value.replace('%', "%25").replace('/', "%2F");
    let mut room = escaped(name);
    for param in others {
        room.push('/');
        room.push_str(&escaped(param));
    }
    Some(Cow::Owned(room))
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
    use crate::hub::{RoomRef, Space};
    use std::sync::Arc;

    struct Nowhere;

    impl Post for Nowhere {
        fn command(&self, _: Address, _: Command) -> Result<(), Undeliverable> {
            Err(Undeliverable::Stopped)
        }

        fn publish(&self, _: RoomRef<'_>, _: Outgoing<'_>) -> Result<(), Undeliverable> {
            Err(Undeliverable::Stopped)
        }

        fn space(&self, _: &str) -> Option<Space> {
            None
        }
    }

    fn handle() -> Handle {
        let address = Address { worker: 0, key: Slab::new().insert(()) };
        Handle::new(ConnectionId::from_u64(1), address, Space::default(), Arc::new(Nowhere))
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

    #[test]
    fn different_parameters_name_different_rooms() {
        let name = |params: &[(&'static str, &'static str)]| {
            let param =
                |&(name, value): &(&'static str, &'static str)| Param { name, value: value.into() };
            let params: Vec<_> = params.iter().map(param).collect();
            room_name(&params).map(Cow::into_owned)
        };
        let named = |text: &str| Some(text.to_owned());
        assert_eq!(name(&[]), None);
        assert_eq!(name(&[("room", "a")]), None);
        assert_eq!(name(&[("name", "a/%b")]), named("a/%b"), "alone as it is");
        assert_eq!(name(&[("name", "alpha"), ("x", "1")]), named("alpha/1"));
        assert_eq!(name(&[("x", "1"), ("name", "alpha")]), named("alpha/1"));
        assert_eq!(name(&[("b", "2"), ("name", "n"), ("a", "1")]), named("n/1/2"));
        assert_eq!(name(&[("name", "a/b"), ("x", "c")]), named("a%2Fb/c"));
        assert_eq!(name(&[("name", "a"), ("x", "b/c")]), named("a/b%2Fc"));
        assert_eq!(name(&[("name", "a%2Fb"), ("x", "c")]), named("a%252Fb/c"));
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
