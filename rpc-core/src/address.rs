//! Names and addresses: parsed once, valid for ever, cheap to clone.
//!
//! An env that listens has an [`RpcAddress`], every env has an [`EnvId`], an endpoint has an [`EndpointName`], and
//! an [`EndpointAddress`] says which endpoint of which env. All of them are read from text with `parse()` and
//! written by `Display`; what was written is read back as the same value. Every error is of the kind
//! [`ErrorKind::InvalidAddress`], quotes the text and says what is wrong and which form is expected.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::error::{ErrorKind, RpcError};

/// The longest endpoint name and the longest host, in bytes of UTF-8.
pub(crate) const MAX_NAME_BYTES: usize = 255;

const SCHEME: &str = "rpc";
const CLIENT_SCHEME: &str = "rpc-client";
const ADDRESS_FORM: &str = "host:port, as in 10.0.0.1:7077, node-1:7077 or [::1]:7077";
const URL_FORM: &str = "rpc://host:port";
const ENDPOINT_FORM: &str = "rpc://name@host:port or rpc-client://name@<env id>";
const NAME_FORM: &str = "1 to 255 bytes without white space, control characters and @ / : ? # [ ]";
const ENV_ID_FORM: &str = "16 hexadecimal digits";

/// Why a text is not what it should be, without the text itself.
type Reason = String;

fn invalid(text: &str, what: &str, reason: &str, form: &str) -> RpcError {
    // The text may come from a peer: what is quoted is escaped and bounded.
    let quoted: String = text.chars().take(MAX_NAME_BYTES).collect();
    let more = if quoted.len() < text.len() { ".." } else { "" };
    let text = format!("Invalid {what} {quoted:?}{more}: {reason}; expected {form}");
    RpcError::new(ErrorKind::InvalidAddress, text)
}

/// Says what is wrong with a name or a host, if anything is.
fn check_word(word: &str) -> Result<(), Reason> {
    if word.is_empty() {
        return Err("it is empty".to_owned());
    }
    if word.len() > MAX_NAME_BYTES {
        return Err(format!("it has {} bytes, the limit is {MAX_NAME_BYTES}", word.len()));
    }
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || "@/:?#[]".contains(c);
    match word.chars().find(|&c| is_bad(c)) {
        Some(bad) => Err(format!("it contains {bad:?}")),
        None => Ok(()),
    }
}

/// The name under which an endpoint is registered: 1 to 255 bytes of UTF-8, without white space, control characters
/// and `@ / : ? # [ ]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointName(Arc<str>);

