//! The operator's end.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::line::{Lines, NoLine};
use super::message::{Failed, Outcome, Progress, Reply, Request, Unreadable, decode, encode};
use crate::sys::credentials::peer_credentials;
use crate::sys::packets::{self, Received};
use crate::sys::process;

/// How long a server may take to let a client in and to take its request.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a server may say nothing. It sends progress several times a second, but may be
/// starved on a busy machine.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Bytes of a reply: a status with all its upgrades has a few thousand.
pub(super) const REPLY_BYTES_MAX: usize = 1024 * 1024;

/// Why a request has no outcome.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens at these paths; why at the first.
    NoServer(Vec<PathBuf>, io::Error),
    /// Somebody else than the user and root listens at this path.
    Foreign(PathBuf, u32),
    /// A reply that cannot be read.
    Unclear(String),
    /// The server has ended the connection without an outcome.
    Ended,
    /// The server says nothing any more.
    Silent,
    /// The connection has failed, or it could not be made.
    Io(PathBuf, io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer(paths, error) => {
                let paths: Vec<String> =
                    paths.iter().map(|path| path.display().to_string()).collect();
                let paths = paths.join(", nor at ");
                write!(formatter, "no Steadfast answers at {paths}: is it running? ({error})")
            }
            Self::Foreign(path, uid) => {
                write!(formatter, "what answers at {} is user {uid}'s", path.display())
            }
            Self::Unclear(what) => write!(formatter, "the server's reply is unclear: {what}"),
            Self::Ended => write!(
                formatter,
                "the server has gone without an outcome; `steadfast status` tells what there is"
            ),
            Self::Silent => {
                write!(formatter, "the server has said nothing for {} s", SILENCE_MAX.as_secs())
            }
            Self::Io(path, error) => write!(formatter, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ClientError {}

/// A connection to a server's control socket.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: UnixStream,
    lines: Lines,
}

impl Client {
    /// Connects to a server of this process's user or of root.
    ///
    /// # Errors
    /// [`ClientError::NoServer`], [`ClientError::Foreign`], [`ClientError::Io`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Self::connect_to_user(path, None)
    }

    /// The same, or to a server of `user`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_to_user(path: &Path, user: Option<u32>) -> Result<Self, ClientError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoServer(vec![path.to_owned()], error)
            }
            _ => ClientError::Io(path.to_owned(), error),
        };
        let stream = connect(path).map_err(failed)?;
        let uid = peer_credentials(&stream).map_err(failed)?.uid;
        if !may_trust(uid, process::user_id(), user) {
            return Err(ClientError::Foreign(path.to_owned(), uid));
        }
        Ok(Self { path: path.to_owned(), stream, lines: Lines::new(REPLY_BYTES_MAX) })
    }

    /// The connection, for another thread to shut down: the request under way ends with
    /// [`ClientError::Ended`] then, and is taken back as if this value had been dropped.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn connection(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// Sends a request and waits for its outcome. A value that is dropped half-way takes back an
    /// upgrade if that is still possible.
    ///
    /// # Errors
    /// Any but [`ClientError::NoServer`] and [`ClientError::Foreign`].
    pub fn request(
        &mut self,
        request: &Request,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<Outcome, ClientError> {
        match self.stream.write_all(&encode(request)) {
            // It may have been refused already, and the server says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result.map_err(|error| ClientError::Io(self.path.clone(), error))?,
        }
        self.outcome(&mut on_progress)
    }

    /// Asks the server to hand everything over to this process.
    ///
    /// # Errors
    /// The outer error as [`request`](Self::request); the inner one if the server refuses.
    pub fn take_over(mut self) -> Result<Result<TakingOver, Failed>, ClientError> {
        let failed = |path: &Path, error| ClientError::Io(path.to_owned(), error);
        let sent = self.stream.write_all(&encode(&Request::HandOver));
        sent.map_err(|error| failed(&self.path, error))?;
        // The first reply is read by hand: a descriptor may come with it.
        let (mut line, mut descriptors) = (Vec::new(), Vec::new());
        while line.last() != Some(&b'\n') {
            let mut chunk = [0; 4096];
            match packets::receive(&self.stream, &mut chunk, &mut descriptors, Some(SILENCE_MAX)) {
                Ok(Received::Packet(len)) => line.extend_from_slice(&chunk[..len]),
                Ok(Received::Nothing) => return Err(ClientError::Silent),
                Ok(Received::Ended) => return Err(ClientError::Ended),
                Err(error) => return Err(failed(&self.path, error)),
            }
        }
        match (decode(&line[..line.len() - 1]), descriptors.pop()) {
            (Ok(Reply::Channel), Some(channel)) => Ok(Ok(TakingOver { channel, client: self })),
            (Ok(Reply::Outcome(Outcome::Failed(failed))), None) => Ok(Err(failed)),
            (Ok(_), _) => Err(ClientError::Unclear("it does not hand over".to_owned())),
            (Err(why), _) => Err(ClientError::Unclear(why.to_string())),
        }
    }

    fn outcome(&mut self, on_progress: &mut dyn FnMut(Progress)) -> Result<Outcome, ClientError> {
        loop {
            let line = self.lines.next(&mut self.stream, SILENCE_MAX).map_err(|why| match why {
                NoLine::Ended => ClientError::Ended,
                NoLine::TimedOut => ClientError::Silent,
                NoLine::TooLong => ClientError::Unclear("it has no end".to_owned()),
                NoLine::Io(error) => ClientError::Io(self.path.clone(), error),
            })?;
            match decode(&line) {
                Ok(Reply::Progress(progress)) => on_progress(progress),
                Ok(Reply::Outcome(outcome)) => return Ok(outcome),
                Ok(Reply::Channel) => {
                    return Err(ClientError::Unclear("nobody has asked for a channel".to_owned()));
                }
                Err(why @ Unreadable::Version(_)) => {
                    let text = format!("{why}: use the program that the server runs");
                    return Err(ClientError::Unclear(text));
                }
                Err(why) => return Err(ClientError::Unclear(why.to_string())),
            }
        }
    }
}

/// A server that hands everything over to this process.
#[derive(Debug)]
pub struct TakingOver {
    /// Our end of the channel over which it does.
    pub channel: OwnedFd,
    /// Its end calls the handover off, if that is still possible.
    client: Client,
}

impl TakingOver {
    /// How it has ended, as the server says.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn outcome(mut self) -> Result<Outcome, ClientError> {
        self.client.outcome(&mut |_| {})
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // It holds for connect() too, which waits while the listener's queue is full.
    socket.set_write_timeout(Some(CONNECT_TIME_MAX))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

/// Whether what a server says may be believed: its user is the operator's, root or the one he has
/// named. Root may operate everybody's, but is to know whose it is: anybody can put a socket
/// somewhere.
fn may_trust(uid: u32, own_uid: u32, named: Option<u32>) -> bool {
    uid == own_uid || uid == 0 || Some(uid) == named
}

#[cfg(test)]
mod tests {
    use super::may_trust;

    #[test]
    fn ones_own_server_and_roots_and_that_of_a_named_user_are_trusted() {
        for (uid, own_uid, named, expected) in [
            (5, 5, None, true),
            (0, 5, None, true),
            (6, 5, None, false),
            (6, 5, Some(6), true),
            (6, 5, Some(7), false),
            (0, 0, None, true),
            (5, 0, None, false),
            (5, 0, Some(5), true),
            (5, 0, Some(0), false),
        ] {
            let trusted = may_trust(uid, own_uid, named);
            assert_eq!(trusted, expected, "user {own_uid}, server of {uid}, named {named:?}");
        }
    }
}
