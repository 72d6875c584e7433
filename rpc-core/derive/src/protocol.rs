//! `protocol!`.

use crate::attr::Errors;
use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use std::collections::HashSet;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Ident, Token, Type, Visibility, braced};

/// The protocols of one macro call.
pub(crate) struct Protocols(Vec<Protocol>);

struct Protocol {
    attrs: Vec<Attribute>,
    vis: Visibility,
    name: Ident,
    messages: Vec<Type>,
}

impl Parse for Protocols {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut protocols = Vec::new();
        while !input.is_empty() {
            protocols.push(input.parse()?);
        }
        if protocols.is_empty() {
            return Err(input.error("expected `pub Name { Message, .. }`"));
        }
        Ok(Self(protocols))
    }
}

impl Parse for Protocol {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let name = input.parse()?;
        let list;
        braced!(list in input);
        let messages = Punctuated::<Type, Token![,]>::parse_terminated(&list)?;
        Ok(Self { attrs, vis, name, messages: messages.into_iter().collect() })
    }
}

/// The types and what they accept.
pub(crate) fn expand(protocols: &Protocols, krate: &TokenStream) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    for protocol in &protocols.0 {
        errors.take(protocol.check());
    }
    errors.finish(())?;
    Ok(protocols.0.iter().map(|protocol| protocol.items(krate)).collect())
}

impl Protocol {
    fn check(&self) -> syn::Result<()> {
        if self.messages.is_empty() {
            let text = format!("the protocol `{}` has no messages", self.name);
            return Err(syn::Error::new(self.name.span(), text));
        }
        let mut errors = Errors::default();
        let mut seen = HashSet::new();
        for message in &self.messages {
            if !seen.insert(message) {
                let text = format!("`{}` lists this message twice", self.name);
                errors.push(syn::Error::new_spanned(message, text));
            }
        }
        errors.finish(())
    }

    fn items(&self, krate: &TokenStream) -> TokenStream {
        let Self { attrs, vis, name, messages } = self;
        let cfgs: Vec<_> = attrs.iter().filter(|attr| attr.path().is_ident("cfg")).collect();
        let span = Span::mixed_site();
        let accepts = messages.iter().map(|message| {
            quote_spanned! {span=>
                #(#cfgs)*
                #[automatically_derived]
                impl #krate::Accepts<#message> for #name {}
            }
        });
        // The bounds stand one by one, so that the compiler names the message that is missing.
        let bounds = messages
            .iter()
            .map(|message| quote_spanned!(span=> __Endpoint: #krate::Accepts<#message>,));
        quote_spanned! {span=>
            #(#attrs)*
            #[derive(::core::fmt::Debug)]
            #[non_exhaustive]
            #vis enum #name {}

            #(#accepts)*

            #(#cfgs)*
            #[automatically_derived]
            impl #krate::RpcProtocol for #name {
                const MESSAGES: &'static [&'static str] =
                    &[#(<#messages as #krate::RpcMessage>::NAME),*];
            }

            #(#cfgs)*
            #[automatically_derived]
            impl<__Endpoint> #krate::CoveredBy<__Endpoint> for #name where #(#bounds)* {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    fn expand_str(input: &str) -> syn::Result<String> {
        Ok(expand(&syn::parse_str(input)?, &quote!(::rpc_core))?.to_string())
    }

    #[test]
    fn one_protocol() {
        let expected = quote! {
            #[doc = " what clients see"]
            #[derive(::core::fmt::Debug)]
            #[non_exhaustive]
            pub enum MasterApi {}
            #[automatically_derived]
            impl ::rpc_core::Accepts<Beat> for MasterApi {}
            #[automatically_derived]
            impl ::rpc_core::Accepts<api::Register> for MasterApi {}
            #[automatically_derived]
            impl ::rpc_core::RpcProtocol for MasterApi {
                const MESSAGES: &'static [&'static str] = &[
                    <Beat as ::rpc_core::RpcMessage>::NAME,
                    <api::Register as ::rpc_core::RpcMessage>::NAME
                ];
            }
            #[automatically_derived]
            impl<__Endpoint> ::rpc_core::CoveredBy<__Endpoint> for MasterApi
            where
                __Endpoint: ::rpc_core::Accepts<Beat>,
                __Endpoint: ::rpc_core::Accepts<api::Register>,
            {}
        };
        let found = expand_str("/// what clients see\npub MasterApi { Beat, api::Register, }");
        assert_eq!(found.unwrap(), expected.to_string());
    }

    #[test]
    fn several_protocols_and_visibilities() {
        let found = expand_str("pub(crate) A { X } #[cfg(unix)] B { X, Y }").unwrap();
        assert!(found.contains("pub (crate) enum A { }"), "{found}");
        assert!(found.contains("enum B { }"), "{found}");
        assert_eq!(found.matches("cfg (unix)").count(), 5, "{found}");
    }

    #[test]
    fn empty_and_doubled_lists_are_refused() {
        let error = |input| expand_str(input).unwrap_err();
        assert_eq!(error("pub A {}").to_string(), "the protocol `A` has no messages");
        assert_eq!(error("A { X, Y, X }").to_string(), "`A` lists this message twice");
        assert!(error("").to_string().contains("expected `pub Name { Message, .. }`"));
        assert_eq!(error("A {} B {}").into_iter().count(), 2);
        assert!(expand_str("enum A { X }").is_err());
    }
}
