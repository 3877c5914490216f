//! How many files, sockets included, this process may have open (RLIMIT_NOFILE).
#![allow(unsafe_code)]

use std::io;

/// The limit on open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// What holds now.
    pub soft: u64,
    /// What the process may raise it to by itself.
    pub hard: u64,
}

/// The limit on open files as it is.
///
/// # Errors
/// Those of getrlimit(2): none are to be expected.
pub fn open_files() -> io::Result<OpenFiles> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place to write to while the call lasts.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => Ok(OpenFiles { soft: limit.rlim_cur, hard: limit.rlim_max }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the soft limit to the hard one, and returns what holds then. Shells start processes with
/// 1,024 for the sake of select(2), which is not used here.
///
/// # Errors
/// Those of setrlimit(2): none are to be expected.
pub fn raise_open_files() -> io::Result<OpenFiles> {
    let OpenFiles { soft, hard } = open_files()?;
    if soft < hard {
        set_open_files(OpenFiles { soft: hard, hard })?;
    }
    open_files()
}

fn set_open_files(limit: OpenFiles) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: `limit` is valid to read from while the call lasts.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_goes_up_to_the_hard_one() {
        let hard = open_files().unwrap().hard;
        let soft = hard - 1;
        set_open_files(OpenFiles { soft, hard }).unwrap();
        assert_eq!(open_files().unwrap(), OpenFiles { soft, hard });
        let raised = OpenFiles { soft: hard, hard };
        assert_eq!(raise_open_files().unwrap(), raised);
        assert_eq!(raise_open_files().unwrap(), raised);
    }
}
