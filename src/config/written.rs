//! The configuration as written: each source read into one map, the later over the earlier.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{did_you_mean, place_in_file};
use super::{Error, Key, Place, Scope, Sources, keys};
use crate::base::syntax::Raw;

/// A key of the server (`None`) or of the route of this index.
pub(super) type Id = (Option<usize>, &'static str);

/// Where something was written.
#[derive(Debug, Clone)]
pub(super) enum Source {
    File(Range<usize>),
    Environment(String),
    Flag(String),
}

/// A value as written, and where.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) raw: Raw,
    pub(super) source: Source,
}

/// All sources, merged.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) values: BTreeMap<Id, Written>,
    /// Each route's head: where to point if something is missing in it.
    pub(super) routes: BTreeMap<usize, Source>,
    pub(super) errors: Vec<Error>,
    /// What need not be wrong.
    pub(super) warnings: Vec<Error>,
}

impl Merged {
    pub(super) fn collect(sources: &Sources<'_>) -> Self {
        let Sources { file, environment, flags, read_file: _ } = sources;
        let mut merged = Self::default();
        if let Some((name, text)) = file {
            FileReader { name, text, merged: &mut merged }.read();
        }
        merged.read_environment(environment);
        merged.read_flags(flags);
        merged
    }

    fn insert(&mut self, route: Option<usize>, key: &'static Key, raw: Raw, source: Source) {
        self.values.insert((route, key.name), Written { raw, source });
    }

    fn read_flags(&mut self, flags: &[(&'static Key, String)]) {
        for (key, text) in flags {
            self.insert(None, key, Raw::Text(text.clone()), Source::Flag(key.flag()));
        }
    }

    fn read_environment(&mut self, environment: &[(OsString, OsString)]) {
        let mut variables: Vec<(String, &OsString)> = environment
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value)))
            .filter(|(name, _)| name.starts_with("STEADFAST_") && !is_not_ours(name))
            .collect();
        variables.sort();
        for (name, value) in variables {
            let error = |message: String, help| Error {
                place: Place::Environment(name.clone()),
                message,
                help,
            };
            let Some((route, key)) = find_variable(&name) else {
                let help = suggested_variable(&name);
                let help = help.map(|known| format!("did you mean {known}?"));
                let error = error("no key has this environment variable".to_owned(), help);
                // A slip in a route's variable could leave the route unguarded. Others may be those that
                // Kubernetes sets for a Service of a name like "steadfast-ws".
                let of_route = route_of_variable(&name).is_some();
                if of_route { &mut self.errors } else { &mut self.warnings }.push(error);
                continue;
            };
            let Some(text) = value.to_str() else {
                let message = "the value is not UTF-8".to_owned();
                self.errors.push(error(message, None));
                continue;
            };
            if let Some(route) = route {
                self.routes.entry(route).or_insert_with(|| Source::Environment(name.clone()));
            }
            self.insert(route, key, Raw::Text(text.to_owned()), Source::Environment(name));
        }
        self.refuse_gaps();
    }

    /// Route 2 without a route 1 is a slip, most likely a count from 1.
    fn refuse_gaps(&mut self) {
        let first_missing = (0..).find(|index| !self.routes.contains_key(index)).unwrap_or(0);
        let beyond: Vec<usize> =
            self.routes.range(first_missing..).map(|(index, _)| *index).collect();
        for index in beyond {
            let Some(Source::Environment(name)) = self.routes.remove(&index) else {
                continue;
            };
            self.values.retain(|(route, _), _| *route != Some(index));
            self.errors.push(Error {
                place: Place::Environment(name),
                message: format!("route {index} is set, but there is no route {first_missing}"),
                help: Some("routes count from 0, those of the file first".to_owned()),
            });
        }
    }
}

/// Names that are not about configuration keys: the file itself, and what container systems set
/// for a service that is called "steadfast" (`STEADFAST_PORT_8000_TCP=tcp://…`).
fn is_not_ours(name: &str) -> bool {
    let name = name.strip_prefix("STEADFAST_").unwrap_or(name);
    name == "CONFIG"
        || name == "PORT"
        || name == "SERVICE_HOST"
        || name == "SERVICE_PORT"
        || name.starts_with("SERVICE_PORT_")
        || name.starts_with("PORT_")
}

/// The key of this name, written for the server or in a route.
fn find(name: &str, in_route: bool) -> Option<&'static Key> {
    keys().find(|key| key.written(in_route) == Some(name))
}

/// The sections in which keys may be written: `limits`.
fn sections(in_route: bool) -> impl Iterator<Item = &'static str> {
    let names = keys().filter_map(move |key| key.written(in_route));
    names.filter_map(|name| name.split_once('.')).map(|(section, _)| section)
}

/// The index of the route that a variable is about, `STEADFAST_ROUTES_<n>_…`.
fn route_of_variable(name: &str) -> Option<usize> {
    let rest = name.strip_prefix("STEADFAST_ROUTES_")?;
    rest.split('_').next()?.parse().ok()
}

