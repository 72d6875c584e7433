//! Which env it is, whatever it is called.

use super::text::{invalid, serde_as_text};
use crate::error::RpcError;
use std::fmt;
use std::str::FromStr;

pub(super) const FORM: &str = "16 hexadecimal digits";

/// The number that an env draws when it starts; two envs, or two starts of one, do not share it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvId(pub(crate) u64);

impl EnvId {
    /// The id with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number of the id.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl FromStr for EnvId {
    type Err = RpcError;

    fn from_str(text: &str) -> Result<Self, RpcError> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(number) if is_hex => Ok(Self(number)),
            _ => Err(invalid(text, "env id", "it is another number of digits or none", FORM)),
        }
    }
}

impl fmt::Display for EnvId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for EnvId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(EnvId, FORM);
