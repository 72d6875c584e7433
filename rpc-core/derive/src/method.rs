//! The marked methods of an `#[endpoint]` block: what they mean and how they must look.

use crate::attr::Errors;
use proc_macro2::Span;
use syn::{
    Attribute, FnArg, GenericParam, Ident, ImplItemFn, Receiver, ReceiverKind, ReturnType, Safety,
    Signature, Type,
};

/// The attribute that makes a method a handler or a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    Receive,
    ReceiveAndReply,
    ReceiveRaw,
    ReceiveAndReplyRaw,
    OnStart,
    OnStop,
    OnError,
    OnTerminated,
    OnConnected,
    OnDisconnected,
    OnNetworkError,
}

impl Marker {
    const ALL: [Self; 11] = [
        Self::Receive,
        Self::ReceiveAndReply,
        Self::ReceiveRaw,
        Self::ReceiveAndReplyRaw,
        Self::OnStart,
        Self::OnStop,
        Self::OnError,
        Self::OnTerminated,
        Self::OnConnected,
        Self::OnDisconnected,
        Self::OnNetworkError,
    ];

    /// The marker that this attribute is, if it is one.
    pub(crate) fn of(attr: &Attribute) -> Option<Self> {
        Self::ALL.into_iter().find(|marker| attr.path().is_ident(marker.name()))
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::ReceiveAndReply => "receive_and_reply",
            Self::ReceiveRaw => "receive_raw",
            Self::ReceiveAndReplyRaw => "receive_and_reply_raw",
            Self::OnStart => "on_start",
            Self::OnStop => "on_stop",
            Self::OnError => "on_error",
            Self::OnTerminated => "on_terminated",
            Self::OnConnected => "on_connected",
            Self::OnDisconnected => "on_disconnected",
            Self::OnNetworkError => "on_network_error",
        }
    }

    /// Whether the endpoint may have several such methods, one for each message.
    pub(crate) const fn is_typed(self) -> bool {
        matches!(self, Self::Receive | Self::ReceiveAndReply)
    }

    pub(crate) const fn is_network(self) -> bool {
        matches!(self, Self::OnConnected | Self::OnDisconnected | Self::OnNetworkError)
    }

    /// The parameters between `self` and `cx`, as an error shows them.
    const fn params(self) -> &'static str {
        match self {
            Self::Receive | Self::ReceiveAndReply => "msg: Message, ",
            Self::ReceiveRaw => "msg: RawMessage, ",
            Self::ReceiveAndReplyRaw => "msg: RawMessage, call: RpcCallContext<RawReply>, ",
            Self::OnStart | Self::OnStop => "",
            Self::OnError => "error: RpcError, ",
            Self::OnTerminated => "event: Terminated, ",
            Self::OnConnected | Self::OnDisconnected => "peer: &RpcAddress, ",
            Self::OnNetworkError => "cause: &RpcError, peer: &RpcAddress, ",
        }
    }

    fn allows(self, values: usize) -> bool {
        match self {
            Self::OnStart | Self::OnStop => values == 0,
            Self::Receive
            | Self::ReceiveRaw
            | Self::OnError
            | Self::OnTerminated
            | Self::OnConnected
            | Self::OnDisconnected => values == 1,
            Self::ReceiveAndReply => values == 1 || values == 2,
            Self::ReceiveAndReplyRaw | Self::OnNetworkError => values == 2,
        }
    }

    fn expected(self, method: &Ident) -> String {
        let show = |params: &str, output: &str| {
            format!(
                "`async fn {method}(&mut self, {params}cx: &mut EndpointContext<Self>) \
                 -> HandlerResult<{output}>`"
            )
        };
        let name = self.name();
        if self == Self::ReceiveAndReply {
            let now = show(self.params(), "Reply");
            let later = show("msg: Message, call: RpcCallContext<Reply>, ", "()");
            format!("`#[{name}]` expects {now}, or {later} to answer later (`cx` may be left out)")
        } else {
            let expected = show(self.params(), "()");
            format!("`#[{name}]` expects {expected} (`cx` may be left out)")
        }
    }
}

