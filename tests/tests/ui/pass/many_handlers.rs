//! An endpoint may have more handlers than a tuple has fields, of every form.

#![deny(warnings, missing_docs, unreachable_pub)]

use rpc_core::{
    EndpointContext, HandlerResult, Lane, RawMessage, RawReply, RpcAddress, RpcCallContext,
    RpcEndpoint, RpcEndpointRef, RpcError, RpcMessage, RpcProtocol, endpoint, protocol,
};
use serde::{Deserialize, Serialize};

/// Message 1.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Alpha;

/// Message 2.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32, abort)]
pub struct Bravo;

/// Message 3.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<u32>, name = "charlie", lane = "bulk", compact)]
pub struct Charlie;

/// Message 4.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Delta;

/// Message 5.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32, abort)]
pub struct Echo;

/// Message 6.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<u32>, name = "foxtrot", lane = "bulk", compact)]
pub struct Foxtrot;

/// Message 7.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Golf;

/// Message 8.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32, abort)]
pub struct Hotel;

/// Message 9.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<u32>, name = "india", lane = "bulk", compact)]
pub struct India;

/// Message 10.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Juliett;

/// Message 11.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32, abort)]
pub struct Kilo;

/// Message 12.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<u32>, name = "lima", lane = "bulk", compact)]
pub struct Lima;

/// Message 13.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub struct Mike;

/// Message 14.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32, abort)]
pub struct November;

/// Message 15.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Vec<u32>, name = "oscar", lane = "bulk", compact)]
pub struct Oscar;

protocol! {
    /// All of them.
    pub Letters {
        Alpha, Bravo, Charlie, Delta, Echo, Foxtrot, Golf, Hotel,
        India, Juliett, Kilo, Lima, Mike, November, Oscar,
    }

    /// A few.
    pub(crate) Few { Alpha, Bravo }
}

/// The endpoint.
#[derive(Debug)]
pub struct Phone<S> {
    store: S,
}

#[endpoint(protocol = Letters)]
impl<S: Extend<u32> + 'static> Phone<S>
where
    S: Send,
{
    /// An ordinary method.
    pub fn new(store: S) -> Self {
        Self { store }
    }

    #[receive]
    async fn alpha(&mut self, _msg: Alpha, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.store.extend([1]);
        Ok(())
    }

    #[receive_and_reply]
    async fn bravo(&mut self, _msg: Bravo) -> HandlerResult<u32> {
        Ok(2)
    }

    #[receive_and_reply]
    async fn charlie(
        &mut self,
        _msg: Charlie,
        call: RpcCallContext<Vec<u32>>,
        _cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        call.reply(vec![3]);
        Ok(())
    }

    #[receive]
    fn delta(&mut self, Delta: Delta) -> HandlerResult<()> {
        self.store.extend([4]);
        Ok(())
    }

    #[receive_and_reply]
    fn echo(&self, _msg: Echo, _cx: &EndpointContext<Self>) -> Result<u32, rpc_core::HandlerError> {
        Ok(5)
    }

    #[receive_and_reply]
    fn foxtrot(&mut self, _msg: Foxtrot, call: RpcCallContext<Vec<u32>>) -> HandlerResult<()> {
        call.reply(vec![6]);
        Ok(())
    }

    #[receive]
    async fn golf(&mut self, _msg: Golf, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.store.extend([7]);
        Ok(())
    }

    #[receive_and_reply]
    async fn hotel(&mut self, _msg: Hotel) -> HandlerResult<u32> {
        Ok(8)
    }

    #[receive_and_reply]
    async fn india(
        &mut self,
        _msg: India,
        call: RpcCallContext<Vec<u32>>,
        _cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        call.reply(vec![9]);
        Ok(())
    }

    #[receive]
    fn juliett(&mut self, Juliett: Juliett) -> HandlerResult<()> {
        self.store.extend([10]);
        Ok(())
    }

    #[receive_and_reply]
    fn kilo(&self, _msg: Kilo, _cx: &EndpointContext<Self>) -> Result<u32, rpc_core::HandlerError> {
        Ok(11)
    }

    #[receive_and_reply]
    fn lima(&mut self, _msg: Lima, call: RpcCallContext<Vec<u32>>) -> HandlerResult<()> {
        call.reply(vec![12]);
        Ok(())
    }

    #[receive]
    async fn mike(&mut self, _msg: Mike, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.store.extend([13]);
        Ok(())
    }

    #[receive_and_reply]
    async fn november(&mut self, _msg: November) -> HandlerResult<u32> {
        Ok(14)
    }

    #[receive_and_reply]
    async fn oscar(
        &mut self,
        _msg: Oscar,
        call: RpcCallContext<Vec<u32>>,
        _cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        call.reply(vec![15]);
        Ok(())
    }

    #[receive_raw]
    fn other(&mut self, _msg: RawMessage) -> HandlerResult<()> {
        Ok(())
    }

    #[receive_and_reply_raw]
    async fn other_ask(
        &mut self,
        _msg: RawMessage,
        _call: RpcCallContext<RawReply>,
        _cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        Ok(())
    }

    // The names of the trait's methods are free.
    #[on_start]
    async fn on_start(&mut self, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        Ok(())
    }

    #[on_stop]
    fn handle(&self) -> HandlerResult<()> {
        Ok(())
    }

    #[on_error]
    async fn receive(&mut self, _error: RpcError) -> HandlerResult<()> {
        Ok(())
    }

    #[on_connected]
    fn up(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        Ok(())
    }

    #[on_disconnected]
    async fn down(&mut self, _peer: &RpcAddress, _cx: &EndpointContext<Self>) -> HandlerResult<()> {
        Ok(())
    }

    #[on_network_error]
    async fn broken(
        &mut self,
        _cause: &RpcError,
        _peer: &RpcAddress,
        _cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        Ok(())
    }
}

/// An endpoint without handlers.
#[derive(Debug)]
pub struct Silent;

#[endpoint]
impl Silent {}

/// A client.
pub fn client(phone: RpcEndpointRef<Phone<Vec<u32>>>, letters: RpcEndpointRef<Letters>) {
    let _ = phone.send(Alpha);
    drop(phone.ask(Bravo));
    let few: RpcEndpointRef<Few> = phone.into_protocol();
    let _ = few.send(Alpha);
    drop(letters.ask(Charlie));
    let few: RpcEndpointRef<Few> = letters.into_protocol();
    drop(few.ask(Bravo));
}

fn main() {
    assert_eq!(Letters::MESSAGES.len(), 15);
    assert_eq!(Few::MESSAGES, ["Alpha", "Bravo"]);
    assert_eq!((Charlie::NAME, Charlie::LANE), ("charlie", Lane::Bulk));
    assert!(Bravo::ABORT && !Alpha::ABORT);
    const { assert!(<Phone<Vec<u32>> as RpcEndpoint>::NETWORK_EVENTS) };
    const { assert!(!<Silent as RpcEndpoint>::NETWORK_EVENTS) };
}
