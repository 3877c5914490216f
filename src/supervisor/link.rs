//! The server's end of the link to its supervisor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::machine::{Ending, Order, Pid};
use super::message::{Kept, Packet, ToServer, ToSupervisor, pair, receive, send, send_kept};
use crate::sys::pidfd::Pidfd;

/// How long a supervisor may take to send what it has sent before it started this process.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// A link to the supervisor. Nothing that is sent over it waits.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    /// The number of the last request for a successor.
    request: AtomicU64,
}

/// What a process learns at its start.
#[derive(Debug)]
pub struct Start {
    /// Which generation it is: 1 for the first server of a supervisor, one more for each process
    /// that serves after it.
    pub generation: u64,
    /// The supervisor's process.
    pub supervisor: Pid,
    /// Listeners that a server which crashed has left, under the labels it gave them.
    pub kept: Vec<Kept>,
}

/// What the supervisor says later.
#[derive(Debug)]
pub enum LinkEvent {
    /// The successor that was asked for is started.
    Successor {
        /// Its process.
        pid: Pid,
        /// The same, to send it signals.
        process: Pidfd,
        /// The predecessor's end of the channel to it.
        channel: OwnedFd,
    },
    /// The successor that was asked for is not started, for this reason.
    Failed(String),
    /// What this process is to do.
    Order(Order),
    /// The supervisor is gone. The server goes on; nobody starts another one if it crashes.
    Ended,
}

