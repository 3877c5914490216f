//! One connection as bytes, and back: what of it moves to another process.
//!
//! A connection is a sequence of tagged records, so that a build can add some that an older one may
//! skip. Its descriptor moves apart from them. Everything that is an index here is a name there: the
//! successor's routes, subprotocols and rooms are its own.
//!
//! ```text
//! App      the app's state, as App::save wrote it     if it has one
//! Who      id, peer, passed through the middleware
//! Peer     the peer, which is not in Who then         in formats that have it (has_peer_record)
//! Session  the protocol's state
//! Ahead    how many bytes of its unfinished message    if they came ahead and are not in Session
//! Route    pattern, name of the app                   if the request has found one
//! Facts    path, subprotocol                          if the request said more than its route
//! Pending  101 response, extension                    if the app has not decided
//! Rooms    names, in the order they were joined       if it is in any; in its route's space
//! ```

use std::fmt;

use crate::app::erased::{AnyState, Panicked};
use crate::app::{Address, Handle, NotMovable, Peer};
use crate::base::DeflateParams;
use crate::base::id::ConnectionId;
use crate::base::limits::ROOM_NAME_BYTES_MAX;
use crate::base::slab::Key;
use crate::base::snapshot::{Reader, SnapshotError, Writer};
use crate::hub::RoomRef;
use crate::net::connection::{Connection, Facts, NO_ROUTE, Pending, RouteIndex};
use crate::net::dispatch::Dispatcher;
use crate::net::route::{Route, Target};
use crate::session::Session;

/// Tags of the records. A tag is never used for anything else again.
mod tag {
    pub(super) const APP: u16 = 1;
    pub(super) const WHO: u16 = 2;
    pub(super) const SESSION: u16 = 3;
    pub(super) const ROUTE: u16 = 4;
    pub(super) const FACTS: u16 = 5;
    pub(super) const PENDING: u16 = 6;
    pub(super) const ROOMS: u16 = 7;
    pub(super) const PEER: u16 = 8;
    pub(super) const AHEAD: u16 = 9;
}

/// A connection that was loaded and has no socket yet. To be put into a
/// [vacant](Connection::vacant) one by [`Dispatcher::restore`].
#[derive(Debug)]
pub struct Restored {
    /// The protocol's state.
    pub session: Session,
    /// Unique over the life of the server.
    pub id: ConnectionId,
    /// Who is on the other side.
    pub peer: Peer,
    /// What the request said beyond its route.
    pub facts: Option<Box<Facts>>,
    /// Where it was routed to, in the routes here.
    pub route: RouteIndex,
    /// It counts as passed through its route's middleware.
    pub passed: bool,
    /// The app's state.
    pub state: Option<AnyState>,
    /// The handshake's answer while the app has not decided.
    pub pending: Option<Box<Pending>>,
    /// The rooms it is in, in the order they were joined.
    pub rooms: Vec<Box<str>>,
}

/// Why a connection cannot be taken over here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRestored {
    /// Its snapshot is damaged, or says what cannot be.
    Snapshot(SnapshotError),
    /// No route here has this pattern.
    NoRoute(String),
    /// At its route there is another app here.
    OtherApp {
        /// The route's pattern.
        route: String,
        /// Its app where the connection comes from.
        theirs: String,
        /// Its app here.
        ours: String,
    },
    /// The route does not speak its subprotocol here.
    NoSubprotocol {
        /// The route's pattern.
        route: String,
        /// What was agreed on.
        subprotocol: String,
    },
    /// The app cannot read its state.
    App(SnapshotError),
    /// The app panicked when it should have read its state.
    AppPanicked,
}

impl From<SnapshotError> for NotRestored {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}

impl fmt::Display for NotRestored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(error) => error.fmt(f),
            Self::NoRoute(route) => write!(f, "there is no route {route} any more"),
            Self::OtherApp { route, theirs, ours } => {
                write!(f, "the app at {route} was {theirs:?} and is {ours:?} now")
            }
            Self::NoSubprotocol { route, subprotocol } => {
                write!(f, "the subprotocol {subprotocol:?} is not spoken at {route} any more")
            }
            Self::App(error) => write!(f, "its app cannot read its state: {error}"),
            Self::AppPanicked => write!(f, "its app panicked in load"),
        }
    }
}

impl std::error::Error for NotRestored {}

