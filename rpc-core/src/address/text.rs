//! What all names and addresses have in common: they are text, and whoever writes a wrong one is told why.

use crate::error::{ErrorKind, RpcError};
use serde::de::{self, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

/// The longest endpoint name and the longest host, in bytes of UTF-8.
pub(super) const MAX_NAME_BYTES: usize = 255;

pub(super) const SCHEME: &str = "rpc";

/// Why a text is not what it should be, without the text itself.
pub(super) type Reason = String;

pub(super) fn invalid(text: &str, what: &str, reason: &str, form: &str) -> RpcError {
    // The text may come from a peer: what is quoted is escaped and bounded.
    let quoted: String = text.chars().take(MAX_NAME_BYTES).collect();
    let more = if quoted.len() < text.len() { ".." } else { "" };
    let text = format!("Invalid {what} {quoted:?}{more}: {reason}; expected {form}");
    RpcError::new(ErrorKind::InvalidAddress, text)
}

/// Says what is wrong with a name or a host, if anything is.
pub(super) fn check_word(word: &str) -> Result<(), Reason> {
    if word.is_empty() {
        return Err("it is empty".to_owned());
    }
    if word.len() > MAX_NAME_BYTES {
        return Err(format!("it has {} bytes, the limit is {MAX_NAME_BYTES}", word.len()));
    }
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || "@/:?#[]".contains(c);
    match word.chars().find(|&c| is_bad(c)) {
        Some(bad) => Err(format!("it contains {bad:?}")),
        None => Ok(()),
    }
}

/// Splits `scheme://rest`, where nothing may follow the authority.
pub(super) fn split_scheme(url: &str) -> Result<(&str, &str), Reason> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("it has no scheme".to_owned());
    };
    match rest.chars().find(|c| matches!(c, '/' | '?' | '#')) {
        Some('/') => Err("it has a path".to_owned()),
        Some('?') => Err("it has a query".to_owned()),
        Some(_) => Err("it has a fragment".to_owned()),
        None => Ok((scheme, rest)),
    }
}

pub(super) fn wrong_scheme(scheme: &str) -> Reason {
    let scheme: String = scheme.chars().take(32).collect();
    format!("the scheme is {scheme:?}")
}

/// Reads a value from the text that its `Display` writes.
pub(super) struct TextVisitor<T> {
    form: &'static str,
    value: PhantomData<T>,
}

impl<T> TextVisitor<T> {
    pub(super) fn new(form: &'static str) -> Self {
        Self { form, value: PhantomData }
    }
}

impl<T: FromStr<Err = RpcError>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string of the form {}", self.form)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// A type is written as its text, and read back from that.
macro_rules! serde_as_text {
    ($type:ty, $form:expr) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str($crate::address::text::TextVisitor::new($form))
            }
        }
    };
}

pub(super) use serde_as_text;
