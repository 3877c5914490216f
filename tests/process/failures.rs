//! Upgrades that cannot be: everything goes on as before, and whoever has asked is told why.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;

const LIVES: [Life; 2] = [Life::ALONE, Life::SUPERVISED];

/// A file of this content that can be executed.
fn program(content: impl AsRef<[u8]>) -> PathBuf {
    write_program(content, 0o755)
}

fn script(text: &str) -> PathBuf {
    program(format!("#!/bin/sh\n{text}\n"))
}

/// The processes that should be there.
fn expected(server: &Server) -> Vec<u32> {
    let mut pids = vec![server.first_pid(), server.pid()];
    pids.dedup();
    pids
}

/// Asserts that upgrades to these programs fail for these reasons, lose nobody, leave nobody, and
/// are no hindrance to one that can be.
#[track_caller]
fn assert_all_fail(life: Life, programs: &[(PathBuf, &str)]) {
    let mut server = Server::start_living(life, "workers = 2\n", &[]);
    let mut client = server.open("/echo");
    for (program, reason) in programs {
        let program = program.to_str().expect("UTF-8");
        let (upgraded, said) = server.upgrade_by_verb(&["--binary", program]);
        assert!(!upgraded && said.contains(reason), "{program}: {said}");
        client.assert_echo(program);
        server.wait_for_processes(&expected(&server));
    }
    server.upgrade();
    client.assert_echo("after all");
}

#[test]
fn programs_that_cannot_be_started() {
    let real = fs::read(steadfast().get_program()).expect("a program");
    // Of another architecture: e_machine of the ELF header (elf(5)).
    let mut foreign = real[..4096].to_vec();
    foreign[18..20].copy_from_slice(&0x1234_u16.to_le_bytes());
    let dumb = program("no program");
    fs::set_permissions(&dumb, Permissions::from_mode(0o644)).expect("a file of ours");
    let programs = [
        (fresh_path(".missing"), "No such file or directory"),
        (dumb, "Permission denied"),
        (env::temp_dir(), "Permission denied"),
        (program("no program\n"), "Exec format error"),
        (program(&foreign), "Exec format error"),
        (program("#!/no/such/shell\n"), "No such file or directory"),
    ];
    for life in LIVES {
        assert_all_fail(life, &programs);
    }
}

#[test]
fn programs_that_end_too_early() {
    let real = fs::read(steadfast().get_program()).expect("a program");
    let programs = [
        ("/bin/true".into(), "the new process has ended"),
        ("/bin/false".into(), "the new process has ended"),
        // In the middle of being loaded, and as one that crashes by itself.
        (program(&real[..64 * KIB]), "the new process has ended"),
        (script("kill -s SEGV $$"), "the new process has ended"),
    ];
    for life in LIVES {
        assert_all_fail(life, &programs);
    }
}

#[test]
fn programs_that_speak_something_else() {
    for life in LIVES {
        let channel = if life.supervised { 4 } else { 3 };
        let say = |bytes: &str| script(&format!("printf '{bytes}' >&{channel}"));
        let programs = [
            (say(r"A\000\000"), "speaks version 0 of the handover's protocol, this one 2"),
            (
                say(r"A\011\000more of it"),
                "speaks version 9 of the handover's protocol, this one 2",
            ),
            (
                say(r"A\002\000\143\000\000\000\144\000\000\000\003new\001\000\000\000"),
                "the new program (new) reads 99 to 100; go by way of a version",
            ),
            (say("nonsense"), ""),
            // Ready, without a word of greeting.
            (say(r"B\001\000"), "in step start"),
        ];
        assert_all_fail(life, &programs);
    }
}

#[test]
fn a_configuration_that_does_not_check() {
    for life in LIVES {
        let mut server = Server::start_living(life, "workers = 2\n", &[]);
        let mut client = server.open("/echo");
        for (config, reason) in [
            ("workers = 'many'\n", "workers"),
            ("[[routes]]\npath = '/echo'\napp = 'none'\n", "none"),
            ("connections_max = 1000000000\n", "raise it (ulimit -n"),
        ] {
            server.configure(config);
            let (upgraded, said) = server.upgrade_by_verb(&[]);
            assert!(!upgraded && said.contains(reason), "{config}: {said}");
            client.assert_echo(config);
            server.wait_for_processes(&expected(&server));
        }
        fs::remove_file(server.config()).expect("a file of ours");
        let (upgraded, said) = server.upgrade_by_verb(&[]);
        assert!(!upgraded && said.contains("cannot be read"), "{said}");
        server.configure("workers = 1\n");
        server.upgrade();
        client.assert_echo("after all");
    }
}

#[test]
fn a_successor_that_does_not_end_is_killed_with_what_it_has_started() {
    // Both sleeps hold the channel, as whatever a program starts may.
    let stubborn = script("trap '' TERM\nsleep 1000 &\nsleep 1000");
    let server = Server::start_living(Life::SUPERVISED, "workers = 2\n", &[]);
    let mut client = server.open("/echo");
    let mut verb = server.verb("upgrade");
    let verb = verb.arg("--binary").arg(&stubborn).spawn().expect("the binary starts");
    wait_until("it is under way", || server.house().processes().len() >= 6);
    kill(verb.id(), "INT");
    let output = verb.wait_with_output().expect("a child's end");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    server.wait_for_processes(&expected(&server));
    client.assert_echo("as before");
    server.expect_log("(it was killed)");
}

