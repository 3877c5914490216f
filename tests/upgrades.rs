//! Upgrades in every form: by all entries, between formats, and with deaths at each step.
//!
//! Runs twice: as everything does, and with `--all-features`, where programs die or hang at the step
//! that a test chooses.

#[cfg(feature = "fault-points")]
mod deaths;
#[path = "upgrades/entries.rs"]
mod entries;
// Built with the other format itself, this one would be the other program.
#[cfg(not(feature = "format-next"))]
#[path = "upgrades/formats.rs"]
mod formats;
mod golden;
mod support;
