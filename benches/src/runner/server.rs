//! The servers that are compared: how each is started and stopped.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::Processes;
use crate::sys;

/// Time for a server to listen after its start, and to end after it was told to.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server under measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The subject.
    Steadfast,
    /// The subject, under the load of a scenario but with each message in one frame.
    SteadfastOneFrame,
    /// tokio-tungstenite, each reply sent alone: what the targets compare with.
    Tungstenite,
    /// tokio-tungstenite, one flush a batch.
    TungsteniteBatch,
    /// fastwebsockets behind hyper.
    Fastwebsockets,
    /// A room server on tokio-tungstenite.
    Rooms,
}

impl Kind {
    /// Whether it is the subject.
    pub fn is_steadfast(self) -> bool {
        matches!(self, Self::Steadfast | Self::SteadfastOneFrame)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Steadfast => "steadfast",
            Self::SteadfastOneFrame => "steadfast, in one frame",
            Self::Tungstenite => "tokio-tungstenite",
            Self::TungsteniteBatch => "tokio-tungstenite, batching",
            Self::Fastwebsockets => "fastwebsockets",
            Self::Rooms => "room on tokio-tungstenite",
        })
    }
}

/// Where the programs are and where they run.
#[derive(Debug, Clone)]
pub struct Places {
    /// The steadfast binary; `None` measures the peers alone.
    pub steadfast: Option<PathBuf>,
    /// Folder of the peers and the load client.
    pub programs: PathBuf,
    /// Core of the server.
    pub server_core: usize,
    /// Core of the load client.
    pub load_core: usize,
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    child: Child,
    log: File,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server and waits until it accepts connections.
    pub fn start(kind: Kind, places: &Places) -> Result<Self> {
        let program = match kind {
            Kind::Steadfast | Kind::SteadfastOneFrame => {
                places.steadfast.clone().context("no steadfast binary")?
            }
            Kind::Tungstenite => places.programs.join("peer-tungstenite"),
            Kind::TungsteniteBatch => places.programs.join("peer-tungstenite-batch"),
            Kind::Fastwebsockets => places.programs.join("peer-fastwebsockets"),
            Kind::Rooms => places.programs.join("peer-rooms"),
        };
        // What it logs is shown if it fails.
        let log = nameless_file()?;
        let mut command = Command::new(&program);
        command.stdin(Stdio::null()).stderr(log.try_clone()?);
        sys::confine(&mut command, places.server_core);

        if kind.is_steadfast() {
            let port = free_port()?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            command.args([
                "serve",
                "--no-supervisor",
                "--workers",
                "1",
                "--listen",
                &address.to_string(),
            ]);
            command.stdout(log.try_clone()?);
            let child = spawn(&mut command, &program)?;
            let mut server = Self { kind, child, log, address };
            server.await_listening()?;
            return Ok(server);
        }

        command.args(["--port", "0"]).stdout(Stdio::piped());
        let mut child = spawn(&mut command, &program)?;
        let stdout = child.stdout.take().expect("it was asked for");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let port: u16 = line.trim().parse().with_context(|| format!("{kind} printed no port"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { kind, child, log, address })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        // The server's writes and a read here must not share an offset, as dup(2) has them do.
        let len = self.log.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = vec![0; len as usize];
        match self.log.read_exact_at(&mut bytes, 0) {
            Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(no log: {error})"),
        }
    }

    fn await_listening(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.kind, self.log());
            }
            if Instant::now() > deadline {
                bail!("{} does not listen:\n{}", self.kind, self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Asks for a fast exit, so that a process which has children can end them too.
    fn interrupt(&mut self) -> Result<()> {
        sys::signal(self.pid(), libc::SIGINT)?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("{} does not heed INT", self.kind);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        let processes = Processes::below(self.pid());
        if let Err(error) = self.interrupt() {
            eprintln!("{error}; killed");
            for &pid in processes.iter().flat_map(Processes::pids) {
                // One that has ended meanwhile is as good.
                let _ = sys::signal(pid, libc::SIGKILL);
            }
            let _ = self.child.wait();
        }
    }
}

fn spawn(command: &mut Command, program: &Path) -> Result<Child> {
    command.spawn().with_context(|| format!("starting {}", program.display()))
}

/// A port that is free now. Another process could take it first; then the server fails to start,
/// which is an error and not a wrong figure.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn nameless_file() -> Result<File> {
    let path = std::env::temp_dir().join(format!("steadfast-bench-{}.log", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
