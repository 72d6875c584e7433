//! A callee that writes down what it handles before it answers, in a file that outlives it, and
//! callers that write down what they hear. The two must agree, whatever happened in between.

use crate::child;
use crate::messages::Mark;
use crate::report::Report;
use crate::spread::ms;
use anyhow::Context;
use rpc_actix::{
    ErrorKind, HandlerError, HandlerResult, Outcome, RpcAddress, RpcEndpointRef, RpcEnvConfig,
    RpcError, RpcMessage, endpoint,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) const SERVER: &str = "ledger";

/// A little more than `rpc.askTimeout`: by then every ask has ended.
pub(crate) const LONGEST: Duration = Duration::from_secs(11);

/// Asks for a line in the log; the answer is which life of the process wrote it, and for whom.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = (u32, Mark))]
pub(crate) struct Enter {
    pub mark: Mark,
}

/// The same without an answer.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
pub(crate) struct Note {
    pub mark: Mark,
}

pub(crate) struct Ledger {
    log: File,
    events: File,
    life: u32,
}

impl Ledger {
    /// One that goes on with the log of its former lives.
    pub(crate) fn open(log: &str, life: &str) -> anyhow::Result<Self> {
        let append = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        let files = Files::at(log.into());
        let (log, events) = (append(&files.log)?, append(&files.events)?);
        Ok(Self { log, events, life: life.parse()? })
    }
}

#[endpoint]
impl Ledger {
    #[receive_and_reply]
    async fn enter(&mut self, msg: Enter) -> HandlerResult<(u32, Mark)> {
        let Mark { sender, number } = msg.mark;
        // In one system call, so that the line is whole and stays when the process is killed.
        self.log.write_all(format!("{sender} {number}\n").as_bytes())?;
        if number % 16 == 7 {
            // So that some are killed in the middle of a handler, and others behind it.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if is_to_fail(number) {
            return Err(HandlerError::msg("as it was asked to"));
        }
        Ok((self.life, msg.mark))
    }

    #[receive]
    fn note(&mut self, msg: Note) -> HandlerResult<()> {
        let Mark { sender, number } = msg.mark;
        Ok(self.log.write_all(format!("{sender} {number}\n").as_bytes())?)
    }

    #[on_connected]
    fn connected(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        Ok(self.events.write_all(format!("+{}\n", clock()).as_bytes())?)
    }

    #[on_disconnected]
    fn disconnected(&mut self, _peer: &RpcAddress) -> HandlerResult<()> {
        Ok(self.events.write_all(format!("-{}\n", clock()).as_bytes())?)
    }
}

fn is_to_fail(number: u32) -> bool {
    number % 16 == 11
}

/// Milliseconds on the clock that all processes of a machine share.
pub(crate) fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The child: at a given port, with a log that the lives before it have begun.
pub(crate) async fn serve(args: &[&str]) -> anyhow::Result<()> {
    let [bind, log, life] = args else { anyhow::bail!("bind, log and life") };
    let ledger = Ledger::open(log, life)?;
    let env = rpc_actix::create(RpcEnvConfig::server("ledger", bind)).await?;
    env.setup_endpoint("ledger", ledger).await?;
    child::listen(env).await
}

/// What a callee writes; removed when dropped.
#[derive(Debug)]
pub(crate) struct Files {
    pub log: PathBuf,
    pub events: PathBuf,
    ours: bool,
}

impl Files {
    /// Those of this process for a check.
    pub(crate) fn new(check: &str) -> Self {
        let name = format!("rpc-checks-{}-{check}.log", std::process::id());
        let mut files = Self::at(std::env::temp_dir().join(name));
        files.ours = true;
        files
    }

    fn at(log: PathBuf) -> Self {
        let events = log.with_extension("events");
        Self { log, events, ours: false }
    }

    /// The log's place, for the callee.
    pub(crate) fn argument(&self) -> anyhow::Result<&str> {
        self.log.to_str().context("the path of the log")
    }

    /// What was entered, in its order.
    pub(crate) fn entered(&self) -> anyhow::Result<Vec<(u32, u32)>> {
        let line = |line: std::io::Result<String>| {
            let line = line?;
            let (sender, number) = line.split_once(' ').context("a line of the log")?;
            Ok((sender.parse()?, number.parse()?))
        };
        BufReader::new(File::open(&self.log)?).lines().map(line).collect()
    }

