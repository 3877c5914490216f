//! What the verbs that operate a running server share: finding it, asking it, and showing what
//! comes back.

mod interrupt;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::client::escape;
use super::{EXIT_USAGE, load};
use crate::config::{Context, Key, keys};
use crate::control::path::WellKnown;
use crate::control::{
    Activity, Client, ClientError, Failed, FailureKind, Outcome, Progress, Record, Request, Status,
    UpgradeOutcome, Upgraded, path,
};
use crate::handover::Step;

/// Goes to the line's beginning and erases it.
const ERASE_LINE: &str = "\r\x1b[K";

/// Characters of a progress bar.
const BAR_WIDTH: usize = 16;

/// Which server is meant: flags as for `serve`, and the environment.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The server's control socket; left out, it follows from the addresses it listens on
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// The configuration the server was started with
    #[arg(long, value_name = "FILE", env = "STEADFAST_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// An address the server was started with; may be repeated
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Believe a server of this user, too, beside one's own and root's
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
}

/// Where the server that is meant answers, and as whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Called<'t> {
    path: &'t Path,
    user: Option<u32>,
}

impl Called<'_> {
    fn connect(self) -> Result<Client, ClientError> {
        Client::connect_to_user(self.path, self.user)
    }
}

impl Target {
    /// Where the control socket may be, and whom to believe there: as flags, environment and
    /// configuration say, in that order, and then, unless --control says it, where it is well known to be.
    fn places(&self, context: &Context) -> Result<Vec<WellKnown>, String> {
        let place = |path: PathBuf| WellKnown { path, user: self.user };
        // A configuration that no longer holds is no reason not to reach the server.
        if let Some(path) = &self.control {
            return Ok(vec![place(path.clone())]);
        }
        let listen = (!self.listen.is_empty()).then(|| (key("listen"), self.listen.join(",")));
        let resolved = load(self.config.as_deref(), Vec::from_iter(listen), context)?;
        let settings = resolved.settings;
        let first = path::socket_path(settings.control.as_deref(), &settings.listen).ok_or(
            "with port 0 the server alone knows where its control socket is; its log says so: \
             give --control PATH",
        )?;
        let others = path::well_known(&settings.listen).into_iter();
        let others = others.filter(|other| other.path != first);
        let others =
            others.map(|WellKnown { path, user }| WellKnown { path, user: self.user.or(user) });
        Ok([place(first.clone())].into_iter().chain(others).collect())
    }
}

fn key(name: &str) -> &'static Key {
    keys().find(|key| key.name == name).expect("the table has each key that is named here")
}

/// How an outcome is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// For people, with a progress bar.
    Terminal,
    /// For people.
    Text,
    /// One JSON object on one line.
    Json,
}

impl Look {
    /// For a request that takes its time: a bar on a terminal, JSON elsewhere or if asked for.
    pub(super) fn of_lengthy(json: bool) -> Self {
        match !json && io::stdout().is_terminal() {
            true => Self::Terminal,
            false => Self::Json,
        }
    }

