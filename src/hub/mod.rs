//! Layer 2: rooms. Who is in, who orders, who gets what; free of I/O.
//!
//! A room is named by a [`Space`] and a name in it. Every worker has a hub of its own. A room has one
//! *home* worker, chosen by a hash of the two, which puts the room's messages in order; the others send theirs there and get the ordered
//! stream back, first in first out, so that all members see one order. A hub holds members and
//! makes [`Mail`]; it neither encodes nor sends anything.
//!
//! ```text
//! member's message ─► publish ─┬─ at home ──► order ─┬─► local members
//!                              │                     └─► Deliver to each worker with members
//!                              └─ elsewhere ─► Publish to the home
//! ```

mod space;

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::slab::Key;
use crate::ws::Opcode;

pub use space::{RoomId, RoomRef, Space, Spaces};

/// Number of a worker, from 0.
pub type WorkerIndex = u16;

/// What hubs tell each other. Between two workers it arrives in the order it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mail {
    /// To the home: `worker` has members now.
    Subscribe {
        /// The room.
        room: RoomId,
        /// Who has them.
        worker: WorkerIndex,
    },
    /// To the home: `worker` has no members any more.
    Unsubscribe {
        /// The room.
        room: RoomId,
        /// Who had them.
        worker: WorkerIndex,
    },
    /// To the home: put this in order.
    Publish(Publication),
    /// From the home: give this to your members.
    Deliver(Publication),
    /// `worker` has lost its hub and begins anew, without members and subscribers.
    Renewed {
        /// Which one.
        worker: WorkerIndex,
    },
}

/// A message to a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The room.
    pub room: RoomId,
    /// Text or binary.
    pub opcode: Opcode,
    /// The payload.
    pub payload: Arc<[u8]>,
    /// The member who does not get it: the sender, unless it asked for its own messages.
    pub except: Option<(WorkerIndex, Key)>,
}

/// The rooms a connection is in; lives in the connection, meaningful to its worker's hub only.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Memberships {
    /// First of a list through `Hub::links`, plus one; zero is no room.
    first: u32,
}

/// One member of a room.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// The connection.
    pub key: Key,
    link: u32,
}

/// Connects a connection with one room it is in.
#[derive(Debug, Clone, Copy)]
struct Link {
    room: u32,
    /// Index in the room's members.
    position: u32,
    /// The connection's next link, plus one.
    next: u32,
}

#[derive(Debug)]
struct Room {
    id: RoomId,
    members: Vec<Member>,
    /// How many members can read compressed messages, by window size, 9 to 15 bits.
    windows: [u32; 7],
    /// At the home: the other workers that have members.
    subscribers: Vec<WorkerIndex>,
}

/// Why a connection cannot join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinError {
    /// It is in `rooms_max` rooms already.
    TooManyRooms,
    /// The room's name is longer than [`ROOM_NAME_BYTES_MAX`](crate::base::limits::ROOM_NAME_BYTES_MAX).
    NameTooLong,
}

/// One worker's part of all rooms.
#[derive(Debug)]
pub struct Hub {
    worker: WorkerIndex,
    workers: WorkerIndex,
    /// By space, and there by name. A space is there from its first room on.
    by_name: Vec<HashMap<Arc<str>, u32>>,
    rooms: Vec<Option<Room>>,
    free_rooms: Vec<u32>,
    links: Vec<Link>,
    free_links: Vec<u32>,
    /// Links looked at in joins and leaves.
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
}

impl Hub {
    /// The hub of one of `workers` workers.
    pub fn new(worker: WorkerIndex, workers: WorkerIndex) -> Self {
        Self {
            worker,
            workers: workers.max(1),
            by_name: Vec::new(),
            rooms: Vec::new(),
            free_rooms: Vec::new(),
            links: Vec::new(),
            free_links: Vec::new(),
            #[cfg(test)]
            steps: Default::default(),
        }
    }

    /// The worker that orders a room.
    pub fn home(&self, room: RoomRef<'_>) -> WorkerIndex {
        home(room, self.workers)
    }

