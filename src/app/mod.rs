//! Layer 3: what is done with messages. The [`App`] trait, what an app can do ([`Conn`], from any
//! thread [`Handle`]), the built-in apps, and the middleware in front of them.
//!
//! An app is made once a worker by a factory, so it needs no locks: everything it is told, it is
//! told on its worker's thread.

pub mod builtin;
pub mod conn;
pub mod erased;
pub mod fanout;
pub mod handle;
pub mod middleware;
pub mod request;

pub use conn::{Conn, Outgoing};
pub use handle::{Address, Command, Handle, Post, Undeliverable};
pub use middleware::Middleware;
pub use request::{Peer, Request};

pub use crate::http::{Refusal, Response};
pub use crate::session::{Closed, ClosedBy};
pub use crate::ws::{CloseCode, Message};

/// An application: what a route does with its connections.
///
/// Callbacks must not block: they run on the worker's event loop, which serves thousands of other
/// connections. Work that takes longer goes to a thread of the app's own, which answers through a
/// [`Handle`]. A callback that panics ends its connection with 1011 and nothing else.
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
