//! What a check prints.

use std::io::Write;
use std::time::Duration;

/// Prints a line; a reader who has gone away is no reason to fail.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
}

/// The figures of one check, and whether they are good enough.
#[derive(Debug)]
pub(crate) struct Report {
    name: String,
    lines: Vec<String>,
    failures: u32,
}

impl Report {
    /// A report without figures.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), lines: Vec::new(), failures: 0 }
    }

    /// The report of a check that could not be carried out.
    pub(crate) fn failed(name: &str, error: &anyhow::Error) -> Self {
        let mut report = Self::new(name);
        report.require(false, &format!("it could not be carried out: {error:#}"));
        report
    }

    /// Adds a figure.
    pub(crate) fn figure(&mut self, text: String) {
        self.lines.push(text);
    }

    /// Adds a condition that has to hold.
    pub(crate) fn require(&mut self, holds: bool, what: &str) {
        let verdict = if holds { "ok" } else { "DOES NOT HOLD" };
        self.lines.push(format!("{verdict}: {what}"));
        self.failures += u32::from(!holds);
    }

    /// Adds all that another report says.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.lines.extend(other.lines);
        self.failures += other.failures;
    }

    /// Whether everything held.
    pub(crate) fn passed(&self) -> bool {
        self.failures == 0
    }

    /// Prints figures and verdict.
    pub(crate) fn print(&self, took: Duration) {
        say(&format!("{} ({:.0} s):", self.name, took.as_secs_f64()));
        for line in &self.lines {
            say(&format!("  {line}"));
        }
        say(&format!("  verdict: {}", if self.passed() { "passed" } else { "failed" }));
    }
}
