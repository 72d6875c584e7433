//! `quickstart`: a cluster in one command, of which nothing is left behind.

use crate::common::{Proc, Scene, signal};

const LONG: [&str; 5] = ["--progress", "json", "pi", "--samples", "1000000000000"];

fn running(scene: &Scene) -> Proc {
    let quickstart = scene.quickstart(&LONG);
    for _ in 0..2 {
        quickstart.event("executor_added").expect("an executor of each worker");
    }
    assert_eq!(scene.processes().len(), 6, "{:#?}", scene.processes());
    quickstart
}

#[test]
fn it_counts_and_leaves_nothing_behind() {
    let scene = Scene::new();
    let input = scene.input(300);
    let mut quickstart = scene.quickstart(&["--verify", input.to_str().unwrap()]);
    let lines: Vec<_> = std::iter::from_fn(|| quickstart.line()).collect();
    let status = quickstart.wait();
    let errors = quickstart.errors();
    assert!(status.success(), "{errors}");
    assert!(lines.iter().any(|line| line.contains(" words, ")), "{lines:#?}");
    assert!(lines.last().unwrap().starts_with("verified: identical to a single-threaded count"));
    assert_eq!(errors.lines().count(), 1, "only the line about the cluster: {errors}");
    scene.no_process_is_left();
    let rest: Vec<_> = std::fs::read_dir(&scene.folder).unwrap().collect();
    assert_eq!(rest.len(), 1, "the input, and no work folder: {rest:?}");
}

#[test]
fn its_default_input_is_there() {
    let scene = Scene::new();
    let mut quickstart = scene.quickstart(&["--workers", "1"]);
    assert!(quickstart.wait().success(), "{}", quickstart.errors());
}

#[test]
fn nothing_is_left_after_an_interrupt() {
    let scene = Scene::new();
    let mut quickstart = running(&scene);
    signal("INT", quickstart.pid());
    assert_eq!(quickstart.wait().code(), Some(130));
    scene.no_process_is_left();
}

#[test]
fn nothing_is_left_after_a_kill() {
    let scene = Scene::new();
    let mut quickstart = running(&scene);
    signal("KILL", quickstart.pid());
    assert!(!quickstart.wait().success());
    scene.no_process_is_left();
}

#[test]
fn nothing_is_left_after_a_failure() {
    let scene = Scene::new();
    let (code, text) = scene.quickstart(&["/no/such/path"]).failure();
    assert_eq!(code, Some(1));
    assert!(text.contains("\"/no/such/path\" is neither a path nor a job"), "{text}");
    let (code, text) = scene.quickstart(&["word-count", "/no/such/path"]).failure();
    assert_eq!(code, Some(1));
    assert!(text.contains("cannot read /no/such/path"), "{text}");
    scene.no_process_is_left();
}