/// A method that is called like a hook and is none would never be called.
fn refuse_hook_name(method: &Ident) -> syn::Result<()> {
    let Some(marker) = Marker::ALL.into_iter().find(|marker| method == marker.name()) else {
        return Ok(());
    };
    let raw = match marker {
        Marker::Receive => ", `#[receive_raw]` if it takes what no other handler takes,",
        Marker::ReceiveAndReply => {
            ", `#[receive_and_reply_raw]` if it takes what no other handler takes,"
        }
        _ => "",
    };
    let name = marker.name();
    let text = format!(
        "the method `{method}` has no marker, so the endpoint would never call it: put \
         `#[{name}]` on it{raw} or give it another name"
    );
    Err(syn::Error::new(method.span(), text))
}

/// A marked method whose signature was checked.
pub(crate) struct Method {
    pub(crate) marker: Marker,
    pub(crate) ident: Ident,
    pub(crate) is_async: bool,
    /// The types of the parameters between `self` and `cx`.
    pub(crate) values: Vec<Type>,
    /// The type of `cx`, if the method takes it.
    pub(crate) cx: Option<Type>,
    pub(crate) output: Type,
}

impl Method {
    /// Takes the marker off `method` and checks the signature. `None` if there is no marker.
    pub(crate) fn take(method: &mut ImplItemFn) -> syn::Result<Option<Self>> {
        let Some(marker) = take_marker(&mut method.attrs)? else {
            return refuse_hook_name(&method.sig.ident).map(|()| None);
        };
        let mut errors = Errors::default();
        if let Some(cfg) = method.attrs.iter().find(|attr| attr.path().is_ident("cfg")) {
            let text = "a marked method cannot have a `#[cfg(..)]`, because the handlers of an \
                        endpoint are one list: put it on the whole block";
            errors.push(syn::Error::new_spanned(cfg, text));
        }
        method.attrs.insert(0, Self::lints());
        let parsed = errors.take(Self::parse(marker, &method.sig));
        errors.finish(parsed)
    }

    /// Lints that ask for another signature do not look at trait methods. They look at marked ones,
    /// whose signature is no more the user's choice. First, so that the user's own attributes win.
    pub(crate) fn lints() -> Attribute {
        syn::parse_quote_spanned! {Span::mixed_site()=>
            #[allow(
                clippy::needless_pass_by_ref_mut,
                clippy::needless_pass_by_value,
                clippy::unnecessary_wraps,
                clippy::unused_async,
                clippy::unused_self,
                reason = "a handler has the signature that its endpoint needs"
            )]
        }
    }

    fn parse(marker: Marker, sig: &Signature) -> syn::Result<Self> {
        let mut errors = Errors::default();
        errors.take(check_receiver(marker, sig));
        errors.take(check_qualifiers(marker, sig));
        let mut values: Vec<_> = sig.inputs.iter().filter_map(typed).cloned().collect();
        let cx = values.pop_if(|last| is_cx(last));
        let by_value = values.iter().find(|ty| last_segment(ty).is_some_and(names_cx));
        if let Some(by_value) = by_value {
            errors.push(syn::Error::new_spanned(by_value, marker.expected(&sig.ident)));
        } else if !marker.allows(values.len()) {
            errors.push(count_error(marker, sig));
        } else if marker.is_typed() {
            errors.take(check_message(values.first()));
        }
        let output = match &sig.output {
            ReturnType::Type(_, output) => Some((**output).clone()),
            ReturnType::Default => {
                errors.push(syn::Error::new(sig.ident.span(), marker.expected(&sig.ident)));
                None
            }
        };
        let ident = sig.ident.clone();
        let is_async = sig.asyncness.is_some();
        let output = output.unwrap_or_else(|| Type::Verbatim(Default::default()));
        errors.finish(Self { marker, ident, is_async, values, cx, output })
    }
}

/// Refuses the markers of what is not a method.
pub(crate) fn refuse_marker(attrs: &mut Vec<Attribute>, kind: &str) -> syn::Result<()> {
    let Some(position) = attrs.iter().position(|attr| Marker::of(attr).is_some()) else {
        return Ok(());
    };
    let attr = attrs.remove(position);
    attrs.retain(|attr| Marker::of(attr).is_none());
    let text = format!("only a method can be a handler or a hook, this is {kind}");
    Err(syn::Error::new_spanned(attr, text))
}

/// Takes off all markers and gives back the only one.
fn take_marker(attrs: &mut Vec<Attribute>) -> syn::Result<Option<Marker>> {
    let mut errors = Errors::default();
    let mut found: Option<Marker> = None;
    attrs.retain(|attr| {
        let Some(marker) = Marker::of(attr) else { return true };
        if attr.meta.require_path_only().is_err() {
            let text = format!("`#[{}]` takes no arguments", marker.name());
            errors.push(syn::Error::new_spanned(attr, text));
        }
        match found {
            None => found = Some(marker),
            Some(first) => {
                let first = first.name();
                let text = format!("this method is marked `#[{first}]` already");
                errors.push(syn::Error::new_spanned(attr, text));
            }
        }
        false
    });
    errors.finish(found)
}

