//! Handlers that wait for many asks at once, each with a waker of its own as in a `join_all` or a
//! `FuturesUnordered`: what is kept for them is as many as wait, and is found without a search.
#![cfg(test)]

use rpc_core::{
    AskFuture, ErrorKind, HandlerResult, RpcCallContext, RpcEndpointRef, RpcError, RpcMessage,
    endpoint,
};
use rpc_tests::both;
use rpc_tests::harness::{Harness, Log, Pair, WATCHDOG};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// An ask: answered when so many of them wait.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Together(usize);

#[derive(Default)]
struct Leaf(Vec<RpcCallContext<()>>);

#[endpoint]
impl Leaf {
    #[receive_and_reply]
    fn together(&mut self, msg: Together, call: RpcCallContext<()>) -> HandlerResult<()> {
        self.0.push(call);
        if self.0.len() == msg.0 {
            self.0.drain(..).for_each(|call| call.reply(()));
        }
        Ok(())
    }
}

/// An ask: the handler asks the leaf in so many rounds, so many times at once in each. The answer is how
/// often an ask was polled, and how many wakers are kept of asks that have ended.
#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = (usize, usize))]
struct Fan {
    to: RpcEndpointRef<Leaf>,
    rounds: usize,
    at_once: usize,
    /// What the leaf waits for.
    together: usize,
}

/// The same for a call that is answered later.
#[derive(Clone, Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = (usize, usize))]
struct FanLater(Fan);

#[derive(Clone, Default)]
struct Root {
    /// An entry for each round whose asks all wait.
    waits: Log<()>,
    /// How many asks of each round have ended, and the first error.
    ended: Log<(usize, Option<ErrorKind>)>,
}

#[endpoint]
impl Root {
    #[receive_and_reply]
    async fn fan(&mut self, msg: Fan) -> HandlerResult<(usize, usize)> {
        Ok(self.out(&msg).await)
    }

    #[receive_and_reply]
    async fn fan_later(
        &mut self,
        msg: FanLater,
        call: RpcCallContext<(usize, usize)>,
    ) -> HandlerResult<()> {
        call.reply(self.out(&msg.0).await);
        Ok(())
    }
}

impl Root {
    async fn out(&self, msg: &Fan) -> (usize, usize) {
        let (mut polls, mut kept) = (0, Vec::new());
        for _ in 0..msg.rounds {
            let asks = (0..msg.at_once).map(|_| msg.to.ask(Together(msg.together)));
            let mut round = Round::new(asks.collect());
            let mut first = true;
            let poll = |cx: &mut Context<'_>| {
                let polled = round.poll(cx);
                if std::mem::take(&mut first) {
                    self.waits.push(());
                }
                polled
            };
            std::future::poll_fn(poll).await;
            polls += round.polls;
            let first = round.ends.iter().find_map(|end| end.as_ref().err());
            self.ended.push((round.ends.len(), first.map(RpcError::kind)));
            kept.extend(round.parts.into_iter().map(|part| part.1));
        }
        (polls, kept.iter().filter(|part| Arc::strong_count(part) > 1).count())
    }
}

/// What a `FuturesUnordered` is, with everything open to be counted.
struct Round {
    parts: Vec<(Option<AskFuture<()>>, Arc<Part>)>,
    ends: Vec<Result<(), RpcError>>,
    woken: Arc<Woken>,
    polls: usize,
}

#[derive(Default)]
struct Woken(Mutex<(VecDeque<usize>, Option<Waker>)>);

struct Part {
    number: usize,
    woken: Arc<Woken>,
}

impl Wake for Part {
    fn wake(self: Arc<Self>) {
        let mut woken = self.woken.0.lock().unwrap();
        woken.0.push_back(self.number);
        let task = woken.1.take();
        drop(woken);
        task.into_iter().for_each(Waker::wake);
    }
}

