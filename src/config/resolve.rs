//! From written values to [`Settings`]: parse, inherit, check.

use std::ops::Range;
use std::path::PathBuf;

use super::error::{did_you_mean, line_of, place_in_file};
use super::keys::{self, Key};
use super::route::{AllowedOrigins, has_parameter, matched_paths};
use super::value::{Item, Value, one_of, quoted};
use super::written::{Merged, Source};
use super::{
    Context, Deflate, Error, Errors, HeadLimits, Limits, Listed, ListenAddr, Log, LogFormat,
    Origin, Place, Resolved, Route, Secret, Settings, Sources, TrustedProxies,
};

pub(super) fn resolve(sources: &Sources<'_>, context: &Context) -> Result<Resolved, Errors> {
    let merged = Merged::collect(sources);
    let mut reader =
        Reader { sources, context, merged: &merged, errors: Vec::new(), listing: Vec::new() };
    let settings = reader.settings();
    reader.check(&settings);
    let Reader { errors, listing, .. } = reader;
    let mut errors: Vec<Error> = merged.errors.iter().cloned().chain(errors).collect();
    if errors.is_empty() {
        return Ok(Resolved { settings, listing });
    }
    errors.sort_by_key(|error| match &error.place {
        Place::File { line, column, .. } => (0, *line, *column),
        Place::Other(_) => (1, 0, 0),
        Place::Environment(_) => (2, 0, 0),
        Place::Flag(_) => (3, 0, 0),
        Place::Default(_) => (4, 0, 0),
    });
    Err(Errors(errors))
}

/// Reads each key of a section into the field of the same name, on top of `$base`. The pattern
/// without `..` is the point: a new field does not compile until it is listed here, and then it
/// has to be in the table of keys.
macro_rules! section {
    ($reader:expr, $route:expr, $section:literal, $base:expr, $Type:ident { $($field:ident),* $(,)? }) => {{
        let $Type { $($field),* } = $base;
        $Type { $($field: $reader.value($route, concat!($section, stringify!($field)), $field)),* }
    }};
}

struct Reader<'a> {
    sources: &'a Sources<'a>,
    context: &'a Context,
    merged: &'a Merged,
    errors: Vec<Error>,
    listing: Vec<Listed>,
}

