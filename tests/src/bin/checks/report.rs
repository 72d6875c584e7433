//! What a check prints.

use std::io::Write;

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
    failures: Vec<String>,
}

impl Report {
    /// A report without figures.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), lines: Vec::new(), failures: Vec::new() }
    }

    /// The report of a check that could not be carried out.
    pub(crate) fn failed(name: &str, error: &anyhow::Error) -> Self {
        let mut report = Self::new(name);
        report.failures.push(format!("{error:#}"));
        report
    }

    /// Adds a figure.
    pub(crate) fn figure(&mut self, text: String) {
        self.lines.push(text);
    }

    /// Adds a condition that has to hold.
    pub(crate) fn require(&mut self, holds: bool, what: &str) {
        if holds {
            self.lines.push(format!("ok: {what}"));
        } else {
            self.failures.push(what.to_owned());
        }
    }

    /// Whether everything held.
    pub(crate) fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Prints figures and verdict.
    pub(crate) fn print(&self) {
        say(&format!("{}:", self.name));
        for line in &self.lines {
            say(&format!("  {line}"));
        }
        for failure in &self.failures {
            say(&format!("  DOES NOT HOLD: {failure}"));
        }
        say(&format!("  verdict: {}", if self.passed() { "passed" } else { "failed" }));
    }
}
