//! An endpoint that does what its messages say, and writes down what happens to it.

use super::sync::{Gate, Log, Parking};
use anyhow::anyhow;
use rpc_core::{
    EndpointContext, EndpointOptions, ErrorKind, HandlerResult, RpcCallContext, RpcEndpointRef,
    RpcEnv, RpcError, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};

/// One way: is logged as `note N`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
pub struct Note(pub u64);

/// One way: fails with that text.
#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
pub struct NoteFail(pub String);

/// One way: panics.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
pub struct NoteBoom;

/// One way: the endpoint stops itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
pub struct Quit;

/// An ask: is answered with its own text.
#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
pub struct Echo(pub String);

impl Echo {
    /// An echo of that text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// An ask: fails with that text, caused by "the cause".
#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
pub struct Fail(pub String);

/// An ask: panics.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
pub struct Boom;

/// An ask: its call is parked at the [`ProbeWatch`]; the endpoint goes on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
pub struct Hold(pub u64);

/// An ask: waits for the gate inside its handler, so that the endpoint is held.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
pub struct Wait(pub u64);

/// An ask: the sender's address, as the handler sees it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Option<String>)]
pub struct Who;

/// An ask: the endpoint's ref to itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = RpcEndpointRef<Probe>)]
pub struct Me;

/// An ask: the endpoint asks `to` for an [`Echo`] and answers with what it got.
#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
pub struct Relay {
    /// Whom to ask.
    pub to: RpcEndpointRef<Probe>,
    /// What to ask.
    pub text: String,
}

/// Which of the hooks fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Script {
    /// None.
    #[default]
    Fine,
    /// `on_start` returns an error.
    StartFails,
    /// `on_start` panics.
    StartPanics,
    /// `on_start` waits for the gate.
    StartWaits,
    /// `on_stop` returns an error.
    StopFails,
    /// `on_error` returns an error.
    ErrorFails,
    /// `on_error` panics.
    ErrorPanics,
}

/// The test's side of a probe.
#[derive(Clone, Debug, Default)]
pub struct ProbeWatch {
    /// What has happened: `start`, `note 1`, `echo hi`, `error ..`, `stop`, ...
    pub log: Log,
    /// What [`Wait`] waits for.
    pub gate: Gate,
    /// The calls of [`Hold`].
    pub held: Parking<RpcCallContext<u64>>,
}

impl ProbeWatch {
    /// A call that its handler parked and whose caller has seen it time out after that. On a busy
    /// machine a short time may be over before the handler has begun; then another is made, with
    /// the next number.
    ///
    /// # Errors
    /// When a [`Hold`] ends otherwise than by its timeout.
    pub async fn outlived(
        &self,
        endpoint: &RpcEndpointRef<Probe>,
        first: u64,
    ) -> Result<(RpcCallContext<u64>, RpcError), RpcError> {
        let mut number = first;
        loop {
            let time = std::time::Duration::from_millis(20);
            let error = match endpoint.ask_with_timeout(Hold(number), time).await {
                Err(error) if error.is_timeout() => error,
                Err(other) => return Err(other),
                Ok(_) => return Err(RpcError::new(ErrorKind::Internal, "a hold was answered")),
            };
            if let Some(call) = self.held.try_next() {
                return Ok((call, error));
            }
            number = number.saturating_add(1);
        }
    }
}

/// The endpoint.
#[derive(Debug)]
pub struct Probe {
    watch: ProbeWatch,
    script: Script,
    /// How many handlers run now; more than one must never be seen.
    running: u32,
}

impl Probe {
    /// A probe that this watches.
    #[must_use]
    pub fn new(watch: &ProbeWatch) -> Self {
        Self::with(watch, Script::Fine)
    }

    /// The same, with hooks that fail.
    #[must_use]
    pub fn with(watch: &ProbeWatch, script: Script) -> Self {
        Self { watch: watch.clone(), script, running: 0 }
    }

    /// Registers a probe.
    ///
    /// # Errors
    /// As [`RpcEnv::setup_endpoint`].
    pub async fn at(
        env: &RpcEnv,
        options: impl Into<EndpointOptions>,
    ) -> Result<(ProbeWatch, RpcEndpointRef<Self>), RpcError> {
        let watch = ProbeWatch::default();
        let endpoint = env.setup_endpoint(options, Self::new(&watch)).await?;
        Ok((watch, endpoint))
    }

