//! The manual's pages on configuration and limits, written from the keys' declarations.
//!
//! `BLESS=1 cargo test reference` writes them anew; without it a page that differs is a failure.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::{env, fs};

use super::resolve::REQUIRED;
use super::{Context, Key, Scope, Sources, keys, resolve};
use crate::base::limits::ROOM_NAME_BYTES_MAX;

const CONFIGURATION_HEAD: &str = r#"# Configuration

<!-- Written by `BLESS=1 cargo test reference` from `src/config/settings.rs` and `src/base/limits.rs`; edit there. -->

A value comes from one of four sources. The later wins, key by key:

1. the default;
2. the TOML file named by `--config FILE` or `STEADFAST_CONFIG`;
3. the environment: each key has a `STEADFAST_*` variable;
4. flags of `steadfast serve`: each key of the server has one.

`steadfast check-config FILE` prints each key's value and where it comes from, or every error with
its line. What it does not know is an error: a key, and a `STEADFAST_*` variable too.

```toml
listen = ["0.0.0.0:80", "unix:/run/steadfast.sock"]
workers = 4
trusted_proxies = ["10.0.0.0/8", "unix"]
forwarded_for = true

[limits]
message_bytes_max = "64 KiB"

[[routes]]
path = "/rooms/{name}"
app = "rooms"
allowed_origins = ["same-host", "https://example.org"]
tokens_file = "tokens"
limits.message_rate_max = 50

[[routes]]
path = "/upload"
app = "echo"
[routes.limits]
message_bytes_max = "16 MiB"
idle_timeout = "5m"
[routes.deflate]
enabled = false
```

## Names

- **Environment**: `STEADFAST_`, then the key in upper case with `_` for each dot:
  `limits.message_bytes_max` is `STEADFAST_LIMITS_MESSAGE_BYTES_MAX`. Routes count from 0, those of
  the file first: `STEADFAST_ROUTES_0_PATH`, `STEADFAST_ROUTES_0_LIMITS_ROOMS_MAX`. A variable for a
  route of the file changes that route; the next number makes a new one. Items of lists have commas
  between them. Names that container systems set for a service called "steadfast"
  (`STEADFAST_SERVICE_HOST`, `STEADFAST_SERVICE_PORT…`, `STEADFAST_PORT…`) are left alone.
- **Flags**: `--`, then the key with `-` for each dot and `_`: `--limits-message-bytes-max`. A flag of
  a list may be repeated or has commas. Keys of routes have no flags: secrets on a command line are
  for everyone to read.

## Values

"#;

const ROUTES_HEAD: &str = r#"
## Keys of a route

Each route is a `[[routes]]` table. If there is none, the defaults are `/` with the demo page, `/echo`,
and `/rooms/{name}`. The variables are those of route 0. A route may also have every key of `limits`
and `deflate` for itself, as in `[routes.limits]`; what it leaves out it inherits.

"#;

const LIMITS_HEAD: &str = r#"# Limits

<!-- Written by `BLESS=1 cargo test reference` from `src/config/settings.rs` and `src/base/limits.rs`; edit there. -->

Everything a peer can make the server hold or do has a limit with a name, a default and a reason.
Each is a key of the configuration; those of `limits` can differ by route. What follows beyond it is an
HTTP status (three digits) before the handshake is accepted, and a close code (four digits, RFC 6455
§7.4) after.

"#;

/// The defaults of all keys, as one would write them.
fn defaults() -> BTreeMap<String, String> {
    let mut sources = Sources::default();
    // A route that says nothing but what is required shows the defaults of a route's keys.
    for (name, value) in [("STEADFAST_ROUTES_0_PATH", "/"), ("STEADFAST_ROUTES_0_APP", "page")] {
        sources.environment.push((name.into(), value.into()));
    }
    let listing = resolve(&sources, &Context::new(1)).unwrap().listing;
    listing.into_iter().map(|listed| (listed.key, listed.value)).collect()
}

fn default(key: &Key, defaults: &BTreeMap<String, String>) -> String {
    let route = (key.scope == Scope::Route).then_some(0);
    match defaults[&key.name_in(route)].as_str() {
        _ if REQUIRED.contains(&key.name) => "required".to_owned(),
        "" | "[]" => "none".to_owned(),
        value => format!("`{value}`"),
    }
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), characters.as_str()),
        None => String::new(),
    }
}

