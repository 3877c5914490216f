//! What threads of an app's own send while its process is replaced: nothing that was accepted is
//! lost, and nothing is accepted that goes nowhere.
//!
//! The program of this test is its server as well, so it has no harness: with a verb of `steadfast` it
//! is one, with an app of its own.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode};
use std::sync::LazyLock;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

use steadfast::app::{
    App, Conn, Decision, Handle, Message, NotMovable, Reader, Request, SnapshotError,
    Undeliverable, Writer,
};
use steadfast::server::Server as Builder;
use support::{Client, Life, Server, as_user, with_environment_of};

/// Where the processes tell what was accepted.
const FOLDER: &str = "SENDS_TEST_FOLDER";

const CLIENTS: usize = 16;
const UPGRADES: usize = 8;

fn main() -> ExitCode {
    let verbs = ["serve", "check-config"];
    if std::env::args().nth(1).is_some_and(|verb| verbs.contains(&&*verb)) {
        let numberer = LazyLock::new(start_numbering);
        let app = move || Numbered { numberer: Sender::clone(&numberer) };
        return Builder::builder()
            .app("numbered", app)
            .route("/numbers", "numbered")
            .run_from_args();
    }
    const NAME: &str = "what_was_accepted_arrives_once_and_in_order";
    if std::env::args().skip(1).any(|word| !word.starts_with('-') && !NAME.contains(&word)) {
        return ExitCode::SUCCESS;
    }
    for life in [Life::ALONE, Life::SUPERVISED] {
        what_was_accepted_arrives_once_and_in_order(life);
    }
    println!("test {NAME} ... ok");
    support::remove_scratch();
    ExitCode::SUCCESS
}

/// How a connection is reached.
#[derive(Clone, Copy)]
enum Way {
    /// Itself.
    Handle,
    /// By a room that it alone is in.
    Room,
}

/// Hands its connections to a thread that sends to them.
struct Numbered {
    numberer: Sender<(Handle, Way)>,
}

impl App for Numbered {
    type State = Handle;

    fn handshake(&mut self, _: &Request<'_>, handle: &Handle) -> Decision<Handle> {
        Decision::Accept(handle.clone())
    }

    fn open(&mut self, conn: &mut Conn<'_>, handle: &mut Handle) {
        conn.join(&room(handle)).expect("a short name");
        let _ = self.numberer.send((handle.clone(), Way::Handle));
    }

    /// The client has heard us, so the room's home knows of its member.
    fn message(&mut self, _: &mut Conn<'_>, handle: &mut Handle, _: Message<'_>) {
        let _ = self.numberer.send((handle.clone(), Way::Room));
    }

    fn save(&self, _: &Handle, _: &mut Writer) -> Result<(), NotMovable> {
        Ok(())
    }

    fn load(&mut self, handle: &Handle, _: &mut Reader<'_>) -> Result<Handle, SnapshotError> {
        for way in [Way::Handle, Way::Room] {
            let _ = self.numberer.send((handle.clone(), way));
        }
        Ok(handle.clone())
    }
}

fn room(handle: &Handle) -> String {
    format!("room-{}", handle.id())
}

/// What is numbered, from 0.
struct Numbers {
    handle: Handle,
    way: Way,
    /// Begins every message.
    name: String,
    next: u64,
    /// `next`, for the test.
    accepted: File,
}

fn start_numbering() -> Sender<(Handle, Way)> {
    let (sender, handles) = mpsc::channel();
    thread::spawn(move || number(&handles));
    sender
}

