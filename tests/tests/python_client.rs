//! The Python client of `clients/python`, which was written from docs/WIRE.md alone, against a real
//! env: one case for each thing that the page says.
//!
//! Its one dependency is installed into a virtual environment below the target directory, once. A
//! machine without python3, venv, pip or a package index says so and skips the test.
#![cfg(test)]

use rpc_actix::{
    EndpointContext, HandlerError, HandlerResult, RpcCallContext, RpcEndpointRef, RpcEnv,
    RpcEnvConfig, RpcMessage, Untyped, endpoint,
};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

// ---- what the client calls

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct Echo {
    text: String,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Push(u64);

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(lane = "bulk")]
struct Journal {
    text: String,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Counted)]
struct Count;

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Counted {
    pushed: Vec<u64>,
    journal: usize,
    cancelled: u32,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u32, compact)]
struct Sum {
    left: u32,
    right: u32,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Fail {
    how: String,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Hold;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = RpcEndpointRef<Untyped>)]
struct WhoAreYou;

/// Asks `worker` for an [`Echo`], and answers with its answer or what became of it.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct CallMe {
    worker: RpcEndpointRef<Untyped>,
    text: String,
    millis: u64,
}

/// Sends `worker` the numbers below `count`, and asks it for their [`Count`] behind them.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Counted)]
struct Flood {
    worker: RpcEndpointRef<Untyped>,
    count: u64,
    journal: usize,
}

/// Ends the life of an endpoint, and begins the next one.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Restart {
    name: String,
    again: bool,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct ShutDown;

#[derive(Default)]
struct Master {
    counted: Counted,
    held: Vec<RpcCallContext<()>>,
}

#[endpoint]
impl Master {
    #[receive_and_reply]
    async fn echo(&mut self, msg: Echo) -> HandlerResult<String> {
        Ok(msg.text)
    }

    #[receive]
    fn push(&mut self, Push(number): Push) -> HandlerResult<()> {
        self.counted.pushed.push(number);
        Ok(())
    }

    #[receive]
    fn journal(&mut self, msg: Journal) -> HandlerResult<()> {
        self.counted.journal += msg.text.len();
        Ok(())
    }

    #[receive_and_reply]
    fn count(&mut self, _msg: Count) -> HandlerResult<Counted> {
        let cancelled = self.held.iter().filter(|call| call.is_cancelled()).count();
        self.counted.cancelled = u32::try_from(cancelled)?;
        Ok(self.counted.clone())
    }

    #[receive_and_reply]
    fn sum(&mut self, msg: Sum) -> HandlerResult<u32> {
        Ok(msg.left + msg.right)
    }

    #[receive_and_reply]
    fn fail(&mut self, msg: Fail, call: RpcCallContext<()>) -> HandlerResult<()> {
        match msg.how.as_str() {
            "error" => return Err(HandlerError::msg("no room")),
            "panic" => panic!("on purpose"),
            "silent" => drop(call),
            _ => call.reply(()),
        }
        Ok(())
    }

    #[receive_and_reply]
    fn hold(&mut self, _msg: Hold, call: RpcCallContext<()>) -> HandlerResult<()> {
        self.held.push(call);
        Ok(())
    }

