//! What the macros write can be written by hand.

#![deny(warnings, missing_docs, unreachable_pub)]

use rpc_core::{
    Accepts, Ask, CoveredBy, EndpointContext, HandlerResult, OneWay, Receive, ReceiveAndReply,
    ReceiveAndReplyLater, Receives, Replies, RepliesLater, RpcAddress, RpcCallContext, RpcEndpoint,
    RpcEndpointRef, RpcMessage, RpcProtocol,
};
use serde::{Deserialize, Serialize};

/// One way.
#[derive(Debug, Serialize, Deserialize)]
pub struct Heartbeat;

impl RpcMessage for Heartbeat {
    const NAME: &'static str = "Heartbeat";
}

impl OneWay for Heartbeat {}

/// An ask.
#[derive(Debug, Serialize, Deserialize)]
pub struct FreeCores;

impl RpcMessage for FreeCores {
    const NAME: &'static str = "FreeCores";
    const ABORT: bool = true;
}

impl Ask for FreeCores {
    type Reply = u32;
}

/// An ask that is answered later.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report;

impl RpcMessage for Report {
    const NAME: &'static str = "Report";
}

impl Ask for Report {
    type Reply = Vec<u32>;
}

/// The endpoint.
#[derive(Debug)]
pub struct Master {
    beats: u32,
    peers: u32,
}

impl Receive<Heartbeat> for Master {
    async fn handle(
        &mut self,
        _msg: Heartbeat,
        _cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        self.beats += 1;
        Ok(())
    }
}

impl ReceiveAndReply<FreeCores> for Master {
    async fn handle_and_reply(
        &mut self,
        _msg: FreeCores,
        _cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<u32> {
        Ok(self.beats)
    }
}

impl ReceiveAndReplyLater<Report> for Master {
    async fn handle_and_reply_later(
        &mut self,
        _msg: Report,
        call: RpcCallContext<Vec<u32>>,
        _cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        call.reply(vec![self.beats, self.peers]);
        Ok(())
    }
}

impl Accepts<Heartbeat> for Master {}
impl Accepts<FreeCores> for Master {}
impl Accepts<Report> for Master {}

impl RpcEndpoint for Master {
    type Handlers = (Receives<Heartbeat>, Replies<FreeCores>, RepliesLater<Report>);

    const NETWORK_EVENTS: bool = true;

    async fn on_connected(
        &mut self,
        _peer: &RpcAddress,
        _cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        self.peers += 1;
        Ok(())
    }
}

/// What clients see.
#[derive(Debug)]
pub enum MasterApi {}

impl RpcProtocol for MasterApi {
    const MESSAGES: &'static [&'static str] = &[Heartbeat::NAME, FreeCores::NAME];
}

impl Accepts<Heartbeat> for MasterApi {}
impl Accepts<FreeCores> for MasterApi {}

impl<E: Accepts<Heartbeat> + Accepts<FreeCores>> CoveredBy<E> for MasterApi {}

/// A client.
pub fn client(master: RpcEndpointRef<Master>) {
    let _ = master.send(Heartbeat);
    drop(master.ask(Report));
    let master: RpcEndpointRef<MasterApi> = master.into_protocol();
    drop(master.ask(FreeCores));
}

fn main() {}
