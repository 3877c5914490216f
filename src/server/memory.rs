//! How many bytes connections may hold together, if nobody says so.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sys::memory_limits;

/// The part of the memory that there is: an upgrade has what connections hold up to three times, in
/// both processes and on the way between them.
const PART: u64 = 4;

/// A quarter of the smallest of what bounds this process: the machine's memory, the limit of a
/// control group, and the limits on the address space and on data.
pub(super) fn max() -> usize {
    let bounds = [of_machine(), of_groups(), memory_limits::resource_limit()];
    // A system that tells nothing of its memory has some.
    let smallest = bounds.into_iter().flatten().min().unwrap_or(u64::from(u32::MAX));
    usize::try_from(smallest / PART).unwrap_or(usize::MAX)
}

/// The machine's memory.
fn of_machine() -> Option<u64> {
    total_of(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The smallest limit of the control groups that this process is in, and of those they are in.
fn of_groups() -> Option<u64> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_files(&mounts, &groups).iter().filter_map(|file| limit_in(file)).min()
}

/// A number, unless it says that there is no limit: "max" in version 2, and in version 1 a number
/// beyond all memory.
fn limit_in(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The files that hold a limit, from the process's own group up to the root of what is mounted.
fn limit_files(mountinfo: &str, cgroup: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        // "0::/a/b", or "9:memory:/a/b" in version 1.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (kind, file) = match controllers {
            "" => ("cgroup2", "memory.max"),
            named if named.split(',').any(|name| name == "memory") => {
                ("cgroup", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mounts = mountinfo.lines().filter_map(Mount::parse);
        for mount in mounts.filter(|mount| mount.kind == kind && mount.has(controllers)) {
            // In a container the group's path may be one outside, of which nothing is mounted.
            let below = Path::new(group).strip_prefix(mount.root).unwrap_or(Path::new(""));
            let groups = below.ancestors();
            files.extend(groups.map(|group| Path::new(mount.at).join(group).join(file)));
        }
    }
    files
}

/// A line of /proc/self/mountinfo.
struct Mount<'a> {
    root: &'a str,
    at: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut system = system.split(' ');
        let (root, at) = (mount.next()?, mount.next()?);
        let (kind, options) = (system.next()?, system.nth(1)?);
        Some(Self { root, at, kind, options })
    }

    fn has(&self, controllers: &str) -> bool {
        controllers.is_empty() || self.options.split(',').any(|option| option == "memory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_memory_is_found() {
        let max = max();
        assert!(max >= 4 << 20, "{max}");
        let machine = of_machine().expect("Linux tells");
        assert!(max as u64 <= machine / PART);
    }

    #[test]
    fn the_machine_has_what_it_says() {
        assert_eq!(total_of("MemFree: 5 kB\nMemTotal:       16384 kB\n"), Some(16 << 20));
        assert_eq!(total_of("MemTotal: much"), None);
    }

    #[test]
    fn limits_of_all_groups_above_count() {
        let version_2 = "26 24 0:23 / /proc rw - proc proc rw\n\
                         31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            limit_files(version_2, "0::/system.slice/chat.service\n"),
            [
                "/sys/fs/cgroup/system.slice/chat.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
            .map(PathBuf::from)
        );
        // A container: its group is the root of what it sees.
        assert_eq!(limit_files(version_2, "0::/\n"), [PathBuf::from("/sys/fs/cgroup/memory.max")]);
        let version_1 = "33 32 0:28 /docker/7 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n\
                         34 32 0:29 /docker/7 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(
            limit_files(version_1, "4:cpu:/docker/7\n5:memory:/docker/7/inner\n"),
            [
                "/sys/fs/cgroup/memory/inner/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
            .map(PathBuf::from)
        );
        assert!(limit_files(version_1, "4:cpu:/docker/7\n").is_empty());
    }
}
