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
use crate::limits::{ConfigKey, Limits, Unit};
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
            _ if key.starts_with(BACKEND_PREFIX) => {
                if row.unit != Unit::Text {
                    row.read(value)?;
                }
                return Ok(self.with_backend_option(key, value));
            }
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
    pub fn with_advertise(mut self, address: impl AsRef<str>) -> Self {
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

    /// Sets all limits, in place of whatever was set of them before.
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
mod tests;
