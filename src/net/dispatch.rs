//! What a worker does with one connection at a time: bytes in, app, answers out.
//!
//! Everything here borrows one connection and the worker's tools, but neither the other
//! connections nor epoll; what concerns others is left as [`Intents`].

use std::sync::Arc;
use std::time::SystemTime;

use crate::app::erased::{AnyApp, AnyState, Panicked};
use crate::app::handle::PostBox;
use crate::app::intents::Intents;
use crate::app::{Address, Command, Conn, Outgoing, Refusal, Response};
use crate::base::id::ConnectionIds;
use crate::base::limits::HeadLimits;
use crate::base::slab::Key;
use crate::base::tick::Tick;
use crate::hub::{Hub, WorkerIndex};
use crate::net::connection::{Connection, Pending};
use crate::net::gate::{self, Gate, Reception, Verdict};
use crate::net::log_limit::limited;
use crate::net::mode::Mode;
use crate::net::route::{Route, Target};
use crate::session::turn::Turn;
use crate::session::{Closed, Env, Event};
use crate::ws::deflate::Inflater;
use crate::ws::{CloseCode, CloseFrame, Input, Message};

/// Why feeding stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    /// What could be decoded has been.
    All,
    /// There is work for other connections first; feed on after it.
    Intents,
    /// It has had its share of the turn; the rest is for the next one.
    Enough,
}

/// How much one connection may make us do a turn beyond reading its bytes; then the others have
/// their turn. The [`Inflater`] says what a unit is; each byte read may be a thousand of them.
pub const WORK_BUDGET: usize = 1024 * 1024;

/// Units of work for a room's message to one member.
pub const DELIVERY_WORK: usize = 16;

/// A worker's tools and routes.
pub struct Dispatcher {
    /// Which worker this is.
    pub worker: WorkerIndex,
    /// What this turn produces.
    pub turn: Turn,
    /// The worker's part of all rooms.
    pub hub: Hub,
    /// What callbacks have left to do.
    pub intents: Intents,
    /// The routes; the first one is for connections without one.
    pub routes: Vec<Route>,
    /// What a request head may cost.
    pub head_limits: HeadLimits,
    /// Who is let in.
    pub gate: Gate,
    /// Ids for new connections.
    pub ids: Arc<ConnectionIds>,
    /// The way to the mailboxes, for handles.
    pub post: PostBox,
    /// The time of this turn.
    pub now: Tick,
    /// What the connection at hand has made us do this turn; see [`WORK_BUDGET`].
    pub work: usize,
    /// What the worker may do at the moment.
    pub mode: Mode,
}

impl Dispatcher {
    /// Decodes what `input` has and acts on it. What is left in `input` after [`Fed::All`] or
    /// [`Fed::Enough`] is to be parked.
    pub fn feed(
        &mut self,
        conn: &mut Connection,
        key: Key,
        input: &mut Input<'_>,
        inflater: &mut Inflater,
    ) -> Fed {
        while conn.session.is_handshaking() {
            match conn.session.receive_head(input, &self.head_limits, self.now) {
                Some(event) => self.on_event(conn, key, event),
                None => return Fed::All,
            }
        }
        loop {
            if self.work >= WORK_BUDGET {
                return Fed::Enough;
            }
            let mut env = env(&mut self.turn, &self.routes[usize::from(conn.route)], self.now);
            let event = conn.session.receive(input, &mut env, inflater);
            let more = event.is_some();
            if let Some(event) = event {
                self.on_event(conn, key, event);
            }
            self.work += inflater.take_work();
            if !more {
                return Fed::All;
            }
            if !self.intents.deliveries.is_empty() {
                return Fed::Intents;
            }
        }
    }

    /// So many bytes have been read to the session's
    /// [`direct_room`](crate::session::Session::direct_room).
    pub fn received_direct(&mut self, conn: &mut Connection, key: Key, len: usize) {
        let mut env = env(&mut self.turn, &self.routes[usize::from(conn.route)], self.now);
        if let Some(event) = conn.session.receive_direct(len, &mut env) {
            self.on_event(conn, key, event);
        }
    }

    /// Acts on what a session has to tell.
    #[inline]
    pub fn on_event(&mut self, conn: &mut Connection, key: Key, event: Event<'_>) {
        match event {
            Event::Message(message) => self.on_message(conn, key, message),
            Event::Ping(_) | Event::Pong(_) => {}
            Event::Proxied(None) => {}
            Event::Proxied(Some(source)) => conn.peer = source.into(),
            Event::BadProxy(error) => {
                limited!(warn, connection = %conn.id, proxy = %conn.peer, %error, "no PROXY header");
            }
            Event::Closed(closed) => self.on_closed(conn, key, &closed),
            Event::Head(head) => self.on_head(conn, key, &head),
            Event::BadHead(error) => self.refuse(conn, &error.into()),
            Event::Overdue { head_complete: false } => {
                self.refuse(conn, &Refusal::new(408, "the request head took too long"));
            }
            Event::Overdue { head_complete: true } => {
                self.refuse(conn, &Refusal::new(503, "the handshake was not decided in time"));
            }
        }
    }

