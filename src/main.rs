//! The `steadfast` binary: the library's own command line with the built-in apps.

use steadfast::sys::allocator::PlacingAllocator;

#[global_allocator]
static ALLOCATOR: PlacingAllocator = PlacingAllocator;

fn main() -> std::process::ExitCode {
    steadfast::cli::main()
}
