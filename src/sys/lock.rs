//! An exclusive lock between processes, by flock(2).
#![allow(unsafe_code)]

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::process;

/// A locked file. The lock ends when the value is dropped or its process ends, however it ends,
/// and all copies of the descriptor are closed.
///
/// The file stays: if it were removed, a process that has just opened it and one that creates it
/// anew would both hold a lock. It is the file that is locked and not its name.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Locks the file at `path`, which is created (empty, mode 0600) if it is missing. Does not
    /// wait: `None` if another process, or another `Lock` of this one, holds it.
    ///
    /// # Errors
    /// `PermissionDenied` for another user's file, whose lock says nothing about us; those of open(2),
    /// ELOOP if the path names a symbolic link; those of flock(2), which some network file systems do
    /// not support.
    pub fn acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // The directory may be one that others write to, such as /tmp.
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        check_owner(path, &file.metadata()?, process::user_id())?;
        loop {
            // SAFETY: flock takes a descriptor, open here, and no memory.
            let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
            if result == 0 {
                return Ok(Some(Self { file }));
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            }
        }
    }
}

/// The descriptor holds the lock on, also in another process: the lock is of the open file.
impl From<Lock> for OwnedFd {
    fn from(lock: Lock) -> Self {
        lock.file.into()
    }
}

/// Root could open anybody's file.
fn check_owner(path: &Path, found: &Metadata, own_uid: u32) -> io::Result<()> {
    let shown = path.display();
    let what = if found.uid() != own_uid {
        format!("{shown} belongs to user {}, not to this server's", found.uid())
    } else if !found.is_file() {
        format!("{shown} is no file to lock")
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::{env, fs};

    /// A directory of one test's own, removed with the value.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path =
                env::temp_dir().join(format!("steadfast-lock-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn one_holds_it_at_a_time() {
        let directory = Directory::new("one");
        let path = directory.0.join("8000.lock");
        let first = Lock::acquire(&path).unwrap();
        assert!(first.is_some());
        assert!(Lock::acquire(&path).unwrap().is_none());
        assert!(Lock::acquire(&directory.0.join("8001.lock")).unwrap().is_some());
        drop(first);
        let second = Lock::acquire(&path).unwrap();
        assert!(second.is_some());
    }

    #[test]
    fn a_copy_of_the_descriptor_keeps_it_locked() {
        let directory = Directory::new("copy");
        let path = directory.0.join("8000.lock");
        let lock = Lock::acquire(&path).unwrap().unwrap();
        let copy = lock.as_fd().try_clone_to_owned().unwrap();
        drop(lock);
        assert!(Lock::acquire(&path).unwrap().is_none());
        drop(copy);
        assert!(Lock::acquire(&path).unwrap().is_some());
    }

    #[test]
    fn the_file_is_for_its_owner_alone_and_no_link_is_followed() {
        let directory = Directory::new("mode");
        let path = directory.0.join("8000.lock");
        let _lock = Lock::acquire(&path).unwrap().unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let link = directory.0.join("link");
        std::os::unix::fs::symlink(directory.0.join("elsewhere"), &link).unwrap();
        let error = Lock::acquire(&link).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        assert!(!directory.0.join("elsewhere").exists());
    }

    #[test]
    fn the_file_of_another_user_is_no_lock() {
        let directory = Directory::new("foreign");
        let path = directory.0.join("8000.lock");
        fs::write(&path, "").unwrap();
        let found = fs::metadata(&path).unwrap();
        assert!(check_owner(&path, &found, process::user_id()).is_ok());
        let error = check_owner(&path, &found, process::user_id() + 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let folder = fs::metadata(&directory.0).unwrap();
        assert!(check_owner(&path, &folder, process::user_id()).is_err());
    }
}
