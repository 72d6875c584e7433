//! A cluster of real processes: jobs give what a single thread gives, whoever is killed.

use crate::common::{Scene, count, poll, signal};
use serde_json::Value;
use std::collections::BTreeMap;

/// Every word is printed, so that every count is compared.
const ALL_WORDS: &str = "1000000";

#[test]
fn a_word_count_is_right_to_the_word() {
    let scene = Scene::new();
    let (_master, uri) = scene.master(&[]);
    let (_one, _) = scene.worker(&uri, &["--cores", "1"]);
    let (_two, _) = scene.worker(&uri, &["--cores", "2"]);
    let input = scene.input(1500);
    let path = input.to_str().unwrap();
    let arguments = ["--verify", "word-count", "--top", ALL_WORDS, "--split-kib", "32", path];
    let mut submit = scene.submit(&uri, &arguments);
    let result = submit.result();
    assert!(submit.wait().success());
    let outcome = result["outcome"].as_str().unwrap();
    let (table, _last) = outcome.rsplit_once('\n').unwrap();
    assert_eq!(format!("{table}\n"), count(&input));
    assert_eq!((&result["verified"], &result["lost"]), (&Value::Bool(true), &0.into()));
    let summary = result["summary"].as_str().unwrap();
    assert_eq!(summary.matches("worker-").count(), 2, "both workers took part: {summary}");
}

#[test]
fn an_executor_killed_in_the_middle_changes_nothing() {
    let scene = Scene::new();
    let (_master, uri) = scene.master(&[]);
    let (_one, _) = scene.worker(&uri, &["--cores", "1"]);
    let (_two, _) = scene.worker(&uri, &["--cores", "1"]);
    kill_in_the_middle(&scene, &uri, "map", |_worker, executor| signal("KILL", executor));
}

/// Its map tasks are done, but others still need what they have made.
#[test]
fn an_executor_killed_while_reducing_changes_nothing() {
    let scene = Scene::new();
    let (_master, uri) = scene.master(&[]);
    let (_one, _) = scene.worker(&uri, &["--cores", "1"]);
    let (_two, _) = scene.worker(&uri, &["--cores", "1"]);
    kill_in_the_middle(&scene, &uri, "reduce", |_worker, executor| signal("KILL", executor));
}

#[test]
fn a_worker_killed_in_the_middle_changes_nothing() {
    let scene = Scene::new();
    let (_master, uri) = scene.master(&[]);
    let (one, one_id) = scene.worker(&uri, &["--cores", "1"]);
    let (two, two_id) = scene.worker(&uri, &["--cores", "1"]);
    let pids = BTreeMap::from([(one_id, one.pid()), (two_id, two.pid())]);
    kill_in_the_middle(&scene, &uri, "map", |worker, _executor| signal("KILL", pids[worker]));
}

/// Runs a word count; when the first task of that stage is done, `kill` gets the id of the worker
/// and the pid of the executor that have done it.
fn kill_in_the_middle(scene: &Scene, uri: &str, stage: &str, kill: impl Fn(&str, u64)) {
    let input = scene.input(4000);
    let path = input.to_str().unwrap();
    let job = ["word-count", "--top", ALL_WORDS, "--split-kib", "16", path];
    let arguments = [&["--verify", "--partitions", "64"][..], &job].concat();
    let mut submit = scene.submit(uri, &arguments);
    let mut executors = BTreeMap::new();
    let (victim, worker, pid) = loop {
        let line = submit.line().expect("a task is done");
        let event: Value = serde_json::from_str(&line).unwrap();
        let executor = event["executor"].as_u64();
        if event["event"] == "executor_added" {
            executors.insert(executor, event);
        } else if event["event"] == "task_done" && is_of(&event, stage) {
            let of = &executors[&executor];
            break (
                executor,
                of["worker"].as_str().unwrap().to_owned(),
                of["pid"].as_u64().unwrap(),
            );
        }
    };
    kill(&worker, pid);
    let lost = submit.event("executor_lost").expect("the driver notices");
    assert_eq!(lost["executor"].as_u64(), victim);
    let finished = submit.event("finished").expect("the job is done all the same");
    assert!(finished["reruns"].as_u64() > Some(0), "what was lost runs again");
    let result = submit.result();
    assert!(submit.wait().success());
    assert_eq!((&result["verified"], &result["lost"]), (&Value::Bool(true), &1.into()));
    let outcome = result["outcome"].as_str().unwrap();
    let (table, _last) = outcome.rsplit_once('\n').unwrap();
    assert_eq!(format!("{table}\n"), count(&input));
    no_executor_is_left(scene);
}

fn is_of(event: &Value, stage: &str) -> bool {
    event["task"].as_str().unwrap().starts_with(stage)
}

fn no_executor_is_left(scene: &Scene) {
    poll("all executors end", || {
        let processes = scene.processes();
        processes.iter().all(|process| !process.contains("__role executor")).then_some(())
    });
}

