//! What people and peers write as text: addresses, names, configuration.

use super::input::Input;
use crate::address::{EndpointAddress, EndpointName, EnvId, RpcAddress};
use crate::config::RpcEnvConfig;
use crate::error::{ErrorKind, RpcError};
use crate::message::Encoding;
use crate::wire::payload;
use crate::wire::prescan::PrescanLimits;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::{Debug, Display};
use std::str::FromStr;

/// No error quotes more of a text than a person reads.
const LONGEST_ERROR: usize = 4096;

fn refused(error: &RpcError, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.text().len() <= LONGEST_ERROR, "an error of {} bytes", error.text().len());
}

/// What was read is written so that it is read as the same again.
fn there_and_back<T>(text: &str)
where
    T: FromStr<Err = RpcError> + Display + Debug + PartialEq,
{
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string().parse::<T>().unwrap(), value),
        Err(error) => refused(&error, ErrorKind::InvalidAddress),
    }
}

/// The same in MessagePack.
fn in_a_body<T>(bytes: &[u8])
where
    T: Serialize + DeserializeOwned + Debug + PartialEq,
{
    let limits = PrescanLimits::default();
    if let Ok(value) = payload::decode::<T>(bytes, &limits) {
        let body = payload::to_vec(&value, Encoding::Named, usize::MAX).unwrap();
        assert_eq!(payload::decode::<T>(&body, &limits).unwrap(), value);
    }
}

/// Addresses of envs and endpoints, names and ids: as text, and as bodies.
pub(super) fn addresses(bytes: &[u8]) {
    in_a_body::<EndpointAddress>(bytes);
    in_a_body::<EndpointName>(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    there_and_back::<EndpointAddress>(text);
    there_and_back::<RpcAddress>(text);
    there_and_back::<EndpointName>(text);
    there_and_back::<EnvId>(text);
    match RpcAddress::from_url(text) {
        Ok(address) => {
            assert_eq!(RpcAddress::from_url(&address.to_url()).unwrap(), address);
            let alone = RpcAddress::new(address.bare_host(), address.port()).unwrap();
            assert_eq!(alone, address);
            assert!(address.ip().is_none_or(|ip| ip.is_loopback() == address.is_loopback()));
        }
        Err(error) => refused(&error, ErrorKind::InvalidAddress),
    }
    if let Err(error) = RpcAddress::new(text, 1) {
        refused(&error, ErrorKind::InvalidAddress);
    }
}

/// Configuration as TOML, as pairs, and as variables of the environment.
pub(super) fn config(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let way = input.byte();
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    let pairs = || text.lines().map(|line| line.split_once('=').unwrap_or((line, "")));
    let plain = RpcEnvConfig::client("c");
    let set = match way % 4 {
        0 => plain.set_toml(text),
        1 => plain.set_all(pairs()),
        2 => plain.set_env_vars("A_", pairs().map(|(k, v)| (k.to_owned(), v.to_owned()))),
        // The key is one of those that there are.
        _ => {
            let keys: Vec<_> = RpcEnvConfig::known_keys().collect();
            let key = keys[usize::from(way / 4) % keys.len()];
            plain.set(key.name, text)
        }
    };
    match set.and_then(|config| config.validate().map(|()| config)) {
        Ok(config) => {
            // Everything that can be set can be used.
            let _ = (config.bind_address(), config.advertised_address(1), config.ask_timeout());
            let _ = config.limits().clone();
        }
        // TOML's own errors show the line where they are.
        Err(error) if way.is_multiple_of(4) => assert!(!error.text().is_empty()),
        Err(error) => assert!(
            matches!(error.kind(), ErrorKind::InvalidConfig | ErrorKind::InvalidAddress),
            "{error}"
        ),
    }
}
