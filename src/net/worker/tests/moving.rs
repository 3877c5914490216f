//! A handover between a worker without a thread and workers on threads of their own.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Rig, TEXT, dispatcher, read_some};
use crate::base::format::Format;
use crate::base::shared::Bodies;
use crate::hub::{Spaces, WorkerIndex};
use crate::net::accounts::Accounts;
use crate::net::lane::{PACKET_BYTES_MAX, Packet, Part};
use crate::net::mailbox::Mailboxes;
use crate::net::order::{Order, Outlets, Report};
use crate::net::worker::adopting::{Adoption, Finding, Instruction, Talk};
use crate::net::worker::{Parts, Worker};
use crate::sys::bell::Bell;
use crate::sys::packets::{self, Received};

const PAUSE: Duration = Duration::from_secs(1);

/// The lanes of a handover, of which the predecessor is a [`Rig`].
struct Lanes {
    theirs: Vec<OwnedFd>,
    outlets: Outlets,
    reports: Receiver<(WorkerIndex, Report)>,
}

impl Lanes {
    fn new(count: usize) -> Self {
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..count).map(|_| packets::pair().unwrap()).unzip();
        let (sender, reports) = Bell::new().unwrap().channel();
        let outlets = Outlets { lanes: ours.into(), format: Format::NEWEST, reports: sender };
        Self { theirs, outlets, reports }
    }
}

impl Rig {
    /// Has the worker work until it reports.
    fn report(&mut self, reports: &Receiver<(WorkerIndex, Report)>) -> Report {
        let mut report = None;
        self.turn_until("a report", |_| {
            report = report.take().or_else(|| reports.try_recv().ok());
            report.is_some()
        });
        let (_, report) = report.unwrap();
        report
    }

    /// Up to where the pause begins.
    fn copy_to(&mut self, outlets: &Outlets, reports: &Receiver<(WorkerIndex, Report)>) {
        self.order(Order::PreCopy(outlets.clone()));
        assert!(matches!(self.report(reports), Report::Copied));
    }

    fn freeze_and_save(
        &mut self,
        reports: &Receiver<(WorkerIndex, Report)>,
        pause_max: Duration,
    ) -> (usize, usize) {
        self.order(Order::Freeze);
        assert!(matches!(self.report(reports), Report::Frozen));
        self.order(Order::Save { pause_max });
        match self.report(reports) {
            Report::Saved { connections, kept } => (connections, kept.len()),
            other => panic!("{other:?}"),
        }
    }

