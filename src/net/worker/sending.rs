//! How a worker of the predecessor sends the states of its connections: some at a time, in one of
//! four ways.
//!
//! ```text
//! Ahead     while everybody is served, behind the descriptors: open connections that nobody
//!           changes, what has come of unfinished messages, and what waits in out queues
//! Again     what has come of those since
//! Pause     frozen: those that have had anything to do since, or were not sent ahead
//! Rehearse  while everybody is served: all, to see whether they would load
//! ```
//!
//! It is what live migration of virtual machines does with memory: a connection that has nothing to
//! do costs the pause next to nothing, however many there are, and one that has costs it what has
//! changed. [`Conns`] knows which had.

use std::collections::VecDeque;
use std::fs::File;
use std::hint;
use std::io::{self, Write};
use std::iter;
use std::mem;
use std::os::fd::AsFd;
use std::time::Duration;

use super::Worker;
use super::conns::Conns;
use super::outbound::Outbound;
use super::slots::Slots;
use crate::base::format::Format;
use crate::base::shared::Bodies;
use crate::base::slab::Key;
use crate::base::text::cut_reason;
use crate::base::tick::Tick;
use crate::hub::WorkerIndex;
use crate::net::connection::Connection;
use crate::net::lane::{Packet, Part};
use crate::net::states::States;
use crate::sys::{clock, memory};

/// Connections looked at a turn while everybody is served: a third of a microsecond each, so some
/// fifty in all.
const TURN_CONNECTIONS: u32 = 128;

/// Bytes of states after which a turn has done its share, some fifty microseconds of copying. A
/// single state may have more; it is not cut.
const TURN_BYTES: usize = 256 * 1024;

/// Connections and bytes after which a packet goes out: the successor loads it while the next one
/// is written. One more costs both sides together some thirty microseconds.
const PACKET_CONNECTIONS: u64 = 1_024;
const PACKET_BYTES: usize = 1024 * 1024;

/// Bytes of an unfinished message that are worth going ahead: some hundred less are saved with the
/// connection at no cost to speak of.
const BYTES_AHEAD_MIN: usize = 512;

/// Bytes that a round may still have had to send when the freeze may come: as many again are left
/// for the pause, of which each million costs it about a millisecond.
const ROUND_BYTES_FEW: usize = 1024 * 1024;

/// Bytes of states that a worker saves and the successor loads in a millisecond of the pause, on a
/// machine that copies slowly. Half of the pause is for that.
const PAUSE_BYTES_PER_MS: usize = 256 * 1024;

/// Connections that have no more than this are saved whatever the others have had.
const SMALL_BYTES: usize = 4 * 1024;

/// In the pause, connections whose memory is fetched at once before they are saved or loaded: what
/// they hold lies far apart and has not been used for a while.
pub(super) const FETCHED_TOGETHER: usize = 16;

/// Which states are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Ahead,
    Again,
    /// The pause may take so long.
    Pause(Duration),
    Rehearse,
}

impl Way {
    pub(super) fn is_pause(self) -> bool {
        matches!(self, Self::Pause(_))
    }

    /// What its packets are, but the last ones of a walk.
    fn part(self) -> Part {
        match self {
            Self::Ahead | Self::Again => Part::Ahead,
            Self::Pause(_) | Self::Rehearse => Part::More,
        }
    }
}

/// States on their way.
#[derive(Debug)]
pub(super) struct Sending {
    way: Way,
    /// The walk has come to this slot; `None` when it is done.
    cursor: Option<u32>,
    /// In the pause: the connections below this slot have been fetched.
    fetched: u32,
    /// What is coming together for a packet, by lane.
    batches: Vec<Batch>,
    packets: VecDeque<StatesPacket>,
    /// The walk is over: the lane whose rest is next to become a packet. One after the other, for
    /// each has a descriptor until it is sent.
    sealing: Option<usize>,
    /// In a rehearsal: the lane of the batch that is filled, for nothing is dealt.
    lane: usize,
    /// How many were written.
    connections: usize,
    /// Bytes of unfinished messages and of queues that were written.
    bytes: usize,
    /// The connection whose message takes more than one turn, and how much of it is to go.
    long: Option<(Key, usize)>,
    /// Bytes that may still be written.
    left: usize,
    /// Connections that cannot be moved, and why.
    kept: Vec<(Key, String)>,
}

