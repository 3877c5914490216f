//! What tests of the control socket and of the command line share.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs, process};

use super::{
    Activity, ControlListener, DrainRequest, Drained, Failed, FailureKind, Give, OnProgress,
    Operator, Progress, Record, Refused, Request, Serving, Status, UpgradeOutcome, UpgradeRequest,
    Upgraded, serve,
};
use crate::handover::Step;
use crate::sys::packets;

/// A directory of one test's own, removed with the value.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("steadfast-{}-{count}-{name}", process::id());
        let path = env::temp_dir().join(name);
        super::path::prepare_directory(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A server that does nothing but answer.
pub(crate) struct Fake {
    /// How upgrades end.
    pub(crate) result: Mutex<Result<Upgraded, Failed>>,
    /// Upgrades do not end while it is set, unless their client goes away.
    pub(crate) is_held: AtomicBool,
    /// An upgrade is under way.
    pub(crate) is_upgrading: AtomicBool,
    /// An upgrade's client has gone away.
    pub(crate) was_aborted: AtomicBool,
    /// What it was asked for, but for its status.
    pub(crate) requests: Mutex<Vec<Request>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            result: Mutex::new(Ok(upgraded())),
            is_held: AtomicBool::new(false),
            is_upgrading: AtomicBool::new(false),
            was_aborted: AtomicBool::new(false),
            requests: Mutex::default(),
        }
    }
}

impl Fake {
    /// Serves on a socket in a directory of its own.
    pub(crate) fn serve(self) -> Served {
        let directory = Directory::new("control");
        let path = directory.path().join("control.sock");
        let listener = ControlListener::bind(&path).unwrap();
        let operator = Arc::new(self);
        let serving = serve(&listener, operator.clone()).unwrap();
        Served { operator, serving: Some(serving), listener, path, _directory: directory }
    }
}

/// A fake server behind a real socket.
pub(crate) struct Served {
    pub(crate) operator: Arc<Fake>,
    pub(crate) serving: Option<Serving>,
    pub(crate) listener: ControlListener,
    pub(crate) path: PathBuf,
    _directory: Directory,
}

impl Operator for Fake {
    fn status(&self) -> Status {
        status()
    }

    fn upgrade(
        &self,
        request: &UpgradeRequest,
        progress: OnProgress<'_>,
    ) -> Result<Upgraded, Failed> {
        if self.is_upgrading.swap(true, Ordering::SeqCst) {
            return Err(Failed::new(FailureKind::InProgress, "an upgrade is in progress"));
        }
        self.requests.lock().unwrap().push(Request::Upgrade(request.clone()));
        let mut step =
            |step, pause_us| progress(Progress::Upgrade { step, connections: 12_000, pause_us });
        let mut flow = step(Step::Copy, None);
        while flow.is_continue() && self.is_held.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
            flow = step(Step::Freeze, Some(1_500));
        }
        let result = match flow {
            ControlFlow::Break(()) => {
                self.was_aborted.store(true, Ordering::SeqCst);
                Err(Failed::new(FailureKind::Aborted, "the client has gone away"))
            }
            ControlFlow::Continue(()) => self.result.lock().unwrap().clone(),
        };
        self.is_upgrading.store(false, Ordering::SeqCst);
        result
    }

    fn hand_over(&self, give: Give<'_>, progress: OnProgress<'_>) -> Result<Upgraded, Failed> {
        self.requests.lock().unwrap().push(Request::HandOver);
        let result = self.result.lock().unwrap().clone();
        if result.is_ok() {
            let channel = give().unwrap();
            packets::send(&channel, b"over the channel", &[], false).unwrap();
            let step = Step::Prepare;
            let _ = progress(Progress::Upgrade { step, connections: 1, pause_us: None });
        }
        result
    }

    fn drain(&self, request: &DrainRequest, progress: OnProgress<'_>) -> Result<Drained, Failed> {
        self.requests.lock().unwrap().push(Request::Drain(request.clone()));
        for done in [0, 500, 1_000] {
            let _ = progress(Progress::Drain { done, connections: 1_000 });
        }
        Ok(Drained { connections: 1_000, total_ms: 10_250 })
    }
}

pub(crate) fn upgraded() -> Upgraded {
    Upgraded {
        dry_run: false,
        generation: 3,
        pid: 4_002,
        build: "0.2.0".to_owned(),
        format: 1,
        connections: 11_999,
        refused: vec![Refused { reason: "its app is gone".to_owned(), connections: 1 }],
        pause_us: 12_345,
        pause_steps: None,
        total_ms: 1_234,
    }
}

pub(crate) fn status() -> Status {
    let failed = Failed::new(FailureKind::Refused, "the configuration is wrong");
    Status {
        pid: 4_001,
        supervisor_pid: Some(4_000),
        generation: 2,
        build: "0.1.0".to_owned(),
        activity: Activity::Serving,
        uptime_ms: 3_723_000,
        listen: vec!["127.0.0.1:8000".to_owned()],
        workers: 2,
        connections: 12_000,
        connections_by_worker: vec![6_001, 5_999],
        connections_max: 65_000,
        stalled: 0,
        refused: BTreeMap::from([("404".to_owned(), 12)]),
        upgrades: vec![
            Record { at_unix_ms: 1_000, outcome: UpgradeOutcome::Failed(failed) },
            Record { at_unix_ms: 61_000, outcome: UpgradeOutcome::Upgraded(upgraded()) },
        ],
    }
}
