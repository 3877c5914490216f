//! Child processes by their id: for a process that outlives its own program, and so has no handles
//! of those it has started before, and for one that is PID 1 and is given the orphans of others.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::signals::Signal;

/// Takes note of a child that has ended, any of them; `None` if none has. Never waits.
///
/// # Errors
/// Those of waitpid(2) but ECHILD (there is no child): none are to be expected.
pub fn reap() -> io::Result<Option<(u32, ExitStatus)>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place to write to while the call lasts.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        match pid {
            0 => return Ok(None),
            1.. => return Ok(Some((pid as u32, ExitStatus::from_raw(status)))),
            _ => {}
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ECHILD) => return Ok(None),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

/// Sends a signal to one process: a child that has not been reaped, or the id may be another's.
///
/// # Errors
/// Those of kill(2); `InvalidInput` for an id that stands for more than one process.
pub fn send(pid: u32, signal: Signal) -> io::Result<()> {
    send_number(pid, signal.number())
}

/// Ends a child that leads a process group, and the group, at once (SIGKILL), under the conditions of
/// [`send`]: what the child has started itself may hold copies of its descriptors.
///
/// # Errors
/// As [`send`].
pub fn kill_group(pid: u32) -> io::Result<()> {
    // SAFETY: the call takes integers alone.
    match unsafe { libc::kill(-positive(pid)?, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends a process at once (SIGKILL), under the conditions of [`send`].
///
/// # Errors
/// As [`send`].
pub fn kill(pid: u32) -> io::Result<()> {
    send_number(pid, libc::SIGKILL)
}

fn send_number(pid: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes integers alone.
    match unsafe { libc::kill(positive(pid)?, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// 0 and negative numbers are process groups, and -1 is every process.
fn positive(pid: u32) -> io::Result<libc::pid_t> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 1);
    pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    // What `reap` does is tested where no other test has children: tests/supervisor.rs.

    #[test]
    fn a_signal_reaches_the_process_it_is_for() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        send(child.id(), Signal::Term).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        kill(child.id()).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn a_group_ends_with_its_leader() {
        use std::io::Read;
        use std::os::unix::process::CommandExt;
        use std::process::Stdio;

        let mut leader = Command::new("sh");
        leader.args(["-c", "sleep 1000 & echo; wait"]).process_group(0).stdout(Stdio::piped());
        let mut leader = leader.spawn().unwrap();
        let mut said = leader.stdout.take().unwrap();
        said.read_exact(&mut [0]).unwrap();
        kill_group(leader.id()).unwrap();
        assert_eq!(leader.wait().unwrap().signal(), Some(libc::SIGKILL));
        // Its child holds the other end, too.
        assert_eq!(said.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn groups_of_processes_are_refused() {
        for pid in [0, u32::MAX, 1 << 31] {
            assert_eq!(kill(pid).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{pid}");
        }
    }
}
