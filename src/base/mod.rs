//! Layer 0: small things everything else is made of. No I/O, no clock.

pub mod deflate_params;
pub mod envelope;
pub mod format;
pub mod id;
pub mod limits;
pub mod meter;
pub mod network;
pub mod rate;
pub(crate) mod setting;
pub mod shared;
pub mod slab;
pub mod snapshot;
pub mod spare;
pub(crate) mod syntax;
pub mod text;
pub mod tick;
pub mod wheel;

#[cfg(test)]
pub(crate) mod testing;

pub use deflate_params::DeflateParams;
