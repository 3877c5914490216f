//! `steadfast reload`: an upgrade whose program happens not to have changed.

use std::process::ExitCode;

use super::operate::{self, Look, Target};
use crate::config::Context;
use crate::control::{Request, UpgradeRequest};

/// Make a running server read its configuration anew; its connections stay up.
///
/// It is `steadfast upgrade` under another name: a new process reads the configuration and takes
/// over. If the configuration does not hold, the server goes on as it was.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit status: 0 the configuration is in force; 1 it is not, with the reason; 2 wrong usage or \
configuration.")]
pub(super) struct Args {
    /// Print the outcome as JSON on a terminal, too
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &Args, context: &Context) -> ExitCode {
    let request = Request::Upgrade(UpgradeRequest::default());
    operate::run(&args.target, context, &request, Look::of_lengthy(args.json))
}
