//! Names of rooms: each is valid in one *space*, which is that of a route.
//!
//! The rules of a route (tokens, origins, middleware) protect what is behind the route, so a room is
//! reached only through routes of its space. A route has a space of its own unless it is configured
//! to share one.

use std::sync::Arc;

/// Number of a room space. Equal on all workers of a process, and of no meaning to another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Space(u16);

impl Space {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The spaces of a process, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spaces {
    names: Vec<Box<str>>,
}

impl Spaces {
    /// The spaces of these names; equal names are one space.
    ///
    /// # Panics
    /// For more than 65,536 names: there are no more routes than that.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        let mut spaces = Self::default();
        for name in names {
            if spaces.find(name).is_none() {
                spaces.names.push(name.into());
            }
        }
        assert!(spaces.names.len() <= usize::from(u16::MAX) + 1, "more spaces than routes");
        spaces
    }

    /// The space of this name.
    pub fn find(&self, name: &str) -> Option<Space> {
        self.names.iter().position(|known| **known == *name).map(|index| Space(index as u16))
    }
}

/// A room: its space, and its name there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomRef<'r> {
    /// The space.
    pub space: Space,
    /// The name.
    pub name: &'r str,
}

impl RoomRef<'_> {
    /// The same, to be kept.
    pub fn to_id(self) -> RoomId {
        RoomId { space: self.space, name: self.name.into() }
    }
}

/// A [`RoomRef`] that shares the ownership of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomId {
    /// The space.
    pub space: Space,
    /// The name.
    pub name: Arc<str>,
}

impl RoomId {
    /// The same, borrowed.
    pub fn borrowed(&self) -> RoomRef<'_> {
        RoomRef { space: self.space, name: &self.name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_space() {
        let spaces = Spaces::new(["/a/{name}", "shared", "/b/{name}", "shared"]);
        let found = |name| spaces.find(name).map(Space::index);
        assert_eq!(["/a/{name}", "shared", "/b/{name}"].map(found), [Some(0), Some(1), Some(2)]);
        assert_eq!(spaces.find("/c"), None);
    }
}
