//! CPU time and memory of a server's processes, seen from outside.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::sys;

/// A server: the process that was started and those it has started in turn.
#[derive(Debug, Clone)]
pub struct Processes {
    pids: Vec<u32>,
}

/// CPU time of a server so far.
#[derive(Debug, Clone, Copy)]
pub struct CpuTime {
    /// User and system, to the nanosecond.
    pub total: Duration,
    /// Of it in user space, in the kernel's clock ticks (10 ms each, as a rule): for a share only.
    pub user_ticks: u64,
    /// Of it in the kernel, in the same ticks.
    pub system_ticks: u64,
}

impl Processes {
    /// The tree of processes below `root` as it is now.
    pub fn below(root: u32) -> Result<Self> {
        let mut pids = vec![root];
        let mut next = 0;
        while let Some(&pid) = pids.get(next) {
            next += 1;
            for task in fs::read_dir(format!("/proc/{pid}/task")).context("server is gone")? {
                match fs::read_to_string(task?.path().join("children")) {
                    Ok(children) => {
                        pids.extend(children.split_whitespace().flat_map(str::parse::<u32>))
                    }
                    // A kernel without CONFIG_PROC_CHILDREN: the process alone is known.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(Self { pids })
    }

    /// Their process ids, the one that was started first.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// What they have used, in sum.
    pub fn cpu_time(&self) -> Result<CpuTime> {
        let mut sum = CpuTime { total: Duration::ZERO, user_ticks: 0, system_ticks: 0 };
        for &pid in &self.pids {
            sum.total += sys::cpu_time(pid)?;
            let (user_ticks, system_ticks) = ticks(pid)?;
            sum.user_ticks += user_ticks;
            sum.system_ticks += system_ticks;
        }
        Ok(sum)
    }

    /// Their anonymous resident memory in bytes: heap and stacks, not the program's file and not
    /// the kernel's socket buffers.
    pub fn anonymous_memory(&self) -> Result<u64> {
        let mut sum = 0;
        for pid in &self.pids {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let kib: u64 = status
                .lines()
                .find_map(|line| line.strip_prefix("RssAnon:"))
                .and_then(|value| value.split_whitespace().next())
                .context("no RssAnon in /proc/PID/status")?
                .parse()?;
            sum += kib * 1024;
        }
        Ok(sum)
    }
}

/// Fields `utime` and `stime` of /proc/PID/stat (proc_pid_stat(5)).
fn ticks(pid: u32) -> Result<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses, which may hold spaces.
    let (_, fields) = stat.rsplit_once(") ").context("no name in /proc/PID/stat")?;
    let mut fields = fields.split(' ').skip(11);
    let mut field =
        || -> Result<u64> { Ok(fields.next().context("short /proc/PID/stat")?.parse()?) };
    Ok((field()?, field()?))
}
