//! A worker's connections, which of them have been left alone since their state was sent ahead, and
//! which have been read since the last freeze.
//!
//! Invariant: a connection counts as sent ahead only if nobody has been given it mutably since, all
//! but its [`Flags`], which do not move. So no code that changes a connection has to remember to say
//! so.

use std::ops::Deref;

use super::slots::Slots;
use crate::base::slab::{Key, Slab};
use crate::net::connection::{Connection, Flags};
use crate::session::Session;

/// The connections of a worker. What changes nothing is [`Slab`]'s.
#[derive(Default)]
pub(super) struct Conns {
    slab: Slab<Connection>,
    /// By slot; empty but during a handover.
    ahead: Slots,
    /// By slot: not read yet since the last freeze.
    unheard: Slots,
}

impl Deref for Conns {
    type Target = Slab<Connection>;

    fn deref(&self) -> &Slab<Connection> {
        &self.slab
    }
}

impl Conns {
    /// See [`Slab::get_mut`].
    #[inline]
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        let conn = self.slab.get_mut(key);
        if conn.is_some() {
            self.ahead.remove(key.index());
        }
        conn
    }

    /// What the event loop remembers of a connection, and its session. No change of it.
    #[inline]
    pub(super) fn flags_mut(&mut self, key: Key) -> Option<(&mut Flags, &Session)> {
        self.slab.get_mut(key).map(|conn| (&mut conn.flags, &conn.session))
    }

    /// See [`Slab::iter_mut`].
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Connection)> {
        self.ahead = Slots::default();
        self.slab.iter_mut()
    }

    /// See [`Slab::insert_with_key`].
    pub(super) fn insert_with_key(&mut self, make: impl FnOnce(Key) -> Connection) -> Key {
        self.slab.insert_with_key(make)
    }

    /// See [`Slab::remove`].
    pub(super) fn remove(&mut self, key: Key) -> Option<Connection> {
        let conn = self.slab.remove(key);
        if conn.is_some() {
            self.ahead.remove(key.index());
            self.unheard.remove(key.index());
        }
        conn
    }

    /// From now on nobody has been heard.
    pub(super) fn forget_heard(&mut self) {
        self.unheard = self.slab.keys().map(Key::index).collect();
    }

    /// It has been read.
    #[inline]
    pub(super) fn heard(&mut self, key: Key) {
        self.unheard.remove(key.index());
    }

    /// Whether it has been there since before the last freeze, and has not been read since.
    pub(super) fn is_unheard(&self, key: Key) -> bool {
        self.unheard.contains(key.index())
    }

    /// Its state has been sent, as it is now.
    pub(super) fn sent_ahead(&mut self, key: Key) {
        self.ahead.insert(key.index());
    }

    /// What was sent ahead is of no use any more.
    pub(super) fn forget_ahead(&mut self) {
        self.ahead = Slots::default();
        self.slab.iter_mut().for_each(|(_, conn)| conn.session.set_ahead(0));
    }

    /// Whether what was sent ahead is how it still is.
    #[cfg(debug_assertions)]
    pub(super) fn is_as_sent(&self, key: Key) -> bool {
        self.slab.contains(key) && self.ahead.contains(key.index())
    }

    /// The first connection from a slot on, of those in `of`, that is not as it was sent ahead.
    pub(super) fn changed_from(&self, slot: u32, of: &Slots) -> Option<Key> {
        let slot = of.next_without(&self.ahead, slot)?;
        let key = self.slab.key_from(slot);
        debug_assert_eq!(key.map(Key::index), Some(slot), "of what is here");
        key
    }
}
