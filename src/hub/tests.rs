use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::slab::Slab;

fn keys(count: usize) -> Vec<Key> {
    let mut slab = Slab::new();
    (0..count).map(|number| slab.insert(number)).collect()
}

fn room(name: &str) -> RoomRef<'_> {
    RoomRef { space: Space::default(), name }
}

impl Hub {
    /// Rooms known here: with members, or with subscribers.
    pub(crate) fn rooms_len(&self) -> usize {
        self.by_name.iter().map(HashMap::len).sum()
    }
}

fn no_mail(_: WorkerIndex, mail: Mail) {
    panic!("one worker needs no mail: {mail:?}");
}

/// The hub against sets of sets, under a fixed pseudo-random sequence of joins and leaves.
#[test]
fn members_equal_those_of_the_naive_twin() {
    let keys = keys(40);
    let mut hub = Hub::new(0, 1);
    let mut memberships = vec![Memberships::default(); keys.len()];
    let mut twin: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let window = |who: usize| [None, Some(9), Some(15), Some(12)][who % 4];
    let mut state = 7_u64;
    for step in 0..20_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let who = (state >> 33) as usize % keys.len();
        let name = format!("room {}", (state >> 45) % 12);
        match (state >> 55) % 20 {
            0..=10 => {
                let joined = hub.join(
                    &mut memberships[who],
                    keys[who],
                    window(who),
                    room(&name),
                    5,
                    &mut no_mail,
                );
                let rooms = twin.values().filter(|members| members.contains(&who)).count();
                let members = twin.entry(name).or_default();
                if members.contains(&who) || rooms < 5 {
                    assert_eq!(joined, Ok(()));
                    members.insert(who);
                } else {
                    assert_eq!(joined, Err(JoinError::TooManyRooms));
                }
            }
            11..=18 => {
                let left = hub.leave(&mut memberships[who], window(who), room(&name), &mut no_mail);
                assert_eq!(left, twin.entry(name).or_default().remove(&who));
            }
            _ => {
                hub.leave_all(&mut memberships[who], window(who), &mut no_mail);
                for members in twin.values_mut() {
                    members.remove(&who);
                }
            }
        }
        if step % 50 == 0 {
            check(&hub, &twin, &keys, &memberships, window);
        }
    }
    for (who, of) in memberships.iter_mut().enumerate() {
        hub.leave_all(of, window(who), &mut no_mail);
    }
    assert_eq!(hub.rooms_len(), 0);
    assert_eq!(hub.free_links.len(), hub.links.len());
}

fn check(
    hub: &Hub,
    twin: &BTreeMap<String, BTreeSet<usize>>,
    keys: &[Key],
    memberships: &[Memberships],
    window: impl Fn(usize) -> Option<u8>,
) {
    for (name, expected) in twin {
        let members = hub.members(room(name));
        let smallest = hub.receivers(room(name)).and_then(|(_, smallest)| smallest);
        let mut seen: Vec<_> = members.iter().map(|member| member.key.to_u64()).collect();
        seen.sort_unstable();
        let mut expected_keys: Vec<_> = expected.iter().map(|&who| keys[who].to_u64()).collect();
        expected_keys.sort_unstable();
        assert_eq!(seen, expected_keys, "{name}");
        assert_eq!(smallest, expected.iter().filter_map(|&who| window(who)).min());
    }
    for (who, &of) in memberships.iter().enumerate() {
        let seen: BTreeSet<_> = hub.rooms_of(of).collect();
        let expected: BTreeSet<_> = twin
            .iter()
            .filter(|(_, members)| members.contains(&who))
            .map(|(room, _)| &**room)
            .collect();
        assert_eq!(seen, expected);
    }
    assert_eq!(hub.rooms_len(), twin.values().filter(|members| !members.is_empty()).count());
}

#[test]
fn the_home_hears_of_the_first_member_and_of_the_last() {
    let keys = keys(2);
    let mut elsewhere = Hub::new(0, 2);
    let name =
        (0..).map(|n| format!("room {n}")).find(|name| elsewhere.home(room(name)) == 1).unwrap();
    let room = room(&name);
    let mut home = Hub::new(1, 2);
    assert_eq!(home.home(room), 1);
    let mut sent = vec![];
    let mut mail = |to, mail| sent.push((to, mail));
    let mut of = [Memberships::default(); 2];
    elsewhere.join(&mut of[0], keys[0], None, room, 9, &mut mail).unwrap();
    elsewhere.join(&mut of[1], keys[1], None, room, 9, &mut mail).unwrap();
    elsewhere.leave_all(&mut of[0], None, &mut mail);
    elsewhere.leave_all(&mut of[1], None, &mut mail);
    let id = room.to_id();
    assert_eq!(
        sent,
        [
            (1, Mail::Subscribe { room: id.clone(), worker: 0 }),
            (1, Mail::Unsubscribe { room: id, worker: 0 })
        ]
    );
    home.set_subscribed(room, 0, true);
    home.set_subscribed(room, 0, true);
    assert_eq!(home.subscribers(room), [0]);
    home.set_subscribed(room, 0, false);
    assert_eq!(home.rooms_len(), 0);
}

