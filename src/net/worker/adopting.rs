//! The successor's half of a handover, in one worker: before it serves, it takes connections.
//!
//! ```text
//! descriptors ─► parked: in the epoll that nobody polls yet
//! states      ─► loaded; some are sent again, as they have changed    ─► Loaded
//! Settle      ─► mail between the hubs of the workers                 ─► Settled, until idle
//! Serve       ─► the loop can begin       or  Discard ─► everything is given up, untouched
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::iter;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Duration;

use mio::Events;

use super::sending::{FETCHED_TOGETHER, fetch};
use super::slots::Slots;
use super::{EVENTS_MAX, Worker};
use crate::app::Address;
use crate::base::shared::SharedBytes;
use crate::base::slab::Key;
use crate::base::snapshot::{Reader, SnapshotError};
use crate::base::tick::Tick;
use crate::hub::WorkerIndex;
use crate::net::connection::Connection;
use crate::net::lane::{DESCRIPTORS_MAX, Origin, PACKET_BYTES_MAX, Packet, Part, SLOTS_MAX};
use crate::net::states::{Saved, SavedStates};
use crate::net::stream::Stream;
use crate::sys::bell::Rung;
use crate::sys::clock;
use crate::sys::packets::{self, Received};

/// How long a worker waits for its lane before it looks for orders and for mail.
const LOOK: Duration = Duration::from_millis(20);

/// The same, once all that was there has come: the others wait for what is left of the mail.
const LOOK_LEVEL: Duration = Duration::from_millis(1);

/// Room that is left behind what came ahead of a message, for the rest that comes in the pause.
const REST_BYTES: usize = 1_024;

/// What the handover's thread tells a worker of the successor.
#[derive(Debug)]
pub enum Instruction {
    /// Take the connections that come over a lane.
    Adopt(Adoption),
    /// Take the mail there is.
    Settle,
    /// All that was loaded is ours, and so are the listeners: serve. The sender goes when it has begun.
    Serve(Sender<()>),
    /// The predecessor has crashed: end what is parked, serve what comes in.
    ServeAnew(Sender<()>),
    /// Give everything up; it belongs to the predecessor.
    Discard,
}

/// What a worker of the successor answers.
#[derive(Debug)]
pub enum Finding {
    /// Every connection that was there is parked.
    Level,
    /// All states are there.
    Loaded {
        /// Connections that can be served.
        connections: usize,
        /// Connections that cannot, and why.
        refused: Vec<(Origin, String)>,
    },
    /// The mail there was has been taken.
    Settled {
        /// There was none, and none waits to go out.
        idle: bool,
    },
    /// The lane carries nonsense, or descriptors are lacking.
    Broken(io::Error),
}

/// What a worker adopts from.
#[derive(Debug)]
pub struct Adoption {
    /// Its lane.
    pub lane: OwnedFd,
    /// Workers of the predecessor, each of which sends its states.
    pub senders: usize,
    /// No descriptors come: states are loaded to see whether they would, and dropped.
    pub rehearsal: bool,
}

/// How a worker that is to adopt and the handover's thread talk.
#[derive(Debug)]
pub struct Talk {
    /// From the handover's thread.
    pub instructions: Receiver<Instruction>,
    /// To it.
    pub findings: Rung<(WorkerIndex, Finding)>,
}

/// What has been adopted so far.
#[derive(Debug, Default)]
struct Parked {
    places: Places,
    /// By slot here: its state is loaded.
    loaded: Slots,
    /// What cannot be served, and why: there is no place for it, or its state does not load. It is
    /// refused with the last states, and not before: it may end until then, or be another.
    unfit: HashMap<Origin, String>,
    /// By slot here: what has come ahead of unfinished messages.
    messages: Vec<Vec<u8>>,
    /// By worker: the bodies that its out queues name.
    bodies: HashMap<WorkerIndex, Vec<SharedBytes>>,
    /// So many workers have sent all they had.
    level: usize,
    /// That has been said.
    level_told: bool,
    /// The last states have come from so many workers.
    senders: usize,
    /// Connections that can be served.
    adopted: usize,
    /// States that would load.
    rehearsed: usize,
    refused: Vec<(Origin, String)>,
}

