//! The runner's command line.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use steadfast_bench::runner;
use steadfast_bench::runner::scenario::{self, Group};
use steadfast_bench::runner::server::Places;

#[derive(Parser)]
#[command(about = "Measures steadfast and its peers side by side; see benches/README.md")]
struct Arguments {
    /// What to measure
    #[arg(default_value = "all")]
    group: Group,
    /// Rounds; figures are medians over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The steadfast binary; without it, the one of this workspace is built and taken
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// Leave steadfast out
    #[arg(long)]
    peers_only: bool,
    /// Only scenarios whose title contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Multiplies the number of messages
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Core of the server
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the load client
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Build nothing: take the programs that lie beside this one
    #[arg(long)]
    no_build: bool,
    /// Exit with 1 if a target is missed or a run is void
    #[arg(long)]
    check: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let programs = std::env::current_exe()?;
    let programs = programs.parent().context("no folder")?.to_owned();
    if !arguments.no_build {
        build(&["-p", "steadfast-bench", "--bins"])?;
        if arguments.server.is_none() && !arguments.peers_only {
            // By itself, so that steadfast's dependencies do not get the features that the peers
            // ask of them.
            build(&["-p", "steadfast"])?;
        }
    }
    let steadfast = arguments.server.unwrap_or_else(|| programs.join("steadfast"));
    let places = Places {
        steadfast: (!arguments.peers_only).then_some(steadfast),
        programs,
        server_core: arguments.server_core,
        load_core: arguments.load_core,
    };

    let only = arguments.only.unwrap_or_default();
    let mut measured = 0;
    let mut missed = 0;
    for scenario in scenario::all(arguments.scale) {
        if [scenario.group, Group::All].contains(&arguments.group) && scenario.title.contains(&only)
        {
            measured += 1;
            if !runner::measure(&scenario, arguments.runs as usize, &places)? {
                missed += 1;
            }
        }
    }
    ensure!(measured > 0, "no scenario has \"{only}\" in its title");
    println!("\n{measured} scenarios, {missed} with a target missed or a run void");
    Ok(ExitCode::from(u8::from(arguments.check && missed > 0)))
}

/// `cargo run` builds only the program it runs; this builds the others, in the same profile.
fn build(what: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let status = Command::new(cargo)
        .args(["build", "--release", "--quiet"])
        .args(what)
        .current_dir(workspace.context("no workspace")?)
        .status()?;
    ensure!(status.success(), "cargo build {} failed", what.join(" "));
    Ok(())
}
