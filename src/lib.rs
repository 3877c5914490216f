//! Steadfast: a WebSocket server that never hangs up.
//!
//! It is one standalone binary, `steadfast`, and the library it is made of. The protocol
//! (RFC 6455, RFC 7692) is written by hand and free of I/O; the event loop is epoll through mio.
//!
//! # The tour
//!
//! ```text
//! socket bytes ─► http head ─► handshake ─► ws decoder ─► message ─► app (echo, rooms, yours)
//!                                                                       │ intents
//! socket bytes ◄─ out queue ◄── ws encoder ◄──────────── deliveries ◄── hub
//! ```
//!
//! A worker is one thread with one event loop. One turn of it: poll → read into the worker's one
//! receive buffer → `Session::receive` → app and hub → out queues, each touched connection marked
//! dirty → before it sleeps: flush the dirty, close the doomed, fire timers. Nothing writes to a
//! socket anywhere else.
//!
//! # Layers
//!
//! A module uses only layers above it in this table; siblings do not import each other
//! (`tests/tidy.rs` holds both).
//!
//! | layer | module | what lives there |
//! |---|---|---|
//! | 0 | [`base`] | limits, ticks, slab, timer wheel, byte buffers, snapshot reader and writer: no I/O, no clock |
//! | 0 | [`sys`] | every `unsafe` of the crate: socket options, signals, descriptor limits |
//! | 1 | [`http`] | request head parser, responses |
//! | 1 | [`ws`] | frame header, mask, UTF-8, decoder, message assembly, permessage-deflate, close codes, encoder |
//! | 2 | [`session`] | handshake; one connection's life as a state machine; its out queue and deadlines |
//! | 2 | [`hub`] | rooms: who is in, who orders, who gets what |
//! | 3 | [`app`] | the `App` trait, the built-in apps, middleware before the handshake is accepted |
//! | 4 | [`net`] | worker, listener, stream, mailbox: the only code that meets mio |
//! | 5 | [`config`], [`server`] | settings as written → resolved; the composition root |
//! | 6 | [`cli`], `main.rs` | one file a verb |
//!
//! Layers 0 to 3 except `sys` never name mio, libc, `std::net` sockets, `Instant::now`, threads or
//! randomness: time and seeds are arguments. That is what makes them testable at every split point.

pub mod app;
pub mod base;
pub mod cli;
pub mod config;
pub mod http;
pub mod hub;
pub mod manual;
pub mod net;
pub mod server;
pub mod session;
pub mod sys;
pub mod ws;
