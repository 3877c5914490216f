//! Another user of the same machine can neither stop a server nor take it over.

use std::env;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::*;

/// One whose user is nobody's but this test's.
const STRANGER: u32 = 64_101;

/// A verb as the stranger would call it: whether it was obeyed, and what was said.
fn verb(server: &Server, verb: &str, args: &[&str]) -> (Option<i32>, String) {
    let life = Life { user: Some(STRANGER), files: Some((100, 100)), ..Life::SUPERVISED };
    let mut command = as_user(life, server.verb(verb), server.house());
    let output = command.args(args).current_dir("/").output().expect("the binary starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("UTF-8"))
}

const CALLED: &str = "PROCESS_TEST_CALLED";

/// What the server answers to the stranger himself, who keeps to no program of ours: this test's is
/// started again as his.
fn call(control: &Path, request: &str) -> String {
    let program = accessible_copy(&env::current_exe().expect("a running program has a path"));
    let mut command = Command::new(program);
    command.args(["--exact", "strangers::caller", "--nocapture", "--test-threads=1"]);
    command.env(CALLED, format!("{request} {}", control.display()));
    command.uid(STRANGER).gid(STRANGER).current_dir("/");
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What that process does.
#[test]
fn caller() {
    let called = env::var(CALLED).unwrap_or_default();
    let Some((request, control)) = called.split_once(' ') else { return };
    let mut stream = UnixStream::connect(control).expect("the folder is open");
    stream.set_read_timeout(Some(WAIT)).expect("a time above zero");
    // It may have been refused before it has said anything.
    let _ = writeln!(stream, "{{\"request\":\"{request}\"}}");
    let mut reply = String::new();
    // Behind the reply may come a reset, as nobody has read the request.
    let _ = stream.read_to_string(&mut reply);
    println!("{reply}");
}

#[test]
fn a_stranger_is_refused_at_the_control_socket() {
    if !is_root() {
        return say_untested("a stranger at the control socket, which takes another user");
    }
    // The server of root, and of a user: neither is the stranger's.
    for life in [Life::SUPERVISED, Life::LOWLY] {
        let mut server = Server::start_living(life, "workers = 2\n", &[]);
        let mut client = server.open("/echo");
        let verbs = [("status", &[] as &[&str]), ("upgrade", &[]), ("upgrade", &["--dry-run"])];
        let verbs = verbs.into_iter().chain([("drain", &[] as &[&str])]);
        // Not even the folder is open to him.
        for (name, args) in verbs.clone() {
            let (code, said) = verb(&server, name, args);
            assert_eq!(code, Some(1), "{name}: {said}");
        }
        // And if an operator has opened it, the kernel still says who calls.
        let house = server.house().folder().to_owned();
        let folder = house.join("steadfast");
        for path in [&house, &folder] {
            fs::set_permissions(path, Permissions::from_mode(0o777)).expect("root's right");
        }
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o777)).expect("root's right");
        }
        for (name, args) in verbs {
            let (code, said) = verb(&server, name, args);
            assert_eq!(code, Some(1), "{name}: {said}");
            // His own program would not even talk to a server of a third user's.
            let refusals = ["user 64101 may not operate this server", "is user 65534's"];
            assert!(refusals.iter().any(|text| said.contains(text)), "{name}: {said}");
        }
        let control = folder.join(format!("{}.sock", server.address.port()));
        for request in ["status", "upgrade", "drain"] {
            let reply = call(&control, request);
            assert!(reply.contains("user 64101 may not operate"), "{request}: {reply}");
        }
        client.assert_echo("as before");
        let status = server.status();
        assert_eq!(number_in(&status, "generation"), Some(1), "{status}");
        for path in [&house, &folder] {
            fs::set_permissions(path, Permissions::from_mode(0o700)).expect("root's right");
        }
        server.upgrade();
        client.assert_echo("after an upgrade by whom it belongs to");
    }
}

#[test]
fn a_stranger_reaches_nothing_that_a_process_holds() {
    if !is_root() {
        return say_untested("a stranger's look into a process, which takes another user");
    }
    let mut server = Server::start_living(Life::LOWLY, "workers = 2\n", &[]);
    let mut client = server.open("/echo");
    server.upgrade();
    let stranger = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).uid(STRANGER).gid(STRANGER).current_dir("/").stderr(Stdio::null());
        command.output().expect("it starts")
    };
    for pid in [server.pid(), server.first_pid()] {
        // Descriptors, the memory of states and the word that decides are reached by these alone.
        for file in ["fd", "environ", "mem", "map_files"] {
            let path = format!("/proc/{pid}/{file}");
            let program = if file == "fd" || file == "map_files" { "ls" } else { "cat" };
            let output = stranger(program, &[&path]);
            assert!(!output.status.success() && output.stdout.is_empty(), "{path}: {output:?}");
        }
        for signal in ["TERM", "USR2", "KILL"] {
            let output = stranger("kill", &["-s", signal, &pid.to_string()]);
            assert!(!output.status.success(), "{signal}: {output:?}");
        }
    }
    client.assert_echo("as before");
    let status = server.status();
    assert_eq!(number_in(&status, "generation"), Some(2), "{status}");
}

#[test]
fn what_a_server_starts_is_no_part_of_it() {
    // A shell of an app's, say, with a server of its own: it has the same variables, and perhaps
    // the same parent.
    let server = Server::start_living(Life::SUPERVISED, "workers = 1\n", &[]);
    let supervisor = server.first_pid();
    for role in ["server", "successor"] {
        let mut command = steadfast();
        command.args(["serve", "--listen", "127.0.0.1:0", "--control"]);
        command.arg(server.house().folder().join(format!("{role}.sock")));
        command.env("_STEADFAST_ROLE", format!("1 {role} {supervisor}"));
        command.env("XDG_RUNTIME_DIR", server.house().folder());
        let mut other = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let expected = supervisor_and_child(&server, other.id());
        kill(other.id(), "TERM");
        assert!(other.wait().expect("a child's end").success(), "{expected:?}");
        server.wait_for_processes(&[supervisor, server.pid()]);
    }
}

/// Waits until `other` has a child, which only a supervisor has.
#[track_caller]
fn supervisor_and_child(server: &Server, other: u32) -> Vec<u32> {
    let mut found = Vec::new();
    wait_until("a server below another supervisor", || {
        found = server.house().processes();
        found.iter().any(|pid| parent(*pid) == Some(other))
    });
    found
}
