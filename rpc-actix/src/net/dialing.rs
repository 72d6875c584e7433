//! Connections that this env makes.

use super::handshake::{Greeted, NotTaken, introduce};
use super::link::{Busy, Link, env_stopped, nobody_to_dial};
use super::node::{Node, require_loopback};
use super::transport::{ByteStream, Socket, Transport};
use crate::rt::{self, Clock};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rpc_core::spi::Count;
use rpc_core::{ErrorKind, Outcome, RpcAddress, RpcError};
use std::io;
use std::sync::Arc;
use std::time::Duration;

impl Node {
    /// Connects a link that wants it, on an arbiter.
    pub(crate) fn dial(self: &Arc<Self>, busy: Busy) {
        let node = self.clone();
        // Dropped with the job if the thread is gone: then nothing waits for the link.
        let started = self.host.pick().run(move || {
            let tasks = node.tasks.clone();
            rt::spawn(tasks.track_future(async move { node.dial_here(busy).await }));
        });
        if let Err(error) = started {
            tracing::debug!(%error, "could not dial");
        }
    }

    async fn dial_here(self: Arc<Self>, mut busy: Busy) {
        let link = busy.link().clone();
        let closed = self.closed.clone();
        let connected = tokio::select! {
            biased;
            // Both may be dropped: a half-made connection is closed, and nothing was sent.
            connected = self.connect(&busy) => connected,
            () = closed.cancelled() => Err(NotTaken::Failed(env_stopped())),
        };
        match connected {
            Ok((stream, greeted, sender)) => {
                self.clone().run(busy, stream, greeted, sender).await;
            }
            Err(NotTaken::Declined) if busy.declined() < MOST_DECLINES => {
                tracing::debug!(peer = ?link.address(), "both sides have dialled; the peer's dial counts");
                drop(busy);
            }
            Err(end) => {
                let error = match end {
                    NotTaken::Declined => declined(link.address()),
                    NotTaken::Failed(error) => error,
                };
                let error = error.with_outcome(Outcome::NeverSent);
                let ended = busy.failed(&error, |session| session.fail_queued(&error));
                tracing::debug!(peer = ?link.address(), ended, %error, "could not connect");
                drop(busy);
            }
        }
        self.dial_if_wanted(&link);
        // Whoever tries again finds this link, and waits for its time, even if nobody kept a ref.
        let (next, closed) = (link.not_before(), self.closed.clone());
        tokio::select! {
            biased;
            () = self.clock.sleep_until(next) => {}
            () = closed.cancelled() => {}
        }
    }

    /// What has not been sent goes out over the next connection.
    pub(super) fn dial_if_wanted(self: &Arc<Self>, link: &Arc<Link>) {
        let dial = |busy| {
            if !self.is_closed() {
                self.dial(busy);
            }
        };
        // An env that is closing dials nobody.
        let _ = link.with_dial(false, dial, |_| Ok(()));
    }

    async fn connect(
        &self,
        busy: &Busy,
    ) -> Result<(Box<dyn ByteStream>, Greeted, RpcAddress), NotTaken> {
        let link = busy.link();
        let Some(address) = link.address() else {
            return Err(NotTaken::Failed(nobody_to_dial()));
        };
        // A peer may have named it in its hello.
        require_loopback(address, "dial")?;
        self.clock.sleep_until(link.not_before()).await;
        if let Some(text) = self.behind() {
            return Err(NotTaken::Failed(RpcError::new(ErrorKind::Overloaded, text)));
        }
        if !busy.dials() {
            // The peer was faster.
            return Err(NotTaken::Declined);
        }
        let timeout = self.config.connect_timeout();
        let failed = |cause: String| {
            self.tally.count(Count::DialsFailed);
            RpcError::new(
                ErrorKind::Unreachable,
                format!("Failed to connect to {address}: {cause}"),
            )
        };
        let dial = first_to_connect(self.clock, &*self.transport, address);
        let socket = self
            .clock
            .within(timeout.duration(), dial)
            .await
            .ok_or_else(|| failed(format!("timed out after {timeout}")))?
            .map_err(|error| failed(error.to_string()).with_source(error))?;
        let mut stream = socket.open().map_err(|error| failed(error.to_string()))?;
        self.tally.count(Count::ConnectionsDialed);
        let greeted = introduce(self, &mut stream, &address.to_string(), busy.follows()).await?;
        Ok((stream, greeted, address.clone()))
    }
}

/// Tries again and again, beside the tries that are under way: a system that hears nothing repeats
/// itself more and more rarely, and would sleep for seconds when the network has healed.
async fn first_to_connect(
    clock: Clock,
    transport: &dyn Transport,
    address: &RpcAddress,
) -> io::Result<Box<dyn Socket>> {
    let mut tries = FuturesUnordered::new();
    loop {
        tries.push(transport.connect(address));
        let more = tries.len() < MOST_TRIES;
        tokio::select! {
            biased;
            // Dropped, a try that is under way goes on in the set.
            Some(first) = tries.next() => return first,
            () = clock.sleep(BETWEEN_TRIES), if more => {}
        }
    }
}

/// What an answer may take before the next try is made beside, and how many there may be.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
const MOST_TRIES: usize = 8;

/// Dials in a row that may give way to the peer's, whose own dial then does not come.
const MOST_DECLINES: u32 = 8;

fn declined(address: Option<&RpcAddress>) -> RpcError {
    let at = address.map(|address| format!(" to {address}")).unwrap_or_default();
    let text =
        format!("Failed to connect{at}: the peer says that it dials as well, but no dial comes");
    RpcError::new(ErrorKind::Unreachable, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::transport::Listener;
    use rpc_core::spi::BoxFuture;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Answers the third try only, with an error that says which it is.
    #[derive(Default)]
    struct Deaf(AtomicUsize);

    impl Transport for Deaf {
        fn bind(&self, _: &RpcAddress) -> io::Result<Box<dyn Listener>> {
            Err(io::Error::other("nobody listens"))
        }

        fn connect(&self, _: &RpcAddress) -> BoxFuture<io::Result<Box<dyn Socket>>> {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                if number != 2 {
                    std::future::pending::<()>().await;
                }
                Err(io::Error::other("the third"))
            })
        }
    }

    fn paused<F: Future>(future: impl FnOnce(Clock) -> F) -> F::Output {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async { future(Clock::start()).await })
    }

    #[test]
    fn what_is_not_answered_is_tried_again_a_few_times_at_once() {
        let (transport, address) = (Deaf::default(), "127.0.0.1:7077".parse().unwrap());
        let first = paused(|clock| first_to_connect(clock, &transport, &address));
        assert_eq!(first.err().map(|error| error.to_string()).as_deref(), Some("the third"));
        assert_eq!(transport.0.load(Ordering::Relaxed), 3);
        let transport = Deaf(AtomicUsize::new(3));
        let limit = Duration::from_secs(100);
        let dial =
            |clock: Clock| clock.within(limit, first_to_connect(clock, &transport, &address));
        assert!(paused(dial).is_none());
        assert_eq!(transport.0.load(Ordering::Relaxed), 3 + MOST_TRIES);
    }
}
