//! `examples/poll.rs`, run with clients of an independent implementation.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use steadfast::base::network::ListenAddr;
use steadfast::config::{self, Sources};
use steadfast::net::stop::Stop;
use steadfast::server::Running;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

#[path = "../../examples/poll.rs"]
#[expect(dead_code, reason = "its main is for the example's own binary")]
mod poll;

use crate::hear::Hear;

/// Longest that anything here may take. Generous: only a test that fails waits for it.
const WAIT: Duration = Duration::from_secs(120);

/// The example's server on two workers and a port of its own.
struct Server(Option<Running>);

impl Server {
    fn start(seats_max: usize) -> Self {
        let builder = poll::server(seats_max);
        let text = "listen = ['127.0.0.1:0']\nworkers = 2\n".to_owned();
        let sources = Sources { file: Some((PathBuf::from("test"), text)), ..Sources::default() };
        let resolved = config::resolve(&sources, &builder.context()).expect("it holds");
        Self(Some(builder.start(&resolved.settings).expect("the server starts")))
    }

    /// A voter, or the status of the refusal.
    fn try_dial(&self, query: &str) -> Result<WebSocket<TcpStream>, u16> {
        self.try_dial_at(&format!("/poll{query}"))
    }

    fn try_dial_at(&self, target: &str) -> Result<WebSocket<TcpStream>, u16> {
        let [ListenAddr::Tcp(address)] = self.0.as_ref().expect("it runs").addresses() else {
            panic!("one TCP address");
        };
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_read_timeout(Some(WAIT)).expect("a timeout");
        match tungstenite::client(format!("ws://{address}{target}"), stream) {
            Ok((client, _)) => Ok(client),
            Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    fn dial(&self, name: &str) -> WebSocket<TcpStream> {
        self.try_dial(&format!("?name={name}")).expect("an accepted handshake")
    }

    /// Dials until a seat or a name is free again.
    fn dial_in_time(&self, name: &str) -> WebSocket<TcpStream> {
        let until = Instant::now() + WAIT;
        loop {
            match self.try_dial(&format!("?name={name}")) {
                Ok(client) => return client,
                Err(status) => assert!(Instant::now() < until, "still {status}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let running = self.0.take().expect("stopped once");
        running.stop(Stop::Fast);
        running.join().expect("the workers end well");
    }
}

fn vote(client: &mut WebSocket<TcpStream>, choice: &str) {
    client.send(Message::text(choice)).expect("sent");
}

fn receive(client: &mut WebSocket<TcpStream>) -> Value {
    let text = client.hear().expect("a message").into_text().expect("text");
    serde_json::from_str(&text).expect("JSON")
}

/// Reads until the count is this one: others may come before it.
fn await_count(client: &mut WebSocket<TcpStream>, voters: usize, votes: [usize; 3]) {
    let [coffee, tea, water] = votes;
    let wanted = json!({
        "votes": { "coffee": coffee, "tea": tea, "water": water },
        "voters": voters,
    });
    let until = Instant::now() + WAIT;
    loop {
        let seen = receive(client);
        if seen == wanted {
            return;
        }
        assert!(Instant::now() < until, "no {wanted}, but {seen}");
    }
}

#[test]
fn everybody_sees_the_count() {
    let server = Server::start(100);
    let mut ada = server.dial("Ada");
    await_count(&mut ada, 1, [0, 0, 0]);
    // Enough for both workers to have some.
    let mut others: Vec<_> = (0..8).map(|number| server.dial(&format!("v{number}"))).collect();
    for other in &mut others {
        vote(other, "tea");
    }
    vote(&mut ada, "water");
    for client in others.iter_mut().chain([&mut ada]) {
        await_count(client, 9, [0, 8, 1]);
    }
    vote(&mut ada, " coffee\n");
    for client in others.iter_mut().chain([&mut ada]) {
        await_count(client, 9, [1, 8, 0]);
    }
    let mut leaver = others.pop().expect("one of eight");
    leaver.close(None).expect("closed");
    await_count(&mut ada, 8, [1, 7, 0]);
    // Without a close handshake, too.
    others.pop();
    await_count(&mut ada, 7, [1, 6, 0]);
}

#[test]
fn the_teller_refuses_a_name_until_it_is_free() {
    let server = Server::start(100);
    let ada = server.dial("Ada");
    assert_eq!(server.try_dial("?name=Ada").unwrap_err(), 409);
    assert_eq!(server.try_dial("?name=").unwrap_err(), 400);
    assert_eq!(server.try_dial("").unwrap_err(), 400);
    drop(ada);
    server.dial_in_time("Ada");
}

#[test]
fn the_middleware_counts_seats_over_all_workers() {
    let server = Server::start(3);
    let mut seated: Vec<_> = ["a", "b", "c"].map(|name| server.dial(name)).into();
    // Whichever workers these come to.
    for _ in 0..8 {
        assert_eq!(server.try_dial("?name=d").unwrap_err(), 503);
    }
    seated.pop();
    server.dial_in_time("d");
}

/// The default routes would lead into the poll's room past its middleware.
#[test]
fn nothing_but_the_poll_is_served() {
    let server = Server::start(1);
    for target in ["/rooms/poll", "/echo"] {
        assert_eq!(server.try_dial_at(target).unwrap_err(), 404);
    }
}

#[test]
fn what_is_no_vote_is_answered() {
    let server = Server::start(100);
    let mut ada = server.dial("Ada");
    await_count(&mut ada, 1, [0, 0, 0]);
    vote(&mut ada, "milk");
    assert_eq!(receive(&mut ada), json!({ "choices": ["coffee", "tea", "water"] }));
    ada.send(Message::binary(vec![1])).expect("sent");
    match ada.hear().expect("a Close") {
        Message::Close(Some(close)) => assert_eq!(close.code, CloseCode::Unsupported),
        other => panic!("{other:?}"),
    }
}
