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

pub(crate) mod accepting;
pub mod adopting;
mod conns;
mod deal;
mod freezing;
mod memory;
pub mod moving;
mod outbound;
mod renewal;
mod sending;
mod slots;
mod stopping;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token};

use crate::app::Command;
use crate::app::fanout::{deliver_ordered, publish_ordered};
use crate::app::intents::RoomDelivery;
use crate::base::slab::Key;
use crate::base::tick::Tick;
use crate::base::wheel::Wheel;
use crate::hub::{self, WorkerIndex};
use crate::net::accounts::Accounts;
use crate::net::connection::{Connection, NO_ROUTE};
use crate::net::dispatch::{DELIVERY_WORK, Dispatcher, Fed, WORK_BUDGET, env};
use crate::net::listener::Listener;
use crate::net::mailbox::{Mailboxes, Parcel, WAKER};
use crate::net::mode::Mode;
use crate::net::order::Order;
use crate::session::Next;
use crate::session::turn::TURN_BYTES_FLUSH;
use crate::sys::receive;
use crate::ws::deflate::Inflater;
use crate::ws::{DirectRoom, Input};

use conns::Conns;
use memory::Memory;
use moving::Moving;
use slots::Slots;

/// Tokens of listeners: this and below, far above any connection's key.
const LISTENER_0: usize = usize::MAX - 1;

/// Events fetched a turn. More would only delay the flush.
const EVENTS_MAX: usize = 1_024;

/// The receive buffer, in bytes. Large enough for most messages to arrive whole and small enough
/// to stay in the second-level cache.
pub(crate) const RECEIVE_BYTES: usize = 128 * 1024;

/// Most bytes read from one connection a turn; then the others have theirs.
pub(crate) const READ_BUDGET: usize = 2 * RECEIVE_BYTES;

/// So many bytes of a large frame, read to their place, count as one: there is less to do for them
/// than for any number of small messages, and a message of a megabyte that is read in one go and
/// answered at once stays closer to the processor than four that take turns.
const DIRECT_SHARE: usize = 4;

/// Mail that has come together for one worker is posted, before the turn ends, each time it grows
/// by so much: a turn has many connections, and what a mailbox has no room for must stop them.
const OUTBOX_POST: usize = 1_024;

/// How long a worker waits before it tries again to send to a lane that was full.
const LANE_PAUSE: Duration = Duration::from_millis(1);

/// What a worker is made of.
pub struct Parts {
    /// Its epoll; the mailbox's waker is registered.
    pub poll: Poll,
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
    conns: Conns,
    /// What the connections hold.
    memory: Memory,
    inflater: Inflater,
    receive: Box<[u8]>,
    /// See [`READ_BUDGET`].
    read_budget: usize,
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
    /// Orders of a handover, for the end of the turn.
    orders: VecDeque<Order>,
    /// The one that is being carried out, if it is not to be lost in a panic.
    deciding: Option<Order>,
    /// Mail that is being taken; empty between turns, unless one has panicked.
    inbox: VecDeque<Parcel>,
    /// A handover of which we are the predecessor.
    moving: Option<Box<Moving>>,
    /// Connections whose descriptor another process may hold: to close ours alone ends nothing.
    shared: Slots,
    /// Mail has been taken since it was last asked for.
    took_mail: bool,
}

impl Worker {
    /// Takes its parts.
    pub fn new(parts: Parts, workers: usize) -> Self {
        let Parts { poll, dispatcher, mailboxes, accounts, started } = parts;
        Self {
            index: dispatcher.worker,
            memory: Memory::new(&accounts, dispatcher.turn.meter().clone()),
            wheel: Wheel::new(dispatcher.now),
            poll,
            listeners: Vec::new(),
            dispatcher,
            mailboxes,
            accounts,
            started,
            conns: Conns::default(),
            inflater: Inflater::default(),
            receive: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            read_budget: READ_BUDGET,
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
            orders: VecDeque::new(),
            deciding: None,
            inbox: VecDeque::new(),
            moving: None,
            shared: Slots::default(),
            took_mail: false,
        }
    }

    /// Accepts connections from these sockets, too.
    ///
    /// # Errors
    /// One cannot be registered.
    pub fn listen(&mut self, listeners: Vec<Listener>) -> io::Result<()> {
        for mut listener in listeners {
            let token = Token(LISTENER_0 - self.listeners.len());
            listener.register(self.poll.registry(), token)?;
            self.listeners.push(listener);
        }
        Ok(())
    }

    /// Its number.
    pub fn index(&self) -> WorkerIndex {
        self.index
    }

