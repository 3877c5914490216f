//! The `steadfast` binary: the library's own command line with the built-in apps.

fn main() -> std::process::ExitCode {
    steadfast::cli::main()
}
