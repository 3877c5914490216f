//! Upgrades of the real binary in which a process dies or hangs, at each step: who owns the
//! connections is never in doubt, and nobody waits for the dead.
//!
//! Runs by `cargo test --all-features --test upgrades deaths`: a program built so looks at each step
//! whether it is to end there.

mod limits;
mod scene;
mod shortage;
mod sides;
mod signals;
mod supervisor;
mod workers;
