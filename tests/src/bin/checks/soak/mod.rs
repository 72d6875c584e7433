//! Several servers and clients for minutes, with faults every few seconds: nothing is lost, doubled,
//! misrouted or left hanging, and in the end nothing is left.

mod client;
mod kinds;
mod server;
mod vitals;

use crate::child::{self, Process, Server, free_port};
use crate::ledger::{Account, Files, Log};
use crate::random::Random;
use crate::report::Report;
use anyhow::Context;
pub(crate) use client::{CLIENT, serve as serve_client};
pub(crate) use server::{SERVER, serve as serve_server};
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};
use vitals::{Memory, Vitals};

/// The first of them is never killed, so that its memory can be compared.
const SERVERS: usize = 3;
const CLIENTS: usize = 2;
/// What a process may have more at the end than in the middle.
const GROWTH_MIB: f64 = 4.0;
/// How long clients may take to end: much more than their longest ask.
const HUNG: Duration = Duration::from_secs(60);

/// How long, and with how many envs in each process of clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub time: Duration,
    pub envs: u32,
}

/// Takes `--minutes N` out of the arguments. `None` if it makes no sense.
pub(crate) fn minutes(mut args: Vec<String>) -> Option<(Vec<String>, Option<u64>)> {
    let Some(place) = args.iter().position(|arg| arg == "--minutes") else {
        return Some((args, None));
    };
    let minutes = args.get(place.saturating_add(1))?.parse().ok()?;
    args.drain(place..place.saturating_add(2));
    Some((args, Some(minutes)))
}

impl Plan {
    pub(crate) fn of(short: bool, minutes: Option<u64>) -> Self {
        let (usual, envs) = if short { (1, 16) } else { (10, 84) };
        Self { time: Duration::from_secs(60 * minutes.unwrap_or(usual)), envs }
    }
}

pub(crate) async fn run(plan: Plan) -> anyhow::Result<Report> {
    tokio::task::spawn_blocking(move || Soak::start(plan)?.run(plan.time)).await?
}

struct Soak {
    servers: Vec<(Server, Files)>,
    clients: Vec<Process>,
    logs: Vec<PathBuf>,
    idle: Vec<Vitals>,
    lives: u32,
    random: Random,
    report: Report,
    faults: [u32; 3],
}

impl Soak {
    fn start(plan: Plan) -> anyhow::Result<Self> {
        let mut servers = Vec::new();
        for number in 0..SERVERS {
            let files = Files::new(&format!("soak-{number}"));
            servers.push((start(&free_port()?, &files, 0)?, files));
        }
        let idle = servers.iter().map(|(server, _)| Vitals::of(server.pid()));
        let idle = idle.collect::<anyhow::Result<_>>()?;
        let addresses: Vec<_> = servers.iter().map(|(server, _)| server.address.as_str()).collect();
        let (addresses, envs) = (addresses.join(","), plan.envs.to_string());
        let (mut clients, mut logs) = (Vec::new(), Vec::new());
        for number in 0..CLIENTS {
            let name = format!("rpc-checks-{}-soak-heard-{number}", std::process::id());
            let log = std::env::temp_dir().join(name);
            let first = (number * 10_000_000).to_string();
            let args = [&addresses, &envs, &first, log.to_str().context("a path")?];
            let mut client = Process::start_with_descriptors(CLIENT, &args)?;
            client.line()?;
            clients.push(client);
            logs.push(log);
        }
        let (random, report) = (Random::new(42), Report::new("soak"));
        Ok(Self { servers, clients, logs, idle, lives: 0, random, report, faults: [0; 3] })
    }

    fn run(mut self, time: Duration) -> anyhow::Result<Report> {
        let steady = self.servers.iter().take(1).map(|(server, _)| server.pid());
        let steady = steady.chain(self.clients.iter().map(Process::pid));
        let mut memory: Vec<_> = steady.map(Memory::of).collect();
        let start = Instant::now();
        while start.elapsed() < time {
            std::thread::sleep(Duration::from_millis(self.random.between(1_000, 4_000)));
            memory.iter_mut().try_for_each(Memory::sample)?;
            self.fault()?;
        }
        let [kills, stops, pauses] = self.faults;
        self.report.figure(format!(
            "{:.0} s, {SERVERS} servers, {CLIENTS} processes of clients: {kills} servers killed, {stops} stopped for up to 5 s, {pauses} processes of clients paused",
            time.as_secs_f64()
        ));
        for memory in &memory {
            let (middle, end) = memory.course()?;
            self.report.require(
                end <= middle + GROWTH_MIB,
                &format!("memory of a process: {middle:.1} MiB in the middle, {end:.1} at the end, {GROWTH_MIB} more are allowed"),
            );
        }
        self.end_clients()?;
        self.judge_servers()?;
        self.judge_logs()?;
        Ok(std::mem::replace(&mut self.report, Report::new("soak")))
    }

