//! The messages between predecessor and successor: one a packet, a tag of one byte and a body.
//!
//! What follows the fields of a message are records, of which there are none yet: a newer build
//! may add some, and an older one passes over those it need not understand. What cannot be said so
//! is another [`PROTOCOL`].

use std::fmt;

use crate::base::network::ListenAddr;
use crate::base::snapshot::{Reader, SnapshotError, Writer};
use crate::sys::packets::DESCRIPTORS_MAX;

/// Version of the messages and their order: both sides must speak the same.
pub const PROTOCOL: u16 = 1;

/// Version of the snapshots this build writes by choice.
pub const FORMAT: u16 = 1;

/// The versions of snapshots this build reads.
pub const FORMATS_READ: Formats = Formats { first: 1, last: FORMAT };

/// The versions of snapshots this build can write: for a downgrade it writes older ones too.
pub const FORMATS_WRITTEN: Formats = Formats { first: 1, last: FORMAT };

/// Longest packet: the size of a buffer to receive into, and well below what the kernel lets wait
/// in a socket by default (208 KiB).
pub const PACKET_BYTES_MAX: usize = 65_536;

/// Connections that one CLOSED names at most, so that it fits a packet.
pub const CLOSED_KEYS_MAX: usize = 4_096;

/// Longest reason in bytes: a line for an operator to read. Longer ones are cut.
pub const REASON_BYTES_MAX: usize = 500;

/// Connections that one NOT ADOPTED names at most, so that it fits a packet with their reasons.
const REFUSED_MAX: usize = 100;

/// A range of versions of the snapshot format, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Formats {
    /// The oldest.
    pub first: u16,
    /// The newest.
    pub last: u16,
}

impl Formats {
    /// Whether `format` is one of them.
    pub fn contains(self, format: u16) -> bool {
        (self.first..=self.last).contains(&format)
    }

    /// The newest version that is in both.
    pub fn newest_common(self, other: Self) -> Option<u16> {
        let newest = self.last.min(other.last);
        (self.contains(newest) && other.contains(newest)).then_some(newest)
    }
}

impl fmt::Display for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.last),
            false => write!(f, "{} to {}", self.first, self.last),
        }
    }
}

/// What the predecessor says on the channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ToSuccessor {
    /// What is going to come. With it: the shared word.
    Prepare(Prepare),
    /// A listening socket of one of the predecessor's workers. With it: the socket.
    Listener {
        /// What it listens on, with the port the system has chosen.
        address: ListenAddr,
        /// The predecessor's worker.
        worker: u32,
    },
    /// The lock of a port. With it: the locked file.
    PortLock {
        /// The address of the port.
        address: ListenAddr,
    },
    /// The listener of the control socket. With it: the socket.
    Control {
        /// Its path.
        path: String,
    },
    /// The lane of one of the successor's workers. With it: the end to receive from.
    Lane {
        /// The successor's worker.
        worker: u32,
    },
    /// All workers have stopped.
    Frozen {
        /// When the first was told to, by CLOCK_MONOTONIC: the pause is counted from here.
        at_ns: u64,
        /// Where connection ids go on.
        ids_upcoming: u64,
    },
    /// All is there: take it.
    Offer,
    /// It is called off, and the predecessor goes on.
    Abort {
        /// Why.
        reason: String,
    },
}

/// See [`ToSuccessor::Prepare`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prepare {
    /// Version of the snapshots that are going to be sent.
    pub format: u16,
    /// How many handovers the predecessor is away from the first process: 0 for that itself.
    pub generation: u64,
    /// The predecessor's process.
    pub pid: u32,
    /// Workers of the predecessor: that many states come over each lane.
    pub workers: u32,
    /// Messages with a listener that are going to come; 0 in a dry run.
    pub listeners: u32,
    /// Open connections at this time: what descriptors and memory to be prepared for.
    pub connections: u64,
    /// Where connection ids would go on now.
    pub ids_upcoming: u64,
    /// Whether snapshots alone are going to come, to be loaded and thrown away.
    pub dry_run: bool,
    /// The network namespace of the predecessor, if the kernel tells: a successor in another one
    /// could not listen beside it.
    pub network_namespace: Option<u64>,
}

