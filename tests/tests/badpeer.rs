//! Every case of the bad peer, and the page that lists them.
#![cfg(test)]

use rpc_tests::badpeer::BadPeer;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// `BADPEER=listening/chunks` plays those whose names begin like that.
#[test]
fn every_case_goes_as_it_should() {
    let prefix = std::env::var("BADPEER").unwrap_or_default();
    let outcome = BadPeer::new().play(&prefix).unwrap();
    println!("{} cases passed, {} failed", outcome.passed, outcome.failed.len());
    for (name, why) in &outcome.failed {
        println!("{name}: {why}");
    }
    assert!(outcome.failed.is_empty() && outcome.passed > 0);
}

const INTRO: &str = "\
# The bad peer

What a peer may do wrong, and what comes of it. Each case is played against a live env, over a real
socket: *listening* cases by a peer that connects to it, *dialling* cases by one that it has connected
to. A case says what the peer does, byte by byte, and exactly what has to come of it: the code and text
of the CLOSE or the answers, what a caller of the env is told, and which
[counters](GUIDE.md#22-counters) go up and by how much; no other may. A peer that behaves is connected
all the time, over the same connection, and is answered after each case.

`cargo test -p rpc-tests --test badpeer` plays all of them, and `BADPEER=listening/chunks` in front of
it those whose names begin like that. They are in `tests/src/badpeer/`. Conversations that do not fit
into a table are in `tests/tests/hostile_peer.rs`, connections that are lost at every byte in
`rpc-core/src/proto/tests/cuts.rs`, and sessions that come in pieces in `tests/tests/pieces.rs`. `cargo run --release -p rpc-tests --bin checks -- badpeer` measures what a peer
that behaves feels of each; `-- badpeer listening/cancel` does so for the families whose names begin like that.

This page is written by `UPDATE_DOCS=1 cargo test -p rpc-tests --test badpeer`.

";

#[test]
fn the_page_lists_them() {
    let bad_peer = BadPeer::new();
    let families = bad_peer.families();
    let all: usize = families.values().sum();
    let mut page = INTRO.to_owned();
    let listening = families.iter().filter(|((name, _), _)| name.starts_with("listening"));
    let listening: usize = listening.map(|(_, count)| count).sum();
    let dialling = all - listening;
    writeln!(page, "{listening} against an env that listens, {dialling} against one that dials.\n")
        .unwrap();
    writeln!(page, "| cases | how many | what the peer does |\n|---|---|---|").unwrap();
    for ((name, about), count) in &families {
        writeln!(page, "| `{name}` | {count} | {about} |").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/BADPEER.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(found == page, "write docs/BADPEER.md again with UPDATE_DOCS=1");
}
