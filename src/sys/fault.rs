//! Dying on purpose: tests of the real program need it to end, or to hang, at a step they choose.
//! Nothing of it is in a program that was built without the feature `fault-points`.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

/// The environment's variable that names a file with `<point>:<how>` in it, or with nothing. A file
/// can be changed while the process runs, and the successor reads the same one.
pub const VARIABLE: &str = "STEADFAST_FAULT";

/// Long enough for the other threads and processes to come to where they wait for this one.
const LATE: Duration = Duration::from_millis(500);

/// How long another process may take to die, and a test to let this one go on.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends or stops this process if this point was chosen: `kill` and `stop` as SIGKILL and SIGSTOP
/// do, `exit` with status 1, `late` as `kill`, but only once all others have done what they can.
/// `panic` panics, once: the file is empty then. `kill <pid>` ends another process, and goes on when that is dead; `hold` goes on when the file
/// says something else, and until then there is a file with `.held` behind its name. After `emfile`
/// this process can open nothing more, after `nothreads` it can start no thread (unless it is
/// root's): its soft limits are at what it has.
pub fn point(name: &str) {
    let Some(path) = env::var_os(VARIABLE).map(PathBuf::from) else {
        return;
    };
    let read = || fs::read_to_string(&path).unwrap_or_default();
    let chosen = read();
    let Some((_, how)) = chosen.trim().split_once(':').filter(|(point, _)| *point == name) else {
        return;
    };
    match how {
        "hold" => {
            let _ = fs::write(path.with_added_extension("held"), name);
            wait_until(|| read() != chosen);
        }
        "kill" => raise(libc::SIGKILL),
        "stop" => raise(libc::SIGSTOP),
        "exit" => process::exit(1),
        "panic" => {
            let _ = fs::write(&path, "");
            panic!("as told at {name}");
        }
        "emfile" => {
            let lowest = fs::File::open("/dev/null").map_or(0, |file| file.as_raw_fd());
            limit(libc::RLIMIT_NOFILE, lowest as libc::rlim_t);
        }
        "nothreads" => limit(libc::RLIMIT_NPROC, 0),
        "late" => {
            thread::sleep(LATE);
            raise(libc::SIGKILL);
        }
        how => match how.strip_prefix("kill ").and_then(|pid| pid.parse().ok()) {
            Some(pid) => kill(pid),
            None => panic!("{VARIABLE}: there is no fault {how}"),
        },
    }
}

/// Ends another process, unless it is dead already.
fn kill(pid: u32) {
    if super::process::is_running(pid) {
        let _ = super::children::kill(pid);
    }
    wait_until(|| !super::process::is_running(pid));
}

fn wait_until(holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
}

fn limit(resource: libc::__rlimit_resource_t, soft: libc::rlim_t) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place to write to, and to read from, while each call lasts.
    let result = unsafe { libc::getrlimit(resource, &mut limit) };
    limit.rlim_cur = soft;
    // SAFETY: as above.
    let result = result | unsafe { libc::setrlimit(resource, &limit) };
    assert_eq!(result, 0, "a soft limit can be lowered");
}

fn raise(signal: libc::c_int) {
    // SAFETY: raise takes a number and touches no memory; neither signal has a handler.
    unsafe { libc::raise(signal) };
}
