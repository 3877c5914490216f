//! Starting a program with given descriptors at given numbers, and with our signals blocked.
//!
//! The standard library starts it, up to the point where the new process would execute the
//! program; from there on the hook in here goes on itself. For the library keeps a descriptor of
//! its own there, to tell the parent of a failure, and that may have just the number a descriptor
//! is to be handed over at.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::ptr;

use super::signals::all_signals;

/// The lowest number a descriptor can be handed over at: those below are the standard streams.
pub const NUMBER_MIN: RawFd = 3;

/// A program to start. The standard streams, the working directory and the user are this process's.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// The file to execute; it is not looked for in PATH.
    pub path: &'a Path,
    /// All of them: the first is the name the program is called by (`argv[0]`).
    pub arguments: &'a [OsString],
    /// Added to the environment of this process, or replacing what is there.
    pub environment: &'a [(OsString, OsString)],
    /// What is handed over, and the number each has there, from [`NUMBER_MIN`] up. All others but
    /// the standard streams are closed in the program.
    pub descriptors: &'a [(RawFd, BorrowedFd<'a>)],
    /// Whether it starts a process group of its own, so that Ctrl-C in a terminal does not reach it.
    pub own_group: bool,
}

impl Program<'_> {
    /// Starts it. It begins with every [`Signal`](super::signals::Signal) blocked, until it takes
    /// them over: none that comes before is lost or ends it.
    ///
    /// # Errors
    /// Those of fork(2) and execve(2), among them `NotFound` and `PermissionDenied`, with the path;
    /// `InvalidInput` for text with a zero byte in it, or a number below [`NUMBER_MIN`] or given
    /// twice; ENOSYS or EINVAL of close_range(2) before Linux 5.11.
    pub fn start(&self) -> io::Result<Child> {
        let (mut failure, writer) = io::pipe()?;
        let mut child_side = ChildSide::new(self, writer.into())?;
        // What is executed is what the hook executes; this is the name in error messages alone.
        let mut command = Command::new(self.path);
        if self.own_group {
            command.process_group(0);
        }
        // SAFETY: the hook runs in the new process, of one thread. It makes system calls alone and
        // neither allocates nor locks.
        unsafe { command.pre_exec(move || child_side.execute()) };
        let mut child = command.spawn()?;
        // Its copy of the writing end is with the hook.
        drop(command);
        let mut errno = [0; 4];
        match failure.read_exact(&mut errno) {
            // Closed by execve, unwritten.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(child),
            result => {
                // Whether it is reaped here or by whoever waits for all children.
                drop(child.wait());
                let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
                let text = format!("{}: {error}", self.path.display());
                result.and(Err(io::Error::new(error.kind(), text)))
            }
        }
    }
}

/// What the new process needs, made before the fork: after it, nothing may be allocated.
struct ChildSide {
    path: CString,
    arguments: Strings,
    environment: Strings,
    /// The number now, later that of a copy out of the way; and the number it is to have.
    descriptors: Vec<(RawFd, RawFd)>,
    /// Above every number that is asked for.
    free_from: RawFd,
    signals: libc::sigset_t,
    failure: OwnedFd,
}

