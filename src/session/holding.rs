//! The memory that a session keeps between two turns, and giving it up.

use std::time::Duration;

use crate::base::tick::Tick;
use crate::ws::{CloseCode, CloseFrame};

use super::{Closed, ClosedBy, Env, Event, Session, State};

/// The memory that a connection keeps from one turn to the next, apart from itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    /// Bytes of it that are the connection's alone: an unfinished message or head, what is parked,
    /// what waits to be written.
    pub owned: usize,
    /// Bytes that wait to be written and that other connections have as well.
    pub shared: usize,
    /// Bytes that have arrived of what is unfinished or parked.
    pub received: usize,
    /// Bytes that wait to be written.
    pub queued: usize,
}

impl Session {
    /// The memory that it keeps now. What lies in the turn's buffer is not among it.
    #[inline]
    pub fn holding(&self) -> Holding {
        let (partial, received) = match &self.state {
            State::Open(decoder) | State::Closing(decoder, _) => decoder.held(),
            State::Head(partial) => partial.held(),
            State::Deciding | State::Lingering { .. } | State::Done => (0, 0),
        };
        let (parked, parked_len) =
            self.parked.as_ref().map_or((0, 0), |parked| (parked.capacity(), parked.len()));
        let (owned, shared) = self.out.held();
        Holding {
            owned: partial + parked + owned,
            shared,
            received: received + parked_len,
            queued: self.out.len(),
        }
    }

    /// The caller has not read it for so long, although there was something to read: that nothing
    /// came, no pong either, is our doing.
    pub fn was_held_back(&mut self, time: Duration, now: Tick) {
        self.was_not_read(time);
        self.last_inbound = now;
        self.pinged = Tick::NEVER;
    }

    /// Ends the connection because the server needs the memory that it holds. What waits to be
    /// written is given up, and the peer is told why if its stream is not in the middle of a frame.
    pub fn shed(&mut self, env: &mut Env<'_>) -> Option<Event<'static>> {
        let frame = CloseFrame::new(CloseCode::POLICY, "the server is short of memory");
        let was_open = self.is_open();
        if self.out.give_up() && was_open {
            return Some(self.fail_with(frame, env));
        }
        let CloseFrame { code, reason } = frame;
        let lost = self.lost()?;
        let by_us = Event::Closed(Closed { code: Some(code), reason, by: ClosedBy::Us });
        Some(if was_open { by_us } else { lost })
    }
}