    fn on_head(&mut self, conn: &mut Connection, key: Key, head: &[u8]) {
        let to = Reception {
            address: Address { worker: self.worker, key },
            post: &self.post,
            welcome: self.mode.welcome(),
            time: SystemTime::now(),
        };
        let verdict = self.gate.decide(&mut self.routes, head, &self.head_limits, conn, &to);
        match verdict {
            Verdict::Answer(response) => self.answer(conn, &response),
            Verdict::Accept(pending) => {
                conn.pending = Some(pending);
                self.accept(conn, key);
            }
            Verdict::Later(pending) => {
                tracing::debug!(connection = %conn.id, "handshake waits for the app");
                conn.pending = Some(pending);
            }
        }
    }

    /// Accepts the handshake that is pending; nothing if none is.
    fn accept(&mut self, conn: &mut Connection, key: Key) {
        let Some(pending) = conn.pending.take() else {
            return;
        };
        let Pending { answer, deflate } = *pending;
        let mut env = env(&mut self.turn, &self.routes[usize::from(conn.route)], self.now);
        conn.session.accept(&answer, deflate, &mut env);
        tracing::debug!(
            connection = %conn.id, peer = %conn.peer, path = self.path(conn), deflate = deflate.is_some(),
            "open"
        );
        self.with_app(conn, key, |app, cx, state| app.open(cx, state));
    }

    /// Refuses a handshake.
    pub fn refuse(&mut self, conn: &mut Connection, refusal: &Refusal) {
        self.gate.refusals.note(refusal, conn.id, conn.peer, None);
        self.answer(conn, &refusal.to_response());
    }

    /// Ends a handshake, which has come to nothing.
    fn answer(&mut self, conn: &mut Connection, response: &Response) {
        conn.pending = None;
        conn.state = None;
        let mut env = env(&mut self.turn, &self.routes[usize::from(conn.route)], self.now);
        conn.session.refuse(&response.to_bytes(SystemTime::now()), &mut env);
    }

    #[inline]
    fn on_message(&mut self, conn: &mut Connection, key: Key, message: Message<'_>) {
        self.with_app(conn, key, |app, cx, state| app.message(cx, state, message));
    }

    /// An open connection is over: the app is told, its rooms are left.
    fn on_closed(&mut self, conn: &mut Connection, key: Key, closed: &Closed) {
        tracing::debug!(
            connection = %conn.id, by = closed.by.as_str(), code = closed.code.map(|code| code.0),
            reason = closed.reason, "closed"
        );
        let Some(mut state) = conn.state.take() else {
            return;
        };
        // Out of its rooms first: what the app says to them in `close` is for the others.
        let window = conn.session.deflate_window(self.turn.role());
        let mail = &mut self.intents.mail;
        self.hub.leave_all(&mut conn.memberships, window, &mut |to, item| mail.push((to, item)));
        let (app, mut cx) = self.parts(conn, key);
        if let Some(app) = app
            && app.close(&mut cx, &mut state, closed).is_err()
        {
            limited!(error, connection = %conn.id, "the app panicked in close");
        }
    }

    /// The connection is about to be dropped, whatever its state.
    pub fn on_dropped(&mut self, conn: &mut Connection, key: Key) {
        if let Some(event) = conn.session.lost() {
            self.on_event(conn, key, event);
        }
        if conn.passed {
            self.routes[usize::from(conn.route)].chain.release(&conn.peer);
            conn.passed = false;
        }
    }

    /// Carries out what a handle has asked for.
    pub fn on_command(&mut self, conn: &mut Connection, key: Key, command: Command) {
        let mut env = env(&mut self.turn, &self.routes[usize::from(conn.route)], self.now);
        match command {
            Command::Send(Outgoing { opcode, payload }) if self.mode.is_frozen() => {
                conn.session.send(opcode, payload, &mut env);
            }
            Command::Send(Outgoing { opcode, payload }) => {
                if conn.session.push(opcode, payload, &mut env).is_err() {
                    self.fail_slow(conn, key);
                }
            }
            Command::Close(frame) if conn.pending.is_some() => {
                self.refuse(conn, &Refusal::new(403, frame.reason));
            }
            Command::Close(frame) => conn.session.close(frame, &mut env),
            Command::Accept => self.accept(conn, key),
            Command::Refuse(refusal) => {
                if conn.pending.is_some() {
                    self.refuse(conn, &refusal);
                }
            }
        }
    }

