//! One worker: one thread, one event loop.
//!
//! ```text
//! poll ─► mailbox ─► sockets ─► connections left over ─► timers ─► mail out ─► flush ─► poll
//! ```
//!
//! What a turn produces is written at its end, in as few writes as possible; nothing writes to a
//! socket anywhere else. Mail goes out before that, so that whoever reads an answer of ours can
//! rely on the other workers' knowing: a member that has seen its handshake accepted misses
//! nothing that is published from then on.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token};

use crate::app::conn::RoomDelivery;
use crate::app::fanout::{deliver_ordered, publish_ordered};
use crate::app::{Command, Peer};
use crate::base::slab::{Key, Slab};
use crate::base::tick::Tick;
use crate::base::wheel::Wheel;
use crate::hub::{self, Memberships, WorkerIndex};
use crate::net::accounts::Accounts;
use crate::net::connection::{Connection, NO_ROUTE};
use crate::net::dispatch::{DELIVERY_WORK, Dispatcher, Fed, WORK_BUDGET, env};
use crate::net::listener::Listener;
use crate::net::mailbox::{Mailboxes, Parcel, WAKER};
use crate::net::stop::{Stop, Stopping};
use crate::net::stream::Stream;
use crate::session::{Next, Session};
use crate::ws::Input;
use crate::ws::deflate::Inflater;

/// Tokens of listeners: this and below, far above any connection's key.
const LISTENER_0: usize = usize::MAX - 1;

/// Events fetched a turn. More would only delay the flush.
const EVENTS_MAX: usize = 1_024;

/// The receive buffer, in bytes. Large enough for most messages to arrive whole and small enough
/// to stay in the second-level cache.
const RECEIVE_BYTES: usize = 128 * 1024;

/// Most bytes read from one connection a turn; then the others have theirs.
const READ_BUDGET: usize = 2 * RECEIVE_BYTES;

/// Most connections accepted a turn and listener; then those that are there have their turn.
const ACCEPT_BUDGET: usize = 256;

/// Mail that has come together for one worker is posted, before the turn ends, each time it grows
/// by so much: a turn has many connections, and what a mailbox has no room for must stop them.
const OUTBOX_POST: usize = 1_024;

/// How long nothing is accepted after the system or the limit had no room.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a worker is made of.
pub struct Parts {
    /// Its epoll; the mailbox's waker is registered.
    pub poll: Poll,
    /// Its listeners, one for each address.
    pub listeners: Vec<Listener>,
    /// Its tools and routes.
    pub dispatcher: Dispatcher,
    /// All workers' mailboxes.
    pub mailboxes: Arc<Mailboxes>,
    /// What the workers count together.
    pub accounts: Arc<Accounts>,
    /// When the ticks began.
    pub started: Instant,
}

/// A worker.
pub struct Worker {
    poll: Poll,
    listeners: Vec<Listener>,
    dispatcher: Dispatcher,
    mailboxes: Arc<Mailboxes>,
    accounts: Arc<Accounts>,
    started: Instant,
    index: WorkerIndex,
    conns: Slab<Connection>,
    inflater: Inflater,
    receive: Box<[u8]>,
    wheel: Wheel<Key>,
    /// Due entries of the wheel; empty between turns.
    due: Vec<(Tick, Key)>,
    /// Connections to be flushed at the end of the turn.
    dirty: Vec<Key>,
    /// Connections to be driven next turn though no event tells so.
    ready: Vec<Key>,
    /// Connections that ended during a flush.
    doomed: Vec<Key>,
    /// Mail that has not found room, by worker.
    outboxes: Vec<VecDeque<Parcel>>,
    /// Some of it waits for room in another worker's mailbox: we make no more of it.
    congested: bool,
    /// Deliveries are among it: we take no requests, of which they come.
    deliveries_wait: bool,
    /// Listeners that may have more to accept.
    accept_ready: Vec<usize>,
    /// Nothing is accepted before this.
    accept_after: Tick,
    /// There was no room for the last connection.
    accept_paused: bool,
    stopping: Option<Stopping>,
}

