//! One misbehaviour, and what has to come of it.

use super::scene::Scene;
use rpc_actix::{ErrorKind, Outcome};
use std::fmt;
use std::time::Duration;

/// Which side of a connection the env under attack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// It listens, and the bad peer connects.
    Listening,
    /// It dials, and the bad peer listens.
    Dialling,
}

/// What was done properly before the case begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Begin {
    /// There is a connection. The one who listens has seen the other's hello.
    Connected,
    /// Both have said hello. The one who listens has seen a RESOLVE of target 0, if any came.
    Greeted,
    /// Target 0 is resolved; the one who listens has seen an ASK of it, if any came.
    Resolved,
}

/// What the bad peer does, or sees.
pub(super) enum Step {
    /// Says that.
    Say(Vec<u8>),
    /// Says what is known only now.
    Tell(fn(&Scene<'_>) -> Vec<u8>),
    /// Says that a byte at a time with a pause, as long as it is heard.
    Drip(Vec<u8>, Duration),
    /// Says that again and again, without reading, as long as it is heard.
    Flood(Vec<u8>),
    /// Gets a frame of that kind whose payload begins like this.
    Gets(u8, Vec<u8>),
    /// Gets that failure as the answer to a call.
    Fails(u64, u16, String),
    /// Has an ask answered like any other peer.
    Served,
    /// Says nothing more, but listens.
    HangUp,
    /// Does something else.
    Do(fn(&mut Scene<'_>) -> anyhow::Result<()>),
}

/// How the connection ends.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// By a CLOSE of the env's, with that code and text.
    Closed(u16, String),
    /// The same, but a peer that does not read may not see it.
    CutOff(u16),
    /// Without a word.
    Silently,
    /// The connection is as good as before, until the bad peer leaves it as one should.
    Leaves,
    /// The same, but it leaves without a word.
    Drops,
}

/// What a caller of the env's is told, who has called the bad peer.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Answer(&'static str),
    Error(ErrorKind, Outcome, String),
}

/// One misbehaviour.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) about: &'static str,
    pub(super) side: Side,
    pub(super) settings: &'static [(&'static str, &'static str)],
    pub(super) begin: Begin,
    /// How long the caller waits, where the env dials.
    pub(super) patience: Duration,
    pub(super) steps: Vec<Step>,
    pub(super) end: End,
    pub(super) told: Option<Told>,
    pub(super) counts: Vec<(&'static str, u64)>,
}

impl Case {
    pub(super) fn new(
        side: Side,
        begin: Begin,
        name: impl Into<String>,
        about: &'static str,
    ) -> Self {
        Self {
            name: name.into(),
            about,
            side,
            settings: &[],
            begin,
            patience: Duration::from_secs(30),
            steps: Vec::new(),
            end: End::Leaves,
            told: None,
            counts: Vec::new(),
        }
    }

    pub(super) fn with(mut self, settings: &'static [(&'static str, &'static str)]) -> Self {
        self.settings = settings;
        self
    }

    pub(super) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(super) fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub(super) fn say(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Say(bytes.into()))
    }

    pub(super) fn gets(self, kind: u8, start: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Gets(kind, start.into()))
    }

    pub(super) fn fails(self, call: u64, code: u16, text: impl Into<String>) -> Self {
        self.step(Step::Fails(call, code, text.into()))
    }

    pub(super) fn served(self) -> Self {
        self.step(Step::Served)
    }

    pub(super) fn ends(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    pub(super) fn closed(self, code: u16, text: impl Into<String>) -> Self {
        self.ends(End::Closed(code, text.into()))
    }

    pub(super) fn told(
        mut self,
        kind: ErrorKind,
        outcome: Outcome,
        text: impl Into<String>,
    ) -> Self {
        self.told = Some(Told::Error(kind, outcome, text.into()));
        self
    }

    pub(super) fn answered(mut self, text: &'static str) -> Self {
        self.told = Some(Told::Answer(text));
        self
    }

    pub(super) fn counts(mut self, counts: &[(&'static str, u64)]) -> Self {
        self.counts.extend(counts);
        self
    }

    /// The side, and the first part of the name.
    pub(super) fn family(&self) -> &str {
        let second = self.name.match_indices('/').nth(1);
        second.and_then(|(end, _)| self.name.get(..end)).unwrap_or(&self.name)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is counted when a connection is closed with that code.
pub(super) fn close_count(code: u16, sent: bool) -> &'static str {
    let names = [
        ("closes_sent_protocol", "closes_received_protocol"),
        ("closes_sent_version", "closes_received_version"),
        ("closes_sent_too_large", "closes_received_too_large"),
        ("closes_sent_hello", "closes_received_hello"),
        ("closes_sent_duplicate_id", "closes_received_duplicate_id"),
        ("closes_sent_shutdown", "closes_received_shutdown"),
        ("closes_sent_overloaded", "closes_received_overloaded"),
        ("closes_sent_credit", "closes_received_credit"),
        ("closes_sent_timeout", "closes_received_timeout"),
        ("closes_sent_duplicate", "closes_received_duplicate"),
    ];
    let name = usize::from(code).checked_sub(1).and_then(|place| names.get(place));
    name.map_or("closes_received_other", |name| if sent { name.0 } else { name.1 })
}
