//! (layer in progress)

pub mod middleware;
pub mod request;
