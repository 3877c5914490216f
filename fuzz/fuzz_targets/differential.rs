//! The same bytes to our decoder and to tungstenite's; `compare.rs` lists where they may differ.

#![no_main]

#[path = "../../tests/differential/compare.rs"]
mod compare;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| compare::assert_agreement(bytes));
