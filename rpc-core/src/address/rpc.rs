//! Where an env listens.

use super::text::{Reason, SCHEME, check_word, invalid, serde_as_text, split_scheme, wrong_scheme};
use crate::error::RpcError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

const FORM: &str = "host:port, as in 10.0.0.1:7077, node-1:7077 or [::1]:7077";
const URL_FORM: &str = "rpc://host:port";

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
    /// [`ErrorKind::InvalidAddress`](crate::ErrorKind::InvalidAddress) if the host is empty, longer than 255 bytes, or neither a name nor an address.
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
    /// [`ErrorKind::InvalidAddress`](crate::ErrorKind::InvalidAddress) for another scheme, a missing host or port, or anything beside them.
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
    pub(super) fn parse_authority(text: &str) -> Result<Self, Reason> {
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
        Self::parse_authority(text).map_err(|reason| invalid(text, "address", &reason, FORM))
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

serde_as_text!(RpcAddress, FORM);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn address(text: &str) -> RpcAddress {
        text.parse().unwrap()
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
}
