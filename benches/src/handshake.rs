//! The client's side of TCP and of the opening handshake (RFC 6455 §4.1), as far as load needs it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// The server must connect and answer within this time.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Longest head of a response.
pub const HEAD_BYTES_MAX: usize = 4096;
/// Key and answer of RFC 6455 §1.3. One pair for all connections needs no SHA-1 here.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What to open.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// The server.
    pub address: SocketAddr,
    /// Path and query.
    pub path: &'a str,
    /// The value of Sec-WebSocket-Extensions.
    pub extensions: Option<&'a str>,
    /// SO_RCVBUF, set before the connection is made.
    pub receive_bytes: Option<usize>,
}

impl Opening<'_> {
    /// The request, up to the blank line.
    pub fn request(&self) -> String {
        let Self { address, path, extensions, .. } = self;
        let extensions = extensions
            .map(|extensions| format!("Sec-WebSocket-Extensions: {extensions}\r\n"))
            .unwrap_or_default();
        format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
             {extensions}\r\n"
        )
    }

    /// A socket for connection `number`, bound and not connected.
    ///
    /// Sources alternate between 127.0.0.1 and 127.0.0.4: 20,000 connections to one port would use
    /// up one address's ephemeral ports.
    pub fn socket(&self, number: usize) -> Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        if let Some(bytes) = self.receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        let source = Ipv4Addr::new(127, 0, 0, 1 + (number % 4) as u8);
        socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket)
    }

    /// Connects and shakes hands, blocking. Returns a stream that does not block, and the
    /// response's head.
    pub fn open(&self, number: usize) -> Result<(TcpStream, String)> {
        let socket = self.socket(number)?;
        socket.connect(&self.address.into())?;
        // A reset at the end leaves no TIME_WAIT to fill up the ports.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut stream = TcpStream::from(socket);

        stream.write_all(self.request().as_bytes())?;
        let mut head = Vec::new();
        // Nothing follows it: nobody has sent a message yet.
        while !head.ends_with(b"\r\n\r\n") {
            let mut buffer = [0; 1024];
            let len = stream.read(&mut buffer).context("awaiting the handshake")?;
            ensure!(len > 0, "the server closed instead of a handshake");
            head.extend_from_slice(&buffer[..len]);
            ensure!(head.len() <= HEAD_BYTES_MAX, "no end of the response's head");
        }
        let head = String::from_utf8(head)?;
        if !is_accepted(&head) {
            bail!("handshake refused: {head}");
        }
        stream.set_nonblocking(true)?;
        Ok((stream, head))
    }
}

/// Whether a response's head accepts the handshake.
pub fn is_accepted(head: &str) -> bool {
    head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT)
}
