//! The inbox of an endpoint, seen from outside: S181-S184.

use rpc_core::{ErrorKind, RpcError};
use rpc_tests::harness::{Echo, Harness, Note, Probe, Wait};
use std::thread;

async fn s181_s182_a_message_is_handled_exactly_once_and_then_the_inbox_is_empty(
    h: &Harness,
) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, refs) = pair.probe_both_ways("p").await?;
    let mut asks = Vec::new();
    for number in 0..100 {
        refs[number % 2].send(Note(number as u64))?;
        asks.push(refs[number % 2].ask(Echo(number.to_string())));
    }
    for (number, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await?, number.to_string());
    }
    watch.log.reaches(201).await;
    pair.server.stop(&refs[0])?;
    pair.server.stopped(&refs[0]).await?;
    let mut seen = watch.log.all();
    assert_eq!((seen.remove(0), seen.pop()), ("start".into(), Some("stop".into())));
    seen.sort();
    let both = |number| [format!("note {number}"), format!("echo {number}")];
    let mut expected: Vec<_> = (0..100).flat_map(both).collect();
    expected.sort();
    assert_eq!(seen, expected);
    Ok(())
}

async fn s183_every_message_beside_a_stop_is_handled_or_refused(h: &Harness) -> anyhow::Result<()> {
    let server = h.server("server").await?;
    let (watch, endpoint) = Probe::at(&server, "p").await?;
    let posting: Vec<_> = (0..10)
        .map(|_| {
            let endpoint = endpoint.clone();
            thread::spawn(move || {
                let refused = |sent: Result<(), RpcError>| match sent {
                    Ok(()) => 0,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::EndpointStopped);
                        1
                    }
                };
                (0..100).map(|n| refused(endpoint.send(Note(n)))).sum::<usize>()
            })
        })
        .collect();
    watch.log.reaches(200).await;
    server.stop(&endpoint)?;
    let refused: usize = posting.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    server.stopped(&endpoint).await?;
    let handled = watch.log.all().iter().filter(|entry| entry.starts_with("note")).count();
    assert_eq!(handled + refused, 1000);
    Ok(())
}

async fn s184_others_go_on_while_a_handler_holds_its_endpoint(h: &Harness) -> anyhow::Result<()> {
    let server = h.server("server").await?;
    let (watch, endpoint) = Probe::at(&server, "p").await?;
    let held = endpoint.ask(Wait(0));
    watch.log.reaches(2).await;
    let posting: Vec<_> = (0..4)
        .map(|_| {
            let endpoint = endpoint.clone();
            thread::spawn(move || (0..10).try_for_each(|n| endpoint.send(Note(n))))
        })
        .collect();
    for thread in posting {
        // It ends although nothing of what it sends is being handled.
        thread.join().expect("no panic")?;
    }
    assert_eq!(watch.log.len(), 2);
    watch.gate.open();
    assert_eq!(held.await?, 0);
    assert_eq!(watch.log.reaches(2 + 1 + 40).await[2], "waited 0");
    Ok(())
}

rpc_tests::both! {
    s181_s182_a_message_is_handled_exactly_once_and_then_the_inbox_is_empty,
}

rpc_tests::actix_only! {
    s183_every_message_beside_a_stop_is_handled_or_refused,
    s184_others_go_on_while_a_handler_holds_its_endpoint,
}
