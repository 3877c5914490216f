//! A server as it lives in the wild: below its supervisor, perhaps as a user without privileges,
//! with few files. All its processes are found by a folder of its own in their environment.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{
    Server, WAIT, free_address, fresh_path, is_alive, patience, scratch, steadfast, wait_until,
};

/// As whom and how a server lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// With a supervisor above it.
    pub supervised: bool,
    /// Another user than the one of the test, if that is root.
    pub user: Option<u32>,
    /// Its limits of open files, soft and hard.
    pub files: Option<(u32, u32)>,
}

impl Life {
    /// In one process, as whoever runs the test.
    pub const ALONE: Self = Self { supervised: false, user: None, files: None };

    /// With a supervisor, as whoever runs the test.
    pub const SUPERVISED: Self = Self { supervised: true, user: None, files: None };

    /// With a supervisor, as a user with few rights and few files.
    pub const LOWLY: Self = Self { supervised: true, user: Some(65_534), files: Some((200, 300)) };
}

/// How often to look through all processes of the machine.
const LOOK: Duration = Duration::from_millis(20);

/// Where the processes of a server have what is theirs.
pub struct House {
    folder: PathBuf,
    pub supervised: bool,
}

impl House {
    /// A folder of this user's alone.
    pub fn new(life: Life) -> Self {
        let folder = accessible(fresh_path(".house"), life.user);
        fs::create_dir_all(&folder).expect("a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("a folder of ours");
        if let Some(uid) = user(life) {
            std::os::unix::fs::chown(&folder, Some(uid), Some(uid)).expect("root's right");
        }
        Self { folder, supervised: life.supervised }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whose it is, if it is not root's, who believes nobody else unless told to.
    pub fn user(&self) -> Option<u32> {
        let owner = fs::metadata(&self.folder).expect("a folder").uid();
        (owner != 0).then_some(owner)
    }

    /// Its processes that have not ended.
    pub fn processes(&self) -> Vec<u32> {
        let mark = [b"XDG_RUNTIME_DIR=", self.folder.as_os_str().as_encoded_bytes()].concat();
        let all = fs::read_dir("/proc").expect("processes").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let has_mark = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == mark)
        };
        pids.filter(|pid| has_mark(pid) && is_alive(*pid)).collect()
    }

    /// Ends all of them.
    pub fn clear(&self) {
        let until = Instant::now() + WAIT;
        loop {
            let processes = self.processes();
            if processes.is_empty() || Instant::now() > until {
                return;
            }
            for pid in processes {
                kill(pid, "KILL");
            }
            thread::sleep(LOOK);
        }
    }
}

impl Server {
    /// Starts it to live so, and waits until it serves.
    pub fn start_living(life: Life, config: &str, environment: &[(&str, &Path)]) -> Self {
        Self::start_by(life, config, |house, mut command| {
            command.envs(environment.iter().copied());
            as_user(life, command, house)
        })
    }

    /// The same, with its command as `shape` makes it.
    pub fn start_by(life: Life, config: &str, shape: impl Fn(&House, Command) -> Command) -> Self {
        for _ in 0..5 {
            let house = House::new(life);
            let address = free_address();
            let config_path = house.folder.join("config.toml");
            fs::write(&config_path, config).expect("a written configuration");
            let log = house.folder.join("log");
            let mut command = steadfast();
            command.arg("serve").args((!life.supervised).then_some("--no-supervisor"));
            command.args(["--listen", &address.to_string(), "--config"]).arg(&config_path);
            command.env("XDG_RUNTIME_DIR", &house.folder).envs(patience(config));
            let child = shape(&house, command)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(&log).expect("a log file"))
                .process_group(0)
                .spawn()
                .expect("the binary starts");
            let (pid, house) = (child.id(), Some(house));
            let mut server =
                Self { child, pid, address, config: config_path, log, fds_base: 0, house };
            if server.comes_up() {
                server.follow_status();
                server.fds_base = server.fds();
                return server;
            }
            let log = server.log();
            assert!(log.contains("cannot listen"), "the server did not start:\n{log}");
        }
        panic!("the server found no free port");
    }

    /// The house of one that was started to live in one.
    pub fn house(&self) -> &House {
        self.house.as_ref().expect("it was started in one")
    }

    /// The file with its configuration.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The process that was started: the supervisor if there is one.
    pub fn first_pid(&self) -> u32 {
        self.child.id()
    }

    /// Its status, as JSON; `None` if nobody answers.
    pub fn try_status(&self) -> Option<String> {
        let output = self.verb("status").arg("--json").stderr(Stdio::null()).output();
        let output = output.expect("the binary starts");
        output.status.success().then(|| String::from_utf8(output.stdout).expect("UTF-8"))
    }

    /// Its status, as JSON, once somebody answers.
    #[track_caller]
    pub fn status(&self) -> String {
        let mut status = None;
        wait_until("a status", || {
            status = self.try_status();
            status.is_some()
        });
        status.expect("found above")
    }

    /// Whether it serves, if its log goes nowhere.
    pub(super) fn serves_in_silence(&self) -> bool {
        let log = fs::read_link(format!("/proc/{}/fd/2", self.first_pid()));
        log.is_ok_and(|log| log == Path::new("/dev/full")) && self.try_status().is_some()
    }

    /// Finds out which process serves.
    #[track_caller]
    pub fn follow_status(&mut self) {
        let mut found = None;
        wait_until("a process that serves", || {
            let status = self.try_status().unwrap_or_default();
            let told = number_in(&status, "pid");
            // As it is known to itself: that may be another number than outside.
            let processes = self.house().processes().into_iter();
            found = told.and_then(|told| processes.into_iter().find(|pid| own(*pid) == Some(told)));
            found.is_some()
        });
        self.pid = found.expect("found above");
    }

    /// After the death of the server: whoever serves now, below the same supervisor if there is
    /// one, is the server.
    #[track_caller]
    pub fn follow_the_dead(&mut self) {
        let dead = self.pid;
        if !self.house().supervised {
            return self.follow();
        }
        wait_until("its end", || !is_alive(dead));
        self.follow_status();
        assert_ne!(self.pid, dead);
        assert!(is_alive(self.first_pid()), "the supervisor lives");
    }

    /// Waits until its processes are these.
    #[track_caller]
    pub fn wait_for_processes(&self, expected: &[u32]) {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let until = Instant::now() + WAIT;
        loop {
            let mut processes = self.house().processes();
            processes.sort_unstable();
            if processes == expected {
                return;
            }
            assert!(Instant::now() < until, "there are {processes:?}, not {expected:?}");
            thread::sleep(LOOK);
        }
    }
}

