//! User code that stops the System that its env runs on (R58): the env ends in order, and whoever
//! waits for something of it hears so.
#![cfg(test)]

use rpc_actix::{ErrorKind, HandlerResult, RpcEnvConfig, RpcMessage, Termination, endpoint};
use rpc_tests::harness::{Log, block_on};
use serde::{Deserialize, Serialize};
use std::sync::mpsc;
use std::thread;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct StopSystem;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct StopArbiter;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Never;

struct Careless;

#[endpoint]
impl Careless {
    #[receive]
    fn stop_system(&mut self, _: StopSystem) -> HandlerResult<()> {
        actix_rt::System::current().stop();
        Ok(())
    }

    #[receive]
    fn stop_arbiter(&mut self, _: StopArbiter) -> HandlerResult<()> {
        actix_rt::Arbiter::current().stop();
        Ok(())
    }
}

struct Patient(Log);

#[endpoint]
impl Patient {
    #[receive_and_reply]
    async fn never(&mut self, _: Never) -> HandlerResult<()> {
        self.0.push("waits");
        std::future::pending().await
    }
}

#[test]
fn r58_an_env_whose_system_is_stopped_ends_in_order() {
    let config = RpcEnvConfig::server("server", "127.0.0.1:0");
    let server = block_on(rpc_actix::create(config)).unwrap();
    let address = server.address().unwrap().clone();
    let log = Log::default();
    let patient = block_on(server.setup_endpoint("patient", Patient(log.clone()))).unwrap();
    let careless = block_on(server.setup_endpoint("careless", Careless)).unwrap();
    let client = block_on(rpc_actix::create(RpcEnvConfig::client("client"))).unwrap();
    let uri = format!("rpc://patient@{address}");
    let far = block_on(client.endpoint_ref::<Patient>(&uri)).unwrap();
    let (here, there) = (patient.ask(Never), far.ask(Never));
    block_on(log.has(|entry| entry == "waits"));

    careless.send(StopSystem).unwrap();
    block_on(server.await_termination());
    let here = block_on(here).unwrap_err();
    assert!(here.is_stopped(), "{here:?}");
    let there = block_on(there).unwrap_err();
    assert!(there.is_stopped() || there.is_disconnected(), "{there:?}");
    let late = block_on(patient.ask(Never)).unwrap_err();
    assert!(late.is_stopped() && late.is_never_sent(), "{late:?}");

    // Its address is free, and others go on.
    let config = RpcEnvConfig::server("successor", address.to_string());
    let successor = block_on(rpc_actix::create(config)).unwrap();
    block_on(successor.setup_endpoint("patient", Patient(log))).unwrap();
    block_on(client.endpoint_ref::<Patient>(&uri)).unwrap();
    block_on(client.shutdown());
    block_on(successor.shutdown());
}

/// The thread is the user's, and gone with all that ran on it.
#[test]
fn an_inline_env_whose_system_is_stopped_has_ended() {
    let (made, envs) = mpsc::channel();
    let log = Log::default();
    let endpoints = log.clone();
    let user = thread::spawn(move || {
        let system = actix_rt::System::new();
        system.block_on(async move {
            let config = RpcEnvConfig::server("inline", "127.0.0.1:0");
            let config = config.set("rpc.actix.mode", "inline").unwrap();
            let env = rpc_actix::create(config).await.unwrap();
            env.setup_endpoint("patient", Patient(endpoints)).await.unwrap();
            env.setup_endpoint("careless", Careless).await.unwrap();
            made.send(env).unwrap();
        });
        system.run().unwrap();
    });
    let env = envs.recv().unwrap();
    let client = block_on(rpc_actix::create(RpcEnvConfig::client("client"))).unwrap();
    let uri = format!("rpc://patient@{}", env.address().unwrap());
    let far = block_on(client.endpoint_ref::<Patient>(&uri)).unwrap();
    let here = env.local_ref::<Patient>("patient").unwrap();
    let asks = [here.ask(Never), far.ask(Never)];
    block_on(log.has(|entry| entry == "waits"));
    env.local_ref::<Careless>("careless").unwrap().send(StopSystem).unwrap();
    user.join().unwrap();
    block_on(env.await_termination());
    for ask in asks {
        let error = block_on(ask).unwrap_err();
        assert!(error.is_stopped() || error.is_disconnected(), "{error:?}");
    }
    let late = block_on(env.setup_endpoint("late", Careless)).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::EnvStopped, "{late}");
    block_on(client.shutdown());
}

/// By default all endpoints and connections are on one thread.
#[test]
fn an_arbiter_that_is_stopped_has_a_successor() {
    let config = RpcEnvConfig::server("server", "127.0.0.1:0");
    let server = block_on(rpc_actix::create(config)).unwrap();
    let client = block_on(rpc_actix::create(RpcEnvConfig::client("client"))).unwrap();
    for round in 0..3 {
        let log = Log::default();
        let careless = block_on(server.setup_endpoint("careless", Careless)).unwrap();
        let patient = Patient(log.clone());
        let patient = block_on(server.setup_endpoint("patient", patient)).unwrap();
        let uri = format!("rpc://patient@{}", server.address().unwrap());
        let far = block_on(client.endpoint_ref::<Patient>(&uri)).unwrap();
        let asks = [patient.ask(Never), far.ask(Never)];
        block_on(log.has(|entry| entry == "waits"));
        careless.send(StopArbiter).unwrap();
        for ask in asks {
            let error = block_on(ask).unwrap_err();
            assert!(error.is_stopped() || error.is_disconnected(), "{round}: {error:?}");
        }
        let gone = [block_on(patient.terminated()), block_on(careless.terminated())];
        assert!(gone.iter().all(|gone| gone.reason() == Termination::Crashed), "{gone:?}");
        // Until the next thread is there, nothing can be started.
        while let Err(error) = block_on(server.setup_endpoint("here", Careless)) {
            assert_eq!(error.kind(), ErrorKind::EnvStopped, "{error}");
        }
        let here = server.local_ref::<Careless>("here").unwrap();
        server.stop(&here).unwrap();
        block_on(server.stopped(&here)).unwrap();
    }
    block_on(client.shutdown());
    block_on(server.shutdown());
}
