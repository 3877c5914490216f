//! How other threads reach a worker: a bounded queue and a waker.
//!
//! Two lanes, so that full mailboxes cannot hold each other up. *Deliveries* are ordered messages
//! for members and orders from the main thread: a worker always takes them, for they end in its
//! own sockets' queues. *Requests* make a worker send deliveries itself, so it takes them only while
//! those get through; its own requests may wait meanwhile. What does not fit stays with the sender,
//! which stops reading from its connections until it does.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mio::{Poll, Token, Waker};

use crate::app::{Address, Command, Outgoing, Post, Undeliverable};
use crate::base::slab::Key;
use crate::hub::{self, Publication, RoomRef, Space, Spaces, WorkerIndex};
use crate::net::order::Order;

/// Most items in one lane of a mailbox. A turn of a busy worker makes some hundreds.
pub(crate) const LANE_ITEMS_MAX: usize = 4_096;

/// Payload bytes in one lane from which on it counts as full.
pub(crate) const LANE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The token of the waker's events.
pub const WAKER: Token = Token(usize::MAX);

/// What a worker is sent.
#[derive(Debug)]
pub enum Parcel {
    /// From another worker's hub, or a room's message from any thread.
    Hub(hub::Mail),
    /// For one connection.
    Command(Key, Command),
    /// From the main thread, or a handover's.
    Order(Order),
}

impl Parcel {
    fn is_delivery(&self) -> bool {
        matches!(self, Self::Hub(hub::Mail::Deliver(_)) | Self::Order(_))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Hub(hub::Mail::Deliver(message) | hub::Mail::Publish(message)) => {
                message.payload.len()
            }
            Self::Command(_, Command::Send(message)) => message.payload.len(),
            _ => 0,
        }
    }
}

#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<Parcel>,
    bytes: usize,
    /// Workers whose mail did not fit; they are woken when there is room again.
    waiting: Vec<WorkerIndex>,
}

impl Lane {
    fn is_full(&self) -> bool {
        self.items.len() >= LANE_ITEMS_MAX || self.bytes >= LANE_BYTES_MAX
    }

    fn push(&mut self, mail: Parcel) {
        self.bytes += mail.bytes();
        self.items.push_back(mail);
    }

    /// All there is, and who waited for the room it took.
    fn take(&mut self) -> (VecDeque<Parcel>, Vec<WorkerIndex>) {
        self.bytes = 0;
        (std::mem::take(&mut self.items), std::mem::take(&mut self.waiting))
    }
}

#[derive(Debug, Default)]
struct Lanes {
    deliveries: Lane,
    requests: Lane,
    /// Requests of other threads that wait until this process serves.
    held: Lane,
    /// The worker has been woken and has not looked yet.
    woken: bool,
    /// The worker is gone.
    closed: bool,
}

impl Lanes {
    fn lane(&mut self, mail: &Parcel) -> &mut Lane {
        if mail.is_delivery() { &mut self.deliveries } else { &mut self.requests }
    }
}

#[derive(Debug)]
struct Mailbox {
    lanes: Mutex<Lanes>,
    /// Something is in a lane; a hint that saves the lock.
    has_mail: AtomicBool,
    waker: Waker,
}

impl Mailbox {
    /// No code panics while it holds the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order) {
        let mut lanes = self.lock();
        lanes.deliveries.push(Parcel::Order(order));
        self.wake(lanes);
    }

    fn wake(&self, mut lanes: MutexGuard<'_, Lanes>) {
        self.has_mail.store(true, Ordering::Release);
        let asleep = !std::mem::replace(&mut lanes.woken, true);
        drop(lanes);
        if asleep && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake a worker");
        }
    }
}

/// The mailboxes of all workers.
#[derive(Debug)]
pub struct Mailboxes {
    boxes: Vec<Mailbox>,
    spaces: Spaces,
    /// A [`Door`].
    door: AtomicU8,
    /// Connections that did not move when the others did.
    kept: OnceLock<HashSet<(WorkerIndex, Key)>>,
}

/// What becomes of requests of other threads. It is asked under the lock of a mailbox. Whatever is
/// ordered behind a change of it therefore comes behind every request that was let in before.
mod door {
    /// They are let in.
    pub(super) const OPEN: u8 = 0;
    /// They wait: connections are being taken over, and may be loaded more than once.
    pub(super) const HELD: u8 = 1;
    /// They are refused for now: what would be let in would not move with the connections.
    pub(super) const SHUT: u8 = 2;
    /// The connections have moved; only those that were kept are reached.
    pub(super) const MOVED: u8 = 3;
}