/// What is quoted, and what Markdown would take for its own, as code.
fn as_markdown(text: &str) -> String {
    let quoted: Vec<String> = text
        .split('"')
        .enumerate()
        .map(|(index, part)| match index % 2 {
            0 => part.to_owned(),
            _ => format!("`\"{part}\"`"),
        })
        .collect();
    quoted
        .concat()
        .replace("!#$%&'*+-.^_`|~", "``!#$%&'*+-.^_`|~``")
        .replace("-._~!$&'()+,;=:@%", "`-._~!$&'()+,;=:@%`")
        .replace(" {parameter}", " `{parameter}`")
}

fn key_table(page: &mut String, keys: impl Iterator<Item = &'static Key>) {
    let defaults = defaults();
    *page += "| key | type | default | environment | meaning |\n|---|---|---|---|---|\n";
    for key in keys {
        let Key { scope, syntax, reason, .. } = key;
        let route = (*scope == Scope::Route).then_some(0);
        let name = key.written(route.is_some()).unwrap();
        let why = if reason.is_empty() { String::new() } else { format!(" Why: {reason}.") };
        let (kind, default) = (as_markdown(&syntax.name()), default(key, &defaults));
        let meaning = key.meaning();
        let variable = key.environment(route);
        writeln!(page, "| `{name}` | {kind} | {default} | `{variable}` | {meaning}{why} |")
            .unwrap();
    }
}

fn configuration_page() -> String {
    let mut page = CONFIGURATION_HEAD.to_owned();
    let mut seen = Vec::new();
    for (title, text) in keys().filter_map(|key| key.syntax.manual()) {
        if !seen.contains(&title) {
            writeln!(page, "- **{title}**: {}", as_markdown(&sentence(&text))).unwrap();
            seen.push(title);
        }
    }
    page += "\n## Keys of the server\n\n";
    key_table(&mut page, keys().filter(|key| key.scope != Scope::Route));
    page += ROUTES_HEAD;
    key_table(&mut page, keys().filter(|key| key.scope == Scope::Route));
    page
}

fn limits_page() -> String {
    let mut page = LIMITS_HEAD.to_owned();
    let defaults = defaults();
    page += "| limit | default | beyond it | what it bounds, and why |\n|---|---|---|---|\n";
    for key in keys() {
        let in_section = key.name.starts_with("head.") || key.name.starts_with("limits.");
        if !in_section && !key.name.ends_with("_max") {
            continue;
        }
        let Key { name, reason, beyond, .. } = key;
        assert!(!beyond.is_empty(), "{name} says what happens beyond it");
        let (default, meaning) = (default(key, &defaults), key.meaning());
        writeln!(page, "| `{name}` | {default} | {beyond} | {meaning} {} |", sentence(reason))
            .unwrap();
    }
    write!(
        page,
        "\nFixed: the name of a room has at most {ROOM_NAME_BYTES_MAX} bytes, a file name's bound.\n\n\
         A *reply* never costs the connection: above `limits.queue_bytes_max` the server stops reading \
         from that peer\nuntil its queue has drained. A *push* (a room's message) that would exceed the \
         bound closes the slow consumer with\n1008; an empty queue always admits one maximal message.\n"
    )
    .unwrap();
    page
}

fn check_page(name: &str, expected: &str) {
    let path = format!("{}/src/manual/{name}", env!("CARGO_MANIFEST_DIR"));
    if env::var_os("BLESS").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "src/manual/{name} is out of date: run `BLESS=1 cargo test reference`"
    );
}

#[test]
fn the_configuration_page_is_what_the_code_says() {
    check_page("configuration.md", &configuration_page());
}

#[test]
fn the_limits_page_is_what_the_code_says() {
    check_page("limits.md", &limits_page());
}

#[test]
fn the_example_of_the_page_holds() {
    let page = configuration_page();
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let read_file = |path: &std::path::Path| {
        assert_eq!(path, std::path::Path::new("/etc/tokens"));
        Ok("# ours\nabc\n".to_owned())
    };
    let sources = Sources {
        file: Some(("/etc/steadfast.toml".into(), example.to_owned())),
        read_file: Some(&read_file),
        ..Sources::default()
    };
    let settings = resolve(&sources, &Context::new(1)).unwrap().settings;
    assert_eq!(settings.routes[0].limits.message_rate_max, Some(50));
    assert_eq!(settings.routes[0].limits.message_bytes_max, 64 * 1024);
    assert_eq!(settings.routes[0].tokens[0].expose(), "abc");
    assert_eq!(settings.routes[1].limits.message_bytes_max, 16 * 1024 * 1024);
    assert!(!settings.routes[1].deflate.enabled && settings.routes[0].deflate.enabled);
}
