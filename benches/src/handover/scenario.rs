//! The named scenarios: what is sent, and how often the server is replaced meanwhile.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;

use crate::checker::Load;
use crate::checker::message::Size;

/// A scenario by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// 1,000 connections, 20 messages a second each, every fourth split at random points; 20
    /// upgrades.
    Basic,
    /// 19,000 connections, 10 upgrades; needs a limit of 20,000 descriptors.
    Many,
    /// Connections that do not read, with megabytes queued for them.
    Slow,
    /// Compressed and fragmented messages of all sizes.
    Compressed,
    /// Members of rooms.
    Rooms,
    /// 1,000 new connections a second.
    Churn,
    /// 100 upgrades in a row; descriptors, threads and memory stay as they are.
    Chain,
}

/// A scenario's figures.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Upgrades.
    pub upgrades: u32,
    /// Time from the end of an upgrade to the beginning of the next, about.
    pub interval: Duration,
    /// How long the streams run before the first upgrade.
    pub duration: Duration,
    /// Time for one upgrade; then it has failed.
    pub patience: Duration,
    /// The load, but for the server's address.
    load: Load,
}

impl Scenario {
    /// What it is.
    pub fn plan(self) -> Plan {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let load = Load { split: 3, ..Load::none(nowhere) };
        let name = self.to_possible_value().expect("no scenario is hidden").get_name().to_owned();
        let plan = |upgrades, interval_ms, load| Plan {
            name,
            upgrades,
            interval: Duration::from_millis(interval_ms),
            duration: Duration::from_secs(2),
            patience: Duration::from_secs(120),
            load,
        };
        match self {
            // Were all split, writing the pieces would take most of a core from the server.
            Self::Basic => plan(20, 1_000, Load { connections: 1_000, split_one_in: 4, ..load }),
            // One message a second: on two cores, so many streams must leave some for the server.
            Self::Many => plan(10, 2_000, Load { connections: 19_000, rate: 0.5, ..load }),
            Self::Slow => plan(10, 1_000, Load { connections: 200, slow: 40, ..load }),
            Self::Compressed => {
                let size = Size::Mixed;
                let streams = Load { connections: 300, rate: 10.0, size, ..load };
                plan(10, 1_000, Load { compressed: true, fragments_max: 4, ..streams })
            }
            Self::Rooms => {
                let rooms = Load { rooms: 20, members: 50, rate: 10.0, ..load };
                plan(10, 1_000, Load { connections: 100, ..rooms })
            }
            Self::Churn => plan(10, 1_000, Load { connections: 200, churn: 1_000.0, ..load }),
            Self::Chain => plan(100, 700, Load { connections: 300, ..load }),
        }
    }
}

impl Plan {
    /// What is sent to the server at `address`.
    pub fn load(&self, address: SocketAddr) -> Load {
        Load { address, ..self.load.clone() }
    }

    /// Whether the server has as much to hold at all times: no visitors that come and go, and no
    /// queues that fill.
    pub fn is_steady(&self) -> bool {
        self.load.churn == 0.0 && self.load.slow == 0
    }

    /// What the server has to hold at some upgrade for those that do not read: an eighth of what
    /// they are sent, for the rest is in the sockets' buffers or comes later.
    pub fn queued_bytes_min(&self) -> u64 {
        (self.load.slow * self.load.slow_bytes) as u64 / 8
    }

