//! Facts about this process.
#![allow(unsafe_code)]

/// The effective user id.
pub fn user_id() -> u32 {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether there is a process of this id, if only one whose status nobody has taken.
pub fn exists(pid: u32) -> bool {
    let Some(pid) = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0) else {
        return false;
    };
    // SAFETY: kill takes two numbers and no memory; 0 is no signal.
    let result = unsafe { libc::kill(pid, 0) };
    result == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}
