//! The composition root: settings and apps become listeners, workers and threads.

mod alongside;
mod caller;
mod center;
mod crew;
mod foundation;
mod history;
mod holdings;
mod launch;
mod line;
mod lock;
mod memory;
mod operate;
mod orders;
mod routes;
mod running;
mod takeover;
mod trim;
mod upgrade;

use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::app::erased::{self, AppFactory};
use crate::app::middleware::{self, MiddlewareFactory};
use crate::app::{App, Middleware};
use crate::config::{self, Settings};
pub use crate::net::stop::Stop;
use crate::net::worker::adopting::Instruction;
use crate::supervisor::Link;
use crate::sys::bell::Bell;
use crate::sys::rand;
use crate::sys::signals::Signals;

use center::Identity;
use foundation::{Foundation, Inherited};
use history::History;
use holdings::Holdings;
use launch::Supervision;
pub use running::Running;
use running::Standby;

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

/// How a server comes to its addresses, if no predecessor has started it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Entry {
    /// They have to be free.
    #[default]
    Alone,
    /// Whoever serves them hands everything over; if nobody does, as [`Alone`](Self::Alone).
    Takeover,
    /// It shares them with whoever serves them (SO_REUSEPORT), and takes nothing.
    Alongside,
}

/// What a server is made of beside its configuration.
#[derive(Clone, Default)]
pub struct Builder {
    apps: Vec<(String, AppFactory)>,
    middleware: Vec<(Option<String>, MiddlewareFactory)>,
    routes: Vec<(String, String)>,
    default_routes: bool,
}

impl Builder {
    /// Adds an app under a name that routes can use; `factory` is called once a worker and route.
    #[must_use]
    pub fn app<A: App>(
        mut self,
        name: &str,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        self.apps.push((name.to_owned(), erased::factory(factory)));
        self
    }

    /// Adds a route that is there unless routes are configured: a path pattern and an app's name.
    /// A builder with routes of its own has none of the default ones, unless it asks for them by
    /// [`default_routes`](Self::default_routes).
    #[must_use]
    pub fn route(mut self, path: &str, app: &str) -> Self {
        self.routes.push((path.to_owned(), app.to_owned()));
        self
    }

    /// Keeps the default routes beside those of the builder: the page at `/`, `/echo` and
    /// `/rooms/{name}`.
    #[must_use]
    pub fn default_routes(mut self) -> Self {
        self.default_routes = true;
        self
    }

