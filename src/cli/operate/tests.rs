//! The verbs against a fake server on a real socket.

use std::sync::atomic::Ordering;
use std::thread;

use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::cli::{CommandLine, Verb};
use crate::control::UpgradeRequest;
use crate::control::testing::{Directory, Fake, Served, status, upgraded, wait_until};

/// What a verb has shown, and its exit status.
struct Shown {
    status: ExitCode,
    out: String,
    err: String,
}

fn shown(path: &Path, request: &Request, look: Look) -> Shown {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let called = Called { path, user: None };
    let status = ask(called, request, look, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Shown { status, out: text(out), err: text(err) }
}

fn upgrade(served: &Served, look: Look) -> Shown {
    shown(&served.path, &Request::Upgrade(UpgradeRequest::default()), look)
}

/// The one line of JSON.
fn json_line(shown: &Shown) -> Value {
    assert_eq!(shown.out.lines().count(), 1, "{}", shown.out);
    assert_eq!(shown.err, "");
    serde_json::from_str(&shown.out).unwrap()
}

#[test]
fn an_upgrade_is_one_line_of_json() {
    let served = Fake::default().serve();
    let shown = upgrade(&served, Look::Json);
    assert_eq!(shown.status, ExitCode::SUCCESS);
    assert_eq!(
        json_line(&shown),
        json!({"outcome": "upgraded", "dry_run": false, "generation": 3, "pid": 4_002,
               "build": "0.2.0", "format": 1, "connections": 11_999,
               "refused": [{"reason": "its app is gone", "connections": 1}],
               "pause_us": 12_345, "total_ms": 1_234})
    );
}

#[test]
fn an_upgrade_on_a_terminal_has_a_bar_and_then_its_figures() {
    let served = Fake::default().serve();
    let shown = upgrade(&served, Look::Terminal);
    assert_eq!(shown.status, ExitCode::SUCCESS);
    assert_eq!(
        shown.out,
        "\r\x1b[K[####------------] copy: 12,000 connections\r\x1b[K\
         upgraded: generation 3 serves (0.2.0, process 4002)\n\
         11,999 connections moved, pause 12.3 ms, 1.2 s in all\n\
         1 connection refused: its app is gone\n"
    );
}

#[test]
fn a_dry_run_says_what_would_be() {
    let served = Fake::default().serve();
    *served.operator.result.lock().unwrap() = Ok(Upgraded { dry_run: true, ..upgraded() });
    let shown = upgrade(&served, Look::Text);
    assert_eq!(
        shown.out,
        "an upgrade to 0.2.0 would succeed; nothing has moved\n\
         11,999 connections would move; 1.2 s in all\n\
         1 connection would be refused: its app is gone\n"
    );
}

#[test]
fn a_failed_upgrade_has_status_1_and_its_reason_which_drives_no_terminal() {
    let served = Fake::default().serve();
    let failed = Failed::new(FailureKind::Refused, "workers = \x1b[2J0 is too few");
    *served.operator.result.lock().unwrap() = Err(failed);
    let human = upgrade(&served, Look::Terminal);
    assert_eq!(human.status, ExitCode::FAILURE);
    assert!(human.out.ends_with(ERASE_LINE), "{:?}", human.out);
    assert!(human.err.starts_with("steadfast: workers = "), "{:?}", human.err);
    assert!(!human.err.contains('\x1b'), "{:?}", human.err);
    let machine = upgrade(&served, Look::Json);
    assert_eq!(machine.status, ExitCode::FAILURE);
    assert_eq!(
        json_line(&machine),
        json!({"outcome": "failed", "kind": "refused", "reason": "workers = \x1b[2J0 is too few"})
    );
}

#[test]
fn a_second_upgrade_has_status_1() {
    let served = Fake::default().serve();
    served.operator.is_held.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        let first = scope.spawn(|| upgrade(&served, Look::Terminal));
        wait_until("it has begun", || served.operator.is_upgrading.load(Ordering::SeqCst));
        let second = upgrade(&served, Look::Json);
        served.operator.is_held.store(false, Ordering::SeqCst);
        assert_eq!(second.status, ExitCode::FAILURE);
        assert_eq!(json_line(&second)["kind"], "in_progress");
        let first = first.join().unwrap();
        assert_eq!(first.status, ExitCode::SUCCESS);
    });
}

#[test]
fn a_server_that_dies_half_way_is_a_failure() {
    let directory = Directory::new("dies");
    let path = directory.path().join("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let line =
                b"{\"version\":1,\"reply\":\"progress\",\"of\":\"upgrade\",\"step\":\"copy\",\
                         \"connections\":2,\"pause_us\":null}\n{\"version\":1,";
            stream.write_all(line).unwrap();
        });
        let shown = shown(&path, &Request::Status, Look::Terminal);
        assert_eq!(shown.status, ExitCode::FAILURE);
        assert!(shown.err.contains("gone without an outcome"), "{}", shown.err);
    });
}

#[test]
fn nobody_there_has_status_1() {
    let directory = Directory::new("nobody");
    let path = directory.path().join("8000.sock");
    let human = shown(&path, &Request::Status, Look::Text);
    assert_eq!((human.status, human.out.as_str()), (ExitCode::FAILURE, ""));
    let expected = format!("steadfast: no Steadfast answers at {}: is it running?", path.display());
    assert!(human.err.starts_with(&expected), "{}", human.err);
    assert!(human.err.contains("--control"), "{}", human.err);
    let machine = shown(&path, &Request::Status, Look::Json);
    assert_eq!(machine.status, ExitCode::FAILURE);
    assert_eq!(json_line(&machine)["kind"], "no_server");
}

