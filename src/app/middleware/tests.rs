use std::sync::atomic::{AtomicI32, Ordering};

use super::*;
use crate::base::limits::HeadLimits;
use crate::http::Head;

fn check(gate: &mut dyn Middleware, lines: &str, peer: Peer) -> Result<(), Refusal> {
    let bytes = format!("GET /?x=1 HTTP/1.1\r\n{lines}\r\n");
    let head = Head::parse(bytes.as_bytes(), &HeadLimits::default()).unwrap();
    gate.check(&Request::new(&head, peer).unwrap())
}

fn status(gate: &mut dyn Middleware, lines: &str, peer: Peer) -> u16 {
    check(gate, lines, peer).map_or_else(|refusal| refusal.status, |()| 101)
}

fn peer(addr: &str) -> Peer {
    Peer::from(addr.parse::<IpAddr>().unwrap())
}

#[test]
fn origins() {
    let policy = |origins: &[&str]| {
        let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
        OriginPolicy::new(&origins).unwrap()
    };
    let same = &[][..];
    let list = &["https://app.example", "http://dev.example:3000"][..];
    let any = &["*"][..];
    let subdomains = &["https://*.example.org", "https://*.example.net:8443"][..];
    let schemes = &["chrome-extension://*", "file://"][..];
    let cases: &[(&[&str], &str, &str, bool)] = &[
        // Same host, with default ports and without case.
        (same, "example.org", "http://example.org", true),
        (same, "example.org", "https://EXAMPLE.org", true),
        (same, "example.org:443", "https://example.org", true),
        (same, "example.org", "https://example.org:443", true),
        (same, "example.org:80", "http://example.org", true),
        (same, "localhost:8000", "http://localhost:8000", true),
        (same, "[::1]:8000", "http://[0::1]:8000", true),
        (same, "localhost:8000", "http://localhost", false),
        (same, "localhost", "http://localhost:8000", false),
        (same, "example.org:80", "https://example.org", false),
        (same, "example.org", "http://example.org.evil.example", false),
        (same, "example.org", "http://evil-example.org", false),
        (same, "example.org", "http://sub.example.org", false),
        (same, "example.org", "null", false),
        (same, "null", "null", false),
        (same, "example.org", "", false),
        (same, "example.org", "example.org", false),
        (same, "example.org", "http://example.org/", false),
        (same, "example.org", "http://example.org@evil.example", false),
        (same, "example.org", "http://a http://example.org", false),
        (same, "example.org", "1http://example.org", false),
        // The list adds to it, and compares the scheme as well.
        (list, "example.org", "http://example.org", true),
        (list, "example.org", "https://app.example", true),
        (list, "example.org", "https://app.example:443", true),
        (list, "example.org", "http://app.example", false),
        (list, "example.org", "https://app.example:80", false),
        (list, "example.org", "http://dev.example:3000", true),
        (list, "example.org", "http://dev.example", false),
        (list, "example.org", "null", false),
        (any, "example.org", "https://anything.example:9", true),
        (any, "example.org", "chrome-extension://abcdef", true),
        (any, "example.org", "file://", true),
        (any, "example.org", "null", false),
        (subdomains, "a", "https://x.example.org", true),
        (subdomains, "a", "https://y.x.EXAMPLE.org:443", true),
        (subdomains, "a", "https://example.org", false),
        (subdomains, "a", "http://x.example.org", false),
        (subdomains, "a", "https://x.example.org:8443", false),
        (subdomains, "a", "https://evil-example.org", false),
        (subdomains, "a", "https://.example.org", false),
        (subdomains, "a", "https://x.example.org.evil.example", false),
        (subdomains, "a", "https://x.example.net:8443", true),
        (schemes, "a", "chrome-extension://abcdef", true),
        (schemes, "a", "moz-extension://abcdef", false),
        (schemes, "a", "file://", true),
        (schemes, "a", "file:///etc/passwd", false),
        (schemes, "a", "null", false),
        (any, "example.org", "\u{fc}", false),
    ];
    for (origins, host, origin, allowed) in cases {
        let lines = format!("Host: {host}\r\nOrigin: {origin}\r\n");
        let status = status(&mut policy(origins), &lines, Peer::default());
        let expected = if *allowed { 101 } else { 403 };
        assert_eq!(status, expected, "{origins:?} {host} {origin}");
    }
    // No Origin is no browser; two are nobody's.
    assert_eq!(status(&mut policy(same), "Host: a\r\n", Peer::default()), 101);
    let twice = "Host: a\r\nOrigin: http://a\r\nOrigin: http://a\r\n";
    assert_eq!(status(&mut policy(any), twice, Peer::default()), 403);
    for bad in ["null", "example.org", "https://", "https://a/", "https://*.a b", ""] {
        let error = OriginPolicy::new(&[bad.to_owned()]).unwrap_err();
        assert!(error.contains(&format!("{bad:?}")), "{error}");
    }
}

