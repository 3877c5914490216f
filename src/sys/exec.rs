//! Becoming another program in place: same process id, same children, signals still blocked.
//!
//! The standard library's own way unblocks every signal first, and one that is pending would end
//! the process then.
#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::spawn::Strings;

/// Executes `program` in place of this one with all of `arguments`, the first of which is its
/// name, and this process's environment with additions. Descriptors in `kept` are open in it under
/// the same numbers; all others but the standard streams are not, as everything here is opened
/// close-on-exec. Returns only if it fails, and then all is as before.
pub fn replace(
    program: &Path,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
    kept: &[BorrowedFd<'_>],
) -> io::Error {
    match try_replace(program, arguments, environment, kept) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_replace(
    program: &Path,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
    kept: &[BorrowedFd<'_>],
) -> io::Result<std::convert::Infallible> {
    let program = CString::new(program.as_os_str().as_bytes())?;
    let arguments = Strings::new(arguments.iter().cloned())?;
    let environment = Strings::environment(environment)?;
    let keep = kept.iter().try_for_each(|fd| set_flags(*fd, 0));
    let error = match keep {
        Ok(()) => {
            // SAFETY: the strings are there while the call lasts, and both lists end with a null
            // pointer.
            unsafe {
                libc::execve(
                    program.as_ptr(),
                    arguments.pointers.as_ptr(),
                    environment.pointers.as_ptr(),
                )
            };
            io::Error::last_os_error()
        }
        Err(error) => error,
    };
    for fd in kept {
        set_flags(*fd, libc::FD_CLOEXEC)?;
    }
    Err(error)
}

fn set_flags(fd: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: this request takes an integer.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    // A success is tested in tests/supervisor.rs: this process has other tests to run.

    #[test]
    fn after_a_failure_all_is_as_before() {
        let file = File::open("/dev/null").unwrap();
        let error = replace(Path::new("/missing"), &["x".into()], &[], &[file.as_fd()]);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        // SAFETY: this request takes no memory.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
    }
}
