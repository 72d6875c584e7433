//! The layers, read off the source: imports point downwards only, rpc-core touches no runtime, no
//! clock and no socket, and actix stays behind rpc-actix's own types.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The files of rpc-core from the ground up, a floor in each row. A file imports from those before
/// it only, in its own row as well.
const CORE: &[&[&str]] = &[
    &[
        "error",
        "remote_failure",
        "deadline",
        "address/text",
        "address/name",
        "address/env_id",
        "address/rpc",
        "address/endpoint",
        "address/mod",
        "limits",
        "wakers",
        "quiet",
        "trace",
        "counters",
        "policy",
        "termination",
        "plant",
    ],
    &["memory", "message", "spark_keys", "own_keys", "unknown_key", "config", "config_source"],
    &[
        "wire/read",
        "wire/frame",
        "wire/prescan",
        "wire/rope",
        "wire/spare",
        "wire/encoded",
        "wire/in_place",
        "wire/payload",
        "wire/wire_type",
        "wire/mod",
    ],
    &["call_alarm", "seam", "terminated", "deadlines"],
    &[
        "proto/close",
        "proto/known",
        "proto/calls",
        "proto/assembly",
        "proto/serving",
        "proto/store",
        "proto/headers",
        "proto/hello",
        "proto/resolution",
        "proto/notice",
        "proto/named",
        "proto/waiting",
        "proto/queue",
        "proto/target",
        "proto/numbers",
        "proto/targets",
        "proto/large",
        "proto/lanes",
        "proto/pulse",
        "proto/bodies",
        "proto/message_frame",
        "proto/arrivals",
        "proto/session",
        "proto/counting",
        "proto/releasing",
        "proto/relaying",
        "proto/watching",
        "proto/transmitting",
        "proto/admitting",
        "proto/sending",
        "proto/ending",
        "proto/answering",
        "proto/connection",
        "proto/incoming",
        "proto/frames",
        "proto/landing",
        "proto/sound",
        "proto/mod",
    ],
    &["timers", "core", "scope"],
    &[
        "gate",
        "block",
        "handoff",
        "local_call",
        "ticket",
        "reply_sink",
        "open_call",
        "delivery",
        "row",
        "turns",
        "watches",
        "share",
        "credit",
        "behind",
        "inbox",
        "alarm",
        "stopping",
        "taking",
        "room",
        "window",
        "dispatcher",
        "beat",
        "turn",
        "turn_end",
        "later",
        "status",
    ],
    &["raw", "raw_ref", "watch", "call_context", "ask", "endpoint_ref"],
    &["env"],
    &["guard", "context", "current", "handlers", "endpoint"],
    &["running", "yielding", "cell", "setup"],
    &["factory"],
    &["local/executor", "local/link", "local/backend", "local/mod"],
    &["spi"],
    &[
        "fuzz/input",
        "fuzz/shapes",
        "fuzz/texts",
        "fuzz/bodies",
        "fuzz/frames",
        "fuzz/tables",
        "fuzz/hostile",
        "fuzz/passing",
        "fuzz/mod",
    ],
    &["lib"],
];

/// The same for rpc-actix. `dispatch` and `net` are siblings.
const ACTIX: &[&[&str]] = &[
    &["planted", "rt", "options"],
    &["dispatch/worker", "dispatch/actor", "dispatch/host", "dispatch/mod"],
    &[
        "net/transport",
        "net/tcp",
        "net/backoff",
        "net/pen",
        "net/link",
        "net/beside",
        "net/taken",
        "net/calls",
        "net/binding",
        "net/relay",
        "net/bindings",
        "net/buffer",
        "net/busy",
        "net/peers",
        "net/admission",
        "net/complaints",
        "net/handshake",
        "net/target",
        "net/driver",
        "net/delivering",
        "net/writing",
        "net/node",
        "net/dialing",
        "net/listening",
        "net/resolving",
        "net/telling",
        "net/mod",
    ],
    &["backend"],
    &["factory"],
    &[
        "sim/random",
        "sim/blocking",
        "sim/trace",
        "sim/weather",
        "sim/pipe",
        "sim/connection",
        "sim/host",
        "sim/network",
        "sim/transport",
        "sim/node",
        "sim/world",
        "sim/simulation",
        "sim/mod",
    ],
    &["lib"],
];