    fn fault(&mut self) -> anyhow::Result<()> {
        let fault = self.random.below(3);
        if let Some(count) = self.faults.get_mut(fault as usize) {
            *count += 1;
        }
        match fault {
            0 => {
                let place = 1 + self.random.below(2) as usize;
                let away = Duration::from_millis(self.random.between(0, 700));
                self.lives += 1;
                let (server, files) = self.servers.get_mut(place).context("a server")?;
                server.process.kill()?;
                std::thread::sleep(away);
                *server = start(&server.address.clone(), files, self.lives)?;
            }
            1 => {
                let place = self.random.below(3) as usize;
                let time = Duration::from_millis(self.random.between(100, 5_000));
                let (server, _) = self.servers.get(place).context("a server")?;
                server.process.pause()?;
                std::thread::sleep(time);
                server.process.go_on()?;
            }
            _ => {
                let place = self.random.below(2) as usize;
                let time = Duration::from_millis(self.random.between(100, 900));
                let client = self.clients.get(place).context("a client")?;
                client.pause()?;
                std::thread::sleep(time);
                client.go_on()?;
            }
        }
        Ok(())
    }

    fn end_clients(&mut self) -> anyhow::Result<()> {
        self.clients.iter_mut().try_for_each(|client| client.tell("end"))?;
        // One that hangs is killed, and that is what is reported.
        let (_ended, ends) = std::sync::mpsc::channel::<()>();
        let pids: Vec<_> = self.clients.iter().map(Process::pid).collect();
        std::thread::spawn(move || {
            if ends.recv_timeout(HUNG) == Err(RecvTimeoutError::Timeout) {
                pids.into_iter().for_each(|pid| drop(child::kill(pid)));
            }
        });
        for client in &mut self.clients {
            let line = client.line()?;
            let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
            let [churned, answered, failed, wrong, descriptors, threads] = *numbers else {
                anyhow::bail!("a client said {line}");
            };
            self.report.require(
                wrong == 0 && answered > failed,
                &format!("messages of other kinds: {answered} ended as they should, {failed} failed by a fault, {wrong} had a wrong answer"),
            );
            self.report.require(
                descriptors == 0 && threads == 0 && churned > 0,
                &format!("{churned} envs were replaced; left at the end: {descriptors} descriptors, {threads} threads"),
            );
        }
        Ok(())
    }

    fn judge_servers(&mut self) -> anyhow::Result<()> {
        // Goodbyes are written and read.
        std::thread::sleep(Duration::from_secs(1));
        for ((server, _), idle) in self.servers.iter_mut().zip(&self.idle) {
            server.process.tell("vitals")?;
            let open = server.process.line()?;
            let left = Vitals::of(server.pid())?;
            self.report.require(
                open == "0"
                    && left.descriptors <= idle.descriptors
                    && left.threads <= idle.threads,
                &format!(
                    "a server has {open} connections in the end, {} descriptors ({} when it was idle), {} threads ({})",
                    left.descriptors, idle.descriptors, left.threads, idle.threads
                ),
            );
        }
        Ok(())
    }

    fn judge_logs(&mut self) -> anyhow::Result<()> {
        let (mut heard, mut entered) = (Vec::new(), Vec::new());
        for log in &self.logs {
            heard.push(Log::read(log)?);
        }
        for (_, files) in &self.servers {
            entered.extend(files.entered()?);
        }
        let account = Account::of(&heard, &entered);
        self.report.figure(account.figures());
        self.report.figure(format!("errors: {}", account.errors()));
        account.judge(&mut self.report);
        Ok(())
    }
}

impl Drop for Soak {
    fn drop(&mut self) {
        // Who is stopped does not hear that its parent has gone.
        let servers = self.servers.iter().map(|(server, _)| &server.process);
        servers.chain(&self.clients).for_each(|process| drop(process.go_on()));
        self.logs.iter().for_each(|log| drop(std::fs::remove_file(log)));
    }
}

fn start(bind: &str, files: &Files, life: u32) -> anyhow::Result<Server> {
    let args = [bind, files.argument()?, &life.to_string()];
    Server::of(Process::start_with_descriptors(SERVER, &args)?)
}