#[test]
fn hosts() {
    let hosts = |list: &[&str]| list.iter().map(|&host| host.to_owned()).collect();
    let list = ["example.org", "localhost:8000", "[::1]:8000", "proxied.example:443"];
    let mut gate = AllowedHosts::new(hosts(&list)).unwrap();
    for (host, expected) in [
        ("example.org", 101),
        ("EXAMPLE.org:9000", 101),
        ("localhost:8000", 101),
        ("localhost", 421),
        ("localhost:80", 421),
        ("[0::1]:8000", 101),
        ("[::1]:8001", 421),
        ("proxied.example", 101),
        ("proxied.example:80", 421),
        ("evil.example", 421),
        ("example.org.evil.example", 421),
        ("sub.example.org", 421),
        ("127.0.0.1:8000", 421),
    ] {
        let lines = format!("Host: {host}\r\n");
        assert_eq!(status(&mut gate, &lines, Peer::default()), expected, "{host}");
    }
    for bad in ["", "http://a", "a/b", "a:99999", "u@a", "*"] {
        assert!(AllowedHosts::new(hosts(&["a", bad])).is_err(), "{bad}");
    }
}

#[test]
fn an_address_has_so_many_connections_over_all_workers() {
    let counts = Arc::new(IpCounts::default());
    let mut one = ConnectionsPerIp::new(counts.clone(), 2);
    let mut two = ConnectionsPerIp::new(counts.clone(), 2);
    let host = "Host: a\r\n";
    let v4 = peer("192.0.2.1");
    assert_eq!(status(&mut one, host, v4), 101);
    assert_eq!(status(&mut two, host, peer("::ffff:192.0.2.1")), 101);
    assert_eq!(status(&mut one, host, v4), 429);
    assert_eq!(status(&mut two, host, v4), 429);
    assert_eq!(status(&mut one, host, peer("192.0.2.2")), 101, "another address");
    two.release(&v4);
    assert_eq!(status(&mut one, host, v4), 101);

    let v6 = |last: &str| peer(&format!("2001:db8:1:2:{last}"));
    assert_eq!(status(&mut one, host, v6(":1")), 101);
    assert_eq!(status(&mut one, host, v6("ffff::2")), 101);
    assert_eq!(status(&mut one, host, v6(":3")), 429, "the same /64");
    assert_eq!(status(&mut one, host, peer("2001:db8:1:3::1")), 101);
    assert_eq!(counts.count(v6(":9").addr.unwrap()), 2);

    for _ in 0..5 {
        assert_eq!(status(&mut one, host, Peer::default()), 101, "a Unix socket");
    }
    one.release(&Peer::default());
    for ended in [v4, v4, peer("192.0.2.2"), v6(":1"), v6(":1"), peer("2001:db8:1:3::1")] {
        one.release(&ended);
    }
    let left: usize = counts.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
    assert_eq!(left, 0, "addresses without connections cost nothing");
    assert_eq!(status(&mut ConnectionsPerIp::new(counts, 0), host, v4), 429);
}

