//! Attacks on a running server. Each starts a server of its own, attacks it, and asserts that the
//! stated bounds hold, that healthy connections went on, that every descriptor came back and that
//! the server is idle afterwards. What it returns are its figures.
//!
//! `tests/attack/mod.rs` runs them small at each test run; the `soak` program of `benches` at full size.

#![allow(unreachable_pub, reason = "shared by two programs")]

#[path = "drains.rs"]
mod drains;
#[path = "hoarders.rs"]
mod hoarders;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{
    BINARY, CLOSE, CONTINUATION, Client, FIN, KIB, MIB, PING, PONG, RSV1, Server, TEXT, frame,
    header, request, settle_room, wait_until,
};

pub use drains::drains;
pub use hoarders::{Scarcity, hoarders};

/// What a server may grow by without its being an attack's doing: the buffers that each worker
/// keeps for its next turn, the inflater's window, the allocator's spare pages.
const NOISE: usize = 6 * MIB;

/// Large buffers that a worker keeps to use them again.
const KEPT_A_WORKER: usize = 8 * MIB;

/// How long a socket has taken nothing when it counts as blocked.
const STALL: Duration = Duration::from_millis(300);

/// What an attack came to.
#[derive(Debug)]
pub struct Figures(pub Vec<(&'static str, String)>);

impl Figures {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, name: &'static str, value: impl ToString) {
        self.0.push((name, value.to_string()));
    }

    fn memory(&mut self, name: &'static str, bytes: usize) {
        self.add(name, format!("{:.1} MiB", bytes as f64 / MIB as f64));
    }
}

fn growth(server: &Server, before: usize) -> usize {
    server.memory().saturating_sub(before)
}

/// After each attack: a healthy connection echoes, all descriptors are back, no CPU is used.
#[track_caller]
fn assert_recovered(server: &Server) {
    server.assert_healthy();
    server.wait_fds(0);
    server.wait_idle();
}

/// Sources that many connections are spread over.
fn source(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + (index % 8) as u8)
}

/// `count` handshakes that begin and do not go on, with so many bytes of head each.
pub fn half_open(count: usize, head_bytes: usize, timeout: Duration) -> Figures {
    let millis = timeout.as_millis();
    let server = Server::start(&format!("workers = 2\nhead.handshake_timeout = \"{millis}ms\"\n"));
    let mut healthy = server.open("/echo");
    let before = server.memory();
    let mut head = request("/echo", "");
    head.truncate(head.len() - 2);
    head.push_str("X-Padding: ");
    head.extend(std::iter::repeat_n('a', head_bytes.saturating_sub(head.len())));
    let mut clients = Vec::with_capacity(count);
    for index in 0..count {
        let mut client = server.connect_from(source(index)).expect("an accepted connection");
        client.send_bytes(head.as_bytes());
        clients.push(client);
        if index % 1_000 == 0 {
            healthy.assert_echo("during the rush");
        }
    }
    healthy.assert_echo("while they hang");
    let peak = growth(&server, before);
    // A head's memory doubles as it grows; then 512 bytes for the connection itself.
    let bound = count * (2 * head.len() + 512) + NOISE;
    assert!(peak <= bound, "{peak} bytes for {count} half-open handshakes");
    for client in &mut clients {
        assert_eq!(client.response().status, 408);
    }
    healthy.assert_echo("after they are gone");
    healthy.close(1000);
    drop(clients);
    assert_recovered(&server);
    let mut figures = Figures::new();
    figures.add("connections", count);
    figures.memory("memory at the peak", peak);
    figures.add("bytes a connection", peak / count);
    figures
}

