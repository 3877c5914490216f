//! Both ends over a real socket, and strangers on it.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::serve::prepare_with;
use super::testing::{Fake, Served, status, upgraded, wait_until};
use super::*;
use crate::handover::Step;
use crate::sys::packets::{self, Received};

/// Asks once, without a look at the progress.
fn ask(path: &Path, request: &Request) -> Outcome {
    Client::connect(path).unwrap().request(request, |_| ()).unwrap()
}

/// Connects as something else than a client.
fn stranger(served: &Served) -> UnixStream {
    let stream = UnixStream::connect(&served.path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// What comes back for `text`, up to the end of the connection.
fn answer(served: &Served, text: &[u8]) -> Vec<Value> {
    let mut stream = stranger(served);
    stream.write_all(text).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn upgrade() -> Request {
    Request::Upgrade(UpgradeRequest::default())
}

fn failure(outcome: Outcome) -> FailureKind {
    match outcome {
        Outcome::Failed(failed) => failed.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_have_their_outcomes() {
    let served = Fake::default().serve();
    let mut client = Client::connect(&served.path).unwrap();
    let outcome = client.request(&Request::Status, |progress| panic!("{progress:?}"));
    assert_eq!(outcome.unwrap(), Outcome::Status(status()));

    // Another request on the same connection.
    let wanted = UpgradeRequest { binary: Some("/usr/bin/new".into()), dry_run: true };
    let mut steps = Vec::new();
    let outcome = client.request(&Request::Upgrade(wanted.clone()), |progress| {
        steps.push(progress);
    });
    assert_eq!(outcome.unwrap(), Outcome::Upgraded(upgraded()));
    let copy = Progress::Upgrade { step: Step::Copy, connections: 12_000, pause_us: None };
    assert_eq!(steps, [copy]);

    let drain = DrainRequest { duration: Some(Duration::from_millis(1_500)), now: false };
    let outcome = client.request(&Request::Drain(drain.clone()), |_| ());
    assert_eq!(
        outcome.unwrap(),
        Outcome::Drained(Drained { connections: 1_000, total_ms: 10_250 })
    );

    let requests = served.operator.requests.lock().unwrap();
    assert_eq!(*requests, [Request::Upgrade(wanted), Request::Drain(drain)]);
}

#[test]
fn whoever_asks_for_everything_is_given_a_channel_or_a_reason() {
    let served = Fake::default().serve();
    let taking = Client::connect(&served.path).unwrap().take_over().unwrap().unwrap();
    let (mut buffer, mut none) = ([0; 64], Vec::new());
    let received = packets::receive(&taking.channel, &mut buffer, &mut none, None).unwrap();
    assert_eq!(received, Received::Packet(16));
    assert_eq!(&buffer[..16], b"over the channel");
    assert_eq!(taking.outcome().unwrap(), Outcome::Upgraded(upgraded()));

    let failed = Failed::new(FailureKind::InProgress, "an upgrade is in progress");
    *served.operator.result.lock().unwrap() = Err(failed.clone());
    let refused = Client::connect(&served.path).unwrap().take_over().unwrap();
    assert_eq!(refused.unwrap_err(), failed);
    assert_eq!(*served.operator.requests.lock().unwrap(), [Request::HandOver, Request::HandOver]);

    // Who does not expect a channel, such as an older program's client, is not given one in silence.
    let mut client = Client::connect(&served.path).unwrap();
    *served.operator.result.lock().unwrap() = Ok(upgraded());
    let outcome = client.request(&Request::HandOver, |_| ());
    assert!(matches!(outcome, Err(ClientError::Unclear(_))), "{outcome:?}");
}

#[test]
fn what_is_on_the_wire() {
    let served = Fake::default().serve();
    let text = b"{\"version\":1,\"request\":\"upgrade\"}\n{\"version\":1,\"request\":\"drain\"}\n";
    let replies = answer(&served, text);
    assert_eq!(
        replies[..2],
        [
            json!({"version": 1, "reply": "progress", "of": "upgrade", "step": "copy",
                   "connections": 12_000, "pause_us": null}),
            json!({"version": 1, "reply": "outcome", "outcome": "upgraded", "dry_run": false,
                   "generation": 3, "pid": 4_002, "build": "0.2.0", "format": 1,
                   "connections": 11_999,
                   "refused": [{"reason": "its app is gone", "connections": 1}],
                   "pause_us": 12_345, "total_ms": 1_234}),
        ]
    );
    let last = json!({"version": 1, "reply": "outcome", "outcome": "drained",
                      "connections": 1_000, "total_ms": 10_250});
    assert_eq!(replies.last(), Some(&last));
    let status = &answer(&served, b"{\"version\":1,\"request\":\"status\",\"new\":1}\n")[0];
    assert_eq!(status["outcome"], "status");
    assert_eq!(status["upgrades"][0]["outcome"], "failed");
    assert_eq!(status["upgrades"][0]["kind"], "refused");
    assert_eq!(status["upgrades"][1]["pause_us"], 12_345);
}

#[test]
fn a_failed_upgrade_has_its_reason() {
    let failed = Failed::new(FailureKind::Refused, "the configuration is wrong");
    let served = Fake::default().serve();
    *served.operator.result.lock().unwrap() = Err(failed.clone());
    assert_eq!(ask(&served.path, &upgrade()), Outcome::Failed(failed));
}

#[test]
fn a_second_upgrade_is_refused_while_one_runs_and_the_status_is_not() {
    let served = Fake::default().serve();
    let operator = &served.operator;
    operator.is_held.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        let first = scope.spawn(|| ask(&served.path, &upgrade()));
        wait_until("the upgrade has begun", || operator.is_upgrading.load(Ordering::SeqCst));
        assert_eq!(failure(ask(&served.path, &upgrade())), FailureKind::InProgress);
        assert_eq!(ask(&served.path, &Request::Status), Outcome::Status(status()));
        operator.is_held.store(false, Ordering::SeqCst);
        assert_eq!(first.join().unwrap(), Outcome::Upgraded(upgraded()));
    });
}

#[test]
fn an_upgrade_is_aborted_when_its_client_goes_away() {
    let served = Fake::default().serve();
    served.operator.is_held.store(true, Ordering::SeqCst);
    let mut stream = stranger(&served);
    stream.write_all(b"{\"version\":1,\"request\":\"upgrade\"}\n").unwrap();
    wait_until("the upgrade begins", || served.operator.is_upgrading.load(Ordering::SeqCst));
    assert!(!served.operator.was_aborted.load(Ordering::SeqCst));
    drop(stream);
    wait_until("it is aborted", || served.operator.was_aborted.load(Ordering::SeqCst));
}

#[test]
fn progress_does_not_wait_for_a_client_that_does_not_read() {
    let served = Fake::default().serve();
    served.operator.is_held.store(true, Ordering::SeqCst);
    let mut stream = stranger(&served);
    stream.write_all(b"{\"version\":1,\"request\":\"upgrade\"}\n").unwrap();
    // Thousands of lines more than the socket's buffer has room for.
    thread::sleep(Duration::from_millis(300));
    served.operator.is_held.store(false, Ordering::SeqCst);
    wait_until("it ends", || !served.operator.is_upgrading.load(Ordering::SeqCst));
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let mut lines = reply.lines().map(|line| serde_json::from_str::<Value>(line).expect("whole"));
    assert_eq!(lines.next_back().unwrap()["outcome"], "upgraded");
}

#[test]
fn garbage_is_answered_and_ends_the_connection() {
    let served = Fake::default().serve();
    let long = [b"{\"version\":1,\"request\":\"".to_vec(), vec![b'x'; 20_000]].concat();
    let deep = [vec![b'['; 10_000], b"\n".to_vec()].concat();
    for (text, word) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "no message"),
        (b"\n", "no message"),
        (b"{}\n", "no version"),
        (b"[1]\n", "no version"),
        (b"\xff\xfe\n", "no message"),
        (b"{\"version\":1,\"request\":\"fly\"}\n", "unknown variant"),
        (b"{\"version\":1,\"request\":\"upgrade\",\"dry_run\":7}\n", "invalid type"),
        (b"{\"version\":1,\"request\":\"drain\",\"duration_ms\":-1}\n", "invalid value"),
        (b"{\"version\":2,\"request\":\"status\"}\n", "version 2"),
        (&long, "16384 bytes at most"),
        (&deep, "recursion"),
    ] {
        // What follows is not looked at.
        let replies =
            answer(&served, &[text, b"{\"version\":1,\"request\":\"status\"}\n"].concat());
        assert_eq!(replies.len(), 1, "{text:?}: {replies:?}");
        assert_eq!(replies[0]["kind"], "bad_request", "{text:?}");
        let reason = replies[0]["reason"].as_str().unwrap();
        assert!(reason.contains(word), "{text:?}: {reason}");
    }
    // Without a line feed it is no request.
    assert!(answer(&served, b"{\"version\":1,\"request\":\"status\"}").is_empty());
    assert_eq!(ask(&served.path, &Request::Status), Outcome::Status(status()));
    assert!(served.operator.requests.lock().unwrap().is_empty());
}

#[test]
fn silent_strangers_block_nobody_and_are_sent_away() {
    let fake = Fake::default().serve();
    let directory = testing::Directory::new("idle");
    let path = directory.path().join("control.sock");
    let listener = ControlListener::bind(&path).unwrap();
    let idle_time_max = Duration::from_millis(100);
    let standby = prepare_with(&listener, fake.operator.clone(), idle_time_max).unwrap();
    let _serving = standby.serve();
    let mut strangers: Vec<_> =
        (1..CONNECTIONS_MAX).map(|_| UnixStream::connect(&path).unwrap()).collect();
    assert_eq!(ask(&path, &Request::Status), Outcome::Status(status()));
    for stranger in &mut strangers {
        stranger.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut reply = String::new();
        stranger.read_to_string(&mut reply).unwrap();
        assert!(reply.contains("bad_request") && reply.contains("in time"), "{reply}");
    }
}

#[test]
fn more_than_the_bound_are_told_so() {
    let served = Fake::default().serve();
    let strangers: Vec<_> = (0..CONNECTIONS_MAX).map(|_| stranger(&served)).collect();
    assert_eq!(failure(ask(&served.path, &Request::Status)), FailureKind::Busy);
    drop(strangers);
    wait_until("there is room again", || {
        ask(&served.path, &Request::Status) == Outcome::Status(status())
    });
}

#[test]
fn a_close_ends_those_who_wait_and_lets_the_rest_finish() {
    let mut served = Fake::default().serve();
    let operator = served.operator.clone();
    operator.is_held.store(true, Ordering::SeqCst);
    let mut silent = stranger(&served);
    let mut serving = served.serving.take().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| ask(&served.path, &upgrade()));
        wait_until("the upgrade has begun", || operator.is_upgrading.load(Ordering::SeqCst));
        serving.close();
        assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
        operator.is_held.store(false, Ordering::SeqCst);
        assert_eq!(first.join().unwrap(), Outcome::Upgraded(upgraded()));
    });
    assert!(serving.finish(Duration::from_secs(60)));
}

