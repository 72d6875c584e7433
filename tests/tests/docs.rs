//! The pages say what the code says: keys, examples, links.
#![cfg(test)]

use rpc_core::{ConfigKey, Counters, RpcEnvConfig, Unit};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// README.md and the pages in docs/, by their paths from the root.
fn pages() -> Vec<(String, String)> {
    let root = root();
    let docs = fs::read_dir(root.join("docs")).unwrap();
    let docs = docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().display()));
    let mut names: Vec<String> = docs.filter(|name| name.ends_with(".md")).collect();
    names.push("README.md".to_owned());
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let text = fs::read_to_string(root.join(&name)).unwrap();
            (name, text)
        })
        .collect()
}

const CONFIG_INTRO: &str = "\
# Configuration

Every setting of an env. Set them

- with `RpcEnvConfig::set(key, value)`, or many at once with `set_all` and `from_pairs`;
- from a TOML document with `set_toml`, dotted or in tables;
- from variables with `set_env_vars`: with the prefix `MYAPP_`, `MYAPP_RPC_ASK_TIMEOUT` is
  `rpc.askTimeout`;
- with the setter of the same meaning: `with_ask_timeout`, ..., and for limits those of `Limits`.

A key that is not known, and a value that is not of its form, is an error that names the key.

| unit | written as |
|---|---|
| duration | a whole number with `us`, `ms`, `s`, `min` or `h`: `500ms`, `10s`, `2min` |
| size | a whole number of bytes, or with `k`, `m`, `g` (1,024 each): `4096`, `64k`, `16MiB` |
| number | a whole number |
| text | as it is |

This page is written by `UPDATE_DOCS=1 cargo test -p rpc-tests --test docs`. The last column names the
lines of the behaviours (S) and limits (L, R) that a key answers to.
";

fn key_table(text: &mut String, title: &str, keys: impl Fn(&ConfigKey) -> bool) {
    writeln!(text, "\n## {title}\n").unwrap();
    writeln!(text, "| key | default | unit | range | meaning | answers to |").unwrap();
    writeln!(text, "|---|---|---|---|---|---|").unwrap();
    for key in RpcEnvConfig::known_keys().filter(|key| keys(key)) {
        let default =
            if key.default.is_empty() { "-".to_owned() } else { format!("`{}`", key.default) };
        let expected = key.expected();
        let range = expected.split_once(" from ").map_or("", |(_, range)| range);
        let range = range.split(", as in").next().unwrap_or_default();
        let (name, meaning, answers) = (key.name, key.meaning, key.answers);
        assert!(!meaning.contains('|'), "{name}");
        let unit = key.unit;
        writeln!(text, "| `{name}` | {default} | {unit} | {range} | {meaning} | {answers} |")
            .unwrap();
    }
}

fn config_page() -> String {
    let mut page = CONFIG_INTRO.to_owned();
    let is_backend = |key: &ConfigKey| key.name.starts_with("rpc.actix.");
    // What is neither text nor a time of the env is a limit, and so are the times of connections.
    let is_limit = |key: &ConfigKey| {
        let of_env = ["rpc.askTimeout", "rpc.lookupTimeout", "rpc.network.timeout"];
        let of_env = of_env.iter().chain(&["rpc.io.connectTimeout", "rpc.shutdown.drainTimeout"]);
        key.unit != Unit::Text
            && key.name != "port.maxRetries"
            && !of_env.into_iter().any(|name| key.name == *name)
    };
    key_table(&mut page, "The env", |key| !is_backend(key) && !is_limit(key));
    key_table(&mut page, "Limits", |key| !is_backend(key) && is_limit(key));
    key_table(&mut page, "The actix backend", is_backend);
    spark_table(&mut page);
    page
}

const SPARK_INTRO: &str = "
## Spark's keys

None of these can be set; the error of one that is says what its row says. A name that ends in a dot
stands for all that begin like this.

| Spark's | here | |
|---|---|---|
";

fn spark_table(text: &mut String) {
    text.push_str(SPARK_INTRO);
    for key in RpcEnvConfig::spark_keys() {
        let here = key.here.map_or_else(|| "-".to_owned(), |here| format!("`{here}`"));
        writeln!(text, "| `{}` | {here} | {} |", key.name, key.note).unwrap();
    }
}

#[test]
fn config_page_is_what_the_code_says() {
    let (path, want) = (root().join("docs/CONFIG.md"), config_page());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &want).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    for (found, want) in found.lines().zip(want.lines()) {
        assert_eq!(found, want, "write docs/CONFIG.md again with UPDATE_DOCS=1");
    }
    assert_eq!(found.len(), want.len(), "write docs/CONFIG.md again with UPDATE_DOCS=1");
}

const COUNTERS_HEAD: &str = "| counter | what it counts |\n|---|---|\n";

#[test]
fn the_table_of_counters_is_what_the_code_says() {
    let path = root().join("docs/GUIDE.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(COUNTERS_HEAD).unwrap();
    let (found, after) = rest.split_once("\n\n").unwrap();
    let row = |(name, meaning): (&str, &str)| format!("| `{name}` | {meaning} |");
    let want = Counters::meanings().map(row).collect::<Vec<_>>().join("\n");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, [before, COUNTERS_HEAD, &want, "\n\n", after].concat()).unwrap();
    } else {
        assert_eq!(found, want, "write docs/GUIDE.md again with UPDATE_DOCS=1");
    }
}

#[test]
fn every_rust_block_is_a_doctest() {
    let module = fs::read_to_string(root().join("tests/src/documentation.rs")).unwrap();
    for (name, text) in pages() {
        let has_rust = text.lines().any(|line| line == "```rust" || line.starts_with("```rust,"));
        let is_tested = module.contains(&format!("include_str!(\"../../{name}\")"));
        assert!(is_tested || !has_rust, "{name} is not in tests/src/documentation.rs");
        let is_ignored = text.lines().any(|line| line.contains("rust,ignore"));
        assert!(!is_ignored, "{name} has an example that nothing compiles");
    }
}

/// What stands between backticks.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with("```")).flat_map(|line| {
        let spans = line.split('`').skip(1).step_by(2);
        spans.collect::<Vec<_>>()
    })
}

#[test]
fn keys_in_pages_are_keys() {
    for (name, text) in pages() {
        for span in code_spans(&text) {
            let is_key = span.starts_with("rpc.") || span.starts_with("port.");
            if is_key && span.chars().all(|c| c.is_ascii_alphabetic() || c == '.') {
                let known = RpcEnvConfig::known_keys().any(|key| key.name == span);
                assert!(known, "{name} names the key {span}, which is not one");
            }
        }
    }
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_somewhere() {
    for (name, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, to) = link.split_once('#').unwrap_or((link, ""));
            let file = match (file.is_empty(), file.strip_prefix("../")) {
                (true, _) => name.to_owned(),
                (_, Some(above)) => above.to_owned(),
                (_, None) if name.starts_with("docs/") => format!("docs/{file}"),
                (_, None) => file.to_owned(),
            };
            let target = fs::read_to_string(root().join(&file));
            let target = target.unwrap_or_else(|_| panic!("{name} links to {link}"));
            let mut headings = target.lines().filter(|line| line.starts_with('#')).map(anchor);
            assert!(to.is_empty() || headings.any(|known| known == to), "{name}: no #{to}");
        }
    }
}
