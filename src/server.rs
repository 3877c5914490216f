//! The composition root: settings and apps become listeners, workers and threads.

mod lock;
mod routes;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::app::conn::PostBox;
use crate::app::erased::{self, AnyApp};
use crate::app::{App, Middleware, Outgoing, Post, Undeliverable};
use crate::base::id::ConnectionIds;
use crate::base::network::ListenAddr;
use crate::base::tick::Tick;
use crate::config::{self, Settings};
use crate::hub::{Hub, WorkerIndex};
use crate::net::accounts::Accounts;
use crate::net::dispatch::Dispatcher;
use crate::net::gate::Gate;
use crate::net::listener::{self, Bound, Listener};
use crate::net::mailbox::Mailboxes;
pub use crate::net::stop::Stop;
use crate::net::worker::{Parts, Worker};
use crate::session::turn::Turn;
use crate::sys::signals::{Signal, Signals};
use crate::sys::{descriptors, rand};

use lock::PortLock;

/// Descriptors kept for what is no connection: listeners, epolls, wakers, logs, an app's files.
const DESCRIPTORS_RESERVED: usize = 128;

/// How often the main thread looks whether its workers are there: while they serve, and while they
/// stop.
const SERVING_LOOK: Duration = Duration::from_secs(1);
const STOPPING_LOOK: Duration = Duration::from_millis(20);

/// Makes an app's instance for a worker.
type AppFactory = Arc<dyn Fn() -> Box<dyn AnyApp> + Send + Sync>;

/// Makes a middleware's instance for a route of a worker.
type MiddlewareFactory = Arc<dyn Fn() -> Box<dyn Middleware> + Send + Sync>;

/// A server with the built-in apps and those of its builder. Its command line is in
/// [`cli`](crate::cli).
///
/// ```no_run
/// # use steadfast::app::builtin::Echo;
/// use steadfast::server::Server;
///
/// fn main() -> std::process::ExitCode {
///     Server::builder().app("my-echo", || Echo).route("/mine", "my-echo").run_from_args()
/// }
/// ```
#[derive(Debug)]
pub struct Server;

impl Server {
    /// A builder with the built-in apps `page`, `echo` and `rooms`.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// What a server is made of beside its configuration.
#[derive(Clone, Default)]
pub struct Builder {
    apps: Vec<(String, AppFactory)>,
    middleware: Vec<(Option<String>, MiddlewareFactory)>,
    routes: Vec<(String, String)>,
}

impl Builder {
    /// Adds an app under a name that routes can use; `factory` is called once a worker and route.
    #[must_use]
    pub fn app<A: App>(
        mut self,
        name: &str,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        self.apps.push((name.to_owned(), Arc::new(move || erased::erase(factory()))));
        self
    }

    /// Adds a route that is there unless routes are configured: a path pattern and an app's name.
    #[must_use]
    pub fn route(mut self, path: &str, app: &str) -> Self {
        self.routes.push((path.to_owned(), app.to_owned()));
        self
    }

    /// Adds middleware: to one route, named by its pattern, or with `None` to all that have an
    /// app. It comes behind the built-in ones, in the order it was added.
    #[must_use]
    pub fn middleware<M: Middleware + 'static>(
        mut self,
        path: Option<&str>,
        factory: impl Fn() -> M + Send + Sync + 'static,
    ) -> Self {
        let factory: MiddlewareFactory = Arc::new(move || Box::new(factory()));
        self.middleware.push((path.map(str::to_owned), factory));
        self
    }

    /// What a configuration for this server may refer to.
    pub fn context(&self) -> config::Context {
        let mut context =
            config::Context::new(thread::available_parallelism().map_or(1, usize::from));
        context.apps.extend(self.apps.iter().map(|(name, _)| name.clone()));
        context.routes_default.extend(self.routes.iter().cloned());
        context
    }

