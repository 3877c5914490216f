//! The library: a user's own apps and middleware, handles from other threads, panics.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use steadfast::app::{
    App, CloseCode, Closed, ClosedBy, Conn, Decision, Handle, Message, Middleware, Peer, Refusal,
    Request, Undeliverable,
};
use steadfast::base::network::ListenAddr;
use steadfast::config::Settings;
use steadfast::net::stop::Stop;
use steadfast::server::{Builder, Running, Server};

use crate::support::{CLOSE, Client, FIN, MIB, TEXT, frame, request, wait_until};

/// A server in this process; stopped when dropped.
struct Here {
    running: Option<Running>,
    address: SocketAddr,
}

impl Here {
    fn start(builder: Builder, adjust: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::defaults(&builder.context());
        settings.listen = vec![ListenAddr::Tcp(([127, 0, 0, 1], 0).into())];
        settings.workers = 2;
        settings.connections_max = Some(500);
        adjust(&mut settings);
        let running = builder.start(&settings).expect("a server");
        let ListenAddr::Tcp(address) = running.addresses()[0] else {
            panic!("not what was asked for");
        };
        Self { running: Some(running), address }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("until it is dropped")
    }

    fn connect(&self) -> Client {
        Client::over(TcpStream::connect(self.address).expect("an accepted connection"))
    }

    fn open(&self, path: &str) -> Client {
        let mut client = self.connect();
        client.upgrade(path, "");
        client
    }

    fn ask(&self, path: &str) -> Client {
        let mut client = self.connect();
        client.send_bytes(request(path, "").as_bytes());
        client
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop(Stop::Fast);
            let joined = running.join();
            assert!(thread::panicking() || joined.is_ok(), "{joined:?}");
        }
    }
}

/// Panics wherever its path says, and when it is dropped.
struct Explosive {
    closed: Arc<AtomicUsize>,
    _bomb: Bomb,
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        // Not while a test fails: two panics at once abort.
        assert!(thread::panicking(), "as told");
    }
}

struct Place(String);

impl Drop for Place {
    fn drop(&mut self) {
        assert!(self.0 != "drop" || thread::panicking(), "as told");
    }
}

impl App for Explosive {
    type State = Place;

    fn handshake(&mut self, request: &Request<'_>, _: &Handle) -> Decision<Place> {
        let place = request.param("place").unwrap_or_default().to_owned();
        assert_ne!(place, "handshake", "as told");
        Decision::Accept(Place(place))
    }

    fn open(&mut self, conn: &mut Conn<'_>, place: &mut Place) {
        conn.join("all").expect("a short name");
        assert_ne!(place.0, "open", "as told");
    }

    fn message(&mut self, conn: &mut Conn<'_>, place: &mut Place, message: Message<'_>) {
        conn.send("heard");
        assert_ne!(place.0, "message", "as told");
        conn.send(message);
    }

    fn close(&mut self, _: &mut Conn<'_>, place: &mut Place, _: &Closed) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        assert_ne!(place.0, "close", "as told");
    }
}

#[test]
fn a_panicking_app_costs_its_connection_and_nothing_else() {
    let closed = Arc::new(AtomicUsize::new(0));
    let count = closed.clone();
    let bomb = Bomb;
    let builder = Server::builder()
        .app("explosive", move || {
            let _owned = &bomb;
            Explosive { closed: count.clone(), _bomb: Bomb }
        })
        .route("/explosive/{place}", "explosive");
    let server = Here::start(builder, |_| {});
    // All of a worker's share of these would be lost with it.
    let mut healthy: Vec<Client> = (0..8).map(|_| server.open("/explosive/nowhere")).collect();
    for _ in 0..4 {
        assert_eq!(server.ask("/explosive/handshake").response().status, 500);
        server.open("/explosive/open").expect_close(1011);
        let mut client = server.open("/explosive/message");
        client.send_text("go");
        client.expect_text("heard");
        client.expect_close(1011);
        server.open("/explosive/close").close(1000);
        server.open("/explosive/drop").close(1000);
        server.open("/explosive/drop").reset();
    }
    for client in &mut healthy {
        client.send_text("still here");
        client.expect_text("heard");
        client.expect_text("still here");
    }
    server
        .running()
        .publish("/explosive/{place}", "all", "from outside")
        .expect("a mailbox with room");
    for client in &mut healthy {
        client.expect_text("from outside");
        client.close(1000);
    }
    // Once for each that was opened: 8 healthy, and 5 others 4 times.
    wait_until("all closed", || server.running().connections() == 0);
    assert_eq!(closed.load(Ordering::Relaxed), 8 + 20);
    // States that are left when the server stops are dropped with it, and so are its apps.
    let _left = server.open("/explosive/drop");
}

