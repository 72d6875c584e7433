//! An env in the middle: a caller on one connection, an endpoint on another, and both say what they
//! like.

use super::frames::{Pieces, Rig, frames, peer_info};
use super::input::Input;
use crate::deadline::Timestamp;
use crate::proto::{Asker, Event, IncomingMessage, Notice, Refusal, RelayedId, WireNumber};
use crate::remote_failure::RemoteFailure;
use crate::wire::frame::{Kind, put_header};
use bytes::{BufMut, BytesMut};
use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

/// A caller whose messages go to the endpoints of an onward peer.
struct Middle {
    back: Rig,
    onward: Rig,
    passages: BTreeMap<WireNumber, RelayedId>,
    /// Calls that are passed on, by what the onward session calls them.
    passing: BTreeMap<u64, u64>,
    lost: bool,
}

/// What the two say, passed on between them.
pub(super) fn relay(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let rig = |env| Rig::new(peer_info(env));
    let mut middle = Middle {
        back: rig(2),
        onward: rig(3),
        passages: BTreeMap::new(),
        passing: BTreeMap::new(),
        lost: false,
    };
    while !input.is_over() && !middle.lost {
        middle.hear(&mut input);
        middle.pass_on();
        assert_eq!(middle.back.session.unsound(), Vec::<String>::new());
        assert_eq!(middle.onward.session.unsound(), Vec::<String>::new());
        assert_eq!(middle.onward.session.open_calls().0, middle.passing.len());
        // Nothing of it counts in a queue of the env in the middle.
        assert_eq!(middle.onward.session.queued(), (0, 0));
    }
    middle.onward.calls = middle.passing.keys().copied().collect();
    middle.back.end();
    middle.onward.end();
}

impl Middle {
    /// A frame from either side: one of its usual ones, or bytes.
    fn hear(&mut self, input: &mut Input<'_>) {
        const CALLER: [Kind; 8] = [
            Kind::Resolve,
            Kind::Resolve,
            Kind::Ask,
            Kind::OneWay,
            Kind::Ask,
            Kind::Cancel,
            Kind::Release,
            Kind::Chunk,
        ];
        const CALLEE: [Kind; 8] = [
            Kind::Resolved,
            Kind::Resolved,
            Kind::Reply,
            Kind::Failure,
            Kind::Credit,
            Kind::Credit,
            Kind::Gone,
            Kind::Unresolved,
        ];
        let from_caller = input.below(2) == 0;
        let kind = if from_caller { CALLER } else { CALLEE }[input.below(8)];
        let mut payload = match kind {
            Kind::Ask | Kind::Reply | Kind::Failure | Kind::Cancel => vec![0; 7],
            _ => vec![0; 3],
        };
        payload.push(input.byte() % 4);
        match kind {
            Kind::Ask => payload.extend([0, 0, 0, input.byte() % 3, 0, 0, 9, 9]),
            Kind::Credit => payload.extend([0, 0, 0, input.byte() % 9, 0, 0, 0, 0, 0, 0, 9, 0]),
            Kind::Resolve => payload.extend_from_slice(b"\x82\xa4name\xa1x\xa3env\x03"),
            Kind::Resolved => payload.extend_from_slice(
                b"\x83\xabincarnation\x92\x03\x07\xa8messages\x91\xa3Ask\xa6credit\x92\x04\xcd\x40\x00",
            ),
            Kind::Failure | Kind::Unresolved => payload.extend_from_slice(b"\x81\xa4code\x04"),
            _ => {}
        }
        match input.below(4) {
            0 => payload.extend_from_slice(input.part()),
            1 => payload.resize(payload.len() + 100 * usize::from(input.byte()), 6),
            _ => {}
        }
        let mut frame = BytesMut::new();
        put_header(&mut frame, payload.len(), kind, 0, 0);
        frame.put_slice(&payload);
        let side = if from_caller { &mut self.back } else { &mut self.onward };
        self.lost |= side.receive(&frame, Pieces::WHOLE).is_err();
    }

    fn pass_on(&mut self) {
        for event in std::mem::take(&mut self.back.events) {
            match event {
                Event::Resolve(number, mut key) => {
                    key.env = None;
                    let asker = Asker::new(2, Waker::noop().clone());
                    if self.passages.contains_key(&number) {
                        self.lost = true;
                    } else if let Ok(id) = self.onward.session.relay(&key, asker) {
                        self.passages.insert(number, id);
                    }
                }
                Event::Release(number) => {
                    if let Some(id) = self.passages.remove(&number) {
                        self.onward.session.release_relayed(id);
                    }
                }
                Event::Message(message) => self.pass_on_one(message),
                Event::Messages(row) => row.into_messages().for_each(|one| self.pass_on_one(one)),
                _ => {}
            }
        }
        self.onward.events.clear();
        self.notices();
        self.answers();
        frames(&self.back.transmit());
        frames(&self.onward.transmit());
    }

    fn pass_on_one(&mut self, message: IncomingMessage) {
        let Some(id) = self.passages.get(&message.target).copied() else { return };
        let call = message.call;
        match self.onward.session.forward(Timestamp::START, id, message) {
            Ok(Some(onward)) => drop(self.passing.insert(onward, call.unwrap())),
            Ok(None) => {}
            Err(Refusal::Overrun) => self.lost = true,
            Err(_) => drop(call.map(|call| self.back.session.is_cancelled(call))),
        }
    }

    fn notices(&mut self) {
        for (number, id) in &self.passages {
            for notice in self.onward.session.notices(*id) {
                match notice {
                    Notice::Resolved(resolution) => {
                        self.back.session.resolved(*number, &resolution);
                    }
                    Notice::Credit { messages, bytes } => {
                        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
                        self.back.session.grant(*number, messages, bytes);
                    }
                    Notice::Gone(how) => self.back.session.gone(*number, how),
                    Notice::Unresolved(failure) => {
                        self.back.session.unresolved_as(*number, failure);
                    }
                }
            }
        }
    }

    fn answers(&mut self) {
        let cx = Context::from_waker(Waker::noop());
        self.passing.retain(|onward, call| {
            if self.back.session.is_cancelled(*call) {
                self.onward.session.abandon(Timestamp::START, *onward);
                return false;
            }
            match self.onward.session.poll_call(*onward, &cx) {
                Poll::Pending => true,
                Poll::Ready(Ok(body)) => {
                    self.back.session.reply_bytes(*call, body).unwrap();
                    false
                }
                Poll::Ready(Err(_)) => {
                    self.back.session.fail_as(*call, RemoteFailure::new(6, "ended"));
                    false
                }
            }
        });
    }
}
