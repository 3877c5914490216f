use std::time::UNIX_EPOCH;

use super::super::{DeflatePolicy, Policy, check};
use super::*;
use crate::base::limits::HeadLimits;
use crate::http::Head;

fn options() -> ClientOptions<'static> {
    ClientOptions { key: *b"the sample nonce", subprotocols: &[], headers: &[], deflate: false }
}

fn url() -> ClientUrl {
    ClientUrl::parse("ws://example.org/chat").unwrap()
}

fn answer(handshake: &ClientHandshake, bytes: &[u8]) -> Result<ClientAgreed, ClientError> {
    handshake.check_response(&ResponseHead::parse(bytes, &HeadLimits::default()).unwrap())
}

#[test]
fn urls() {
    let url = ClientUrl::parse("WS://[::1]:8000?a=b").unwrap();
    assert_eq!((url.secure, url.host.as_str(), url.port), (false, "::1", 8000));
    assert_eq!((url.authority.as_str(), url.target.as_str()), ("[::1]:8000", "/?a=b"));
    let url = ClientUrl::parse("wss://example.org").unwrap();
    assert_eq!((url.secure, url.port, url.target.as_str()), (true, 443, "/"));
    for bad in [
        "example.org",
        "ftp://a/",
        "ws://",
        "ws://a b/",
        "ws://a/#b",
        "ws://a/b c",
        "ws://a:x/",
        "ws://a/\r\nX: y",
        "ws://u:p@a/",
    ] {
        assert!(matches!(ClientUrl::parse(bad), Err(ClientError::BadUrl(_))), "{bad}");
    }
}

#[test]
fn the_request() {
    let handshake = ClientHandshake::new(
        &url(),
        &ClientOptions {
            subprotocols: &["a".to_owned(), "b".to_owned()],
            headers: &[("Origin".to_owned(), "http://example.org".to_owned())],
            deflate: true,
            ..options()
        },
    );
    assert_eq!(
        std::str::from_utf8(handshake.unwrap().request()).unwrap(),
        "GET /chat HTTP/1.1\r\n\
         Host: example.org\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: a, b\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
         client_no_context_takeover; client_max_window_bits\r\n\
         Origin: http://example.org\r\n\r\n"
    );
}

#[test]
fn what_cannot_be_sent() {
    for (name, value) in [
        ("X", "a\r\nY: b"),
        ("X Y", "a"),
        ("", "a"),
        ("Connection", "close"),
        ("sec-websocket-key", "a"),
        ("Content-Length", "0"),
    ] {
        let headers = [(name.to_owned(), value.to_owned())];
        let options = ClientOptions { headers: &headers, ..options() };
        let error = ClientHandshake::new(&url(), &options).unwrap_err();
        assert_eq!(error, ClientError::BadHeader(name.to_owned()));
    }
    for names in [&["a b"][..], &["a", "a"], &[""]] {
        let subprotocols: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let options = ClientOptions { subprotocols: &subprotocols, ..options() };
        let error = ClientHandshake::new(&url(), &options).unwrap_err();
        assert!(matches!(error, ClientError::BadSubprotocol(_)));
    }
}

#[test]
fn a_host_header_replaces_that_of_the_url() {
    let headers = [("host".to_owned(), "other".to_owned())];
    let options = ClientOptions { headers: &headers, ..options() };
    let handshake = ClientHandshake::new(&url(), &options).unwrap();
    let head = Head::parse(handshake.request(), &HeadLimits::default()).unwrap();
    assert_eq!(head.host(), Some("other"));
}