impl Reader<'_> {
    fn settings(&mut self) -> Settings {
        let listen = vec![ListenAddr::Tcp(([127, 0, 0, 1], 8000).into())];
        let listen = self.value(None, "listen", &listen);
        let workers = self.value(None, "workers", &None).unwrap_or(self.context.cores);
        let control = self.value(None, "control", &None);
        let connections_max = self.value(None, "connections_max", &None);
        let drain_duration = std::time::Duration::from_secs(10);
        let drain_duration = self.value(None, "drain_duration", &drain_duration);
        let trusted_proxies = self.value(None, "trusted_proxies", &TrustedProxies::default());
        let proxy_protocol = self.value(None, "proxy_protocol", &false);
        let forwarded_for = self.value(None, "forwarded_for", &false);
        let log = Log { level: "info".to_owned(), format: LogFormat::Auto };
        let log = section!(self, None, "log.", &log, Log { level, format });
        let head = self.head();
        let limits = self.limits(None, &Limits::default());
        let deflate = self.deflate(None, &Deflate::default());
        let routes = self.routes(&limits, &deflate);
        Settings {
            listen,
            workers,
            control,
            connections_max,
            log,
            drain_duration,
            trusted_proxies,
            proxy_protocol,
            forwarded_for,
            head,
            limits,
            deflate,
            routes,
        }
    }

    fn head(&mut self) -> HeadLimits {
        section!(
            self,
            None,
            "head.",
            &HeadLimits::default(),
            HeadLimits { head_bytes_max, target_bytes_max, headers_max, handshake_timeout }
        )
    }

    fn limits(&mut self, route: Option<usize>, base: &Limits) -> Limits {
        section!(
            self,
            route,
            "limits.",
            base,
            Limits {
                message_bytes_max,
                fragments_max,
                queue_bytes_max,
                ping_interval,
                pong_timeout,
                idle_timeout,
                close_timeout,
                control_rate_max,
                message_rate_max,
                rooms_max,
            }
        )
    }

    fn deflate(&mut self, route: Option<usize>, base: &Deflate) -> Deflate {
        section!(
            self,
            route,
            "deflate.",
            base,
            Deflate { enabled, level, threshold_bytes, server_window_bits }
        )
    }

    fn routes(&mut self, limits: &Limits, deflate: &Deflate) -> Vec<Route> {
        if self.merged.routes.is_empty() {
            let defaults = self.context.routes_default.iter().enumerate();
            return defaults
                .map(|(index, (path, app))| self.route(index, path, app, limits, deflate))
                .collect();
        }
        let indices: Vec<usize> = self.merged.routes.keys().copied().collect();
        for index in &indices {
            for key in ["path", "app"] {
                self.require(*index, key);
            }
        }
        indices.into_iter().map(|index| self.route(index, "", "", limits, deflate)).collect()
    }

    fn route(
        &mut self,
        index: usize,
        path: &str,
        app: &str,
        limits: &Limits,
        deflate: &Deflate,
    ) -> Route {
        let route = Some(index);
        let path = self.value(route, "routes.path", &path.to_owned());
        let app = self.value(route, "routes.app", &app.to_owned());
        let allowed_origins =
            self.value(route, "routes.allowed_origins", &AllowedOrigins::default());
        let subprotocols = self.value(route, "routes.subprotocols", &Vec::new());
        let tokens = self.value(route, "routes.tokens", &Vec::new());
        let tokens_file = self.value(route, "routes.tokens_file", &None);
        let connections_per_ip_max = self.value(route, "routes.connections_per_ip_max", &None);
        let tokens = match tokens_file {
            Some(file) => self.tokens_of_file(index, &file),
            None => tokens,
        };
        let limits = self.limits(route, limits);
        let deflate = self.deflate(route, deflate);
        Route {
            path,
            app,
            allowed_origins,
            subprotocols,
            tokens,
            connections_per_ip_max,
            limits,
            deflate,
        }
    }

    /// The value of a key: what was written, or else `base`.
    fn value<T: Value + Clone>(&mut self, route: Option<usize>, name: &'static str, base: &T) -> T {
        let key = table_entry(name);
        let mut value = base.clone();
        if let Some(written) = self.merged.values.get(&(route, name)) {
            match T::parse(&written.raw, &key.shape) {
                Ok(parsed) => value = parsed,
                Err(problem) => {
                    let help = format!("allowed: {}", key.shape.allowed());
                    let source = match (&written.source, problem.span) {
                        (Source::File(_), Some(span)) => Source::File(span),
                        (source, _) => source.clone(),
                    };
                    self.error(&source, problem.message, Some(help));
                }
            }
        }
        self.list(route, key, &value);
        value
    }

    fn list<T: Value>(&mut self, route: Option<usize>, key: &'static Key, value: &T) {
        let origin = match self.merged.values.get(&(route, key.name)).map(|written| &written.source)
        {
            Some(Source::File(Range { start, .. })) => {
                let text = self.sources.file.as_ref().map_or("", |(_, text)| text);
                Origin::File { line: line_of(text, *start) }
            }
            Some(Source::Environment(name)) => Origin::Environment(name.clone()),
            Some(Source::Flag(flag)) => Origin::Flag(flag.clone()),
            // A route's own view of a server-wide key says nothing new.
            None if route.is_some() && key.scope == keys::Scope::Both => return,
            None => Origin::Default,
        };
        let value = value.show(&key.shape);
        self.listing.push(Listed { key: key.name_in(route), value, origin });
    }

    fn error(&mut self, source: &Source, message: String, help: Option<String>) {
        let place = match (source, &self.sources.file) {
            (Source::File(span), Some((name, text))) => place_in_file(name, text, span.clone()),
            (Source::File(_), None) => unreachable!("a span comes from a file"),
            (Source::Environment(name), _) => Place::Environment(name.clone()),
            (Source::Flag(flag), _) => Place::Flag(flag.clone()),
        };
        self.errors.push(Error { place, message, help });
    }

    /// An error about a key that is well written but wrong beside the others.
    fn error_at(&mut self, route: Option<usize>, name: &'static str, message: String, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        match self.merged.values.get(&(route, name)) {
            Some(written) => self.error(&written.source, message, help),
            None => {
                let place = Place::Default(table_entry(name).name_in(route));
                self.errors.push(Error { place, message, help });
            }
        }
    }

    fn require(&mut self, index: usize, leaf: &str) {
        let name = if leaf == "path" { "routes.path" } else { "routes.app" };
        if !self.merged.values.contains_key(&(Some(index), name)) {
            let source = &self.merged.routes[&index];
            let help = format!("allowed: {}", table_entry(name).shape.allowed());
            self.error(source, format!("the route has no `{leaf}`"), Some(help));
        }
    }

    /// The secrets of a file: one a line, empty lines and `#` comments left out.
    fn tokens_of_file(&mut self, index: usize, file: &PathBuf) -> Vec<Secret> {
        const NAME: &str = "routes.tokens_file";
        let route = Some(index);
        if self.merged.values.contains_key(&(route, "routes.tokens")) {
            let message = "the route has `tokens` as well".to_owned();
            self.error_at(route, NAME, message, "give one of the two");
            return Vec::new();
        }
        // A path in the file means the same whatever directory the server starts in.
        let written_in = match (&self.merged.values[&(route, NAME)].source, &self.sources.file) {
            (Source::File(_), Some((name, _))) => name.parent(),
            _ => None,
        };
        let path = written_in.map_or_else(|| file.clone(), |directory| directory.join(file));
        let Some(read_file) = self.sources.read_file else {
            self.error_at(route, NAME, "files cannot be read here".to_owned(), "");
            return Vec::new();
        };
        let text = match read_file(&path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                self.error_at(route, NAME, message, "");
                return Vec::new();
            }
        };
        let mut tokens = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match Secret::parse_item(line) {
                Ok(token) => tokens.push(token),
                Err(message) => self.errors.push(Error {
                    place: Place::Other(format!("{}:{}", path.display(), number + 1)),
                    message,
                    help: Some(format!(
                        "allowed: {}",
                        table_entry("routes.tokens").shape.allowed()
                    )),
                }),
            }
        }
        if tokens.is_empty() {
            let message = format!("{} has no token", path.display());
            self.error_at(
                route,
                NAME,
                message,
                "one a line; without the key no token is asked for",
            );
        }
        tokens
    }

    /// What depends on more than one key, or on the program.
    fn check(&mut self, settings: &Settings) {
        for (index, route) in settings.routes.iter().enumerate() {
            // An app left out, empty or not a string has been complained about.
            if !route.app.is_empty() {
                self.check_app(index, &route.app);
            }
        }
        // A value that did not parse was replaced by its default: what follows from that is noise.
        if !self.errors.is_empty() {
            return;
        }
        let Settings { head, workers, connections_max, trusted_proxies, .. } = settings;
        // Where only the head's bound was lowered, it comes first for targets too.
        let target_written = self.merged.values.contains_key(&(None, "head.target_bytes_max"));
        if target_written && head.target_bytes_max > head.head_bytes_max {
            let message = "the target cannot be longer than the head it is part of".to_owned();
            self.error_at(None, "head.target_bytes_max", message, "raise head.head_bytes_max");
        }
        if connections_max.is_some_and(|most| most < *workers) {
            let message = format!("less than one connection for each of {workers} workers");
            self.error_at(None, "connections_max", message, "lower `workers`");
        }
        for (name, on) in
            [("proxy_protocol", settings.proxy_protocol), ("forwarded_for", settings.forwarded_for)]
        {
            if on && trusted_proxies.is_empty() {
                let message = "no proxy is trusted".to_owned();
                self.error_at(None, name, message, "list them in `trusted_proxies`");
            }
        }
        for (index, route) in settings.routes.iter().enumerate() {
            self.check_route(index, route, &settings.routes[..index]);
        }
    }

    fn check_app(&mut self, index: usize, app: &str) {
        let apps = &self.context.apps;
        if !apps.iter().any(|known| known == app) {
            let near = did_you_mean(app, apps.iter().map(String::as_str));
            let help = match near {
                Some(near) => format!("did you mean {}?", quoted(near)),
                None => format!("allowed: {}", one_of(apps)),
            };
            self.error_at(Some(index), "routes.app", format!("there is no app {app:?}"), &help);
        }
    }

    fn check_route(&mut self, index: usize, route: &Route, earlier: &[Route]) {
        let at = Some(index);
        if route.app == "rooms" && !has_parameter(&route.path, "name") {
            let message = "the app \"rooms\" takes a room's name from the path".to_owned();
            self.error_at(at, "routes.path", message, "put {name} into it: \"/rooms/{name}\"");
        }
        let paths = matched_paths(&route.path);
        if let Some(first) = earlier.iter().position(|other| matched_paths(&other.path) == paths) {
            let message =
                format!("matches the same paths as route {first}, {:?}", earlier[first].path);
            self.error_at(at, "routes.path", message, "");
        }
    }
}

/// The table's entry for a key the code reads.
fn table_entry(name: &str) -> &'static Key {
    keys::KEYS.iter().find(|key| key.name == name).expect("each key that is read is in the table")
}
