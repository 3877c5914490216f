//! What callbacks leave for the worker to do, as it concerns other connections.

use super::handle::Address;
use crate::hub::{Mail, RoomId, WorkerIndex};
use crate::session::delivery::Delivery;

/// What an app's callbacks leave for the worker to carry out right after them.
#[derive(Debug, Default)]
pub struct Intents {
    /// Ordered messages for the members of rooms here.
    pub deliveries: Vec<RoomDelivery>,
    /// For the hubs of other workers.
    pub mail: Vec<(WorkerIndex, Mail)>,
}

/// A message for the members here of a room.
#[derive(Debug)]
pub struct RoomDelivery {
    /// The room.
    pub room: RoomId,
    /// The message.
    pub delivery: Delivery,
    /// The member who does not get it.
    pub except: Option<Address>,
}
