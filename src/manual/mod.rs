//! The manual, as doc pages.

#[doc = include_str!("configuration.md")]
pub mod configuration {}

#[doc = include_str!("limits.md")]
pub mod limits {}
