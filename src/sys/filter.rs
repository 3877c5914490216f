//! A listening TCP socket that takes no new connections while it finishes those it has.
//!
//! Closing a listener resets every connection in its accept queue and every handshake that is
//! half done. To stop without resetting anybody: drop new SYNs here, accept until EAGAIN, then
//! close. A client whose SYN is dropped sends it again after a second, and by then meets another
//! process on the port, or is refused.

use socket2::{SockFilter, SockRef};
use std::io;
use std::os::fd::AsFd;

// Classic BPF (linux/bpf_common.h).
const LOAD_BYTE_AT: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// RFC 9293 §3.1: the byte with the control bits, and two of them.
const CONTROL_BITS_AT: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

const KEEP_ALL_BYTES: u32 = u32::MAX;
const DROP: u32 = 0;

/// From now on the kernel drops every segment to `listener` that asks for a new connection (SYN
/// without ACK). The final ACK of a handshake begun before still passes, and so does everything
/// on connections accepted from it: they inherit the filter, which does not concern them.
///
/// `listener` is a TCP socket; for a Unix socket nothing like it is needed.
///
/// # Errors
/// Those of setsockopt(2) with SO_ATTACH_FILTER: ENOMEM, if the socket's option memory is full.
pub fn drop_new_connections(listener: impl AsFd) -> io::Result<()> {
    // For a TCP socket, offset 0 is the first byte of the TCP header.
    let program = [
        SockFilter::new(LOAD_BYTE_AT, 0, 0, CONTROL_BITS_AT),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, DROP),
        SockFilter::new(RETURN, 0, 0, KEEP_ALL_BYTES),
    ];
    SockRef::from(&listener).attach_filter(&program)
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::thread;
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(20);
    /// For what is not to happen.
    const A_WHILE: Duration = Duration::from_millis(200);

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn accept(listener: &TcpListener) -> Option<SocketAddr> {
        match listener.accept() {
            Ok((_, address)) => Some(address),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn who_is_queued_is_accepted_and_who_comes_is_not() {
        let (listener, address) = listener();
        let queued = TcpStream::connect(address).unwrap();
        drop_new_connections(&listener).unwrap();

        let comes = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let error = comes.connect_timeout(&address.into(), A_WHILE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(accept(&listener), Some(queued.local_addr().unwrap()));
        assert_eq!(accept(&listener), None);
    }

    /// Lets `listener` hold handshakes half done until their clients send data (TCP_DEFER_ACCEPT).
    fn defer_accept(listener: impl AsFd, at_most: Duration) -> io::Result<()> {
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

    /// With TCP_DEFER_ACCEPT the handshake stays half done on the server's side until there is
    /// data: the only way to hold one there on loopback.
    #[test]
    fn a_half_done_handshake_is_finished_and_its_connection_works() {
        let (listener, address) = listener();
        defer_accept(&listener, PATIENCE).unwrap();
        let mut half_done = TcpStream::connect(address).unwrap();
        assert_eq!(accept(&listener), None);

        drop_new_connections(&listener).unwrap();
        half_done.write_all(b"hello").unwrap();
        let start = Instant::now();
        let mut accepted = loop {
            match listener.accept() {
                Ok((accepted, _)) => break accepted,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(start.elapsed() < PATIENCE, "the last ACK did not pass");
            thread::sleep(Duration::from_millis(1));
        };
        drop(listener);
        accepted.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = [0; 5];
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        half_done.write_all(b"again").unwrap();
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"again");
    }
}
