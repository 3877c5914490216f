//! Which file a process was started from, and so which one its successor is to be.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The file a program's name stands for now: a path as it is, symbolic links and all, so that what
/// a link `current` points to may change; a mere name is looked for in PATH. What is not found
/// there was started in some other way: then it is the file this process runs.
///
/// # Errors
/// The working directory is gone, or the file is not known.
pub fn resolve(name: &OsStr) -> io::Result<PathBuf> {
    match find(name, env::var_os("PATH").as_deref())? {
        Some(path) => Ok(path),
        // Ends with " (deleted)" once it has been replaced, and then cannot be started.
        None => env::current_exe(),
    }
}

fn find(name: &OsStr, path: Option<&OsStr>) -> io::Result<Option<PathBuf>> {
    if Path::new(name).components().count() != 1 || name.as_encoded_bytes().contains(&b'/') {
        return match name.is_empty() {
            true => Ok(None),
            false => std::path::absolute(name).map(Some),
        };
    }
    let folders = path.map(env::split_paths).into_iter().flatten();
    // An empty entry is the working directory.
    let mut files =
        folders.map(|folder| std::path::absolute(Path::new(".").join(folder).join(name)));
    files
        .find_map(|file| file.map(|file| is_executable(&file).then_some(file)).transpose())
        .transpose()
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_name_is_found_as_a_shell_would() {
        let folder = env::temp_dir().join(format!("steadfast-program-{}", std::process::id()));
        let (first, second) = (folder.join("first"), folder.join("second"));
        fs::create_dir_all(&first).unwrap();
        fs::create_dir_all(&second).unwrap();
        fs::write(first.join("server"), "no program").unwrap();
        symlink("/bin/sh", second.join("server")).unwrap();
        let path = env::join_paths([&first, &second]).unwrap();
        let found = |name: &str| find(OsStr::new(name), Some(&path)).unwrap();
        // Executable, and not what the link points to.
        assert_eq!(found("server"), Some(second.join("server")));
        assert_eq!(found("nothing"), None);
        assert_eq!(found(""), None);
        let current = env::current_dir().unwrap();
        assert_eq!(found("/opt/current/server"), Some("/opt/current/server".into()));
        assert_eq!(found("./server"), Some(current.join("server")));
        assert_eq!(found("bin/server"), Some(current.join("bin/server")));
        assert_eq!(find(OsStr::new("server"), None).unwrap(), None);
        fs::remove_dir_all(folder).unwrap();
    }
}
