//! This project over TCP. MODE=inline: the env runs on the thread of `main`; MODE=threads: on threads
//! of its own, as it does by default. ENCODING=compact: structs as arrays instead of named maps.
//! COPIED: large fields are copied on each side.
use bytes::Bytes;
use peerbench::{Args, Msg};
use rpc_actix::{HandlerResult, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcMessage, endpoint};
use serde::{Deserialize, Serialize};

#[path = "../../driver.rs"]
mod driver;
pub use tokio::task::spawn_local as spawn;

#[derive(Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Msg)]
struct Echo(Msg);

#[derive(Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Msg, compact)]
struct EchoCompact(Msg);

/// What is large stays where it is, as the guide says.
#[derive(Serialize, Deserialize)]
struct Large {
    id: u64,
    name: String,
    #[serde(with = "rpc_actix::bytes_in_place")]
    payload: Bytes,
}

impl From<Msg> for Large {
    fn from(Msg { id, name, payload }: Msg) -> Self {
        Self { id, name, payload }
    }
}

#[derive(Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Size(Large);

#[derive(Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64, lane = "bulk")]
struct BulkSize(Large);

/// An ordinary field, which is copied on each side.
#[derive(Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct CopiedSize(Msg);

#[derive(Serialize, Deserialize, RpcMessage)]
struct Tell(Msg);

#[derive(Serialize, Deserialize, RpcMessage)]
#[rpc(compact)]
struct TellCompact(Msg);

#[derive(Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Count;

#[derive(Default)]
struct Bench {
    told: u64,
}

#[endpoint]
impl Bench {
    #[receive_and_reply]
    async fn echo(&mut self, msg: Echo) -> HandlerResult<Msg> {
        Ok(msg.0)
    }

    #[receive_and_reply]
    async fn echo_compact(&mut self, msg: EchoCompact) -> HandlerResult<Msg> {
        Ok(msg.0)
    }

    #[receive_and_reply]
    async fn size(&mut self, msg: Size) -> HandlerResult<u64> {
        Ok(msg.0.payload.len() as u64)
    }

    #[receive_and_reply]
    async fn bulk_size(&mut self, msg: BulkSize) -> HandlerResult<u64> {
        Ok(msg.0.payload.len() as u64)
    }

    #[receive_and_reply]
    async fn copied_size(&mut self, msg: CopiedSize) -> HandlerResult<u64> {
        Ok(msg.0.payload.len() as u64)
    }

    #[receive]
    async fn tell(&mut self, _: Tell) -> HandlerResult<()> {
        self.told += 1;
        Ok(())
    }

    #[receive]
    async fn tell_compact(&mut self, _: TellCompact) -> HandlerResult<()> {
        self.told += 1;
        Ok(())
    }

    #[receive_and_reply]
    async fn count(&mut self, _: Count) -> HandlerResult<u64> {
        Ok(self.told)
    }
}

fn config(config: RpcEnvConfig) -> RpcEnvConfig {
    let mut config = config;
    for (variable, key) in [
        ("MODE", "rpc.actix.mode"),
        ("BUSY_POLL", "rpc.io.busyPoll"),
        ("IN_FLIGHT", "rpc.io.maxInFlight"),
    ] {
        if let Ok(value) = std::env::var(variable) {
            config = config.set(key, &value).unwrap();
        }
    }
    if workload().starts_with('F') {
        for (key, value) in MANY_IN_FLIGHT {
            config = config.set(key, value).unwrap();
        }
    }
    config
}

/// What has to be raised for 100,000 asks in flight on one connection.
const MANY_IN_FLIGHT: [(&str, &str); 5] = [
    ("rpc.io.maxInFlight", "1000000"),
    ("rpc.inbox.maxMessages", "1000000"),
    ("rpc.inbox.maxBytes", "1GiB"),
    ("rpc.outbox.maxMessages", "1000000"),
    ("rpc.outbox.maxBytes", "1GiB"),
];

/// Which workload it is: the runner tells both sides.
fn workload() -> String {
    std::env::var("WORKLOAD").unwrap_or_default()
}

#[derive(Clone)]
pub struct Peer {
    bench: RpcEndpointRef<Bench>,
    compact: bool,
    bulk: bool,
    copied: bool,
    _env: RpcEnv,
}

impl Peer {
    const TELL: bool = true;
    const MANY: bool = true;

    async fn connect(addr: &str) -> Peer {
        let env = rpc_actix::create(config(RpcEnvConfig::client("client"))).await.unwrap();
        let bench = env.endpoint_ref(&format!("rpc://bench@{addr}")).await.unwrap();
        let compact = std::env::var("ENCODING").as_deref() == Ok("compact");
        let bulk = std::env::args().any(|arg| arg == "W7");
        let copied = std::env::var_os("COPIED").is_some();
        Peer { bench, compact, bulk, copied, _env: env }
    }

    async fn echo(&self, m: Msg) -> Msg {
        if self.compact {
            self.bench.ask(EchoCompact(m)).await.unwrap()
        } else {
            self.bench.ask(Echo(m)).await.unwrap()
        }
    }

    /// Large messages beside small ones are declared bulk, as the guide says.
    async fn size(&self, m: Msg) -> u64 {
        if self.bulk {
            self.bench.ask(BulkSize(m.into())).await.unwrap()
        } else if self.copied {
            self.bench.ask(CopiedSize(m)).await.unwrap()
        } else {
            self.bench.ask(Size(m.into())).await.unwrap()
        }
    }

    async fn tell(&self, m: Msg) {
        if self.compact {
            self.bench.send_wait(TellCompact(m)).await.unwrap();
        } else {
            self.bench.send_wait(Tell(m)).await.unwrap();
        }
    }

    async fn count(&self) -> u64 {
        self.bench.ask(Count).await.unwrap()
    }
}

async fn run() {
    match peerbench::args() {
        Args::Client { addr, pid, workload } => driver::run(&addr, pid, &workload).await,
        Args::Server { addr } => {
            let env =
                rpc_actix::create(config(RpcEnvConfig::server("server", addr))).await.unwrap();
            env.setup_endpoint("bench", Bench::default()).await.unwrap();
            let others = workload().strip_prefix('E').map_or(1, |n| n.parse().unwrap());
            for n in 1..others {
                env.setup_endpoint(format!("bench-{n}"), Bench::default()).await.unwrap();
            }
            peerbench::ready();
            env.await_termination().await;
        }
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, run());
}
