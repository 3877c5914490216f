//! Requests and replies: one JSON object a line, each with the protocol's version.
//!
//! ```text
//! → {"version":1,"request":"upgrade","binary":null,"dry_run":false}
//! ← {"version":1,"reply":"progress","of":"upgrade","step":"copy","connections":10000,…}
//! ← {"version":1,"reply":"outcome","outcome":"upgraded","generation":2,…}
//! ```
//!
//! A reader passes over fields it does not know, so fields may be added within a version.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::text::cut_reason;
use crate::handover::{Step, Timeline};

/// The version of requests and replies.
pub(super) const VERSION: u64 = 1;

/// What a server can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// See [`Operator::status`](super::Operator::status).
    Status,
    /// See [`Operator::upgrade`](super::Operator::upgrade).
    Upgrade(UpgradeRequest),
    /// See [`Operator::drain`](super::Operator::drain).
    Drain(DrainRequest),
    /// See [`Operator::hand_over`](super::Operator::hand_over).
    HandOver,
}

/// How to upgrade.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeRequest {
    /// The program to start, an absolute path; `None` is the one the server was started by.
    #[serde(default)]
    pub binary: Option<PathBuf>,
    /// Only find out whether it would succeed.
    #[serde(default)]
    pub dry_run: bool,
}

/// How to drain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// The time over which closes are spread; `None` is as configured.
    #[serde(default, rename = "duration_ms", with = "optional_ms")]
    pub duration: Option<Duration>,
    /// All at once instead, with 1001; also if a drain is under way.
    #[serde(default)]
    pub now: bool,
}

/// A line from the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(super) enum Reply {
    /// The request is under way.
    Progress(Progress),
    /// To [`Request::HandOver`]; with the descriptor of the caller's end of the channel over which
    /// everything is handed over.
    Channel,
    /// The request has ended; the last line of the answer.
    Outcome(Outcome),
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Progress {
    /// Of an upgrade.
    Upgrade {
        /// What is being done.
        step: Step,
        /// Connections there are.
        connections: u64,
        /// Microseconds for which nobody has been served so far, from the beginning of the freeze.
        pause_us: Option<u64>,
    },
    /// Of a drain.
    Drain {
        /// Connections that were closed.
        done: u64,
        /// Connections there were.
        connections: u64,
    },
}

/// How a request has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Upgrade`].
    Upgraded(Upgraded),
    /// To [`Request::Drain`].
    Drained(Drained),
    /// To any.
    Failed(Failed),
}

/// What an upgrade came to: the figures, also for a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// Nothing has moved: it was only tried.
    pub dry_run: bool,
    /// The generation that serves now; the one there was, after a dry run.
    pub generation: u64,
    /// The process that serves now; the one there was, after a dry run.
    pub pid: u32,
    /// The build of the successor.
    pub build: String,
    /// The format the connections' states were written in; 0 if the server does not say.
    #[serde(default)]
    pub format: u32,
    /// Connections that have moved, or would have.
    pub connections: u64,
    /// Connections the successor did not take, or would not have, by reason.
    pub refused: Vec<Refused>,
    /// Microseconds for which nobody was served.
    pub pause_us: u64,
    /// Where they went; told by the process that was there, to who asked for the upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_steps: Option<PauseSteps>,
    /// Milliseconds from the request to its outcome.
    pub total_ms: u64,
}

/// The steps of a pause ([`Step`]), each from the end of the one before, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseSteps {
    /// The workers stop reading, writing and accepting.
    pub freeze_us: u64,
    /// Messages between workers come to rest.
    pub settle_us: u64,
    /// States are written, of connections that had anything to do since theirs were sent ahead.
    pub save_us: u64,
    /// The rest of their loading, which begins with the first.
    pub load_us: u64,
    /// The successor takes the offer, and all its workers serve.
    pub take_us: u64,
}

impl PauseSteps {
    /// The steps of the pause of an upgrade that is over; `None` if it had none.
    pub fn of(times: &Timeline) -> Option<Self> {
        times.entered_ns(Step::Freeze)?;
        let us = |step| Some(times.duration(step)?.as_micros() as u64);
        Some(Self {
            freeze_us: us(Step::Freeze)?,
            settle_us: us(Step::Settle)?,
            save_us: us(Step::Save)?,
            load_us: us(Step::Load)?,
            take_us: us(Step::Take)?,
        })
    }
}

