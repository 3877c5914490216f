//! `steadfast check-config`: says what a configuration comes to, or what is wrong with it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_USAGE, load};
use crate::config::{Context, Listed};

/// Check a configuration, and print each key's value and where it comes from.
///
/// The STEADFAST_* environment counts as it would for `serve`. What a route inherits is left out.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Exit status: 0 the configuration holds; 2 it does not.")]
pub(super) struct Args {
    /// The configuration, a TOML file; without it, the environment alone is checked.
    #[arg(value_name = "FILE", env = "STEADFAST_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args, context: &Context) -> ExitCode {
    match load(args.config.as_deref(), Vec::new(), context) {
        Ok(resolved) => {
            for warning in &resolved.warnings {
                eprintln!("warning: {warning}");
            }
            // A reader that has seen enough (`| head`) is no failure of the check.
            let _ = io::stdout().write_all(listing(&resolved.listing).as_bytes());
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// One line a key: `workers = 4  # line 2`.
pub(super) fn listing(listing: &[Listed]) -> String {
    let shown = listing.iter().filter(|listed| !listed.value.is_empty());
    let lines = shown.map(|Listed { key, value, origin }| format!("{key} = {value}  # {origin}\n"));
    lines.collect()
}
