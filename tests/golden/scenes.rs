//! Connections in every state that is worth a file, and how each of them goes on.

use std::net::IpAddr;

use steadfast::app::{Command, Peer};
use steadfast::base::tick::Tick;
use steadfast::hub::{RoomRef, Space};
use steadfast::net::dispatch::Dispatcher;
use steadfast::session::Next;
use steadfast::session::delivery::Delivery;
use steadfast::session::turn::LARGE_PAYLOAD_BYTES;
use steadfast::ws::{CloseCode, CloseFrame, Header, Opcode, encode};

use super::process::{Client, Process};

/// One state.
pub(crate) struct Scene {
    /// The name of its file.
    pub(crate) name: &'static str,
    /// Brings it about.
    pub(crate) make: fn(&mut Process) -> Client,
    /// Goes on from it, and checks that nothing is missing.
    pub(crate) go_on: fn(&mut Process, &mut Client),
}

const FIN_TEXT: (bool, Opcode) = (true, Opcode::Text);

/// A payload that is queued by itself; most of it has gone before its queue is saved.
static LARGE: [u8; LARGE_PAYLOAD_BYTES] = [1; LARGE_PAYLOAD_BYTES];

/// More than any queue holds.
const ROOMY: usize = 1 << 20;

pub(crate) const SCENES: [Scene; 20] = [
    Scene {
        name: "proxy-header",
        make: |process| {
            let mut client = process.accept(1, Peer::default());
            client.conn.session.expect_proxy_header();
            process.feed(&mut client, b"PROXY TCP4 192.0.2.9 ");
            client
        },
        go_on: |process, client| {
            process.feed(client, b"192.0.2.1 5000 80\r\n");
            assert_eq!(client.conn.peer.to_string(), "192.0.2.9:5000");
            process.feed(client, request("/echo", "").as_bytes());
            assert!(text_of(process, client).starts_with("HTTP/1.1 101 "));
        },
    },
    Scene {
        name: "request",
        make: |process| {
            let mut client = process.accept(2, v6());
            let request = request("/echo", "");
            process.feed(&mut client, &request.as_bytes()[..request.len() - 20]);
            client
        },
        go_on: |process, client| {
            let request = request("/echo", "");
            process.feed(client, &request.as_bytes()[request.len() - 20..]);
            assert!(text_of(process, client).starts_with("HTTP/1.1 101 "));
            assert_echo(process, client);
        },
    },
    Scene {
        name: "undecided",
        make: |process| {
            let mut client = process.accept(3, v4());
            let request = request("/tally/later", "Sec-WebSocket-Protocol: news\r\n");
            process.feed(&mut client, request.as_bytes());
            process.feed(&mut client, &frame(FIN_TEXT, b"early"));
            client
        },
        go_on: |process, client| {
            assert!(!client.conn.session.wants_read());
            process.dispatcher.on_command(&mut client.conn, client.key, Command::Accept);
            let parked = client.conn.session.take_parked().expect("what came early");
            process.feed(client, &parked);
            let said = text_of(process, client);
            assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
            assert!(said.contains("Sec-WebSocket-Protocol: news\r\n"), "{said}");
            let expected = "1 /tally/later news dreißig+two+one 192.0.2.1:4711";
            assert!(said.ends_with(expected), "{said}");
        },
    },
    Scene {
        name: "refused",
        make: |process| {
            let mut client = process.accept(4, v4());
            process.feed(&mut client, request("/nowhere", "").as_bytes());
            process.flush(&mut client, 12);
            client
        },
        go_on: |process, client| {
            let said = text_of(process, client);
            assert!(said.starts_with(" Not Found\r\n"), "{said}");
        },
    },
    Scene {
        name: "open",
        make: |process| open(process, 5, "/echo", ""),
        go_on: |process, client| assert_echo(process, client),
    },
    Scene {
        name: "open-deflate",
        make: |process| open(process, 6, "/echo", DEFLATE),
        go_on: |process, client| {
            assert!(client.conn.session.has_deflate());
            // "Hello", as in RFC 7692 §7.2.3.1.
            process.feed(client, &deflated(true, Opcode::Text, &HELLO));
            assert_eq!(process.flush(client, ROOMY).1, frame_of_server(FIN_TEXT, b"Hello"));
        },
    },
    Scene {
        name: "header",
        make: |process| {
            let mut client = open(process, 7, "/echo", "");
            process.feed(&mut client, &frame(FIN_TEXT, &[b'a'; 300])[..5]);
            client
        },
        go_on: |process, client| {
            process.feed(client, &frame(FIN_TEXT, &[b'a'; 300])[5..]);
            assert_eq!(process.flush(client, ROOMY).1, frame_of_server(FIN_TEXT, &[b'a'; 300]));
        },
    },
    Scene {
        name: "payload",
        make: |process| {
            let mut client = open(process, 8, "/echo", "");
            // In the middle of a character, and of a mask.
            process.feed(&mut client, &frame(FIN_TEXT, "größer".as_bytes())[..9]);
            client
        },
        go_on: |process, client| {
            process.feed(client, &frame(FIN_TEXT, "größer".as_bytes())[9..]);
            let expected = frame_of_server(FIN_TEXT, "größer".as_bytes());
            assert_eq!(process.flush(client, ROOMY).1, expected);
        },
    },
    Scene {
        name: "control",
        make: |process| {
            let mut client = open(process, 9, "/echo", "");
            process.feed(&mut client, &frame((false, Opcode::Binary), &[1, 2, 3]));
            process.feed(&mut client, &frame((true, Opcode::Ping), b"there?")[..8]);
            client
        },
        go_on: |process, client| {
            process.feed(client, &frame((true, Opcode::Ping), b"there?")[8..]);
            process.feed(client, &frame((true, Opcode::Continuation), &[4]));
            let pong = frame_of_server((true, Opcode::Pong), b"there?");
            let message = frame_of_server((true, Opcode::Binary), &[1, 2, 3, 4]);
            assert_eq!(process.flush(client, ROOMY).1, [pong, message].concat());
        },
    },
    Scene {
        name: "fragments",
        make: |process| {
            let mut client = open(process, 10, "/echo", "");
            process.feed(&mut client, &frame((false, Opcode::Text), &[b'a', 0xc3]));
            process.feed(&mut client, &frame((false, Opcode::Continuation), &[0xa4]));
            process.feed(&mut client, &frame((false, Opcode::Continuation), "€".as_bytes())[..8]);
            client
        },
        go_on: |process, client| {
            process.feed(client, &frame((false, Opcode::Continuation), "€".as_bytes())[8..]);
            process.feed(client, &frame((true, Opcode::Continuation), b"!"));
            assert_eq!(
                process.flush(client, ROOMY).1,
                frame_of_server(FIN_TEXT, "aä€!".as_bytes())
            );
        },
    },
    Scene {
        name: "fragments-deflate",
        make: |process| {
            let mut client = open(process, 11, "/echo", DEFLATE);
            process.feed(&mut client, &deflated(false, Opcode::Text, &HELLO[..3]));
            process.feed(&mut client, &frame((true, Opcode::Continuation), &HELLO[3..])[..7]);
            client
        },
        go_on: |process, client| {
            process.feed(client, &frame((true, Opcode::Continuation), &HELLO[3..])[7..]);
            assert_eq!(process.flush(client, ROOMY).1, frame_of_server(FIN_TEXT, b"Hello"));
        },
    },
    Scene {
        name: "queue",
        make: |process| {
            let mut client = open(process, 12, "/echo", "");
            process.feed(&mut client, &frame((true, Opcode::Binary), &LARGE));
            process.flush(&mut client, LARGE.len() - 40);
            process.feed(&mut client, &frame((true, Opcode::Binary), &[2; 40]));
            process.flush(&mut client, 0);
            process.feed(&mut client, &frame((true, Opcode::Ping), b"ping"));
            process.flush(&mut client, 0);
            client
        },
        go_on: |process, client| {
            let first = frame_of_server((true, Opcode::Binary), &LARGE);
            // It overtakes where frames meet.
            let pong = frame_of_server((true, Opcode::Pong), b"ping");
            let second = frame_of_server((true, Opcode::Binary), &[2; 40]);
            let expected = [&first[LARGE.len() - 40..], &pong, &second].concat();
            assert_eq!(process.flush(client, ROOMY).1, expected);
        },
    },
    Scene {
        name: "shared-body",
        make: |process| {
            let mut client = open(process, 20, "/echo", "");
            let Dispatcher { turn, routes, now, .. } = &mut process.dispatcher;
            for byte in [1, 2] {
                let payload = [byte; LARGE_PAYLOAD_BYTES];
                let compression = &routes[1].compression;
                let delivery = Delivery::new(turn, Opcode::Binary, &payload, compression, None);
                client.conn.session.deliver_unbounded(&delivery, turn, *now);
            }
            process.flush(&mut client, LARGE.len() - 40);
            client
        },
        go_on: |process, client| {
            let [first, second] = [1, 2]
                .map(|byte| frame_of_server((true, Opcode::Binary), &[byte; LARGE_PAYLOAD_BYTES]));
            let expected = [&first[LARGE.len() - 40..], &second].concat();
            assert_eq!(process.flush(client, ROOMY).1, expected);
        },
    },
    Scene {
        name: "paused",
        make: |process| {
            let mut client = open(process, 13, "/echo", "");
            process.dispatcher.routes[1].limits.queue_bytes_max = 50;
            process.feed(&mut client, &frame((true, Opcode::Binary), &[1; 60]));
            process.flush(&mut client, 2);
            process.feed(&mut client, &frame((true, Opcode::Binary), &[2; 20]));
            process.feed(&mut client, &frame((true, Opcode::Binary), &[3; 20]));
            process.dispatcher.routes[1].limits.queue_bytes_max = 1 << 20;
            client
        },
        go_on: |process, client| {
            assert!(!client.conn.session.wants_read());
            let (next, mut said) = process.flush(client, ROOMY);
            assert_eq!(next, Next::Resume);
            let parked = client.conn.session.take_parked().expect("what was not decoded");
            process.feed(client, &parked);
            said.extend(process.flush(client, ROOMY).1);
            let expected = [[1; 60].as_slice(), &[2; 20], &[3; 20]]
                .map(|payload| frame_of_server((true, Opcode::Binary), payload));
            assert_eq!(said, expected.concat()[2..]);
        },
    },
    Scene {
        name: "pinged",
        make: |process| {
            let mut client = open(process, 14, "/echo", "");
            process.dispatcher.now = Tick::new(process.dispatcher.now.ticks() + 260);
            process.dispatcher.on_deadline(&mut client.conn, client.key);
            let (_, ping) = process.flush(&mut client, ROOMY);
            assert_eq!(ping, frame_of_server((true, Opcode::Ping), b""));
            client
        },
        go_on: |process, client| {
            assert!(client.conn.session.awaits_pong());
            process.dispatcher.now = Tick::new(process.dispatcher.now.ticks() + 110);
            process.dispatcher.on_deadline(&mut client.conn, client.key);
            assert_eq!(process.flush(client, ROOMY).0, Next::Drop, "ten seconds are over");
        },
    },
    Scene {
        name: "rate",
        make: |process| {
            let mut client = open(process, 15, "/echo", "");
            for _ in 0..5 {
                process.feed(&mut client, &frame(FIN_TEXT, b"x"));
            }
            process.flush(&mut client, ROOMY);
            client
        },
        go_on: |process, client| {
            process.feed(client, &frame(FIN_TEXT, b"one too many"));
            assert!(text_of(process, client).ends_with("too many frames"));
        },
    },
    Scene {
        name: "closing",
        make: |process| {
            let mut client = open(process, 16, "/rooms/a", "");
            let frame = CloseFrame::new(CloseCode::RESTART, "later");
            process.dispatcher.on_command(&mut client.conn, client.key, Command::Close(frame));
            process.flush(&mut client, 3);
            client
        },
        go_on: |process, client| {
            assert!(client.conn.session.is_closing() && client.conn.state.is_some());
            assert!(text_of(process, client).ends_with("later"));
            process.feed(client, &frame((true, Opcode::Close), &1012_u16.to_be_bytes()));
            assert_eq!(process.flush(client, ROOMY).0, Next::ShutdownWrite);
        },
    },
    Scene {
        name: "lingering",
        make: |process| {
            let mut client = open(process, 17, "/echo", "");
            process.feed(&mut client, &frame((true, Opcode::Close), &1000_u16.to_be_bytes()));
            process.flush(&mut client, 1);
            process.feed(&mut client, b"more");
            client
        },
        go_on: |process, client| {
            let close = frame_of_server((true, Opcode::Close), &1000_u16.to_be_bytes());
            assert_eq!(process.flush(client, ROOMY), (Next::ShutdownWrite, close[1..].to_vec()));
        },
    },
    Scene {
        name: "tally",
        make: |process| {
            let lines = "Sec-WebSocket-Protocol: chat\r\n";
            let mut client = open(process, 18, "/tally/gr%C3%B6n", lines);
            process.feed(&mut client, &frame(FIN_TEXT, b"x"));
            process.flush(&mut client, ROOMY);
            client
        },
        go_on: |process, client| {
            process.feed(client, &frame(FIN_TEXT, b"x"));
            let expected = "2 /tally/grön chat dreißig+two+one 192.0.2.1:4711";
            let said = text_of(process, client);
            assert!(said.ends_with(expected), "{said}");
        },
    },
    Scene {
        name: "room",
        make: |process| open(process, 19, "/rooms/lobby?self=1", DEFLATE),
        go_on: |process, client| {
            let rooms: Vec<&str> =
                process.dispatcher.hub.rooms_of(client.conn.memberships).collect();
            assert_eq!(rooms, ["lobby"]);
            assert!(client.conn.session.has_deflate() && client.conn.passed);
            process.dispatcher.on_dropped(&mut client.conn, client.key);
            let lobby = RoomRef { space: Space::default(), name: "lobby" };
            assert!(process.dispatcher.hub.members(lobby).is_empty());
        },
    },
];

