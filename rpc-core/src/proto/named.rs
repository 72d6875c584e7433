//! Which message it is.

use std::fmt;
use std::sync::Arc;

/// Which message it is.
#[derive(Debug, Clone)]
pub(crate) enum Named {
    /// One of this env, by its wire name.
    Ours(&'static str),
    /// One that is relayed, as its sender named it.
    Number(u16),
    Text(Arc<str>),
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(name) => f.write_str(name),
            Self::Number(number) => write!(f, "message number {number}"),
            Self::Text(name) => f.write_str(name),
        }
    }
}

/// How a message is named on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageName<'a> {
    Number(u16),
    Text(&'a str),
}