impl Round {
    fn new(asks: Vec<AskFuture<()>>) -> Self {
        let woken = Arc::<Woken>::default();
        woken.0.lock().unwrap().0.extend(0..asks.len());
        let part = |(number, ask)| (Some(ask), Arc::new(Part { number, woken: woken.clone() }));
        let parts = asks.into_iter().enumerate().map(part).collect();
        Self { parts, ends: Vec::new(), woken, polls: 0 }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        loop {
            let mut woken = self.woken.0.lock().unwrap();
            let Some(number) = woken.0.pop_front() else {
                woken.1 = Some(cx.waker().clone());
                let all = self.ends.len() == self.parts.len();
                return if all { Poll::Ready(()) } else { Poll::Pending };
            };
            drop(woken);
            let (ask, part) = &mut self.parts[number];
            let Some(future) = ask else { continue };
            self.polls += 1;
            let waker = Waker::from(part.clone());
            if let Poll::Ready(end) = Pin::new(future).poll(&mut Context::from_waker(&waker)) {
                *ask = None;
                self.ends.push(end);
            }
        }
    }
}

struct Both {
    leaf: RpcEndpointRef<Leaf>,
    /// For a caller of the same env, and of another one.
    roots: [RpcEndpointRef<Root>; 2],
    seen: Root,
    _pair: Pair,
}

impl Both {
    async fn of(h: &Harness) -> anyhow::Result<Self> {
        let pair = h.pair().await?;
        let leaf = pair.server.setup_endpoint("leaf", Leaf::default()).await?;
        let seen = Root::default();
        let root = pair.server.setup_endpoint("root", seen.clone()).await?;
        let far = pair.from_client(&root).await?;
        Ok(Self { leaf, roots: [root, far], seen, _pair: pair })
    }

    /// Asks each root in both ways.
    fn asks(
        &self,
        (rounds, at_once, together): (usize, usize, usize),
    ) -> impl Iterator<Item = AskFuture<(usize, usize)>> {
        let fan = Fan { to: self.leaf.clone(), rounds, at_once, together };
        let both = move |root: &RpcEndpointRef<Root>| {
            let (now, later) = (fan.clone(), FanLater(fan.clone()));
            [root.ask_with_timeout(now, WATCHDOG), root.ask_with_timeout(later, WATCHDOG)]
        };
        self.roots.iter().flat_map(both)
    }
}

async fn an_ask_takes_back_what_is_kept_for_it(h: &Harness) -> anyhow::Result<()> {
    let both = Both::of(h).await?;
    let many = 20_000;
    for ask in both.asks((1, many, many)) {
        let (polls, kept) = ask.await?;
        assert!(kept <= 1, "{kept} wakers are kept of asks that have ended");
        assert!(polls <= 3 * many, "{polls} polls");
    }
    assert_eq!(both.seen.ended.all(), [(many, None); 4]);
    Ok(())
}

async fn a_long_handler_keeps_no_more_than_it_waits_for(h: &Harness) -> anyhow::Result<()> {
    let both = Both::of(h).await?;
    for ask in both.asks((200, 10, 10)) {
        let (_, kept) = ask.await?;
        assert!(kept <= 1, "{kept} wakers are kept of asks that have ended");
    }
    assert_eq!(both.seen.ended.all(), vec![(10, None); 800]);
    Ok(())
}

async fn all_of_them_hear_that_the_caller_has_given_up(h: &Harness) -> anyhow::Result<()> {
    let both = Both::of(h).await?;
    for (number, mut ask) in both.asks((1, 1_000, usize::MAX)).enumerate() {
        // Nobody answers.
        assert!(poll_once(&mut ask).await.is_pending());
        both.seen.waits.reaches(number + 1).await;
        drop(ask);
        let ends = both.seen.ended.reaches(number + 1).await;
        assert_eq!(ends[number], (1_000, Some(ErrorKind::Cancelled)));
    }
    Ok(())
}

async fn poll_once<R>(ask: &mut AskFuture<R>) -> Poll<Result<R, RpcError>> {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *ask).poll(cx))).await
}

both! {
    an_ask_takes_back_what_is_kept_for_it,
    a_long_handler_keeps_no_more_than_it_waits_for,
    all_of_them_hear_that_the_caller_has_given_up,
}