    #[receive_and_reply]
    fn who(
        &mut self,
        _msg: WhoAreYou,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<RpcEndpointRef<Untyped>> {
        Ok(cx.self_ref().into_untyped())
    }

    #[receive_and_reply]
    async fn call_me(&mut self, msg: CallMe) -> HandlerResult<String> {
        let timeout = Duration::from_millis(msg.millis);
        let answer = msg.worker.ask_with_timeout(Echo { text: msg.text }, timeout).await;
        Ok(answer.unwrap_or_else(|error| {
            format!("{:?} {:?} {}", error.kind(), error.outcome(), error.text())
        }))
    }

    #[receive_and_reply]
    async fn flood(&mut self, msg: Flood) -> HandlerResult<Counted> {
        for number in 0..msg.count {
            msg.worker.send_wait(Push(number)).await?;
        }
        msg.worker.send(Journal { text: "j".repeat(msg.journal) })?;
        Ok(msg.worker.ask(Count).await?)
    }

    #[receive_and_reply]
    async fn restart(&mut self, msg: Restart, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        let env = cx.env()?;
        if let Some(old) = env.local_ref::<Self>(&msg.name) {
            env.stop(&old)?;
            env.stopped(&old).await?;
        }
        if msg.again {
            env.setup_endpoint(msg.name, Self::default()).await?;
        }
        Ok(())
    }

    #[receive]
    fn shut_down(&mut self, _msg: ShutDown, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        let env = cx.env()?;
        tokio::task::spawn_local(async move { env.shutdown().await });
        Ok(())
    }
}

async fn server() -> RpcEnv {
    let config = RpcEnvConfig::server("server", "127.0.0.1:0");
    let env = rpc_actix::create(config).await.unwrap();
    for name in ["master", "phoenix"] {
        env.setup_endpoint(name, Master::default()).await.unwrap();
    }
    env
}

// ---- Python

/// A child that hangs is ended, and the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

fn client() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("clients/python")
}

/// What a child wrote, and whether it succeeded. An error if it could not be started or did not
/// end in time.
fn run(command: &mut Command) -> Result<(bool, String), String> {
    let shown = format!("{command:?}");
    let spawned =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("{shown}: {error}"))?;
    let (ended, both) = mpsc::channel();
    let readers = [
        drain(child.stdout.take().unwrap(), ended.clone()),
        drain(child.stderr.take().unwrap(), ended),
    ];
    // Both pipes end when the child does.
    let in_time = readers.iter().all(|_| both.recv_timeout(PATIENCE).is_ok());
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait().unwrap();
    let output: String = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    if in_time {
        Ok((status.success(), output))
    } else {
        Err(format!("{shown} hung for {PATIENCE:?} and was killed; it had said:\n{output}"))
    }
}

fn drain(
    mut pipe: impl Read + Send + 'static,
    ended: mpsc::Sender<()>,
) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut output = Vec::new();
        let _ = pipe.read_to_end(&mut output);
        let _ = ended.send(());
        String::from_utf8_lossy(&output).into_owned()
    })
}

/// A Python that has msgpack, or why there is none.
fn python() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("arpc-venv");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let has_msgpack = || run(Command::new(&python).args(["-c", "import msgpack"]));
    if matches!(has_msgpack(), Ok((true, _))) {
        return Ok(python);
    }
    let step = |what: &str, command: &mut Command| match run(command) {
        Ok((true, _)) => Ok(()),
        Ok((false, output)) => Err(format!("{what} failed: {output}")),
        Err(error) => Err(format!("{what} failed: {error}")),
    };
    let old_enough = "import sys; sys.exit(sys.version_info < (3, 9))";
    step("looking for Python 3.9 or later", Command::new("python3").args(["-c", old_enough]))?;
    let mut venv = Command::new("python3");
    step("python3 -m venv", venv.args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
    step("pip install", pip.args(["--retries", "1", "--timeout", "20", "msgpack>=1,<2"]))?;
    Ok(python)
}

/// Runs a script of the client's tests. Each case is a line of its output.
fn script(python: &Path, name: &str, arguments: &[String]) {
    let mut command = Command::new(python);
    // Nothing is written into the source tree.
    command.arg("-B").arg(client().join("tests").join(name)).args(arguments);
    let (succeeded, output) = run(&mut command).unwrap_or_else(|error| panic!("{error}"));
    println!("{output}");
    assert!(succeeded, "{name} failed:\n{output}");
    assert!(output.lines().any(|line| line.starts_with("ok ")), "{name} ran no case:\n{output}");
}

#[test]
fn the_python_client() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => {
            return println!("skipped, because there is no Python with msgpack: {reason}");
        }
    };
    script(&python, "alone.py", &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let envs = runtime.block_on(async { [server().await, server().await] });
    let addresses = envs.each_ref().map(|env| env.address().unwrap().to_string());
    script(&python, "with_server.py", &addresses);
    runtime.block_on(async {
        for env in envs {
            env.shutdown().await;
        }
    });
}