#[test]
fn finishing_waits_no_longer_than_told() {
    let mut served = Fake::default().serve();
    served.operator.is_held.store(true, Ordering::SeqCst);
    let mut stream = stranger(&served);
    stream.write_all(b"{\"version\":1,\"request\":\"upgrade\"}\n").unwrap();
    wait_until("it has begun", || served.operator.is_upgrading.load(Ordering::SeqCst));
    let start = Instant::now();
    assert!(!served.serving.take().unwrap().finish(Duration::from_millis(20)));
    assert!(start.elapsed() < Duration::from_secs(30));
    drop(stream);
}

#[test]
fn a_successor_answers_on_the_listener_that_was_passed_on() {
    let mut first = Fake::default().serve();
    let passed_on = first.listener.as_fd().try_clone_to_owned().unwrap();
    let second = ControlListener::from_fd(passed_on).unwrap();
    assert!(first.serving.take().unwrap().finish(Duration::from_secs(60)));
    // Connected between the two: in the queue of the listener both have.
    let mut waiting = Client::connect(&first.path).unwrap();
    let _serving = serve(&second, first.operator.clone()).unwrap();
    let outcome = waiting.request(&Request::Status, |_| ()).unwrap();
    assert_eq!(outcome, Outcome::Status(status()));
}

#[test]
fn nobody_there_is_said_so() {
    let directory = testing::Directory::new("nobody");
    let path = directory.path().join("8000.sock");
    for with_file in [false, true] {
        if with_file {
            drop(ControlListener::bind(&path).unwrap());
        }
        let error = Client::connect(&path).unwrap_err();
        assert!(matches!(error, ClientError::NoServer(..)), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("no Steadfast answers at /"), "{text}");
        assert!(text.contains("8000.sock: is it running?"), "{text}");
    }
}
