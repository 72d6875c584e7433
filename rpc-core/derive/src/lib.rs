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
/// ```ignore
/// #[derive(Debug, Serialize, Deserialize, RpcMessage)]
/// pub struct Heartbeat { pub worker: WorkerId }          // one way: `send`
///
/// #[derive(Debug, Serialize, Deserialize, RpcMessage)]
/// #[rpc(reply = Registered, name = "master.register")]   // an ask: `ask`
/// pub struct RegisterWorker { pub cores: u32 }
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
/// ```ignore
/// pub struct Master { workers: HashMap<WorkerId, Worker> }
///
/// #[endpoint]
/// impl Master {
///     #[receive]
///     async fn heartbeat(&mut self, msg: Heartbeat) -> HandlerResult<()> { .. }
///
///     #[receive_and_reply]
///     async fn register(
///         &mut self,
///         msg: RegisterWorker,
///         cx: &mut EndpointContext<Self>,
///     ) -> HandlerResult<Registered> { .. }
///
///     #[receive_and_reply] // answered later, from another task
///     async fn report(&mut self, msg: Report, call: RpcCallContext<Summary>) -> HandlerResult<()> { .. }
///
///     #[on_start]
///     fn started(&mut self, cx: &mut EndpointContext<Self>) -> HandlerResult<()> { .. }
///
///     fn free_cores(&self) -> u32 { .. } // not marked: an ordinary method
/// }
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
/// - A message must be at least as visible as the endpoint, because the endpoint's list of
///   handlers names it.
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
/// ```ignore
/// protocol! {
///     /// What workers and drivers may ask of a master.
///     pub MasterApi { Heartbeat, RegisterWorker, Report }
/// }
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
