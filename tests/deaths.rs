//! Upgrades of the real binary in which a process dies or hangs, at each step: who owns the
//! connections is never in doubt, and nobody waits for the dead.
//!
//! Runs by `cargo test --features fault-points --test deaths`: a program built so looks at each step
//! whether it is to end there.

mod support;

#[path = "deaths/limits.rs"]
mod limits;
#[path = "deaths/scene.rs"]
mod scene;
#[path = "deaths/shortage.rs"]
mod shortage;
#[path = "deaths/sides.rs"]
mod sides;
#[path = "deaths/signals.rs"]
mod signals;
#[path = "deaths/supervisor.rs"]
mod supervisor;
