//! The command line of upgrades under load. Exits with 1 if any stream has lost, repeated,
//! reordered or corrupted anything, or an upgrade failed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use steadfast_bench::handover::scenario::{Changes, Scenario};
use steadfast_bench::handover::{self, subject::Places};
use steadfast_bench::sys;

#[derive(Parser)]
#[command(about = "Replaces a server under load and checks every byte; see benches/README.md")]
struct Arguments {
    /// What to run; all of them if none is named
    scenarios: Vec<Scenario>,
    /// The steadfast binary; without it, the one beside this program
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// The binary of each successor (`steadfast upgrade --binary`)
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Workers of the server
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Run the server without a supervisor
    #[arg(long)]
    no_supervisor: bool,
    #[command(flatten)]
    changes: Changes,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    sys::raise_descriptor_limit().context("raising the limit of open files")?;
    let beside = std::env::current_exe()?.with_file_name("steadfast");
    let places = Places {
        server: arguments.server.unwrap_or(beside),
        successor: arguments.binary,
        workers: arguments.workers,
        no_supervisor: arguments.no_supervisor,
    };
    let mut scenarios = arguments.scenarios;
    if scenarios.is_empty() {
        scenarios.extend(Scenario::value_variants());
    }
    let mut unclean = Vec::new();
    for scenario in scenarios {
        let mut plan = scenario.plan();
        plan.change(&arguments.changes);
        let is_clean = handover::run(&plan, &places).unwrap_or_else(|error| {
            println!("  NOT CLEAN: {error:#}");
            false
        });
        if !is_clean {
            unclean.push(plan.name);
        }
    }
    if unclean.is_empty() {
        println!("\nall clean");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nnot clean: {}", unclean.join(", "));
    Ok(ExitCode::FAILURE)
}
