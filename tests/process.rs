//! The processes of a server as their surroundings see them: as the first process of a container,
//! in a terminal, among strangers, with programs that are none and disks that are full.

#[path = "process/failures.rs"]
mod failures;
#[path = "process/first.rs"]
mod first;
#[path = "process/inheritance.rs"]
mod inheritance;
#[path = "process/signals.rs"]
mod signals;
#[path = "process/strangers.rs"]
mod strangers;
mod support;
#[path = "process/terminal.rs"]
mod terminal;
