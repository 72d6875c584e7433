//! What a job is, and the same without its types, as executors run it.

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, FromArgMatches};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;

/// A job of two stages: map tasks make pairs of key and value from splits of the input, and
/// reduce tasks get all pairs of a part of the keys.
///
/// To add one, write this trait for a type and put it in the [`JobRegistry`](super::JobRegistry)
/// that the program's `main` passes to [`run`](crate::run). Executors are the same program, so
/// they know it as well. [`Pi`](super::Pi) is the smallest example.
///
/// Tasks run more than once when processes die, so `map` and `reduce` give the same for the same
/// input and change nothing outside.
pub trait Job: fmt::Debug + Send + Sync + 'static {
    /// What the job is called on the command line.
    const NAME: &'static str;
    /// What it does, in a line.
    const ABOUT: &'static str;
    /// Its own options on the command line; every task gets them.
    type Params: Args + Serialize + DeserializeOwned;
    /// The input of one map task.
    type Split: Serialize + DeserializeOwned;
    /// What pairs are brought together by.
    type Key: Serialize + DeserializeOwned + Eq + Hash;
    /// What is combined.
    type Value: Serialize + DeserializeOwned;
    /// What one reduce task gives to the driver.
    type Part: Serialize + DeserializeOwned;
    /// What the driver makes of the parts.
    type Outcome: PartialEq + fmt::Display;

    /// Cuts the input into splits; runs in the driver.
    ///
    /// # Errors
    /// If there is no such input; the job then does not start.
    fn splits(&self, params: &Self::Params) -> anyhow::Result<Vec<Self::Split>>;

    /// Makes pairs from a split; pairs of the same key are combined as they come.
    ///
    /// # Errors
    /// If the split cannot be read; the task is tried again elsewhere.
    fn map(
        &self,
        params: &Self::Params,
        split: Self::Split,
        emit: &mut dyn FnMut(Self::Key, Self::Value),
    ) -> anyhow::Result<()>;

    /// Adds a value to another of the same key. The order in which values come is open.
    fn combine(&self, into: &mut Self::Value, value: Self::Value);

    /// Makes a part of the outcome from all pairs of one part of the keys.
    ///
    /// # Errors
    /// If it cannot; the task is tried again.
    fn reduce(
        &self,
        params: &Self::Params,
        pairs: HashMap<Self::Key, Self::Value>,
    ) -> anyhow::Result<Self::Part>;

    /// Puts the parts together; runs in the driver.
    ///
    /// # Errors
    /// If they do not fit together.
    fn finish(
        &self,
        params: &Self::Params,
        parts: Vec<Self::Part>,
    ) -> anyhow::Result<Self::Outcome>;

    /// The same outcome by the shortest way, on one thread and without splits: what `--verify`
    /// compares with.
    ///
    /// # Errors
    /// If the input cannot be read.
    fn single_threaded(&self, params: &Self::Params) -> anyhow::Result<Self::Outcome>;
}

/// A job whose types are bytes.
pub(crate) trait AnyJob: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;
    fn about(&self) -> &'static str;
    fn command(&self) -> clap::Command;
    fn params(&self, arguments: &[String]) -> Result<Bytes, clap::Error>;
    fn splits(&self, params: &[u8]) -> anyhow::Result<Vec<Bytes>>;
    /// One block for each partition.
    fn map(&self, params: &[u8], split: &[u8], partitions: u32) -> anyhow::Result<Vec<Bytes>>;
    /// From one block of each map task, one block for the driver.
    fn reduce(&self, params: &[u8], blocks: Vec<Bytes>) -> anyhow::Result<Bytes>;
    fn finish(&self, params: &[u8], parts: &[Bytes]) -> anyhow::Result<Finished>;
}

/// The outcome as text, and how to compare it with that of a single thread.
pub(crate) struct Finished {
    pub(crate) text: String,
    /// The single thread's outcome if it is another one.
    pub(crate) verify: Box<dyn FnOnce() -> anyhow::Result<Option<String>> + Send>,
}

