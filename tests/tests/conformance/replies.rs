//! Replies: S86-S92.

use anyhow::anyhow;
use rpc_core::{
    ErrorKind, HandlerResult, RpcCallContext, RpcEndpointRef, RpcError, RpcMessage, endpoint,
};
use rpc_tests::harness::{Echo, Harness, Hold, Log, Parking, Probe};
use serde::{Deserialize, Serialize, Serializer};
use std::thread;

async fn s86_a_call_is_answered_later_in_any_order(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        let asks: Vec<_> = (0..5).map(|number| endpoint.ask(Hold(number))).collect();
        let mut calls = Vec::new();
        for _ in 0..5 {
            calls.push(watch.held.next().await);
        }
        assert_eq!(endpoint.ask(Echo::of("meanwhile")).await?, "meanwhile");
        for (number, call) in calls.into_iter().enumerate().rev() {
            call.reply(100 + number as u64);
        }
        for (number, ask) in asks.into_iter().enumerate() {
            assert_eq!(ask.await?, 100 + number as u64);
        }
    }
    Ok(())
}

async fn s86_a_call_is_answered_from_another_thread_and_names_its_sender(
    h: &Harness,
) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, _]) = pair.probe_both_ways("p").await?;
    let peer = h.server("peer").await?;
    let remote = peer.endpoint_ref::<Probe>(&local.to_string()).await?;
    for (endpoint, sender) in [(local, pair.server.address()), (remote, peer.address())] {
        let ask = endpoint.ask(Hold(1));
        let call = watch.held.next().await;
        assert_eq!(call.sender().as_ref(), sender);
        let answering = thread::spawn(move || call.reply(9));
        assert_eq!(ask.await?, 9);
        answering.join().expect("no panic");
    }
    Ok(())
}

async fn s87_send_failure_keeps_its_text(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        let ask = endpoint.ask(Hold(1));
        watch.held.next().await.fail(anyhow!("the cause").context("my own words"));
        let error = ask.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HandlerFailed);
        assert_eq!(error.text(), "my own words: the cause");
        assert!(error.is_remote() && !error.is_never_sent());
    }
    Ok(())
}

/// A reply that cannot be written.
#[derive(Debug, Deserialize)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("this stays here"))
    }
}

/// An ask: answered with what cannot be written.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Unwritable)]
struct Now;

/// The same, through the call context.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = Unwritable)]
struct Later;

/// An ask: answered, and then the handler fails.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
struct Twice;

/// An ask: the call context is dropped in the handler, which then ends in this way.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = u64)]
enum Drop {
    Fine,
    Fails,
    Panics,
}

/// Answers badly.
struct Bad(Log, Parking<RpcCallContext<Unwritable>>);

#[endpoint]
impl Bad {
    #[receive_and_reply]
    fn now(&mut self, _msg: Now) -> HandlerResult<Unwritable> {
        Ok(Unwritable)
    }

    #[receive_and_reply]
    fn later(&mut self, _msg: Later, call: RpcCallContext<Unwritable>) -> HandlerResult<()> {
        self.1.leave(call);
        Ok(())
    }

    #[receive_and_reply]
    fn twice(&mut self, _msg: Twice, call: RpcCallContext<u64>) -> HandlerResult<()> {
        call.reply(1);
        Err(anyhow!("after the reply").into())
    }

    #[receive_and_reply]
    fn dropped(&mut self, msg: Drop, call: RpcCallContext<u64>) -> HandlerResult<()> {
        drop(call);
        match msg {
            Drop::Fine => Ok(()),
            Drop::Fails => Err(anyhow!("the reason").into()),
            Drop::Panics => panic!("the panic"),
        }
    }

    #[on_error]
    fn failed(&mut self, error: RpcError) -> HandlerResult<()> {
        self.0.push(error.to_string());
        Ok(())
    }
}

async fn s88_a_reply_that_cannot_be_written_is_an_error_at_once(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let parked = Parking::default();
    let local = pair.server.setup_endpoint("bad", Bad(Log::default(), parked.clone())).await?;
    let remote: RpcEndpointRef<Bad> = pair.from_client(&local).await?;
    let later = remote.ask(Later);
    parked.next().await.reply(Unwritable);
    for error in [remote.ask(Now).await.unwrap_err(), later.await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Encode);
        assert!(error.text().contains("this stays here"), "{error}");
        assert!(!error.is_never_sent(), "the handler has run");
    }
    // Within one env nothing is written.
    local.ask(Now).await?;
    Ok(())
}

async fn s89_a_call_that_is_dropped_ends_at_once(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        // After its handler: Spark's caller would wait for the timeout.
        let ask = endpoint.ask(Hold(1));
        drop(watch.held.next().await);
        let error = ask.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoReply);
        assert!(error.is_remote(), "{error:?}");
    }
    // Inside of its handler the handler's end decides.
    let local = pair.server.setup_endpoint("bad", Bad(Log::default(), Parking::default())).await?;
    for endpoint in [pair.from_client(&local).await?, local] {
        let kind = async |msg| endpoint.ask(msg).await.unwrap_err().kind();
        assert_eq!(kind(Drop::Fine).await, ErrorKind::NoReply);
        assert_eq!(kind(Drop::Fails).await, ErrorKind::HandlerFailed);
        assert_eq!(kind(Drop::Panics).await, ErrorKind::HandlerPanicked);
    }
    Ok(())
}

async fn s89_a_handler_that_never_replies_ends_in_the_timeout(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        let (call, error) = watch.outlived(&endpoint, 1).await?;
        assert!(error.text().contains("Cannot receive any reply"), "{error}");
        drop(call);
    }
    Ok(())
}

async fn s90_the_first_answer_counts(h: &Harness) -> anyhow::Result<()> {
    // A second reply cannot be written: `reply` takes the call context. What can still come after
    // it is the handler's own error, which then goes to on_error alone.
    let pair = h.pair().await?;
    let log = Log::default();
    let local = pair.server.setup_endpoint("bad", Bad(log.clone(), Parking::default())).await?;
    for (count, endpoint) in [(1, pair.from_client(&local).await?), (2, local)] {
        assert_eq!(endpoint.ask(Twice).await?, 1);
        assert_eq!(log.reaches(count).await.last().map(String::as_str), Some("after the reply"));
    }
    Ok(())
}

async fn s91_a_late_reply_goes_nowhere(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    for endpoint in refs {
        let (call, _) = watch.outlived(&endpoint, 1).await?;
        call.cancelled().await;
        let next = endpoint.ask(Hold(2));
        let next_call = watch.held.next().await;
        call.reply(13);
        assert_eq!(endpoint.ask(Echo::of("not 13")).await?, "not 13");
        next_call.reply(2);
        assert_eq!(next.await?, 2, "an answer never reaches another call");
    }
    Ok(())
}

rpc_tests::both! {
    s86_a_call_is_answered_later_in_any_order,
    s87_send_failure_keeps_its_text,
    s88_a_reply_that_cannot_be_written_is_an_error_at_once,
    s89_a_call_that_is_dropped_ends_at_once,
    s89_a_handler_that_never_replies_ends_in_the_timeout,
    s90_the_first_answer_counts,
    s91_a_late_reply_goes_nowhere,
}

rpc_tests::actix_only! {
    s86_a_call_is_answered_from_another_thread_and_names_its_sender,
}