impl EndpointName {
    /// Checks the name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidAddress`] if it is empty, too long, or has a character that a name may not have.
    pub fn new(name: impl AsRef<str>) -> Result<Self, RpcError> {
        let name = name.as_ref();
        match check_word(name) {
            Ok(()) => Ok(Self(Arc::from(name))),
            Err(reason) => Err(invalid(name, "endpoint name", &reason, NAME_FORM)),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EndpointName {
    type Err = RpcError;

    fn from_str(text: &str) -> Result<Self, RpcError> {
        Self::new(text)
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for EndpointName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// So that a map with names as keys can be asked with a `&str`.
impl Borrow<str> for EndpointName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Where an env listens: a host and a port.
///
/// The host is a name or an IP address. IPv6 addresses are kept in their shortest form and in brackets, so that two
/// ways of writing the same one are equal (`::0:1` is `[::1]`). Names are kept as they are written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RpcAddress {
    host: Arc<str>,
    port: u16,
}

impl RpcAddress {
    /// An address from its parts; an IPv6 host may come with brackets or without.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidAddress`] if the host is empty, longer than 255 bytes, or neither a name nor an address.
    pub fn new(host: impl AsRef<str>, port: u16) -> Result<Self, RpcError> {
        let host = host.as_ref();
        match normal_host(host) {
            Ok(host) => Ok(Self { host, port }),
            Err(reason) => Err(invalid(host, "host", &reason, "a host name or an IP address")),
        }
    }

    /// Reads the form `rpc://host:port`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidAddress`] for another scheme, a missing host or port, or anything beside them.
    pub fn from_url(url: &str) -> Result<Self, RpcError> {
        Self::parse_url(url).map_err(|reason| invalid(url, "address", &reason, URL_FORM))
    }

    /// The host; an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host as a resolver takes it: an IPv6 address without brackets.
    pub fn bare_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// The port; 0 only where "any free port" is meant.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same host with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: Arc::clone(&self.host), port }
    }

    /// The host as an IP address, if it is written as one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.bare_host().parse().ok()
    }

    /// `host:port`, as `Display` writes it.
    pub fn host_port(&self) -> String {
        self.to_string()
    }

    /// `rpc://host:port`.
    pub fn to_url(&self) -> String {
        format!("{SCHEME}://{self}")
    }

    /// Whether the host is written as an address of this machine alone: in 127.0.0.0/8, `::1`, or the name
    /// `localhost`. No name is looked up, so a name that leads to such an address does not count.
    pub fn is_loopback(&self) -> bool {
        match self.ip() {
            Some(ip) => ip.is_loopback(),
            None => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    fn parse_url(url: &str) -> Result<Self, Reason> {
        match split_scheme(url)? {
            (SCHEME, authority) if authority.contains('@') => {
                Err("an env has no name before '@', an endpoint does".to_owned())
            }
            (SCHEME, authority) => Self::parse_authority(authority),
            (other, _) => Err(wrong_scheme(other)),
        }
    }

    /// Reads `host:port`.
    fn parse_authority(text: &str) -> Result<Self, Reason> {
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err("the port is missing".to_owned());
        };
        if host.is_empty() {
            return Err("the host is missing".to_owned());
        }
        if host.contains(':') && !host.starts_with('[') {
            return Err("an IPv6 address needs brackets before its port".to_owned());
        }
        if port.is_empty() || text.ends_with(']') {
            return Err("the port is missing".to_owned());
        }
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let Some(port) = port.parse().ok().filter(|_| is_number) else {
            return Err(format!("the port {port:?} is not a number from 0 to 65535"));
        };
        let host = normal_host(host).map_err(|reason| format!("in the host, {reason}"))?;
        Ok(Self { host, port })
    }
}

/// The form in which a host is kept.
fn normal_host(host: &str) -> Result<Arc<str>, Reason> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if inner.is_some() || host.contains(':') {
        return match inner.unwrap_or(host).parse::<Ipv6Addr>() {
            Ok(ip) => Ok(Arc::from(format!("[{ip}]"))),
            Err(_) => Err("it is not an IPv6 address".to_owned()),
        };
    }
    check_word(host)?;
    Ok(match host.parse::<Ipv4Addr>() {
        Ok(ip) => Arc::from(ip.to_string()),
        Err(_) => Arc::from(host),
    })
}

/// Splits `scheme://rest`, where nothing may follow the authority.
fn split_scheme(url: &str) -> Result<(&str, &str), Reason> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("it has no scheme".to_owned());
    };
    match rest.chars().find(|c| matches!(c, '/' | '?' | '#')) {
        Some('/') => Err("it has a path".to_owned()),
        Some('?') => Err("it has a query".to_owned()),
        Some(_) => Err("it has a fragment".to_owned()),
        None => Ok((scheme, rest)),
    }
}

fn wrong_scheme(scheme: &str) -> Reason {
    let scheme: String = scheme.chars().take(32).collect();
    format!("the scheme is {scheme:?}")
}

impl From<SocketAddr> for RpcAddress {
    fn from(address: SocketAddr) -> Self {
        let host = match address.ip() {
            IpAddr::V4(ip) => Arc::from(ip.to_string()),
            IpAddr::V6(ip) => Arc::from(format!("[{ip}]")),
        };
        Self { host, port: address.port() }
    }
}

impl FromStr for RpcAddress {
    type Err = RpcError;

    /// Reads `host:port`.
    fn from_str(text: &str) -> Result<Self, RpcError> {
        Self::parse_authority(text)
            .map_err(|reason| invalid(text, "address", &reason, ADDRESS_FORM))
    }
}

impl fmt::Display for RpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for RpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number that an env draws when it starts; two envs, or two starts of one, do not share it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvId(pub(crate) u64);

impl EnvId {
    /// The id with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number of the id.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl FromStr for EnvId {
    type Err = RpcError;

    fn from_str(text: &str) -> Result<Self, RpcError> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(number) if is_hex => Ok(Self(number)),
            _ => {
                Err(invalid(text, "env id", "it is another number of digits or none", ENV_ID_FORM))
            }
        }
    }
}

impl fmt::Display for EnvId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for EnvId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

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
        check_word(name).map_err(|reason| format!("in the endpoint name, {reason}"))?;
        let name = EndpointName(Arc::from(name));
        if scheme == SCHEME {
            return Ok(Self::listening(name, RpcAddress::parse_authority(place)?));
        }
        match place.parse() {
            Ok(id) => Ok(Self::client(name, id)),
            Err(_) => Err(format!("the env id is not {ENV_ID_FORM}")),
        }
    }
}

impl FromStr for EndpointAddress {
    type Err = RpcError;

