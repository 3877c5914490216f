//! The composition root.
//! (layer in progress)

use std::io;

use crate::config::Settings;

/// Runs a server with these settings until it has stopped.
pub fn run(_settings: Settings) -> io::Result<()> {
    Err(io::Error::other("the composition root is not there yet"))
}