impl Dispatcher {
    /// Writes a connection, all but its socket; it stays as it is.
    ///
    /// # Errors
    /// Its app keeps it here; nothing is written then.
    ///
    /// # Panics
    /// If it has something in the turn's buffer: it is to be
    /// [spilled](crate::session::Session::spill) first.
    pub fn save_connection(
        &self,
        conn: &Connection,
        writer: &mut Writer,
    ) -> Result<(), NotMovable> {
        let Connection {
            session,
            stream: _,
            id,
            peer,
            facts,
            route,
            passed,
            state,
            pending,
            memberships,
            // The successor has lists, timers and an epoll of its own, which tells again what is
            // there to be read.
            armed: _,
            flags: _,
        } = conn;
        let at = &self.routes[usize::from(*route)];
        // A handshake whose client has gone may still have these: nobody needs them any more.
        let (state, pending) = if session.is_done() { (&None, &None) } else { (state, pending) };
        // The app's first, for it may fail.
        if let (Some(state), Target::App(app)) = (state, &at.target) {
            writer.try_required_record(tag::APP, |writer| app.save(state, writer))?;
        }
        writer.required_record(tag::WHO, |writer| {
            writer.u64(id.to_u64());
            if !writer.format().has_peer_record() {
                peer.save(writer);
            }
            writer.bool(*passed);
        });
        if writer.format().has_peer_record() {
            writer.required_record(tag::PEER, |writer| peer.save(writer));
        }
        writer.required_record(tag::SESSION, |writer| {
            session.save(&at.limits, self.now, writer);
        });
        if session.ahead() > 0 {
            writer.required_record(tag::AHEAD, |writer| writer.count(session.ahead()));
        }
        if *route != NO_ROUTE {
            writer.required_record(tag::ROUTE, |writer| {
                writer.str(at.pattern.as_str());
                writer.str(&at.app);
            });
        }
        if let Some(facts) = facts {
            writer.required_record(tag::FACTS, |writer| facts.save(at, writer));
        }
        if let Some(pending) = pending {
            writer.required_record(tag::PENDING, |writer| pending.save(writer));
        }
        let rooms: Vec<&str> = self.hub.rooms_of(*memberships).collect();
        if !rooms.is_empty() {
            writer.required_record(tag::ROOMS, |writer| {
                writer.count(rooms.len());
                rooms.iter().rev().for_each(|room| writer.str(room));
            });
        }
        Ok(())
    }

    /// Whether a connection that is left alone is saved the same at any time; see
    /// [`App::SAVES_AHEAD`](crate::app::App::SAVES_AHEAD).
    pub fn saves_ahead(&self, conn: &Connection) -> bool {
        match &self.routes[usize::from(conn.route)].target {
            Target::App(app) => app.saves_ahead(),
            Target::Page(_) | Target::Health | Target::Ready | Target::Nothing => false,
        }
    }

    /// Reads what [`Dispatcher::save_connection`] wrote, to the reader's end, for the connection
    /// that is to be at `address`. The app is asked last: a connection that is refused for another
    /// reason it never hears of.
    ///
    /// # Errors
    /// [`NotRestored`]. It stays where it comes from.
    pub fn load_connection(
        &mut self,
        reader: &mut Reader<'_>,
        address: Address,
    ) -> Result<Restored, NotRestored> {
        self.load_connection_after(Vec::new(), reader, address)
    }