    fn enter(&mut self, what: String) {
        self.running = self.running.saturating_add(1);
        if self.running > 1 {
            self.watch.log.push("two at a time");
        }
        self.watch.log.push(what);
    }

    fn leave(&mut self) {
        self.running = self.running.saturating_sub(1);
    }
}

#[endpoint]
impl Probe {
    #[on_start]
    #[expect(clippy::panic, reason = "the script says so")]
    async fn started(&mut self) -> HandlerResult<()> {
        self.watch.log.push("start");
        match self.script {
            Script::StartFails => Err(anyhow!("no start").into()),
            Script::StartPanics => panic!("boom at start"),
            Script::StartWaits => {
                self.watch.gate.wait().await;
                self.watch.log.push("started");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    #[on_stop]
    fn stopped(&mut self) -> HandlerResult<()> {
        self.watch.log.push("stop");
        if self.script == Script::StopFails {
            return Err(anyhow!("no stop").into());
        }
        Ok(())
    }

    #[on_error]
    #[expect(clippy::panic, reason = "the script says so")]
    fn failed(&mut self, error: RpcError) -> HandlerResult<()> {
        self.watch.log.push(format!("error {:?}: {error}", error.kind()));
        self.leave();
        match self.script {
            Script::ErrorFails => Err(anyhow!("the hook fails, too").into()),
            Script::ErrorPanics => panic!("the hook panics"),
            _ => Ok(()),
        }
    }

    #[receive]
    fn note(&mut self, msg: Note) -> HandlerResult<()> {
        self.enter(format!("note {}", msg.0));
        self.leave();
        Ok(())
    }

    #[receive]
    fn note_fail(&mut self, msg: NoteFail) -> HandlerResult<()> {
        self.enter(format!("note-fail {}", msg.0));
        Err(anyhow!(msg.0).into())
    }

    #[receive]
    #[expect(clippy::panic, reason = "the message says so")]
    fn note_boom(&mut self, _msg: NoteBoom) -> HandlerResult<()> {
        self.enter("note-boom".to_owned());
        panic!("boom, one way");
    }

    #[receive]
    fn quit(&mut self, _msg: Quit, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        self.watch.log.push("quit");
        cx.stop();
        Ok(())
    }

    #[receive_and_reply]
    fn echo(&mut self, msg: Echo) -> HandlerResult<String> {
        self.enter(format!("echo {}", msg.0));
        self.leave();
        Ok(msg.0)
    }

    #[receive_and_reply]
    fn fail(&mut self, msg: Fail) -> HandlerResult<()> {
        self.enter(format!("fail {}", msg.0));
        Err(anyhow!("the cause").context(msg.0).into())
    }

    #[receive_and_reply]
    #[expect(clippy::panic, reason = "the message says so")]
    fn boom(&mut self, _msg: Boom) -> HandlerResult<()> {
        self.enter("boom".to_owned());
        panic!("boom, with an answer");
    }

    #[receive_and_reply]
    fn hold(&mut self, msg: Hold, call: RpcCallContext<u64>) -> HandlerResult<()> {
        self.watch.log.push(format!("hold {}", msg.0));
        self.watch.held.leave(call);
        Ok(())
    }

    #[receive_and_reply]
    async fn wait(&mut self, msg: Wait) -> HandlerResult<u64> {
        self.enter(format!("wait {}", msg.0));
        self.watch.gate.wait().await;
        self.watch.log.push(format!("waited {}", msg.0));
        self.leave();
        Ok(msg.0)
    }

    #[receive_and_reply]
    fn who(&mut self, _msg: Who, cx: &mut EndpointContext<Self>) -> HandlerResult<Option<String>> {
        Ok(cx.sender().map(|address| address.to_string()))
    }

    #[receive_and_reply]
    fn me(
        &mut self,
        _msg: Me,
        cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<RpcEndpointRef<Self>> {
        Ok(cx.self_ref())
    }

    #[receive_and_reply]
    async fn relay(&mut self, msg: Relay) -> HandlerResult<String> {
        Ok(msg.to.ask(Echo(msg.text)).await?)
    }
}
