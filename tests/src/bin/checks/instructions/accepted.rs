//! The figures that were accepted, in a file of the repository.

use anyhow::Context;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

const SHOWN: &str = "tests/instructions.toml";

/// What a figure may grow by, in percent.
const TOLERANCE: u64 = 5;

const HEAD: &str = "\
# Instructions per message, as `checks instructions` counts them (both sides of a remote one).
# More than 5 % above a figure fails. `cargo run --release -p rpc-tests --bin checks -- instructions
# --accept` writes what is counted now: say in the commit why it is more.
";

/// The accepted figures by scenario.
pub(crate) struct Accepted {
    figures: BTreeMap<String, u64>,
}

/// What a count is, beside the accepted figure, with both of them.
pub(crate) enum Verdict {
    Good(String),
    More(String),
}

impl Accepted {
    pub(crate) fn read() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path()).context(SHOWN)?;
        let figures = toml::from_str(&text).context(SHOWN)?;
        Ok(Self { figures })
    }

    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let mut text = HEAD.to_owned();
        for (name, figure) in &self.figures {
            writeln!(text, "{name} = {figure}")?;
        }
        std::fs::write(path(), text).context(SHOWN)
    }

    pub(crate) fn set(&mut self, name: &str, count: u64) {
        self.figures.insert(name.to_owned(), count);
    }

    pub(crate) fn compare(&self, name: &str, count: u64) -> Verdict {
        let Some(&accepted) = self.figures.get(name) else {
            return Verdict::More(format!("{name}: {count}, and {SHOWN} has no figure for it"));
        };
        let percent = (count as f64 / accepted.max(1) as f64 - 1.0) * 100.0;
        let text = format!("{name:22} {count:>8}, accepted {accepted:>8} ({percent:+.1} %)");
        let (scaled, limit) = (u128::from(count) * 100, u128::from(accepted));
        if scaled > limit * u128::from(100 + TOLERANCE) {
            Verdict::More(format!(
                "{text}: more than {TOLERANCE} % more; make it cheaper, or accept it with \
                 `checks instructions --accept` and say why"
            ))
        } else if scaled < limit * u128::from(100 - TOLERANCE) {
            Verdict::Good(format!("{text}: less; keep it with `checks instructions --accept`"))
        } else {
            Verdict::Good(text)
        }
    }
}

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml"))
}
