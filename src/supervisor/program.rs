//! From which file and in which directory a service was started. Both are found out once, by its
//! first process, and handed on in the environment: later the file may have been replaced, and a
//! link on the way may point elsewhere.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{env, fs, io};

/// The variables. A process that nobody has started for this service passes them over.
const PROGRAM: &str = "_STEADFAST_PROGRAM";
const DIRECTORY: &str = "_STEADFAST_DIRECTORY";

/// The file that this process runs, also when that has been deleted.
const OWN_FILE: &str = "/proc/self/exe";

static STARTED: OnceLock<Started> = OnceLock::new();

/// How a service was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    program: PathBuf,
    directory: PathBuf,
}

/// Finds it out, at the start of a process; later calls change nothing. `inherits` is whether another
/// process of the service has started this one.
pub fn note_start(inherits: bool) {
    STARTED.get_or_init(|| Started::now(inherits));
}

/// How the service was started that this process is of.
pub fn started() -> &'static Started {
    STARTED.get_or_init(|| Started::now(false))
}

impl Started {
    fn now(inherits: bool) -> Self {
        let inherited = |name| env::var_os(name).filter(|_| inherits).map(PathBuf::from);
        let directory =
            inherited(DIRECTORY).unwrap_or_else(|| directory(env::var_os("PWD").as_deref()));
        let name = env::args_os().next().unwrap_or_default();
        let by_name = find(&name, &directory, env::var_os("PATH").as_deref());
        let candidates: Vec<_> = inherited(PROGRAM).into_iter().chain(by_name).collect();
        Self { program: choose(candidates, Path::new(OWN_FILE)), directory }
    }

    /// The path to start the program by, symbolic links and all: what a link `current` points to may
    /// change.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A path that was given to the service; a relative one is in the directory it was started in,
    /// by that directory's name and not by what it was then.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    /// For the environment of a process of the service that runs this program.
    pub fn environment(&self, program: &Path) -> [(OsString, OsString); 2] {
        [
            (PROGRAM.into(), program.into()),
            (DIRECTORY.into(), self.directory.clone().into_os_string()),
        ]
    }
}

/// The working directory by the name that a shell has for it (`PWD`), if it is one for it.
fn directory(name: Option<&OsStr>) -> PathBuf {
    let name = name.map(Path::new).filter(|name| name.is_absolute());
    match name.filter(|name| is_same(name, Path::new("."))) {
        Some(name) => name.to_owned(),
        None => env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
    }
}

/// What a program's name stands for: a path is one, a mere name is looked for in PATH.
fn find(name: &OsStr, directory: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    if name.as_encoded_bytes().contains(&b'/') {
        let plain = Path::new(name).strip_prefix(".").unwrap_or(Path::new(name));
        return Some(directory.join(plain));
    }
    // An empty entry is the working directory.
    let mut folders = path.map(env::split_paths).into_iter().flatten();
    folders.find_map(|folder| Some(directory.join(folder).join(name)).filter(is_executable))
}

/// Whoever starts a program can call it what he likes: the path has to lead to the file that this
/// process runs. Where that has been replaced already, or is not known, the first one is believed.
fn choose(candidates: Vec<PathBuf>, own: &Path) -> PathBuf {
    let real = || fs::read_link(own).ok().filter(|path| is_same(path, own));
    let named = candidates.iter().find(|path| is_same(path, own)).cloned();
    let chosen = named.or_else(real).or_else(|| candidates.into_iter().next());
    chosen.unwrap_or_else(|| own.to_owned())
}

fn is_same(first: &Path, second: &Path) -> bool {
    let identity = |path| -> io::Result<(u64, u64)> {
        let found = fs::metadata(path)?;
        Ok((found.dev(), found.ino()))
    };
    matches!((identity(first), identity(second)), (Ok(first), Ok(second)) if first == second)
}

fn is_executable(file: &PathBuf) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = env::temp_dir().join(format!("steadfast-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_name_is_found_as_a_shell_would() {
        let folder = Folder::new("find");
        let (first, second) = (folder.path("first"), folder.path("second"));
        fs::create_dir(&first).unwrap();
        fs::create_dir(&second).unwrap();
        fs::write(first.join("server"), "no program").unwrap();
        symlink("/bin/sh", second.join("server")).unwrap();
        let path = env::join_paths([&first, &second]).unwrap();
        let found = |name: &str| find(OsStr::new(name), Path::new("/srv/current"), Some(&path));
        // Executable, and not what the link points to.
        assert_eq!(found("server"), Some(second.join("server")));
        assert_eq!(found("nothing"), None);
        assert_eq!(found(""), None);
        assert_eq!(found("/opt/current/server"), Some("/opt/current/server".into()));
        assert_eq!(found("./server"), Some("/srv/current/server".into()));
        assert_eq!(found("bin/server"), Some("/srv/current/bin/server".into()));
        assert_eq!(find(OsStr::new("server"), Path::new("/"), None), None);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_not_believed() {
        let folder = Folder::new("choose");
        let (real, other, own) = (folder.path("real"), folder.path("other"), folder.path("own"));
        let link = folder.path("link");
        fs::write(&real, "").unwrap();
        fs::write(&other, "").unwrap();
        symlink(&real, &own).unwrap();
        symlink(&real, &link).unwrap();
        let missing = folder.path("missing");
        assert_eq!(choose(vec![other.clone(), link.clone()], &own), link);
        assert_eq!(choose(vec![missing.clone(), other.clone()], &own), real);
        assert_eq!(choose(vec![], &own), real);
        // It has been replaced.
        fs::remove_file(&real).unwrap();
        assert_eq!(choose(vec![missing.clone(), other], &own), missing);
    }

    #[test]
    fn a_directory_has_the_name_that_was_used_if_it_is_one() {
        let current = env::current_dir().unwrap();
        let folder = Folder::new("directory");
        let link = folder.path("link");
        symlink(&current, &link).unwrap();
        assert_eq!(directory(Some(link.as_os_str())), link);
        for name in [None, Some("/"), Some("."), Some("")] {
            assert_eq!(directory(name.map(OsStr::new)), current, "{name:?}");
        }
        let started = Started { program: "/bin/sh".into(), directory: link.clone() };
        assert_eq!(started.resolve(Path::new("a.toml")), link.join("a.toml"));
        assert_eq!(started.resolve(Path::new("/etc/a.toml")), Path::new("/etc/a.toml"));
    }
}
