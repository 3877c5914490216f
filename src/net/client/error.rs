//! Why a connection never opened.

use std::fmt;
use std::io;

use crate::http::HeadError;
use crate::session::handshake::client::ClientError;

/// Why a connection never opened.
#[derive(Debug)]
pub enum ConnectError {
    /// The URL or what is to be sent is wrong, or the server's 101 is.
    Handshake(ClientError),
    /// The URL asks for TLS, which is not spoken here.
    Tls,
    /// The host's name has no address.
    NoAddress(String, io::Error),
    /// No connection to any of its addresses; the last one's error.
    Unreachable(io::Error),
    /// The connection broke, or ended, before the answer was complete.
    Unanswered(Option<io::Error>),
    /// No complete answer in time.
    TimedOut,
    /// The answer is no HTTP.
    BadHead(HeadError),
    /// The server answered something else than 101.
    Refused {
        /// Its status.
        status: u16,
        /// Its reason phrase, without control characters.
        phrase: String,
        /// The beginning of the body: what the server has to say, at most 16 KiB.
        body: Vec<u8>,
    },
    /// The system has no randomness.
    Random(io::Error),
}

impl ConnectError {
    /// Whether the caller asked for what cannot be, whatever the server.
    pub fn is_usage(&self) -> bool {
        use ClientError::{BadHeader, BadSubprotocol, BadUrl};
        let is_ours =
            |error: &ClientError| matches!(error, BadUrl(_) | BadHeader(_) | BadSubprotocol(_));
        match self {
            Self::Handshake(error) => is_ours(error),
            Self::Tls => true,
            _ => false,
        }
    }
}

impl From<ClientError> for ConnectError {
    fn from(error: ClientError) -> Self {
        Self::Handshake(error)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(error) => error.fmt(f),
            Self::Tls => f.write_str("wss:// needs TLS, which is not supported yet; use ws://"),
            Self::NoAddress(host, error) => write!(f, "{host} has no address: {error}"),
            Self::Unreachable(error) => write!(f, "cannot connect: {error}"),
            Self::Unanswered(None) => {
                f.write_str("the server ended the connection without an answer")
            }
            Self::Unanswered(Some(error)) => {
                write!(f, "the connection broke before the answer: {error}")
            }
            Self::TimedOut => f.write_str("the server did not answer in time"),
            Self::BadHead(error) => write!(f, "the answer is not HTTP as it should be: {error}"),
            Self::Refused { status, phrase, .. } if phrase.is_empty() => {
                write!(f, "the server answered {status}")
            }
            Self::Refused { status, phrase, .. } => {
                write!(f, "the server answered {status} {phrase}")
            }
            Self::Random(error) => write!(f, "no random numbers: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {}
