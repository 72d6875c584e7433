//! Readers that never read, and what the server that has very much for them holds: not more than the
//! library says at its start. Where memory can be limited by the system, exactly that is its limit.

use crate::cgroup::Cgroup;
use crate::child::{self, Process, Server, resident_bytes};
use crate::messages::Load;
use crate::raw_client::{self, RESOLVE, RESOLVED};
use crate::report::{Report, say};
use anyhow::Context;
use bytes::{Bytes, BytesMut};
use rpc_actix::{
    Counters, HandlerResult, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const SERVER: &str = "unread";
pub(crate) const READERS: &str = "readers";

/// The bytes of each message and each reply.
const BODY: usize = 60 * 1024;
/// Asks of each reader: as many as its window lets it have, and more than there is room for the replies
/// to.
const ASKS: u64 = 8;
/// The number of the first reader's env; the others follow.
const FIRST: u64 = 0x00c0_ffee_0000_0000;
/// Asked for by its number, as the first of its endpoint.
const FILL: u16 = 0;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Bytes)]
struct Fill;

/// Answers at length.
struct Filler {
    body: Bytes,
}

#[endpoint]
impl Filler {
    #[receive_and_reply]
    fn fill(&mut self, _: Fill) -> HandlerResult<Bytes> {
        Ok(self.body.clone())
    }
}

/// What the readers say that they are.
struct Sink;

#[endpoint]
impl Sink {
    #[receive]
    fn load(&mut self, _: Load) -> HandlerResult<()> {
        Ok(())
    }
}

/// Limits with which a thousand readers fit into a machine.
fn limits(readers: u64) -> [(&'static str, String); 18] {
    let text = str::to_owned;
    [
        ("rpc.io.maxConnections", readers.to_string()),
        ("rpc.io.maxUnauthenticated", text("64")),
        ("rpc.io.maxInFlight", text("16")),
        ("rpc.io.maxAssembly", text("64KiB")),
        ("rpc.io.socketBuffer", text("16KiB")),
        ("rpc.frame.maxSize", text("32KiB")),
        ("rpc.message.maxSize", text("64KiB")),
        ("rpc.inbox.maxMessages", text("64")),
        ("rpc.inbox.maxBytes", text("1MiB")),
        ("rpc.outbox.maxMessages", text("64")),
        ("rpc.outbox.maxBytes", text("256KiB")),
        ("rpc.outbox.maxReplyBytes", text("400KiB")),
        ("rpc.outbox.maxWaiting", text("0")),
        ("rpc.outbox.maxWaitingBytes", text("0")),
        // Nobody is found to be silent or slow here: that would free what this is about.
        ("rpc.io.writeStall", text("1h")),
        ("rpc.io.deadAfter", text("1h")),
        ("rpc.io.heartbeat", text("20min")),
        ("rpc.io.preAuthBytes", text("16KiB")),
    ]
}

/// What the library logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The bound that the library has logged.
    fn bound(&self) -> anyhow::Result<u64> {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let log = String::from_utf8_lossy(&log);
        let line = log.lines().find(|line| line.contains("memory bound")).context("no bound")?;
        let bytes = line.split("bytes=").nth(1).context("no bytes in the bound")?;
        Ok(bytes.split_whitespace().next().context("no bytes in the bound")?.parse()?)
    }
}

/// The child: says where it listens, then its bound; offers at the order `offer BYTES`.
pub(crate) async fn serve(args: &[&str]) -> anyhow::Result<()> {
    let [readers] = args else { anyhow::bail!("how many readers") };
    let readers: u64 = readers.parse()?;
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let config = RpcEnvConfig::server(SERVER, "127.0.0.1:0").set_all(limits(readers))?;
    let env = rpc_actix::create(config).await?;
    env.setup_endpoint("filler", Filler { body: vec![7; BODY].into() }).await?;
    say(&env.address().context("an address")?.to_string());
    say(&log.bound()?.to_string());
    let mut orders = child::orders();
    while let Some(order) = orders.recv().await {
        let bytes: u64 = order.parse()?;
        let offered = offer(&env, readers, bytes).await?;
        // The readers' asks are handled meanwhile.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Counters { replies_sent, failures_sent, connections_ended, .. } = env.counters();
        say(&format!(
            "{} {} {replies_sent} {failures_sent} {connections_ended}",
            offered.0, offered.1
        ));
    }
    Ok(())
}

