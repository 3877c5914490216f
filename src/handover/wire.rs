//! The messages of the channel: one a packet, a tag and a body.
//!
//! The two sides may be of different builds. What a message has is the same in all builds that speak
//! the same [`PROTOCOL`]; a newer one may add records behind it, which an older one passes over.

use std::io;

use crate::base::slab::Key;
use crate::base::snapshot::{Reader, SnapshotError, Writer};
use crate::base::text::{self, REASON_BYTES_MAX};
use crate::net::lane::Origin;

/// The version of these messages. Another one is refused before anything else is read.
pub const PROTOCOL: u16 = 2;

/// The longest message, in bytes: what a reader has room for, and what a writer checks.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Most refused connections in one message; a reason is cut at [`REASON_BYTES_MAX`].
pub const REFUSALS_MAX: usize = 64;

/// Most bytes of the history in a [`ToSuccessor::Prepare`]: the rest of it is some fifty.
pub const HISTORY_BYTES_MAX: usize = 48 * 1024;

/// From the predecessor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToSuccessor {
    /// What is coming. With the descriptor of the shared word.
    Prepare {
        /// The predecessor's generation; the successor's is the next one.
        generation: u64,
        /// The format of the states.
        format: u32,
        /// Workers that will send.
        workers: u16,
        /// Connections now.
        connections: u64,
        /// How many [`Holding`](Self::Holding) follow.
        holdings: u32,
        /// Nothing is to be moved: only tried.
        rehearsal: bool,
        /// When it began, in nanoseconds of the system's monotonic clock.
        begun_ns: u64,
        /// The predecessor's time namespace, by which clocks are compared; 0 if it does not know.
        time_namespace: u64,
        /// The upgrades there have been, as JSON of at most [`HISTORY_BYTES_MAX`].
        history: String,
    },
    /// What goes with the connections, as the message's descriptor: a listening socket, a lock, the
    /// control socket. A successor that does not know the label closes it.
    Holding {
        /// What it is.
        label: String,
    },
    /// The lane of one of the successor's workers, as the message's descriptor. The last one is
    /// that of the last worker.
    Lane,
    /// Nobody is served any more. Connection ids go on from here.
    Frozen {
        /// The next connection's id.
        ids_upcoming: u64,
        /// When the freeze began, in nanoseconds of the system's monotonic clock.
        at_ns: u64,
    },
    /// Take it.
    Offer,
    /// It is off.
    Abort {
        /// Why.
        reason: String,
    },
}

/// From the successor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToPredecessor {
    /// The first message.
    Hello {
        /// Its [`PROTOCOL`].
        protocol: u16,
        /// The oldest and the newest format it reads.
        formats: (u32, u32),
        /// Its version.
        build: String,
        /// Its process.
        pid: u32,
    },
    /// It has everything it needs: sockets, descriptors, threads.
    Ready {
        /// Its workers, each of which has a lane.
        workers: u16,
    },
    /// It cannot take over.
    Refused {
        /// Why.
        reason: String,
    },
    /// Every descriptor that was sent has its place.
    Parked,
    /// Connections it cannot serve; they stay. More of it, or `Adopted`, follows.
    Refusals {
        /// Each with the reason.
        connections: Vec<(Origin, String)>,
    },
    /// All others can be served.
    Adopted {
        /// How many.
        connections: u64,
    },
    /// They are served.
    Active,
}

const PREPARE: u8 = 1;
const HOLDING: u8 = 2;
const LANE: u8 = 4;
const FROZEN: u8 = 5;
const OFFER: u8 = 6;
const ABORT: u8 = 7;
const HELLO: u8 = 65;
const READY: u8 = 66;
const REFUSED: u8 = 67;
const REFUSALS: u8 = 68;
const ADOPTED: u8 = 69;
const ACTIVE: u8 = 70;
const PARKED: u8 = 71;

