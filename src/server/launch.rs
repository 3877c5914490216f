//! Starting the successor: the program this process was started by, with the same arguments,
//! joined to us by a channel.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Child;

use crate::sys::spawn::{self, Program};
use crate::sys::{inherited, packets};

/// Tells a new process that it is a successor: the number of its end of the channel.
pub(super) const VARIABLE: &str = "STEADFAST_HANDOVER_FD";

/// The number of the channel in a new process.
const CHANNEL: RawFd = spawn::NUMBER_MIN;

/// A process that was started, and our end of the channel.
pub(super) struct Launched {
    pub(super) child: Child,
    pub(super) channel: OwnedFd,
}

/// Starts the program anew.
///
/// # Errors
/// It is not there, is no program, or processes or descriptors are lacking.
pub(super) fn launch(binary: Option<&Path>) -> io::Result<Launched> {
    let arguments: Vec<OsString> = env::args_os().collect();
    let path = match binary {
        Some(binary) => binary.to_owned(),
        None => resolve(arguments.first().map_or(OsStr::new(""), OsString::as_os_str))?,
    };
    let (channel, theirs) = packets::pair()?;
    let program = Program {
        path: &path,
        arguments: &arguments,
        environment: &[(VARIABLE.into(), CHANNEL.to_string().into())],
        descriptors: &[(CHANNEL, theirs.as_fd())],
        own_group: false,
    };
    let child = program
        .start()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(Launched { child, channel })
}

/// The path that a program's name stands for: what the shell would run now. Symbolic links are not
/// resolved, so that one that names the current version is followed when it changes.
fn resolve(name: &OsStr) -> io::Result<PathBuf> {
    let path = Path::new(name);
    if path.components().count() > 1 {
        return Ok(path.to_owned());
    }
    let directories = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&directories)
        .map(|directory| directory.join(path))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| io::Error::other(format!("{} is not in PATH", path.display())))
}

/// Our end of the channel, if this process was started as a successor.
///
/// # Errors
/// The variable is there and the channel is not.
pub(super) fn channel_of_environment() -> io::Result<Option<OwnedFd>> {
    let Some(number) = env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let number = number.to_str().and_then(|number| number.parse().ok());
    let number = number.filter(|number| *number >= CHANNEL);
    let number = number.ok_or_else(|| io::Error::other(format!("{VARIABLE} is no number")))?;
    inherited::take(number).map(Some)
}
