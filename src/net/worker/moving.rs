//! The predecessor's half of a handover, in one worker.
//!
//! ```text
//! PreCopy ─► descriptors, then states go out, some a turn, while everybody
//!            is served                                                    ─► Copied
//! Freeze  ─► nothing is read, written, accepted any more; the last deltas  ─► Frozen
//! Settle  ─► mail that was under way lands in the out queues               ─► Settled, until idle
//! Save    ─► the states that have changed since, in memory handed over     ─► Saved
//! Release ─► what has moved is given up       or  Thaw ─► as if nothing had happened
//! ```
//!
//! Orders come through the mailbox and are carried out at the end of a turn, after the flush; so
//! nothing lies in the turn's buffer then.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::mem;
use std::thread;
use std::time::Duration;

use super::Worker;
use super::outbound::Outbound;
use super::sending::{Sending, Way};
use crate::base::slab::Key;
use crate::hub::WorkerIndex;
use crate::net::lane::Packet;
use crate::net::order::{Order, Report};
use crate::net::stop::Stop;

/// Packets of descriptors sent a turn: some hundred microseconds in which nobody is served.
const COPY_BATCHES: usize = 2;

/// Rounds in which more of unfinished messages and of queues is sent ahead. Each is as long as what
/// came during the one before takes to send, so that a few do, unless a peer is faster than we copy:
/// what is left then counts in the pause.
const ROUNDS_MAX: u32 = 16;

/// A handover under way.
#[derive(Debug)]
pub(super) struct Moving {
    worker: WorkerIndex,
    pub(super) out: Outbound,
    phase: Phase,
    /// States that are going out.
    sending: Option<Box<Sending>>,
}

#[derive(Debug)]
enum Phase {
    /// Descriptors go out.
    // Next: Ahead
    Copying,
    /// States go out, of connections that have nothing to do, and the bytes of unfinished messages and
    /// of queues: in this round.
    // Next: Ahead, Levelling
    Ahead(u32),
    /// All are out, which the lanes from this one on have not been told yet.
    // Next: Copied
    Levelling(usize),
    /// All are out; what comes and goes is reported.
    // Next: Freezing
    Copied,
    /// Frozen; the last deltas go out.
    // Next: Frozen
    Freezing,
    /// Nothing happens any more.
    // Next: Saving
    Frozen,
    /// States go out.
    // Next: Saved
    Saving,
    /// All are out.
    Saved,
}

impl Moving {
    fn new(out: Outbound, worker: WorkerIndex) -> Self {
        Self { worker, out, phase: Phase::Copying, sending: None }
    }

    fn begin_states(&mut self, phase: Phase, way: Way) {
        self.phase = phase;
        let bodies = mem::take(&mut self.out.bodies);
        self.sending = Some(Box::new(Sending::new(way, bodies, self.out.outlets.format)));
    }

    /// Whether the worker must look again though nothing happens.
    pub(super) fn is_busy(&self) -> bool {
        match self.phase {
            Phase::Copying
            | Phase::Ahead(_)
            | Phase::Levelling(_)
            | Phase::Freezing
            | Phase::Saving => true,
            Phase::Copied => !self.out.is_level(),
            Phase::Frozen | Phase::Saved => false,
        }
    }

    /// Whether there is no use in looking again at once.
    pub(super) fn is_blocked(&self) -> bool {
        self.out.blocked
    }
}

