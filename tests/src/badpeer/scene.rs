//! A case as it is played: the connection, and what was counted before it.

use super::case::{Begin, Case, End, Side, Step, Told, close_count};
use super::victim::{Echo, Target, Victim, number};
use crate::raw_peer::{Frame, RawPeer, Reason, ask, frame, hello, kind, resolve, resolved};
use anyhow::{Context, bail, ensure};
use rpc_actix::{Counters, RpcError};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// The number of the bad peer's env.
pub(super) const ENV: u64 = 7;
/// A net under cases that would hang.
const WATCHDOG: Duration = Duration::from_secs(20);

type Counts = BTreeMap<&'static str, u64>;

/// What there is of a case while it is played.
pub(super) struct Scene<'a> {
    pub(super) victim: &'a Victim,
    pub(super) peer: RawPeer,
    /// Where the one who listens does.
    pub(super) at: String,
    /// What the env said first, where it dials.
    pub(super) hello: Option<Frame>,
    /// The number of the env's call, where it asks.
    pub(super) call: u64,
    pub(super) counts: Counts,
    /// What may be counted or not, as threads will have it.
    perhaps: Counts,
    caller: Option<JoinHandle<Result<String, RpcError>>>,
}

/// Plays a case. The healthy peer, which is connected all the time, must not notice.
pub(super) fn play(case: &Case, victim: &Victim) -> anyhow::Result<()> {
    let before = victim.env.counters();
    let mut scene = match case.side {
        Side::Listening => Scene::connect(case, victim)?,
        Side::Dialling => Scene::be_dialled(case, victim)?,
    };
    for (place, step) in case.steps.iter().enumerate() {
        scene.step(step).with_context(|| format!("step {place}"))?;
    }
    scene.end(&case.end)?;
    if let Some(caller) = scene.caller.take() {
        let told = victim.runtime.block_on(caller).context("the caller")?;
        scene.check_told(case.told.as_ref(), told)?;
    }
    for (name, number) in &case.counts {
        scene.count(name, *number);
    }
    let (mut counts, perhaps) = (scene.counts.clone(), scene.perhaps.clone());
    drop(scene);
    settle(victim, &before, &mut counts, &perhaps)?;
    victim.is_well()?;
    let after = changes(victim, &before);
    let own = [("asks_received", 1), ("replies_sent", 1)];
    let mut wanted = counts;
    own.into_iter().for_each(|(name, number)| *wanted.entry(name).or_default() += number);
    ensure!(after == wanted, "then {after:?} was counted in place of {wanted:?}");
    Ok(())
}

/// Plays a case for what others feel of it: nothing is checked, and nothing waited for at its end.
pub(super) fn misbehave(case: &Case, victim: &Victim) -> anyhow::Result<()> {
    let mut scene = match case.side {
        Side::Listening => Scene::connect(case, victim)?,
        Side::Dialling => Scene::be_dialled(case, victim)?,
    };
    for step in &case.steps {
        scene.step(step)?;
    }
    if let Some(caller) = scene.caller.take() {
        caller.abort();
    }
    Ok(())
}

/// What was counted, but for amounts: how bytes come together in reads is the machine's matter.
fn changes(victim: &Victim, before: &Counters) -> Counts {
    let amounts = ["bytes_received", "bytes_sent", "reads", "writes"];
    let counted = victim.env.counters().since(before);
    counted.iter().filter(|(name, number)| *number > 0 && !amounts.contains(name)).collect()
}

