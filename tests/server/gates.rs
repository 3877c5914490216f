//! Who is let in: origins, tokens, connections an address, subprotocols, trusted proxies.

use crate::support::{Client, Response, Server, request};

fn ask(server: &Server, path: &str, lines: &str) -> Response {
    let mut client = server.connect();
    client.send_bytes(request(path, lines).as_bytes());
    client.response()
}

fn status(server: &Server, path: &str, lines: &str) -> u16 {
    ask(server, path, lines).status
}

#[test]
fn origins() {
    let server = Server::start(
        "workers = 1\n\
         [[routes]]\npath = \"/listed\"\napp = \"echo\"\nallowed_origins = [\"https://example.org\"]\n\
         [[routes]]\npath = \"/both\"\napp = \"echo\"\n\
         allowed_origins = [\"same-host\", \"https://example.org\"]\n\
         [[routes]]\npath = \"/any\"\napp = \"echo\"\nallowed_origins = [\"*\"]\n",
    );
    let cases = [
        ("/listed", "https://example.org", 101),
        ("/listed", "https://EXAMPLE.org:443", 101),
        ("/listed", "http://example.org", 403),
        ("/listed", "https://example.org.evil.net", 403),
        ("/listed", "http://localhost", 403),
        ("/both", "http://localhost", 101),
        ("/both", "https://example.org", 101),
        ("/both", "http://localhost:81", 403),
        ("/any", "http://evil.net", 101),
        ("/any", "null", 403),
    ];
    for (path, origin, expected) in cases {
        let lines = format!("Origin: {origin}\r\n");
        assert_eq!(status(&server, path, &lines), expected, "{path} {origin}");
    }
    assert_eq!(status(&server, "/listed", ""), 101, "no browser");
}