#[derive(Debug)]
struct Batch {
    states: States,
    /// When they were saved, by both clocks: all in one tick, for all points in time among them are
    /// relative to it.
    saved: Option<(Tick, u64)>,
}

#[derive(Debug)]
struct StatesPacket {
    lane: usize,
    packet: Packet,
    memory: File,
}

impl Sending {
    /// `bodies` are those that the states before these have named, by lane.
    pub(super) fn new(way: Way, bodies: Vec<Bodies>, format: Format) -> Self {
        let left = match way {
            Way::Pause(max) => (max / 2).as_millis() as usize * PAUSE_BYTES_PER_MS,
            Way::Ahead | Way::Again | Way::Rehearse => usize::MAX,
        };
        Self {
            way,
            cursor: Some(0),
            fetched: 0,
            batches: bodies.into_iter().map(|bodies| Batch::new(bodies, format)).collect(),
            packets: VecDeque::new(),
            sealing: None,
            lane: 0,
            connections: 0,
            bytes: 0,
            long: None,
            left,
            kept: Vec::new(),
        }
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// Whether it is worthwhile to look for more at once.
    pub(super) fn wrote_much(&self) -> bool {
        self.bytes > ROUND_BYTES_FEW
    }

    /// How many were written; those that cannot be moved, and why; the bodies that have been named.
    pub(super) fn into_outcome(self) -> (usize, Vec<(Key, String)>, Vec<Bodies>) {
        let bodies = self.batches.into_iter().map(|batch| batch.states.into_bodies());
        (self.connections, self.kept, bodies.collect())
    }

    /// The next connection to be looked at.
    fn next(&mut self, conns: &Conns, sent: &Slots) -> Option<Key> {
        if let Some((key, _)) = self.long {
            return Some(key);
        }
        let cursor = self.cursor?;
        let key = match self.way {
            Way::Ahead | Way::Again | Way::Rehearse => conns.key_from(cursor),
            Way::Pause(_) => {
                if cursor >= self.fetched {
                    let mut slot = cursor;
                    let keys = iter::from_fn(|| {
                        let key = conns.changed_from(slot, sent)?;
                        slot = key.index().saturating_add(1);
                        Some(key)
                    });
                    let conns = keys.filter_map(|key| conns.get(key));
                    fetch(conns.map(|conn| conn.session.not_ahead()));
                    self.fetched = slot;
                }
                conns.changed_from(cursor, sent)
            }
        };
        self.cursor = key.and_then(|key| key.index().checked_add(1));
        key
    }

    /// Makes a packet of what has come together for a lane.
    fn seal(&mut self, worker: WorkerIndex, lane: usize, part: Part) -> io::Result<()> {
        let batch = &mut self.batches[lane];
        let (_, saved_ns) = batch.saved.unwrap_or_default();
        let connections = batch.states.connections();
        let packet = Packet::States { worker, connections, saved_ns, part };
        let memory = write_memory(&mut batch.states)?;
        let format = batch.states.format();
        let sealed = mem::replace(&mut batch.states, States::new(format));
        *batch = Batch::new(sealed.into_bodies(), format);
        self.packets.push_back(StatesPacket { lane, packet, memory });
        Ok(())
    }

    /// Nothing more comes for a lane: what is left becomes a packet.
    fn seal_last(&mut self, worker: WorkerIndex, lane: usize, out: &Outbound) -> io::Result<()> {
        let part = match self.way {
            Way::Ahead | Way::Again if self.batches[lane].is_empty() => return Ok(()),
            Way::Ahead | Way::Again => Part::Ahead,
            Way::Pause(_) => Part::Last { connections: out.dealt_to(lane) },
            Way::Rehearse => Part::Last { connections: 0 },
        };
        self.seal(worker, lane, part)
    }
}

impl Batch {
    fn new(bodies: Bodies, format: Format) -> Self {
        Self { states: States::after(bodies, format), saved: None }
    }

    fn is_empty(&self) -> bool {
        self.saved.is_none()
    }