#[test]
fn a_factory_that_panics_is_an_error_of_the_start() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    // The second worker's fails.
    let app = move || {
        assert_eq!(count.fetch_add(1, Ordering::Relaxed), 0, "as told");
        Explosive { closed: Arc::default(), _bomb: Bomb }
    };
    let builder = Server::builder().app("late", app).route("/late/{place}", "late");
    assert_fails_to_start(builder, "the factory of the app `late` panicked");
    let gate = || -> SecondGate { panic!("as told") };
    let builder = Server::builder().middleware(Some("/echo"), gate);
    assert_fails_to_start(builder, "the factory of a middleware of `/echo` panicked");
}

#[track_caller]
fn assert_fails_to_start(builder: Builder, reason: &str) {
    let mut settings = Settings::defaults(&builder.context());
    settings.listen = vec![ListenAddr::Tcp(([127, 0, 0, 1], 0).into())];
    settings.workers = 2;
    settings.connections_max = Some(500);
    let error = builder.start(&settings).err().expect("a start that fails");
    assert_eq!(error.to_string(), reason);
}

/// Leaves the decision to another thread.
struct Undecided {
    handles: Sender<(String, Handle)>,
}

impl App for Undecided {
    type State = ();

    fn handshake(&mut self, request: &Request<'_>, handle: &Handle) -> Decision<()> {
        let name = request.param("name").unwrap_or_default().to_owned();
        self.handles.send((name, handle.clone())).expect("a listening test");
        Decision::Later(())
    }

    fn message(&mut self, conn: &mut Conn<'_>, (): &mut (), message: Message<'_>) {
        conn.send(message);
    }
}

fn undecided(adjust: impl FnOnce(&mut Settings)) -> (Here, Receiver<(String, Handle)>) {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let builder = Server::builder()
        .app("undecided", move || Undecided { handles: sender.lock().unwrap().clone() })
        .route("/undecided/{name}", "undecided")
        .default_routes();
    (Here::start(builder, adjust), receiver)
}

#[test]
fn a_handshake_accepted_later_from_another_thread() {
    let (server, handles) = undecided(|_| {});
    let mut client = server.ask("/undecided/a");
    let (_, handle) = handles.recv().unwrap();
    // Not before its time.
    assert!(client.is_silent_for(Duration::from_millis(100)));
    handle.send("too early").unwrap();
    // What comes before the decision is read after it, whether it came with the head or later.
    client.send_text("impatient");
    thread::sleep(Duration::from_millis(50));
    thread::spawn(move || {
        handle.accept().unwrap();
        handle.send("welcome").unwrap();
        handle.accept().unwrap();
    });
    assert_eq!(client.response().status, 101);
    // Two threads, so either may be first.
    let mut heard = [client.frame().text().to_owned(), client.frame().text().to_owned()];
    heard.sort();
    assert_eq!(heard, ["impatient", "welcome"]);
    client.assert_echo("open");
    client.close(1000);
}

#[test]
fn a_handshake_refused_later() {
    let (server, handles) = undecided(|_| {});
    let mut client = server.ask("/undecided/a");
    let (_, handle) = handles.recv().unwrap();
    handle.refuse(Refusal::new(403, "we have thought about it")).unwrap();
    let response = client.response();
    assert_eq!((response.status, &*response.body), (403, "we have thought about it\n"));
    drop(client);
    wait_until("it is gone", || server.running().connections() == 0);
    // Too late, and no harm.
    handle.accept().unwrap();
    handle.send("nobody").unwrap();
    server.open("/echo").assert_echo("fine");
}

#[test]
fn a_handshake_never_decided_is_answered_in_time() {
    let (server, handles) = undecided(|settings| {
        settings.head.handshake_timeout = Duration::from_millis(500);
    });
    let mut client = server.ask("/undecided/a");
    let (_, handle) = handles.recv().unwrap();
    assert_eq!(client.response().status, 503);
    handle.accept().unwrap();
    drop(client);
    wait_until("it is gone", || server.running().connections() == 0);
}

#[test]
fn a_peer_that_goes_while_it_is_decided_about_is_let_go() {
    let (server, handles) = undecided(|settings| {
        settings.limits.ping_interval = None;
        settings.limits.close_timeout = Duration::from_secs(3_600);
        for route in &mut settings.routes {
            route.limits = settings.limits.clone();
        }
    });
    for accept in [true, false] {
        let client = server.ask("/undecided/a");
        let (_, handle) = handles.recv().unwrap();
        client.stream.shutdown(std::net::Shutdown::Both).unwrap();
        drop(client);
        thread::sleep(Duration::from_millis(50));
        if accept {
            handle.accept().unwrap();
        } else {
            handle.refuse(Refusal::new(403, "no")).unwrap();
        }
        wait_until("it is gone", || server.running().connections() == 0);
    }
    server.ask("/undecided/a").reset();
    wait_until("a reset is noticed undecided", || server.running().connections() == 0);
}

