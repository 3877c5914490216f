//! Where the control socket is, and the locks beside it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::base::network::{ListenAddr, UnixAddr};
use crate::sys::process;

/// Where the control socket of a server is: as configured, or in the default directory under a
/// name made from the first address it listens on. `None` if that is TCP port 0: only the server
/// knows which port it got.
pub fn socket_path(configured: Option<&Path>, listen: &[ListenAddr]) -> Option<PathBuf> {
    if let Some(path) = configured {
        return Some(path.to_owned());
    }
    let name = match listen.first()? {
        ListenAddr::Tcp(address) if address.port() == 0 => return None,
        ListenAddr::Tcp(address) => format!("{}.sock", address.port()),
        // The path itself would not fit: a socket's path has 107 bytes at most.
        ListenAddr::Unix(UnixAddr { path, .. }) => {
            format!("unix-{:016x}.sock", fnv1a(path.as_os_str().as_bytes()))
        }
    };
    Some(default_directory().join(name))
}

/// Where a server may be that operators mean without saying so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WellKnown {
    /// Its control socket.
    pub path: PathBuf,
    /// A user whom root has given the directory, and who may be believed therefore.
    pub user: Option<u32>,
}

/// The places, beside the configured one, at which a server has its control socket that listens on these
/// addresses, whichever environment it was started in: under a name made from the first address, in each
/// of the default directories; then that of the systemd unit.
pub fn well_known(listen: &[ListenAddr]) -> Vec<WellKnown> {
    let directories =
        [default_directory(), directory_for(None, 0), directory_for(None, process::user_id())];
    let name = socket_path(None, listen).and_then(|path| path.file_name().map(ToOwned::to_owned));
    let named = name.into_iter().flat_map(|name| directories.clone().map(|path| path.join(&name)));
    let named = named.map(|path| WellKnown { path, user: None });
    let of_unit =
        WellKnown { path: PathBuf::from(OF_UNIT), user: owner_by_root(Path::new(OF_UNIT)) };
    let mut places: Vec<WellKnown> = Vec::new();
    for place in named.chain([of_unit]) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// The control socket of a server that `deploy/steadfast.service` runs.
const OF_UNIT: &str = "/run/steadfast/control/control.sock";

/// The owner of the directory in /run that a path leads through, if nobody but root can have made it:
/// systemd makes it for the user of a unit (RuntimeDirectory=).
fn owner_by_root(path: &Path) -> Option<u32> {
    let of_unit = path.ancestors().nth(2)?;
    let run = fs::symlink_metadata(of_unit.parent()?).ok()?;
    let found = fs::symlink_metadata(of_unit).ok()?;
    let by_root = run.is_dir() && run.uid() == 0 && run.permissions().mode() & 0o022 == 0;
    (by_root && found.is_dir()).then_some(found.uid())
}

/// The directory of a control socket and its locks; the default one if none is configured.
pub fn directory(configured: Option<&Path>) -> PathBuf {
    match configured.and_then(Path::parent) {
        // "control.sock" is in the working directory.
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => default_directory(),
    }
}

/// Where the control socket and its locks are if nothing else is configured.
pub fn default_directory() -> PathBuf {
    directory_for(std::env::var_os("XDG_RUNTIME_DIR"), process::user_id())
}

/// Makes the directory if it is missing, for its owner alone, and refuses one that others may use or
/// that another user's symbolic link leads to. What is found to be right stays so: in a directory
/// with the sticky bit, such as /tmp, only root and we can replace what is ours.
///
/// # Errors
/// `PermissionDenied` for a directory that belongs to somebody else or is open to others,
/// `NotADirectory`, and those of mkdir(2).
pub fn prepare_directory(directory: &Path) -> io::Result<()> {
    let own_uid = process::user_id();
    check_links(directory, own_uid)?;
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Again, as somebody may have been faster.
    check_links(directory, own_uid)?;
    let found = fs::metadata(directory)?;
    check_directory(directory, found.uid(), found.permissions().mode() & 0o777, own_uid)
}

/// Whether every symbolic link on the way belongs to root or to us.
fn check_links(directory: &Path, own_uid: u32) -> io::Result<()> {
    for part in std::path::absolute(directory)?.ancestors() {
        match fs::symlink_metadata(part) {
            Ok(found) if found.is_symlink() => check_link(part, found.uid(), own_uid)?,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn check_link(link: &Path, owner: u32, own_uid: u32) -> io::Result<()> {
    if owner == 0 || owner == own_uid {
        return Ok(());
    }
    let text =
        format!("{} is a symbolic link of user {owner}'s: it is not followed", link.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

fn check_directory(directory: &Path, owner: u32, mode: u32, own_uid: u32) -> io::Result<()> {
    let shown = directory.display();
    let what = if owner != own_uid {
        format!("{shown} belongs to user {owner}: a control socket is in a directory of one's own")
    } else if mode & 0o077 != 0 {
        format!(
            "{shown} is open to other users (mode {mode:03o}): a control socket is in a directory \
             of mode 700; chmod 700 {shown}, or choose another place for it"
        )
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
}

fn directory_for(runtime: Option<OsString>, uid: u32) -> PathBuf {
    match runtime.filter(|value| !value.is_empty()) {
        Some(runtime) => Path::new(&runtime).join("steadfast"),
        None if uid == 0 => PathBuf::from("/run/steadfast"),
        None => PathBuf::from(format!("/tmp/steadfast-{uid}")),
    }
}

/// FNV-1a with 64 bits: the same number in every build.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::Directory;

    #[test]
    fn the_default_directory_is_of_one_user() {
        let of = |runtime: Option<&str>, uid| directory_for(runtime.map(OsString::from), uid);
        assert_eq!(of(Some("/run/user/7"), 7), Path::new("/run/user/7/steadfast"));
        assert_eq!(of(Some(""), 0), Path::new("/run/steadfast"));
        assert_eq!(of(None, 0), Path::new("/run/steadfast"));
        assert_eq!(of(None, 1000), Path::new("/tmp/steadfast-1000"));
    }

    #[test]
    fn the_name_comes_from_the_first_address() {
        let name = |listen: &[&str]| {
            let listen: Vec<ListenAddr> = listen.iter().map(|text| text.parse().unwrap()).collect();
            let path = socket_path(None, &listen)?;
            Some(path.file_name().unwrap().to_str().unwrap().to_owned())
        };
        assert_eq!(name(&["[::1]:8000", "127.0.0.1:9000"]).unwrap(), "8000.sock");
        assert_eq!(name(&["127.0.0.1:0"]), None);
        assert_eq!(name(&["unix:/a"]).unwrap(), "unix-07d66707b49cd92d.sock");
        assert_ne!(name(&["unix:/a"]), name(&["unix:/b"]));
        let configured = Path::new("/x/y.sock");
        assert_eq!(socket_path(Some(configured), &[]).unwrap(), configured);
    }

    #[test]
    fn well_known_places_are_named_after_the_address() {
        let listen = ["127.0.0.1:9000".parse().unwrap()];
        let places: Vec<PathBuf> =
            well_known(&listen).into_iter().map(|place| place.path).collect();
        assert_eq!(places.first(), socket_path(None, &listen).as_ref());
        assert!(places.contains(&PathBuf::from("/run/steadfast/9000.sock")), "{places:?}");
        assert_eq!(places.last(), Some(&PathBuf::from(OF_UNIT)));
        let unknown: Vec<WellKnown> = well_known(&["127.0.0.1:0".parse().unwrap()]);
        assert_eq!(unknown.len(), 1, "{unknown:?}");
    }

    #[test]
    fn a_directory_that_root_has_given_says_whose_the_server_is() {
        let outer = Directory::new("given");
        let path = outer.path().join("unit/control/c.sock");
        assert_eq!(owner_by_root(&path), None, "there is none");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let is_roots = process::user_id() == 0;
        assert_eq!(owner_by_root(&path), is_roots.then_some(0));
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(owner_by_root(&path), None, "anybody can have made it");
    }

    #[test]
    fn a_configured_socket_says_where_the_directory_is() {
        assert_eq!(directory(Some(Path::new("/x/y.sock"))), Path::new("/x"));
        assert_eq!(directory(Some(Path::new("y.sock"))), Path::new("."));
        assert_eq!(directory(None), default_directory());
    }

    #[test]
    fn a_directory_is_made_for_its_owner_alone() {
        let outer = Directory::new("prepare");
        let path = outer.path().join("new/inner");
        prepare_directory(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        prepare_directory(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let error = prepare_directory(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("mode 750"), "{error}");
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let path = Path::new("/tmp/steadfast-5");
        assert!(check_directory(path, 5, 0o700, 5).is_ok());
        let error = check_directory(path, 6, 0o700, 5).unwrap_err();
        assert!(error.to_string().contains("belongs to user 6"), "{error}");
        // Root's rights are no reason to trust it.
        assert!(check_directory(path, 5, 0o700, 0).is_err());
    }

    #[test]
    fn links_of_root_and_of_ones_own_are_followed() {
        let outer = Directory::new("links");
        fs::create_dir(outer.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", outer.path().join("link")).unwrap();
        let inner = outer.path().join("link/inner");
        prepare_directory(&inner).unwrap();
        assert!(outer.path().join("real/inner").is_dir());
        for (owner, own_uid, expected) in [(5, 5, true), (0, 5, true), (6, 5, false), (5, 0, false)]
        {
            let checked = check_link(&inner, owner, own_uid);
            assert_eq!(checked.is_ok(), expected, "{owner}'s link and user {own_uid}");
        }
        // Whose they are is asked for on the whole way.
        let error = check_links(&inner, process::user_id() + 1).err();
        assert_eq!(error.is_some(), process::user_id() != 0, "{error:?}");
    }
}