    /// When a peer came, or was lost, on [`clock`].
    pub(crate) fn events(&self) -> anyhow::Result<Vec<(bool, u64)>> {
        let line = |line: std::io::Result<String>| {
            let line = line?;
            let (sign, at) = line.split_at_checked(1).context("a line of the events")?;
            Ok((sign == "+", at.parse()?))
        };
        BufReader::new(File::open(&self.events)?).lines().map(line).collect()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if self.ours {
            let _ = std::fs::remove_file(&self.log);
            let _ = std::fs::remove_file(&self.events);
        }
    }
}

/// How an ask ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Reply,
    NeverSent,
    Unknown,
    Failed,
    /// An answer that does not fit to what was asked.
    Wrong,
}

/// Everything that one caller heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    classes: Vec<(Mark, Class)>,
    kinds: BTreeMap<(String, Class), u32>,
    longest: Duration,
    /// One-way messages that found room.
    noted: u64,
}

impl Heard {
    /// Asks once, and writes down what came of it; which life answered.
    pub(crate) async fn ask(&mut self, ledger: &RpcEndpointRef<Ledger>, mark: Mark) -> Option<u32> {
        let start = Instant::now();
        let result = ledger.ask(Enter { mark }).await;
        self.longest = self.longest.max(start.elapsed());
        let class = class_of(mark, &result);
        if let Err(error) = &result {
            let seen = (format!("{:?}", error.kind()), class);
            *self.kinds.entry(seen).or_default() += 1;
        }
        self.classes.push((mark, class));
        if matches!(class, Class::NeverSent | Class::Unknown) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        result.ok().map(|(life, _)| life)
    }

    /// Sends a note, which may be lost, but not doubled, and not overtake.
    pub(crate) fn note(&mut self, ledger: &RpcEndpointRef<Ledger>, mark: Mark) {
        self.noted += u64::from(ledger.send(Note { mark }).is_ok());
    }
}

/// What is heard, written down while it is: there is no end to it.
#[derive(Debug)]
pub(crate) struct Log {
    file: BufWriter<File>,
    all: Heard,
}

impl Log {
    pub(crate) fn create(path: &str) -> anyhow::Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(path)?), all: Heard::default() })
    }

    /// Takes what a caller has heard.
    pub(crate) fn write(&mut self, heard: &mut Heard) -> anyhow::Result<()> {
        for (Mark { sender, number }, class) in heard.classes.drain(..) {
            writeln!(self.file, "{} {sender} {number}", class.letter())?;
        }
        for (seen, count) in std::mem::take(&mut heard.kinds) {
            *self.all.kinds.entry(seen).or_default() += count;
        }
        self.all.noted += std::mem::take(&mut heard.noted);
        self.all.longest = self.all.longest.max(heard.longest);
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        for ((kind, class), count) in &self.all.kinds {
            writeln!(self.file, "{kind} {} {count}", class.letter())?;
        }
        writeln!(self.file, "= {} {}", self.all.noted, self.all.longest.as_millis())?;
        Ok(self.file.flush()?)
    }

    pub(crate) fn read(path: &Path) -> anyhow::Result<Heard> {
        let mut heard = Heard::default();
        for line in BufReader::new(File::open(path)?).lines() {
            let line = line?;
            let fields: Vec<_> = line.split(' ').collect();
            let [first, second, third] = *fields else { anyhow::bail!("a line of a log: {line}") };
            if first == "=" {
                heard.noted = second.parse()?;
                heard.longest = Duration::from_millis(third.parse()?);
            } else if let Some(class) = Class::of_letter(first) {
                let mark = Mark { sender: second.parse()?, number: third.parse()? };
                heard.classes.push((mark, class));
            } else {
                let class = Class::of_letter(second).context("a class in a log")?;
                heard.kinds.insert((first.to_owned(), class), third.parse()?);
            }
        }
        Ok(heard)
    }
}

impl Class {
    const ALL: [(Self, &str); 5] = [
        (Self::Reply, "r"),
        (Self::NeverSent, "n"),
        (Self::Unknown, "u"),
        (Self::Failed, "f"),
        (Self::Wrong, "w"),
    ];

    fn letter(self) -> &'static str {
        Self::ALL.iter().find(|(class, _)| *class == self).map_or("?", |(_, letter)| letter)
    }

    fn of_letter(letter: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == letter).map(|(class, _)| *class)
    }
}

fn class_of(mark: Mark, result: &Result<(u32, Mark), RpcError>) -> Class {
    let number = mark.number;
    match result {
        Ok((_, answered)) if is_to_fail(number) || *answered != mark => Class::Wrong,
        Ok(_) => Class::Reply,
        Err(error) => match error.outcome() {
            Outcome::NeverSent => Class::NeverSent,
            Outcome::Unknown => Class::Unknown,
            Outcome::FailedInHandler
                if is_to_fail(number) && error.kind() == ErrorKind::HandlerFailed =>
            {
                Class::Failed
            }
            _ => Class::Wrong,
        },
    }
}

