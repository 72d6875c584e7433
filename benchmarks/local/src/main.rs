//! Actor messaging inside one process. L1: asks, 1 in flight; L2: asks, 128 in flight; L3: tells from
//! one sender until the actor has had them all. KIND: actix (the actor on its own arbiter),
//! actix-same (the caller on the actor's arbiter), ractor, kameo, tokio (mpsc + oneshot, the floor).
use peerbench::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

const TELLS: u64 = 3_000_000;

/// One workload on one kind of actor: `$ask` and `$count` are futures, `$tell` a statement.
macro_rules! workload {
    ($w:expr, $spawn:path, $ask:expr, |$m:ident| $tell:expr, $count:expr) => {
        match $w {
            "L1" => {
                let p = payload(64);
                let (mut n, mut from, start) = (0u64, None, Instant::now());
                let mut window = None;
                while start.elapsed() < WARM + MEASURE {
                    for _ in 0..100 {
                        assert_eq!($ask(Msg::new(n, &p)).await.id, n);
                        n += 1;
                    }
                    if window.is_none() && start.elapsed() > WARM {
                        (window, from) = (Some(Window::open(0)), Some(n));
                    }
                }
                let (w, ops) = (window.unwrap(), n - from.unwrap());
                emit("L1", "ns_per_ask", w.elapsed() * 1e9 / ops as f64, "ns");
                w.close("L1", "asks", ops, "/s");
            }
            "L2" => {
                let done = Arc::new(AtomicU64::new(0));
                for t in 0..128u64 {
                    let done = done.clone();
                    let ask = $ask.clone();
                    $spawn(async move {
                        let p = payload(64);
                        let mut id = t << 32;
                        loop {
                            assert_eq!(ask(Msg::new(id, &p)).await.id, id);
                            done.fetch_add(1, Relaxed);
                            id += 1;
                        }
                    });
                }
                tokio::time::sleep(WARM).await;
                let (w, from) = (Window::open(0), done.load(Relaxed));
                tokio::time::sleep(MEASURE).await;
                w.close("L2", "asks", done.load(Relaxed) - from, "/s");
            }
            "L3" => {
                let p = payload(64);
                for n in [TELLS / 10, TELLS] {
                    let w = Window::open(0);
                    let target = $count().await + n;
                    for id in 0..n {
                        let $m = Msg::new(id, &p);
                        $tell;
                    }
                    while $count().await < target {
                        tokio::time::sleep(Duration::from_micros(100)).await;
                    }
                    if n == TELLS {
                        w.close("L3", "tells", n, "/s");
                    }
                }
            }
            _ => panic!(),
        }
    };
}

mod with_actix {
    use super::*;
    use actix::prelude::*;

    pub struct Server(u64);
    struct Ask(Msg);
    struct Tell(#[allow(dead_code)] Msg);
    struct Count;
    impl Message for Ask {
        type Result = Reply;
    }
    #[derive(MessageResponse)]
    struct Reply(Msg);
    impl Message for Tell {
        type Result = ();
    }
    impl Message for Count {
        type Result = u64;
    }
    impl Actor for Server {
        type Context = Context<Self>;
    }
    impl Handler<Ask> for Server {
        type Result = Reply;
        fn handle(&mut self, m: Ask, _: &mut Context<Self>) -> Reply {
            Reply(m.0)
        }
    }
    impl Handler<Tell> for Server {
        type Result = ();
        fn handle(&mut self, _: Tell, _: &mut Context<Self>) {
            self.0 += 1;
        }
    }
    impl Handler<Count> for Server {
        type Result = u64;
        fn handle(&mut self, _: Count, _: &mut Context<Self>) -> u64 {
            self.0
        }
    }

    pub fn run(w: &str, same: bool) {
        System::new().block_on(async {
            let arbiter = Arbiter::new();
            let addr = if same {
                Server(0).start()
            } else {
                Server::start_in_arbiter(&arbiter.handle(), |_| Server(0))
            };
            let (a, b, c) = (addr.clone(), addr.clone(), addr);
            let ask = move |m| {
                let r = a.send(Ask(m));
                async move { r.await.unwrap().0 }
            };
            workload!(w, tokio::task::spawn_local, ask, |m| b.do_send(Tell(m)), || async {
                c.send(Count).await.unwrap()
            });
        });
    }
}

mod with_arpc {
    use super::*;
    use rpc_actix::{HandlerResult, RpcEnvConfig, RpcMessage, endpoint};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, RpcMessage)]
    #[rpc(reply = Msg)]
    struct Ask(Msg);
    #[derive(Serialize, Deserialize, RpcMessage)]
    struct Tell(Msg);
    #[derive(Serialize, Deserialize, RpcMessage)]
    #[rpc(reply = u64)]
    struct Count;
    #[derive(Default)]
    struct Server {
        told: u64,
    }
    #[endpoint]
    impl Server {
        #[receive_and_reply]
        async fn ask(&mut self, m: Ask) -> HandlerResult<Msg> {
            Ok(m.0)
        }
        #[receive]
        async fn tell(&mut self, _: Tell) -> HandlerResult<()> {
            self.told += 1;
            Ok(())
        }
        #[receive_and_reply]
        async fn count(&mut self, _: Count) -> HandlerResult<u64> {
            Ok(self.told)
        }
    }

    pub fn run(w: &str, same: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let config = RpcEnvConfig::client("local");
            let config = if same { config.set("rpc.actix.mode", "inline").unwrap() } else { config };
            let env = rpc_actix::create(config).await.unwrap();
            let endpoint = env.setup_endpoint("server", Server::default()).await.unwrap();
            let (a, b, c) = (endpoint.clone(), endpoint.clone(), endpoint);
            let ask = move |m| {
                let r = a.ask(Ask(m));
                async move { r.await.unwrap() }
            };
            workload!(w, tokio::task::spawn_local, ask, |m| b.send_wait(Tell(m)).await.unwrap(), || async {
                c.ask(Count).await.unwrap()
            });
        });
    }
}

