//! Scripted sessions: what a client sends, and what has to come of it.

use steadfast::base::limits::Limits;
use steadfast::http::ProxyError;
use steadfast::session::ClosedBy;
use steadfast::ws::deflate::{Deflater, Strength};
use steadfast::ws::{Header, Opcode, encode};

use super::drive::{App, Seen, Start};

/// One session.
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) start: Start,
    pub(crate) app: App,
    pub(crate) limits: Limits,
    /// All that the client sends.
    pub(crate) bytes: Vec<u8>,
    /// All that happens.
    pub(crate) expected: Vec<Seen>,
}

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The handshake of RFC 6455 §1.3, which offers compression too.
pub(crate) const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\n\
    Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn limits() -> Limits {
    Limits {
        message_bytes_max: 500,
        fragments_max: 4,
        queue_bytes_max: 4096,
        control_rate_max: Some(20),
        message_rate_max: Some(20),
        ..Limits::default()
    }
}

/// A client's frame.
pub(crate) fn frame(fin: bool, rsv1: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    encode::frame(&mut out, Header { fin, rsv1, opcode, mask: Some(KEY), len: 0 }, payload);
    out
}

fn text(text: &str) -> Vec<u8> {
    frame(true, false, Opcode::Text, text.as_bytes())
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    frame(true, false, Opcode::Binary, bytes)
}

fn ping(payload: &[u8]) -> Vec<u8> {
    frame(true, false, Opcode::Ping, payload)
}

fn pong(payload: &[u8]) -> Vec<u8> {
    frame(true, false, Opcode::Pong, payload)
}

fn close(body: &[u8]) -> Vec<u8> {
    frame(true, false, Opcode::Close, body)
}

fn begin(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    frame(false, false, opcode, payload)
}

fn go_on(payload: &[u8]) -> Vec<u8> {
    frame(false, false, Opcode::Continuation, payload)
}

fn end(payload: &[u8]) -> Vec<u8> {
    frame(true, false, Opcode::Continuation, payload)
}

fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    let strength = Strength { level: 9, window_bits: 15 };
    assert!(Deflater::default().deflate(strength, payload, &mut out), "does not shrink");
    out
}

/// Header bytes as they are, and a payload that is masked.
fn raw(header: &[u8], payload: &[u8]) -> Vec<u8> {
    let masked = payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key);
    [header, &KEY].concat().into_iter().chain(masked).collect()
}

fn seen_text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

/// The end of a session that we failed with this code.
fn failed(code: u16) -> Vec<Seen> {
    vec![Seen::Closed(Some(code), ClosedBy::Us), Seen::ShutdownWrite]
}

/// The end of a session that the client closed.
fn closed(code: Option<u16>) -> Vec<Seen> {
    vec![Seen::Closed(code, ClosedBy::Peer), Seen::ShutdownWrite]
}

/// A table under construction.
struct Table(Vec<Script>);

impl Table {
    fn add(&mut self, name: &'static str, start: Start, frames: &[Vec<u8>], expected: &[&[Seen]]) {
        self.0.push(Script {
            name,
            start,
            app: App::Echo,
            limits: limits(),
            bytes: frames.concat(),
            expected: expected.concat(),
        });
    }

    /// Behind a handshake without compression.
    fn plain(&mut self, name: &'static str, frames: &[Vec<u8>], expected: &[&[Seen]]) {
        self.add(name, Start::Open { deflate: false }, frames, expected);
    }

    /// Behind a handshake with compression.
    fn deflate(&mut self, name: &'static str, frames: &[Vec<u8>], expected: &[&[Seen]]) {
        self.add(name, Start::Open { deflate: true }, frames, expected);
    }

