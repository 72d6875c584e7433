//! How far a job is: a line on the terminal, or JSON for programs.

use crate::driver::{DriverEvent, JobReport, Plan};
use crate::ids::AppId;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// How wide the bar is.
const WIDTH: usize = 30;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A bar on standard error, if that is a terminal
    Auto,
    /// Each event, and in the end the result, as a line of JSON on standard output
    Json,
    /// Nothing
    None,
}

#[derive(Debug)]
pub(crate) struct Progress {
    mode: ProgressMode,
    bar: bool,
    executors: usize,
    tasks: [(usize, usize); 2],
}

impl Progress {
    pub(crate) fn new(mode: ProgressMode) -> Self {
        let bar = mode == ProgressMode::Auto && io::stderr().is_terminal();
        Self { mode, bar, executors: 0, tasks: [(0, 0); 2] }
    }

    pub(crate) fn planned(&mut self, plan: &Plan) {
        self.tasks = [(0, plan.splits.len()), (0, usize::try_from(plan.partitions).unwrap_or(0))];
        self.json(|| {
            let (maps, reduces) = (plan.splits.len(), plan.partitions);
            json!({"event": "planned", "job": plan.job, "maps": maps, "reduces": reduces})
        });
    }

    pub(crate) fn registered(&self, app: &AppId) {
        self.json(|| json!({"event": "registered", "app": app}));
    }

    pub(crate) fn show(&mut self, event: &DriverEvent) {
        match event {
            DriverEvent::ExecutorAdded { .. } => self.executors += 1,
            DriverEvent::ExecutorLost { executor, message } => {
                self.executors = self.executors.saturating_sub(1);
                self.warn(&format!("executor {executor} was lost: {message}"));
            }
            DriverEvent::TaskDone { progress, .. } => self.tasks = *progress,
            DriverEvent::TaskFailed { executor, task, message } => {
                self.warn(&format!("{task} failed on executor {executor}: {message}"));
            }
            DriverEvent::Finished { .. } | DriverEvent::Failed(_) => {}
        }
        self.json(|| event_json(event));
        self.draw();
    }

    /// Something that people should know, above the bar.
    pub(crate) fn warn(&self, text: &str) {
        if self.mode == ProgressMode::Auto {
            let clear = if self.bar { "\r\x1b[K" } else { "" };
            print_to(&mut io::stderr(), &format!("{clear}warning: {text}\n"));
        }
        self.json(|| json!({"event": "warning", "message": text}));
    }

    /// Takes the bar away.
    pub(crate) fn end(&mut self) {
        if std::mem::take(&mut self.bar) {
            print_to(&mut io::stderr(), "\r\x1b[K");
        }
    }

    /// Prints what came of the job.
    pub(crate) fn report(&self, report: &JobReport) {
        let JobReport { outcome, summary, verified } = report;
        if self.mode == ProgressMode::Json {
            let (lost, verified) = (summary.lost(), verified.is_some());
            let summary = summary.to_string();
            self.json(|| {
                json!({"event": "result", "outcome": outcome, "summary": summary, "lost": lost, "verified": verified})
            });
            return;
        }
        let mut text = format!("{outcome}\n\n{summary}\n");
        if let Some(took) = verified {
            let seconds = took.as_secs_f64();
            let _ =
                writeln!(text, "verified: identical to a single-threaded count ({seconds:.2} s)");
        }
        print_to(&mut io::stdout(), &text);
    }

    fn draw(&self) {
        if !self.bar {
            return;
        }
        let [(maps, all_maps), (reduces, all_reduces)] = self.tasks;
        let (done, all) = (maps + reduces, (all_maps + all_reduces).max(1));
        let full = WIDTH * done / all;
        let (bar, rest) = ("#".repeat(full), ".".repeat(WIDTH.saturating_sub(full)));
        let text = format!(
            "\r\x1b[K[{bar}{rest}] map {maps}/{all_maps}  reduce {reduces}/{all_reduces}  executors {}",
            self.executors
        );
        print_to(&mut io::stderr(), &text);
    }

    fn json(&self, event: impl FnOnce() -> Value) {
        if self.mode == ProgressMode::Json {
            print_to(&mut io::stdout(), &format!("{}\n", event()));
        }
    }
}

fn event_json(event: &DriverEvent) -> Value {
    match event {
        DriverEvent::ExecutorAdded { executor, worker, pid, cores } => json!({
            "event": "executor_added", "executor": executor, "worker": worker, "pid": pid, "cores": cores,
        }),
        DriverEvent::ExecutorLost { executor, message } => {
            json!({"event": "executor_lost", "executor": executor, "message": message})
        }
        DriverEvent::TaskDone { executor, task, .. } => {
            json!({"event": "task_done", "executor": executor, "task": task.to_string()})
        }
        DriverEvent::TaskFailed { executor, task, message } => json!({
            "event": "task_failed", "executor": executor, "task": task.to_string(), "message": message,
        }),
        DriverEvent::Finished { reruns, .. } => json!({"event": "finished", "reruns": reruns}),
        DriverEvent::Failed(message) => json!({"event": "failed", "message": message}),
    }
}

/// Prints at once. A reader who has gone away is no reason to stop the job.
pub(crate) fn print_to(out: &mut impl Write, text: &str) {
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
