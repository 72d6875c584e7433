//! What a process holds of the system.

use crate::child::resident_bytes;
use anyhow::Context;
use std::fs;

#[derive(Clone, Copy, Debug)]
pub(super) struct Vitals {
    pub descriptors: usize,
    pub threads: usize,
}

impl Vitals {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let count =
            |what| Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{pid}/{what}"))?.count());
        Ok(Self { descriptors: count("fd")?, threads: count("task")? })
    }
}

/// The memory of a process in the course of time.
#[derive(Debug)]
pub(super) struct Memory {
    pid: u32,
    samples: Vec<u64>,
}

impl Memory {
    pub(super) fn of(pid: u32) -> Self {
        Self { pid, samples: Vec::new() }
    }

    pub(super) fn sample(&mut self) -> anyhow::Result<()> {
        self.samples.push(resident_bytes(self.pid)?);
        Ok(())
    }

    /// What it was in the middle of the time, and at its end, in MiB.
    pub(super) fn course(&self) -> anyhow::Result<(f64, f64)> {
        let part = |from: usize, to: usize| {
            let count = self.samples.len();
            let mut part = self.samples.get(count * from / 10..count * to / 10)?.to_vec();
            part.sort_unstable();
            part.get(part.len() / 2).map(|bytes| *bytes as f64 / 1048576.0)
        };
        Ok((part(4, 6).context("too few samples")?, part(8, 10).context("too few samples")?))
    }
}