/// What all callers heard, beside what the callee wrote.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// By class: asks, and those that are in the log.
    counts: BTreeMap<Class, (u32, u32)>,
    kinds: BTreeMap<(String, Class), u32>,
    asked: usize,
    noted: u64,
    notes_in: u64,
    longest: Duration,
    twice: usize,
    unasked: usize,
    overtaken: usize,
}

impl Account {
    pub(crate) fn of(heard: &[Heard], entered: &[(u32, u32)]) -> Self {
        let mut account = Self::default();
        let mut times: HashMap<(u32, u32), u32> = HashMap::new();
        let mut last: HashMap<u32, u32> = HashMap::new();
        for &(sender, number) in entered {
            *times.entry((sender, number)).or_default() += 1;
            let before = last.insert(sender, number);
            account.overtaken += usize::from(before.is_some_and(|before| before >= number));
        }
        account.twice = times.values().filter(|times| **times > 1).count();
        let mut asked = std::collections::HashSet::new();
        for heard in heard {
            for (mark, class) in &heard.classes {
                let key = (mark.sender, mark.number);
                asked.insert(key);
                let (all, in_log) = account.counts.entry(*class).or_default();
                *all += 1;
                *in_log += u32::from(times.contains_key(&key));
            }
            for (seen, count) in &heard.kinds {
                *account.kinds.entry(seen.clone()).or_default() += count;
            }
            account.longest = account.longest.max(heard.longest);
            account.noted += heard.noted;
        }
        account.asked = asked.len();
        let others = times.keys().filter(|key| !asked.contains(*key)).count() as u64;
        account.notes_in = others.min(account.noted);
        account.unasked = usize::try_from(others - account.notes_in).unwrap_or(usize::MAX);
        account
    }

    fn of_class(&self, class: Class) -> (u32, u32) {
        self.counts.get(&class).copied().unwrap_or_default()
    }

    pub(crate) fn has_all_classes(&self) -> bool {
        [Class::Reply, Class::Failed, Class::Unknown]
            .iter()
            .all(|class| self.of_class(*class).0 > 0)
    }

    pub(crate) fn figures(&self) -> String {
        let of = |class| self.of_class(class).0;
        let (unknown, in_log) = self.of_class(Class::Unknown);
        let notes = match self.noted {
            0 => String::new(),
            noted => format!("; {noted} one-way messages, {} handled", self.notes_in),
        };
        format!(
            "{} asks: {} replies, {} failed in the handler, {} never sent, {unknown} unknown (of which {in_log} are in the log){notes}",
            self.asked,
            of(Class::Reply),
            of(Class::Failed),
            of(Class::NeverSent),
        )
    }

    pub(crate) fn errors(&self) -> String {
        let each = self.kinds.iter();
        let each: Vec<_> =
            each.map(|((kind, class), count)| format!("{count} {kind} ({class:?})")).collect();
        each.join(", ")
    }

    /// What is wrong, if anything is.
    pub(crate) fn faults(&self) -> Vec<String> {
        let missing = |class| {
            let (all, in_log) = self.of_class(class);
            u64::from(all - in_log)
        };
        let faults = [
            (u64::from(self.of_class(Class::Wrong).0), "answers do not fit to what was asked"),
            (missing(Class::Reply), "asks with a reply are not in the callee's log"),
            (missing(Class::Failed), "asks that failed in the handler are not in the log"),
            (
                u64::from(self.of_class(Class::NeverSent).1),
                "asks reported as never sent are in the log",
            ),
            (self.twice as u64, "messages are in the log twice"),
            (self.unasked as u64, "messages are in the log that were not sent"),
            (self.overtaken as u64, "messages have overtaken one of the same sender"),
        ];
        let faults = faults.into_iter().filter(|(count, _)| *count > 0);
        let mut faults: Vec<_> = faults.map(|(count, what)| format!("{count} {what}")).collect();
        if self.longest >= LONGEST {
            faults.push(format!("an ask took {}", ms(self.longest)));
        }
        faults
    }

    pub(crate) fn judge(&self, report: &mut Report) {
        let faults = self.faults();
        let what = "callers and callee agree: every answer fits, nothing was handled twice or out of order, nothing that was never sent";
        let what = if faults.is_empty() { what.to_owned() } else { faults.join("; ") };
        report.require(faults.is_empty(), &what);
        let longest = ms(self.longest);
        report
            .require(self.longest < LONGEST, &format!("every ask ended, the longest in {longest}"));
    }
}