const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// "Hello" compressed.
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

fn v4() -> Peer {
    Peer { addr: Some(IpAddr::from([192, 0, 2, 1])), port: Some(4711) }
}

fn v6() -> Peer {
    Peer { addr: Some(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])), port: None }
}

fn request(target: &str, lines: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
    )
}

fn open(process: &mut Process, id: u32, target: &str, lines: &str) -> Client {
    let mut client = process.accept(id, v4());
    process.feed(&mut client, request(target, lines).as_bytes());
    let said = text_of(process, &mut client);
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
    client
}

fn assert_echo(process: &mut Process, client: &mut Client) {
    process.feed(client, &frame(FIN_TEXT, b"still here"));
    assert_eq!(process.flush(client, ROOMY).1, frame_of_server(FIN_TEXT, b"still here"));
}

fn text_of(process: &mut Process, client: &mut Client) -> String {
    String::from_utf8_lossy(&process.flush(client, ROOMY).1).into_owned()
}

fn frame((fin, opcode): (bool, Opcode), payload: &[u8]) -> Vec<u8> {
    any_frame(Header { fin, rsv1: false, opcode, mask: Some([1, 2, 3, 4]), len: 0 }, payload)
}

fn deflated(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    any_frame(Header { fin, rsv1: true, opcode, mask: Some([5, 6, 7, 8]), len: 0 }, payload)
}

fn frame_of_server((fin, opcode): (bool, Opcode), payload: &[u8]) -> Vec<u8> {
    any_frame(Header { fin, rsv1: false, opcode, mask: None, len: 0 }, payload)
}

fn any_frame(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    encode::frame(&mut out, header, payload);
    out
}
