//! Descriptors or threads run out at a step of an upgrade: it succeeds, or everything goes on as
//! before. Nothing of what is left to do once the connections are the successor's can fail.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Command};

use socket2::{Domain, Socket, Type};

use super::scene::*;
use crate::support::*;

/// Raises the soft limits of all of a server's processes to what they may have.
fn relieve(life: Life, server: &Server) {
    for pid in server.house().processes() {
        let Ok(limits) = fs::read_to_string(format!("/proc/{pid}/limits")) else { continue };
        for (name, flag) in [("Max open files", "nofile"), ("Max processes", "nproc")] {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            let hard = line.split_whitespace().nth(1).expect("a hard limit");
            // Another process may have ended meanwhile.
            let _ = limited(life, pid, &format!("--{flag}={hard}:"));
        }
    }
}

/// Sets a limit of a process that runs, as its own user may; whether it could be done.
fn limited(life: Life, pid: u32, limit: &str) -> bool {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string(), limit]);
    if let Some(uid) = life.user.filter(|_| is_root()) {
        command.uid(uid).gid(uid).current_dir("/");
    }
    command.status().expect("prlimit runs").success()
}

/// Whatever is short from `point` on, nobody loses anything, whether or not there is an upgrade.
#[track_caller]
fn a_shortage(lives: &[Life], point: &str, of: &str, succeeds: bool) {
    in_each_life(lives, |life| {
        let mut scene = Scene::new(life);
        scene.die_at(point, of);
        let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
        assert_eq!(upgraded, succeeds, "{point}, {of}: {said}");
        scene.live();
        relieve(life, &scene.server);
        scene.server.follow_status();
        scene.assert_unharmed();
        scene.server.upgrade();
        talk(&mut scene.members, "with the next successor");
        leave(scene);
    });
}

const LIVES: [Life; 3] = [Life::ALONE, Life::SUPERVISED, Life::LOWLY];

#[test]
fn a_successor_without_descriptors_refuses_before_anything_has_moved() {
    for point in ["begun", "successor-hello", "successor-prepared"] {
        a_shortage(&LIVES, point, "emfile", false);
    }
}

#[test]
fn a_successor_that_has_adopted_needs_no_more_descriptors() {
    for point in ["successor-loaded", "successor-adopted", "successor-taken"] {
        a_shortage(&LIVES, point, "emfile", true);
    }
}

#[test]
fn a_predecessor_without_descriptors_goes_on() {
    for point in ["predecessor-ready", "predecessor-frozen"] {
        a_shortage(&LIVES, point, "emfile", false);
    }
}

#[test]
fn a_predecessor_that_has_sent_everything_needs_no_more_descriptors() {
    for point in ["predecessor-adopted", "predecessor-offered"] {
        a_shortage(&LIVES, point, "emfile", true);
    }
}

/// The limit of threads does not hold for root.
#[test]
fn a_successor_has_all_its_threads_before_it_is_ready() {
    for (point, succeeds) in
        [("successor-hello", false), ("successor-prepared", true), ("successor-taken", true)]
    {
        a_shortage(&[Life::LOWLY], point, "nothreads", succeeds);
    }
}

#[test]
fn a_predecessor_needs_no_thread_for_an_upgrade() {
    for point in ["predecessor-ready", "predecessor-frozen", "predecessor-offered"] {
        a_shortage(&[Life::LOWLY], point, "nothreads", true);
    }
}

/// Threads that an upgrade may have more than are there: each number up to the first that suffices.
#[track_caller]
fn a_few_threads_more(scene: &mut Scene, allow: impl Fn(&Server, Option<usize>)) {
    for more in 0.. {
        allow(&scene.server, Some(more));
        let (upgraded, said) = scene.server.upgrade_by_verb(&[]);
        allow(&scene.server, None);
        talk(&mut scene.members, &format!("with {more} more"));
        if upgraded {
            assert!(more > 1, "there was no shortage");
            break;
        }
        assert!(more < 30, "they are never enough: {said}");
    }
    scene.server.follow_status();
    scene.assert_unharmed();
}

/// The processes and threads of a user.
fn threads_of(uid: u32) -> usize {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let ours = processes.filter(|entry| entry.metadata().is_ok_and(|it| it.uid() == uid));
    let threads =
        ours.filter_map(|entry| Some(fs::read_dir(entry.path().join("task")).ok()?.count()));
    threads.sum()
}

