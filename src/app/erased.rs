//! Apps of any type behind one interface: what a worker holds.

pub use super::guarded::{AnyState, Panicked};
use super::guarded::{Factory, Guarded};
use super::handle::Handle;
use super::request::Request;
use super::{App, Closed, Conn, Decision, Message, NotMovable, Reader, SnapshotError, Writer};

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

/// Makes a route's app for one worker.
pub type AppFactory = Factory<Box<dyn AnyApp>>;

/// Wraps an app.
pub fn erase(app: impl App) -> Box<dyn AnyApp> {
    Box::new(Erased(Guarded::new(app)))
}

/// Wraps a closure that makes an app.
pub fn factory<A: App>(make: impl Fn() -> A + Send + Sync + 'static) -> AppFactory {
    Factory::new(move || erase(make()))
}

struct Erased<A>(Guarded<A>);

impl<A: App> AnyApp for Erased<A> {
    fn handshake(
        &mut self,
        request: &Request<'_>,
        handle: &Handle,
    ) -> Result<Decision<AnyState>, Panicked> {
        self.0.run(|app| match app.handshake(request, handle) {
            Decision::Accept(state) => Decision::Accept(AnyState::new(state)),
            Decision::Refuse(refusal) => Decision::Refuse(refusal),
            Decision::Later(state) => Decision::Later(AnyState::new(state)),
        })
    }

    fn open(&mut self, conn: &mut Conn<'_>, state: &mut AnyState) -> Result<(), Panicked> {
        self.0.run(|app| app.open(conn, state.own_mut()))
    }

    fn message(
        &mut self,
        conn: &mut Conn<'_>,
        state: &mut AnyState,
        message: Message<'_>,
    ) -> Result<(), Panicked> {
        self.0.run(|app| app.message(conn, state.own_mut(), message))
    }

    fn close(
        &mut self,
        conn: &mut Conn<'_>,
        state: &mut AnyState,
        closed: &Closed,
    ) -> Result<(), Panicked> {
        self.0.run(|app| app.close(conn, state.own_mut(), closed))
    }

    fn saves_ahead(&self) -> bool {
        A::SAVES_AHEAD
    }

    fn save(&self, state: &AnyState, writer: &mut Writer) -> Result<(), NotMovable> {
        self.0
            .look(|app| app.save(state.own(), writer))
            .unwrap_or_else(|Panicked| Err(NotMovable::new("its app panicked in save")))
    }

    fn load(
        &mut self,
        handle: &Handle,
        reader: &mut Reader<'_>,
    ) -> Result<Result<AnyState, SnapshotError>, Panicked> {
        self.0.run(|app| app.load(handle, reader).map(AnyState::new))
    }
}