#[test]
fn who_is_taken_over_counts_and_is_not_refused() {
    let counts = Arc::<IpCounts>::default();
    let mut chain = Chain::new(vec![
        AnyGate::new(OriginPolicy::default()),
        AnyGate::new(ConnectionsPerIp::new(counts.clone(), 1)),
    ]);
    let address = IpAddr::from([192, 0, 2, 1]);
    let peer = Peer::from(address);
    for _ in 0..3 {
        chain.adopt(&peer);
    }
    chain.adopt(&Peer::default());
    assert_eq!(counts.count(address), 3);
    for _ in 0..3 {
        chain.release(&peer);
    }
    assert_eq!(counts.count(address), 0);
}

#[test]
fn bearer_tokens() {
    let mut gate = BearerTokens::new(vec!["hush-1".to_owned(), "hush-22".to_owned()]).unwrap();
    assert!(!format!("{gate:?}").contains("hush"));
    let mut answer = |token: &str| {
        let lines = format!("Host: a\r\nAuthorization: Bearer {token}\r\n");
        check(&mut gate, &lines, Peer::default())
    };
    assert_eq!(answer("hush-1"), Ok(()));
    assert_eq!(answer("hush-22"), Ok(()));
    for wrong in ["hush-2", "hush-", "hush-11", "hush-1hush-1", "Hush-1", "x", ""] {
        let refusal = answer(wrong).unwrap_err();
        assert_eq!(refusal.status, 401, "{wrong}");
        let (name, challenge) = &refusal.headers[0];
        assert_eq!(*name, "WWW-Authenticate");
        assert!(challenge.starts_with("Bearer"));
    }
    let nothing = check(&mut gate, "Host: a\r\n", Peer::default()).unwrap_err();
    assert_eq!(nothing.headers, [("WWW-Authenticate", "Bearer".into())]);
    let subprotocol = "Host: a\r\nSec-WebSocket-Protocol: chat, bearer.hush-1\r\n";
    assert_eq!(check(&mut gate, subprotocol, Peer::default()), Ok(()));

    for bad in [&[][..], &[""], &["a", ""], &["a b"], &["\u{fc}"]] {
        let tokens = bad.iter().map(|&token| token.to_owned()).collect();
        assert!(BearerTokens::new(tokens).is_err(), "{bad:?}");
    }
}

type Verdict = fn() -> Result<(), Refusal>;

/// The balance of passes and releases; it may refuse or panic.
struct Gate {
    passed: Arc<AtomicI32>,
    verdict: Verdict,
}

impl Middleware for Gate {
    fn check(&mut self, _: &Request<'_>) -> Result<(), Refusal> {
        (self.verdict)()?;
        self.passed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn release(&mut self, _: &Peer) {
        self.passed.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn who_passed_a_refused_request_is_released() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = Head::parse(bytes, &HeadLimits::default()).unwrap();
    let request = Request::new(&head, Peer::default()).unwrap();
    let verdicts: [(Verdict, u16, i32); 3] = [
        (|| Ok(()), 101, 3),
        (|| Err(Refusal::new(418, "no")), 418, 0),
        (|| panic!("user code"), 500, 0),
    ];
    for (verdict, expected, balance) in verdicts {
        let passed = Arc::new(AtomicI32::new(0));
        let gate = |verdict| AnyGate::new(Gate { passed: passed.clone(), verdict });
        let mut chain = Chain::new(vec![gate(|| Ok(())), gate(verdict), gate(|| Ok(()))]);
        let status = chain.check(&request).map_or_else(|refusal| refusal.status, |()| 101);
        assert_eq!(status, expected);
        assert_eq!(passed.load(Ordering::Relaxed), balance);
        if status == 101 {
            chain.release(&Peer::default());
            assert_eq!(passed.load(Ordering::Relaxed), 0);
        }
    }
}
