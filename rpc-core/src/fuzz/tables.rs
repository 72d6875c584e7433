//! The table of calls, as its user sees it, against a plain map.

use super::frames::small_limits;
use super::input::Input;
use crate::deadline::Timestamp;
use crate::error::{ErrorKind, RpcError};
use crate::message::Lane;
use crate::proto::{Request, Session, Submission, TargetKey};
use crate::seam::Outgoing;
use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Waker};
use std::time::Duration;

/// Whether a call of the table has ended.
type Model = BTreeMap<u64, bool>;

/// Calls of a session without a connection: each ends once, its number is never seen again, and what
/// is said of a number that is none changes nothing.
pub(super) fn request_table(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut session = Session::new(small_limits(), "peer");
    let keys = [TargetKey::new("a", None), TargetKey::new("b", None)];
    let targets = keys.map(|key| session.target(&key).unwrap());
    let (mut model, mut known, mut now) = (Model::new(), BTreeSet::new(), Timestamp::START);
    while !input.is_over() {
        now = now + Duration::from_millis(u64::from(input.byte()));
        let target = targets[input.below(2)];
        match input.below(8) {
            0..3 => {
                let how = [Submission::Ask, Submission::SendWait, Submission::Send][input.below(3)];
                let mut body = vec![0; usize::from(input.byte())].into();
                let mut message = Outgoing::new("M", Lane::Normal, &mut body, Timestamp::MAX);
                if let Ok(Some(call)) =
                    session.submit(|| now, Request::new(target, &mut message, how))
                {
                    assert!(known.insert(call), "the number {call} was there before");
                    model.insert(call, false);
                }
            }
            3 => {
                let watched = input.below(2) == 0;
                let call =
                    if watched { session.watch(target) } else { session.resolve(now, target) };
                let call = call.unwrap();
                assert!(known.insert(call), "the number {call} was there before");
                model.insert(call, false);
            }
            4 => {
                let call = chosen(&known, &mut input);
                session.expire(now, call);
                model.entry(call).and_modify(|ended| *ended = true);
            }
            5 => {
                let call = chosen(&known, &mut input);
                session.abandon(now, call);
                model.remove(&call);
            }
            6 => look(&mut session, &mut model),
            _ => {
                if input.below(8) == 0 {
                    session.fail_queued(&RpcError::new(ErrorKind::Disconnected, "no way"));
                    model.values_mut().for_each(|ended| *ended = true);
                }
            }
        }
        let open = model.values().filter(|ended| !**ended).count();
        // One that waits for room ends when there is some.
        assert!(session.open_calls().0 <= open, "{} calls, not {open}", session.open_calls().0);
        assert_eq!(session.unsound(), Vec::<String>::new());
    }
    session.fail_queued(&RpcError::new(ErrorKind::Disconnected, "no way"));
    model.values_mut().for_each(|ended| *ended = true);
    look(&mut session, &mut model);
    assert!(model.is_empty());
    assert_eq!(session.open_calls(), (0, 0));
    targets.into_iter().for_each(|target| session.release(target));
    assert_eq!(session.known_targets(), 0);
}

/// A number that there was, or one that never was.
fn chosen(known: &BTreeSet<u64>, input: &mut Input<'_>) -> u64 {
    let place = input.below(256);
    known.iter().nth(place).copied().unwrap_or_else(|| input.number::<8>() | 1 << 63)
}

/// Takes every result that is there, once.
fn look(session: &mut Session, model: &mut Model) {
    let cx = Context::from_waker(Waker::noop());
    model.retain(|call, ended| {
        let ready = session.poll_call(*call, &cx).is_ready();
        assert!(ready || !*ended, "call {call} has ended, and nobody is told");
        !ready
    });
}
