//! (layer in progress)
