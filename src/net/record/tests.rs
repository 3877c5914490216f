use super::*;
use crate::app::builtin::{Echo, Rooms};
use crate::app::erased::erase;
use crate::app::handle::{Command, Post, PostBox, Undeliverable};
use crate::app::middleware::{AnyGate, Chain, ConnectionsPerIp, IpCounts};
use crate::app::{App, CloseCode, Conn, Decision, Message, Outgoing, Request};
use crate::base::id::ConnectionIds;
use crate::base::limits::{HeadLimits, Limits};
use crate::base::slab::Slab;
use crate::base::tick::Tick;
use crate::hub::{Hub, Mail, RoomRef, Space, Spaces};
use crate::net::dispatch::Fed;
use crate::net::gate::Gate;
use crate::net::mode::Mode;
use crate::net::route::Pattern;
use crate::net::stream::Stream;
use crate::session::handshake::DeflatePolicy;
use crate::session::turn::Turn;
use crate::session::{Compression, Next};
use crate::ws::deflate::Inflater;
use crate::ws::{CloseFrame, Header, Input, Opcode, encode};
use std::net::IpAddr;
use std::sync::Arc;

struct Nowhere;

impl Post for Nowhere {
    fn command(&self, _: Address, _: Command) -> Result<(), Undeliverable> {
        Err(Undeliverable::Stopped)
    }

    fn publish(&self, _: RoomRef<'_>, _: Outgoing<'_>) -> Result<(), Undeliverable> {
        Err(Undeliverable::Stopped)
    }

    fn space(&self, _: &str) -> Option<Space> {
        None
    }
}

/// Decides later, and counts messages: with seven it does not save, with thirteen it does not load.
struct Slow;

#[derive(Default)]
struct Count {
    messages: u32,
}

impl App for Slow {
    type State = Count;

    fn handshake(&mut self, _: &Request<'_>, _: &Handle) -> Decision<Count> {
        Decision::Later(Count::default())
    }

    fn open(&mut self, conn: &mut Conn<'_>, _: &mut Count) {
        for room in ["one", "two", "three"] {
            conn.join(room).unwrap();
        }
    }

    fn message(&mut self, conn: &mut Conn<'_>, count: &mut Count, _: Message<'_>) {
        count.messages += 1;
        let rooms: Vec<&str> = conn.rooms().collect();
        let (path, subprotocol) = (conn.path(), conn.subprotocol());
        let text = format!("{} {path} {subprotocol:?} {rooms:?} {}", count.messages, conn.peer());
        conn.send(text);
    }

    fn save(&self, count: &Count, writer: &mut Writer) -> Result<(), NotMovable> {
        writer.u32(count.messages);
        if count.messages == 7 {
            return Err(NotMovable::new("seven"));
        }
        Ok(())
    }

    fn load(&mut self, _: &Handle, reader: &mut Reader<'_>) -> Result<Count, SnapshotError> {
        let count = Count { messages: reader.u32()? };
        assert!(count.messages != 13, "panics");
        Ok(count)
    }
}

fn route(pattern: &str, app: &str, counts: &Arc<IpCounts>) -> Route {
    Route {
        pattern: Pattern::parse(pattern).unwrap(),
        space: Space::default(),
        app: app.into(),
        target: match app {
            "echo" => Target::App(erase(Echo)),
            "rooms" => Target::App(erase(Rooms)),
            "slow" => Target::App(erase(Slow)),
            _ => Target::Nothing,
        },
        chain: Chain::new(vec![AnyGate::new(ConnectionsPerIp::new(counts.clone(), 2))]),
        limits: Limits { rooms_max: 3, ..Limits::default() },
        compression: Compression { level: 1, threshold_bytes: 64 },
        subprotocols: vec!["chat".to_owned(), "news".to_owned()],
        deflate: Some(DeflatePolicy::default()),
    }
}

/// One worker's tools in one process.
struct Process {
    dispatcher: Dispatcher,
    counts: Arc<IpCounts>,
}

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

impl Process {
    fn new(now: u32, routes: &[(&str, &str)]) -> Self {
        let counts = Arc::<IpCounts>::default();
        let nowhere = route("/", "", &Arc::default());
        let routes = routes.iter().map(|(pattern, app)| route(pattern, app, &counts));
        let dispatcher = Dispatcher {
            worker: 0,
            turn: Turn::server(),
            hub: Hub::new(0, 3),
            intents: Default::default(),
            routes: std::iter::once(nowhere).chain(routes).collect(),
            head_limits: HeadLimits::default(),
            gate: Gate::default(),
            ids: Arc::new(ConnectionIds::new(1)),
            post: PostBox(Arc::new(Nowhere)),
            now: Tick::new(now),
            work: 0,
            mode: Mode::Serving,
        };
        Self { dispatcher, counts }
    }

