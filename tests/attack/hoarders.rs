//! Many connections that begin a message and do not end it, beside others that talk and upload.

use std::io::{ErrorKind, Write};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{Figures, KEPT_A_WORKER, NOISE, growth, source};
use crate::support::{
    BINARY, Client, FIN, KIB, Life, MIB, PING, Server, WAIT, as_user, frame, header, wait_until,
    with_environment_of,
};

/// What bounds the server's memory.
#[derive(Debug, Clone, Copy)]
pub enum Scarcity {
    /// The key `memory_max`, in bytes.
    Key(usize),
    /// The limit on its address space, in bytes; four times what connections may hold.
    AddressSpace(usize),
}

impl Scarcity {
    fn server(self) -> (Server, usize) {
        match self {
            Self::Key(max) => (Server::start(&format!("workers = 2\nmemory_max = {max}\n")), max),
            Self::AddressSpace(bytes) => {
                let server = Server::start_by(Life::ALONE, "workers = 2\n", |house, command| {
                    let mut limited = Command::new("prlimit");
                    limited.arg(format!("--as={bytes}")).arg("--").arg(command.get_program());
                    limited.args(command.get_args());
                    as_user(Life::ALONE, with_environment_of(limited, &command), house)
                });
                (server, bytes / 4)
            }
        }
    }
}

/// The message that is never finished: all but its last byte arrives.
const HOARD: usize = MIB;

/// What waits at an attacker's end. The kernel bounds what all TCP sockets of a machine hold
/// (net.ipv4.tcp_mem), attackers on another machine do not count towards that, and beyond it segments
/// of everybody are dropped and sent again ever later: it is the server's bound that is tried here.
const SEND_BUFFER: usize = 64 * KIB;

/// What an upload sends ten times a second: 100 KiB/s.
const PIECE: usize = 10 * KIB;

/// Those who talk while memory is scarce.
const TALKERS: usize = 45;
const UPLOADERS: usize = 5;

struct Hoarder {
    client: Client,
    sent: usize,
}

impl Hoarder {
    fn new(server: &Server, index: usize) -> Self {
        let mut client = server.connect_from(source(index)).expect("an accepted connection");
        client.upgrade("/echo", "");
        client.stream.set_nonblocking(true).expect("a socket");
        SockRef::from(&client.stream).set_send_buffer_size(SEND_BUFFER).expect("a socket");
        Self { client, sent: 0 }
    }

