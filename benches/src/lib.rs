//! Steadfast measured against other servers.
//!
//! | module | what lives there |
//! |---|---|
//! | [`sys`] | every `unsafe` of the package: affinity, CPU clocks, descriptor limits |
//! | [`frames`] | the load client's whole protocol: masked frames out, a byte-for-byte check of what returns |
//! | [`process`] | CPU time and memory of a server's processes, from outside |
//! | [`load`] | the load client's scenarios: echo, rooms, idle |
//! | [`peer`] | what the peer servers share: their port and their accept loop |
//! | [`runner`] | starts servers and load side by side, takes medians, holds them against the targets |
//!
//! The load client has its own protocol on purpose: an error that it shared with the server would
//! cancel itself out. How to run and how to read: `benches/README.md`.

pub mod frames;
pub mod load;
pub mod peer;
pub mod process;
pub mod runner;
pub mod sys;
