//! A listening TCP socket that nobody reaches any more, and that finishes what it has begun.
//!
//! Closing a listener resets every connection in its queue and every handshake that is half done. Bound
//! to an interface by which none of its clients come, the kernel answers newcomers as if nobody
//! listened (they are refused, and go elsewhere at once), while the last ACK of a handshake that was
//! begun before still finds it. Then it is emptied and closed. No privilege is needed for the first such
//! bind of a socket (SO_BINDTODEVICE, since Linux 5.7).

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use socket2::SockRef;

/// Where the kernel tells of network interfaces (sysfs(5)).
const INTERFACES: &str = "/sys/class/net";

// linux/if.h.
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Interface {
    name: String,
    up: bool,
    loopback: bool,
}

/// How much a socket is out of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refuge {
    /// Nobody comes by this interface.
    Unused(String),
    /// Clients of this machine itself may come by this one (the loopback).
    Local(String),
}

/// Has the kernel refuse newcomers at a listening socket.
///
/// # Errors
/// `NotFound` if there is no interface but those that clients come by; those of setsockopt(2) with
/// SO_BINDTODEVICE.
pub fn refuse_newcomers(listener: impl AsFd) -> io::Result<Refuge> {
    let listener = SockRef::from(&listener);
    let address = listener.local_addr()?.as_socket().map(|address| address.ip());
    let address = address.ok_or(io::ErrorKind::InvalidInput)?;
    let mut outcome = Err(io::Error::new(
        io::ErrorKind::NotFound,
        "there is no network interface but those that clients come by",
    ));
    for refuge in refuges(address, &interfaces(Path::new(INTERFACES))?) {
        let (Refuge::Unused(name) | Refuge::Local(name)) = &refuge;
        match listener.bind_device(Some(name.as_bytes())) {
            Ok(()) => return Ok(refuge),
            // Gone meanwhile, or another network namespace's: this sysfs may be of one.
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

/// Where a listener of this address is out of the way, the best first.
fn refuges(address: IpAddr, interfaces: &[Interface]) -> Vec<Refuge> {
    let unused = |interface: &&Interface| match address.to_canonical().is_loopback() {
        true => !interface.loopback,
        false => !interface.up && !interface.loopback,
    };
    let name = |interface: &Interface| interface.name.clone();
    let mut found: Vec<&Interface> = interfaces.iter().filter(unused).collect();
    // One that is down has no traffic at all.
    found.sort_by_key(|interface| interface.up);
    let found = found.into_iter().map(|interface| Refuge::Unused(name(interface)));
    let loopback =
        interfaces.iter().filter(|it| it.loopback && !address.to_canonical().is_loopback());
    found.chain(loopback.map(|interface| Refuge::Local(name(interface)))).collect()
}

fn interfaces(directory: &Path) -> io::Result<Vec<Interface>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Beside interfaces there may be files (bonding_masters).
        let Ok(flags) = fs::read_to_string(entry.path().join("flags")) else { continue };
        let flags = flags.trim().trim_start_matches("0x");
        let (Ok(flags), Ok(name)) =
            (u32::from_str_radix(flags, 16), entry.file_name().into_string())
        else {
            continue;
        };
        let (up, loopback) = (flags & IFF_UP != 0, flags & IFF_LOOPBACK != 0);
        found.push(Interface { name, up, loopback });
    }
    Ok(found)
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::thread;
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn interface(name: &str, up: bool, loopback: bool) -> Interface {
        Interface { name: name.to_owned(), up, loopback }
    }

    #[test]
    fn the_refuge_is_where_nobody_comes_by() {
        let all = [
            interface("lo", true, true),
            interface("eth0", true, false),
            interface("tunl0", false, false),
        ];
        let of = |address: &str, interfaces: &[Interface]| {
            let refuges = refuges(address.parse().unwrap(), interfaces).into_iter();
            let shown = refuges.map(|refuge| match refuge {
                Refuge::Unused(name) => name,
                Refuge::Local(name) => format!("{name}!"),
            });
            shown.collect::<Vec<_>>().join(" ")
        };
        for address in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(of(address, &all), "tunl0 eth0", "{address}");
        }
        for address in ["0.0.0.0", "::", "192.0.2.7"] {
            assert_eq!(of(address, &all), "tunl0 lo!", "{address}");
            assert_eq!(of(address, &all[..2]), "lo!", "{address}");
        }
        assert_eq!(of("127.0.0.1", &all[..1]), "");
    }

    #[test]
    fn who_is_queued_is_accepted_and_who_comes_is_refused() {
        let (listener, address) = listener();
        let mut queued = TcpStream::connect(address).unwrap();
        match refuse_newcomers(&listener) {
            Ok(_) => {}
            // A machine that has the loopback alone.
            Err(error) => return assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
        let error = TcpStream::connect(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let (mut accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer, queued.local_addr().unwrap());
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(listener);
        queued.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        accepted.set_nonblocking(false).unwrap();
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
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
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        match refuse_newcomers(&listener) {
            Ok(_) => {}
            // A machine that has the loopback alone.
            Err(error) => return assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
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
