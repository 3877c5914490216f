//! The checker on echo servers that are faulty on purpose: each fault must be counted, once, and
//! as what it is; and on one that is not.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use steadfast_bench::checker::message::Size;
use steadfast_bench::checker::{Faults, Load, Running, Streams, Totals};

/// The answer to the one key that the checker uses (RFC 6455 §1.3).
const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const CONNECTIONS: usize = 3;
const MESSAGES: u64 = 20;
/// The message that the faulty servers treat in their own way.
const TARGET: usize = 7;

/// What a server does to message [`TARGET`] of its first connection.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    Drop,
    Repeat,
    Swap,
    FlipPayload,
    FlipHead,
    Mask,
    Fragment,
    Truncate,
    End,
    /// The end comes together with what was said last.
    EndBehindData,
    Close,
    OfAnotherConnection,
}

/// Accepts connections for as long as the test's process lives.
fn serve(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let fault = if number == 0 { fault } else { Fault::None };
            // The checker leaves with a reset.
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                echo(&mut stream, fault)?;
                // To close with something unread would be a reset.
                stream.shutdown(Shutdown::Write)?;
                io::copy(&mut stream, &mut io::sink())
            });
        }
    });
    address
}

fn echo(stream: &mut TcpStream, fault: Fault) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    stream.write_all(RESPONSE)?;
    let mut held_back = Vec::new();
    for number in 0.. {
        let mut frame = unmasked_frame(stream)?;
        if frame[0] == 0x88 {
            return stream.write_all(&frame);
        }
        if number == TARGET {
            match fault {
                Fault::None => {}
                Fault::Drop => continue,
                Fault::Repeat => frame = frame.repeat(2),
                Fault::Swap => {
                    held_back = frame;
                    continue;
                }
                Fault::FlipPayload => *frame.last_mut().unwrap() ^= 0x10,
                Fault::FlipHead => frame[2 + 10] ^= 0x01,
                Fault::Mask => frame[1] |= 0x80,
                Fault::Fragment => frame[0] &= 0x7f,
                Fault::Truncate => {
                    frame[1] -= 1;
                    frame.pop();
                }
                Fault::End => return Ok(()),
                Fault::EndBehindData => return stream.write_all(&frame),
                Fault::Close => return stream.write_all(&[0x88, 2, 3, 0xf4]),
                Fault::OfAnotherConnection => frame[2 + 7] = b'1',
            }
        }
        frame.append(&mut held_back);
        stream.write_all(&frame)?;
    }
    Ok(())
}

/// The next frame, at most 125 bytes of payload, as a server sends it back.
fn unmasked_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 2];
    stream.read_exact(&mut frame)?;
    frame[1] &= 0x7f;
    let mut key = [0; 4];
    stream.read_exact(&mut key)?;
    let mut payload = vec![0; usize::from(frame[1])];
    stream.read_exact(&mut payload)?;
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    Ok(frame)
}

fn load(address: SocketAddr) -> Load {
    Load {
        connections: CONNECTIONS,
        rate: 200.0,
        size: Size::Fixed(60),
        split: 3,
        messages_max: Some(MESSAGES),
        ..Load::none(address)
    }
}

fn totals(fault: Fault) -> Totals {
    let mut streams = Streams::open(&load(serve(fault))).unwrap();
    streams.begin().unwrap();
    streams.finish().unwrap()
}

#[test]
fn an_honest_server_has_no_faults() {
    let totals = totals(Fault::None);
    assert_eq!(totals.faults, Faults::default(), "{totals:?}");
    assert_eq!(totals.sent, CONNECTIONS as u64 * MESSAGES);
    assert_eq!(totals.received, totals.sent);
    assert_eq!(totals.span.delays.count(), totals.sent);
    assert!(totals.span.silence_max > 0 && totals.examples.is_empty());
}

#[test]
fn each_fault_is_counted_as_what_it_is() {
    let none = Faults::default();
    let cases = [
        (Fault::Drop, Faults { lost: 1, ..none }),
        (Fault::Repeat, Faults { repeated: 1, ..none }),
        (Fault::Swap, Faults { reordered: 1, ..none }),
        (Fault::FlipPayload, Faults { corrupted: 1, ..none }),
        (Fault::FlipHead, Faults { corrupted: 1, ..none }),
        (Fault::Truncate, Faults { corrupted: 1, ..none }),
        (Fault::OfAnotherConnection, Faults { corrupted: 1, ..none }),
    ];
    for (fault, expected) in cases {
        let totals = totals(fault);
        assert_eq!(totals.faults, expected, "{fault:?}: {totals:?}");
        assert_eq!(totals.sent, CONNECTIONS as u64 * MESSAGES, "{fault:?}");
    }
}

#[test]
fn a_connection_that_ends_is_counted_with_what_it_takes_along() {
    let cases = [
        (Fault::End, 0, "end of file"),
        (Fault::EndBehindData, 0, "end of file"),
        (Fault::Close, 0, "Close 1012"),
        (Fault::Mask, 1, "masked"),
        (Fault::Fragment, 1, "first byte"),
    ];
    for (fault, corrupted, text) in cases {
        let totals = totals(fault);
        let faults = totals.faults;
        assert_eq!((faults.disconnected, faults.corrupted), (1, corrupted), "{fault:?}");
        assert_eq!((faults.repeated, faults.reordered), (0, 0), "{fault:?}");
        let example = &totals.examples[0];
        assert!(example.starts_with("connection 0: ") && example.contains(text), "{example}");
    }
}

#[test]
fn visitors_are_counted_and_so_is_who_refuses_them() {
    let visited = |address| {
        let load = Load { connections: 0, churn: 200.0, ..Load::none(address) };
        let running = Running::start(&load).unwrap();
        running.open_window();
        loop {
            let figures = running.close_window().unwrap();
            if figures.visits.complete + figures.visits.faults() >= 10 {
                break;
            }
            thread::yield_now();
        }
        running.finish().unwrap().visits
    };
    let visits = visited(serve(Fault::None));
    assert!(visits.complete >= 10 && visits.faults() == 0, "{visits}");
    assert!(visits.delay_max > 0);

    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let visits = visited(nobody);
    assert!(visits.complete == 0 && visits.refused >= 10, "{visits}");
}
