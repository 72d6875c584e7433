//! Which endpoint of which env.

use super::env_id::{self, EnvId};
use super::name::EndpointName;
use super::rpc::RpcAddress;
use super::text::{Reason, SCHEME, invalid, serde_as_text, split_scheme, wrong_scheme};
use crate::error::RpcError;
use std::fmt;
use std::str::FromStr;

const CLIENT_SCHEME: &str = "rpc-client";
const FORM: &str = "rpc://name@host:port or rpc-client://name@<env id>";

/// How the env of an endpoint is reached.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EndpointLocation {
    /// The env listens at this address.
    Listening(RpcAddress),
    /// The env does not listen; it is reached over a connection that it opened itself.
    Client(EnvId),
}

/// Which endpoint of which env: `rpc://name@host:port`, or `rpc-client://name@<env id>` where the env does not listen.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointAddress {
    name: EndpointName,
    at: EndpointLocation,
}

impl EndpointAddress {
    /// The endpoint with this name at this place.
    pub fn new(name: EndpointName, at: EndpointLocation) -> Self {
        Self { name, at }
    }

    /// The endpoint with this name in the env that listens at `address`.
    pub fn listening(name: EndpointName, address: RpcAddress) -> Self {
        Self::new(name, EndpointLocation::Listening(address))
    }

    /// The endpoint with this name in an env that does not listen.
    pub fn client(name: EndpointName, env: EnvId) -> Self {
        Self::new(name, EndpointLocation::Client(env))
    }

    /// The name of the endpoint.
    pub fn name(&self) -> &EndpointName {
        &self.name
    }

    /// Where its env is.
    pub fn location(&self) -> &EndpointLocation {
        &self.at
    }

    /// The address of the env, if it listens.
    pub fn rpc_address(&self) -> Option<&RpcAddress> {
        match &self.at {
            EndpointLocation::Listening(address) => Some(address),
            EndpointLocation::Client(_) => None,
        }
    }

    /// The id of the env, if it is known by that alone.
    pub fn env_id(&self) -> Option<EnvId> {
        match &self.at {
            EndpointLocation::Listening(_) => None,
            EndpointLocation::Client(id) => Some(*id),
        }
    }

    fn parse_url(url: &str) -> Result<Self, Reason> {
        let (scheme, rest) = split_scheme(url)?;
        if !matches!(scheme, SCHEME | CLIENT_SCHEME) {
            return Err(wrong_scheme(scheme));
        }
        let Some((name, place)) = rest.split_once('@') else {
            return Err("the endpoint name before '@' is missing".to_owned());
        };
        let name = EndpointName::checked(name)
            .map_err(|reason| format!("in the endpoint name, {reason}"))?;
        if scheme == SCHEME {
            return Ok(Self::listening(name, RpcAddress::parse_authority(place)?));
        }
        match place.parse() {
            Ok(id) => Ok(Self::client(name, id)),
            Err(_) => Err(format!("the env id is not {}", env_id::FORM)),
        }
    }
}

impl FromStr for EndpointAddress {
    type Err = RpcError;

    fn from_str(text: &str) -> Result<Self, RpcError> {
        Self::parse_url(text).map_err(|reason| invalid(text, "endpoint address", &reason, FORM))
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            EndpointLocation::Listening(address) => {
                write!(f, "{SCHEME}://{}@{address}", self.name)
            }
            EndpointLocation::Client(id) => write!(f, "{CLIENT_SCHEME}://{}@{id}", self.name),
        }
    }
}

impl fmt::Debug for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(EndpointAddress, FORM);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn address(text: &str) -> RpcAddress {
        text.parse().unwrap()
    }

    fn refusal<T: FromStr<Err = RpcError> + fmt::Debug>(text: &str) -> String {
        let error = text.parse::<T>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidAddress);
        assert!(error.text().contains(&format!("{text:?}")) || text.len() > 255, "{error}");
        error.text().to_owned()
    }

    #[test]
    fn s19_endpoint_addresses_print_both_forms() {
        let name = EndpointName::new("master").unwrap();
        let there = EndpointAddress::listening(name.clone(), address("localhost:12345"));
        assert_eq!(there.to_string(), "rpc://master@localhost:12345");
        assert_eq!(there.rpc_address(), Some(&address("localhost:12345")));
        let client = EndpointAddress::client(name, EnvId::new(0xbeef));
        assert_eq!(client.to_string(), "rpc-client://master@000000000000beef");
        assert_eq!((client.rpc_address(), client.env_id()), (None, Some(EnvId::new(0xbeef))));
        for one in [there, client] {
            assert_eq!(one.to_string().parse::<EndpointAddress>().unwrap(), one);
        }
    }

    #[test]
    fn s20_endpoint_addresses_that_are_refused() {
        for (text, reason) in [
            ("spark://m@a:1", "the scheme is \"spark\""),
            ("m@a:1", "it has no scheme"),
            ("rpc://m@:1", "the host is missing"),
            ("rpc://m@a:-1", "the port \"-1\""),
            ("rpc://m@a", "the port is missing"),
            ("rpc://a:1", "the endpoint name before '@' is missing"),
            ("rpc://@a:1", "in the endpoint name, it is empty"),
            ("rpc://m@n@a:1", "in the host, it contains '@'"),
            ("rpc://m@a:1/path", "it has a path"),
            ("rpc://m@a:1?q=1", "it has a query"),
            ("rpc://m@a:1#f", "it has a fragment"),
            ("rpc-client://m@beef", "the env id is not 16 hexadecimal digits"),
            ("rpc-client://m@+00000000000beef", "the env id is not 16 hexadecimal digits"),
        ] {
            let error = refusal::<EndpointAddress>(text);
            let start = format!("Invalid endpoint address {text:?}: {reason}");
            assert!(error.starts_with(&start), "{error}");
            assert!(error.ends_with(FORM), "{error}");
        }
        refusal::<EnvId>("xyz");
    }

    #[test]
    fn serde_uses_the_text() {
        let endpoint: EndpointAddress = "rpc://m@[::0:1]:7077".parse().unwrap();
        let bytes = rmp_serde::to_vec(&(&endpoint, address("a:1"))).unwrap();
        assert_eq!(bytes, rmp_serde::to_vec(&("rpc://m@[::1]:7077", "a:1")).unwrap());
        let back: (EndpointAddress, RpcAddress) = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(back, (endpoint, address("a:1")));
        let bytes = rmp_serde::to_vec("rpc://nobody").unwrap();
        let error = rmp_serde::from_slice::<EndpointAddress>(&bytes).unwrap_err();
        assert!(error.to_string().contains("Invalid endpoint address"), "{error}");
    }
}