/// Imports that go against that, each with its reason. One that is not needed any more fails.
const CORE_EXCEPTIONS: &[(&str, &str)] = &[
    // A world holds its envs, and an env its world: three files of one thing.
    ("local/link", "local/backend"),
    ("local/link", "local/mod"),
    ("local/backend", "local/mod"),
];

const ACTIX_EXCEPTIONS: &[(&str, &str)] = &[
    // A link, and how what it has to say is written: two files of one thing.
    ("net/link", "net/beside"),
    // The node makes them, and they hold it.
    ("net/handshake", "net/node"),
    ("net/target", "net/node"),
    ("net/driver", "net/node"),
    // A simulation makes its nodes, and each of them is in it.
    ("sim/node", "sim/world"),
];

#[test]
fn imports_of_rpc_core_point_downwards() {
    assert_eq!(violations(&sources("rpc-core"), CORE, CORE_EXCEPTIONS), Vec::<String>::new());
}

#[test]
fn imports_of_rpc_actix_point_downwards() {
    let sources = sources("rpc-actix");
    assert_eq!(violations(&sources, ACTIX, ACTIX_EXCEPTIONS), Vec::<String>::new());
    // The siblings meet where an env's network is put together, and nowhere else.
    for (file, text) in &sources {
        for target in imports(file, text, &sources) {
            let (from, to) = (folder(file), folder(&target));
            let meet = (from, to) == ("net", "dispatch") && file != "net/node"
                || (from, to) == ("dispatch", "net");
            assert!(!meet, "{file} imports {target}");
        }
    }
}

/// The check is not blind: what it has to find is found.
#[test]
fn an_upward_import_is_found() {
    for (file, line, found) in [
        ("error", "use crate::config::RpcEnvConfig;", "error imports config"),
        ("inbox", "fn f() { crate::env::drive(); }", "inbox imports env"),
        ("proto/calls", "use super::session::Session;", "proto/calls imports proto/session"),
        ("proto/calls", "use crate::proto::Session;", "proto/calls imports proto/mod"),
        ("wire/read", "use super::{frame, payload};", "wire/read imports wire/frame"),
        ("context", "use crate::{cell::EndpointCell, raw};", "context imports cell"),
    ] {
        let mut sources = sources("rpc-core");
        let text = sources.get_mut(file).unwrap();
        *text = format!("{line}\n{text}");
        let violations = violations(&sources, CORE, CORE_EXCEPTIONS);
        assert!(violations.iter().any(|violation| violation == found), "{line}: {violations:?}");
    }
}

#[test]
fn rpc_core_depends_on_no_runtime() {
    let lock = Lock::read();
    let reached = lock.closure("rpc-core");
    assert!(reached.contains("rmp-serde"), "the lock file is not read right: {reached:?}");
    for package in &reached {
        let runtimes = ["tokio", "actix", "mio", "socket2", "async-", "smol", "hyper", "polling"];
        let is_runtime = runtimes.iter().any(|runtime| package.starts_with(runtime));
        assert!(!is_runtime, "rpc-core depends on {package}");
    }
    assert!(lock.closure("rpc-actix").contains("tokio"));
}

#[test]
fn rpc_core_reads_no_clock_and_opens_nothing() {
    let sources = sources("rpc-core");
    let forbidden = [
        "Instant",
        "SystemTime",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "std::fs",
        "std::process",
        "std::env",
        "thread::spawn",
        "thread::sleep",
        "thread::Builder",
        "getrandom",
        "RandomState",
    ];
    assert_eq!(uses(&sources, &forbidden, &[]), Vec::<String>::new());
    // The one file that knows how bodies are written.
    assert_eq!(uses(&sources, &["rmp_serde"], &["wire/payload"]), Vec::<String>::new());
}