    /// Has the given path asked for, as connection 77.
    fn connect(&mut self, target: &str) -> Client {
        let mut client = Client::new(77);
        client.conn.peer = PEER.into();
        client.conn.session = Session::new(&self.dispatcher.head_limits, self.dispatcher.now);
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: news\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        );
        self.feed(&mut client, request.as_bytes());
        client
    }

    fn feed(&mut self, client: &mut Client, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let mut input = Input::new(&mut bytes);
        let (conn, key) = (&mut client.conn, client.key);
        let mut inflater = Inflater::default();
        while self.dispatcher.feed(conn, key, &mut input, &mut inflater) == Fed::Intents {
            self.dispatcher.intents.deliveries.clear();
        }
        conn.session.park(input.rest());
    }

    /// What is written to it at the end of a turn.
    fn flush(&mut self, client: &mut Client) -> (Next, String) {
        let Dispatcher { turn, routes, now, .. } = &mut self.dispatcher;
        let limits = &routes[usize::from(client.conn.route)].limits;
        let mut written = vec![];
        let next = client.conn.session.flush(turn, &mut written, limits, *now).unwrap();
        turn.clear();
        (next, String::from_utf8_lossy(&written).into_owned())
    }

    fn save(&mut self, client: &mut Client) -> Result<Vec<u8>, NotMovable> {
        client.conn.session.spill(&self.dispatcher.turn);
        self.dispatcher.turn.clear();
        let mut writer = Writer::new();
        let outcome = self.dispatcher.save_connection(&client.conn, &mut writer);
        let saved = writer.into_bytes();
        assert!(outcome.is_ok() || saved.is_empty(), "half a connection was written");
        outcome.map(|()| saved)
    }

    fn load(&mut self, saved: &[u8]) -> Result<Client, NotRestored> {
        let mut client = Client::new(0);
        let address = Address { worker: 0, key: client.key };
        let restored = self.dispatcher.load_connection(&mut Reader::new(saved), address)?;
        self.dispatcher.restore(&mut client.conn, client.key, restored);
        Ok(client)
    }
}

struct Client {
    conn: Connection,
    key: Key,
}

