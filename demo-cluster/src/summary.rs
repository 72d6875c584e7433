//! What ran where.

use crate::driver::DriverEvent;
use crate::ids::{ExecutorId, WorkerId};
use crate::protocol::TaskId;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// The figures of one job, gathered from the driver's events.
#[derive(Debug)]
pub(crate) struct Summary {
    start: Instant,
    executors: BTreeMap<ExecutorId, ExecutorFigures>,
    shuffled_remote: u64,
    shuffled_local: u64,
    failures: u32,
    reruns: u32,
    took: Duration,
}

#[derive(Debug)]
struct ExecutorFigures {
    worker: WorkerId,
    cores: u32,
    maps: u32,
    reduces: u32,
    busy: Duration,
    lost: Option<String>,
}

impl Summary {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            executors: BTreeMap::new(),
            shuffled_remote: 0,
            shuffled_local: 0,
            failures: 0,
            reruns: 0,
            took: Duration::ZERO,
        }
    }

    /// Whether any executor is there now.
    pub(crate) fn has_executors(&self) -> bool {
        self.executors.values().any(|executor| executor.lost.is_none())
    }

    pub(crate) fn lost(&self) -> usize {
        self.executors.values().filter(|executor| executor.lost.is_some()).count()
    }

    pub(crate) fn note(&mut self, event: &DriverEvent) {
        match event {
            DriverEvent::ExecutorAdded { executor, worker, cores, .. } => {
                let figures = ExecutorFigures {
                    worker: worker.clone(),
                    cores: *cores,
                    maps: 0,
                    reduces: 0,
                    busy: Duration::ZERO,
                    lost: None,
                };
                self.executors.insert(*executor, figures);
            }
            DriverEvent::ExecutorLost { executor, message } => {
                if let Some(figures) = self.executors.get_mut(executor) {
                    figures.lost = Some(message.clone());
                }
            }
            DriverEvent::TaskDone { executor, task, report, .. } => {
                self.shuffled_remote += report.fetched_remote;
                self.shuffled_local += report.fetched_local;
                if let Some(figures) = self.executors.get_mut(executor) {
                    figures.busy += Duration::from_millis(report.millis);
                    match task {
                        TaskId::Map(_) => figures.maps += 1,
                        TaskId::Reduce(_) => figures.reduces += 1,
                    }
                }
            }
            DriverEvent::TaskFailed { .. } => self.failures += 1,
            DriverEvent::Finished { reruns, .. } => {
                self.reruns = *reruns;
                self.took = self.start.elapsed();
            }
            DriverEvent::Failed(_) => self.took = self.start.elapsed(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "executor  worker                                 cores  map  reduce    busy")?;
        for (id, figures) in &self.executors {
            let ExecutorFigures { worker, cores, maps, reduces, busy, lost } = figures;
            let busy = busy.as_secs_f64();
            write!(f, "{id:<8}  {worker:<38} {cores:>5} {maps:>4} {reduces:>7} {busy:>6.2}s")?;
            match lost {
                Some(why) => writeln!(f, "  lost: {why}")?,
                None => writeln!(f)?,
            }
        }
        let (remote, local) = (bytes(self.shuffled_remote), bytes(self.shuffled_local));
        write!(f, "shuffled {remote} between executors and {local} within them")?;
        if self.failures > 0 || self.reruns > 0 {
            write!(f, "; {} tasks failed, {} lost and run again", self.failures, self.reruns)?;
        }
        write!(f, "; took {:.2} s", self.took.as_secs_f64())
    }
}

/// A number of bytes for people.
#[expect(clippy::cast_precision_loss, reason = "two digits are printed")]
fn bytes(number: u64) -> String {
    match number {
        0..10_240 => format!("{number} B"),
        10_240..10_485_760 => format!("{:.1} KiB", number as f64 / 1024.0),
        _ => format!("{:.1} MiB", number as f64 / 1_048_576.0),
    }
}
