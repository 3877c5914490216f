//! What passes, during a handover, from the workers of the predecessor to one of the successor.
//!
//! A lane is a SOCK_SEQPACKET socket: packets arrive whole and in the order in which a worker sent
//! them, so a descriptor's connection cannot be reported closed before the descriptor is there.
//! All workers of the predecessor write to each lane; a packet names its sender.

use crate::base::slab::Key;
use crate::base::snapshot::{Reader, SnapshotError, Writer};
use crate::hub::WorkerIndex;

/// Most descriptors in one packet: the kernel refuses more (SCM_MAX_FD).
pub const DESCRIPTORS_MAX: usize = 253;

/// Most keys in a packet without descriptors.
pub const KEYS_MAX: usize = 1_024;

/// Slots of a predecessor's slab that a successor keeps account of: more than anybody has
/// connections on one machine, and no bar to allocate for.
pub const SLOTS_MAX: u32 = 1 << 24;

/// The longest packet, in bytes.
pub const PACKET_BYTES_MAX: usize = 16 + KEYS_MAX * 8;

/// A connection of the predecessor: its worker, and its key there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The predecessor's worker.
    pub worker: WorkerIndex,
    /// The connection's key there.
    pub key: Key,
}

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Sockets, one for each key, as descriptors of the packet.
    Descriptors {
        /// The sender.
        worker: WorkerIndex,
        /// Their keys there.
        keys: Vec<Key>,
    },
    /// Connections that have ended since their descriptors were sent.
    Closed {
        /// The sender.
        worker: WorkerIndex,
        /// Their keys there.
        keys: Vec<Key>,
    },
    /// Every connection that was there has been sent once.
    Level {
        /// The sender.
        worker: WorkerIndex,
    },
    /// States of connections; the packet's one descriptor is the memory they are in, as
    /// [`States`](super::states::States).
    States {
        /// The sender.
        worker: WorkerIndex,
        /// How many.
        connections: u64,
        /// When they were saved, in nanoseconds of the system's monotonic clock: points in time
        /// among them are relative to it.
        saved_ns: u64,
        /// Which these are.
        part: Part,
    },
}

/// Which states a packet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Of connections that go on being served. Another state that comes for one replaces it.
    Ahead,
    /// How it is; more follows.
    More,
    /// The same, and the sender's last packet.
    Last {
        /// How many of its connections are to be known by now on this lane. Nothing is said of a
        /// rehearsal, in which they are on any lane.
        connections: u64,
    },
}

const DESCRIPTORS: u8 = 1;
const CLOSED: u8 = 2;
const STATES: u8 = 3;
const LEVEL: u8 = 4;

const AHEAD: u8 = 0;
const MORE: u8 = 1;
const LAST: u8 = 2;

impl Packet {
    /// As bytes, at most [`PACKET_BYTES_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::Descriptors { worker, keys } => {
                writer.u8(DESCRIPTORS);
                save_keys(&mut writer, *worker, keys);
            }
            Self::Closed { worker, keys } => {
                writer.u8(CLOSED);
                save_keys(&mut writer, *worker, keys);
            }
            Self::Level { worker } => {
                writer.u8(LEVEL);
                writer.u16(*worker);
            }
            Self::States { worker, connections, saved_ns, part } => {
                writer.u8(STATES);
                writer.u16(*worker);
                writer.u64(*connections);
                writer.u64(*saved_ns);
                match part {
                    Part::Ahead => writer.u8(AHEAD),
                    Part::More => writer.u8(MORE),
                    Part::Last { connections } => {
                        writer.u8(LAST);
                        writer.u64(*connections);
                    }
                }
            }
        }
        writer.into_bytes()
    }

    /// The inverse of [`encode`](Self::encode).
    ///
    /// # Errors
    /// The bytes are no packet.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(bytes);
        let tag = reader.u8()?;
        let worker = reader.u16()?;
        let packet = match tag {
            DESCRIPTORS => Self::Descriptors { worker, keys: load_keys(&mut reader)? },
            CLOSED => Self::Closed { worker, keys: load_keys(&mut reader)? },
            LEVEL => Self::Level { worker },
            STATES => Self::States {
                worker,
                connections: reader.u64()?,
                saved_ns: reader.u64()?,
                part: match reader.u8()? {
                    AHEAD => Part::Ahead,
                    MORE => Part::More,
                    LAST => Part::Last { connections: reader.u64()? },
                    _ => return Err(SnapshotError::Invalid("part of the states")),
                },
            },
            _ => return Err(SnapshotError::Invalid("packet of a lane")),
        };
        reader.finish()?;
        Ok(packet)
    }
}

fn save_keys(writer: &mut Writer, worker: WorkerIndex, keys: &[Key]) {
    writer.u16(worker);
    for key in keys {
        writer.u64(key.to_u64());
    }
}

fn load_keys(reader: &mut Reader<'_>) -> Result<Vec<Key>, SnapshotError> {
    let mut keys = Vec::with_capacity(reader.remaining() / 8);
    while reader.remaining() > 0 {
        let key = Key::from_u64(reader.u64()?);
        keys.push(key.ok_or(SnapshotError::Invalid("key"))?);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::Slab;

    fn states(part: Part) -> Packet {
        Packet::States { worker: u16::MAX, connections: u64::MAX, saved_ns: 7, part }
    }

    #[test]
    fn packets_survive_and_cut_ones_are_errors() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..KEYS_MAX).map(|number| slab.insert(number)).collect();
        let packets = [
            Packet::Descriptors { worker: 3, keys: keys[..DESCRIPTORS_MAX].to_vec() },
            Packet::Closed { worker: 0, keys: keys.clone() },
            Packet::Level { worker: 1 },
            states(Part::Ahead),
            states(Part::More),
            states(Part::Last { connections: 5 }),
        ];
        for packet in packets {
            let bytes = packet.encode();
            assert!(bytes.len() <= PACKET_BYTES_MAX);
            assert_eq!(Packet::decode(&bytes), Ok(packet));
            let cut = Packet::decode(&bytes[..bytes.len() - 1]);
            assert_eq!(cut, Err(SnapshotError::Truncated));
        }
        assert!(Packet::decode(&[9, 0, 0]).is_err());
        let mut other = states(Part::Ahead).encode();
        *other.last_mut().unwrap() = 9;
        assert!(Packet::decode(&other).is_err(), "no such part");
        assert!(Packet::decode(&[CLOSED, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err(), "no such key");
    }
}
