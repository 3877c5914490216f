//! What the kernel knows about a TCP connection.
#![allow(unsafe_code)]

use socket2::SockRef;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// A connection's state in the kernel, of TCP_INFO (see tcp(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// How often the oldest segment without an answer has been sent again, since the last answer:
    /// above 0, the peer or the way to it is in trouble.
    pub retransmits: u8,
    /// Segments sent again over the connection's life.
    pub retransmits_total: u32,
    /// Segments sent and not acknowledged.
    pub unacked_segments: u32,
}

/// Asks for TCP_INFO.
///
/// # Errors
/// EOPNOTSUPP or ENOPROTOOPT if `socket` is not a TCP socket.
pub fn info(socket: impl AsFd) -> io::Result<TcpInfo> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` is writable for `size` bytes while the call lasts.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut size,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the structure is plain integers, for which zero is a value; so it is initialised
    // even where an old kernel writes less of it.
    let info = unsafe { info.assume_init() };
    Ok(TcpInfo {
        rtt: Duration::from_micros(info.tcpi_rtt.into()),
        retransmits: info.tcpi_retransmits,
        retransmits_total: info.tcpi_total_retrans,
        unacked_segments: info.tcpi_unacked,
    })
}

/// Bytes in the kernel's send queue, sent or not, that the peer has not acknowledged (SIOCOUTQ).
/// A peer of whom this falls is alive even if it says nothing.
///
/// # Errors
/// EINVAL if `socket` is listening, ENOTTY if it is no socket.
pub fn unacked_bytes(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // TIOCOUTQ is the number that linux/sockios.h calls SIOCOUTQ.
    // SAFETY: this request writes one int, and `bytes` is a valid place for it.
    match unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &mut bytes) } {
        0 => Ok(usize::try_from(bytes).expect("the kernel counts from 0")),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the coming `close()` a reset: what is queued is thrown away, and the kernel keeps nothing
/// for the connection, not even TIME_WAIT. For peers that have earned no better.
///
/// # Errors
/// Those of setsockopt(2): none are to be expected.
pub fn reset_on_close(socket: impl AsFd) -> io::Result<()> {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))
}

/// Lets `listener` hold handshakes half done until their clients send data (TCP_DEFER_ACCEPT).
#[cfg(test)]
pub(super) fn defer_accept(listener: impl AsFd, at_most: Duration) -> io::Result<()> {
    let seconds = libc::c_int::try_from(at_most.as_secs()).expect("a short time");
    // SAFETY: the option is one int, and `seconds` is valid to read from while the call lasts.
    let result = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        (client, server)
    }

    #[track_caller]
    fn wait_until(condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < PATIENCE, "the condition was never met");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn bytes_count_as_unacked_until_the_peer_has_taken_them() {
        let (mut reader, mut writer) = pair();
        assert_eq!(unacked_bytes(&writer).unwrap(), 0);

        // Until the peer's window is closed and our queue full.
        writer.set_nonblocking(true).unwrap();
        let mut written = 0;
        let error = loop {
            match writer.write(&[0; 65_536]) {
                Ok(count) => written += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let unacked = unacked_bytes(&writer).unwrap();
        assert!(0 < unacked && unacked <= written, "{unacked} of {written}");

        reader.read_exact(&mut vec![0; written]).unwrap();
        wait_until(|| unacked_bytes(&writer).unwrap() == 0);
        wait_until(|| info(&writer).unwrap().unacked_segments == 0);
        let info = info(&writer).unwrap();
        assert!(Duration::ZERO < info.rtt && info.rtt < PATIENCE, "{info:?}");
        assert_eq!(info.retransmits, 0);
    }

    #[test]
    fn a_reset_reaches_the_peer() {
        let (mut peer, ours) = pair();
        reset_on_close(&ours).unwrap();
        drop(ours);
        let error = peer.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn other_sockets_are_errors() {
        let (unix, _) = UnixStream::pair().unwrap();
        assert!(info(&unix).is_err());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(unacked_bytes(&listener).is_err());
    }
}
