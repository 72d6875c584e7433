//! What an env is made from: [`RpcEnvConfig`], built with setters or read from pairs of key and value.
//!
//! One table, [`RpcEnvConfig::known_keys`], drives the reading of values, the suggestion for a key that is not
//! known, and the documentation of the keys. The constructors and setters never fail, so that a program reads well;
//! [`RpcEnvConfig::validate`], which every factory calls first, reports what is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::address::RpcAddress;
use crate::deadline::RpcTimeout;
use crate::error::{ErrorKind, RpcError};
use crate::limits::{ConfigKey, Limits};
use crate::own_keys::{
    ADVERTISE, ASK_TIMEOUT, BACKEND_PREFIX, BIND, CONNECT_TIMEOUT, DEFAULT_CALL_TIMEOUT,
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_DRAIN_TIMEOUT, DEFAULT_FACTORY, DEFAULT_NAME, DRAIN_TIMEOUT,
    FACTORY, LOOKUP_TIMEOUT, NAME, NETWORK_TIMEOUT, OWN_KEYS, PORT_RETRIES,
};
use crate::spark_keys::{SPARK_KEYS, SparkKey};
use crate::unknown_key::unknown_key;

/// Ports below are privileged, and not for an env.
const FIRST_PORT: u16 = 1024;
/// The longest name of an env, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The settings of an env.
///
/// ```
/// # use rpc_core::RpcEnvConfig;
/// let config = RpcEnvConfig::server("master", "127.0.0.1:7077").set("rpc.askTimeout", "30s")?;
/// config.validate()?;
/// # Ok::<(), rpc_core::RpcError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RpcEnvConfig {
    name: String,
    factory: String,
    /// None: the env does not listen. An address that cannot be read is kept for `validate`.
    bind: Option<Result<RpcAddress, RpcError>>,
    /// Port 0: the one that was bound.
    advertise: Option<Result<RpcAddress, RpcError>>,
    ask_timeout: Option<Duration>,
    lookup_timeout: Option<Duration>,
    network_timeout: Option<Duration>,
    connect_timeout: Duration,
    drain_timeout: Duration,
    max_port_retries: u16,
    limits: Limits,
    backend_options: BTreeMap<String, String>,
}

impl RpcEnvConfig {
    /// An env that listens at `bind`, written `host:port`; port 0 is any free one.
    pub fn server(name: impl Into<String>, bind: impl AsRef<str>) -> Self {
        Self::client(name).with_bind(bind)
    }

