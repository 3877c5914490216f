//! Visitors who come all the time, while a server drains and ends: alone, or with another one
//! alongside.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Figures;
use crate::support::{
    CLOSE, Client, FIN, Life, Server, WAIT, as_user, fresh_path, kill, request, steadfast,
    wait_until,
};

/// Visitors at a time.
const VISITORS: usize = 8;

/// Those who are there when the drain begins.
const MEMBERS: usize = 20;

const CONFIG: &str = "workers = 2\ndrain_duration = \"300ms\"\n";

/// What visitors have met with.
#[derive(Debug, Default)]
struct Visits {
    accepted: usize,
    /// Told by 503 to come again.
    asked_again: usize,
    refused: usize,
    /// All else: a reset, an answer that is none.
    faults: Vec<String>,
    slowest: Duration,
}

/// `drains` times, a server with `MEMBERS` connections is told to end while visitors come. None of
/// them may be reset, or answered by anything but 101 and 503; with a server `alongside` none may be
/// refused.
pub fn drains(drains: usize, life: Life, alongside: bool) -> Figures {
    let mut all = Visits::default();
    for _ in 0..drains {
        let visits = drain(life, alongside);
        assert_eq!(visits.faults, [""; 0], "{visits:?}");
        if alongside {
            assert_eq!(visits.refused, 0, "{visits:?}");
        } else {
            assert!(visits.asked_again > 0 && visits.refused > 0, "{visits:?}");
        }
        all.accepted += visits.accepted;
        all.asked_again += visits.asked_again;
        all.refused += visits.refused;
        all.slowest = all.slowest.max(visits.slowest);
    }
    let mut figures = Figures::new();
    figures.add("drains", drains);
    figures.add("visitors accepted", all.accepted);
    figures.add("visitors told by 503 to come again", all.asked_again);
    figures.add("visitors refused", all.refused);
    figures.add("visitors reset", all.faults.len());
    figures.add("longest wait for an answer in ms", all.slowest.as_millis());
    figures
}

fn drain(life: Life, alongside: bool) -> Visits {
    let mut server = Server::start_living(life, CONFIG, &[]);
    let members: Vec<Client> = (0..MEMBERS).map(|_| server.open("/echo")).collect();
    let beside = alongside.then(|| Beside::start(life, &server));
    let (address, stop) = (server.address, AtomicBool::new(false));
    thread::scope(|scope| {
        let visitors: Vec<_> = (0..VISITORS)
            .map(|_| {
                let (stop, mut visits) = (&stop, Visits::default());
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        visit(address, &mut visits);
                    }
                    visits
                })
            })
            .collect();
        server.signal("TERM");
        let members = members.into_iter().map(|mut member| {
            scope.spawn(move || {
                assert_eq!(member.frame().close_code(), Some(1012));
                member.send(FIN | CLOSE, &1012_u16.to_be_bytes());
                member.expect_end();
            })
        });
        for member in members.collect::<Vec<_>>() {
            member.join().expect("a member that was told");
        }
        assert_eq!(server.exit_status(), Some(0), "{}", server.log());
        // Whoever is on his way at the very end has arrived, and those who come later see what is left.
        thread::sleep(Duration::from_millis(50));
        stop.store(true, Ordering::Relaxed);
        let mut all = Visits::default();
        for visits in visitors.into_iter().map(|visitor| visitor.join().expect("a visitor")) {
            all.accepted += visits.accepted;
            all.asked_again += visits.asked_again;
            all.refused += visits.refused;
            all.faults.extend(visits.faults);
            all.slowest = all.slowest.max(visits.slowest);
        }
        drop(beside);
        all
    })
}

fn visit(address: SocketAddr, visits: &mut Visits) {
    let begun = Instant::now();
    match answer(address).as_deref() {
        Ok(head) if head.starts_with("HTTP/1.1 101 ") => visits.accepted += 1,
        Ok(head) if head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nRetry-After: ") => {
            visits.asked_again += 1;
        }
        Ok(head) => visits.faults.push(head.to_owned()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            visits.refused += 1;
            // So that the others get the processor.
            thread::sleep(Duration::from_millis(1));
        }
        Err(error) => visits.faults.push(error.to_string()),
    }
    visits.slowest = visits.slowest.max(begun.elapsed());
}

/// The head of the answer to a handshake.
fn answer(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.write_all(request("/echo", "").as_bytes())?;
    let (mut head, mut bytes) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            len => head.extend_from_slice(&bytes[..len]),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A server that shares another one's address; it ends with this.
struct Beside(Child);

impl Beside {
    fn start(life: Life, server: &Server) -> Self {
        let log = fresh_path(".log");
        let mut command = steadfast();
        command.args(["serve", "--no-supervisor", "--alongside", "--workers", "2"]);
        command.args(["--listen", &server.address.to_string()]);
        command.env("XDG_RUNTIME_DIR", server.house().folder());
        let child = as_user(life, command, server.house())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("the binary starts");
        wait_until("a server alongside", || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("steadfast serves"))
        });
        Self(child)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        kill(self.0.id(), "KILL");
        let _: io::Result<_> = self.0.wait();
    }
}
