//! The word count.

use super::Job;
use super::job::fnv;
use super::pi::mix;
use crate::input::{self, FileRange};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

/// Counts the words of files and folders.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct WordCount;

/// What to count.
#[derive(Clone, Debug, Args, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WordCountParams {
    /// Files and folders; workers must be able to read them under the same paths
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// How many of the most frequent words are printed
    #[arg(long, default_value_t = 10)]
    pub top: usize,
    /// Of folders, only files with these extensions
    #[arg(long = "ext", value_name = "EXT", value_delimiter = ',')]
    pub extensions: Vec<String>,
    /// Take files up to this size in all
    #[arg(long)]
    pub max_mib: Option<u64>,
    /// About how much one task reads
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub split_kib: u64,
}

impl WordCountParams {
    fn files(&self) -> anyhow::Result<Vec<input::InputFile>> {
        let most = self.max_mib.map(|mib| mib.saturating_mul(1024 * 1024));
        input::find(&self.paths, &self.extensions, most)
    }
}

/// Parts of files.
#[derive(Debug, Serialize, Deserialize)]
pub struct WordSplit {
    ranges: Vec<FileRange>,
}

/// The most frequent words, and enough of the rest to tell two counts apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WordCounts {
    /// All words.
    pub words: u64,
    /// Different ones.
    pub distinct: u64,
    /// The sum of a hash of each word with its count: two counts that differ in any word differ
    /// here.
    pub digest: u64,
    /// The most frequent first, in order of the alphabet where they are equally frequent.
    pub top: Vec<(String, u64)>,
}

impl WordCounts {
    fn new(counts: HashMap<String, u64>, top: usize) -> Self {
        let mut all = Self::default();
        for (word, &count) in &counts {
            all.words += count;
            all.distinct += 1;
            all.digest = all.digest.wrapping_add(mix(mix(fnv(word.as_bytes())) ^ count));
        }
        all.top = most_frequent(counts.into_iter().collect(), top);
        all
    }
}

fn most_frequent(mut words: Vec<(String, u64)>, top: usize) -> Vec<(String, u64)> {
    words.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
    words.truncate(top);
    words
}

impl Job for WordCount {
    const NAME: &'static str = "word-count";
    const ABOUT: &'static str = "Counts the words of files and folders";
    type Params = WordCountParams;
    type Split = WordSplit;
    type Key = String;
    type Value = u64;
    type Part = WordCounts;
    type Outcome = WordCounts;

    fn splits(&self, params: &WordCountParams) -> anyhow::Result<Vec<WordSplit>> {
        let splits = input::split(&params.files()?, params.split_kib.saturating_mul(1024));
        Ok(splits.into_iter().map(|ranges| WordSplit { ranges }).collect())
    }

    fn map(
        &self,
        _params: &WordCountParams,
        split: WordSplit,
        emit: &mut dyn FnMut(String, u64),
    ) -> anyhow::Result<()> {
        let mut counts = HashMap::new();
        for range in &split.ranges {
            count(&input::read(range)?, &mut counts);
        }
        counts.into_iter().for_each(|(word, count)| emit(word, count));
        Ok(())
    }

    fn combine(&self, into: &mut u64, value: u64) {
        *into += value;
    }

    fn reduce(
        &self,
        params: &WordCountParams,
        counts: HashMap<String, u64>,
    ) -> anyhow::Result<WordCounts> {
        Ok(WordCounts::new(counts, params.top))
    }

    fn finish(
        &self,
        params: &WordCountParams,
        parts: Vec<WordCounts>,
    ) -> anyhow::Result<WordCounts> {
        let mut all = WordCounts::default();
        for part in parts {
            all.words += part.words;
            all.distinct += part.distinct;
            all.digest = all.digest.wrapping_add(part.digest);
            all.top.extend(part.top);
        }
        all.top = most_frequent(all.top, params.top);
        Ok(all)
    }

    fn single_threaded(&self, params: &WordCountParams) -> anyhow::Result<WordCounts> {
        let mut counts = HashMap::new();
        for file in params.files()? {
            let mut reader = BufReader::new(File::open(&file.path)?);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line)? > 0 {
                count(&line, &mut counts);
                line.clear();
            }
        }
        Ok(WordCounts::new(counts, params.top))
    }
}

/// Looks each word up before it makes a key of it, because most have been seen before.
fn count(bytes: &[u8], counts: &mut HashMap<String, u64>) {
    input::for_each_word(bytes, |word| match counts.get_mut(word) {
        Some(count) => *count += 1,
        None => {
            counts.insert(word.to_owned(), 1);
        }
    });
}

impl fmt::Display for WordCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.top.iter().map(|(_, count)| count.to_string().len()).max().unwrap_or(0);
        for (word, count) in &self.top {
            writeln!(f, "{count:>width$}  {word}")?;
        }
        let Self { words, distinct, digest, .. } = self;
        write!(f, "{words} words, {distinct} different, digest {digest:016x}")
    }
}
