//! Upgrades of the real binary, seen from outside: the same TCP connections before and after, and
//! nobody can tell.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::*;

#[test]
fn a_message_cut_anywhere_goes_on() {
    let mut server = Server::start("workers = 2\n");
    let message = frame(FIN | TEXT, "grün, and a little more".as_bytes());
    let mut clients: Vec<(usize, Client)> = (0..message.len())
        .map(|cut| {
            let mut client = server.open("/echo");
            client.assert_echo("before");
            client.send_bytes(&message[..cut]);
            (cut, client)
        })
        .collect();
    server.upgrade();
    for (cut, client) in &mut clients {
        client.send_bytes(&message[*cut..]);
        client.expect_text("grün, and a little more");
        client.assert_echo("after");
    }
    for (_, client) in &mut clients {
        client.close(1000);
    }
    server.assert_healthy();
}

#[test]
fn every_state_moves() {
    let mut server = Server::start("workers = 2\n[limits]\nclose_timeout = '20s'\n");
    // In its handshake.
    let mut in_head = server.connect();
    let head = request("/echo", "");
    in_head.send_bytes(&head.as_bytes()[..head.len() - 10]);
    // Between the fragments of a message, in the middle of a character, with a ping between.
    let mut fragments = server.open("/echo");
    fragments.send(TEXT, &[b'a', 0xc3]);
    fragments.send(FIN | PING, b"there?");
    assert_eq!(fragments.frame().payload, b"there?");
    // In a control frame.
    let mut in_control = server.open("/echo");
    let ping = frame(FIN | PING, b"hello");
    in_control.send_bytes(&ping[..8]);
    // In a header of a message that will be too big.
    let mut too_big = server.open("/echo");
    too_big.send_bytes(&header(FIN | BINARY, 1 << 40)[..5]);
    // The server said Close, and has not heard the client's.
    let mut failed = server.open("/echo");
    failed.send_bytes(&[0xff, 0x80]);
    // Accepted, with a query, in two rooms' worth of company.
    let mut member = server.open("/rooms/a?self=1");
    let mut other = server.open("/rooms/a");
    member.send_text("one");
    member.expect_text("one");
    other.expect_text("one");

    server.upgrade();

    in_head.send_bytes(&head.as_bytes()[head.len() - 10..]);
    assert_eq!(in_head.response().status, 101);
    in_head.assert_echo("opened by the successor");
    fragments.send(FIN | CONTINUATION, &[0xa4, b'b']);
    fragments.expect_text("aäb");
    in_control.send_bytes(&ping[8..]);
    assert_eq!(in_control.frame().payload, b"hello");
    too_big.send_bytes(&header(FIN | BINARY, 1 << 40)[5..]);
    too_big.expect_close(1009);
    failed.expect_close(1002);
    other.send_text("two");
    member.expect_text("two");
    member.send_text("three");
    member.expect_text("three");
    other.expect_text("three");
    let mut newcomer = server.open("/rooms/a");
    newcomer.send_text("four");
    member.expect_text("four");
    other.expect_text("four");
}

#[test]
fn what_was_queued_is_read_to_the_last_byte() {
    let mut server = Server::start("workers = 1\n");
    let mut client = server.open_slow();
    server.upgrade();
    client.expect_queued();
}

