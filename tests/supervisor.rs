//! The supervisor as a process, with servers that do nothing but talk to it: this test's own
//! program, started again in other roles.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{self, Child};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use steadfast::supervisor::{self, Ending, Link, LinkEvent, Order, Role};
use steadfast::sys::packets::{self, Received};
use steadfast::sys::poll::wait_readable;
use steadfast::sys::signals::{Signal, Signals};
use steadfast::sys::spawn::Program;
use steadfast::sys::{children, process as own};

/// Where the processes of one test tell what they do. Without it, `role` is no test.
const FOLDER: &str = "SUPERVISOR_TEST_FOLDER";

/// The status a server ends with before it serves.
const FAIL: &str = "SUPERVISOR_TEST_FAIL";

/// With it a server goes on draining until it is to end at once.
const DRAINS: &str = "SUPERVISOR_TEST_DRAINS";

/// What the other processes are.
#[test]
fn role() {
    if env::var_os(FOLDER).is_none() {
        return;
    }
    let arguments = env::args_os().collect();
    let status = match Role::take().unwrap() {
        Role::Outermost => supervisor::begin(arguments).unwrap(),
        Role::Supervisor(state) => {
            tell(&format!("resumed {}", process::id()));
            supervisor::resume(*state, arguments).unwrap()
        }
        Role::Probe { can } => u8::from(!can),
        Role::Server(link) => serve(&link, None),
        Role::Successor { link, channel } => serve(&link, Some(channel)),
    };
    process::exit(status.into());
}

/// Appends a line to what is known.
fn tell(text: &str) {
    let path = PathBuf::from(env::var_os(FOLDER).unwrap()).join("told");
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// A server: the first of them listens, the others have what it has left or gives them.
fn serve(link: &Link, predecessor: Option<OwnedFd>) -> u8 {
    if let Ok(status) = env::var(FAIL) {
        return status.parse().unwrap();
    }
    let signals = Signals::take_over().unwrap();
    let mut start = link.start().unwrap();
    let kept = start.kept.len();
    let listener = match (start.kept.pop(), &predecessor) {
        (Some(kept), _) => {
            assert_eq!(kept.label, "the one");
            kept.fd
        }
        (None, Some(channel)) => receive_listener(channel),
        (None, None) => TcpListener::bind("127.0.0.1:0").unwrap().into(),
    };
    link.keep(&[("the one", listener.as_fd())]).unwrap();
    link.serving().unwrap();
    let port = TcpListener::from(listener.try_clone().unwrap()).local_addr().unwrap().port();
    let (pid, generation) = (process::id(), start.generation);
    tell(&format!("serving {pid} generation {generation} kept {kept} port {port}"));
    if let Some(channel) = predecessor {
        packets::send(&channel, b"taken", &[], true).unwrap();
    }
    live(link, &signals, &listener)
}

fn receive_listener(channel: &OwnedFd) -> OwnedFd {
    let mut fds = Vec::new();
    let received = packets::receive(channel, &mut [0; 16], &mut fds, None).unwrap();
    assert_eq!(received, Received::Packet(8));
    fds.pop().unwrap()
}

/// Obeys signals and the supervisor until one of them ends it.
fn live(link: &Link, signals: &Signals, listener: &OwnedFd) -> u8 {
    let mut is_alone = false;
    loop {
        let both = [signals.as_fd(), link.as_fd()];
        wait_readable(if is_alone { &both[..1] } else { &both }, None).unwrap();
        match signals.read().unwrap() {
            // Nobody else sends any to a server that has a supervisor.
            Some(Signal::Term) if is_alone => {
                tell("term");
                return 0;
            }
            Some(signal) => tell(&format!("{signal:?}")),
            None => {}
        }
        match link.receive(Duration::ZERO).unwrap() {
            Some(LinkEvent::Successor { channel, .. }) => {
                packets::send(&channel, b"listener", &[listener.as_fd()], true).unwrap();
                let mut buffer = [0; 16];
                let taken = packets::receive(&channel, &mut buffer, &mut Vec::new(), None).unwrap();
                assert_eq!(taken, Received::Packet(5));
                return 0;
            }
            Some(LinkEvent::Failed(why)) => tell(&format!("failed: {why}")),
            Some(LinkEvent::Order(Order::Upgrade)) => {
                tell("upgrade");
                link.start_successor(None).unwrap();
            }
            Some(LinkEvent::Order(Order::End(ending))) => {
                tell(&format!("{ending:?}"));
                if ending == Ending::Fast || env::var_os(DRAINS).is_none() {
                    return 0;
                }
            }
            Some(LinkEvent::Ended) if !is_alone => {
                is_alone = true;
                tell("alone");
            }
            Some(LinkEvent::Ended) | None => {}
        }
    }
}

/// A supervisor and what its processes tell. Ends all of them.
struct Test {
    folder: PathBuf,
    supervisor: Child,
}

/// A line that says that a server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Serving {
    pid: u32,
    generation: u64,
    kept: usize,
    port: u16,
}

