//! Envs, their addresses and ports: S1-S13.

use rpc_actix::ActixRpcEnvFactory;
use rpc_actix::transport::{Listener, Socket, Transport};
use rpc_core::spi::BoxFuture;
use rpc_core::{
    ErrorKind, LocalWorld, RpcAddress, RpcEnv, RpcEnvConfig, RpcEnvFactory, RpcEnvFactoryRegistry,
    RpcError,
};
use rpc_tests::harness::{Backend, Echo, Harness, Hold, Log, Probe, block_on};
use std::io;

async fn s1_s4_a_server_is_at_its_bound_port_and_a_client_nowhere(
    h: &Harness,
) -> anyhow::Result<()> {
    let server = h.server("master").await?;
    let address = server.address().expect("a server has an address");
    assert_eq!((server.name(), address.host()), ("master", "127.0.0.1"));
    assert_ne!(address.port(), 0, "the real port, not the one that was asked for");
    let client = h.client("driver").await?;
    assert_eq!((client.name(), client.address()), ("driver", None));
    Ok(())
}

async fn s2_s5_another_host_than_the_bound_one_is_advertised(h: &Harness) -> anyhow::Result<()> {
    let config = h.server_config("master").with_advertise("example.com");
    let env = h.create(config).await?;
    let address = env.address().expect("a server has an address").clone();
    assert_eq!(address.host(), "example.com");
    assert_ne!(address.port(), 0);
    let (_, endpoint) = Probe::at(&env, "m").await?;
    assert_eq!(endpoint.endpoint_address().to_string(), format!("rpc://m@{address}"));
    assert_eq!(endpoint.ask(Echo::of("here")).await?, "here", "its own endpoints stay local");
    let both = h.server_config("other").with_advertise("example.com:443");
    assert_eq!(h.create(both).await?.address().map(RpcAddress::port), Some(443));
    Ok(())
}

async fn s6_s24_a_client_listens_nowhere_and_has_no_verifier(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    assert!(pair.client.address().is_none() && pair.client.config().is_client_mode());
    // The name is free in a client, and the endpoint is called over the client's own connection.
    let (_, verifier) = Probe::at(&pair.client, "endpoint-verifier").await?;
    let (_, local) = pair.probe("m").await?;
    let remote = pair.from_client(&local).await?;
    let answer = remote.ask(rpc_tests::harness::Relay { to: verifier, text: "back".into() });
    assert_eq!(answer.await?, "back");
    let taken = Probe::at(&pair.server, "endpoint-verifier").await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::NameTaken);
    Ok(())
}

async fn s7_a_start_that_fails_leaves_nothing_behind(h: &Harness) -> anyhow::Result<()> {
    let first = h.server("first").await?;
    let bind = first.address().expect("listens").to_string();
    let config = || RpcEnvConfig::server("second", &bind).with_factory(h.backend().name());
    for _ in 0..3 {
        assert_eq!(h.create(config()).await.unwrap_err().kind(), ErrorKind::Bind);
    }
    first.shutdown().await;
    let second = h.create(config()).await?;
    assert_eq!(second.address().expect("listens").to_string(), bind);
    Ok(())
}

