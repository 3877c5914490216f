//! (layer in progress)

pub mod handshake;
