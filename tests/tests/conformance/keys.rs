//! Spark's configuration keys: S185-S205, as far as they are not about security and files.

use rpc_core::{ErrorKind, RpcEnvConfig};
use std::collections::BTreeSet;

/// The keys of the lines S185-S199, S202 and S205, and what is their like here.
const KEYS: &[(&str, Option<&str>)] = &[
    ("spark.rpc.askTimeout", Some("rpc.askTimeout")),
    ("spark.rpc.lookupTimeout", Some("rpc.lookupTimeout")),
    ("spark.rpc.message.maxSize", Some("rpc.message.maxSize")),
    ("spark.rpc.connect.threads", None),
    ("spark.rpc.io.threads", Some("rpc.actix.arbiters")),
    ("spark.rpc.io.serverThreads", Some("rpc.actix.arbiters")),
    ("spark.rpc.io.clientThreads", Some("rpc.actix.arbiters")),
    ("spark.driver.rpc.io.serverThreads", Some("rpc.actix.arbiters")),
    ("spark.driver.rpc.io.clientThreads", Some("rpc.actix.arbiters")),
    ("spark.executor.rpc.io.serverThreads", Some("rpc.actix.arbiters")),
    ("spark.executor.rpc.io.clientThreads", Some("rpc.actix.arbiters")),
    ("spark.rpc.io.numConnectionsPerPeer", None),
    ("spark.rpc.netty.dispatcher.numThreads", Some("rpc.actix.arbiters")),
    ("spark.driver.rpc.netty.dispatcher.numThreads", Some("rpc.actix.arbiters")),
    ("spark.executor.rpc.netty.dispatcher.numThreads", Some("rpc.actix.arbiters")),
    ("spark.rpc.io.mode", None),
    ("spark.rpc.io.preferDirectBufs", None),
    ("spark.rpc.io.connectionTimeout", Some("rpc.io.deadAfter")),
    ("spark.rpc.io.connectionCreationTimeout", Some("rpc.io.connectTimeout")),
    ("spark.rpc.io.backLog", None),
    ("spark.rpc.io.receiveBuffer", None),
    ("spark.rpc.io.sendBuffer", None),
    ("spark.rpc.io.enableTcpKeepAlive", Some("rpc.io.heartbeat")),
    ("spark.rpc.io.maxRetries", None),
    ("spark.rpc.io.retryWait", Some("rpc.io.reconnectMin")),
    ("spark.rpc.io.lazyFD", None),
    ("spark.rpc.io.enableVerboseMetrics", None),
    ("spark.rpc.sasl.timeout", Some("rpc.io.handshakeTimeout")),
    ("spark.network.auth.rpcTimeout", Some("rpc.io.handshakeTimeout")),
    ("spark.rpc.numRetries", None),
    ("spark.rpc.retry.wait", None),
    ("spark.network.timeout", Some("rpc.network.timeout")),
    ("spark.network.timeoutInterval", None),
    ("spark.network.sharedByteBufAllocators.enabled", None),
    ("spark.network.io.preferDirectBufs", None),
    ("spark.network.remoteReadNioBufferConversion", None),
    ("spark.network.maxRemoteBlockSizeFetchToMem", None),
    ("spark.port.maxRetries", Some("port.maxRetries")),
    ("spark.driver.host", Some("rpc.advertise")),
    ("spark.driver.port", Some("rpc.bind")),
    ("spark.driver.bindAddress", Some("rpc.bind")),
    // Of lines that are for later.
    ("spark.rpc", Some("rpc.env")),
    ("spark.authenticate", None),
    ("spark.authenticate.", None),
    ("spark.network.crypto.", None),
    ("spark.network.sasl.", None),
    ("spark.ssl.", None),
    ("spark.files.", None),
];

fn refusal(key: &str) -> String {
    let error = RpcEnvConfig::client("c").set(key, "1s").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    error.text().to_owned()
}

