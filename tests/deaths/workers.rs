//! A worker that panics, by a fault of the server's own: its connections end, and no others.

use super::scene::*;
use crate::support::*;

const LIVES: [Life; 2] = [Life::ALONE, Life::LOWLY];

/// Enough that each worker is the home of some.
const ROOMS: usize = 8;

/// As many as an address may have.
const MEMBERS: usize = 6 * ROOMS;

/// A member and its room.
struct Member {
    room: usize,
    client: Client,
}

fn join(server: &Server, room: usize) -> Member {
    Member { room, client: server.open(&format!("/rooms/{room}?self=1")) }
}

/// Asserts that what a member says reaches all members of its room, for each room.
#[track_caller]
fn talk_in_each_room(members: &mut [Member], text: &str) {
    members.sort_by_key(|member| member.room);
    for room in members.chunk_by_mut(|one, other| one.room == other.room) {
        for speaker in [0, room.len() - 1] {
            let text = format!("{text} {speaker}");
            room[speaker].client.send_text(&text);
            room.iter_mut().for_each(|member| member.client.expect_text(&text));
        }
    }
}

/// Two workers, the members of rooms, and a worker that panics where it is told to.
struct Rooms {
    server: Server,
    members: Vec<Member>,
    /// Connections of each worker.
    by_worker: Vec<usize>,
}

impl Rooms {
    fn new(life: Life) -> Self {
        let config = format!(
            "workers = 2\ndrain_duration = '100ms'\npause_max = '2m'\n[[routes]]\npath = '/rooms/{{name}}'\n\
             app = 'rooms'\nconnections_per_ip_max = {MEMBERS}\n"
        );
        let server = start_mortal(life, &config);
        let mut members: Vec<Member> =
            (0..MEMBERS).map(|number| join(&server, number % ROOMS)).collect();
        talk_in_each_room(&mut members, "before");
        let by_worker = server.by_worker();
        assert!(by_worker.iter().all(|count| *count > 0), "{by_worker:?}");
        Self { server, members, by_worker }
    }

    /// Waits until the worker that has panicked serves again.
    fn wait_renewed(&self) {
        wait_until("a worker that serves again", || {
            // It has its turn when it accepts one of these.
            drop(self.server.connect());
            self.server.log().contains("the worker serves again")
        });
        // For whoever asks by `--nocapture`: a busy machine may take its time.
        let log = self.server.log();
        let line = log.lines().find(|line| line.contains("the worker serves again"));
        let after_ms = line.and_then(|line| number_in(line, "after_ms")).expect("how long it took");
        println!("served again after {after_ms} ms");
    }

    /// Lets go of the members who have lost their connections, and asserts that the others go on.
    /// Returns how many are left.
    #[track_caller]
    fn part(&mut self) -> usize {
        let mut left: Vec<Member> = Vec::new();
        for mut member in std::mem::take(&mut self.members) {
            match member.client.is_silent_so_far() {
                true => left.push(member),
                false => member.client.expect_lost(),
            }
        }
        self.members = left;
        talk_in_each_room(&mut self.members, "after");
        self.members.len()
    }

    /// Has those who have gone come again, which nobody beyond may, and asserts that both workers
    /// serve.
    #[track_caller]
    fn fill(&mut self) {
        for number in self.members.len()..MEMBERS {
            self.members.push(join(&self.server, number % ROOMS));
        }
        let mut beyond = self.server.connect();
        beyond.send_bytes(request("/rooms/0", "").as_bytes());
        assert_eq!(beyond.response().status, 429);
        talk_in_each_room(&mut self.members, "with those who came back");
        let mut counts = Vec::new();
        wait_until("an end of the one beyond", || {
            counts = self.server.by_worker();
            counts.iter().sum::<usize>() == MEMBERS
        });
        assert!(counts.iter().all(|count| *count > 0), "a worker serves nobody: {counts:?}");
    }

    /// Asserts that the next upgrade loses nobody, and that nothing has panicked but what was told to.
    #[track_caller]
    fn upgrade(mut self) {
        self.server.upgrade();
        talk_in_each_room(&mut self.members, "after an upgrade");
        assert_eq!(self.server.log().matches("the worker serves again").count(), 1);
        drop(self.members);
        leave_server(self.server);
    }
}

#[test]
fn a_worker_that_panics_costs_its_connections_alone() {
    in_each_life(&LIVES, |life| {
        let mut rooms = Rooms::new(life);
        die_at(&rooms.server, "worker-0", "panic");
        rooms.wait_renewed();
        assert_eq!(rooms.part(), rooms.by_worker[1], "of {:?}", rooms.by_worker);
        rooms.fill();
        rooms.upgrade();
    });
}

/// One of the predecessor's workers panics before the point of decision: the upgrade fails.
#[track_caller]
fn a_predecessors_worker_panics(point: &str) {
    in_each_life(&LIVES, |life| {
        let mut rooms = Rooms::new(life);
        die_at(&rooms.server, point, "panic");
        let (upgraded, said) = rooms.server.upgrade_by_verb(&[]);
        assert!(!upgraded && said.contains("a worker panicked"), "{said}");
        rooms.wait_renewed();
        let left = rooms.part();
        assert!(rooms.by_worker.contains(&left), "{left} of {:?}", rooms.by_worker);
        rooms.fill();
        rooms.upgrade();
    });
}

#[test]
fn a_predecessors_worker_panics_among_descriptors() {
    a_predecessors_worker_panics("predecessor-copying");
}

#[test]
fn a_predecessors_worker_panics_in_the_pause() {
    a_predecessors_worker_panics("predecessor-saving");
}

/// The connections are the successor's: nobody notices.
#[test]
fn a_predecessors_worker_panics_when_all_is_taken() {
    in_each_life(&LIVES, |life| {
        let mut rooms = Rooms::new(life);
        die_at(&rooms.server, "predecessor-releasing-0", "panic");
        rooms.server.upgrade();
        assert_eq!(rooms.part(), MEMBERS);
        rooms.fill();
        rooms.upgrade();
    });
}

/// The connections are its own since a moment: those of the other worker do not notice.
#[test]
fn a_successors_worker_panics_when_it_begins() {
    in_each_life(&LIVES, |life| {
        let mut rooms = Rooms::new(life);
        die_at(&rooms.server, "successor-beginning-0", "panic");
        rooms.server.upgrade();
        rooms.wait_renewed();
        let left = rooms.part();
        assert!((1..MEMBERS).contains(&left), "{left} of {MEMBERS} are left");
        rooms.fill();
        rooms.upgrade();
    });
}
