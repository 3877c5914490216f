//! Messages: echoes, rooms over several workers, compression.

use std::thread;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::support::{
    BINARY, CLOSE, CONTINUATION, Client, FIN, Frame, KIB, MIB, PING, PONG, RSV1, Server, TEXT,
    frame, wait_until,
};

const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

/// The payload of a compressed message (RFC 7692 §7.2.1).
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + KIB);
    let mut raw = Compress::new(Compression::fast(), false);
    raw.compress_vec(bytes, &mut out, FlushCompress::Sync).unwrap();
    assert_eq!(raw.total_in() as usize, bytes.len());
    assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
    out
}

fn inflated(frame: &Frame) -> Vec<u8> {
    assert!(frame.rsv1, "not compressed");
    let mut out = Vec::with_capacity(4 * MIB);
    let input = [&frame.payload[..], &[0, 0, 0xff, 0xff]].concat();
    Decompress::new(false).decompress_vec(&input, &mut out, FlushDecompress::Sync).unwrap();
    out
}

/// Members of a room, all of whose joins are known to its home.
fn members(server: &Server, room: &str, count: usize) -> Vec<Client> {
    let path = format!("/rooms/{room}");
    let mut members: Vec<Client> = (0..count).map(|_| server.open(&path)).collect();
    let mut probe = server.open(&format!("{path}?self=1"));
    for member in &mut members {
        wait_until("a member that hears", || {
            probe.send_text("probe");
            probe.expect_text("probe");
            !member.is_silent_so_far()
        });
    }
    probe.send_text("settled");
    probe.expect_text("settled");
    for member in &mut members {
        while member.frame().text() != "settled" {}
    }
    probe.close(1000);
    members
}

#[test]
fn echoes_of_every_kind_and_size() {
    let server = Server::start("workers = 1\nlimits.message_bytes_max = \"16 MiB\"\n");
    let mut client = server.open("/echo");
    for len in [0, 1, 125, 126, 65_535, 65_536, MIB, 16 * MIB] {
        let payload: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
        client.send(FIN | BINARY, &payload);
        let echo = client.frame();
        assert!(echo.opcode == BINARY && echo.fin && echo.payload == payload, "{len} bytes");
    }
    client.send(TEXT, "hel".as_bytes());
    client.send(FIN | PING, b"between");
    client.send(FIN | CONTINUATION, "lö".as_bytes());
    let pong = client.frame();
    assert_eq!((pong.opcode, &pong.payload[..]), (PONG, &b"between"[..]));
    client.expect_text("hellö");
    client.send(FIN | PONG, b"unasked");
    client.assert_echo("still");
    client.send_bytes(&frame(FIN | BINARY, &vec![0; 16 * MIB + 1])[..14]);
    client.expect_close(1009);
}

#[test]
fn every_ping_is_answered_even_behind_a_large_echo() {
    let server = Server::start("workers = 1\n");
    let mut client = server.open("/echo");
    let mut bytes = frame(FIN | BINARY, &[1; 64 * KIB]);
    for number in 0..20_u8 {
        bytes.extend(frame(FIN | PING, &[number]));
    }
    client.send_bytes(&bytes);
    assert_eq!(client.frame().payload.len(), 64 * KIB);
    for number in 0..20_u8 {
        let pong = client.frame();
        assert_eq!((pong.opcode, pong.payload), (PONG, vec![number]));
    }
}

#[test]
fn violations_are_told_and_end_without_a_reset() {
    let server = Server::start("workers = 1\n");
    let masked = frame(FIN | TEXT, b"x");
    let unmasked = [FIN | TEXT, 1, b'x'];
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("unmasked", unmasked.to_vec(), 1002),
        ("RSV1 without its extension", frame(FIN | RSV1 | TEXT, b"x"), 1002),
        ("RSV2", frame(FIN | 0x20 | TEXT, b"x"), 1002),
        ("a reserved opcode", frame(FIN | 3, b"x"), 1002),
        ("a fragmented ping", frame(PING, b"x"), 1002),
        ("a long ping", frame(FIN | PING, &[0; 126]), 1002),
        ("a continuation of nothing", frame(FIN | CONTINUATION, b"x"), 1002),
        ("a message in a message", [frame(TEXT, b"x"), masked].concat(), 1002),
        ("a length not in its shortest form", vec![FIN | TEXT, 0xfe, 0, 1, 0, 0, 0, 0], 1002),
        ("a Close of one byte", frame(FIN | CLOSE, &[3]), 1002),
        ("a reserved close code", frame(FIN | CLOSE, &1005_u16.to_be_bytes()), 1002),
        ("a reason that is no UTF-8", frame(FIN | CLOSE, &[3, 0xe8, 0xff]), 1007),
        ("text that is no UTF-8", frame(FIN | TEXT, &[0xff]), 1007),
        ("text that can no longer be UTF-8", frame(TEXT, &[0xc0]), 1007),
    ];
    for (name, bytes, code) in cases {
        let mut client = server.open("/echo");
        client.send_bytes(&bytes);
        // What was under way must not bring a reset upon the Close.
        client.send_bytes(&frame(FIN | BINARY, &[0; 64 * KIB]));
        let close = client.frame();
        assert_eq!(close.close_code(), Some(code), "{name}");
        client.expect_end();
    }
    server.wait_fds(0);
}

