//! The command line: one file a verb.

use std::process::ExitCode;

/// Runs the `steadfast` command line with the built-in apps.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