fn check_receiver(marker: Marker, sig: &Signature) -> syn::Result<()> {
    match sig.receiver() {
        Some(receiver) if borrows(receiver) => Ok(()),
        Some(receiver) => Err(syn::Error::new_spanned(receiver, marker.expected(&sig.ident))),
        None => Err(syn::Error::new(sig.ident.span(), marker.expected(&sig.ident))),
    }
}

fn borrows(receiver: &Receiver) -> bool {
    match &receiver.kind {
        ReceiverKind::Reference(..) => true,
        ReceiverKind::Typed(_, ty) => matches!(**ty, Type::Reference(_)),
        _ => false,
    }
}

fn check_qualifiers(marker: Marker, sig: &Signature) -> syn::Result<()> {
    let name = marker.name();
    let mut errors = Errors::default();
    if let Safety::Unsafe(token) = &sig.safety {
        let text = format!("a method marked `#[{name}]` cannot be unsafe");
        errors.push(syn::Error::new_spanned(token, text));
    }
    let is_lifetime = |param: &GenericParam| matches!(param, GenericParam::Lifetime(_));
    if let Some(param) = sig.generics.params.iter().find(|param| !is_lifetime(param)) {
        let text = format!("a method marked `#[{name}]` cannot be generic");
        errors.push(syn::Error::new_spanned(param, text));
    }
    errors.finish(())
}

fn check_message(message: Option<&Type>) -> syn::Result<()> {
    let text = match message {
        Some(Type::Reference(_)) => "a handler takes its message by value",
        Some(Type::ImplTrait(_)) => "a handler takes one message type, so it must be named",
        _ => return Ok(()),
    };
    Err(syn::Error::new_spanned(message, text))
}

fn count_error(marker: Marker, sig: &Signature) -> syn::Error {
    let text = marker.expected(&sig.ident);
    if sig.inputs.is_empty() {
        syn::Error::new(sig.ident.span(), text)
    } else {
        syn::Error::new_spanned(&sig.inputs, text)
    }
}

fn typed(arg: &FnArg) -> Option<&Type> {
    match arg {
        FnArg::Typed(arg) => Some(&arg.ty),
        FnArg::Receiver(_) => None,
    }
}

/// A message and a call context come by value and a peer by `&`, so a `&mut` is the context.
fn is_cx(ty: &Type) -> bool {
    let Type::Reference(reference) = ty else { return false };
    reference.mutability.is_some() || last_segment(&reference.elem).is_some_and(names_cx)
}

fn names_cx(ident: &Ident) -> bool {
    ident == "EndpointContext"
}

/// `C` of `a::b::C<D>`.
fn last_segment(ty: &Type) -> Option<&Ident> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| &segment.ident),
        _ => None,
    }
}

