//! The stage on which processes die, and the fate of the connections there.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;
use std::thread;

use crate::support::*;

/// The file in a server's folder that says who is to die.
const FAULT: &str = "fault";

/// A server with connections in every sort of trouble, which dies where it is told to.
pub(crate) struct Scene {
    pub(crate) server: Server,
    /// In the middle of a frame.
    pub(crate) cut: Client,
    /// Has not read its answers.
    pub(crate) slow: Client,
    pub(crate) members: Vec<Client>,
}

impl Scene {
    pub(crate) fn new(life: Life) -> Self {
        // What is late in a pause is so on purpose, or because the machine is busy.
        let config = "workers = 2\ndrain_duration = '100ms'\npause_max = '5s'\n";
        let server = start_mortal(life, config);
        let slow = server.open_slow();
        let mut cut = server.open("/echo");
        cut.send_bytes(&in_two().0);
        let mut members: Vec<Client> = (0..20).map(|_| server.open("/rooms/a?self=1")).collect();
        talk(&mut members, "before");
        Self { server, cut, slow, members }
    }

    /// See [`die_at`].
    pub(crate) fn die_at(&self, point: &str, how: &str) {
        die_at(&self.server, point, how);
    }

    /// See [`live`].
    pub(crate) fn live(&self) {
        live(&self.server);
    }

    /// See [`wait_held`].
    #[track_caller]
    pub(crate) fn wait_held(&self, point: &str) {
        wait_held(&self.server, point);
    }

    /// Asserts that nobody has lost a byte.
    #[track_caller]
    pub(crate) fn assert_unharmed(&mut self) {
        self.cut.send_bytes(&in_two().1);
        self.cut.expect_text("in two parts");
        self.slow.expect_queued();
        talk(&mut self.members, "after");
        self.server.assert_healthy();
    }

    /// Asserts that all connections are at their end.
    #[track_caller]
    pub(crate) fn assert_lost(&mut self) {
        let others = [&mut self.cut, &mut self.slow];
        for client in others.into_iter().chain(&mut self.members) {
            client.expect_lost();
        }
    }

    /// Asserts that what serves now has no connection but new ones, and says why.
    #[track_caller]
    pub(crate) fn assert_served_anew(&mut self) {
        self.server.assert_healthy();
        let mut newcomers: Vec<Client> =
            (0..3).map(|_| self.server.open("/rooms/a?self=1")).collect();
        talk(&mut newcomers, "anew");
        let mut status = String::new();
        wait_until("three connections", || {
            status = self.server.status();
            status.contains("\"connections\":3,")
        });
        assert!(status.contains("the predecessor has died"), "{status}");
        assert!(!status.contains("pause_us"), "no such thing as an upgrade has been: {status}");
    }
}

/// A server whose processes die where they are told to.
pub(crate) fn start_mortal(life: Life, config: &str) -> Server {
    Server::start_by(life, config, |house, command| mortal(life, house, command))
}

/// The command of one, to live so.
pub(crate) fn mortal(life: Life, house: &House, mut command: Command) -> Command {
    command.env("STEADFAST_FAULT", house.folder().join(FAULT));
    as_user(life, command, house)
}

fn say_fault(server: &Server, fault: &str) {
    let path = server.house().folder().join(FAULT);
    fs::write(&path, fault).expect("a written file");
    // Whoever panics empties it.
    chown(&path, server.house().user(), None).expect("our own, or root's right");
}

/// From now on a process that comes to `point` meets its fate.
pub(crate) fn die_at(server: &Server, point: &str, how: &str) {
    say_fault(server, &format!("{point}:{how}"));
}

/// From now on nobody dies.
pub(crate) fn live(server: &Server) {
    say_fault(server, "");
}

/// Waits until a process is held at `point`, as it was told to be.
#[track_caller]
pub(crate) fn wait_held(server: &Server, point: &str) {
    let held = server.house().folder().join(FAULT).with_added_extension("held");
    wait_until(point, || fs::read_to_string(&held).is_ok_and(|held| held == point));
}

pub(crate) fn in_two() -> (Vec<u8>, Vec<u8>) {
    let mut first = frame(FIN | TEXT, b"in two parts");
    let second = first.split_off(9);
    (first, second)
}

/// Asserts that what a member says reaches every member once.
#[track_caller]
pub(crate) fn talk(members: &mut [Client], text: &str) {
    for speaker in [0, members.len() - 1] {
        let text = format!("{text} {speaker}");
        members[speaker].send_text(&text);
        for member in &mut *members {
            member.expect_text(&text);
        }
    }
}

/// Does the same in several lives at once: most of it is waiting.
#[track_caller]
pub(crate) fn in_each_life(lives: &[Life], act: impl Fn(Life) + Sync) {
    let failed: Vec<Life> = thread::scope(|scope| {
        let act = &act;
        let acts: Vec<_> =
            lives.iter().map(|life| (*life, scope.spawn(move || act(*life)))).collect();
        acts.into_iter().filter_map(|(life, act)| act.join().is_err().then_some(life)).collect()
    });
    assert!(failed.is_empty(), "it does not hold in these lives: {failed:?}");
}

/// Asserts that nobody is there but who should be, and that all of them end as they are told.
#[track_caller]
pub(crate) fn leave(scene: Scene) {
    // Without its connections, whose answers to a Close would be waited for.
    let Scene { server, cut, slow, members } = scene;
    drop((cut, slow, members));
    leave_server(server);
}

/// The same of a server that has no connections.
#[track_caller]
pub(crate) fn leave_server(server: Server) {
    let mut expected = vec![server.pid()];
    if server.house().supervised && is_alive(server.first_pid()) {
        // Without a supervisor the first process may be one that has handed over and is about to end.
        expected.insert(0, server.first_pid());
    }
    server.wait_for_processes(&expected);
    kill(expected[0], "TERM");
    server.wait_for_processes(&[]);
}
