//! tungstenite, an independent implementation, against the real binary over TCP.
//!
//! The other real clients (Python `websockets`, npm `ws`, Chromium) are in `tests/clients/`.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::thread;

use crate::hear::Hear;
use crate::support::{self, MIB, WAIT};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};
use tungstenite::protocol::{WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

type Client = WebSocket<TcpStream>;

/// The binary, serving on a port of its own; killed when dropped.
struct Server(support::Server);

impl Server {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(flags: &[&str]) -> Self {
        Self(support::Server::start_with("workers = 2\n", flags))
    }

    fn dial(&self, path: &str) -> Client {
        self.try_dial(path, &[]).expect("an accepted handshake")
    }

    fn try_dial(&self, path: &str, headers: &[(&'static str, &str)]) -> Result<Client, Error> {
        let mut request = format!("ws://{}{path}", self.0.address).into_client_request()?;
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).expect("a header value");
            request.headers_mut().insert(*name, value);
        }
        let stream = TcpStream::connect(self.0.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        // Our own limits must not be what stops a message.
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        match tungstenite::client::client_with_config(request, stream, Some(config)) {
            Ok((client, _)) => Ok(client),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
            Err(tungstenite::HandshakeError::Interrupted(_)) => panic!("no answer in {WAIT:?}"),
        }
    }
}

/// The code of the server's Close, read until the connection's end; `None` is a Close without one.
fn closed_with(client: &mut Client) -> Option<CloseCode> {
    let mut code = None;
    loop {
        match client.hear() {
            Ok(Message::Close(close)) => code = Some(close.map(|close| close.code)),
            Ok(_) => {}
            Err(Error::ConnectionClosed) => return code.expect("a Close before the end"),
            // The server may have hung up while our own writing was still going on.
            Err(Error::Io(error)) if error.kind() == ErrorKind::ConnectionReset => {
                return code.expect("a Close before the reset");
            }
            Err(error) => panic!("no Close: {error}"),
        }
    }
}

#[track_caller]
fn echoes(client: &mut Client, message: Message) {
    client.send(message.clone()).expect("sent");
    let back = client.hear().expect("an echo");
    // Not assert_eq: nobody wants to see a mebibyte.
    assert!(back == message, "{} bytes came back for {}", back.len(), message.len());
}

fn frame(opcode: OpCode, fin: bool, payload: &[u8]) -> Message {
    let header = FrameHeader { is_final: fin, opcode, ..FrameHeader::default() };
    Message::Frame(Frame::from_payload(header, payload.to_vec().into()))
}

fn data(opcode: Data, fin: bool, payload: &[u8]) -> Message {
    frame(OpCode::Data(opcode), fin, payload)
}

/// Sends and lets a connection that the server has closed meanwhile be told by the reading.
fn send_to_the_end(client: &mut Client, message: Message) {
    match client.send(message) {
        Ok(()) | Err(Error::ConnectionClosed | Error::Io(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn echo_of_every_size_and_kind() {
    let server = Server::start();
    let mut client = server.dial("/echo");
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, MIB - 1, MIB] {
        let noise: Vec<u8> = (0..length).map(|n| (n * n % 251) as u8).collect();
        echoes(&mut client, Message::binary(noise));
        echoes(&mut client, Message::text("x".repeat(length)));
    }
    echoes(
        &mut client,
        Message::text("aß水🦀\0\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}".repeat(500)),
    );
}

#[test]
fn many_in_flight_come_back_in_order() {
    let server = Server::start();
    let mut client = server.dial("/echo");
    for n in 0..5_000 {
        client.write(Message::text(format!("message {n}"))).expect("written");
    }
    client.flush().expect("flushed");
    for n in 0..5_000 {
        assert_eq!(client.hear().expect("an echo"), Message::text(format!("message {n}")));
    }
}

#[test]
fn fragments_with_a_ping_between_them() {
    let server = Server::start();
    let mut client = server.dial("/echo");
    let crab = "🦀".as_bytes();
    client.send(data(Data::Text, false, &crab[..1])).expect("sent");
    client.send(Message::Ping("between".into())).expect("sent");
    assert_eq!(client.hear().expect("a pong"), Message::Pong("between".into()));
    client.send(data(Data::Continue, false, b"")).expect("sent");
    client.send(data(Data::Continue, true, &crab[1..])).expect("sent");
    assert_eq!(client.hear().expect("an echo"), Message::text("🦀"));
}

#[test]
fn pings_are_answered_and_pongs_are_not() {
    let server = Server::start();
    let mut client = server.dial("/echo");
    for length in [0, 1, 125] {
        client.send(Message::Pong("nobody asked".into())).expect("sent");
        client.send(Message::Ping(vec![7; length].into())).expect("sent");
        assert_eq!(client.hear().expect("a pong"), Message::Pong(vec![7; length].into()));
    }
}

#[test]
fn our_close_comes_back_and_the_connection_ends() {
    let server = Server::start();
    for code in [1000, 1001, 1003, 1007, 1011, 3000, 4999] {
        let mut client = server.dial("/echo");
        let close = CloseFrame { code: CloseCode::from(code), reason: "bye".into() };
        client.close(Some(close)).expect("sent");
        assert_eq!(closed_with(&mut client), Some(CloseCode::from(code)));
    }
    let mut client = server.dial("/echo");
    client.close(None).expect("sent");
    assert!(matches!(closed_with(&mut client), None | Some(CloseCode::Normal)));
}

#[test]
fn what_is_above_the_limit_closes_with_1009() {
    let server = Server::start();
    let mut client = server.dial("/echo");
    send_to_the_end(&mut client, Message::binary(vec![0; MIB + 1]));
    assert_eq!(closed_with(&mut client), Some(CloseCode::Size));

    let mut client = server.dial("/echo");
    send_to_the_end(&mut client, data(Data::Binary, false, &vec![0; 600_000]));
    send_to_the_end(&mut client, data(Data::Continue, true, &vec![0; 600_000]));
    assert_eq!(closed_with(&mut client), Some(CloseCode::Size));
}

#[test]
fn violations_get_their_close_code() {
    let server = Server::start();
    let ping = OpCode::Control(Control::Ping);
    let cases = [
        ("a continuation of nothing", vec![data(Data::Continue, true, b"x")], CloseCode::Protocol),
        (
            "a new message inside a message",
            vec![data(Data::Text, false, b"x"), data(Data::Text, true, b"y")],
            CloseCode::Protocol,
        ),
        ("a reserved opcode", vec![data(Data::Reserved(3), true, b"")], CloseCode::Protocol),
        ("a long ping", vec![frame(ping, true, &[0; 126])], CloseCode::Protocol),
        ("a fragmented ping", vec![frame(ping, false, b"")], CloseCode::Protocol),
        (
            "a surrogate before FIN",
            vec![data(Data::Text, false, b"\xed\xa0\x80")],
            CloseCode::Invalid,
        ),
    ];
    for (what, frames, code) in cases {
        let mut client = server.dial("/echo");
        for frame in frames {
            client.send(frame).expect("sent");
        }
        assert_eq!(closed_with(&mut client), Some(code), "{what}");
    }
}

#[test]
fn refused_handshakes_have_their_status() {
    let server = Server::start();
    let refusals = [
        ("/no/such/path", "Origin", "http://localhost", 404),
        ("/echo", "Origin", "https://elsewhere.example", 403),
        ("/echo", "Sec-WebSocket-Version", "8", 426),
        ("/echo", "Sec-WebSocket-Key", "c2hvcnQ=", 400),
        ("/echo", "Connection", "keep-alive", 426),
    ];
    for (path, name, value, status) in refusals {
        match server.try_dial(path, &[(name, value)]) {
            Err(Error::Http(answer)) => {
                assert_eq!(answer.status(), status, "{path}, {name}: {value}")
            }
            Err(error) => panic!("{path}, {name}: {value}: {error}"),
            Ok(_) => panic!("{path}, {name}: {value}: accepted"),
        }
    }
}

#[test]
fn a_room_has_one_order_for_all() {
    const MEMBERS: usize = 8;
    const EACH: usize = 400;
    let server = Server::start();
    let mut members: Vec<Client> =
        (0..MEMBERS).map(|_| server.dial("/rooms/order?self=1")).collect();

    // A member that has heard itself is in. The last word is spoken when all are.
    for (n, member) in members.iter_mut().enumerate() {
        member.send(Message::text(format!("here {n}"))).expect("sent");
        while member.hear().expect("a message") != Message::text(format!("here {n}")) {}
    }
    members[0].send(Message::text("all here")).expect("sent");
    for member in &mut members {
        while member.hear().expect("a message") != Message::text("all here") {}
    }

    let speakers: Vec<_> = (members.into_iter().enumerate())
        .map(|(n, mut member)| {
            thread::spawn(move || {
                let mut order = Vec::new();
                for k in 0..EACH {
                    member.send(Message::text(format!("{n}:{k}"))).expect("sent");
                    order.push(member.hear().expect("a message"));
                }
                while order.len() < MEMBERS * EACH {
                    order.push(member.hear().expect("a message"));
                }
                order
            })
        })
        .collect();
    let orders: Vec<_> = speakers.into_iter().map(|each| each.join().expect("a speaker")).collect();
    for (n, order) in orders.iter().enumerate() {
        assert!(order == &orders[0], "members {n} and 0 saw different orders");
        let own = orders[0].iter().filter_map(|message| match message {
            Message::Text(text) => text.strip_prefix(&format!("{n}:")).map(str::to_owned),
            _ => None,
        });
        let wanted: Vec<String> = (0..EACH).map(|k| k.to_string()).collect();
        assert_eq!(own.collect::<Vec<_>>(), wanted, "the messages of member {n}");
    }
}

#[test]
fn told_to_stop_it_says_so_and_ends_well() {
    for (signal, code) in [("TERM", CloseCode::Restart), ("INT", CloseCode::Away)] {
        let mut server = Server::start_with(&["--drain-duration", "200ms"]);
        let mut clients: Vec<Client> = (0..20).map(|_| server.dial("/echo")).collect();
        server.0.signal(signal);
        for client in &mut clients {
            assert_eq!(closed_with(client), Some(code), "{signal}");
        }
        drop(clients);
        assert_eq!(server.0.exit_status(), Some(0), "{signal}");
        assert!(TcpStream::connect(server.0.address).is_err(), "{signal}: somebody still listens");
    }
}