/// Waits until the env has seen the end of everything, and has counted exactly that.
fn settle(
    victim: &Victim,
    before: &Counters,
    wanted: &mut Counts,
    perhaps: &Counts,
) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let counted = changes(victim, before);
        for (name, most) in perhaps {
            match counted.get(name) {
                Some(number) if number <= most => wanted.insert(name, *number),
                _ => wanted.remove(name),
            };
        }
        if counted == *wanted {
            return Ok(());
        }
        if start.elapsed() > WATCHDOG / 4 {
            bail!("counted {counted:?}, not {wanted:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

impl<'a> Scene<'a> {
    fn new(victim: &'a Victim, peer: RawPeer, at: String) -> Self {
        let (counts, perhaps, caller) = (Counts::new(), Counts::new(), None);
        Self { victim, peer, at, hello: None, call: 0, counts, perhaps, caller }
    }

    fn connect(case: &Case, victim: &'a Victim) -> anyhow::Result<Self> {
        let at = victim.address();
        let mut scene = Self::new(victim, RawPeer::connect(&at), at);
        scene.count("connections_accepted", 1);
        if case.begin >= Begin::Greeted {
            scene.peer.say(&hello(ENV, None));
            scene.next(kind::HELLO)?;
            scene.opened();
        }
        if case.begin >= Begin::Resolved {
            scene.peer.send(&resolve(0, "probe"));
            scene.next(kind::RESOLVED)?;
        }
        Ok(scene)
    }

    fn be_dialled(case: &Case, victim: &'a Victim) -> anyhow::Result<Self> {
        // An address of its own for each case: what is left of another one at the same port would be
        // taken for its predecessor.
        static LAST: AtomicU16 = AtomicU16::new(0);
        let [high, low] = LAST.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let listener = TcpListener::bind((Ipv4Addr::new(127, 1, high, low), 0))?;
        let at = listener.local_addr()?.to_string();
        let (env, uri) = (victim.env.clone(), format!("rpc://probe@{at}"));
        let (asks, patience) = (case.begin == Begin::Resolved, case.patience);
        let caller = victim.runtime.spawn(async move {
            let found = env.endpoint_ref::<Target>(&uri).await?;
            if !asks {
                return Ok("found".to_owned());
            }
            found.ask_with_timeout(Echo { text: "x".to_owned() }, patience).await
        });
        let mut scene = Self::new(victim, RawPeer::accept(&listener), at);
        scene.caller = Some(caller);
        scene.count("connections_dialed", 1);
        scene.hello = Some(scene.next(kind::HELLO)?);
        if case.begin >= Begin::Greeted {
            scene.peer.say(&hello(ENV, None));
            scene.next(kind::RESOLVE)?;
            scene.opened();
        }
        if asks {
            scene.peer.send(&resolved(0, &["Echo"], 10));
            let ask = scene.next(kind::ASK)?;
            scene.count("asks_remote", 1);
            scene.call = ask.payload.first_chunk().map_or(0, |call| u64::from_be_bytes(*call));
        }
        Ok(scene)
    }

    /// Both have said hello: what is counted then, and when such a connection is over.
    pub(super) fn opened(&mut self) {
        self.count("connections_opened", 1);
        self.count("connections_ended", 1);
    }

    pub(super) fn count(&mut self, name: &'static str, number: u64) {
        *self.counts.entry(name).or_default() += number;
    }

    /// As [`count`](Self::count), for what is a matter of threads.
    pub(super) fn may_count(&mut self, name: &'static str, number: u64) {
        self.perhaps.insert(name, number);
    }

    /// The next frame, which must be of that kind.
    pub(super) fn next(&mut self, kind: u8) -> anyhow::Result<Frame> {
        match self.peer.try_frame().context("waited for a frame")? {
            Some(frame) if frame.kind == kind => Ok(frame),
            Some(Frame { kind: kind::CLOSE, payload }) => {
                let reason: Reason = rmp_serde::from_slice(&payload)?;
                bail!("waited for {kind:#04x}, but was closed: {reason:?}")
            }
            Some(other) => bail!("waited for {kind:#04x}, but got {other:?}"),
            None => bail!("waited for {kind:#04x}, but the connection ended"),
        }
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::Say(bytes) => self.peer.send(bytes),
            Step::Tell(what) => {
                let bytes = what(self);
                self.peer.send(&bytes);
            }
            Step::Drip(bytes, pause) => {
                for byte in bytes {
                    if !self.peer.try_send(&[*byte]) {
                        break;
                    }
                    thread::sleep(*pause);
                }
            }
            Step::Flood(bytes) => while self.peer.try_send(bytes) {},
            Step::Gets(kind, start) => {
                let frame = self.next(*kind)?;
                ensure!(frame.payload.starts_with(start), "got {frame:?}, not {start:x?}");
                match *kind {
                    kind::REPLY => self.count("replies_sent", 1),
                    kind::UNRESOLVED => self.count("resolves_refused", 1),
                    _ => {}
                }
            }
            Step::Fails(call, code, text) => {
                let frame = self.next(kind::FAILURE)?;
                let (number, map) = frame.payload.split_first_chunk().context("a number")?;
                let reason: Reason = rmp_serde::from_slice(map)?;
                let got = (u64::from_be_bytes(*number), reason.code, reason.text);
                let want = (*call, *code, self.filled(text));
                ensure!(got == want, "got {got:?}, not {want:?}");
                self.count("failures_sent", 1);
            }
            Step::Served => self.served()?,
            Step::HangUp => self.peer.hang_up(),
            Step::Do(what) => what(self)?,
        }
        Ok(())
    }

    /// An ask like any other's is answered.
    pub(super) fn served(&mut self) -> anyhow::Result<()> {
        let body = rmp_serde::to_vec_named(&Echo { text: "fine".to_owned() })?;
        self.peer.send(&ask(number::ECHO, 9, 10_000, &body));
        let reply = self.next(kind::REPLY)?;
        ensure!(reply.payload.ends_with(b"\xa4fine"), "got {reply:?}");
        self.count("asks_received", 1);
        self.count("replies_sent", 1);
        Ok(())
    }

    /// A text with what only this run knows.
    fn filled(&self, text: &str) -> String {
        text.replace("{at}", &self.at).replace("{me}", &self.peer.local())
    }

    fn end(&mut self, end: &End) -> anyhow::Result<()> {
        match end {
            End::Closed(code, text) => {
                let reason = self.peer.reason().context("there was no CLOSE")?;
                let want = (*code, self.filled(text));
                ensure!(
                    (reason.code, &reason.text) == (want.0, &want.1),
                    "{reason:?}, not {want:?}"
                );
                self.count(close_count(*code, true), 1);
            }
            End::CutOff(code) => {
                if let Some(reason) = self.peer.reason() {
                    ensure!(reason.code == *code, "{reason:?}");
                }
                self.count(close_count(*code, true), 1);
            }
            End::Silently => {
                let frame = self.peer.try_frame()?;
                ensure!(frame.is_none(), "it was to end without a word, but said {frame:?}");
            }
            End::Leaves => {
                self.peer.send(&close(6));
                // What crossed the CLOSE, but no other CLOSE.
                let reason = self.peer.reason();
                ensure!(reason.is_none(), "it answered a CLOSE with {reason:?}");
                self.count(close_count(6, false), 1);
            }
            End::Drops => self.count("connections_broken", 1),
        }
        if matches!(end, End::Drops) {
            self.peer.hang_up();
        }
        Ok(())
    }

    fn check_told(
        &self,
        want: Option<&Told>,
        told: Result<String, RpcError>,
    ) -> anyhow::Result<()> {
        match (want, told) {
            (Some(Told::Answer(want)), Ok(told)) => ensure!(told == *want, "was told {told:?}"),
            (Some(Told::Error(kind, outcome, text)), Err(error)) => {
                let told = (error.kind(), error.outcome(), error.to_string());
                let want = (*kind, *outcome, self.filled(text));
                ensure!(told == want, "the caller was told {told:?}, not {want:?}");
            }
            (_, told) => bail!("the caller was told {told:?}"),
        }
        Ok(())
    }
}

/// The bytes of a CLOSE.
pub(super) fn close(code: u16) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    frame(kind::CLOSE, &[&b"\x81\xa4code\xcd"[..], &[high, low]].concat())
}
