//! One signal is one wish, however it arrives: at the supervisor, at the server, or at every process
//! of the service at once, in the middle of an upgrade, too.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::*;

const FREE: Life = Life { files: None, ..Life::LOWLY };
const LIVES: [Life; 2] = [Life::SUPERVISED, FREE];

/// A drain long enough for a wrong second one to be seen, and short enough to wait for.
const CONFIG: &str = "workers = 2\ndrain_duration = '600ms'\n";

/// A drain that does not come to its end in a test.
const LONG: &str = "workers = 2\ndrain_duration = '1h'\n";

const CLIENTS: usize = 8;

/// Reads each client's Close and answers it; the codes there were.
fn codes(clients: Vec<Client>) -> Vec<Option<u16>> {
    let close = |mut client: Client| loop {
        match client.try_frame() {
            Ok(Some(frame)) if frame.opcode == CLOSE => {
                let code = frame.close_code();
                client.send(FIN | CLOSE, &code.unwrap_or(1000).to_be_bytes());
                client.expect_end();
                return code;
            }
            Ok(Some(_)) => {}
            _ => return None,
        }
    };
    let threads: Vec<_> =
        clients.into_iter().map(|client| thread::spawn(move || close(client))).collect();
    threads.into_iter().map(|thread| thread.join().expect("a client")).collect()
}

fn clients(server: &Server) -> Vec<Client> {
    (0..CLIENTS).map(|_| server.open("/echo")).collect()
}

/// Every client is told to come back, and the service ends as it was told.
#[track_caller]
fn assert_drains(mut server: Server, clients: Vec<Client>, what: &str) {
    let count = clients.len();
    assert_eq!(codes(clients), vec![Some(1012); count], "{what}:\n{}", server.log());
    assert_eq!(server.exit_status(), Some(0), "{what}");
    server.wait_for_processes(&[]);
}

/// Sends a signal to every process of the service in one go, as killall does.
fn kill_all(server: &Server, signal: &str) {
    let pids: Vec<String> = server.house().processes().iter().map(u32::to_string).collect();
    let mut kill = Command::new("kill");
    kill.args(["-s", signal, "--"]).args(pids).stderr(Stdio::null());
    kill.status().expect("kill runs");
}

/// Different delays in each run, all of them short.
fn delay(round: u32, max_ms: u32) -> Duration {
    let moment = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let random = moment.map_or(0, |moment| moment.subsec_micros());
    Duration::from_micros(u64::from(
        random.wrapping_mul(2_654_435_761).wrapping_add(round) % (max_ms * 1_000),
    ))
}

/// A server that refuses to hand some of its connections over, so that the predecessor is there for
/// as long as its drain takes.
fn with_stragglers(life: Life) -> (Server, Vec<Client>) {
    let kept = "[[routes]]\npath = '/echo'\napp = 'echo'\n";
    let gone = "[[routes]]\npath = '/gone'\napp = 'echo'\n";
    let server = Server::start_living(life, &format!("{CONFIG}{kept}{gone}"), &[]);
    let mut all = clients(&server);
    all.extend((0..CLIENTS).map(|_| server.open("/gone")));
    server.configure(&format!("{CONFIG}{kept}"));
    (server, all)
}

#[test]
fn a_term_just_after_an_upgrade_is_one_drain() {
    for life in LIVES {
        for round in 0..10 {
            let (server, clients) = if round % 2 == 0 {
                let server = Server::start_living(life, CONFIG, &[]);
                let clients = clients(&server);
                (server, clients)
            } else {
                with_stragglers(life)
            };
            let (upgraded, said) = server.upgrade_by_verb(&[]);
            assert!(upgraded, "{said}");
            let delay = delay(round, 60);
            thread::sleep(delay);
            kill(server.first_pid(), "TERM");
            assert_drains(server, clients, &format!("{life:?}, after {delay:?}"));
        }
    }
}

