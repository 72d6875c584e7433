//! One function for each way on which bytes or text come in from outside: what the fuzzers call, and
//! plain tests with the inputs that are kept.
//!
//! Not part of a build of the library: only of its own tests, and of `rpc-core/fuzz`. Each function
//! takes any bytes, and panics when a promise does not hold. See `docs/FUZZING.md`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is how a target says what it has found"
)]

mod bodies;
mod frames;
mod hostile;
mod input;
mod passing;
mod shapes;
mod tables;
#[cfg(test)]
mod tests;
mod texts;

/// A way in: its name, and what goes that way.
pub type Target = (&'static str, fn(&[u8]));

/// Every target. `rpc-core/fuzz/fuzz_targets` has a file for each, and so has its corpus.
pub const TARGETS: &[Target] = &[
    ("preauth", frames::preauth),
    ("frame_stream", frames::frame_stream),
    ("failures", frames::failures),
    ("trace_headers", frames::trace_headers),
    ("hostile_peer", hostile::hostile_peer),
    ("relay", passing::relay),
    ("connection_events", crate::proto::tests::walk::walk),
    ("request_table", tables::request_table),
    ("prescan", bodies::prescan),
    ("body_decode", bodies::body_decode),
    ("refs", bodies::refs),
    ("addresses", texts::addresses),
    ("config", texts::config),
];

/// Runs the target with that name.
///
/// # Panics
/// If a promise does not hold for these bytes, or there is no such target.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("no target is called {name}")).1(input);
}

pub use bodies::prescan_vs_serde;
#[cfg(test)]
pub(crate) use shapes::{COUNT, Visit, visit};
