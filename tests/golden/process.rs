//! A process with one worker's tools, without its sockets: connections are brought about, saved as
//! a worker saves them, and loaded as another one loads them.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use steadfast::app::builtin::{Echo, Rooms};
use steadfast::app::erased::{AnyApp, erase};
use steadfast::app::handle::PostBox;
use steadfast::app::middleware::{AnyGate, Chain, ConnectionsPerIp, IpCounts};
use steadfast::app::{
    Address, App, Command, Conn, Decision, Handle, Message, NotMovable, Outgoing, Peer, Post,
    Reader, Request, SnapshotError, Undeliverable, Writer,
};
use steadfast::base::format::Format;
use steadfast::base::id::{ConnectionId, ConnectionIds};
use steadfast::base::limits::{HeadLimits, Limits};
use steadfast::base::slab::Key;
use steadfast::base::tick::Tick;
use steadfast::hub::{Hub, RoomRef, Space};
use steadfast::net::connection::Connection;
use steadfast::net::dispatch::{Dispatcher, Fed};
use steadfast::net::gate::Gate;
use steadfast::net::route::{Pattern, Route, Target};
use steadfast::net::states::{Saved, SavedStates, States};
use steadfast::net::stream::Stream;
use steadfast::session::handshake::DeflatePolicy;
use steadfast::session::turn::Turn;
use steadfast::session::{Compression, Next, Session};
use steadfast::ws::Input;
use steadfast::ws::deflate::Inflater;

/// Answers how many messages there were, and who asks; at `/tally/later` it decides later.
struct Tally;

impl App for Tally {
    type State = u32;

    fn handshake(&mut self, request: &Request<'_>, _: &Handle) -> Decision<u32> {
        match request.param("name") {
            Some("later") => Decision::Later(0),
            _ => Decision::Accept(0),
        }
    }

    fn open(&mut self, conn: &mut Conn<'_>, _: &mut u32) {
        for room in ["one", "two", "dreißig"] {
            conn.join(room).expect("three rooms are allowed");
        }
    }

    fn message(&mut self, conn: &mut Conn<'_>, count: &mut u32, _: Message<'_>) {
        *count = count.wrapping_add(1);
        let rooms: Vec<&str> = conn.rooms().collect();
        let (path, subprotocol) = (conn.path(), conn.subprotocol().unwrap_or("none"));
        let text = format!("{count} {path} {subprotocol} {} {}", rooms.join("+"), conn.peer());
        conn.send(text);
    }

    fn save(&self, count: &u32, writer: &mut Writer) -> Result<(), NotMovable> {
        writer.u32(*count);
        Ok(())
    }

    fn load(&mut self, _: &Handle, reader: &mut Reader<'_>) -> Result<u32, SnapshotError> {
        reader.u32()
    }
}

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

fn route(pattern: &str, app: &str, target: Target) -> Route {
    Route {
        pattern: Pattern::parse(pattern).expect("a pattern"),
        space: Space::default(),
        app: app.into(),
        target,
        chain: Chain::new(vec![AnyGate::new(ConnectionsPerIp::new(
            Arc::<IpCounts>::default(),
            1_000,
        ))]),
        limits: Limits { message_rate_max: Some(5), ..Limits::default() },
        compression: Compression { level: 1, threshold_bytes: 64 },
        subprotocols: vec!["chat".to_owned(), "news".to_owned()],
        deflate: Some(DeflatePolicy::default()),
    }
}

fn app(pattern: &str, name: &str, app: Box<dyn AnyApp>) -> Route {
    route(pattern, name, Target::App(app))
}

/// One worker's tools.
pub(crate) struct Process {
    pub(crate) dispatcher: Dispatcher,
    inflater: Inflater,
}

impl Process {
    /// Whose clock shows so many ticks.
    pub(crate) fn new(now: u32) -> Self {
        let routes = vec![
            route("/", "", Target::Nothing),
            app("/echo", "echo", erase(Echo)),
            app("/rooms/{name}", "rooms", erase(Rooms)),
            app("/tally/{name}", "tally", erase(Tally)),
        ];
        let dispatcher = Dispatcher {
            worker: 0,
            turn: Turn::server(),
            hub: Hub::new(0, 3),
            intents: Default::default(),
            routes,
            head_limits: HeadLimits::default(),
            gate: Gate::default(),
            ids: Arc::new(ConnectionIds::new(1)),
            post: PostBox(Arc::new(Nowhere)),
            now: Tick::new(now),
            work: 0,
            mode: Default::default(),
        };
        Self { dispatcher, inflater: Inflater::default() }
    }

