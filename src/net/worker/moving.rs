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
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::Worker;
use super::deal::Deal;
use super::sending::{Sending, Way};
use super::slots::Slots;
use crate::base::slab::Key;
use crate::hub::WorkerIndex;
use crate::net::lane::{DESCRIPTORS_MAX, KEYS_MAX, Packet};
use crate::net::order::{Order, Outlets, Report};
use crate::net::stop::Stop;
use crate::sys::packets;

/// Packets of descriptors sent a turn: some hundred microseconds in which nobody is served.
const COPY_BATCHES: usize = 2;

/// A handover under way.
#[derive(Debug)]
pub(super) struct Moving {
    pub(super) outlets: Outlets,
    /// The walk over the connections has come to this slot; `None` when it is done.
    cursor: Option<u32>,
    /// The lane of each connection: the same from its first packet to its last.
    deal: Deal,
    /// By slot: the descriptor has been sent.
    pub(super) sent: Slots,
    /// Keys whose descriptors are to be sent, and of connections that have ended, by lane.
    queues: Vec<LaneQueue>,
    /// The lane did not take a packet: it is tried again soon.
    pub(super) blocked: bool,
    /// Nothing is to be moved.
    rehearsal: bool,
    phase: Phase,
    /// States that are going out.
    sending: Option<Box<Sending>>,
    /// What was sent ahead, and when.
    #[cfg(debug_assertions)]
    pub(super) twin: std::collections::HashMap<Key, (crate::base::tick::Tick, Vec<u8>)>,
}

#[derive(Debug)]
enum Phase {
    /// Descriptors go out.
    // Next: Ahead
    Copying,
    /// States go out, of connections that have nothing to do.
    // Next: Levelling
    Ahead,
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

#[derive(Debug, Default)]
struct LaneQueue {
    opened: Vec<Key>,
    closed: Vec<Key>,
}

impl Moving {
    fn new(outlets: Outlets, worker: WorkerIndex, rehearsal: bool) -> Self {
        let queues = outlets.lanes.iter().map(|_| LaneQueue::default()).collect();
        Self {
            deal: Deal::new(outlets.lanes.len(), worker.into()),
            outlets,
            cursor: Some(0),
            sent: Slots::default(),
            queues,
            blocked: false,
            rehearsal,
            phase: Phase::Copying,
            sending: None,
            #[cfg(debug_assertions)]
            twin: Default::default(),
        }
    }

    fn begin_states(&mut self, phase: Phase, way: Way) {
        self.phase = phase;
        let (lanes, format) = (self.queues.len(), self.outlets.format);
        self.sending = Some(Box::new(Sending::new(way, lanes, format)));
    }

    pub(super) fn lane(&self, index: usize) -> &OwnedFd {
        &self.outlets.lanes[index]
    }

    /// The lane of a connection whose descriptor has been sent.
    pub(super) fn lane_of(&self, key: Key) -> usize {
        self.deal.lane_of(key.index()).expect("what is sent is dealt")
    }

    /// How many connections a lane has, or will have.
    pub(super) fn dealt_to(&self, lane: usize) -> u64 {
        self.deal.count(lane).into()
    }

    /// Everything that is known has been sent.
    fn is_level(&self) -> bool {
        let empty = |queue: &LaneQueue| queue.opened.is_empty() && queue.closed.is_empty();
        self.cursor.is_none() && self.queues.iter().all(empty)
    }

    /// Whether the worker must look again though nothing happens.
    pub(super) fn is_busy(&self) -> bool {
        match self.phase {
            Phase::Copying
            | Phase::Ahead
            | Phase::Levelling(_)
            | Phase::Freezing
            | Phase::Saving => true,
            Phase::Copied => !self.is_level(),
            Phase::Frozen | Phase::Saved => false,
        }
    }

    /// Whether there is no use in looking again at once.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// A connection was accepted.
    pub(super) fn opened(&mut self, key: Key) {
        // The walk meets those that are still ahead of it.
        let met = self.cursor.is_none_or(|cursor| key.index() < cursor);
        if met && !self.rehearsal {
            self.enqueue(key);
        }
    }

    /// Returns whether a packet has come together for its lane.
    fn enqueue(&mut self, key: Key) -> bool {
        let lane = self.deal.deal(key.index());
        let queue = &mut self.queues[lane].opened;
        queue.push(key);
        queue.len() >= DESCRIPTORS_MAX
    }

