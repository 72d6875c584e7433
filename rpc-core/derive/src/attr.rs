//! The arguments of the attributes: `#[rpc(..)]` and `#[endpoint(..)]`.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::{Attribute, Ident, LitStr, Token, Type, TypePath};

/// A name on the wire carries its length in one byte.
const MAX_NAME_BYTES: usize = 255;

/// What `#[rpc(..)]` says of a message.
#[derive(Default)]
pub(crate) struct MessageArgs {
    pub(crate) reply: Option<Type>,
    pub(crate) name: Option<String>,
    pub(crate) bulk: bool,
    pub(crate) compact: bool,
    pub(crate) abort: bool,
}

impl MessageArgs {
    const KEYS: [&str; 5] = ["reply", "name", "lane", "compact", "abort"];

    /// Reads every `#[rpc(..)]` among `attrs`.
    pub(crate) fn parse(attrs: &[Attribute]) -> syn::Result<Self> {
        let mut args = Self::default();
        let mut seen = Seen::new(&Self::KEYS);
        let mut errors = Errors::default();
        for attr in attrs.iter().filter(|attr| is_rpc(attr)) {
            let pairs = |input: ParseStream<'_>| {
                parse_pairs(input, &mut errors, |key, input| {
                    seen.insert(key)?;
                    args.set(key, input)
                })
            };
            let parsed = attr.meta.require_list().and_then(|list| list.parse_args_with(pairs));
            errors.take(parsed);
        }
        if let (None, Some(abort)) = (&args.reply, seen.find("abort")) {
            errors.push(syn::Error::new(
                abort.span(),
                "`abort` needs `reply = ..`: a one-way message has no caller that could give up",
            ));
        }
        errors.finish(args)
    }

    fn set(&mut self, key: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
        if key == "reply" {
            self.reply = Some(value(key, "a type", input)?);
        } else if key == "name" {
            let name: LitStr = value(key, "a string", input)?;
            self.name = Some(name.value());
            check_name(&name.value(), name.span())?;
        } else if key == "lane" {
            let lane: LitStr = value(key, "a string", input)?;
            self.bulk = match lane.value().as_str() {
                "bulk" => true,
                "normal" => false,
                _ => {
                    let text = "the lanes of messages are \"normal\" and \"bulk\"";
                    return Err(syn::Error::new(lane.span(), text));
                }
            };
        } else if key == "compact" {
            self.compact = true;
        } else {
            self.abort = true;
        }
        Ok(())
    }
}

/// Whether this is the `#[rpc(..)]` attribute.
pub(crate) fn is_rpc(attr: &Attribute) -> bool {
    attr.path().is_ident("rpc")
}

/// Refuses names that the wire has no room for.
pub(crate) fn check_name(name: &str, span: Span) -> syn::Result<()> {
    let text = if name.is_empty() {
        "the name of a message cannot be empty".to_owned()
    } else if name.len() > MAX_NAME_BYTES {
        format!("the name has {} bytes, the wire allows {MAX_NAME_BYTES}", name.len())
    } else {
        return Ok(());
    };
    Err(syn::Error::new(span, text))
}

/// What `#[endpoint(..)]` says.
#[derive(Default)]
pub(crate) struct EndpointArgs {
    pub(crate) protocol: Option<TypePath>,
}

impl EndpointArgs {
    const KEYS: [&str; 1] = ["protocol"];

    pub(crate) fn parse(args: TokenStream) -> syn::Result<Self> {
        let mut found = Self::default();
        let mut seen = Seen::new(&Self::KEYS);
        let mut errors = Errors::default();
        let pairs = |input: ParseStream<'_>| {
            parse_pairs(input, &mut errors, |key, input| {
                seen.insert(key)?;
                found.protocol = Some(value(key, "the path of a protocol", input)?);
                Ok(())
            })
        };
        let parsed = pairs.parse2(args);
        errors.take(parsed);
        errors.finish(found)
    }
}

/// The keys that were given so far.
struct Seen {
    known: &'static [&'static str],
    given: Vec<Ident>,
}

impl Seen {
    const fn new(known: &'static [&'static str]) -> Self {
        Self { known, given: Vec::new() }
    }

    fn find(&self, key: &str) -> Option<&Ident> {
        self.given.iter().find(|given| *given == key)
    }

    /// Refuses a key that is not known or was given before, and lists the known ones.
    fn insert(&mut self, key: &Ident) -> syn::Result<()> {
        let known: Vec<_> = self.known.iter().map(|key| format!("`{key}`")).collect();
        let known = known.join(", ");
        if !self.known.iter().any(|known| key == known) {
            let text = format!("unknown key `{key}`, the known ones are {known}");
            return Err(syn::Error::new(key.span(), text));
        }
        if self.find(&key.to_string()).is_some() {
            let text = format!("`{key}` is given twice, each of {known} may be given once");
            return Err(syn::Error::new(key.span(), text));
        }
        self.given.push(key.clone());
        Ok(())
    }
}

