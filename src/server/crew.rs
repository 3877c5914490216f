//! The workers of a server: made of settings and apps, on threads of their own.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Builder, routes};
use crate::app::handle::PostBox;
use crate::base::id::ConnectionIds;
use crate::base::tick::Tick;
use crate::config::Settings;
use crate::hub::{Hub, WorkerIndex};
use crate::net::accounts::Accounts;
use crate::net::dispatch::Dispatcher;
use crate::net::gate::Gate;
use crate::net::listener::Listener;
use crate::net::mailbox::Mailboxes;
use crate::net::mode::Mode;
use crate::net::worker::adopting::Adoption;
use crate::net::worker::{Parts, Worker};
use crate::session::turn::Turn;

/// How far back the workers' clock begins. What adopted connections remember lies before this
/// process; what lies further back than this counts as just this old.
const CLOCK_LEAD: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A worker's thread.
pub(super) type WorkerThread = JoinHandle<io::Result<()>>;

/// What the workers share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) mailboxes: Arc<Mailboxes>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) ids: Arc<ConnectionIds>,
    /// How many there are.
    pub(super) workers: usize,
}

/// The workers.
pub(super) struct Crew {
    pub(super) shared: Shared,
    pub(super) threads: Vec<WorkerThread>,
}

/// What a worker begins with.
pub(super) enum Start {
    /// Nobody.
    Fresh(Vec<Listener>),
    /// The connections of a predecessor.
    Adopting(Adoption),
}

impl Crew {
    /// Starts the workers, one for each of `starts`.
    ///
    /// # Errors
    /// Descriptors or threads are lacking, or a user's factory has panicked.
    pub(super) fn spawn(
        builder: &Builder,
        settings: &Settings,
        connections_max: usize,
        first_id: u64,
        starts: Vec<Start>,
    ) -> io::Result<Self> {
        let workers = starts.len();
        // Back to when an adopted connection may have spoken last.
        let now = Instant::now();
        let started = now.checked_sub(CLOCK_LEAD).unwrap_or(now);
        let shared = routes::Shared::new(settings);
        let (mailboxes, polls) = Mailboxes::new(workers, shared.spaces.clone())?;
        let accounts = Arc::new(Accounts::new(workers, connections_max));
        let ids = Arc::new(ConnectionIds::new(first_id));
        let mut threads = Vec::with_capacity(workers);
        let mut begins = Vec::with_capacity(workers);
        let (ready, outcomes) = mpsc::channel();
        for (index, (poll, start)) in polls.into_iter().zip(starts).enumerate() {
            let setup = WorkerSetup {
                builder: builder.clone(),
                settings: settings.clone(),
                shared: shared.clone(),
                ids: ids.clone(),
                index: index as WorkerIndex,
                workers,
            };
            let (mailboxes, accounts) = (mailboxes.clone(), accounts.clone());
            let (ready, (begin, begun)) = (ready.clone(), mpsc::channel());
            begins.push(begin);
            let thread = thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || {
                let made = setup.dispatcher(mailboxes.clone(), started);
                let (outcome, dispatcher) = match made {
                    Ok(dispatcher) => (Ok(()), Some(dispatcher)),
                    Err(error) => (Err(error), None),
                };
                let _ = ready.send(outcome);
                // Not before all the others can: see below.
                let (Some(dispatcher), Ok(())) = (dispatcher, begun.recv()) else {
                    return Ok(());
                };
                let parts = Parts { poll, dispatcher, mailboxes, accounts, started };
                work(Worker::new(parts, workers), start)
            })?);
        }
        // What users' factories have made is there in all threads, or none begins: they end as
        // `begins` is dropped.
        drop(ready);
        for _ in 0..workers {
            outcomes.recv().map_err(|_| io::Error::other("a worker has ended at its start"))??;
        }
        for begin in begins {
            let _ = begin.send(());
        }
        Ok(Self { shared: Shared { mailboxes, accounts, ids, workers }, threads })
    }
}

/// A worker's life.
fn work(mut worker: Worker, start: Start) -> io::Result<()> {
    match start {
        Start::Fresh(listeners) => worker.listen(listeners)?,
        Start::Adopting(adoption) => {
            if !worker.adopt(&adoption) {
                return Ok(());
            }
        }
    }
    worker.run()
}

/// What a worker's thread makes its dispatcher of: apps need not be `Send`.
struct WorkerSetup {
    builder: Builder,
    settings: Settings,
    shared: routes::Shared,
    ids: Arc<ConnectionIds>,
    index: WorkerIndex,
    workers: usize,
}

impl WorkerSetup {
    fn dispatcher(self, mailboxes: Arc<Mailboxes>, started: Instant) -> io::Result<Dispatcher> {
        let Self { builder, settings, shared, ids, index, workers } = self;
        Ok(Dispatcher {
            worker: index,
            turn: Turn::server(),
            hub: Hub::new(index, workers as WorkerIndex),
            intents: Default::default(),
            routes: routes::build(&builder, &settings, &shared)?,
            gate: Gate {
                trusted_proxies: settings.trusted_proxies,
                forwarded_for: settings.forwarded_for,
                proxy_protocol: settings.proxy_protocol,
            },
            head_limits: settings.head,
            ids,
            post: PostBox(mailboxes),
            now: Tick::from_elapsed(started.elapsed()),
            work: 0,
            mode: Mode::Serving,
        })
    }
}
