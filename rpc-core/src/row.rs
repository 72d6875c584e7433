//! Messages of a peer in an inbox that came in a row: one item of the queue, and one way back.

use crate::proto::Arrivals;
use crate::seam::Origin;
use std::sync::Arc;

/// Messages that begin before their peer has their credit again: with each, a lock and what that
/// costs would come. It has it when the row is over, or waits. A quarter of all that came together is
/// as good, because their peer's window is not smaller than that.
const CREDITED_TOGETHER: usize = 4;

/// Messages that came together, and where from.
pub(crate) struct Together {
    pub(crate) arrivals: Arrivals,
    pub(crate) origin: Arc<dyn Origin>,
}

/// Some of them, in a row, that have not begun.
pub(crate) struct Row {
    together: Arc<Together>,
    /// The first of those that have begun and of which the peer has no credit yet.
    owed: usize,
    next: usize,
    end: usize,
    /// The bytes of what has not begun.
    bytes: usize,
}

impl Row {
    pub(crate) fn new(arrivals: Arrivals, origin: Arc<dyn Origin>) -> Self {
        let (end, bytes) = (arrivals.len(), arrivals.sizes().sum());
        let together = Arc::new(Together { arrivals, origin });
        Self { together, owed: 0, next: 0, end, bytes }
    }

    pub(crate) fn together(&self) -> &Arc<Together> {
        &self.together
    }

    /// How many have not begun.
    pub(crate) fn len(&self) -> usize {
        self.end.saturating_sub(self.next)
    }

