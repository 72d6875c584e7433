//! A memory limit that the system keeps: a control group of this check's own.

use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};

/// Where groups of memory are, in the first version of them.
const MEMORY: &str = "/sys/fs/cgroup/memory";

/// Gone when dropped, if its processes are.
#[derive(Debug)]
pub(crate) struct Cgroup {
    place: PathBuf,
}

impl Cgroup {
    /// Puts a process into a group that may have so many bytes from now on.
    pub(crate) fn limit(pid: u32, bytes: u64) -> anyhow::Result<Self> {
        anyhow::ensure!(Path::new(MEMORY).is_dir(), "no groups of memory at {MEMORY}");
        let place = Path::new(MEMORY).join(format!("rpc-checks-{}", std::process::id()));
        fs::create_dir(&place).context("making a group of memory")?;
        let group = Self { place };
        group.set("memory.limit_in_bytes", bytes)?;
        group.set("cgroup.procs", u64::from(pid))?;
        Ok(group)
    }

    fn set(&self, file: &str, value: u64) -> anyhow::Result<()> {
        fs::write(self.place.join(file), value.to_string())
            .with_context(|| format!("{file} of a group"))
    }

    fn read(&self, file: &str) -> anyhow::Result<u64> {
        let text = fs::read_to_string(self.place.join(file));
        Ok(text.with_context(|| format!("{file} of a group"))?.trim().parse()?)
    }

    /// The most bytes that it had, and how often it was refused more.
    pub(crate) fn used(&self) -> anyhow::Result<(u64, u64)> {
        Ok((self.read("memory.max_usage_in_bytes")?, self.read("memory.failcnt")?))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Not while a process is in it.
        for _ in 0..50 {
            if fs::remove_dir(&self.place).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
