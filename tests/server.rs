//! The server end to end: the real binary over sockets, and the library that it is made of.

mod attack;
#[path = "server/client.rs"]
mod client;
#[path = "server/clients_tungstenite.rs"]
mod clients_tungstenite;
#[path = "server/crowds.rs"]
mod crowds;
#[path = "server/gates.rs"]
mod gates;
#[path = "server/handover.rs"]
mod handover;
#[path = "support/hear.rs"]
mod hear;
#[path = "server/http.rs"]
mod http;
#[path = "server/library.rs"]
mod library;
#[path = "server/listeners.rs"]
mod listeners;
#[path = "server/logging.rs"]
mod logging;
#[path = "server/messages.rs"]
mod messages;
mod process;
#[path = "server/stopping.rs"]
mod stopping;
mod support;
#[path = "server/times.rs"]
mod times;