impl Link {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, request: AtomicU64::new(0) }
    }

    /// What this process is to begin with; to be called first, and once.
    ///
    /// # Errors
    /// The supervisor is gone or says something else; lost descriptors.
    pub fn start(&self) -> io::Result<Start> {
        let unexpected =
            || io::Error::new(io::ErrorKind::InvalidData, "the supervisor says nothing");
        let timeout = Some(START_TIME_MAX);
        let Packet::Message(ToServer::Start { generation, supervisor, kept: count }, _) =
            receive(self, timeout)?
        else {
            return Err(unexpected());
        };
        let mut kept = Vec::new();
        while kept.len() < count {
            match receive(self, timeout)? {
                Packet::Message(ToServer::Kept { labels }, fds) if !labels.is_empty() => {
                    kept.extend(pair(labels, fds)?);
                }
                _ => return Err(unexpected()),
            }
        }
        Ok(Start { generation, supervisor, kept })
    }

    /// Gives the supervisor copies of what is to survive a crash of this process, under any labels.
    /// They count from [`serving`](Self::serving) on, and once only.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn keep(&self, listeners: &[(&str, BorrowedFd<'_>)]) -> io::Result<()> {
        send_kept(self, listeners, |labels| ToSupervisor::Keep { labels })
    }

    /// Says that this process is the server. A successor says so once it has taken over, and before
    /// it tells its predecessor.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn serving(&self) -> io::Result<()> {
        send(self, &ToSupervisor::Serving, &[])
    }

    /// Asks for a successor, of another program if one is named; [`LinkEvent::Successor`] or
    /// [`LinkEvent::Failed`] is the answer. One that was asked for before is ended, and if the answer
    /// to that comes yet, it is passed over.
    ///
    /// # Errors
    /// The supervisor is gone; a path that is not UTF-8.
    pub fn start_successor(&self, binary: Option<&Path>) -> io::Result<()> {
        let binary = binary.map(Path::to_owned);
        let request = self.request.fetch_add(1, Ordering::Relaxed) + 1;
        send(self, &ToSupervisor::StartSuccessor { binary, request }, &[])
    }

    /// Says that this process stops for good, so that its end is no crash, and the supervisor
    /// closes its listeners: before their queues are emptied.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn stopping(&self) -> io::Result<()> {
        send(self, &ToSupervisor::Stopping, &[])
    }

    /// Asks for the end of the successor, which is given up and does not end by itself.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn kill_successor(&self) -> io::Result<()> {
        send(self, &ToSupervisor::KillSuccessor, &[])
    }

    /// Says that this process was told to end while it was the server, which another one is now.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn end(&self, ending: Ending) -> io::Result<()> {
        send(self, &ToSupervisor::End { ending }, &[])
    }

    /// Says that a process with another parent may take over; `word` says whether it has, should
    /// this process crash meanwhile.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn contested(&self, word: BorrowedFd<'_>) -> io::Result<()> {
        send(self, &ToSupervisor::Contested, &[word])
    }

    /// Says that this is off.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn uncontested(&self) -> io::Result<()> {
        send(self, &ToSupervisor::Uncontested, &[])
    }

    /// Says that a process with another parent has taken over, so that the supervisor ends when
    /// this process does.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn moved(&self) -> io::Result<()> {
        send(self, &ToSupervisor::Moved, &[])
    }

    /// What the supervisor says; `None` if it says nothing within `timeout`.
    ///
    /// # Errors
    /// Lost descriptors.
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<LinkEvent>> {
        loop {
            return Ok(Some(match receive(self, Some(timeout))? {
                Packet::Nothing => return Ok(None),
                Packet::Ended => LinkEvent::Ended,
                Packet::Message(ToServer::Failed { reason, request }, _) if self.asked(request) => {
                    LinkEvent::Failed(reason)
                }
                Packet::Message(ToServer::Successor { pid, request }, mut fds)
                    if fds.len() == 2 && self.asked(request) =>
                {
                    let process = Pidfd::from_fd(fds.pop().expect("there are two"));
                    let channel = fds.pop().expect("there are two");
                    LinkEvent::Successor { pid, process, channel }
                }
                Packet::Message(ToServer::Order { order }, _) => LinkEvent::Order(order),
                // Nothing that is said in the middle, or what came too late.
                Packet::Message(..) => continue,
            }));
        }
    }

    /// Whether this is the answer to the last request.
    fn asked(&self, request: u64) -> bool {
        request == self.request.load(Ordering::Relaxed) || request == 0
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{KEPT_A_PACKET, PACKET_BYTES_MAX};
    use super::*;
    use crate::base::text::cut_reason;
    use crate::sys::packets;
    use std::fs::File;
    use std::process;

    fn linked() -> (OwnedFd, Link) {
        let (theirs, ours) = packets::pair().unwrap();
        (theirs, Link::new(ours))
    }

    #[test]
    fn a_start_has_all_that_was_left() {
        let (supervisor, link) = linked();
        let null = File::open("/dev/null").unwrap();
        let labels: Vec<String> = (0..250).map(|number| format!("listener {number}")).collect();
        let kept: Vec<_> = labels.iter().map(|label| (label.as_str(), null.as_fd())).collect();
        let start = ToServer::Start { generation: 7, supervisor: 11, kept: kept.len() };
        send(&supervisor, &start, &[]).unwrap();
        send_kept(&supervisor, &kept, |labels| ToServer::Kept { labels }).unwrap();
        let start = link.start().unwrap();
        assert_eq!((start.generation, start.supervisor), (7, 11));
        assert!(start.kept.iter().map(|kept| &kept.label).eq(&labels));
    }

    /// The largest of each kind that its sender may mean to send: JSON takes six bytes for a control
    /// character.
    #[test]
    fn the_longest_messages_are_read() {
        let null = File::open("/dev/null").unwrap();
        let (supervisor, link) = linked();
        let label = format!("listener unix:{}", "\u{1}".repeat(107));
        let kept = vec![(label.as_str(), null.as_fd()); KEPT_A_PACKET + 1];
        let start = ToServer::Start { generation: u64::MAX, supervisor: 1, kept: kept.len() };
        send(&supervisor, &start, &[]).unwrap();
        send_kept(&supervisor, &kept, |labels| ToServer::Kept { labels }).unwrap();
        assert_eq!(link.start().unwrap().kept.len(), kept.len());

        let reason = cut_reason("\u{1}".repeat(1_000_000));
        let failed = ToServer::Failed { reason: reason.clone(), request: 0 };
        send(&supervisor, &failed, &[]).unwrap();
        let long = Duration::from_secs(60);
        let received = link.receive(long).unwrap();
        assert!(matches!(received, Some(LinkEvent::Failed(why)) if why == reason));

        let program = "\u{1}".repeat(libc::PATH_MAX as usize);
        link.start_successor(Some(program.as_ref())).unwrap();
        let received = receive(&supervisor, Some(long)).unwrap();
        let Packet::Message(ToSupervisor::StartSuccessor { binary: Some(binary), .. }, _) =
            received
        else {
            panic!("{received:?}");
        };
        assert_eq!(binary.as_os_str(), &*program);

        let too_long = ToServer::Failed { reason: "x".repeat(PACKET_BYTES_MAX), request: 0 };
        let error = send(&supervisor, &too_long, &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn other_starts_are_errors() {
        let null = File::open("/dev/null").unwrap();
        let start = |kept| ToServer::Start { generation: 1, supervisor: 2, kept };
        let labels = |count| ToServer::Kept { labels: vec!["x".to_owned(); count] };
        for (messages, descriptors) in [
            (vec![], 0),
            (vec![labels(1)], 1),
            (vec![start(1)], 0),
            (vec![start(1), labels(0)], 0),
            (vec![start(1), labels(2)], 1),
        ] {
            let (supervisor, link) = linked();
            for message in &messages {
                send(&supervisor, message, &vec![null.as_fd(); descriptors]).unwrap();
            }
            drop(supervisor);
            assert!(link.start().is_err(), "{messages:?}");
        }
    }

    #[test]
    fn answers_come_with_the_channel_or_a_reason() {
        let (supervisor, link) = linked();
        let (channel, other) = packets::pair().unwrap();
        assert!(link.receive(Duration::ZERO).unwrap().is_none());
        packets::send(&supervisor, b"{\"message\":\"of a newer program\"}", &[], false).unwrap();
        let successor = ToServer::Successor { pid: 5, request: 0 };
        let process = Pidfd::open(process::id()).unwrap();
        send(&supervisor, &successor, &[channel.as_fd(), process.as_fd()]).unwrap();
        let reason = "no".to_owned();
        send(&supervisor, &ToServer::Failed { reason, request: 0 }, &[]).unwrap();
        let order = Order::End(Ending::Drain);
        send(&supervisor, &ToServer::Order { order }, &[]).unwrap();
        drop((supervisor, channel));
        let long = Duration::from_secs(60);
        let Some(LinkEvent::Successor { pid: 5, channel, .. }) = link.receive(long).unwrap() else {
            panic!("the successor's channel comes first");
        };
        packets::send(&channel, b"x", &[], false).unwrap();
        let mut buffer = [0; 8];
        let received = packets::receive(&other, &mut buffer, &mut Vec::new(), None).unwrap();
        assert_eq!(received, packets::Received::Packet(1));
        assert!(matches!(link.receive(long).unwrap(), Some(LinkEvent::Failed(why)) if why == "no"));
        let ordered = link.receive(long).unwrap();
        assert!(matches!(ordered, Some(LinkEvent::Order(Order::End(Ending::Drain)))));
        assert!(matches!(link.receive(long).unwrap(), Some(LinkEvent::Ended)));
        assert!(link.serving().is_err());
    }

    #[test]
    fn an_answer_that_comes_too_late_is_none() {
        let (supervisor, link) = linked();
        let (channel, other) = packets::pair().unwrap();
        let failed = |request: u64| ToServer::Failed { reason: request.to_string(), request };
        link.start_successor(None).unwrap();
        link.start_successor(None).unwrap();
        let late = ToServer::Successor { pid: 5, request: 1 };
        let process = Pidfd::open(process::id()).unwrap();
        send(&supervisor, &late, &[channel.as_fd(), process.as_fd()]).unwrap();
        send(&supervisor, &failed(1), &[]).unwrap();
        send(&supervisor, &failed(2), &[]).unwrap();
        drop(channel);
        let long = Duration::from_secs(60);
        assert!(matches!(link.receive(long).unwrap(), Some(LinkEvent::Failed(why)) if why == "2"));
        let received = packets::receive(&other, &mut [0; 8], &mut Vec::new(), Some(long)).unwrap();
        assert_eq!(received, packets::Received::Ended, "its successor is alone");
    }
}
