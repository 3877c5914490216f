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
//! A worker ([`net::worker`]) is one thread with one event loop. One turn of it: poll → mail of
//! other workers → read into the worker's one receive buffer → [`session::Session::receive`] →
//! [`net::dispatch`] → app and hub → out queues, each touched connection marked dirty → before it
//! sleeps: fire timers, post mail, flush the dirty, drop the doomed. Nothing writes to a socket
//! anywhere else.
//!
//! A handshake goes head → [`net::gate`] (route, [`session::handshake`], the route's middleware,
//! [`app::App::handshake`]) → 101 or a refusal; behind a trusted proxy a PROXY header comes before
//! the head. A room's message goes through [`app::fanout`]. The client role is the same protocol
//! core driven by [`net::client`].
//!
//! An upgrade ([`handover`]) moves all of it to another process: each worker sends its sockets over
//! lanes ([`net::worker::moving`]) to the successor's workers, which park them
//! ([`net::worker::adopting`]), and the states of those at rest ([`net::record`]); then everything
//! stands still, what has changed since follows, and a word in shared memory changes its owner. [`supervisor`] is the
//! small process above; [`control`] is how it is asked for.
//!
//! # Layers
//!
//! A module uses only layers above it in this table; siblings do not import each other, but a
//! module may use those named before it in its row (`tests/tidy.rs` holds all this).
//!
//! | layer | module | what lives there |
//! |---|---|---|
//! | 0 | [`base`] | limits, ticks, slab, timer wheel, byte buffers, snapshot reader and writer: no I/O, no clock |
//! | 0 | [`sys`] | every `unsafe` of the crate: socket options, signals, descriptors, shared memory |
//! | 1 | [`http`] | request head parser, responses |
//! | 1 | [`ws`] | frame header, mask, UTF-8, decoder, message assembly, permessage-deflate, close codes, encoder |
//! | 2 | [`session`] | handshake; one connection's life as a state machine; its out queue and deadlines |
//! | 2 | [`hub`] | rooms: who is in, who orders, who gets what |
//! | 3 | [`app`] | the `App` trait, the built-in apps, middleware before the handshake is accepted |
//! | 4 | [`net`] | worker, dispatch, gate, listener, stream, mailbox, client: the only code that meets mio |
//! | 5 | [`handover`], [`control`], [`supervisor`] | the messages and the two state machines of a handover, and who owns; the control socket: status, upgrade and drain by request; the parent process: starts the server and its successors, restarts it after a crash |
//! | 6 | [`config`], [`server`] | settings as written → resolved; the composition root |
//! | 7 | [`cli`], `main.rs` | one file a verb |
//!
//! Layers 0 to 3 except `sys` never name mio, libc, `std::net` sockets, `Instant::now`, threads or
//! randomness: time and seeds are arguments. That is what makes them testable at every split point.
//!
//! The [`manual`] is for those who run the server or write an app.

pub mod app;
pub mod base;
pub mod cli;
pub mod config;
pub mod control;
pub mod handover;
pub mod http;
pub mod hub;
pub mod manual;
pub mod net;
pub mod server;
pub mod session;
pub mod supervisor;
pub mod sys;
pub mod ws;
