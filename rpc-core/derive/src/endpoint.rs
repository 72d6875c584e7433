//! `#[endpoint]`.

use crate::attr::{EndpointArgs, Errors};
use crate::krate;
use crate::method::{Marker, Method, refuse_marker, span_of};
use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::{ImplItem, ItemImpl, Type, TypePath};

/// `HandlerSet` is implemented for tuples of up to this many.
const MAX_TUPLE: usize = 12;

/// Takes the markers off `block` and returns the trait impls that belong beside it.
pub(crate) fn expand(
    args: TokenStream,
    block: &mut ItemImpl,
    krate: &TokenStream,
) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    let args = errors.take(EndpointArgs::parse(args)).unwrap_or_default();
    if let Some((path, _)) = &block.trait_ {
        let text = "`#[endpoint]` goes on an inherent `impl Type { .. }` block";
        errors.push(syn::Error::new_spanned(path, text));
    }
    let methods = errors.take(take_methods(&mut block.items)).unwrap_or_default();
    errors.take(check_unique(&methods));
    errors.finish(())?;
    let endpoint = Endpoint { block, methods: &methods, krate };
    let protocol = args.protocol.map(|protocol| endpoint.check_protocol(&protocol));
    let handlers: TokenStream = endpoint.handlers().map(|it| endpoint.handler(&it)).collect();
    let itself = endpoint.endpoint();
    Ok(quote!(#handlers #itself #protocol))
}

fn take_methods(items: &mut [ImplItem]) -> syn::Result<Vec<Method>> {
    let mut errors = Errors::default();
    let mut methods = Vec::new();
    for item in items {
        let refused = match item {
            ImplItem::Fn(method) => {
                methods.extend(errors.take(Method::take(method)).flatten());
                Ok(())
            }
            ImplItem::Const(item) => refuse_marker(&mut item.attrs, "a constant"),
            ImplItem::Type(item) => refuse_marker(&mut item.attrs, "a type"),
            ImplItem::Macro(item) => refuse_marker(&mut item.attrs, "a macro call"),
            _ => Ok(()),
        };
        errors.take(refused);
    }
    errors.finish(methods)
}

/// One handler for each message, one method for each hook.
fn check_unique(methods: &[Method]) -> syn::Result<()> {
    let mut errors = Errors::default();
    for (index, method) in methods.iter().enumerate() {
        let same = |other: &&Method| {
            if method.marker.is_typed() {
                other.marker.is_typed() && other.values.first() == method.values.first()
            } else {
                other.marker == method.marker
            }
        };
        let Some(first) = methods.iter().take(index).find(same) else { continue };
        let first = &first.ident;
        if method.marker.is_typed() {
            let text = format!("the method `{first}` handles this message already");
            errors.push(syn::Error::new_spanned(method.values.first(), text));
        } else {
            let name = method.marker.name();
            let text = format!("the method `{first}` is marked `#[{name}]` already");
            errors.push(syn::Error::new(method.ident.span(), text));
        }
    }
    errors.finish(())
}

/// Generated code is at the place of the user's code that its errors are about, and has no names
/// in common with it.
fn at(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

/// A method of a trait, as the trait declares it.
struct TraitFn {
    name: &'static str,
    /// Between `self` and `cx`.
    params: Vec<(&'static str, TokenStream)>,
    /// `HandlerResult<..>`.
    output: TokenStream,
}

/// A method that takes one type of message.
struct Handler<'a> {
    method: &'a Method,
    message: &'a Type,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Receive,
    Reply,
    ReplyLater,
}

impl<'a> Handler<'a> {
    fn of(method: &'a Method) -> Option<Self> {
        let (message, kind) = match (method.marker, method.values.as_slice()) {
            (Marker::Receive, [message]) => (message, Kind::Receive),
            (Marker::ReceiveAndReply, [message]) => (message, Kind::Reply),
            (Marker::ReceiveAndReply, [message, _call]) => (message, Kind::ReplyLater),
            _ => return None,
        };
        Some(Self { method, message, kind })
    }

    /// Where errors about the message are shown.
    fn span(&self) -> Span {
        at(span_of(self.message))
    }
}

struct Endpoint<'a> {
    block: &'a ItemImpl,
    methods: &'a [Method],
    krate: &'a TokenStream,
}

impl Endpoint<'_> {
    fn handlers(&self) -> impl Iterator<Item = Handler<'_>> {
        self.methods.iter().filter_map(Handler::of)
    }

    /// `impl Trait for Endpoint { .. }`, with the generics of the block.
    fn implement(&self, of: &TokenStream, items: &TokenStream) -> TokenStream {
        let (generics, _, bounds) = self.block.generics.split_for_impl();
        let endpoint = &self.block.self_ty;
        quote_spanned! {Span::mixed_site()=>
            #[automatically_derived]
            impl #generics #of for #endpoint #bounds { #items }
        }
    }

    /// What a typed handler stands for.
    fn handler(&self, handler: &Handler<'_>) -> TokenStream {
        let Handler { method, message, kind } = handler;
        let span = handler.span();
        let krate = krate::at(self.krate, span);
        let reply = quote_spanned!(span=> <#message as #krate::Ask>::Reply);
        let done = quote_spanned!(span=> #krate::HandlerResult<()>);
        let mut params = vec![("msg", message.to_token_stream())];
        let (trait_, name, output) = match kind {
            Kind::Receive => ("Receive", "handle", done),
            Kind::Reply => {
                let replied = quote_spanned!(span=> #krate::HandlerResult<#reply>);
                ("ReceiveAndReply", "handle_and_reply", replied)
            }
            Kind::ReplyLater => {
                params.push(("call", quote_spanned!(span=> #krate::RpcCallContext<#reply>)));
                ("ReceiveAndReplyLater", "handle_and_reply_later", done)
            }
        };
        let trait_ = Ident::new(trait_, span);
        let handle = self.trait_fn(method, &TraitFn { name, params, output });
        let handles = self.implement(&quote_spanned!(span=> #krate::#trait_<#message>), &handle);
        let accepts = quote_spanned!(span=> #krate::Accepts<#message>);
        let accepts = self.implement(&accepts, &TokenStream::new());
        quote!(#handles #accepts)
    }

    /// `fn handle(..) -> impl Future<Output = HandlerResult<..>> { Self::method(self, ..) }`. It is the
    /// method's own future, because one around it would be moved with the message once more; what is no
    /// future becomes one.
    fn trait_fn(&self, method: &Method, declared: &TraitFn) -> TokenStream {
        let krate = self.krate;
        let span = Span::mixed_site();
        let name = Ident::new(declared.name, span);
        let params = declared.params.iter().map(|(param, ty)| {
            let param = Ident::new(param, span);
            quote_spanned!(span=> #param: #ty)
        });
        let cx = Ident::new(if method.cx.is_some() { "cx" } else { "_cx" }, span);
        let output = &declared.output;
        let call = call(method, declared);
        let context = quote_spanned!(span=> &mut #krate::EndpointContext<Self>);
        if !method.is_async {
            return quote_spanned! {span=>
                async fn #name(
                    &mut self, #(#params,)* #cx: #context
                ) -> #output {
                    #call
                }
            };
        }
        // Where another type is returned, that is what the error shows.
        let (first, _) = ends(&method.output);
        let future = quote_spanned!(at(first)=> impl ::core::future::Future<Output = #output>);
        quote_spanned! {span=>
            fn #name(
                &mut self, #(#params,)* #cx: #context
            ) -> #future {
                #call
            }
        }
    }

    fn endpoint(&self) -> TokenStream {
        let krate = self.krate;
        let handlers = tuple(self.handlers().map(|handler| self.listed(&handler)).collect());
        let is_network = |method: &Method| method.marker.is_network();
        let events = self
            .methods
            .iter()
            .any(is_network)
            .then(|| quote_spanned!(Span::mixed_site()=> const NETWORK_EVENTS: bool = true;));
        let hooks = self.methods.iter().filter_map(|method| {
            self.hook(method.marker).map(|declared| self.trait_fn(method, &declared))
        });
        let items = quote_spanned! {Span::mixed_site()=>
            type Handlers = Self;
            #events
            #(#hooks)*
        };
        let itself = self.implement(&quote!(#krate::RpcEndpoint), &items);
        let handlers = self.handler_set(&handlers);
        quote!(#itself #handlers)
    }

    /// The endpoint is its own `HandlerSet`, because the type `Handlers` may name no message that
    /// is less visible than the endpoint, and bodies of functions may.
    fn handler_set(&self, handlers: &TokenStream) -> TokenStream {
        let krate = self.krate;
        let set = quote_spanned!(Span::mixed_site()=> #krate::HandlerSet<Self>);
        let items = quote_spanned! {Span::mixed_site()=>
            const LEN: usize = <#handlers as #set>::LEN;

            fn describe(into: &mut ::std::vec::Vec<#krate::__private::HandlerInfo>) {
                <#handlers as #set>::describe(into);
            }

            fn dispatch(
                index: usize,
                endpoint: &mut Self,
                cx: &mut #krate::EndpointContext<Self>,
            ) -> impl ::core::future::Future<Output = #krate::HandlerResult<()>> {
                <#handlers as #set>::dispatch(index, endpoint, cx)
            }
        };
        self.implement(&set, &items)
    }

    /// How the handler is listed in `Handlers`.
    fn listed(&self, handler: &Handler<'_>) -> TokenStream {
        let message = handler.message;
        let span = handler.span();
        let krate = krate::at(self.krate, span);
        let marker = match handler.kind {
            Kind::Receive => "Receives",
            Kind::Reply => "Replies",
            Kind::ReplyLater => "RepliesLater",
        };
        let marker = Ident::new(marker, span);
        quote_spanned!(span=> #krate::#marker<#message>)
    }

    /// The method of `RpcEndpoint` that a marker overrides.
    fn hook(&self, marker: Marker) -> Option<TraitFn> {
        let krate = self.krate;
        let span = Span::mixed_site();
        let raw = || ("msg", quote_spanned!(span=> #krate::RawMessage));
        let peer = || ("peer", quote_spanned!(span=> &#krate::RpcAddress));
        let error = quote_spanned!(span=> #krate::RpcError);
        let (name, params) = match marker {
            Marker::Receive | Marker::ReceiveAndReply => return None,
            Marker::ReceiveRaw => ("receive", vec![raw()]),
            Marker::ReceiveAndReplyRaw => {
                let call = quote_spanned!(span=> #krate::RpcCallContext<#krate::RawReply>);
                ("receive_and_reply", vec![raw(), ("call", call)])
            }
            Marker::OnError => (marker.name(), vec![("error", error)]),
            Marker::OnTerminated => {
                (marker.name(), vec![("event", quote_spanned!(span=> #krate::Terminated))])
            }
            Marker::OnNetworkError => {
                (marker.name(), vec![("cause", quote_spanned!(span=> &#error)), peer()])
            }
            Marker::OnConnected | Marker::OnDisconnected => (marker.name(), vec![peer()]),
            Marker::OnStart | Marker::OnStop => (marker.name(), Vec::new()),
        };
        Some(TraitFn { name, params, output: quote_spanned!(span=> #krate::HandlerResult<()>) })
    }

    /// Fails to compile, at the protocol, if one of its messages has no handler.
    fn check_protocol(&self, protocol: &TypePath) -> TokenStream {
        let krate = self.krate;
        let (generics, _, bounds) = self.block.generics.split_for_impl();
        let endpoint = &self.block.self_ty;
        quote_spanned! {Span::mixed_site()=>
            const _: () = {
                const fn covers<__Endpoint, __Protocol: #krate::CoveredBy<__Endpoint>>() {}
                // A function, because the block may be generic; nobody calls it.
                const fn _check #generics () #bounds {
                    covers::<#endpoint, #protocol>();
                }
            };
        }
    }
}

/// The call of the user's method, placed at the return type: that is what a wrong one is about.
fn call(method: &Method, declared: &TraitFn) -> TokenStream {
    let (first, last) = ends(&method.output);
    let values = declared.params.iter().zip(&method.values);
    let mut args: Vec<_> =
        values.map(|((param, _), ty)| Ident::new(param, at(span_of(ty)))).collect();
    args.extend(method.cx.as_ref().map(|ty| Ident::new("cx", at(span_of(ty)))));
    let mut args =
        Group::new(Delimiter::Parenthesis, quote_spanned!(Span::mixed_site()=> self #(, #args)*));
    args.set_span(at(last));
    let name = &method.ident;
    quote_spanned!(at(first)=> Self::#name #args)
}

/// The places where a type begins and ends.
fn ends(ty: &Type) -> (Span, Span) {
    let mut tokens = ty.to_token_stream().into_iter();
    let Some(first) = tokens.next() else { return (Span::call_site(), Span::call_site()) };
    let close = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.span_close(),
        token => token.span(),
    };
    let last = tokens.last().as_ref().map_or_else(|| close(&first), close);
    (first.span(), last)
}

/// `(A, B, ..)`, with tuples inside when there are too many.
fn tuple(mut types: Vec<TokenStream>) -> TokenStream {
    while types.len() > MAX_TUPLE {
        types = types.chunks(MAX_TUPLE).map(|types| quote!((#(#types,)*))).collect();
    }
    quote!((#(#types,)*))
}

#[cfg(test)]
mod tests;