    /// A connection that has sent this much of a longer text.
    fn hoard(&mut self, len: usize) -> TcpStream {
        let holders = |rig: &Self| {
            let conns = rig.worker.conns.iter();
            conns
                .filter(|(_, conn)| conn.session.bytes_to_save(&Bodies::default()) + 4 == len)
                .count()
        };
        let expected = holders(self) + 1;
        let mut stream = self.open("/sink");
        stream.set_nonblocking(false).unwrap();
        let mut bytes = vec![TEXT, 0x80 | 127];
        bytes.extend(HOARD.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(text(0..len));
        // The socket may have room for less.
        for piece in bytes.chunks(10_000) {
            stream.write_all(piece).unwrap();
            self.turn();
        }
        self.turn_until("it has been read", |rig| holders(rig) == expected);
        stream
    }

    /// More of the same has come, and has been read.
    fn append(&mut self, stream: &mut TcpStream, range: std::ops::Range<usize>) {
        let bytes = |rig: &Self| -> usize {
            let conns = rig.worker.conns.iter();
            conns
                .map(|(_, conn)| {
                    conn.session.ahead() + conn.session.bytes_to_save(&Bodies::default())
                })
                .sum()
        };
        let expected = bytes(self) + range.len();
        stream.write_all(&text(range)).unwrap();
        self.turn_until("it has been read", |rig| bytes(rig) == expected);
    }
}

/// Bytes of a hoarder's message in all.
const HOARD: u64 = 900_000;

/// Part of its text.
fn text(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(|at| b'a' + (at / 7 % 26) as u8).collect()
}

/// What came over a lane.
#[derive(Default)]
struct Tapped {
    ahead: u64,
    in_pause: u64,
}

/// Takes all there is on a lane.
fn tap(lane: &OwnedFd) -> Tapped {
    let mut tapped = Tapped::default();
    let (mut buffer, mut descriptors) = (vec![0; PACKET_BYTES_MAX], Vec::new());
    while let Received::Packet(len) =
        packets::receive(lane, &mut buffer, &mut descriptors, Some(Duration::ZERO)).unwrap()
    {
        if let Packet::States { part, .. } = Packet::decode(&buffer[..len]).unwrap() {
            let len = File::from(descriptors.pop().unwrap()).metadata().unwrap().len();
            match part {
                Part::Ahead => tapped.ahead += len,
                Part::More | Part::Last { .. } => tapped.in_pause += len,
            }
        }
        descriptors.clear();
    }
    tapped
}

#[test]
fn what_has_come_of_a_message_goes_ahead_and_the_rest_in_the_pause() {
    const HOARDERS: usize = 20;
    let mut rig = Rig::new();
    let lanes = Lanes::new(1);
    let mut streams: Vec<TcpStream> = (0..HOARDERS).map(|_| rig.hoard(300_000)).collect();
    // Its successor is called off, after which another one gets all of it again.
    for at in [300_000, 300_001] {
        rig.copy_to(&lanes.outlets, &lanes.reports);
        let ahead = tap(&lanes.theirs[0]).ahead;
        assert!(ahead > 299_000 * HOARDERS as u64, "{ahead} bytes");
        for stream in &mut streams {
            rig.append(stream, at..at + 1);
        }
        assert_eq!(rig.freeze_and_save(&lanes.reports, PAUSE), (HOARDERS, 0));
        let in_pause = tap(&lanes.theirs[0]).in_pause;
        assert!(in_pause < 1_000 * HOARDERS as u64, "{in_pause} bytes");
        rig.order(Order::Thaw);
    }
}

#[test]
fn what_waits_to_be_written_goes_ahead_and_the_rest_in_the_pause() {
    const QUEUED: usize = 500_000;
    let mut rig = Rig::new();
    let lanes = Lanes::new(1);
    let (mut slow, mut publisher) = (rig.open("/rooms/a"), rig.open("/rooms/a"));
    let queued = |rig: &Rig| -> usize {
        rig.worker.conns.iter().map(|(_, conn)| conn.session.holding().queued).sum()
    };
    let head = [&[TEXT, 0x80 | 126][..], &10_000_u16.to_be_bytes(), &[0; 4]].concat();
    let message = [&head[..], &[b'a'; 10_000]].concat();
    let sent = (0..2_000).find(|_| {
        publisher.set_nonblocking(false).unwrap();
        publisher.write_all(&message).unwrap();
        rig.turn();
        queued(&rig) >= QUEUED
    });
    assert!(sent.is_some(), "the kernel takes it all");
    rig.copy_to(&lanes.outlets, &lanes.reports);
    let ahead = tap(&lanes.theirs[0]).ahead;
    assert!(ahead >= QUEUED as u64, "{ahead} bytes");
    // It takes some now, and one more has come for it.
    publisher.write_all(&message).unwrap();
    let (before, mut read) = (queued(&rig), vec![]);
    rig.turn_until("it has taken some", |rig| {
        read_some(&mut slow, &mut read);
        queued(rig) + 10_000 < before
    });
    assert_eq!(rig.freeze_and_save(&lanes.reports, PAUSE), (2, 0));
    let in_pause = tap(&lanes.theirs[0]).in_pause;
    assert!(in_pause < 40_000, "{in_pause} bytes");
}

#[test]
fn whoever_has_more_than_fits_into_the_pause_stays() {
    let mut rig = Rig::new();
    let lanes = Lanes::new(1);
    let mut hoarder = rig.hoard(100_000);
    let _idle: Vec<TcpStream> = (0..3).map(|_| rig.open("/sink")).collect();
    rig.copy_to(&lanes.outlets, &lanes.reports);
    rig.append(&mut hoarder, 100_000..150_000);
    assert_eq!(rig.freeze_and_save(&lanes.reports, Duration::ZERO), (3, 1));
}

/// Workers of a successor, on threads.
struct Successor {
    mailboxes: Arc<Mailboxes>,
    findings: Receiver<(WorkerIndex, Finding)>,
    instructions: Vec<Sender<Instruction>>,
    threads: Vec<JoinHandle<()>>,
}

impl Successor {
    /// One worker for each lane.
    fn new(lanes: Vec<OwnedFd>) -> Self {
        let workers = lanes.len();
        let (mailboxes, polls) = Mailboxes::new(workers, Spaces::default()).unwrap();
        let (sender, findings) = Bell::new().unwrap().channel();
        let accounts = Arc::new(Accounts::new(workers, 10_000, usize::MAX));
        let (mut instructions, mut threads) = (Vec::new(), Vec::new());
        for (index, (lane, poll)) in lanes.into_iter().zip(polls).enumerate() {
            let (instruction, receiver) = mpsc::channel();
            let adoption = Adoption { lane, senders: 1, rehearsal: false };
            instruction.send(Instruction::Adopt(adoption)).unwrap();
            instructions.push(instruction);
            let (mailboxes, accounts) = (mailboxes.clone(), accounts.clone());
            let findings = sender.clone();
            threads.push(thread::spawn(move || {
                let heard = Arc::<AtomicUsize>::default();
                let dispatcher = dispatcher(index as WorkerIndex, workers, &mailboxes, &heard);
                let started = Instant::now();
                let parts = Parts { poll, dispatcher, mailboxes, accounts, started };
                let mut worker = Worker::new(parts, workers);
                if let Some(beginning) = worker.adopt(&Talk { instructions: receiver, findings }) {
                    worker.run(beginning, || panic!("nothing panics")).unwrap();
                    assert!(heard.load(Ordering::Relaxed) <= 1);
                }
            }));
        }
        Self { mailboxes, findings, instructions, threads }
    }