    fn head(&mut self, name: &'static str, head: &str, expected: &[&[Seen]]) {
        self.add(name, Start::Head, &[head.as_bytes().to_vec()], expected);
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Script> {
    let mut table = Table(vec![]);
    messages(&mut table);
    control_frames(&mut table);
    close_handshakes(&mut table);
    violations_of_frames(&mut table);
    violations_of_messages(&mut table);
    compressed(&mut table);
    over_the_limits(&mut table);
    heads(&mut table);
    proxied(&mut table);
    table.0
}

fn messages(table: &mut Table) {
    table.plain("text", &[text("Hello")], &[&[seen_text("Hello")]]);
    table.plain("empty text", &[text(""), text("x")], &[&[seen_text(""), seen_text("x")]]);
    table.plain("binary", &[binary(&[0, 255, 128])], &[&[Seen::Binary(vec![0, 255, 128])]]);
    table.plain("empty binary", &[binary(&[])], &[&[Seen::Binary(vec![])]]);
    for len in [125, 126, 127, 300] {
        let payload = vec![b'a'; len];
        table.plain("all length forms", &[binary(&payload)], &[&[Seen::Binary(payload.clone())]]);
    }
    let large = vec![7; 70_000];
    table.0.push(Script {
        name: "a 64-bit length",
        start: Start::Open { deflate: false },
        app: App::Echo,
        limits: Limits::default(),
        bytes: binary(&large),
        expected: vec![Seen::Binary(large)],
    });
    table.plain(
        "fragments",
        &[begin(Opcode::Text, b"Hel"), go_on(b"l"), end(b"o"), text("next")],
        &[&[seen_text("Hello"), seen_text("next")]],
    );
    table.plain(
        "empty fragments",
        &[begin(Opcode::Binary, b""), go_on(b""), end(b"")],
        &[&[Seen::Binary(vec![])]],
    );
    table.plain(
        "a character over three fragments",
        &[
            begin(Opcode::Text, &"🦀".as_bytes()[..1]),
            go_on(&"🦀".as_bytes()[1..2]),
            end(&"🦀".as_bytes()[2..]),
        ],
        &[&[seen_text("🦀")]],
    );
    table.plain(
        "characters of every length",
        &[text("$£€𐍈 and \u{0}, \u{7ff}, \u{ffff}, \u{10ffff}")],
        &[&[seen_text("$£€𐍈 and \u{0}, \u{7ff}, \u{ffff}, \u{10ffff}")]],
    );
    let many: Vec<String> = (0..20).map(|number| format!("message {number}")).collect();
    let frames: Vec<Vec<u8>> = many.iter().map(|message| text(message)).collect();
    let expected: Vec<Seen> = many.iter().map(|message| seen_text(message)).collect();
    table.plain("many at once", &frames, &[&expected]);
    // Each reply alone exceeds the queue: reading pauses, and goes on.
    table.0.push(Script {
        name: "replies over the mark pause reading",
        start: Start::Open { deflate: false },
        app: App::Echo,
        limits: Limits { queue_bytes_max: 4, ..limits() },
        bytes: frames.concat(),
        expected,
    });
}

fn control_frames(table: &mut Table) {
    table.plain("ping", &[ping(b"are you there")], &[&[Seen::Ping(b"are you there".to_vec())]]);
    table.plain("empty ping", &[ping(b"")], &[&[Seen::Ping(vec![])]]);
    table.plain("longest ping", &[ping(&[9; 125])], &[&[Seen::Ping(vec![9; 125])]]);
    table.plain("pong", &[pong(b"unasked")], &[&[Seen::Pong(b"unasked".to_vec())]]);
    table.plain(
        "several pings, each answered",
        &[ping(b"1"), ping(b"2"), ping(b"3")],
        &[&[Seen::Ping(b"1".to_vec()), Seen::Ping(b"2".to_vec()), Seen::Ping(b"3".to_vec())]],
    );
    table.plain(
        "control frames between fragments",
        &[begin(Opcode::Text, b"a"), ping(b"p"), go_on(b"b"), pong(b"q"), end(b"c")],
        &[&[Seen::Ping(b"p".to_vec()), Seen::Pong(b"q".to_vec()), seen_text("abc")]],
    );
    table.plain(
        "a close between fragments",
        &[begin(Opcode::Text, b"a"), close(&[3, 232]), end(b"never")],
        &[&closed(Some(1000))],
    );
}

fn close_handshakes(table: &mut Table) {
    table.plain("close without a body", &[close(b"")], &[&closed(None)]);
    for code in [1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 4999_u16] {
        let body = [&code.to_be_bytes()[..], b"bye"].concat();
        table.plain("close codes", &[close(&body)], &[&closed(Some(code))]);
    }
    table.plain(
        "nothing after a close is heard",
        &[text("a"), close(&[3, 232]), text("b"), ping(b"c"), b"\xff\xff\xff\xff".to_vec()],
        &[&[seen_text("a")], &closed(Some(1000))],
    );
    let by_us = [seen_text("close"), Seen::Closed(Some(1000), ClosedBy::Us), Seen::ShutdownWrite];
    for (name, last) in [
        ("our close, answered", close(&[3, 232])),
        ("our close, and a violation", vec![0xff, 0xff]),
    ] {
        table.0.push(Script {
            name,
            start: Start::Open { deflate: false },
            app: App::CloseOnRequest,
            limits: limits(),
            bytes: [text("close"), text("too late"), ping(b"too late"), last].concat(),
            expected: by_us.to_vec(),
        });
    }
}

fn violations_of_frames(table: &mut Table) {
    let cases: [(&'static str, Vec<u8>); 15] = [
        ("RSV1 without extension", raw(&[0xc1, 0x81], b"x")),
        ("RSV2", raw(&[0xa1, 0x81], b"x")),
        ("RSV3", raw(&[0x91, 0x81], b"x")),
        ("reserved data opcode", raw(&[0x83, 0x81], b"x")),
        ("reserved control opcode", raw(&[0x8b, 0x81], b"x")),
        ("no mask", vec![0x81, 1, b'x']),
        ("fragmented ping", raw(&[0x09, 0x81], b"x")),
        ("long ping", raw(&[0x89, 0xfe, 0, 126], &[0; 126])),
        ("long close", raw(&[0x88, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], b"")),
        ("16-bit length not minimal", raw(&[0x82, 0xfe, 0, 125], &[0; 125])),
        ("64-bit length not minimal", raw(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], b"")),
        ("64-bit length with its top bit", raw(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1], b"")),
        ("continuation without a start", end(b"x")),
        ("a message within a message", [begin(Opcode::Text, b"a"), text("b")].concat()),
        ("a binary one too", [begin(Opcode::Binary, b"a"), begin(Opcode::Binary, b"b")].concat()),
    ];
    for (name, bytes) in cases {
        table.plain(
            name,
            &[text("ok"), bytes, text("never")],
            &[&[seen_text("ok")], &failed(1002)],
        );
    }
}

fn violations_of_messages(table: &mut Table) {
    for (name, body, code) in [
        ("close with one byte", vec![3], 1002),
        ("close code 999", 999_u16.to_be_bytes().to_vec(), 1002),
        ("close code 1004", 1004_u16.to_be_bytes().to_vec(), 1002),
        ("close code 1005", 1005_u16.to_be_bytes().to_vec(), 1002),
        ("close code 1006", 1006_u16.to_be_bytes().to_vec(), 1002),
        ("close code 1015", 1015_u16.to_be_bytes().to_vec(), 1002),
        ("close code 2999", 2999_u16.to_be_bytes().to_vec(), 1002),
        ("close code 5000", 5000_u16.to_be_bytes().to_vec(), 1002),
        ("close reason not UTF-8", vec![3, 232, b'o', 0xff], 1007),
    ] {
        table.plain(name, &[close(&body), text("never")], &[&failed(code)]);
    }
    for (name, bytes) in [
        ("overlong", &b"a\xc0\xaf"[..]),
        ("surrogate", b"\xed\xa0\x80"),
        ("beyond Unicode", b"\xf4\x90\x80\x80"),
        ("cut character", b"abc\xe2\x82"),
        ("stray continuation byte", b"abc\x80 and more"),
    ] {
        let whole = frame(true, false, Opcode::Text, bytes);
        table.plain(name, &[whole, text("never")], &[&failed(1007)]);
        let (one, two) = bytes.split_at(2);
        table.plain(
            name,
            &[begin(Opcode::Text, one), ping(b""), end(two)],
            &[&match name {
                // Certain with the first fragment: the ping is not heard any more.
                "overlong" | "surrogate" => failed(1007),
                "beyond Unicode" => failed(1007),
                _ => [vec![Seen::Ping(vec![])], failed(1007)].concat(),
            }],
        );
    }
}

fn compressed(table: &mut Table) {
    let long = "all work and no play makes a dull server; ".repeat(8);
    let whole = frame(true, true, Opcode::Text, &deflated(long.as_bytes()));
    table.deflate(
        "compressed",
        &[whole.clone(), text("plain")],
        &[&[seen_text(&long), seen_text("plain")]],
    );
    let payload = deflated(long.as_bytes());
    let (one, rest) = payload.split_at(5);
    let (two, three) = rest.split_at(7);
    table.deflate(
        "compressed fragments",
        &[frame(false, true, Opcode::Text, one), ping(b"p"), go_on(two), end(three), whole.clone()],
        &[&[Seen::Ping(b"p".to_vec()), seen_text(&long), seen_text(&long)]],
    );
    table.deflate(
        "compressed nothing",
        &[frame(true, true, Opcode::Text, &[0])],
        &[&[seen_text("")]],
    );
    let final_block = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    table.deflate(
        "a final block",
        &[frame(true, true, Opcode::Binary, &final_block)],
        &[&[Seen::Binary(b"Hello".to_vec())]],
    );
    let cases = [
        ("not deflate", frame(true, true, Opcode::Binary, &[0xff; 9]), 1007),
        ("cut deflate", frame(true, true, Opcode::Text, &payload[..payload.len() - 3]), 1007),
        (
            "compressed text not UTF-8",
            { frame(true, true, Opcode::Text, &deflated(&[0xff; 60])) },
            1007,
        ),
        (
            "inflates beyond the limit",
            { frame(true, true, Opcode::Binary, &deflated(&[0; 501])) },
            1009,
        ),
        (
            "RSV1 on a continuation",
            {
                [
                    frame(false, true, Opcode::Text, one),
                    frame(true, true, Opcode::Continuation, two),
                ]
                .concat()
            },
            1002,
        ),
        ("RSV1 on a ping", frame(true, true, Opcode::Ping, b"p"), 1002),
    ];
    for (name, bytes, code) in cases {
        table.deflate(name, &[bytes, text("never")], &[&failed(code)]);
    }
}

fn over_the_limits(table: &mut Table) {
    table.plain("largest message", &[binary(&[1; 500])], &[&[Seen::Binary(vec![1; 500])]]);
    table.plain("too large a message", &[binary(&[1; 501])], &[&failed(1009)]);
    table.plain(
        "too large in fragments",
        &[begin(Opcode::Binary, &[1; 300]), ping(b""), end(&[1; 201])],
        &[&[Seen::Ping(vec![])], &failed(1009)],
    );
    table.plain(
        "too many fragments",
        &[begin(Opcode::Text, b"1"), go_on(b"2"), go_on(b"3"), go_on(b"4"), end(b"5")],
        &[&failed(1008)],
    );
    let frames: Vec<Vec<u8>> = (0..22).map(|_| ping(b"")).collect();
    table.plain("too many pings", &frames, &[&vec![Seen::Ping(vec![]); 20], &failed(1008)]);
    let frames: Vec<Vec<u8>> = (0..22).map(|_| text("m")).collect();
    table.plain("too many messages", &frames, &[&vec![seen_text("m"); 20], &failed(1008)]);
}

fn heads(table: &mut Table) {
    let refused = |status| vec![Seen::Refused(status), Seen::ShutdownWrite];
    table.head("a handshake", REQUEST, &[&[Seen::Accepted]]);
    let host = "Host: x\r\n";
    for (name, head, status) in [
        ("not for WebSocket", format!("GET / HTTP/1.1\r\n{host}\r\n"), 426),
        ("another version", REQUEST.replace("Version: 13", "Version: 8"), 426),
        ("a POST", REQUEST.replace("GET", "POST"), 405),
        ("a bad key", REQUEST.replace("dGhl", "dG=l"), 400),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("HTTP/2", format!("GET / HTTP/2.0\r\n{host}\r\n"), 505),
        ("a bare line feed", format!("GET / HTTP/1.1\n{host}\n"), 400),
        ("folded", format!("GET / HTTP/1.1\r\n{host} folded\r\n\r\n"), 400),
        ("no request line", "\r\n\r\n".to_owned(), 400),
        ("TLS", "\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400),
        ("a strange method", "GE{T / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("a body", REQUEST.replace("Host", "Content-Length: 3\r\nHost"), 400),
        ("too large", format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(1004)), 431),
    ] {
        table.head(name, &head, &[&refused(status)]);
    }
    // 1,024 bytes are allowed.
    let fill = 1024 - REQUEST.len() - "X: \r\n".len();
    let largest = REQUEST.replace("Host:", &format!("X: {}\r\nHost:", "x".repeat(fill)));
    table.head("the largest", &largest, &[&[Seen::Accepted]]);
    let pipelined =
        [REQUEST.as_bytes().to_vec(), text("early"), ping(b"early, too"), close(&[3, 232])];
    let all = [Seen::Accepted, seen_text("early"), Seen::Ping(b"early, too".to_vec())];
    table.add("frames behind the head", Start::Head, &pipelined, &[&all, &closed(Some(1000))]);
    table.add(
        "bytes behind a refused head",
        Start::Head,
        &[b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), text("never")],
        &[&refused(426)],
    );
}

fn proxied(table: &mut Table) {
    let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n".to_vec();
    let source = Seen::Proxied(Some("192.0.2.1:56324".parse().expect("an address")));
    let request = REQUEST.as_bytes().to_vec();
    table.add(
        "a PROXY line",
        Start::Proxy,
        &[line, request.clone(), text("a")],
        &[&[source.clone(), Seen::Accepted, seen_text("a")]],
    );
    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f";
    let addresses = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 187];
    let binary = [&fixed[..], &addresses, &[4, 0, 0]].concat();
    table.add(
        "a binary PROXY header",
        Start::Proxy,
        &[binary, request.clone()],
        &[&[source, Seen::Accepted]],
    );
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec();
    table.add(
        "the proxy itself",
        Start::Proxy,
        &[local, request.clone()],
        &[&[Seen::Proxied(None), Seen::Accepted]],
    );
    table.add(
        "no PROXY header",
        Start::Proxy,
        &[request],
        &[&[Seen::BadProxy(ProxyError::NotProxy), Seen::Dropped]],
    );
    let bad = b"PROXY TCP4 here there 1 2\r\nGET / HTTP/1.1\r\n\r\n".to_vec();
    table.add(
        "a bad PROXY line",
        Start::Proxy,
        &[bad],
        &[&[Seen::BadProxy(ProxyError::BadLine), Seen::Dropped]],
    );
}