#[test]
fn a_killed_driver_leaves_a_free_cluster() {
    let scene = Scene::new();
    let (_master, uri) = scene.master(&[]);
    let (_worker, _) = scene.worker(&uri, &["--cores", "2"]);
    let submit = scene.submit(&uri, &["pi", "--samples", "1000000000000"]);
    submit.event("executor_added").expect("the job runs");
    signal("KILL", submit.pid());
    no_executor_is_left(&scene);
    let mut submit = scene.submit(&uri, &["--verify", "pi", "--samples", "100000"]);
    let outcome = submit.result()["outcome"].to_string();
    assert!(outcome.contains("pi is about 3.1"), "{outcome}");
}

#[test]
fn a_stopped_worker_takes_its_executors_along() {
    let scene = Scene::new();
    let (_master, uri) = scene.master(&[]);
    let (mut worker, _) = scene.worker(&uri, &["--cores", "2"]);
    let submit = scene.submit(&uri, &["pi", "--samples", "1000000000000"]);
    submit.event("executor_added").expect("the job runs");
    signal("TERM", worker.pid());
    assert!(worker.wait().success());
    no_executor_is_left(&scene);
    submit.event("executor_lost").expect("the driver is told");
}

#[test]
fn a_worker_finds_its_master_again() {
    let scene = Scene::new();
    let (mut master, uri) = scene.master(&[]);
    let (worker, id) = scene.worker(&uri, &["--cores", "1", "--registration-wait-ms", "50"]);
    signal("KILL", master.pid());
    master.wait();
    let port = uri.rsplit_once(':').unwrap().1;
    let (_master, again) = scene.master(&["--port", port]);
    assert_eq!(again, uri);
    assert_eq!(worker.line(), Some(format!("registered {id}")));
    let mut submit = scene.submit(&uri, &["--verify", "pi", "--samples", "1000"]);
    submit.result();
}

#[test]
fn executors_that_always_fail_fail_the_job() {
    let scene = Scene::new();
    let (_master, uri) = scene.master(&["--max-executor-retries", "3"]);
    let (_worker, _) = scene.worker(&uri, &["--cores", "1", "--executor-program", "/bin/false"]);
    let (code, text) = scene.submit(&uri, &["pi"]).failure();
    assert_eq!(code, Some(1));
    assert!(text.contains("3 executors failed in a row and none is running"), "{text}");
    assert!(text.contains("exit status: 1 (its log: "), "{text}");
}

#[test]
fn a_program_that_is_not_there_fails_the_job() {
    let scene = Scene::new();
    let (_master, uri) = scene.master(&["--max-executor-retries", "2"]);
    let (_worker, _) = scene.worker(&uri, &["--cores", "1", "--executor-program", "/no/program"]);
    let (code, text) = scene.submit(&uri, &["pi"]).failure();
    assert_eq!(code, Some(1));
    assert!(text.contains("cannot launch /no/program"), "{text}");
}

#[test]
fn what_is_wrong_is_said() {
    let scene = Scene::new();
    let (_master, uri) = scene.master(&[]);
    let fails = |arguments: &[&str]| scene.submit(&uri, arguments).failure();
    let (code, text) = fails(&["sort"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("unknown job \"sort\"; this program knows: pi, word-count"), "{text}");
    let (code, text) = fails(&["word-count", "/no/such/path"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("cannot read /no/such/path: No such file"), "{text}");
    let (code, text) = fails(&["word-count"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("<PATH>"), "{text}");
    let empty = scene.folder.join("empty");
    std::fs::create_dir(&empty).unwrap();
    let (code, text) = fails(&["word-count", empty.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(text.contains("no input files in "), "{text}");
    let (code, text) = fails(&["--timeout", "0", "pi"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("no executors within 0 s (--timeout): the master at "), "{text}");
    assert!(text.contains("has no workers; start one with: worker --master rpc://"), "{text}");
    let (_worker, _) = scene.worker(&uri, &["--cores", "1"]);
    let (_, text) = fails(&["--timeout", "0", "--executor-cores", "2", "pi"]);
    assert!(text.contains("an executor needs 2 cores and 256 MiB"), "{text}");
}

#[test]
fn jobs_share_the_cluster_and_wait_for_it() {
    let scene = Scene::new();
    let (_master, uri) = scene.master(&[]);
    let (_worker, _) = scene.worker(&uri, &["--cores", "2"]);
    let endless = ["--total-cores", "1", "pi", "--samples", "1000000000000"];
    let first = scene.submit(&uri, &endless);
    first.event("executor_added").expect("the first job runs");
    let second = scene.submit(&uri, &endless);
    second.event("executor_added").expect("the second one runs beside it");
    let (_, text) = scene.submit(&uri, &["--timeout", "0", "pi"]).failure();
    assert!(text.contains("0 of 2 cores are free, 2 applications run"), "{text}");
    let third = scene.submit(&uri, &["--verify", "pi", "--samples", "1000"]);
    third.event("registered").expect("the third one waits");
    drop(first);
    third.event("executor_added").expect("until there is room");
}

#[test]
fn a_master_that_is_not_there_is_named() {
    let scene = Scene::new();
    let (code, text) = scene.submit("127.0.0.1:1", &["pi"]).failure();
    assert_eq!(code, Some(1));
    assert!(text.contains("no master at rpc://Master@127.0.0.1:1 (3 tries): "), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}