impl ToSuccessor {
    /// As bytes.
    ///
    /// # Errors
    /// They are more than [`MESSAGE_BYTES_MAX`], which the other side would not read. Reasons are
    /// cut, so only a history or a label could be at fault.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut writer = Writer::new();
        match self {
            Self::Prepare {
                generation,
                format,
                workers,
                connections,
                holdings,
                rehearsal,
                begun_ns,
                time_namespace,
                history,
            } => {
                writer.u8(PREPARE);
                writer.u64(*generation);
                writer.u32(*format);
                writer.u16(*workers);
                writer.u64(*connections);
                writer.u32(*holdings);
                writer.bool(*rehearsal);
                writer.u64(*begun_ns);
                writer.u64(*time_namespace);
                writer.str(history);
            }
            Self::Holding { label } => {
                writer.u8(HOLDING);
                writer.str(label);
            }
            Self::Lane => writer.u8(LANE),
            Self::Frozen { ids_upcoming, at_ns } => {
                writer.u8(FROZEN);
                writer.u64(*ids_upcoming);
                writer.u64(*at_ns);
            }
            Self::Offer => writer.u8(OFFER),
            Self::Abort { reason } => {
                writer.u8(ABORT);
                writer.str(cut(reason));
            }
        }
        checked(writer)
    }

    /// The inverse of [`encode`](Self::encode).
    ///
    /// # Errors
    /// The bytes are no message.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            PREPARE => Self::Prepare {
                generation: reader.u64()?,
                format: reader.u32()?,
                workers: reader.u16()?,
                connections: reader.u64()?,
                holdings: reader.u32()?,
                rehearsal: reader.bool()?,
                begun_ns: reader.u64()?,
                time_namespace: reader.u64()?,
                history: reader.str()?.to_owned(),
            },
            HOLDING => Self::Holding { label: reader.str()?.to_owned() },
            LANE => Self::Lane,
            FROZEN => Self::Frozen { ids_upcoming: reader.u64()?, at_ns: reader.u64()? },
            OFFER => Self::Offer,
            ABORT => Self::Abort { reason: reader.str()?.to_owned() },
            _ => return Err(SnapshotError::Invalid("message")),
        };
        pass_over_additions(reader)?;
        Ok(message)
    }
}

impl ToPredecessor {
    /// As bytes.
    ///
    /// # Errors
    /// They are more than [`MESSAGE_BYTES_MAX`], with more than [`REFUSALS_MAX`] refusals.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut writer = Writer::new();
        match self {
            Self::Hello { protocol, formats, build, pid } => {
                writer.u8(HELLO);
                // First of all, so that every version can be told from ours.
                writer.u16(*protocol);
                writer.u32(formats.0);
                writer.u32(formats.1);
                writer.str(cut(build));
                writer.u32(*pid);
            }
            Self::Ready { workers } => {
                writer.u8(READY);
                writer.u16(*workers);
            }
            Self::Refused { reason } => {
                writer.u8(REFUSED);
                writer.str(cut(reason));
            }
            Self::Refusals { connections } => {
                writer.u8(REFUSALS);
                writer.count(connections.len());
                for (origin, reason) in connections {
                    writer.u16(origin.worker);
                    writer.u64(origin.key.to_u64());
                    writer.str(cut(reason));
                }
            }
            Self::Adopted { connections } => {
                writer.u8(ADOPTED);
                writer.u64(*connections);
            }
            Self::Active => writer.u8(ACTIVE),
            Self::Parked => writer.u8(PARKED),
        }
        checked(writer)
    }

    /// The inverse of [`encode`](Self::encode).
    ///
    /// # Errors
    /// The bytes are no message.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            HELLO => {
                let protocol = reader.u16()?;
                if protocol != PROTOCOL {
                    // What follows may look different there.
                    let build = String::new();
                    return Ok(Self::Hello { protocol, formats: (0, 0), build, pid: 0 });
                }
                Self::Hello {
                    protocol,
                    formats: (reader.u32()?, reader.u32()?),
                    build: reader.str()?.to_owned(),
                    pid: reader.u32()?,
                }
            }
            READY => Self::Ready { workers: reader.u16()? },
            REFUSED => Self::Refused { reason: reader.str()?.to_owned() },
            REFUSALS => Self::Refusals { connections: load_refusals(&mut reader)? },
            ADOPTED => Self::Adopted { connections: reader.u64()? },
            ACTIVE => Self::Active,
            PARKED => Self::Parked,
            _ => return Err(SnapshotError::Invalid("message")),
        };
        pass_over_additions(reader)?;
        Ok(message)
    }
}

