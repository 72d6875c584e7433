//! The actor around an endpoint.

use actix::fut::ActorFutureExt;
use actix::{Actor, ActorContext, AsyncContext, Context, fut};
use rpc_core::spi::{EndpointTask, LocalBoxFuture};

/// Hosts one endpoint: its life is the endpoint's life.
///
/// The endpoint's loop is one future of the actor, which drains the endpoint's own bounded inbox;
/// the mailbox, which has no bound that holds, carries nothing. `docs/BENCHMARKS.md` has what the
/// other shape, batches as actix messages, costs.
pub(crate) struct EndpointActor {
    run: Option<LocalBoxFuture<()>>,
}

impl EndpointActor {
    /// Starts the endpoint on this thread.
    pub(crate) fn start(task: EndpointTask) {
        let run = task.start();
        #[cfg(feature = "sim")]
        let run = crate::rt::simulated::guarded(run);
        Actor::start(Self { run: Some(run) });
    }
}

impl Actor for EndpointActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(run) = self.run.take() {
            // `stop` freezes the actor's futures, so it comes only when the loop has ended.
            ctx.spawn(fut::wrap_future(run).map(|(), _, ctx: &mut Self::Context| ctx.stop()));
        }
    }
}