#[test]
fn the_status_is_text_or_one_line_of_json() {
    let served = Fake::default().serve();
    let machine = shown(&served.path, &Request::Status, Look::Json);
    let line = json_line(&machine);
    assert_eq!(machine.status, ExitCode::SUCCESS);
    assert_eq!(line, serde_json::to_value(status()).unwrap());
    assert_eq!((&line["generation"], &line["activity"]), (&json!(2), &json!("serving")));
    assert_eq!(line["upgrades"][1]["at_unix_ms"], 61_000);
    let now = UNIX_EPOCH + Duration::from_secs(361);
    assert_eq!(
        status_text(&status(), now),
        "Steadfast 0.1.0, generation 2, serving\n\
         process      4001, supervisor 4000\n\
         up           1 h 2 min\n\
         listens on   127.0.0.1:8000\n\
         workers      2\n\
         connections  12,000 of 65,000 at most (6,001 + 5,999 by worker)\n\
         refused      12 x 404\n\
         upgrades\n  \
         5 min ago: generation 3 (0.2.0), 11,999 connections moved, pause 12.3 ms, 1.2 s in all, \
         1 refused\n  \
         6 min ago: failed: the configuration is wrong\n"
    );
    let human = shown(&served.path, &Request::Status, Look::Text);
    assert!(human.out.starts_with("Steadfast 0.1.0, generation 2"), "{}", human.out);
}

#[test]
fn a_drain_shows_how_far_it_is() {
    let served = Fake::default().serve();
    let shown = shown(&served.path, &Request::Drain(Default::default()), Look::Terminal);
    assert_eq!(shown.status, ExitCode::SUCCESS);
    assert!(shown.out.contains("[########--------] drain: 500 of 1,000"), "{}", shown.out);
    assert!(shown.out.ends_with("drained: 1,000 connections closed in 10.2 s\n"), "{}", shown.out);
}

#[test]
fn a_bar_is_never_longer_than_a_terminal_is_wide() {
    for connections in [0, 5, 9_999_999] {
        let of_step =
            |step| Progress::Upgrade { step, connections, pause_us: Some(999_900_000_000) };
        let drains = [0, 3, 9_999_999].map(|done| Progress::Drain { done, connections });
        for progress in Step::ALL.map(of_step).into_iter().chain(drains) {
            let line = bar(&progress);
            assert!(line.len() <= 80, "{line}");
        }
    }
}

/// The verb of a command line with `words`.
fn verb(words: &[&str]) -> Verb {
    let words = ["steadfast"].iter().chain(words);
    CommandLine::try_parse_from(words).unwrap().verb
}

#[test]
fn flags_say_which_server_is_meant() {
    let path = |words: &[&str]| match verb(&[&["status"], words].concat()) {
        Verb::Status(args) => args
            .target
            .places(&Context::new(1))
            .map(|places| places.into_iter().map(|place| place.path).collect::<Vec<_>>()),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        path(&["--control", "/x/y.sock", "--config=/none"]).unwrap(),
        [Path::new("/x/y.sock")]
    );
    assert!(path(&["--listen", "[::1]:9000"]).unwrap()[0].ends_with("steadfast/9000.sock"));
    assert!(path(&["--listen", "127.0.0.1:0"]).unwrap_err().contains("--control"));
    assert!(path(&["--listen", "nonsense"]).is_err());
    let directory = Directory::new("config");
    let file = directory.path().join("steadfast.toml");
    std::fs::write(&file, "control = '/run/mine/c.sock'\n").unwrap();
    let given = ["--config", file.to_str().unwrap()];
    let places = path(&given).unwrap();
    assert_eq!(places[0], Path::new("/run/mine/c.sock"));
    assert!(places[1].ends_with("steadfast/8000.sock"), "{places:?}");
}

#[test]
fn verbs_become_requests() {
    let served = Fake::default().serve();
    let control = served.path.to_str().unwrap();
    let relative = std::path::absolute("new").unwrap();
    let run = |words: &[&str]| {
        let flags = ["--control", control, "--json"];
        let words = ["steadfast"].iter().chain(words).chain(&flags);
        let words = words.map(std::ffi::OsString::from);
        crate::cli::run_verb(words, &Context::new(1), |_| Err("no server is to be run"))
    };
    for words in
        [&["upgrade", "--binary", "new", "--dry-run"][..], &["reload"], &["drain", "--duration=2s"]]
    {
        assert_eq!(run(words), ExitCode::SUCCESS, "{words:?}");
    }
    assert_eq!(run(&["drain", "--duration=soon"]), ExitCode::from(EXIT_USAGE));
    let requests = served.operator.requests.lock().unwrap();
    let duration = Some(Duration::from_secs(2));
    assert_eq!(
        *requests,
        [
            Request::Upgrade(UpgradeRequest { binary: Some(relative), dry_run: true }),
            Request::Upgrade(UpgradeRequest::default()),
            Request::Drain(crate::control::DrainRequest { duration, now: false }),
        ]
    );
}

#[test]
fn numbers_and_times_are_for_people() {
    for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(number(count), text);
    }
    for (ms, text) in [
        (0, "0.0 ms"),
        (12, "12.0 ms"),
        (1_234, "1.2 s"),
        (300_000, "5 min"),
        (11_100_000, "3 h 5 min"),
        (183_600_000, "2 d 3 h"),
    ] {
        assert_eq!(time(Duration::from_millis(ms)), text);
    }
}