/// Sends `process connection-way number` to each connection in each way, until it has moved.
fn number(handles: &Receiver<(Handle, Way)>) {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("set by the test"));
    let mut all: Vec<Numbers> = Vec::new();
    loop {
        loop {
            match handles.try_recv() {
                Ok((handle, way)) => {
                    let way_name = if matches!(way, Way::Room) { "room" } else { "handle" };
                    let name = format!("{} {}-{way_name}", process::id(), handle.id());
                    let accepted = File::create(folder.join(&name)).expect("a new file");
                    all.push(Numbers { handle, way, name, next: 0, accepted });
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        all.retain_mut(|Numbers { handle, way, name, next, accepted }| {
            let message = format!("{name} {next}");
            let sent = match way {
                Way::Handle => handle.send(message),
                Way::Room => handle.publish(&room(handle), message),
            };
            match sent {
                Ok(()) => {
                    *next += 1;
                    accepted.write_all_at(&next.to_le_bytes(), 0).expect("written");
                    true
                }
                Err(Undeliverable::Full) => true,
                Err(error) => {
                    let path = folder.join("errors");
                    let mut file = File::options().append(true).create(true).open(path).unwrap();
                    writeln!(file, "{error:?}").expect("written");
                    false
                }
            }
        });
        thread::sleep(Duration::from_micros(200));
    }
}

/// What a client has heard: how many messages of each name.
#[derive(Default)]
struct Heard(BTreeMap<String, u64>);

impl Heard {
    /// Takes a message; returns which process has sent it.
    fn take(&mut self, client: &mut Client) -> u32 {
        let frame = client.frame();
        let (name, number) = frame.text().rsplit_once(' ').expect("three words");
        let next = self.0.entry(name.to_owned()).or_default();
        assert_eq!(number.parse(), Ok(*next), "after {next} messages of {name}");
        *next += 1;
        let (process, _) = name.split_once(' ').expect("three words");
        process.parse().expect("a process id")
    }

    /// Whether a process was heard by the handle and by the room.
    fn has_both(&self, process: u32) -> bool {
        let of = format!("{process} ");
        self.0.keys().filter(|name| name.starts_with(&of)).count() == 2
    }
}

fn what_was_accepted_arrives_once_and_in_order(life: Life) {
    let folder = support::fresh_path(".accepted");
    fs::create_dir(&folder).expect("a new folder");
    let mut server = Server::start_by(life, "workers = 2\n", |house, command| {
        let program = std::env::current_exe().expect("a running program has a path");
        let mut own = Command::new(program);
        own.args(command.get_args()).env(FOLDER, &folder);
        as_user(life, with_environment_of(own, &command), house)
    });
    let mut clients: Vec<(Client, Heard)> =
        (0..CLIENTS).map(|_| (server.open("/numbers"), Heard::default())).collect();
    for (client, heard) in &mut clients {
        heard.take(client);
        client.send_text("by the room, too");
    }
    let mut processes = vec![server.pid()];
    for _ in 0..UPGRADES {
        // Each has heard the present process in each way, and hears it when it is replaced.
        for (client, heard) in &mut clients {
            while !heard.has_both(server.pid()) {
                heard.take(client);
            }
        }
        server.upgrade();
        processes.push(server.pid());
    }
    for (client, heard) in &mut clients {
        while heard.take(client) != server.pid() {}
    }
    for process in &processes[..UPGRADES] {
        let accepted = accepted_by(*process, &folder);
        assert_eq!(accepted.len(), 2 * CLIENTS, "names of {process}");
        for (name, accepted) in accepted {
            let heard = clients.iter().find_map(|(_, heard)| heard.0.get(&name)).copied();
            // It may have ended between a send and its count.
            let heard = heard.unwrap_or(0);
            assert!(heard == accepted || heard == accepted + 1, "{name}: {heard} of {accepted}");
        }
    }
    let errors = fs::read_to_string(folder.join("errors")).unwrap_or_default();
    assert!(!errors.is_empty(), "nobody has tried after an upgrade");
    assert!(errors.lines().all(|error| error == "Moved"), "{errors}");
}

/// How many messages were accepted for each name of a process.
fn accepted_by(process: u32, folder: &Path) -> Vec<(String, u64)> {
    let prefix = format!("{process} ");
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("an entry"));
    let named = files.map(|file| (file.file_name().into_string().expect("UTF-8"), file.path()));
    let own = named.filter(|(name, _)| name.starts_with(&prefix));
    own.map(|(name, path)| {
        let bytes = fs::read(path).expect("a file").try_into().unwrap_or_default();
        (name, u64::from_le_bytes(bytes))
    })
    .collect()
}