#[test]
fn every_key_of_spark_is_told_its_like_or_why_there_is_none() {
    let known: BTreeSet<_> = RpcEnvConfig::known_keys().map(|key| key.name).collect();
    for (key, here) in KEYS {
        // With the prefix and without, unless that is a key of ours, or no key at all.
        let short = key.strip_prefix("spark.").unwrap();
        for written in [*key, short] {
            if known.contains(written) || written.is_empty() {
                continue;
            }
            let text = refusal(written);
            let start = match here {
                Some(here) => format!("here it is {here:?} ("),
                None => "there is none here: ".to_owned(),
            };
            let start = format!("unknown configuration key {written:?}; {start}");
            assert!(text.starts_with(&start) && text.len() > start.len() + 5, "{text}");
        }
        assert!(here.is_none_or(|here| known.contains(here)), "{here:?}");
    }
    let listed: BTreeSet<_> = KEYS.iter().map(|(key, _)| *key).collect();
    let rows: BTreeSet<_> = RpcEnvConfig::spark_keys().map(|row| row.name).collect();
    assert_eq!(rows, listed);
}

#[test]
fn the_notes_name_keys_that_exist() {
    let known: BTreeSet<_> = RpcEnvConfig::known_keys().map(|key| key.name).collect();
    for row in RpcEnvConfig::spark_keys() {
        let words = row.note.split([' ', ',', ';', ':']);
        for key in words.filter(|word| word.starts_with("rpc.")) {
            assert!(known.contains(key), "{}: {key}", row.name);
        }
    }
}

#[test]
fn a_misspelt_key_of_spark_is_told_the_right_one() {
    for (written, text) in [
        (
            "spark.rpc.io.conectionTimeout",
            "did you mean Spark's \"spark.rpc.io.connectionTimeout\"? Here it is \"rpc.io.deadAfter\" (how long a peer may be silent, whether or not calls are open)",
        ),
        (
            "rpc.io.connectionCreationTimout",
            "did you mean Spark's \"spark.rpc.io.connectionCreationTimeout\"? Here it is \"rpc.io.connectTimeout\" (5s by default, and never without an end)",
        ),
        (
            "spark.rpc.numRetrys",
            "did you mean Spark's \"spark.rpc.numRetries\"? There is none here: a message is sent once; whether it may be sent again is for its sender to say",
        ),
        ("spark.rpc.askTimout", "did you mean \"rpc.askTimeout\"?"),
        ("spark.rpc.asktimeout", "did you mean \"rpc.askTimeout\"?"),
        (
            "spark.ssl.rpc.enabled",
            "there is none here: there is no security yet, so envs stay on loopback addresses",
        ),
        ("spark.eventLog.dir", "RpcEnvConfig::known_keys() lists the known ones"),
    ] {
        let expected = format!("unknown configuration key {written:?}; {text}");
        assert_eq!(refusal(written), expected);
    }
}

#[test]
fn s185_s186_s193_s197_s205_our_defaults_are_shorter_than_sparks() {
    let config = RpcEnvConfig::client("c");
    // 120 s, 120 s, 120 s, 120 s, 30 s and 16 there.
    assert_eq!(config.ask_timeout().to_string(), "10s (rpc.askTimeout)");
    assert_eq!(config.lookup_timeout().to_string(), "10s (rpc.lookupTimeout)");
    assert_eq!(config.connect_timeout().to_string(), "5s (rpc.io.connectTimeout)");
    assert_eq!(config.limits().dead_after().as_secs(), 3);
    assert_eq!(config.limits().handshake_timeout().as_secs(), 5);
    assert_eq!(config.max_port_retries(), 0);
}

#[test]
fn s187_the_greatest_size_of_messages_is_sparks() {
    let set = |value| RpcEnvConfig::client("c").set("rpc.message.maxSize", value);
    let default = RpcEnvConfig::client("c").limits().message_max_size();
    assert_eq!(default, 16 << 20, "128 MiB there");
    assert_eq!(set("2047m").unwrap().limits().message_max_size(), 2047 << 20);
    assert_eq!(set("2048m").unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[test]
fn s198_what_was_removed_has_no_effect_and_says_so() {
    for key in ["spark.rpc.numRetries", "rpc.numRetries", "spark.rpc.retry.wait", "rpc.retry.wait"]
    {
        assert!(refusal(key).contains("there is none here: a message is sent once"), "{key}");
    }
}
