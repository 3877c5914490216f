//! The control socket's listener: bound by a server that starts, inherited by a successor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::{Domain, SockRef, Type};

use super::path;
use crate::base::network::Access;
use crate::net::socket_file::{self, SocketFile};

/// Connections that may wait to be accepted: operators come one at a time.
const BACKLOG: i32 = 16;

/// Listens on a control socket. Dropping it leaves the path alone: it may be a successor's by then.
#[derive(Debug)]
pub struct ControlListener {
    /// Never blocks: several processes may accept from it during a handover, and which of them a
    /// connection goes to is known only by accepting it.
    listener: UnixListener,
    file: SocketFile,
}

impl ControlListener {
    /// Listens at `path`, in a directory made for it if there is none; takes the place of a socket
    /// that a server which was killed has left behind.
    ///
    /// # Errors
    /// `AddrInUse` if a server answers there, `AlreadyExists` for a file that is no socket,
    /// `PermissionDenied` for a directory that others may use; `InvalidInput` for a path of more
    /// than 107 bytes.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        path::prepare_directory(&path::directory(Some(&path)))?;
        let bound = socket_file::bind(&path, &Access { mode: 0o600, group: None }, BACKLOG);
        let (socket, file) = bound.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => in_use(&path),
            _ => error,
        })?;
        Ok(Self { listener: OwnedFd::from(socket).into(), file })
    }

    /// Goes on with a listener that another process has bound and passed on.
    ///
    /// # Errors
    /// `InvalidInput` if it is no listening Unix socket with a path.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = SockRef::from(&fd);
        let is_listener = socket.domain()? == Domain::UNIX
            && socket.r#type()? == Type::STREAM
            && socket.is_listener()?;
        let address = socket.local_addr()?;
        let path = address.as_pathname().filter(|_| is_listener).map(Path::to_owned);
        let Some(path) = path else {
            let text = "what was passed on is no control socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        Ok(Self { listener: fd.into(), file: SocketFile::at(&path) })
    }

    /// The same listener by another path: where it has been called, in whatever the file system
    /// looks like from here.
    #[must_use]
    pub fn called_at(self, path: &Path) -> Self {
        Self { listener: self.listener, file: SocketFile::at(path) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Whether somebody has removed its file, or put another one in its place.
    pub fn is_lost(&self) -> bool {
        !self.file.is_there()
    }

    /// Stops listening for good, and removes the socket's file unless it is another one's by now.
    /// Not after a handover: the successor listens there.
    pub fn remove(self) {
        if let Err(error) = self.file.remove() {
            tracing::warn!(path = %self.path().display(), %error, "the control socket stays");
        }
    }

    /// A copy for the thread that serves it.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl AsFd for ControlListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn in_use(path: &Path) -> io::Error {
    let shown = path.display();
    let text =
        format!("another Steadfast answers at {shown}; give this one a `control` of its own");
    io::Error::new(io::ErrorKind::AddrInUse, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::Directory;
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    #[test]
    fn its_file_is_for_the_owner_and_goes_at_the_end() {
        let directory = Directory::new("bind");
        let path = directory.path().join("new/8000.sock");
        let listener = ControlListener::bind(&path).unwrap();
        assert_eq!(listener.path(), path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        listener.remove();
        assert!(!path.exists());
    }

    #[test]
    fn one_whose_file_is_gone_knows() {
        let directory = Directory::new("lost");
        let path = directory.path().join("8000.sock");
        let first = ControlListener::bind(&path).unwrap();
        assert!(!first.is_lost());
        fs::remove_file(&path).unwrap();
        assert!(first.is_lost());
        let inherited = ControlListener::from_fd(first.as_fd().try_clone_to_owned().unwrap());
        assert!(inherited.unwrap().is_lost());
        let second = ControlListener::bind(&path).unwrap();
        assert!(first.is_lost() && !second.is_lost());
        // It is not the first one's to remove.
        first.remove();
        assert!(!second.is_lost());
    }

    #[test]
    fn one_listens_at_a_time_and_a_dead_one_is_replaced() {
        let directory = Directory::new("stale");
        let path = directory.path().join("8000.sock");
        let first = ControlListener::bind(&path).unwrap();
        let error = ControlListener::bind(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(path.exists(), "as after a kill");
        let second = ControlListener::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(second);
    }

    #[test]
    fn the_path_of_another_socket_is_left_alone() {
        let directory = Directory::new("another");
        let path = directory.path().join("8000.sock");
        let first = ControlListener::bind(&path).unwrap();
        fs::rename(&path, directory.path().join("kept.sock")).unwrap();
        let second = ControlListener::bind(&path).unwrap();
        first.remove();
        assert!(path.exists());
        second.remove();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_or_too_long_is_refused() {
        let directory = Directory::new("file");
        let path = directory.path().join("file");
        fs::write(&path, "text").unwrap();
        let error = ControlListener::bind(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        let long = directory.path().join("x".repeat(120));
        let error = ControlListener::bind(&long).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }

    #[test]
    fn it_is_passed_on_by_its_descriptor() {
        let directory = Directory::new("pass");
        let path = directory.path().join("8000.sock");
        let first = ControlListener::bind(&path).unwrap();
        let passed_on = first.as_fd().try_clone_to_owned().unwrap();
        drop(first);
        let second = ControlListener::from_fd(passed_on).unwrap();
        assert_eq!(second.path(), path);
        UnixStream::connect(&path).unwrap();
        second.remove();
        assert!(!path.exists());
    }

    #[test]
    fn another_descriptor_is_refused() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        for fd in [OwnedFd::from(stream), tcp.into(), file.into()] {
            let number = fd.as_raw_fd();
            assert!(ControlListener::from_fd(fd).is_err(), "{number}");
        }
    }
}