    /// A connection was dropped.
    pub(super) fn closed(&mut self, key: Key) {
        let lane = self.deal.give_back(key.index());
        if self.sent.remove(key.index())
            && let Some(lane) = lane
        {
            self.queues[lane].closed.push(key);
        }
    }
}

impl Worker {
    /// Carries out orders that have arrived, and goes on with what is under way. At the end of a
    /// turn, after the flush.
    pub(super) fn go_on_moving(&mut self) {
        while let Some(order) = self.orders.pop_front() {
            self.obey(order);
        }
        let Some(mut moving) = self.moving.take() else {
            return;
        };
        if let Err(error) = self.advance(&mut moving) {
            moving.outlets.reports.send((self.index, Report::Failed(error)));
        }
        self.moving = Some(moving);
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::PreCopy(outlets) => {
                self.moving = Some(Box::new(Moving::new(outlets, self.index, false)))
            }
            Order::Rehearse(outlets) => {
                let mut moving = Box::new(Moving::new(outlets, self.index, true));
                // No descriptors go out.
                moving.cursor = None;
                moving.begin_states(Phase::Saving, Way::Rehearse);
                self.moving = Some(moving);
            }
            Order::Stop(stop) => self.stop(stop),
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
            Order::Save => {
                // One of two: the states of the other arrive.
                #[cfg(feature = "fault-points")]
                if self.index == 1 {
                    crate::sys::fault::point("predecessor-saving");
                }
                #[cfg(debug_assertions)]
                self.in_phase(|worker, moving| worker.check_ahead(moving));
                self.in_phase(|_, moving| moving.begin_states(Phase::Saving, Way::Pause));
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
        !std::mem::take(&mut self.took_mail)
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
        moving.blocked = false;
        match &mut moving.phase {
            Phase::Copying | Phase::Copied => {
                for _ in 0..COPY_BATCHES {
                    self.send_batch(moving)?;
                }
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("predecessor-copying");
            }
            Phase::Levelling(told) => {
                while let Some(lane) = moving.outlets.lanes.get(*told) {
                    if !offer(lane, &Packet::Level { worker: self.index }, &[])? {
                        moving.blocked = true;
                        break;
                    }
                    *told += 1;
                }
            }
            Phase::Freezing => {
                self.send_deltas(moving)?;
            }
            Phase::Ahead | Phase::Saving => return self.advance_states(moving),
            Phase::Frozen | Phase::Saved => {}
        }
        self.report_phase(moving);
        Ok(())
    }

    fn advance_states(&mut self, moving: &mut Moving) -> io::Result<()> {
        let Some(mut sending) = moving.sending.take() else {
            return Ok(());
        };
        if !self.send_states(moving, &mut sending)? {
            moving.sending = Some(sending);
        } else if sending.way() == Way::Ahead {
            moving.phase = Phase::Levelling(0);
        } else {
            let (way, (written, kept)) = (sending.way(), sending.into_outcome());
            let connections = match way {
                Way::Pause => moving.deal.total(),
                Way::Ahead | Way::Rehearse => written,
            };
            tracing::debug!(worker = self.index, connections, written, "states sent");
            moving.phase = Phase::Saved;
            moving.report(self, Report::Saved { connections, kept });
        }
        Ok(())
    }

    /// Sends all that has come and gone; whether it is all out.
    pub(super) fn send_deltas(&mut self, moving: &mut Moving) -> io::Result<bool> {
        while !moving.is_level() && !moving.blocked {
            self.send_batch(moving)?;
        }
        Ok(moving.is_level())
    }

    /// Moves on to the next phase if the present one is over.
    fn report_phase(&mut self, moving: &mut Moving) {
        let level = moving.is_level();
        let (phase, report) = match &mut moving.phase {
            Phase::Copying if level => {
                moving.begin_states(Phase::Ahead, Way::Ahead);
                return;
            }
            Phase::Levelling(told) if *told == moving.outlets.lanes.len() => {
                (Phase::Copied, Report::Copied)
            }
            Phase::Freezing if level => (Phase::Frozen, Report::Frozen),
            _ => return,
        };
        moving.phase = phase;
        moving.report(self, report);
    }

    /// Sends at most one packet of each kind to each lane.
    fn send_batch(&mut self, moving: &mut Moving) -> io::Result<()> {
        self.walk(moving);
        for (queue, lane) in moving.queues.iter_mut().zip(moving.outlets.lanes.iter()) {
            // Ends first: a new connection may have the place of one that has ended.
            let count = queue.closed.len().min(KEYS_MAX);
            if count > 0 {
                let keys = queue.closed[..count].to_vec();
                if !offer(lane, &Packet::Closed { worker: self.index, keys }, &[])? {
                    moving.blocked = true;
                    continue;
                }
                queue.closed.drain(..count);
            }
            queue.opened.retain(|key| self.conns.contains(*key));
            let count = queue.opened.len().min(DESCRIPTORS_MAX);
            if count > 0 {
                let keys = queue.opened[..count].to_vec();
                let conns = keys.iter().filter_map(|key| self.conns.get(*key));
                let sockets: Vec<BorrowedFd<'_>> = conns.map(|conn| conn.stream.as_fd()).collect();
                if !offer(lane, &Packet::Descriptors { worker: self.index, keys }, &sockets)? {
                    moving.blocked = true;
                    continue;
                }
                for key in queue.opened.drain(..count) {
                    moving.sent.insert(key.index());
                    self.shared.insert(key.index());
                }
            }
        }
        Ok(())
    }

    /// Collects keys, up to a packet for some lane.
    fn walk(&self, moving: &mut Moving) {
        let has_packet = |queue: &LaneQueue| queue.opened.len() >= DESCRIPTORS_MAX;
        if moving.queues.iter().any(has_packet) {
            return;
        }
        while let Some(cursor) = moving.cursor {
            let key = self.conns.key_from(cursor);
            moving.cursor = key.and_then(|key| key.index().checked_add(1));
            if key.is_some_and(|key| moving.enqueue(key)) {
                return;
            }
        }
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
        self.thaw();
        self.stop(Stop::Drain(drain));
    }
}

impl Moving {
    fn report(&self, worker: &Worker, report: Report) {
        // Without a handover's thread the order to thaw is on its way.
        self.outlets.reports.send((worker.index, report));
    }
}

/// Sends a packet if the lane takes one.
pub(super) fn offer(
    lane: &OwnedFd,
    packet: &Packet,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<bool> {
    match packets::send(lane, &packet.encode(), descriptors, false) {
        Ok(()) => Ok(true),
        // Too much is under way, or too many descriptors; the successor is taking them.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::QuotaExceeded) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
