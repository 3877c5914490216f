//! The stage on which processes die, and the fate of the connections there.

use std::fs;
use std::path::PathBuf;
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
        let server = Server::start_by(life, config, |house, mut command| {
            command.env("STEADFAST_FAULT", house.folder().join(FAULT));
            as_user(life, command, house)
        });
        let slow = server.open_slow();
        let mut cut = server.open("/echo");
        cut.send_bytes(&in_two().0);
        let mut members: Vec<Client> = (0..20).map(|_| server.open("/rooms/a?self=1")).collect();
        talk(&mut members, "before");
        Self { server, cut, slow, members }
    }

    fn fault(&self) -> PathBuf {
        self.server.house().folder().join(FAULT)
    }

    /// From now on a process that comes to `point` meets its fate.
    pub(crate) fn die_at(&self, point: &str, how: &str) {
        fs::write(self.fault(), format!("{point}:{how}")).expect("a written file");
    }

    /// From now on nobody dies.
    pub(crate) fn live(&self) {
        fs::write(self.fault(), "").expect("a written file");
    }

    /// Waits until a process is held at `point`, as it was told to be.
    #[track_caller]
    pub(crate) fn wait_held(&self, point: &str) {
        let held = self.server.house().folder().join("fault.held");
        wait_until(point, || fs::read_to_string(&held).is_ok_and(|held| held == point));
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