impl Test {
    fn begin(environment: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("steadfast-supervisor-{}-{count}", process::id());
        let folder = env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        File::create(folder.join("told")).unwrap();
        let path = env::current_exe().unwrap();
        let arguments = ["--exact", "role", "--nocapture", "--test-threads=1"];
        let arguments = [path.clone().into_os_string()]
            .into_iter()
            .chain(arguments.map(Into::into))
            .collect::<Vec<_>>();
        let environment = [(FOLDER, folder.to_str().unwrap())]
            .into_iter()
            .chain(environment.iter().copied())
            .map(|(name, value)| (name.into(), value.into()))
            .collect::<Vec<_>>();
        // It starts with the signals blocked, as the test harness starts threads before the test.
        let program = Program {
            path: &path,
            arguments: &arguments,
            environment: &environment,
            descriptors: &[],
            own_group: true,
        };
        Self { supervisor: program.start().unwrap(), folder }
    }

    fn pid(&self) -> u32 {
        self.supervisor.id()
    }

    fn told(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("told")).unwrap();
        // The last line may not be whole yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    fn servings(&self) -> Vec<Serving> {
        let told = self.told();
        let lines = told.iter().filter(|line| line.starts_with("serving "));
        lines.map(|line| parse(line)).collect()
    }

    /// Waits for the server of this number, from 1.
    #[track_caller]
    fn wait_for_server(&self, number: usize) -> Serving {
        self.wait_until(&format!("server {number} serves"), |test| test.servings().len() >= number);
        self.servings()[number - 1]
    }

    #[track_caller]
    fn wait_for_line(&self, line: &str) {
        self.wait_until(line, |test| test.told().iter().any(|told| told == line));
    }

    #[track_caller]
    fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            let told = self.told();
            assert!(start.elapsed() < Duration::from_secs(60), "{what}: {told:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn signal(&self, signal: Signal) {
        children::send(self.pid(), signal).unwrap();
    }

    /// Waits for the supervisor's end.
    #[track_caller]
    fn status(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.supervisor.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < Duration::from_secs(60), "it does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        if let Ok(None) = self.supervisor.try_wait() {
            // It is not reaped: the number is still its own. Its servers' are, too.
            let _ = self.supervisor.kill();
            let _ = self.supervisor.wait();
        }
        for Serving { pid, .. } in self.servings() {
            if is_ours(pid) {
                let _ = children::kill(pid);
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn parse(line: &str) -> Serving {
    let words: Vec<&str> = line.split(' ').collect();
    Serving {
        pid: words[1].parse().unwrap(),
        generation: words[3].parse().unwrap(),
        kept: words[5].parse().unwrap(),
        port: words[7].parse().unwrap(),
    }
}

/// Whether this process lives and runs this program: numbers are used again.
fn is_ours(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).ok() == env::current_exe().ok()
}

/// The process group of a process (proc(5)).
fn group(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').nth(2).unwrap().to_owned()
}

#[test]
fn a_crashed_server_is_replaced_and_nobody_is_refused_meanwhile() {
    let mut test = Test::begin(&[]);
    let first = test.wait_for_server(1);
    assert_eq!((first.generation, first.kept), (1, 0));
    let mut last = first;
    for number in 2..5 {
        let killed_at = Instant::now();
        children::kill(last.pid).unwrap();
        // These servers accept nothing: there is room for some in the listener's queue.
        test.wait_until("it is gone", |_| !is_ours(last.pid));
        TcpStream::connect(("127.0.0.1", first.port)).unwrap();
        last = test.wait_for_server(number);
        TcpStream::connect(("127.0.0.1", first.port)).unwrap();
        let expected = Serving { generation: number as u64, kept: 1, ..first };
        assert_eq!(Serving { pid: first.pid, ..last }, expected);
        // 50 ms, 100 ms, 200 ms.
        let delay = supervisor::machine::RESTART_DELAY_MIN * (1 << (number - 2));
        assert!(killed_at.elapsed() >= delay, "{:?}", killed_at.elapsed());
    }
    test.signal(Signal::Term);
    assert_eq!(test.status(), Some(0));
    assert!(TcpStream::connect(("127.0.0.1", first.port)).is_err(), "all copies are closed");
}

#[test]
fn signals_become_orders_and_a_second_term_hastens() {
    for second in [Signal::Term, Signal::Int] {
        let mut test = Test::begin(&[(DRAINS, "1")]);
        let server = test.wait_for_server(1);
        assert_ne!(group(server.pid), group(test.pid()), "Ctrl-C goes to a group");
        test.signal(Signal::Term);
        test.wait_for_line("Drain");
        test.signal(second);
        test.wait_for_line("Fast");
        assert_eq!(test.status(), Some(0));
        assert!(!is_ours(server.pid));
        let told = test.told();
        assert_eq!(told[1..], ["Drain", "Fast"], "no signals");
    }
}

#[test]
fn after_an_upgrade_the_supervisor_is_the_new_program_under_its_old_number() {
    let mut test = Test::begin(&[]);
    let first = test.wait_for_server(1);
    for number in 2..4 {
        test.signal(Signal::Hup);
        let next = test.wait_for_server(number);
        assert_eq!((next.generation, next.kept, next.port), (number as u64, 0, first.port));
        let line = format!("resumed {}", test.pid());
        let count = |test: &Test| test.told().iter().filter(|told| **told == line).count();
        test.wait_until(&line, |test| count(test) == number - 1);
    }
    let servings = test.servings();
    for old in &servings[..2] {
        test.wait_until("the predecessor has ended", |_| !is_ours(old.pid));
    }
    // It has kept its children and their listener.
    children::kill(servings[2].pid).unwrap();
    let restarted = test.wait_for_server(4);
    assert_eq!((restarted.generation, restarted.kept, restarted.port), (4, 1, first.port));
    test.signal(Signal::Term);
    assert_eq!(test.status(), Some(0));
    assert!(!is_ours(restarted.pid));
}

#[test]
fn a_server_goes_on_without_its_supervisor() {
    let mut test = Test::begin(&[]);
    let server = test.wait_for_server(1);
    test.supervisor.kill().unwrap();
    assert_eq!(test.status(), None);
    test.wait_for_line("alone");
    assert!(is_ours(server.pid));
    children::send(server.pid, Signal::Term).unwrap();
    test.wait_for_line("term");
}

#[test]
fn a_server_that_cannot_begin_says_so_by_its_status() {
    let mut test = Test::begin(&[(FAIL, "2")]);
    assert_eq!(test.status(), Some(2));
}

#[test]
fn the_service_manager_is_told() {
    let name = format!("steadfast-notified-{}-{}", process::id(), own::user_id());
    let path = env::temp_dir().join(name);
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let receive = || {
        let mut buffer = [0; 200];
        let count = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    };
    let mut test = Test::begin(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(receive(), "READY=1");
    test.signal(Signal::Hup);
    assert!(receive().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(receive(), "READY=1");
    test.wait_for_line(&format!("resumed {}", test.pid()));
    test.signal(Signal::Term);
    assert_eq!(receive(), "STOPPING=1");
    assert_eq!(test.status(), Some(0));
    fs::remove_file(path).unwrap();
}
