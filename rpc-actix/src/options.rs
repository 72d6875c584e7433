//! The keys of this backend.

use rpc_core::{ErrorKind, RpcEnvConfig, RpcError};

/// What `rpc.env` calls this backend.
pub(crate) const NAME: &str = "actix";

/// Where an env runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// On threads of its own.
    Threads,
    /// On the caller's thread, without any of its own.
    Inline,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    /// How many arbiters share the endpoints. One by default: every message that crosses threads
    /// costs a wakeup of 50 to 60 us, which only pays when handlers keep a core busy.
    pub(crate) arbiters: usize,
}

const MODE: &str = "rpc.actix.mode";
const ARBITERS: &str = "rpc.actix.arbiters";

impl Options {
    pub(crate) fn read(config: &RpcEnvConfig) -> Result<Self, RpcError> {
        let bad = |key: &str, value: &str, expected: &str| {
            let text = format!("{key} cannot be {value:?}; expected {expected}");
            RpcError::new(ErrorKind::InvalidConfig, text)
        };
        let mode = match config.backend_option(MODE) {
            None | Some("threads") => Mode::Threads,
            Some("inline") => Mode::Inline,
            Some(other) => return Err(bad(MODE, other, "threads or inline")),
        };
        let arbiters = match config.backend_option(ARBITERS) {
            None => 1,
            Some(text) => match text.parse() {
                Ok(count @ 1..=1024) => count,
                _ => return Err(bad(ARBITERS, text, "a number from 1 to 1024")),
            },
        };
        Ok(Self { mode, arbiters })
    }
}
