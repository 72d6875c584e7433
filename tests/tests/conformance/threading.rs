//! Who runs when, and where: S56-S67.

use rpc_core::{EndpointContext, EndpointOptions, ErrorKind, HandlerResult, RpcMessage, endpoint};
use rpc_tests::harness::{
    Boom, Echo, Gate, Harness, Hold, Log, Note, NoteBoom, Probe, ProbeWatch, Script, Wait, block_on,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

async fn s56_s57_s58_one_message_at_a_time_across_awaits(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    let first = remote.ask(Wait(1));
    watch.log.reaches(2).await;
    // Spark would run these beside it; here they wait, also while a stop is pending.
    let second = local.ask(Wait(2));
    let third = local.ask(Echo::of("3"));
    pair.server.stop(&local)?;
    assert_eq!(watch.log.all(), ["start", "wait 1"]);
    watch.gate.open();
    let (first, second, third) = tokio::join!(first, second, third);
    assert_eq!((first?, second?, third?.as_str()), (1, 2, "3"));
    pair.server.stopped(&local).await?;
    assert_eq!(
        watch.log.all(),
        ["start", "wait 1", "waited 1", "wait 2", "waited 2", "echo 3", "stop"]
    );
    Ok(())
}

async fn s56_long_work_replies_later_without_holding_the_endpoint(
    h: &Harness,
) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    let slow = [remote.ask(Hold(1)), local.ask(Hold(2))];
    watch.log.reaches(3).await;
    assert_eq!(local.ask(Echo::of("meanwhile")).await?, "meanwhile");
    for _ in 0..2 {
        watch.held.next().await.reply(7);
    }
    for call in slow {
        assert_eq!(call.await?, 7);
    }
    Ok(())
}

/// Counts without a lock.
struct Counter {
    seen: Vec<u64>,
    done: Log<Vec<u64>>,
}

#[endpoint]
impl Counter {
    #[receive]
    async fn note(&mut self, msg: Note) -> HandlerResult<()> {
        let before = self.seen.len();
        std::future::ready(()).await;
        self.seen.push(msg.0);
        assert_eq!(self.seen.len(), before + 1);
        if self.seen.len() == 1000 {
            self.done.push(std::mem::take(&mut self.seen));
        }
        Ok(())
    }
}

async fn s57_ten_threads_do_not_need_a_lock(h: &Harness) -> anyhow::Result<()> {
    let env = h.client("m").await?;
    let done = Log::default();
    let mut senders = Vec::new();
    for number in 0..10 {
        let counter = Counter { seen: Vec::new(), done: done.clone() };
        let endpoint = env.setup_endpoint(format!("counter-{number}"), counter).await?;
        for thread in 0..10 {
            let endpoint = endpoint.clone();
            senders.push(thread::spawn(move || {
                (0..100).for_each(|step| endpoint.send(Note(thread * 100 + step)).unwrap());
            }));
        }
    }
    for sender in senders {
        sender.join().expect("no sender fails");
    }
    for mut seen in done.reaches(10).await {
        // In the order of each sender, and nothing lost.
        for thread in 0..10 {
            let own: Vec<_> = seen.iter().filter(|number| **number / 100 == thread).collect();
            assert!(own.is_sorted());
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    }
    Ok(())
}

/// An ask: which thread the endpoint is on.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct Where;

/// An ask: the thread is blocked until the test says so.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Block;

/// Says where it is, and blocks.
struct Thread {
    entered: Gate,
    release: Receiver<()>,
}

impl Thread {
    fn new() -> (Self, Gate, Sender<()>) {
        let (sender, release) = channel();
        let entered = Gate::default();
        (Self { entered: entered.clone(), release }, entered, sender)
    }
}

#[endpoint]
impl Thread {
    #[receive_and_reply]
    fn which(&mut self, _msg: Where) -> HandlerResult<String> {
        Ok(format!("{:?}", thread::current().id()))
    }

    #[receive_and_reply]
    fn block(&mut self, _msg: Block) -> HandlerResult<()> {
        self.entered.open();
        Ok(self.release.recv()?)
    }
}

async fn threads_of(
    env: &rpc_core::RpcEnv,
    prefix: &str,
    isolated: bool,
) -> anyhow::Result<BTreeSet<String>> {
    let mut threads = BTreeSet::new();
    for number in 0..6 {
        let options = EndpointOptions::new(format!("{prefix}-{number}"));
        let options = if isolated { options.isolated() } else { options };
        let endpoint = env.setup_endpoint(options, Thread::new().0).await?;
        threads.insert(endpoint.ask(Where).await?);
        assert_eq!(threads.len(), {
            threads.insert(endpoint.ask(Where).await?);
            threads.len()
        });
    }
    Ok(threads)
}

async fn s59_s60_s62_s63_shared_arbiters_and_arbiters_of_ones_own(
    h: &Harness,
) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    assert_eq!(threads_of(&env, "shared", false).await?.len(), 1, "one arbiter by default");
    assert_eq!(threads_of(&env, "isolated", true).await?.len(), 6, "one thread each");
    let config = h.server_config("many").set("rpc.actix.arbiters", "3")?;
    let many = h.create(config).await?;
    assert_eq!(threads_of(&many, "shared", false).await?.len(), 3);
    Ok(())
}