#[derive(Clone, Debug)]
pub(crate) struct Typed<J>(pub(crate) std::sync::Arc<J>);

impl<J: Job> AnyJob for Typed<J>
where
    J::Params: Send,
    J::Outcome: Send,
{
    fn name(&self) -> &'static str {
        J::NAME
    }

    fn about(&self) -> &'static str {
        J::ABOUT
    }

    fn command(&self) -> clap::Command {
        J::Params::augment_args(clap::Command::new(J::NAME).about(J::ABOUT).no_binary_name(true))
    }

    fn params(&self, arguments: &[String]) -> Result<Bytes, clap::Error> {
        let matches = self.command().try_get_matches_from(arguments)?;
        let params = J::Params::from_arg_matches(&matches)?;
        encode(&params).map_err(|error| clap::Error::raw(clap::error::ErrorKind::Io, error))
    }

    fn splits(&self, params: &[u8]) -> anyhow::Result<Vec<Bytes>> {
        self.0.splits(&decode(params)?)?.iter().map(encode).collect()
    }

    fn map(&self, params: &[u8], split: &[u8], partitions: u32) -> anyhow::Result<Vec<Bytes>> {
        let mut pairs = HashMap::new();
        self.0.map(&decode(params)?, decode(split)?, &mut |key, value| {
            self.add(&mut pairs, key, value);
        })?;
        let count = usize::try_from(partitions.max(1))?;
        let mut blocks = vec![Vec::new(); count];
        let mut encoded = Vec::new();
        for (key, value) in pairs {
            encoded.clear();
            rmp_serde::encode::write(&mut encoded, &key)?;
            let partition = fnv(&encoded) % u64::from(partitions.max(1));
            let block = blocks.get_mut(usize::try_from(partition)?).context("no such partition")?;
            block.extend_from_slice(&encoded);
            rmp_serde::encode::write(block, &value)?;
        }
        Ok(blocks.into_iter().map(Bytes::from).collect())
    }

    fn reduce(&self, params: &[u8], blocks: Vec<Bytes>) -> anyhow::Result<Bytes> {
        let mut pairs = HashMap::new();
        for block in blocks {
            let mut rest = &block[..];
            while !rest.is_empty() {
                let key = rmp_serde::from_read(&mut rest)?;
                let value = rmp_serde::from_read(&mut rest)?;
                self.add(&mut pairs, key, value);
            }
        }
        encode(&self.0.reduce(&decode(params)?, pairs)?)
    }

    fn finish(&self, params: &[u8], parts: &[Bytes]) -> anyhow::Result<Finished> {
        let params: J::Params = decode(params)?;
        let parts = parts.iter().map(|part| decode(part)).collect::<anyhow::Result<_>>()?;
        let outcome = self.0.finish(&params, parts)?;
        let (text, job) = (outcome.to_string(), self.0.clone());
        let verify = move || {
            let single = job.single_threaded(&params)?;
            Ok((single != outcome).then(|| single.to_string()))
        };
        Ok(Finished { text, verify: Box::new(verify) })
    }
}

impl<J: Job> Typed<J> {
    fn add(&self, pairs: &mut HashMap<J::Key, J::Value>, key: J::Key, value: J::Value) {
        match pairs.entry(key) {
            Entry::Occupied(mut known) => self.0.combine(known.get_mut(), value),
            Entry::Vacant(new) => {
                new.insert(value);
            }
        }
    }
}

fn encode<T: Serialize>(value: &T) -> anyhow::Result<Bytes> {
    Ok(rmp_serde::to_vec_named(value)?.into())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> anyhow::Result<T> {
    Ok(rmp_serde::from_slice(bytes)?)
}

/// FNV-1a: which partition a key belongs to must not depend on the build, as the hashes of the
/// standard library may.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
