//! When time itself ends something, and what is done then.
//!
//! No state lasts for ever while a peer is silent, slow, or takes nothing:
//!
//! | state | ends |
//! |---|---|
//! | Head, Deciding | after `head.handshake_timeout`, however slowly bytes come |
//! | Open, and idle | with no sign of life, by ping and `pong_timeout`; by choice, `idle_timeout` |
//! | Open, in a message or frame | after [`MESSAGE_GRACE`] and its size at `progress_rate_min` |
//! | Open, with bytes that wait | `write_timeout` after the socket last took one |
//! | Closing, Lingering | after `close_timeout`, whatever comes or goes |
//! | Done | with the next flush |
//!
//! While reading is paused, bytes wait: the ping is put off, and the write time-out holds.

use std::time::Duration;

use super::{Env, Event, Session, State};
use crate::base::limits::Limits;
use crate::base::tick::Tick;
use crate::ws::{CloseCode, CloseFrame, Unfinished};

/// Time that every message has, whatever its size: a peer may well lose its network for a moment.
pub const MESSAGE_GRACE: Duration = Duration::from_secs(60);

/// When a message or frame must be complete that has come so far.
fn due(unfinished: &Unfinished, limits: &Limits) -> Tick {
    let sent_in = unfinished.received as u64 * 1_000 / limits.progress_rate_min.max(1) as u64;
    unfinished.begun.after(MESSAGE_GRACE + Duration::from_millis(sent_in))
}

impl Session {
    /// When [`on_deadline`](Self::on_deadline) has to be called at the latest.
    pub fn deadline(&self, limits: &Limits) -> Tick {
        if !self.is_open() {
            return self.deadline;
        }
        let ping = match limits.ping_interval {
            _ if self.pinged != Tick::NEVER => self.pong_deadline(limits),
            Some(interval) => self.last_inbound.after(interval),
            None => Tick::NEVER,
        };
        let idle = limits.idle_timeout.map_or(Tick::NEVER, |idle| self.last_message.after(idle));
        ping.min(idle).min(self.message_deadline(limits)).min(self.write_deadline(limits))
    }

    /// Whether a deadline holds that may be earlier than those of an open connection without
    /// anything under way.
    pub fn is_under_way(&self) -> bool {
        self.out.is_blocked() || self.unfinished().is_some()
    }

    fn pong_deadline(&self, limits: &Limits) -> Tick {
        self.pinged.max(self.last_outbound).after(limits.pong_timeout)
    }

    fn message_deadline(&self, limits: &Limits) -> Tick {
        match self.unfinished() {
            Some(unfinished) if !self.paused => due(&unfinished, limits),
            _ => Tick::NEVER,
        }
    }

    fn write_deadline(&self, limits: &Limits) -> Tick {
        match limits.write_timeout {
            Some(time) if self.out.is_blocked() => self.last_outbound.after(time),
            _ => Tick::NEVER,
        }
    }

    /// Whether the socket has taken nothing of what waits for too long. To be asked after an attempt
    /// to write: a socket whose buffer is nearly full may have room without telling so.
    pub fn is_stalled(&self, limits: &Limits, now: Tick) -> bool {
        self.is_open() && self.write_deadline(limits) <= now
    }

    /// Time has passed; does what has become due, which may be nothing.
    pub fn on_deadline(&mut self, env: &mut Env<'_>) -> Option<Event<'static>> {
        if self.deadline(env.limits) > env.now {
            return None;
        }
        match &self.state {
            State::Open(_) => self.on_open_deadline(env),
            State::Head(partial) if !partial.is_silent() => {
                self.state = State::Deciding;
                Some(Event::Overdue { head_complete: false })
            }
            State::Deciding => Some(Event::Overdue { head_complete: true }),
            _ => self.lost(),
        }
    }

    fn on_open_deadline(&mut self, env: &mut Env<'_>) -> Option<Event<'static>> {
        if self.is_stalled(env.limits, env.now) {
            return self.lost();
        }
        let idle = env.limits.idle_timeout;
        if idle.is_some_and(|idle| self.last_message.after(idle) <= env.now) {
            return Some(self.fail_with(CloseFrame::new(CloseCode::GOING_AWAY, "idle"), env));
        }
        if self.message_deadline(env.limits) <= env.now {
            let frame = CloseFrame::new(CloseCode::POLICY, "message too slow");
            return Some(self.fail_with(frame, env));
        }
        if self.pinged == Tick::NEVER {
            // What has brought us here may be none of the ping's business.
            let due = env.limits.ping_interval.map(|interval| self.last_inbound.after(interval));
            if due.is_some_and(|due| due <= env.now) {
                self.pinged = env.now;
                self.ping(&[], env);
            }
            return None;
        }
        if self.pong_deadline(env.limits) > env.now {
            return None;
        }
        if self.paused {
            // We do not read, so its pong may well be there.
            self.pinged = env.now;
            return None;
        }
        self.lost()
    }
}