impl ChildSide {
    fn new(program: &Program<'_>, failure: OwnedFd) -> io::Result<Self> {
        let mut numbers: Vec<RawFd> = program.descriptors.iter().map(|entry| entry.0).collect();
        numbers.sort_unstable();
        let is_twice = numbers.windows(2).any(|pair| pair[0] == pair[1]);
        if is_twice || numbers.first().is_some_and(|first| *first < NUMBER_MIN) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "descriptors are handed over at different numbers from 3 up",
            ));
        }
        let descriptors = program.descriptors.iter();
        Ok(Self {
            path: CString::new(program.path.as_os_str().as_bytes())?,
            arguments: Strings::new(program.arguments.iter().cloned())?,
            environment: Strings::environment(program.environment)?,
            descriptors: descriptors.map(|(number, fd)| (fd.as_raw_fd(), *number)).collect(),
            free_from: numbers.last().map_or(NUMBER_MIN, |last| last.saturating_add(1)),
            signals: all_signals(),
            failure,
        })
    }

    /// Becomes the program, or reports why not and ends the process. Does not return.
    fn execute(&mut self) -> io::Result<()> {
        let mut failure = self.failure.as_raw_fd();
        let is_placed = self.place(&mut failure);
        // SAFETY: system calls on a descriptor, and on the memory of `self`, which outlives them:
        // both lists end with a null pointer, and their strings belong to them.
        unsafe {
            if is_placed {
                libc::execve(
                    self.path.as_ptr(),
                    self.arguments.pointers.as_ptr(),
                    self.environment.pointers.as_ptr(),
                );
            }
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            let bytes = errno.to_ne_bytes();
            libc::write(failure, bytes.as_ptr().cast(), bytes.len());
            libc::_exit(127)
        }
    }

    /// Puts each descriptor at its number, `failure` out of their way, and blocks the signals.
    /// `false` if a call has failed. For the new process alone: it changes what numbers mean that
    /// others may hold.
    fn place(&mut self, failure: &mut RawFd) -> bool {
        // First away from the numbers that are asked for, so that none overwrites another.
        for number in self.descriptors.iter_mut().map(|entry| &mut entry.0).chain([&mut *failure]) {
            // SAFETY: this request takes an integer.
            let moved = unsafe { libc::fcntl(*number, libc::F_DUPFD_CLOEXEC, self.free_from) };
            if moved < 0 {
                return false;
            }
            *number = moved;
        }
        let (first, last) = (NUMBER_MIN as libc::c_uint, libc::c_uint::MAX);
        // SAFETY: the call takes integers alone. (Not every libc has a function for it.)
        let closed =
            unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
        if closed != 0 {
            return false;
        }
        for (from, to) in &self.descriptors {
            // SAFETY: the call takes integers, and nothing else goes on in this process that holds
            // the numbers. The copy is not closed by exec.
            if unsafe { libc::dup2(*from, *to) } < 0 {
                return false;
            }
        }
        // The library may have changed the mask after the fork.
        // SAFETY: the set is initialised; the old mask is not asked for.
        unsafe { libc::sigprocmask(libc::SIG_BLOCK, &self.signals, ptr::null_mut()) == 0 }
    }
}

/// Strings as execve wants them.
pub(super) struct Strings {
    /// Each points into `_owned`; the last is null.
    pub(super) pointers: Vec<*const libc::c_char>,
    _owned: Vec<CString>,
}

// SAFETY: the pointers are to strings the value owns, which nobody changes.
unsafe impl Send for Strings {}
// SAFETY: as above.
unsafe impl Sync for Strings {}

