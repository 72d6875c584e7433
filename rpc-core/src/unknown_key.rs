//! What is said to a key that nobody knows.

use crate::error::{ErrorKind, RpcError};
use crate::limits::ConfigKey;
use crate::spark_keys::{SPARK_KEYS, SparkKey};

/// So much of it is quoted, in characters.
const MAX_SHOWN: usize = 255;

/// What is wrong with it, and which of the `known` keys was meant.
pub(crate) fn unknown_key(key: &str, known: impl Iterator<Item = &'static ConfigKey>) -> RpcError {
    let shown: String = key.chars().take(MAX_SHOWN).collect();
    let hint = match SparkKey::find(&shown) {
        Some(spark) => spark.advice(),
        None => match nearest_key(&shown, known) {
            Some(Nearest::Ours(known)) => format!("did you mean {known:?}?"),
            Some(Nearest::Spark(spark)) => {
                format!("did you mean Spark's {:?}? {}", spark.name, capital(&spark.advice()))
            }
            None => "RpcEnvConfig::known_keys() lists the known ones".to_owned(),
        },
    };
    let text = format!("unknown configuration key {shown:?}; {hint}");
    RpcError::new(ErrorKind::InvalidConfig, text)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

enum Nearest {
    Ours(&'static str),
    Spark(&'static SparkKey),
}

/// The key that looks most like this one, if any looks like it: one of ours, or one of Spark's.
fn nearest_key(key: &str, known: impl Iterator<Item = &'static ConfigKey>) -> Option<Nearest> {
    let lower = key.to_ascii_lowercase();
    let own = lower.strip_prefix("spark.").unwrap_or(&lower);
    let ours = known.map(|row| (row.name, Nearest::Ours(row.name)));
    let single = SPARK_KEYS.iter().filter(|row| !row.name.ends_with('.'));
    let sparks = single.map(|row| (row.short(), Nearest::Spark(row)));
    ours.chain(sparks)
        .map(|(name, found)| (edit_distance(own, &name.to_ascii_lowercase()), name, found))
        .filter(|(distance, name, _)| *distance <= name.len() / 3)
        // The first of those that are as near: ours come first.
        .min_by_key(|(distance, ..)| *distance)
        .map(|(.., found)| found)
}

/// How many characters have to be put in, taken out or replaced to turn one text into the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (taken, old) in from.chars().enumerate() {
        let mut left = taken + 1;
        let mut next = vec![left];
        for (above, new) in row.windows(2).zip(to.chars()) {
            if let [diagonal, above] = above {
                left = (diagonal + usize::from(old != new)).min(above + 1).min(left + 1);
                next.push(left);
            }
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_taken_out_or_replaced_is_counted() {
        for (from, to, distance) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0)]
        {
            assert_eq!(edit_distance(from, to), distance, "{from} {to}");
        }
    }
}
