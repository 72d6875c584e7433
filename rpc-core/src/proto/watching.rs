//! Who waits for the end of an endpoint, on either side of the wire.

use super::bodies::GoneBody;
use super::calls::Progress;
use super::hello::ENDINGS;
use super::session::Session;
use super::target::{Phase, TargetId, WireNumber};
use crate::error::RpcError;
use crate::message::Encoding;
use crate::seam::CallEnd;
use crate::termination::Termination;
use crate::wire::frame::{Kind, put_control};
use crate::wire::payload;
use crate::wire::prescan::PrescanLimits;

impl Session {
    /// A call that ends when the life of the endpoint is over that the peer has now, or the
    /// connection is lost.
    ///
    /// # Errors
    /// `Overloaded` when too many calls are open.
    pub fn watch(&mut self, id: TargetId) -> Result<u64, RpcError> {
        let call = self.open(id, || Progress::Watching)?;
        if let Some(target) = self.targets.get_mut(id) {
            target.watchers.insert(call);
            if target.phase == Phase::Unknown {
                self.ask_for(id);
            }
        }
        Ok(call)
    }

    /// The end of an endpoint, as the peer says it.
    pub(super) fn read_ending(body: &[u8]) -> Termination {
        if body.is_empty() {
            return Termination::Unknown;
        }
        let read = payload::decode::<GoneBody>(body, &PrescanLimits::default());
        read.map_or(Termination::Unknown, |body| Termination::from_number(body.reason))
    }

    /// A resolved endpoint has ended, or the way to it is lost: its watches are over.
    pub(super) fn end_watches(
        &mut self,
        id: TargetId,
        reason: Termination,
        cause: Option<&RpcError>,
    ) {
        let Some(target) = self.targets.get_mut(id) else { return };
        let incarnation = target.incarnation;
        for call in std::mem::take(&mut target.watchers) {
            let cause = cause.cloned();
            let end = Err(CallEnd::Terminated { incarnation, reason, cause });
            self.calls.finish(call, end, &mut self.wakes);
        }
    }

    /// Tells the peer that an endpoint it has resolved has ended, and how: behind what is in the
    /// normal lane, so that it comes after what the endpoint has said last.
    pub fn gone(&mut self, id: WireNumber, how: Termination) {
        if self.lanes.ready_is_empty(0) {
            return self.put_gone(id, how);
        }
        let [end, _] = self.lanes.ends();
        self.going.push_back((end, id, how));
    }

    /// The peer uses a number no more: what was to be said of it is not.
    pub fn released(&mut self, id: WireNumber) {
        self.going.retain(|(_, known, _)| *known != id);
    }

    /// Says what was to wait for the normal lane.
    #[cold]
    pub(super) fn say_gone(&mut self) {
        let [gone, _] = self.lanes.gone();
        while let Some((end, id, how)) = self.going.front().copied()
            && end <= gone
        {
            self.going.pop_front();
            self.put_gone(id, how);
        }
    }

    fn put_gone(&mut self, id: WireNumber, how: Termination) {
        let reads = self.peer.as_ref().is_some_and(|peer| peer.hello.has(ENDINGS));
        let body = how.number().filter(|_| reads).map(|reason| GoneBody { reason });
        let body = body.and_then(|body| payload::to_vec(&body, Encoding::Named, usize::MAX).ok());
        let body = body.unwrap_or_default();
        put_control(self.lanes.control(), Kind::Gone, &id.to_be_bytes(), &body);
    }
}
