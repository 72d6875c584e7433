//! The keys of a configuration that are not those of a limit.

use crate::limits::{ConfigKey, Unit};
use std::time::Duration;

pub(crate) const FACTORY: &str = "rpc.env";
pub(crate) const NAME: &str = "rpc.name";
pub(crate) const BIND: &str = "rpc.bind";
pub(crate) const ADVERTISE: &str = "rpc.advertise";
pub(crate) const ASK_TIMEOUT: &str = "rpc.askTimeout";
pub(crate) const LOOKUP_TIMEOUT: &str = "rpc.lookupTimeout";
pub(crate) const NETWORK_TIMEOUT: &str = "rpc.network.timeout";
pub(crate) const CONNECT_TIMEOUT: &str = "rpc.io.connectTimeout";
pub(crate) const DRAIN_TIMEOUT: &str = "rpc.shutdown.drainTimeout";
pub(crate) const PORT_RETRIES: &str = "port.maxRetries";
/// Keys that begin like this are for the backend; they are kept as they are written.
pub(crate) const BACKEND_PREFIX: &str = "rpc.actix.";

pub(crate) const DEFAULT_NAME: &str = "rpc-env";
pub(crate) const DEFAULT_FACTORY: &str = "actix";
pub(crate) const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

const MILLISECOND: u64 = 1_000_000;
const HOUR: u64 = 3600 * 1000 * MILLISECOND;

/// A time that is capped where it is used, so that "1000h" is a way to write "very long".
const CALL_TIMES: (u64, u64) = (MILLISECOND, 10_000 * HOUR);

/// The keys that are not those of a limit.
pub(crate) static OWN_KEYS: [ConfigKey; 12] = [
    ConfigKey::text(
        FACTORY,
        DEFAULT_FACTORY,
        "The name of the factory that makes the env: actix, local, or one that the program registered.",
        "S3",
    ),
    ConfigKey::text(NAME, DEFAULT_NAME, "The name of the env in logs and errors.", "S1, S3"),
    ConfigKey::text(
        BIND,
        "",
        "Where the env listens, as host:port. The port is 0 for any free one, or from 1024 to 65535. Without it the env is a client: it opens connections and takes none.",
        "S1, S6, S8, S205",
    ),
    ConfigKey::text(
        ADVERTISE,
        "",
        "The host, or host:port, under which others reach the env, where that is not the one it binds.",
        "S2, S4, S5",
    ),
    ConfigKey::number(
        (ASK_TIMEOUT, Unit::Duration, "10s"),
        CALL_TIMES,
        "How long an ask may take, with connecting and waiting for room. If it is not set, rpc.network.timeout holds; more than 24h counts as 24h.",
        "S99, S101, S185",
    ),
    ConfigKey::number(
        (LOOKUP_TIMEOUT, Unit::Duration, "10s"),
        CALL_TIMES,
        "How long it may take to find an endpoint by its address. If it is not set, rpc.network.timeout holds; more than 24h counts as 24h.",
        "S100, S186",
    ),
    ConfigKey::number(
        (NETWORK_TIMEOUT, Unit::Duration, ""),
        CALL_TIMES,
        "What rpc.askTimeout and rpc.lookupTimeout are where they are not set.",
        "S97, S199",
    ),
    ConfigKey::number(
        (CONNECT_TIMEOUT, Unit::Duration, "5s"),
        (MILLISECOND, 24 * HOUR),
        "How long one attempt to connect to a peer may take.",
        "S193",
    ),
    ConfigKey::number(
        (DRAIN_TIMEOUT, Unit::Duration, "5s"),
        (0, 24 * HOUR),
        "How long a stopping endpoint or env goes on with the messages that it already has; 0s drops them.",
        "R30",
    ),
    ConfigKey::number(
        (PORT_RETRIES, Unit::Count, "0"),
        (0, 65_535),
        "How many further ports are tried when the one to bind is in use. Off, because a fixed port that moves silently is a trap.",
        "S9, S10, S11, S12, S205",
    ),
    ConfigKey::number(
        ("rpc.actix.arbiters", Unit::Count, "1"),
        (1, 1024),
        "How many arbiters the actix backend spreads endpoints and connections over.",
        "S191",
    ),
    ConfigKey::text(
        "rpc.actix.mode",
        "threads",
        "Where the actix backend runs its System: threads, of its own, or inline, in the caller's.",
        "S189, S191",
    ),
];
