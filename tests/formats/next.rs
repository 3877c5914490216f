//! The `steadfast` binary of the build to come: built with the feature `format-next`, it writes and
//! reads a format of states that is in no release.

fn main() -> std::process::ExitCode {
    steadfast::cli::main()
}
