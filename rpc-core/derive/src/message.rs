//! `#[derive(RpcMessage)]`.

use crate::attr::{Errors, MessageArgs, check_name, is_rpc};
use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::ext::IdentExt as _;
use syn::{Attribute, Data, DeriveInput, Field};

/// The impls of `RpcMessage` and of `Ask` or `OneWay`.
pub(crate) fn expand(input: &DeriveInput, krate: &TokenStream) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    let args = errors.take(MessageArgs::parse(&input.attrs)).unwrap_or_default();
    errors.take(check_generics(input));
    errors.take(check_fields(&input.data));
    let bare = input.ident.unraw().to_string();
    if args.name.is_none() {
        errors.take(check_name(&bare, input.ident.span()));
    }
    errors.finish(())?;
    Ok(impls(input, &args, args.name.as_ref().unwrap_or(&bare), krate))
}

fn impls(input: &DeriveInput, args: &MessageArgs, name: &str, krate: &TokenStream) -> TokenStream {
    let message = &input.ident;
    let span = Span::mixed_site();
    let lane =
        args.bulk.then(|| quote_spanned!(span=> const LANE: #krate::Lane = #krate::Lane::Bulk;));
    let encoding = args.compact.then(
        || quote_spanned!(span=> const ENCODING: #krate::Encoding = #krate::Encoding::Compact;),
    );
    let abort = args.abort.then(|| quote_spanned!(span=> const ABORT: bool = true;));
    let kind = if let Some(reply) = &args.reply {
        quote_spanned!(span=> impl #krate::Ask for #message { type Reply = #reply; })
    } else {
        quote_spanned!(span=> impl #krate::OneWay for #message {})
    };
    quote_spanned! {span=>
        #[automatically_derived]
        impl #krate::RpcMessage for #message {
            const NAME: &'static str = #name;
            #lane
            #encoding
            #abort
        }

        #[automatically_derived]
        #kind
    }
}

fn check_generics(input: &DeriveInput) -> syn::Result<()> {
    if input.generics.params.is_empty() {
        return Ok(());
    }
    Err(syn::Error::new_spanned(
        &input.generics,
        "an RPC message has one wire name, so it cannot be generic",
    ))
}

/// The attribute is registered for the whole item, so the compiler does not see it misplaced.
fn check_fields(data: &Data) -> syn::Result<()> {
    fn check(attrs: &[Attribute]) -> syn::Result<()> {
        match attrs.iter().find(|attr| is_rpc(attr)) {
            Some(attr) => Err(syn::Error::new_spanned(
                attr,
                "`#[rpc(..)]` belongs on the message, not on its parts",
            )),
            None => Ok(()),
        }
    }
    let check_all = |errors: &mut Errors, fields: &mut dyn Iterator<Item = &Field>| {
        fields.for_each(|field| _ = errors.take(check(&field.attrs)));
    };
    let mut errors = Errors::default();
    match data {
        Data::Struct(data) => check_all(&mut errors, &mut data.fields.iter()),
        Data::Union(data) => check_all(&mut errors, &mut data.fields.named.iter()),
        Data::Enum(data) => {
            for variant in &data.variants {
                errors.take(check(&variant.attrs));
                check_all(&mut errors, &mut variant.fields.iter());
            }
        }
    }
    errors.finish(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    fn expand_str(input: &str) -> syn::Result<String> {
        let tokens = expand(&syn::parse_str(input).unwrap(), &quote!(::rpc_core))?;
        Ok(tokens.to_string())
    }

    fn error(input: &str) -> String {
        expand_str(input).unwrap_err().to_string()
    }

    #[test]
    fn one_way_with_defaults() {
        let expected = quote! {
            #[automatically_derived]
            impl ::rpc_core::RpcMessage for Beat {
                const NAME: &'static str = "Beat";
            }
            #[automatically_derived]
            impl ::rpc_core::OneWay for Beat {}
        };
        assert_eq!(expand_str("struct Beat;").unwrap(), expected.to_string());
    }

    #[test]
    fn ask_with_everything() {
        let expected = quote! {
            #[automatically_derived]
            impl ::rpc_core::RpcMessage for Put {
                const NAME: &'static str = "store.put";
                const LANE: ::rpc_core::Lane = ::rpc_core::Lane::Bulk;
                const ENCODING: ::rpc_core::Encoding = ::rpc_core::Encoding::Compact;
                const ABORT: bool = true;
            }
            #[automatically_derived]
            impl ::rpc_core::Ask for Put { type Reply = Vec<u8>; }
        };
        let input = r#"
            #[rpc(reply = Vec<u8>, name = "store.put")]
            #[rpc(lane = "bulk", compact, abort)]
            enum Put { A }
        "#;
        assert_eq!(expand_str(input).unwrap(), expected.to_string());
    }

    #[test]
    fn raw_identifiers_lose_their_prefix() {
        assert!(expand_str("struct r#match;").unwrap().contains("\"match\""));
    }

    #[test]
    fn generics_are_refused() {
        for input in ["struct A<T>(T);", "struct A<'a>(&'a str);", "struct A<const N: usize>;"] {
            assert_eq!(error(input), "an RPC message has one wire name, so it cannot be generic");
        }
    }

    #[test]
    fn the_attribute_is_refused_on_parts() {
        for input in [
            "struct A { #[rpc(compact)] a: u8 }",
            "enum A { #[rpc(compact)] A }",
            "enum A { A(#[rpc(compact)] u8) }",
        ] {
            assert!(error(input).contains("belongs on the message"), "{input}");
        }
    }

    #[test]
    fn errors_are_combined() {
        let error = expand_str("#[rpc(what)] struct A<T> { #[rpc(compact)] a: T }").unwrap_err();
        assert_eq!(error.into_iter().count(), 3);
    }

    #[test]
    fn a_bare_name_must_fit() {
        assert!(error(&format!("struct {};", "A".repeat(256))).contains("256 bytes"));
        let named = format!("#[rpc(name = \"a\")] struct {};", "A".repeat(256));
        assert!(expand_str(&named).is_ok());
    }
}
