//! What each slip is answered with, word for word.

use super::*;

const APP: &str = "allowed: the name of an app";
const BOOLEAN: &str = "allowed: true or false";
const COUNT_OR_OFF: &str = r#"allowed: a number from 1, or "off""#;
const DURATION: &str =
    r#"allowed: a duration such as "10s", "500ms" or "1m30s" (h, m, s, ms), not zero"#;
const DURATION_OR_OFF: &str =
    r#"allowed: a duration such as "10s", "500ms" or "1m30s" (h, m, s, ms), not zero; or "off""#;
const DURATION_ZERO: &str =
    r#"allowed: a duration such as "10s", "500ms" or "1m30s" (h, m, s, ms), "0s" too"#;
const LEVEL: &str = r#"allowed: off, error, warn, info, debug or trace, then perhaps levels of modules: "info,steadfast::net=debug""#;
const LISTEN: &str = r#"allowed: addresses such as "127.0.0.1:8000", "[::]:80" or "unix:/run/steadfast.sock"; at least one"#;
const ORIGINS: &str = r#"allowed: origins such as "https://example.org", "http://localhost:3000", "https://*.example.org", "chrome-extension://*" or "file://", "same-host", or "*" alone for all"#;
const PATTERN: &str = r#"allowed: a path such as "/echo" or "/rooms/{name}": segments of letters, digits and -._~!$&'()+,;=:@%, or {parameter}"#;
const PROXIES: &str = r#"allowed: networks such as "10.0.0.0/8" or "::1", and "unix" for every peer on a Unix socket"#;
const SIZE: &str = r#"allowed: bytes as a number, or with a unit as in "64 KiB" (B, KiB, MiB, GiB); from 1 to 1 GiB"#;
const SUBPROTOCOLS: &str = "allowed: names of letters, digits and !#$%&'*+-.^_`|~";
const TOKENS: &str = "allowed: secrets of letters, digits and !#$%&'*+-.^_`|~, so that each also fits a subprotocol; at least one";
const WORKERS: &str = r#"allowed: a number from 1 to 512, or "auto""#;