/// What the successor says on the channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ToPredecessor {
    /// Who it is: its first message.
    Hello(Hello),
    /// It is ready to adopt.
    Ready {
        /// Its workers: that many lanes are to come.
        workers: u32,
        /// Descriptors it may still open.
        descriptors_free: u64,
    },
    /// It will not go on; the predecessor is to.
    Refused {
        /// Why.
        reason: String,
    },
    /// Some of the connections it cannot adopt. All of these messages come before `Adopted`; see
    /// [`ToPredecessor::not_adopted`].
    NotAdopted {
        /// Them.
        refused: Vec<Refused>,
    },
    /// All other connections are loaded and wait to be taken.
    Adopted {
        /// How many.
        connections: u64,
    },
    /// It has taken them and serves.
    Active {
        /// Since when, by CLOCK_MONOTONIC: the pause is counted until here.
        at_ns: u64,
    },
}

/// See [`ToPredecessor::Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hello {
    /// Its [`PROTOCOL`].
    pub protocol: u16,
    /// Its [`FORMATS_READ`].
    pub formats_read: Formats,
    /// Its [`FORMATS_WRITTEN`].
    pub formats_written: Formats,
    /// Name and version of its program, for logs.
    pub build: String,
    /// Its process.
    pub pid: u32,
}

/// A connection that the successor cannot adopt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refused {
    /// The predecessor's worker.
    pub worker: u32,
    /// The connection's key there.
    pub key: u64,
    /// Why.
    pub reason: String,
}

/// What a worker of the predecessor says on a lane. For each connection it moves there it sends,
/// in this order: a descriptor; that the connection is closed, if it is; its state, with all
/// others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnLane {
    /// Connections to park. With it: one descriptor for each, in this order.
    Descriptors {
        /// The predecessor's worker.
        worker: u32,
        /// The connections' keys there, at most [`DESCRIPTORS_MAX`].
        keys: Vec<u64>,
    },
    /// Connections that have ended since their descriptors were sent.
    Closed {
        /// The predecessor's worker.
        worker: u32,
        /// The connections' keys there, at most [`CLOSED_KEYS_MAX`].
        keys: Vec<u64>,
    },
    /// The states of all connections the worker moves here: its last message on this lane. With
    /// it: a file with an [`envelope`](super::envelope).
    State {
        /// The predecessor's worker.
        worker: u32,
        /// How many connections.
        connections: u64,
        /// Length of the file.
        bytes: u64,
    },
}

/// What is wrong with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireError {
    /// Its body cannot be read.
    Body(SnapshotError),
    /// No message here has this tag.
    UnknownMessage(u8),
    /// It came with that many descriptors, and needs so many.
    Descriptors {
        /// How many came.
        found: usize,
        /// How many it needs.
        needed: usize,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(error) => write!(f, "a malformed message: {error}"),
            Self::UnknownMessage(tag) => write!(f, "a message this build does not know ({tag})"),
            Self::Descriptors { found, needed } => {
                write!(f, "a message with {found} descriptors, which needs {needed}")
            }
        }
    }
}

impl std::error::Error for WireError {}

impl From<SnapshotError> for WireError {
    fn from(error: SnapshotError) -> Self {
        Self::Body(error)
    }
}

/// One side's messages.
pub trait Message: Sized {
    /// The message as a packet.
    fn encode(&self) -> Vec<u8>;

    /// The message a packet is.
    ///
    /// # Errors
    /// [`WireError::Body`], [`WireError::UnknownMessage`].
    fn decode(packet: &[u8]) -> Result<Self, WireError>;

    /// How many descriptors come with it.
    fn descriptors(&self) -> usize;

    /// The message a packet is that came with `descriptors` descriptors.
    ///
    /// # Errors
    /// As [`Message::decode`], and [`WireError::Descriptors`] if they are not as many as the
    /// message needs.
    fn decode_with(packet: &[u8], descriptors: usize) -> Result<Self, WireError> {
        let message = Self::decode(packet)?;
        match message.descriptors() {
            needed if needed == descriptors => Ok(message),
            needed => Err(WireError::Descriptors { found: descriptors, needed }),
        }
    }
}

// Tags: all of them differ, so that a packet on the wrong socket is not taken for another message.
const PREPARE: u8 = 1;
const LISTENER: u8 = 2;
const PORT_LOCK: u8 = 3;
const CONTROL: u8 = 4;
const LANE: u8 = 5;
const FROZEN: u8 = 6;
const OFFER: u8 = 7;
const ABORT: u8 = 8;
const HELLO: u8 = 33;
const READY: u8 = 34;
const REFUSED: u8 = 35;
const NOT_ADOPTED: u8 = 36;
const ADOPTED: u8 = 37;
const ACTIVE: u8 = 38;
const DESCRIPTORS: u8 = 65;
const CLOSED: u8 = 66;
const STATE: u8 = 67;