#[test]
fn handles_send_close_and_publish_from_any_thread() {
    let (server, handles) = undecided(|_| {});
    let mut client = server.ask("/undecided/a");
    let (_, handle) = handles.recv().unwrap();
    handle.accept().unwrap();
    assert_eq!(client.response().status, 101);
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let handle = handle.clone();
            thread::spawn(move || {
                for message in 0..100 {
                    let text = format!("{number} {message}");
                    while handle.send(text.clone()) == Err(Undeliverable::Full) {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..400 {
        let frame = client.frame();
        let (number, message) = frame.text().split_once(' ').unwrap();
        let next = &mut next[number.parse::<usize>().unwrap()];
        assert_eq!(message.parse(), Ok(*next));
        *next += 1;
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let mut member = server.open("/rooms/a?self=1");
    member.assert_echo("in");
    handle.publish("a", "to nobody: this is another room").unwrap();
    handle.publish_in("/rooms/{name}", "a", &[1_u8, 2, 3][..]).unwrap();
    assert_eq!(handle.publish_in("/rooms", "a", ""), Err(Undeliverable::NoSpace));
    assert_eq!(member.frame().payload, [1, 2, 3]);
    handle.close(CloseCode(4_000), "enough").unwrap();
    let close = client.frame();
    assert_eq!(close.close_code(), Some(4_000));
    assert_eq!(close.payload[2..], *b"enough");
    client.send(FIN | CLOSE, &4_000_u16.to_be_bytes());
    client.expect_end();
    drop(server);
    assert_eq!(handle.send("gone"), Err(Undeliverable::Stopped));
}

#[test]
fn to_close_an_undecided_handshake_is_to_refuse_it() {
    let (server, handles) = undecided(|_| {});
    let mut client = server.ask("/undecided/a");
    let (_, handle) = handles.recv().unwrap();
    handle.close(CloseCode(4_000), "not today").unwrap();
    let response = client.response();
    assert_eq!((response.status, &*response.body), (403, "not today\n"));
    // It is over: nothing comes of this.
    handle.accept().unwrap();
    client.expect_end();
}

#[test]
fn what_a_handle_sends_to_a_peer_that_does_not_read_is_bounded() {
    let (server, handles) = undecided(|_| {});
    let mut client = server.ask("/undecided/a");
    let (_, handle) = handles.recv().unwrap();
    handle.accept().unwrap();
    assert_eq!(client.response().status, 101);
    // The kernel's buffers hold some megabytes; the queue one.
    let mut sent = 0;
    for _ in 0..64 {
        match handle.send(vec![7; MIB]) {
            Ok(()) => sent += 1,
            Err(Undeliverable::Full) => thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("it serves: {error}"),
        }
    }
    let mut received = 0;
    let code = loop {
        let frame = client.frame();
        match frame.opcode {
            CLOSE => break frame.close_code(),
            _ => received += 1,
        }
    };
    assert_eq!(code, Some(1008));
    assert!(received < sent, "all {sent} were kept for it");
    client.expect_end();
}

#[test]
fn a_burst_from_a_handle_is_no_slow_consumer() {
    let (server, handles) = undecided(|_| {});
    let mut client = server.ask("/undecided/a");
    let (_, handle) = handles.recv().unwrap();
    handle.accept().unwrap();
    assert_eq!(client.response().status, 101);
    for round in 0..30_u8 {
        // More than the queue may hold, less than the socket takes at once.
        for _ in 0..3 {
            handle.send(vec![round; MIB / 2]).unwrap();
        }
        for _ in 0..3 {
            assert_eq!(client.frame().payload.len(), MIB / 2);
        }
    }
    client.close(1000);
}

/// What it is told of the end.
struct Witness {
    ends: Sender<Closed>,
}

impl App for Witness {
    type State = ();

    fn handshake(&mut self, _: &Request<'_>, _: &Handle) -> Decision<()> {
        Decision::Accept(())
    }

    fn message(&mut self, conn: &mut Conn<'_>, (): &mut (), message: Message<'_>) {
        conn.close(CloseCode(4_321), "as asked");
        // After it nothing can be sent, and no message arrives.
        conn.send(message);
    }

    fn close(&mut self, conn: &mut Conn<'_>, (): &mut (), closed: &Closed) {
        conn.send("unheard");
        self.ends.send(closed.clone()).expect("a listening test");
    }
}

#[test]
fn the_app_is_told_once_how_it_ended() {
    let (sender, ends) = channel();
    let sender = Mutex::new(sender);
    let builder = Server::builder()
        .app("witness", move || Witness { ends: sender.lock().unwrap().clone() })
        .route("/witness", "witness");
    let server = Here::start(builder, |_| {});
    let end = |code: Option<u16>, reason: &str, by| Closed {
        code: code.map(CloseCode),
        reason: reason.to_owned(),
        by,
    };
    let mut client = server.open("/witness");
    client.send(FIN | CLOSE, &[&3_000_u16.to_be_bytes()[..], b"bye"].concat());
    client.expect_close(3_000);
    assert_eq!(ends.recv().unwrap(), end(Some(3_000), "bye", ClosedBy::Peer));

    let mut client = server.open("/witness");
    client.send_bytes(&frame(FIN | TEXT, b"go").repeat(3));
    assert_eq!(client.frame().close_code(), Some(4_321));
    client.send(FIN | CLOSE, &4_321_u16.to_be_bytes());
    client.expect_end();
    assert_eq!(ends.recv().unwrap(), end(Some(4_321), "as asked", ClosedBy::Us));

    let mut client = server.open("/witness");
    client.send(FIN | TEXT, &[0xff]);
    client.expect_close(1007);
    let told = ends.recv().unwrap();
    assert_eq!((told.code, told.by), (Some(CloseCode(1007)), ClosedBy::Us));

    server.open("/witness").reset();
    assert_eq!(ends.recv().unwrap(), end(None, "", ClosedBy::Lost));

    let client = server.open("/witness");
    drop(client);
    assert_eq!(ends.recv().unwrap(), end(None, "", ClosedBy::Lost));
    drop(server);
    assert!(ends.recv().is_err(), "told more than once");
}

/// Counts, and does what the header `X-Gate` says.
struct Gate {
    passed: Arc<AtomicUsize>,
    released: Arc<AtomicUsize>,
}

impl Middleware for Gate {
    fn check(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        match request.header("x-gate") {
            Some("refuse") => return Err(Refusal::new(402, "pay first")),
            Some("panic") => panic!("as told"),
            _ => {}
        }
        self.passed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn release(&mut self, peer: &Peer) {
        assert!(peer.addr.is_some_and(|addr| addr.is_loopback()));
        self.released.fetch_add(1, Ordering::Relaxed);
    }
}

/// Comes behind the other and refuses some more. Panics when it is dropped.
struct SecondGate;

impl Drop for SecondGate {
    fn drop(&mut self) {
        assert!(thread::panicking(), "as told");
    }
}

impl Middleware for SecondGate {
    fn check(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        match request.header("x-second") {
            Some("refuse") => Err(Refusal::new(418, "short and stout")),
            Some("panic") => panic!("as told"),
            _ => Ok(()),
        }
    }

    fn release(&mut self, _: &Peer) {
        panic!("whatever it does, the first one is released");
    }
}

#[test]
fn middleware_is_released_once_for_each_that_passed() {
    let passed = Arc::new(AtomicUsize::new(0));
    let released = Arc::new(AtomicUsize::new(0));
    let counts = (passed.clone(), released.clone());
    let builder = Server::builder()
        .app("explosive", || Explosive { closed: Arc::default(), _bomb: Bomb })
        .route("/explosive/{place}", "explosive")
        .middleware(Some("/explosive/{place}"), move || Gate {
            passed: counts.0.clone(),
            released: counts.1.clone(),
        })
        .middleware(None, || SecondGate)
        .default_routes();
    let server = Here::start(builder, |_| {});
    let status = |path: &str, lines: &str| {
        let mut client = server.connect();
        client.send_bytes(request(path, lines).as_bytes());
        client.response().status
    };
    let path = "/explosive/nowhere";
    assert_eq!(status(path, "X-Gate: refuse\r\n"), 402);
    assert_eq!(status(path, "X-Gate: panic\r\n"), 500);
    assert_eq!(passed.load(Ordering::Relaxed), 0);
    assert_eq!(status("/echo", "X-Gate: refuse\r\n"), 101, "it is another route's");
    assert_eq!(status(path, "X-Second: refuse\r\n"), 418);
    assert_eq!(status("/echo", "X-Second: panic\r\n"), 500);
    assert_eq!(status(path, "X-Second: panic\r\n"), 500);
    assert_eq!(status("/explosive/handshake", ""), 500);
    server.open(path).close(1000);
    server.open(path).reset();
    server.open("/explosive/open").expect_close(1011);
    wait_until("all gone", || server.running().connections() == 0);
    assert_eq!(passed.load(Ordering::Relaxed), 6);
    wait_until("all released", || released.load(Ordering::Relaxed) == 6);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(released.load(Ordering::Relaxed), 6);
}

#[test]
fn a_server_that_was_told_to_stop_and_is_let_go_of_ends_all_the_same() {
    let mut here = Here::start(Server::builder(), |_| {});
    let running = here.running.take().expect("a server");
    running.stop(Stop::drain(Duration::ZERO));
    drop(running);
    wait_until("its end", || TcpStream::connect(here.address).is_err());
}
