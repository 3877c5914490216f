//! How a worker of the predecessor sends over the lanes: which connection goes to which of them, and
//! the descriptors. The states are sent by [`sending`](super::sending).

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};

use super::Worker;
use super::deal::Deal;
use super::slots::Slots;
use crate::base::shared::Bodies;
use crate::base::slab::Key;
use crate::hub::WorkerIndex;
use crate::net::lane::{DESCRIPTORS_MAX, KEYS_MAX, Packet};
use crate::net::order::Outlets;
use crate::sys::packets;

/// What goes out over the lanes, and what has.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) outlets: Outlets,
    /// The walk over the connections has come to this slot; `None` when it is done.
    cursor: Option<u32>,
    /// The lane of each connection: the same from its first packet to its last.
    deal: Deal,
    /// By slot: the descriptor has been sent.
    pub(super) sent: Slots,
    /// Keys whose descriptors are to be sent, and of connections that have ended, by lane.
    queues: Vec<LaneQueue>,
    /// The bodies that the states sent so far have named, by lane.
    pub(super) bodies: Vec<Bodies>,
    /// The lane did not take a packet: it is tried again soon.
    pub(super) blocked: bool,
    /// No descriptors are sent.
    rehearsal: bool,
    /// What was sent ahead, and when.
    #[cfg(debug_assertions)]
    pub(super) twin: std::collections::HashMap<Key, (crate::base::tick::Tick, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct LaneQueue {
    opened: Vec<Key>,
    closed: Vec<Key>,
}

impl Outbound {
    pub(super) fn new(outlets: Outlets, worker: WorkerIndex, rehearsal: bool) -> Self {
        let queues: Vec<_> = outlets.lanes.iter().map(|_| LaneQueue::default()).collect();
        Self {
            deal: Deal::new(outlets.lanes.len(), worker.into()),
            outlets,
            cursor: if rehearsal { None } else { Some(0) },
            sent: Slots::default(),
            bodies: vec![Bodies::default(); queues.len()],
            queues,
            blocked: false,
            rehearsal,
            #[cfg(debug_assertions)]
            twin: Default::default(),
        }
    }

    /// How many lanes there are.
    pub(super) fn lanes(&self) -> usize {
        self.outlets.lanes.len()
    }

    /// The lane of a connection whose descriptor has been sent.
    pub(super) fn lane_of(&self, key: Key) -> usize {
        self.deal.lane_of(key.index()).expect("what is sent is dealt")
    }

    /// How many connections a lane has, or will have.
    pub(super) fn dealt_to(&self, lane: usize) -> u64 {
        self.deal.count(lane).into()
    }

    /// How many connections all lanes have.
    pub(super) fn dealt(&self) -> usize {
        self.deal.total()
    }

    /// Every descriptor and every end that is known has been sent.
    pub(super) fn is_level(&self) -> bool {
        let empty = |queue: &LaneQueue| queue.opened.is_empty() && queue.closed.is_empty();
        self.cursor.is_none() && self.queues.iter().all(empty)
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

    /// Sends a packet if the lane takes one; it is blocked otherwise.
    pub(super) fn offer(
        &mut self,
        lane: usize,
        packet: &Packet,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<bool> {
        match packets::send(&self.outlets.lanes[lane], &packet.encode(), descriptors, false) {
            Ok(()) => Ok(true),
            // Too much is under way, or too many descriptors; the successor is taking them.
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::QuotaExceeded) =>
            {
                self.blocked = true;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl Worker {
    /// Sends all that has come and gone; whether it is all out.
    pub(super) fn send_deltas(&mut self, out: &mut Outbound) -> io::Result<bool> {
        while !out.is_level() && !out.blocked {
            self.send_batch(out)?;
        }
        Ok(out.is_level())
    }

    /// Sends at most one packet of each kind to each lane.
    pub(super) fn send_batch(&mut self, out: &mut Outbound) -> io::Result<()> {
        self.walk(out);
        for lane in 0..out.lanes() {
            // Ends first: a new connection may have the place of one that has ended.
            let queue = &mut out.queues[lane];
            let count = queue.closed.len().min(KEYS_MAX);
            if count > 0 {
                let keys = queue.closed[..count].to_vec();
                if !out.offer(lane, &Packet::Closed { worker: self.index, keys }, &[])? {
                    continue;
                }
                out.queues[lane].closed.drain(..count);
            }
            let queue = &mut out.queues[lane];
            queue.opened.retain(|key| self.conns.contains(*key));
            let count = queue.opened.len().min(DESCRIPTORS_MAX);
            if count > 0 {
                let keys = queue.opened[..count].to_vec();
                let conns = keys.iter().filter_map(|key| self.conns.get(*key));
                let sockets: Vec<BorrowedFd<'_>> = conns.map(|conn| conn.stream.as_fd()).collect();
                if !out.offer(lane, &Packet::Descriptors { worker: self.index, keys }, &sockets)? {
                    continue;
                }
                for key in out.queues[lane].opened.drain(..count) {
                    out.sent.insert(key.index());
                    self.shared.insert(key.index());
                }
            }
        }
        Ok(())
    }

    /// Collects keys, up to a packet for some lane.
    fn walk(&self, out: &mut Outbound) {
        let has_packet = |queue: &LaneQueue| queue.opened.len() >= DESCRIPTORS_MAX;
        if out.queues.iter().any(has_packet) {
            return;
        }
        while let Some(cursor) = out.cursor {
            let key = self.conns.key_from(cursor);
            out.cursor = key.and_then(|key| key.index().checked_add(1));
            if key.is_some_and(|key| out.enqueue(key)) {
                return;
            }
        }
    }
}