impl Message for ToSuccessor {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Prepare(prepare) => packet(PREPARE, |writer| prepare.save(writer)),
            Self::Listener { address, worker } => packet(LISTENER, |writer| {
                writer.str(&address.to_string());
                writer.u32(*worker);
            }),
            Self::PortLock { address } => {
                packet(PORT_LOCK, |writer| writer.str(&address.to_string()))
            }
            Self::Control { path } => packet(CONTROL, |writer| writer.str(path)),
            Self::Lane { worker } => packet(LANE, |writer| writer.u32(*worker)),
            Self::Frozen { at_ns, ids_upcoming } => packet(FROZEN, |writer| {
                writer.u64(*at_ns);
                writer.u64(*ids_upcoming);
            }),
            Self::Offer => packet(OFFER, |_| ()),
            Self::Abort { reason } => packet(ABORT, |writer| writer.str(cut(reason))),
        }
    }

    fn decode(packet: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(packet);
        let message = match reader.u8()? {
            PREPARE => Self::Prepare(Prepare::load(&mut reader)?),
            LISTENER => {
                Self::Listener { address: load_address(&mut reader)?, worker: reader.u32()? }
            }
            PORT_LOCK => Self::PortLock { address: load_address(&mut reader)? },
            CONTROL => Self::Control { path: reader.str()?.to_owned() },
            LANE => Self::Lane { worker: reader.u32()? },
            FROZEN => Self::Frozen { at_ns: reader.u64()?, ids_upcoming: reader.u64()? },
            OFFER => Self::Offer,
            ABORT => Self::Abort { reason: reader.str()?.to_owned() },
            tag => return Err(WireError::UnknownMessage(tag)),
        };
        skip_records(reader)?;
        Ok(message)
    }

    fn descriptors(&self) -> usize {
        match self {
            Self::Prepare(_)
            | Self::Listener { .. }
            | Self::PortLock { .. }
            | Self::Control { .. }
            | Self::Lane { .. } => 1,
            Self::Frozen { .. } | Self::Offer | Self::Abort { .. } => 0,
        }
    }
}

impl Prepare {
    fn save(&self, writer: &mut Writer) {
        let Self {
            format,
            generation,
            pid,
            workers,
            listeners,
            connections,
            ids_upcoming,
            dry_run,
            network_namespace,
        } = self;
        writer.u16(*format);
        writer.u64(*generation);
        writer.u32(*pid);
        writer.u32(*workers);
        writer.u32(*listeners);
        writer.u64(*connections);
        writer.u64(*ids_upcoming);
        writer.bool(*dry_run);
        writer.option(*network_namespace, |writer, cookie| writer.u64(cookie));
    }

    fn load(reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Ok(Self {
            format: reader.u16()?,
            generation: reader.u64()?,
            pid: reader.u32()?,
            workers: reader.u32()?,
            listeners: reader.u32()?,
            connections: reader.u64()?,
            ids_upcoming: reader.u64()?,
            dry_run: reader.bool()?,
            network_namespace: reader.option(|reader| reader.u64())?,
        })
    }
}

impl ToPredecessor {
    /// `refused` in as many messages as it takes, each within a packet.
    pub fn not_adopted(refused: &[Refused]) -> impl Iterator<Item = Self> {
        refused.chunks(REFUSED_MAX).map(|part| Self::NotAdopted { refused: part.to_vec() })
    }
}

impl Message for ToPredecessor {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => packet(HELLO, |writer| hello.save(writer)),
            Self::Ready { workers, descriptors_free } => packet(READY, |writer| {
                writer.u32(*workers);
                writer.u64(*descriptors_free);
            }),
            Self::Refused { reason } => packet(REFUSED, |writer| writer.str(cut(reason))),
            Self::NotAdopted { refused } => packet(NOT_ADOPTED, |writer| {
                writer.count(refused.len());
                refused.iter().for_each(|refused| refused.save(writer));
            }),
            Self::Adopted { connections } => packet(ADOPTED, |writer| writer.u64(*connections)),
            Self::Active { at_ns } => packet(ACTIVE, |writer| writer.u64(*at_ns)),
        }
    }

    fn decode(packet: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(packet);
        let message = match reader.u8()? {
            HELLO => Self::Hello(Hello::load(&mut reader)?),
            READY => Self::Ready { workers: reader.u32()?, descriptors_free: reader.u64()? },
            REFUSED => Self::Refused { reason: reader.str()?.to_owned() },
            NOT_ADOPTED => {
                let count = reader.count(Refused::BYTES_MIN)?;
                let refused = (0..count).map(|_| Refused::load(&mut reader));
                Self::NotAdopted { refused: refused.collect::<Result<_, _>>()? }
            }
            ADOPTED => Self::Adopted { connections: reader.u64()? },
            ACTIVE => Self::Active { at_ns: reader.u64()? },
            tag => return Err(WireError::UnknownMessage(tag)),
        };
        skip_records(reader)?;
        Ok(message)
    }

    fn descriptors(&self) -> usize {
        0
    }
}

