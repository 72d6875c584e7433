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
                // A backend's own key is kept as it was written.
                let mut kept = config.backend_options.clone();
                assert!(kept.remove(key).is_none_or(|kept| kept == default) && kept.is_empty());
                let unset = RpcEnvConfig {
                    ask_timeout: None,
                    lookup_timeout: None,
                    backend_options: kept,
                    ..config
                };
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
    let config = |advertise| RpcEnvConfig::server("m", "0.0.0.0:7077").with_advertise(advertise);
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
