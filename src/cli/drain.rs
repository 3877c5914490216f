//! `steadfast drain`: empties a running server.

use std::process::ExitCode;
use std::time::Duration;

use super::operate::{self, Look, Target};
use crate::config::{Context, parse_duration};
use crate::control::{DrainRequest, Request};

/// Close all connections of a running server, spread over a time; then it stops.
///
/// As the signal TERM does: each client is told 1012 (come back) at its time. What has begun goes
/// on even if this command is stopped; a second drain does not change it, but for one with --now.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
On a terminal a bar shows how far it is; elsewhere the outcome is one line of JSON.
Exit status: 0 the server is empty; 1 it is not, with the reason; 2 wrong usage or configuration.")]
pub(super) struct Args {
    /// The time to spread it over, such as 30s; left out, the server's `drain_duration`
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Close all at once, with 1001 (going away), also if a drain is under way
    #[arg(long, conflicts_with = "duration")]
    now: bool,
    /// Print the outcome as JSON on a terminal, too
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &Args, context: &Context) -> ExitCode {
    let request = Request::Drain(DrainRequest { duration: args.duration, now: args.now });
    operate::run(&args.target, context, &request, Look::of_lengthy(args.json))
}
