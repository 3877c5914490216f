//! The server that is replaced: its start, its verbs (`upgrade`, `status`), its end.
//!
//! What it runs as is its supervisor, whose process is the one that was started here; or, without
//! one, a server that ends when its successor has taken over.

use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::sample::Sample;
use super::scenario::Plan;
use crate::process::Processes;
use crate::sys;

/// Time for the server to listen after its start, to answer, and to end after it was told to.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a child is looked after while it runs.
const STEP: Duration = Duration::from_millis(10);
/// Lines of the log that are shown after a failure.
const LOG_LINES_MAX: usize = 30;
/// Members of rooms that do not read must not be taken for slow consumers: a push beyond this bound
/// closes them. Echoes keep the default, beyond which the server stops reading.
const ROOM_QUEUE: &str = "64 MiB";

/// Programs, and how the server is started.
#[derive(Debug, Clone)]
pub struct Places {
    /// The steadfast binary.
    pub server: PathBuf,
    /// The binary of each successor; the same if `None`.
    pub successor: Option<PathBuf>,
    /// Its workers; its default if `None`.
    pub workers: Option<usize>,
    /// Whether it runs without a supervisor.
    pub no_supervisor: bool,
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Subject {
    places: Places,
    folder: PathBuf,
    child: Child,
    /// The process that served when it was last asked.
    server_pid: u32,
    stopped: bool,
    /// Where it listens.
    pub address: SocketAddr,
}

/// The server's processes at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Samples {
    /// The one that serves.
    pub server: Sample,
    /// Its supervisor, if it has one.
    pub supervisor: Option<Sample>,
}

/// What `steadfast upgrade` has come to.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// How it has ended.
    pub status: ExitStatus,
    /// Its last line, if that is JSON.
    pub answer: Option<Value>,
    /// All it has said on stderr.
    pub complaint: String,
    /// How long it ran.
    pub took: Duration,
    /// The most that all processes of the server had meanwhile, in sum.
    pub peak: Sample,
}

impl Upgrade {
    /// A figure of the answer, wherever in it.
    pub fn figure(&self, name: &str) -> Option<f64> {
        find(self.answer.as_ref()?, name)?.as_f64()
    }

    /// From freeze to serving, in milliseconds.
    pub fn pause_ms(&self) -> Option<f64> {
        self.figure("pause_ms").or_else(|| Some(self.figure("pause_us")? / 1e3))
    }

    /// Connections that the successor did not take: a number, or a list by reasons.
    pub fn refused(&self) -> Option<u64> {
        match find(self.answer.as_ref()?, "refused")? {
            Value::Array(reasons) => {
                let of_one = |reason: &Value| find(reason, "connections").and_then(Value::as_u64);
                Some(reasons.iter().map(|reason| of_one(reason).unwrap_or(1)).sum())
            }
            value => value.as_u64(),
        }
    }

    /// A word of the answer, wherever in it.
    pub fn word(&self, name: &str) -> Option<&str> {
        find(self.answer.as_ref()?, name)?.as_str()
    }
}

impl Subject {
    /// Starts a server in a fresh folder and waits until it listens.
    pub fn start(plan: &Plan, places: &Places) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!(
            "steadfast-handover-{}-{}",
            std::process::id(),
            plan.name
        ));
        fs::DirBuilder::new().mode(0o700).create(&folder).context("a fresh folder")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        fs::write(folder.join("config.toml"), configuration(places.workers))?;

        let log = File::create(folder.join("log"))?;
        let mut command = Command::new(&places.server);
        command.args(["serve", "--listen", &address.to_string(), "--log-level", "info"]);
        command.arg("--config").arg(folder.join("config.toml"));
        command.arg("--control").arg(folder.join("control.sock"));
        if places.no_supervisor {
            command.arg("--no-supervisor");
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Keys of the terminal are for this program; what ends it ends the server (see below).
        command.process_group(0);
        sys::end_with_parent(&mut command);
        let child =
            command.spawn().with_context(|| format!("starting {}", places.server.display()))?;
        let (places, server_pid) = (places.clone(), child.id());
        let mut subject = Self { places, folder, child, server_pid, stopped: false, address };
        subject.await_listening()?;
        Ok(subject)
    }

    fn await_listening(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.log_tail());
            }
            ensure!(Instant::now() < deadline, "it does not listen:\n{}", self.log_tail());
            thread::sleep(STEP);
        }
        Ok(())
    }

    /// Runs `steadfast upgrade` to its end.
    pub fn upgrade(&mut self, patience: Duration) -> Result<Upgrade> {
        let mut command = self.verb("upgrade");
        if let Some(successor) = &self.places.successor {
            command.arg("--binary").arg(successor);
        }
        // Without a supervisor the successor is no child of the process that was started here,
        // nor of its predecessor once that has ended.
        let root = match self.places.no_supervisor {
            true => self.server_pid()?,
            false => self.child.id(),
        };
        let began = Instant::now();
        let mut peak = Sample::default();
        let (status, output, complaint) = run(&mut command, patience, || {
            peak = peak.max(Sample::of_all_below(root));
        })?;
        let answer = serde_json::from_str(last_line(&output)).ok();
        Ok(Upgrade { status, answer, complaint, took: began.elapsed(), peak })
    }

    /// The process that serves now.
    pub fn server_pid(&mut self) -> Result<u32> {
        let (status, output, _) = run(&mut self.verb("status"), PATIENCE, || {})?;
        self.server_pid = if status.success() {
            let answer: Value =
                serde_json::from_str(last_line(&output)).context("the answer of status")?;
            let pid = find(find(&answer, "server").unwrap_or(&answer), "pid");
            pid.and_then(Value::as_u64).context("status names no pid")? as u32
        } else {
            // It does not answer: what serves is the last process of those that were started.
            let processes = Processes::below(self.child.id())?;
            *processes.pids().last().expect("the root is one of them")
        };
        Ok(self.server_pid)
    }

    /// What its processes have at present.
    pub fn samples(&mut self) -> Result<Samples> {
        let pid = self.server_pid()?;
        let parent = self.child.id();
        let supervised = pid != parent && self.child.try_wait()?.is_none();
        let supervisor = supervised.then(|| Sample::at_rest(parent)).transpose()?;
        Ok(Samples { server: Sample::at_rest(pid)?, supervisor })
    }

    /// Has it end fast, and waits for that.
    pub fn stop(&mut self) -> Result<()> {
        // One that does not answer is ended all the same.
        let server = self.server_pid().unwrap_or(self.server_pid);
        let root = match self.child.try_wait()? {
            None => self.child.id(),
            Some(_) => server,
        };
        if is_alive(root) {
            sys::signal(root, libc::SIGINT)?;
        }
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() || is_alive(server) {
            ensure!(Instant::now() < deadline, "the server does not heed INT");
            thread::sleep(STEP);
        }
        self.stopped = true;
        let status = self.child.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
    }

    fn verb(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.places.server);
        command.args([verb, "--json", "--control"]).arg(self.folder.join("control.sock"));
        command
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if !self.stopped {
            let processes = Processes::below(self.child.id());
            if let Err(error) = self.stop() {
                eprintln!("{error:#}");
            }
            let left = processes.iter().flat_map(Processes::pids).chain([&self.server_pid]);
            for &pid in left.filter(|pid| !self.stopped && is_alive(**pid)) {
                // One that has ended meanwhile is as good.
                let _ = sys::signal(pid, libc::SIGKILL);
            }
            let _ = self.child.wait();
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}