    /// For a request that is answered at once: text unless JSON is asked for.
    pub(super) fn of_immediate(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Sends a request to the server that is meant, and returns the exit status.
pub(super) fn run(target: &Target, context: &Context, request: &Request, look: Look) -> ExitCode {
    match target.places(context) {
        Ok(places) => match find(&places) {
            Ok(called) => match request {
                Request::Upgrade(_) => interrupt::ask(called, request, look),
                _ => ask(called, request, look, &mut io::stdout(), &mut io::stderr()),
            },
            Err(error) => show(Err(error), look, &mut io::stdout(), &mut io::stderr()),
        },
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// The first place at which somebody answers. Says so if that is not the first of all.
fn find(places: &[WellKnown]) -> Result<Called<'_>, ClientError> {
    let mut error = ClientError::Ended;
    for (index, WellKnown { path, user }) in places.iter().enumerate() {
        let called = Called { path, user: *user };
        match (index, called.connect()) {
            (0, Err(ClientError::NoServer(_, why))) => {
                error = ClientError::NoServer(paths(places), why);
            }
            // It is the one that is meant, whatever is wrong with it.
            (0, _) => return Ok(called),
            (_, Err(_)) => {}
            (_, Ok(_)) => {
                let tried: Vec<String> =
                    paths(&places[..index]).iter().map(|path| path.display().to_string()).collect();
                let (tried, path) = (tried.join(", nor at "), path.display());
                eprintln!("steadfast: no server answers at {tried}; asking the one at {path}");
                return Ok(called);
            }
        }
    }
    Err(error)
}

fn paths(places: &[WellKnown]) -> Vec<PathBuf> {
    places.iter().map(|place| place.path.clone()).collect()
}

/// Sends a request to a server, shows what comes back, and returns the exit status.
pub(super) fn ask(
    called: Called<'_>,
    request: &Request,
    look: Look,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    let answer = called.connect().and_then(|mut client| follow(&mut client, request, look, out));
    show(answer, look, out, err)
}

/// Sends a request, and shows how far it is until it has come to something.
fn follow(
    client: &mut Client,
    request: &Request,
    look: Look,
    out: &mut dyn Write,
) -> Result<Outcome, ClientError> {
    let mut bar = Bar { look, out, shown: String::new() };
    let answer = client.request(request, |progress| bar.show(&progress));
    bar.erase();
    answer
}

/// Shows what has come back, and returns the exit status.
fn show(
    answer: Result<Outcome, ClientError>,
    look: Look,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    let outcome = answer.unwrap_or_else(|error| Outcome::Failed(as_failed(&error)));
    let status = match outcome {
        Outcome::Failed(_) => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    };
    // If nobody reads it any more, the exit status still tells.
    let _ = match (look, &outcome) {
        (Look::Json, outcome) => writeln!(out, "{}", json(outcome)),
        (_, Outcome::Failed(failed)) => writeln!(err, "steadfast: {}", escape(&failed.reason)),
        (_, outcome) => out.write_all(text(outcome).as_bytes()),
    };
    let _ = out.flush();
    status
}

fn as_failed(error: &ClientError) -> Failed {
    let kind = match error {
        ClientError::NoServer(..) => FailureKind::NoServer,
        ClientError::Foreign(..) => FailureKind::Forbidden,
        _ => FailureKind::Failed,
    };
    let hint = match error {
        ClientError::NoServer(..) => {
            "; a server with another address or control socket is found by --listen, --config \
             or --control, as it was started with"
                .to_owned()
        }
        ClientError::Foreign(_, uid) => {
            format!(", and may say anything; if it is the server's user, say so: --user {uid}")
        }
        _ => String::new(),
    };
    Failed::new(kind, format!("{error}{hint}"))
}

fn json(outcome: &Outcome) -> String {
    fn line(value: &impl Serialize) -> String {
        serde_json::to_string(value).expect("messages have string keys and UTF-8")
    }
    match outcome {
        // Whoever asks for the status knows what it is.
        Outcome::Status(status) => line(status),
        outcome => line(outcome),
    }
}

/// A line on a terminal that is drawn anew.
struct Bar<'o> {
    look: Look,
    out: &'o mut dyn Write,
    shown: String,
}

impl Bar<'_> {
    fn show(&mut self, progress: &Progress) {
        if self.look != Look::Terminal {
            return;
        }
        let line = bar(progress);
        if line != self.shown {
            let _ = write!(self.out, "{ERASE_LINE}{line}");
            let _ = self.out.flush();
            self.shown = line;
        }
    }

    fn erase(&mut self) {
        if !self.shown.is_empty() {
            let _ = self.out.write_all(ERASE_LINE.as_bytes());
        }
    }
}

/// `[####------------] copy: 12,000 connections, pause 1.5 ms`, shorter than a terminal's 80 columns
/// up to ten million connections.
fn bar(progress: &Progress) -> String {
    let (share, text) = match *progress {
        Progress::Upgrade { step, connections, pause_us } => {
            let pause = pause_us.map(|us| format!(", pause {}", time(micros(us))));
            let text =
                format!("{step}: {} connections{}", number(connections), pause.unwrap_or_default());
            (step as usize as f64 / Step::Done as usize as f64, text)
        }
        Progress::Drain { done, connections } => {
            let share = done.min(connections) as f64 / connections.max(1) as f64;
            (share, format!("drain: {} of {} connections", number(done), number(connections)))
        }
    };
    let filled = (share * BAR_WIDTH as f64) as usize;
    let (filled, left) = ("#".repeat(filled), "-".repeat(BAR_WIDTH - filled));
    format!("[{filled}{left}] {text}")
}

/// What people read.
fn text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Status(status) => status_text(status, SystemTime::now()),
        Outcome::Upgraded(upgraded) => upgraded_text(upgraded),
        Outcome::Drained(drained) => format!(
            "drained: {} closed in {}\n",
            connections(drained.connections),
            time(Duration::from_millis(drained.total_ms))
        ),
        Outcome::Failed(failed) => format!("{}\n", escape(&failed.reason)),
    }
}