impl Worker {
    /// Carries out orders that have arrived, and goes on with what is under way. At the end of a
    /// turn, after the flush.
    pub(super) fn go_on_moving(&mut self) {
        while let Some(order) = self.orders.pop_front() {
            self.deciding = order.decides().then(|| order.clone());
            self.obey(order);
            self.deciding = None;
        }
        let Some(mut moving) = self.moving.take() else {
            return;
        };
        if let Err(error) = self.advance(&mut moving) {
            moving.out.outlets.reports.send((self.index, Report::Failed(error)));
        }
        self.moving = Some(moving);
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::PreCopy(outlets) => {
                let out = Outbound::new(outlets, self.index, false);
                self.moving = Some(Box::new(Moving::new(out, self.index)));
            }
            Order::Rehearse(outlets) => {
                let out = Outbound::new(outlets, self.index, true);
                let mut moving = Box::new(Moving::new(out, self.index));
                moving.begin_states(Phase::Saving, Way::Rehearse);
                self.moving = Some(moving);
            }
            Order::Stop(stop) => self.stop(stop),
            Order::Leave => self.leave(),
            Order::Freeze if self.dispatcher.mode.is_stopping() => {
                self.in_phase(|worker, moving| {
                    let error = io::Error::other("the server is stopping");
                    moving.report(worker, Report::Failed(error));
                });
            }
            Order::Freeze => {
                self.freeze();
                self.in_phase(|_, moving| moving.phase = Phase::Freezing);
            }
            Order::Settle => {
                let idle = self.is_idle();
                self.in_phase(|worker, moving| moving.report(worker, Report::Settled { idle }));
            }
            Order::Save { pause_max } => {
                // One of two: the states of the other arrive.
                #[cfg(feature = "fault-points")]
                if self.index == 1 {
                    crate::sys::fault::point("predecessor-saving");
                }
                #[cfg(debug_assertions)]
                self.in_phase(|worker, moving| worker.check_ahead(&moving.out));
                self.in_phase(|_, moving| {
                    moving.begin_states(Phase::Saving, Way::Pause(pause_max));
                });
            }
            Order::Thaw => {
                self.moving = None;
                self.conns.forget_ahead();
                self.thaw();
            }
            Order::Release { kept, drain } => self.release(&kept, drain),
        }
    }

    /// Whether no mail has come since this was last asked, and none waits: neither to go out nor,
    /// while our own deliveries found no room, in our mailbox.
    pub(super) fn is_idle(&mut self) -> bool {
        !mem::take(&mut self.took_mail)
            && self.outboxes.iter().all(VecDeque::is_empty)
            && !self.mailboxes.has_mail(self.index)
    }

    fn in_phase(&mut self, act: impl FnOnce(&mut Self, &mut Moving)) {
        if let Some(mut moving) = self.moving.take() {
            act(self, &mut moving);
            self.moving = Some(moving);
        }
    }

    fn advance(&mut self, moving: &mut Moving) -> io::Result<()> {
        moving.out.blocked = false;
        match &mut moving.phase {
            Phase::Copying | Phase::Copied => {
                for _ in 0..COPY_BATCHES {
                    self.send_batch(&mut moving.out)?;
                }
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("predecessor-copying");
            }
            Phase::Levelling(told) => {
                let level = Packet::Level { worker: self.index };
                while *told < moving.out.lanes() && moving.out.offer(*told, &level, &[])? {
                    *told += 1;
                }
            }
            Phase::Freezing => {
                self.send_deltas(&mut moving.out)?;
            }
            Phase::Ahead(_) | Phase::Saving => return self.advance_states(moving),
            Phase::Frozen | Phase::Saved => {}
        }
        self.report_phase(moving);
        Ok(())
    }

    fn advance_states(&mut self, moving: &mut Moving) -> io::Result<()> {
        let Some(mut sending) = moving.sending.take() else {
            return Ok(());
        };
        if !self.send_states(&mut moving.out, &mut sending)? {
            moving.sending = Some(sending);
            return Ok(());
        }
        let (way, wrote_much) = (sending.way(), sending.wrote_much());
        let (written, kept, bodies) = sending.into_outcome();
        moving.out.bodies = bodies;
        if let Phase::Ahead(round) = moving.phase {
            if wrote_much && round < ROUNDS_MAX {
                moving.begin_states(Phase::Ahead(round + 1), Way::Again);
            } else {
                moving.phase = Phase::Levelling(0);
            }
            return Ok(());
        }
        let connections = if way.is_pause() { moving.out.dealt() } else { written };
        tracing::debug!(worker = self.index, connections, written, "states sent");
        moving.phase = Phase::Saved;
        moving.report(self, Report::Saved { connections, kept });
        Ok(())
    }

    /// Moves on to the next phase if the present one is over.
    fn report_phase(&mut self, moving: &mut Moving) {
        let level = moving.out.is_level();
        let (phase, report) = match &mut moving.phase {
            Phase::Copying if level => {
                moving.begin_states(Phase::Ahead(1), Way::Ahead);
                return;
            }
            Phase::Levelling(told) if *told == moving.out.lanes() => {
                (Phase::Copied, Report::Copied)
            }
            Phase::Freezing if level => (Phase::Frozen, Report::Frozen),
            _ => return,
        };
        moving.phase = phase;
        moving.report(self, report);
    }

    /// Gives up what has moved, without a word to anybody: the successor speaks for it now.
    fn release(&mut self, kept: &[Key], drain: Duration) {
        self.moving = None;
        self.close_listeners();
        let kept: HashSet<Key> = kept.iter().copied().collect();
        for key in self.conns.keys().collect::<Vec<_>>() {
            if kept.contains(&key) {
                continue;
            }
            if let Some(mut conn) = self.conns.remove(key) {
                let window = conn.session.deflate_window(self.dispatcher.turn.role());
                self.dispatcher.hub.leave_all(&mut conn.memberships, window, &mut |_, _| {});
                // epoll watches what the descriptor stands for, which lives on in the successor.
                let _ = conn.stream.deregister(self.poll.registry());
                self.accounts.leave(self.index);
            }
        }
        #[cfg(feature = "fault-points")]
        crate::sys::fault::point(&format!("predecessor-releasing-{}", self.index));
        self.thaw();
        self.stop(Stop::drain(drain));
    }
}

/// The handover's thread waits for this worker.
impl Drop for Moving {
    fn drop(&mut self) {
        if thread::panicking() {
            self.fail();
        }
    }
}

impl Moving {
    /// The worker has panicked: whatever it was asked for does not come.
    pub(super) fn fail(&self) {
        let report = Report::Failed(io::Error::other("a worker panicked"));
        self.out.outlets.reports.send((self.worker, report));
    }

    fn report(&self, worker: &Worker, report: Report) {
        // Without a handover's thread the order to thaw is on its way.
        self.out.outlets.reports.send((worker.index, report));
    }
}