#[test]
fn under_a_limit_of_processes_an_upgrade_succeeds_or_nothing_happens() {
    // All processes of a user count.
    let life = match is_root() {
        true => Life { user: Some(64_004), ..Life::LOWLY },
        false => Life::LOWLY,
    };
    let mut scene = Scene::new(life);
    let pid = scene.server.pid();
    let uid = fs::metadata(format!("/proc/{pid}")).expect("it runs").uid();
    a_few_threads_more(&mut scene, |server, more| match more {
        // The supervisor's children inherit it.
        Some(more) => {
            let soft = format!("--nproc={}:", threads_of(uid) + more);
            assert!(limited(life, server.first_pid(), &soft));
        }
        None => relieve(life, server),
    });
    leave(scene);
}

/// A control group with a limit of processes and threads.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Self> {
        let name = format!("steadfast-{}", process::id());
        let folders =
            ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(|root| PathBuf::from(root).join(&name));
        folders.into_iter().find_map(|folder| {
            let made = fs::create_dir(&folder).is_ok().then_some(Self(folder));
            made.filter(|group| fs::write(group.0.join("pids.max"), "max").is_ok())
        })
    }

    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("a process is moved");
    }

    fn allow(&self, more: Option<usize>) {
        let read = || fs::read_to_string(self.0.join("pids.current")).expect("a figure");
        let max = match more {
            Some(more) => (read().trim().parse::<usize>().expect("a number") + more).to_string(),
            None => "max".to_owned(),
        };
        fs::write(self.0.join("pids.max"), max).expect("a limit is set");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn in_a_group_with_few_processes_an_upgrade_succeeds_or_nothing_happens() {
    let Some(group) = Group::new() else {
        return say_untested("a control group that limits processes, which cannot be made here");
    };
    let mut scene = Scene::new(Life::SUPERVISED);
    let (supervisor, pid) = (scene.server.first_pid(), scene.server.pid());
    group.take(supervisor);
    group.take(pid);
    a_few_threads_more(&mut scene, |_, more| group.allow(more));
    leave(scene);
}

/// An address that is new with an upgrade is bound before anything moves and listens afterwards: in
/// between another program may take it. That costs the address alone.
#[test]
fn an_address_that_somebody_else_takes_in_between_costs_itself_alone() {
    in_each_life(&LIVES, |life| {
        let listen = |addresses: &[SocketAddr]| {
            let quoted: Vec<String> = addresses.iter().map(|one| format!("'{one}'")).collect();
            format!("workers = 1\ndrain_duration = '100ms'\nlisten = [{}]\n", quoted.join(", "))
        };
        let mut server = Server::start_by(life, "", |house, command| {
            let args: Vec<_> = command.get_args().map(|arg| arg.to_str().expect("UTF-8")).collect();
            let at = args.iter().position(|arg| *arg == "--listen").expect("it has an address");
            let config = listen(&[args[at + 1].parse().expect("an address")]);
            fs::write(house.folder().join("config.toml"), config).expect("a written file");
            let mut without = Command::new(command.get_program());
            without.args(&args[..at]).args(&args[at + 2..]);
            mortal(life, house, with_environment_of(without, &command))
        });
        let mut members: Vec<Client> = (0..5).map(|_| server.open("/rooms/a?self=1")).collect();
        let added = free_address();
        server.configure(&listen(&[server.address, added]));
        die_at(&server, "successor-loaded", "hold");
        let mut verb = server.verb("upgrade").spawn().expect("the binary starts");
        wait_held(&server, "successor-loaded");

        let thief = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        thief.set_reuse_address(true).expect("an option");
        thief.bind(&added.into()).expect("nobody listens there");
        thief.listen(1).expect("nobody listens there");
        live(&server);
        assert!(verb.wait().expect("a child's end").success());
        server.follow_status();
        server.expect_log("one socket fewer listens");
        talk(&mut members, "after");
        server.assert_healthy();

        // And the next one does without it, or has it if it is free again.
        drop(thief);
        server.upgrade();
        talk(&mut members, "with the next successor");
        TcpStream::connect(added).expect("somebody listens");
        drop(members);
        leave_server(server);
    });
}