    /// Changes what `changes` says.
    pub fn change(&mut self, changes: &Changes) {
        fn set<T: Clone>(field: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                field.clone_from(value);
            }
        }
        let seconds = |seconds: Option<f64>| seconds.map(Duration::from_secs_f64);
        set(&mut self.upgrades, changes.upgrades.as_ref());
        set(&mut self.interval, seconds(changes.interval).as_ref());
        set(&mut self.duration, seconds(changes.duration).as_ref());
        let load = &mut self.load;
        set(&mut load.connections, changes.connections.as_ref());
        set(&mut load.rate, changes.rate.as_ref());
        set(&mut load.size, changes.size.as_ref());
        set(&mut load.split, changes.split.as_ref());
        set(&mut load.split_one_in, changes.split_one_in.as_ref());
        set(&mut load.fragments_max, changes.fragments.as_ref());
        set(&mut load.slow, changes.slow.as_ref());
        set(&mut load.slow_bytes, changes.slow_bytes.as_ref());
        set(&mut load.rooms, changes.rooms.as_ref());
        set(&mut load.members, changes.members.as_ref());
        set(&mut load.churn, changes.churn.as_ref());
        load.compressed |= changes.compressed;
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = &self.load;
        let size = match load.size {
            Size::Fixed(size) => format!("{size} B"),
            Size::Mixed => "48 to 70,000 B".to_owned(),
        };
        let (connections, rate) = (load.connections, load.rate);
        write!(f, "{connections} streams × {rate}/s × {size}")?;
        match load.split_one_in {
            1 => write!(f, ", all in {} pieces", load.split)?,
            one_in => write!(f, ", one in {one_in} in {} pieces", load.split)?,
        }
        if load.fragments_max > 1 {
            write!(f, " and in up to {} fragments", load.fragments_max)?;
        }
        if load.compressed {
            write!(f, ", compressed")?;
        }
        if load.rooms > 0 {
            write!(f, "; {} rooms × {} members", load.rooms, load.members)?;
        }
        if load.slow > 0 {
            write!(f, "; {} do not read {} B each", load.slow, load.slow_bytes)?;
        }
        if load.churn > 0.0 {
            write!(f, "; {} visitors/s", load.churn)?;
        }
        write!(f, "; {} upgrades", self.upgrades)
    }
}

/// Figures to be other than the scenario's.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Changes {
    /// Upgrades; 0 checks the streams alone.
    #[arg(long, value_name = "N")]
    pub upgrades: Option<u32>,
    /// Seconds from one upgrade to the next.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub interval: Option<f64>,
    /// Seconds for which the streams run before the first upgrade.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<f64>,
    /// Connections to /echo, each with a stream of its own.
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,
    /// Messages a second of each sender.
    #[arg(long, value_name = "PER SECOND")]
    pub rate: Option<f64>,
    /// Bytes of payload, from 48 on, or "mixed".
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// Writes that a message is split into, at random places.
    #[arg(long, value_name = "N")]
    pub split: Option<usize>,
    /// One message in so many is split.
    #[arg(long, value_name = "N")]
    pub split_one_in: Option<usize>,
    /// Most frames of a message.
    #[arg(long, value_name = "N")]
    pub fragments: Option<usize>,
    /// Connections that do not read until the end.
    #[arg(long, value_name = "N")]
    pub slow: Option<usize>,
    /// Bytes that are sent to each of those.
    #[arg(long, value_name = "BYTES")]
    pub slow_bytes: Option<usize>,
    /// Use permessage-deflate.
    #[arg(long)]
    pub compressed: bool,
    /// Rooms, each with a publisher.
    #[arg(long, value_name = "N")]
    pub rooms: Option<usize>,
    /// Members of each room.
    #[arg(long, value_name = "N")]
    pub members: Option<usize>,
    /// New connections a second.
    #[arg(long, value_name = "PER SECOND")]
    pub churn: Option<f64>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("0 to 86400".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_fits_into_20_000_descriptors() {
        for scenario in Scenario::value_variants() {
            let plan = scenario.plan();
            assert!(plan.load.connections_all() + plan.load.churn as usize <= 19_500);
            assert!(plan.upgrades >= 10 && plan.to_string().ends_with("upgrades"), "{plan}");
        }
    }

    #[test]
    fn changes_leave_the_rest() {
        let mut plan = Scenario::Basic.plan();
        let changes = Changes {
            upgrades: Some(0),
            size: Some(Size::Mixed),
            duration: Some(0.5),
            compressed: true,
            ..Changes::default()
        };
        plan.change(&changes);
        assert_eq!((plan.upgrades, plan.load.size), (0, Size::Mixed));
        assert_eq!(plan.duration, Duration::from_millis(500));
        assert!(plan.load.compressed);
        assert_eq!(plan.load.connections, 1_000);
    }
}
