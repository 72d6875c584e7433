//! Every function that takes bytes, and every one that takes text where texts come in, is in
//! `rpc-core/fuzz/inputs.toml`: with the fuzz targets that reach it, or with the reason why nothing
//! from outside comes to it.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What bytes look like among the parameters of a function.
const BYTES: &[&str] = &["[u8]", "Bytes", "BytesMut", "Reader<'_>"];
/// And text.
const TEXT: &[&str] = &["str", "String"];
/// Where texts come in: in other files they are names of this env's own.
const TEXTS_COME_IN: &[&str] = &[
    "rpc-core/address/",
    "rpc-core/config",
    "rpc-core/config_source",
    "rpc-core/unknown_key",
    "rpc-core/limits",
    "rpc-core/deadline",
    "rpc-core/trace",
    "rpc-core/error",
    "rpc-core/remote_failure",
    "rpc-core/env",
    "rpc-core/endpoint_ref",
    "rpc-core/proto/",
    "rpc-core/wire/",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn every_function_that_takes_bytes_or_text_has_a_target_or_a_reason() {
    let table = Table::read();
    let mut found = BTreeSet::new();
    for of in ["rpc-core", "rpc-actix"] {
        for (file, text) in sources(&root().join(of).join("src")) {
            let file = format!("{of}/{file}");
            let texts = TEXTS_COME_IN
                .iter()
                .any(|place| file == *place || place.ends_with('/') && file.starts_with(place));
            let names = takers(&text, texts);
            found.extend(names.into_iter().map(|name| format!("{file}::{name}")));
        }
    }
    assert!(found.len() > 100, "only {} functions were found", found.len());
    let missing: Vec<_> = found.iter().filter(|name| !table.knows(name)).collect();
    assert!(missing.is_empty(), "without a target or a reason: {missing:#?}");
    let gone: Vec<_> = table.names().filter(|name| !is_there(name, &found)).collect();
    assert!(gone.is_empty(), "not there any more: {gone:#?}");
}

#[test]
fn the_targets_of_the_table_are_there_and_each_is_named() {
    let table = Table::read();
    let named: BTreeSet<_> = table.targets.values().flatten().cloned().collect();
    let folder = root().join("rpc-core/fuzz/fuzz_targets");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let known: BTreeSet<_> =
        files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(named, known);
}

/// The search is not blind.
#[test]
fn a_function_that_takes_bytes_is_found() {
    let text = "impl X {\n    pub(crate) fn read<T: A<'a>>(\n        &self,\n        a: &'a [u8],\n    ) -> u8 {}\n}\n\
                fn plain(a: u8, b: Stream) {}\nfn to_text(&self) -> &str {}\nfn of(name: impl AsRef<str>) {}\n\
                fn ours(name: &'static str) {}\n\
                #[derive(Debug, Deserialize)]\n#[serde(default)]\npub struct Told<T> {}\n";
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(takers(text, true), named(&["read", "of", "Told"]));
    assert_eq!(takers(text, false), named(&["read", "Told"]));
}

struct Table {
    /// A function, and the targets that reach it.
    targets: BTreeMap<String, Vec<String>>,
    /// A function, or all of a file (`file::*`), and why nothing from outside comes to it.
    inside: BTreeMap<String, String>,
}

impl Table {
    fn read() -> Self {
        let text = fs::read_to_string(root().join("rpc-core/fuzz/inputs.toml")).unwrap();
        let table: toml::Table = text.parse().unwrap();
        let section = |name: &str| table[name].as_table().unwrap().clone();
        let list = |value: toml::Value| value.try_into::<Vec<String>>().unwrap();
        let targets = section("targets").into_iter().map(|(name, value)| (name, list(value)));
        let inside = section("inside").into_iter();
        let inside = inside.map(|(name, value)| (name, value.as_str().unwrap().to_owned()));
        Self { targets: targets.collect(), inside: inside.collect() }
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.targets.keys().chain(self.inside.keys())
    }

    fn knows(&self, name: &str) -> bool {
        let file = name.split("::").next().unwrap();
        [name, &format!("{file}::*")]
            .iter()
            .any(|name| self.targets.contains_key(*name) || self.inside.contains_key(*name))
    }
}

fn is_there(name: &str, found: &BTreeSet<String>) -> bool {
    match name.strip_suffix("::*") {
        Some(file) => found.iter().any(|found| found.split("::").next() == Some(file)),
        None => found.contains(name),
    }
}

/// The code of a crate by file (`proto/calls`), without comments and tests.
fn sources(src: &Path) -> BTreeMap<String, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![src.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(src).unwrap().with_extension("");
            let name = name.to_str().unwrap().replace('\\', "/");
            let is_test = name.ends_with("tests") || name.starts_with("fuzz") || name == "sim";
            if is_test {
            } else if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(name, code(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

fn code(text: &str) -> String {
    let shipped = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = shipped.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.fold(String::new(), |all, line| all + line + "\n")
}

/// The functions that have bytes, or text, among their parameters, and the types that are read.
fn takers(text: &str, texts: bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("fn ") {
        let before = text[..at].chars().next_back();
        let signature = &text[at + 3..];
        let name: String = signature.chars().take_while(|c| is_word(*c)).collect();
        let takes = parameters(signature).is_some_and(|list| {
            let list = list.replace("&'static str", "").replace("VecDeque<Bytes>", "");
            let any = |kinds: &[&str]| kinds.iter().any(|kind| names(&list, kind));
            any(BYTES) || texts && any(TEXT)
        });
        if takes && !name.is_empty() && before.is_none_or(char::is_whitespace) {
            found.insert(name);
        }
    }
    for (at, _) in text.match_indices("derive(") {
        let (list, after) = text[at + 7..].split_once(")]").unwrap_or_default();
        let after = after.split_once("struct ").into_iter().chain(after.split_once("enum "));
        let next = after.min_by_key(|(before, _)| before.len()).map(|(_, after)| after);
        if list.split(", ").any(|derived| derived == "Deserialize") {
            found.extend(next.map(|next| next.chars().take_while(|c| is_word(*c)).collect()));
        }
    }
    found
}

/// What stands between the parentheses of a function's signature, behind its generics.
fn parameters(signature: &str) -> Option<&str> {
    let (mut angles, mut parens, mut start) = (0, 0, None);
    let mut last = ' ';
    for (at, letter) in signature.char_indices() {
        match letter {
            '<' => angles += 1,
            '>' if last != '-' => angles -= 1,
            '(' => {
                if angles == 0 && parens == 0 {
                    start = Some(at + 1);
                }
                parens += 1;
            }
            ')' => {
                parens -= 1;
                if let Some(start) = start.filter(|_| parens == 0) {
                    return signature.get(start..at);
                }
            }
            '{' | ';' if start.is_none() => return None,
            _ => {}
        }
        last = letter;
    }
    None
}

/// Whether a type is named as a whole word.
fn names(list: &str, name: &str) -> bool {
    list.match_indices(name).any(|(at, _)| {
        let before = list[..at].chars().next_back().is_some_and(is_word);
        let after = list[at + name.len()..].chars().next().is_some_and(is_word);
        !before && (!after || !name.ends_with(is_word))
    })
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}
