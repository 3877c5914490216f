//! The file of a listening Unix socket: made without a race, and removed only if it is still ours.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::base::network::Access;
use crate::sys::groups;
use crate::sys::lock::Lock;

/// How long another server may take to bind at the same path before this one gives up.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// A socket's path, and which file is meant by it: another one may be there later.
#[derive(Debug, Clone)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode; `None` if there was no file.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    /// The one that is at `path` now.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: identity(path) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there yet: whatever cleans a directory up may have removed it, and then nobody
    /// reaches the socket any more.
    pub fn is_there(&self) -> bool {
        self.identity.is_some() && identity(&self.path) == self.identity
    }

    /// Removes it, unless it has gone or another file is there.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove(&self) -> io::Result<()> {
        if self.is_there() { fs::remove_file(&self.path) } else { Ok(()) }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Binds a non-blocking socket at `path` and listens, in the place of one that a killed server has
/// left. The file has its mode and its group before anybody can connect.
///
/// A lock beside the path, which stays there, keeps another server from doing so at the same time.
///
/// # Errors
/// `AddrInUse` if a server answers there, `AlreadyExists` for a file that is no socket, `InvalidInput`
/// for a path of more than 107 bytes; those of bind(2) and of [`grant`].
pub fn bind(path: &Path, access: &Access, backlog: i32) -> io::Result<(Socket, SocketFile)> {
    let address = SockAddr::unix(path).map_err(|error| {
        let text = format!("{} is no path for a socket: {error}", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })?;
    let _lock = lock_beside(path)?;
    remove_stale(path, &address)?;
    let socket = new_socket()?;
    socket.bind(&address)?;
    let file = SocketFile::at(path);
    match grant(path, access).and_then(|()| socket.listen(backlog)) {
        Ok(()) => Ok((socket, file)),
        Err(error) => {
            let _ = file.remove();
            Err(error)
        }
    }
}

/// Gives the file of a socket its mode and its group, whatever the umask is.
///
/// # Errors
/// `NotFound` if there is no such group; those of chmod(2) and chown(2): a user without privileges may
/// give a file to the groups that he is in.
pub fn grant(path: &Path, access: &Access) -> io::Result<()> {
    if let Some(group) = &access.group {
        let failed = |error: io::Error| {
            io::Error::new(error.kind(), format!("the group {group} cannot be given: {error}"))
        };
        let id = groups::id(group).map_err(failed)?;
        unix::fs::chown(path, None, Some(id)).map_err(failed)?;
    }
    fs::set_permissions(path, Permissions::from_mode(access.mode))
}

fn new_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// `None` if the lock is not to be had by rights: in a directory that others may write to, another
/// user's file must not keep a server from starting.
fn lock_beside(path: &Path) -> io::Result<Option<Lock>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match Lock::acquire(Path::new(&name)) {
            Ok(None) if Instant::now() < deadline => thread::sleep(LOCK_RETRY),
            Ok(None) => return Err(io::ErrorKind::AddrInUse.into()),
            Ok(lock) => return Ok(lock),
            // The directory is not there, say: binding tells.
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the socket's path cannot be locked");
                return Ok(None);
            }
        }
    }
}

/// Removes a socket on which nobody answers. Does not wait: a server whose queue is full is one.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let text = format!("{} is there and no socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match new_socket()?.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A path in a directory of one test's own, removed with the value.
    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("steadfast-socket-{}-{count}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            fs::create_dir(&directory).unwrap();
            Self(directory)
        }

        fn path(&self) -> PathBuf {
            self.0.join("ws.sock")
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn kind(path: &Path) -> io::ErrorKind {
        bind(path, &Access::ALL, 1).unwrap_err().kind()
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let place = Place::new();
        let path = place.path();
        let (first, _) = bind(&path, &Access { mode: 0o600, group: None }, 16).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(kind(&path), io::ErrorKind::AddrInUse);
        drop(first);
        let (_second, file) = bind(&path, &Access::ALL, 16).unwrap();
        UnixStream::connect(&path).unwrap();
        file.remove().unwrap();
        fs::write(&path, "text").unwrap();
        assert_eq!(kind(&path), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        assert_eq!(kind(&place.0.join("x".repeat(120))), io::ErrorKind::InvalidInput);
        assert_eq!(kind(Path::new("/missing/ws.sock")), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_server_whose_queue_is_full_is_not_waited_for() {
        let place = Place::new();
        let path = place.path();
        let (_listener, _) = bind(&path, &Access::ALL, 0).unwrap();
        let address = SockAddr::unix(&path).unwrap();
        // A blocking connect would wait from here on until somebody accepts.
        let mut waiting = Vec::new();
        while let Ok(socket) =
            new_socket().and_then(|socket| socket.connect(&address).map(|()| socket))
        {
            waiting.push(socket);
        }
        assert_eq!(kind(&path), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn of_many_that_bind_at_once_one_does() {
        let place = Place::new();
        let path = place.path();
        // Left by one that was killed: each of them finds that nobody answers.
        drop(bind(&path, &Access::ALL, 16).unwrap());
        let bound: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| bind(&path, &Access::ALL, 16))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (bound, failed): (Vec<_>, Vec<_>) = bound.into_iter().partition(Result::is_ok);
        assert_eq!(bound.len(), 1);
        for error in failed.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn only_ones_own_file_is_removed() {
        let place = Place::new();
        let path = place.path();
        let (first, file) = bind(&path, &Access::ALL, 16).unwrap();
        fs::rename(&path, place.0.join("kept.sock")).unwrap();
        let (_second, others) = bind(&path, &Access::ALL, 16).unwrap();
        file.remove().unwrap();
        UnixStream::connect(&path).unwrap();
        drop(first);
        others.remove().unwrap();
        assert!(!path.exists());
        others.remove().unwrap();
    }
}
