//! Layer 0: what the standard library, mio and socket2 do not offer of the system. Every `unsafe`
//! of the crate is in here; one small file a mechanism.

pub mod allocator;
pub mod bell;
pub mod children;
pub mod clock;
pub mod credentials;
pub mod descriptors;
pub mod exec;
#[cfg(feature = "fault-points")]
pub mod fault;
pub mod groups;
pub mod inherited;
pub mod interfaces;
pub mod lock;
pub mod memory;
pub mod memory_limits;
pub mod packets;
pub mod pidfd;
pub mod poll;
pub mod process;
pub mod rand;
pub mod receive;
pub mod reuseport;
pub mod signals;
pub mod spawn;
pub mod stderr;
pub mod terminal;
