//! The manual's pages on configuration and limits, written from the keys' declarations.
//!
//! `BLESS=1 cargo test reference` writes them anew; without it a page that differs is a failure.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::resolve::REQUIRED;
use super::{Context, Key, Scope, Sources, keys, resolve};
use crate::app::request::BEARER_TOKENS_MAX;
use crate::base::limits::ROOM_NAME_BYTES_MAX;
use crate::base::spare::KEPT_BYTES_MAX;
use crate::http::head::METHOD_BYTES_MAX;
use crate::http::proxy::PROXY_BYTES_MAX;
use crate::net::dispatch::WORK_BUDGET;
use crate::net::log_limit::LINES_PER_SECOND_MAX;
use crate::net::mailbox::{LANE_BYTES_MAX, LANE_ITEMS_MAX};
use crate::net::worker::accepting::ACCEPT_BUDGET;
use crate::net::worker::{READ_BUDGET, RECEIVE_BYTES};
use crate::session::LINGER_BYTES_MAX;
use crate::session::timers::MESSAGE_GRACE;
use crate::session::turn::{DEFLATED_KEPT_MAX, TURN_BYTES_MAX};
use crate::ws::deflate::{BUFFER_KEPT_MAX, FINAL_BLOCKS_MAX};

const CONFIGURATION_HEAD: &str = r#"# Configuration

<!-- Written by `BLESS=1 cargo test reference` from `src/config/settings.rs` and `src/base/limits.rs`; edit there. -->

A value comes from one of four sources. The later wins, key by key:

1. the default;
2. the TOML file named by `--config FILE` or `STEADFAST_CONFIG`;
3. the environment: each key has a `STEADFAST_*` variable;
4. flags of `steadfast serve`: each key of the server has one.

`steadfast check-config FILE` prints each key's value and where it comes from, or every error with
its line. A key that it does not know is an error, and so is a variable of a route;
other `STEADFAST_*` variables that it does not know are warned of.

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