/// A file, the first line of its one error after the file's name, and the help below the marker.
const FILES: &[(&str, &str, &str)] = &[
    ("workers = \n", "1:11: string values must be quoted, expected literal string", ""),
    ("listen = ['a'\nworkers = 2\n", "2:1: missing comma between array elements, expected `,`", ""),
    ("workers = 1\nworkers = 2\n", "2:1: duplicate key", ""),
    ("\nlisen = []\n", "2:1: unknown key `lisen`", "did you mean `listen`?"),
    ("colour = 1\n", "1:1: unknown key `colour`", ""),
    (
        "[limits]\nmesage_bytes_max = 1\n",
        "2:1: unknown key `limits.mesage_bytes_max`",
        "did you mean `limits.message_bytes_max`?",
    ),
    (
        "drain-duration = '1s'\n",
        "1:1: unknown key `drain-duration`",
        "did you mean `drain_duration`?",
    ),
    (
        "message_bytes_max = 1\n",
        "1:1: unknown key `message_bytes_max`",
        "`message_bytes_max` belongs in [limits]",
    ),
    (
        "[limits]\nworkers = 1\n",
        "2:1: unknown key `limits.workers`",
        "`workers` belongs to the server, above all tables",
    ),
    (
        "allowed_origins = []\n",
        "1:1: unknown key `allowed_origins`",
        "`allowed_origins` belongs in a [[routes]]",
    ),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\nworkers = 1\n",
        "4:1: unknown key `workers`",
        "`workers` belongs to the server, above all tables",
    ),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\nmessage_bytes_max = 1\n",
        "4:1: unknown key `message_bytes_max`",
        "`message_bytes_max` belongs in [routes.limits]",
    ),
    ("[limit]\n", "1:2: unknown key `limit`", "did you mean `limits`?"),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\nalowed_origins = []\n",
        "4:1: unknown key `alowed_origins`",
        "did you mean `allowed_origins`?",
    ),
    ("limits = 5\n", "1:10: `limits` is a table, not a value", "its keys follow a line [limits]"),
    (
        "[routes]\npath = '/'\n",
        "1:1: `routes` is not a list of tables",
        "each route follows a line [[routes]]",
    ),
    ("routes = [5]\n", "1:11: a route is a table of keys", "each route follows a line [[routes]]"),
    ("workers = 1\n\n[[routes]]\npath = '/'\n", "3:1: the route has no `app`", APP),
    ("[[routes]]\napp = 'echo'\n", "1:1: the route has no `path`", PATTERN),
    ("proxy_protocol = 'yes'\n", r#"1:18: "yes" is neither true nor false"#, BOOLEAN),
    ("workers = '4'\n", r#"1:11: "4" is a string, not a number"#, WORKERS),
    ("workers = 0\n", "1:11: 0 is too small", WORKERS),
    ("workers = 513\n", "1:11: 513 is too large", WORKERS),
    ("workers = -1\n", "1:11: -1 is too small", WORKERS),
    ("workers = 1.5\n", "1:11: a fraction is not a number", WORKERS),
    (
        "workers = 99999999999999999999999999999999999999999999\n",
        "1:11: the number is too large",
        WORKERS,
    ),
    ("limits.control_rate_max = 'none'\n", r#"1:27: "none" is not a number"#, COUNT_OR_OFF),
    ("[limits]\nmessage_bytes_max = \"lots\"\n", r#"2:21: "lots" is not a size"#, SIZE),
    (
        "[limits]\nmessage_bytes_max = '64 MB'\n",
        r#"2:21: "MB" in "64 MB" is not a unit of size"#,
        SIZE,
    ),
    ("[limits]\nmessage_bytes_max = '64'\n", r#"2:21: "64" is a string without a unit"#, SIZE),
    ("[limits]\nmessage_bytes_max = 0\n", "2:21: 0 is too small", SIZE),
    ("[limits]\nmessage_bytes_max = '2 GiB'\n", r#"2:21: "2 GiB" is too large"#, SIZE),
    ("drain_duration = 10\n", "1:18: 10 has no unit", DURATION_ZERO),
    ("drain_duration = true\n", "1:18: true is not a duration", DURATION_ZERO),
    ("drain_duration = '10 s'\n", r#"1:18: "10 s" is not a duration"#, DURATION_ZERO),
    (
        "drain_duration = '10sec'\n",
        r#"1:18: "sec" in "10sec" is not a unit of time"#,
        DURATION_ZERO,
    ),
    ("drain_duration = 'off'\n", r#"1:18: "off" is not a duration"#, DURATION_ZERO),
    ("limits.pong_timeout = '0s'\n", r#"1:23: "0s" is zero"#, DURATION),
    ("limits.ping_interval = '0s'\n", r#"1:24: "0s" is zero"#, DURATION_OR_OFF),
    ("limits.idle_timeout = '9000h'\n", r#"1:23: "9000h" is more than a year"#, DURATION_OR_OFF),
    (
        "[log]\nformat = 'xml'\n",
        r#"2:10: "xml" is not a log format"#,
        r#"allowed: "auto", "human" or "json""#,
    ),
    ("[log]\nlevel = 'inof'\n", r#"2:9: "inof" is not a level"#, LEVEL),
    (
        "[log]\nlevel = 'info,steadfast::net=loud'\n",
        r#"2:9: "loud" in "info,steadfast::net=loud" is not a level"#,
        LEVEL,
    ),
    ("[log]\nlevel = 'info,debug'\n", r#"2:9: "debug" in "info,debug" is not module=level"#, LEVEL),
    (
        "[log]\nlevel = 'info,a b=debug'\n",
        r#"2:9: "a b" in "info,a b=debug" is not a module"#,
        LEVEL,
    ),
    ("[log]\nlevel = 3\n", "2:9: 3 is not a string", LEVEL),
    ("control = ''\n", "1:11: the path is empty", "allowed: a path"),
    ("control = 7\n", "1:11: 7 is not a path", "allowed: a path"),
    ("listen = '127.0.0.1:8000'\n", r#"1:10: "127.0.0.1:8000" is not a list"#, LISTEN),
    ("listen = []\n", "1:10: the list is empty", LISTEN),
    ("listen = [8000]\n", "1:11: 8000 is not a string", LISTEN),
    (
        "listen = ['[::]:80', 'localhost:80']\n",
        r#"1:22: "localhost:80" is a name, not an address; write "127.0.0.1:80""#,
        LISTEN,
    ),
    ("listen = ['127.0.0.1']\n", r#"1:11: "127.0.0.1" has no port"#, LISTEN),
    (
        "listen = ['127.0.0.1:70000']\n",
        r#"1:11: "70000" in "127.0.0.1:70000" is not a port"#,
        LISTEN,
    ),
    (
        "listen = [':80']\n",
        r#"1:11: ":80" has no address; for all of them write "[::]:80""#,
        LISTEN,
    ),
    ("listen = ['/run/s']\n", r#"1:11: a socket's path is written "unix:/run/s""#, LISTEN),
    ("listen = ['unix:run/s']\n", r#"1:11: the path of "unix:run/s" is not absolute"#, LISTEN),
    ("listen = ['what']\n", r#"1:11: "what" is not an address"#, LISTEN),
    (
        "listen = [\n  '[::]:80',\n  '[::]:80',\n]\n",
        r#"3:3: "[::]:80" is in the list twice"#,
        LISTEN,
    ),
    ("trusted_proxies = ['proxy.example']\n", r#"1:20: "proxy.example" is not a network"#, PROXIES),
    (
        "trusted_proxies = ['10.0.0.0/33']\n",
        r#"1:20: the prefix of "10.0.0.0/33" is not 0 to 32"#,
        PROXIES,
    ),
    (
        "trusted_proxies = ['10.0.0.1/8']\n",
        r#"1:20: "10.0.0.1/8" has bits beyond its prefix; the network is "10.0.0.0/8""#,
        PROXIES,
    ),
    (
        "trusted_proxies = ['::ffff:10.0.0.0/104']\n",
        r#"1:20: "::ffff:10.0.0.0/104" is IPv4 mapped into IPv6; write the IPv4 network"#,
        PROXIES,
    ),
    ("deflate.server_window_bits = 8\n", "1:30: 8 is too small", "allowed: a number from 9 to 15"),
    (
        "[deflate]\n\tserver_window_bits = 16\n",
        "2:23: 16 is too large",
        "allowed: a number from 9 to 15",
    ),
    ("deflate.level = 0\n", "1:17: 0 is too small", "allowed: a number from 1 to 9"),
    (
        "[[routes]]\napp = 'echo'\npath = 'echo'\n",
        r#"3:8: "echo" does not begin with "/""#,
        PATTERN,
    ),
    ("[[routes]]\napp = 'echo'\npath = '/a//b'\n", r#"3:8: "/a//b" has an empty segment"#, PATTERN),
    (
        "[[routes]]\napp = 'echo'\npath = '/a?b'\n",
        r#"3:8: "a?b" in "/a?b" is not a segment of a path"#,
        PATTERN,
    ),
    (
        "[[routes]]\napp = 'echo'\npath = '/a/{b'\n",
        r#"3:8: "{b" in "/a/{b" is not a segment of a path"#,
        PATTERN,
    ),
    (
        "[[routes]]\napp = 'echo'\npath = '/a/*'\n",
        r#"3:8: "*" in "/a/*" would be a literal; a parameter is a whole segment {name}"#,
        PATTERN,
    ),
    (
        "[[routes]]\napp = 'echo'\npath = '/a/../b'\n",
        r#"3:8: "/a/../b" has a segment "..", which clients remove"#,
        PATTERN,
    ),
    (
        "[[routes]]\napp = 'echo'\npath = '/{a}/{a}'\n",
        r#"3:8: the parameter {a} is in "/{a}/{a}" twice"#,
        PATTERN,
    ),
    ("[[routes]]\napp = 'echo'\npath = 1\n", "3:8: 1 is not a string", PATTERN),
    (
        "[[routes]]\npath = '/'\napp = 'ecko'\n",
        r#"3:7: there is no app "ecko""#,
        r#"did you mean "echo"?"#,
    ),
    (
        "[[routes]]\npath = '/'\napp = 'teleport'\n",
        r#"3:7: there is no app "teleport""#,
        r#"allowed: "page", "echo", "rooms", "health" or "ready""#,
    ),
    (
        "[[routes]]\npath = '/rooms'\napp = 'rooms'\n",
        r#"2:8: the app "rooms" takes a room's name from the path"#,
        r#"put {name} into it: "/rooms/{name}""#,
    ),
    (
        "[[routes]]\npath = '/a/{name}'\napp = 'rooms'\nroom_space = ''\n",
        "4:14: the name is empty",
        r#"allowed: a name of up to 255 bytes, such as another route's path; or "own""#,
    ),
    (
        "[[routes]]\npath = '/a/{name}'\napp = 'rooms'\n\n[[routes]]\npath = '/b/{name}'\napp = 'rooms'\n\
         room_space = '/a/{name}'\nlimits.rooms_max = 3\n",
        r#"8:14: shares the room space "/a/{name}" with route 0, "/a/{name}", but not its limits"#,
        "give both the same [routes.limits]",
    ),
    (
        "[[routes]]\npath = '/a/{x}'\napp = 'echo'\n\n[[routes]]\npath = '/a/{y}'\napp = 'echo'\n",
        r#"6:8: matches the same paths as route 0, "/a/{x}""#,
        "",
    ),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\nallowed_origins = ['null']\n",
        r#"4:20: "null" is every sandboxed page's origin and never allowed"#,
        ORIGINS,
    ),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\nallowed_origins = ['example.org']\n",
        r#"4:20: "example.org" has no scheme such as https://"#,
        ORIGINS,
    ),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\nallowed_origins = ['https://example.org/']\n",
        r#"4:20: "https://example.org/" has a path; an origin ends with its host or port"#,
        ORIGINS,
    ),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\nallowed_origins = ['https://a*.example.org']\n",
        r#"4:20: "https://a*.example.org" is not an origin"#,
        ORIGINS,
    ),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\nallowed_origins = ['*', 'same-host']\n",
        r#"4:19: "*" is not alone in the list"#,
        ORIGINS,
    ),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\nsubprotocols = ['a b']\n",
        r#"4:17: "a b" is not a subprotocol's name"#,
        SUBPROTOCOLS,
    ),
    ("[[routes]]\npath = '/'\napp = 'echo'\ntokens = []\n", "4:10: the list is empty", TOKENS),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\ntokens = ['a b']\n",
        "4:11: a secret has a character that is not allowed",
        TOKENS,
    ),
    ("[[routes]]\npath = '/'\napp = 'echo'\ntokens = ['']\n", "4:11: a secret is empty", TOKENS),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\ntokens = ['abc', 'abc']\n",
        "4:18: the secret is in the list twice",
        TOKENS,
    ),
    ("[[routes]]\npath = '/'\napp = 'echo'\ntokens = 'abc'\n", "4:10: this is not a list", TOKENS),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\ntokens = ['abc', 7]\n",
        "4:18: an item is not a string",
        TOKENS,
    ),
    (
        "[[routes]]\npath = '/'\napp = 'echo'\n[routes.limits]\nrooms_max = 'off'\n",
        r#"5:13: "off" is not a number"#,
        "allowed: a number from 1",
    ),
    (
        "[head]\ntarget_bytes_max = 9000\nhead_bytes_max = 8000\n",
        "2:20: the target cannot be longer than the head it is part of",
        "raise head.head_bytes_max",
    ),
    (
        "connections_max = 2\nworkers = 3\n",
        "1:19: less than one connection for each of 3 workers",
        "lower `workers`",
    ),
    ("proxy_protocol = true\n", "1:18: no proxy is trusted", "list them in `trusted_proxies`"),
    ("forwarded_for = true\n", "1:17: no proxy is trusted", "list them in `trusted_proxies`"),
    ("workers = 'four'\n", r#"1:11: "four" is not a number"#, WORKERS),
    ("[[routes]]\npath = '/'\napp = ''\n", "3:7: the name is empty", APP),
];

type Variables = &'static [(&'static str, &'static str)];

/// Variables, and their one error with its help.
const ENVIRONMENTS: &[(Variables, &str, &str)] = &[
    (&[("STEADFAST_WORKERS", "many")], r#"STEADFAST_WORKERS: "many" is not a number"#, WORKERS),
    (&[("STEADFAST_WORKERS", "")], r#"STEADFAST_WORKERS: "" is not a number"#, WORKERS),
    (
        &[("STEADFAST_PROXY_PROTOCOL", "1")],
        r#"STEADFAST_PROXY_PROTOCOL: "1" is neither true nor false"#,
        BOOLEAN,
    ),
    (
        &[("STEADFAST_LISTEN", "[::]:80,what")],
        r#"STEADFAST_LISTEN: "what" is not an address"#,
        LISTEN,
    ),
    (
        &[("STEADFAST_ROUTES_1_PATH", "/"), ("STEADFAST_ROUTES_1_APP", "echo")],
        "STEADFAST_ROUTES_1_APP: route 1 is set, but there is no route 0",
        "routes count from 0, those of the file first",
    ),
    (&[("STEADFAST_ROUTES_0_PATH", "/")], "STEADFAST_ROUTES_0_PATH: the route has no `app`", APP),
    (
        &[("STEADFAST_ROUTES_0_COLOUR", "red")],
        "STEADFAST_ROUTES_0_COLOUR: no key has this environment variable",
        "",
    ),
    (
        &[("STEADFAST_ROUTES_0_WORKERS", "1")],
        "STEADFAST_ROUTES_0_WORKERS: no key has this environment variable",
        "",
    ),
    (
        &[
            ("STEADFAST_ROUTES_0_PATH", "/"),
            ("STEADFAST_ROUTES_0_APP", "echo"),
            ("STEADFAST_ROUTES_0_TOKENS", "a b"),
        ],
        "STEADFAST_ROUTES_0_TOKENS: a secret has a character that is not allowed",
        TOKENS,
    ),
    (
        &[("STEADFAST_ROUTES_0_PAHT", "/")],
        "STEADFAST_ROUTES_0_PAHT: no key has this environment variable",
        "did you mean STEADFAST_ROUTES_0_PATH?",
    ),
];

#[track_caller]
fn assert_error(sources: &Sources<'_>, message: &str, help: &str) {
    let errors = resolve(sources, &context()).expect_err(message).0;
    let [error] = errors.as_slice() else { panic!("one error, not {errors:?}") };
    assert_eq!(format!("{}: {}", error.place, error.message), message);
    assert_eq!(error.help.as_deref().unwrap_or_default(), help);
}

#[test]
fn errors_in_the_file() {
    for (file, message, help) in FILES {
        assert_error(&sources(file, &[], &[]), &format!("s.toml:{message}"), help);
    }
}

#[test]
fn errors_in_the_environment() {
    for (environment, message, help) in ENVIRONMENTS {
        assert_error(&sources("", environment, &[]), message, help);
    }
}

/// Kubernetes sets such for each Service, whose name may begin as ours.
#[test]
fn variables_that_no_key_has_are_warned_of() {
    let environment = [
        ("STEADFAST_WS_PORT", "tcp://10.0.0.1:8000"),
        ("STEADFAST_WORKRES", "3"),
        ("STEADFAST_WORKERS", "2"),
        ("STEADFAST_PORT_8000_TCP_ADDR", "10.0.0.1"),
    ];
    let resolved = resolve(&sources("", &environment, &[]), &context()).expect("it holds");
    assert_eq!(resolved.settings.workers, 2);
    let shown: Vec<String> = resolved.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "STEADFAST_WORKRES: no key has this environment variable\n  \
             did you mean STEADFAST_WORKERS?",
            "STEADFAST_WS_PORT: no key has this environment variable",
        ]
    );
}

#[test]
fn the_line_is_shown_with_a_marker_below() {
    let file = |file: &str| errors(&sources(file, &[], &[]));
    assert_eq!(
        file(&format!("{}[deflate]\r\n\tlevel = 10 # small\r\n", "\n".repeat(8))),
        "s.toml:10:10: 10 is too large\n  \
         10 | \tlevel = 10 # small\n     \
         | \t        ^^\n  \
         allowed: a number from 1 to 9"
    );
    assert_eq!(
        file("control = 'ü'\nlog = { format = 'ü', level = 'ü' }\n").split("\n\n").last().unwrap(),
        format!(
            "s.toml:2:31: \"ü\" is not a level\n  \
             2 | log = {{ format = 'ü', level = 'ü' }}\n    \
             |                               ^^^\n  {LEVEL}"
        )
    );
    // What is over more than one line is marked on its first.
    assert_eq!(
        file("workers = [\n 1,\n]\n"),
        format!(
            "s.toml:1:11: a list is not a number\n  1 | workers = [\n    |           ^\n  {WORKERS}"
        )
    );
    assert_eq!(
        file("[[routes]]\npath = '/'\napp = 'echo'\ntokens = ['hunter 2']\n"),
        format!(
            "s.toml:4:11: a secret has a character that is not allowed\n  \
             4 | tokens =…\n    |          ^\n  {TOKENS}"
        )
    );
}
