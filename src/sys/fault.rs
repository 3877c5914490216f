//! Dying on purpose: tests of the real program need it to end, or to hang, at a step they choose.
//! Nothing of it is in a program that was built without the feature `fault-points`.
#![allow(unsafe_code)]

use std::time::Duration;
use std::{env, fs, process, thread};

/// The environment's variable that names a file with `<point>:<how>` in it, or with nothing. A file
/// can be changed while the process runs, and the successor reads the same one.
pub const VARIABLE: &str = "STEADFAST_FAULT";

/// Long enough for the other threads and processes to come to where they wait for this one.
const LATE: Duration = Duration::from_millis(500);

/// Ends or stops this process if this point was chosen: `kill` and `stop` as SIGKILL and SIGSTOP
/// do, `exit` with status 1, `late` as `kill`, but only once all others have done what they can.
pub fn point(name: &str) {
    let chosen = env::var_os(VARIABLE).and_then(|path| fs::read_to_string(path).ok());
    let chosen = chosen.unwrap_or_default();
    let Some((_, how)) = chosen.trim().split_once(':').filter(|(point, _)| *point == name) else {
        return;
    };
    match how {
        "kill" => raise(libc::SIGKILL),
        "stop" => raise(libc::SIGSTOP),
        "exit" => process::exit(1),
        "late" => {
            thread::sleep(LATE);
            raise(libc::SIGKILL);
        }
        how => panic!("{VARIABLE}: there is no fault {how}"),
    }
}

fn raise(signal: libc::c_int) {
    // SAFETY: raise takes a number and touches no memory; neither signal has a handler.
    unsafe { libc::raise(signal) };
}