impl Mailboxes {
    /// One for each of `workers` workers, and the worker's epoll, whose waker it has. `spaces` are
    /// those of the routes.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(workers: usize, spaces: Spaces) -> io::Result<(Arc<Self>, Vec<Poll>)> {
        let polls = (0..workers).map(|_| Poll::new()).collect::<io::Result<Vec<_>>>()?;
        let boxes = polls
            .iter()
            .map(|poll| {
                let waker = Waker::new(poll.registry(), WAKER)?;
                Ok(Mailbox { lanes: Mutex::default(), has_mail: AtomicBool::new(false), waker })
            })
            .collect::<io::Result<_>>()?;
        let (door, kept) = (AtomicU8::new(door::OPEN), OnceLock::new());
        Ok((Arc::new(Self { boxes, spaces, door, kept }), polls))
    }

    /// Moves what fits of a worker's mail for another; what does not stays in `outbox`, and `from`
    /// is woken when there is room. True if deliveries are among what stays.
    ///
    /// Each lane keeps its order; one that is full does not hold up the other. (A worker is sent
    /// deliveries of rooms at home here, and requests for rooms at home there.)
    ///
    /// `to` is woken only for what has come, and `from` only for room where its mail waits: two
    /// workers whose mailboxes are full would wake each other for nothing otherwise.
    pub fn post(&self, from: WorkerIndex, to: WorkerIndex, outbox: &mut VecDeque<Parcel>) -> bool {
        let mailbox = &self.boxes[usize::from(to)];
        let mut lanes = mailbox.lock();
        if lanes.closed {
            outbox.clear();
            return false;
        }
        let before = outbox.len();
        let mut deliveries_stay = false;
        let mut stays = VecDeque::new();
        for mail in outbox.drain(..) {
            let lane = lanes.lane(&mail);
            if lane.is_full() {
                if !lane.waiting.contains(&from) {
                    lane.waiting.push(from);
                }
                deliveries_stay |= mail.is_delivery();
                stays.push_back(mail);
            } else {
                lane.push(mail);
            }
        }
        *outbox = stays;
        if outbox.len() < before {
            mailbox.wake(lanes);
        }
        deliveries_stay
    }

    /// Moves all of a worker's mail for another, whether there is room or not: while both are
    /// frozen no more comes of it than there is.
    pub fn post_all(&self, to: WorkerIndex, outbox: &mut VecDeque<Parcel>) {
        let mailbox = &self.boxes[usize::from(to)];
        let mut lanes = mailbox.lock();
        if lanes.closed {
            outbox.clear();
            return;
        }
        for mail in outbox.drain(..) {
            lanes.lane(&mail).push(mail);
        }
        mailbox.wake(lanes);
    }

    /// Gives every worker an order; never refused.
    pub fn order_all(&self, order: &Order) {
        for mailbox in &self.boxes {
            mailbox.order(order.clone());
        }
    }

    /// The same for one worker.
    pub fn order_one(&self, worker: WorkerIndex, order: Order) {
        self.boxes[usize::from(worker)].order(order);
    }

    /// A worker begins anew: the others are told, before anything that it sends from now on, and it
    /// looks at its mail. Never refused.
    pub fn renew(&self, worker: WorkerIndex) {
        for (index, mailbox) in self.boxes.iter().enumerate() {
            let mut lanes = mailbox.lock();
            if index != usize::from(worker) && !lanes.closed {
                lanes.requests.push(Parcel::Hub(hub::Mail::Renewed { worker }));
            }
            mailbox.wake(lanes);
        }
    }

    /// While the workers are frozen, nothing is taken from other threads: what they send would
    /// not move with the connections.
    pub fn set_frozen(&self, frozen: bool) {
        self.door.store(if frozen { door::SHUT } else { door::OPEN }, Ordering::SeqCst);
    }

    /// Until [`open`](Self::open), what other threads send waits: the workers may adopt connections,
    /// and a state that has been loaded ahead may be replaced by a newer one, which knows of nothing that
    /// was done to the first.
    pub fn hold(&self) {
        self.door.store(door::HELD, Ordering::SeqCst);
    }

    /// What has waited is let in, in its order, and what comes from now on, too.
    pub fn open(&self) {
        self.door.store(door::OPEN, Ordering::SeqCst);
        for mailbox in &self.boxes {
            let mut lanes = mailbox.lock();
            for parcel in std::mem::take(&mut lanes.held).items {
                lanes.requests.push(parcel);
            }
            mailbox.wake(lanes);
        }
    }

    /// Another process owns all connections but `kept`: what is sent to the others from now on goes
    /// nowhere, and whoever sends it is told so.
    pub fn set_moved(&self, kept: impl IntoIterator<Item = (WorkerIndex, Key)>) {
        // There is one handover that succeeds in a process's life.
        let _ = self.kept.set(kept.into_iter().collect());
        self.door.store(door::MOVED, Ordering::SeqCst);
    }

    /// Whether [`take`](Self::take) may have something to give.
    pub fn has_mail(&self, worker: WorkerIndex) -> bool {
        self.boxes[usize::from(worker)].has_mail.load(Ordering::Acquire)
    }

    /// What has arrived for a worker: deliveries, and requests unless they are to wait.
    pub fn take(&self, worker: WorkerIndex, with_requests: bool) -> [VecDeque<Parcel>; 2] {
        let mailbox = &self.boxes[usize::from(worker)];
        let mut lanes = mailbox.lock();
        lanes.woken = false;
        let (deliveries, mut waiting) = lanes.deliveries.take();
        let mut requests = VecDeque::new();
        if with_requests {
            let (taken, waiting_too) = lanes.requests.take();
            requests = taken;
            waiting.extend(waiting_too);
        }
        mailbox.has_mail.store(!lanes.requests.items.is_empty(), Ordering::Release);
        drop(lanes);
        self.wake_all(&waiting);
        [deliveries, requests]
    }

    fn wake_all(&self, workers: &[WorkerIndex]) {
        for worker in workers {
            let mailbox = &self.boxes[usize::from(*worker)];
            mailbox.wake(mailbox.lock());
        }
    }

    /// A worker ends: whatever is sent to it from now on is dropped.
    pub fn close(&self, worker: WorkerIndex) {
        let mut lanes = self.boxes[usize::from(worker)].lock();
        lanes.closed = true;
        lanes.held = Lane::default();
        let waiting = [lanes.deliveries.take().1, lanes.requests.take().1].concat();
        drop(lanes);
        self.wake_all(&waiting);
    }

    fn request(&self, to: WorkerIndex, mail: Parcel) -> Result<(), Undeliverable> {
        let mailbox = &self.boxes[usize::from(to)];
        let mut lanes = mailbox.lock();
        let door = self.door.load(Ordering::SeqCst);
        if door == door::MOVED && !self.is_kept(to, &mail) {
            return Err(Undeliverable::Moved);
        }
        if lanes.closed {
            return Err(Undeliverable::Stopped);
        }
        // Not before those that still wait.
        let waits = door == door::HELD || !lanes.held.items.is_empty();
        let lane = if waits { &mut lanes.held } else { &mut lanes.requests };
        if lane.is_full() || door == door::SHUT {
            return Err(Undeliverable::Full);
        }
        lane.push(mail);
        if !waits {
            mailbox.wake(lanes);
        }
        Ok(())
    }

    /// Whether a request is for a connection that did not move. A room's members have moved; those
    /// that were kept are told nothing but goodbye.
    fn is_kept(&self, worker: WorkerIndex, mail: &Parcel) -> bool {
        let Parcel::Command(key, _) = mail else { return false };
        self.kept.get().is_some_and(|kept| kept.contains(&(worker, *key)))
    }
}

