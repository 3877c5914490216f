//! What goes over a link: one JSON object a packet, some with descriptors. Packets that a reader
//! does not know it passes over: the other end may be a newer or an older program.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::machine::{Ending, Order, Pid};
use crate::sys::packets::{self, Received};

/// Bytes of a packet, for whoever reads and whoever writes: [`KEPT_A_PACKET`] labels of a Unix
/// socket's path each, and then some.
pub(super) const PACKET_BYTES_MAX: usize = 64 * 1024;

/// Descriptors of listeners in one packet, so that their labels fit, too: a path has up to 107
/// bytes, and a control character in it takes six bytes.
pub(super) const KEPT_A_PACKET: usize = 64;

/// A descriptor that outlives a crash of the server, and what it is.
#[derive(Debug)]
pub struct Kept {
    /// What the server calls it.
    pub label: String,
    /// The descriptor.
    pub fd: OwnedFd,
}

/// From a server, or one that is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum ToSupervisor {
    /// What to keep once this process is the server, one descriptor for each label. Several of
    /// these add up.
    Keep { labels: Vec<String> },
    /// This process serves.
    Serving,
    /// Wanted: a successor.
    StartSuccessor {
        binary: Option<PathBuf>,
        /// Comes back with the answer. Other programs may know nothing of it: 0.
        #[serde(default)]
        request: u64,
    },
    /// This process stops, as an operator told it.
    Stopping,
    /// This process was told to end while it was the server; now another one is, and is to end.
    End { ending: Ending },
    /// The successor is given up, and does not end by itself.
    KillSuccessor,
    /// A process that the supervisor has not started may take over; with the descriptor of the
    /// shared word that says whether it has.
    Contested,
    /// That is off.
    Uncontested,
    /// A process that the supervisor has not started has taken over.
    Moved,
}

/// To a server, or one that is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum ToServer {
    /// The first packet.
    Start {
        /// Which generation this process is.
        generation: u64,
        supervisor: Pid,
        /// Descriptors that follow: what a server that crashed has left.
        kept: usize,
    },
    /// One descriptor for each label.
    Kept { labels: Vec<String> },
    /// The successor is started; with this process's end of the channel, and the pidfd of the
    /// successor.
    Successor {
        pid: Pid,
        #[serde(default)]
        request: u64,
    },
    /// What the process is to do.
    Order { order: Order },
    /// There is no successor.
    Failed {
        reason: String,
        #[serde(default)]
        request: u64,
    },
}

/// What came over a link.
#[derive(Debug)]
pub(super) enum Packet<T> {
    /// A message and its descriptors.
    Message(T, Vec<OwnedFd>),
    /// None is there, or came in time.
    Nothing,
    /// The other end is closed.
    Ended,
}

/// How long a message with descriptors waits while other processes of the same user have as many
/// under way as one may: each of them takes its own soon.
const DESCRIPTORS_WAIT_MAX: Duration = Duration::from_secs(2);

/// How often it is tried.
const DESCRIPTORS_RETRY: Duration = Duration::from_millis(1);

/// Sends without waiting for the other end: a link has room for more than is ever under way.
pub(super) fn send<T: Serialize>(
    link: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > PACKET_BYTES_MAX {
        let text = format!("a message of {} bytes is too long for the link", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let until = Instant::now() + DESCRIPTORS_WAIT_MAX;
    loop {
        match packets::send(&link, &bytes, descriptors, false) {
            Err(error)
                if error.kind() == io::ErrorKind::QuotaExceeded && Instant::now() < until =>
            {
                thread::sleep(DESCRIPTORS_RETRY);
            }
            outcome => return outcome,
        }
    }
}

/// Receives the next message that is known.
pub(super) fn receive<T: DeserializeOwned>(
    link: impl AsFd,
    timeout: Option<Duration>,
) -> io::Result<Packet<T>> {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        let mut descriptors = Vec::new();
        match packets::receive(&link, &mut buffer, &mut descriptors, timeout)? {
            Received::Nothing => return Ok(Packet::Nothing),
            Received::Ended => return Ok(Packet::Ended),
            Received::Packet(count) => match serde_json::from_slice(&buffer[..count]) {
                Ok(message) => return Ok(Packet::Message(message, descriptors)),
                Err(error) => tracing::warn!(%error, "a message of another program's is unknown"),
            },
        }
    }
}

/// Pairs labels with the descriptors that came with them.
pub(super) fn pair(labels: Vec<String>, descriptors: Vec<OwnedFd>) -> io::Result<Vec<Kept>> {
    if labels.len() != descriptors.len() {
        let text = "a packet has other descriptors than it says";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let pairs = labels.into_iter().zip(descriptors);
    Ok(pairs.map(|(label, fd)| Kept { label, fd }).collect())
}

/// Sends listeners in as many packets as they need.
pub(super) fn send_kept<T: Serialize>(
    link: impl AsFd,
    kept: &[(&str, BorrowedFd<'_>)],
    message: impl Fn(Vec<String>) -> T,
) -> io::Result<()> {
    for part in kept.chunks(KEPT_A_PACKET) {
        let labels = part.iter().map(|(label, _)| (*label).to_owned()).collect();
        let descriptors: Vec<_> = part.iter().map(|(_, fd)| *fd).collect();
        send(&link, &message(labels), &descriptors)?;
    }
    Ok(())
}
