//! What is logged of peers that misbehave: a line for each source every few seconds, however much there
//! is to complain of. The counters know all of it.

use rpc_core::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The time between two lines about the same source.
const BETWEEN: Duration = Duration::from_secs(5);
/// Sources that are remembered; of further ones nothing is said until the time of others is over.
const MOST_SOURCES: usize = 1024;

/// Who was complained of, and when.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    sources: Mutex<BTreeMap<String, Source>>,
}

#[derive(Debug)]
struct Source {
    told: Timestamp,
    untold: u64,
}

impl Complaints {
    /// Whether something may be said about a source now: then how often nothing was said since the
    /// last time.
    pub(crate) fn may_say(&self, source: &str, now: Timestamp) -> Option<u64> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sources.get_mut(source) {
            if now.since(known.told) < BETWEEN {
                known.untold = known.untold.saturating_add(1);
                return None;
            }
            known.told = now;
            return Some(std::mem::take(&mut known.untold));
        }
        if sources.len() >= MOST_SOURCES {
            sources.retain(|_, known| now.since(known.told) < BETWEEN);
        }
        if sources.len() >= MOST_SOURCES {
            return None;
        }
        sources.insert(source.to_owned(), Source { told: now, untold: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START.saturating_add(Duration::from_millis(millis))
    }

    #[test]
    fn r1_a_line_in_five_seconds_for_each_source() {
        let complaints = Complaints::default();
        let said = |millis, source| complaints.may_say(source, at(millis));
        assert_eq!(said(0, "a"), Some(0));
        assert_eq!((said(1, "a"), said(4_999, "a")), (None, None));
        assert_eq!(said(1, "b"), Some(0), "another source is another matter");
        assert_eq!(said(5_000, "a"), Some(2));
        assert_eq!(said(5_001, "a"), None);
    }

    #[test]
    fn r1_many_sources_are_not_remembered_for_ever() {
        let complaints = Complaints::default();
        let said = |millis, source: usize| complaints.may_say(&source.to_string(), at(millis));
        let first = (0..MOST_SOURCES + 10).filter(|source| said(0, *source).is_some());
        assert_eq!(first.count(), MOST_SOURCES);
        assert_eq!(said(5_000, MOST_SOURCES), Some(0));
        assert_eq!(complaints.sources.lock().unwrap().len(), 1);
    }
}