#[test]
fn the_runtime_is_at_arms_length() {
    let sources = sources("rpc-actix");
    let forbidden = [
        "Instant",
        "SystemTime",
        "tokio::time",
        "tokio::spawn",
        "tokio::task",
        "spawn_local",
        "actix_rt::spawn",
        "actix::spawn",
        "actix::clock",
        "thread::sleep",
        "run_later",
        "run_interval",
    ];
    assert_eq!(uses(&sources, &forbidden, &["rt"]), Vec::<String>::new());
    // Threads are started in one place; a simulation has one as a whole.
    let threads = ["thread::Builder", "thread::spawn", "System::new", "Arbiter::new"];
    assert_eq!(
        uses(&sources, &threads, &["dispatch/host", "sim/simulation"]),
        Vec::<String>::new()
    );
    // Sockets are opened in one place.
    let sockets = ["tokio::net", "socket2"];
    assert_eq!(uses(&sources, &sockets, &["net/tcp"]), Vec::<String>::new());
}

/// Which branch of a `select!` comes first is otherwise drawn by tokio, and a simulation would not
/// repeat itself.
#[test]
fn nothing_is_left_to_chance_in_a_select() {
    let mut checked = 0;
    for (file, text) in sources("rpc-actix") {
        for (at, _) in text.match_indices("select! {") {
            let mut lines = text[at..].lines().skip(1).map(str::trim);
            assert_eq!(lines.find(|line| !line.is_empty()), Some("biased;"), "in {file}");
            checked += 1;
        }
    }
    assert!(checked >= 8, "{checked}");
}

#[test]
fn no_actix_type_is_public() {
    for (file, text) in sources("rpc-actix") {
        let mut foreign = BTreeSet::from(["actix".to_owned(), "actix_rt".to_owned()]);
        for line in text.lines().filter(|line| line.starts_with("use actix")) {
            foreign.extend(words(line).skip(1).map(str::to_owned));
        }
        foreign.remove("self");
        for line in text.lines().filter(|line| line.trim_start().starts_with("pub ")) {
            let named = words(line).find(|word| foreign.contains(*word));
            assert_eq!(named, None, "in {file}: {line}");
        }
    }
}

/// Versions below these have known faults (reliability, section 1.5).
#[test]
fn dependencies_are_above_their_floors() {
    let floors = [
        ("tokio", [1, 44, 2]),
        ("rustls", [0, 23, 18]),
        ("tokio-rustls", [0, 26, 0]),
        ("rmp-serde", [1, 1, 1]),
        ("snow", [0, 9, 5]),
        ("crossbeam-channel", [0, 5, 15]),
        ("ring", [0, 17, 12]),
    ];
    let lock = Lock::read();
    let mut checked = 0;
    for (name, floor) in floors {
        for version in lock.versions.get(name).into_iter().flatten() {
            assert!(version.as_slice() >= floor.as_slice(), "{name} {version:?} < {floor:?}");
            checked += 1;
        }
    }
    assert!(checked >= 2, "tokio and rmp-serde are there");
}

// Reading the source.

