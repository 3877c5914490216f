//! `steadfast serve`: runs the server until it is told to stop.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use super::flags::KeyFlags;
use super::{Checked, exit_code, load, logging};
use crate::config::{Context, Resolved};
use crate::server::Entry;
use crate::supervisor::started;

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
    /// Serve in this process, without one that keeps its id, starts it again if it crashes and
    /// starts its successors.
    #[arg(long)]
    no_supervisor: bool,
    /// Take everything over from the server that has the control socket, whoever has started it.
    /// Without one there, begin as usual.
    #[arg(long)]
    takeover: bool,
    /// Share the addresses with the server that listens there, and take nothing. `steadfast drain`
    /// then empties that one, and this one gets its control socket.
    #[arg(long, conflicts_with = "takeover")]
    alongside: bool,
    #[command(flatten)]
    flags: KeyFlags,
}

impl Args {
    /// The configuration of this command line.
    ///
    /// # Errors
    /// The text to show.
    pub(super) fn load(&self, context: &Context) -> Result<Resolved, String> {
        let config = self.config.as_deref().map(|path| started().resolve(path));
        load(config.as_deref(), self.flags.0.clone(), context)
    }

    fn entry(&self) -> Entry {
        match (self.takeover, self.alongside) {
            (true, _) => Entry::Takeover,
            (_, true) => Entry::Alongside,
            _ => Entry::Alone,
        }
    }
}

pub(super) fn run<E: Display>(
    args: &Args,
    context: &Context,
    serve: impl FnOnce(Result<Checked, &str>) -> Result<ExitCode, E>,
) -> ExitCode {
    match args.load(context) {
        Ok(Resolved { settings, warnings, .. }) => {
            logging::init(&settings.log);
            let entry = args.entry();
            exit_code(serve(Ok(Checked { settings, alone: args.no_supervisor, entry, warnings })))
        }
        Err(text) => {
            logging::complain(&text);
            exit_code(serve(Err(&text)))
        }
    }
}
