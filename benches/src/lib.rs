//! Steadfast measured against other servers, and its handover under load.
//!
//! | module | what lives there |
//! |---|---|
//! | [`sys`] | every `unsafe` of the package: affinity, CPU clocks, descriptor limits |
//! | [`frames`] | the load client's whole protocol: masked frames out, a byte-for-byte check of what returns |
//! | [`handshake`] | the client's side of TCP and of the opening handshake |
//! | [`process`] | CPU time and memory of a server's processes, from outside |
//! | [`load`] | the load client's scenarios: echo, rooms, idle |
//! | [`checker`] | numbered streams of which every byte is checked, before, during and after a handover |
//! | [`handover`] | upgrades under load: scenarios, the server that is replaced, what it came to |
//! | [`peer`] | what the peer servers share: their port and their accept loop |
//! | [`runner`] | starts servers and load side by side, takes medians, holds them against the targets |
//!
//! The load client has its own protocol on purpose: an error that it shared with the server would
//! cancel itself out. How to run and how to read: `benches/README.md`.

pub mod checker;
pub mod frames;
pub mod handover;
pub mod handshake;
pub mod load;
pub mod peer;
pub mod process;
pub mod runner;
pub mod sys;