type Sources = BTreeMap<String, String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The code of a crate by file (`proto/calls`), without comments and unit tests.
fn sources(of: &str) -> Sources {
    let (mut found, src) = (Sources::new(), root().join(of).join("src"));
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&src).unwrap().with_extension("");
                let name = name.to_str().unwrap().replace('\\', "/");
                found.insert(name, code(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.retain(|name, _| !name.ends_with("/tests") && !name.contains("/tests/"));
    assert!(found.len() > 10, "{of}");
    found
}

fn code(text: &str) -> String {
    let shipped = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = shipped.lines().map(|line| match line.find("//") {
        // A URL in a string is not a comment.
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    });
    lines.fold(String::new(), |all, line| all + line + "\n")
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn folder(file: &str) -> &str {
    file.split_once('/').map_or("", |(folder, _)| folder)
}

/// The files of the crate that a file names, by `crate::` and `super::`.
fn imports(file: &str, text: &str, all: &Sources) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (prefix, base) in [("crate::", ""), ("super::", folder(file))] {
        for (at, _) in text.match_indices(prefix) {
            let path = text.get(at + prefix.len()..).unwrap_or_default();
            let group = path.strip_prefix('{').and_then(|rest| rest.split_once("};"));
            let paths = match group {
                Some((inside, _)) => inside.split(',').map(str::trim).collect(),
                None => vec![path],
            };
            let targets = paths.iter().filter(|path| !path.is_empty());
            found.extend(targets.filter_map(|path| resolve(base, path, all)));
        }
    }
    found.remove(file);
    found
}

/// The file that a path leads to: that of its longest part which is a module.
fn resolve(base: &str, path: &str, all: &Sources) -> Option<String> {
    let segments: Vec<_> = path.split("::").map(|part| words(part).next().unwrap_or("")).collect();
    let known = |module: &str| {
        let file = module.trim_matches('/').to_owned();
        let folder = if file.is_empty() { "lib".to_owned() } else { format!("{file}/mod") };
        [file, folder].into_iter().find(|name| all.contains_key(name))
    };
    (0..=segments.len().min(2))
        .rev()
        .find_map(|length| known(&format!("{base}/{}", segments.get(..length)?.join("/"))))
}

/// The imports that go up, and what is wrong with the table itself.
fn violations(sources: &Sources, floors: &[&[&str]], exceptions: &[(&str, &str)]) -> Vec<String> {
    let order: Vec<&str> = floors.iter().copied().flatten().copied().collect();
    let height = |file: &str| order.iter().position(|known| *known == file);
    let mut wrong = Vec::new();
    let mut needed = BTreeSet::new();
    for (file, text) in sources {
        let Some(own) = height(file) else {
            wrong.push(format!("{file} is on no floor"));
            continue;
        };
        for target in imports(file, text, sources) {
            if height(&target).is_some_and(|other| other < own) {
                continue;
            }
            let pair = (file.as_str(), target.as_str());
            match exceptions.iter().find(|exception| **exception == pair) {
                Some(exception) => drop(needed.insert(exception)),
                None => wrong.push(format!("{file} imports {target}")),
            }
        }
    }
    let gone = order.iter().filter(|file| !sources.contains_key(**file));
    wrong.extend(gone.map(|file| format!("{file} is not there")));
    let idle = exceptions.iter().filter(|exception| !needed.contains(exception));
    wrong.extend(idle.map(|(from, to)| format!("{from} imports {to} no more")));
    wrong
}

/// The lines that name one of those things, outside of the files that may.
fn uses(sources: &Sources, forbidden: &[&str], except: &[&str]) -> Vec<String> {
    let others = sources.iter().filter(|(file, _)| !except.contains(&file.as_str()));
    let lines = others.flat_map(|(file, text)| text.lines().map(move |line| (file, line)));
    let naming = lines.filter(|(_, line)| forbidden.iter().any(|name| names(line, name)));
    naming.map(|(file, line)| format!("{file}: {}", line.trim())).collect()
}

/// Whether a line has a name as a whole word.
fn names(line: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_word);
        let after = line[at + name.len()..].chars().next().is_some_and(is_word);
        !before && (!after || name.ends_with('-'))
    })
}

// Reading the lock file.

struct Lock {
    dependencies: BTreeMap<String, BTreeSet<String>>,
    versions: BTreeMap<String, Vec<Vec<u64>>>,
}

impl Lock {
    fn read() -> Self {
        let text = fs::read_to_string(root().join("Cargo.lock")).unwrap();
        let mut lock = Self { dependencies: BTreeMap::new(), versions: BTreeMap::new() };
        for package in text.split("[[package]]").skip(1) {
            let field = |name: &str| {
                let line = package.lines().find(|line| line.starts_with(&format!("{name} = ")));
                line.and_then(|line| line.split('"').nth(1)).unwrap().to_owned()
            };
            let needs = package.split_once("dependencies = [").map_or("", |(_, list)| list);
            let needs = needs.split(']').next().unwrap_or("").split('"').skip(1).step_by(2);
            let needs = needs.filter_map(|need| need.split(' ').next()).map(str::to_owned);
            lock.dependencies.entry(field("name")).or_default().extend(needs);
            let version = field("version");
            let numbers = version.split(['.', '-', '+']).take(3).map(|part| part.parse().unwrap());
            lock.versions.entry(field("name")).or_default().push(numbers.collect());
        }
        lock
    }

    /// Everything that a package depends on.
    fn closure(&self, package: &str) -> BTreeSet<String> {
        let (mut found, mut open) = (BTreeSet::new(), vec![package.to_owned()]);
        while let Some(next) = open.pop() {
            for need in self.dependencies.get(&next).into_iter().flatten() {
                if found.insert(need.clone()) {
                    open.push(need.clone());
                }
            }
        }
        found
    }
}