/// Connections that a successor refuses for one reason. They are closed with 1012.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub reason: String,
    /// How many.
    pub connections: u64,
}

/// What a drain came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Connections that were closed.
    pub connections: u64,
    /// Milliseconds it took.
    pub total_ms: u64,
}

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// For programs.
    pub kind: FailureKind,
    /// For people: a sentence without its full stop.
    pub reason: String,
}

impl Failed {
    /// A failure of this kind. The reason is cut at
    /// [`REASON_BYTES_MAX`](crate::base::text::REASON_BYTES_MAX).
    pub fn new(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: cut_reason(reason.into()) }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for Failed {}

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// An upgrade is under way already.
    InProgress,
    /// The server is stopping.
    Stopping,
    /// The successor refused, or could not be started; nothing has moved.
    Refused,
    /// It was given up half-way, and all connections are where they were.
    Aborted,
    /// No server answers. Said by the client alone.
    NoServer,
    /// The socket serves only the server's user and root.
    Forbidden,
    /// More are connected to the control socket than it serves at once.
    Busy,
    /// The request cannot be understood.
    BadRequest,
    /// Anything else, also what a newer server calls by a name of its own.
    #[serde(other)]
    Failed,
}

/// What a server is and does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The process that serves.
    pub pid: u32,
    /// The process that watches over it, if there is one.
    pub supervisor_pid: Option<u32>,
    /// 1 for the process that was started, one more with each upgrade.
    pub generation: u64,
    /// The version of the program.
    pub build: String,
    /// What it is doing.
    pub activity: Activity,
    /// Milliseconds this process has been there.
    pub uptime_ms: u64,
    /// Addresses it listens on, as they are configured.
    pub listen: Vec<String>,
    /// Threads with an event loop.
    pub workers: u64,
    /// Connections now.
    pub connections: u64,
    /// Those of each worker, the first worker's first; none where an older server does not say.
    #[serde(default)]
    pub connections_by_worker: Vec<u64>,
    /// The most connections it accepts.
    pub connections_max: u64,
    /// Connections that this process has dropped because they took nothing for
    /// `limits.write_timeout`; 0 where an older server does not say.
    #[serde(default)]
    pub stalled: u64,
    /// Requests that this process has refused, by the status of the response; empty where an older
    /// server does not say.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// The last upgrades, the oldest first; those of earlier generations too.
    pub upgrades: Vec<Record>,
}

/// What a server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Nothing but serving.
    Serving,
    /// An upgrade is under way.
    Upgrading,
    /// Connections are being closed.
    Draining,
}

/// An upgrade there has been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it ended, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: UpgradeOutcome,
}

/// How an upgrade has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum UpgradeOutcome {
    /// The successor serves.
    Upgraded(Upgraded),
    /// The process that was there does.
    Failed(Failed),
}

/// Why a line is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// No JSON, or other fields than it should have.
    Garbled(String),
    /// Of another version.
    Version(u64),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbled(what) => write!(formatter, "it is no message of this protocol: {what}"),
            Self::Version(version) => {
                write!(formatter, "it is of version {version}, and only {VERSION} is known here")
            }
        }
    }
}

/// The message's line, with its line feed.
pub(super) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    #[derive(Serialize)]
    struct Versioned<'m, T> {
        version: u64,
        #[serde(flatten)]
        message: &'m T,
    }
    let versioned = Versioned { version: VERSION, message };
    // A path that is not UTF-8 has no form in JSON; requests with one are refused before.
    let mut line = serde_json::to_vec(&versioned).expect("messages have string keys and UTF-8");
    line.push(b'\n');
    line
}

/// The message of a line.
pub(super) fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, Unreadable> {
    let garbled = |error: serde_json::Error| Unreadable::Garbled(error.to_string());
    let value: serde_json::Value = serde_json::from_slice(line).map_err(garbled)?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(VERSION) => serde_json::from_value(value).map_err(garbled),
        Some(version) => Err(Unreadable::Version(version)),
        None => Err(Unreadable::Garbled("it states no version".to_owned())),
    }
}

/// A time in whole milliseconds, or null.
mod optional_ms {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let ms = time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        ms.serialize(serializer)
    }

    pub(super) fn deserialize<'d, D: serde::Deserializer<'d>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}