impl Post for Mailboxes {
    fn command(&self, to: Address, command: Command) -> Result<(), Undeliverable> {
        self.request(to.worker, Parcel::Command(to.key, command))
    }

    fn publish(&self, room: RoomRef<'_>, message: Outgoing<'_>) -> Result<(), Undeliverable> {
        let publication = Publication {
            room: room.to_id(),
            opcode: message.opcode,
            payload: message.payload[..].into(),
            except: None,
        };
        let home = hub::home(room, self.boxes.len() as WorkerIndex);
        self.request(home, Parcel::Hub(hub::Mail::Publish(publication)))
    }

    fn space(&self, name: &str) -> Option<Space> {
        self.spaces.find(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::Opcode;

    fn publication() -> Publication {
        Publication {
            room: RoomRef { space: Space::default(), name: "a" }.to_id(),
            opcode: Opcode::Text,
            payload: b"x"[..].into(),
            except: None,
        }
    }

    fn keys<const N: usize>() -> [Key; N] {
        let mut slab = crate::base::slab::Slab::new();
        std::array::from_fn(|_| slab.insert(()))
    }

    #[test]
    fn what_has_moved_is_not_sent_to() {
        let (mailboxes, _polls) = Mailboxes::new(2, Spaces::default()).unwrap();
        let [moves, stays] = keys();
        let room = RoomRef { space: Space::default(), name: "a" };
        let send = |key| {
            mailboxes.command(Address { worker: 1, key }, Command::Send("x".to_owned().into()))
        };
        let publish = || mailboxes.publish(room, "x".into());
        assert_eq!((send(moves), send(stays), publish()), (Ok(()), Ok(()), Ok(())));
        mailboxes.set_frozen(true);
        let full = Err(Undeliverable::Full);
        assert_eq!((send(moves), send(stays), publish()), (full, full, full));
        mailboxes.set_frozen(false);
        assert_eq!(send(moves), Ok(()), "taken back");
        mailboxes.set_frozen(true);
        mailboxes.set_moved([(1, stays)]);
        let moved = Err(Undeliverable::Moved);
        assert_eq!((send(moves), send(stays), publish()), (moved, Ok(()), moved));
        let elsewhere = Address { worker: 0, key: stays };
        assert_eq!(mailboxes.command(elsewhere, Command::Accept), moved);
        // All that was let in is there, and nothing else.
        let [_, requests] = mailboxes.take(1, true);
        let commands = requests.iter().filter(|parcel| matches!(parcel, Parcel::Command(..)));
        assert_eq!(commands.count(), 4);
        mailboxes.close(1);
        assert_eq!((send(moves), send(stays)), (moved, Err(Undeliverable::Stopped)));
    }

    #[test]
    fn what_is_held_waits_in_its_order() {
        let (mailboxes, _polls) = Mailboxes::new(1, Spaces::default()).unwrap();
        let [key] = keys();
        let send = |text: &str| {
            let command = Command::Send(text.to_owned().into());
            mailboxes.command(Address { worker: 0, key }, command)
        };
        mailboxes.hold();
        assert_eq!((send("1"), send("2")), (Ok(()), Ok(())));
        let mut outbox = VecDeque::from([Parcel::Hub(hub::Mail::Publish(publication()))]);
        mailboxes.post(0, 0, &mut outbox);
        let [_, requests] = mailboxes.take(0, true);
        assert_eq!(requests.len(), 1, "workers' own mail does not wait");
        assert!(!mailboxes.has_mail(0), "nothing keeps the worker busy");
        // Between the two steps of opening.
        mailboxes.door.store(door::OPEN, Ordering::SeqCst);
        assert_eq!(send("3"), Ok(()));
        mailboxes.open();
        assert_eq!(send("4"), Ok(()));
        let [_, requests] = mailboxes.take(0, true);
        let texts = requests.iter().map(|parcel| match parcel {
            Parcel::Command(_, Command::Send(message)) => message.payload[0],
            other => panic!("{other:?}"),
        });
        assert!(texts.eq(*b"1234"));
        mailboxes.hold();
        let sent = (0..=LANE_ITEMS_MAX).filter(|_| send("x").is_ok()).count();
        assert_eq!((sent, send("x")), (LANE_ITEMS_MAX, Err(Undeliverable::Full)));
    }

    #[test]
    fn a_full_lane_does_not_hold_up_the_other() {
        let (mailboxes, _polls) = Mailboxes::new(2, Spaces::default()).unwrap();
        let mut outbox: VecDeque<Parcel> = (0..LANE_ITEMS_MAX + 1)
            .map(|_| Parcel::Hub(hub::Mail::Publish(publication())))
            .collect();
        outbox.push_back(Parcel::Hub(hub::Mail::Deliver(publication())));
        assert!(!mailboxes.post(0, 1, &mut outbox), "the delivery got through");
        assert_eq!(outbox.len(), 1);
        let [deliveries, requests] = mailboxes.take(1, true);
        assert_eq!((deliveries.len(), requests.len()), (1, LANE_ITEMS_MAX));
        assert!(mailboxes.has_mail(0), "the sender is woken when there is room");
        assert!(!mailboxes.post(0, 1, &mut outbox));
        assert!(outbox.is_empty());
    }

    #[test]
    fn whoever_takes_no_requests_and_whoever_has_some_for_it_do_not_wake_each_other() {
        let (mailboxes, _polls) = Mailboxes::new(2, Spaces::default()).unwrap();
        let mut outbox: VecDeque<Parcel> = (0..LANE_ITEMS_MAX + 1)
            .map(|_| Parcel::Hub(hub::Mail::Publish(publication())))
            .collect();
        mailboxes.post(0, 1, &mut outbox);
        let is_woken = |worker: usize| mailboxes.boxes[worker].lock().woken;
        for _ in 0..3 {
            // Its own deliveries wait for somebody else.
            mailboxes.take(1, false);
            assert!(!is_woken(0), "there is no room for requests yet");
            mailboxes.post(0, 1, &mut outbox);
            assert!(!is_woken(1), "nothing has come");
        }
        mailboxes.take(1, true);
        assert!(is_woken(0));
        mailboxes.post(0, 1, &mut outbox);
        assert!(is_woken(1) && outbox.is_empty());
    }
}