/// Where the connections of the predecessor's workers are here: by worker, then by slot. Half of the
/// pause would go into hashing otherwise.
#[derive(Debug, Default)]
struct Places(Vec<Vec<Option<(Key, Key)>>>);

impl Places {
    /// Returns what was there before: a connection whose end will be reported no more.
    fn insert(&mut self, origin: Origin, ours: Key) -> Option<Key> {
        let worker = usize::from(origin.worker);
        if worker >= self.0.len() {
            self.0.resize_with(worker + 1, Vec::new);
        }
        let slots = &mut self.0[worker];
        let slot = origin.key.index() as usize;
        if slot >= slots.len() {
            slots.resize(slot + 1, None);
        }
        slots[slot].replace((origin.key, ours)).map(|(_, before)| before)
    }

    fn get(&self, origin: Origin) -> Option<Key> {
        let slot = self.0.get(usize::from(origin.worker))?;
        let (theirs, ours) = (*slot.get(origin.key.index() as usize)?)?;
        (theirs == origin.key).then_some(ours)
    }

    fn remove(&mut self, origin: Origin) -> Option<Key> {
        let slot = self.0.get_mut(usize::from(origin.worker))?;
        let slot = slot.get_mut(origin.key.index() as usize)?;
        slot.take_if(|(theirs, _)| *theirs == origin.key).map(|(_, ours)| ours)
    }

    /// All of one worker.
    fn of(&self, worker: WorkerIndex) -> impl Iterator<Item = Key> {
        let slots = self.0.get(usize::from(worker)).map(Vec::as_slice).unwrap_or_default();
        slots.iter().flatten().map(|(_, ours)| *ours)
    }
}

impl Parked {
    /// Takes bytes that have come ahead of a message: of the one that is known, from where it ends,
    /// or of the next one.
    fn append(&mut self, ours: Key, offset: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        let slot = ours.index() as usize;
        if slot >= self.messages.len() {
            self.messages.resize_with(slot + 1, Vec::new);
        }
        let message = &mut self.messages[slot];
        if offset == 0 {
            message.clear();
        }
        if message.len() as u64 != offset {
            return Err(SnapshotError::Invalid("place of the bytes of a message"));
        }
        message.extend_from_slice(bytes);
        // So that what comes in the pause does not move it all.
        message.reserve(REST_BYTES);
        Ok(())
    }

    /// What has come ahead, which may be nothing.
    fn take_message(&mut self, ours: Key) -> Vec<u8> {
        self.messages.get_mut(ours.index() as usize).map(mem::take).unwrap_or_default()
    }

    /// Has the processor fetch the messages that the next states go on with.
    fn fetch(&self, worker: WorkerIndex, mut states: SavedStates<'_>) {
        let keys = iter::from_fn(|| match states.read_next() {
            Ok(Some(Saved::Connection(key, _))) => Some(key),
            _ => None,
        });
        fetch(keys.map(|key| {
            let ours = self.places.get(Origin { worker, key });
            let message = ours.and_then(|ours| self.messages.get(ours.index() as usize));
            message.map(Vec::as_slice).unwrap_or_default()
        }));
    }
}

impl Worker {
    /// Adopts until it is told what to do; how it begins to serve, if it is to.
    pub fn adopt(&mut self, talk: &Talk) -> Option<Beginning> {
        self.freeze();
        let mut parked = Parked::default();
        let adoption = match talk.instructions.recv() {
            Ok(Instruction::Adopt(adoption)) => adoption,
            Ok(instruction) => return conclude(instruction, parked),
            Err(_) => return None,
        };
        let finding = match self.receive_all(&adoption, talk, &mut parked) {
            Ok(None) => {
                self.post_mail();
                Finding::Loaded {
                    connections: parked.adopted + parked.rehearsed,
                    refused: mem::take(&mut parked.refused),
                }
            }
            Ok(Some(instruction)) => return conclude(instruction, parked),
            Err(error) => Finding::Broken(error),
        };
        talk.findings.send((self.index, finding));
        // The thread that tells is the one that waits for us; without it there is nothing to serve.
        while let Ok(instruction) = talk.instructions.recv() {
            if !matches!(instruction, Instruction::Settle) {
                return conclude(instruction, parked);
            }
            self.dispatcher.now = Tick::from_elapsed(self.started.elapsed());
            self.take_mail();
            self.post_mail();
            let idle = self.is_idle();
            talk.findings.send((self.index, Finding::Settled { idle }));
        }
        None
    }