impl Strings {
    /// The environment of this process with `additions`, which replace what is there.
    pub(super) fn environment(additions: &[(OsString, OsString)]) -> io::Result<Self> {
        let mut environment: BTreeMap<OsString, OsString> = env::vars_os().collect();
        environment.extend(additions.iter().cloned());
        Self::new(environment.into_iter().map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            entry
        }))
    }

    pub(super) fn new(strings: impl IntoIterator<Item = OsString>) -> io::Result<Self> {
        let owned = strings
            .into_iter()
            .map(|string| CString::new(string.as_bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Ok(Self { pointers, _owned: owned })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::PipeReader;
    use std::os::fd::AsFd;

    fn strings<const N: usize>(texts: [&str; N]) -> Vec<OsString> {
        texts.map(OsString::from).to_vec()
    }

    fn shell<'a>(
        arguments: &'a [OsString],
        descriptors: &'a [(RawFd, BorrowedFd<'a>)],
    ) -> Program<'a> {
        let path = Path::new("/bin/sh");
        Program { path, arguments, environment: &[], descriptors, own_group: false }
    }

    #[track_caller]
    fn succeed(mut child: Child) {
        assert!(child.wait().unwrap().success());
    }

    fn read(mut reader: PipeReader) -> String {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn descriptors_come_at_their_numbers_and_no_other_does() {
        let (reader, writer) = io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        // One that is not close-on-exec, as a library may leave open.
        // SAFETY: this request takes an integer and opens a descriptor that is ours alone.
        let left_open = unsafe { libc::fcntl(null.as_raw_fd(), libc::F_DUPFD, 3) };
        // Not a pipeline, for which the shell would open some; and more follows the command, so
        // that the shell does not become it.
        let script = "echo hello >&7; ls /proc/$$/fd >&7; exit 0";
        let arguments = strings(["sh", "-c", script]);
        let descriptors = [(3, null.as_fd()), (7, writer.as_fd())];
        let child = shell(&arguments, &descriptors).start().unwrap();
        // SAFETY: opened above.
        unsafe { libc::close(left_open) };
        drop(writer);
        let text = read(reader);
        succeed(child);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("hello"));
        // Shells keep some of their own from 10 up.
        assert_eq!(lines.filter(|fd| fd.len() == 1).collect::<Vec<_>>(), ["0", "1", "2", "3", "7"]);
    }

    #[test]
    fn numbers_may_be_those_of_each_other() {
        let (first_reader, first) = io::pipe().unwrap();
        let (second_reader, second) = io::pipe().unwrap();
        let (a, b) = (first.as_raw_fd(), second.as_raw_fd());
        let script = format!("echo first > /proc/self/fd/{b}; echo second > /proc/self/fd/{a}");
        let arguments = strings(["sh", "-c", &script]);
        let descriptors = [(b, first.as_fd()), (a, second.as_fd())];
        let child = shell(&arguments, &descriptors).start().unwrap();
        drop((first, second));
        assert_eq!(read(first_reader), "first\n");
        assert_eq!(read(second_reader), "second\n");
        succeed(child);
    }

    #[test]
    fn every_low_number_can_be_used() {
        // Among them is the one the standard library's own descriptor has there.
        let null = File::open("/dev/null").unwrap();
        let descriptors: Vec<_> = (3..200).map(|number| (number, null.as_fd())).collect();
        let arguments = strings(["sh", "-c", "exit 0"]);
        succeed(shell(&arguments, &descriptors).start().unwrap());
        let missing = Program { path: Path::new("/missing"), ..shell(&arguments, &descriptors) };
        let error = missing.start().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains(&missing.path.display().to_string()), "{error}");
    }

    #[test]
    fn names_and_variables_are_as_given() {
        let (reader, writer) = io::pipe().unwrap();
        let script = "echo \"$0 $1 $STEADFAST_TEST\" >&3; cat /proc/$$/cmdline >&3; exit 0";
        let arguments = strings(["name", "-c", script, "zero", "one"]);
        let environment = [(OsString::from("STEADFAST_TEST"), OsString::from("two"))];
        let descriptors = [(3, writer.as_fd())];
        let program = Program { environment: &environment, ..shell(&arguments, &descriptors) };
        let child = program.start().unwrap();
        drop(writer);
        let text = read(reader);
        succeed(child);
        assert!(text.starts_with("zero one two\nname\0-c\0"), "{text}");
    }

    #[test]
    fn signals_are_blocked() {
        // Not the shell, which may clear the mask. It runs until its input is closed.
        let (reader, writer) = io::pipe().unwrap();
        let arguments = strings(["cat", "/proc/self/fd/3"]);
        let descriptors = [(3, reader.as_fd())];
        let program = Program { path: Path::new("/bin/cat"), ..shell(&arguments, &descriptors) };
        let child = program.start().unwrap();
        drop(reader);
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        drop(writer);
        succeed(child);
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
        let ours = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];
        for signal in ours {
            assert_ne!(blocked & 1 << (signal - 1), 0, "{signal} in {blocked:x}");
        }
    }

    #[test]
    fn a_group_of_its_own_if_asked_for() {
        let arguments = strings(["sh", "-c", "read line <&3"]);
        for own_group in [false, true] {
            let (reader, writer) = io::pipe().unwrap();
            let descriptors = [(3, reader.as_fd())];
            let program = Program { own_group, ..shell(&arguments, &descriptors) };
            let mut child = program.start().unwrap();
            let pid = child.id() as libc::pid_t;
            // SAFETY: the call takes an integer alone.
            let is_leader = unsafe { libc::getpgid(pid) } == pid;
            drop(writer);
            child.wait().unwrap();
            assert_eq!(is_leader, own_group);
        }
    }

    #[test]
    fn what_cannot_be_started_is_an_error() {
        let arguments = strings(["x"]);
        let missing = Program { path: Path::new("/missing"), ..shell(&arguments, &[]) };
        let error = missing.start().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains(&missing.path.display().to_string()), "{error}");
        let directory = Program { path: Path::new("/"), ..shell(&arguments, &[]) };
        assert_eq!(directory.start().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let zero = strings(["a\0b"]);
        assert_eq!(shell(&zero, &[]).start().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let null = File::open("/dev/null").unwrap();
        for numbers in [[2, 3], [3, 3]] {
            let descriptors = numbers.map(|number| (number, null.as_fd()));
            let error = shell(&arguments, &descriptors).start().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
