//! Upgrades while many come, go and hoard.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::*;

/// Connections are accepted or wait in the queue of a listener that both processes hold, whenever
/// the freeze comes.
#[test]
fn whoever_connects_at_a_freeze_is_served() {
    const BURST: usize = 5_000;
    let mut server = Server::start("workers = 2\n[head]\nhandshake_timeout = '60s'\n");
    let address = server.address;
    let connector = thread::spawn(move || -> Vec<TcpStream> {
        let connect = |_| TcpStream::connect(address).expect("nobody is refused");
        (0..BURST).map(connect).collect()
    });
    let mut upgrades = 0;
    while !connector.is_finished() || upgrades < 2 {
        server.upgrade();
        upgrades += 1;
    }
    let mut clients: Vec<Client> =
        connector.join().expect("all connect").into_iter().map(Client::over).collect();
    for client in &mut clients {
        assert_eq!(client.upgrade("/echo", "").status, 101);
        client.assert_echo("served");
    }
    assert_eq!(server.by_worker().iter().sum::<usize>(), BURST);
}

#[test]
fn a_server_at_its_limit_is_upgraded_while_connections_come_and_go() {
    const UPGRADES: usize = 50;
    let mut server = Server::start("workers = 2\nconnections_max = 40\n");
    let mut residents: Vec<Client> = (0..30).map(|_| server.open("/echo")).collect();
    let (stop, visits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let visitors: Vec<_> = (0..16)
        .map(|_| {
            let (address, stop, visits) = (server.address, stop.clone(), visits.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let stream = TcpStream::connect(address).expect("it waits for its turn");
                    stream.set_read_timeout(Some(WAIT)).expect("a timeout above zero");
                    let mut client = Client::over(stream);
                    assert_eq!(client.upgrade("/echo", "").status, 101);
                    client.assert_echo("here");
                    visits.fetch_add(1, Ordering::SeqCst);
                    // Some say goodbye, some just go.
                    if visits.load(Ordering::SeqCst) % 2 == 0 {
                        client.close(1000);
                    }
                }
            })
        })
        .collect();
    for _ in 0..UPGRADES {
        let before = visits.load(Ordering::SeqCst);
        server.upgrade();
        wait_until("visitors are served", || visits.load(Ordering::SeqCst) > before + 16);
    }
    stop.store(true, Ordering::SeqCst);
    for visitor in visitors {
        visitor.join().expect("each visit is served");
    }
    for resident in &mut residents {
        resident.assert_echo("still here");
    }
}

#[test]
fn whoever_appends_to_a_message_all_the_time_moves_with_it() {
    const HOARDERS: usize = 100;
    const LEN: usize = 200_000;
    let mut server = Server::start("workers = 2\n");
    let text: Vec<u8> = (0..LEN).map(|at| b'a' + (at / 3 % 26) as u8).collect();
    let message = frame(FIN | TEXT, &text);
    let mut hoarders: Vec<Client> = (0..HOARDERS).map(|_| server.open("/echo")).collect();
    for hoarder in &mut hoarders {
        hoarder.send_bytes(&message[..LEN / 2]);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let appender = {
        let (stop, message) = (stop.clone(), message.clone());
        thread::spawn(move || {
            let mut at = LEN / 2;
            while !stop.load(Ordering::SeqCst) {
                hoarders.iter_mut().for_each(|hoarder| hoarder.send_bytes(&message[at..at + 1]));
                at += 1;
                thread::sleep(Duration::from_millis(5));
            }
            (hoarders, at)
        })
    };
    for _ in 0..3 {
        server.upgrade();
    }
    stop.store(true, Ordering::SeqCst);
    let (mut hoarders, at) = appender.join().expect("nobody is closed");
    for hoarder in &mut hoarders {
        hoarder.send_bytes(&message[at..]);
        assert!(hoarder.frame().payload == text, "byte for byte");
    }
}