    /// Adds middleware: to one route, named by its pattern, or with `None` to all that have an
    /// app. It comes behind the built-in ones, in the order it was added. A pattern that no route has
    /// guards nothing; the log warns of it when the server starts.
    #[must_use]
    pub fn middleware<M: Middleware + 'static>(
        mut self,
        path: Option<&str>,
        factory: impl Fn() -> M + Send + Sync + 'static,
    ) -> Self {
        self.middleware.push((path.map(str::to_owned), middleware::factory(factory)));
        self
    }

    /// What a configuration for this server may refer to.
    pub fn context(&self) -> config::Context {
        let mut context =
            config::Context::new(thread::available_parallelism().map_or(1, usize::from));
        context.apps.extend(self.apps.iter().map(|(name, _)| name.clone()));
        if !self.routes.is_empty() && !self.default_routes {
            context.routes_default.clear();
        }
        context.routes_default.extend(self.routes.iter().cloned());
        context
    }

    /// Serves until a signal stops it: TERM drains, INT is fast, a second TERM, too; USR2 and HUP
    /// hand everything over to a new process. `entry` is how it begins. To be called before other threads are started, since
    /// it takes the signals over.
    ///
    /// # Errors
    /// See [`start`](Self::start); and a worker that failed.
    pub fn serve(self, settings: &Settings, entry: Entry) -> io::Result<()> {
        let channel = launch::channel_of_environment()?;
        let identity = Identity { generation: 1, ..Identity::default() };
        self.serve_as(settings, entry, identity, Inherited::default(), channel)
    }

    /// As [`serve`](Self::serve), at the other end of a supervisor's link; as the successor of the
    /// process at the other end of `channel`, if there is one.
    ///
    /// # Errors
    /// As there, and if the supervisor is gone.
    pub fn serve_linked(
        self,
        settings: &Settings,
        entry: Entry,
        link: Link,
        channel: Option<OwnedFd>,
    ) -> io::Result<()> {
        let start = link.start()?;
        let supervision = Supervision::by(link, start.supervisor);
        let history = History::default();
        let identity = Identity { supervision, generation: start.generation, history };
        let inherited =
            Inherited { holdings: Holdings::of_kept(start.kept), ..Inherited::default() };
        self.serve_as(settings, entry, identity, inherited, channel)
    }

    fn serve_as(
        self,
        settings: &Settings,
        entry: Entry,
        identity: Identity,
        inherited: Inherited,
        channel: Option<OwnedFd>,
    ) -> io::Result<()> {
        self.check(settings)?;
        let signals = Signals::take_over()?;
        let running = match channel {
            Some(channel) => {
                let supervision = identity.supervision;
                let outcome = takeover::take_over(
                    &self,
                    settings,
                    entry,
                    channel,
                    None,
                    supervision,
                    &signals,
                );
                match outcome {
                    Ok(running) => running,
                    // Whoever has started it knows why.
                    Err(_) => return Ok(()),
                }
            }
            // What a server that crashed has left is there to be gone on with.
            None if entry == Entry::Takeover && inherited.holdings.is_empty() => {
                match caller::call(settings)? {
                    Some(call) => {
                        call.take_over(&self, settings, identity.supervision, &signals)?
                    }
                    None => self.begin(settings, entry, identity, inherited)?,
                }
            }
            None => self.begin(settings, entry, identity, inherited)?,
        };
        running.announce(settings);
        running.obey(&signals)
    }

    /// Starts the server on threads of its own.
    ///
    /// # Errors
    /// An address cannot be listened on, or descriptors are lacking.
    pub fn start(self, settings: &Settings) -> io::Result<Running> {
        self.check(settings)?;
        let identity = Identity { generation: 1, ..Identity::default() };
        self.begin(settings, Entry::Alone, identity, Inherited::default())
    }

    /// Refuses settings that a program has made and that do not hold, and warns of middleware that no
    /// request meets.
    fn check(&self, settings: &Settings) -> io::Result<()> {
        let apps = self.context().apps;
        let unknown = settings.routes.iter().find(|route| !apps.contains(&route.app));
        let problem = match unknown {
            Some(route) => Err(format!("{:?}: there is no app {:?}", route.path, route.app)),
            None => settings.check_routes(),
        };
        problem.map_err(|message| io::Error::new(io::ErrorKind::InvalidInput, message))?;
        for path in self.idle_middleware(settings) {
            tracing::warn!(path, "middleware guards nothing: no route has this path");
        }
        Ok(())
    }

    /// Paths of middleware that no route has. An operator may leave a route out on purpose; a slip in
    /// a path would leave a route unguarded.
    fn idle_middleware<'s>(&'s self, settings: &Settings) -> impl Iterator<Item = &'s str> {
        let paths = self.middleware.iter().filter_map(|(path, _)| path.as_deref());
        paths.filter(|path| settings.routes.iter().all(|route| route.path != *path))
    }

    fn begin(
        self,
        settings: &Settings,
        entry: Entry,
        identity: Identity,
        inherited: Inherited,
    ) -> io::Result<Running> {
        let foundation = Foundation::bind(settings, entry, inherited)?;
        // These workers find nothing, and nobody waits for it.
        let (findings, _) = Bell::new()?.channel();
        let mut standby = Standby::new(&self, settings, foundation, identity, &findings)?;
        standby.listen()?;
        if entry == Entry::Alongside {
            standby.steer_nowhere();
        }
        let running = standby.serve(Instruction::ServeAnew, || None);
        running.leave_copies();
        Ok(running)
    }
}

/// The environment's variable that tells a new process that it is a successor; it is no setting.
pub const HANDOVER_VARIABLE: &str = launch::VARIABLE;

/// Tells the predecessor, if this process was started as a successor, why it cannot even begin.
pub fn refuse_handover(channel: Option<&OwnedFd>, reason: &str) {
    match (channel, launch::channel_of_environment()) {
        (Some(channel), _) => takeover::refuse(channel, reason),
        (None, Ok(Some(channel))) => takeover::refuse(&channel, reason),
        (None, _) => {}
    }
}

/// Whether this process was started as a successor without a supervisor.
pub fn is_successor() -> bool {
    std::env::var_os(HANDOVER_VARIABLE).is_some()
}

/// Ids count up from the time in microseconds, so that no two servers' lives share any.
fn first_id() -> io::Result<u64> {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Ok(since.as_micros() as u64),
        // A clock before 1970: any number will do.
        Err(_) => rand::number(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::middleware::ConnectionsPerIp;

    #[test]
    fn middleware_that_no_request_meets_is_noticed() {
        let gate = || ConnectionsPerIp::new(Default::default(), 1);
        let builder = Server::builder()
            .app("mine", || crate::app::builtin::Echo)
            .route("/mine/{name}", "mine")
            .middleware(Some("/mine/{name}"), gate)
            .middleware(Some("/mine/{nam}"), gate)
            .middleware(None, gate);
        let resolved = config::resolve(&config::Sources::default(), &builder.context());
        let settings = resolved.expect("the defaults hold").settings;
        assert_eq!(builder.idle_middleware(&settings).collect::<Vec<_>>(), ["/mine/{nam}"]);
    }
}