/// The last line that says anything.
fn last_line(text: &str) -> &str {
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default()
}

fn configuration(workers: Option<usize>) -> String {
    let workers = workers.map(|workers| format!("workers = {workers}\n")).unwrap_or_default();
    format!(
        "{workers}limits.write_timeout = \"off\"\n\n[[routes]]\npath = \"/echo\"\napp = \"echo\"\n\n[[routes]]\n\
         path = \"/rooms/{{name}}\"\napp = \"rooms\"\nlimits.queue_bytes_max = \"{ROOM_QUEUE}\"\n"
    )
}

/// Runs a verb; `meanwhile` is called all the time. Returns its status, stdout and stderr.
fn run(
    command: &mut Command,
    patience: Duration,
    mut meanwhile: impl FnMut(),
) -> Result<(ExitStatus, String, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting a verb")?;
    // Read on threads of their own: a verb that says much must not wait for its end to be read.
    let output = child.stdout.take().map(in_the_background).context("no stdout")?;
    let complaint = child.stderr.take().map(in_the_background).context("no stderr")?;
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("no answer in {} s", patience.as_secs());
        }
        meanwhile();
        thread::sleep(STEP);
    };
    let text = |thread: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
    };
    Ok((status, text(output), text(complaint)))
}

fn in_the_background(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What has come before an error is all there is.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// The value under `name`, wherever in `value`; the outermost first.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => {
            map.get(name).or_else(|| map.values().find_map(|value| find(value, name)))
        }
        Value::Array(list) => list.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}

/// Whether a process is there and has not ended.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn figures_are_found_wherever_they_are() {
        let upgrade = |answer: Option<Value>| Upgrade {
            status: ExitStatus::from_raw(0),
            answer,
            complaint: String::new(),
            took: Duration::ZERO,
            peak: Sample::default(),
        };
        let flat = upgrade(Some(serde_json::json!({
            "outcome": "upgraded", "connections": 7, "pause_us": 3_500, "refused": [
                { "reason": "no such route", "connections": 2 },
                { "reason": "too long", "connections": 3 },
            ],
        })));
        assert_eq!(flat.word("outcome"), Some("upgraded"));
        assert_eq!(flat.figure("connections"), Some(7.0));
        assert_eq!((flat.pause_ms(), flat.refused()), (Some(3.5), Some(5)));
        assert_eq!(flat.figure("total_ms"), None);

        let nested = upgrade(Some(serde_json::json!({
            "figures": { "pause_ms": 3.5, "refused": 1 },
        })));
        assert_eq!((nested.pause_ms(), nested.refused()), (Some(3.5), Some(1)));
        let silent = upgrade(None);
        assert_eq!((silent.pause_ms(), silent.refused()), (None, None));
    }

    #[test]
    fn a_verb_that_takes_too_long_is_ended() {
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50), || {});
        assert!(error.unwrap_err().to_string().contains("no answer"));
        let (status, output, complaint) =
            run(Command::new("sh").args(["-c", "echo a; echo b >&2; exit 3"]), PATIENCE, || {})
                .unwrap();
        assert_eq!((status.code(), &*output, &*complaint), (Some(3), "a\n", "b\n"));
    }

    #[test]
    fn this_process_is_alive() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(u32::MAX));
    }
}
