//! A connected socket of either kind. TLS will be a third.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockRef};

/// A connected, non-blocking socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP, with TCP_NODELAY.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Registers for both directions, edge-triggered, once and for all.
    ///
    /// # Errors
    /// Those of epoll_ctl.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interest),
            Self::Unix(stream) => stream.register(registry, token, interest),
        }
    }

    /// Takes over a socket that another process has opened, and that is non-blocking already.
    ///
    /// # Errors
    /// It is no connected stream socket of a kind we serve.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<Self> {
        match SockRef::from(&descriptor).domain()? {
            Domain::UNIX => Ok(Self::Unix(UnixStream::from_std(descriptor.into()))),
            Domain::IPV4 | Domain::IPV6 => Ok(Self::Tcp(TcpStream::from_std(descriptor.into()))),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes it out of an epoll. To be called before it is given up while another process holds
    /// it, for epoll would go on watching what the descriptor stands for.
    ///
    /// # Errors
    /// Those of epoll_ctl.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }

    /// Ends both directions, for every process that holds the socket.
    ///
    /// # Errors
    /// Those of shutdown, as a rule that the peer is gone.
    pub fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        }
    }

    /// Sends a FIN behind what has been written.
    ///
    /// # Errors
    /// Those of shutdown, as a rule that the peer is gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(pieces),
            Self::Unix(stream) => stream.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