    fn finding(&self) -> Finding {
        self.findings.recv_timeout(Duration::from_secs(30)).expect("a finding").1
    }

    fn has_mail(&self) -> bool {
        (0..self.threads.len()).any(|worker| self.mailboxes.has_mail(worker as WorkerIndex))
    }

    fn instruct(&self, instruction: impl Fn() -> Instruction) {
        self.instructions.iter().for_each(|worker| worker.send(instruction()).unwrap());
    }

    /// How many connections its workers have loaded.
    fn loaded(&self) -> usize {
        let loaded = |finding| match finding {
            Finding::Loaded { connections, refused } if refused.is_empty() => connections,
            other => panic!("{other:?}"),
        };
        (0..self.threads.len()).map(|_| loaded(self.finding())).sum()
    }

    fn serve(&self) {
        let (sender, begun) = mpsc::channel();
        self.instruct(|| Instruction::Serve(sender.clone()));
        drop(sender);
        assert!(begun.recv().is_err(), "each worker's is gone");
    }

    fn stop(self) {
        super::end(&self.mailboxes);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn the_rooms_of_connections_at_rest_are_settled_ahead_of_the_pause() {
    const ROOMS: usize = 300;
    let mut rig = Rig::new();
    let Lanes { theirs, outlets, reports } = Lanes::new(2);
    let mut members: Vec<TcpStream> =
        (0..ROOMS).map(|room| rig.open(&format!("/rooms/{room}?self=1"))).collect();
    let successor = Successor::new(theirs);
    rig.copy_to(&outlets, &reports);
    for _ in 0..2 {
        assert!(matches!(successor.finding(), Finding::Level));
    }
    let begun = Instant::now();
    while successor.has_mail() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is taken without the pause");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(rig.freeze_and_save(&reports, PAUSE), (ROOMS, 0));
    assert_eq!(successor.loaded(), ROOMS);
    assert!(!successor.has_mail(), "the pause makes no mail");
    // A worker that had its last mail after it said that it was level is idle in the second round.
    for round in 0..2 {
        successor.instruct(|| Instruction::Settle);
        for _ in 0..2 {
            let finding = successor.finding();
            assert!(matches!(finding, Finding::Settled { idle } if idle || round == 0));
        }
    }
    successor.serve();
    rig.order(Order::Release { kept: [].into(), drain: Duration::ZERO });
    for member in &mut members {
        member.write_all(&super::frame(TEXT, b"there?")).unwrap();
        let mut received = Vec::new();
        rig.turn_until("its own message", |_| {
            read_some(member, &mut received);
            received.ends_with(b"there?")
        });
    }
    successor.stop();
}

#[test]
fn a_message_that_goes_in_three_parts_is_one() {
    let mut rig = Rig::new();
    let Lanes { theirs, outlets, reports } = Lanes::new(1);
    // One that goes on, and one that ends and is followed by another one when bytes of it have gone.
    let mut stream = rig.hoard(600_000);
    let successor = Successor::new(theirs);
    rig.copy_to(&outlets, &reports);
    assert!(matches!(successor.finding(), Finding::Level));
    rig.append(&mut stream, 600_000..603_000);
    assert_eq!(rig.freeze_and_save(&reports, PAUSE), (1, 0));
    assert_eq!(successor.loaded(), 1);
    successor.serve();
    rig.order(Order::Release { kept: [].into(), drain: Duration::ZERO });
    let mut writer = stream.try_clone().unwrap();
    let rest = thread::spawn(move || writer.write_all(&text(603_000..HOARD as usize)).unwrap());
    let mut answer = vec![0; 10 + HOARD as usize];
    std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
    rest.join().unwrap();
    assert!(answer[10..] == text(0..HOARD as usize), "byte for byte");
    successor.stop();
}