async fn s61_a_blocked_isolated_endpoint_blocks_nobody_else(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (thread, entered, release) = Thread::new();
    let options = EndpointOptions::new("isolated").isolated();
    let isolated = pair.server.setup_endpoint(options, thread).await?;
    let (_, [local, remote]) = pair.probe_both_ways("p").await?;
    let blocked = isolated.ask(Block);
    entered.wait().await;
    assert_eq!(local.ask(Echo::of("a")).await? + &remote.ask(Echo::of("b")).await?, "ab");
    release.send(())?;
    blocked.await?;
    Ok(())
}

async fn s64_s65_a_panic_costs_one_call(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    let (_, other) = pair.probe("other").await?;
    for endpoint in refs {
        watch.log.take().clear();
        endpoint.send(NoteBoom)?;
        let error = endpoint.ask(Boom).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HandlerPanicked);
        let text = format!("a handler panicked: boom, with an answer (Boom at {endpoint})");
        assert_eq!(error.text(), text);
        assert!(error.is_remote());
        let one_way = format!("a handler panicked: boom, one way (NoteBoom at {endpoint})");
        let errors = [&one_way, &text].map(|text| format!("error HandlerPanicked: {text}"));
        let expected = ["note-boom", &errors[0], "boom", &errors[1]];
        assert_eq!(watch.log.reaches(4).await, expected);
        assert_eq!(endpoint.ask(Echo::of("alive")).await?, "alive");
        assert_eq!(other.ask(Echo::of("alive, too")).await?, "alive, too");
    }
    Ok(())
}

async fn s66_an_inbox_is_bounded_and_first_in_first_out(h: &Harness) -> anyhow::Result<()> {
    let config = h.server_config("m").set("rpc.inbox.maxMessages", "10")?;
    let env = h.create(config).await?;
    let (watch, endpoint) = Probe::at(&env, "p").await?;
    let held = endpoint.ask(Wait(0));
    watch.log.reaches(2).await;
    for number in 1..=10 {
        endpoint.send(Note(number))?;
    }
    let error = endpoint.send(Note(11)).unwrap_err();
    assert!(error.is_overloaded() && error.is_never_sent(), "{error:?}");
    assert!(error.text().contains("rpc.inbox.maxMessages (10)"), "{error}");
    // One that may wait takes its place behind the others.
    let waits = endpoint.send_wait(Note(12));
    watch.gate.open();
    assert_eq!(held.await?, 0);
    waits.await?;
    let logged = watch.log.reaches(14).await;
    let notes: Vec<String> = (1..=10).chain([12]).map(|number| format!("note {number}")).collect();
    assert_eq!(logged[3..], notes);
    Ok(())
}

