//! A live poll: a complete server of one's own on the library.
//!
//! ```text
//! cargo run --example poll
//! steadfast client 'ws://127.0.0.1:8000/poll?name=Ada'     in another terminal; type `tea`
//! ```
//!
//! Voters say who they are, vote, change their minds, and all of them see each new count:
//! `{"voters":4,"votes":{"coffee":1,"tea":2,"water":0}}`. A vote counts while its voter is there.
//!
//! What is to be seen here:
//! - an app with a state for each connection ([`Poll`], [`Seat`]);
//! - state shared by all workers without locks: one thread owns it ([`Teller`]);
//! - a handshake that this thread accepts or refuses later, through a [`Handle`];
//! - messages to everybody, by a room;
//! - middleware of one's own, with a count that all workers share ([`Seats`]);
//! - voters, their names and their votes that move to the next process at an upgrade;
//! - the whole `steadfast` command line: `cargo run --example poll -- serve --help`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use serde_json::json;
use steadfast::app::{
    App, CloseCode, Conn, Decision, Handle, Message, Middleware, NotMovable, Peer, Reader, Refusal,
    Request, SnapshotError, Undeliverable, Writer,
};
use steadfast::base::id::ConnectionId;
use steadfast::server::{Builder, Server};

/// The room of all voters.
const ROOM: &str = "poll";

/// What one can vote for.
const CHOICES: [&str; 3] = ["coffee", "tea", "water"];

/// Counts go out this far apart: a thousand votes at once are one message, not a thousand.
const COUNT_INTERVAL: Duration = Duration::from_millis(20);

/// Longest name in bytes.
const NAME_BYTES_MAX: usize = 40;

fn main() -> ExitCode {
    server(1_000).run_from_args()
}

/// The server, with room for so many voters.
pub(crate) fn server(seats_max: usize) -> Builder {
    // Started by the first worker that asks for it, and not here: threads come after the server
    // has taken over the signals, and `check-config` needs none.
    let teller = LazyLock::new(Teller::start);
    let taken = Arc::new(AtomicUsize::new(0));
    Server::builder()
        .app("poll", move || Poll { teller: Sender::clone(&teller) })
        .route("/poll", "poll")
        .middleware(Some("/poll"), move || Seats { taken: taken.clone(), max: seats_max })
}

/// Refuses who comes when every seat is taken. Each worker has one; the count is of all of them.
struct Seats {
    taken: Arc<AtomicUsize>,
    max: usize,
}

impl Middleware for Seats {
    fn check(&mut self, _: &Request<'_>) -> Result<(), Refusal> {
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.max {
            return Ok(());
        }
        self.taken.fetch_sub(1, Ordering::Relaxed);
        Err(Refusal::new(503, "every seat is taken").with_header("Retry-After", "10"))
    }

    fn release(&mut self, _: &Peer) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    fn adopt(&mut self, _: &Peer) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }
}

/// The app of one worker. It has nothing to wait for: whatever it learns goes to the teller.
struct Poll {
    teller: Sender<Event>,
}

/// A voter's connection, from the handshake on.
struct Seat {
    id: ConnectionId,
    teller: Sender<Event>,
    // What the teller knows, too: it does not move to another process, this does.
    name: String,
    is_in: bool,
    choice: Option<&'static str>,
}

/// The state goes however a connection ends, a handshake that was never decided included, while
/// `App::close` comes only after `App::open`.
impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.teller.send(Event::Left(self.id));
    }
}

impl App for Poll {
    type State = Seat;