    /// Takes packets until all states are there; or an instruction that came before.
    fn receive_all(
        &mut self,
        adoption: &Adoption,
        talk: &Talk,
        parked: &mut Parked,
    ) -> io::Result<Option<Instruction>> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let mut descriptors = Vec::with_capacity(DESCRIPTORS_MAX);
        while parked.senders < adoption.senders {
            match talk.instructions.try_recv() {
                Ok(instruction) => return Ok(Some(instruction)),
                Err(TryRecvError::Disconnected) => return Ok(Some(Instruction::Discard)),
                Err(TryRecvError::Empty) => {}
            }
            // What the rooms of loaded connections come to between the workers is settled now, while
            // everybody is served elsewhere.
            self.take_mail();
            self.post_mail();
            let is_level = parked.level == adoption.senders;
            if is_level && !parked.level_told && self.is_idle() {
                parked.level_told = true;
                talk.findings.send((self.index, Finding::Level));
            }
            let look = if is_level { LOOK_LEVEL } else { LOOK };
            let received =
                packets::receive(&adoption.lane, &mut buffer, &mut descriptors, Some(look));
            let len = match received? {
                Received::Packet(len) => len,
                Received::Nothing => continue,
                // The predecessor has died or has called it off. Which, the channel says, and the
                // thread that listens to it then tells us.
                Received::Ended => {
                    let instruction = talk.instructions.recv();
                    return Ok(Some(instruction.unwrap_or(Instruction::Discard)));
                }
            };
            let packet = Packet::decode(&buffer[..len]).map_err(nonsense)?;
            let was_level = parked.level;
            self.on_packet(packet, descriptors.drain(..), adoption.rehearsal, parked)?;
            if parked.level > was_level && parked.level == adoption.senders {
                self.take_first_edges()?;
            }
        }
        Ok(None)
    }

    /// Each socket is announced once as writable because it was registered. That is taken now, while
    /// everybody is served elsewhere: the first turns here would go into it, a microsecond for each
    /// connection. What else is announced is kept for when they are ours.
    fn take_first_edges(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        // Not until there are none: as long as they are served, more come.
        for _ in 0..self.conns.len().div_ceil(EVENTS_MAX) {
            match self.poll.poll(&mut events, Some(Duration::ZERO)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            for event in &events {
                // We are frozen: it is noted.
                self.on_io(event);
            }
        }
        Ok(())
    }

    fn on_packet(
        &mut self,
        packet: Packet,
        mut descriptors: impl ExactSizeIterator<Item = OwnedFd>,
        rehearsal: bool,
        parked: &mut Parked,
    ) -> io::Result<()> {
        match packet {
            Packet::Descriptors { worker, keys } => {
                if keys.len() != descriptors.len() {
                    return Err(nonsense(SnapshotError::Invalid("number of descriptors")));
                }
                if keys.iter().any(|key| key.index() >= SLOTS_MAX) {
                    return Err(nonsense(SnapshotError::Invalid("key")));
                }
                for (key, descriptor) in keys.into_iter().zip(descriptors) {
                    let origin = Origin { worker, key };
                    match self.park(descriptor) {
                        Ok(ours) => {
                            if let Some(before) = parked.places.insert(origin, ours) {
                                self.give_up(before, parked);
                            }
                        }
                        Err(error) => drop(parked.unfit.insert(origin, error.to_string())),
                    }
                }
                #[cfg(feature = "fault-points")]
                crate::sys::fault::point("successor-parking");
            }
            Packet::Closed { worker, keys } => {
                for key in keys {
                    let origin = Origin { worker, key };
                    parked.unfit.remove(&origin);
                    if let Some(ours) = parked.places.remove(origin) {
                        self.give_up(ours, parked);
                    }
                }
            }
            Packet::Level { .. } => parked.level += 1,
            Packet::States { worker, connections, saved_ns, part } => {
                let memory = descriptors.next();
                let memory = memory.ok_or_else(|| nonsense(SnapshotError::Truncated))?;
                let bytes = read_memory(memory)?;
                let states = SavedStates::open(&bytes).map_err(io::Error::other)?;
                self.dispatcher.now = self.tick_of(saved_ns);
                let of = Sent { worker, part, rehearsal };
                let count = self.load_states(states, of, parked).map_err(nonsense)?;
                if count != connections {
                    return Err(nonsense(SnapshotError::Invalid("number of states")));
                }
                if let Part::Last { connections } = part {
                    parked.senders += 1;
                    let known = self.settle_places(worker, parked);
                    if known != connections && !rehearsal {
                        return Err(nonsense(SnapshotError::Invalid("number of connections")));
                    }
                }
            }
        }
        Ok(())
    }

    /// A moment of the system's monotonic clock in ours. It may have been some time ago: a deadline
    /// does not move because its state was on the way.
    fn tick_of(&self, at_ns: u64) -> Tick {
        let ago = Duration::from_nanos(clock::monotonic_ns().saturating_sub(at_ns));
        Tick::from_elapsed(self.started.elapsed().saturating_sub(ago))
    }

    /// A descriptor gets its place: what it means comes later.
    fn park(&mut self, descriptor: OwnedFd) -> io::Result<Key> {
        self.insert(Connection::vacant(Stream::adopt(descriptor)?))
    }

    /// Loads the states of a packet; returns how many there were.
    fn load_states(
        &mut self,
        states: SavedStates<'_>,
        Sent { worker, part, rehearsal }: Sent,
        parked: &mut Parked,
    ) -> Result<u64, SnapshotError> {
        let mut bodies = parked.bodies.remove(&worker).unwrap_or_default();
        states.take_bodies(&mut bodies, self.dispatcher.turn.meter())?;
        let mut states = states.with_bodies(&bodies);
        let mut count = 0;
        loop {
            if part != Part::Ahead && count % FETCHED_TOGETHER as u64 == 0 {
                parked.fetch(worker, states);
            }
            let Some(saved) = states.read_next()? else {
                break;
            };
            let (key, state) = match saved {
                Saved::Connection(key, state) => (key, state),
                Saved::Bytes { key, offset, bytes } => {
                    // It may have ended since.
                    if let Some(ours) = parked.places.get(Origin { worker, key }) {
                        parked.append(ours, offset, bytes)?;
                    }
                    continue;
                }
            };
            count += 1;
            let origin = Origin { worker, key };
            let loaded = match parked.places.get(origin) {
                Some(ours) => self.load_one(ours, state, parked),
                None if rehearsal => self.rehearse_one(state).inspect(|()| parked.rehearsed += 1),
                // It may have ended since.
                None if part == Part::Ahead || parked.unfit.contains_key(&origin) => continue,
                None => Err("its descriptor is missing".to_owned()),
            };
            match loaded {
                Ok(()) => drop(parked.unfit.remove(&origin)),
                Err(reason) => drop(parked.unfit.insert(origin, reason)),
            }
        }
        parked.bodies.insert(worker, bodies);
        Ok(count)
    }

    /// All states of a worker of the predecessor are there: what has none that loads stays with it.
    /// Returns how many there were on this lane.
    fn settle_places(&mut self, worker: WorkerIndex, parked: &mut Parked) -> u64 {
        let (mut adopted, mut given_up) = (0, Vec::new());
        for ours in parked.places.of(worker) {
            match parked.loaded.contains(ours.index()) {
                true => adopted += 1,
                false => given_up.push(ours),
            }
        }
        for ours in given_up {
            self.give_up(ours, parked);
        }
        let refused = parked.unfit.extract_if(|origin, _| origin.worker == worker);
        let before = parked.refused.len();
        parked.refused.extend(refused);
        parked.adopted += adopted;
        (adopted + parked.refused.len() - before) as u64
    }

    /// Fills a parked connection with its state, in place of one that it may have had before.
    fn load_one(
        &mut self,
        key: Key,
        mut record: Reader<'_>,
        parked: &mut Parked,
    ) -> Result<(), String> {
        self.unload(key, parked);
        let address = Address { worker: self.index, key };
        let ahead = parked.take_message(key);
        let restored = self.dispatcher.load_connection_after(ahead, &mut record, address);
        let restored = restored.map_err(|error| error.to_string())?;
        if let Some(conn) = self.conns.get_mut(key) {
            self.dispatcher.restore(conn, key, restored);
            self.accounts.enter_adopted(self.index);
            parked.loaded.insert(key.index());
            conn.flags.timed = conn.session.is_open();
            super::arm(conn, key, &self.dispatcher, &mut self.wheel);
        }
        self.carry_out();
        Ok(())
    }

    /// What was loaded is out of date.
    fn unload(&mut self, key: Key, parked: &mut Parked) {
        if parked.loaded.remove(key.index())
            && let Some(conn) = self.conns.get_mut(key)
        {
            self.dispatcher.unrestore(conn);
            self.accounts.leave(self.index);
            self.carry_out();
        }
    }

    fn rehearse_one(&mut self, mut record: Reader<'_>) -> Result<(), String> {
        // The key is of no connection: whatever an app sends to its handle is lost.
        let address = Address { worker: self.index, key: Key::NOBODY };
        let restored = self.dispatcher.load_connection(&mut record, address);
        restored.map(drop).map_err(|error| error.to_string())
    }

    /// Lets go of a parked connection without touching it.
    fn give_up(&mut self, key: Key, parked: &mut Parked) {
        self.unload(key, parked);
        parked.take_message(key);
        if let Some(mut conn) = self.conns.remove(key) {
            let _ = conn.stream.deregister(self.poll.registry());
        }
    }

    /// Begins to serve: from here on the connections are ours, and a panic costs those of this worker
    /// alone.
    pub(super) fn begin(&mut self, Beginning { mut parked, is_anew, begun }: Beginning) {
        if is_anew {
            for key in self.conns.keys().collect::<Vec<_>>() {
                if let Some(conn) = self.conns.get_mut(key) {
                    let _ = conn.stream.shutdown();
                }
                // Those that are loaded are counted, in rooms, and known to their apps.
                if !parked.loaded.contains(key.index()) {
                    self.give_up(key, &mut parked);
                }
            }
        }
        self.thaw();
        if is_anew {
            for key in self.conns.keys().collect::<Vec<_>>() {
                self.drop_connection(key);
                self.carry_out();
            }
        }
        self.accept_from_all();
        #[cfg(feature = "fault-points")]
        crate::sys::fault::point(&format!("successor-beginning-{}", self.index));
        drop(begun);
    }

    /// The listeners are ours. What they have announced so far may have been passed over.
    fn accept_from_all(&mut self) {
        for index in 0..self.listeners.len() {
            self.accept_again(index);
        }
    }
}

/// How a worker begins to serve.
#[derive(Debug)]
pub struct Beginning {
    /// It is let go of when everybody is served.
    parked: Parked,
    /// The predecessor has crashed: every connection ends.
    is_anew: bool,
    /// Whoever waits for it hears of it when this is gone.
    begun: Sender<()>,
}

fn conclude(instruction: Instruction, parked: Parked) -> Option<Beginning> {
    match instruction {
        Instruction::Serve(begun) => Some(Beginning { parked, is_anew: false, begun }),
        Instruction::ServeAnew(begun) => Some(Beginning { parked, is_anew: true, begun }),
        Instruction::Adopt(_) | Instruction::Settle | Instruction::Discard => None,
    }
}

/// What a packet of states is.
#[derive(Debug, Clone, Copy)]
struct Sent {
    worker: WorkerIndex,
    part: Part,
    rehearsal: bool,
}

fn read_memory(memory: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(memory);
    io::Seek::rewind(&mut file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn nonsense(error: SnapshotError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
