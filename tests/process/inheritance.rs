//! What a process has from the one before it, and what a program that it starts would have.

use std::collections::BTreeMap;
use std::fs;

use crate::support::*;

/// What has been started for us says so here; it changes from one process to the next.
const ROLE: &str = "_STEADFAST_ROLE";

/// The open descriptors of a process but the standard streams: number, what it is, and whether a
/// program that the process starts has it, too. Those that this test has from whoever has started
/// it are not counted: the first process has them from us.
fn open_files(pid: u32) -> Vec<(u32, String, bool)> {
    let ours = if pid == std::process::id() { vec![] } else { open_files(std::process::id()) };
    let numbers = fs::read_dir(format!("/proc/{pid}/fd")).expect("a running process").flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let files = numbers.filter(|number| *number > 2).filter_map(|number| {
        // Some may have been closed since.
        let target = fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
        let flags = u32::from_str_radix(flags.trim(), 8).expect("an octal number");
        let target = target.to_str().expect("UTF-8").to_owned();
        // O_CLOEXEC.
        Some((number, target, flags & 0o2_000_000 == 0))
    });
    files.filter(|file| !file.2 || !ours.contains(file)).collect()
}

/// What a process has open, by what it is.
fn descriptors(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for (_, target, _) in open_files(pid) {
        // `socket:[4711]`, and files by their path.
        let kind = target.split(":[").next().unwrap_or_default().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

fn has_thread(pid: u32, name: &str) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process").flatten();
    let mut names = threads.map(|thread| fs::read_to_string(thread.path().join("comm")));
    names.any(|found| found.is_ok_and(|found| found.trim() == name))
}

fn environment(pid: u32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).expect("a running process");
    let text = String::from_utf8(bytes).expect("UTF-8");
    let entries = text.split_terminator('\0').map(|entry| entry.split_once('=').expect("a value"));
    entries.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn generations_have_the_same_descriptors_and_the_same_environment() {
    for life in [Life::SUPERVISED, Life::ALONE] {
        let mut server = Server::start_living(life, "workers = 2\n", &[]);
        let supervisor = life.supervised.then(|| server.first_pid());
        let looks = |server: &Server| {
            let processes = [Some(server.pid()), supervisor].into_iter().flatten();
            processes.map(descriptors).collect::<Vec<_>>()
        };
        let mut client = server.open("/echo");
        client.assert_echo("before");
        // Who has asked for its status is served by a thread with a socket.
        wait_until("operators have gone", || !has_thread(server.pid(), "control-client"));
        let (before, environment_before) = (looks(&server), environment(server.pid()));
        for round in 0..3 {
            server.upgrade();
            client.assert_echo(&format!("round {round}"));
        }
        // The last threads and channels of the upgrade may be about to end.
        wait_until("the same descriptors", || looks(&server) == before);
        let mut environment_after = environment(server.pid());
        let mut expected = environment_before;
        match life.supervised {
            true => {
                let role = |part: &str| format!("1 {part} {}", server.first_pid());
                assert_eq!(
                    expected.insert(ROLE.to_owned(), role("successor")),
                    Some(role("server"))
                );
            }
            false => {
                let number = environment_after.remove("STEADFAST_HANDOVER_FD");
                assert_eq!(number.as_deref(), Some("3"));
                // How the service was started, for those who come later.
                for name in ["_STEADFAST_PROGRAM", "_STEADFAST_DIRECTORY"] {
                    assert!(environment_after.remove(name).is_some(), "{name}");
                }
            }
        }
        assert_eq!(environment_after, expected);
        for pid in [Some(server.pid()), supervisor].into_iter().flatten() {
            let passed_on = open_files(pid).into_iter().filter(|file| file.2);
            assert_eq!(passed_on.collect::<Vec<_>>(), [], "of {pid}");
        }
    }
}
