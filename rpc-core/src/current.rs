//! An endpoint's current message: from the queue to its handler, and what becomes of its call after that.

use crate::context::EndpointContext;
use crate::counters::Count;
use crate::deadline::Timestamp;
use crate::delivery::{WireMessage, Work};
use crate::error::{ErrorKind, Outcome, RpcError};
use crate::inbox::Kind;
use crate::plant::planted;
use crate::proto::Arrival;
use crate::quiet::drop_quietly;
use crate::reply_sink::{ReplySink, Way, in_time};
use crate::row::Row;
use crate::seam::Origin;
use crate::turn;
use std::sync::Arc;

impl<E> EndpointContext<E> {
    /// Makes a message the current one. `None` if nobody wants it any more. The time counts for asks only.
    #[inline]
    pub(crate) fn begin(&mut self, message: Kind, now: Timestamp) -> Option<usize> {
        self.rest();
        match message {
            Kind::Tell { tell, ticket } => {
                turn::begin_one_way();
                if ticket.is_some_and(|ticket| ticket.is_withdrawn()) {
                    let what = tell.name();
                    drop_quietly(format_args!("{what} to {}", self.inbox.address()), tell);
                    return None;
                }
                let handler = self.inbox.handler_of(tell.message_type(), || tell.name());
                self.work = Work::Tell(tell);
                Some(self.for_way(handler, true))
            }
            Kind::Ask { sink, asker, deadline } => {
                turn::begin(asker, sink.way().cloned(), deadline);
                let Some(Way::Local(call)) = sink.way() else { return None };
                let handler = self.inbox.handler_of(call.message_type(), || call.name());
                let handler = self.for_way(handler, false);
                if handler >= self.inbox.handlers().len() && call.is_cancelled() {
                    drop(sink.take());
                    return None;
                }
                self.work = Work::Ask;
                self.current = Some(sink);
                self.begin_call(deadline, now).then_some(handler)
            }
            Kind::Wire(message) => self.begin_wire(*message, now),
            Kind::Row(_) | Kind::Network(_) | Kind::Terminated(_) => None,
        }
    }

    fn begin_wire(&mut self, message: WireMessage, now: Timestamp) -> Option<usize> {
        let WireMessage { handler, name, body, origin, call, deadline, .. } = message;
        origin.consumed(body.len());
        if !self.begin_from(&origin, call, deadline, now) {
            return None;
        }
        self.origin = Some(origin);
        let known = self.inbox.handlers().get(handler).map(|info| info.name);
        let handler = self.for_way(handler, call.is_none());
        let name = if handler < self.inbox.handlers().len() {
            name
        } else {
            name.or_else(|| known.map(Arc::from))
        };
        self.work = Work::Wire(name, body);
        Some(handler)
    }

    /// Makes the next message of a row the current one. `None` if nobody wants it any more.
    pub(crate) fn begin_arrived(&mut self, row: &mut Row, now: Timestamp) -> Option<usize> {
        let place = row.begin();
        let together = row.together();
        if !self.together.as_ref().is_some_and(|known| Arc::ptr_eq(known, together)) {
            self.together = Some(together.clone());
            self.origin = Some(together.origin.clone());
        }
        let Arrival { call, deadline, number, .. } = *together.arrivals.get(place)?;
        if !self.begin_from(&together.origin, call, deadline, now) {
            return None;
        }
        let handlers = self.inbox.handlers();
        let handler = self.for_way(usize::from(number), call.is_none());
        self.work = if handler < handlers.len() {
            Work::Arrived(place, row.len() == 0)
        } else {
            let known = handlers.get(usize::from(number)).map(|info| Arc::from(info.name));
            Work::Wire(known, together.arrivals.kept_body(place))
        };
        Some(handler)
    }

    /// Whether a message from another env is wanted, of which the call is that one.
    fn begin_from(
        &mut self,
        origin: &Arc<dyn Origin>,
        call: Option<u64>,
        until: Timestamp,
        now: Timestamp,
    ) -> bool {
        let Some(call) = call else {
            turn::begin_one_way();
            return true;
        };
        turn::begin_for(origin, call, until);
        if origin.is_cancelled(call) && !planted!(CancelledHandled) {
            return false;
        }
        self.current = Some(ReplySink::wire(origin.clone(), call));
        self.begin_call(until, now)
    }

    /// There is no message any more: what is kept of the last ones is let go.
    pub(crate) fn rest(&mut self) {
        (self.origin, self.together) = (None, None);
    }

    /// The handler, unless it is for asks and the message is none, or the reverse: then none.
    fn for_way(&self, handler: usize, one_way: bool) -> usize {
        match self.inbox.handlers().get(handler) {
            Some(info) if info.one_way == one_way => handler,
            _ => self.inbox.handlers().len(),
        }
    }

    /// An ask whose time is over is not handled. Nor is one whose caller has gone: of a local one
    /// that is seen when its message is taken.
    #[inline]
    fn begin_call(&mut self, deadline: Timestamp, now: Timestamp) -> bool {
        if deadline <= now {
            self.too_late();
            return false;
        }
        self.deadline = deadline;
        true
    }

    #[cold]
    fn too_late(&mut self) {
        self.core.tally().count(Count::AsksExpired);
        let text = format!("the time of the ask was over when {} got to it", self.inbox.address());
        if let Some(sink) = self.current.take() {
            sink.fail(&RpcError::new(ErrorKind::Timeout, text).with_outcome(Outcome::NeverSent));
        }
    }

    /// The handler is done: an error goes to the caller, unless it has its answer, and comes back.
    pub(crate) fn end(&mut self, result: Result<(), RpcError>) -> Result<(), RpcError> {
        if !std::mem::take(&mut self.turn_over) {
            turn::end(&self.inbox);
        }
        let deadline = std::mem::replace(&mut self.deadline, Timestamp::MAX);
        if self.deferred.is_none() && self.current.is_none() {
            // Nobody waits for more.
            return result;
        }
        let told = result.clone().map_err(|error| in_time(error, deadline, &self.core));
        if let Some(deferred) = self.deferred.take() {
            deferred.handler_done(told.as_ref().map(|&()| ()));
        }
        match (self.current.take(), &told) {
            (Some(sink), Err(error)) => sink.fail(error),
            (Some(sink), Ok(())) => drop(sink.take()),
            (None, _) => {}
        }
        result
    }
}
