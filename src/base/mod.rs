//! Layer 0: small things everything else is made of. No I/O, no clock.

pub mod deflate_params;
pub mod limits;
pub mod slab;
pub mod tick;
pub mod wheel;

#[cfg(test)]
mod testing;

pub use deflate_params::DeflateParams;
