//! The first bytes of a connection: request heads, response heads, PROXY headers. No input
//! panics, and how the bytes are cut changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use steadfast::base::limits::HeadLimits;
use steadfast::base::tick::Tick;
use steadfast::http::{Head, ProxyParsing, Refusal, ResponseHead, proxy, redact_target};
use steadfast::session::handshake::{self, DeflatePolicy, Policy};
use steadfast::session::{Event, Session};
use steadfast::ws::Input;

fuzz_target!(|bytes: &[u8]| {
    let limits = HeadLimits {
        head_bytes_max: 600,
        target_bytes_max: 100,
        headers_max: 12,
        ..HeadLimits::default()
    };
    for expect in [|_: &mut Session| {}, Session::expect_proxy_header, Session::expect_response] {
        let whole = receive([bytes].into_iter(), expect, &limits);
        assert_eq!(receive(bytes.chunks(1), expect, &limits), whole, "byte by byte");
        assert_eq!(receive(bytes.chunks(7), expect, &limits), whole, "seven bytes at a time");
        for event in &whole {
            if let Seen::Head(head) = event {
                request(head, &limits);
                let _ = ResponseHead::parse(head, &limits).map(|head| head.phrase());
            }
        }
    }
    if let Ok(ProxyParsing::Done { len, .. }) = proxy::parse(bytes) {
        assert!(len <= bytes.len());
    }
    // Whatever else is handed to the parsers.
    request(bytes, &limits);
    let _ = ResponseHead::parse(bytes, &limits);
});

#[derive(Debug, PartialEq)]
enum Seen {
    Head(Vec<u8>),
    /// With the status and the reason that are sent.
    Refused(u16, String),
    Other(String),
}

fn receive<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    expect: fn(&mut Session),
    limits: &HeadLimits,
) -> Vec<Seen> {
    let mut session = Session::new(limits, Tick::START);
    expect(&mut session);
    let mut seen = vec![];
    let mut behind = 0;
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut input = Input::new(&mut piece);
        while let Some(event) = session.receive_head(&mut input, limits, Tick::START) {
            seen.push(match event {
                Event::Head(head) => {
                    assert!(head.len() <= limits.head_bytes_max);
                    Seen::Head(head)
                }
                Event::BadHead(error) => {
                    let refusal = Refusal::from(error);
                    Seen::Refused(refusal.status, refusal.reason.into_owned())
                }
                other => Seen::Other(format!("{other:?}")),
            });
        }
        behind += input.rest().len();
    }
    if matches!(seen.last(), Some(Seen::Head(_))) {
        seen.push(Seen::Other(format!("{behind} bytes behind it")));
    }
    seen
}

fn request(bytes: &[u8], limits: &HeadLimits) {
    let Ok(head) = Head::parse(bytes, limits) else {
        return;
    };
    assert!(head.target().len() <= limits.target_bytes_max);
    let _ = head.decoded_path();
    let _ = head.query_value("token");
    let _ = (redact_target(head.target()), format!("{head:?}"));
    let subprotocols = ["chat".to_owned(), "b".to_owned()];
    let deflate = Some(DeflatePolicy { server_window_bits: 12, client_window_bits: Some(11) });
    match handshake::check(&head) {
        Err(refusal) => {
            let answer = refusal.to_response().to_bytes(std::time::UNIX_EPOCH);
            assert!(ends_once(&answer[..answer.len() - refusal_body(&answer)]));
        }
        Ok(offer) => {
            let agreed = offer.agree(&Policy { subprotocols: &subprotocols, deflate });
            if let Some(deflate) = agreed.deflate {
                assert!((9..=12).contains(&deflate.server_window_bits));
                assert!((8..=15).contains(&deflate.client_window_bits));
            }
            let answer = agreed.response(std::time::UNIX_EPOCH);
            assert!(ends_once(&answer));
            let head = ResponseHead::parse(&answer, &HeadLimits::default()).expect("our own");
            assert_eq!(head.status(), 101);
        }
    }
}

/// Bytes behind the blank line.
fn refusal_body(answer: &[u8]) -> usize {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a blank line");
    answer.len() - end - 4
}

/// Nothing that a peer sent has split the response.
fn ends_once(head: &[u8]) -> bool {
    head.ends_with(b"\r\n\r\n") && head.windows(4).filter(|four| four == b"\r\n\r\n").count() == 1
}