    /// The same for a connection whose unfinished message has come `ahead` of its state, unless
    /// there is another one by now.
    ///
    /// # Errors
    /// As above.
    pub fn load_connection_after(
        &mut self,
        ahead: Vec<u8>,
        reader: &mut Reader<'_>,
        address: Address,
    ) -> Result<Restored, NotRestored> {
        let records = Records::read(reader)?;
        let missing = SnapshotError::Invalid("connection: it has no id, no peer or no session");
        let (mut who, mut session) = records.who.zip(records.session).ok_or(missing)?;
        let id = ConnectionId::from_u64(who.u64()?);
        let peer = match who.format().has_peer_record() {
            true => load_peer(records.peer.ok_or(missing)?)?,
            false => Peer::load(&mut who)?,
        };
        let passed = who.bool()?;
        who.finish()?;
        let loaded = Session::load(self.now, &mut session)?;
        session.finish()?;
        let mut session = loaded;
        if let Some(mut reader) = records.ahead {
            let is_there = reader.varint()? == ahead.len() as u64 && !ahead.is_empty();
            reader.finish()?;
            if !is_there || !session.prepend(ahead) {
                let reason = "connection: what came ahead is not there";
                return Err(SnapshotError::Invalid(reason).into());
            }
        }
        let route =
            records.route.map_or(Ok(NO_ROUTE), |mut reader| self.find_route(&mut reader))?;
        let at = &self.routes[usize::from(route)];
        let facts = records.facts.map(|mut reader| Facts::load(at, &mut reader)).transpose()?;
        let pending = records.pending.map(Pending::load).transpose()?;
        let rooms = records.rooms.map(load_rooms).transpose()?.unwrap_or_default();

        // From the app's decision until it is told of the end, and not otherwise, it has a state.
        let talks = session.is_open() || session.is_closing();
        let fits = records.app.is_some() == (talks || pending.is_some())
            && (pending.is_none() || session.is_deciding())
            && (rooms.is_empty() || talks)
            && (route != NO_ROUTE || (records.app.is_none() && facts.is_none() && !passed));
        if !fits {
            return Err(SnapshotError::Invalid("connection: its parts do not fit").into());
        }
        let state = match records.app {
            Some(app) => Some(self.load_app_state(app, route, id, address)?),
            None => None,
        };
        let (facts, pending) = (facts.map(Box::new), pending.map(Box::new));
        Ok(Restored { session, id, peer, facts, route, passed, state, pending, rooms })
    }

    /// Makes a connection of a vacant one: it counts in the middleware's accounts and is in its
    /// rooms again, with mail for their homes left in [`intents`](Dispatcher::intents). How many
    /// rooms may be is not asked: it is in them.
    ///
    /// What is parked in it, what waits in its queue and its deadlines are for the worker to drive,
    /// to flush and to arm.
    pub fn restore(&mut self, conn: &mut Connection, key: Key, restored: Restored) {
        let Restored { session, id, peer, facts, route, passed, state, pending, rooms } = restored;
        if passed {
            self.routes[usize::from(route)].chain.adopt(&peer);
        }
        let window = session.deflate_window(self.turn.role());
        let mail = &mut self.intents.mail;
        let space = self.routes[usize::from(route)].space;
        for name in &rooms {
            let room = RoomRef { space, name };
            let joined = self.hub.join(
                &mut conn.memberships,
                key,
                window,
                room,
                usize::MAX,
                &mut |to, item| {
                    mail.push((to, item));
                },
            );
            debug_assert_eq!(joined, Ok(()), "names were checked when they were loaded");
        }
        conn.session = session;
        conn.id = id;
        conn.peer = peer;
        conn.facts = facts;
        conn.route = route;
        conn.passed = passed;
        conn.state = state;
        conn.pending = pending;
    }

    /// Makes a vacant one of it again, as if it had not been [restored](Self::restore): there is a
    /// newer state for it, or it has ended elsewhere. Its app is not told: it is not its end.
    pub fn unrestore(&mut self, conn: &mut Connection) {
        let window = conn.session.deflate_window(self.turn.role());
        let mail = &mut self.intents.mail;
        self.hub.leave_all(&mut conn.memberships, window, &mut |to, item| mail.push((to, item)));
        if conn.passed {
            self.routes[usize::from(conn.route)].chain.release(&conn.peer);
            conn.passed = false;
        }
        conn.session = Session::vacant();
        conn.route = NO_ROUTE;
        (conn.facts, conn.state, conn.pending) = (None, None, None);
    }

    /// The route here of this pattern, if its app is the same.
    fn find_route(&self, reader: &mut Reader<'_>) -> Result<RouteIndex, NotRestored> {
        let (pattern, app) = (reader.str()?, reader.str()?);
        reader.finish()?;
        let mut routes = self.routes.iter().enumerate().skip(1);
        let (index, route) = routes
            .find(|(_, route)| route.pattern.as_str() == pattern)
            .ok_or_else(|| NotRestored::NoRoute(pattern.to_owned()))?;
        if *route.app != *app || !matches!(route.target, Target::App(_)) {
            return Err(NotRestored::OtherApp {
                route: pattern.to_owned(),
                theirs: app.to_owned(),
                ours: route.app.to_string(),
            });
        }
        Ok(index as RouteIndex)
    }

