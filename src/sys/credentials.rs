//! Who is at the other end of a socket, and in which network it lives.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// Who made the other end of a Unix socket (SO_PEERCRED, see unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// The process at the time of its connect(), listen() or socketpair(); 0 if it is not to be
    /// seen from here. Nothing to trust: of a listener that was passed on, and of a socket pair, it
    /// names whoever made it, and that may be dead.
    pub pid: u32,
    /// The effective user id then.
    pub uid: u32,
    /// The effective group id then.
    pub gid: u32,
}

/// Asks for the credentials of the peer of a connected Unix socket.
///
/// # Errors
/// ENOTSOCK if it is no socket; ENODATA or EINVAL if it is not connected or no Unix socket.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let peer: libc::ucred = option(socket, libc::SO_PEERCRED)?;
    // What is not a connected Unix socket has no peer; the kernel says so by these ids.
    if peer.uid == u32::MAX {
        return Err(io::Error::from_raw_os_error(libc::ENODATA));
    }
    Ok(Credentials { pid: u32::try_from(peer.pid).unwrap_or(0), uid: peer.uid, gid: peer.gid })
}

/// A number that stands for the network namespace of a socket, and for no other while the machine
/// runs (SO_NETNS_COOKIE, Linux 5.14).
///
/// # Errors
/// ENOPROTOOPT on an older kernel; ENOTSOCK if it is no socket.
pub fn network_namespace(socket: impl AsFd) -> io::Result<u64> {
    option(socket, libc::SO_NETNS_COOKIE)
}

/// Structures of integers alone, for which all bytes are valid.
trait Integers: Copy {}

impl Integers for u64 {}
impl Integers for libc::ucred {}

fn option<T: Integers>(socket: impl AsFd, name: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut size = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is writable for `size` bytes while the call lasts.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            value.as_mut_ptr().cast(),
            &mut size,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed before, and all bytes are valid for it.
    Ok(unsafe { value.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process;
    use std::fs::File;
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (one, other) = UnixStream::pair().unwrap();
        let credentials = peer_credentials(&one).unwrap();
        assert_eq!(credentials, peer_credentials(&other).unwrap());
        assert_eq!(credentials.pid, std::process::id());
        assert_eq!(credentials.uid, process::user_id());
    }

    #[test]
    fn sockets_of_one_namespace_have_one_number() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let (unix, _) = UnixStream::pair().unwrap();
        let number = network_namespace(&tcp).unwrap();
        assert_ne!(number, 0);
        assert_eq!(number, network_namespace(&unix).unwrap());
    }

    #[test]
    fn what_has_no_peer_is_an_error() {
        assert!(peer_credentials(TcpListener::bind("127.0.0.1:0").unwrap()).is_err());
        let file = File::open("/dev/null").unwrap();
        let error = peer_credentials(&file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
        assert!(network_namespace(&file).is_err());
    }
}