/// A message that many members of a room have not taken yet is held once, here and there.
#[test]
fn what_many_wait_for_stays_one() {
    const MEMBERS: usize = 48;
    const MESSAGE: usize = 900 * KIB;
    let mut server = Server::start("workers = 2\n");
    let before = server.memory();
    let mut publisher = server.open("/rooms/a?self=1");
    let mut members: Vec<Client> = (0..MEMBERS)
        .map(|_| {
            let mut client = server.connect_narrow();
            client.upgrade("/rooms/a", "");
            client
        })
        .collect();
    settle_room(&mut publisher, &mut members);
    let payload: Vec<u8> = (0..MESSAGE as u32).map(|i| (i.wrapping_mul(7) >> 3) as u8).collect();
    publisher.send(FIN | BINARY, &payload);
    assert!(publisher.frame().payload == payload);
    server.wait_idle();
    // On each worker once, with as much again for what a worker reads to and what it keeps; a copy
    // for each member would be 43 MiB.
    let bound = before + 16 * MIB;
    assert!(server.memory() < bound, "{} before the upgrades", server.memory());
    for workers in [2, 3] {
        server.configure(&format!("workers = {workers}\n"));
        server.upgrade();
        server.wait_idle();
        assert!(server.memory() < bound, "{} with {workers} workers", server.memory());
    }
    for member in &mut members {
        assert!(member.frame().payload == payload);
    }
    members[MEMBERS - 1].send_text("and on");
    publisher.expect_text("and on");
}

#[test]
fn any_number_of_workers_takes_over() {
    let mut server = Server::start("workers = 1\n");
    let mut clients: Vec<Client> = (0..40).map(|_| server.open("/rooms/a?self=1")).collect();
    for workers in [3, 2, 5, 1, 2] {
        server.configure(&format!("workers = {workers}\n"));
        server.upgrade();
        for number in [0, 17, 39] {
            let text = format!("{number} of {workers}");
            clients[number].send_text(&text);
            for client in &mut clients {
                client.expect_text(&text);
            }
        }
        clients.push(server.open("/rooms/a?self=1"));
    }
}

/// Enough that their states go out in many turns and packets, while they change.
#[test]
fn whoever_talks_meanwhile_is_moved_as_it_is_then() {
    let mut server = Server::start("workers = 2\n");
    let idle: Vec<Client> = (0..600).map(|_| server.open("/echo")).collect();
    let mut halves: Vec<Client> = (0..50).map(|_| server.open("/echo")).collect();
    let (room, stop) = ("/rooms/all?self=1", Arc::new(AtomicBool::new(false)));
    let talkers: Vec<_> = (0..4)
        .map(|talker| {
            let mut clients: Vec<Client> =
                (0..25).map(|number| server.open(["/echo", room][number % 2])).collect();
            let stop = stop.clone();
            thread::spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let text = format!("{round} of {talker}");
                    for client in clients.iter_mut().step_by(2) {
                        client.send_text(&text);
                        client.expect_text(&text);
                    }
                    // In the room, its own among what the others say.
                    let publisher = &mut clients[1 + round % 12 * 2];
                    publisher.send_text(&text);
                    for client in clients.iter_mut().skip(1).step_by(2) {
                        while client.frame().payload != text.as_bytes() {}
                    }
                }
                clients.len()
            })
        })
        .collect();
    for round in 0..4 {
        let message = frame(FIN | TEXT, format!("begun before upgrade {round}").as_bytes());
        for (cut, client) in halves.iter_mut().enumerate() {
            client.send_bytes(&message[..cut % message.len()]);
        }
        let (upgraded, said) = server.upgrade_by_verb(&["--dry-run", "--json"]);
        assert!(upgraded && said.contains("\"connections\":750,\"refused\":[]"), "{said}");
        server.upgrade();
        for (cut, client) in halves.iter_mut().enumerate() {
            client.send_bytes(&message[cut % message.len()..]);
            client.expect_text(&format!("begun before upgrade {round}"));
        }
    }
    stop.store(true, Ordering::SeqCst);
    for talker in talkers {
        assert_eq!(talker.join().expect("nothing was missing"), 25);
    }
    for mut client in idle {
        client.assert_echo("not a word so far");
    }
}