/// Sends to every reader in turn, whether there is room or not; messages taken and refused.
async fn offer(env: &RpcEnv, readers: u64, bytes: u64) -> anyhow::Result<(u64, u64)> {
    let mut sinks: Vec<RpcEndpointRef<Sink>> = Vec::new();
    for number in 0..readers {
        let uri = format!("rpc-client://sink@{:016x}", FIRST + number);
        sinks.push(env.endpoint_ref(&uri).await?);
    }
    let (mut taken, mut refused) = (0, 0);
    let payload = Bytes::from(vec![7; BODY]);
    for number in 0..bytes / BODY as u64 {
        let sink = sinks.get(usize::try_from(number % readers)?).context("a reader")?;
        match sink.send(Load { payload: payload.clone() }) {
            Ok(()) => taken += 1,
            Err(error) if error.is_overloaded() => refused += 1,
            Err(error) => return Err(error.into()),
        }
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok((taken, refused))
}

/// A process of readers.
pub(crate) async fn read_nothing(args: &[&str]) -> anyhow::Result<()> {
    let [server, readers] = args else { anyhow::bail!("server and readers") };
    let mut streams = Vec::new();
    for number in 0..readers.parse::<u64>()? {
        let mut stream = raw_client::greet(server, FIRST + number).await?;
        stream.write_all(&raw_client::resolve(0, "filler")?).await?;
        streams.push(tokio::task::spawn_local(fall_silent(stream)));
    }
    let mut orders = child::orders();
    say("connected");
    let mut kept = Vec::new();
    for stream in streams {
        kept.push(stream.await??);
    }
    say("silent");
    while orders.recv().await.is_some() {}
    drop(kept);
    Ok(())
}

/// Reads until the server has asked for the sink, asks for very much, and reads nothing from then on.
async fn fall_silent(mut stream: TcpStream) -> anyhow::Result<TcpStream> {
    let (mut buffer, mut asked, mut known) = (BytesMut::new(), false, false);
    while !asked || !known {
        anyhow::ensure!(stream.read_buf(&mut buffer).await? > 0, "the server has closed");
        while let Some((kind, payload)) = raw_client::take(&mut buffer)? {
            known |= kind == RESOLVED;
            if kind == RESOLVE {
                let target = payload.get(..4).context("a target")?;
                let mut resolved = target.to_vec();
                resolved.extend_from_slice(b"\x83\xabincarnation\x92\x01\x01\xa6credit\x92");
                // A window that is never in the way.
                resolved.extend_from_slice(b"\xce\x7f\xff\xff\xff\xce\x7f\xff\xff\xff");
                resolved.extend_from_slice(b"\xa8messages\x91");
                let name = Load::NAME.as_bytes();
                resolved.push(0xa0 | u8::try_from(name.len())?);
                resolved.extend_from_slice(name);
                stream.write_all(&raw_client::frame(RESOLVED, &resolved)).await?;
                asked = true;
            }
        }
    }
    for number in 0..ASKS {
        stream.write_all(&raw_client::ask(number, 0, FILL)).await?;
    }
    Ok(stream)
}

/// So many readers, to whom so many bytes are offered.
pub(crate) async fn run(readers: u64, bytes: u64) -> anyhow::Result<Report> {
    let mut report = Report::new("unread");
    let count = readers.to_string();
    let process = Process::start_with_descriptors(SERVER, &[&count])?;
    let mut server = Server::of(process)?;
    let bound: u64 = server.process.line()?.parse()?;
    let group = Cgroup::limit(server.pid(), bound);
    let args = [server.address.as_str(), &count];
    let readers_process = Process::start_with_descriptors(READERS, &args)?;
    let (mut readers_process, _) = child::lines(vec![readers_process]).await?;
    let idle = resident_bytes(server.pid())?;
    server.process.tell(&bytes.to_string())?;
    let pid = server.pid();
    let said =
        tokio::task::spawn_blocking(move || server.process.line().map(|line| (server, line)));
    let mut most = 0;
    let start = Instant::now();
    while !said.is_finished() && start.elapsed() < Duration::from_secs(600) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        most = resident_bytes(pid)?.max(most);
    }
    let (server, line) = said.await??;
    let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [taken, refused, replies, failures, ended] = *numbers else {
        anyhow::bail!("the server said {line}");
    };
    let mib = |bytes: u64| bytes as f64 / 1048576.0;
    report.figure(format!(
        "{readers} readers: {:.1} GB offered, {taken} messages taken, {refused} refused; of their asks {replies} answered, {failures} refused for want of room",
        ((taken + refused + replies + failures) * BODY as u64) as f64 / 1e9
    ));
    report.require(refused > taken && failures > 0, "both queues of each reader were full");
    report.require(ended == 0, &format!("no connection was lost: {ended}"));
    report.require(
        most <= bound,
        &format!(
            "resident {:.0} MiB at most ({:.0} % of the bound; {:.0} MiB with {readers} idle connections), bound printed at the start: {:.0} MiB",
            mib(most), most as f64 / bound as f64 * 100.0, mib(idle), mib(bound)
        ),
    );
    readers_process.clear();
    // Before its group, which it is in.
    drop(server);
    judge_group(&mut report, group);
    Ok(report)
}

fn judge_group(report: &mut Report, group: anyhow::Result<Cgroup>) {
    match group.and_then(|group| group.used()) {
        Ok((most, refused)) => report.require(
            refused == 0,
            &format!(
                "with exactly that as the limit of its memory group it had {:.0} MiB at most, and was refused {refused} times",
                most as f64 / 1048576.0
            ),
        ),
        Err(error) => report.figure(format!("the limit by the system is skipped: {error:#}")),
    }
}
