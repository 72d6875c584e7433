//! Panics by the million: each is one call's error, and nothing else's (F18).

use crate::child::{cpu_seconds, resident_bytes};
use crate::report::Report;
use rpc_actix::{ErrorKind, HandlerResult, RpcEndpointRef, RpcEnvConfig, RpcMessage, endpoint};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a panic may cost both sides, with its message, its reply and its unwinding, in seconds of a
/// processor, which a busy machine does not change: F18.
const MOST: f64 = 20e-6;
/// Calls that are open at once.
const FLIGHT: u64 = 64;

/// Panics.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Panic(u64);

/// How often it has panicked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Panics;

struct Bomb {
    panics: u64,
    /// How many of these there are.
    living: Arc<AtomicU64>,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.living.fetch_sub(1, Ordering::Relaxed);
    }
}

#[endpoint]
impl Bomb {
    #[receive_and_reply]
    #[expect(clippy::panic, reason = "that is what is measured")]
    fn panic(&mut self, msg: Panic) -> HandlerResult<()> {
        self.panics += 1;
        panic!("number {}", msg.0);
    }

    #[receive_and_reply]
    fn panics(&mut self, _msg: Panics) -> HandlerResult<u64> {
        Ok(self.panics)
    }
}

/// Half of the panics within an env, half through TCP.
pub(crate) async fn run(panics: u64) -> anyhow::Result<Report> {
    let mut report = Report::new("panics");
    let hook = std::panic::take_hook();
    // A million lines on standard error are no part of the cost.
    std::panic::set_hook(Box::new(|_| {}));
    let ran = tokio::task::LocalSet::new().run_until(measure(&mut report, panics)).await;
    std::panic::set_hook(hook);
    ran?;
    Ok(report)
}

async fn measure(report: &mut Report, panics: u64) -> anyhow::Result<()> {
    let server = rpc_actix::create(RpcEnvConfig::server("server", "127.0.0.1:0")).await?;
    let client = rpc_actix::create(RpcEnvConfig::client("client")).await?;
    let living = Arc::new(AtomicU64::new(1));
    let bomb = Bomb { panics: 0, living: living.clone() };
    let local = server.setup_endpoint("bomb", bomb).await?;
    let remote = client.endpoint_ref(&local.endpoint_address().to_string()).await?;
    let mut typed = 0;
    for (what, endpoint) in [("within an env", &local), ("through TCP", &remote)] {
        let half = panics / 2;
        typed += blow(endpoint, FLIGHT * 100).await?;
        let itself = std::process::id();
        let before = resident_bytes(itself)?;
        let (start, cpu) = (Instant::now(), cpu_seconds(itself)?);
        typed += blow(endpoint, half).await?;
        let each = (cpu_seconds(itself)? - cpu) / half as f64;
        let time = start.elapsed().as_secs_f64() / half as f64;
        let after = resident_bytes(itself)?;
        let grown = after.saturating_sub(before) as f64 / 1048576.0;
        report.figure(format!(
            "{half} panics {what}: {:.2} us of a processor each, one in {:.2} us, memory grew by {grown:.1} MiB",
            each * 1e6,
            time * 1e6
        ));
        report.require(each <= MOST, &format!("a panic {what} costs at most 20 us of a processor"));
    }
    let all = 2 * (panics / 2 + FLIGHT * 100);
    report.require(typed == all, &format!("{typed} of {all} asks failed as HandlerPanicked"));
    let counted = local.ask(Panics).await?;
    report.require(counted == all, &format!("the endpoint has kept its state: {counted} panics"));
    let lost = 1 - living.load(Ordering::Relaxed);
    report.require(lost == 0, &format!("{lost} endpoints lost"));
    client.shutdown().await;
    server.shutdown().await;
    Ok(())
}

/// Makes that many panics; how many of them were told as such, with their text.
async fn blow(bomb: &RpcEndpointRef<Bomb>, panics: u64) -> anyhow::Result<u64> {
    let tasks: Vec<_> = (0..FLIGHT)
        .map(|lane| {
            let bomb = bomb.clone();
            tokio::task::spawn_local(async move {
                let mut typed = 0_u64;
                for number in (lane..panics).step_by(FLIGHT as usize) {
                    let Err(error) = bomb.ask(Panic(number)).await else { continue };
                    let told = error.text().contains(&format!("panicked: number {number} ("));
                    typed += u64::from(error.kind() == ErrorKind::HandlerPanicked && told);
                }
                typed
            })
        })
        .collect();
    let mut typed = 0;
    for task in tasks {
        typed += task.await?;
    }
    Ok(typed)
}