/// Reads `key`s with their values, separated by commas, and goes on after a wrong one.
fn parse_pairs(
    input: ParseStream<'_>,
    errors: &mut Errors,
    mut each: impl FnMut(&Ident, ParseStream<'_>) -> syn::Result<()>,
) -> syn::Result<()> {
    while !input.is_empty() {
        let key = input.call(Ident::parse_any)?;
        if let Err(error) = each(&key, input) {
            errors.push(error);
            skip_value(input)?;
        } else if !input.is_empty() && !input.peek(Token![,]) {
            errors.push(input.error(format!("expected a comma after `{key}`")));
            skip_value(input)?;
        }
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(())
}

/// The value after `key =`.
fn value<T: Parse>(key: &Ident, what: &str, input: ParseStream<'_>) -> syn::Result<T> {
    if !input.peek(Token![=]) {
        return Err(syn::Error::new(key.span(), format!("`{key}` takes {what}: `{key} = ..`")));
    }
    input.parse::<Token![=]>()?;
    input.parse()
}

/// Goes to the comma that ends a wrong pair; commas inside of a type do not.
fn skip_value(input: ParseStream<'_>) -> syn::Result<()> {
    if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        if input.fork().parse::<Type>().is_ok() {
            input.parse::<Type>()?;
        }
    }
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}

/// Errors that are reported together.
#[derive(Default)]
pub(crate) struct Errors(Option<syn::Error>);

impl Errors {
    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// Keeps the error of `result`, and gives back its value.
    pub(crate) fn take<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// `value`, if there was no error.
    pub(crate) fn finish<T>(self, value: T) -> syn::Result<T> {
        self.0.map_or(Ok(value), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    fn rpc(args: TokenStream) -> syn::Result<MessageArgs> {
        MessageArgs::parse(&[syn::parse_quote!(#[rpc(#args)])])
    }

    fn errors(args: TokenStream) -> Vec<String> {
        let error = rpc(args).err().unwrap();
        error.into_iter().map(|error| error.to_string()).collect()
    }

    #[test]
    fn reads_every_key() {
        let args =
            rpc(quote!(reply = Map<Key, Vec<u8>>, name = "a.B", lane = "bulk", compact, abort,));
        let args = args.unwrap();
        let reply = args.reply.unwrap();
        assert_eq!(reply, syn::parse_quote!(Map<Key, Vec<u8>>));
        assert_eq!(args.name.unwrap(), "a.B");
        assert!(args.bulk && args.compact && args.abort);
    }

    #[test]
    fn defaults_and_several_attributes() {
        let args = MessageArgs::parse(&[]).unwrap();
        assert!(args.reply.is_none() && args.name.is_none());
        assert!(!args.bulk && !args.compact && !args.abort);
        let normal = rpc(quote!(lane = "normal")).unwrap();
        assert!(!normal.bulk);
        let attrs: [Attribute; 3] = [
            syn::parse_quote!(#[doc = "not ours"]),
            syn::parse_quote!(#[rpc(reply = ())]),
            syn::parse_quote!(#[rpc(abort)]),
        ];
        assert!(MessageArgs::parse(&attrs).unwrap().abort);
    }

    #[test]
    fn unknown_and_doubled_keys_list_the_known_ones() {
        let known = "`reply`, `name`, `lane`, `compact`, `abort`";
        assert_eq!(
            errors(quote!(replay = HashMap<A, B>, compact, compact)),
            [
                format!("unknown key `replay`, the known ones are {known}"),
                format!("`compact` is given twice, each of {known} may be given once"),
            ]
        );
    }

    #[test]
    fn values_are_checked() {
        assert_eq!(errors(quote!(name = "")), ["the name of a message cannot be empty"]);
        let long = "x".repeat(256);
        assert_eq!(errors(quote!(name = #long)), ["the name has 256 bytes, the wire allows 255"]);
        let fits = "x".repeat(255);
        assert!(rpc(quote!(name = #fits)).is_ok());
        assert_eq!(
            errors(quote!(lane = "control")),
            ["the lanes of messages are \"normal\" and \"bulk\""]
        );
        assert_eq!(errors(quote!(reply)), ["`reply` takes a type: `reply = ..`"]);
        assert_eq!(errors(quote!(compact = true)), ["expected a comma after `compact`"]);
        assert_eq!(errors(quote!(name = Beat)), ["expected string literal"]);
    }

    #[test]
    fn abort_needs_a_reply() {
        let [error] = errors(quote!(abort)).try_into().unwrap();
        assert!(error.starts_with("`abort` needs `reply = ..`"), "{error}");
        assert!(rpc(quote!(abort, reply = u32)).is_ok());
    }

    #[test]
    fn all_errors_are_reported_together() {
        let found = errors(quote!(name = "", lane = "x", what, abort));
        assert_eq!(found.len(), 4, "{found:?}");
    }

    #[test]
    fn the_attribute_needs_parentheses() {
        assert!(MessageArgs::parse(&[syn::parse_quote!(#[rpc])]).is_err());
        assert!(MessageArgs::parse(&[syn::parse_quote!(#[rpc = "x"])]).is_err());
        assert!(MessageArgs::parse(&[syn::parse_quote!(#[rpc()])]).is_ok());
    }

    #[test]
    fn endpoint_arguments() {
        assert!(EndpointArgs::parse(quote!()).unwrap().protocol.is_none());
        assert!(EndpointArgs::parse(quote!(protocol = api::MasterApi)).unwrap().protocol.is_some());
        let text = |args| EndpointArgs::parse(args).err().unwrap().to_string();
        assert_eq!(text(quote!(api = X)), "unknown key `api`, the known ones are `protocol`");
        assert!(text(quote!(protocol = A, protocol = B)).contains("given twice"));
        assert!(text(quote!(protocol)).contains("`protocol = ..`"));
    }
}