#[test]
fn a_term_in_the_middle_of_an_upgrade_is_one_drain() {
    for life in LIVES {
        for round in 0..12 {
            let (server, clients) = with_stragglers(life);
            let mut verb = server.verb("upgrade").spawn().expect("the binary starts");
            let delay = delay(round, 30);
            thread::sleep(delay);
            match round % 3 {
                0 => kill(server.first_pid(), "TERM"),
                1 => {
                    // It may not be the server any more.
                    kill(server.pid(), "TERM");
                    kill(server.first_pid(), "TERM");
                }
                _ => {
                    // Not the operator's own process.
                    let verb = verb.id();
                    let mut pids = server.house().processes();
                    pids.retain(|pid| *pid != verb);
                    let mut kill = Command::new("kill");
                    kill.args(["-s", "TERM", "--"]).args(pids.iter().map(u32::to_string));
                    kill.stderr(Stdio::null()).status().expect("kill runs");
                }
            }
            assert_drains(server, clients, &format!("{life:?}, {}, after {delay:?}", round % 3));
            let _ = verb.wait();
        }
    }
}

#[test]
fn a_term_to_all_processes_is_one_drain() {
    for life in [Life::SUPERVISED, FREE, Life::ALONE] {
        for upgrades in 0..3 {
            let server = Server::start_living(life, CONFIG, &[]);
            let clients = clients(&server);
            for _ in 0..upgrades {
                let (upgraded, said) = server.upgrade_by_verb(&[]);
                assert!(upgraded, "{said}");
            }
            kill_all(&server, "TERM");
            let codes = codes(clients);
            assert_eq!(codes, [Some(1012); CLIENTS], "{life:?}:\n{}", server.log());
            server.wait_for_processes(&[]);
        }
        // A predecessor without a supervisor passes it on to a successor that has been sent it, too.
        let (server, clients) = with_stragglers(life);
        let (upgraded, said) = server.upgrade_by_verb(&[]);
        assert!(upgraded, "{said}");
        kill_all(&server, "TERM");
        let codes = codes(clients);
        assert_eq!(codes, [Some(1012); 2 * CLIENTS], "{life:?}:\n{}", server.log());
        server.wait_for_processes(&[]);
    }
}

#[test]
fn a_term_to_the_server_alone_is_a_drain_and_no_crash() {
    for life in LIVES {
        let server = Server::start_living(life, CONFIG, &[]);
        let clients = clients(&server);
        kill(server.pid(), "TERM");
        let log = server.log();
        assert_drains(server, clients, "the server alone");
        assert!(!log.contains("another one starts"), "{log}");
    }
}

#[test]
fn only_a_second_term_to_the_supervisor_hastens() {
    for life in LIVES {
        let mut server = Server::start_living(life, LONG, &[]);
        let mut client = server.open("/echo");
        for _ in 0..3 {
            kill(server.pid(), "TERM");
            wait_until("the drain", || server.log().contains("draining"));
            client.assert_echo("nobody hastens it");
        }
        kill(server.first_pid(), "TERM");
        wait_until("the order", || server.status().contains("\"activity\":\"draining\""));
        client.assert_echo("that was the first one");
        kill(server.first_pid(), "TERM");
        assert_eq!(codes(vec![client]), [Some(1001)]);
        assert_eq!(server.exit_status(), Some(0));
        server.wait_for_processes(&[]);
    }
}

#[test]
fn without_a_living_supervisor_a_second_term_to_the_server_hastens() {
    for life in LIVES {
        let server = Server::start_living(life, LONG, &[]);
        let mut client = server.open("/echo");
        kill(server.first_pid(), "KILL");
        wait_until("it knows", || server.log().contains("the supervisor is gone"));
        kill(server.pid(), "TERM");
        wait_until("the drain", || server.log().contains("draining"));
        client.assert_echo("that was the first one");
        kill(server.pid(), "TERM");
        assert_eq!(codes(vec![client]), [Some(1001)]);
        server.wait_for_processes(&[]);
    }
}

#[test]
fn int_to_all_processes_ends_them() {
    for life in LIVES {
        let mut server = Server::start_living(life, LONG, &[]);
        let clients = clients(&server);
        let (upgraded, said) = server.upgrade_by_verb(&[]);
        assert!(upgraded, "{said}");
        kill_all(&server, "INT");
        assert_eq!(codes(clients), [Some(1001); CLIENTS]);
        assert_eq!(server.exit_status(), Some(0));
        server.wait_for_processes(&[]);
    }
}

