//! Every `unsafe` of the package, one small function a system call.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Has the process that `command` will start run on one core only, with all descriptors the hard
/// limit allows, with INT at its default action (a shell's background jobs ignore it), and die with
/// the thread that starts it.
pub fn confine(command: &mut Command, core: usize) {
    // SAFETY: the closure runs between fork and exec and makes only system calls, which are
    // async-signal-safe; it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            let mut cores: libc::cpu_set_t = mem::zeroed();
            libc::CPU_SET(core, &mut cores);
            check(libc::sched_setaffinity(0, size_of_val(&cores), &cores))?;
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            if libc::signal(libc::SIGINT, libc::SIG_DFL) == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
            raise_descriptor_limit()
        });
    }
}

/// Has the process that `command` will start be sent INT when the thread that starts it ends, with
/// INT at its default action and all descriptors the hard limit allows. INT, so that a supervisor
/// ends its server, too.
pub fn end_with_parent(command: &mut Command) {
    // SAFETY: as in `confine`.
    unsafe {
        command.pre_exec(|| {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT))?;
            if libc::signal(libc::SIGINT, libc::SIG_DFL) == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
            raise_descriptor_limit()
        });
    }
}

/// Raises the soft limit on open descriptors to the hard one.
pub fn raise_descriptor_limit() -> io::Result<()> {
    // SAFETY: a plain struct of integers, for which all zeros is a value.
    let mut limit: libc::rlimit = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a live local of the type the call expects.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })
}

/// CPU time (user and system) that all threads of process `pid` have used, to the nanosecond.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the pointer is to a live local of the type the call expects.
    let errno = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &mut clock) };
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
    }
    clock_time(clock)
}

/// CPU time that all threads of this process have used.
pub fn own_cpu_time() -> io::Result<Duration> {
    clock_time(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn clock_time(clock: libc::clockid_t) -> io::Result<Duration> {
    // SAFETY: a plain struct of integers, for which all zeros is a value.
    let mut time: libc::timespec = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a live local of the type the call expects.
    check(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32))
}

/// Sends `signal` to process `pid`.
pub fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(pid.cast_signed(), signal) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
