//! One case: a callee on host B, callers on host A, and what happens to them.

use super::callers::{Seen, call};
use super::{BOTH, Case, Fault};
use crate::child::{Process, Server};
use crate::lan::{Host, Lan};
use crate::ledger::{self, Account, Files, Heard, clock};
use crate::random::Random;
use crate::report::Report;
use anyhow::Context;
use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

/// A connection that is lost in its first second counts as a try that failed.
const SETTLED: Duration = Duration::from_millis(1_200);
/// When both sides must know that the other one is gone, in ms: `rpc.io.deadAfter`, and a fifth of
/// a heartbeat.
const DEAD: u64 = 3_200;
/// When a peer must know that a process is gone, whose system says so.
const KILLED: u64 = 100;
/// From the heal to the first answer: a second, and the wait until something is tried again, by the
/// system on a connection that was kept, or to connect.
const BACK: u64 = 2_000;
/// `rpc.io.handshakeTimeout`, and a little.
const GREETED: u64 = 5_300;
const BIND: &str = "10.77.0.2:7077";

pub(super) struct Scene {
    report: Report,
    name: &'static str,
    server: Server,
    calling: JoinHandle<anyhow::Result<Vec<Heard>>>,
    seen: Arc<Seen>,
    files: Files,
    random: Random,
    lan: Arc<Lan>,
}

fn start(lan: &Lan, files: &Files, life: u32) -> anyhow::Result<Server> {
    let args = [BIND, files.argument()?, &life.to_string()];
    Server::of(Process::start_on((lan, Host::B), ledger::SERVER, &args)?)
}

/// How long after `since` a peer was first lost, of those events.
fn lost_after(since: u64, events: &[(bool, u64)]) -> Option<u64> {
    let lost = events.iter().find(|(connected, at)| !connected && *at >= since);
    lost.map(|(_, at)| at - since)
}

fn in_time(time: Option<u64>, limit: u64) -> bool {
    time.is_some_and(|time| time <= limit)
}

fn ms(time: Option<u64>) -> String {
    time.map_or_else(|| "never".to_owned(), |time| format!("{time} ms"))
}

impl Scene {
    pub(super) fn set(number: usize, case: &Case) -> anyhow::Result<Self> {
        let lan = Arc::new(Lan::new()?);
        let files = Files::new(&format!("partitions-{number}"));
        let server = start(&lan, &files, 0)?;
        let seen = Arc::new(Seen::default());
        let (place, told) = (lan.clone(), seen.clone());
        let calling = std::thread::spawn(move || call(&place, BIND, told));
        let (report, random) = (Report::new(case.name), Random::new(number as u64 + 1));
        Ok(Self { report, name: case.name, server, calling, seen, files, random, lan })
    }

    /// What it showed. However it ends, the callers end as well.
    pub(super) fn play(mut self, fault: Fault) -> anyhow::Result<Report> {
        let played = self.act(fault);
        self.seen.over.store(true, Ordering::Relaxed);
        let Self { report, name, server, calling, files, .. } = self;
        let heard = calling.join().ok().context("the callers have panicked")??;
        played?;
        drop(server);
        let account = Account::of(&heard, &files.entered()?);
        let mut report = report;
        report.figure(format!("{name}: {}", account.figures()));
        account.judge(&mut report);
        Ok(report)
    }

    fn act(&mut self, fault: Fault) -> anyhow::Result<()> {
        self.seen.back(0)?;
        sleep(SETTLED);
        match fault {
            Fault::Cut(senders, time) => self.cut(senders, time)?,
            Fault::CutInQuiet(senders, time) => {
                self.seen.quiet.store(true, Ordering::Relaxed);
                // Until the last answer is old, and signs of life are all there is.
                sleep(SETTLED);
                self.cut(senders, time)?;
            }
            Fault::Stop(time) => self.stop(time)?,
            Fault::Blinks(senders, times) => self.blinks(senders, times)?,
            Fault::Flaps(times) => self.flaps(times)?,
            Fault::Kill => self.kill()?,
            Fault::Handshake => self.handshake()?,
        }
        self.one_connection()
    }

    fn cut(&mut self, senders: &[Host], time: u64) -> anyhow::Result<()> {
        let at = clock();
        self.lan.cut(senders)?;
        sleep(Duration::from_millis(time));
        let healed = clock();
        self.lan.heal(senders)?;
        self.seen.quiet.store(false, Ordering::Relaxed);
        self.comes_back(healed)?;
        let theirs = lost_after(at, &self.files.events()?);
        self.both_lost(at, theirs)
    }

    fn both_lost(&mut self, at: u64, theirs: Option<u64>) -> anyhow::Result<()> {
        let ours = lost_after(at, &self.seen.events());
        self.report.require(
            in_time(ours, DEAD) && in_time(theirs, DEAD),
            &format!(
                "{}: within {DEAD} ms both sides know it: the callers after {}, the callee after {}",
                self.name,
                ms(ours),
                ms(theirs)
            ),
        );
        Ok(())
    }