    /// Whether the next one is an ask.
    pub(crate) fn is_call(&self) -> bool {
        self.together.arrivals.get(self.next).is_some_and(|message| message.call.is_some())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn size(&self, place: usize) -> usize {
        self.together.arrivals.get(place).map_or(0, |message| message.bytes())
    }

    /// Takes out the first `messages`, or as many as come to `bytes`; `None` if those are all.
    pub(crate) fn split(&mut self, messages: usize, bytes: usize) -> Option<Self> {
        if self.len() <= messages && self.bytes < bytes {
            return None;
        }
        let (from, mut next, mut taken) = (self.next, self.next, 0_usize);
        while next < self.end && next.saturating_sub(from) < messages && taken < bytes {
            taken = taken.saturating_add(self.size(next));
            next = next.saturating_add(1);
        }
        if next == self.end {
            // The last one has more bytes than are left. A row of none would begin what is another's.
            return None;
        }
        // What has begun already is settled with the first ones.
        let owed = std::mem::replace(&mut self.owed, next);
        self.next = next;
        self.bytes = self.bytes.saturating_sub(taken);
        let (together, end) = (self.together.clone(), self.next);
        Some(Self { together, owed, next: from, end, bytes: taken })
    }

    /// The next one begins: its place among all that came together.
    pub(crate) fn begin(&mut self) -> usize {
        let place = self.next;
        self.bytes = self.bytes.saturating_sub(self.size(place));
        self.next = self.next.saturating_add(1);
        let together = CREDITED_TOGETHER.max(self.together.arrivals.len() / 4);
        if self.next.saturating_sub(self.owed) >= together {
            self.settle();
        }
        place
    }

    /// The peer gets its credit for what has begun.
    pub(crate) fn settle(&mut self) {
        let Self { together, owed, next, .. } = self;
        if owed < next {
            together.origin.consumed_together(&mut together.arrivals.sizes_of(*owed..*next));
            *owed = *next;
        }
    }

    /// The calls that have not begun, `None` for each one-way message. They are over with that: the
    /// peer gets its credit for them.
    pub(crate) fn refuse(mut self) -> impl Iterator<Item = (Arc<Together>, Option<u64>)> {
        let from = self.next;
        self.next = self.end;
        self.settle();
        (from..self.end).map(move |place| {
            let call = self.together.arrivals.get(place).and_then(|message| message.call);
            (self.together.clone(), call)
        })
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::RpcAddress;
    use crate::deadline::Timestamp;
    use crate::error::RpcError;
    use crate::limits::Limits;
    use crate::proto::{Event, Session};
    use crate::termination::Termination;
    use crate::wire::encoded::Encoded;
    use crate::wire::frame::{Kind, put_header};
    use bytes::BytesMut;
    use std::sync::Mutex;
    use std::task::{Context, Poll};

    /// A peer that is told what its messages have left behind.
    #[derive(Default)]
    struct Peer(Mutex<Vec<Vec<usize>>>);

    impl Origin for Peer {
        fn reply(&self, _: u64, _: &mut Encoded) -> Result<(), RpcError> {
            Ok(())
        }
        fn fail(&self, _: u64, _: &RpcError) {}
        fn poll_cancelled(&self, _: u64, _: &mut Option<usize>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
        fn is_cancelled(&self, _: u64) -> bool {
            false
        }
        fn consumed(&self, bytes: usize) {
            self.0.lock().unwrap().push(vec![bytes]);
        }
        fn consumed_together(&self, bytes: &mut dyn Iterator<Item = usize>) {
            self.0.lock().unwrap().push(bytes.collect());
        }
        fn gone(&self, _: Termination) {}
        fn sender(&self) -> Option<&RpcAddress> {
            None
        }
    }

    impl Peer {
        fn told(&self) -> Vec<Vec<usize>> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    /// A row of messages whose bodies have these lengths.
    fn row(peer: &Arc<Peer>, lengths: &[usize]) -> Row {
        let mut bytes = BytesMut::new();
        for length in lengths {
            put_header(&mut bytes, 4 + length, Kind::OneWay, 0, 0);
            bytes.resize(bytes.len() + 4 + length, 0);
        }
        let (mut session, mut events) = (Session::new(Limits::default(), "test"), Vec::new());
        session.receive(Timestamp::START, &mut bytes, &mut events).unwrap();
        let Some(Event::Messages(arrivals)) = events.pop() else { panic!("no row") };
        Row::new(arrivals, peer.clone())
    }

    #[test]
    fn credit_comes_for_a_few_at_a_time_and_for_the_rest_at_the_end() {
        let peer = Arc::new(Peer::default());
        let mut row = row(&peer, &[1, 2, 3, 4, 5, 6, 7]);
        assert_eq!((row.len(), row.bytes()), (7, 28));
        (0..3).for_each(|place| assert_eq!(row.begin(), place));
        assert!(peer.told().is_empty());
        row.begin();
        assert_eq!((peer.told(), row.len(), row.bytes()), (vec![vec![1, 2, 3, 4]], 3, 18));
        row.begin();
        row.settle();
        row.settle();
        assert_eq!(peer.told(), [[5]], "a handler waits");
        row.begin();
        drop(row);
        assert_eq!(peer.told(), [[6]], "the last one has not begun");
    }

    #[test]
    fn of_many_credit_comes_for_a_quarter_at_a_time() {
        let peer = Arc::new(Peer::default());
        let mut row = row(&peer, &[1; 40]);
        (0..29).for_each(|_| _ = row.begin());
        assert_eq!(peer.told(), [[1; 10], [1; 10]]);
        row.split(3, 100).unwrap().begin();
        assert_eq!(peer.told(), [[1; 10]], "those before it among them");
        assert_eq!((row.begin(), peer.told().len()), (32, 0));
        drop(row);
        assert_eq!(peer.told(), [[1]]);
    }

    #[test]
    fn a_part_is_a_row_of_its_own() {
        let peer = Arc::new(Peer::default());
        let mut rest = row(&peer, &[10, 20, 30, 40]);
        assert!(rest.split(4, 101).is_none());
        assert!(rest.split(4, 100).is_none(), "nothing would be left");
        assert!(rest.split(9, 61).is_none(), "the last one has more bytes than that");
        assert_eq!((rest.len(), rest.bytes()), (4, 100));
        let mut first = rest.split(4, 25).unwrap();
        assert_eq!((first.len(), first.bytes(), rest.len(), rest.bytes()), (2, 30, 2, 70));
        let second = rest.split(1, 1000).unwrap();
        assert_eq!((second.len(), second.bytes(), rest.len(), rest.bytes()), (1, 30, 1, 40));
        assert_eq!((first.begin(), first.begin()), (0, 1));
        drop((first, rest));
        assert_eq!(peer.told(), [[10, 20]]);
        assert_eq!(second.refuse().map(|(_, call)| call).collect::<Vec<_>>(), [None]);
        assert_eq!(peer.told(), [[30]]);
    }
}
