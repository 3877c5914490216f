//! Into a freeze, and out of it. See [`Mode`].

use std::mem;

use super::{Worker, mark};
use crate::net::mode::{Frozen, Mode};
use crate::net::order::Order;
use crate::session::holding::Holding;

impl Worker {
    /// From now on no socket is touched.
    pub(super) fn freeze(&mut self) {
        if !self.dispatcher.mode.is_frozen() {
            self.dispatcher.mode =
                Mode::Frozen(Frozen { since: self.dispatcher.now, ..Frozen::default() });
            self.took_mail = false;
        }
    }

    /// The connections are ours, again or from now on. What epoll has told meanwhile was noted; it
    /// knows nothing of what was read and not decoded, nor of what waits to be written.
    pub(super) fn thaw(&mut self) {
        let frozen = match mem::take(&mut self.dispatcher.mode) {
            Mode::Frozen(frozen) => frozen,
            other => {
                self.dispatcher.mode = other;
                return;
            }
        };
        if let Some(stop) = frozen.stop {
            // In this turn, or after a panic.
            self.orders.push_front(Order::Stop(stop));
        }
        self.conns.forget_heard();
        let time = self.dispatcher.now.since(frozen.since);
        for (key, conn) in self.conns.iter_mut() {
            conn.session.was_frozen(time);
            let is_at_rest = conn.session.is_at_rest() && !conn.flags.unread;
            if !is_at_rest {
                mark(&mut conn.flags.ready, &mut self.ready, key);
            }
            // At the end of the turn, when all are served, what it holds is noted.
            if !is_at_rest || conn.session.holding() != Holding::default() {
                mark(&mut conn.flags.dirty, &mut self.dirty, key);
            }
        }
        frozen.broken.iter().for_each(|&key| self.lost_if_unread(key));
    }
}
