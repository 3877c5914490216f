//! An upgrade that whoever has asked for it may take back by Ctrl-C, and is told whether it was.

use std::io::{self, PipeWriter};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Called, Look, follow, show};
use crate::control::{
    Activity, ClientError, Failed, FailureKind, Outcome, Request, Status, UpgradeOutcome,
};
use crate::sys::signals::{Signal, Signals, Waited};

/// How long the server may take to see off what it has begun.
const TAKING_BACK_MAX: Duration = Duration::from_secs(10);

/// How often it is asked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often the main thread looks up from waiting for signals.
const SIGNALS_LOOK: Duration = Duration::from_secs(60);

/// The exit status after a second Ctrl-C: 128 + SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// As [`super::ask`]. The first signal takes the upgrade back, and the exit status still says what
/// has become of it; the second one ends this process at once.
pub(super) fn ask(called: Called<'_>, request: &Request, look: Look) -> ExitCode {
    let show = |answer| show(answer, look, &mut io::stdout(), &mut io::stderr());
    let failed = |error| ClientError::Io(called.path.to_owned(), error);
    let prepare = || {
        let signals = Signals::take_over().map_err(failed)?;
        let client = called.connect()?;
        let connection = client.connection().map_err(failed)?;
        Ok((signals, client, connection, io::pipe().map_err(failed)?))
    };
    let (signals, mut client, connection, (ended, ends)) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => return show(Err(error)),
    };
    let interrupted = AtomicBool::new(false);
    let begun = SystemTime::now();
    let answer = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            // Closed at the end, which the other thread sees.
            let _ends: PipeWriter = ends;
            match follow(&mut client, request, look, &mut io::stdout()) {
                Err(_) if interrupted.load(Ordering::SeqCst) => what_became(called, begun),
                answer => answer,
            }
        });
        loop {
            match signals.wait(ended.as_fd(), SIGNALS_LOOK) {
                Ok(Waited::Signal(Signal::Int | Signal::Term | Signal::Hup)) => {
                    if interrupted.swap(true, Ordering::SeqCst) {
                        process::exit(EXIT_INTERRUPTED);
                    }
                    // If it has ended by itself, that is seen next.
                    let _ = connection.shutdown(Shutdown::Both);
                }
                Ok(Waited::Signal(_) | Waited::TimedOut) => {}
                Ok(Waited::Woken) | Err(_) => break,
            }
        }
        asking.join().unwrap_or(Err(ClientError::Ended))
    });
    show(answer)
}

/// What has become of an upgrade that was taken back.
fn what_became(called: Called<'_>, begun: SystemTime) -> Result<Outcome, ClientError> {
    let until = Instant::now() + TAKING_BACK_MAX;
    loop {
        let status = match called.connect()?.request(&Request::Status, |_| {}) {
            Ok(Outcome::Status(status)) => status,
            Ok(other) => return Ok(other),
            // It goes on in another process just now.
            Err(ClientError::Ended) if Instant::now() < until => continue,
            Err(error) => return Err(error),
        };
        if status.activity != Activity::Upgrading {
            return Ok(outcome_in(status, begun));
        }
        if Instant::now() >= until {
            let reason = "interrupted; it is under way yet, and `steadfast status` tells what \
                          becomes of it";
            return Ok(Outcome::Failed(Failed::new(FailureKind::Failed, reason)));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What the server remembers of an upgrade that has ended since `begun`.
fn outcome_in(status: Status, begun: SystemTime) -> Outcome {
    let begun_ms = begun.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let last = status.upgrades.into_iter().next_back();
    let last = last.filter(|record| u128::from(record.at_unix_ms) >= begun_ms);
    let why = match last.map(|record| record.outcome) {
        // Too late.
        Some(UpgradeOutcome::Upgraded(upgraded)) => return Outcome::Upgraded(upgraded),
        Some(UpgradeOutcome::Failed(failed)) => format!(" ({})", failed.reason),
        None => String::new(),
    };
    let reason = format!("interrupted; the server goes on as before{why}");
    Outcome::Failed(Failed::new(FailureKind::Aborted, reason))
}
