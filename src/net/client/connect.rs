//! Where to connect to, and the way there: what a client does before it has an event loop.

use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use super::{ClientSettings, ConnectError};
use crate::net::stream::Stream;
use crate::session::handshake::client::{ClientError, ClientHandshake, ClientOptions, ClientUrl};
use crate::sys::rand;

/// A server that says nothing for this long is asked by TCP whether it is still there …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// … this often …
const KEEPALIVE_RETRIES: u32 = 3;
/// … with this time between.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A server's address and what to ask it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: ClientUrl,
    unix: Option<PathBuf>,
}

/// What the request asks for.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Subprotocols to offer, in order of preference.
    pub subprotocols: Vec<String>,
    /// Further header fields, names and values. A Host among them replaces that of the URL.
    pub headers: Vec<(String, String)>,
    /// Whether to offer permessage-deflate.
    pub deflate: bool,
}

impl Endpoint {
    /// Reads `ws://host[:port][/path][?query]`, or `unix:PATH[:/path[?query]]` for a Unix socket.
    ///
    /// # Errors
    /// [`ConnectError::Handshake`] if it is neither, [`ConnectError::Tls`] for `wss`.
    pub fn parse(text: &str) -> Result<Self, ConnectError> {
        let Some(place) = text.strip_prefix("unix:") else {
            let url = ClientUrl::parse(text)?;
            return if url.secure { Err(ConnectError::Tls) } else { Ok(Self { url, unix: None }) };
        };
        let (path, target) = place.split_at(place.find(":/").unwrap_or(place.len()));
        if path.is_empty() {
            return Err(ClientError::BadUrl("it has no path to a socket").into());
        }
        let target = target.strip_prefix(':').unwrap_or("/");
        let url = ClientUrl::parse(&format!("ws://localhost{target}"))?;
        Ok(Self { url, unix: Some(path.into()) })
    }
}

/// Connects and sends the request.
pub(super) fn connect(
    endpoint: &Endpoint,
    wishes: &Wishes,
    settings: &ClientSettings,
) -> Result<(Stream, ClientHandshake), ConnectError> {
    let mut key = [0; 16];
    rand::fill(&mut key).map_err(ConnectError::Random)?;
    let options = ClientOptions {
        key,
        subprotocols: &wishes.subprotocols,
        headers: &wishes.headers,
        deflate: wishes.deflate,
    };
    let handshake = ClientHandshake::new(&endpoint.url, &options)?;
    let timeout = settings.head_limits.handshake_timeout;
    let stream = match &endpoint.unix {
        Some(path) => {
            let mut stream = UnixStream::connect(path).map_err(ConnectError::Unreachable)?;
            stream
                .set_write_timeout(Some(timeout))
                .and_then(|()| stream.write_all(handshake.request()))
                .and_then(|()| stream.set_nonblocking(true))
                .map_err(|error| ConnectError::Unanswered(Some(error)))?;
            Stream::Unix(mio::net::UnixStream::from_std(stream))
        }
        None => {
            let mut stream = connect_tcp(&endpoint.url, Instant::now() + timeout)?;
            let keepalive = TcpKeepalive::new()
                .with_time(KEEPALIVE_IDLE)
                .with_interval(KEEPALIVE_INTERVAL)
                .with_retries(KEEPALIVE_RETRIES);
            stream
                .set_nodelay(true)
                .and_then(|()| SockRef::from(&stream).set_tcp_keepalive(&keepalive))
                .and_then(|()| stream.set_write_timeout(Some(timeout)))
                .and_then(|()| stream.write_all(handshake.request()))
                .and_then(|()| stream.set_nonblocking(true))
                .map_err(|error| ConnectError::Unanswered(Some(error)))?;
            Stream::Tcp(mio::net::TcpStream::from_std(stream))
        }
    };
    Ok((stream, handshake))
}

/// Tries the host's addresses one after the other.
fn connect_tcp(url: &ClientUrl, until: Instant) -> Result<TcpStream, ConnectError> {
    let no_address = |error| ConnectError::NoAddress(url.host.clone(), error);
    let addresses = (url.host.as_str(), url.port).to_socket_addrs().map_err(no_address)?;
    let mut failure = ConnectError::TimedOut;
    for address in addresses {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = ConnectError::Unreachable(error),
        }
    }
    Err(failure)
}