#[test]
fn connections_are_spread_over_the_workers_whichever_are_left() {
    for (before, after) in [(1, 4), (4, 1), (2, 3), (3, 2)] {
        let mut server = Server::start(&format!("workers = {before}\n"));
        let mut clients: Vec<Client> = (0..96).map(|_| server.open("/echo")).collect();
        // On one worker, all in the slots whose number is a multiple of four.
        let mut number = 0;
        clients.retain(|_| {
            number += 1;
            number % 4 == 1
        });
        wait_until("the others' end", || server.by_worker().iter().sum::<usize>() == 24);
        server.configure(&format!("workers = {after}\n"));
        server.upgrade();
        let counts = server.by_worker();
        assert_eq!((counts.len(), counts.iter().sum::<usize>()), (after, 24), "{counts:?}");
        // Each worker that sends has dealt evenly.
        let (least, most) = (counts.iter().min(), counts.iter().max());
        assert!(most.unwrap() - least.unwrap() <= before, "{before} to {after}: {counts:?}");
        for client in &mut clients {
            client.assert_echo("wherever it is");
        }
    }
}

#[test]
fn new_connections_are_never_refused() {
    let mut server = Server::start("workers = 2\n");
    let (address, base) = (server.address, server.fds());
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let churn = thread::spawn(move || {
        let mut count = 0;
        while !stopped.load(Ordering::SeqCst) {
            let stream = std::net::TcpStream::connect(address).expect("an accepted connection");
            let mut client = Client::over(stream);
            client.upgrade("/echo", "");
            client.assert_echo("new");
            client.close(1000);
            count += 1;
        }
        count
    });
    for _ in 0..5 {
        server.upgrade();
    }
    stop.store(true, Ordering::SeqCst);
    assert!(churn.join().expect("no connection was refused or reset") > 0);
    wait_until("nothing is left of them", || server.fds() <= base);
}

#[test]
fn a_configuration_that_does_not_check_changes_nothing() {
    let mut server = Server::start("workers = 2\n");
    let mut client = server.open("/echo");
    server.configure("workers = 'many'\n");
    let line = server.upgrade_in_vain();
    assert!(line.contains("workers"), "{line}");
    client.assert_echo("as before");
    server.assert_healthy();
    server.configure("workers = 1\n");
    server.upgrade();
    client.assert_echo("after all");
}

#[test]
fn a_route_that_is_gone_keeps_its_connections_and_drains_them() {
    let routes = "[[routes]]\npath = '/echo'\napp = 'echo'\n";
    let old = format!("drain_duration = '0s'\n{routes}[[routes]]\npath = '/old'\napp = 'echo'\n");
    let server = Server::start(&old);
    let mut stays = server.open("/echo");
    let mut goes = server.open("/old");
    server.configure(&format!("drain_duration = '0s'\n{routes}"));
    server.signal("USR2");
    goes.expect_close(1012);
    stays.assert_echo("moved");
}

#[test]
fn a_chain_of_upgrades_leaks_nothing() {
    let mut server = Server::start("workers = 2\n");
    let mut clients: Vec<Client> = (0..20).map(|_| server.open("/echo")).collect();
    server.upgrade();
    let base = server.fds();
    for round in 0..10 {
        server.upgrade();
        for client in &mut clients {
            client.assert_echo(&format!("round {round}"));
        }
    }
    // The first look may have seen some that were about to be closed.
    wait_until("no more descriptors than before", || server.fds() <= base);
    drop(clients);
    wait_until("all let go of", || server.fds() <= base - 20);
}

#[test]
fn a_stop_in_the_middle_is_a_stop() {
    let server = Server::start("workers = 2\ndrain_duration = '1s'\n");
    let mut client = server.open("/echo");
    server.signal("USR2");
    server.signal("TERM");
    loop {
        match client.try_frame() {
            Ok(Some(frame)) if frame.opcode == CLOSE => {
                assert_eq!(frame.close_code(), Some(1012));
                break;
            }
            Ok(Some(_)) => {}
            other => panic!("no Close: {other:?}"),
        }
    }
    let refused = || {
        let error = std::net::TcpStream::connect(server.address).err()?;
        Some(error.kind() == ErrorKind::ConnectionRefused)
    };
    wait_until("nobody listens", || {
        thread::sleep(Duration::from_millis(20));
        refused() == Some(true)
    });
}

