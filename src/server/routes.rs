//! From a route as it is configured to a route as a worker has it.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use super::Builder;
use crate::app::Response;
use crate::app::builtin::{Echo, Rooms};
use crate::app::erased::erase;
use crate::app::guarded::Panicked;
use crate::app::middleware::{
    AllowedHosts, AnyGate, BearerTokens, Chain, ConnectionsPerIp, IpCounts, OriginPolicy,
};
use crate::config::{self, Settings};
use crate::hub::{Space, Spaces};
use crate::net::route::{Pattern, Route, Target};
use crate::session::Compression;
use crate::session::handshake::DeflatePolicy;

/// The names of what is served over plain HTTP, among the apps: the demo page, and what load balancers
/// and orchestrators ask for.
const PAGE: &str = "page";
const HEALTH: &str = "health";
const READY: &str = "ready";

/// Whether an app of this name, of those built in, is served over plain HTTP.
pub(super) fn is_http(app: &str) -> bool {
    [PAGE, HEALTH, READY].contains(&app)
}

/// The chat page; it comes with the binary and asks for nothing else.
const PAGE_HTML: &str = include_str!("../app/page/index.html");

/// Forbids the page to load or to reach anything but this server.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the workers share: the room spaces, and one count of connections per address for each
/// route.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) spaces: Spaces,
    counts: Vec<Arc<IpCounts>>,
}

impl Shared {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            spaces: Spaces::new(settings.routes.iter().map(config::Route::space)),
            counts: settings.routes.iter().map(|_| Arc::default()).collect(),
        }
    }
}

/// A worker's routes; the first is for connections without one.
///
/// # Errors
/// A factory has panicked.
pub(super) fn build(
    builder: &Builder,
    settings: &Settings,
    shared: &Shared,
) -> io::Result<Vec<Route>> {
    let nowhere = Route {
        pattern: Pattern::parse("/").expect("the shortest pattern"),
        space: Space::default(),
        app: Box::default(),
        target: Target::Nothing,
        chain: Chain::default(),
        limits: settings.limits.clone(),
        compression: compression(&settings.deflate),
        subprotocols: Vec::new(),
        deflate: None,
    };
    let configured = settings.routes.iter().zip(&shared.counts).map(|(route, counts)| {
        let target = target(builder, &route.app)?;
        Ok(Route {
            pattern: Pattern::parse(&route.path).expect("the configuration is checked"),
            space: shared.spaces.find(route.space()).expect("it is one of the routes' spaces"),
            app: (*route.app).into(),
            chain: chain(builder, route, &target, counts)?,
            target,
            limits: route.limits.clone(),
            compression: compression(&route.deflate),
            subprotocols: route.subprotocols.clone(),
            deflate: route.deflate.enabled.then_some(DeflatePolicy {
                server_window_bits: route.deflate.server_window_bits,
                client_window_bits: None,
            }),
        })
    });
    std::iter::once(Ok(nowhere)).chain(configured).collect()
}

fn compression(deflate: &config::Deflate) -> Compression {
    Compression { level: deflate.level, threshold_bytes: deflate.threshold_bytes }
}

fn target(builder: &Builder, app: &str) -> io::Result<Target> {
    // The builder's own come first: a name given twice is the user's.
    if let Some((_, factory)) = builder.apps.iter().find(|(name, _)| name == app) {
        let panicked =
            |Panicked| io::Error::other(format!("the factory of the app `{app}` panicked"));
        return factory.make().map(Target::App).map_err(panicked);
    }
    Ok(match app {
        "echo" => Target::App(erase(Echo)),
        "rooms" => Target::App(erase(Rooms)),
        PAGE => Target::Page(page()),
        HEALTH => Target::Health,
        READY => Target::Ready,
        _ => Target::Nothing,
    })
}

fn page() -> Response {
    let html: Cow<'static, [u8]> = Cow::Borrowed(PAGE_HTML.as_bytes());
    Response::new(200, "text/html; charset=utf-8", html)
        .with_header("Content-Security-Policy", PAGE_POLICY)
        .with_header("X-Content-Type-Options", "nosniff")
        .with_header("Referrer-Policy", "no-referrer")
        .with_header("Cache-Control", "no-cache")
}

/// Cheap gates first; the count last of the built-in ones, so that it counts no refused request.
fn chain(
    builder: &Builder,
    route: &config::Route,
    target: &Target,
    counts: &Arc<IpCounts>,
) -> io::Result<Chain> {
    let mut gates = Vec::new();
    // Whoever asks whether the server is there knows it by its address.
    let is_check = matches!(target, Target::Health | Target::Ready);
    if let Some(hosts) = &route.allowed_hosts
        && !is_check
    {
        let hosts = AllowedHosts::new(hosts.clone()).expect("the configuration is checked");
        gates.push(AnyGate::new(hosts));
    }
    gates.push(AnyGate::new(origins(&route.allowed_origins)));
    if !route.tokens.is_empty() {
        let tokens = route.tokens.iter().map(|token| token.expose().to_owned()).collect();
        gates.push(AnyGate::new(BearerTokens::new(tokens).expect("the configuration is checked")));
    }
    if let Some(max) = route.connections_per_ip_max {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        gates.push(AnyGate::new(ConnectionsPerIp::new(counts.clone(), max)));
    }
    for (path, factory) in &builder.middleware {
        if path.as_ref().is_none_or(|path| *path == route.path) {
            gates.push(factory.make().map_err(|Panicked| {
                io::Error::other(format!(
                    "the factory of a middleware of `{}` panicked",
                    route.path
                ))
            })?);
        }
    }
    Ok(Chain::new(gates))
}

fn origins(allowed: &config::AllowedOrigins) -> OriginPolicy {
    let any = allowed.any.then(|| "*".to_owned());
    let listed: Vec<String> = allowed.origins.iter().cloned().chain(any).collect();
    let policy = OriginPolicy::new(&listed).expect("the configuration is checked");
    if allowed.same_host { policy } else { policy.without_same_host() }
}
