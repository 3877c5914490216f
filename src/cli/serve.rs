//! `steadfast serve`: runs the server until it is told to stop.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use super::flags::KeyFlags;
use super::{EXIT_USAGE, load, logging};
use crate::config::{Context, Settings};
use crate::server::refuse_handover;

/// Run the server. The default verb.
///
/// Sources by rising precedence: defaults, the TOML file, STEADFAST_* environment, flags. Routes
/// are configured in the file or as STEADFAST_ROUTES_<n>_<KEY>.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Signals: TERM drains and then exits; INT exits fast; USR2 and HUP hand every connection over to a
new process of the program now at this one's path, which reads the configuration anew.
Exit status: 0 stopped as told; 1 failed; 2 wrong usage or configuration.
Everything but the log goes to stdout; the log goes to stderr.")]
pub(super) struct Args {
    /// The configuration, a TOML file. `steadfast check-config FILE` checks one.
    #[arg(long, value_name = "FILE", env = "STEADFAST_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: KeyFlags,
}

pub(super) fn run<E: Display>(
    args: &Args,
    context: &Context,
    serve: impl FnOnce(Settings) -> Result<(), E>,
) -> ExitCode {
    let resolved = match load(args.config.as_deref(), args.flags.0.clone(), context) {
        Ok(resolved) => resolved,
        Err(text) => {
            refuse_handover(&text);
            eprintln!("{text}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    logging::init(&resolved.settings.log);
    match serve(resolved.settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("steadfast: {error}");
            ExitCode::FAILURE
        }
    }
}
