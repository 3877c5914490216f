//! `steadfast upgrade`: a running server's successor takes over its connections.

use std::path::PathBuf;
use std::process::ExitCode;

use super::EXIT_USAGE;
use super::operate::{self, Look, Target};
use crate::config::Context;
use crate::control::{Request, UpgradeRequest};

/// Replace a running server's program; its connections stay up.
///
/// Starts the program now at the path the server was started by, with the configuration as it is
/// now, and waits until it serves, or until it is known that it does not: then the one there was
/// goes on, and nothing is lost. Ctrl-C takes it back as long as that is possible.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
On a terminal a bar shows how far it is; elsewhere the outcome is one line of JSON.
Exit status: 0 the successor serves (or would, with --dry-run); 1 it does not, with the reason; \
2 wrong usage or configuration.")]
pub(super) struct Args {
    /// The program to start instead
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Only find out whether it would succeed: nothing moves
    #[arg(long)]
    dry_run: bool,
    /// Print the outcome as JSON on a terminal, too
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &Args, context: &Context) -> ExitCode {
    let binary = match args.binary.as_deref().map(std::path::absolute).transpose() {
        Ok(binary) => binary,
        Err(error) => {
            eprintln!("steadfast: --binary: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if let Some(path) = binary.as_deref().filter(|path| path.to_str().is_none()) {
        eprintln!("steadfast: --binary: {} is not UTF-8", path.display());
        return ExitCode::from(EXIT_USAGE);
    }
    let request = Request::Upgrade(UpgradeRequest { binary, dry_run: args.dry_run });
    operate::run(&args.target, context, &request, Look::of_lengthy(args.json))
}