/// To the end, over records that need not be understood.
fn pass_over_additions(mut reader: Reader<'_>) -> Result<(), SnapshotError> {
    while let Some(record) = reader.record()? {
        record.skip_unknown()?;
    }
    Ok(())
}

fn load_refusals(reader: &mut Reader<'_>) -> Result<Vec<(Origin, String)>, SnapshotError> {
    let count = reader.varint()?;
    let mut refusals = Vec::new();
    for _ in 0..count {
        let worker = reader.u16()?;
        let key = Key::from_u64(reader.u64()?).ok_or(SnapshotError::Invalid("key"))?;
        refusals.push((Origin { worker, key }, reader.str()?.to_owned()));
    }
    Ok(refusals)
}

fn cut(reason: &str) -> &str {
    text::cut(reason, REASON_BYTES_MAX)
}

fn checked(writer: Writer) -> io::Result<Vec<u8>> {
    let bytes = writer.into_bytes();
    if bytes.len() > MESSAGE_BYTES_MAX {
        let text = format!("a message of {} bytes is too long for the channel", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::testing::Sequence;

    fn origin(index: u16) -> Origin {
        let key = Key::from_u64(1 << 32 | u64::from(index)).unwrap();
        Origin { worker: index, key }
    }

    #[test]
    fn messages_survive_and_cut_ones_are_errors() {
        let messages = [
            ToSuccessor::Prepare {
                generation: 7,
                format: 1,
                workers: 512,
                connections: u64::MAX,
                holdings: 6,
                rehearsal: true,
                begun_ns: 5,
                time_namespace: 6,
                history: "[]".into(),
            },
            ToSuccessor::Holding { label: "listener 127.0.0.1:0".into() },
            ToSuccessor::Lane,
            ToSuccessor::Frozen { ids_upcoming: 9, at_ns: 10 },
            ToSuccessor::Offer,
            ToSuccessor::Abort { reason: "told to".into() },
        ];
        for message in messages {
            let bytes = message.encode().unwrap();
            assert_eq!(ToSuccessor::decode(&bytes), Ok(message));
            assert!(ToSuccessor::decode(&bytes[..bytes.len() - 1]).is_err());
            assert!(ToPredecessor::decode(&bytes).is_err(), "tags of the two sides differ");
        }
        let refusals =
            (0..REFUSALS_MAX as u16).map(|index| (origin(index), "x".repeat(REASON_BYTES_MAX)));
        let messages = [
            ToPredecessor::Hello {
                protocol: PROTOCOL,
                formats: (1, 2),
                build: "0.1.0".into(),
                pid: 1,
            },
            ToPredecessor::Ready { workers: 4 },
            ToPredecessor::Refused { reason: "no".into() },
            ToPredecessor::Refusals { connections: refusals.collect() },
            ToPredecessor::Adopted { connections: 3 },
            ToPredecessor::Active,
            ToPredecessor::Parked,
        ];
        for message in messages {
            let bytes = message.encode().unwrap();
            assert!(bytes.len() <= MESSAGE_BYTES_MAX);
            assert_eq!(ToPredecessor::decode(&bytes), Ok(message));
            assert!(ToPredecessor::decode(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    /// So that a newer build can say more to one that listens for it.
    #[test]
    fn additions_are_passed_over_unless_they_must_not_be() {
        let added = |message: Vec<u8>, write: &dyn Fn(&mut Writer)| {
            let mut writer = Writer::new();
            writer.raw(&message);
            write(&mut writer);
            writer.into_bytes()
        };
        let optional = |writer: &mut Writer| writer.record(1, |writer| writer.u32(7));
        let required = |writer: &mut Writer| writer.required_record(1, |writer| writer.u32(7));
        let to_successor = ToSuccessor::Holding { label: "control".into() };
        let bytes = added(to_successor.encode().unwrap(), &optional);
        assert_eq!(ToSuccessor::decode(&bytes), Ok(to_successor.clone()));
        let bytes = added(to_successor.encode().unwrap(), &required);
        assert_eq!(ToSuccessor::decode(&bytes), Err(SnapshotError::UnknownRecord(1)));
        let to_predecessor = ToPredecessor::Ready { workers: 4 };
        let bytes = added(to_predecessor.encode().unwrap(), &optional);
        assert_eq!(ToPredecessor::decode(&bytes), Ok(to_predecessor.clone()));
        let bytes = added(to_predecessor.encode().unwrap(), &required);
        assert_eq!(ToPredecessor::decode(&bytes), Err(SnapshotError::UnknownRecord(1)));
    }

    #[test]
    fn another_protocol_is_known_by_its_first_bytes() {
        let hello = [HELLO, 9, 0, 1, 2, 3];
        let Ok(ToPredecessor::Hello { protocol, .. }) = ToPredecessor::decode(&hello) else {
            panic!("not understood");
        };
        assert_eq!(protocol, 9);
    }

    /// A text of random characters, one to four bytes each.
    fn random_text(random: &mut Sequence, chars: u64) -> String {
        let of = ['x', '\0', '"', 'ä', '…', '🦀'];
        (0..chars).map(|_| of[random.below(of.len() as u64) as usize]).collect()
    }

    /// The largest of each kind that its sender may mean to send.
    #[test]
    fn the_longest_messages_are_read() {
        let mut random = Sequence::new(7);
        for round in 0..200 {
            let mut long = |chars_max| {
                let chars = if round == 0 { chars_max } else { random.below(chars_max) };
                random_text(&mut random, chars)
            };
            let history = text::cut(&long(60_000), HISTORY_BYTES_MAX).to_owned();
            let reasons: Vec<String> = (0..REFUSALS_MAX).map(|_| long(2_000)).collect();
            let (reason, label) = (long(100_000), long(4_096));
            let build = reason.clone();
            let prepare = ToSuccessor::Prepare {
                generation: u64::MAX,
                format: u32::MAX,
                workers: u16::MAX,
                connections: u64::MAX,
                holdings: u32::MAX,
                rehearsal: true,
                begun_ns: u64::MAX,
                time_namespace: u64::MAX,
                history,
            };
            for message in [prepare, ToSuccessor::Holding { label }] {
                assert_eq!(ToSuccessor::decode(&message.encode().unwrap()), Ok(message));
            }
            let abort = ToSuccessor::Abort { reason: reason.clone() }.encode().unwrap();
            let shortened = |text: &str| cut(text).to_owned();
            assert_eq!(
                ToSuccessor::decode(&abort),
                Ok(ToSuccessor::Abort { reason: shortened(&reason) })
            );
            let connections = |said: &dyn Fn(&str) -> String| {
                let indexed = reasons.iter().zip(0..);
                indexed.map(|(reason, index)| (origin(index), said(reason))).collect()
            };
            let hello = |build| ToPredecessor::Hello {
                protocol: PROTOCOL,
                formats: (u32::MAX, u32::MAX),
                build,
                pid: u32::MAX,
            };
            let kept = |reason: &str| reason.to_owned();
            for (message, expected) in [
                (hello(build.clone()), hello(shortened(&build))),
                (
                    ToPredecessor::Refused { reason: reason.clone() },
                    ToPredecessor::Refused { reason: shortened(&reason) },
                ),
                (
                    ToPredecessor::Refusals { connections: connections(&kept) },
                    ToPredecessor::Refusals { connections: connections(&shortened) },
                ),
            ] {
                let bytes = message.encode().unwrap();
                assert!(bytes.len() <= MESSAGE_BYTES_MAX);
                assert_eq!(ToPredecessor::decode(&bytes), Ok(expected));
            }
        }
    }

    #[test]
    fn what_would_not_be_read_is_not_sent() {
        let label = "x".repeat(MESSAGE_BYTES_MAX);
        assert!(ToSuccessor::Holding { label }.encode().is_err());
        let refusal = || (origin(1), "x".repeat(REASON_BYTES_MAX));
        let connections = (0..REFUSALS_MAX * 2).map(|_| refusal()).collect();
        assert!(ToPredecessor::Refusals { connections }.encode().is_err());
    }
}