/// A bound that is no key of the configuration: its name in the code, its value, what happens beyond
/// it, and what it bounds.
type Fixed = (&'static str, String, &'static str, &'static str);

fn fixed_bounds() -> Vec<Fixed> {
    let bytes = |bytes: usize| match bytes {
        _ if bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        _ if bytes.is_multiple_of(1024) => format!("{} KiB", bytes / 1024),
        _ => format!("{bytes} B"),
    };
    vec![
        (
            "ROOM_NAME_BYTES_MAX",
            bytes(ROOM_NAME_BYTES_MAX),
            "the join is refused",
            "The name of a room: a file name's bound.",
        ),
        (
            "PROXY_BYTES_MAX",
            bytes(PROXY_BYTES_MAX),
            "the connection is dropped",
            "A PROXY header: balancers' extensions come to some hundred bytes.",
        ),
        (
            "BEARER_TOKENS_MAX",
            BEARER_TOKENS_MAX.to_string(),
            "further ones are not looked at",
            "Bearer tokens of one request: there are three ways to present one.",
        ),
        (
            "METHOD_BYTES_MAX",
            bytes(METHOD_BYTES_MAX),
            "400",
            "A request's method: the longest registered one has 17 bytes.",
        ),
        (
            "MESSAGE_GRACE",
            format!("{} s", MESSAGE_GRACE.as_secs()),
            "1008",
            "The time that every message and control frame has to become complete, whatever its size; \
             see `limits.progress_rate_min`.",
        ),
        (
            "FINAL_BLOCKS_MAX",
            FINAL_BLOCKS_MAX.to_string(),
            "1007",
            "Final deflate blocks in one message: each costs a reset for 2 bytes.",
        ),
        (
            "LINGER_BYTES_MAX",
            bytes(LINGER_BYTES_MAX),
            "the socket is dropped",
            "What is read and thrown away after the last word, so that no reset destroys it.",
        ),
        (
            "RECEIVE_BYTES",
            bytes(RECEIVE_BYTES),
            "nothing more is read",
            "One read, and so what a connection can have parked: received and not decoded, while \
             its replies wait or its handshake is not decided.",
        ),
        (
            "READ_BUDGET",
            bytes(READ_BUDGET),
            "the rest waits for the next turn",
            "What is read of one connection before the others have their turn; of large messages \
             four times as much.",
        ),
        (
            "WORK_BUDGET",
            format!("{} Mi", WORK_BUDGET / MIB),
            "the rest waits for the next turn",
            "Work for one connection before the others have their turn: a unit is a byte inflated, a \
             sixteenth of a compressed byte received, a sixteenth of a delivery to a member of a room.",
        ),
        (
            "ACCEPT_BUDGET",
            ACCEPT_BUDGET.to_string(),
            "the rest waits for the next turn",
            "Connections accepted of one listener before others have their turn.",
        ),
        (
            "TURN_BYTES_MAX",
            bytes(TURN_BYTES_MAX),
            "frames are put into memory of their connection",
            "A worker's buffer for the frames of a turn.",
        ),
        (
            "LANE_ITEMS_MAX",
            LANE_ITEMS_MAX.to_string(),
            "the sending worker stops reading",
            "Mail from one worker to another that waits.",
        ),
        (
            "LANE_BYTES_MAX",
            bytes(LANE_BYTES_MAX),
            "the sending worker stops reading",
            "Bytes of that mail.",
        ),
        (
            "KEPT_BYTES_MAX",
            bytes(KEPT_BYTES_MAX),
            "they are given back",
            "Large buffers that a worker keeps for later messages.",
        ),
        (
            "BUFFER_KEPT_MAX",
            bytes(BUFFER_KEPT_MAX),
            "it is given back",
            "A worker's buffer for inflated messages, between two of them.",
        ),
        (
            "DEFLATED_KEPT_MAX",
            bytes(DEFLATED_KEPT_MAX),
            "it is given back",
            "A worker's buffer for compressed messages, between two of them.",
        ),
        (
            "LINES_PER_SECOND_MAX",
            LINES_PER_SECOND_MAX.to_string(),
            "they are counted, and the number is logged",
            "Log lines a second of a kind that peers can cause at will.",
        ),
    ]
}

/// Bounds of the code that are none of a peer's business, or part of one in the table.
const OTHER_BOUNDS: &[&str] = &[
    // Of the protocols.
    "HEADER_BYTES_MAX",
    "CONTROL_PAYLOAD_BYTES_MAX",
    "REASON_BYTES_MAX",
    // Parts of PROXY_BYTES_MAX.
    "V1_BYTES_MAX",
    "EXTENSIONS_BYTES_MAX",
    // How much one system call takes or gives.
    "DIRECT_BYTES_MAX",
    "PIECES_MAX",
    "EVENTS_MAX",
    // Of a character in UTF-8.
    "CHARACTER_BYTES_MAX",
    // Of the client.
    "BODY_BYTES_MAX",
    // Between two processes.
    "DESCRIPTORS_MAX",
    "KEYS_MAX",
    "SLOTS_MAX",
    "PACKET_BYTES_MAX",
    "ROUNDS_MAX",
    "LOCK_WAIT_MAX",
    // How long a worker of ours waits after a fault of ours.
    "RENEWAL_PAUSE_MAX",
];

const MIB: usize = 1024 * 1024;
const MEMORY: &str = r#"
## Memory of all connections together

The server counts what connections hold between two turns of a worker: unfinished messages and request
heads, received bytes that are not decoded yet, and out queues. The body of a large room message counts
once, however many queues it waits in. What follows depends on `memory_max`:

| held in all | what the server does |
|---|---|
| up to `memory_max` | nothing |
| above it | connections that hold memory and make no progress are not read; after 1 s the server closes them |
| above 17/16 of it | the same at once; other connections that hold memory are read a few at a time, the oldest first; those that hold none are read in small pieces |

The server closes in the order of bytes held × time since the last progress, with 1008 (503 before the
handshake is accepted), until the rest fits. Progress is a part of a message that arrives, or bytes of the
out queue that the socket takes. A message that arrives at `limits.progress_rate_min` or faster is never closed for its memory;
a pause of up to 1 s counts as arriving if the message was faster before. Control frames are no progress.
Time in which the server does not read does not count. Each worker closes its own connections, as long as
it holds more than its share, which is `memory_max` divided by the number of workers. The log says how many
were closed, at most once a second for each worker.

The allocator needs room beside what is counted: the process may take up to half of `memory_max` more.

After a flood the memory returns to the system: buffers that are kept for reuse go after 5 s without use, and
when the process has stopped growing for 5 s the allocator gives its free pages back.
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
        "\n## Fixed bounds\n\nThese are constants of the code, under the same names. A *turn* is one round of a \
         worker's loop.\n\n\
         | bound | value | beyond it | what it bounds, and why |\n|---|---|---|---|\n"
    )
    .unwrap();
    for (name, value, beyond, meaning) in fixed_bounds() {
        writeln!(page, "| `{name}` | {value} | {beyond} | {meaning} |").unwrap();
    }
    write!(
        page,
        "\n## Replies and pushes\n\n\
         A *reply* never costs the connection: above `limits.queue_bytes_max` the server stops reading \
         from that peer\nuntil its queue has drained. A *push* (a room's message) that would exceed the \
         bound closes the slow consumer with\n1008; an empty queue always admits one maximal message.\n"
    )
    .unwrap();
    page += MEMORY;
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

/// The names of constants in a file that are bounds.
fn bounds_in(text: &str) -> impl Iterator<Item = &str> {
    let names = text.lines().filter_map(|line| {
        let (before, rest) = line.split_once("const ")?;
        let is_declaration = before.is_empty() || before.trim_end().starts_with("pub");
        let (name, _) = rest.split_once(':')?;
        is_declaration.then_some(name)
    });
    names.filter(|name| ["_MAX", "_BUDGET", "_GRACE"].iter().any(|end| name.ends_with(end)))
}

#[test]
fn every_bound_that_a_peer_meets_is_in_the_table() {
    let in_table: Vec<&str> = fixed_bounds().iter().map(|fixed| fixed.0).collect();
    let mut folders: Vec<PathBuf> = ["http", "ws", "session", "hub", "app", "net"]
        .map(|module| Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module))
        .to_vec();
    let mut found = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    folders.push(path);
                }
                continue;
            }
            for name in bounds_in(&fs::read_to_string(&path).unwrap()) {
                let known = in_table.contains(&name) || OTHER_BOUNDS.contains(&name);
                assert!(known, "{name} of {} is in neither list here", path.display());
                found += 1;
            }
        }
    }
    assert!(found > 20, "only {found} were found");
}

#[test]
fn the_example_of_the_page_holds() {
    let page = configuration_page();
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let read_file = |path: &Path| {
        assert_eq!(path, Path::new("/etc/tokens"));
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
