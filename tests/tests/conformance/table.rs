//! `docs/CONFORMANCE.md` and the tests know each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The lines that need a row of their own, with a test: all but those about files and streams,
/// about security, and about relay, which are not there yet.
fn in_range() -> impl Iterator<Item = u32> {
    (1..=151).chain(181..=199).chain([202, 205]).filter(|line| *line != 109)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The functions of these suites, by name.
fn functions() -> BTreeSet<String> {
    functions_in("tests/tests/conformance")
}

/// Those of all suites and modules, which rows may name as well.
fn functions_anywhere() -> BTreeSet<String> {
    let sources = ["tests/tests", "rpc-core/src", "rpc-actix/src"];
    sources.into_iter().flat_map(functions_in).collect()
}

fn functions_in(folder: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut paths = vec![root().join(folder)];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for line in text.lines().map(str::trim_start) {
                let rest = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
                let name = rest.and_then(|rest| rest.split(['(', '<']).next());
                names.extend(name.map(str::to_owned));
            }
        }
    }
    names
}

/// The numbers that a test's name begins with: `s39_s40_stop_..` shows 39 and 40.
fn numbers_of(test: &str) -> BTreeSet<u32> {
    let number = |part: &str| part.strip_prefix('s')?.parse().ok();
    test.split('_').map_while(number).collect()
}

struct Row {
    numbers: BTreeSet<u32>,
    ours: String,
    tests: Vec<String>,
}

const BROKEN: &str = "## Broken on purpose";

/// The page up to the table of what was broken, and from there on.
fn page() -> (String, String) {
    let text = fs::read_to_string(root().join("docs/CONFORMANCE.md")).unwrap();
    let (rows, broken) = text.split_once(BROKEN).expect("the section is there");
    (rows.to_owned(), broken.to_owned())
}

/// The rows whose first cell is `S1` or `S105-S132`.
fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, ours, tests] = cells[..] else { continue };
        let end = |text: &str| text.strip_prefix('S')?.parse::<u32>().ok();
        let (first, last) = number.split_once('-').unwrap_or((number, number));
        let (Some(first), Some(last)) = (end(first), end(last)) else { continue };
        let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        rows.push(Row { numbers: (first..=last).collect(), ours: ours.to_owned(), tests });
    }
    rows
}

#[test]
fn every_line_has_one_row_and_every_row_its_tests() {
    let (rows, functions) = (rows(&page().0), functions_anywhere());
    let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
    for row in &rows {
        row.numbers.iter().for_each(|number| *seen.entry(*number).or_default() += 1);
        let shown = format!("S{:?}", row.numbers);
        assert!(!row.ours.is_empty(), "{shown} says nothing");
        for test in &row.tests {
            assert!(functions.contains(test), "{shown} names {test}, which does not exist");
        }
        let own = row.numbers.len() == 1 && in_range().any(|n| row.numbers.contains(&n));
        assert!(!own || !row.tests.is_empty(), "{shown} has no test");
    }
    for number in 1..=206 {
        assert_eq!(seen.get(&number), Some(&1), "rows of S{number}");
    }
}

#[test]
fn every_test_is_in_the_rows_of_its_numbers() {
    let rows = rows(&page().0);
    // The tests by hand are named after the lines they show, too.
    let by_hand = fs::read_to_string(root().join("tests/tests/connections.rs")).unwrap();
    let named = |test: &String| by_hand.contains(&format!("async fn {test}("));
    let by_hand = functions_anywhere().into_iter().filter(named);
    for test in functions().into_iter().chain(by_hand) {
        for number in numbers_of(&test) {
            let row =
                rows.iter().find(|row| row.numbers.len() == 1 && row.numbers.contains(&number));
            let listed = row.is_some_and(|row| row.tests.contains(&test));
            assert!(listed, "the row of S{number} does not name {test}");
        }
    }
}

#[test]
fn what_spark_does_not_test_names_tests_that_exist() {
    let (page, functions) = (page().0, functions_anywhere());
    let (_, section) = page.split_once("## What Spark does not test").expect("it is there");
    let (section, _) = section.split_once("\n## ").expect("it ends");
    let lines: Vec<_> = section.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert_eq!(lines.len(), 14);
    for line in lines {
        let cell = line.trim_matches(['|', ' ']).rsplit(" | ").next().unwrap();
        let tests: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty() || line.contains("| later: "), "{line}");
        assert!(tests.iter().all(|test| functions.contains(*test)), "{line}");
    }
}

/// A row of what was broken names a test of its line's row. Of the later rows each has a test that
/// somebody has seen fail.
#[test]
fn the_lines_that_were_broken_on_purpose_name_tests_of_their_rows() {
    let (text, broken) = page();
    let (rows, broken) = (rows(&text), rows(&broken));
    let lines: BTreeSet<u32> = broken.iter().flat_map(|row| row.numbers.iter().copied()).collect();
    assert!(lines.len() >= 10, "{lines:?}");
    let tests: BTreeSet<_> = broken.iter().flat_map(|row| &row.tests).collect();
    for row in &broken {
        let own = rows.iter().find(|own| own.numbers == row.numbers).expect("it has a row");
        let shown = row.tests.iter().any(|test| own.tests.contains(test));
        assert!(shown, "S{:?}: no test of its row failed", row.numbers);
    }
    let newer = (105..=131).chain([134, 151]).chain(181..=205);
    for line in newer {
        let own = rows.iter().find(|row| row.numbers.contains(&line)).expect("it has a row");
        let is_broken = own.tests.is_empty() || own.tests.iter().any(|test| tests.contains(test));
        assert!(is_broken, "nobody has seen a test of S{line} fail");
    }
}

#[test]
fn every_behaviour_runs_on_both_backends_or_says_why_not() {
    let text = page().0;
    let (_, why) = text.split_once("## Only on actix").expect("the section is there");
    for entry in fs::read_dir(root().join("tests/tests/conformance")).unwrap() {
        let source = fs::read_to_string(entry.unwrap().path()).unwrap();
        let Some((_, list)) = source.split_once("actix_only! {\n") else { continue };
        let (list, _) = list.split_once("\n}").expect("the list ends");
        for test in list.split(',').map(str::trim).filter(|test| !test.is_empty()) {
            assert!(why.contains(&format!("`{test}`")), "{test} has no reason to be actix only");
        }
    }
}