    /// Makes a connection a member; being one already is fine. Costs a walk over the rooms it is in, of
    /// which there are at most `rooms_max`, whoever else is in the room; likewise [`leave`](Self::leave). `window_bits` is what it can read
    /// of compressed messages. Mail for other workers is given to `mail`.
    ///
    /// # Errors
    /// The name is too long, or the connection is in too many rooms.
    pub fn join(
        &mut self,
        memberships: &mut Memberships,
        key: Key,
        window_bits: Option<u8>,
        room: RoomRef<'_>,
        rooms_max: usize,
        mail: &mut impl FnMut(WorkerIndex, Mail),
    ) -> Result<(), JoinError> {
        if room.name.len() > crate::base::limits::ROOM_NAME_BYTES_MAX {
            return Err(JoinError::NameTooLong);
        }
        let index = self.find(room);
        let mut rooms = 0;
        for link in self.links_of(*memberships) {
            if Some(link.room) == index {
                return Ok(());
            }
            rooms += 1;
        }
        if rooms >= rooms_max {
            return Err(JoinError::TooManyRooms);
        }
        let index = index.unwrap_or_else(|| self.add_room(room));
        let link = self.free_links.pop().unwrap_or_else(|| {
            self.links.push(Link { room: 0, position: 0, next: 0 });
            self.links.len() as u32 - 1
        });
        let home = self.home(room);
        let room = self.rooms[index as usize].as_mut().expect("named rooms exist");
        let position = room.members.len() as u32;
        self.links[link as usize] = Link { room: index, position, next: memberships.first };
        memberships.first = link + 1;
        room.members.push(Member { key, link });
        if let Some(bits) = window_bits {
            room.windows[window_slot(bits)] += 1;
        }
        if position == 0 && home != self.worker {
            mail(home, Mail::Subscribe { room: room.id.clone(), worker: self.worker });
        }
        Ok(())
    }

    /// Ends one membership; false if there was none. `window_bits` as it was at the join.
    pub fn leave(
        &mut self,
        memberships: &mut Memberships,
        window_bits: Option<u8>,
        room: RoomRef<'_>,
        mail: &mut impl FnMut(WorkerIndex, Mail),
    ) -> bool {
        let Some(index) = self.find(room) else {
            return false;
        };
        let Some((link, before)) = self.link_to(*memberships, index) else {
            return false;
        };
        let next = self.links[link as usize].next;
        match before {
            Some(before) => self.links[before as usize].next = next,
            None => memberships.first = next,
        }
        self.unlink(link, window_bits, mail);
        true
    }

    /// Ends all memberships of a connection.
    pub fn leave_all(
        &mut self,
        memberships: &mut Memberships,
        window_bits: Option<u8>,
        mail: &mut impl FnMut(WorkerIndex, Mail),
    ) {
        while let Some(link) = memberships.first.checked_sub(1) {
            memberships.first = self.links[link as usize].next;
            self.unlink(link, window_bits, mail);
        }
    }

    /// Which worker's hub this is.
    pub fn worker(&self) -> WorkerIndex {
        self.worker
    }

    /// Members here of a room.
    pub fn members(&self, room: RoomRef<'_>) -> &[Member] {
        self.room(room).map_or(&[], |room| &room.members)
    }

    /// A room's shared id and the smallest window among its members here that read compressed
    /// messages; `None` if it has no members here.
    pub fn receivers(&self, room: RoomRef<'_>) -> Option<(&RoomId, Option<u8>)> {
        let room = self.room(room).filter(|room| !room.members.is_empty())?;
        let smallest = room.windows.iter().position(|&count| count > 0);
        Some((&room.id, smallest.map(|slot| slot as u8 + 9)))
    }

    /// The other workers that get a room's messages from here, its home.
    pub fn subscribers(&self, room: RoomRef<'_>) -> &[WorkerIndex] {
        self.room(room).map_or(&[], |room| &room.subscribers)
    }

    /// A worker has members of a room whose home is here, or has none any more.
    pub fn set_subscribed(&mut self, room: RoomRef<'_>, worker: WorkerIndex, subscribed: bool) {
        if subscribed {
            let index = self.find(room).unwrap_or_else(|| self.add_room(room));
            let room = self.rooms[index as usize].as_mut().expect("named rooms exist");
            if !room.subscribers.contains(&worker) {
                room.subscribers.push(worker);
            }
        } else if let Some(index) = self.find(room) {
            if let Some(room) = &mut self.rooms[index as usize] {
                room.subscribers.retain(|&other| other != worker);
            }
            self.remove_if_empty(index);
        }
    }

