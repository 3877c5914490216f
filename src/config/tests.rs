//! The configuration as a whole: precedence, inheritance, and every error word for word.

mod messages;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::base::limits::{HeadLimits, Limits};

fn context() -> Context {
    Context::new(4)
}

fn sources<'a>(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources<'a> {
    let own = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    let flag = |(name, value): &(&str, &str)| {
        let key = keys().find(|key| key.name == *name).unwrap();
        (key, (*value).to_owned())
    };
    Sources {
        file: Some(("s.toml".into(), file.to_owned())),
        environment: environment.iter().map(own).collect(),
        flags: flags.iter().map(flag).collect(),
        read_file: None,
    }
}

fn settings(file: &str) -> Settings {
    resolve(&sources(file, &[], &[]), &context()).unwrap().settings
}

fn errors(sources: &Sources<'_>) -> String {
    resolve(sources, &context()).unwrap_err().to_string()
}

#[test]
fn defaults_are_those_of_the_design() {
    let settings = Settings::defaults(&context());
    assert_eq!(settings.listen, ["127.0.0.1:8000".parse().unwrap()]);
    assert_eq!((settings.workers, settings.connections_max), (4, None));
    assert_eq!(settings.drain_duration, Duration::from_secs(10));
    assert_eq!(
        (settings.head, settings.limits.clone()),
        (HeadLimits::default(), Limits::default())
    );
    let routes = settings.routes.iter().map(|route| (route.path.as_str(), route.app.as_str()));
    assert!(routes.eq([("/", "page"), ("/echo", "echo"), ("/rooms/{name}", "rooms")]));
    for route in &settings.routes {
        assert_eq!((&route.limits, &route.deflate), (&settings.limits, &Deflate::default()));
        assert_eq!(route.allowed_origins, AllowedOrigins::default());
        assert!(route.tokens.is_empty() && route.connections_per_ip_max.is_none());
    }
}

#[test]
fn an_empty_file_changes_nothing() {
    assert_eq!(settings("# nothing\n"), Settings::defaults(&context()));
}

#[test]
fn later_sources_win_key_by_key() {
    let file = "workers = 1\ndrain_duration = '1s'\nconnections_max = 100\nlog.level = 'warn'";
    let environment = [
        ("STEADFAST_WORKERS", "2"),
        ("STEADFAST_DRAIN_DURATION", "2s"),
        ("STEADFAST_LOG_FORMAT", "json"),
    ];
    let flags = [("workers", "3"), ("listen", "[::1]:80,unix:/s")];
    let resolved = resolve(&sources(file, &environment, &flags), &context()).unwrap();
    let settings = resolved.settings;
    assert_eq!(settings.workers, 3);
    assert_eq!(settings.drain_duration, Duration::from_secs(2));
    assert_eq!(settings.connections_max, Some(100));
    assert_eq!(settings.log, Log { level: "warn".to_owned(), format: LogFormat::Json });
    assert_eq!(settings.listen, ["[::1]:80".parse().unwrap(), "unix:/s".parse().unwrap()]);

    let origin = |key: &str| {
        resolved.listing.iter().find(|listed| listed.key == key).unwrap().origin.to_string()
    };
    assert_eq!(origin("workers"), "--workers");
    assert_eq!(origin("drain_duration"), "STEADFAST_DRAIN_DURATION");
    assert_eq!(origin("connections_max"), "line 3");
    assert_eq!(origin("control"), "default");
}

#[test]
fn routes_inherit_limits_and_compression_key_by_key() {
    let settings = settings(
        "limits.message_bytes_max = '2 KiB'\nlimits.rooms_max = 7\ndeflate.level = 9\n\
         [[routes]]\npath = '/a'\napp = 'echo'\nlimits.rooms_max = 3\ndeflate.enabled = false\n\
         [[routes]]\npath = '/b'\napp = 'echo'\n",
    );
    let [a, b] = settings.routes.as_slice() else { panic!("two routes") };
    assert_eq!((a.limits.message_bytes_max, a.limits.rooms_max), (2048, 3));
    assert_eq!((b.limits.message_bytes_max, b.limits.rooms_max), (2048, 7));
    assert_eq!((a.deflate.enabled, a.deflate.level), (false, 9));
    assert_eq!((b.deflate.enabled, b.deflate.level), (true, 9));
}

#[test]
fn words_stand_for_none() {
    let settings = settings(
        "workers = 'auto'\nconnections_max = 'auto'\n[limits]\nping_interval = 'off'\n\
         idle_timeout = '1m30s'\ncontrol_rate_max = 'off'\nmessage_rate_max = 5\n",
    );
    assert_eq!((settings.workers, settings.connections_max), (4, None));
    let limits = settings.limits;
    assert_eq!((limits.ping_interval, limits.idle_timeout), (None, Some(Duration::from_secs(90))));
    assert_eq!((limits.control_rate_max, limits.message_rate_max), (None, Some(5)));
}

