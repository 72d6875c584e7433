//! How an endpoint's life ends.

/// How an endpoint's life has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Termination {
    /// It was stopped, by itself, by its env, or because its env was shut down.
    Stopped,
    /// It did not end in order: it panicked and its [`PanicPolicy`](crate::PanicPolicy) was not to go
    /// on, its `on_start` failed, or its thread ended.
    Crashed,
}