    /// A worker has begun anew: it has no members any more, and it is told where there are members
    /// here of the rooms that have their home there. The work grows with the rooms known here.
    pub fn on_renewed(&mut self, worker: WorkerIndex, mail: &mut impl FnMut(WorkerIndex, Mail)) {
        for index in 0..self.rooms.len() as u32 {
            let Some(room) = &mut self.rooms[index as usize] else { continue };
            room.subscribers.retain(|&other| other != worker);
            if !room.members.is_empty() && home(room.id.borrowed(), self.workers) == worker {
                mail(worker, Mail::Subscribe { room: room.id.clone(), worker: self.worker });
            }
            self.remove_if_empty(index);
        }
    }

    /// The names of the rooms a connection is in, latest first. All are of the space it joined in.
    pub fn rooms_of(&self, memberships: Memberships) -> impl Iterator<Item = &str> {
        self.links_of(memberships).map(|of| {
            let room = self.rooms[of.room as usize].as_ref();
            &*room.expect("links lead to rooms").id.name
        })
    }

    fn find(&self, room: RoomRef<'_>) -> Option<u32> {
        self.by_name.get(room.space.index())?.get(room.name).copied()
    }

    fn room(&self, room: RoomRef<'_>) -> Option<&Room> {
        self.rooms[self.find(room)? as usize].as_ref()
    }

    fn add_room(&mut self, room: RoomRef<'_>) -> u32 {
        let id = room.to_id();
        let room =
            Room { id: id.clone(), members: Vec::new(), windows: [0; 7], subscribers: Vec::new() };
        let index = match self.free_rooms.pop() {
            Some(index) => {
                self.rooms[index as usize] = Some(room);
                index
            }
            None => {
                self.rooms.push(Some(room));
                self.rooms.len() as u32 - 1
            }
        };
        let space = id.space.index();
        if self.by_name.len() <= space {
            self.by_name.resize_with(space + 1, HashMap::new);
        }
        self.by_name[space].insert(id.name, index);
        index
    }

    fn remove_if_empty(&mut self, index: u32) {
        let slot = &mut self.rooms[index as usize];
        if let Some(room) =
            slot.take_if(|room| room.members.is_empty() && room.subscribers.is_empty())
        {
            self.by_name[room.id.space.index()].remove(&room.id.name);
            self.free_rooms.push(index);
        }
    }

    fn links_of(&self, memberships: Memberships) -> impl Iterator<Item = Link> {
        let link = |number: u32| {
            #[cfg(test)]
            self.steps.set(self.steps.get() + 1);
            Some(self.links[number.checked_sub(1)? as usize])
        };
        std::iter::successors(link(memberships.first), move |of| link(of.next))
    }

    /// The link of a connection to a room, and the one before it in the connection's list.
    fn link_to(&self, memberships: Memberships, room: u32) -> Option<(u32, Option<u32>)> {
        let mut before = None;
        let mut number = memberships.first;
        while let Some(link) = number.checked_sub(1) {
            #[cfg(test)]
            self.steps.set(self.steps.get() + 1);
            if self.links[link as usize].room == room {
                return Some((link, before));
            }
            before = Some(link);
            number = self.links[link as usize].next;
        }
        None
    }

    /// Takes a link that is in no connection's list any more out of its room.
    fn unlink(
        &mut self,
        link: u32,
        window_bits: Option<u8>,
        mail: &mut impl FnMut(WorkerIndex, Mail),
    ) {
        let Link { room: index, position, .. } = self.links[link as usize];
        self.free_links.push(link);
        let room = self.rooms[index as usize].as_mut().expect("links lead to rooms");
        room.members.swap_remove(position as usize);
        if let Some(moved) = room.members.get(position as usize) {
            self.links[moved.link as usize].position = position;
        }
        if let Some(bits) = window_bits {
            room.windows[window_slot(bits)] -= 1;
        }
        if room.members.is_empty() {
            let room = room.id.clone();
            let home = self.home(room.borrowed());
            if home != self.worker {
                mail(home, Mail::Unsubscribe { room, worker: self.worker });
            }
            self.remove_if_empty(index);
        }
    }
}

/// The worker, of so many, that orders a room: FNV-1a of its space and its name, the same on every
/// worker.
pub fn home(room: RoomRef<'_>, workers: WorkerIndex) -> WorkerIndex {
    let space = (room.space.index() as u16).to_le_bytes();
    let bytes = space.into_iter().chain(room.name.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash % u64::from(workers)) as WorkerIndex
}

fn window_slot(bits: u8) -> usize {
    usize::from(bits.clamp(9, 15) - 9)
}

#[cfg(test)]
mod tests;