mod with_ractor {
    use super::*;
    use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

    pub enum M {
        Ask(Msg, RpcReplyPort<Msg>),
        Tell(#[allow(dead_code)] Msg),
        Count(RpcReplyPort<u64>),
    }
    struct Server;
    impl Actor for Server {
        type Msg = M;
        type State = u64;
        type Arguments = ();
        async fn pre_start(&self, _: ActorRef<M>, _: ()) -> Result<u64, ActorProcessingErr> {
            Ok(0)
        }
        async fn handle(&self, _: ActorRef<M>, m: M, told: &mut u64) -> Result<(), ActorProcessingErr> {
            match m {
                M::Ask(m, reply) => reply.send(m)?,
                M::Tell(_) => *told += 1,
                M::Count(reply) => reply.send(*told)?,
            }
            Ok(())
        }
    }

    pub async fn run(w: &str) {
        let (r, _) = Actor::spawn(None, Server, ()).await.unwrap();
        let (a, b, c) = (r.clone(), r.clone(), r);
        let ask = move |m| {
            let a = a.clone();
            async move { a.call(|tx| M::Ask(m, tx), None).await.unwrap().unwrap() }
        };
        workload!(w, tokio::spawn, ask, |m| b.cast(M::Tell(m)).unwrap(), || async {
            c.call(M::Count, None).await.unwrap().unwrap()
        });
    }
}

mod with_kameo {
    use super::*;
    use kameo::prelude::*;

    #[derive(Actor)]
    struct Server(u64);
    #[derive(Reply)]
    struct Ask(Msg);
    struct Tell(#[allow(dead_code)] Msg);
    struct Count;
    impl Message<Ask> for Server {
        type Reply = Ask;
        async fn handle(&mut self, m: Ask, _: &mut Context<Self, Ask>) -> Ask {
            m
        }
    }
    impl Message<Tell> for Server {
        type Reply = ();
        async fn handle(&mut self, _: Tell, _: &mut Context<Self, ()>) {
            self.0 += 1;
        }
    }
    impl Message<Count> for Server {
        type Reply = u64;
        async fn handle(&mut self, _: Count, _: &mut Context<Self, u64>) -> u64 {
            self.0
        }
    }

    pub async fn run(w: &str) {
        let r = Server::spawn_with_mailbox(Server(0), kameo::mailbox::unbounded());
        let (a, b, c) = (r.clone(), r.clone(), r);
        let ask = move |m| {
            let a = a.clone();
            async move { a.ask(Ask(m)).await.unwrap().0 }
        };
        workload!(w, tokio::spawn, ask, |m| b.tell(Tell(m)).try_send().unwrap(), || async {
            c.ask(Count).await.unwrap()
        });
    }
}

mod with_tokio {
    use super::*;

    enum M {
        Ask(Msg, oneshot::Sender<Msg>),
        Tell(#[allow(dead_code)] Msg),
        Count(oneshot::Sender<u64>),
    }

    pub async fn run(w: &str) {
        let (tx, mut rx) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut told = 0;
            while let Some(m) = rx.recv().await {
                match m {
                    M::Ask(m, reply) => drop(reply.send(m)),
                    M::Tell(_) => told += 1,
                    M::Count(reply) => drop(reply.send(told)),
                }
            }
        });
        let (a, b, c) = (tx.clone(), tx.clone(), tx);
        let ask = move |m| {
            let (reply, rx) = oneshot::channel();
            let _ = a.send(M::Ask(m, reply));
            async move { rx.await.unwrap() }
        };
        workload!(w, tokio::spawn, ask, |m| drop(b.send(M::Tell(m))), || async {
            let (reply, rx) = oneshot::channel();
            let _ = c.send(M::Count(reply));
            rx.await.unwrap()
        });
    }
}

fn main() {
    let Args::Client { workload, .. } = args() else { panic!("local has no server") };
    let w = workload.as_str();
    let kind = std::env::var("KIND").expect("KIND=actix|actix-same|ractor|kameo|tokio");
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match kind.as_str() {
        "actix" => with_actix::run(w, false),
        "actix-same" => with_actix::run(w, true),
        "arpc" => with_arpc::run(w, false),
        "arpc-same" => with_arpc::run(w, true),
        // the caller runs on a worker, as a task does, not on the thread of block_on
        k => rt.block_on(async {
            let (k, w) = (k.to_string(), w.to_string());
            let task = tokio::spawn(async move {
                match k.as_str() {
                    "ractor" => with_ractor::run(&w).await,
                    "kameo" => with_kameo::run(&w).await,
                    _ => with_tokio::run(&w).await,
                }
            });
            task.await.unwrap()
        }),
    }
    std::process::exit(0);
}