    fn from_str(text: &str) -> Result<Self, RpcError> {
        Self::parse_url(text)
            .map_err(|reason| invalid(text, "endpoint address", &reason, ENDPOINT_FORM))
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

/// Reads a value from the text that its `Display` writes.
struct TextVisitor<T> {
    form: &'static str,
    value: PhantomData<T>,
}

impl<T: FromStr<Err = RpcError>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string of the form {}", self.form)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! serde_as_text {
    ($($type:ty, $form:expr;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor { form: $form, value: PhantomData })
            }
        }
    )*};
}

serde_as_text! {
    EndpointName, NAME_FORM;
    RpcAddress, ADDRESS_FORM;
    EnvId, ENV_ID_FORM;
    EndpointAddress, ENDPOINT_FORM;
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn s14_address_forms() {
        let address = RpcAddress::new("1.2.3.4", 1234).unwrap();
        assert_eq!(address.host_port(), "1.2.3.4:1234");
        assert_eq!(address.to_string(), "1.2.3.4:1234");
        assert_eq!(address.to_url(), "rpc://1.2.3.4:1234");
        assert_eq!(RpcAddress::from_url("rpc://1.2.3.4:1234").unwrap(), address);
        assert_eq!((address.host(), address.port()), ("1.2.3.4", 1234));
        assert_eq!(address.with_port(9).to_string(), "1.2.3.4:9");
    }

    #[test]
    fn s15_urls_that_are_refused() {
        for (url, reason) in [
            ("spark://1.2.3.4:1", "the scheme is \"spark\""),
            ("rpc:1.2.3.4:1", "it has no scheme"),
            ("rpc://1.2.3.4", "the port is missing"),
            ("rpc://1.2.3.4:", "the port is missing"),
            ("rpc://[::1]", "the port is missing"),
            ("rpc://:1", "the host is missing"),
            ("rpc://::1:7077", "an IPv6 address needs brackets"),
            ("rpc://[::1:7077", "in the host, it is not an IPv6 address"),
            ("rpc://[zz]:1", "in the host, it is not an IPv6 address"),
            ("rpc://a:-1", "the port \"-1\" is not a number from 0 to 65535"),
            ("rpc://a:+1", "the port \"+1\""),
            ("rpc://a:65536", "the port \"65536\""),
            ("rpc://a b:1", "in the host, it contains ' '"),
            ("rpc://n@a:1", "an env has no name"),
            ("rpc://a:1/", "it has a path"),
            ("rpc://a:1?x", "it has a query"),
            ("rpc://a:1#x", "it has a fragment"),
        ] {
            let error = RpcAddress::from_url(url).unwrap_err();
            let text = error.text();
            assert_eq!(error.kind(), ErrorKind::InvalidAddress);
            assert!(text.starts_with(&format!("Invalid address {url:?}: {reason}")), "{text}");
            assert!(text.ends_with("; expected rpc://host:port"), "{text}");
        }
    }

    #[test]
    fn s16_s17_ipv6_hosts_are_normal_and_in_brackets() {
        for (given, host) in
            [("::1", "[::1]"), ("[::1]", "[::1]"), ("::0:1", "[::1]"), ("2600::", "[2600::]")]
        {
            let address = RpcAddress::new(given, 1234).unwrap();
            assert_eq!(address.host(), host);
            assert_eq!(address.host_port(), format!("{host}:1234"));
            assert_eq!(address.to_url(), format!("rpc://{host}:1234"));
            assert_eq!(RpcAddress::from_url(&address.to_url()).unwrap(), address);
        }
        assert_eq!(address("[2001:DB8::0:1]:1").bare_host(), "2001:db8::1");
        assert_eq!(address("[::1]:1"), address("[0:0::1]:1"));
        let socket: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(RpcAddress::from(socket), address("[::1]:80"));
    }

    #[test]
    fn loopback_is_what_is_written_as_such() {
        for text in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "LocalHost:1"] {
            assert!(address(text).is_loopback(), "{text}");
        }
        for text in ["10.0.0.1:1", "0.0.0.0:1", "[::]:1", "node:1", "localhost.example.com:1"] {
            assert!(!address(text).is_loopback(), "{text}");
        }
    }

    #[test]
    fn s21_names_are_checked() {
        assert_eq!(EndpointName::new("worker-α.1").unwrap().as_str(), "worker-α.1");
        assert!(EndpointName::new("x".repeat(255)).is_ok());
        for bad in ["", "a b", "a\n", "a@b", "a/b", "a:b", "a?b", "a#b", "[a", "a]", "a\u{a0}b"] {
            refusal::<EndpointName>(bad);
        }
        let text = refusal::<EndpointName>(&"x".repeat(100_000));
        assert!(text.contains("100000 bytes") && text.len() < 600, "{text}");
        let names = std::collections::HashMap::from([(EndpointName::new("a").unwrap(), 1)]);
        assert_eq!(names.get("a"), Some(&1));
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
            assert!(error.ends_with(ENDPOINT_FORM), "{error}");
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