    fn comes_back(&mut self, healed: u64) -> anyhow::Result<()> {
        let back = self.seen.back(healed)?;
        let text = format!("{}: answers come again {back} ms after it, of {BACK}", self.name);
        self.report.require(back <= BACK, &text);
        Ok(())
    }

    /// A callee that was stopped hears of it when it goes on: it finds the connection closed.
    fn stop(&mut self, time: u64) -> anyhow::Result<()> {
        let at = clock();
        self.server.process.pause()?;
        sleep(Duration::from_millis(time));
        let healed = clock();
        self.server.process.go_on()?;
        self.comes_back(healed)?;
        let theirs = lost_after(healed, &self.files.events()?);
        self.both_lost(at, theirs)
    }

    /// Nobody may notice.
    fn blinks(&mut self, senders: &[Host], times: u32) -> anyhow::Result<()> {
        let before = (self.seen.events().len(), self.files.events()?.len());
        let mut longest = 0;
        for _ in 0..times {
            let time = self.random.between(100, 950);
            self.lan.cut(senders)?;
            sleep(Duration::from_millis(time));
            let healed = clock();
            self.lan.heal(senders)?;
            longest = self.seen.back(healed)?.max(longest);
            sleep(Duration::from_millis(500));
        }
        let after = (self.seen.events().len(), self.files.events()?.len());
        let text = format!(
            "{}: {times} times, the connection is kept; answers come again {longest} ms after it at most",
            self.name
        );
        self.report.require(before == after, &text);
        Ok(())
    }

    fn flaps(&mut self, times: u32) -> anyhow::Result<()> {
        let mut backs = Vec::new();
        for _ in 0..times {
            let (away, there) = (self.random.between(500, 5_000), self.random.between(500, 2_000));
            self.lan.cut(BOTH)?;
            sleep(Duration::from_millis(away));
            let healed = clock();
            self.lan.heal(BOTH)?;
            sleep(Duration::from_millis(there));
            backs.push(self.seen.back(healed)?);
        }
        let most = backs.iter().copied().max().unwrap_or_default();
        let text = format!(
            "{}: {times} times for 0.5 to 5 s, answers come again {most} ms after it at most, of {BACK}",
            self.name
        );
        self.report.require(most <= BACK, &text);
        Ok(())
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        let at = clock();
        self.server.process.kill()?;
        sleep(Duration::from_millis(300));
        self.server = start(&self.lan, &self.files, 1)?;
        let listening = clock();
        self.comes_back(listening)?;
        let ours = lost_after(at, &self.seen.events());
        let text = format!("{}: the callers know it after {}, of {KILLED} ms", self.name, ms(ours));
        self.report.require(in_time(ours, KILLED), &text);
        Ok(())
    }

    /// Connections whose makers are gone before they say hello are forgotten in time.
    fn handshake(&mut self) -> anyhow::Result<()> {
        let before = descriptors(self.server.pid())?;
        let lan = self.lan.clone();
        // In a thread of its own, which ends on host A.
        let opening = std::thread::spawn(move || -> anyhow::Result<Vec<TcpStream>> {
            lan.enter(Host::A)?;
            let open = |_| TcpStream::connect(BIND).context("connecting to the callee");
            (0..50).map(open).collect()
        });
        let streams = opening.join().ok().context("the opening thread has panicked")??;
        let at = clock();
        self.lan.cut(BOTH)?;
        let most = descriptors(self.server.pid())?;
        while descriptors(self.server.pid())? > before && clock() < at + 10_000 {
            sleep(Duration::from_millis(10));
        }
        let freed = clock() - at;
        let healed = clock();
        self.lan.heal(BOTH)?;
        self.comes_back(healed)?;
        let text = format!(
            "{}: {} half-open connections, of which the callee had {} descriptors more, are forgotten after {freed} ms, of {GREETED}",
            self.name,
            streams.len(),
            most.saturating_sub(before)
        );
        self.report.require(freed <= GREETED && most >= before + streams.len(), &text);
        let mut told = 0;
        for mut stream in streams {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            told += usize::from(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)));
        }
        self.report.figure(format!("  {told} of them found themselves closed after the heal"));
        Ok(())
    }

    /// When all has come to rest, there is one connection, and no more.
    fn one_connection(&mut self) -> anyhow::Result<()> {
        sleep(Duration::from_millis(500));
        let open = established(self.server.pid())?;
        self.report.require(open == 1, &format!("{}: {open} connection in the end", self.name));
        Ok(())
    }
}

fn descriptors(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Established connections to the callee's port, as its host sees them.
fn established(pid: u32) -> anyhow::Result<usize> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    let port = format!(":{:04X}", 7077);
    let is_open = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().is_some_and(|local| local.ends_with(&port));
        local && fields.nth(1) == Some("01")
    };
    Ok(table.lines().filter(is_open).count())
}
