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
                return;
            }
            Mode::Stopping(stopping) if stopping.how() == Stop::Fast => return,
            Mode::Stopping(_) => {}
            Mode::Serving => {
                for listener in &self.listeners {
                    if let Err(error) = listener.drop_new_connections() {
                        tracing::warn!(%error, "new connections may be reset when the listener closes");
                    }
                }
            }
        }
        let stopping = Stopping::new(how, self.dispatcher.now, self.conns.keys().collect());
        self.dispatcher.mode = Mode::Stopping(stopping);
    }

    pub(super) fn go_on_stopping(&mut self) {
        let Mode::Stopping(stopping) = &mut self.dispatcher.mode else {
            return;
        };
        let (now, frame) = (self.dispatcher.now, stopping.close_frame());
        let listeners_until = stopping.listeners_until();
        let due = stopping.due(now).to_vec();
        if !self.listeners.is_empty() && now >= listeners_until {
            // To close a listener resets what waits there. Without room for it the listeners stay:
            // each connection that is closed meanwhile makes some.
            let mut emptied = true;
            for index in 0..self.listeners.len() {
                emptied &= self.accept_all(index);
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
        let timeouts = self.dispatcher.routes.iter().map(|route| route.limits.close_timeout);
        // The last connection of all, not of this worker: rooms have their home here.
        let nobody_left = self.accounts.connections() == 0 && self.listeners.is_empty();
        let overdue = stopping.until(timeouts.max().unwrap_or_default()) <= self.dispatcher.now;
        overdue || (stopping.all_told() && nobody_left)
    }
}
