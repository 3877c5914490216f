//! Runs servers and load side by side and makes tables of it.

pub mod scenario;
pub mod server;
mod table;

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::load::Report;
use crate::sys;
use scenario::Scenario;
use server::{Kind, Places, Server};

/// The reports of one server, one a run. A run that was void has none.
#[derive(Debug)]
struct Row {
    kind: Kind,
    reports: Vec<Report>,
    void: usize,
}

/// Measures one scenario: `rounds` rounds, in each of which every server runs once. Prints the
/// table; returns whether no run was void and every target was met.
///
/// Servers take turns so that what else the machine does meets them all alike, and each run has a
/// new process, so that a process's luck with its memory layout is one run's luck.
pub fn measure(scenario: &Scenario, rounds: usize, places: &Places) -> Result<bool> {
    let servers = scenario.servers.iter().copied();
    let mut rows: Vec<Row> = servers
        .filter(|kind| !kind.is_steadfast() || places.steadfast.is_some())
        .map(|kind| Row { kind, reports: Vec::new(), void: 0 })
        .collect();
    for round in 1..=rounds {
        for row in &mut rows {
            eprintln!("{}: round {round} of {rounds}, {}", scenario.title, row.kind);
            let server = Server::start(row.kind, places)?;
            match run_load(scenario, row.kind, &server, places) {
                Ok(report) => row.reports.push(report),
                Err(error) => {
                    row.void += 1;
                    eprintln!("void: {error:#}\n{}", server.log());
                }
            }
        }
    }
    table::print(scenario, &rows)
}

fn run_load(scenario: &Scenario, kind: Kind, server: &Server, places: &Places) -> Result<Report> {
    let program = places.programs.join("load");
    let mut command = Command::new(&program);
    command
        .args(["--address", &server.address.to_string()])
        .args(["--pid", &server.pid().to_string()])
        .args(["--path", scenario.path])
        .args(scenario.load_on(kind))
        .stdin(Stdio::null());
    sys::confine(&mut command, places.load_core);
    let output = command.output().with_context(|| format!("starting {}", program.display()))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Report::parse(std::str::from_utf8(&output.stdout)?)
}