/// A value for each type that is not the default, in the environment's form.
fn another_value(key: &Key) -> &'static str {
    match key.syntax.value_name() {
        "BOOL" if key.name == "deflate.enabled" => "false",
        "BOOL" => "true",
        "N" if key.name.starts_with("deflate.") => "9",
        "N" => "77",
        "SIZE" => "5 KiB",
        "DURATION" => "7s",
        "WORD" => "json",
        "LEVEL" => "debug,steadfast::net=trace",
        "PATH" => "/some/path",
        "ADDR" => "[::]:81, unix:/run/s",
        "NETWORK" => "10.0.0.0/8,unix",
        "PATTERN" => "/other/{name}",
        "APP" => "rooms",
        "SPACE" => "hall",
        "ORIGIN" => "same-host,https://example.org",
        "HOST" => "example.org,localhost:8000",
        "NAME" => "chat.v2,chat",
        "SECRET" => "abc,def",
        other => panic!("{} needs a sample of {other}", key.name),
    }
}

#[test]
fn every_key_can_be_set_by_its_environment_variable() {
    let read_file = |_: &Path| Ok("token".to_owned());
    let mut variables = BTreeSet::new();
    for key in keys() {
        for route in [None, Some(0)] {
            if key.written(route.is_some()).is_none() {
                continue;
            }
            let name = key.environment(route);
            assert!(variables.insert(name.clone()), "{name} is the variable of two keys");
            let mut environment = vec![
                // Without it the two keys that need a proxy are errors.
                ("STEADFAST_TRUSTED_PROXIES".to_owned(), "::1"),
                ("STEADFAST_ROUTES_0_PATH".to_owned(), "/{name}"),
                ("STEADFAST_ROUTES_0_APP".to_owned(), "echo"),
            ];
            let resolved = |environment: &[(String, &str)]| {
                let environment: Vec<_> =
                    environment.iter().map(|(name, value)| (name.as_str(), *value)).collect();
                let sources = sources("", &environment, &[]);
                resolve(&Sources { read_file: Some(&read_file), ..sources }, &context()).unwrap()
            };
            let before = resolved(&environment).settings;
            environment.retain(|(other, _)| *other != name);
            environment.push((name.clone(), another_value(key)));
            let after = resolved(&environment);
            assert_ne!(before, after.settings, "{name} changes the settings");
            let listed = after.listing.iter().find(|listed| listed.key == key.name_in(route));
            assert_eq!(listed.unwrap().origin, Origin::Environment(name));
        }
    }
}

#[test]
fn the_listing_reads_back_as_the_same_settings() {
    let file = "listen = ['[::]:81', 'unix:/run/s']\ntrusted_proxies = ['unix', '10.0.0.0/8']\n\
                connections_max = 5000\n[limits]\nmessage_bytes_max = 1000\nping_interval = 'off'\n\
                idle_timeout = '1h1ms'\n";
    let first = resolve(&sources(file, &[], &[]), &context()).unwrap();
    let lines = first.listing.iter().filter(|listed| !listed.key.starts_with("routes."));
    let again: String = lines
        .filter(|listed| !listed.value.is_empty())
        .map(|listed| format!("{} = {}\n", listed.key, listed.value))
        .collect();
    assert_eq!(settings(&again), first.settings);
}

#[test]
fn every_key_is_listed_once() {
    let environment = [("STEADFAST_ROUTES_0_PATH", "/"), ("STEADFAST_ROUTES_0_APP", "page")];
    let listing = resolve(&sources("", &environment, &[]), &context()).unwrap().listing;
    let listed: Vec<_> = listing.iter().map(|listed| listed.key.clone()).collect();
    let in_table = keys().map(|key| key.name_in((key.scope == Scope::Route).then_some(0)));
    assert_eq!(listed, in_table.collect::<Vec<_>>());
}

#[test]
fn the_environment_changes_and_adds_routes() {
    let file = "[[routes]]\npath = '/a'\napp = 'echo'\n";
    let environment = [
        ("STEADFAST_ROUTES_0_SUBPROTOCOLS", "one, two"),
        ("STEADFAST_ROUTES_1_PATH", "/b"),
        ("STEADFAST_ROUTES_1_APP", "page"),
    ];
    let settings = resolve(&sources(file, &environment, &[]), &context()).unwrap().settings;
    assert_eq!(settings.routes[0].subprotocols, ["one", "two"]);
    assert_eq!((settings.routes[0].path.as_str(), settings.routes[1].path.as_str()), ("/a", "/b"));
}

