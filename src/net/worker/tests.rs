//! A worker without a thread: real sockets, turns one at a time, and a clock that tests put forward.

mod moving;

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Token};

use super::adopting::{Instruction, Talk};
use super::{EVENTS_MAX, Parts, Worker};
use crate::app::builtin::Rooms;
use crate::app::erased::erase;
use crate::app::handle::{Handle, PostBox};
use crate::app::middleware::Chain;
use crate::app::{
    App, Conn, Decision, Message, NotMovable, Post, Reader, Request, SnapshotError, Writer,
};
use crate::base::format::Format;
use crate::base::id::ConnectionIds;
use crate::base::limits::{HeadLimits, Limits};
use crate::base::network::ListenAddr;
use crate::base::tick::Tick;
use crate::hub::{Hub, RoomRef, Space, Spaces, WorkerIndex};
use crate::net::accounts::Accounts;
use crate::net::dispatch::Dispatcher;
use crate::net::gate::Gate;
use crate::net::listener;
use crate::net::mailbox::{Mailboxes, Parcel};
use crate::net::mode::Mode;
use crate::net::order::{Order, Outlets};
use crate::net::route::{Pattern, Route, Target};
use crate::net::stop::Stop;
use crate::session::Compression;
use crate::session::turn::Turn;
use crate::sys::bell::Bell;

/// Counts messages, and sends text back; at `/later` it never decides.
struct Sink(Arc<AtomicUsize>);

impl App for Sink {
    type State = ();

    fn handshake(&mut self, request: &Request<'_>, _: &Handle) -> Decision<()> {
        match request.path() {
            "/later" => Decision::Later(()),
            _ => Decision::Accept(()),
        }
    }

    fn message(&mut self, conn: &mut Conn<'_>, (): &mut (), message: Message<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        if matches!(message, Message::Text(_)) {
            conn.send(message);
        }
    }

    fn save(&self, (): &(), _: &mut Writer) -> Result<(), NotMovable> {
        Ok(())
    }

    fn load(&mut self, _: &Handle, _: &mut Reader<'_>) -> Result<(), SnapshotError> {
        Ok(())
    }
}

fn route(pattern: &str, target: Target) -> Route {
    Route {
        pattern: Pattern::parse(pattern).unwrap(),
        space: Space::default(),
        app: "sink".into(),
        target,
        chain: Chain::new(Vec::new()),
        limits: Limits::default(),
        compression: Compression { level: 1, threshold_bytes: 64 },
        subprotocols: Vec::new(),
        deflate: None,
    }
}

/// One worker, and where it listens.
struct Rig {
    worker: Worker,
    events: Events,
    address: SocketAddr,
    /// Messages that have come.
    heard: Arc<AtomicUsize>,
}

/// The tools of one of `workers` workers.
fn dispatcher(
    worker: WorkerIndex,
    workers: usize,
    mailboxes: &Arc<Mailboxes>,
    heard: &Arc<AtomicUsize>,
) -> Dispatcher {
    let mut routes = vec![route("/", Target::Nothing)];
    routes.extend(
        ["/sink", "/later"].map(|path| route(path, Target::App(erase(Sink(heard.clone()))))),
    );
    routes.push(route("/rooms/{name}", Target::App(erase(Rooms))));
    Dispatcher {
        worker,
        turn: Turn::server(),
        hub: Hub::new(worker, workers as WorkerIndex),
        intents: Default::default(),
        routes,
        head_limits: HeadLimits::default(),
        gate: Gate::default(),
        ids: Arc::new(ConnectionIds::new(1)),
        post: PostBox(mailboxes.clone()),
        now: Tick::START,
        work: 0,
        mode: Mode::Serving,
    }
}

