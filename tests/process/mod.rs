//! The processes of a server as their surroundings see them: as the first process of a container,
//! in a terminal, among strangers, with programs that are none and disks that are full.

mod failures;
mod first;
mod inheritance;
mod paths;
mod signals;
mod strangers;
mod terminal;