#[test]
fn ctrl_c_takes_an_upgrade_back() {
    let mute = script("exec sleep 1000");
    for life in LIVES {
        let mut server = Server::start_living(life, "workers = 2\n", &[]);
        let mut client = server.open("/echo");
        let mut verb = server.verb("upgrade");
        let verb = verb.arg("--binary").arg(&mute).spawn().expect("the binary starts");
        wait_until("it is under way", || server.status().contains("\"activity\":\"upgrading\""));
        kill(verb.id(), "INT");
        let output = verb.wait_with_output().expect("a child's end");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(said.contains("interrupted; the server goes on as before (nobody waits"), "{said}");
        server.expect_log("not upgraded");
        client.assert_echo("as before");
        server.wait_for_processes(&expected(&server));
        server.upgrade();
        client.assert_echo("after all");
    }
}

#[test]
fn a_second_ctrl_c_waits_for_nobody() {
    let server = Server::start_living(Life::SUPERVISED, "workers = 2\n", &[]);
    // It answers nothing.
    kill(server.pid(), "STOP");
    let mut verb = server.verb("upgrade").spawn().expect("the binary starts");
    wait_until("it has taken the signals over", || {
        let status = fs::read_to_string(format!("/proc/{}/status", verb.id())).unwrap_or_default();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let blocked = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        // SIGINT is number 2.
        blocked.unwrap_or_default() & 0b10 != 0
    });
    let mut status = None;
    wait_until("its end", || {
        kill(verb.id(), "INT");
        status = verb.try_wait().expect("a child's status");
        status.is_some()
    });
    assert_eq!(status.expect("found above").code(), Some(130));
    kill(server.pid(), "CONT");
    server.assert_healthy();
}

#[test]
fn a_log_that_nobody_takes_is_no_harm() {
    for life in LIVES {
        let server = Server::start_by(life, "workers = 2\n", |_, command| {
            // What there is to say of a wrong configuration is said on stderr, too.
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec \"$@\" 2>/dev/full", "sh"]);
            shell.arg(command.get_program()).args(command.get_args());
            with_environment_of(shell, &command)
        });
        let mut client = server.open("/echo");
        for generation in 2..4 {
            server.configure("workers = 'many'\n");
            let (upgraded, said) = server.upgrade_by_verb(&[]);
            assert!(!upgraded && said.contains("workers"), "{said}");
            server.configure("workers = 2\n");
            let (upgraded, said) = server.upgrade_by_verb(&[]);
            assert!(upgraded, "{said}");
            client.assert_echo("after all");
            assert_eq!(number_in(&server.status(), "generation"), Some(generation));
        }
    }
}

/// In the environment of this test's program as it is started again, where mounts are its own.
const WITHIN: &str = "PROCESS_TEST_WITHIN";

#[test]
fn a_full_disk_is_no_harm() {
    if env::var_os(WITHIN).is_some() {
        return fill_the_disk();
    }
    let own_users = ["--user", "--map-root-user"];
    let options: Vec<_> =
        own_users.into_iter().filter(|_| !is_root()).chain(["--mount", "--"]).collect();
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(&options);
        command
    };
    let mount = "mount -t tmpfs -o size=64k tmpfs /mnt";
    let tried = unshare().args(["sh", "-c", mount]).output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        return say_untested(&format!("a full disk, as mounts are not permitted: {tried:?}"));
    }
    let program = env::current_exe().expect("a running program has a path");
    let mut test = unshare();
    test.arg(program).args([
        "--exact",
        "process::failures::a_full_disk_is_no_harm",
        "--test-threads=1",
    ]);
    let output = test.env(WITHIN, "1").output().expect("unshare runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Upgrades with the folder of control socket and locks on a disk that is full.
fn fill_the_disk() {
    for life in LIVES {
        let mut server = Server::start_by(life, "workers = 2\n", |house, command| {
            let folder = house.folder().join("steadfast");
            fs::create_dir(&folder).expect("a folder");
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", "size=64k,nr_inodes=16,mode=700", "tmpfs"]);
            assert!(mount.arg(folder).status().expect("mount runs").success());
            command
        });
        let folder = server.house().folder().join("steadfast");
        let mut client = server.open("/echo");
        fill(&folder);
        for round in 0..3 {
            let (upgraded, said) = server.upgrade_by_verb(&[]);
            assert!(upgraded, "{said}");
            client.assert_echo(&format!("round {round}"));
        }
        server.follow_status();
        assert!(folder.join(format!("{}.sock", server.address.port())).exists());
        // One more address needs one more lock, for which there is no room; the port itself is
        // looked at, too.
        let more = free_address();
        server.configure(&format!("workers = 2\nlisten = ['{}', '{more}']\n", server.address));
        let (upgraded, said) = server.upgrade_by_verb(&[]);
        assert!(upgraded, "{said}");
        client.assert_echo("and with what cannot be locked");
    }
}

/// Until neither a byte nor a file has room.
fn fill(folder: &Path) {
    let bytes = vec![0; 1024];
    let mut number = 0;
    while fs::write(folder.join(format!("filler-{number}")), &bytes).is_ok() {
        number += 1;
        assert!(number < 1000, "it never gets full");
    }
    while fs::write(folder.join(format!("filler-{number}")), "").is_ok() {
        number += 1;
        assert!(number < 1000, "it never gets full");
    }
}