/// Both sides of this module understand each other.
#[test]
fn client_and_server_agree() {
    let subprotocols = ["a".to_owned(), "b".to_owned()];
    for (deflate, server_window_bits, client_window_bits) in
        [(false, 15, None), (true, 15, None), (true, 9, Some(9)), (true, 12, Some(14))]
    {
        let options = ClientOptions { subprotocols: &subprotocols, deflate, ..options() };
        let client = ClientHandshake::new(&url(), &options).unwrap();
        let head = Head::parse(client.request(), &HeadLimits::default()).unwrap();
        let agreed = check(&head).unwrap().agree(&Policy {
            subprotocols: &subprotocols[1..],
            deflate: Some(DeflatePolicy { server_window_bits, client_window_bits }),
        });
        let joined = answer(&client, &agreed.response(UNIX_EPOCH)).unwrap();
        assert_eq!(joined.subprotocol.as_deref(), Some("b"));
        assert_eq!(joined.deflate.is_some(), deflate);
        // The server did not name its window, so the client must expect the largest.
        let client_bits = |params: DeflateParams| params.client_window_bits;
        assert_eq!(joined.deflate.map(client_bits), agreed.deflate.map(client_bits));
    }
}

#[test]
fn answers() {
    const OK: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\
         Connection: upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let subprotocols = ["a".to_owned()];
    let offering = ClientOptions { subprotocols: &subprotocols, deflate: true, ..options() };
    let offering = ClientHandshake::new(&url(), &offering).unwrap();
    let plain = ClientHandshake::new(&url(), &options()).unwrap();

    let fine = |handshake: &ClientHandshake, more: &str| {
        answer(handshake, format!("{OK}{more}\r\n").as_bytes())
    };
    assert!(fine(&plain, "").is_ok());
    assert!(fine(&offering, "").is_ok());
    assert!(fine(&offering, "Sec-WebSocket-Protocol: a\r\n").is_ok());
    let extension = |value: &str| {
        let header = format!("Sec-WebSocket-Extensions: permessage-deflate{value}\r\n");
        fine(&offering, &header).map(|agreed| {
            let params = agreed.deflate.unwrap();
            (params.server_window_bits, params.client_window_bits)
        })
    };
    let both = "; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(extension(both), Ok((15, 15)));
    assert_eq!(extension("; server_no_context_takeover"), Ok((15, 15)));
    let windows = "; server_max_window_bits=8; client_max_window_bits=9";
    assert_eq!(extension(&format!("{both}{windows}")), Ok((8, 9)));
    for bad in [
        "",
        "; client_no_context_takeover",
        "; server_no_context_takeover; server_no_context_takeover",
        "; server_no_context_takeover; client_max_window_bits",
        "; server_no_context_takeover; client_max_window_bits=8",
        "; server_no_context_takeover; server_max_window_bits",
        "; server_no_context_takeover; server_max_window_bits=16",
        "; server_no_context_takeover; unknown",
        "; server_no_context_takeover, permessage-deflate; server_no_context_takeover",
        ";",
    ] {
        assert!(matches!(extension(bad), Err(ClientError::BadAnswer(_))), "{bad}");
    }
    for more in [
        "Sec-WebSocket-Protocol: a\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n",
    ] {
        assert!(matches!(fine(&plain, more), Err(ClientError::BadAnswer(_))), "{more}");
    }
    for more in [
        "Sec-WebSocket-Protocol: A\r\n",
        "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n",
        "Sec-WebSocket-Extensions: x\r\n",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    ] {
        assert!(matches!(fine(&offering, more), Err(ClientError::BadAnswer(_))), "{more}");
    }
    for (from, to) in [
        ("HTTP/1.1", "HTTP/1.0"),
        ("Upgrade: WebSocket\r\n", ""),
        ("Connection: upgrade\r\n", ""),
        ("s3pP", "S3pP"),
        ("Sec-WebSocket-Accept", "X"),
    ] {
        let bytes = format!("{OK}\r\n").replacen(from, to, 1);
        let result = answer(&plain, bytes.as_bytes());
        assert!(matches!(result, Err(ClientError::BadAnswer(_))), "{bytes}");
    }
    assert_eq!(
        answer(&plain, b"HTTP/1.1 403 No\r\n\r\n"),
        Err(ClientError::Refused { status: 403, phrase: "No".to_owned() })
    );
}
