//! What an operator can ask of the running server.

use std::ops::ControlFlow;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::center::{Begun, Center, Fate};
use super::upgrade::{self, Source};
use crate::control::{
    Activity, DrainRequest, Drained, Failed, FailureKind, Give, OnProgress, Operator, Progress,
    Status, UpgradeRequest, Upgraded,
};
use crate::net::stop::Stop;

/// How often a drain looks how many are left.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

/// The server, as the control socket knows it.
pub(super) struct Operations(pub(super) Arc<Center>);

impl Operator for Operations {
    fn status(&self) -> Status {
        let center = &self.0;
        let activity = match center.fate() {
            _ if center.is_stopping() => Activity::Draining,
            Fate::Upgrades(_) => Activity::Upgrading,
            Fate::Serves | Fate::Moved(_) => Activity::Serving,
        };
        Status {
            pid: process::id(),
            supervisor_pid: center.supervision.supervisor(),
            generation: center.generation,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            activity,
            uptime_ms: center.started.elapsed().as_millis() as u64,
            listen: center.listen.clone(),
            workers: center.crew.workers as u64,
            connections: center.crew.accounts.connections() as u64,
            connections_by_worker: {
                center.crew.accounts.connections_by_worker().map(|count| count as u64).collect()
            },
            connections_max: center.crew.accounts.connections_max() as u64,
            stalled: center.crew.accounts.stalled(),
            refused: {
                let by_status = center.crew.refusals.by_status().into_iter();
                by_status.map(|(status, count)| (status.to_string(), count)).collect()
            },
            upgrades: center.records(),
        }
    }

    fn upgrade(
        &self,
        request: &UpgradeRequest,
        progress: OnProgress<'_>,
    ) -> Result<Upgraded, Failed> {
        upgrade::hand_over(&self.0, Source::Launch(request), progress)
    }

    fn hand_over(&self, give: Give<'_>, progress: OnProgress<'_>) -> Result<Upgraded, Failed> {
        upgrade::hand_over(&self.0, Source::Caller(give), progress)
    }

    fn drain(&self, request: &DrainRequest, progress: OnProgress<'_>) -> Result<Drained, Failed> {
        let center = &self.0;
        let begun = Instant::now();
        let before = center.crew.accounts.connections() as u64;
        let stop = match (center.drain(), request.duration) {
            _ if request.now => Stop::Fast,
            (Stop::Drain { grace, .. }, Some(spread)) => Stop::Drain { grace, spread },
            (configured, _) => configured,
        };
        match center.begin_to_stop(stop) {
            Begun::Stopping => {
                tracing::info!(now = request.now, connections = before, "draining");
            }
            Begun::Already => {}
            Begun::Upgrading | Begun::Moved(_) => {
                return Err(Failed::new(FailureKind::InProgress, "an upgrade is in progress"));
            }
        }
        let mut heard = ControlFlow::Continue(());
        loop {
            // There may be others meanwhile, who are told to come again later.
            if center.crew.accounts.are_all_through() {
                break;
            }
            let connections = center.crew.accounts.connections() as u64;
            if heard.is_continue() {
                let done = before.saturating_sub(connections);
                heard = progress(Progress::Drain { done, connections: before });
            }
            thread::sleep(DRAIN_LOOK);
        }
        Ok(Drained { connections: before, total_ms: begun.elapsed().as_millis() as u64 })
    }
}
