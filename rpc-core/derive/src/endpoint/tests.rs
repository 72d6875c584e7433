use super::*;

fn expand_block(args: TokenStream, block: TokenStream) -> syn::Result<(String, String)> {
    let mut block: ItemImpl = syn::parse2(block).unwrap();
    let beside = expand(args, &mut block, &quote!(::rpc_core))?;
    Ok((block.to_token_stream().to_string(), beside.to_string()))
}

fn error(block: TokenStream) -> String {
    expand_block(quote!(), block).unwrap_err().to_string()
}

#[test]
fn one_handler() {
    let (block, beside) = expand_block(
        quote!(),
        quote! {
            impl Master {
                #[receive]
                async fn beat(&mut self, msg: Beat) -> HandlerResult<()> { Ok(()) }
                fn other(&self) {}
            }
        },
    )
    .unwrap();
    let lints = Method::lints();
    let cleaned = quote! {
        impl Master {
            #lints
            async fn beat(&mut self, msg: Beat) -> HandlerResult<()> { Ok(()) }
            fn other(&self) {}
        }
    };
    assert_eq!(block, cleaned.to_string());
    let expected = quote! {
        #[automatically_derived]
        impl ::rpc_core::Receive<Beat> for Master {
            fn handle(
                &mut self, msg: Beat, _cx: &mut ::rpc_core::EndpointContext<Self>
            ) -> impl ::core::future::Future<Output = ::rpc_core::HandlerResult<()> > {
                Self::beat(self, msg)
            }
        }
        #[automatically_derived]
        impl ::rpc_core::Accepts<Beat> for Master {}
        #[automatically_derived]
        impl ::rpc_core::RpcEndpoint for Master {
            type Handlers = Self;
        }
        #[automatically_derived]
        impl ::rpc_core::HandlerSet<Self> for Master {
            const LEN: usize = <(::rpc_core::Receives<Beat>,) as ::rpc_core::HandlerSet<Self> >::LEN;
            fn describe(into: &mut ::std::vec::Vec< ::rpc_core::__private::HandlerInfo>) {
                <(::rpc_core::Receives<Beat>,) as ::rpc_core::HandlerSet<Self> >::describe(into);
            }
            fn dispatch(
                index: usize,
                endpoint: &mut Self,
                cx: &mut ::rpc_core::EndpointContext<Self>,
            ) -> impl ::core::future::Future<Output = ::rpc_core::HandlerResult<()>> {
                <(::rpc_core::Receives<Beat>,) as ::rpc_core::HandlerSet<Self> >::dispatch(index, endpoint, cx)
            }
        }
    };
    assert_eq!(beside, expected.to_string());
}

#[test]
fn generics_are_carried_over() {
    let (_, beside) = expand_block(
        quote!(protocol = Api),
        quote! {
            impl<S: Store> Master<S> where S: 'static {
                #[on_connected]
                fn up(&self, peer: &RpcAddress, cx: &mut Cx) -> HandlerResult<()> { Ok(()) }
            }
        },
    )
    .unwrap();
    let expected = quote! {
        #[automatically_derived]
        impl<S: Store> ::rpc_core::RpcEndpoint for Master<S> where S: 'static {
            type Handlers = Self;
            const NETWORK_EVENTS: bool = true;
            async fn on_connected(
                &mut self,
                peer: &::rpc_core::RpcAddress,
                cx: &mut ::rpc_core::EndpointContext<Self>
            ) -> ::rpc_core::HandlerResult<()> {
                Self::up(self, peer, cx)
            }
        }
        #[automatically_derived]
        impl<S: Store> ::rpc_core::HandlerSet<Self> for Master<S> where S: 'static {
            const LEN: usize = <() as ::rpc_core::HandlerSet<Self> >::LEN;
            fn describe(into: &mut ::std::vec::Vec< ::rpc_core::__private::HandlerInfo>) {
                <() as ::rpc_core::HandlerSet<Self> >::describe(into);
            }
            fn dispatch(
                index: usize,
                endpoint: &mut Self,
                cx: &mut ::rpc_core::EndpointContext<Self>,
            ) -> impl ::core::future::Future<Output = ::rpc_core::HandlerResult<()>> {
                <() as ::rpc_core::HandlerSet<Self> >::dispatch(index, endpoint, cx)
            }
        }
        const _: () = {
            const fn covers<__Endpoint, __Protocol: ::rpc_core::CoveredBy<__Endpoint>>() {}
            const fn _check<S: Store>() where S: 'static {
                covers::<Master<S>, Api>();
            }
        };
    };
    assert_eq!(beside, expected.to_string());
}

#[test]
fn many_handlers_make_nested_tuples() {
    let types = |count: usize| tuple((0..count).map(|_| quote!(T)).collect()).to_string();
    let flat = |count: usize| format!("({})", "T , ".repeat(count).trim_end());
    assert_eq!(types(0), "()");
    assert_eq!(types(12), flat(12));
    assert_eq!(types(13), format!("({} , (T ,) ,)", flat(12)));
    assert!(types(144).starts_with("((T ,"));
    assert!(types(145).starts_with("(((T ,"));
}

#[test]
fn one_handler_for_a_message() {
    let text = error(quote! {
        impl Master {
            #[receive]
            fn first(&self, msg: Beat) -> R {}
            #[receive_and_reply]
            fn second(&self, msg: Beat) -> R {}
        }
    });
    assert_eq!(text, "the method `first` handles this message already");
}

#[test]
fn one_method_for_a_hook() {
    let text = error(quote! {
        impl Master {
            #[on_stop]
            fn first(&self) -> R {}
            #[on_stop]
            fn second(&self) -> R {}
        }
    });
    assert_eq!(text, "the method `first` is marked `#[on_stop]` already");
}

#[test]
fn markers_of_other_items_are_refused() {
    let text = error(quote!(impl Master { #[receive] const A: u32 = 1; }));
    assert_eq!(text, "only a method can be a handler or a hook, this is a constant");
    assert!(error(quote!(impl Master { #[receive] make!{} })).contains("a macro call"));
}

#[test]
fn trait_impls_are_refused_and_errors_combined() {
    let block = quote!(impl Other for Master { #[receive] fn f() {} });
    let error = expand_block(quote!(what), block).unwrap_err();
    let texts: Vec<_> = error.into_iter().map(|error| error.to_string()).collect();
    assert_eq!(texts.len(), 5, "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("an inherent `impl Type")), "{texts:?}");
}
