//! Where the program and its configuration are: found out once, and followed through links.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;

const LIVES: [Life; 2] = [Life::ALONE, Life::SUPERVISED];

/// A copy of the program.
fn copy_to(path: &Path) {
    // In one step, as the file may be running.
    let next = path.with_extension("next");
    copy_program(Path::new(steadfast().get_program()), &next);
    fs::rename(&next, path).expect("a file of ours");
}

fn program_of(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).expect("a running process")
}

#[track_caller]
fn upgrade(server: &mut Server) {
    let before = server.pid();
    let (upgraded, said) = server.upgrade_by_verb(&[]);
    assert!(upgraded, "{said}");
    server.follow_status();
    assert_ne!(server.pid(), before);
}

#[test]
fn whatever_it_is_called_it_upgrades_and_comes_back() {
    for (life, name) in
        LIVES.into_iter().flat_map(|life| [(life, "ws"), (life, "no/such/file"), (life, "sh")])
    {
        let mut server = Server::start_by(life, "workers = 2\n", |house, command| {
            let program = house.folder().join("program");
            copy_to(&program);
            let mut named = Command::new(&program);
            named.arg0(name).args(command.get_args());
            with_environment_of(named, &command)
        });
        let program = server.house().folder().join("program");
        let mut client = server.open("/echo");
        for _ in 0..2 {
            copy_to(&program);
            upgrade(&mut server);
            client.assert_echo("moved");
            assert_eq!(program_of(server.pid()), program, "{name}");
        }
        if life.supervised {
            copy_to(&program);
            kill(server.pid(), "KILL");
            server.follow_the_dead();
            server.assert_healthy();
            assert_eq!(program_of(server.pid()), program, "{name}");
        }
    }
}

#[test]
fn a_link_that_is_flipped_is_followed() {
    for life in LIVES {
        let mut server = Server::start_by(life, "", |house, command| {
            for release in ["1", "2", "3"] {
                let folder = house.folder().join(release);
                fs::create_dir_all(&folder).expect("a folder");
                copy_to(&folder.join("steadfast"));
                fs::write(folder.join("own.toml"), format!("workers = {release}\n"))
                    .expect("a file");
            }
            symlink("1", house.folder().join("current")).expect("a link");
            let mut arguments: Vec<_> = command.get_args().map(|word| word.to_owned()).collect();
            let config = arguments.iter_mut().skip_while(|word| *word != "--config").nth(1);
            *config.expect("a configuration") = "own.toml".into();
            let mut shell = Command::new("sh");
            shell.args(["-c", "cd current && exec ./steadfast \"$@\"", "sh"]).args(arguments);
            shell.current_dir(house.folder());
            with_environment_of(shell, &command)
        });
        let mut client = server.open("/echo");
        for release in [2, 3] {
            let house = server.house().folder().to_owned();
            let next = house.join("next");
            symlink(release.to_string(), &next).expect("a link");
            fs::rename(next, house.join("current")).expect("a link of ours");
            upgrade(&mut server);
            client.assert_echo("moved");
            let expected = house.join(release.to_string()).join("steadfast");
            assert_eq!(program_of(server.pid()), expected);
            assert_eq!(server.by_worker().len(), release, "the configuration is that one's, too");
        }
    }
}