impl Rig {
    fn new() -> Self {
        let (mailboxes, mut polls) = Mailboxes::new(1, Spaces::default()).unwrap();
        let started = Instant::now();
        let heard = Arc::<AtomicUsize>::default();
        let dispatcher = dispatcher(0, 1, &mailboxes, &heard);
        let accounts = Arc::new(Accounts::new(1, 10_000, usize::MAX));
        let poll = polls.pop().unwrap();
        let mut worker = Worker::new(Parts { poll, dispatcher, mailboxes, accounts, started }, 1);
        let anywhere = ListenAddr::Tcp("127.0.0.1:0".parse().unwrap());
        let bound = listener::bind(&anywhere, 1, listener::How::default()).unwrap();
        for socket in &bound.listeners {
            listener::listen(&socket.as_fd().try_clone_to_owned().unwrap()).unwrap();
        }
        let ListenAddr::Tcp(address) = bound.address else {
            panic!("{:?}", bound.address);
        };
        bound.listeners.iter().for_each(|socket| listener::listen(socket).unwrap());
        worker.listen(bound.listeners).unwrap();
        Self { worker, events: Events::with_capacity(EVENTS_MAX), address, heard }
    }

    /// One turn, with what is there.
    fn turn(&mut self) {
        self.worker.poll.poll(&mut self.events, Some(Duration::from_millis(1))).unwrap();
        self.worker.turn(&self.events);
    }

    #[track_caller]
    fn turn_until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
            self.turn();
        }
    }

    /// Gives an order and has it carried out.
    fn order(&mut self, order: Order) {
        self.worker.mailboxes.order_all(&order);
        self.turn();
    }

    /// So much time passes.
    fn pass(&mut self, time: Duration) {
        self.worker.started -= time;
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// A connection whose request has been answered, or waits for the app.
    fn open(&mut self, path: &str) -> TcpStream {
        let mut stream = self.connect();
        let before = self.connections();
        stream.write_all(request(path).as_bytes()).unwrap();
        match path {
            "/later" => self.turn_until("it waits for the app", |rig| {
                let conns = rig.worker.conns.iter();
                conns.filter(|(_, conn)| conn.session.is_deciding()).count() > 0
            }),
            _ => {
                let response = self.read_until(&mut stream, b"\r\n\r\n");
                assert!(response.starts_with(b"HTTP/1.1 101 "));
            }
        }
        assert_eq!(self.connections(), before + 1);
        stream
    }

    /// Reads until this has come.
    #[track_caller]
    fn read_until(&mut self, stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
        let mut received = Vec::new();
        self.turn_until("an answer", |_| {
            read_some(stream, &mut received);
            received.ends_with(end)
        });
        received
    }

    fn connections(&self) -> usize {
        assert_eq!(self.worker.accounts.connections(), self.worker.conns.len());
        self.worker.conns.len()
    }
}

fn request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

