//! The one kind of endpoint in the simulated cluster: it does what it is told, and records it.

use super::history::{Asked, History, Key, OpenAsk};
use super::messages::{Answer, Deed, Do, DoBulk, Enlist, Mark, Tell, TellBulk, body};
use super::sent::Draft;
use bytes::Bytes;
use rpc_actix::sim::Blocking;
use rpc_actix::{
    EndpointContext, HandlerError, HandlerResult, RpcAddress, RpcCallContext, RpcEndpointRef,
    RpcError, endpoint,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Calls that are kept for ever: more than that are answered by being dropped.
const KEPT: usize = 16;

/// What an endpoint needs to know of where it is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) history: History,
    pub(super) blocking: Blocking,
    /// The life of its env: who it is as a sender.
    pub(super) sender: u32,
}

/// An endpoint of a member.
#[derive(Debug)]
pub struct Actor {
    place: Place,
    life: u32,
    enlisted: BTreeMap<u32, Way>,
    kept: Vec<RpcCallContext<Answer>>,
    /// Peers that it has heard of, and whether they are connected.
    peers: BTreeMap<RpcAddress, bool>,
}

impl Actor {
    pub(super) fn new(place: Place) -> Self {
        let life = place.history.new_life();
        Self { place, life, enlisted: BTreeMap::new(), kept: Vec::new(), peers: BTreeMap::new() }
    }

    /// A peer has come, or gone, and must not have done so before (I13).
    fn turns(&mut self, peer: &RpcAddress, connected: bool) {
        if self.peers.insert(peer.clone(), connected) == Some(connected) {
            let (what, life) = (if connected { "came" } else { "went" }, self.life);
            self.place.history.broken(format!("I13: {peer} {what} twice, says life {life}"));
        }
    }

    /// A message has come: its sender's peer is connected (I13).
    fn hears(&self, mark: Mark, cx: &EndpointContext<Self>) {
        if let Some(peer) = cx.sender()
            && self.peers.get(&peer) == Some(&false)
        {
            let text = format!("I13: {mark:?} came after its peer {peer} was said to be gone");
            self.place.history.broken(text);
        }
    }

    async fn perform(
        &mut self,
        answer: Answer,
        deed: Deed,
        call: RpcCallContext<Answer>,
        cx: &EndpointContext<Self>,
    ) -> HandlerResult<()> {
        let wait = |millis: u32| Duration::from_millis(u64::from(millis));
        match deed {
            Deed::Reply => call.reply(answer),
            Deed::Fail => return Err(HandlerError::from(anyhow::anyhow!("as it was told to"))),
            // Without a line on the terminal.
            Deed::Panic => std::panic::resume_unwind(Box::new("as it was told to")),
            Deed::Wait(millis) => {
                cx.sleep(wait(millis)).await;
                call.reply(answer);
            }
            Deed::Block(millis) => {
                self.place.blocking.block(wait(millis)).await;
                call.reply(answer);
            }
            Deed::Later(millis) => {
                let sleep = cx.sleep(wait(millis));
                actix_rt::spawn(async move {
                    sleep.await;
                    call.reply(answer);
                });
            }
            Deed::Drop => drop(call),
            Deed::Keep if self.kept.len() < KEPT => self.kept.push(call),
            Deed::Keep => drop(call),
            Deed::Pass(which) => {
                self.pass(which).await?;
                call.reply(answer);
            }
        }
        Ok(())
    }

    /// Asks another member on behalf of a caller.
    async fn pass(&self, which: u32) -> Result<(), RpcError> {
        let count = u32::try_from(self.enlisted.len()).unwrap_or(u32::MAX);
        let chosen =
            which.checked_rem(count).and_then(|at| self.enlisted.values().nth(at as usize));
        let Some(way) = chosen else { return Ok(()) };
        let key = way.key(self.place.sender, false);
        let draft = Draft { deed: Some(Deed::Reply), ..Draft::tell(self.place.history.now(), 16) };
        let mark = self.place.history.sends(&key, draft);
        let asked = way.actor.ask(Do { mark, deed: Deed::Reply, body: body(mark, 16) });
        let open = OpenAsk::new(self.place.history.clone(), mark);
        let result = asked.await;
        open.ended((Duration::ZERO, Duration::ZERO), &result);
        result.map(drop)
    }
}

/// A ref, and its number if the way matters: to an env that does not listen one ref may lead through
/// a relay and another one not, and messages on different ways have no order.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) actor: RpcEndpointRef<Actor>,
    /// The endpoint, its life if the ref means one, and the number.
    endpoint: Arc<str>,
}

impl Way {
    pub(super) fn new(actor: RpcEndpointRef<Actor>, history: &History) -> Self {
        let number = if actor.address().is_some() { 0 } else { history.new_life() };
        Self::numbered(actor, number)
    }

    /// A ref that leads straight there.
    pub(super) fn direct(actor: RpcEndpointRef<Actor>) -> Self {
        Self::numbered(actor, 0)
    }

    fn numbered(actor: RpcEndpointRef<Actor>, number: u32) -> Self {
        let endpoint = format!("{} {:?} {number}", actor.endpoint_address(), actor.incarnation());
        Self { actor, endpoint: endpoint.into() }
    }

    /// The stream of a sender's messages on this way.
    pub(super) fn key(&self, sender: u32, bulk: bool) -> Key {
        let (endpoint, pinned) = (self.endpoint.clone(), self.actor.incarnation().is_some());
        Key { sender, endpoint, bulk, pinned }
    }
}

#[endpoint]
impl Actor {
    #[receive]
    fn tell(&mut self, msg: Tell, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.hears(msg.mark, cx);
        self.place.history.receives(self.life, msg.mark, &msg.body, None);
        Ok(())
    }

    #[receive]
    fn tell_bulk(&mut self, msg: TellBulk, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.hears(msg.mark, cx);
        self.place.history.receives(self.life, msg.mark, &msg.body, None);
        Ok(())
    }

    #[receive_and_reply]
    async fn act(
        &mut self,
        msg: Do,
        call: RpcCallContext<Answer>,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        self.hears(msg.mark, cx);
        let asked = Asked { deed: msg.deed, remaining: cx.remaining() };
        self.place.history.receives(self.life, msg.mark, &msg.body, Some(asked));
        let answer = Answer { mark: msg.mark, body: Bytes::copy_from_slice(&msg.body) };
        self.perform(answer, msg.deed, call, cx).await
    }

    #[receive_and_reply]
    async fn act_bulk(
        &mut self,
        msg: DoBulk,
        call: RpcCallContext<Answer>,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        self.hears(msg.mark, cx);
        let asked = Asked { deed: msg.deed, remaining: cx.remaining() };
        self.place.history.receives(self.life, msg.mark, &msg.body, Some(asked));
        let answer = Answer { mark: msg.mark, body: msg.body };
        self.perform(answer, msg.deed, call, cx).await
    }

    #[on_connected]
    fn connected(&mut self, peer: &RpcAddress) -> HandlerResult<()> {
        self.turns(peer, true);
        Ok(())
    }

    #[on_disconnected]
    fn disconnected(&mut self, peer: &RpcAddress) -> HandlerResult<()> {
        self.turns(peer, false);
        Ok(())
    }

    #[receive_and_reply]
    fn enlist(&mut self, msg: Enlist) -> HandlerResult<Vec<RpcEndpointRef<Self>>> {
        let others = self.enlisted.iter().filter(|(member, _)| **member != msg.member);
        let others = others.map(|(_, way)| way.actor.clone()).collect();
        self.enlisted.insert(msg.member, Way::new(msg.actor, &self.place.history));
        Ok(others)
    }
}