/// A client that sends and never reads: reading from it pauses, its echoes are bounded; when it
/// reads at last, none is missing.
pub fn reader_that_never_reads(messages: usize) -> Figures {
    const MESSAGE: usize = 16 * KIB;
    let server = Server::start("workers = 1\n");
    let before = server.memory();
    let mut client = server.connect_narrow();
    client.upgrade("/echo", "");
    let sent = Arc::new(AtomicUsize::new(0));
    let writer = {
        let mut stream = Client::over(client.stream.try_clone().expect("a second handle"));
        let sent = sent.clone();
        thread::spawn(move || {
            for number in 0..messages {
                let mut payload = vec![b'x'; MESSAGE];
                payload[..8].copy_from_slice(&(number as u64).to_be_bytes());
                stream.send(FIN | BINARY, &payload);
                sent.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut last = usize::MAX;
    wait_until("a writer that is made to wait", || {
        let now = sent.load(Ordering::Relaxed);
        let stalled = now > 0 && now == std::mem::replace(&mut last, now);
        thread::sleep(STALL);
        stalled
    });
    let taken = sent.load(Ordering::Relaxed);
    assert!(taken < messages, "nothing ever paused: send more than the kernel's buffers hold");
    let peak = growth(&server, before);
    assert!(peak <= 2 * MIB + NOISE, "{peak} bytes for a client that does not read");
    server.assert_healthy();
    server.wait_idle();
    for number in 0..messages {
        let frame = client.frame();
        assert_eq!((frame.opcode, frame.payload.len()), (BINARY, MESSAGE));
        assert_eq!(frame.payload[..8], (number as u64).to_be_bytes(), "an echo is missing");
    }
    writer.join().expect("a writer that got through");
    client.close(1000);
    assert_recovered(&server);
    let mut figures = Figures::new();
    figures.add("messages taken before it paused", taken);
    figures.memory("memory at the peak", peak);
    figures
}

/// A member of a room that never reads, on every worker: it is closed with 1008, and the others
/// miss nothing.
pub fn slow_member(messages: usize) -> Figures {
    const MESSAGE: usize = 16 * KIB;
    let server = Server::start("workers = 3\n");
    let before = server.memory();
    let mut slow: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = server.connect_narrow();
            client.upgrade("/rooms/a", "");
            client
        })
        .collect();
    let mut members: Vec<Client> = (0..4).map(|_| server.open("/rooms/a")).collect();
    let mut publisher = server.open("/rooms/a?self=1");
    // Members that have heard one message are in, and so are those that came before them.
    settle_room(&mut publisher, &mut members);
    let mut peak = 0;
    for number in 0..messages {
        let mut payload = vec![b'x'; MESSAGE];
        payload[..8].copy_from_slice(&(number as u64).to_be_bytes());
        publisher.send(FIN | BINARY, &payload);
        for member in members.iter_mut().chain([&mut publisher]) {
            let frame = member.frame();
            assert_eq!((frame.opcode, frame.payload.len()), (BINARY, MESSAGE));
            assert_eq!(frame.payload[..8], (number as u64).to_be_bytes());
        }
        if number % 64 == 0 {
            peak = peak.max(growth(&server, before));
        }
    }
    assert!(peak <= 4 * (MIB + 64 * KIB) + NOISE, "{peak} bytes for 4 slow members");
    // If it does not come to this: publish more than the kernel's buffers hold.
    wait_until("four slow consumers that are closed", || {
        server.log().matches("slow consumer closed").count() == 4
    });
    for client in &mut slow {
        // It may have been cut off by then: the time to finish closing is over.
        while let Ok(Some(frame)) = client.try_frame() {
            if frame.opcode == CLOSE {
                assert_eq!(frame.close_code(), Some(1008));
                break;
            }
        }
    }
    for mut member in members {
        member.close(1000);
    }
    drop((slow, publisher));
    assert_recovered(&server);
    let mut figures = Figures::new();
    figures.add("messages", messages);
    figures.memory("memory at the peak", peak);
    figures
}

/// Fragments without payload and without end.
pub fn endless_fragments() -> Figures {
    let server = Server::start("workers = 1\n");
    let before = server.memory();
    for first in [TEXT, BINARY, RSV1 | TEXT] {
        let mut client =
            server.open_with("/echo", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
        let mut bytes = frame(first, b"");
        for _ in 0..1_022 {
            bytes.extend(frame(CONTINUATION, b""));
        }
        client.send_bytes(&bytes);
        client.send(FIN | PING, b"alive");
        assert_eq!(client.frame().opcode, PONG, "1,023 fragments are fine");
        client.send_bytes(&[frame(CONTINUATION, b""), frame(CONTINUATION, b"")].concat());
        client.expect_close(1008);
    }
    let peak = growth(&server, before);
    assert!(peak <= NOISE, "{peak} bytes for empty fragments");
    assert_recovered(&server);
    Figures::new()
}

/// Pings: too many a second cost the connection; where that is allowed they cost no memory.
pub fn ping_flood(bytes: usize) -> Figures {
    let server = Server::start("workers = 1\n");
    let mut client = server.open("/echo");
    let burst: Vec<u8> = (0..500).flat_map(|_| frame(FIN | PING, b"ping")).collect();
    client.send_bytes(&burst);
    assert_eq!(client.skip_to_close(), Some(1008));
    assert_recovered(&server);

    let server = Server::start("workers = 1\nlimits.control_rate_max = \"off\"\n");
    let before = server.memory();
    let mut client = server.connect_narrow();
    client.upgrade("/echo", "");
    let ping = frame(FIN | PING, &[7; 125]);
    let burst = ping.repeat(64);
    let mut peak = 0;
    let mut sent = 0;
    while sent < bytes {
        client.send_bytes(&burst);
        sent += burst.len();
        if sent % MIB < burst.len() {
            peak = peak.max(growth(&server, before));
        }
    }
    client.send(FIN | PING, b"the last");
    assert!(peak <= NOISE, "{peak} bytes for pings");
    server.assert_healthy();
    let mut pongs = 0;
    loop {
        let frame = client.frame();
        assert_eq!(frame.opcode, PONG);
        pongs += 1;
        if frame.payload == b"the last" {
            break;
        }
    }
    let pings = sent / ping.len() + 1;
    assert!(pongs < pings, "the socket was never blocked: send more");
    client.close(1000);
    assert_recovered(&server);
    let mut figures = Figures::new();
    figures.add("pings", pings);
    figures.add("pongs", pongs);
    figures.memory("memory at the peak", peak);
    figures
}

/// A deflate stream of `len` zeros and somewhat more: one literal, then matches of 258 bytes at
/// distance 1, in a block with fixed codes (RFC 1951 §3.2.6).
pub fn zeros_deflated(len: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(0b010, 3); // not final; fixed codes, whose type 01 goes least bit first
    bits.push_code(0b0011_0000, 8); // the literal 0
    for _ in 0..len.div_ceil(258) {
        bits.push_code(0b1100_0101, 8); // length 258, without extra bits
        bits.push_code(0, 5); // distance 1
    }
    bits.push_code(0, 7); // the block's end
    bits.push(0, 3); // an empty stored block, whose length RFC 7692 §7.2.1 leaves out
    bits.bytes
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    free: u32,
}

impl Bits {
    /// A number: its least bit first.
    fn push(&mut self, value: u32, count: u32) {
        for bit in 0..count {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let last = self.bytes.last_mut().expect("pushed above");
            *last |= ((value >> bit & 1) as u8) << (8 - self.free);
            self.free -= 1;
        }
    }

    /// A Huffman code: its greatest bit first.
    fn push_code(&mut self, code: u32, count: u32) {
        self.push(code.reverse_bits() >> (32 - count), count);
    }
}

const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

/// Small messages that inflate to huge ones, and compressed messages that take long to read.
pub fn deflate_bombs(count: usize) -> Figures {
    let server = Server::start("workers = 1\n");
    let before = server.memory();
    let bomb = zeros_deflated(128 * MIB);
    assert!(bomb.len() < MIB, "it must not be refused for its length");
    let ticks = server.cpu_ticks();
    let mut peak = 0;
    for _ in 0..count {
        let mut client = server.open_with("/echo", DEFLATE);
        client.send(FIN | RSV1 | BINARY, &bomb);
        client.expect_close(1009);
        peak = peak.max(growth(&server, before));
    }
    let ticks_a_bomb = (server.cpu_ticks() - ticks) as f64 / count as f64;
    assert!(peak <= 2 * MIB + NOISE, "{peak} bytes for {count} bombs, one at a time");
    // Stopping at 1 MiB takes some milliseconds; going on to the end would take a hundred times it.
    assert!(ticks_a_bomb <= 10.0, "{ticks_a_bomb} ticks of 10 ms for a bomb");
    // Final blocks without content, two bytes each: each would restart the inflater, so there is a
    // limit on them.
    let restarts = [0x03, 0x00].repeat(MIB / 2);
    let ticks = server.cpu_ticks();
    let mut client = server.open_with("/echo", DEFLATE);
    client.send(FIN | RSV1 | BINARY, &restarts);
    client.expect_close(1007);
    let restart_ticks = server.cpu_ticks() - ticks;
    assert!(restart_ticks <= 10, "{restart_ticks} ticks for 1 MiB of empty final blocks");
    assert_recovered(&server);
    let mut figures = Figures::new();
    figures.add("bombs", count);
    figures.add("CPU ms a bomb", ticks_a_bomb * 10.0);
    figures.add("CPU ms for 512 Ki final blocks", restart_ticks * 10);
    figures.memory("memory at the peak", peak);
    figures
}

/// Resets in every state that a peer can bring a connection into.
pub fn resets(rounds: usize) -> Figures {
    // The healthy two say nothing for as long as all rounds take.
    let server = Server::start("workers = 2\nlimits.ping_interval = \"off\"\n");
    let mut healthy = server.open("/echo");
    let mut member = server.open("/rooms/a?self=1");
    let before = server.memory();
    let flood = frame(FIN | BINARY, &vec![0; 64 * KIB]);
    for _ in 0..rounds {
        server.connect().reset();
        let mut in_head = server.connect();
        in_head.send_bytes(b"GET /echo HTTP/1.1\r\nHost: a\r\n");
        in_head.reset();
        let mut unread_answer = server.connect();
        unread_answer.send_bytes(request("/echo", "").as_bytes());
        unread_answer.reset();
        let mut refused = server.connect();
        refused.send_bytes(request("/nothing", "").as_bytes());
        refused.reset();
        server.open("/echo").reset();
        let mut in_header = server.open("/echo");
        in_header.send_bytes(&header(FIN | TEXT, 1_000)[..3]);
        in_header.reset();
        let mut in_payload = server.open("/echo");
        in_payload.send_bytes(&frame(FIN | TEXT, &[b'a'; 1_000])[..500]);
        in_payload.reset();
        let mut in_message = server.open("/echo");
        in_message.send(TEXT, b"begun");
        in_message.reset();
        let mut with_output = server.connect_narrow();
        with_output.upgrade("/echo", "");
        with_output.flood(&flood, 64 * MIB, Duration::from_millis(50)).expect("a blocked socket");
        with_output.reset();
        let mut closing = server.open("/echo");
        closing.send(FIN | CLOSE, &1000_u16.to_be_bytes());
        closing.reset();
        let mut lingering = server.open("/echo");
        lingering.send_bytes(&[0xff; 2]);
        assert_eq!(lingering.frame().close_code(), Some(1002));
        lingering.reset();
        let mut in_room = server.open("/rooms/a");
        in_room.send_text("hello");
        member.expect_text("hello");
        in_room.reset();
        healthy.assert_echo("during resets");
    }
    server.wait_fds(2);
    let peak = growth(&server, before);
    assert!(peak <= 2 * KEPT_A_WORKER + NOISE, "{peak} bytes left over by resets");
    member.assert_echo("still a room");
    server.wait_idle();
    drop((healthy, member));
    assert_recovered(&server);
    let mut figures = Figures::new();
    figures.add("resets", rounds * 12);
    figures.memory("memory afterwards", peak);
    figures
}

/// Every descriptor is used up, by the system's limit or by the server's own.
pub fn descriptors_used_up(healthy_count: usize, waiting: usize) -> Figures {
    let mut figures = Figures::new();
    for by_system in [true, false] {
        let max = healthy_count + 4;
        let config = match by_system {
            true => "workers = 2\n".to_owned(),
            false => format!("workers = 2\nconnections_max = {max}\n"),
        };
        let server = Server::start(&config);
        let mut healthy: Vec<Client> = (0..healthy_count).map(|_| server.open("/echo")).collect();
        if by_system {
            server.limit_files(server.fds() + 4);
        }
        // The kernel completes them; the server has room for four.
        let mut waiting: Vec<Client> = (0..waiting).map(|_| server.connect()).collect();
        for client in &mut waiting {
            client.send_bytes(request("/echo", "").as_bytes());
        }
        wait_until("all descriptors in use", || {
            server.fds() >= server.fds_base() + healthy_count + 4
        });
        let ticks = server.cpu_ticks_in(Duration::from_secs(1));
        assert!(ticks <= 5, "{ticks} ticks of 10 ms in a second without descriptors");
        for client in &mut healthy {
            client.assert_echo("still here");
        }
        // Each that goes makes room for one that waits; which one, is the workers' affair.
        let waiting: Vec<_> = waiting
            .into_iter()
            .map(|mut client| {
                thread::spawn(move || {
                    assert_eq!(client.response().status, 101);
                    client.close(1000);
                })
            })
            .collect();
        for client in waiting {
            client.join().expect("a connection in the end");
        }
        drop(healthy);
        assert_recovered(&server);
        let name = if by_system { "ticks in 1 s at EMFILE" } else { "ticks in 1 s at the limit" };
        figures.add(name, ticks);
    }
    figures
}

/// The peer's end without a Close, lengths that are only declared.
pub fn ends_and_lengths(count: usize) -> Figures {
    let server = Server::start("workers = 2\n");
    let before = server.memory();
    let mut ended: Vec<Client> = (0..count).map(|_| server.open("/rooms/ends")).collect();
    for client in &mut ended {
        client.stream.shutdown(std::net::Shutdown::Write).expect("an open socket");
    }
    for client in &mut ended {
        client.expect_end();
    }
    drop(ended);
    server.wait_fds(0);
    for (len, code) in [(1 << 40, 1009), (u64::MAX, 1002), (MIB as u64 + 1, 1009)] {
        let mut client = server.open("/echo");
        client.send_bytes(&header(FIN | BINARY, len));
        client.expect_close(code);
    }
    let declared: Vec<Client> = (0..count)
        .map(|_| {
            let mut client = server.open("/echo");
            client.send_bytes(&header(FIN | BINARY, MIB as u64));
            client.send_bytes(&[0; 16]);
            client
        })
        .collect();
    server.assert_healthy();
    let peak = growth(&server, before);
    assert!(peak <= count * KIB + NOISE, "{peak} bytes for {count} lengths");
    drop(declared);
    assert_recovered(&server);
    let mut figures = Figures::new();
    figures.add("connections", count);
    figures.memory("memory at the peak", peak);
    figures
}

/// Rooms that come and go leave nothing behind.
pub fn rooms_come_and_go(rooms: usize, rounds: usize) -> Figures {
    let server = Server::start("workers = 3\n");
    let mut first = 0;
    for round in 0..rounds {
        let members: Vec<Client> =
            (0..rooms).map(|number| server.open(&format!("/rooms/{round}-{number}"))).collect();
        drop(members);
        server.wait_fds(0);
        if round == 0 {
            first = server.memory();
        }
    }
    let peak = growth(&server, first);
    assert!(peak <= NOISE, "{peak} bytes left by {rounds} rounds of {rooms} rooms");
    assert_recovered(&server);
    let mut figures = Figures::new();
    figures.add("rooms", rooms * rounds);
    figures.memory("memory after the first round", first);
    figures.memory("more after the last", peak);
    figures
}

/// One connection floods; another on the same worker still gets its turn. Counts, not times, are
/// compared: how many of the flood's replies lie between a message of the other's and its echo. Of these
/// counts the best quarter is looked at: in the rest this test's threads may have waited for a core,
/// while a server that starves the other connection does so each time.
pub fn flood_of_one(echoes: usize) -> Figures {
    let mut figures = Figures::new();
    let plain = frame(FIN | BINARY, &[0; KIB]);
    let compressed = frame(FIN | RSV1 | BINARY, &zeros_deflated(MIB - 2 * KIB));
    // A turn reads 256 KiB of one connection, or inflates some 1 MiB.
    for (name, message, lines, share) in [
        ("plain replies a turn", plain, "", 512),
        ("replies of 1 MiB, inflated, a turn", compressed, DEFLATE, 8),
    ] {
        let server = Server::start("workers = 1\n");
        let mut healthy = server.open("/echo");
        let mut flood = server.open_with("/echo", lines);
        let over = Arc::new(AtomicBool::new(false));
        let writer = {
            let mut stream = flood.stream.try_clone().expect("a second handle");
            let burst = message.repeat((256 * KIB).div_ceil(message.len()));
            let over = over.clone();
            thread::spawn(move || {
                use std::io::Write;
                while !over.load(Ordering::Relaxed) && stream.write_all(&burst).is_ok() {}
            })
        };
        let replies = Arc::new(AtomicUsize::new(0));
        let reader = {
            let replies = replies.clone();
            thread::spawn(move || {
                while let Ok(Some(_)) = flood.try_frame() {
                    replies.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        wait_until("a flood", || replies.load(Ordering::Relaxed) > 2 * share);
        let mut during: Vec<usize> = (0..echoes)
            .map(|_| {
                let before = replies.load(Ordering::Relaxed);
                healthy.assert_echo("my turn");
                replies.load(Ordering::Relaxed) - before
            })
            .collect();
        during.sort_unstable();
        assert!(during[echoes - 1] > 0, "there was no flood");
        // An echo takes its two turns at most, and the threads of this test are not prompt.
        let quarter = during[echoes / 4];
        assert!(quarter <= share * 4, "{during:?} {name} beside {echoes} echoes");
        over.store(true, Ordering::Relaxed);
        drop(healthy);
        drop(server);
        let _ = writer.join();
        reader.join().expect("a reader without complaints");
        let average = during.iter().sum::<usize>() as f64 / echoes as f64;
        figures.add(name, format!("{average:.1}"));
    }
    figures
}

/// Publishers at full speed on all workers, into rooms with homes on all workers, without a pause
/// for anybody: nothing is lost, each room has one order, memory stays bounded.
pub fn mailbox_flood(publishers: usize, messages: usize) -> Figures {
    const ROOMS: usize = 3;
    // What is published cannot be refused, so the members get queues that hold all of it.
    let server = Server::start(
        "workers = 3\nlimits.queue_bytes_max = \"256 MiB\"\nlimits.ping_interval = \"off\"\n",
    );
    let before = server.memory();
    let mut members: Vec<Vec<Client>> = (0..ROOMS)
        .map(|room| (0..3).map(|_| server.open(&format!("/rooms/{room}"))).collect())
        .collect();
    for (room, members) in members.iter_mut().enumerate() {
        let mut publisher = server.open(&format!("/rooms/{room}?self=1"));
        settle_room(&mut publisher, members);
        publisher.close(1000);
    }
    let senders: Vec<_> = (0..publishers)
        .map(|number| {
            let mut client = server.open(&format!("/rooms/{}", number % ROOMS));
            thread::spawn(move || {
                let mut bytes = Vec::new();
                for message in 0..messages {
                    bytes.extend(frame(FIN | TEXT, format!("{number} {message}").as_bytes()));
                    if bytes.len() > 64 * KIB {
                        client.send_bytes(&bytes);
                        bytes.clear();
                    }
                }
                client.send_bytes(&bytes);
                client
            })
        })
        .collect();
    let readers: Vec<_> = members
        .into_iter()
        .enumerate()
        .flat_map(|(room, members)| members.into_iter().map(move |member| (room, member)))
        .map(|(room, mut member)| {
            thread::spawn(move || {
                let mine = (0..publishers).filter(|number| number % ROOMS == room).count();
                let mut order = Vec::with_capacity(mine * messages);
                let mut next = vec![0; publishers];
                // A publisher hears the others of its room; the member hears all of them.
                while order.len() < mine * messages {
                    let frame = member.frame();
                    let (number, message) = frame.text().split_once(' ').expect("two numbers");
                    let number: usize = number.parse().expect("a number");
                    let message: usize = message.parse().expect("a number");
                    assert_eq!(message, next[number], "out of order, or lost");
                    next[number] += 1;
                    order.push(number as u32);
                }
                (room, order)
            })
        })
        .collect();
    // Publishers do not read: they hear each other, into queues that hold it.
    let mut peak = 0;
    while !readers.iter().all(|reader| reader.is_finished()) {
        peak = peak.max(growth(&server, before));
        thread::sleep(Duration::from_millis(20));
    }
    let mut orders: Vec<Option<Vec<u32>>> = vec![None; ROOMS];
    for reader in readers {
        let (room, order) = reader.join().expect("a member that heard everything");
        match &orders[room] {
            Some(other) => assert!(*other == order, "two members of room {room} saw two orders"),
            None => orders[room] = Some(order),
        }
    }
    let senders: Vec<Client> = senders
        .into_iter()
        .map(|sender| sender.join().expect("a sender that got through"))
        .collect();
    let heard = publishers.div_ceil(ROOMS).saturating_sub(1) * messages * 16;
    let bound = publishers * heard + 3 * 64 * MIB;
    assert!(peak <= bound, "{peak} bytes while {publishers} published");
    drop(senders);
    assert_recovered(&server);
    let mut figures = Figures::new();
    figures.add("messages", publishers * messages);
    figures.memory("memory at the peak", peak);
    figures
}