async fn s66_what_a_stop_drops_leaves_its_room(h: &Harness) -> anyhow::Result<()> {
    let config = h.server_config("m").set("rpc.inbox.maxMessages", "10")?;
    let server = h.create(config.set("rpc.shutdown.drainTimeout", "0s")?).await?;
    let client = h.client("c").await?;
    let mut remote = None;
    for round in 0..3 {
        let (watch, local) = Probe::at(&server, "p").await?;
        let remote = match &remote {
            Some(remote) => remote,
            None => remote.insert(client.endpoint_ref::<Probe>(&local.to_string()).await?),
        };
        let held = remote.ask(Wait(0));
        watch.log.reaches(2).await;
        for number in 0..8 {
            remote.send(Note(number)).unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
        let dropped = remote.ask(Echo::of("dropped"));
        // There is no time to drain: what is queued ends, unless the handler gets to it first.
        server.stop(&local)?;
        let error = dropped.await.unwrap_err();
        assert!(error.is_stopped() && error.is_never_sent(), "{error:?}");
        watch.gate.open();
        assert_eq!(held.await?, 0);
        server.stopped(&local).await?;
        let logged = watch.log.all();
        assert_eq!(logged[..3], ["start", "wait 0", "waited 0"]);
        assert_eq!(logged.last().map(String::as_str), Some("stop"));
        assert!(!logged.contains(&"echo dropped".to_owned()));
    }
    Ok(())
}

/// A long queue and a neighbour, both filled by one handler.
struct Busy {
    neighbour: rpc_core::RpcEndpointRef<Probe>,
    handled: u64,
    watch: ProbeWatch,
}

#[endpoint]
impl Busy {
    #[receive]
    fn note(&mut self, msg: Note, cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        if msg.0 == 0 {
            for number in 1..=1000 {
                cx.self_ref().send(Note(number))?;
            }
            self.neighbour.send(Note(7))?;
            return Ok(());
        }
        self.handled += 1;
        if self.handled == 1000 {
            self.watch.log.push("the last of the queue");
        }
        Ok(())
    }
}

/// Whoever fills an inbox does not keep it from others: a turn of each is all that one waits for.
async fn s66_the_senders_of_an_inbox_take_turns(h: &Harness) -> anyhow::Result<()> {
    let server = h.server("m").await?;
    let (watch, endpoint) = Probe::at(&server, "p").await?;
    let (_, other) = Probe::at(&server, "other").await?;
    let held = endpoint.ask(Wait(0));
    watch.log.reaches(2).await;
    // Senders of the same env are one; seven peers; and a late one with a single message.
    for number in 0..50 {
        endpoint.send(Note(number))?;
    }
    let mut clients = Vec::new();
    for sender in 1..=8 {
        let client = h.client(&format!("c{sender}")).await?;
        let remote = client.endpoint_ref::<Probe>(&endpoint.to_string()).await?;
        for number in 0..if sender == 8 { 1 } else { 50 } {
            remote.send(Note(sender * 100 + number))?;
        }
        // What came over a connection before this is in its inbox.
        let beside = client.endpoint_ref::<Probe>(&other.to_string()).await?;
        assert_eq!(beside.ask(Echo::of("there")).await?, "there");
        clients.push(client);
    }
    watch.gate.open();
    assert_eq!(held.await?, 0);
    let logged = watch.log.reaches(3 + 401).await;
    let turn = |round, sender| (0..16).map(move |number| sender * 100 + round * 16 + number);
    let round = |round| (0..8).flat_map(move |sender| turn(round, sender));
    let last = (0..8).flat_map(|sender| [sender * 100 + 48, sender * 100 + 49]);
    let notes = round(0).chain([800]).chain(round(1)).chain(round(2)).chain(last);
    assert_eq!(logged[3..], notes.map(|number| format!("note {number}")).collect::<Vec<_>>());
    Ok(())
}

async fn s67_a_long_queue_lets_its_neighbours_have_a_turn(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    // Both on one thread, which Spark's busy inbox would hold until it is empty.
    let (watch, neighbour) = Probe::at(&env, "neighbour").await?;
    let busy = Busy { neighbour, handled: 0, watch: watch.clone() };
    let busy = env.setup_endpoint("busy", busy).await?;
    busy.send(Note(0))?;
    assert_eq!(watch.log.reaches(3).await, ["start", "note 7", "the last of the queue"]);
    Ok(())
}

async fn s57_s75_blocking_callers_on_many_threads(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    let watch = ProbeWatch::default();
    let endpoint = env.setup_endpoint("p", Probe::with(&watch, Script::Fine)).await?;
    let threads: Vec<_> = (0..10)
        .map(|number| {
            let endpoint = endpoint.clone();
            thread::spawn(move || {
                for step in 0..50 {
                    let text = format!("{number}.{step}");
                    assert_eq!(endpoint.ask_blocking(Echo(text.clone())).unwrap(), text);
                    assert_eq!(block_on(endpoint.ask(Echo(text.clone()))).unwrap(), text);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no caller fails");
    }
    assert_eq!(watch.log.len(), 1 + 10 * 50 * 2);
    assert!(!watch.log.all().iter().any(|entry| entry == "two at a time"));
    Ok(())
}

rpc_tests::both! {
    s56_s57_s58_one_message_at_a_time_across_awaits,
    s56_long_work_replies_later_without_holding_the_endpoint,
    s64_s65_a_panic_costs_one_call,
    s66_an_inbox_is_bounded_and_first_in_first_out,
    s66_what_a_stop_drops_leaves_its_room,
    s66_the_senders_of_an_inbox_take_turns,
    s67_a_long_queue_lets_its_neighbours_have_a_turn,
}

rpc_tests::actix_only! {
    s57_ten_threads_do_not_need_a_lock,
    s57_s75_blocking_callers_on_many_threads,
    s59_s60_s62_s63_shared_arbiters_and_arbiters_of_ones_own,
    s61_a_blocked_isolated_endpoint_blocks_nobody_else,
}