    /// A connection that has said nothing yet.
    pub(crate) fn accept(&mut self, id: u32, peer: Peer) -> Client {
        let key = Key::from_u64(1 << 32 | u64::from(id)).expect("of the first generation");
        let mut client = Client::vacant(key);
        client.conn.id = ConnectionId::from_u64(id.into());
        client.conn.peer = peer;
        client.conn.session = Session::new(&self.dispatcher.head_limits, self.dispatcher.now);
        client
    }

    /// Gives a connection bytes; what it does not decode is parked, as a worker does.
    pub(crate) fn feed(&mut self, client: &mut Client, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let mut input = Input::new(&mut bytes);
        let (conn, key) = (&mut client.conn, client.key);
        self.dispatcher.work = 0;
        while self.dispatcher.feed(conn, key, &mut input, &mut self.inflater) == Fed::Intents {
            self.dispatcher.intents.deliveries.clear();
        }
        self.dispatcher.intents.mail.clear();
        conn.session.park(input.rest());
    }

    /// The end of a turn, with a socket that takes so many bytes: what it took.
    pub(crate) fn flush(&mut self, client: &mut Client, room: usize) -> (Next, Vec<u8>) {
        let Dispatcher { turn, routes, now, .. } = &mut self.dispatcher;
        let limits = &routes[usize::from(client.conn.route)].limits;
        let mut socket = Socket { room, taken: vec![] };
        let flushed = client.conn.session.flush(turn, &mut socket, limits, *now);
        let next = flushed.expect("it takes some or blocks");
        client.conn.session.spill(turn);
        turn.clear();
        (next, socket.taken)
    }

    /// A complete state file.
    pub(crate) fn save(&mut self, format: Format, clients: &mut [Client]) -> Vec<u8> {
        let mut states = States::new(format);
        for client in clients {
            client.conn.session.spill(&self.dispatcher.turn);
            let save = |writer: &mut Writer| self.dispatcher.save_connection(&client.conn, writer);
            states.add(client.key, save).expect("apps that save");
        }
        self.dispatcher.turn.clear();
        let (head, body) = states.sealed();
        [&head[..], body].concat()
    }

    /// What a state file holds, and the format it is in.
    pub(crate) fn load(&mut self, file: &[u8]) -> Result<(Format, Vec<Client>), String> {
        let states = SavedStates::open(file).map_err(|error| error.to_string())?;
        let mut bodies = vec![];
        let taken = states.take_bodies(&mut bodies, self.dispatcher.turn.meter());
        taken.map_err(|error| error.to_string())?;
        let mut states = states.with_bodies(&bodies);
        let mut clients = vec![];
        while let Some(saved) = states.read_next().map_err(|error| error.to_string())? {
            let Saved::Connection(key, mut state) = saved else {
                return Err("bytes without their connection".to_owned());
            };
            let address = Address { worker: 0, key };
            let restored = self.dispatcher.load_connection(&mut state, address);
            let restored = restored.map_err(|error| error.to_string())?;
            let mut client = Client::vacant(key);
            self.dispatcher.restore(&mut client.conn, key, restored);
            clients.push(client);
        }
        self.dispatcher.intents.mail.clear();
        Ok((states.format(), clients))
    }
}

pub(crate) struct Client {
    pub(crate) conn: Connection,
    pub(crate) key: Key,
}

impl Client {
    fn vacant(key: Key) -> Self {
        let (socket, _) = UnixStream::pair().expect("descriptors are left");
        let stream = Stream::adopt(socket.into()).expect("a connected socket");
        Self { conn: Connection::vacant(stream), key }
    }
}

/// A socket that takes `room` bytes and then blocks.
struct Socket {
    room: usize,
    taken: Vec<u8>,
}

impl std::io::Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.room == 0 {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        let len = bytes.len().min(self.room);
        self.room -= len;
        self.taken.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
