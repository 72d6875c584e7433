//! Addresses and URIs: S14-S21.

use rpc_core::{EndpointAddress, EndpointName, EnvId, ErrorKind, RpcAddress};

#[test]
fn s14_an_address_prints_as_host_port_and_as_url() {
    let address = RpcAddress::new("1.2.3.4", 1234).unwrap();
    assert_eq!(address.host_port(), "1.2.3.4:1234");
    assert_eq!(address.to_string(), "1.2.3.4:1234");
    assert_eq!(address.to_url(), "rpc://1.2.3.4:1234");
}

#[test]
fn s15_a_url_is_parsed_or_refused_with_its_text() {
    let address = RpcAddress::from_url("rpc://1.2.3.4:1234").unwrap();
    assert_eq!((address.host(), address.port()), ("1.2.3.4", 1234));
    for url in
        ["rpc://1.2. 3.4:1234", "spark://1.2.3.4:1234", "rpc://1.2.3.4", "1.2.3.4:1234", "rpc://:1"]
    {
        let error = RpcAddress::from_url(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidAddress, "{url}");
        assert!(error.text().contains(url), "{error}");
        assert!(error.text().contains("rpc://host:port"), "{error}");
    }
}

#[test]
fn s16_s17_ipv6_hosts_have_one_form_in_brackets() {
    for (given, host) in [
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("::0:1", "[::1]"),
        ("2600::", "[2600::]"),
        ("[2600:0:0::0]", "[2600::]"),
    ] {
        let address = RpcAddress::new(given, 1).unwrap();
        assert_eq!(address.host(), host);
        assert_eq!(address.host_port(), format!("{host}:1"));
        assert_eq!(address.to_url(), format!("rpc://{host}:1"));
    }
    assert_eq!(
        RpcAddress::new("::0:1", 1).unwrap(),
        RpcAddress::from_url("rpc://[0::1]:1").unwrap()
    );
}

#[test]
fn s18_an_env_address_is_taken_from_an_endpoint_uri() {
    let endpoint: EndpointAddress = "rpc://master@node-1:7077".parse().unwrap();
    assert_eq!(endpoint.rpc_address(), Some(&RpcAddress::new("node-1", 7077).unwrap()));
    let client: EndpointAddress = "rpc-client://worker@00000000000000ff".parse().unwrap();
    assert_eq!((client.rpc_address(), client.env_id()), (None, Some(EnvId::new(255))));
}

#[test]
fn s19_an_endpoint_address_prints_with_and_without_an_address() {
    let name = EndpointName::new("test").unwrap();
    let there =
        EndpointAddress::listening(name.clone(), RpcAddress::new("localhost", 12345).unwrap());
    assert_eq!(there.to_string(), "rpc://test@localhost:12345");
    // Spark prints "spark-client://test"; ours also says which env, so that it can be called.
    let client = EndpointAddress::client(name, EnvId::new(0xbeef));
    assert_eq!(client.to_string(), "rpc-client://test@000000000000beef");
}

#[test]
fn s20_an_endpoint_uri_is_refused_for_anything_that_does_not_belong_there() {
    for uri in [
        "spark://m@a:1",
        "http://m@a:1",
        "m@a:1",
        "rpc://m@:1",
        "rpc://m@a",
        "rpc://m@a:-1",
        "rpc://m@a:99999",
        "rpc://a:1",
        "rpc://@a:1",
        "rpc://m@a:1/path",
        "rpc://m@a:1#fragment",
        "rpc://m@a:1?query",
        "",
    ] {
        let error = uri.parse::<EndpointAddress>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidAddress, "{uri}");
        assert!(error.text().contains(&format!("{uri:?}")), "{error}");
    }
}

#[test]
fn s21_an_endpoint_name_is_never_empty_or_unprintable() {
    assert_eq!(EndpointName::new("worker-1").unwrap().as_str(), "worker-1");
    for name in ["", " ", "a b", "a@b", "a:b", "a/b", "a\n", "[a]"] {
        assert_eq!(
            EndpointName::new(name).unwrap_err().kind(),
            ErrorKind::InvalidAddress,
            "{name:?}"
        );
    }
}
