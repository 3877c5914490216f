//! The library without its binary: sessions cut at every point, beside another implementation, and in
//! an example's server.

mod differential;
#[path = "library/example.rs"]
mod example;
#[path = "support/hear.rs"]
mod hear;
mod split;