    /// Serves until a signal stops it: TERM drains, INT is fast, a second TERM, too. To be called
    /// before other threads are started, since it takes the signals over.
    ///
    /// # Errors
    /// See [`start`](Self::start); and a worker that failed.
    pub fn serve(self, settings: &Settings) -> io::Result<()> {
        let signals = Signals::take_over()?;
        let running = self.start(settings)?;
        running.announce(settings);
        running.obey(&signals, settings.drain_duration)
    }

    /// Starts the server on threads of its own.
    ///
    /// # Errors
    /// An address cannot be listened on, or descriptors are lacking.
    pub fn start(self, settings: &Settings) -> io::Result<Running> {
        let files = descriptors::raise_open_files()?;
        let workers = settings.workers.max(1);
        let connections_max = connections_max(settings, files.soft, workers)?;
        let locks = settings
            .listen
            .iter()
            .map(|address| PortLock::acquire(address, settings.control.as_deref()))
            .collect::<io::Result<_>>()?;
        let mut addresses = Vec::new();
        let mut unlink: Vec<Box<dyn Send>> = Vec::new();
        let mut listeners: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
        for address in &settings.listen {
            let Bound { address, listeners: bound, unlink: path } =
                listener::bind(address, workers).map_err(|error| explain(address, &error))?;
            addresses.push(address);
            unlink.push(Box::new(path));
            for (worker, listener) in listeners.iter_mut().zip(bound) {
                worker.push(listener);
            }
        }
        let started = Instant::now();
        let (mailboxes, polls) = Mailboxes::new(workers)?;
        let accounts = Arc::new(Accounts::new(connections_max));
        let ids = Arc::new(ConnectionIds::new(first_id()?));
        let shared = routes::Shared::new(settings);
        let mut threads = Vec::with_capacity(workers);
        for (index, (poll, listeners)) in polls.into_iter().zip(listeners).enumerate() {
            let setup = WorkerSetup {
                builder: self.clone(),
                settings: settings.clone(),
                shared: shared.clone(),
                ids: ids.clone(),
                index: index as WorkerIndex,
            };
            let (mailboxes, accounts) = (mailboxes.clone(), accounts.clone());
            let thread =
                thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                    let dispatcher = setup.dispatcher(mailboxes.clone());
                    let parts = Parts { poll, listeners, dispatcher, mailboxes, accounts, started };
                    Worker::new(parts, workers)?.run()
                })?;
            threads.push(thread);
        }
        Ok(Running { addresses, mailboxes, accounts, threads, _unlink: unlink, _locks: locks })
    }
}

/// What a worker's thread makes its dispatcher of: apps need not be `Send`.
struct WorkerSetup {
    builder: Builder,
    settings: Settings,
    shared: routes::Shared,
    ids: Arc<ConnectionIds>,
    index: WorkerIndex,
}

impl WorkerSetup {
    fn dispatcher(self, mailboxes: Arc<Mailboxes>) -> Dispatcher {
        let Self { builder, settings, shared, ids, index } = self;
        Dispatcher {
            worker: index,
            turn: Turn::server(),
            hub: Hub::new(index, settings.workers.max(1) as WorkerIndex),
            intents: Default::default(),
            routes: routes::build(&builder, &settings, &shared),
            gate: Gate {
                trusted_proxies: settings.trusted_proxies,
                forwarded_for: settings.forwarded_for,
                proxy_protocol: settings.proxy_protocol,
            },
            head_limits: settings.head,
            ids,
            post: PostBox(mailboxes),
            now: Tick::START,
            work: 0,
            stopping: false,
            frozen: false,
        }
    }
}

/// A server at work.
pub struct Running {
    addresses: Vec<ListenAddr>,
    mailboxes: Arc<Mailboxes>,
    accounts: Arc<Accounts>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    _unlink: Vec<Box<dyn Send>>,
    _locks: Vec<Option<PortLock>>,
}

