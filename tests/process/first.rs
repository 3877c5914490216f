//! As the first process of a container: a PID namespace of its own, in which the supervisor is
//! process 1.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::*;

/// The options that make the namespaces, or `None` where that is not permitted.
fn namespaces() -> Option<Vec<&'static str>> {
    let options = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    // Root has no need of users of its own.
    let own_users = ["--user", "--map-root-user"];
    let options: Vec<_> = own_users.into_iter().filter(|_| !is_root()).chain(options).collect();
    let tried = Command::new("unshare").args(&options).args(["--", "true"]).output();
    if tried.as_ref().is_ok_and(|output| output.status.success()) {
        return Some(options);
    }
    say_untested(&format!("the supervisor as PID 1, as namespaces are not permitted: {tried:?}"));
    None
}

/// A server in a container, and its first process by its number outside.
fn contained() -> Option<(Server, u32)> {
    let options = namespaces()?;
    let config = "workers = 2\ndrain_duration = '100ms'\n";
    let server = Server::start_by(Life::SUPERVISED, config, |_, command| {
        let mut unshare = Command::new("unshare");
        unshare.args(&options).arg("--").arg(command.get_program()).args(command.get_args());
        with_environment_of(unshare, &command)
    });
    let unshare = server.first_pid();
    let processes = server.house().processes();
    let first = processes.into_iter().find(|pid| parent(*pid) == Some(unshare));
    let first = first.expect("a child");
    let status = fs::read_to_string(format!("/proc/{first}/status")).expect("a running process");
    assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")));
    Some((server, first))
}

/// Runs a command of the shell in the container; what it leaves there is an orphan.
fn run_within(server: &Server, first: u32, script: &str) {
    let mut command = Command::new("nsenter");
    command.args(["--target", &first.to_string(), "--pid"]);
    if !is_root() {
        command.args(["--user", "--preserve-credentials"]);
    }
    command.args(["--", "sh", "-c", script]).env("XDG_RUNTIME_DIR", server.house().folder());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("nsenter runs").success(), "{script}");
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

#[test]
fn it_upgrades_restarts_and_drains() {
    let Some((mut server, first)) = contained() else { return };
    let mut client = server.open("/echo");
    client.assert_echo("before");
    for signal in ["USR2", "HUP"] {
        let before = server.pid();
        kill(first, signal);
        wait_until("a successor", || {
            server.follow_status();
            server.pid() != before
        });
        wait_until("the predecessor is gone, and its status taken", || parent(before).is_none());
        client.assert_echo(signal);
    }
    let (upgraded, said) = server.upgrade_by_verb(&[]);
    assert!(upgraded, "{said}");
    client.assert_echo("by the verb");
    // It has become the new program, and is process 1 yet.
    wait_until("the new program", || {
        server.log().matches("the supervisor goes on as the new program").count() == 3
    });
    server.follow_status();
    let crashed = server.pid();
    kill(crashed, "KILL");
    server.follow_the_dead();
    wait_until("its status is taken", || parent(crashed).is_none());
    client.expect_lost();
    let mut client = server.open("/echo");
    client.assert_echo("restarted");
    kill(first, "TERM");
    client.expect_close(1012);
    drop(client);
    assert_eq!(server.exit_status(), Some(0), "{}", server.log());
    server.wait_for_processes(&[]);
}

#[test]
fn it_ends_at_once_on_int() {
    let Some((mut server, first)) = contained() else { return };
    let mut client = server.open("/echo");
    kill(first, "INT");
    client.expect_close(1001);
    drop(client);
    assert_eq!(server.exit_status(), Some(0), "{}", server.log());
}

#[test]
fn orphans_are_reaped_and_taken_for_nothing_else() {
    let Some((mut server, first)) = contained() else { return };
    run_within(&server, first, "sleep 1000 & sleep 1001 & exit 0");
    let orphans = |server: &Server| -> Vec<u32> {
        let processes = server.house().processes().into_iter();
        processes.filter(|pid| name(*pid) == "sleep" && parent(*pid) == Some(first)).collect()
    };
    wait_until("orphans", || orphans(&server).len() == 2);
    for orphan in orphans(&server) {
        kill(orphan, "KILL");
        wait_until("its status is taken", || parent(orphan).is_none());
    }
    server.assert_healthy();
    // An app's shell that starts another Steadfast: with the variables of the server, and, as an
    // orphan, with its parent, too.
    let folder = server.house().folder().to_owned();
    let program = steadfast().get_program().to_str().expect("UTF-8").to_owned();
    let control = folder.join("other.sock");
    let control = control.to_str().expect("UTF-8");
    run_within(
        &server,
        first,
        &format!(
            "_STEADFAST_ROLE='1 server 1' '{program}' serve --listen 127.0.0.1:0 --control \
             '{control}' & exit 0"
        ),
    );
    wait_until("another server with a supervisor", || {
        server.house().processes().into_iter().any(|pid| {
            let above = parent(pid).filter(|above| *above != first && name(*above) == "steadfast");
            name(pid) == "steadfast" && above.and_then(parent) == Some(first)
        })
    });
    server.assert_healthy();
    // The first process's end is the container's.
    kill(first, "KILL");
    server.wait_for_processes(&[]);
    assert_ne!(server.exit_status(), Some(0));
}
