//! Error texts without what differs from run to run.

use rpc_actix::{ErrorKind, RpcError};
use std::fmt::Debug;

/// The text with every loopback port and every env id replaced.
pub(crate) fn plain(text: &str) -> String {
    let ports = replaced(text, "127.0.0.1:", "PORT", |c| c.is_ascii_digit(), 1);
    let ports = replaced(&ports, "[::1]:", "PORT", |c| c.is_ascii_digit(), 1);
    replaced(&ports, "@", "ENV", |c| c.is_ascii_hexdigit(), 16)
}

/// Replaces runs of at least `least` characters behind each `mark`.
fn replaced(text: &str, mark: &str, by: &str, is_part: fn(char) -> bool, least: usize) -> String {
    let mut parts = text.split(mark);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(is_part);
        let found = part.len() - rest.len() >= least;
        result.push_str(mark);
        result.push_str(if found { by } else { part });
        result.push_str(if found { rest } else { "" });
    }
    result
}

/// Checks that a call failed as that kind with exactly that text.
#[track_caller]
pub(crate) fn refused<T: Debug>(
    result: Result<T, RpcError>,
    kind: ErrorKind,
    text: &str,
) -> RpcError {
    let error = result.expect_err("it should have been refused");
    assert_eq!(plain(error.text()), plain(text));
    assert_eq!(error.kind(), kind, "{error:?}");
    error
}