#[test]
fn tokens_three_ways_and_never_in_the_log() {
    let mut server = Server::start_with(
        "workers = 1\n\
         [[routes]]\npath = \"/echo\"\napp = \"echo\"\ntokens = [\"s3cret-one\", \"s3cret-two\"]\n\
         subprotocols = [\"chat\"]\n",
        &["--log-level", "trace"],
    );
    let none = ask(&server, "/echo", "");
    assert_eq!((none.status, none.header("www-authenticate")), (401, Some("Bearer")));
    let wrong = ask(&server, "/echo", "Authorization: Bearer s3cret-three\r\n");
    assert_eq!(wrong.status, 401);
    assert_eq!(wrong.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    assert_eq!(status(&server, "/echo", "Authorization: Bearer s3cret-one\r\n"), 101);
    assert_eq!(status(&server, "/echo", "Authorization: bearer s3cret-two\r\n"), 101);
    assert_eq!(status(&server, "/echo", "Authorization: Basic s3cret-two\r\n"), 401);
    assert_eq!(status(&server, "/echo?token=s3cret-one", ""), 101);
    assert_eq!(status(&server, "/echo?token=s3cret-on", ""), 401);
    assert_eq!(status(&server, "/echo?a=1;token=s3cret-two", ""), 401);
    assert_eq!(status(&server, "/echo?s3cret-two", ""), 401);
    let browser = ask(&server, "/echo", "Sec-WebSocket-Protocol: chat, bearer.s3cret-two\r\n");
    assert_eq!((browser.status, browser.header("sec-websocket-protocol")), (101, Some("chat")));
    // It ends when all is logged.
    server.signal("INT");
    assert_eq!(server.exit_status(), Some(0));
    let log = server.log();
    assert!(log.contains("request"), "requests are logged at this level");
    assert!(!log.contains("s3cret"), "a token is in the log:\n{log}");
}

#[test]
fn connections_an_address() {
    let server = Server::start(
        "workers = 3\n[[routes]]\npath = \"/echo\"\napp = \"echo\"\nconnections_per_ip_max = 3\n",
    );
    let mut open: Vec<Client> = (0..3).map(|_| server.open("/echo")).collect();
    assert_eq!(status(&server, "/echo", ""), 429);
    let mut elsewhere = server.connect_from([127, 0, 0, 9].into()).unwrap();
    elsewhere.upgrade("/echo", "");
    // However one goes, its place is free when its socket is gone.
    open.remove(0).close(1000);
    server.wait_fds(3);
    open.push(server.open("/echo"));
    assert_eq!(status(&server, "/echo", ""), 429);
    open.remove(0).reset();
    server.wait_fds(3);
    open.push(server.open("/echo"));
    assert_eq!(status(&server, "/echo", ""), 429);
    // Refused requests take no place.
    let mut last = open.remove(0);
    last.send_bytes(&[0xff, 0xff]);
    last.expect_close(1002);
    drop(last);
    server.wait_fds(3);
    open.push(server.open("/echo"));
}

#[test]
fn subprotocols() {
    let server = Server::start(
        "workers = 1\n[[routes]]\npath = \"/echo\"\napp = \"echo\"\nsubprotocols = [\"v2\", \"v1\"]\n",
    );
    for (offered, expected) in
        [("v1", Some("v1")), ("v0, v1, v2", Some("v1")), ("v0", None), ("V1", None)]
    {
        let lines = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        let response = ask(&server, "/echo", &lines);
        assert_eq!(response.status, 101);
        assert_eq!(response.header("sec-websocket-protocol"), expected, "{offered}");
    }
}

#[test]
fn addresses_from_trusted_proxies_only() {
    const ROUTE: &str =
        "[[routes]]\npath = \"/echo\"\napp = \"echo\"\nconnections_per_ip_max = 1\n";
    let server = Server::start(&format!(
        "workers = 1\ntrusted_proxies = [\"127.0.0.1\"]\nforwarded_for = true\n{ROUTE}"
    ));
    let _one = server.open_with("/echo", "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(status(&server, "/echo", "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n"), 429);
    let _two = server.open_with("/echo", "X-Forwarded-For: 192.0.2.2\r\n");
    // Who is not trusted is who it is.
    let mut untrusted = server.connect_from([127, 0, 0, 2].into()).unwrap();
    untrusted.upgrade("/echo", "X-Forwarded-For: 192.0.2.3\r\n");
    let mut again = server.connect_from([127, 0, 0, 2].into()).unwrap();
    again.send_bytes(request("/echo", "X-Forwarded-For: 192.0.2.4\r\n").as_bytes());
    assert_eq!(again.response().status, 429);
}

#[test]
fn proxy_headers() {
    // The server's own probe of its start comes from no proxy.
    let server = Server::start(
        "workers = 1\ntrusted_proxies = [\"127.0.0.2\"]\nproxy_protocol = true\n\
         [[routes]]\npath = \"/echo\"\napp = \"echo\"\nconnections_per_ip_max = 1\n",
    );
    let from_proxy = |header: &[u8], rest: &str| {
        let mut client = server.connect_from([127, 0, 0, 2].into()).unwrap();
        client.send_bytes(&[header, rest.as_bytes()].concat());
        client
    };
    let upgrade = request("/echo", "");
    let version_1 = b"PROXY TCP4 192.0.2.1 192.0.2.9 1000 80\r\n";
    let mut one = from_proxy(version_1, &upgrade);
    assert_eq!(one.response().status, 101);
    one.assert_echo("through a proxy");
    assert_eq!(from_proxy(version_1, &upgrade).response().status, 429);
    let version_2: Vec<u8> = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"[..],
        &[192, 0, 2, 2, 192, 0, 2, 9, 3, 232, 0, 80],
    ]
    .concat();
    let mut two = from_proxy(&version_2, &upgrade);
    assert_eq!(two.response().status, 101);
    assert_eq!(from_proxy(&version_2, &upgrade).response().status, 429);
    // Without its header a proxy is not listened to; others must not have one.
    let mut without = from_proxy(b"", &upgrade);
    assert!(matches!(without.fill(), Ok(false) | Err(_)), "an answer to no PROXY header");
    let mut other = server.connect();
    other.send_bytes(&[&version_1[..], upgrade.as_bytes()].concat());
    assert_eq!(other.response().status, 400);
    server.open("/echo").close(1000);
}

/// Against DNS rebinding: for its browser, a page of `evil.example` is of the same host.
#[test]
fn hosts() {
    let server = Server::start(
        "workers = 1\n\
         [[routes]]\npath = \"/echo\"\napp = \"echo\"\nallowed_hosts = [\"localhost\", \"example.org:81\"]\n\
         [[routes]]\npath = \"/any\"\napp = \"echo\"\n\
         [[routes]]\npath = \"/\"\napp = \"page\"\nallowed_hosts = [\"localhost\"]\ntokens = [\"s3cret\"]\n",
    );
    let status = |path: &str, host: &str| {
        let mut client = server.connect();
        let lines = format!("Origin: http://{host}\r\n");
        let request = request(path, &lines).replace("Host: localhost", &format!("Host: {host}"));
        assert!(request.contains(host), "{request}");
        client.send_bytes(request.as_bytes());
        client.response().status
    };
    for (path, host, expected) in [
        ("/echo", "localhost", 101),
        ("/echo", "LOCALHOST:8000", 101),
        ("/echo", "example.org:81", 101),
        ("/echo", "example.org", 421),
        ("/echo", "evil.example", 421),
        ("/any", "evil.example", 101),
        // A page is behind its route's rules as well.
        ("/?token=s3cret", "localhost", 200),
        ("/", "localhost", 401),
        ("/?token=s3cret", "evil.example", 421),
    ] {
        assert_eq!(status(path, host), expected, "{path} {host}");
    }
}

/// What a route lets nobody in to is not reached by another route, by whatever name.
#[test]
fn rooms_behind_different_routes_are_different_rooms() {
    let server = Server::start(
        "workers = 2\n\
         [[routes]]\npath = \"/private/{name}\"\napp = \"rooms\"\ntokens = [\"s3cret\"]\n\
         [[routes]]\npath = \"/public/{name}\"\napp = \"rooms\"\n\
         [[routes]]\npath = \"/r/{name}/{x}\"\napp = \"rooms\"\n",
    );
    let private = |name: &str| server.open(&format!("/private/{name}?self=1&token=s3cret"));
    let (mut inside, mut outside) = (private("board"), server.open("/public/board?self=1"));
    // Each in turn says something that it alone must get, then reads what it has got.
    for round in 0..20 {
        outside.assert_echo(&format!("public {round}"));
        inside.assert_echo(&format!("private {round}"));
    }
    assert_eq!(status(&server, "/private/board", ""), 401);

    let mut rooms: Vec<Client> = ["/r/alpha/1", "/r/beta/1", "/r/alpha/2", "/r/alpha%2F1/2"]
        .iter()
        .map(|path| server.open(&format!("{path}?self=1")))
        .collect();
    for round in 0..10 {
        for (number, client) in rooms.iter_mut().enumerate() {
            client.assert_echo(&format!("{number} {round}"));
        }
    }
    let mut member = server.open("/r/alpha/1");
    member.send_text("to the first");
    rooms[0].expect_text("to the first");
}

#[test]
fn routes_can_share_a_room_space() {
    let server = Server::start(
        "workers = 2\n\
         [[routes]]\npath = \"/write/{name}\"\napp = \"rooms\"\ntokens = [\"s3cret\"]\n\
         [[routes]]\npath = \"/watch/{name}\"\napp = \"rooms\"\nroom_space = \"/write/{name}\"\n",
    );
    let mut watcher = server.open("/watch/a?self=1");
    watcher.assert_echo("in");
    server.open("/write/a?token=s3cret").send_text("news");
    watcher.expect_text("news");
}
