//! Listening sockets.
//!
//! Each worker has a TCP listener of its own on the same address (SO_REUSEPORT), among which the
//! kernel spreads new connections. A Unix socket has one queue, which all workers accept from.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::app::Peer;
use crate::base::network::{ListenAddr, UnixAddr};
use crate::net::socket_file::{self, SocketFile};
use crate::net::stream::Stream;

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn. Large, for
/// the storm of reconnects after another server's crash.
const BACKLOG: i32 = 4_096;

/// A listening, non-blocking socket of one worker.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket; the same for all workers.
    Unix(UnixListener),
}

impl Listener {
    /// Accepts one connection.
    ///
    /// # Errors
    /// `WouldBlock` if none waits; EMFILE and its like.
    pub fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().map(|(stream, peer)| (Stream::Tcp(stream), peer.into()))
            }
            Self::Unix(listener) => {
                listener.accept().map(|(stream, _)| (Stream::Unix(stream), Peer::default()))
            }
        }
    }

    /// Takes over a listening socket that another process has opened for `address`, and that is
    /// non-blocking already.
    pub fn adopt(address: &ListenAddr, descriptor: OwnedFd) -> Self {
        match address {
            ListenAddr::Tcp(_) => Self::Tcp(TcpListener::from_std(descriptor.into())),
            ListenAddr::Unix(_) => Self::Unix(UnixListener::from_std(descriptor.into())),
        }
    }

    /// Registers for new connections, edge-triggered.
    ///
    /// # Errors
    /// Those of epoll_ctl.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Self::Unix(listener) => listener.register(registry, token, Interest::READABLE),
        }
    }

    /// Takes it out of an epoll. To be called before it is given up while another process holds
    /// it, for epoll would go on watching what the descriptor stands for.
    ///
    /// # Errors
    /// Those of epoll_ctl.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.deregister(registry),
            Self::Unix(listener) => listener.deregister(registry),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// An address that is ours: one listener for each worker.
#[derive(Debug)]
pub struct Bound {
    /// The address, with the port that was given if 0 was asked for.
    pub address: ListenAddr,
    /// One for each worker.
    pub listeners: Vec<Listener>,
    /// Removes a Unix socket's path when it is dropped.
    pub unlink: Option<Unlink>,
}

/// A socket's file that is removed when this is dropped, unless another one is at its path by then.
#[derive(Debug)]
pub struct Unlink(SocketFile);

impl Unlink {
    /// For a path whose socket lives on in another process, or is to be removed with this one.
    pub fn new(path: &Path) -> Self {
        Self(SocketFile::at(path))
    }

    /// Leaves the path: its socket lives on in another process.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unlink {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

/// A socket beside those that listen on an address of ours: it joins their group of SO_REUSEPORT.
/// It draws no connections until it [`listen`]s itself.
///
/// # Errors
/// Those of bind(2): the group is another user's.
pub fn bind_beside(address: SocketAddr, only_v6: bool) -> io::Result<Listener> {
    let socket = tcp_socket(address, only_v6)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(Listener::Tcp(TcpListener::from_std(socket.into())))
}

/// Lets a bound socket listen, by whichever descriptor of it.
///
/// # Errors
/// Those of listen(2).
pub fn listen(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).listen(BACKLOG)
}

/// How TCP sockets are bound.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// Beside another server of the same user's that has done so with SO_REUSEPORT, too, if there is
    /// one.
    pub beside: bool,
    /// An IPv6 address is bound for IPv6 alone, as the IPv4 address is bound on its own (IPV6_V6ONLY);
    /// else the unspecified one serves both.
    pub only_v6: bool,
}

/// Whether a TCP socket serves IPv6 alone.
///
/// # Errors
/// Those of getsockopt(2).
pub fn is_only_v6(socket: &impl AsFd) -> io::Result<bool> {
    SockRef::from(socket).only_v6()
}

/// Binds an address for `workers` workers. TCP sockets have to [`listen`] yet.
///
/// # Errors
/// `AddrInUse` if anybody else listens there, another Steadfast with SO_REUSEPORT included unless
/// this is to be `beside` it.
pub fn bind(address: &ListenAddr, workers: usize, how: How) -> io::Result<Bound> {
    match address {
        ListenAddr::Tcp(address) => bind_tcp(*address, workers, how),
        ListenAddr::Unix(address) => bind_unix(address, workers),
    }
}

fn bind_tcp(address: SocketAddr, workers: usize, how: How) -> io::Result<Bound> {
    if !how.beside {
        // SO_REUSEPORT alone would let a second server of the same user share the port in silence.
        let probe = tcp_socket(address, how.only_v6)?;
        probe.bind(&address.into())?;
    }
    let mut address = address;
    let mut listeners = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = tcp_socket(address, how.only_v6)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        if let Some(bound) = socket.local_addr()?.as_socket() {
            address = bound;
        }
        listeners.push(Listener::Tcp(TcpListener::from_std(socket.into())));
    }
    Ok(Bound { address: ListenAddr::Tcp(address), listeners, unlink: None })
}

fn tcp_socket(address: SocketAddr, only_v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Whatever net.ipv6.bindv6only says.
        socket.set_only_v6(only_v6)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it, which saves a system call each.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn bind_unix(address: &UnixAddr, workers: usize) -> io::Result<Bound> {
    let (socket, file) = socket_file::bind(&address.path, &address.access, BACKLOG)?;
    let unlink = Some(Unlink(file));
    let listeners = (0..workers)
        .map(|_| Ok(Listener::Unix(UnixListener::from_std(socket.try_clone()?.into()))))
        .collect::<io::Result<_>>()?;
    Ok(Bound { address: ListenAddr::Unix(address.clone()), listeners, unlink })
}