#[test]
fn a_program_that_is_none_changes_nothing() {
    let mut server = Server::start("workers = 2\n");
    let mut client = server.open("/echo");
    let [text, dumb] = [0o755, 0o644].map(|mode| write_program("no program\n", mode));
    let missing = fresh_path(".missing");
    for (binary, reason) in [
        (&*missing, "No such file or directory"),
        (&*text, "Exec format error"),
        (&*dumb, "Permission denied"),
        (&*std::env::temp_dir(), "Permission denied"),
        (Path::new("/bin/false"), "exit status: 1"),
        (Path::new("/bin/true"), "the new process has ended"),
    ] {
        let binary = binary.to_str().expect("UTF-8");
        let (upgraded, said) = server.upgrade_by_verb(&["--binary", binary]);
        assert!(!upgraded && said.contains(reason), "{binary}: {said}");
        client.assert_echo(binary);
    }
    server.upgrade();
    client.assert_echo("after all");
}

#[test]
fn one_upgrade_at_a_time() {
    let mut server = Server::start("workers = 2\n");
    let mut client = server.open("/echo");
    // A program that says nothing keeps the first one busy.
    let mute = write_program("#!/bin/sh\nexec sleep 60\n", 0o755);
    let first = server.verb("upgrade").arg("--binary").arg(&mute).spawn().expect("it starts");
    wait_until("the first one", || {
        let status = server.verb("status").arg("--json").output().expect("the binary starts");
        String::from_utf8_lossy(&status.stdout).contains("upgrading")
    });
    let (upgraded, said) = server.upgrade_by_verb(&[]);
    assert!(!upgraded && said.contains("in progress"), "{said}");
    client.assert_echo("meanwhile");
    // Ctrl-C takes it back.
    let int = Command::new("kill").args(["-s", "INT", &first.id().to_string()]).status();
    assert!(int.expect("kill runs").success());
    let output = first.wait_with_output().expect("a child's end");
    assert!(!output.status.success(), "{output:?}");
    wait_until("the server knows", || server.log().contains("not upgraded"));
    client.assert_echo("as before");
    server.upgrade();
    client.assert_echo("after all");
}

#[test]
fn whoever_is_impatient_loses_nobody() {
    let server = Server::start("workers = 2\n");
    let mut clients: Vec<Client> = (0..50).map(|_| server.open("/rooms/a?self=1")).collect();
    for pause_ms in [0, 1, 2, 4, 8] {
        let mut verb = server.verb("upgrade").spawn().expect("the binary starts");
        // Not for a condition: wherever it is by then.
        thread::sleep(Duration::from_millis(pause_ms));
        let int = Command::new("kill").args(["-s", "INT", &verb.id().to_string()]).status();
        assert!(int.expect("kill runs").success());
        verb.wait().expect("a child's end");
        let text = format!("after {pause_ms} ms");
        clients[0].send_text(&text);
        for client in &mut clients {
            client.expect_text(&text);
        }
    }
    // Who serves now is known to the one that is asked.
    let (upgraded, said) = server.upgrade_by_verb(&[]);
    assert!(upgraded || said.contains("in progress"), "{said}");
    for client in &mut clients {
        client.send(FIN | PING, b"there?");
        assert_eq!(client.frame().payload, b"there?");
    }
}

#[test]
fn whoever_hears_the_outcome_can_ask_again_at_once() {
    let mut server = Server::start("workers = 2\n");
    let mut client = server.open("/echo");
    for round in 0..10 {
        let (upgraded, said) = server.upgrade_by_verb(&[]);
        assert!(upgraded, "round {round}: {said}");
    }
    server.follow();
    client.assert_echo("still here");
}