/// Where an error about this type is best shown, as long as spans cannot be joined.
pub(crate) fn span_of(ty: &Type) -> Span {
    let inner = match ty {
        Type::Reference(reference) => &reference.elem,
        other => other,
    };
    last_segment(inner).map_or_else(|| syn::spanned::Spanned::span(inner), Ident::span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(method: &str) -> syn::Result<Option<Method>> {
        Method::take(&mut syn::parse_str(method).unwrap())
    }

    fn parse(method: &str) -> Method {
        take(method).unwrap().unwrap()
    }

    fn error(method: &str) -> String {
        take(method).err().unwrap().to_string()
    }

    fn expects(method: &str) {
        let error = error(method);
        assert!(error.contains(" expects `async fn f(&mut self, "), "{method}: {error}");
    }

    #[test]
    fn takes_the_marker_only() {
        let mut method =
            syn::parse_str("#[doc = \"d\"] #[receive] #[inline] fn f(&self, m: M) -> R {}");
        let method: &mut ImplItemFn = method.as_mut().unwrap();
        let parsed = Method::take(method).unwrap().unwrap();
        assert_eq!(method.attrs.len(), 3);
        assert_eq!(parsed.marker, Marker::Receive);
        assert!(!parsed.is_async && parsed.cx.is_none());
        assert!(take("#[recieve] fn f() {}").unwrap().is_none());
    }

    #[test]
    fn finds_the_context() {
        for cx in ["&mut EndpointContext<Self>", "&'a mut Cx", "&rpc::EndpointContext<Self>"] {
            let with =
                parse(&format!("#[receive] async fn f(&mut self, m: M, cx: {cx}) -> R {{}}"));
            assert!(with.is_async && with.cx.is_some() && with.values.len() == 1, "{cx}");
        }
        let hook = parse("#[on_connected] fn f(self: &mut Self, peer: &RpcAddress) -> R {}");
        assert!(hook.cx.is_none() && hook.values.len() == 1);
    }

    #[test]
    fn asks_are_answered_now_or_later() {
        let values = |params: &str| {
            parse(&format!("#[receive_and_reply] fn f(&mut self, {params}) -> R {{}}")).values.len()
        };
        assert_eq!(values("m: M"), 1);
        assert_eq!(values("m: M, cx: &mut C"), 1);
        assert_eq!(values("m: M, call: RpcCallContext<R>"), 2);
        assert_eq!(values("m: M, call: RpcCallContext<R>, cx: &mut C"), 2);
    }

    #[test]
    fn wrong_signatures_show_the_right_one() {
        for wrong in [
            "#[receive] fn f(&mut self) -> R {}",
            "#[receive] fn f(&mut self, cx: &mut C) -> R {}",
            "#[receive] fn f(&mut self, cx: &mut C, m: M) -> R {}",
            "#[receive] fn f(&mut self, m: M, call: C, cx: &mut C) -> R {}",
            "#[receive] fn f(m: M) -> R {}",
            "#[receive] fn f(self, m: M) -> R {}",
            "#[receive] fn f(self: Box<Self>, m: M) -> R {}",
            "#[receive] fn f(&mut self, m: M) {}",
            "#[receive_and_reply] fn f(&mut self, m: M, cx: EndpointContext<Self>) -> R {}",
            "#[receive_and_reply] fn f(&mut self, m: M, a: A, b: B) -> R {}",
            "#[receive_raw] fn f(&mut self) -> R {}",
            "#[receive_and_reply_raw] fn f(&mut self, m: RawMessage) -> R {}",
            "#[on_start] fn f(&mut self, m: M) -> R {}",
            "#[on_stop] fn f() -> R {}",
            "#[on_error] fn f(&mut self, cx: &mut C) -> R {}",
            "#[on_disconnected] fn f(&mut self) -> R {}",
            "#[on_network_error] fn f(&mut self, peer: &RpcAddress) -> R {}",
        ] {
            expects(wrong);
        }
    }

    #[test]
    fn the_signature_is_spelled_out() {
        assert_eq!(
            error("#[receive] fn f(&mut self) -> R {}"),
            "`#[receive]` expects `async fn f(&mut self, msg: Message, cx: &mut \
             EndpointContext<Self>) -> HandlerResult<()>` (`cx` may be left out)"
        );
        assert!(error("#[receive_and_reply] fn f(&mut self) -> R {}").contains(
            "or `async fn f(&mut self, msg: Message, call: RpcCallContext<Reply>, cx: &mut \
             EndpointContext<Self>) -> HandlerResult<()>` to answer later"
        ));
    }

    #[test]
    fn other_errors_are_named() {
        for (method, text) in [
            ("#[receive] #[on_start] fn f(&self, m: M) -> R {}", "is marked `#[receive]` already"),
            ("#[receive(x)] fn f(&self, m: M) -> R {}", "takes no arguments"),
            ("#[receive] unsafe fn f(&self, m: M) -> R {}", "cannot be unsafe"),
            ("#[receive] fn f<T>(&self, m: T) -> R {}", "cannot be generic"),
            ("#[receive] #[cfg(unix)] fn f(&self, m: M) -> R {}", "`#[cfg(..)]`"),
            ("#[receive] fn f(&self, m: &M) -> R {}", "by value"),
            ("#[receive] fn f(&self, m: impl X) -> R {}", "must be named"),
        ] {
            assert!(error(method).contains(text), "{method}");
        }
        assert!(take("#[receive] fn f<'a>(&'a self, m: M) -> R {}").is_ok());
    }

    #[test]
    fn errors_are_combined() {
        let error = take("#[receive] #[cfg(a)] unsafe fn f<T>(self) {}").err().unwrap();
        assert_eq!(error.into_iter().count(), 6);
    }
}
