//! How an endpoint's life ends, as whoever watches it is told.

use std::fmt;

/// Why an endpoint's life is over, or nobody can tell whether it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Termination {
    /// It was stopped: by itself, by its env, or because its env was shut down.
    Stopped,
    /// It did not end in order: it panicked and its [`PanicPolicy`](crate::PanicPolicy) was not to go
    /// on, its `on_start` failed, or its thread ended.
    Crashed,
    /// The connection with its env was lost, or could not be made. The endpoint may live on; nobody
    /// here can tell.
    NodeLost,
    /// There was none: it had ended before, or never was.
    NotFound,
    /// It has ended, and its env does not say how; or it could not be watched, and
    /// [`Terminated::cause`](crate::Terminated::cause) says why.
    Unknown,
}

/// As whoever watches would say it: "stopped", "crashed".
impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Crashed => "crashed",
            Self::NodeLost => "node lost",
            Self::NotFound => "not found",
            Self::Unknown => "unknown",
        })
    }
}

/// The number of [`Termination::Stopped`] on the wire, and so on.
const NUMBERS: [(Termination, u64); 4] = [
    (Termination::Stopped, 1),
    (Termination::Crashed, 2),
    (Termination::NodeLost, 3),
    (Termination::NotFound, 4),
];

impl Termination {
    /// What it is called on the wire; `None` for what is not said.
    pub(crate) fn number(self) -> Option<u64> {
        NUMBERS.iter().find(|(known, _)| *known == self).map(|(_, number)| *number)
    }

    /// What a number from a peer means: one of a later version is unknown.
    pub(crate) fn from_number(number: u64) -> Self {
        let found = NUMBERS.iter().find(|(_, known)| *known == number);
        found.map_or(Self::Unknown, |(known, _)| *known)
    }
}