impl Worker {
    /// Takes its parts.
    ///
    /// # Errors
    /// The listeners cannot be registered.
    pub fn new(parts: Parts, workers: usize) -> io::Result<Self> {
        let Parts { poll, mut listeners, dispatcher, mailboxes, accounts, started } = parts;
        for (index, listener) in listeners.iter_mut().enumerate() {
            listener.register(poll.registry(), Token(LISTENER_0 - index))?;
        }
        Ok(Self {
            index: dispatcher.worker,
            wheel: Wheel::new(dispatcher.now),
            poll,
            listeners,
            dispatcher,
            mailboxes,
            accounts,
            started,
            conns: Slab::new(),
            inflater: Inflater::default(),
            receive: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            due: Vec::new(),
            dirty: Vec::new(),
            ready: Vec::new(),
            doomed: Vec::new(),
            outboxes: (0..workers).map(|_| VecDeque::new()).collect(),
            congested: false,
            deliveries_wait: false,
            accept_ready: Vec::new(),
            accept_after: Tick::START,
            accept_paused: false,
            stopping: None,
        })
    }

    /// Serves until it is told to stop and has stopped.
    ///
    /// # Errors
    /// epoll fails, which it does not.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let outcome = loop {
            match self.poll.poll(&mut events, self.poll_timeout()) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => break Err(error),
            }
            self.turn(&events);
            if self.has_stopped() {
                break Ok(());
            }
        };
        self.mailboxes.close(self.index);
        for key in self.conns.keys().collect::<Vec<_>>() {
            self.drop_connection(key);
        }
        outcome
    }

    fn turn(&mut self, events: &Events) {
        self.dispatcher.now = Tick::from_elapsed(self.started.elapsed());
        let ready = std::mem::take(&mut self.ready);
        let accept_ready = std::mem::take(&mut self.accept_ready);
        self.take_mail();
        for event in events {
            self.on_io(event);
        }
        for &key in &ready {
            if let Some(conn) = self.conns.get_mut(key) {
                conn.ready = false;
                self.drive(key);
            }
        }
        for index in accept_ready {
            self.accept(index);
        }
        self.fire_timers();
        self.go_on_stopping();
        self.post_mail();
        self.flush();
        // What came of connections that ended in the flush.
        self.post_mail();
        self.recycle(ready);
    }

    /// Keeps the memory of a list that was worked through.
    fn recycle(&mut self, mut list: Vec<Key>) {
        if self.ready.is_empty() {
            list.clear();
            self.ready = list;
        }
    }

    fn poll_timeout(&self) -> Option<Duration> {
        // Nobody wakes us again for requests that were left in the mailbox while we were congested.
        let waits = (!self.ready.is_empty() && !self.congested)
            || (self.mailboxes.has_mail(self.index) && !self.deliveries_wait);
        let elapsed = self.started.elapsed();
        let now = Tick::from_elapsed(elapsed);
        if waits || (!self.accept_ready.is_empty() && self.accept_after <= now) {
            return Some(Duration::ZERO);
        }
        let mut next = self.wheel.next().unwrap_or(Tick::NEVER);
        if !self.accept_ready.is_empty() {
            next = next.min(self.accept_after);
        }
        if self.stopping.is_some() {
            next = next.min(now.after(Duration::ZERO));
        }
        (next != Tick::NEVER).then(|| next.elapsed().saturating_sub(elapsed))
    }

    // ---- sockets ----

    #[inline]
    fn on_io(&mut self, event: &Event) {
        let Token(token) = event.token();
        let Some(key) = Key::from_u64(token as u64) else {
            if event.token() != WAKER {
                self.accept(LISTENER_0 - token);
            }
            return;
        };
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if event.is_writable() && conn.session.queued() > 0 {
            mark(&mut conn.dirty, &mut self.dirty, key);
        }
        if event.is_read_closed() || event.is_error() {
            conn.hung_up = true;
        }
        if event.is_readable() || conn.hung_up {
            conn.unread = true;
            self.drive(key);
        }
        let broken = event.is_error() || (event.is_read_closed() && event.is_write_closed());
        if broken
            && let Some(conn) = self.conns.get_mut(key)
            && !conn.session.wants_read()
        {
            // Nobody reads from it, so nobody else would notice.
            self.lost(key, &ErrorKind::ConnectionReset.into());
            self.carry_out();
        }
    }

    /// Decodes what is parked, then reads and decodes until the socket is empty, reading is paused
    /// or the budget is used up.
    fn drive(&mut self, key: Key) {
        if self.congested {
            self.mark_ready(key);
            return;
        }
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        self.dispatcher.work = 0;
        if let Some(mut parked) = conn.session.take_parked() {
            self.feed(key, &mut parked);
        } else if conn.session.holds_whole_frame() {
            self.feed(key, &mut []);
        }
        let mut receive = std::mem::take(&mut self.receive);
        let mut budget = READ_BUDGET;
        while let Some(conn) = self.conns.get_mut(key)
            && conn.unread
            && conn.session.wants_read()
        {
            if budget == 0 || self.dispatcher.work >= WORK_BUDGET {
                self.mark_ready(key);
                break;
            }
            // The rest of a large message goes where it belongs, everything else to the buffer.
            let (outcome, room, direct) = match conn.session.direct_room() {
                Some(place) => (conn.stream.read(place), place.len(), true),
                None => (conn.stream.read(&mut receive), receive.len(), false),
            };
            match outcome {
                Ok(0) => {
                    conn.unread = false;
                    let event = conn.session.peer_finished();
                    if let Some(event) = event {
                        self.dispatcher.on_event(conn, key, event);
                    }
                    mark(&mut conn.dirty, &mut self.dirty, key);
                }
                Ok(len) => {
                    // A short read has emptied the socket, unless its end is there to be read, too.
                    conn.unread = len == room || conn.hung_up;
                    budget = budget.saturating_sub(len);
                    // What the peer knew when it sent this, we have to know too.
                    self.take_mail();
                    if direct {
                        self.feed_direct(key, len);
                    } else {
                        self.feed(key, &mut receive[..len]);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => conn.unread = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.lost(key, &error),
            }
        }
        self.receive = receive;
        self.carry_out();
    }

    /// Feeds received bytes to a connection, and carries out what comes of it for others.
    fn feed(&mut self, key: Key, bytes: &mut [u8]) {
        let mut input = Input::new(bytes);
        while let Some(conn) = self.conns.get_mut(key) {
            // With the pong the next ping may be due before the time for the pong was up.
            conn.timed &= !conn.session.awaits_pong();
            let fed = self.dispatcher.feed(conn, key, &mut input, &mut self.inflater);
            mark(&mut conn.dirty, &mut self.dirty, key);
            match fed {
                Fed::Intents => self.carry_out(),
                Fed::All | Fed::Enough => {
                    conn.session.park(input.rest());
                    break;
                }
            }
        }
        if self.dispatcher.turn.is_full() {
            self.flush();
        }
    }

    /// The same for bytes that have been read to where they belong.
    fn feed_direct(&mut self, key: Key, len: usize) {
        if let Some(conn) = self.conns.get_mut(key) {
            self.dispatcher.received_direct(conn, key, len);
            self.feed(key, &mut []);
        }
    }

    fn lost(&mut self, key: Key, error: &io::Error) {
        if let Some(conn) = self.conns.get_mut(key) {
            tracing::debug!(connection = %conn.id, %error, "connection lost");
            conn.unread = false;
            if let Some(event) = conn.session.lost() {
                self.dispatcher.on_event(conn, key, event);
            }
            mark(&mut conn.dirty, &mut self.dirty, key);
        }
    }

    fn mark_ready(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            mark(&mut conn.ready, &mut self.ready, key);
        }
    }

    // ---- new connections ----

    fn accept(&mut self, index: usize) {
        if self.dispatcher.now < self.accept_after {
            self.accept_again(index);
            return;
        }
        for _ in 0..ACCEPT_BUDGET {
            let Some(listener) = self.listeners.get(index) else {
                return;
            };
            if !self.accounts.enter() {
                self.pause_accepting(index, "the limit of connections is reached");
                return;
            }
            match listener.accept() {
                Ok((stream, peer)) => {
                    if std::mem::take(&mut self.accept_paused) {
                        tracing::info!("new connections are accepted again");
                    }
                    self.open(stream, peer);
                }
                Err(error) => {
                    self.accounts.leave();
                    match error.kind() {
                        ErrorKind::WouldBlock => return,
                        // The peer gave up while it waited.
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                        _ => {
                            self.pause_accepting(index, &error.to_string());
                            return;
                        }
                    }
                }
            }
        }
        self.accept_again(index);
    }

    /// Accepts everything that waits, if there is room for it.
    fn accept_all(&mut self, index: usize) {
        loop {
            self.accept_ready.retain(|&ready| ready != index);
            self.accept(index);
            if !self.accept_ready.contains(&index) || self.dispatcher.now < self.accept_after {
                break;
            }
        }
    }

    /// An edge-triggered listener does not tell twice, so it is looked at again by itself.
    fn accept_again(&mut self, index: usize) {
        if !self.accept_ready.contains(&index) {
            self.accept_ready.push(index);
        }
    }

    fn pause_accepting(&mut self, index: usize, reason: &str) {
        if !std::mem::replace(&mut self.accept_paused, true) {
            let connections = self.accounts.connections();
            tracing::warn!(reason, connections, "no new connections are accepted for now");
        }
        self.accept_after = self.dispatcher.now.after(ACCEPT_PAUSE);
        self.accept_again(index);
    }

    fn open(&mut self, mut stream: Stream, peer: Peer) {
        let mut session = Session::new(&self.dispatcher.head_limits, self.dispatcher.now);
        if self.dispatcher.gate.expects_proxy_header(peer) {
            session.expect_proxy_header();
        }
        let deadline = session.deadline(&self.dispatcher.routes[usize::from(NO_ROUTE)].limits);
        let id = self.dispatcher.ids.allocate();
        let registry = self.poll.registry();
        let mut registered = Ok(());
        let key = self.conns.insert_with_key(|key| {
            registered = stream.register(registry, Token(key.to_u64() as usize));
            Connection {
                session,
                stream,
                id,
                peer,
                facts: None,
                route: NO_ROUTE,
                passed: false,
                state: None,
                pending: None,
                memberships: Memberships::default(),
                armed: deadline,
                timed: false,
                dirty: false,
                ready: false,
                unread: false,
                hung_up: false,
            }
        });
        if let Err(error) = registered {
            tracing::warn!(connection = %id, %error, "a connection cannot be watched");
            self.conns.remove(key);
            self.accounts.leave();
            return;
        }
        self.wheel.insert(deadline, key);
        tracing::trace!(connection = %id, %peer, "accepted");
    }

    // ---- what concerns others ----

    /// Hands out room messages and queues mail until callbacks leave nothing more to do.
    fn carry_out(&mut self) {
        while !self.dispatcher.intents.deliveries.is_empty() {
            for delivery in std::mem::take(&mut self.dispatcher.intents.deliveries) {
                self.deliver(&delivery);
            }
        }
        let mut crowded = false;
        for (to, mail) in self.dispatcher.intents.mail.drain(..) {
            let outbox = &mut self.outboxes[usize::from(to)];
            outbox.push_back(Parcel::Hub(mail));
            crowded |= outbox.len().is_multiple_of(OUTBOX_POST);
        }
        if crowded {
            self.post_mail();
        }
    }

    fn deliver(&mut self, delivery: &RoomDelivery) {
        let RoomDelivery { room, delivery, except } = delivery;
        let except = except.filter(|except| except.worker == self.index).map(|except| except.key);
        let mut slow = Vec::new();
        let members = self.dispatcher.hub.members(room);
        self.dispatcher.work += members.len() * DELIVERY_WORK;
        for member in members {
            if Some(member.key) == except {
                continue;
            }
            let Some(conn) = self.conns.get_mut(member.key) else {
                continue;
            };
            let limits = &self.dispatcher.routes[usize::from(conn.route)].limits;
            match conn.session.deliver(delivery, &self.dispatcher.turn, limits, self.dispatcher.now)
            {
                Ok(()) => mark(&mut conn.dirty, &mut self.dirty, member.key),
                Err(_) => slow.push(member.key),
            }
        }
        for key in slow {
            // It may be the turn itself that fills its queue, and its socket takes all of that.
            self.flush_one(key);
            if let Some(conn) = self.conns.get_mut(key) {
                let limits = &self.dispatcher.routes[usize::from(conn.route)].limits;
                let turn = &self.dispatcher.turn;
                if conn.session.deliver(delivery, turn, limits, self.dispatcher.now).is_err() {
                    self.dispatcher.fail_slow(conn, key);
                }
                mark(&mut conn.dirty, &mut self.dirty, key);
            }
        }
    }

    fn take_mail(&mut self) {
        if !self.mailboxes.has_mail(self.index) {
            return;
        }
        // What comes of requests is deliveries, which are always taken in the end. Waiting for room
        // for our own requests here would let two workers wait for each other.
        let with_requests = !self.deliveries_wait;
        let lanes = self.mailboxes.take(self.index, with_requests);
        for parcel in lanes.into_iter().flatten() {
            self.on_parcel(parcel);
            self.carry_out();
            if self.dispatcher.turn.is_full() {
                self.flush();
            }
        }
    }

    fn on_parcel(&mut self, parcel: Parcel) {
        let Dispatcher { turn, hub, intents, routes, now, .. } = &mut self.dispatcher;
        // A room's message from elsewhere is compressed as the members' route has it.
        let route = match &parcel {
            Parcel::Hub(hub::Mail::Deliver(message) | hub::Mail::Publish(message)) => {
                let member = hub.members(&message.room).first();
                member.and_then(|member| self.conns.get(member.key)).map(|conn| conn.route)
            }
            _ => None,
        };
        let mut env = env(turn, &routes[usize::from(route.unwrap_or(NO_ROUTE))], *now);
        match parcel {
            Parcel::Hub(hub::Mail::Deliver(message)) => {
                deliver_ordered(hub, intents, &mut env, &message);
            }
            Parcel::Hub(hub::Mail::Publish(message)) => {
                publish_ordered(hub, intents, &mut env, &message);
            }
            Parcel::Hub(hub::Mail::Subscribe { room, worker }) => {
                hub.set_subscribed(&room, worker, true);
            }
            Parcel::Hub(hub::Mail::Unsubscribe { room, worker }) => {
                hub.set_subscribed(&room, worker, false);
            }
            Parcel::Command(key, command) => self.on_command(key, command),
            Parcel::Stop(stop) => self.stop(stop),
        }
    }

    fn on_command(&mut self, key: Key, command: Command) {
        if let Command::Send(message) = &command
            && let Some(conn) = self.conns.get(key)
            && let limits = &self.dispatcher.routes[usize::from(conn.route)].limits
            && !conn.session.has_room(message.payload.len(), limits)
        {
            // As for a room's message: the socket may well take what this turn has for it.
            self.flush_one(key);
        }
        if let Some(conn) = self.conns.get_mut(key) {
            self.dispatcher.on_command(conn, key, command);
            mark(&mut conn.dirty, &mut self.dirty, key);
        }
    }

    fn post_mail(&mut self) {
        self.congested = false;
        self.deliveries_wait = false;
        for (to, outbox) in self.outboxes.iter_mut().enumerate() {
            if !outbox.is_empty() {
                let deliveries = self.mailboxes.post(self.index, to as WorkerIndex, outbox);
                self.congested |= !outbox.is_empty();
                self.deliveries_wait |= deliveries;
            }
        }
    }

    // ---- time ----

    fn fire_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.dispatcher.now, &mut due);
        for (at, key) in due.drain(..) {
            let Some(conn) = self.conns.get_mut(key) else {
                continue;
            };
            // An entry that was overtaken by an earlier one.
            if conn.armed != at {
                continue;
            }
            self.dispatcher.on_deadline(conn, key);
            conn.armed = Tick::NEVER;
            arm(conn, key, &self.dispatcher, &mut self.wheel);
            mark(&mut conn.dirty, &mut self.dirty, key);
            self.carry_out();
        }
        self.due = due;
    }

    // ---- what goes out ----

    /// Writes what has come together, and drops what has ended, until nothing is left of either.
    fn flush(&mut self) {
        while !self.dirty.is_empty() || !self.doomed.is_empty() {
            let mut dirty = std::mem::take(&mut self.dirty);
            for key in dirty.drain(..) {
                self.flush_one(key);
            }
            self.dirty = dirty;
            self.dispatcher.turn.clear();
            for key in std::mem::take(&mut self.doomed) {
                self.drop_connection(key);
                self.carry_out();
            }
        }
    }

    #[inline]
    fn flush_one(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.dirty = false;
        let limits = &self.dispatcher.routes[usize::from(conn.route)].limits;
        match conn.session.flush(
            &mut self.dispatcher.turn,
            &mut conn.stream,
            limits,
            self.dispatcher.now,
        ) {
            Ok(Next::Wait) => {}
            Ok(Next::Resume) => mark(&mut conn.ready, &mut self.ready, key),
            Ok(Next::ShutdownWrite) => {
                // If it fails the peer is gone, which reading will tell.
                let _ = conn.stream.shutdown_write();
            }
            Ok(Next::Drop) => self.doomed.push(key),
            Err(error) => {
                tracing::debug!(connection = %conn.id, %error, "connection lost");
                self.doomed.push(key);
            }
        }
        if conn.unread && conn.session.wants_read() {
            // No event will tell again: it waited for a decision, or for its queue to drain.
            mark(&mut conn.ready, &mut self.ready, key);
        }
        // An open connection's deadlines only move away, but for the arrival of a pong, so that one
        // entry is enough; it is looked at when it fires.
        let open = conn.session.is_open();
        if !open || !conn.timed {
            conn.timed = open;
            arm(conn, key, &self.dispatcher, &mut self.wheel);
        }
    }

    fn drop_connection(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            self.dispatcher.on_dropped(conn, key);
            self.conns.remove(key);
            self.accounts.leave();
        }
    }

    // ---- stopping ----

    fn stop(&mut self, how: Stop) {
        if self.stopping.as_ref().is_some_and(|stopping| stopping.how() == Stop::Fast) {
            return;
        }
        if self.stopping.is_none() {
            for listener in &self.listeners {
                if let Err(error) = listener.drop_new_connections() {
                    tracing::warn!(%error, "new connections may be reset when the listener closes");
                }
            }
        }
        self.dispatcher.stopping = true;
        self.stopping = Some(Stopping::new(how, self.dispatcher.now, self.conns.keys().collect()));
    }

    fn go_on_stopping(&mut self) {
        let Some(mut stopping) = self.stopping.take() else {
            return;
        };
        if !self.listeners.is_empty() && self.dispatcher.now >= stopping.listeners_until() {
            for index in 0..self.listeners.len() {
                self.accept_all(index);
            }
            self.listeners.clear();
        }
        let frame = stopping.close_frame();
        for &key in stopping.due(self.dispatcher.now) {
            if let Some(conn) = self.conns.get_mut(key) {
                self.dispatcher.stop(conn, frame.clone());
                mark(&mut conn.dirty, &mut self.dirty, key);
            }
        }
        self.stopping = Some(stopping);
    }

    fn has_stopped(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| {
            let timeouts = self.dispatcher.routes.iter().map(|route| route.limits.close_timeout);
            // The last connection of all, not of this worker: rooms have their home here.
            let nobody_left = self.accounts.connections() == 0 && self.listeners.is_empty();
            let overdue = stopping.until(timeouts.max().unwrap_or_default()) <= self.dispatcher.now;
            overdue || (stopping.all_told() && nobody_left)
        })
    }
}

/// Puts a connection in a list, once.
#[inline]
fn mark(flag: &mut bool, list: &mut Vec<Key>, key: Key) {
    if !std::mem::replace(flag, true) {
        list.push(key);
    }
}

/// Sees to it that the wheel has an entry for the connection's deadline, or an earlier one.
fn arm(conn: &mut Connection, key: Key, dispatcher: &Dispatcher, wheel: &mut Wheel<Key>) {
    let deadline = conn.session.deadline(&dispatcher.routes[usize::from(conn.route)].limits);
    if deadline < conn.armed {
        conn.armed = deadline;
        wheel.insert(deadline, key);
    }
}