impl Hello {
    fn save(&self, writer: &mut Writer) {
        let Self { protocol, formats_read, formats_written, build, pid } = self;
        writer.u16(*protocol);
        for formats in [formats_read, formats_written] {
            writer.u16(formats.first);
            writer.u16(formats.last);
        }
        writer.str(cut(build));
        writer.u32(*pid);
    }

    fn load(reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Ok(Self {
            protocol: reader.u16()?,
            formats_read: Formats { first: reader.u16()?, last: reader.u16()? },
            formats_written: Formats { first: reader.u16()?, last: reader.u16()? },
            build: reader.str()?.to_owned(),
            pid: reader.u32()?,
        })
    }
}

impl Refused {
    /// The two numbers, and an empty reason.
    const BYTES_MIN: usize = 13;

    fn save(&self, writer: &mut Writer) {
        let Self { worker, key, reason } = self;
        writer.u32(*worker);
        writer.u64(*key);
        writer.str(cut(reason));
    }

    fn load(reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let (worker, key) = (reader.u32()?, reader.u64()?);
        Ok(Self { worker, key, reason: reader.str()?.to_owned() })
    }
}

impl Message for OnLane {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Descriptors { worker, keys } => {
                packet(DESCRIPTORS, |writer| save_keys(*worker, keys, writer))
            }
            Self::Closed { worker, keys } => {
                packet(CLOSED, |writer| save_keys(*worker, keys, writer))
            }
            Self::State { worker, connections, bytes } => packet(STATE, |writer| {
                writer.u32(*worker);
                writer.u64(*connections);
                writer.u64(*bytes);
            }),
        }
    }

    fn decode(packet: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(packet);
        let message = match reader.u8()? {
            DESCRIPTORS => {
                let (worker, keys) = load_keys(&mut reader, DESCRIPTORS_MAX)?;
                Self::Descriptors { worker, keys }
            }
            CLOSED => {
                let (worker, keys) = load_keys(&mut reader, CLOSED_KEYS_MAX)?;
                Self::Closed { worker, keys }
            }
            STATE => Self::State {
                worker: reader.u32()?,
                connections: reader.u64()?,
                bytes: reader.u64()?,
            },
            tag => return Err(WireError::UnknownMessage(tag)),
        };
        skip_records(reader)?;
        Ok(message)
    }

    fn descriptors(&self) -> usize {
        match self {
            Self::Descriptors { keys, .. } => keys.len(),
            Self::Closed { .. } => 0,
            Self::State { .. } => 1,
        }
    }
}

fn packet(tag: u8, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(tag);
    write(&mut writer);
    writer.into_bytes()
}

/// What a newer build may have added behind the fields.
fn skip_records(mut reader: Reader<'_>) -> Result<(), SnapshotError> {
    while let Some(record) = reader.record()? {
        record.skip_unknown()?;
    }
    Ok(())
}

fn load_address(reader: &mut Reader<'_>) -> Result<ListenAddr, SnapshotError> {
    reader.str()?.parse().map_err(|_| SnapshotError::Invalid("address"))
}

fn save_keys(worker: u32, keys: &[u64], writer: &mut Writer) {
    writer.u32(worker);
    writer.count(keys.len());
    keys.iter().for_each(|key| writer.u64(*key));
}

fn load_keys(reader: &mut Reader<'_>, count_max: usize) -> Result<(u32, Vec<u64>), SnapshotError> {
    let worker = reader.u32()?;
    let count = reader.count(size_of::<u64>())?;
    if count > count_max {
        return Err(SnapshotError::Invalid("number of connections"));
    }
    let keys = (0..count).map(|_| reader.u64()).collect::<Result<_, _>>()?;
    Ok((worker, keys))
}

/// As much of `text` as a message may hold.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(REASON_BYTES_MAX)]
}

#[cfg(test)]
mod tests;
