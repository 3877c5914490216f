//! Facts about this process.
#![allow(unsafe_code)]

use std::fs;
use std::io;

/// The effective user id.
pub fn user_id() -> u32 {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether a process of this id runs. One that has ended and whose status nobody has taken does
/// not: an orphan's may be there for ever if the first process of a container takes none.
pub fn is_running(pid: u32) -> bool {
    // proc_pid_stat(5): the name, in parentheses, may have any; the state follows it.
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let end_of_name = stat.iter().rposition(|byte| *byte == b')');
    let state = end_of_name.and_then(|end| stat.get(end + 2));
    exists(pid) && !matches!(state, Some(b'Z' | b'X'))
}

/// Whether there is a process of this id, if only one whose status nobody has taken.
fn exists(pid: u32) -> bool {
    let Some(pid) = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0) else {
        return false;
    };
    // SAFETY: kill takes two numbers and no memory; 0 is no signal.
    let result = unsafe { libc::kill(pid, 0) };
    result == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{self, Command};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn what_has_ended_does_not_run_whether_it_is_reaped_or_not() {
        assert!(is_running(process::id()));
        let mut child = Command::new("cat").stdin(process::Stdio::piped()).spawn().unwrap();
        assert!(is_running(child.id()));
        drop(child.stdin.take());
        while is_running(child.id()) {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(exists(child.id()), "its status has not been taken");
        assert!(child.wait().unwrap().success());
        for pid in [0, u32::MAX] {
            assert!(!is_running(pid), "{pid}");
        }
    }
}