    /// An env that does not listen. Others can still call its endpoints over the connections that it opens.
    pub fn client(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            factory: DEFAULT_FACTORY.to_owned(),
            bind: None,
            advertise: None,
            ask_timeout: None,
            lookup_timeout: None,
            network_timeout: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            max_port_retries: 0,
            limits: Limits::default(),
            backend_options: BTreeMap::new(),
        }
    }

    /// An env from pairs of key and value alone; it is a client unless `rpc.bind` is among them.
    ///
    /// # Errors
    ///
    /// As [`RpcEnvConfig::set`], for the first pair that is wrong.
    pub fn from_pairs<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, RpcError>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        Self::client(DEFAULT_NAME).set_all(pairs)
    }

    /// Sets each of these pairs of key and value, the last one of a key counts.
    ///
    /// # Errors
    ///
    /// As [`RpcEnvConfig::set`], for the first pair that is wrong.
    pub fn set_all<K, V>(self, pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, RpcError>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        pairs
            .into_iter()
            .try_fold(self, |config, (key, value)| config.set(key.as_ref(), value.as_ref()))
    }

    /// Sets the key to the value, which is written as [`RpcEnvConfig::known_keys`] tells.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`]: for a key that is not known the text suggests the nearest one, for a bad value it
    /// names the key, the value and what is expected.
    pub fn set(mut self, key: &str, value: &str) -> Result<Self, RpcError> {
        let Some(row) = Self::known_keys().find(|row| row.name == key) else {
            return Err(unknown_key(key, Self::known_keys()));
        };
        let time = || row.read(value).map(Duration::from_nanos);
        match key {
            FACTORY => self.factory = value.to_owned(),
            NAME => self.name = value.to_owned(),
            BIND => self.bind = Some(Ok(named(row, parse_bind(value))?)),
            ADVERTISE => self.advertise = Some(Ok(named(row, parse_advertised(value))?)),
            ASK_TIMEOUT => self.ask_timeout = Some(time()?),
            LOOKUP_TIMEOUT => self.lookup_timeout = Some(time()?),
            NETWORK_TIMEOUT => self.network_timeout = Some(time()?),
            CONNECT_TIMEOUT => self.connect_timeout = time()?,
            DRAIN_TIMEOUT => self.drain_timeout = time()?,
            PORT_RETRIES => {
                self.max_port_retries = u16::try_from(row.read(value)?).unwrap_or(u16::MAX);
            }
            _ if key.starts_with(BACKEND_PREFIX) => return Ok(self.with_backend_option(key, value)),
            _ => match self.limits.with_key(key, row.read(value)?) {
                Some(limits) => self.limits = limits?,
                None => return Err(unknown_key(key, Self::known_keys())),
            },
        }
        Ok(self)
    }

    /// Every key with its default, its unit, its meaning and the lines of the behaviours that it answers to.
    pub fn known_keys() -> impl Iterator<Item = &'static ConfigKey> {
        OWN_KEYS.iter().chain(Limits::KEYS)
    }

    /// Spark's keys, each with the one of the same meaning here, or the reason why there is none. None of them can be
    /// set; the error of one that is says what its row says.
    pub fn spark_keys() -> impl Iterator<Item = &'static SparkKey> {
        SPARK_KEYS.iter()
    }

    /// Makes the env listen at this `host:port`.
    #[must_use]
    pub fn with_bind(mut self, bind: impl AsRef<str>) -> Self {
        self.bind = Some(parse_bind(bind.as_ref()));
        self
    }

    /// Sets the host, or `host:port`, under which others reach the env. Without a port it is the one that is bound.
    #[must_use]
    pub fn advertise(mut self, address: impl AsRef<str>) -> Self {
        self.advertise = Some(parse_advertised(address.as_ref()));
        self
    }

    /// Sets the name of the factory.
    #[must_use]
    pub fn with_factory(mut self, factory: impl Into<String>) -> Self {
        self.factory = factory.into();
        self
    }

    /// Sets how long an ask may take.
    #[must_use]
    pub fn with_ask_timeout(mut self, timeout: Duration) -> Self {
        self.ask_timeout = Some(timeout);
        self
    }

    /// Sets how long it may take to find an endpoint.
    #[must_use]
    pub fn with_lookup_timeout(mut self, timeout: Duration) -> Self {
        self.lookup_timeout = Some(timeout);
        self
    }

    /// Sets what the ask and lookup timeouts are where they are not set.
    #[must_use]
    pub fn with_network_timeout(mut self, timeout: Duration) -> Self {
        self.network_timeout = Some(timeout);
        self
    }

    /// Sets how long one attempt to connect may take.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long what stops goes on with the messages that it has.
    #[must_use]
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Sets how many further ports are tried when the one to bind is in use.
    #[must_use]
    pub fn with_max_port_retries(mut self, retries: u16) -> Self {
        self.max_port_retries = retries;
        self
    }

    /// Sets all limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets an option of the backend. Unlike [`RpcEnvConfig::set`], it takes any key: a backend that this crate does
    /// not know has keys of its own.
    #[must_use]
    pub fn with_backend_option(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.backend_options.insert(key.into(), value.into());
        self
    }

    /// Checks everything that the constructors and setters took without looking.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] or [`ErrorKind::InvalidAddress`] for the first setting that is wrong.
    pub fn validate(&self) -> Result<(), RpcError> {
        check_name(NAME, &self.name)?;
        check_name(FACTORY, &self.factory)?;
        for address in [&self.bind, &self.advertise].into_iter().flatten() {
            address.as_ref().map_err(Clone::clone)?;
        }
        let times = [
            (ASK_TIMEOUT, self.ask_timeout),
            (LOOKUP_TIMEOUT, self.lookup_timeout),
            (NETWORK_TIMEOUT, self.network_timeout),
            (CONNECT_TIMEOUT, Some(self.connect_timeout)),
            (DRAIN_TIMEOUT, Some(self.drain_timeout)),
        ];
        for row in &OWN_KEYS {
            let set = times.iter().find(|(key, _)| *key == row.name).and_then(|(_, time)| *time);
            if let Some(time) = set {
                row.check(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))?;
            }
        }
        Ok(())
    }

    /// The name of the env, for logs and errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the factory that makes the env.
    pub fn factory(&self) -> &str {
        &self.factory
    }

    /// Whether the env does not listen.
    pub fn is_client_mode(&self) -> bool {
        self.bind.is_none()
    }

    /// Where the env is to listen; None for a client, and for an address that `validate` refuses.
    pub fn bind_address(&self) -> Option<&RpcAddress> {
        self.bind.as_ref()?.as_ref().ok()
    }

    /// The ports to try, in their order: the one that was asked for and `port.maxRetries` more, which go on at 1024
    /// after 65535. Where any free port is asked for, each of them is 0. Empty for a client.
    pub fn candidate_ports(&self) -> impl Iterator<Item = u16> + use<> {
        let last = self.max_port_retries;
        let first = self.bind_address().map(RpcAddress::port);
        first.into_iter().flat_map(move |first| {
            (0..=last).map(move |offset| match first.checked_add(offset) {
                _ if first == 0 => 0,
                Some(port) => port,
                None => first.wrapping_add(offset).saturating_add(FIRST_PORT),
            })
        })
    }

    /// The error of an env that found no port to listen at: what was tried, why it failed, and
    /// what to change (S11).
    #[must_use]
    pub fn bind_error(&self, address: &RpcAddress, cause: impl std::fmt::Display) -> RpcError {
        let retries = self.max_port_retries;
        let advice = if address.port() == 0 {
            "check the bind address (rpc.bind)".to_owned()
        } else if retries == 0 {
            "choose another port (rpc.bind), port 0 for any free one, or let it try the next ones with port.maxRetries".to_owned()
        } else {
            format!(
                "{retries} further ports were tried (port.maxRetries); choose another port or address (rpc.bind)"
            )
        };
        RpcError::new(
            ErrorKind::Bind,
            format!("the RpcEnv {} cannot listen at {address}: {cause}; {advice}", self.name),
        )
    }

    /// The address under which others reach the env once it is bound to `bound_port`; None for a client.
    pub fn advertised_address(&self, bound_port: u16) -> Option<RpcAddress> {
        let bind = self.bind_address()?;
        match &self.advertise {
            Some(Ok(address)) if address.port() != 0 => Some(address.clone()),
            Some(Ok(address)) => Some(address.with_port(bound_port)),
            _ => Some(bind.with_port(bound_port)),
        }
    }

    /// How long an ask may take, with the key that says so.
    pub fn ask_timeout(&self) -> RpcTimeout {
        self.call_timeout(self.ask_timeout, ASK_TIMEOUT)
    }

    /// How long it may take to find an endpoint, with the key that says so.
    pub fn lookup_timeout(&self) -> RpcTimeout {
        self.call_timeout(self.lookup_timeout, LOOKUP_TIMEOUT)
    }

    /// S97: the first key that is set, else the first key with the default.
    fn call_timeout(&self, own: Option<Duration>, key: &'static str) -> RpcTimeout {
        match (own, self.network_timeout) {
            (Some(own), _) => RpcTimeout::new(own, key),
            (None, Some(network)) => RpcTimeout::new(network, NETWORK_TIMEOUT),
            (None, None) => RpcTimeout::new(DEFAULT_CALL_TIMEOUT, key),
        }
    }

    /// How long one attempt to connect may take, with the key that says so.
    pub fn connect_timeout(&self) -> RpcTimeout {
        RpcTimeout::new(self.connect_timeout, CONNECT_TIMEOUT)
    }

    /// How long what stops goes on with the messages that it has.
    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }

    /// How many further ports are tried when the one to bind is in use.
    pub fn max_port_retries(&self) -> u16 {
        self.max_port_retries
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// An option of the backend, as it was written.
    pub fn backend_option(&self, key: &str) -> Option<&str> {
        self.backend_options.get(key).map(String::as_str)
    }
}

