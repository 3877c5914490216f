//! Stopping, by and by or at once.

use super::{Worker, mark};
use crate::net::stop::{Stop, Stopping};

impl Worker {
    pub(super) fn stop(&mut self, how: Stop) {
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

    pub(super) fn go_on_stopping(&mut self) {
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

    pub(super) fn has_stopped(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| {
            let timeouts = self.dispatcher.routes.iter().map(|route| route.limits.close_timeout);
            // The last connection of all, not of this worker: rooms have their home here.
            let nobody_left = self.accounts.connections() == 0 && self.listeners.is_empty();
            let overdue = stopping.until(timeouts.max().unwrap_or_default()) <= self.dispatcher.now;
            overdue || (stopping.all_told() && nobody_left)
        })
    }
}