async fn s8_privileged_ports_are_refused(h: &Harness) -> anyhow::Result<()> {
    for port in ["1", "80", "1023"] {
        let config = RpcEnvConfig::server("m", format!("127.0.0.1:{port}"));
        let error = h.create(config.with_factory(h.backend().name())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let text =
            "startPort should be between 1024 and 65535 (inclusive), or 0 for a random free port.";
        assert!(error.text().starts_with(text), "{error}");
    }
    let error = h.create(RpcEnvConfig::server("m", "127.0.0.1:65536")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidAddress);
    Ok(())
}

async fn s9_s13_a_taken_port_is_retried_if_the_key_allows_it(h: &Harness) -> anyhow::Result<()> {
    let first = h.server("first").await?;
    let taken = first.address().expect("listens").clone();
    let config =
        || RpcEnvConfig::server("second", taken.to_string()).with_factory(h.backend().name());
    // Off by default: a fixed port that moves without a word is a trap.
    assert_eq!(h.create(config()).await.unwrap_err().kind(), ErrorKind::Bind);
    let second = h.create(config().set("port.maxRetries", "100")?).await?;
    assert_ne!(second.address(), Some(&taken));
    let (_, a) = Probe::at(&first, "p").await?;
    let (_, b) = Probe::at(&second, "p").await?;
    let a = second.endpoint_ref::<Probe>(&a.to_string()).await?;
    let b = first.endpoint_ref::<Probe>(&b.to_string()).await?;
    assert_eq!(a.ask(Echo::of("a")).await? + &b.ask(Echo::of("b")).await?, "ab");
    Ok(())
}

async fn s11_the_bind_error_says_what_to_change(h: &Harness) -> anyhow::Result<()> {
    let first = h.server("first").await?;
    let taken = first.address().expect("listens").to_string();
    let config = RpcEnvConfig::server("second", &taken).with_factory(h.backend().name());
    let error = h.create(config).await.unwrap_err();
    for part in ["second", taken.as_str(), "rpc.bind", "port.maxRetries"] {
        assert!(error.text().contains(part), "{part} is missing: {error}");
    }
    Ok(())
}

rpc_tests::both! {
    s1_s4_a_server_is_at_its_bound_port_and_a_client_nowhere,
    s2_s5_another_host_than_the_bound_one_is_advertised,
    s6_s24_a_client_listens_nowhere_and_has_no_verifier,
    s7_a_start_that_fails_leaves_nothing_behind,
    s8_privileged_ports_are_refused,
    s9_s13_a_taken_port_is_retried_if_the_key_allows_it,
    s11_the_bind_error_says_what_to_change,
}

/// A factory of a user's own, which is the local one under another name.
struct Mine(LocalWorld, Log);

impl RpcEnvFactory for Mine {
    fn name(&self) -> &str {
        "mine"
    }

    fn create(&self, config: RpcEnvConfig) -> BoxFuture<Result<RpcEnv, RpcError>> {
        self.1.push(config.name());
        self.0.factory().create(config)
    }
}

#[test]
fn s3_the_key_rpc_env_picks_the_factory() {
    let (world, log) = (LocalWorld::new(), Log::default());
    let registry = RpcEnvFactoryRegistry::new()
        .with(ActixRpcEnvFactory::new())
        .with(world.factory())
        .with(Mine(world.clone(), log.clone()));
    let config = |factory: &str| RpcEnvConfig::client("env").set("rpc.env", factory);
    world.block_on(async {
        let mine = registry.create(config("mine").unwrap()).await.unwrap();
        assert_eq!(log.all(), ["env"], "the factory gets the configuration");
        mine.shutdown().await;
        let error = registry.create(config("akka").unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownFactory);
        for part in ["akka", "rpc.env", "actix", "local", "mine"] {
            assert!(error.text().contains(part), "{error}");
        }
    });
    // The default is actix: its endpoints run without anybody driving a world.
    assert_eq!(RpcEnvConfig::client("c").factory(), Backend::Actix.name());
    let env = block_on(registry.create(RpcEnvConfig::client("c"))).unwrap();
    let (watch, endpoint) = block_on(Probe::at(&env, "p")).unwrap();
    drop(endpoint.ask(Hold(1)));
    block_on(watch.log.reaches(1));
    block_on(env.shutdown());
}

/// A transport that cannot bind, and says which ports it was asked for.
struct NoPorts(io::ErrorKind, Log<u16>);

impl Transport for NoPorts {
    fn bind(&self, address: &RpcAddress) -> io::Result<Box<dyn Listener>> {
        self.1.push(address.port());
        Err(self.0.into())
    }

    fn connect(&self, _address: &RpcAddress) -> BoxFuture<io::Result<Box<dyn Socket>>> {
        Box::pin(std::future::ready(Err(self.0.into())))
    }
}

fn ports_tried(cause: io::ErrorKind, bind: &str, retries: u16) -> (Vec<u16>, RpcError) {
    let log = Log::default();
    let factory = ActixRpcEnvFactory::new().with_transport(NoPorts(cause, log.clone()));
    let config = RpcEnvConfig::server("env", bind).with_max_port_retries(retries);
    let error = block_on(factory.create(config)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bind);
    (log.all(), error)
}

#[test]
fn s9_s11_ports_are_tried_in_order_around_the_privileged_ones() {
    let (ports, error) = ports_tried(io::ErrorKind::AddrInUse, "127.0.0.1:65534", 3);
    assert_eq!(ports, [65534, 65535, 1024, 1025]);
    for part in ["env", "127.0.0.1:65534", "3 further ports", "port.maxRetries", "rpc.bind"] {
        assert!(error.text().contains(part), "{part} is missing: {error}");
    }
}

#[test]
fn s10_port_zero_is_retried_as_port_zero() {
    let (ports, error) = ports_tried(io::ErrorKind::AddrInUse, "127.0.0.1:0", 2);
    assert_eq!(ports, [0, 0, 0]);
    assert!(error.text().contains("check the bind address (rpc.bind)"), "{error}");
}

#[test]
fn s12_only_collisions_are_retried() {
    let (ports, error) = ports_tried(io::ErrorKind::PermissionDenied, "127.0.0.1:7077", 5);
    assert_eq!(ports, [7077]);
    assert!(error.text().contains("permission denied"), "{error}");
}