fn read_some(stream: &mut TcpStream, received: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4_096];
    match stream.read(&mut buffer) {
        Ok(0) => true,
        Ok(len) => {
            received.extend_from_slice(&buffer[..len]);
            false
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

/// Whether nothing has come.
fn is_silent(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// A masked frame; the mask is zero.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).ok().filter(|len| *len < 126).expect("short");
    [&[first, 0x80 | len, 0, 0, 0, 0][..], payload].concat()
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PONG: u8 = 0x8a;

/// The default of `handshake_timeout` and more.
const LONG: Duration = Duration::from_secs(120);

/// Keeps a worker busy: there is more to be read from it after each turn.
struct Flood {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Flood {
    fn new(rig: &mut Rig) -> Self {
        let stream = rig.open("/sink");
        Self { stream, bytes: frame(BINARY, &[0; 100]).repeat(10_000) }
    }

    /// Writes whole frames as far as the socket takes them: what was left of one goes first.
    fn write(&mut self) {
        while let Ok(written) = self.stream.write(&self.bytes) {
            self.bytes.rotate_left(written);
        }
    }
}

#[test]
fn whoever_connects_in_a_freeze_is_accepted_after_it() {
    const BURST: usize = 700;
    let mut rig = Rig::new();
    // More than are accepted in one turn: the listener is on the list when the freeze begins.
    let mut streams: Vec<TcpStream> = (0..BURST).map(|_| rig.connect()).collect();
    rig.order(Order::Freeze);
    let accepted = rig.connections();
    assert!(accepted < BURST && !rig.worker.accept_ready.is_empty());
    streams.extend((0..BURST).map(|_| rig.connect()));
    (0..5).for_each(|_| rig.turn());
    assert_eq!(rig.connections(), accepted);
    rig.order(Order::Thaw);
    rig.turn_until("all are accepted", |rig| rig.connections() == 2 * BURST);
}

#[test]
fn whoever_hangs_up_in_a_freeze_that_is_called_off_is_heard_and_dropped() {
    let mut rig = Rig::new();
    for (last_words, heard) in [(&frame(TEXT, b"bye")[..], 1), (&[], 1)] {
        let mut stream = rig.open("/sink");
        rig.order(Order::Freeze);
        stream.write_all(last_words).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        (0..5).for_each(|_| rig.turn());
        assert!(is_silent(&mut stream), "nothing is written in a freeze");
        rig.order(Order::Thaw);
        rig.turn_until("it is dropped", |rig| rig.connections() == 0);
        assert_eq!(rig.heard.load(Ordering::Relaxed), heard);
    }
}

#[test]
fn whoever_is_reset_in_a_freeze_is_dropped_after_it_though_nobody_reads() {
    let mut rig = Rig::new();
    let stream = rig.open("/later");
    rig.order(Order::Freeze);
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    (0..5).for_each(|_| rig.turn());
    assert_eq!(rig.connections(), 1);
    rig.order(Order::Thaw);
    rig.turn_until("it is dropped", |rig| rig.connections() == 0);
}

#[test]
fn no_deadline_fires_in_a_freeze() {
    let mut rig = Rig::new();
    let mut slow = rig.connect();
    slow.write_all(b"GET /").unwrap();
    rig.turn_until("it is accepted", |rig| rig.connections() == 1);
    rig.order(Order::Freeze);
    rig.pass(LONG);
    (0..5).for_each(|_| rig.turn());
    assert!(is_silent(&mut slow));
    rig.order(Order::Thaw);
    let answer = rig.read_until(&mut slow, b"took too long\n");
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
}

#[test]
fn a_worker_that_never_gets_to_the_end_of_its_work_has_deadlines_all_the_same() {
    let mut rig = Rig::new();
    let mut flood = Flood::new(&mut rig);
    rig.worker.read_budget = 1_000;
    rig.worker.receive = vec![0; 1_000].into();
    let mut slow = rig.connect();
    slow.write_all(b"GET /").unwrap();
    rig.turn_until("it is accepted", |rig| rig.connections() == 2);
    rig.order(Order::Freeze);
    rig.order(Order::Thaw);
    rig.pass(LONG);
    let mut answer = Vec::new();
    for turns in 0.. {
        flood.write();
        rig.turn();
        assert!(!rig.worker.ready.is_empty(), "it has more to do");
        read_some(&mut slow, &mut answer);
        if answer.starts_with(b"HTTP/1.1 408 ") {
            break;
        }
        assert!(turns < 1_000, "its deadline does not fire");
    }
}

#[test]
fn what_came_in_a_freeze_is_read_before_the_deadline_fires() {
    let mut rig = Rig::new();
    let mut stream = rig.open("/sink");
    // A ping goes out, and no pong comes.
    rig.pass(LONG);
    assert_eq!(rig.read_until(&mut stream, &[0x89, 0]), [0x89, 0]);
    rig.order(Order::Freeze);
    rig.pass(LONG);
    rig.order(Order::Thaw);
    // epoll has many to tell of, and has not come to this one.
    stream.write_all(&frame(PONG, &[])).unwrap();
    rig.worker.turn(&Events::with_capacity(1));
    assert_eq!(rig.connections(), 1, "its pong was there");
    rig.turn();
    stream.write_all(&frame(TEXT, b"alive")).unwrap();
    rig.read_until(&mut stream, b"alive");
}

#[test]
fn a_stop_that_comes_in_a_freeze_waits_for_its_end() {
    let mut rig = Rig::new();
    let mut stream = rig.open("/sink");
    rig.order(Order::Freeze);
    rig.order(Order::Stop(Stop::drain(Duration::ZERO)));
    rig.order(Order::Stop(Stop::Fast));
    rig.order(Order::Stop(Stop::drain(LONG)));
    rig.pass(LONG);
    (0..5).for_each(|_| rig.turn());
    assert!(is_silent(&mut stream) && !rig.worker.has_stopped());
    rig.order(Order::Thaw);
    rig.read_until(&mut stream, b"server stops");
}

#[test]
fn a_worker_that_stops_does_not_freeze() {
    let mut rig = Rig::new();
    let mut stream = rig.open("/sink");
    rig.order(Order::Stop(Stop::drain(LONG)));
    rig.order(Order::Freeze);
    assert!(rig.worker.dispatcher.mode.is_stopping());
    stream.write_all(&frame(TEXT, b"still here")).unwrap();
    rig.read_until(&mut stream, b"still here");
}

#[test]
fn whoever_has_released_its_listeners_hears_nothing_of_them() {
    let mut rig = Rig::new();
    // The successor's copies.
    let copies: Vec<_> = rig
        .worker
        .listeners
        .iter()
        .map(|listener| listener.as_fd().try_clone_to_owned().unwrap())
        .collect();
    rig.order(Order::Freeze);
    rig.order(Order::Release { kept: [].into(), drain: LONG });
    (0..5).for_each(|_| rig.turn());
    let _newcomers: Vec<TcpStream> = (0..3).map(|_| rig.connect()).collect();
    rig.worker.poll.poll(&mut rig.events, Some(Duration::from_millis(20))).unwrap();
    let told: Vec<Token> = rig.events.iter().map(|event| event.token()).collect();
    assert!(told.is_empty(), "{told:?}");
    drop(copies);
}

#[test]
fn a_worker_whose_mailbox_has_requests_is_not_idle() {
    let mut rig = Rig::new();
    rig.worker.freeze();
    // Its own deliveries have found no room, so it takes no requests.
    rig.worker.deliveries_wait = true;
    let room = RoomRef { space: Space::default(), name: "a" };
    rig.worker.mailboxes.publish(room, "x".into()).unwrap();
    rig.worker.take_mail();
    assert!(!rig.worker.is_idle(), "what was accepted is not applied");
    rig.worker.deliveries_wait = false;
    rig.worker.take_mail();
    assert!(!rig.worker.is_idle(), "something has just been done");
    rig.worker.take_mail();
    assert!(rig.worker.is_idle());
}

#[test]
fn a_worker_begins_anew_after_a_panic_at_any_step() {
    let mut rig = Rig::new();
    let mut lost: Vec<TcpStream> = (0..3).map(|_| rig.open("/sink")).collect();
    lost.push(rig.open("/later"));
    let key = rig.worker.conns.keys().next().unwrap();
    // As a panic may leave them.
    rig.worker.dirty.push(key);
    rig.worker.ready.push(key);
    rig.worker.receive = Box::default();
    rig.worker.read_budget = 0;
    rig.worker.congested = true;
    rig.worker.deliveries_wait = true;
    rig.worker.inbox.push_back(Parcel::Order(Order::Settle));
    // It waits in the queue, and the event that tells of it is lost.
    let waiting = rig.connect();
    rig.worker.poll.poll(&mut rig.events, Some(Duration::from_secs(10))).unwrap();

    let fresh = dispatcher(0, 1, &rig.worker.mailboxes, &rig.heard);
    rig.worker.begin_anew(fresh);
    assert_eq!(rig.connections(), 0);
    assert_eq!(rig.worker.orders.len(), 1, "what it was told");
    for stream in &mut lost {
        let mut received = Vec::new();
        rig.turn_until("an end", |_| read_some(stream, &mut received));
    }
    rig.turn_until("the one in the queue", |rig| rig.worker.conns.len() == 1);
    let mut stream = rig.open("/sink");
    stream.write_all(&frame(TEXT, b"hello")).unwrap();
    rig.read_until(&mut stream, b"hello");
    // What is sent to one of before does not come to another in its place.
    assert!(!rig.worker.conns.contains(key));
    drop(waiting);
}

#[test]
fn a_frozen_worker_that_panics_stays_frozen() {
    let mut rig = Rig::new();
    let _ours_no_more = rig.open("/sink");
    rig.order(Order::Freeze);
    rig.order(Order::Stop(Stop::Fast));
    let fresh = dispatcher(0, 1, &rig.worker.mailboxes, &rig.heard);
    rig.worker.begin_anew(fresh);
    assert!(rig.worker.dispatcher.mode.is_frozen());
    rig.order(Order::Thaw);
    assert!(rig.worker.dispatcher.mode.is_stopping(), "as it was told");
}

/// Runs the worker; beside it, `beside` is given a client whose worker has panicked. Returns how often
/// its apps were to be made, which succeeds from the `at`th time on, and what has come of it.
fn run_beyond_a_panic(
    at: usize,
    beside: impl FnOnce(SocketAddr, &Mailboxes) + Send + 'static,
) -> (usize, io::Result<()>) {
    let Rig { mut worker, address, heard, .. } = Rig::new();
    let mailboxes = worker.mailboxes.clone();
    let (reports, _reported) = Bell::new().unwrap().channel();
    let beside = thread::spawn({
        let mailboxes = mailboxes.clone();
        move || {
            let mut client = open_blocking(address);
            // A successor without workers: nothing that is asked of a worker.
            let lanes = [].into();
            let nonsense = Outlets { lanes, format: Format::NEWEST, reports };
            mailboxes.order_all(&Order::PreCopy(nonsense));
            let mut rest = Vec::new();
            assert!(client.read_to_end(&mut rest).is_err() || rest.is_empty(), "it ends");
            beside(address, &mailboxes);
        }
    });
    let (instruction, instructions) = mpsc::channel();
    instruction.send(Instruction::Serve(mpsc::channel().0)).unwrap();
    let (findings, _found) = Bell::new().unwrap().channel();
    let beginning = worker.adopt(&Talk { instructions, findings }).expect("it is to serve");
    let made = Cell::new(0);
    let outcome = worker.run(beginning, || {
        made.set(made.get() + 1);
        if made.get() < at {
            return Err(io::Error::other("no database"));
        }
        Ok(dispatcher(0, 1, &mailboxes, &heard))
    });
    beside.join().unwrap();
    (made.get(), outcome)
}

fn open_blocking(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request("/sink").as_bytes()).unwrap();
    let (mut response, mut byte) = (Vec::new(), [0]);
    while !response.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        response.push(byte[0]);
    }
    stream
}

#[test]
fn a_worker_that_has_panicked_waits_for_its_apps() {
    let (made, outcome) = run_beyond_a_panic(3, |address, mailboxes| {
        drop(open_blocking(address));
        end(mailboxes);
    });
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(made, 3);
}

#[test]
fn a_worker_that_waits_for_its_apps_can_be_stopped() {
    let (_, outcome) = run_beyond_a_panic(usize::MAX, |_, mailboxes| {
        let room = RoomRef { space: Space::default(), name: "a" };
        while mailboxes.publish(room, "for nobody".into()).is_ok() {}
        wait_until_taken(mailboxes);
        end(mailboxes);
    });
    assert_eq!(outcome.unwrap_err().to_string(), "no database");
}

/// Has all workers end.
fn end(mailboxes: &Mailboxes) {
    mailboxes.order_all(&Order::Stop(Stop::Fast));
    mailboxes.order_all(&Order::Leave);
}

/// What is sent to a worker that cannot serve does not fill its mailbox for ever.
fn wait_until_taken(mailboxes: &Mailboxes) {
    let begun = Instant::now();
    while mailboxes.has_mail(0) {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is taken");
        thread::sleep(Duration::from_millis(1));
    }
}
