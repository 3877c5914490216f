//! A worker that has panicked begins anew.
//!
//! Users' code cannot make it panic (see [`guarded`](crate::app::guarded)), so this is for faults of
//! our own. The state that was being changed is not to be trusted: the connections end, and the hub,
//! the apps and the lists of the event loop are made anew. What others rely on stays: the thread and
//! its epoll, the listeners with those who wait in their queues, the mailbox, and the slots of the
//! connections, whose keys are never given out twice.
//!
//! Members on other workers stay in their rooms. The rooms that have their home here lose what was on
//! its way, and are announced again by the workers that have members.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use super::adopting::Beginning;
use super::{READ_BUDGET, RECEIVE_BYTES, Worker};
use crate::base::slab::Key;
use crate::base::tick::Tick;
use crate::base::wheel::Wheel;
use crate::net::dispatch::Dispatcher;
use crate::net::mailbox::Parcel;
use crate::net::mode::{Frozen, Mode};
use crate::net::order::Order;
use crate::ws::deflate::Inflater;

/// How long a worker that has panicked waits before it begins anew: should it panic again and again,
/// it does not take a processor for that. Clients come back within a second at the earliest.
const RENEWAL_PAUSE: Duration = Duration::from_millis(100);

/// The longest of these pauses: they grow while an app cannot be made.
const RENEWAL_PAUSE_MAX: Duration = Duration::from_secs(2);

impl Worker {
    /// Begins, and serves until it is told to stop and has stopped. After a panic it begins anew with
    /// what `make` makes.
    ///
    /// # Errors
    /// epoll fails, which it does not; that of `make`, if it is to stop while there is nothing to serve
    /// with.
    pub fn run(
        mut self,
        beginning: Beginning,
        make: impl Fn() -> io::Result<Dispatcher>,
    ) -> io::Result<()> {
        let mut beginning = Some(beginning);
        loop {
            let serve = || {
                if let Some(beginning) = beginning.take() {
                    self.begin(beginning);
                }
                self.serve()
            };
            if let Ok(outcome) = catch_unwind(AssertUnwindSafe(serve)) {
                return outcome;
            }
            let (panicked, connections) = (Instant::now(), self.conns.len());
            tracing::error!(
                worker = self.index,
                connections,
                "a worker has panicked: its connections end, and it begins anew"
            );
            self.end_all();
            let mut pause = RENEWAL_PAUSE;
            let fresh = loop {
                thread::sleep(pause);
                match make() {
                    Ok(fresh) => break fresh,
                    Err(error) if self.is_to_stop() => return Err(error),
                    Err(error) => {
                        let worker = self.index;
                        tracing::error!(worker, %error, "the worker cannot begin yet");
                        pause = (2 * pause).min(RENEWAL_PAUSE_MAX);
                    }
                }
            };
            self.begin_anew(fresh);
            let after_ms = panicked.elapsed().as_millis() as u64;
            tracing::info!(worker = self.index, after_ms, "the worker serves again");
        }
    }

    /// Whether it is to stop. What has come for rooms and connections is dropped, so that no other
    /// worker waits for room in our mailbox; an upgrade waits for what it has ordered, and gives up.
    fn is_to_stop(&mut self) -> bool {
        let mail = self.mailboxes.take(self.index, true).into_iter().flatten();
        self.orders.extend(mail.filter_map(order_of));
        self.orders.iter().any(|order| matches!(order, Order::Stop(_)))
    }

    /// Ends what there was before.
    fn end_all(&mut self) {
        if let Some(moving) = self.moving.take() {
            moving.fail();
        }
        for key in self.conns.keys().collect::<Vec<_>>() {
            self.end(key);
        }
        self.conns.forget_ahead();
        self.shared = Default::default();
    }

    pub(super) fn begin_anew(&mut self, fresh: Dispatcher) {
        self.end_all();
        let before = mem::replace(&mut self.dispatcher, fresh);
        self.dispatcher.mode = match before.mode {
            // Whether another process owns the connections is said to us later, or again.
            Mode::Frozen(frozen) => Mode::Frozen(Frozen { broken: Vec::new(), ..frozen }),
            mode => mode,
        };
        self.dispatcher.now = Tick::from_elapsed(self.started.elapsed());
        self.wheel = Wheel::new(self.dispatcher.now);
        self.inflater = Inflater::default();
        self.receive = vec![0; RECEIVE_BYTES].into_boxed_slice();
        self.read_budget = READ_BUDGET;
        for list in [&mut self.dirty, &mut self.ready, &mut self.doomed] {
            list.clear();
        }
        self.due.clear();
        self.outboxes.iter_mut().for_each(VecDeque::clear);
        (self.congested, self.deliveries_wait) = (false, false);
        // epoll has told of those who wait, perhaps in the turn that has panicked.
        self.accept_ready = (0..self.listeners.len()).collect();
        (self.accept_after, self.accept_paused) = (Tick::START, false);
        self.orders.extend(self.inbox.drain(..).filter_map(order_of));
        if let Some(order) = self.deciding.take() {
            self.orders.push_front(order);
        }
        self.took_mail = true;
        self.mailboxes.renew(self.index);
    }

    /// Ends a connection. While frozen its socket may be another process's: it is only let go of, and
    /// the app is not told.
    fn end(&mut self, key: Key) {
        let Some(mut conn) = self.conns.remove(key) else {
            return;
        };
        self.memory.forget(key);
        self.accounts.leave(self.index);
        let is_frozen = self.dispatcher.mode.is_frozen();
        if self.shared.contains(key.index()) {
            // Otherwise our epoll would go on telling of it.
            let _ = conn.stream.deregister(self.poll.registry());
            if !is_frozen {
                let _ = conn.stream.shutdown();
            }
        }
        if is_frozen {
            conn.state = None;
        }
        // What has made us panic may do so again; then the middleware is yet to be told.
        let mut drop_one = || {
            catch_unwind(AssertUnwindSafe(|| self.dispatcher.on_dropped(&mut conn, key))).is_ok()
        };
        let _ = drop_one() || drop_one();
    }
}

fn order_of(parcel: Parcel) -> Option<Order> {
    match parcel {
        Parcel::Order(order) => Some(order),
        _ => None,
    }
}
