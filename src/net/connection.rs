//! One connection of a worker: its socket, its session, and what its app and its room keep.

use crate::app::Peer;
use crate::app::erased::AnyState;
use crate::base::DeflateParams;
use crate::base::id::ConnectionId;
use crate::base::tick::Tick;
use crate::hub::Memberships;
use crate::net::stream::Stream;
use crate::session::Session;

/// Index of a route in the worker's list; [`NO_ROUTE`] until the request has found one.
pub type RouteIndex = u16;

/// The route of connections that have none (yet): no app, the default limits.
pub const NO_ROUTE: RouteIndex = 0;

/// One connection.
pub struct Connection {
    /// The protocol's state.
    pub session: Session,
    /// The socket.
    pub stream: Stream,
    /// Unique over the life of the server.
    pub id: ConnectionId,
    /// Who is on the other side.
    pub peer: Peer,
    /// What the request said beyond its route.
    pub facts: Option<Box<Facts>>,
    /// Where it was routed to.
    pub route: RouteIndex,
    /// It counts as passed through its route's middleware, which is to be told when it ends.
    pub passed: bool,
    /// The app's state, from its decision until it has been told of the end.
    pub state: Option<AnyState>,
    /// The handshake's answer while the app has not decided.
    pub pending: Option<Box<Pending>>,
    /// The rooms it is in.
    pub memberships: Memberships,
    /// The deadline its live entry in the timer wheel is for; others are stale.
    pub armed: Tick,
    /// What the event loop remembers of it.
    pub flags: Flags,
}

/// What the event loop remembers of a connection. None of it moves in a handover: the successor has
/// lists, timers and an epoll of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flags {
    /// The wheel has an entry for its deadlines as an open connection.
    pub timed: bool,
    /// In the list of connections to be flushed.
    pub dirty: bool,
    /// In the list of connections to be driven though no event tells so.
    pub ready: bool,
    /// The socket may have bytes that no event will announce again.
    pub unread: bool,
    /// epoll has reported the end of the peer's stream: read up to it.
    pub hung_up: bool,
}

/// What a request said beyond its route; most say nothing.
#[derive(Debug)]
pub struct Facts {
    /// The decoded path, where it is not the pattern itself.
    pub path: Box<str>,
    /// Index in the route's subprotocols of the one agreed on.
    pub subprotocol: Option<u8>,
}

/// An agreement that the app has not confirmed.
#[derive(Debug)]
pub struct Pending {
    /// The 101 response.
    pub answer: Vec<u8>,
    /// The extension, if it was agreed on.
    pub deflate: Option<DeflateParams>,
}

impl Connection {
    /// Keeps a socket's place until its state arrives: nothing is read from it, nothing is due.
    /// [`Dispatcher::restore`](super::dispatch::Dispatcher::restore) makes a connection of it.
    pub fn vacant(stream: Stream) -> Self {
        Self {
            session: Session::vacant(),
            stream,
            id: ConnectionId::from_u64(0),
            peer: Peer::default(),
            facts: None,
            route: NO_ROUTE,
            passed: false,
            state: None,
            pending: None,
            memberships: Memberships::default(),
            armed: Tick::NEVER,
            flags: Flags::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle connection may cost 255 bytes in all: this, its place in the slab (8) and its
    /// entry in the timer wheel (12).
    #[test]
    fn a_connection_is_small() {
        let bytes = size_of::<Connection>();
        assert!(bytes <= 200, "{bytes} bytes, of which the session has {}", size_of::<Session>());
    }
}
