//! `steadfast status`: what a running server is and does.

use std::process::ExitCode;

use super::operate::{self, Look, Target};
use crate::config::Context;
use crate::control::Request;

/// Show what a running server is and does, and its last upgrades.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Exit status: 0 it answers; 1 it does not; 2 wrong usage or configuration."
)]
pub(super) struct Args {
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

pub(super) fn run(args: &Args, context: &Context) -> ExitCode {
    operate::run(&args.target, context, &Request::Status, Look::of_immediate(args.json))
}
