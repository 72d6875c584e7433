//! Where generated code finds the traits.

use proc_macro_crate::{Error, FoundCrate, crate_name};
use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::quote_spanned;

/// The path of the crate that has the traits at its root, as the calling crate names it.
pub(crate) fn path() -> syn::Result<TokenStream> {
    resolve(&crate_name("rpc-core"), &crate_name("rpc-actix"))
}

/// The same path, where its errors are to be shown.
pub(crate) fn at(krate: &TokenStream, span: Span) -> TokenStream {
    let respan = |mut token: TokenTree| {
        token.set_span(span);
        token
    };
    krate.clone().into_iter().map(respan).collect()
}

/// `rpc-core` wins: it is also what `rpc-actix` re-exports.
fn resolve(
    core: &Result<FoundCrate, Error>,
    actix: &Result<FoundCrate, Error>,
) -> syn::Result<TokenStream> {
    let name = match (core, actix) {
        (Ok(FoundCrate::Name(name)), _) | (Err(_), Ok(FoundCrate::Name(name))) => name,
        // rpc-core says `extern crate self as rpc_core`, so the absolute path holds there too.
        (Ok(FoundCrate::Itself), _) => "rpc_core",
        (Err(_), Ok(FoundCrate::Itself)) => "rpc_actix",
        (Err(Error::CrateNotFound { .. }), Err(_)) => {
            return Err(syn::Error::new(
                Span::call_site(),
                "the RPC macros need `rpc-core` or `rpc-actix` in the `[dependencies]` of this crate",
            ));
        }
        // No readable manifest, so not built by cargo: the name is as good as any.
        (Err(_), Err(_)) => "rpc_core",
    };
    let span = Span::mixed_site();
    let name = Ident::new(name, span);
    Ok(quote_spanned!(span=> ::#name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Result<FoundCrate, Error> {
        Err(Error::CrateNotFound { crate_name: "rpc-core".into(), path: "Cargo.toml".into() })
    }

    fn named(name: &str) -> Result<FoundCrate, Error> {
        Ok(FoundCrate::Name(name.into()))
    }

    #[test]
    fn core_wins_and_renames_count() {
        let path = |core, actix| resolve(&core, &actix).unwrap().to_string();
        assert_eq!(path(named("rpc_core"), named("rpc_actix")), ":: rpc_core");
        assert_eq!(path(named("base"), missing()), ":: base");
        assert_eq!(path(missing(), named("rpc")), ":: rpc");
        assert_eq!(path(Ok(FoundCrate::Itself), missing()), ":: rpc_core");
        assert_eq!(path(Err(Error::CargoManifestDirNotSet), missing()), ":: rpc_core");
    }

    #[test]
    fn neither_is_an_error() {
        let error = resolve(&missing(), &missing()).unwrap_err();
        assert!(error.to_string().contains("`rpc-core` or `rpc-actix`"), "{error}");
    }
}
