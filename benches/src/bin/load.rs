//! The load client's command line. Prints the figures of one run, or fails.

use clap::{Parser, Subcommand};
use steadfast_bench::load::{self, Target, echo::Echo, idle::Idle, rooms::Rooms};

#[derive(Parser)]
#[command(about = "Load on one server; prints figures, one a line, or fails if a reply is wrong")]
struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Messages and their echoes
    Echo(Echo),
    /// One publisher and many receivers
    Rooms(Rooms),
    /// Memory of open connections that say nothing
    Idle(Idle),
}

fn main() -> anyhow::Result<()> {
    let Arguments { target, scenario } = Arguments::parse();
    let report = match scenario {
        Scenario::Echo(echo) => load::echo::run(&target, &echo)?,
        Scenario::Rooms(rooms) => load::rooms::run(&target, &rooms)?,
        Scenario::Idle(idle) => load::idle::run(&target, &idle)?,
    };
    print!("{report}");
    Ok(())
}
