//! Apps of any type behind one interface: what a worker holds.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::handle::Handle;
use super::request::Request;
use super::{App, Closed, Conn, Decision, Message, NotMovable, Reader, SnapshotError, Writer};

/// An app's state for one connection, of a type that only the app knows.
pub type AnyState = Box<dyn Any>;

/// A callback panicked: the connection is to be closed with 1011.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Makes a route's app for one worker.
pub type Factory = Box<dyn Fn() -> Box<dyn AnyApp> + Send + Sync>;

/// An [`App`] whose state's type is erased, and whose panics are caught.
pub trait AnyApp {
    /// See [`App::handshake`].
    ///
    /// # Errors
    /// The callback panicked; likewise below.
    fn handshake(
        &mut self,
        request: &Request<'_>,
        handle: &Handle,
    ) -> Result<Decision<AnyState>, Panicked>;

    /// See [`App::open`].
    fn open(&mut self, conn: &mut Conn<'_>, state: &mut AnyState) -> Result<(), Panicked>;

    /// See [`App::message`].
    fn message(
        &mut self,
        conn: &mut Conn<'_>,
        state: &mut AnyState,
        message: Message<'_>,
    ) -> Result<(), Panicked>;

    /// See [`App::close`].
    fn close(
        &mut self,
        conn: &mut Conn<'_>,
        state: &mut AnyState,
        closed: &Closed,
    ) -> Result<(), Panicked>;

    /// See [`App::SAVES_AHEAD`].
    fn saves_ahead(&self) -> bool;

    /// See [`App::save`]. The state is the same afterwards, whatever happens.
    ///
    /// # Errors
    /// The app says so, or the callback panicked.
    fn save(&self, state: &AnyState, writer: &mut Writer) -> Result<(), NotMovable>;

    /// See [`App::load`].
    ///
    /// # Errors
    /// The callback panicked; within, those of the app.
    fn load(
        &mut self,
        handle: &Handle,
        reader: &mut Reader<'_>,
    ) -> Result<Result<AnyState, SnapshotError>, Panicked>;
}

/// Wraps an app.
pub fn erase(app: impl App) -> Box<dyn AnyApp> {
    Box::new(Erased(app))
}

struct Erased<A>(A);

/// Runs a callback. Unwind safety: a panic may leave the app's own data half changed, which is the
/// app's affair; the server's is changed by whole operations only, none of which panics.
fn guard<T>(callback: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(callback)).map_err(|_| Panicked)
}

fn own<S: 'static>(state: &mut AnyState) -> &mut S {
    state.downcast_mut().expect("made by the same app")
}

impl<A: App> AnyApp for Erased<A> {
    fn handshake(
        &mut self,
        request: &Request<'_>,
        handle: &Handle,
    ) -> Result<Decision<AnyState>, Panicked> {
        Ok(match guard(|| self.0.handshake(request, handle))? {
            Decision::Accept(state) => Decision::Accept(Box::new(state)),
            Decision::Refuse(refusal) => Decision::Refuse(refusal),
            Decision::Later(state) => Decision::Later(Box::new(state)),
        })
    }

    fn open(&mut self, conn: &mut Conn<'_>, state: &mut AnyState) -> Result<(), Panicked> {
        guard(|| self.0.open(conn, own(state)))
    }

    fn message(
        &mut self,
        conn: &mut Conn<'_>,
        state: &mut AnyState,
        message: Message<'_>,
    ) -> Result<(), Panicked> {
        guard(|| self.0.message(conn, own(state), message))
    }

    fn close(
        &mut self,
        conn: &mut Conn<'_>,
        state: &mut AnyState,
        closed: &Closed,
    ) -> Result<(), Panicked> {
        guard(|| self.0.close(conn, own(state), closed))
    }

    fn saves_ahead(&self) -> bool {
        A::SAVES_AHEAD
    }

    fn save(&self, state: &AnyState, writer: &mut Writer) -> Result<(), NotMovable> {
        let state = state.downcast_ref().expect("made by the same app");
        guard(|| self.0.save(state, writer))
            .unwrap_or_else(|Panicked| Err(NotMovable::new("its app panicked in save")))
    }

    fn load(
        &mut self,
        handle: &Handle,
        reader: &mut Reader<'_>,
    ) -> Result<Result<AnyState, SnapshotError>, Panicked> {
        let loaded = guard(|| self.0.load(handle, reader))?;
        Ok(loaded.map(|state| Box::new(state) as AnyState))
    }
}
