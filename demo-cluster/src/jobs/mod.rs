//! Jobs: what the cluster can run.

mod job;
mod pi;
mod word_count;

pub(crate) use job::AnyJob;
pub use job::Job;
pub use pi::{Pi, PiParams, PiSplit, Samples};
pub use word_count::{WordCount, WordCountParams, WordCounts, WordSplit};

use job::Typed;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The jobs that a program knows, by name.
#[derive(Clone, Debug, Default)]
pub struct JobRegistry {
    jobs: BTreeMap<&'static str, Arc<dyn AnyJob>>,
}

impl JobRegistry {
    /// No jobs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `word-count` and `pi`.
    #[must_use]
    pub fn standard() -> Self {
        Self::new().with(WordCount).with(Pi)
    }

    /// Adds a job, in place of another of its name.
    #[must_use]
    pub fn with<J: Job>(mut self, job: J) -> Self
    where
        J::Params: Send,
        J::Outcome: Send,
    {
        self.jobs.insert(J::NAME, Arc::new(Typed(Arc::new(job))));
        self
    }

    pub(crate) fn find(&self, name: &str) -> anyhow::Result<&Arc<dyn AnyJob>> {
        self.jobs.get(name).ok_or_else(|| {
            let known: Vec<_> = self.jobs.keys().copied().collect();
            anyhow::anyhow!("unknown job {name:?}; this program knows: {}", known.join(", "))
        })
    }

    /// What each job does, for the help of a command line.
    pub(crate) fn help(&self) -> String {
        let lines = self.jobs.values().map(|job| format!("  {:<12} {}", job.name(), job.about()));
        format!("Jobs:\n{}", lines.collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of a job without any cluster: map every split, reduce every partition.
    fn run(name: &str, arguments: &[&str], partitions: u32) -> (String, Option<String>) {
        let jobs = JobRegistry::standard();
        let job = jobs.find(name).unwrap();
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let params = job.params(&arguments).unwrap();
        let splits = job.splits(&params).unwrap();
        assert!(splits.len() > 2, "several splits");
        let maps: Vec<_> =
            splits.iter().map(|split| job.map(&params, split, partitions).unwrap()).collect();
        let parts: Vec<_> = (0..partitions as usize)
            .map(|p| job.reduce(&params, maps.iter().map(|m| m[p].clone()).collect()).unwrap())
            .collect();
        let finished = job.finish(&params, &parts).unwrap();
        (finished.text, (finished.verify)().unwrap())
    }

    #[test]
    fn jobs_agree_with_a_single_thread() {
        let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        for partitions in [1, 3, 16] {
            let (text, other) = run("word-count", &[src, "--split-kib", "7"], partitions);
            assert_eq!(other, None, "{text}");
            let (text, other) = run("pi", &["--samples", "10007", "--tasks", "6"], partitions);
            assert_eq!(other, None, "{text}");
        }
    }

    #[test]
    fn an_unknown_job_is_told_the_known_ones() {
        let error = JobRegistry::standard().find("sort").unwrap_err().to_string();
        assert_eq!(error, "unknown job \"sort\"; this program knows: pi, word-count");
    }
}