    /// Asks a connection to go because the server stops.
    pub fn stop(&mut self, conn: &mut Connection, frame: CloseFrame) {
        if conn.session.is_handshaking() {
            return self.refuse(conn, &gate::stopping());
        }
        let mut env = env(&mut self.turn, &self.routes[usize::from(conn.route)], self.now);
        conn.session.close(frame, &mut env);
    }

    /// Ends a connection at once: it broke a rule, or is in the way.
    pub fn fail(&mut self, conn: &mut Connection, key: Key, frame: CloseFrame) {
        let mut env = env(&mut self.turn, &self.routes[usize::from(conn.route)], self.now);
        let event = conn.session.fail_with(frame, &mut env);
        self.on_event(conn, key, event);
    }

    /// Ends a connection that does not take what is pushed to it.
    pub fn fail_slow(&mut self, conn: &mut Connection, key: Key) {
        limited!(info, connection = %conn.id, "slow consumer closed");
        self.fail(conn, key, CloseFrame::new(CloseCode::POLICY, "too slow"));
    }

    /// Ends a connection because the memory that it holds is needed.
    pub fn shed(&mut self, conn: &mut Connection, key: Key) {
        if conn.session.is_handshaking() {
            return self.refuse(conn, &Refusal::new(503, "the server is short of memory"));
        }
        let mut env = env(&mut self.turn, &self.routes[usize::from(conn.route)], self.now);
        if let Some(event) = conn.session.shed(&mut env) {
            self.on_event(conn, key, event);
        }
    }

    /// Does what has become due. Whether the connection is dropped because its peer takes nothing.
    pub fn on_deadline(&mut self, conn: &mut Connection, key: Key) -> bool {
        let mut env = env(&mut self.turn, &self.routes[usize::from(conn.route)], self.now);
        let stalled = conn.session.is_stalled(env.limits, env.now);
        if stalled {
            limited!(
                info, connection = %conn.id, queued = conn.session.queued(),
                "dropped: the peer has taken nothing for limits.write_timeout"
            );
        }
        if let Some(event) = conn.session.on_deadline(&mut env) {
            self.on_event(conn, key, event);
        }
        stalled
    }

    /// Runs a callback; one that panics ends its connection with 1011.
    #[inline]
    fn with_app(
        &mut self,
        conn: &mut Connection,
        key: Key,
        callback: impl FnOnce(&mut dyn AnyApp, &mut Conn<'_>, &mut AnyState) -> Result<(), Panicked>,
    ) {
        let Some(mut state) = conn.state.take() else {
            return;
        };
        let (app, mut cx) = self.parts(conn, key);
        let outcome = app.map_or(Ok(()), |app| callback(app, &mut cx, &mut state));
        conn.state = Some(state);
        if outcome == Err(Panicked) {
            limited!(error, connection = %conn.id, path = self.path(conn), "the app panicked");
            self.fail(conn, key, CloseFrame::new(CloseCode::INTERNAL, "internal error"));
        }
    }

    fn path<'c>(&'c self, conn: &'c Connection) -> &'c str {
        let route = &self.routes[usize::from(conn.route)];
        conn.facts.as_deref().map_or(route.pattern.as_str(), |facts| &facts.path)
    }

    /// The app of a connection, and what it is handed.
    #[inline]
    fn parts<'a>(
        &'a mut self,
        conn: &'a mut Connection,
        key: Key,
    ) -> (Option<&'a mut (dyn AnyApp + 'static)>, Conn<'a>) {
        let route = &mut self.routes[usize::from(conn.route)];
        let facts = conn.facts.as_deref();
        let subprotocol = facts
            .and_then(|facts| facts.subprotocol)
            .and_then(|index| route.subprotocols.get(usize::from(index)).map(String::as_str));
        let app = match &mut route.target {
            Target::App(app) => Some(&mut **app),
            Target::Page(_) | Target::Health | Target::Ready | Target::Nothing => None,
        };
        let cx = Conn {
            id: conn.id,
            address: Address { worker: self.worker, key },
            path: facts.map_or(route.pattern.as_str(), |facts| &facts.path),
            subprotocol,
            peer: conn.peer,
            space: route.space,
            session: &mut conn.session,
            memberships: &mut conn.memberships,
            hub: &mut self.hub,
            intents: &mut self.intents,
            env: Env {
                turn: &mut self.turn,
                limits: &route.limits,
                compression: &route.compression,
                now: self.now,
            },
            post: &self.post,
        };
        (app, cx)
    }
}

/// What a session works with.
pub fn env<'a>(turn: &'a mut Turn, route: &'a Route, now: Tick) -> Env<'a> {
    Env { turn, limits: &route.limits, compression: &route.compression, now }
}
