//! A worker that panics, by a fault of the server's own: its connections end, and no others.

use std::fs;

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

#[test]
fn a_worker_that_panics_costs_its_connections_alone() {
    in_each_life(&LIVES, |life| {
        let config = format!(
            "workers = 2\n[[routes]]\npath = '/rooms/{{name}}'\napp = 'rooms'\n\
             connections_per_ip_max = {MEMBERS}\n"
        );
        let mut server = Server::start_by(life, &config, |house, mut command| {
            command.env("STEADFAST_FAULT", house.folder().join("fault"));
            as_user(life, command, house)
        });
        let mut members: Vec<Member> =
            (0..MEMBERS).map(|number| join(&server, number % ROOMS)).collect();
        talk_in_each_room(&mut members, "before");
        let before = server.by_worker();
        assert!(before.iter().all(|count| *count > 0), "{before:?}");

        let fault = server.house().folder().join("fault");
        fs::write(&fault, "worker-0:panic").expect("a written file");
        if life.user.is_some() && is_root() {
            std::os::unix::fs::chown(&fault, life.user, None).expect("root's right");
        }
        wait_until("a worker that serves again", || {
            // It has its turn when it accepts one of these.
            drop(server.connect());
            server.log().contains("the worker serves again")
        });
        let mut left: Vec<Member> = Vec::new();
        for mut member in members {
            match member.client.is_silent_so_far() {
                true => left.push(member),
                false => member.client.expect_lost(),
            }
        }
        assert_eq!(left.len(), before[1], "of {before:?}");
        talk_in_each_room(&mut left, "after");

        // All who have gone may come again, and none beyond.
        for number in 0..before[0] {
            left.push(join(&server, number % ROOMS));
        }
        let mut beyond = server.connect();
        beyond.send_bytes(request("/rooms/0", "").as_bytes());
        assert_eq!(beyond.response().status, 429);
        talk_in_each_room(&mut left, "with those who came back");
        let mut counts = Vec::new();
        wait_until("an end of the one beyond", || {
            counts = server.by_worker();
            counts.iter().sum::<usize>() == MEMBERS
        });
        assert!(counts[0] > 0, "nobody came to the worker that had panicked: {counts:?}");

        server.upgrade();
        talk_in_each_room(&mut left, "after an upgrade");
        assert_eq!(server.log().matches("the worker serves again").count(), 1);
    });
}
