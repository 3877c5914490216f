//! Stopping, by and by or at once.

use super::{Worker, mark};
use crate::net::mode::Mode;
use crate::net::stop::{Stop, Stopping};

impl Worker {
    pub(super) fn stop(&mut self, how: Stop) {
        match &mut self.dispatcher.mode {
            // Its sockets may be another process's: first it has to know.
            Mode::Frozen(frozen) => {
                if frozen.stop != Some(Stop::Fast) {
                    frozen.stop = Some(how);
                }
            }
            Mode::Stopping(stopping) if stopping.how() == Stop::Fast || stopping.is_leaving() => {}
            Mode::Stopping(_) | Mode::Serving => {
                self.dispatcher.mode = Mode::Stopping(Stopping::new(how, self.dispatcher.now));
            }
        }
    }

    /// Nobody comes any more.
    pub(super) fn leave(&mut self) {
        if let Mode::Stopping(stopping) = &mut self.dispatcher.mode {
            stopping.leave(self.dispatcher.now);
        }
    }

    pub(super) fn go_on_stopping(&mut self) {
        let Mode::Stopping(stopping) = &mut self.dispatcher.mode else {
            return;
        };
        let now = self.dispatcher.now;
        if stopping.ends_grace(now) {
            stopping.close(self.conns.keys().collect());
        }
        let frame = stopping.close_frame();
        let due = stopping.due(now).to_vec();
        let timeouts = self.dispatcher.routes.iter().map(|route| route.limits.close_timeout);
        let close_timeout = timeouts.max().unwrap_or_default();
        if stopping.is_through(now, close_timeout, |key| self.conns.contains(key)) {
            self.accounts.set_through(self.index);
            if self.accounts.are_all_through() {
                stopping.may_leave(now);
            }
        }
        if stopping.has_settled(now) && !self.listeners.is_empty() {
            // To close a listener resets what waits there. Without room for it the listeners stay:
            // each connection that is closed meanwhile makes some.
            let mut emptied = true;
            for index in 0..self.listeners.len() {
                emptied &= self.empty(index);
            }
            if emptied {
                self.close_listeners();
            }
        }
        for key in due {
            if let Some(conn) = self.conns.get_mut(key) {
                self.dispatcher.stop(conn, frame.clone());
                mark(&mut conn.flags.dirty, &mut self.dirty, key);
            }
        }
    }

    /// Gives the listeners up. Another process may go on listening on the same sockets, of which
    /// our epoll would go on telling: it watches what a descriptor stands for.
    pub(super) fn close_listeners(&mut self) {
        for mut listener in self.listeners.drain(..) {
            let _ = listener.deregister(self.poll.registry());
        }
        self.accept_ready.clear();
    }

    pub(super) fn has_stopped(&self) -> bool {
        let Mode::Stopping(stopping) = &self.dispatcher.mode else {
            return false;
        };
        let nobody_left = self.conns.is_empty() && self.listeners.is_empty();
        stopping.is_leaving() && (nobody_left || stopping.is_over(self.dispatcher.now))
    }
}
