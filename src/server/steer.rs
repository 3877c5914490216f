//! Where another server listens alongside, it gets the connections that a server which drains no
//! longer wants. Without one they are dropped, to be asked for again
//! ([`Listener::drop_new_connections`](crate::net::listener::Listener::drop_new_connections)), which
//! costs each of them a second.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use socket2::SockRef;

use super::holdings::Holdings;
use crate::base::network::ListenAddr;
use crate::sys::reuseport;

/// Steers new connections past these sockets, address by address, as long as the value is there.
#[derive(Debug)]
pub(super) struct Steered(Vec<OwnedFd>);

impl Steered {
    /// Begins, wherever somebody else listens. Where it cannot be done, nothing is steered.
    pub(super) fn away_from(holdings: &Holdings) -> Self {
        let mut steered = Vec::new();
        for address in holdings.addresses() {
            if matches!(address, ListenAddr::Unix(_)) {
                continue;
            }
            let ours = holdings.listeners().filter(|(at, _)| *at == address);
            match steer(&ours.map(|(_, socket)| socket).collect::<Vec<_>>()) {
                Ok(handle) => steered.extend(handle),
                Err(error) => tracing::debug!(%address, %error, "nothing is steered"),
            }
        }
        Self(steered)
    }
}

impl Drop for Steered {
    fn drop(&mut self) {
        // What was steered would be steered past the others' sockets once ours are gone.
        for socket in &self.0 {
            if let Err(error) = reuseport::steer_nowhere(socket) {
                tracing::debug!(%error, "nothing was steered");
            }
        }
    }
}

/// Steers past `ours`, which are of one address; `None` if nobody else listens there.
fn steer(ours: &[&OwnedFd]) -> io::Result<Option<OwnedFd>> {
    let [first, ..] = ours else {
        return Ok(None);
    };
    let Some(address) = SockRef::from(*first).local_addr()?.as_socket() else {
        return Ok(None);
    };
    let inodes = ours.iter().map(|socket| inode(socket)).collect::<io::Result<Vec<_>>>()?;
    let members = reuseport::listeners(address)?;
    let spared = members.iter().filter(|member| inodes.contains(member)).count();
    if members.len() == spared {
        return Ok(None);
    }
    // Whoever came later has the later places. Should ours be elsewhere, too, because this server
    // has got more workers meanwhile, it empties their queues as it does without any steering.
    reuseport::steer_past(first, spared as u32, members.len() as u32)?;
    tracing::info!(%address, "new connections go to the server alongside");
    first.as_fd().try_clone_to_owned().map(Some)
}

fn inode(socket: &OwnedFd) -> io::Result<u64> {
    Ok(File::from(socket.try_clone()?).metadata()?.ino())
}
