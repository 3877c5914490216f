//! The command line as a whole: verbs, flags, what reaches the server.

use clap::CommandFactory;

use super::*;
use crate::config::{ListenAddr, Scope, keys};

fn args(words: &[&str]) -> Vec<OsString> {
    std::iter::once(&"steadfast").chain(words).map(OsString::from).collect()
}

/// The exit status, and the settings if the server was run.
fn run_with(words: &[&str], served: Result<(), &str>) -> (ExitCode, Option<Settings>) {
    let mut settings = None;
    let status = run_verb(args(words), &Context::new(2), |given| {
        let Ok(checked) = given else {
            return Ok(ExitCode::from(EXIT_USAGE));
        };
        settings = Some(checked.settings);
        served.map(|()| ExitCode::SUCCESS)
    });
    (status, settings)
}

fn served(words: &[&str]) -> Settings {
    let (status, settings) = run_with(words, Ok(()));
    assert_eq!(status, ExitCode::SUCCESS);
    settings.expect("the server was run")
}

/// A file of this test process alone; removed when dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = env::temp_dir().join(format!("steadfast-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn without_a_verb_it_serves() {
    assert_eq!(served(&[]), served(&["serve"]));
    assert_eq!(served(&["--workers", "7"]), served(&["serve", "--workers=7"]));
}

#[test]
fn flags_win_over_the_file() {
    let file = File::new("flags.toml", "workers = 5\ndrain_duration = '3s'\n");
    let settings = served(&["--config", file.path(), "--workers", "6"]);
    assert_eq!((settings.workers, settings.drain_duration.as_secs()), (6, 3));
}

#[test]
fn list_flags_repeat_and_boolean_flags_need_no_value() {
    let settings = served(&[
        "--listen=127.0.0.1:0",
        "--listen",
        "unix:/s,[::1]:0",
        "--proxy-protocol",
        "--trusted-proxies=unix",
        "--deflate-enabled=false",
    ]);
    let listen: Vec<_> = settings.listen.iter().map(ListenAddr::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:0", "unix:/s", "[::1]:0"]);
    assert!(settings.proxy_protocol && !settings.deflate.enabled);
}

#[test]
fn the_exit_status_says_what_kind_of_failure_it_was() {
    let wrong = File::new("wrong.toml", "workers = 0\n");
    let right = File::new("right.toml", "workers = 1\n");
    let status = |words: &[&str]| {
        let (status, settings) = run_with(words, Ok(()));
        assert!(settings.is_none(), "{words:?} runs no server");
        status
    };
    let usage = ExitCode::from(EXIT_USAGE);
    for words in [
        &["--workers", "0"][..],
        &["--config", wrong.path()],
        &["--config", "/nowhere/at/all.toml"],
        &["check-config", wrong.path()],
        &["bogus"],
        &["--bogus"],
        &["serve", "extra"],
    ] {
        assert_eq!(status(words), usage, "{words:?}");
    }
    for words in
        [&["--help"][..], &["--version"], &["serve", "-h"], &["check-config", right.path()]]
    {
        assert_eq!(status(words), ExitCode::SUCCESS, "{words:?}");
    }
    assert_eq!(run_with(&[], Err("port in use")).0, ExitCode::FAILURE);
}

#[test]
fn the_help_of_serve_has_every_key_with_its_variable_and_default() {
    let mut command = CommandLine::command();
    let help = command.find_subcommand_mut("serve").unwrap().render_long_help().to_string();
    // The terminal's width decides where lines break.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for key in keys().filter(|key| key.scope != Scope::Route) {
        assert!(
            help.contains(&format!("{} ", key.flag()))
                || help.contains(&format!("{}[=", key.flag()))
        );
        assert!(help.contains(&format!("[env: {}]", key.environment(None))), "{}", key.name);
    }
    for (flag, default) in [
        ("--listen", "127.0.0.1:8000"),
        ("--workers", "auto"),
        ("--limits-queue-bytes-max", "1 MiB"),
    ] {
        let rest = help.split(&format!("{flag} <")).nth(1).unwrap();
        let first = rest.split("[default: ").nth(1).unwrap();
        assert!(first.starts_with(&format!("{default}]")), "{flag}");
    }
}

#[test]
fn the_command_line_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn a_checked_configuration_is_listed_with_origins() {
    let file = File::new("listed.toml", "\nworkers = 1\n");
    let flags = Vec::new();
    let resolved = load(Some(&file.0), flags, &Context::new(2)).unwrap();
    let text = check_config::listing(&resolved.listing);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.contains(&"workers = 1  # line 2"));
    assert!(lines.contains(&"drain_duration = \"10s\"  # default"));
    assert!(lines.contains(&"routes.2.path = \"/rooms/{name}\"  # default"));
    assert!(!text.contains("control ="), "a path left out has nothing to show");
}
