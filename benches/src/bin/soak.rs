//! Attacks at full size on the steadfast binary beside this program (or `STEADFAST_BINARY`).
//!
//! `soak` runs all of them, `soak NAME…` those whose names contain one of these. It prints what
//! each came to and exits 1 if one broke its bounds. What they do and assert is in
//! `tests/attack/scenarios.rs`; `tests/attack/mod.rs` runs the same small.

#[path = "../../../tests/attack/scenarios.rs"]
mod scenarios;
#[path = "../../../tests/support/mod.rs"]
mod support;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use scenarios::{Figures, Scarcity};
use support::{KIB, Life, MIB};

/// An attack: its name, and what runs it at full size.
type Attack = (&'static str, fn() -> Figures);

const ATTACKS: [Attack; 17] = [
    ("half-open handshakes", || scenarios::half_open(10_000, 0, Duration::from_secs(20))),
    ("half-open handshakes with long heads", || {
        scenarios::half_open(2_000, 15 * KIB, Duration::from_secs(20))
    }),
    ("a reader that never reads", || scenarios::reader_that_never_reads(8_000)),
    ("slow members of a room", || scenarios::slow_member(4_000)),
    ("endless fragments", scenarios::endless_fragments),
    ("ping floods", || scenarios::ping_flood(256 * MIB)),
    ("deflate bombs", || scenarios::deflate_bombs(50)),
    ("hoarders of unfinished messages", || {
        scenarios::hoarders(5_000, 3, Scarcity::Key(512 * MIB), MIB)
    }),
    ("hoarders within an address space of 700 MiB", || {
        scenarios::hoarders(5_000, 1, Scarcity::AddressSpace(700 * MIB), MIB)
    }),
    ("drains", || scenarios::drains(20, Life::ALONE, false)),
    ("drains as a user without privileges, supervised, with a server alongside", || {
        scenarios::drains(20, Life { files: None, ..Life::LOWLY }, true)
    }),
    ("resets in every state", || scenarios::resets(200)),
    ("no descriptors", || scenarios::descriptors_used_up(50, 200)),
    ("ends and declared lengths", || scenarios::ends_and_lengths(2_000)),
    ("rooms that come and go", || scenarios::rooms_come_and_go(2_000, 5)),
    ("a flood of one", || scenarios::flood_of_one(200)),
    ("a flood between workers", || scenarios::mailbox_flood(12, 50_000)),
];

fn main() -> ExitCode {
    if let Err(error) = steadfast_bench::sys::raise_descriptor_limit() {
        eprintln!("soak: the limit on open files stays low: {error}");
    }
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut broken = Vec::new();
    let mut run = 0;
    for (name, attack) in ATTACKS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(&**wanted)) {
            continue;
        }
        run += 1;
        let since = Instant::now();
        // A panic has been reported by its hook: it says which bound was broken.
        match catch_unwind(attack) {
            Ok(Figures(figures)) => {
                println!("ok      {name} ({:.1} s)", since.elapsed().as_secs_f64());
                for (what, value) in figures {
                    println!("        {what}: {value}");
                }
            }
            Err(_) => {
                println!("BROKEN  {name}");
                broken.push(name);
            }
        }
    }
    support::remove_scratch();
    println!("{run} attacks, {} broken", broken.len());
    if run == 0 || !broken.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