    fn is_full(&self) -> bool {
        self.states.connections() >= PACKET_CONNECTIONS
            || self.states.bytes_to_send() >= PACKET_BYTES
    }
}

impl Worker {
    /// Goes on sending states; true once all are out. While everybody is served, a turn's share.
    pub(super) fn send_states(
        &mut self,
        out: &mut Outbound,
        sending: &mut Sending,
    ) -> io::Result<bool> {
        let (mut looked_at, mut written) = (0, 0);
        loop {
            while let Some(StatesPacket { lane, packet, memory }) = sending.packets.front() {
                if !out.offer(*lane, packet, &[memory.as_fd()])? {
                    return Ok(false);
                }
                sending.packets.pop_front();
            }
            if let Some(lane) = sending.sealing {
                if lane == sending.batches.len() {
                    return Ok(true);
                }
                sending.seal_last(self.index, lane, out)?;
                sending.sealing = Some(lane + 1);
                continue;
            }
            let enough = looked_at >= TURN_CONNECTIONS || written >= TURN_BYTES;
            if enough && !sending.way.is_pause() {
                return Ok(false);
            }
            looked_at += 1;
            if let Some(key) = sending.next(&self.conns, &out.sent) {
                written += match sending.way {
                    Way::Ahead | Way::Again => self.send_ahead(out, sending, key)?,
                    Way::Pause(_) | Way::Rehearse => self.save_one(out, sending, key)?,
                };
            } else if self.send_deltas(out)? {
                // What is kept here has been taken back.
                sending.sealing = Some(0);
            } else {
                return Ok(false);
            }
        }
    }

    /// Writes what may go ahead of a connection; returns how many bytes that is.
    fn send_ahead(
        &mut self,
        out: &mut Outbound,
        sending: &mut Sending,
        key: Key,
    ) -> io::Result<usize> {
        let long = sending.long.take();
        let queued = if long.is_none() { self.send_queued(out, sending, key)? } else { 0 };
        let Some(conn) = self.conns.get(key).filter(|_| out.sent.contains(key.index())) else {
            return Ok(0);
        };
        let (ahead, more) = (conn.session.ahead(), conn.session.not_ahead());
        if more.len() < BYTES_AHEAD_MIN {
            // What has bytes ahead changes all the time; its state is small in the pause.
            let is_still = ahead == 0 && self.goes_ahead(conn);
            let goes = sending.way == Way::Ahead && is_still;
            let saved = if goes { self.save_one(out, sending, key)? } else { 0 };
            return Ok(queued + saved);
        }
        let lane = out.lane_of(key);
        self.fit_batch(sending, lane)?;
        let piece = &more[..more.len().min(TURN_BYTES)];
        sending.batches[lane].states.add_bytes(key, ahead, piece);
        // No more than there was when its turn came: a peer may be faster than we are.
        let end = long.filter(|(of, _)| *of == key).map_or(ahead + more.len(), |(_, end)| end);
        let (written, ahead) = (piece.len(), ahead + piece.len());
        sending.bytes += written;
        sending.long = (ahead < end).then_some((key, end));
        if let Some(conn) = self.conns.get_mut(key) {
            conn.session.set_ahead(ahead);
        }
        self.seal_if_full(sending, lane)?;
        Ok(queued + written)
    }

    /// Writes what a connection has not written yet, as far as it is long and new; returns how many
    /// bytes that is.
    fn send_queued(
        &mut self,
        out: &Outbound,
        sending: &mut Sending,
        key: Key,
    ) -> io::Result<usize> {
        let has_queue = |conn: &&Connection| conn.session.has_queue();
        if !out.sent.contains(key.index()) || self.conns.get(key).filter(has_queue).is_none() {
            return Ok(0);
        }
        let lane = out.lane_of(key);
        self.fit_batch(sending, lane)?;
        let states = &mut sending.batches[lane].states;
        let before = states.bytes_to_send();
        if let Some(conn) = self.conns.get_mut(key) {
            let meter = self.dispatcher.turn.meter();
            conn.session.share_queue(meter, |bytes| states.add_body(bytes));
        }
        let written = states.bytes_to_send() - before;
        sending.bytes += written;
        self.note_memory(key);
        self.seal_if_full(sending, lane)?;
        Ok(written)
    }

