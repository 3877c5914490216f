//! What is measured, and what is demanded of it.

use super::server::Kind;

/// One table of the result.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its group, by which it is chosen on the command line.
    pub group: Group,
    /// Its heading.
    pub title: &'static str,
    /// Subcommand and arguments of the load client.
    load: Vec<String>,
    /// Fragments each message is sent in.
    fragments: u64,
    /// Path the connections open.
    pub path: &'static str,
    /// Servers, in the order of the table.
    pub servers: &'static [Kind],
    /// What is demanded of steadfast.
    pub targets: Vec<Target>,
}

/// Scenarios that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// Every scenario
    All,
    /// CPU time of an echoed message
    Echo,
    /// CPU time of a delivery in a room
    Rooms,
    /// Memory of an idle connection
    Idle,
}

/// A demand on steadfast's figure.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// The figure of `server` must be at least `factor` times steadfast's.
    Ratio {
        /// Compared with.
        server: Kind,
        /// How many times.
        factor: f64,
    },
    /// Steadfast's figure must be at most this, in the figure's unit.
    AtMost(f64),
}

impl Scenario {
    /// Subcommand and arguments of the load client for one server of the table.
    pub fn load_on(&self, kind: Kind) -> Vec<String> {
        let mut load = self.load.clone();
        if self.fragments > 1 && kind != Kind::SteadfastOneFrame {
            load.extend(["--fragments".to_owned(), self.fragments.to_string()]);
        }
        load
    }
}

const ECHO_SERVERS: &[Kind] =
    &[Kind::Tungstenite, Kind::TungsteniteBatch, Kind::Fastwebsockets, Kind::Steadfast];

/// All scenarios; message counts times `scale`.
///
/// Counts are such that the plain server is busy for one to three seconds, which leaves steadfast
/// 0.1 s at least.
pub fn all(scale: f64) -> Vec<Scenario> {
    let plain = |factor| Target::Ratio { server: Kind::Tungstenite, factor };
    let batching = |factor| Target::Ratio { server: Kind::TungsteniteBatch, factor };
    let room = |factor| Target::Ratio { server: Kind::Rooms, factor };
    let echo = |title, size, in_flight, connections, messages, targets| Scenario {
        group: Group::Echo,
        title,
        load: arguments(
            "echo",
            &[
                ("size", size),
                ("in-flight", in_flight),
                ("connections", connections),
                ("warmup", scaled(messages, scale) / 5),
                ("messages", scaled(messages, scale)),
            ],
        ),
        fragments: 1,
        path: "/echo",
        servers: ECHO_SERVERS,
        targets,
    };
    let rooms = |title, size, in_flight, publications, targets| Scenario {
        group: Group::Rooms,
        title,
        load: arguments(
            "rooms",
            &[
                ("size", size),
                ("in-flight", in_flight),
                ("receivers", 1_000),
                ("warmup", scaled(publications, scale) / 5),
                ("publications", scaled(publications, scale)),
            ],
        ),
        fragments: 1,
        path: "/rooms/bench",
        servers: &[Kind::Rooms, Kind::Steadfast],
        targets,
    };
    vec![
        echo(
            "echo: 125 B, 16 in flight, 64 connections",
            125,
            16,
            64,
            500_000,
            vec![plain(12.0), batching(1.4)],
        ),
        echo("echo: 20 B, 1 in flight, 64 connections", 20, 1, 64, 300_000, vec![plain(1.4)]),
        echo("echo: 20 B, 1 in flight, 1 connection", 20, 1, 1, 30_000, vec![]),
        echo(
            "echo: 16 KiB, 4 in flight, 16 connections",
            16 * 1024,
            4,
            16,
            100_000,
            vec![plain(1.3)],
        ),
        echo("echo: 1 MB, 1 in flight, 1 connection", 1_000_000, 1, 1, 2_000, vec![plain(1.7)]),
        echo("echo: 1 MB, 1 in flight, 4 connections", 1_000_000, 1, 4, 2_000, vec![plain(1.7)]),
        Scenario {
            fragments: 1_024,
            servers: &[Kind::Tungstenite, Kind::SteadfastOneFrame, Kind::Steadfast],
            ..echo(
                "echo: 1 MiB in 1,024 fragments, 1 in flight, 1 connection",
                1024 * 1024,
                1,
                1,
                1_000,
                vec![Target::Ratio { server: Kind::SteadfastOneFrame, factor: 0.5 }],
            )
        },
        rooms("rooms: 64 B, 8 publications in flight, 1,000 receivers", 64, 8, 400, vec![]),
        rooms(
            "rooms: 64 B, 32 publications in flight, 1,000 receivers",
            64,
            32,
            1_200,
            vec![room(20.0)],
        ),
        rooms("rooms: 1 KiB, 8 publications in flight, 1,000 receivers", 1024, 8, 400, vec![]),
        rooms(
            "rooms: 1 KiB, 32 publications in flight, 1,000 receivers",
            1024,
            32,
            1_200,
            vec![room(10.0)],
        ),
        Scenario {
            group: Group::Idle,
            title: "idle: anonymous memory a connection, from 2,000 to 14,000 connections",
            load: arguments("idle", &[("from", 2_000), ("to", 14_000)]),
            fragments: 1,
            path: "/echo",
            servers: ECHO_SERVERS,
            targets: vec![Target::AtMost(255.0)],
        },
    ]
}

fn scaled(count: u64, scale: f64) -> u64 {
    ((count as f64 * scale) as u64).max(50)
}

fn arguments(subcommand: &str, options: &[(&str, u64)]) -> Vec<String> {
    let mut arguments = vec![subcommand.to_owned()];
    for (name, value) in options {
        arguments.push(format!("--{name}"));
        arguments.push(value.to_string());
    }
    arguments
}