impl Running {
    /// Where it listens, with the ports that were given where 0 was asked for.
    pub fn addresses(&self) -> &[ListenAddr] {
        &self.addresses
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.accounts.connections()
    }

    /// Sends a message to every member of a room.
    ///
    /// # Errors
    /// See [`Undeliverable`].
    pub fn publish<'m>(
        &self,
        room: &str,
        message: impl Into<Outgoing<'m>>,
    ) -> Result<(), Undeliverable> {
        self.mailboxes.publish(room, message.into())
    }

    /// Tells the workers to stop; returns at once.
    pub fn stop(&self, stop: Stop) {
        for index in 0..self.threads.len() {
            self.mailboxes.stop(index as WorkerIndex, stop);
        }
    }

    /// Waits until the workers have stopped.
    ///
    /// # Errors
    /// A worker failed.
    pub fn join(self) -> io::Result<()> {
        let outcomes: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        for outcome in outcomes {
            outcome.map_err(|_| io::Error::other("a worker panicked"))??;
        }
        Ok(())
    }

    fn announce(&self, settings: &Settings) {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            workers = settings.workers,
            connections_max = self.accounts.connections_max(),
            "steadfast serves"
        );
        for address in &self.addresses {
            for route in &settings.routes {
                let scheme = if route.app == routes::PAGE { "http" } else { "ws" };
                match address {
                    ListenAddr::Tcp(address) => {
                        tracing::info!("{}: {scheme}://{address}{}", route.app, route.path);
                    }
                    ListenAddr::Unix(_) => {
                        tracing::info!("{}: {scheme} at {address}, {}", route.app, route.path);
                    }
                }
            }
        }
    }

    /// Passes signals on until the workers have stopped.
    fn obey(self, signals: &Signals, drain: Duration) -> io::Result<()> {
        let mut draining = false;
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if self.threads.iter().any(JoinHandle::is_finished) && !draining {
                tracing::error!("a worker has ended; the others stop");
                self.stop(Stop::Fast);
                break;
            }
            // Signals come at once; that a worker has ended, with the next look.
            let look_after = if draining { STOPPING_LOOK } else { SERVING_LOOK };
            match signals.wait(look_after)? {
                Some(Signal::Term) if !draining => {
                    tracing::info!(?drain, connections = self.connections(), "draining");
                    draining = true;
                    self.stop(Stop::Drain(drain));
                }
                Some(Signal::Int | Signal::Term) => {
                    tracing::info!(connections = self.connections(), "stopping");
                    draining = true;
                    self.stop(Stop::Fast);
                }
                Some(signal) => tracing::warn!(?signal, "this signal has no meaning here"),
                None => {}
            }
        }
        self.join()?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// What the descriptors allow, or less if it is configured.
fn connections_max(settings: &Settings, files: u64, workers: usize) -> io::Result<usize> {
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let reserved = DESCRIPTORS_RESERVED + workers * (2 + settings.listen.len());
    let room = files.saturating_sub(reserved);
    match settings.connections_max {
        Some(wanted) if wanted > room => Err(io::Error::other(format!(
            "connections_max is {wanted}, but the limit of {files} open files leaves room for {room}; \
             raise it (ulimit -n, LimitNOFILE=)"
        ))),
        Some(wanted) => Ok(wanted),
        None if room == 0 => Err(io::Error::other(format!(
            "the limit of {files} open files leaves no room for connections; raise it (ulimit -n, LimitNOFILE=)"
        ))),
        None => Ok(room),
    }
}

/// Ids count up from the time in microseconds, so that no two servers' lives share any.
fn first_id() -> io::Result<u64> {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Ok(since.as_micros() as u64),
        // A clock before 1970: any number will do.
        Err(_) => rand::number(),
    }
}

fn explain(address: &ListenAddr, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another server listens there; stop it first, or listen elsewhere"
        }
        io::ErrorKind::PermissionDenied => ": ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{hint}"))
}
