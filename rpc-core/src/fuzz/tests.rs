//! The inputs that are kept, and a few that come of them by chance: without any tool.

use super::{TARGETS, prescan_vs_serde};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// How many inputs made by chance a plain test run tries for each target.
const BY_CHANCE: usize = 300;
/// And how long they may become.
const LONGEST: usize = 4096;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The names of the files in a folder, in an order that does not change.
fn names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut names: Vec<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The kept inputs of a target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = folder().join("corpus").join(target);
    let inputs: Vec<_> =
        names(&folder).iter().map(|name| fs::read(folder.join(name)).unwrap()).collect();
    assert!(!inputs.is_empty(), "{target} has no corpus");
    inputs
}

/// The words of the dictionary.
fn words() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(folder().join("dictionary")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| unescaped(line.trim_matches('"'))).collect()
}

/// `\xff` is a byte, and a backslash or a quote has a backslash before it.
fn unescaped(word: &str) -> Vec<u8> {
    let (mut bytes, mut letters) = (Vec::new(), word.bytes());
    while let Some(letter) = letters.next() {
        let escaped = if letter == b'\\' { letters.next() } else { None };
        bytes.push(match escaped {
            None => letter,
            Some(b'x') => letters
                .by_ref()
                .take(2)
                .fold(0, |byte, digit| byte << 4 | char::from(digit).to_digit(16).unwrap() as u8),
            Some(other) => other,
        });
    }
    bytes
}

/// Inputs made of others. The same seed makes the same ones.
struct Chance {
    state: u64,
    words: Vec<Vec<u8>>,
}

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % end.max(1) as u64) as usize
    }

    fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(input.len());
            let end = at + self.below(input.len().saturating_sub(at).min(32));
            match self.below(6) {
                0 => input.truncate(end),
                1 => drop(input.drain(at..end)),
                2 => {
                    let place = self.below(self.words.len());
                    input.splice(at..at, self.words[place].iter().copied());
                }
                3 => {
                    let part = input[at..end].to_vec();
                    input.extend(part);
                }
                4 => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len());
                    input.splice(at.., other[from..].iter().copied());
                }
                _ => {
                    let byte = self.below(256) as u8;
                    if let Some(place) = input.get_mut(at) {
                        *place = byte;
                    }
                }
            }
        }
        input.truncate(LONGEST);
        input
    }
}

/// Runs one input; one that fails is left where a fuzzer would leave it.
fn try_one(name: &str, target: &dyn Fn(&[u8]), input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let found = folder().join("artifacts").join(name).join("found-by-test");
        fs::create_dir_all(found.parent().unwrap()).unwrap();
        fs::write(&found, input).unwrap();
        panic!("the target {name} has failed; its input is in {}", found.display());
    }
}

fn replay(name: &str, target: &dyn Fn(&[u8])) {
    let corpus = corpus(name);
    corpus.iter().for_each(|input| try_one(name, target, input));
    let seed = name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) ^ u64::from(byte));
    let mut chance = Chance { state: seed, words: words() };
    for _ in 0..BY_CHANCE {
        let input = chance.input(&corpus);
        try_one(name, target, &input);
    }
}

#[test]
fn what_was_kept_and_what_comes_of_it_keeps_every_promise() {
    for (name, target) in TARGETS {
        replay(name, target);
    }
}

#[test]
fn what_the_scan_lets_through_decodes_within_its_memory() {
    let measure = |run: &mut dyn FnMut()| allocation_counter::measure(run).bytes_max;
    replay("prescan_vs_serde", &|input| prescan_vs_serde(input, measure));
}

/// A target has a file for the fuzzer, and a corpus, and there are no others.
#[test]
fn every_target_can_be_run() {
    let mut known: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    known.push("prescan_vs_serde".to_owned());
    known.sort();
    assert_eq!(names(&folder().join("corpus")), known);
    let files: Vec<_> = known.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&folder().join("fuzz_targets")), files);
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    for name in &known {
        assert!(manifest.contains(&format!("fuzz_targets/{name}.rs")), "{name}");
    }
}

#[test]
fn words_are_read_as_a_fuzzer_reads_them() {
    assert_eq!(unescaped(r#"a\xc1\\\"b"#), b"a\xc1\\\"b");
    assert!(words().contains(&vec![0xdd, 0xff, 0xff, 0xff, 0xff]));
}