#[test]
fn variables_that_are_not_ours_are_left_alone() {
    let environment = [
        ("STEADFAST_CONFIG", "s.toml"),
        ("STEADFAST_SERVICE_HOST", "10.0.0.1"),
        ("STEADFAST_SERVICE_PORT_HTTP", "80"),
        ("STEADFAST_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    assert!(resolve(&sources("", &environment, &[]), &context()).is_ok());
}

#[test]
fn a_user_s_own_apps_can_be_named_and_are_served_by_default() {
    let context = Context {
        cores: 1,
        apps: vec!["game".to_owned()],
        routes_default: vec![("/play".to_owned(), "game".to_owned())],
    };
    assert_eq!(Settings::defaults(&context).routes[0].app, "game");
    let sources = sources("[[routes]]\npath = '/'\napp = 'echo'\n", &[], &[]);
    let errors = resolve(&sources, &context).unwrap_err().to_string();
    assert!(errors.ends_with("allowed: \"game\""), "{errors}");
}

#[test]
fn tokens_of_a_file_are_one_a_line() {
    let read_file = |path: &Path| match path.to_str() {
        Some("/etc/s/good") => Ok("# two\n abc \n\ndef\n".to_owned()),
        Some("/etc/s/bad") => Ok("abc\nd e\n".to_owned()),
        Some("/etc/s/empty") => Ok("# none\n".to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "not found")),
    };
    let resolved = |file: &str, more: &str| {
        let text = format!("[[routes]]\npath = '/'\napp = 'echo'\ntokens_file = '{file}'\n{more}");
        let file = Some(("/etc/s/s.toml".into(), text));
        let sources = Sources { file, read_file: Some(&read_file), ..Sources::default() };
        resolve(&sources, &context()).map_err(|errors| errors.0[0].to_string())
    };
    let tokens = resolved("good", "").unwrap().settings.routes[0].tokens.clone();
    assert_eq!(tokens, [Secret::new("abc"), Secret::new("def")]);
    let first_lines = [
        ("bad", "", "/etc/s/bad:2: a secret has a character that is not allowed"),
        ("empty", "", "/etc/s/s.toml:4:15: /etc/s/empty has no token"),
        ("gone", "", "/etc/s/s.toml:4:15: /etc/s/gone cannot be read: not found"),
        ("good", "tokens = ['x']", "/etc/s/s.toml:4:15: the route has `tokens` as well"),
    ];
    for (file, more, expected) in first_lines {
        let error = resolved(file, more).unwrap_err();
        assert_eq!(error.lines().next(), Some(expected));
        assert!(!error.contains("d e"));
    }
}

#[test]
fn secrets_are_shown_nowhere() {
    let file = "[[routes]]\npath = '/'\napp = 'echo'\ntokens = ['hunter2']\n";
    let resolved = resolve(&sources(file, &[], &[]), &context()).unwrap();
    assert_eq!(resolved.settings.routes[0].tokens[0].expose(), "hunter2");
    assert!(!format!("{resolved:?}").contains("hunter2"));
    for wrong in [
        "tokens = ['hunter2', 'hunter2']",
        "tokens = ['hunter2 ']",
        "tokens = ['hunter2'",
        "tokens = 'hunter2'",
        "tokens = [\n  'hunter2',\n  7]",
        "tokens = [\n  'hunter2' 7\n]",
        "tokens = [['hunter2']]",
    ] {
        let file = format!("[[routes]]\npath = '/'\napp = 'echo'\n{wrong}\n");
        let text = errors(&sources(&file, &[], &[]));
        assert!(!text.contains("hunter2"), "{text}");
    }
    let variable = [("STEADFAST_ROUTES_0_TOKENS", "hunter2,hunter2")];
    assert!(!errors(&sources("", &variable, &[])).contains("hunter2"));
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_sources() {
    let sources = sources(
        "workers = 0\n\n[log]\nformat = 'xml'\n[[routes]]\npath = '/'\napp = 'ecko'\n",
        &[("STEADFAST_LISTEN", "here")],
        &[("drain_duration", "10")],
    );
    let text = errors(&sources);
    let firsts: Vec<_> = text.split("\n\n").filter_map(|error| error.lines().next()).collect();
    assert_eq!(
        firsts,
        [
            "s.toml:1:11: 0 is too small",
            "s.toml:4:10: \"xml\" is not a log format",
            "s.toml:7:7: there is no app \"ecko\"",
            "STEADFAST_LISTEN: \"here\" is not an address",
            "--drain-duration: \"10\" has no unit at its end",
        ]
    );
}
