//! How a room's message gets from its sender to all members.
//!
//! ```text
//! Conn::publish ─► publish ─┬─ home here ──► subscribers (mail) and deliver
//!                           └─ elsewhere ─► mail Publish ─► the home's publish_ordered
//!                                                             └─► mail Deliver ─► deliver_ordered
//! deliver: encode once ─► Intents::deliveries ─► the worker queues it for each member
//! ```
//!
//! Who is a member, and which worker is home, is the business of the [`hub`](crate::hub).

use super::handle::Address;
use super::intents::{Intents, RoomDelivery};
use super::outgoing::Outgoing;
use crate::hub::{Hub, Mail, Publication, RoomRef};
use crate::session::Env;
use crate::session::delivery::Delivery;
use crate::ws::Opcode;

/// Publishes from this worker: in order at once if the room's home is here, else by its home.
pub fn publish(
    hub: &Hub,
    intents: &mut Intents,
    env: &mut Env<'_>,
    room: RoomRef<'_>,
    message: &Outgoing<'_>,
    except: Option<Address>,
) {
    let Outgoing { opcode, payload } = message;
    let home = hub.home(room);
    let at_home = home == hub.worker();
    if !at_home || !hub.subscribers(room).is_empty() {
        let publication = Publication {
            room: room.to_id(),
            opcode: *opcode,
            payload: payload[..].into(),
            except: except.map(|address| (address.worker, address.key)),
        };
        if !at_home {
            intents.mail.push((home, Mail::Publish(publication)));
            return;
        }
        send_to_subscribers(hub, intents, &publication);
    }
    deliver(hub, intents, env, room, *opcode, payload, except);
}

/// At a room's home: puts a message from elsewhere in order.
pub fn publish_ordered(
    hub: &Hub,
    intents: &mut Intents,
    env: &mut Env<'_>,
    publication: &Publication,
) {
    send_to_subscribers(hub, intents, publication);
    deliver_ordered(hub, intents, env, publication);
}

/// Gives a message that its room's home has put in order to the members here.
pub fn deliver_ordered(
    hub: &Hub,
    intents: &mut Intents,
    env: &mut Env<'_>,
    publication: &Publication,
) {
    let Publication { room, opcode, payload, except } = publication;
    let except = except.map(|(worker, key)| Address { worker, key });
    deliver(hub, intents, env, room.borrowed(), *opcode, payload, except);
}

fn send_to_subscribers(hub: &Hub, intents: &mut Intents, publication: &Publication) {
    for &worker in hub.subscribers(publication.room.borrowed()) {
        intents.mail.push((worker, Mail::Deliver(publication.clone())));
    }
}

/// Encodes an ordered message for the members here.
fn deliver(
    hub: &Hub,
    intents: &mut Intents,
    env: &mut Env<'_>,
    room: RoomRef<'_>,
    opcode: Opcode,
    payload: &[u8],
    except: Option<Address>,
) {
    let Some((room, window)) = hub.receivers(room) else {
        return;
    };
    let delivery = Delivery::new(env.turn, opcode, payload, env.compression, window);
    intents.deliveries.push(RoomDelivery { room: room.clone(), delivery, except });
}
