//! Layer 7: the command line, one file a verb.
//!
//! Verbs print what they are for on stdout and everything else on stderr. The exit status is 0 for
//! done, 1 for failed, 2 for wrong usage or configuration.

mod check_config;
mod client;
mod drain;
mod flags;
pub mod logging;
mod operate;
mod reload;
mod serve;
mod status;
mod upgrade;

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use clap::Parser;

use crate::config::{self, Context, Key, Resolved, Settings, Sources};
use crate::server::{Builder, Entry, HANDOVER_VARIABLE, Server, is_successor, refuse_handover};
use crate::supervisor::{self, Role};
use crate::sys::stderr;

/// The exit status for wrong usage or configuration.
const EXIT_USAGE: u8 = 2;

/// A WebSocket server that never hangs up.
#[derive(Debug, Parser)]
#[command(name = "steadfast", version, propagate_version = true)]
#[command(after_help = "Without a verb, `steadfast` is `steadfast serve`.")]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Serve(serve::Args),
    Upgrade(upgrade::Args),
    Reload(reload::Args),
    Status(status::Args),
    Drain(drain::Args),
    CheckConfig(check_config::Args),
    Client(client::Args),
}

/// Runs the `steadfast` command line with the built-in apps.
pub fn main() -> ExitCode {
    Server::run_from_args()
}

impl Server {
    /// Runs the `steadfast` command line of this process with the built-in apps.
    pub fn run_from_args() -> ExitCode {
        Self::builder().run_from_args()
    }
}

impl Builder {
    /// Runs the `steadfast` command line of this process with the builder's apps: flags,
    /// environment, configuration file, verbs, signals. The exit status is 0 for done, 1 for
    /// failed, 2 for wrong usage or configuration.
    pub fn run_from_args(self) -> ExitCode {
        self.run_from(env::args_os())
    }

    /// As [`run_from_args`](Self::run_from_args) with other arguments; the first is the program's
    /// name.
    pub fn run_from(self, args: impl IntoIterator<Item = OsString>) -> ExitCode {
        let _flush = FlushAtEnd;
        let args: Vec<OsString> = args.into_iter().collect();
        match Role::take() {
            Ok(role) => self.run_as(role, args),
            Err(error) => {
                logging::complain(&format!("steadfast: {error}"));
                ExitCode::FAILURE
            }
        }
    }

    fn run_as(self, role: Role, args: Vec<OsString>) -> ExitCode {
        let context = self.context();
        supervisor::note_start(!matches!(role, Role::Outermost) || is_successor());
        let (link, channel) = match role {
            Role::Probe { can } => {
                return if can { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            }
            Role::Supervisor(state) => {
                logging::init(&log_settings(&args, &context));
                return exit_code(supervisor::resume(*state, args).map(ExitCode::from));
            }
            Role::Outermost => (None, None),
            Role::Server(link) => (Some(link), None),
            Role::Successor { link, channel } => (Some(link), Some(channel)),
        };
        let verb_args = args.clone();
        run_verb(verb_args, &context, |checked| match (checked, link) {
            (Err(reason), _) => {
                refuse_handover(channel.as_ref(), reason);
                Ok(ExitCode::from(EXIT_USAGE))
            }
            (Ok(Checked { settings, entry, warnings, .. }), Some(link)) => {
                warn(&warnings);
                self.serve_linked(&settings, entry, link, channel).map(|()| ExitCode::SUCCESS)
            }
            (Ok(Checked { settings, alone, entry, warnings }), None) if alone || is_successor() => {
                warn(&warnings);
                self.serve(&settings, entry).map(|()| ExitCode::SUCCESS)
            }
            (Ok(_), None) => supervisor::begin(args).map(ExitCode::from),
        })
    }
}

/// What the log of a supervisor is to be like: as configured, if that can still be read.
fn log_settings(args: &[OsString], context: &Context) -> config::Log {
    let verb = CommandLine::try_parse_from(with_verb(args.iter().cloned()));
    let configured = match verb {
        Ok(CommandLine { verb: Verb::Serve(args) }) => args.load(context).ok(),
        _ => None,
    };
    configured.map(|resolved| resolved.settings.log).unwrap_or_default()
}

fn exit_code<E: Display>(outcome: Result<ExitCode, E>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        logging::complain(&format!("steadfast: {error}"));
        ExitCode::FAILURE
    })
}

/// Waits for the log's last lines, within bounds, however a command line ends.
struct FlushAtEnd;

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        stderr::flush();
    }
}

/// A configuration to serve by.
struct Checked {
    settings: Settings,
    /// Without a supervisor.
    alone: bool,
    entry: Entry,
    warnings: Vec<config::Error>,
}

/// Logs what may be wrong with a configuration that holds.
fn warn(warnings: &[config::Error]) {
    for config::Error { place, message, help } in warnings {
        tracing::warn!(variable = %place, help, "{message}: it changes nothing");
    }
}

/// Runs a command line, with what `serve` is to do as an argument.
fn run_verb<E: Display>(
    args: impl IntoIterator<Item = OsString>,
    context: &Context,
    serve: impl FnOnce(Result<Checked, &str>) -> Result<ExitCode, E>,
) -> ExitCode {
    match CommandLine::try_parse_from(with_verb(args)) {
        Ok(CommandLine { verb: Verb::Serve(args) }) => serve::run(&args, context, serve),
        Ok(CommandLine { verb: Verb::Upgrade(args) }) => upgrade::run(&args, context),
        Ok(CommandLine { verb: Verb::Reload(args) }) => reload::run(&args, context),
        Ok(CommandLine { verb: Verb::Status(args) }) => status::run(&args, context),
        Ok(CommandLine { verb: Verb::Drain(args) }) => drain::run(&args, context),
        Ok(CommandLine { verb: Verb::CheckConfig(args) }) => check_config::run(&args, context),
        Ok(CommandLine { verb: Verb::Client(args) }) => client::run(&args),
        Err(error) => {
            // Help and the version are "errors" too, with status 0 and on stdout. If nobody reads
            // them any more, nobody reads a complaint either.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE))
        }
    }
}

/// Variables of ours that are none of an operator's.
fn is_no_setting(name: &OsStr) -> bool {
    #[cfg(feature = "fault-points")]
    if name == crate::sys::fault::VARIABLE {
        return true;
    }
    name == HANDOVER_VARIABLE
}

/// Puts the verb `serve` where none is.
fn with_verb(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let is_of_no_verb = |arg: &OsString| {
        arg.to_str().is_some_and(|arg| matches!(arg, "-h" | "--help" | "-V" | "--version"))
    };
    let has_verb = args
        .get(1)
        .is_some_and(|arg| is_of_no_verb(arg) || !arg.as_encoded_bytes().starts_with(b"-"));
    if !has_verb {
        args.insert(args.len().min(1), "serve".into());
    }
    args
}

/// The configuration of this process: the file, the environment, and the flags given.
///
/// # Errors
/// The text to show.
fn load(
    file: Option<&Path>,
    flags: Vec<(&'static Key, String)>,
    context: &Context,
) -> Result<Resolved, String> {
    let file: Option<(PathBuf, String)> = match file {
        Some(path) => match fs::read_to_string(path) {
            Ok(text) => Some((path.to_owned(), text)),
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        },
        None => None,
    };
    let read_file = |path: &Path| fs::read_to_string(path);
    let environment = env::vars_os().filter(|(name, _)| !is_no_setting(name)).collect();
    let sources = Sources { file, environment, flags, read_file: Some(&read_file) };
    config::resolve(&sources, context).map_err(|errors| errors.to_string())
}
