//! Processes of a test, its input, and an independent count of that.

use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Far more than anything here takes, also on a machine with other work.
const DEADLINE: Duration = Duration::from_secs(120);

const MARK: &str = "DEMO_CLUSTER_TEST_MARK";

/// Looks at something again and again until it is there.
pub(crate) fn poll<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A test's folder, and the mark that all of its processes bear.
pub(crate) struct Scene {
    pub(crate) folder: PathBuf,
    mark: String,
}

impl Scene {
    pub(crate) fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("demo-cluster-test-{mark}"));
        fs::create_dir_all(&folder).unwrap();
        Self { folder, mark }
    }

    pub(crate) fn start(&self, program: &str, arguments: &[&str]) -> Proc {
        let mut command = Command::new(program);
        command.args(arguments).env(MARK, &self.mark).env("TMPDIR", &self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The test may have seen enough.
                let _ = sender.send(line);
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Proc { child, lines, errors: Some(errors) }
    }

    pub(crate) fn master(&self, arguments: &[&str]) -> (Proc, String) {
        let port: &[&str] = if arguments.contains(&"--port") { &[] } else { &["--port", "0"] };
        let arguments = [port, arguments].concat();
        let mut master = self.start(env!("CARGO_BIN_EXE_master"), &arguments);
        let uri = master.line_after("listening at ");
        (master, uri)
    }

    pub(crate) fn worker(&self, master: &str, arguments: &[&str]) -> (Proc, String) {
        let arguments = [&["--master", master, "--memory", "1G"], arguments].concat();
        let mut worker = self.start(env!("CARGO_BIN_EXE_worker"), &arguments);
        let id = worker.line_after("registered ");
        (worker, id)
    }

    pub(crate) fn submit(&self, master: &str, arguments: &[&str]) -> Proc {
        let arguments = [&["--master", master, "--progress", "json"], arguments].concat();
        self.start(env!("CARGO_BIN_EXE_submit"), &arguments)
    }

    pub(crate) fn quickstart(&self, arguments: &[&str]) -> Proc {
        self.start(env!("CARGO_BIN_EXE_quickstart"), arguments)
    }

    /// All processes of this test that live, with their command lines.
    pub(crate) fn processes(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.mark);
        let is_marked = |pid: &Path| {
            let environment = fs::read(pid.join("environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes())
        };
        let command = |pid: PathBuf| {
            let line = fs::read(pid.join("cmdline")).unwrap_or_default();
            format!("{} {}", pid.display(), String::from_utf8_lossy(&line).replace('\0', " "))
        };
        let entries = fs::read_dir("/proc").unwrap();
        let pids = entries.filter_map(|entry| Some(entry.ok()?.path()));
        pids.filter(|pid| is_marked(pid)).map(command).collect()
    }

    pub(crate) fn no_process_is_left(&self) {
        let start = Instant::now();
        poll("no process is left", || {
            let left = self.processes();
            assert!(start.elapsed() < DEADLINE / 2, "left: {left:#?}");
            left.is_empty().then_some(())
        });
    }

    /// A folder of text, about this many KiB, in files of all sizes; some of it is not UTF-8.
    pub(crate) fn input(&self, kib: usize) -> PathBuf {
        const PARTS: [&str; 12] =
            ["be", "Ta", "ko", "ünd", "rust", "x9", "ЖУ", "o", "li", "STRASSE", "ß", "中"];
        let folder = self.folder.join("input");
        let mut random = 12345_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let (mut file, mut written) = (0, 0);
        while written < kib * 1024 {
            let mut text = Vec::new();
            let size = [100, 5_000, 70_000, 400_000][next(4) as usize];
            while text.len() < size {
                for _ in 0..=next(2) {
                    text.extend_from_slice(PARTS[next(PARTS.len() as u64) as usize].as_bytes());
                }
                let ends: [&[u8]; 8] = [b" ", b" ", b" ", b", ", b"_", b"\n", b"\xff", b"\r\n"];
                text.extend_from_slice(ends[next(8) as usize]);
            }
            let path = folder.join(format!("{}/{file}.txt", file % 3));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &text).unwrap();
            file += 1;
            written += text.len();
        }
        folder
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A process of the test; it is killed when the test is over.
pub(crate) struct Proc {
    child: Child,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Proc {
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no further line within {DEADLINE:?}"),
        }
    }

    fn line_after(&mut self, prefix: &str) -> String {
        let Some(line) = self.line() else { panic!("ended: {}", self.errors()) };
        line.strip_prefix(prefix).unwrap().to_owned()
    }

    /// The next event of that name; `None` when the output has ended.
    pub(crate) fn event(&self, name: &str) -> Option<Value> {
        while let Some(line) = self.line() {
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == name {
                return Some(event);
            }
        }
        None
    }

    /// Reads to the end of the output: the result.
    pub(crate) fn result(&mut self) -> Value {
        match self.event("result") {
            Some(result) => result,
            None => panic!("no result: {}", self.errors()),
        }
    }

    pub(crate) fn pid(&self) -> u64 {
        self.child.id().into()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        poll("the process ends", || self.child.try_wait().unwrap())
    }

    /// Standard error, once the process has closed it.
    pub(crate) fn errors(&mut self) -> String {
        self.errors.take().unwrap().join().unwrap()
    }

    /// What a program that fails says: its exit code and standard error.
    pub(crate) fn failure(mut self) -> (Option<i32>, String) {
        let code = self.wait().code();
        (code, self.errors())
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal(name: &str, pid: u64) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.unwrap().success(), "kill -{name} {pid}");
}

/// What `word-count --top <very many>` prints before its last line, counted another way.
pub(crate) fn count(folder: &Path) -> String {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // Bytes that are not UTF-8 become a character that is not alphanumeric.
            let bytes = fs::read(path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
                let lower = word.chars().flat_map(char::to_lowercase).collect();
                *counts.entry(lower).or_default() += 1;
            }
        }
    }
    let mut words: Vec<_> = counts.into_iter().collect();
    words.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
    let width = words[0].1.to_string().len();
    words.iter().fold(String::new(), |mut text, (word, count)| {
        writeln!(text, "{count:>width$}  {word}").unwrap();
        text
    })
}