/// The key that the variable sets.
fn find_variable(name: &str) -> Option<(Option<usize>, &'static Key)> {
    let routes = [None, route_of_variable(name)];
    routes.into_iter().find_map(|route: Option<usize>| {
        let mut allowed = keys().filter(|key| key.written(route.is_some()).is_some());
        Some((route, allowed.find(|key| key.environment(route) == name)?))
    })
}

/// A variable that exists and has a name like this one.
fn suggested_variable(name: &str) -> Option<String> {
    let route = route_of_variable(name);
    // The prefix is common to all and would make everything look alike.
    let prefix = match route {
        Some(route) => format!("STEADFAST_ROUTES_{route}_"),
        None => "STEADFAST_".to_owned(),
    };
    let allowed = keys().filter(|key| key.written(route.is_some()).is_some());
    let known: Vec<String> = allowed.map(|key| key.environment(route)).collect();
    let tails = known.iter().filter_map(|name| name.strip_prefix(&prefix));
    did_you_mean(name.strip_prefix(&prefix)?, tails).map(|tail| format!("{prefix}{tail}"))
}

/// Reads the TOML file.
struct FileReader<'a> {
    name: &'a Path,
    text: &'a str,
    merged: &'a mut Merged,
}

impl FileReader<'_> {
    fn read(&mut self) {
        match DeTable::parse(self.text) {
            Ok(table) => self.read_table(table.get_ref(), "", None),
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                self.error(span, error.message().to_owned(), None);
            }
        }
    }

    fn error(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        let place = place_in_file(self.name, self.text, span);
        self.merged.errors.push(Error { place, message, help });
    }

    /// Reads the keys below `prefix`, which is empty or ends with a dot.
    fn read_table(&mut self, table: &DeTable<'_>, prefix: &str, route: Option<usize>) {
        let in_route = route.is_some();
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            if name == "routes" && !in_route {
                self.read_routes(value);
            } else if let Some(key) = find(&name, in_route) {
                let source = Source::File(value.span());
                self.merged.insert(route, key, raw(value.get_ref()), source);
            } else if sections(in_route).any(|section| section == name) {
                match value.get_ref() {
                    DeValue::Table(table) => self.read_table(table, &format!("{name}."), route),
                    _ => self.error(
                        value.span(),
                        format!("`{name}` is a table, not a value"),
                        Some(format!("its keys follow a line [{name}]")),
                    ),
                }
            } else {
                let help = suggestion(&name, in_route);
                self.error(key.span(), format!("unknown key `{name}`"), help);
            }
        }
    }

    fn read_routes(&mut self, value: &Spanned<DeValue<'_>>) {
        const HELP: &str = "each route follows a line [[routes]]";
        let DeValue::Array(routes) = value.get_ref() else {
            let message = "`routes` is not a list of tables".to_owned();
            return self.error(value.span(), message, Some(HELP.to_owned()));
        };
        for (index, route) in routes.iter().enumerate() {
            match route.get_ref() {
                DeValue::Table(table) => {
                    self.merged.routes.insert(index, Source::File(route.span()));
                    self.read_table(table, "", Some(index));
                }
                _ => {
                    let message = "a route is a table of keys".to_owned();
                    self.error(route.span(), message, Some(HELP.to_owned()));
                }
            }
        }
    }
}

/// What to say about a key that does not exist: a name like it, or where a key of its name lives.
fn suggestion(name: &str, in_route: bool) -> Option<String> {
    let names = keys().filter_map(|key| key.written(in_route));
    if let Some(near) = did_you_mean(name, names) {
        return Some(format!("did you mean `{near}`?"));
    }
    let leaf = name.rsplit('.').next().unwrap_or(name);
    if let Some(key) = keys().find(|key| key.name.rsplit('.').next() == Some(leaf)) {
        return Some(match (key.scope, key.name.rsplit_once('.')) {
            (Scope::Route, _) => format!("`{leaf}` belongs in a [[routes]]"),
            (Scope::Server, None) => format!("`{leaf}` belongs to the server, above all tables"),
            (Scope::Both, Some((section, _))) if in_route => {
                format!("`{leaf}` belongs in [routes.{section}]")
            }
            (_, Some((section, _))) => format!("`{leaf}` belongs in [{section}]"),
            (Scope::Both, None) => format!("did you mean `{}`?", key.name),
        });
    }
    let sections = sections(in_route).chain((!in_route).then_some("routes"));
    did_you_mean(name, sections).map(|section| format!("did you mean `{section}`?"))
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::String(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i128::from_str_radix(number.as_str(), number.radix());
            Raw::Integer(parsed.unwrap_or(i128::MAX))
        }
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Array(items) => {
            Raw::List(items.iter().map(|item| (raw(item.get_ref()), item.span())).collect())
        }
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}
