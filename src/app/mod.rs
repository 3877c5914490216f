//! Layer 3: what is done with messages. The [`App`] trait, what an app can do ([`Conn`], from any
//! thread [`Handle`]), the built-in apps, and the middleware in front of them.
//!
//! An app is made once a worker by a factory, so it needs no locks: everything it is told, it is
//! told on its worker's thread.

pub mod builtin;
pub mod conn;
pub mod erased;
pub mod fanout;
pub mod guarded;
pub mod handle;
pub mod intents;
pub mod middleware;
pub mod movable;
pub mod outgoing;
pub mod request;

pub use conn::Conn;
pub use handle::{Address, Command, Handle, Post, Undeliverable};
pub use middleware::Middleware;
pub use movable::NotMovable;
pub use outgoing::Outgoing;
pub use request::{Peer, Request};

pub use crate::base::snapshot::{Reader, SnapshotError, Writer};
pub use crate::http::{Refusal, Response};
pub use crate::session::{Closed, ClosedBy};
pub use crate::ws::{CloseCode, Message};

/// An application: what a route does with its connections.
///
/// Callbacks must not block: they run on the worker's event loop, which serves thousands of other
/// connections. Work that takes longer goes to a thread of the app's own, which answers through a
/// [`Handle`]. A callback that panics ends its connection with 1011 and nothing else. A state whose
/// `Drop` panics costs nothing. (Two panics at once abort the process, as everywhere in Rust.)
///
/// ```
/// use steadfast::app::{App, Conn, Decision, Message, Request};
///
/// /// Answers each text with its length.
/// struct Length;
///
/// impl App for Length {
///     type State = ();
///
///     fn handshake(&mut self, _: &Request<'_>, _: &steadfast::app::Handle) -> Decision<()> {
///         Decision::Accept(())
///     }
///
///     fn message(&mut self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) {
///         conn.send(message.as_bytes().len().to_string());
///     }
/// }
/// ```
pub trait App: 'static {
    /// What the app keeps for each of its connections.
    type State: 'static;

    /// Whether states may be saved ahead of a handover's pause, which is shorter by a microsecond
    /// for each connection that has nothing to do meanwhile. Two things have to hold: a state
    /// changes in the callbacks of its own connection only (not by an `Rc`, a lock or an atomic
    /// that it shares), and so does what [`App::save`] makes of it; and [`App::load`] does nothing
    /// but make a state, which may be dropped again and made anew.
    const SAVES_AHEAD: bool = false;

    /// A valid handshake has come through the route's middleware. The handle is for a later
    /// [`Handle::accept`] or [`Handle::refuse`], and for whatever is sent after that.
    fn handshake(&mut self, request: &Request<'_>, handle: &Handle) -> Decision<Self::State>;

    /// The connection is open.
    fn open(&mut self, conn: &mut Conn<'_>, state: &mut Self::State) {
        let _ = (conn, state);
    }

    /// A message has arrived.
    fn message(&mut self, conn: &mut Conn<'_>, state: &mut Self::State, message: Message<'_>);

    /// An open connection is over; called exactly once for each `open`. Nothing can be sent on it
    /// any more, but rooms can still be told.
    fn close(&mut self, conn: &mut Conn<'_>, state: &mut Self::State, closed: &Closed) {
        let _ = (conn, state, closed);
    }

    /// A handover: writes what [`App::load`] makes the state of, in the process that takes the
    /// connection over. It may turn out that nothing is taken over; then this connection goes on
    /// here, with this state. An open connection's rooms, its path, its subprotocol, its peer and
    /// all that waits to be sent move without the app's doing.
    ///
    /// An app that does not write this function keeps its connections from moving: they stay in
    /// the process that goes, which closes them with 1012 so that their clients come back. One
    /// that has no state worth the name returns `Ok(())`, and its `load` the state.
    ///
    /// # Errors
    /// [`NotMovable`], with the reason, for a connection that is to stay.
    fn save(&self, state: &Self::State, writer: &mut Writer) -> Result<(), NotMovable> {
        let _ = (state, writer);
        Err(NotMovable::new("its app does not save its state"))
    }

    /// Makes a connection's state of what [`App::save`] wrote, perhaps in an older or a newer
    /// build, and has to read all of it. `open` is not called again.
    ///
    /// The handle is the connection's from now on; what other processes had is gone with them. An
    /// app that had answered [`Decision::Later`], and has not decided, begins anew here with what
    /// it has to do for that. What is sent through the handle waits for the handover to be
    /// complete. If it is not completed, the state is dropped and the process ends.
    ///
    /// # Errors
    /// What the app cannot read: this connection stays with the other process.
    fn load(
        &mut self,
        handle: &Handle,
        reader: &mut Reader<'_>,
    ) -> Result<Self::State, SnapshotError> {
        let _ = (handle, reader);
        Err(SnapshotError::Invalid("state for an app that loads none"))
    }
}

/// An app's answer to a handshake.
#[derive(Debug)]
pub enum Decision<S> {
    /// Accepted: the connection opens.
    Accept(S),
    /// Refused with a status and a reason.
    Refuse(Refusal),
    /// Not decided yet: the handle will say, before the handshake's time-out.
    Later(S),
}