#[test]
fn names_have_a_bound() {
    let mut hub = Hub::new(0, 1);
    let key = keys(1)[0];
    let mut of = Memberships::default();
    let long = "x".repeat(256);
    assert_eq!(
        hub.join(&mut of, key, None, room(&long), 9, &mut no_mail),
        Err(JoinError::NameTooLong)
    );
    assert_eq!(hub.join(&mut of, key, None, room(&long[1..]), 9, &mut no_mail), Ok(()));
}

#[test]
fn a_name_is_another_room_in_another_space() {
    let keys = keys(2);
    let spaces = Spaces::new(["/private/{name}", "/public/{name}"]);
    let [private, public] = ["/private/{name}", "/public/{name}"]
        .map(|space| RoomRef { space: spaces.find(space).unwrap(), name: "board" });
    let mut hub = Hub::new(0, 1);
    let mut of = [Memberships::default(); 2];
    hub.join(&mut of[0], keys[0], None, private, 9, &mut no_mail).unwrap();
    assert!(hub.receivers(public).is_none());
    hub.join(&mut of[1], keys[1], None, public, 9, &mut no_mail).unwrap();
    let members = |room| hub.members(room).iter().map(|member| member.key).collect::<Vec<_>>();
    assert_eq!((members(private), members(public)), (vec![keys[0]], vec![keys[1]]));
    assert!(!hub.leave(&mut of[1], None, private, &mut no_mail), "it was never in");
    assert!(hub.leave(&mut of[1], None, public, &mut no_mail));
    assert_eq!((hub.rooms_len(), hub.members(private).len()), (1, 1));
    let homes = |room| {
        (0..32)
            .filter(|n| home(RoomRef { name: &n.to_string(), ..room }, 2) == 0)
            .collect::<Vec<u32>>()
    };
    assert_ne!(homes(private), homes(public), "names in use everywhere are not all at one worker");
}

/// However many members the room has, and however many rooms there are.
#[test]
fn a_join_and_a_leave_cost_no_more_than_the_rooms_one_may_be_in() {
    const ROOMS_MAX: usize = 16;
    let keys = keys(1_000);
    let mut hub = Hub::new(0, 1);
    for (number, key) in keys.iter().enumerate() {
        let mut of = Memberships::default();
        for name in ["everybody".to_owned(), format!("alone {number}")] {
            hub.join(&mut of, *key, None, room(&name), 9, &mut no_mail).unwrap();
        }
    }
    let mut of = Memberships::default();
    let mut worst = 0;
    let mut cost = |hub: &Hub, before: usize| worst = worst.max(hub.steps.get() - before);
    for turn in 0..4 * ROOMS_MAX {
        let name = format!("room {turn}");
        for name in [&*name, "everybody"] {
            let before = hub.steps.get();
            let _ = hub.join(&mut of, keys[0], None, room(name), ROOMS_MAX, &mut no_mail);
            cost(&hub, before);
        }
        let before = hub.steps.get();
        hub.leave(&mut of, None, room("everybody"), &mut no_mail);
        hub.leave(&mut of, None, room("nobody"), &mut no_mail);
        cost(&hub, before);
    }
    assert!((ROOMS_MAX..=ROOMS_MAX + 1).contains(&worst), "{worst} steps");
}

#[test]
fn a_worker_that_begins_anew_is_told_of_the_members_elsewhere() {
    const WORKERS: WorkerIndex = 3;
    let keys = keys(2);
    let (mut hub, mut of) = (Hub::new(1, WORKERS), [Memberships::default(); 2]);
    let names: Vec<String> = (0..30).map(|number| format!("room {number}")).collect();
    let rooms: Vec<RoomRef<'_>> = names.iter().map(|name| room(name)).collect();
    let mut ignore = |_: WorkerIndex, _: Mail| {};
    // With members here; known for the members elsewhere; both.
    for (number, &room) in rooms.iter().enumerate() {
        if number % 3 != 1 {
            hub.join(&mut of[0], keys[0], None, room, 30, &mut ignore).unwrap();
        }
        if number % 3 != 0 && home(room, WORKERS) == 1 {
            hub.set_subscribed(room, 0, true);
            hub.set_subscribed(room, 2, number % 2 == 0);
        }
    }
    let mut told = Vec::new();
    hub.on_renewed(0, &mut |to, mail| told.push((to, mail)));
    let expected: Vec<(WorkerIndex, Mail)> = rooms
        .iter()
        .enumerate()
        .filter(|(number, room)| number % 3 != 1 && home(**room, WORKERS) == 0)
        .map(|(_, room)| (0, Mail::Subscribe { room: room.to_id(), worker: 1 }))
        .collect();
    assert!(!expected.is_empty());
    told.sort_by_key(|told| expected.iter().position(|expected| expected == told));
    assert_eq!(told, expected);
    for room in rooms {
        assert!(!hub.subscribers(room).contains(&0), "{room:?}");
    }
    // Nothing is left of rooms that only its members were in.
    hub.on_renewed(2, &mut ignore);
    hub.leave_all(&mut of[0], None, &mut ignore);
    assert_eq!(hub.rooms_len(), 0);
}
