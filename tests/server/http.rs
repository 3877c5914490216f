//! Every row of the table of requests and answers.

use crate::support::{FIN, Response, Server, TEXT, frame, request};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const VERSION: &str = "Sec-WebSocket-Version: 13";
const UPGRADE: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: Upgrade";
const HOST: &str = "Host: localhost";

/// A request of these lines.
fn lines(lines: &[&str]) -> Vec<u8> {
    format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes()
}

/// A handshake with these lines behind its own.
fn with(line: &str) -> Vec<u8> {
    request("/echo", &format!("{line}\r\n")).into_bytes()
}

/// A handshake with one line of its own in place of another.
fn instead(of: &str, line: &str) -> Vec<u8> {
    let whole = request("/echo", "");
    assert!(whole.contains(of));
    whole.replace(of, line).into_bytes()
}

fn answer(server: &Server, bytes: &[u8]) -> Response {
    let mut client = server.connect();
    client.send_bytes(bytes);
    client.response()
}

#[test]
fn refusals() {
    let server = Server::start("workers = 1\n");
    let without = |line: &str| instead(&format!("{line}\r\n"), "");
    let long_target = format!("/{}", "a".repeat(8_000));
    let many_headers: String = (0..101).map(|number| format!("X-{number}: 1\r\n")).collect();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("no Host", without(HOST), 400),
        ("two Hosts", with("Host: localhost"), 400),
        ("an invalid Host", instead(HOST, "Host: a b"), 400),
        ("space before the colon", with("X-A : 1"), 400),
        ("a folded line", with("X-A: 1\r\n 2"), 400),
        ("a bare LF", with("X-A: 1\nX-B: 2"), 400),
        ("a bare CR", with("X-A: 1\r2"), 400),
        ("a NUL", with("X-A: 1\x002"), 400),
        ("a name that is no token", with("X(A): 1"), 400),
        ("no colon", with("nonsense"), 400),
        ("both lengths", with("Content-Length: 0\r\nTransfer-Encoding: chunked"), 400),
        ("a length that is no number", with("Content-Length: +1"), 400),
        ("differing lengths", with("Content-Length: 0\r\nContent-Length: 1"), 400),
        ("a body", with("Content-Length: 1"), 400),
        ("a chunked body", with("Transfer-Encoding: chunked"), 400),
        ("HTTP/1.0", instead("HTTP/1.1", "HTTP/1.0"), 426),
        ("HTTP/2.0", instead("HTTP/1.1", "HTTP/2.0"), 505),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400),
        ("a long target", request(&long_target, "").into_bytes(), 414),
        ("many headers", request("/echo", &many_headers).into_bytes(), 431),
        ("a large head", with(&format!("X-A: {}", "a".repeat(16 * 1024))), 431),
        ("no version", without(VERSION), 426),
        ("version 8", instead(VERSION, "Sec-WebSocket-Version: 8"), 426),
        ("two versions", with(VERSION), 400),
        ("no Upgrade", without(UPGRADE), 426),
        ("Upgrade: h2c", instead(UPGRADE, "Upgrade: h2c"), 426),
        ("no Connection", without(CONNECTION), 426),
        ("Connection: keep-alive", instead(CONNECTION, "Connection: keep-alive"), 426),
        ("POST", instead("GET", "POST"), 405),
        ("no key", without(KEY), 400),
        ("two keys", with(KEY), 400),
        ("a short key", instead(KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="), 400),
        ("a long key", instead(KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSBsb25n"), 400),
        (
            "a key that is no base64",
            instead(KEY, "Sec-WebSocket-Key: !!hlIHNhbXBsZSBub25jZQ=="),
            400,
        ),
        ("a subprotocol that is no token", with("Sec-WebSocket-Protocol: a b"), 400),
        ("malformed extensions", with("Sec-WebSocket-Extensions: a;;b"), 400),
        ("an unknown path", instead("/echo", "/nothing"), 404),
        ("a foreign origin", with("Origin: http://example.org"), 403),
        ("the null origin", with("Origin: null"), 403),
        ("two origins", with("Origin: http://localhost\r\nOrigin: http://localhost"), 403),
        ("the page, posted to", lines(&["POST / HTTP/1.1", HOST]), 405),
        ("broken percent-encoding", instead("/echo", "/ec%zzho"), 400),
        ("a path that is not UTF-8", instead("/echo", "/%ff"), 400),
        ("a raw umlaut", instead("/echo", "/\u{fc}"), 400),
        ("a raw umlaut in the query", instead("/echo", "/echo?\u{fc}"), 400),
        ("a tunnel", lines(&["CONNECT example.org:443 HTTP/1.1", HOST]), 405),
        ("an unknown method", lines(&["PURGE / HTTP/1.1", HOST]), 405),
        ("a method of nothing", lines(&["POST /nothing HTTP/1.1", HOST]), 404),
        ("options of nothing", lines(&["OPTIONS /nothing HTTP/1.1", HOST]), 404),
        (
            "a coding that does not say where it ends",
            lines(&["POST / HTTP/1.1", HOST, "Transfer-Encoding: gzip"]),
            400,
        ),
        (
            "a coding behind chunked",
            lines(&["GET / HTTP/1.1", HOST, "Transfer-Encoding: chunked, gzip"]),
            400,
        ),
        (
            "chunked twice",
            lines(&[
                "GET / HTTP/1.1",
                HOST,
                "Transfer-Encoding: chunked",
                "Transfer-Encoding: chunked",
            ]),
            400,
        ),
    ];
    for (name, bytes, status) in cases {
        let response = answer(&server, &bytes);
        assert_eq!(response.status, status, "{name}: {response:?}");
        assert!((8..200).contains(&response.body.len()), "{name} says why: {response:?}");
        assert!(response.body.ends_with('\n') && !response.body.starts_with('<'), "{name}");
        assert_date(&response);
        let connection = response.header("connection").unwrap_or_default().to_ascii_lowercase();
        assert!(connection.split(", ").any(|token| token == "close"), "{name}: {response:?}");
        match status {
            405 => assert_eq!(response.header("allow"), Some("GET, HEAD, OPTIONS"), "{name}"),
            426 => {
                assert_eq!(response.header("sec-websocket-version"), Some("13"), "{name}");
                assert_eq!(response.header("upgrade"), Some("websocket"), "{name}");
                assert!(connection.split(", ").any(|token| token == "upgrade"), "{name}");
            }
            _ => {}
        }
    }
    server.assert_healthy();
    server.wait_fds(0);
}

#[test]
fn acceptances() {
    let server = Server::start("workers = 1\n");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("as browsers do", instead(CONNECTION, "Connection: keep-alive, Upgrade")),
        ("over lines", instead(CONNECTION, "Connection: keep-alive\r\nConnection: upgrade")),
        ("any case", instead(UPGRADE, "uPGRADE: WebSocket")),
        ("several upgrades", instead(UPGRADE, "Upgrade: h2c, websocket")),
        ("no space behind the colon", instead(VERSION, "Sec-WebSocket-Version:13")),
        ("absolute form", instead("/echo", "http://example.org/echo")),
        ("its host counts", {
            let request = String::from_utf8(with("Origin: http://example.org")).unwrap();
            request.replace("/echo", "http://example.org/echo").into_bytes()
        }),
        ("the same host's origin", with("Origin: http://localhost")),
        ("a query", instead("/echo", "/echo?a=b")),
        ("a lone percent sign in it", instead("/echo", "/echo?d=50%")),
        ("a parameter that nobody asks for", instead("/echo", "/echo?%ff=%ff&a=%zz")),
        ("an empty body", with("Content-Length: 0")),
        ("unspoken subprotocols", with("Sec-WebSocket-Protocol: a, b")),
        ("an unknown extension", with("Sec-WebSocket-Extensions: x-mux; a=\"b\"")),
    ];
    for (name, bytes) in cases {
        let mut client = server.connect();
        client.send_bytes(&bytes);
        let response = client.response();
        assert_eq!(response.status, 101, "{name}: {response:?}");
        assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_date(&response);
        assert_eq!(response.header("sec-websocket-protocol"), None, "{name}");
        assert_eq!(response.header("sec-websocket-extensions"), None, "{name}");
        client.assert_echo(name);
        client.close(1000);
    }
    // The example key of RFC 6455 §4.1 has trailing bits.
    let mut client = server.connect();
    client.send_bytes(&instead(KEY, "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC=="));
    let response = client.response();
    assert_eq!(response.header("sec-websocket-accept"), Some("OfS0wDaT5NoxF2gqm7Zj2YtetzM="));
}

#[test]
fn bytes_behind_the_head_are_frames() {
    let server = Server::start("workers = 1\n");
    let mut client = server.connect();
    let mut bytes = request("/echo", "").into_bytes();
    bytes.extend(frame(FIN | TEXT, b"early"));
    client.send_bytes(&bytes);
    assert_eq!(client.response().status, 101);
    client.expect_text("early");
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let server = Server::start("workers = 1\n");
    let mut client = server.connect();
    client.stream.set_nodelay(true).unwrap();
    for byte in request("/echo", "").as_bytes() {
        client.send_bytes(&[*byte]);
    }
    assert_eq!(client.response().status, 101);
    client.assert_echo("together");
}

#[test]
fn extensions() {
    let server = Server::start("workers = 1\n");
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let cases = [
        ("permessage-deflate", Some(both.to_owned())),
        ("permessage-deflate; client_max_window_bits", Some(both.to_owned())),
        ("permessage-deflate; server_max_window_bits=8", None),
        (
            "permessage-deflate; server_max_window_bits=9",
            Some(format!("{both}; server_max_window_bits=9")),
        ),
        (
            "permessage-deflate; server_max_window_bits=15",
            Some(format!("{both}; server_max_window_bits=15")),
        ),
        ("permessage-deflate; server_max_window_bits=16", None),
        (
            "permessage-deflate; server_max_window_bits=\"10\"",
            Some(format!("{both}; server_max_window_bits=10")),
        ),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate; unknown, permessage-deflate", Some(both.to_owned())),
    ];
    for (offer, expected) in cases {
        let response = answer_101(&server, &format!("Sec-WebSocket-Extensions: {offer}\r\n"));
        assert_eq!(response.header("sec-websocket-extensions"), expected.as_deref(), "{offer}");
    }
}

fn answer_101(server: &Server, lines: &str) -> Response {
    server.connect().upgrade("/echo", lines)
}

/// RFC 9110 §6.6.1: each response has one.
#[track_caller]
fn assert_date(response: &Response) {
    let date = response.header("date").unwrap_or_default();
    let form = date.bytes().map(|byte| match byte {
        b'0'..=b'9' => '0',
        b'A'..=b'Z' | b'a'..=b'z' => 'a',
        other => other.into(),
    });
    assert_eq!(form.collect::<String>(), "aaa, 00 aaa 0000 00:00:00 aaa", "{response:?}");
}

#[test]
fn what_monitors_and_balancers_ask() {
    let server = Server::start(
        "workers = 1\n\
         [[routes]]\npath = \"/\"\napp = \"page\"\n\
         [[routes]]\npath = \"/echo\"\napp = \"echo\"\n\
         [[routes]]\npath = \"/ready\"\napp = \"ready\"\nallowed_hosts = [\"example.org\"]\n\
         [[routes]]\npath = \"/health\"\napp = \"health\"\nallowed_hosts = [\"example.org\"]\n",
    );
    let whole = |line: &str| {
        let mut client = server.connect();
        client.send_bytes(&lines(&[line, HOST]));
        while client.fill().unwrap() {}
        client.received_text().to_owned()
    };
    for (line, status, body) in [
        ("GET /ready HTTP/1.1", 200, "ready\n"),
        ("GET /health HTTP/1.0", 200, "alive\n"),
        ("HEAD /ready HTTP/1.1", 200, ""),
        ("HEAD / HTTP/1.0", 200, ""),
        ("HEAD /echo HTTP/1.1", 426, ""),
        ("HEAD /nothing HTTP/1.1", 404, ""),
        ("OPTIONS / HTTP/1.0", 204, ""),
        ("OPTIONS /echo HTTP/1.1", 204, ""),
        ("OPTIONS * HTTP/1.1", 204, ""),
    ] {
        let text = whole(line);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {text}");
        assert!(text.contains("\r\nDate: "), "{line}: {text}");
        assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{line}: {text}");
        assert_eq!(text.contains("\r\nContent-Length: "), status != 204, "{line}: {text}");
        assert_eq!(text.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), status == 204, "{line}");
    }
}

#[test]
fn the_page() {
    let server = Server::start("workers = 1\n");
    let page = answer(&server, &lines(&["GET / HTTP/1.1", HOST]));
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.body.starts_with("<!"));
    let old = answer(&server, &lines(&["GET / HTTP/1.0"]));
    let page_bytes = page.body.len();
    assert_eq!((old.status, old.body), (200, page.body));
    let mut head = server.connect();
    head.send_bytes(&lines(&["HEAD / HTTP/1.1", HOST]));
    while head.fill().unwrap() {}
    let text = head.received_text();
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\n"), "{text}");
    assert!(text.contains(&format!("\r\nContent-Length: {}\r\n", page_bytes)), "{text}");
}