#[test]
fn members_on_all_workers_see_one_order_and_not_their_own() {
    const PUBLISHERS: usize = 6;
    const MESSAGES: usize = 200;
    let server = Server::start("workers = 3\n");
    // So many members are on all workers but for a chance of one in 10^4.
    let clients = members(&server, "a", 24);
    let heard: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(number, mut client)| {
            thread::spawn(move || {
                if number < PUBLISHERS {
                    for message in 0..MESSAGES {
                        client.send_text(&format!("{number} {message}"));
                    }
                }
                let own = if number < PUBLISHERS { MESSAGES } else { 0 };
                let heard: Vec<(usize, usize)> = (0..PUBLISHERS * MESSAGES - own)
                    .map(|_| {
                        let frame = client.frame();
                        let (from, message) = frame.text().split_once(' ').unwrap();
                        (from.parse().unwrap(), message.parse().unwrap())
                    })
                    .collect();
                client.close(1000);
                heard
            })
        })
        .collect();
    let heard: Vec<_> = heard.into_iter().map(|thread| thread.join().unwrap()).collect();
    let order = &heard[PUBLISHERS];
    assert_eq!(order.len(), PUBLISHERS * MESSAGES);
    for (number, heard) in heard.iter().enumerate() {
        let others: Vec<_> = order.iter().filter(|(from, _)| *from != number).copied().collect();
        assert!(*heard == others, "member {number} saw another order, or its own messages");
    }
}

#[test]
fn self_1_hears_itself_in_the_same_order() {
    let server = Server::start("workers = 3\n");
    for room in ["a", "b", "c", "d"] {
        let mut other = members(&server, room, 1).remove(0);
        let mut client = server.open(&format!("/rooms/{room}?self=1"));
        client.send_text("one");
        client.expect_text("one");
        other.expect_text("one");
        client.send(FIN | BINARY, &[7; 100_000]);
        assert_eq!(client.frame().payload, [7; 100_000]);
        assert_eq!(other.frame().payload, [7; 100_000]);
    }
    let mut client = server.connect();
    client.send_bytes(crate::support::request("/rooms/a?self=yes", "").as_bytes());
    assert_eq!(client.response().status, 400);
}

/// A burst within one turn is more than a queue may hold, and not the receivers' fault.
#[test]
fn a_burst_of_large_messages_is_no_slow_consumer() {
    const MESSAGE: usize = 60 * KIB;
    let config = "limits.queue_bytes_max = \"128 KiB\"\n";
    for workers in [1, 3] {
        let server = Server::start(&format!("workers = {workers}\n{config}"));
        let mut receivers = members(&server, "a", 4);
        let mut publisher = server.open("/rooms/a");
        for round in 0..20_u8 {
            let burst: Vec<u8> =
                (0..4).flat_map(|_| frame(FIN | BINARY, &vec![round; MESSAGE])).collect();
            publisher.send_bytes(&burst);
            for receiver in &mut receivers {
                for _ in 0..4 {
                    let frame = receiver.frame();
                    assert_eq!((frame.opcode, frame.payload.len()), (BINARY, MESSAGE));
                }
            }
        }
    }
}

#[test]
fn compressed_messages_both_ways() {
    let server = Server::start("workers = 1\n");
    let mut client = server.open_with("/echo", DEFLATE);
    let text = "many words, many words, many words; ".repeat(5_000);
    client.send(FIN | RSV1 | TEXT, &deflated(text.as_bytes()));
    let echo = client.frame();
    assert_eq!(inflated(&echo), text.as_bytes());
    assert!(echo.payload.len() < text.len() / 50);
    // Fragments of one stream, with a ping in between.
    let whole = deflated(text.as_bytes());
    let (one, two) = whole.split_at(whole.len() / 2);
    client.send(RSV1 | TEXT, one);
    client.send(FIN | PING, b"");
    client.send(FIN | CONTINUATION, two);
    assert_eq!(client.frame().opcode, PONG);
    assert_eq!(inflated(&client.frame()), text.as_bytes());
    client.assert_echo("too short to be worth it");
    client.send(FIN | RSV1 | BINARY, &[0xff; 32]);
    client.expect_close(1007);
}

#[test]
fn a_room_of_receivers_with_and_without_compression() {
    let server = Server::start("workers = 3\n");
    let mut plain = members(&server, "a", 3);
    let small = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n";
    let mut compressed: Vec<Client> = [DEFLATE, small, DEFLATE, small]
        .iter()
        .map(|lines| server.open_with("/rooms/a", lines))
        .collect();
    let mut publisher = server.open_with("/rooms/a?self=1", DEFLATE);
    for client in &mut compressed {
        wait_until("a member that hears", || {
            publisher.send_text("probe");
            publisher.expect_text("probe");
            !client.is_silent_so_far()
        });
    }
    let text = "the same for everybody, in two forms; ".repeat(500);
    publisher.send(FIN | RSV1 | TEXT, &deflated(text.as_bytes()));
    assert_eq!(inflated(&publisher.frame()), text.as_bytes());
    for client in &mut plain {
        let mut frame = client.frame();
        while frame.payload == b"probe" {
            frame = client.frame();
        }
        assert_eq!(frame.text(), text);
    }
    for client in &mut compressed {
        let mut frame = client.frame();
        while frame.payload == b"probe" {
            frame = client.frame();
        }
        assert_eq!(inflated(&frame), text.as_bytes());
    }
}

#[test]
fn compression_can_be_switched_off() {
    let server = Server::start("workers = 1\ndeflate.enabled = false\n");
    let response = server.connect().upgrade("/echo", DEFLATE);
    assert_eq!(response.header("sec-websocket-extensions"), None);
}
