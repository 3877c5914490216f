//! Another user of the same machine can neither stop a server nor take it over.

use std::env;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown, fchown, lchown, symlink};
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
    command.args(["--exact", "process::strangers::caller", "--nocapture", "--test-threads=1"]);
    command.env(CALLED, format!("{request} {}", control.display()));
    command.uid(STRANGER).gid(STRANGER).current_dir("/");
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What that process does.
/// As systemd-tmpfiles and tmpwatch do with what is old.
#[test]
fn sockets_whose_files_are_removed_are_bound_anew() {
    for life in [Life::ALONE, Life::SUPERVISED, Life { files: None, ..Life::LOWLY }] {
        let mut server = Server::start_by(life, "workers = 2\n", |house, mut command| {
            let path = house.folder().join("ws.sock");
            command.arg("--listen").arg(format!("unix:{}", path.display()));
            as_user(life, command, house)
        });
        let folder = server.house().folder().to_owned();
        let control = folder.join(format!("steadfast/{}.sock", server.address.port()));
        let socket = folder.join("ws.sock");
        let mut client = server.open("/echo");
        // Found out while it serves, and by a successor.
        for _ in 0..2 {
            fs::remove_file(&control).expect("a control socket");
            wait_until("another control socket", || server.try_status().is_some());
        }
        server.expect_log("the control socket's file is gone");
        let (upgraded, said) = server.upgrade_by_verb(&[]);
        assert!(upgraded, "{said}");
        server.follow_status();
        fs::remove_file(&socket).expect("a listening socket");
        assert!(UnixStream::connect(&socket).is_err());
        let (upgraded, said) = server.upgrade_by_verb(&[]);
        assert!(upgraded, "{said}");
        let mut newcomer = Client::over(UnixStream::connect(&socket).expect("it is bound anew"));
        newcomer.upgrade("/echo", "");
        newcomer.assert_echo("by the new file");
        client.assert_echo("moved twice");
        // And kept by the supervisor: the crash of the server changes nothing.
        server.follow_status();
        if life.supervised {
            kill(server.pid(), "KILL");
            server.follow_the_dead();
            assert!(UnixStream::connect(&socket).is_ok());
        }
    }
}

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

#[test]
fn root_believes_no_strangers_server_unless_told_to() {
    if !is_root() {
        return say_untested("root before a stranger's server, which takes root");
    }
    let life = Life { user: Some(STRANGER), ..Life::SUPERVISED };
    let server = Server::start_living(life, "workers = 1\n", &[]);
    let control = server.house().folder().join(format!("steadfast/{}.sock", server.address.port()));
    for verb in ["status", "upgrade", "drain"] {
        let mut command = steadfast();
        command.args([verb, "--control"]).arg(&control).stdout(Stdio::piped());
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let said = format!("{said}{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(output.status.code(), Some(1), "{verb}: {said}");
        assert!(said.contains("is user 64101's") && said.contains("--user 64101"), "{said}");
    }
    let mut named = steadfast();
    named.args(["status", "--user", "64101", "--control"]).arg(&control);
    assert!(named.stdout(Stdio::null()).status().expect("it runs").success());
}

/// Makes a directory.
fn directory(path: &Path, mode: u32, owner: u32) {
    fs::create_dir(path).expect("a new folder");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("root's right");
    chown(path, Some(owner), Some(owner)).expect("root's right");
}

/// What the stranger puts at a path, to be found by a server of `uid`: one that may hold a lock.
type Trap = fn(path: &Path, lock: &str, uid: u32) -> Option<File>;

/// A directory of his, open to all, with a lock of his for the port.
fn open_directory(path: &Path, lock: &str, _: u32) -> Option<File> {
    directory(path, 0o777, STRANGER);
    Some(lock_of_his(path, lock))
}

/// A lock of his in a directory of the server's user, which was open once.
fn lock_in_the_users_own(path: &Path, lock: &str, uid: u32) -> Option<File> {
    directory(path, 0o700, uid);
    Some(lock_of_his(path, lock))
}

/// A link of his to a directory of the server's user.
fn link_to_the_users_own(path: &Path, _: &str, uid: u32) -> Option<File> {
    let own = path.with_file_name("own");
    directory(&own, 0o700, uid);
    symlink(&own, path).expect("a new link");
    lchown(path, Some(STRANGER), Some(STRANGER)).expect("root's right");
    None
}

fn lock_of_his(path: &Path, name: &str) -> File {
    let lock = File::create(path.join(name)).expect("a new file");
    fchown(&lock, Some(STRANGER), Some(STRANGER)).expect("root's right");
    lock.lock().expect("nobody has it");
    lock
}

#[test]
fn a_stranger_in_a_shared_directory_keeps_no_server_from_starting() {
    if !is_root() {
        return say_untested("a stranger's directories and locks, which take another user");
    }
    let traps: [Trap; 3] = [open_directory, lock_in_the_users_own, link_to_the_users_own];
    for (uid, trap) in [0, 65_534].into_iter().flat_map(|uid| traps.map(|trap| (uid, trap))) {
        // As /tmp is: everybody's, with the sticky bit.
        let shared = env::temp_dir().join(format!("steadfast-strangers-{}", std::process::id()));
        directory(&shared, 0o1777, 0);
        let address = free_address();
        let lock = format!("{}.lock", address.to_string().replace(':', "_"));
        let held = trap(&shared.join("steadfast"), &lock, uid);
        let mut command = Command::new(accessible_copy(Path::new(steadfast().get_program())));
        command.args(["serve", "--no-supervisor", "--listen", &address.to_string()]);
        command.env("XDG_RUNTIME_DIR", &shared).uid(uid).gid(uid).current_dir("/");
        let mut server = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        wait_until("a server", || {
            let ended = server.try_wait().expect("a child's status");
            assert_eq!(ended, None, "user {uid}");
            TcpStream::connect(address).is_ok()
        });
        kill(server.id(), "TERM");
        let output = server.wait_with_output().expect("an end");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("the port cannot be locked"), "{said}");
        let own = shared.join("own");
        let is_empty = |path: &Path| fs::read_dir(path).expect("a folder").next().is_none();
        assert!(!own.exists() || is_empty(&own), "the stranger's link was followed");
        drop(held);
        fs::remove_dir_all(&shared).expect("root's right");
    }
}