impl Client {
    fn new(id: u64) -> Self {
        let (one, _) = mio::net::UnixStream::pair().unwrap();
        let mut conn = Connection::vacant(Stream::Unix(one));
        conn.id = ConnectionId::from_u64(id);
        Self { conn, key: Slab::new().insert(()) }
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut out = vec![];
    let header =
        Header { fin: true, rsv1: false, opcode: Opcode::Text, mask: Some([1, 2, 3, 4]), len: 0 };
    encode::frame(&mut out, header, text.as_bytes());
    out
}

const ROUTES: [(&str, &str); 3] =
    [("/slow/{x}", "slow"), ("/rooms/{name}", "rooms"), ("/e", "echo")];

#[test]
fn an_open_connection_goes_on_where_routes_and_clock_are_others() {
    let mut from = Process::new(90_000, &ROUTES);
    let mut client = from.connect("/slow/gr%C3%B6n");
    from.dispatcher.on_command(&mut client.conn, client.key, Command::Accept);
    from.feed(&mut client, &text("a"));
    from.flush(&mut client);
    from.feed(&mut client, &text("b")[..5]);
    from.dispatcher.intents.mail.clear();

    let mut to = Process::new(5, &[("/x", "echo"), ROUTES[2], ROUTES[1], ROUTES[0]]);
    to.dispatcher.routes[4].subprotocols = vec!["news".to_owned()];
    // Its rooms are where its route has them here.
    let space = Spaces::new(["here", "there"]).find("there").unwrap();
    to.dispatcher.routes[4].space = space;
    // Fewer than it is in: it is in them all the same.
    to.dispatcher.routes[4].limits.rooms_max = 1;
    let saved = from.save(&mut client).unwrap();
    let mut moved = to.load(&saved).unwrap();
    assert_eq!((moved.conn.id.to_u64(), moved.conn.route), (77, 4));
    assert_eq!(moved.conn.session.deflate_window(to.dispatcher.turn.role()), Some(15));
    let told: Vec<_> = to.dispatcher.intents.mail.iter().map(|(_, mail)| mail.clone()).collect();
    let rooms = ["one", "two", "three"].map(|name| RoomRef { space, name });
    let rooms = rooms.into_iter().filter(|room| to.dispatcher.hub.home(*room) != 0);
    let subscribe = |room: RoomRef<'_>| Mail::Subscribe { room: room.to_id(), worker: 0 };
    assert_eq!(told, rooms.map(subscribe).collect::<Vec<_>>());
    assert_eq!(to.counts.count(PEER), 1);
    assert_eq!(to.save(&mut moved), Ok(saved), "it is what it was");

    to.feed(&mut moved, &text("b")[5..]);
    let (_, written) = to.flush(&mut moved);
    let expected = "2 /slow/grön Some(\"news\") [\"three\", \"two\", \"one\"] 192.0.2.1";
    assert!(written.ends_with(expected), "{written}");

    to.dispatcher.on_dropped(&mut moved.conn, moved.key);
    assert_eq!((to.counts.count(PEER), to.dispatcher.hub.rooms_len()), (0, 0));
    assert_eq!(from.counts.count(PEER), 1, "here it is until it is let go");
}

/// A state is sent ahead, and again because it has changed.
#[test]
fn a_newer_state_takes_the_place_of_an_older_one() {
    let mut from = Process::new(1_000, &ROUTES);
    let mut client = from.connect("/slow/1");
    from.dispatcher.on_command(&mut client.conn, client.key, Command::Accept);
    from.flush(&mut client);
    assert!(client.conn.session.is_at_rest());
    let older = from.save(&mut client).unwrap();
    from.feed(&mut client, &text("one"));
    assert!(!client.conn.session.is_at_rest(), "its answer is to be written");
    let newer = from.save(&mut client).unwrap();
    assert!(newer.len() > older.len());

    let mut to = Process::new(1_000, &ROUTES);
    let mut moved = to.load(&older).unwrap();
    to.dispatcher.unrestore(&mut moved.conn);
    assert_eq!((to.counts.count(PEER), to.dispatcher.hub.rooms_len()), (0, 0));
    assert!(moved.conn.session.is_done() && moved.conn.state.is_none() && !moved.conn.passed);
    let address = Address { worker: 0, key: moved.key };
    let restored = to.dispatcher.load_connection(&mut Reader::new(&newer), address).unwrap();
    to.dispatcher.restore(&mut moved.conn, moved.key, restored);
    assert_eq!(to.save(&mut moved), Ok(newer));
    assert_eq!((to.counts.count(PEER), to.dispatcher.hub.rooms_len()), (1, 3));
    // Their homes are told of the last of three steps, too.
    let space = Space::default();
    let rooms = ["one", "two", "three"].map(|name| RoomRef { space, name });
    let elsewhere = rooms.iter().filter(|room| to.dispatcher.hub.home(**room) != 0);
    assert_eq!(to.dispatcher.intents.mail.len(), 3 * elsewhere.count());
}

#[test]
fn an_undecided_handshake_is_decided_by_the_other_process() {
    let mut from = Process::new(1_000, &ROUTES);
    let mut client = from.connect("/slow/1");
    from.feed(&mut client, &text("early"));
    let saved = from.save(&mut client).unwrap();
    let mut to = Process::new(2_000, &ROUTES);
    let mut moved = to.load(&saved).unwrap();
    assert!(!moved.conn.session.wants_read() && moved.conn.pending.is_some());
    assert_eq!(moved.conn.session.deadline(&Limits::default()), Tick::new(2_100));
    to.dispatcher.on_command(&mut moved.conn, moved.key, Command::Accept);
    let parked = moved.conn.session.take_parked().unwrap();
    to.feed(&mut moved, &parked);
    let (_, written) = to.flush(&mut moved);
    assert!(written.starts_with("HTTP/1.1 101 ") && written.contains("1 /slow/1"), "{written}");
}

#[test]
fn a_connection_without_a_route_and_one_that_ends_move_too() {
    let (mut from, mut to) = (Process::new(1_000, &ROUTES), Process::new(1_000, &ROUTES));
    let mut head = Client::new(3);
    head.conn.session = Session::new(&from.dispatcher.head_limits, from.dispatcher.now);
    from.feed(&mut head, b"GET /nowhere HTTP/1.1\r\nHo");
    let saved = from.save(&mut head).unwrap();
    let mut moved = to.load(&saved).unwrap();
    to.feed(&mut moved, b"st: a\r\n\r\n");
    assert!(to.flush(&mut moved).1.starts_with("HTTP/1.1 404 "));

    let mut closing = from.connect("/e");
    from.flush(&mut closing);
    let frame = CloseFrame::new(CloseCode::RESTART, "later");
    from.dispatcher.on_command(&mut closing.conn, closing.key, Command::Close(frame));
    let saved = from.save(&mut closing).unwrap();
    let mut moved = to.load(&saved).unwrap();
    assert!(moved.conn.session.is_closing() && moved.conn.state.is_some());
    assert!(to.flush(&mut moved).1.ends_with("later"));

    let mut gone = from.connect("/slow/1");
    assert_eq!(gone.conn.session.lost(), None);
    let saved = from.save(&mut gone).unwrap();
    let mut moved = to.load(&saved).unwrap();
    assert_eq!(to.flush(&mut moved).0, Next::Drop);
}

#[test]
fn where_something_is_gone_the_connection_is_refused_and_told_why() {
    let mut from = Process::new(1_000, &ROUTES);
    let mut client = from.connect("/rooms/a");
    let saved = from.save(&mut client).unwrap();
    let refused =
        |process: &mut Process, saved: &[u8]| process.load(saved).err().unwrap().to_string();

    let mut to = Process::new(1_000, &ROUTES[..1]);
    assert_eq!(refused(&mut to, &saved), "there is no route /rooms/{name} any more");
    let mut to = Process::new(1_000, &[("/rooms/{name}", "echo")]);
    let reason = "the app at /rooms/{name} was \"rooms\" and is \"echo\" now";
    assert_eq!(refused(&mut to, &saved), reason);
    let mut to = Process::new(1_000, &ROUTES);
    to.dispatcher.routes[2].subprotocols = vec![];
    let reason = "the subprotocol \"news\" is not spoken at /rooms/{name} any more";
    assert_eq!(refused(&mut to, &saved), reason);
    assert_eq!(to.counts.count(PEER), 0, "who is refused does not count");
}

#[test]
fn an_app_may_keep_a_connection_and_may_fail() {
    let mut from = Process::new(1_000, &ROUTES);
    let mut to = Process::new(1_000, &ROUTES);
    let mut client = from.connect("/slow/1");
    from.dispatcher.on_command(&mut client.conn, client.key, Command::Accept);
    for messages in 1..=13 {
        from.feed(&mut client, &text("a"));
        match (messages, from.save(&mut client)) {
            (7, saved) => assert_eq!(saved, Err(NotMovable::new("seven"))),
            (13, saved) => {
                let refused = to.load(&saved.unwrap()).err();
                assert_eq!(refused, Some(NotRestored::AppPanicked));
            }
            (_, saved) => assert!(to.load(&saved.unwrap()).is_ok()),
        }
    }
    let mut echo = from.connect("/e");
    let saved = from.save(&mut echo).unwrap();
    let longer = [&[1, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 9][..], &saved[10..]].concat();
    let refused = to.load(&longer).err();
    assert_eq!(refused, Some(NotRestored::App(SnapshotError::TrailingBytes(1))));
}

/// What a newer build adds is skipped, unless it must not be; what is damaged is refused.
#[test]
fn other_records_and_damaged_ones() {
    let mut from = Process::new(1_000, &ROUTES);
    let mut client = from.connect("/rooms/a");
    from.flush(&mut client);
    let saved = from.save(&mut client).unwrap();
    let mut to = Process::new(1_000, &ROUTES);

    let extended = |write: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::new();
        write(&mut writer);
        [&saved[..], writer.as_bytes()].concat()
    };
    assert!(to.load(&extended(&|writer| writer.record(99, |_| ()))).is_ok());
    let refused = to.load(&extended(&|writer| writer.required_record(99, |_| ()))).err();
    assert_eq!(refused, Some(NotRestored::Snapshot(SnapshotError::UnknownRecord(99))));
    assert!(to.load(&[&saved[..], &saved[..]].concat()).is_err(), "everything twice");

    let mut ends = vec![];
    let mut reader = Reader::new(&saved);
    while reader.record().unwrap().is_some() {
        ends.push(saved.len() - reader.remaining());
    }
    for end in 0..saved.len() {
        assert!(to.load(&saved[..end]).is_err() || ends.contains(&end), "cut at {end}");
    }
    for at in 0..saved.len() {
        for flip in 0..8 {
            let mut damaged = saved.clone();
            damaged[at] ^= 1 << flip;
            // Whatever it is taken for, it can be saved again.
            if let Ok(mut client) = to.load(&damaged) {
                to.save(&mut client).unwrap();
            }
        }
    }
}
