//! Why a connection does not move to another process.

use std::borrow::Cow;
use std::fmt;

/// A connection stays where it is when the others are handed over, and is closed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotMovable {
    reason: Cow<'static, str>,
}

impl NotMovable {
    /// With the reason, for logs and for the report of the handover.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into() }
    }
}

impl fmt::Display for NotMovable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for NotMovable {}