#[test]
fn a_hup_to_all_processes_is_one_upgrade() {
    for signal in ["HUP", "USR2"] {
        for life in LIVES {
            let mut server = Server::start_living(life, CONFIG, &[]);
            let mut client = server.open("/echo");
            for generation in 2..5 {
                let before = server.pid();
                kill_all(&server, signal);
                wait_until("a successor alone", || {
                    server.follow_status();
                    server.pid() != before && !is_alive(before)
                });
                client.assert_echo("moved");
                // What was on its way to another upgrade would be there by now, and on its way
                // ahead of this.
                let (upgraded, said) = server.upgrade_by_verb(&["--dry-run"]);
                assert!(upgraded, "{said}");
                assert_eq!(number_in(&server.status(), "generation"), Some(generation));
            }
        }
    }
}

#[test]
fn a_drain_is_hastened_by_one_that_is_to_be_at_once() {
    let mut server = Server::start_living(Life::SUPERVISED, LONG, &[]);
    let mut client = server.open("/echo");
    let mut first = server.verb("drain").spawn().expect("the binary starts");
    wait_until("the drain", || server.log().contains("draining"));
    // The first TERM: what it asks for has begun.
    kill(server.first_pid(), "TERM");
    let mut second = server.verb("drain").spawn().expect("the binary starts");
    client.assert_echo("nobody hastens it");
    let now = server.verb("drain").arg("--now").status().expect("the binary starts");
    assert_eq!(codes(vec![client]), [Some(1001)]);
    assert!(now.success());
    for verb in [&mut first, &mut second] {
        assert!(verb.wait().expect("a child's end").success());
    }
    assert_eq!(server.exit_status(), Some(0));
}

/// A server in a terminal of its own: below a shell, or in its place; and what holds the terminal.
fn in_a_terminal(shell: &str) -> Server {
    let config = "workers = 2\ndrain_duration = '300ms'\n[log]\nformat = 'json'\n";
    Server::start_by(Life::SUPERVISED, config, |house, command| {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let words: Vec<String> =
            words.map(|word| format!("'{}'", word.to_str().expect("UTF-8"))).collect();
        let log = house.folder().join("log");
        let line = shell
            .replace("SERVER", &format!("{} >/dev/null 2>>'{}'", words.join(" "), log.display()));
        // The tests themselves may be run by nohup(1).
        let mut script = Command::new("env");
        script.args(["--default-signal=HUP", "script", "--quiet", "--command", &line, "/dev/null"]);
        script.env("SHELL", "/bin/sh");
        with_environment_of(script, &command)
    })
}

fn supervisor_of(server: &Server) -> u32 {
    parent(server.pid()).expect("a supervisor")
}

#[test]
fn a_terminal_that_closes_ends_what_was_started_in_it() {
    for shell in ["exec SERVER", "SERVER; true"] {
        let mut server = in_a_terminal(shell);
        let clients = clients(&server);
        // Asked for, with the terminal there: an upgrade.
        let (before, supervisor) = (server.pid(), supervisor_of(&server));
        kill(supervisor, "HUP");
        wait_until("a successor", || {
            server.follow_status();
            server.pid() != before
        });
        // Its end of the terminal closes with it.
        kill(server.first_pid(), "KILL");
        assert_eq!(codes(clients), [Some(1012); CLIENTS], "{shell}: {}", server.log());
        server.wait_for_processes(&[]);
    }
}

#[test]
fn nohup_outlives_the_terminal() {
    let mut server = in_a_terminal("exec nohup SERVER");
    let mut client = server.open("/echo");
    let (before, supervisor) = (server.pid(), supervisor_of(&server));
    kill(server.first_pid(), "KILL");
    wait_until("the terminal is gone", || !is_alive(server.first_pid()));
    client.assert_echo("still here");
    kill(supervisor, "HUP");
    wait_until("a successor", || {
        server.follow_status();
        server.pid() != before
    });
    assert_eq!(number_in(&server.status(), "generation"), Some(2));
    client.assert_echo("moved");
    kill(supervisor, "TERM");
    assert_eq!(codes(vec![client]), [Some(1012)]);
    server.wait_for_processes(&[]);
}
