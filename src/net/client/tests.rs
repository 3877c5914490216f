//! Against servers that speak byte by byte what a test makes them say.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use super::*;
use crate::session::handshake::accept_value;
use crate::ws::Opcode;

/// A server for one connection: its URL, and the thread that ends with `serve`.
fn serve<T: Send + 'static>(
    serve: impl FnOnce(TcpStream, &str) -> T + Send + 'static,
) -> (Endpoint, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        serve(stream, &String::from_utf8(head).unwrap())
    });
    (Endpoint::parse(&url).unwrap(), thread)
}

fn accepted(request: &str) -> Vec<u8> {
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = accept_value(key.as_bytes());
    let accept = str::from_utf8(&accept).unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// Lives a connection; its messages as text, and the last event.
fn talk(
    endpoint: &Endpoint,
    settings: ClientSettings,
    mut on_open: impl FnMut(&mut Link<'_>),
) -> (Vec<String>, String) {
    let (mut messages, mut last) = (Vec::new(), String::new());
    let client = Client::connect(endpoint, &Wishes::default(), settings).unwrap();
    client
        .run(|link, event| match event {
            ClientEvent::Open(_) => on_open(link),
            ClientEvent::Message(message) => {
                messages.push(String::from_utf8(message.as_bytes().to_vec()).unwrap());
            }
            ClientEvent::Ping(_) | ClientEvent::Pong(_) => {}
            ClientEvent::Closed(ending) => last += &format!("{ending:?}"),
            ClientEvent::Failed(error) => match error {
                ConnectError::Refused { status, body, .. } => {
                    last += &format!("{status} {}", String::from_utf8_lossy(&body));
                }
                error => last += &format!("failed: {error}"),
            },
        })
        .unwrap();
    (messages, last)
}

fn close_normally(link: &mut Link<'_>) {
    link.send(Opcode::Text, b"question".into());
    link.close(CloseFrame::new(CloseCode::NORMAL, ""));
}

#[test]
fn a_head_in_pieces_and_messages_behind_our_close() {
    let (endpoint, server) = serve(|mut stream, request| {
        for byte in accepted(request) {
            stream.write_all(&[byte]).unwrap();
        }
        // The question, 6 + 8 bytes, and our Close, 6 + 2: then the client is closing.
        stream.read_exact(&mut [0; 22]).unwrap();
        stream.write_all(b"\x81\x01a\x01\x01b\x89\x00\x80\x01c\x88\x02\x03\xe8").unwrap();
        // No pong comes, but the end.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    let (messages, last) = talk(&endpoint, ClientSettings::default(), close_normally);
    assert_eq!(messages, ["a", "bc"]);
    assert!(last.starts_with("ByUs"), "{last}");
    server.join().unwrap();
}

#[test]
fn how_connections_end() {
    let cases: [(&[u8], &str); 7] = [
        (b"\x88\x02\x03\xe8", "ByUs"),
        (b"\x88\x00", "ByUs"),
        (b"\x88\x05\x03\xf1big", "ByServer(Some(CloseCode(1009)), \"big\")"),
        (b"\x81\x01\xff", "Violation(CloseFrame { code: CloseCode(1007)"),
        (b"\x81\x81aaaa\0", "Violation(CloseFrame { code: CloseCode(1002)"),
        (b"\x81\x05x", "Unanswered"),
        (b"", "Unanswered"),
    ];
    for (said, ending) in cases {
        let (endpoint, server) = serve(move |mut stream, request| {
            stream.write_all(&accepted(request)).unwrap();
            stream.read_exact(&mut [0; 22]).unwrap();
            stream.write_all(said).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let (_, last) = talk(&endpoint, ClientSettings::default(), close_normally);
        assert!(last.starts_with(ending), "{said:?}: {last}");
        server.join().unwrap();
    }

    // And without a Close of ours.
    for (said, ending) in [
        (&b"\x88\x02\x03\xe9"[..], "ByServer(Some(CloseCode(1001)), \"\")"),
        (b"\x88\x00", "ByServer(None, \"\")"),
        (b"\xff\x00", "Violation(CloseFrame { code: CloseCode(1002)"),
        (b"\x81", "Lost(None)"),
    ] {
        let (endpoint, server) = serve(move |mut stream, request| {
            stream.write_all(&[&accepted(request)[..], said].concat()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let (_, last) = talk(&endpoint, ClientSettings::default(), |_| {});
        assert!(last.starts_with(ending), "{said:?}: {last}");
        server.join().unwrap();
    }
}

#[test]
fn answers_that_open_nothing() {
    let cases: [(&[u8], &str); 7] = [
        (b"HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\nkey?", "401 key?"),
        (
            b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            "500 abcde",
        ),
        (
            b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab0\r\n\r\n",
            "500 ab0\r\n\r\n",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\npage", "200 page"),
        (b"HTTP/1.1 101 OK\r\n\r\n", "failed: the server's answer is invalid"),
        (b"SSH-2.0\r\n\r\n", "failed: the answer is not HTTP"),
        (b"HTTP/1.1 101", "failed: the server ended the connection without an answer"),
    ];
    for (said, outcome) in cases {
        let (endpoint, server) = serve(move |mut stream, _| {
            let (first, second) = said.split_at(said.len() / 2);
            stream.write_all(first).unwrap();
            stream.write_all(second).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let (messages, last) = talk(&endpoint, ClientSettings::default(), |_| unreachable!());
        assert!(last.starts_with(outcome), "{}: {last}", String::from_utf8_lossy(said));
        assert!(messages.is_empty());
        server.join().unwrap();
    }
}

#[test]
fn a_silent_server_is_given_up() {
    let mut settings = ClientSettings::default();
    settings.head_limits.handshake_timeout = Duration::from_millis(100);
    settings.limits.close_timeout = Duration::from_millis(100);
    let until_the_end = |mut stream: TcpStream| {
        let _ = stream.read_to_end(&mut Vec::new());
    };

    let (endpoint, server) = serve(move |stream, _| until_the_end(stream));
    let (_, last) = talk(&endpoint, settings.clone(), |_| unreachable!());
    assert_eq!(last, "failed: the server did not answer in time");
    server.join().unwrap();

    let (endpoint, server) = serve(move |mut stream, request| {
        stream.write_all(&accepted(request)).unwrap();
        until_the_end(stream);
    });
    let (_, last) = talk(&endpoint, settings, close_normally);
    assert_eq!(last, "Unanswered");
    server.join().unwrap();
}

#[test]
fn endpoints() {
    let usage = |text: &str| Endpoint::parse(text).unwrap_err().is_usage();
    assert!(["", "x", "unix:", "unix::/echo", "wss://a/", "ws://"].into_iter().all(usage));
    let unix = |text: &str| Endpoint::parse(text).unwrap();
    assert_eq!(unix("unix:/run/s"), unix("unix:/run/s:/"));
    assert_ne!(unix("unix:/run/s"), unix("unix:/run/s:/echo?at=b:/c"));
}
