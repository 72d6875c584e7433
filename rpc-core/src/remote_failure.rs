//! An error as it crosses the wire.

use crate::error::{ErrorKind, Outcome, RpcError, shortened};

/// The longest text of a [`RemoteFailure`], in bytes of UTF-8. Longer ones are cut at the border of a character.
pub(crate) const MAX_FAILURE_TEXT: usize = 4096;

/// A failure as it crosses the wire: a stable number and a short text. Sources stay at home, in the log.
///
/// The last three digits of the code are the [number of the kind](ErrorKind::wire_code). The thousands tell the
/// outcome where it is not the usual one of that kind: 1 never sent (no handler has seen it), 2 unknown, 3 failed in
/// the handler; so 1001 is a timeout of a message that was taken out of the queue before its handler saw it.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteFailure {
    /// The numbered reason; 0 and unknown numbers mean [`ErrorKind::Internal`].
    pub code: u16,
    /// What happened, for a person; at most 4096 bytes.
    pub text: String,
}

/// What a unit of the thousands digit is worth in a code.
const OUTCOME_UNIT: u16 = 1000;

impl RemoteFailure {
    /// A failure with this code; the text is cut to 4096 bytes.
    pub fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, text: shortened(text.into(), MAX_FAILURE_TEXT) }
    }

    /// The error that the caller gets. A code that this version does not know is named in the text.
    pub fn into_error(self) -> RpcError {
        let number = self.code % OUTCOME_UNIT;
        let kind = ErrorKind::from_wire_code(number);
        let outcome = match self.code / OUTCOME_UNIT {
            0 => kind.default_outcome_at_peer(),
            1 => Outcome::NeverSent,
            3 => Outcome::FailedInHandler,
            _ => Outcome::Unknown,
        };
        let text = if kind == ErrorKind::Internal && number != 0 {
            format!("{} (failure code {} is not known here)", self.text, self.code)
        } else {
            self.text
        };
        RpcError::new(kind, text).with_outcome(outcome)
    }
}

impl From<&RpcError> for RemoteFailure {
    fn from(error: &RpcError) -> Self {
        let kind = ErrorKind::from_wire_code(error.kind().wire_code());
        let thousands = match error.outcome() {
            usual if usual == kind.default_outcome_at_peer() => 0,
            Outcome::NeverSent => 1,
            Outcome::Unknown => 2,
            Outcome::FailedInHandler => 3,
        };
        let code = kind.wire_code().saturating_add(OUTCOME_UNIT.saturating_mul(thousands));
        Self::new(code, error.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_travel_with_kind_outcome_and_text() {
        let outcomes = [Outcome::NeverSent, Outcome::Unknown, Outcome::FailedInHandler];
        for kind in ErrorKind::ALL {
            for outcome in outcomes {
                let error = RpcError::new(kind, "why").with_outcome(outcome);
                let back = RemoteFailure::from(&error).into_error();
                let travels = kind.wire_code() != 0;
                assert_eq!(back.kind(), if travels { kind } else { ErrorKind::Internal });
                assert_eq!(back.outcome(), outcome, "{kind:?}");
                assert_eq!(back.text(), "why");
            }
        }
    }

    #[test]
    fn codes_are_stable() {
        let code = |kind, outcome| {
            RemoteFailure::from(&RpcError::new(kind, "").with_outcome(outcome)).code
        };
        assert_eq!(code(ErrorKind::HandlerFailed, Outcome::FailedInHandler), 14);
        assert_eq!(code(ErrorKind::Timeout, Outcome::Unknown), 1);
        assert_eq!(code(ErrorKind::Timeout, Outcome::NeverSent), 1001);
        assert_eq!(code(ErrorKind::Overloaded, Outcome::NeverSent), 2);
        assert_eq!(code(ErrorKind::TooLarge, Outcome::NeverSent), 1009);
    }

    #[test]
    fn any_code_becomes_an_error() {
        for code in 0..=u16::MAX {
            let error = RemoteFailure::new(code, "t").into_error();
            assert!(error.text().starts_with('t'));
        }
        let error = RemoteFailure::new(777, "new").into_error();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(error.text(), "new (failure code 777 is not known here)");
        // A peer may report a reply that it could not encode: the handler has run.
        assert!(!RemoteFailure::new(8, "").into_error().is_never_sent());
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let failure = RemoteFailure::new(0, "a".to_owned() + &"é".repeat(4000));
        assert_eq!(failure.text.len(), MAX_FAILURE_TEXT - 1);
        assert!(failure.text.ends_with('é'));
        assert_eq!(RemoteFailure::new(0, "x".repeat(4096)).text.len(), 4096);
    }
}
