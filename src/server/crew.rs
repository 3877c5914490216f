//! The workers of a server: made of settings and apps, on threads of their own.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Builder, first_id, memory, routes};
use crate::app::handle::PostBox;
use crate::base::id::ConnectionIds;
use crate::base::meter::Meter;
use crate::base::tick::Tick;
use crate::config::Settings;
use crate::hub::{Hub, WorkerIndex};
use crate::net::accounts::Accounts;
use crate::net::dispatch::Dispatcher;
use crate::net::gate::Gate;
use crate::net::listener::Listener;
use crate::net::mailbox::Mailboxes;
use crate::net::mode::Mode;
use crate::net::refusals::Refusals;
use crate::net::worker::adopting::{Finding, Instruction, Talk};
use crate::net::worker::{Parts, Worker};
use crate::session::turn::Turn;
use crate::sys::bell::Rung;

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
    pub(super) refusals: Arc<Refusals>,
    /// How many there are.
    pub(super) workers: usize,
}

/// The workers: they have all they need, and serve nobody until they are told. Without anybody who
/// could tell them they end.
pub(super) struct Crew {
    pub(super) shared: Shared,
    pub(super) threads: Vec<WorkerThread>,
    /// To each of them.
    instructions: Vec<Sender<Instruction>>,
}

impl Crew {
    /// Starts the workers, one for each of `hands`, which are its listeners; returns once each of
    /// them has all it needs.
    ///
    /// # Errors
    /// Descriptors or threads are lacking, or a user's factory has panicked.
    pub(super) fn spawn(
        builder: &Builder,
        settings: &Settings,
        connections_max: usize,
        hands: Vec<Vec<Listener>>,
        findings: &Rung<(WorkerIndex, Finding)>,
    ) -> io::Result<Self> {
        let workers = hands.len();
        // Back to when an adopted connection may have spoken last.
        let now = Instant::now();
        let started = now.checked_sub(CLOCK_LEAD).unwrap_or(now);
        let of_routes = routes::Shared::new(settings);
        let (mailboxes, polls) = Mailboxes::new(workers, of_routes.spaces.clone())?;
        mailboxes.hold();
        let memory_max = settings.memory_max.unwrap_or_else(memory::max);
        let accounts = Arc::new(Accounts::new(workers, connections_max, memory_max));
        let ids = Arc::new(ConnectionIds::new(first_id()?));
        let shared = Shared { mailboxes, accounts, ids, refusals: Arc::default(), workers };
        let mut crew = Self { shared, threads: Vec::new(), instructions: Vec::new() };
        let (ready, set_up) = mpsc::channel();
        for (index, (poll, listeners)) in polls.into_iter().zip(hands).enumerate() {
            let (sender, instructions) = mpsc::channel();
            crew.instructions.push(sender);
            let setup = WorkerSetup {
                builder: builder.clone(),
                settings: settings.clone(),
                shared: of_routes.clone(),
                ids: crew.shared.ids.clone(),
                refusals: crew.shared.refusals.clone(),
                index: index as WorkerIndex,
                workers,
            };
            let Shared { mailboxes, accounts, .. } = crew.shared.clone();
            let (ready, talk) = (ready.clone(), Talk { instructions, findings: findings.clone() });
            let work = move || {
                let make = || {
                    let meter = accounts.meter(index as WorkerIndex).clone();
                    setup.dispatcher(mailboxes.clone(), started, meter)
                };
                let set_up = make().and_then(|dispatcher| {
                    let (mailboxes, accounts) = (mailboxes.clone(), accounts.clone());
                    let parts = Parts { poll, dispatcher, mailboxes, accounts, started };
                    let mut worker = Worker::new(parts, workers);
                    worker.listen(listeners).map(|()| worker)
                });
                match set_up {
                    Ok(worker) => {
                        let _ = ready.send(Ok(()));
                        drop(ready);
                        live(worker, &talk, make)
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        Ok(())
                    }
                }
            };
            crew.threads.push(thread::Builder::new().name(format!("worker-{index}")).spawn(work)?);
        }
        drop(ready);
        for _ in 0..workers {
            let ended = |_| io::Error::other("a worker has ended while it was set up");
            set_up.recv().map_err(ended)??;
        }
        Ok(crew)
    }

    /// Tells each worker.
    pub(super) fn instruct(&self, mut instruction: impl FnMut(usize) -> Instruction) {
        for (index, worker) in self.instructions.iter().enumerate() {
            // A worker that is gone has said so.
            let _ = worker.send(instruction(index));
        }
    }

    /// Has the workers serve, and returns when they all do.
    pub(super) fn serve(&self, serve: impl Fn(Sender<()>) -> Instruction) {
        let (begun, begins) = mpsc::channel();
        self.instruct(|_| serve(begun.clone()));
        drop(begun);
        while begins.recv().is_ok() {}
        // What the apps' threads have sent meanwhile is for connections that are served now.
        self.shared.mailboxes.open();
    }

    /// Ends workers that serve nobody yet, and gives up what they have adopted.
    pub(super) fn disband(self) {
        drop(self.instructions);
        for thread in self.threads {
            // What it has to say has been said.
            let _: Result<_, _> = thread.join();
        }
    }
}

/// A worker's life, once it has all it needs; with `make` it begins anew after a panic.
fn live(
    mut worker: Worker,
    talk: &Talk,
    make: impl Fn() -> io::Result<Dispatcher>,
) -> io::Result<()> {
    match catch_unwind(AssertUnwindSafe(|| worker.adopt(talk))) {
        Ok(Some(beginning)) => worker.run(beginning, make),
        Ok(None) => Ok(()),
        Err(_) => {
            // Nothing is ours yet: the predecessor goes on.
            let error = || io::Error::other("a worker panicked");
            talk.findings.send((worker.index(), Finding::Broken(error())));
            Err(error())
        }
    }
}

/// What a worker's thread makes its dispatcher of: apps need not be `Send`.
struct WorkerSetup {
    builder: Builder,
    settings: Settings,
    shared: routes::Shared,
    ids: Arc<ConnectionIds>,
    refusals: Arc<Refusals>,
    index: WorkerIndex,
    workers: usize,
}

impl WorkerSetup {
    fn dispatcher(
        &self,
        mailboxes: Arc<Mailboxes>,
        started: Instant,
        meter: Meter,
    ) -> io::Result<Dispatcher> {
        let Self { builder, settings, shared, ids, refusals, index, workers } = self;
        Ok(Dispatcher {
            worker: *index,
            turn: Turn::server().metered(meter),
            hub: Hub::new(*index, *workers as WorkerIndex),
            intents: Default::default(),
            routes: routes::build(builder, settings, shared)?,
            gate: Gate {
                trusted_proxies: settings.trusted_proxies.clone(),
                forwarded_for: settings.forwarded_for,
                proxy_protocol: settings.proxy_protocol,
                refusals: refusals.clone(),
            },
            head_limits: settings.head.clone(),
            ids: ids.clone(),
            post: PostBox(mailboxes),
            now: Tick::from_elapsed(started.elapsed()),
            work: 0,
            mode: Mode::Serving,
        })
    }
}
