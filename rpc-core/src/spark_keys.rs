//! Spark's configuration keys, and what answers to each here.

/// A key of Spark's RPC layer, as people know it who come from there.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SparkKey {
    /// The key; one that ends in a dot stands for all that begin like this.
    pub name: &'static str,
    /// The key here that sets the same thing, if there is one.
    pub here: Option<&'static str>,
    /// What is different here, or why there is no such key.
    pub note: &'static str,
    /// The line of `behaviours.md`.
    pub line: &'static str,
}

const fn is(
    line: &'static str,
    name: &'static str,
    here: &'static str,
    note: &'static str,
) -> SparkKey {
    SparkKey { name, here: Some(here), note, line }
}

const fn none(line: &'static str, name: &'static str, note: &'static str) -> SparkKey {
    SparkKey { name, here: None, note, line }
}

const ARBITERS: &str = "arbiters drive endpoints and connections, in both directions and all roles";
const NO_SECURITY: &str = "there is no security yet, so envs stay on loopback addresses";
const NO_FILES: &str = "there is no file server yet";
const ONCE: &str = "a message is sent once; whether it may be sent again is for its sender to say";
const NO_COLLECTOR: &str = "buffers are plain memory; there is no collector to keep them from";
const BUFFERS: &str = "the system sizes the buffers of sockets";

/// Where a key of another role or direction means the same, it has a row of its own.
pub(crate) static SPARK_KEYS: &[SparkKey] = &[
    is("S3", "spark.rpc", "rpc.env", "the name of the factory"),
    is("S185", "spark.rpc.askTimeout", "rpc.askTimeout", "10s by default"),
    is("S186", "spark.rpc.lookupTimeout", "rpc.lookupTimeout", "10s by default"),
    is(
        "S187",
        "spark.rpc.message.maxSize",
        "rpc.message.maxSize",
        "a size in bytes, 16MiB by default, and it bounds every message",
    ),
    none("S188", "spark.rpc.connect.threads", "connecting takes a task, not a thread"),
    is("S189", "spark.rpc.io.threads", "rpc.actix.arbiters", ARBITERS),
    is("S189", "spark.rpc.io.serverThreads", "rpc.actix.arbiters", ARBITERS),
    is("S189", "spark.rpc.io.clientThreads", "rpc.actix.arbiters", ARBITERS),
    is("S189", "spark.driver.rpc.io.serverThreads", "rpc.actix.arbiters", ARBITERS),
    is("S189", "spark.driver.rpc.io.clientThreads", "rpc.actix.arbiters", ARBITERS),
    is("S189", "spark.executor.rpc.io.serverThreads", "rpc.actix.arbiters", ARBITERS),
    is("S189", "spark.executor.rpc.io.clientThreads", "rpc.actix.arbiters", ARBITERS),
    none(
        "S190",
        "spark.rpc.io.numConnectionsPerPeer",
        "there is one connection to each peer, so that order holds",
    ),
    is("S191", "spark.rpc.netty.dispatcher.numThreads", "rpc.actix.arbiters", ARBITERS),
    is("S191", "spark.driver.rpc.netty.dispatcher.numThreads", "rpc.actix.arbiters", ARBITERS),
    is("S191", "spark.executor.rpc.netty.dispatcher.numThreads", "rpc.actix.arbiters", ARBITERS),
    none("S192", "spark.rpc.io.mode", "sockets wait in the way that is best on this system"),
    none("S192", "spark.rpc.io.preferDirectBufs", NO_COLLECTOR),
    is(
        "S193",
        "spark.rpc.io.connectionTimeout",
        "rpc.io.deadAfter",
        "how long a peer may be silent, whether or not calls are open",
    ),
    is(
        "S193",
        "spark.rpc.io.connectionCreationTimeout",
        "rpc.io.connectTimeout",
        "5s by default, and never without an end",
    ),
    none("S194", "spark.rpc.io.backLog", "it is 1,024, or what the system allows if that is less"),
    none("S194", "spark.rpc.io.receiveBuffer", BUFFERS),
    none("S194", "spark.rpc.io.sendBuffer", BUFFERS),
    is(
        "S194",
        "spark.rpc.io.enableTcpKeepAlive",
        "rpc.io.heartbeat",
        "a duration: signs of life are frames of the protocol, on every connection",
    ),
    none("S195", "spark.rpc.io.maxRetries", ONCE),
    is(
        "S195",
        "spark.rpc.io.retryWait",
        "rpc.io.reconnectMin",
        "the wait is random and grows up to rpc.io.reconnectMax",
    ),
    none("S196", "spark.rpc.io.lazyFD", "there are no file segments to open late"),
    none("S196", "spark.rpc.io.enableVerboseMetrics", "there are no metrics of a pool of buffers"),
    is(
        "S197",
        "spark.rpc.sasl.timeout",
        "rpc.io.handshakeTimeout",
        "the time for the whole handshake",
    ),
    is(
        "S197",
        "spark.network.auth.rpcTimeout",
        "rpc.io.handshakeTimeout",
        "the time for the whole handshake",
    ),
    none("S198", "spark.rpc.numRetries", ONCE),
    none("S198", "spark.rpc.retry.wait", ONCE),
    is(
        "S199",
        "spark.network.timeout",
        "rpc.network.timeout",
        "for asks and lookups only; connections have rpc.io.deadAfter",
    ),
    none(
        "S199",
        "spark.network.timeoutInterval",
        "nothing is looked through from time to time for what is over",
    ),
    none("S202", "spark.network.sharedByteBufAllocators.enabled", NO_COLLECTOR),
    none("S202", "spark.network.io.preferDirectBufs", NO_COLLECTOR),
    none("S202", "spark.network.remoteReadNioBufferConversion", "blocks are not fetched here"),
    none("S202", "spark.network.maxRemoteBlockSizeFetchToMem", "blocks are not fetched here"),
    is(
        "S205",
        "spark.port.maxRetries",
        "port.maxRetries",
        "0 by default: a port that is set stays or fails",
    ),
    is("S205", "spark.driver.host", "rpc.advertise", "where others reach the env"),
    is("S205", "spark.driver.port", "rpc.bind", "host and port in one, as 10.0.0.1:7077"),
    is("S205", "spark.driver.bindAddress", "rpc.bind", "host and port in one, as 0.0.0.0:7077"),
    none("S203", "spark.authenticate", NO_SECURITY),
    none("S203", "spark.authenticate.", NO_SECURITY),
    none("S200", "spark.network.crypto.", NO_SECURITY),
    none("S201", "spark.network.sasl.", NO_SECURITY),
    none("S204", "spark.ssl.", NO_SECURITY),
    none("S206", "spark.files.", NO_FILES),
];

impl SparkKey {
    /// The row of this key, which may be without the `spark.` before it.
    pub(crate) fn find(key: &str) -> Option<&'static Self> {
        let name = key.strip_prefix("spark.").unwrap_or(key);
        SPARK_KEYS.iter().find(|row| match row.short() {
            // All that begin like this.
            begin if begin.ends_with('.') => name.starts_with(begin),
            short => short == name,
        })
    }

    /// The name without the `spark.` before it.
    pub(crate) fn short(&self) -> &'static str {
        self.name.strip_prefix("spark.").unwrap_or(self.name)
    }

    /// What to do instead, for whoever has used it.
    pub(crate) fn advice(&self) -> String {
        match self.here {
            Some(here) => format!("here it is {here:?} ({})", self.note),
            None => format!("there is none here: {}", self.note),
        }
    }
}