    /// Sends what the socket takes of `bytes`; whether the connection is still there.
    fn push(&mut self, bytes: &[u8]) -> bool {
        match self.client.stream.write(&bytes[self.sent..]) {
            Ok(len) => self.sent += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        true
    }

    /// The code of the Close that has come, if one has. Pings stay unanswered: the first byte of a
    /// pong would be the last one of the message.
    fn close_code(mut self) -> Option<u16> {
        self.client.stream.set_nonblocking(false).ok()?;
        self.client.stream.set_read_timeout(Some(Duration::from_millis(1))).ok()?;
        loop {
            match self.client.try_any_frame().ok()?? {
                ping if ping.opcode == PING => {}
                other => return other.close_code(),
            }
        }
    }
}

/// One message of so many bytes at 100 KiB/s, and its echo.
fn upload(mut client: Client, bytes: usize) -> Client {
    let payload = vec![b'u'; bytes];
    for piece in frame(FIN | BINARY, &payload).chunks(PIECE) {
        if let Err(error) = client.stream.write_all(piece) {
            panic!("{error}: the server said {:?}", client.try_any_frame());
        }
        thread::sleep(Duration::from_millis(100));
    }
    let echo = client.frame();
    assert!(echo.opcode == BINARY && echo.payload == payload, "the upload came back");
    client
}

/// How the server says that it has closed some.
const REACHED: &str = "memory_max is reached";

/// `count` connections hold all but the last byte of 1 MiB each, `waves` times, while 45 clients
/// talk and 5 upload `upload_bytes` each. All 50 are served, memory stays within its bound, and
/// goes back to the system afterwards.
pub fn hoarders(count: usize, waves: usize, scarcity: Scarcity, upload_bytes: usize) -> Figures {
    let (server, max) = scarcity.server();
    let is_too_much = count * waves * HOARD >= 2 * max;
    let mut talkers: Vec<Client> = (0..TALKERS).map(|_| server.open("/echo")).collect();
    let uploaders: Vec<Client> = (0..UPLOADERS).map(|_| server.open("/echo")).collect();
    let before = server.memory();
    let done = AtomicBool::new(false);
    let (mut peak, mut slowest, mut rounds) = (0, Duration::ZERO, 0);
    let mut codes = Vec::new();
    let message = [header(FIN | BINARY, HOARD as u64), vec![b'h'; HOARD - 1]].concat();
    thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let mut closed = Vec::new();
            for _ in 0..waves {
                let mut hoarders: Vec<Hoarder> =
                    (0..count).map(|index| Hoarder::new(&server, index)).collect();
                // Until each has sent everything, or has been closed for it.
                let until = Instant::now() + 4 * WAIT;
                while hoarders.iter().any(|hoarder| hoarder.sent < message.len()) {
                    let gone = hoarders.extract_if(.., |hoarder| !hoarder.push(&message));
                    closed.extend(gone.map(Hoarder::close_code));
                    assert!(Instant::now() < until, "the attackers are stuck");
                    thread::sleep(Duration::from_millis(5));
                }
                // Those who hold it do so as long as they are let: until everybody is served, and, if
                // it is too much, until the server, which may be slow, has come to do something.
                let goes_on = || {
                    (waves == 1 && !done.load(Ordering::Relaxed))
                        || (is_too_much
                            && !server.log().contains(REACHED)
                            && Instant::now() < until)
                };
                while goes_on() {
                    thread::sleep(Duration::from_millis(20));
                }
                closed.extend(hoarders.into_iter().map(Hoarder::close_code));
            }
            closed
        });
        let uploads: Vec<_> = uploaders
            .into_iter()
            .map(|client| scope.spawn(move || upload(client, upload_bytes)))
            .collect();
        while !uploads.iter().all(|upload| upload.is_finished())
            || (waves > 1 && !attack.is_finished())
        {
            for talker in &mut talkers {
                let asked = Instant::now();
                talker.assert_echo("while memory is scarce");
                slowest = slowest.max(asked.elapsed());
            }
            rounds += 1;
            peak = peak.max(growth(&server, before));
            thread::sleep(Duration::from_millis(20));
        }
        done.store(true, Ordering::Relaxed);
        for upload in uploads {
            upload.join().expect("an upload that was served").close(1000);
        }
        codes = attack.join().expect("attackers");
    });
    for talker in &mut talkers {
        talker.assert_echo("after it");
        talker.close(1000);
    }
    drop(talkers);
    let closed = codes.iter().flatten().filter(|code| **code == 1008).count();
    assert!(codes.iter().flatten().all(|code| *code == 1008), "{codes:?}");
    assert!(!is_too_much || closed > 0, "nobody was closed");
    server.expect_log(REACHED);
    // Beyond the limit by a quarter, by as much for the allocator's holes, and by what each of the
    // workers reads and keeps at a time.
    let bound = max + max / 2 + 2 * (KEPT_A_WORKER + 8 * MIB) + NOISE;
    assert!(peak <= bound, "{peak} bytes while {max} were allowed");
    server.assert_healthy();
    // When it was started by `start_by` somebody was asking for its status.
    wait_until("descriptors that are let go of", || server.fds() <= server.fds_base());
    server.wait_idle();
    let ended = Instant::now();
    let rest = before + before / 5 + 32 * MIB;
    wait_until("memory that went back to the system", || server.memory() <= rest);
    let mut figures = Figures::new();
    figures.add("attackers", count * waves);
    figures.add("closed with 1008 as far as they heard it", closed);
    figures.memory("memory_max", max);
    figures.memory("memory before", before);
    figures.memory("memory at the peak, beyond that", peak);
    figures.memory("memory at the end", server.memory());
    figures.add("seconds until then", format!("{:.1}", ended.elapsed().as_secs_f64()));
    figures.add("rounds of 45 echoes", rounds);
    figures.add("slowest echo in ms", slowest.as_millis());
    figures
}
