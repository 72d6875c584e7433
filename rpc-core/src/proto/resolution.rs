//! The answer to a resolve.

use crate::seam::Incarnation;

/// What a peer says of an endpoint that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolution {
    /// Which life of the endpoint it is.
    pub incarnation: Incarnation,
    /// The messages it takes; their places are their numbers.
    pub messages: Vec<String>,
    /// How many messages may be sent before more credit comes.
    pub credit_messages: u64,
    /// How many bytes of bodies; one message may overdraw it.
    pub credit_bytes: u64,
    /// Whether room is to be kept for messages to it.
    pub system: bool,
}

impl Resolution {
    /// What a resolve is answered with.
    #[must_use]
    pub fn new(
        incarnation: Incarnation,
        messages: Vec<String>,
        credit_messages: u64,
        credit_bytes: u64,
    ) -> Self {
        Self { incarnation, messages, credit_messages, credit_bytes, system: false }
    }
}