    /// All in a batch is saved in one tick.
    fn fit_batch(&self, sending: &mut Sending, lane: usize) -> io::Result<()> {
        let now = self.dispatcher.now;
        if sending.batches[lane].saved.is_some_and(|(tick, _)| tick != now) {
            sending.seal(self.index, lane, sending.way.part())?;
        }
        sending.batches[lane].saved.get_or_insert_with(|| (now, clock::monotonic_ns()));
        Ok(())
    }

    fn seal_if_full(&self, sending: &mut Sending, lane: usize) -> io::Result<()> {
        if sending.batches[lane].is_full() {
            sending.seal(self.index, lane, sending.way.part())?;
            sending.lane = (lane + 1) % sending.batches.len();
        }
        Ok(())
    }

    /// Writes one state; returns how many bytes it has.
    fn save_one(
        &mut self,
        out: &mut Outbound,
        sending: &mut Sending,
        key: Key,
    ) -> io::Result<usize> {
        let Some(conn) = self.conns.get(key) else {
            return Ok(0);
        };
        let way = sending.way;
        if way.is_pause() {
            let given = sending.batches[out.lane_of(key)].states.bodies();
            let bytes = conn.session.bytes_to_save(given);
            if bytes > SMALL_BYTES && bytes > sending.left {
                let reason = "it has more to be moved than fits into the pause (pause_max)";
                sending.kept.push((key, reason.to_owned()));
                out.closed(key);
                return Ok(0);
            }
        }
        let lane = match way {
            Way::Rehearse => sending.lane,
            _ => out.lane_of(key),
        };
        self.fit_batch(sending, lane)?;
        let batch = &mut sending.batches[lane];
        #[cfg(debug_assertions)]
        let before = batch.states.body().len();
        let to_send = batch.states.bytes_to_send();
        let saved = batch.states.add(key, |writer| self.dispatcher.save_connection(conn, writer));
        let written = batch.states.bytes_to_send() - to_send;
        match saved {
            Ok(()) => {
                sending.connections += 1;
                sending.left = sending.left.saturating_sub(written);
            }
            // It is asked again when it matters.
            Err(_) if way == Way::Ahead => return Ok(0),
            Err(reason) => {
                sending.kept.push((key, cut_reason(reason.to_string())));
                if way.is_pause() {
                    out.closed(key);
                }
                return Ok(0);
            }
        }
        if way == Way::Ahead {
            #[cfg(debug_assertions)]
            {
                let body = sending.batches[lane].states.body();
                out.twin.insert(key, (self.dispatcher.now, body[before..].to_vec()));
            }
            self.conns.sent_ahead(key);
        }
        self.seal_if_full(sending, lane)?;
        Ok(written)
    }

    /// Whether it may well be in the pause as it is now.
    fn goes_ahead(&self, conn: &Connection) -> bool {
        conn.session.is_still() && self.dispatcher.saves_ahead(conn)
    }

    /// The simple twin of sending ahead: everything is saved again, as if it were then, and has to
    /// be the same.
    #[cfg(debug_assertions)]
    pub(super) fn check_ahead(&mut self, out: &Outbound) {
        let now = self.dispatcher.now;
        for (&key, (then, ahead)) in &out.twin {
            if let Some(conn) = self.conns.get(key).filter(|_| self.conns.is_as_sent(key)) {
                self.dispatcher.now = *then;
                let bodies = out.bodies[out.lane_of(key)].clone();
                let mut states = States::after(bodies, out.outlets.format);
                let before = states.body().len();
                let saved = states.add(key, |writer| self.dispatcher.save_connection(conn, writer));
                assert!(
                    saved.is_ok() && states.body()[before..] == ahead[..],
                    "{key:?} has changed"
                );
            }
        }
        self.dispatcher.now = now;
    }
}

/// Has the processor fetch the ends of the next pieces: one waits for memory as long as all of them,
/// and without this that is most of what hoarders make the pause longer by.
pub(super) fn fetch<'a>(pieces: impl Iterator<Item = &'a [u8]>) {
    let ends = pieces.take(FETCHED_TOGETHER).filter_map(|piece| piece.last());
    hint::black_box(ends.fold(0, |all, end| all ^ end));
}

fn write_memory(states: &mut States) -> io::Result<File> {
    let (head, body) = states.sealed();
    let mut memory = memory::file(c"steadfast-states")?;
    memory.write_all(&head)?;
    memory.write_all(body)?;
    Ok(memory)
}
