use std::time::UNIX_EPOCH;

use super::*;
use crate::base::limits::HeadLimits;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A valid handshake with some header lines replaced (`Name: value`), removed (`-Name`) or added
/// (`+Name: value`).
fn request(changes: &[&str]) -> String {
    let mut lines = vec![
        "Host: example.org".to_owned(),
        "Upgrade: websocket".to_owned(),
        "Connection: Upgrade".to_owned(),
        format!("Sec-WebSocket-Key: {KEY}"),
        "Sec-WebSocket-Version: 13".to_owned(),
    ];
    for change in changes {
        if let Some(added) = change.strip_prefix('+') {
            lines.push(added.to_owned());
            continue;
        }
        let removed = change.strip_prefix('-');
        let name = removed.unwrap_or(change).split(':').next().unwrap();
        let before = lines.len();
        lines.retain(|line| line.split(':').next() != Some(name));
        assert!(lines.len() < before, "{change} changes nothing");
        if removed.is_none() {
            lines.push((*change).to_owned());
        }
    }
    format!("GET /echo HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"))
}

fn with_head<T>(request: &str, run: impl FnOnce(&Head<'_>) -> T) -> T {
    run(&Head::parse(request.as_bytes(), &HeadLimits::default()).expect(request))
}

fn status(request: &str) -> u16 {
    with_head(request, |head| match check(head) {
        Ok(offer) => {
            let response = offer.agree(&Policy::default()).response(UNIX_EPOCH);
            assert!(response.starts_with(b"HTTP/1.1 101 "));
            101
        }
        Err(refusal) => refusal.status,
    })
}

fn agree(changes: &[&str], policy: &Policy<'_>) -> Agreed {
    with_head(&request(changes), |head| check(head).unwrap().agree(policy))
}

#[test]
fn the_example_of_the_rfc() {
    assert_eq!(&accept_value(KEY.as_bytes()), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let subprotocols = ["chat".to_owned()];
    let policy = Policy { subprotocols: &subprotocols, deflate: None };
    let agreed = agree(&["+Sec-WebSocket-Protocol: chat, superchat"], &policy);
    assert_eq!(
        String::from_utf8(agreed.response(UNIX_EPOCH)).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\n\
         Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
         Sec-WebSocket-Protocol: chat\r\n\r\n"
    );
}

#[test]
fn which_requests_are_handshakes() {
    let cases: &[(&[&str], u16)] = &[
        (&[], 101),
        (&["Upgrade: WebSocket"], 101),
        (&["Upgrade: h2c, websocket"], 101),
        (&["Connection: keep-alive, Upgrade"], 101),
        (&["Connection: keep-alive", "+Connection: uPGRADE"], 101),
        (&["+Content-Length: 0"], 101),
        (&["+Sec-WebSocket-Extensions: unknown; a=b"], 101),
        (&["+Sec-WebSocket-Extensions: "], 101),
        (&["+Sec-WebSocket-Protocol: unknown"], 101),
        (&["-Upgrade"], 426),
        (&["Upgrade: websockets"], 426),
        (&["Upgrade: h2c"], 426),
        (&["-Connection"], 426),
        (&["Connection: keep-alive"], 426),
        (&["-Sec-WebSocket-Version"], 426),
        (&["Sec-WebSocket-Version: 8"], 426),
        (&["Sec-WebSocket-Version: 8, 13"], 426),
        (&["Sec-WebSocket-Version: 013"], 426),
        (&["+Sec-WebSocket-Version: 13"], 400),
        (&["+Content-Length: 1"], 400),
        (&["+Transfer-Encoding: chunked"], 400),
        (&["+Transfer-Encoding: gzip, chunked"], 400),
        (&["+Sec-WebSocket-Protocol: a b"], 400),
        (&["+Sec-WebSocket-Protocol: a, \u{e4}"], 400),
        (&["-Sec-WebSocket-Key"], 400),
        (&["+Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="], 400),
        // The key of RFC 6455 §4.1: its trailing bits are not zero.
        (&["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC=="], 101),
        (&["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA=="], 101),
        (&["Sec-WebSocket-Key: "], 400),
        (&["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA"], 400),
        (&["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA="], 400),
        (&["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEBE="], 400),
        (&["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEBES"], 400),
        (&["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4="], 400),
        (&["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ-_EA=="], 400),
        (&["Sec-WebSocket-Key: AQIDBAUG BwgJCgsMDQ4PEA=="], 400),
    ];
    for (changes, expected) in cases {
        assert_eq!(status(&request(changes)), *expected, "{changes:?}");
    }
    let valid = request(&[]);
    assert_eq!(status(&valid.replace("GET", "HEAD")), 426);
    for method in ["POST", "OPTIONS", "get"] {
        assert_eq!(status(&valid.replace("GET", method)), 405, "{method}");
    }
    assert_eq!(status(&valid.replace("HTTP/1.1", "HTTP/1.0")), 426);
}

#[test]
fn refusals_carry_what_the_client_needs() {
    let refusal = |request: &str| {
        let refusal = with_head(request, |head| check(head).unwrap_err());
        String::from_utf8(refusal.to_response().to_bytes(UNIX_EPOCH)).unwrap()
    };
    let text = refusal(&request(&["Sec-WebSocket-Version: 7"]));
    assert!(text.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
    assert!(text.contains("\r\nSec-WebSocket-Version: 13\r\n"));
    assert!(text.contains("\r\nUpgrade: websocket\r\n"));
    assert!(text.contains("\r\nConnection: Upgrade, close\r\n"));
    let text = refusal(&request(&[]).replace("GET", "POST"));
    assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
    assert!(text.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"));
}

#[test]
fn the_first_offered_subprotocol_that_is_spoken_wins() {
    let spoken = ["b".to_owned(), "a".to_owned()];
    let policy = Policy { subprotocols: &spoken, deflate: None };
    let cases: &[(&[&str], Option<&str>)] = &[
        (&[], None),
        (&["+Sec-WebSocket-Protocol: x, a, b"], Some("a")),
        (&["+Sec-WebSocket-Protocol: x", "+Sec-WebSocket-Protocol: b"], Some("b")),
        (&["+Sec-WebSocket-Protocol: A"], None),
        (&["+Sec-WebSocket-Protocol: "], None),
    ];
    for (changes, expected) in cases {
        let agreed = agree(changes, &policy);
        assert_eq!(agreed.subprotocol.as_deref(), *expected, "{changes:?}");
        let response = String::from_utf8(agreed.response(UNIX_EPOCH)).unwrap();
        let echoed = expected.is_some();
        assert_eq!(response.contains("Sec-WebSocket-Protocol"), echoed, "{changes:?}");
    }
}

#[test]
fn the_grammar_of_extensions() {
    let parse = |value: &[u8]| {
        let mut parsed = Vec::new();
        extensions::parse(value, &mut parsed).map(|()| parsed.len())
    };
    let valid: &[(&str, usize)] = &[
        ("", 0),
        (",, ,", 0),
        ("a", 1),
        ("a, b;c, ,d ; e = f;g=\"h\"", 3),
        ("a;b=\"c\\d\"", 1),
        ("a\t;\tb\t=\tc\t", 1),
    ];
    for (value, count) in valid {
        assert_eq!(parse(value.as_bytes()), Ok(*count), "{value}");
    }
    for value in [
        ";",
        "=",
        "a;",
        "a;;b",
        "a;=b",
        "a;b=",
        "a b",
        "a=b",
        "a;b c",
        "a;b=c d",
        "a;b=\"",
        "a;b=\"c",
        "a;b=\"\"",
        "a;b=\"c d\"",
        "a;b=\"c,d\"",
        "a;b=\"c\\",
        "a/b",
        "\u{e4}",
        "a;b=\"\u{e4}\"",
        "\"a\"",
    ] {
        assert!(parse(value.as_bytes()).is_err(), "{value}");
        if value.is_ascii() {
            let header = format!("+Sec-WebSocket-Extensions: {value}");
            assert_eq!(status(&request(&[&header])), 400, "{value}");
        }
    }
    assert!(parse(b"a\xff").is_err());
}

/// Offer → the answer after both `no_context_takeover`, or `None` where it is declined.
#[test]
fn negotiation_of_deflate() {
    const D: &str = "permessage-deflate";
    let policy = |server_window_bits, client_window_bits| DeflatePolicy {
        server_window_bits,
        client_window_bits,
    };
    let (full, small) = (policy(15, None), policy(10, Some(11)));
    type Case = (&'static str, DeflatePolicy, Option<(&'static str, u8, u8)>);
    let cases: &[Case] = &[
        ("D", full, Some(("", 15, 15))),
        ("D", small, Some(("", 10, 15))),
        ("D; server_no_context_takeover", full, Some(("", 15, 15))),
        ("D; client_no_context_takeover", full, Some(("", 15, 15))),
        ("D; server_max_window_bits=15", full, Some(("; server_max_window_bits=15", 15, 15))),
        ("D; server_max_window_bits=9", full, Some(("; server_max_window_bits=9", 9, 15))),
        ("D; server_max_window_bits=\"12\"", full, Some(("; server_max_window_bits=12", 12, 15))),
        ("D; server_max_window_bits=12", small, Some(("; server_max_window_bits=10", 10, 15))),
        ("D; server_max_window_bits=9", small, Some(("; server_max_window_bits=9", 9, 15))),
        ("D; client_max_window_bits", full, Some(("", 15, 15))),
        ("D; client_max_window_bits=8", full, Some(("", 15, 8))),
        ("D; client_max_window_bits", small, Some(("; client_max_window_bits=11", 10, 11))),
        ("D; client_max_window_bits=15", small, Some(("; client_max_window_bits=11", 10, 11))),
        ("D; client_max_window_bits=11", small, Some(("", 10, 11))),
        ("D; client_max_window_bits=9", small, Some(("", 10, 9))),
        (
            "D; client_max_window_bits; server_max_window_bits=14; server_no_context_takeover; \
             client_no_context_takeover",
            small,
            Some(("; server_max_window_bits=10; client_max_window_bits=11", 10, 11)),
        ),
        ("D; server_max_window_bits", full, None),
        ("D; server_max_window_bits=8", full, None),
        ("D; server_max_window_bits=7", full, None),
        ("D; server_max_window_bits=16", full, None),
        ("D; server_max_window_bits=09", full, None),
        ("D; server_max_window_bits=1", full, None),
        ("D; server_max_window_bits=1x", full, None),
        ("D; server_max_window_bits=100", full, None),
        ("D; server_max_window_bits=10; server_max_window_bits=10", full, None),
        ("D; client_max_window_bits=7", full, None),
        ("D; client_max_window_bits=16", full, None),
        ("D; client_max_window_bits=x", full, None),
        ("D; client_max_window_bits; client_max_window_bits", full, None),
        ("D; server_no_context_takeover=1", full, None),
        ("D; client_no_context_takeover=1", full, None),
        ("D; server_no_context_takeover; server_no_context_takeover", full, None),
        ("D; client_no_context_takeover; client_no_context_takeover", full, None),
        ("D; unknown", full, None),
        ("x-webkit-deflate-frame", full, None),
        // The first that can be served is taken.
        (
            "x, D; unknown, D; server_max_window_bits=8, D; server_max_window_bits=9, D",
            full,
            Some(("; server_max_window_bits=9", 9, 15)),
        ),
    ];
    for (offer, policy, expected) in cases {
        let header = format!("+Sec-WebSocket-Extensions: {}", offer.replace('D', D));
        let agreed = agree(&[&header], &Policy { subprotocols: &[], deflate: Some(*policy) });
        let params = expected.map(|(_, server_window_bits, client_window_bits)| DeflateParams {
            server_window_bits,
            client_window_bits,
        });
        assert_eq!(agreed.deflate, params, "{offer} {policy:?}");
        let line = expected.map_or(String::new(), |(rest, ..)| {
            format!(
                "Sec-WebSocket-Extensions: {D}; server_no_context_takeover; \
                 client_no_context_takeover{rest}\r\n"
            )
        });
        let response = String::from_utf8(agreed.response(UNIX_EPOCH)).unwrap();
        assert!(response.ends_with(&format!("=\r\n{line}\r\n")), "{offer}: {response}");
    }
}

#[test]
fn offers_over_several_lines_are_one_list() {
    let changes = [
        "+Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8",
        "+Sec-WebSocket-Extensions: permessage-deflate",
    ];
    let policy = Policy { subprotocols: &[], deflate: Some(DeflatePolicy::default()) };
    assert!(agree(&changes, &policy).deflate.is_some());
    assert!(agree(&changes, &Policy::default()).deflate.is_none());
}

#[test]
fn an_offer_shows_no_token() {
    let shown = with_head(&request(&["+Sec-WebSocket-Protocol: bearer.hush"]), |head| {
        format!("{:?}", check(head).unwrap())
    });
    assert!(shown.starts_with("Offer") && !shown.contains("hush"), "{shown}");
}

/// Whatever byte stands wherever, a head is answered and nothing panics; what is accepted has kept
/// everything that makes a handshake.
#[test]
fn any_byte_anywhere_gets_an_answer() {
    let limits = HeadLimits::default();
    let policy =
        Policy { subprotocols: &["a".to_owned()], deflate: Some(DeflatePolicy::default()) };
    let valid = request(&[
        "+Sec-WebSocket-Protocol: a",
        "+Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=\"10\"",
    ]);
    let mut accepted = 0;
    for at in 0..valid.len() {
        for byte in 0..=255 {
            let mut bytes = valid.clone().into_bytes();
            bytes[at] = byte;
            let end = crate::http::find_head_end(&bytes, 0).unwrap_or(bytes.len());
            let Ok(head) = Head::parse(&bytes[..end], &limits) else {
                continue;
            };
            assert_eq!(end, bytes.len(), "only the last blank line ends a valid head");
            let Ok(offer) = check(&head) else {
                continue;
            };
            assert_eq!(head.method(), "GET");
            assert!(offer.agree(&policy).response(UNIX_EPOCH).ends_with(b"\r\n\r\n"));
            accepted += 1;
        }
    }
    assert!(accepted > valid.len(), "the unchanged head alone is accepted that often");
}
