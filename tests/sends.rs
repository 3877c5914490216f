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
    what_was_accepted_arrives_once_and_in_order();
    println!("test {NAME} ... ok");
    support::remove_scratch();
    ExitCode::SUCCESS
}

/// Hands its connections to a thread that sends to them.
struct Numbered {
    numberer: Sender<Handle>,
}

impl App for Numbered {
    type State = Handle;

    fn handshake(&mut self, _: &Request<'_>, handle: &Handle) -> Decision<Handle> {
        Decision::Accept(handle.clone())
    }

    fn open(&mut self, _: &mut Conn<'_>, handle: &mut Handle) {
        let _ = self.numberer.send(handle.clone());
    }

    fn message(&mut self, _: &mut Conn<'_>, _: &mut Handle, _: Message<'_>) {}

    fn save(&self, _: &Handle, _: &mut Writer) -> Result<(), NotMovable> {
        Ok(())
    }

    fn load(&mut self, handle: &Handle, _: &mut Reader<'_>) -> Result<Handle, SnapshotError> {
        let _ = self.numberer.send(handle.clone());
        Ok(handle.clone())
    }
}

fn start_numbering() -> Sender<Handle> {
    let (sender, handles) = mpsc::channel();
    thread::spawn(move || number(&handles));
    sender
}

/// Sends `process connection number` to each connection, counting from 0, until it has moved.
fn number(handles: &Receiver<Handle>) {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("set by the test"));
    let mut targets: Vec<(Handle, File, u64)> = Vec::new();
    loop {
        loop {
            match handles.try_recv() {
                Ok(handle) => {
                    let path = folder.join(format!("{}-{}", process::id(), handle.id()));
                    targets.push((handle, File::create(path).expect("a new file"), 0));
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        targets.retain_mut(|(handle, accepted, next)| {
            match handle.send(format!("{} {} {next}", process::id(), handle.id())) {
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

/// What a client has heard: how many messages of each connection of each process.
#[derive(Default)]
struct Heard(BTreeMap<String, u64>);

impl Heard {
    /// Takes a message; returns which process has sent it.
    fn take(&mut self, client: &mut Client) -> u32 {
        let frame = client.frame();
        let (from, number) = frame.text().rsplit_once(' ').expect("three words");
        let (process, connection) = from.split_once(' ').expect("three words");
        let next = self.0.entry(format!("{process}-{connection}")).or_default();
        assert_eq!(number.parse(), Ok(*next), "after {next} messages of {from}");
        *next += 1;
        process.parse().expect("a process id")
    }
}

fn what_was_accepted_arrives_once_and_in_order() {
    let folder = support::fresh_path(".accepted");
    fs::create_dir(&folder).expect("a new folder");
    let mut server = Server::start_by(Life::ALONE, "workers = 2\n", |house, command| {
        let program = std::env::current_exe().expect("a running program has a path");
        let mut own = Command::new(program);
        own.args(command.get_args()).env(FOLDER, &folder);
        as_user(Life::ALONE, with_environment_of(own, &command), house)
    });
    let mut clients: Vec<(Client, Heard)> =
        (0..CLIENTS).map(|_| (server.open("/numbers"), Heard::default())).collect();
    let mut processes = vec![server.pid()];
    for _ in 0..UPGRADES {
        // Each has heard the present process, and hears it when it is replaced.
        for (client, heard) in &mut clients {
            while heard.take(client) != server.pid() {}
        }
        server.upgrade();
        processes.push(server.pid());
    }
    for (client, heard) in &mut clients {
        while heard.take(client) != server.pid() {}
    }
    for process in &processes[..UPGRADES] {
        let accepted = accepted_by(*process, &folder);
        assert_eq!(accepted.len(), CLIENTS, "connections of {process}");
        for (name, accepted) in accepted {
            let heard = clients.iter().find_map(|(_, heard)| heard.0.get(&name)).copied();
            // It may have ended between a send and its count.
            let heard = heard.unwrap_or(0);
            assert!(heard == accepted || heard == accepted + 1, "{name}: {heard} of {accepted}");
        }
    }
    let errors = fs::read_to_string(folder.join("errors")).unwrap_or_default();
    assert!(errors.lines().all(|error| error == "Moved"), "{errors}");
}

/// How many messages were accepted for each connection of a process.
fn accepted_by(process: u32, folder: &Path) -> Vec<(String, u64)> {
    let prefix = format!("{process}-");
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("an entry"));
    let named = files.map(|file| (file.file_name().into_string().expect("UTF-8"), file.path()));
    let own = named.filter(|(name, _)| name.starts_with(&prefix));
    own.map(|(name, path)| {
        let bytes = fs::read(path).expect("a file").try_into().unwrap_or_default();
        (name, u64::from_le_bytes(bytes))
    })
    .collect()
}