fn invalid(text: String) -> RpcError {
    RpcError::new(ErrorKind::InvalidConfig, text)
}

/// Puts the key before an error that only knows the value.
fn named<T>(key: &ConfigKey, result: Result<T, RpcError>) -> Result<T, RpcError> {
    result.map_err(|error| invalid(format!("{}: {error}", key.name)))
}

fn check_name(key: &str, name: &str) -> Result<(), RpcError> {
    let is_good = !name.is_empty() && name.len() <= MAX_NAME_BYTES;
    if is_good && !name.contains(char::is_control) {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
    Err(invalid(format!(
        "{key} cannot be {shown:?}; expected 1 to {MAX_NAME_BYTES} bytes without control characters"
    )))
}

fn parse_bind(text: &str) -> Result<RpcAddress, RpcError> {
    let address: RpcAddress = text.parse()?;
    match address.port() {
        0 | FIRST_PORT.. => Ok(address),
        port => Err(invalid(format!(
            "startPort should be between 1024 and 65535 (inclusive), or 0 for a random free port. The port given is {port}."
        ))),
    }
}

/// Reads `host` or `host:port`.
fn parse_advertised(text: &str) -> Result<RpcAddress, RpcError> {
    RpcAddress::new(text, 0).or_else(|_| text.parse())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(key: &str, value: &str) -> String {
        let error = RpcEnvConfig::client("c").set(key, value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        error.text().to_owned()
    }

    #[test]
    fn every_known_key_can_be_set_and_its_default_changes_nothing() {
        let plain = || RpcEnvConfig::client(DEFAULT_NAME);
        let mut names = std::collections::HashSet::new();
        for row in RpcEnvConfig::known_keys() {
            assert!(names.insert(row.name), "{} is there twice", row.name);
            let config = match (row.name, row.default) {
                (BIND, _) => plain().set(BIND, "a:7077").unwrap(),
                (ADVERTISE, _) => plain().set(ADVERTISE, "a").unwrap(),
                (NETWORK_TIMEOUT, _) => plain().set(NETWORK_TIMEOUT, "7s").unwrap(),
                (key, "") => {
                    let config = plain().set(key, "2").unwrap();
                    assert_eq!(config.backend_option(key), Some("2"));
                    config
                }
                (key, default) => {
                    let config = plain().set(key, default).unwrap();
                    assert_eq!(config.ask_timeout(), plain().ask_timeout());
                    assert_eq!(config.lookup_timeout(), plain().lookup_timeout());
                    let unset = RpcEnvConfig { ask_timeout: None, lookup_timeout: None, ..config };
                    assert_eq!(format!("{unset:?}"), format!("{:?}", plain()), "{key}");
                    unset
                }
            };
            config.validate().unwrap();
        }
        assert_eq!(plain().connect_timeout().duration(), Duration::from_secs(5));
        assert_eq!(plain().drain_timeout(), Duration::from_secs(5));
        assert_eq!(plain().factory(), "actix");
    }

    #[test]
    fn s1_s6_server_and_client() {
        let server = RpcEnvConfig::server("master", "127.0.0.1:7077");
        server.validate().unwrap();
        assert_eq!(server.bind_address().unwrap().to_string(), "127.0.0.1:7077");
        assert_eq!(server.advertised_address(7078).unwrap().to_string(), "127.0.0.1:7078");
        let client = RpcEnvConfig::client("driver");
        client.validate().unwrap();
        assert!(client.is_client_mode() && !server.is_client_mode());
        assert!(client.bind_address().is_none() && client.advertised_address(1).is_none());
    }

    #[test]
    fn s2_s5_advertised_address() {
        let config = |advertise| RpcEnvConfig::server("m", "0.0.0.0:7077").advertise(advertise);
        let address = |advertise| config(advertise).advertised_address(7080).unwrap().to_string();
        assert_eq!(address("example.com"), "example.com:7080");
        assert_eq!(address("example.com:443"), "example.com:443");
        assert_eq!(address("::0:1"), "[::1]:7080");
        assert_eq!(address("[::1]:9"), "[::1]:9");
        assert!(config("a b").validate().is_err() && config("a:70000").validate().is_err());
    }

    #[test]
    fn s8_ports() {
        let text =
            "startPort should be between 1024 and 65535 (inclusive), or 0 for a random free port.";
        for port in [1, 80, 1023] {
            let bind = format!("localhost:{port}");
            let error = RpcEnvConfig::server("m", &bind).validate().unwrap_err();
            assert_eq!(error.text(), format!("{text} The port given is {port}."));
            assert!(refusal(BIND, &bind).contains(text));
        }
        for port in [0, 1024, 65535] {
            RpcEnvConfig::server("m", format!("localhost:{port}")).validate().unwrap();
        }
        let error = RpcEnvConfig::server("m", "localhost").validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidAddress);
    }

    #[test]
    fn s9_s10_ports_to_try() {
        let ports = |bind: &str, retries| -> Vec<u16> {
            let config = RpcEnvConfig::server("m", bind).with_max_port_retries(retries);
            config.candidate_ports().collect()
        };
        assert_eq!(ports("a:7077", 0), [7077]);
        assert_eq!(ports("a:7077", 2), [7077, 7078, 7079]);
        assert_eq!(ports("a:65534", 3), [65534, 65535, 1024, 1025]);
        assert_eq!(ports("a:0", 2), [0, 0, 0]);
        assert!(ports("a:1024", u16::MAX).into_iter().all(|port| port >= 1024));
        assert_eq!(RpcEnvConfig::client("c").candidate_ports().count(), 0);
    }

    #[test]
    fn s97_s99_s100_timeouts_fall_back() {
        let config = RpcEnvConfig::client("c");
        assert_eq!(config.ask_timeout().to_string(), "10s (rpc.askTimeout)");
        let config = config.set("rpc.network.timeout", "2min").unwrap();
        assert_eq!(config.ask_timeout().to_string(), "2min (rpc.network.timeout)");
        assert_eq!(config.lookup_timeout().to_string(), "2min (rpc.network.timeout)");
        let config = config.set("rpc.lookupTimeout", "500ms").unwrap();
        assert_eq!(config.lookup_timeout().to_string(), "500ms (rpc.lookupTimeout)");
        // S98 is a quirk: a fraction of a second is not cut off.
        let config = config.set("rpc.askTimeout", "1000h").unwrap();
        assert_eq!(config.ask_timeout().to_string(), "24h (rpc.askTimeout)");
        let config = RpcEnvConfig::client("c").with_ask_timeout(Duration::ZERO);
        assert!(config.validate().unwrap_err().text().starts_with("rpc.askTimeout cannot be 0s"));
    }

    #[test]
    fn pairs_make_an_env() {
        let config = RpcEnvConfig::from_pairs([
            ("rpc.name", "worker"),
            ("rpc.env", "local"),
            ("rpc.bind", "localhost:0"),
            ("rpc.frame.maxSize", "64k"),
            ("rpc.io.writeStall", "1s"),
            ("rpc.actix.arbiters", "4"),
            ("port.maxRetries", "16"),
        ])
        .unwrap();
        assert_eq!((config.name(), config.factory()), ("worker", "local"));
        assert_eq!(config.limits().frame_max_size(), 65_536);
        assert_eq!(config.limits().write_stall(), Duration::from_secs(1));
        assert_eq!(config.backend_option("rpc.actix.arbiters"), Some("4"));
        assert_eq!(config.max_port_retries(), 16);
        assert!(!config.is_client_mode());
        let config = config.with_backend_option("mine.threads", "3");
        assert_eq!(config.backend_option("mine.threads"), Some("3"));
    }

    #[test]
    fn an_unknown_key_suggests_the_nearest() {
        for (key, known) in [
            ("rpc.askTimout", "rpc.askTimeout"),
            ("rpc.asktimeout", "rpc.askTimeout"),
            ("spark.rpc.askTimout", "rpc.askTimeout"),
            ("rpc.message.maxsise", "rpc.message.maxSize"),
            ("rpc.inbox.maxMessage", "rpc.inbox.maxMessages"),
        ] {
            assert_eq!(
                refusal(key, "1s"),
                format!("unknown configuration key {key:?}; did you mean {known:?}?")
            );
        }
        assert!(refusal("colour", "red").ends_with("lists the known ones"));
        assert!(refusal("spark", "1").ends_with("lists the known ones"));
        assert!(refusal(&"x".repeat(100_000), "").len() < 400);
    }

    #[test]
    fn a_bad_value_names_key_value_and_form() {
        assert_eq!(
            refusal("rpc.io.connectTimeout", "10"),
            "rpc.io.connectTimeout cannot be \"10\"; expected a duration from 1ms to 24h, as in 500ms, 10s, 2min or 1h"
        );
        assert_eq!(
            refusal("rpc.message.maxSize", "3g"),
            "rpc.message.maxSize cannot be \"3g\"; expected a size from 1B to 2047MiB, as in 4096, 64k, 256KiB or 4MiB"
        );
        assert_eq!(
            refusal("port.maxRetries", "-1"),
            "port.maxRetries cannot be \"-1\"; expected a number from 0 to 65535"
        );
        let text = refusal("rpc.bind", "nowhere");
        assert!(text.starts_with("rpc.bind: Invalid address \"nowhere\": the port is missing"));
        assert!(RpcEnvConfig::client("").validate().is_err());
        assert!(RpcEnvConfig::client("a\nb").validate().is_err());
        assert!(RpcEnvConfig::client("c").with_factory("").validate().is_err());
    }
}
