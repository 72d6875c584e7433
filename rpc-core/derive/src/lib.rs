//! The macros of `rpc-core`: [`RpcMessage`](macro@RpcMessage) for messages,
//! [`endpoint`](macro@endpoint) for endpoints, [`protocol!`] for what a client sees of them.
//!
//! They write impls of the public traits of `rpc-core` and nothing else, so whatever they do can
//! be written by hand. They are re-exported by `rpc-core` and `rpc-actix`; generated code names
//! whichever of the two is in the calling crate's `Cargo.toml`, under the name that it has there.

mod attr;
mod endpoint;
mod krate;
mod message;
mod method;
mod protocol;

use proc_macro::TokenStream;
use quote::quote;
use syn::{DeriveInput, Item, parse_macro_input};

/// Makes a type a message, which refs can send and endpoints can take.
///
/// The type also needs serde's two derives. It must not be generic, because a message has one
/// name on the wire.
///
/// ```
/// use rpc_core::{Ask, OneWay, RpcMessage};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Serialize, Deserialize, RpcMessage)]
/// pub struct Heartbeat {
///     pub worker: u64,
/// }
///
/// #[derive(Debug, Serialize, Deserialize, RpcMessage)]
/// #[rpc(reply = Registered, name = "master.register")]
/// pub struct RegisterWorker {
///     pub cores: u32,
/// }
///
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct Registered {
///     pub id: u64,
/// }
///
/// fn is_sent<M: OneWay>() {}
/// fn is_asked<M: Ask<Reply = Registered>>() {}
/// is_sent::<Heartbeat>();
/// is_asked::<RegisterWorker>();
/// assert_eq!((Heartbeat::NAME, RegisterWorker::NAME), ("Heartbeat", "master.register"));
/// ```
///
/// # `#[rpc(..)]`
///
/// | key | meaning |
/// |---|---|
/// | `reply = Type` | The message is an ask (`Ask`) that is answered with this type. Without it the message is one-way (`OneWay`). |
/// | `name = ".."` | Its name on the wire, 1 to 255 bytes. Both sides must agree on it. By default the bare name of the type, so that moving a type changes nothing and renaming it does. |
/// | `lane = "bulk"` | It gives way to other messages and has no order with them. `"normal"` is the default. |
/// | `compact` | Structs are written without field names: smaller, but any added field breaks peers. |
/// | `abort` | The handler's future may be dropped in the middle when the caller gives up. Only with `reply`. |
///
/// Each key may be given once; they may be spread over several attributes.
#[proc_macro_derive(RpcMessage, attributes(rpc))]
pub fn derive_rpc_message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    krate::path()
        .and_then(|krate| message::expand(&input, &krate))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes a type an endpoint: goes on an `impl Type { .. }` block whose marked methods are its
/// handlers and hooks.
///
/// ```
/// use rpc_core::{EndpointContext, HandlerResult, RpcCallContext, RpcMessage, endpoint};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Serialize, Deserialize, RpcMessage)]
/// pub struct Heartbeat {
///     pub worker: u64,
/// }
///
/// #[derive(Debug, Serialize, Deserialize, RpcMessage)]
/// #[rpc(reply = u64)]
/// pub struct RegisterWorker {
///     pub cores: u32,
/// }
///
/// #[derive(Debug, Serialize, Deserialize, RpcMessage)]
/// #[rpc(reply = Vec<u32>)]
/// pub struct Report;
///
/// #[derive(Default)]
/// pub struct Master {
///     workers: Vec<u32>,
///     beats: u64,
/// }
///
/// #[endpoint]
/// impl Master {
///     #[receive]
///     async fn heartbeat(&mut self, _msg: Heartbeat) -> HandlerResult<()> {
///         self.beats += 1;
///         Ok(())
///     }
///
///     #[receive_and_reply]
///     async fn register(
///         &mut self,
///         msg: RegisterWorker,
///         cx: &mut EndpointContext<Self>,
///     ) -> HandlerResult<u64> {
///         self.workers.push(msg.cores);
///         println!("{}: a worker of {:?}", cx.name(), cx.sender());
///         Ok(self.workers.len() as u64)
///     }
///
///     #[receive_and_reply] // answered later, from another thread
///     async fn report(&mut self, _msg: Report, call: RpcCallContext<Vec<u32>>) -> HandlerResult<()> {
///         let cores = self.workers.clone();
///         std::thread::spawn(move || call.reply(cores));
///         Ok(())
///     }
///
///     #[on_start]
///     fn started(&mut self, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
///         println!("{} is there", cx.name());
///         Ok(())
///     }
///
///     fn cores(&self) -> u32 { // not marked: an ordinary method
///         self.workers.iter().sum()
///     }
/// }
///
/// assert_eq!(Master::default().cores(), 0);
/// ```
///
/// # Handlers
///
/// One for each type of message; the type of `msg` says which.
///
/// | marker | parameters after `self` | returns |
/// |---|---|---|
/// | `#[receive]` | `msg: M` | `HandlerResult<()>` |
/// | `#[receive_and_reply]` | `msg: M` | `HandlerResult<R>`, the answer |
/// | `#[receive_and_reply]` | `msg: M, call: RpcCallContext<R>` | `HandlerResult<()>`, answered through `call` |
/// | `#[receive_raw]` | `msg: RawMessage` | `HandlerResult<()>` |
/// | `#[receive_and_reply_raw]` | `msg: RawMessage, call: RpcCallContext<RawReply>` | `HandlerResult<()>` |
///
/// `M` is a one-way message for `#[receive]`, an ask with the reply `R` for
/// `#[receive_and_reply]`. The raw ones take what no other handler takes, and each may be there
/// once.
///
/// # Hooks
///
/// Each may be there once. All return `HandlerResult<()>`.
///
/// | marker | parameters after `self` | called |
/// |---|---|---|
/// | `#[on_start]` | | before any message |
/// | `#[on_stop]` | | after the last message |
/// | `#[on_error]` | `error: RpcError` | with each error and panic of the other methods |
/// | `#[on_terminated]` | `event: Terminated` | when an endpoint that this one watches has ended |
/// | `#[on_connected]` | `peer: &RpcAddress` | when a peer is connected |
/// | `#[on_disconnected]` | `peer: &RpcAddress` | when a connection is gone |
/// | `#[on_network_error]` | `cause: &RpcError, peer: &RpcAddress` | when a connection broke |
///
/// An endpoint without the last three is not woken for network events.
///
/// # Rules for marked methods
///
/// - They are `async fn` or plain `fn`, and take `&mut self` or `&self`.
/// - Last may come the context, `cx: &mut EndpointContext<Self>` (or `&EndpointContext<Self>`).
/// - They cannot be generic, unsafe or under their own `#[cfg(..)]`. The block may be generic.
/// - An endpoint has one such block: a second one would implement the same trait again.
///
/// # `#[endpoint(protocol = Path)]`
///
/// Also checks, when it compiles, that the endpoint takes every message of a
/// [`protocol!`]; the error names the message that is missing.
#[proc_macro_attribute]
pub fn endpoint(args: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as Item);
    let Item::Impl(mut block) = item else {
        let text = "`#[endpoint]` goes on an inherent `impl Type { .. }` block";
        let error = syn::Error::new_spanned(&item, text).into_compile_error();
        return quote!(#item #error).into();
    };
    // The block is there in any case, so that one error does not make every method unknown.
    let beside = krate::path()
        .and_then(|krate| endpoint::expand(args.into(), &mut block, &krate))
        .unwrap_or_else(syn::Error::into_compile_error);
    quote!(#block #beside).into()
}

/// Declares what clients see of an endpoint: a type that names messages and has no values.
///
/// A crate that both sides share declares the messages and the protocol, clients hold an
/// `RpcEndpointRef<MasterApi>`, and the crate that implements the endpoint checks it with
/// `#[endpoint(protocol = MasterApi)]`.
///
/// ```
/// use rpc_core::{HandlerResult, RpcEndpointRef, RpcMessage, RpcProtocol, endpoint, protocol};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Serialize, Deserialize, RpcMessage)]
/// pub struct Heartbeat;
///
/// protocol! {
///     /// What workers may say to a master.
///     pub MasterApi { Heartbeat }
/// }
///
/// pub struct Master;
///
/// #[endpoint(protocol = MasterApi)]
/// impl Master {
///     #[receive]
///     fn heartbeat(&mut self, _msg: Heartbeat) -> HandlerResult<()> {
///         Ok(())
///     }
/// }
///
/// /// A client needs the protocol only.
/// fn beat(master: &RpcEndpointRef<MasterApi>) -> Result<(), rpc_core::RpcError> {
///     master.send(Heartbeat)
/// }
///
/// assert_eq!(MasterApi::MESSAGES, ["Heartbeat"]);
/// ```
///
/// One call may declare several protocols. Doc comments and other attributes go on the type.
/// Visibility and a list of at least one message follow; a message may be in several protocols.
#[proc_macro]
pub fn protocol(input: TokenStream) -> TokenStream {
    let protocols = parse_macro_input!(input as protocol::Protocols);
    krate::path()
        .and_then(|krate| protocol::expand(&protocols, &krate))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