/// The command as this user and within these limits.
pub fn as_user(life: Life, command: Command, house: &House) -> Command {
    let mut command = match life.files {
        None => command,
        Some((soft, hard)) => {
            let mut limited = Command::new("prlimit");
            limited.args([&format!("--nofile={soft}:{hard}"), "--"]);
            limited.arg(accessible_program(command.get_program(), life.user));
            limited.args(command.get_args());
            with_environment_of(limited, &command)
        }
    };
    if let Some(uid) = user(life) {
        // Somewhere it may be.
        command.uid(uid).gid(uid).current_dir(&house.folder);
    }
    command
}

/// `command` with the changes of the environment that `other` has.
pub fn with_environment_of(mut command: Command, other: &Command) -> Command {
    for (name, value) in other.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The user that a process of this life is started as, if it is another one.
fn user(life: Life) -> Option<u32> {
    let uid = life.user?;
    if is_root() {
        return Some(uid);
    }
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        say_untested(
            "servers of another user, as this is not root: they are the test's own user's",
        );
    });
    None
}

/// Whether this test runs as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").expect("processes").uid() == 0
}

/// Says that something is not tested, whether or not the test's output is shown.
pub fn say_untested(what: &str) {
    let _ = writeln!(io::stderr(), "\nNOT TESTED: {what}");
}

/// `path`, or one with the same name that another user reaches.
fn accessible(path: PathBuf, user: Option<u32>) -> PathBuf {
    let passable = |folder: &Path| {
        fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
    };
    match user {
        Some(_) if !path.ancestors().skip(1).all(passable) => {
            let folder = std::env::temp_dir().join(scratch().file_name().expect("a name"));
            fs::create_dir_all(&folder).expect("a scratch folder");
            folder.join(path.file_name().expect("a name"))
        }
        _ => path,
    }
}

/// The same for a program, which is copied there.
fn accessible_program(program: &OsStr, user: Option<u32>) -> PathBuf {
    static COPYING: Mutex<()> = Mutex::new(());
    let path = PathBuf::from(program);
    let reached = accessible(path.clone(), user);
    let _one_at_a_time = COPYING.lock().unwrap_or_else(PoisonError::into_inner);
    if !reached.exists() {
        copy_program(&path, &reached);
    }
    reached
}

/// Copies a program that is to be started. Another process does it: our descriptor of the copy would
/// be that of whatever another thread of ours is about to start, too, and a program that somebody may
/// write to is not executed (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--").args([from, to]).status();
    assert!(copied.expect("cp runs").success(), "a copy of {}", from.display());
}

/// A new file that is to be started, with this content and mode; see [`copy_program`].
pub fn write_program(content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    let (source, program) = (fresh_path(".txt"), fresh_path(".sh"));
    fs::write(&source, content).expect("a written file");
    copy_program(&source, &program);
    fs::set_permissions(&program, fs::Permissions::from_mode(mode)).expect("a file of ours");
    program
}

/// A program where every user may start it.
pub fn accessible_copy(program: &Path) -> PathBuf {
    accessible_program(program.as_os_str(), Some(u32::MAX))
}

/// Sends a signal to a process, or with a minus before its number to a group.
pub fn kill(target: impl ToString, signal: &str) {
    let mut kill = Command::new("kill");
    kill.args(["-s", signal, "--", &target.to_string()]).stderr(Stdio::null());
    kill.status().expect("kill runs");
}

/// The number of this name in a line of JSON.
pub fn number_in(json: &str, name: &str) -> Option<u32> {
    let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The parent of a process, if it is there.
pub fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold spaces: the state, the parent.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// A process's number in the innermost namespace it is in.
fn own(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().last()?.parse().ok()
}