    fn handshake(&mut self, request: &Request<'_>, handle: &Handle) -> Decision<Seat> {
        let name = request.query("name").unwrap_or_default();
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Decision::Refuse(Refusal::new(400, "say who you are, as in ?name=Ada"));
        }
        let name = name.into_owned();
        let arrived = Event::Arrived { handle: handle.clone(), name: name.clone() };
        match self.teller.send(arrived) {
            Ok(()) => {
                let (id, teller) = (handle.id(), self.teller.clone());
                Decision::Later(Seat { id, teller, name, is_in: false, choice: None })
            }
            Err(_) => Decision::Refuse(Refusal::new(503, "nobody counts the votes")),
        }
    }

    fn open(&mut self, conn: &mut Conn<'_>, seat: &mut Seat) {
        if conn.join(ROOM).is_err() {
            conn.close(CloseCode::POLICY, "in too many rooms");
        }
        seat.is_in = true;
        let _ = self.teller.send(Event::Opened(seat.id));
    }

    fn message(&mut self, conn: &mut Conn<'_>, seat: &mut Seat, message: Message<'_>) {
        let Message::Text(text) = message else {
            return conn.close(CloseCode::UNSUPPORTED, "votes are text");
        };
        match CHOICES.into_iter().find(|choice| *choice == text.trim()) {
            Some(choice) => {
                seat.choice = Some(choice);
                let _ = self.teller.send(Event::Voted(seat.id, choice));
            }
            None => conn.send(json!({ "choices": CHOICES }).to_string()),
        }
    }

    fn save(&self, seat: &Seat, writer: &mut Writer) -> Result<(), NotMovable> {
        let Seat { id: _, teller: _, name, is_in, choice } = seat;
        writer.str(name);
        writer.bool(*is_in);
        writer.option(*choice, Writer::str);
        Ok(())
    }

    fn load(&mut self, handle: &Handle, reader: &mut Reader<'_>) -> Result<Seat, SnapshotError> {
        let (name, is_in) = (reader.str()?.to_owned(), reader.bool()?);
        let choice = reader.option(|reader| {
            let name = reader.str()?;
            let known = CHOICES.into_iter().find(|choice| *choice == name);
            known.ok_or(SnapshotError::Invalid("choice"))
        })?;
        let (id, name_too, handle) = (handle.id(), name.clone(), handle.clone());
        let _ = self.teller.send(match is_in {
            true => Event::Moved { handle, name: name_too, choice },
            // The teller that was asked is gone, so this one is.
            false => Event::Arrived { handle, name: name_too },
        });
        Ok(Seat { id, teller: self.teller.clone(), name, is_in, choice })
    }
}

/// What the workers tell the teller.
enum Event {
    /// Somebody asks to be let in.
    Arrived { handle: Handle, name: String },
    /// Somebody was let in by the teller of another process, and is here now.
    Moved { handle: Handle, name: String, choice: Option<&'static str> },
    /// Somebody is in, and has seen no count yet.
    Opened(ConnectionId),
    /// Somebody votes, perhaps not for the first time.
    Voted(ConnectionId, &'static str),
    /// Somebody has gone, or was never let in.
    Left(ConnectionId),
}

/// Owns the poll, on a thread of its own.
#[derive(Default)]
struct Teller {
    voters: BTreeMap<ConnectionId, Voter>,
}

struct Voter {
    name: String,
    handle: Handle,
    /// The handshake has been completed.
    is_in: bool,
    choice: Option<&'static str>,
}

impl Teller {
    fn start() -> Sender<Event> {
        let (sender, events) = mpsc::channel();
        thread::spawn(move || Self::default().run(&events));
        sender
    }

    /// Until the last worker has gone.
    fn run(mut self, events: &Receiver<Event>) {
        while let Ok(event) = events.recv() {
            self.on_event(event);
            thread::sleep(COUNT_INTERVAL);
            for event in events.try_iter() {
                self.on_event(event);
            }
            while self.publish() == Err(Undeliverable::Full) {
                thread::sleep(COUNT_INTERVAL);
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Arrived { handle, name } => self.admit(handle, name),
            Event::Moved { handle, name, choice } => {
                let id = handle.id();
                self.voters.insert(id, Voter { name, handle, is_in: true, choice });
            }
            Event::Opened(id) => self.change(id, |voter| voter.is_in = true),
            Event::Voted(id, choice) => self.change(id, |voter| voter.choice = Some(choice)),
            Event::Left(id) => {
                self.voters.remove(&id);
            }
        }
    }

    /// Where a real app would ask a database who this is.
    fn admit(&mut self, handle: Handle, name: String) {
        // If the answer cannot be delivered, the handshake ends by its time-out.
        let _ = match self.voters.values().any(|voter| voter.name == name) {
            true => handle.refuse(Refusal::new(409, "this name is taken")),
            false => handle.accept().inspect(|()| {
                let voter = Voter { name, handle: handle.clone(), is_in: false, choice: None };
                self.voters.insert(handle.id(), voter);
            }),
        };
    }

    fn change(&mut self, id: ConnectionId, change: impl FnOnce(&mut Voter)) {
        if let Some(voter) = self.voters.get_mut(&id) {
            change(voter);
        }
    }

    /// Sends the count to everybody.
    fn publish(&self) -> Result<(), Undeliverable> {
        // Any connection's handle reaches any room.
        let Some(Voter { handle, .. }) = self.voters.values().next() else {
            return Ok(());
        };
        let votes_for =
            |choice| self.voters.values().filter(|voter| voter.choice == Some(choice)).count();
        let votes: BTreeMap<_, _> =
            CHOICES.into_iter().map(|choice| (choice, votes_for(choice))).collect();
        let voters = self.voters.values().filter(|voter| voter.is_in).count();
        handle.publish(ROOM, json!({ "votes": votes, "voters": voters }).to_string())
    }
}
