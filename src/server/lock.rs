//! One server a port: a lock beside the control socket, held while the server runs.
//!
//! Another server of the same user could share the port by SO_REUSEPORT, and the kernel would
//! spread connections over both in silence.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::base::network::ListenAddr;
use crate::control::path;
use crate::sys::lock::Lock;

/// The lock of one port.
#[derive(Debug)]
pub(super) struct PortLock {
    lock: Lock,
}

impl PortLock {
    /// Takes the lock of an address; `None` if it needs none: a Unix socket's path can be bound
    /// only once, and port 0 is never taken.
    ///
    /// # Errors
    /// `AddrInUse` if another server holds it.
    pub(super) fn acquire(
        address: &ListenAddr,
        control: Option<&Path>,
    ) -> io::Result<Option<Self>> {
        let ListenAddr::Tcp(socket) = address else {
            return Ok(None);
        };
        if socket.port() == 0 {
            return Ok(None);
        }
        let directory = path::directory(control);
        let file = directory.join(format!("{}.lock", file_name(&socket.to_string())));
        let locked = path::prepare_directory(&directory).and_then(|()| Lock::acquire(&file));
        match locked {
            Ok(Some(lock)) => Ok(Some(Self { lock })),
            Ok(None) => Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!(
                    "another Steadfast serves {address} (it holds {}); stop it first, or listen elsewhere",
                    file.display()
                ),
            )),
            Err(error) => {
                // Another user can spoil the place, but that keeps no server from starting: the probe
                // of the port itself still stands between two servers.
                tracing::warn!(path = %file.display(), %error, "the port cannot be locked");
                Ok(None)
            }
        }
    }
}

/// The descriptor holds the lock on, also in a successor.
impl From<PortLock> for OwnedFd {
    fn from(PortLock { lock }: PortLock) -> Self {
        lock.into()
    }
}

/// An address as a file's name.
fn file_name(address: &str) -> String {
    address.replace([':', '[', ']', '%'], "_")
}