fn upgraded_text(upgraded: &Upgraded) -> String {
    let Upgraded { dry_run, generation, pid, build, .. } = upgraded;
    let build = escape(build);
    let mut text = match dry_run {
        true => format!("an upgrade to {build} would succeed; nothing has moved\n"),
        false => format!("upgraded: generation {generation} serves ({build}, process {pid})\n"),
    };
    text += &figures(upgraded);
    text.push('\n');
    for refused in &upgraded.refused {
        let (count, reason) = (connections(refused.connections), escape(&refused.reason));
        let verb = if *dry_run { "would be refused" } else { "refused" };
        text += &format!("{count} {verb}: {reason}\n");
    }
    text
}

/// `11,999 connections moved, pause 12.3 ms, 1.2 s in all`. A dry run has no pause.
fn figures(upgraded: &Upgraded) -> String {
    let count = connections(upgraded.connections);
    let total = time(Duration::from_millis(upgraded.total_ms));
    match upgraded.dry_run {
        true => format!("{count} would move; {total} in all"),
        false => {
            format!("{count} moved, pause {}, {total} in all", time(micros(upgraded.pause_us)))
        }
    }
}

fn status_text(status: &Status, now: SystemTime) -> String {
    let activity = match status.activity {
        Activity::Serving => "serving",
        Activity::Upgrading => "upgrading",
        Activity::Draining => "draining",
    };
    let supervisor = match status.supervisor_pid {
        Some(pid) => format!("supervisor {pid}"),
        None => "no supervisor".to_owned(),
    };
    let by_worker: Vec<String> =
        status.connections_by_worker.iter().map(|count| number(*count)).collect();
    let by_worker = match by_worker.len() {
        0 | 1 => String::new(),
        _ => format!(" ({} by worker)", by_worker.join(" + ")),
    };
    let mut text = format!(
        "Steadfast {}, generation {}, {activity}\n\
         process      {}, {supervisor}\n\
         up           {}\n\
         listens on   {}\n\
         workers      {}\n\
         connections  {} of {} at most{by_worker}\n",
        escape(&status.build),
        status.generation,
        status.pid,
        time(Duration::from_millis(status.uptime_ms)),
        escape(&status.listen.join(", ")),
        status.workers,
        number(status.connections),
        number(status.connections_max),
    );
    if status.stalled > 0 {
        let count = number(status.stalled);
        text += &format!("stalled      {count} dropped: took nothing for limits.write_timeout\n");
    }
    if !status.refused.is_empty() {
        let refused = status.refused.iter();
        let refused = refused.map(|(code, count)| format!("{} x {}", number(*count), escape(code)));
        text += &format!("refused      {}\n", refused.collect::<Vec<_>>().join(", "));
    }
    text += if status.upgrades.is_empty() { "upgrades     none\n" } else { "upgrades\n" };
    for record in status.upgrades.iter().rev() {
        text += &format!("  {}\n", record_text(record, now));
    }
    text
}

/// `5 min ago: generation 3 (0.2.0), 11,999 connections moved, …`.
fn record_text(record: &Record, now: SystemTime) -> String {
    let then = UNIX_EPOCH + Duration::from_millis(record.at_unix_ms);
    // Clocks are set back now and then.
    let ago = time(now.duration_since(then).unwrap_or_default());
    match &record.outcome {
        UpgradeOutcome::Failed(failed) => format!("{ago} ago: failed: {}", escape(&failed.reason)),
        UpgradeOutcome::Upgraded(upgraded) => {
            let (generation, build) = (upgraded.generation, escape(&upgraded.build));
            let refused: u64 = upgraded.refused.iter().map(|refused| refused.connections).sum();
            let figures = figures(upgraded);
            let refused = match refused {
                0 => String::new(),
                count => format!(", {} refused", number(count)),
            };
            format!("{ago} ago: generation {generation} ({build}), {figures}{refused}")
        }
    }
}

fn connections(count: u64) -> String {
    match count {
        1 => "1 connection".to_owned(),
        count => format!("{} connections", number(count)),
    }
}

/// `12,345,678`.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn micros(us: u64) -> Duration {
    Duration::from_micros(us)
}

/// `12.3 ms`, `1.2 s`, `5 min`, `3 h 5 min`, `2 d 3 h`.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{:.1} ms", time.as_secs_f64() * 1_000.0),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests;
