//! What an endpoint is called.

use super::text::{Reason, check_word, invalid, serde_as_text};
use crate::error::RpcError;
use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const FORM: &str = "1 to 255 bytes without white space, control characters and @ / : ? # [ ]";

/// The name under which an endpoint is registered: 1 to 255 bytes of UTF-8, without white space, control characters
/// and `@ / : ? # [ ]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointName(Arc<str>);

impl EndpointName {
    /// Checks the name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidAddress`](crate::ErrorKind::InvalidAddress) if it is empty, too long, or has a character that a name may not have.
    pub fn new(name: impl AsRef<str>) -> Result<Self, RpcError> {
        let name = name.as_ref();
        Self::checked(name).map_err(|reason| invalid(name, "endpoint name", &reason, FORM))
    }

    pub(super) fn checked(name: &str) -> Result<Self, Reason> {
        check_word(name)?;
        Ok(Self(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EndpointName {
    type Err = RpcError;

    fn from_str(text: &str) -> Result<Self, RpcError> {
        Self::new(text)
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for EndpointName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// So that a map with names as keys can be asked with a `&str`.
impl Borrow<str> for EndpointName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

serde_as_text!(EndpointName, FORM);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s21_names_are_checked() {
        assert_eq!(EndpointName::new("worker-α.1").unwrap().as_str(), "worker-α.1");
        assert!(EndpointName::new("x".repeat(255)).is_ok());
        for bad in ["", "a b", "a\n", "a@b", "a/b", "a:b", "a?b", "a#b", "[a", "a]", "a\u{a0}b"] {
            assert!(EndpointName::new(bad).is_err(), "{bad:?}");
        }
        let text = EndpointName::new("x".repeat(100_000)).unwrap_err().to_string();
        assert!(text.contains("100000 bytes") && text.len() < 600, "{text}");
        let names = std::collections::HashMap::from([(EndpointName::new("a").unwrap(), 1)]);
        assert_eq!(names.get("a"), Some(&1));
    }
}
