//! From written values to [`Settings`]: parse, inherit, check.

use std::ops::Range;
use std::path::PathBuf;

use super::error::{did_you_mean, line_of, place_in_file};
use super::routes::{Problem, problems};
use super::syntax::TOKENS;
use super::written::{Merged, Source};
use super::{
    Context, Error, Errors, Key, Listed, Origin, Place, Resolved, Route, Scope, Secret, Settings,
    Sources, keys,
};
use crate::base::setting::{Section, Visitor};
use crate::base::syntax::{Describe, Syntax, one_of, quoted};

/// What a route cannot do without.
pub(super) const REQUIRED: [&str; 2] = ["routes.path", "routes.app"];

pub(super) fn resolve(sources: &Sources<'_>, context: &Context) -> Result<Resolved, Errors> {
    let merged = Merged::collect(sources);
    let (errors, listing) = (Vec::new(), Vec::new());
    let mut reader = Reader { sources, context, merged: &merged, route: None, errors, listing };
    let settings = reader.settings();
    reader.check(&settings);
    let Reader { errors, listing, .. } = reader;
    let mut errors: Vec<Error> = merged.errors.iter().cloned().chain(errors).collect();
    if errors.is_empty() {
        return Ok(Resolved { settings, listing, warnings: merged.warnings.clone() });
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

struct Reader<'a> {
    sources: &'a Sources<'a>,
    context: &'a Context,
    merged: &'a Merged,
    /// The route whose keys are being read; `None`: the server's.
    route: Option<usize>,
    errors: Vec<Error>,
    listing: Vec<Listed>,
}

impl Visitor for Reader<'_> {
    /// Puts what was written for the key, if that is right, in the place of the default.
    fn key<T>(&mut self, key: &'static Key, syntax: &impl Syntax<T>, value: &mut T) {
        if let Some(written) = self.merged.values.get(&(self.route, key.name)) {
            match syntax.parse(&written.raw) {
                Ok(parsed) => *value = parsed,
                Err(problem) => {
                    let source = match (&written.source, problem.span) {
                        (Source::File(_), Some(span)) => Source::File(span),
                        (source, _) => source.clone(),
                    };
                    self.error(&source, problem.message, Some(allowed(syntax)));
                }
            }
        }
        self.list(key, syntax.print(value));
    }
}

impl Reader<'_> {
    fn settings(&mut self) -> Settings {
        let mut settings = Settings::initial();
        settings.visit(self);
        if settings.workers == 0 {
            settings.workers = self.context.cores;
        }
        settings.routes = self.routes(&settings);
        settings
    }

    fn routes(&mut self, settings: &Settings) -> Vec<Route> {
        let default = Route {
            limits: settings.limits.clone(),
            deflate: settings.deflate.clone(),
            ..Route::initial()
        };
        let routes: Vec<(usize, Route)> = if self.merged.routes.is_empty() {
            let routes = self.context.routes_default.iter().map(|(path, app)| Route {
                path: path.clone(),
                app: app.clone(),
                ..default.clone()
            });
            routes.enumerate().collect()
        } else {
            self.merged.routes.keys().map(|index| (*index, default.clone())).collect()
        };
        routes.into_iter().map(|(index, route)| self.route(index, route)).collect()
    }

    fn route(&mut self, index: usize, mut route: Route) -> Route {
        self.require(index);
        self.route = Some(index);
        route.visit(self);
        self.route = None;
        if let Some(file) = &route.tokens_file {
            route.tokens = self.tokens_of_file(index, file);
        }
        route
    }

    fn list(&mut self, key: &'static Key, value: String) {
        let route = self.route;
        let origin = match self.merged.values.get(&(route, key.name)).map(|written| &written.source)
        {
            Some(Source::File(Range { start, .. })) => {
                let text = self.sources.file.as_ref().map_or("", |(_, text)| text);
                Origin::File { line: line_of(text, *start) }
            }
            Some(Source::Environment(name)) => Origin::Environment(name.clone()),
            Some(Source::Flag(flag)) => Origin::Flag(flag.clone()),
            // A route's own view of a server-wide key says nothing new.
            None if route.is_some() && key.scope == Scope::Both => return,
            None => Origin::Default,
        };
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
                let key = keys().find(|key| key.name == name).expect("a key of the table");
                let place = Place::Default(key.name_in(route));
                self.errors.push(Error { place, message, help });
            }
        }
    }

    fn require(&mut self, index: usize) {
        let Some(head) = self.merged.routes.get(&index) else {
            return; // a default route
        };
        for key in keys().filter(|key| REQUIRED.contains(&key.name)) {
            if !self.merged.values.contains_key(&(Some(index), key.name)) {
                let leaf = key.written(true).unwrap_or(key.name);
                self.error(head, format!("the route has no `{leaf}`"), Some(allowed(key.syntax)));
            }
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
            match (TOKENS.parse)(line) {
                Ok(token) => tokens.push(token),
                Err(message) => self.errors.push(Error {
                    place: Place::Other(format!("{}:{}", path.display(), number + 1)),
                    message,
                    help: Some(allowed(&TOKENS)),
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
        for Problem { key, message, help } in problems(route, earlier) {
            self.error_at(Some(index), key, message, help);
        }
    }
}

fn allowed(syntax: &(impl Describe + ?Sized)) -> String {
    format!("allowed: {}", syntax.allowed())
}