    /// Serves until it is told to stop and has stopped. See [`run`](Self::run).
    fn serve(&mut self) -> io::Result<()> {
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
        #[cfg(feature = "fault-points")]
        crate::sys::fault::point(&format!("worker-{}", self.index));
        self.dispatcher.now = Tick::from_elapsed(self.started.elapsed());
        let ready = std::mem::take(&mut self.ready);
        let accept_ready = std::mem::take(&mut self.accept_ready);
        self.take_mail();
        for event in events {
            self.on_io(event);
        }
        for &key in &ready {
            if let Some((flags, _)) = self.conns.flags_mut(key) {
                flags.ready = false;
                self.drive(key);
            }
        }
        for index in accept_ready {
            self.accept(index);
        }
        self.fire_timers();
        if !self.dispatcher.mode.is_frozen() {
            self.relieve_memory();
        }
        self.go_on_stopping();
        self.post_mail();
        self.flush();
        // What came of connections that ended in the flush.
        self.post_mail();
        self.recycle(ready);
        self.go_on_moving();
    }

    /// Keeps the memory of a list that was worked through.
    fn recycle(&mut self, mut list: Vec<Key>) {
        if self.ready.is_empty() {
            list.clear();
            self.ready = list;
        }
    }

    fn poll_timeout(&self) -> Option<Duration> {
        if let Some(moving) = self.moving.as_ref().filter(|moving| moving.is_busy()) {
            return Some(if moving.is_blocked() { LANE_PAUSE } else { Duration::ZERO });
        }
        if self.dispatcher.mode.is_frozen() {
            return self.mailboxes.has_mail(self.index).then_some(Duration::ZERO);
        }
        // Nobody wakes us again for requests that were left in the mailbox while we were congested.
        let waits = (!self.ready.is_empty() && !self.congested)
            || (self.mailboxes.has_mail(self.index) && !self.deliveries_wait);
        let elapsed = self.started.elapsed();
        let now = Tick::from_elapsed(elapsed);
        if waits || (!self.accept_ready.is_empty() && self.accept_after <= now) {
            return Some(Duration::ZERO);
        }
        let mut next = self.wheel.next().unwrap_or(Tick::NEVER).min(self.memory.next(now));
        if !self.accept_ready.is_empty() {
            next = next.min(self.accept_after);
        }
        if let Mode::Stopping(stopping) = &self.dispatcher.mode {
            if stopping.has_due(now) {
                return Some(Duration::ZERO);
            }
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
        let Some((flags, session)) = self.conns.flags_mut(key) else {
            return;
        };
        flags.hung_up |= event.is_read_closed() || event.is_error();
        let readable = event.is_readable() || flags.hung_up;
        flags.unread |= readable;
        if let Mode::Frozen(frozen) = &mut self.dispatcher.mode {
            if is_broken(event) {
                frozen.broken.push(key);
            }
            return;
        }
        if event.is_writable() && session.queued() > 0 {
            mark(&mut flags.dirty, &mut self.dirty, key);
        }
        if readable {
            self.drive(key);
        }
        if is_broken(event) {
            self.lost_if_unread(key);
        }
    }

    /// The socket is broken. If nobody reads from it, nobody else would notice.
    fn lost_if_unread(&mut self, key: Key) {
        if self.conns.get(key).is_some_and(|conn| !conn.session.wants_read()) {
            self.lost(key, &ErrorKind::ConnectionReset.into());
            self.carry_out();
        }
    }

    /// Decodes what is parked, then reads and decodes until the socket is empty, reading is paused
    /// or the budget is used up.
    fn drive(&mut self, key: Key) {
        if self.congested || self.dispatcher.mode.is_frozen() {
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
        let (mut budget, mut heard) = (self.read_budget, false);
        while let Some(conn) = self.conns.get_mut(key)
            && conn.flags.unread
            && conn.session.wants_read()
        {
            if budget == 0 || self.dispatcher.work >= WORK_BUDGET {
                self.mark_ready(key);
                break;
            }
            let admitted = self.memory.admit(key, conn.flags.hung_up, self.dispatcher.now);
            if admitted == 0 {
                break;
            }
            // The rest of a large message goes where it belongs, everything else to the buffer.
            let (outcome, room, direct) = match conn.session.direct_room() {
                Some(DirectRoom { buffer, len }) => {
                    (receive::append(&conn.stream, buffer, len), len, true)
                }
                None => {
                    let room = receive.len().min(admitted);
                    (conn.stream.read(&mut receive[..room]), room, false)
                }
            };
            heard = true;
            match outcome {
                Ok(0) => {
                    conn.flags.unread = false;
                    let limits = &self.dispatcher.routes[usize::from(conn.route)].limits;
                    let event = conn.session.peer_finished(limits, self.dispatcher.now);
                    if let Some(event) = event {
                        self.dispatcher.on_event(conn, key, event);
                    }
                    mark(&mut conn.flags.dirty, &mut self.dirty, key);
                }
                Ok(len) => {
                    // A short read has emptied the socket, unless its end is there to be read, too.
                    conn.flags.unread = len == room || conn.flags.hung_up;
                    let share = if direct { DIRECT_SHARE } else { 1 };
                    budget = budget.saturating_sub(len.div_ceil(share));
                    // What the peer knew when it sent this, we have to know too.
                    self.take_mail();
                    if direct {
                        self.feed_direct(key, len);
                    } else {
                        self.feed(key, &mut receive[..len]);
                    }
                    self.note_memory(key);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => conn.flags.unread = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.lost(key, &error),
            }
        }
        self.receive = receive;
        if heard {
            self.conns.heard(key);
        }
        if self.memory.grants() && self.conns.get(key).is_some_and(|conn| !conn.flags.unread) {
            self.memory.is_drained(key);
        }
        self.carry_out();
    }

    /// Feeds received bytes to a connection, and carries out what comes of it for others.
    fn feed(&mut self, key: Key, bytes: &mut [u8]) {
        let mut input = Input::new(bytes);
        while let Some(conn) = self.conns.get_mut(key) {
            // With the pong the next ping may be due before the time for the pong was up.
            conn.flags.timed &= !conn.session.awaits_pong();
            let fed = self.dispatcher.feed(conn, key, &mut input, &mut self.inflater);
            mark(&mut conn.flags.dirty, &mut self.dirty, key);
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
        } else if self.conns.get(key).is_some_and(|conn| conn.session.queued() >= TURN_BYTES_FLUSH)
            && self.outboxes.iter().all(VecDeque::is_empty)
        {
            // A large reply, which is not in the turn's buffer, and no mail has to go before it.
            self.flush_one(key);
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
            conn.flags.unread = false;
            if let Some(event) = conn.session.lost() {
                self.dispatcher.on_event(conn, key, event);
            }
            mark(&mut conn.flags.dirty, &mut self.dirty, key);
        }
    }

    fn mark_ready(&mut self, key: Key) {
        if let Some((flags, _)) = self.conns.flags_mut(key) {
            mark(&mut flags.ready, &mut self.ready, key);
        }
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
        let members = self.dispatcher.hub.members(room.borrowed());
        self.dispatcher.work += members.len() * DELIVERY_WORK;
        for member in members {
            if Some(member.key) == except {
                continue;
            }
            let Some(conn) = self.conns.get_mut(member.key) else {
                continue;
            };
            if self.dispatcher.mode.is_frozen() {
                let Dispatcher { turn, now, .. } = &self.dispatcher;
                conn.session.deliver_unbounded(delivery, turn, *now);
                mark(&mut conn.flags.dirty, &mut self.dirty, member.key);
                continue;
            }
            let limits = &self.dispatcher.routes[usize::from(conn.route)].limits;
            match conn.session.deliver(delivery, &self.dispatcher.turn, limits, self.dispatcher.now)
            {
                Ok(()) => mark(&mut conn.flags.dirty, &mut self.dirty, member.key),
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
                mark(&mut conn.flags.dirty, &mut self.dirty, key);
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
        for mut lane in self.mailboxes.take(self.index, with_requests) {
            self.inbox.append(&mut lane);
        }
        // From where the rest is found if one of them makes us panic.
        while let Some(parcel) = self.inbox.pop_front() {
            self.took_mail |= !matches!(parcel, Parcel::Order(_));
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
                let member = hub.members(message.room.borrowed()).first();
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
                hub.set_subscribed(room.borrowed(), worker, true);
            }
            Parcel::Hub(hub::Mail::Unsubscribe { room, worker }) => {
                hub.set_subscribed(room.borrowed(), worker, false);
            }
            Parcel::Hub(hub::Mail::Renewed { worker }) => {
                hub.on_renewed(worker, &mut |to, item| intents.mail.push((to, item)));
            }
            Parcel::Command(key, command) => self.on_command(key, command),
            Parcel::Order(order) => self.orders.push_back(order),
        }
    }

    fn on_command(&mut self, key: Key, command: Command) {
        if !self.dispatcher.mode.is_frozen()
            && let Command::Send(message) = &command
            && let Some(conn) = self.conns.get(key)
            && let limits = &self.dispatcher.routes[usize::from(conn.route)].limits
            && !conn.session.has_room(message.payload.len(), limits)
        {
            // As for a room's message: the socket may well take what this turn has for it.
            self.flush_one(key);
        }
        if let Some(conn) = self.conns.get_mut(key) {
            self.dispatcher.on_command(conn, key, command);
            mark(&mut conn.flags.dirty, &mut self.dirty, key);
        }
    }

    fn post_mail(&mut self) {
        self.congested = false;
        self.deliveries_wait = false;
        for (to, outbox) in self.outboxes.iter_mut().enumerate() {
            if outbox.is_empty() {
                continue;
            }
            let to = to as WorkerIndex;
            if self.dispatcher.mode.is_frozen() {
                self.mailboxes.post_all(to, outbox);
            } else {
                let deliveries = self.mailboxes.post(self.index, to, outbox);
                self.congested |= !outbox.is_empty();
                self.deliveries_wait |= deliveries;
            }
        }
    }

    // ---- time ----

    fn fire_timers(&mut self) {
        if self.dispatcher.mode.is_frozen() {
            return;
        }
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
            conn.armed = Tick::NEVER;
            if self.conns.is_unheard(key) && !self.hear(key) {
                continue;
            }
            let Some(conn) = self.conns.get_mut(key) else {
                continue;
            };
            if conn.session.queued() > 0 {
                // epoll tells of room only once a third of the socket's buffer is free: a slow peer
                // is not one that takes nothing.
                self.flush_one(key);
            }
            let Some(conn) = self.conns.get_mut(key) else {
                continue;
            };
            if let Some(time) = self.memory.unread_for(key, self.dispatcher.now) {
                conn.session.was_held_back(time, self.dispatcher.now);
            }
            if self.dispatcher.on_deadline(conn, key) {
                self.accounts.count_stalled();
            }
            arm(conn, key, &self.dispatcher, &mut self.wheel);
            mark(&mut conn.flags.dirty, &mut self.dirty, key);
            self.carry_out();
        }
        self.due = due;
    }

    /// Reads a connection whose deadline has come and that nobody has read since the last freeze: the
    /// silence was ours, and what ends it may have arrived. False if that has to wait.
    fn hear(&mut self, key: Key) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        if self.congested {
            conn.armed = self.dispatcher.now.after(Duration::ZERO);
            self.wheel.insert(conn.armed, key);
            return false;
        }
        conn.flags.unread = true;
        self.drive(key);
        true
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
        conn.flags.dirty = false;
        if self.dispatcher.mode.is_frozen() {
            conn.session.spill(&self.dispatcher.turn);
            return;
        }
        let limits = &self.dispatcher.routes[usize::from(conn.route)].limits;
        match conn.session.flush(
            &mut self.dispatcher.turn,
            &mut conn.stream,
            limits,
            self.dispatcher.now,
        ) {
            Ok(Next::Wait) => {}
            Ok(Next::Resume) => mark(&mut conn.flags.ready, &mut self.ready, key),
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
        let limits = &self.dispatcher.routes[usize::from(conn.route)].limits;
        self.memory.note(key, conn.session.holding(), limits, self.dispatcher.now);
        if conn.flags.unread && conn.session.wants_read() {
            // No event will tell again: it waited for a decision, or for its queue to drain.
            mark(&mut conn.flags.ready, &mut self.ready, key);
        }
        // The deadlines of an open connection with nothing under way only move away, but for the
        // arrival of a pong, so that one entry is enough; it is looked at when it fires.
        let open = conn.session.is_open();
        if !open || !conn.flags.timed || conn.session.is_under_way() {
            conn.flags.timed = open;
            arm(conn, key, &self.dispatcher, &mut self.wheel);
        }
    }

    fn drop_connection(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            self.dispatcher.on_dropped(conn, key);
            self.memory.forget(key);
            if self.shared.remove(key.index()) {
                // With a copy elsewhere our close would send no FIN.
                let _ = conn.stream.shutdown();
            }
            if let Some(moving) = &mut self.moving {
                moving.out.closed(key);
            }
            self.conns.remove(key);
            self.accounts.leave(self.index);
        }
    }
}

/// However it ends, nobody sends it anything that would be lost without a word.
impl Drop for Worker {
    fn drop(&mut self) {
        self.accounts.set_through(self.index);
        self.mailboxes.close(self.index);
    }
}

fn is_broken(event: &Event) -> bool {
    event.is_error() || (event.is_read_closed() && event.is_write_closed())
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

#[cfg(test)]
mod tests;