    fn load_app_state(
        &mut self,
        mut reader: Reader<'_>,
        route: RouteIndex,
        id: ConnectionId,
        address: Address,
    ) -> Result<AnyState, NotRestored> {
        let Route { target, space, .. } = &mut self.routes[usize::from(route)];
        let (Target::App(app), space) = (target, *space) else {
            return Err(SnapshotError::Invalid("state of an app, where there is none").into());
        };
        let handle = Handle::new(id, address, space, self.post.0.clone());
        let state = match app.load(&handle, &mut reader) {
            Ok(loaded) => loaded.map_err(NotRestored::App)?,
            Err(Panicked) => return Err(NotRestored::AppPanicked),
        };
        reader.finish().map_err(NotRestored::App)?;
        Ok(state)
    }
}

/// The bodies of a connection's records.
#[derive(Default)]
struct Records<'a> {
    app: Option<Reader<'a>>,
    who: Option<Reader<'a>>,
    session: Option<Reader<'a>>,
    route: Option<Reader<'a>>,
    facts: Option<Reader<'a>>,
    pending: Option<Reader<'a>>,
    rooms: Option<Reader<'a>>,
    peer: Option<Reader<'a>>,
    ahead: Option<Reader<'a>>,
}

impl<'a> Records<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, SnapshotError> {
        let mut records = Self::default();
        while let Some(record) = reader.record()? {
            let body = match record.tag {
                tag::APP => &mut records.app,
                tag::WHO => &mut records.who,
                tag::SESSION => &mut records.session,
                tag::ROUTE => &mut records.route,
                tag::FACTS => &mut records.facts,
                tag::PENDING => &mut records.pending,
                tag::ROOMS => &mut records.rooms,
                tag::AHEAD => &mut records.ahead,
                tag::PEER if reader.format().has_peer_record() => &mut records.peer,
                _ => {
                    record.skip_unknown()?;
                    continue;
                }
            };
            if body.replace(record.body).is_some() {
                return Err(SnapshotError::Invalid("connection: a part is there twice"));
            }
        }
        Ok(records)
    }
}

impl Facts {
    fn save(&self, route: &Route, writer: &mut Writer) {
        let Self { path, subprotocol } = self;
        let subprotocol = subprotocol.and_then(|index| route.subprotocols.get(usize::from(index)));
        writer.str(path);
        writer.option(subprotocol, |writer, name| writer.str(name));
    }

    fn load(route: &Route, reader: &mut Reader<'_>) -> Result<Self, NotRestored> {
        let path = reader.str()?;
        let name = reader.option(Reader::str)?;
        reader.finish()?;
        let find = |name: &str| {
            let index = route.subprotocols.iter().position(|spoken| spoken == name);
            index.and_then(|index| u8::try_from(index).ok()).ok_or_else(|| {
                let (route, subprotocol) = (route.pattern.as_str().to_owned(), name.to_owned());
                NotRestored::NoSubprotocol { route, subprotocol }
            })
        };
        Ok(Self { path: path.into(), subprotocol: name.map(find).transpose()? })
    }
}

impl Pending {
    fn save(&self, writer: &mut Writer) {
        let Self { answer, deflate } = self;
        writer.bytes(answer);
        writer.option(*deflate, |writer, deflate| deflate.save(writer));
    }

    fn load(mut reader: Reader<'_>) -> Result<Self, SnapshotError> {
        let answer = reader.bytes()?.to_vec();
        let deflate = reader.option(DeflateParams::load)?;
        reader.finish()?;
        Ok(Self { answer, deflate })
    }
}

fn load_peer(mut reader: Reader<'_>) -> Result<Peer, SnapshotError> {
    let peer = Peer::load(&mut reader)?;
    reader.finish()?;
    Ok(peer)
}

fn load_rooms(mut reader: Reader<'_>) -> Result<Vec<Box<str>>, SnapshotError> {
    let mut rooms = Vec::new();
    for _ in 0..reader.count(1)? {
        let room = reader.str()?;
        if room.len() > ROOM_NAME_BYTES_MAX {
            return Err(SnapshotError::Invalid("room's name"));
        }
        rooms.push(room.into());
    }
    reader.finish()?;
    Ok(rooms)
}

#[cfg(test)]
mod tests;
