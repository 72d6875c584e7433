//! The steps of an ask, each on its own: the codec, the scan before it, frames, the protocol without
//! I/O, and the dispatch of local messages. `cargo bench -p micro [NAME]`.
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use peerbench::{Msg, payload};

fn main() {
    divan::main();
}

/// The payloads of the small and of a middle message.
const SIZES: [usize; 2] = [64, 4096];

fn named(size: usize) -> Vec<u8> {
    rmp_serde::to_vec_named(&Msg::new(7, &payload(size))).unwrap()
}

mod codec {
    use super::*;
    use bytes::BytesMut;
    use rpc_core::wire::frame::{Header, Kind, put_header};
    use rpc_core::wire::prescan::{PrescanLimits, prescan};
    use rpc_core::{LocalWorld, RpcEnv, RpcEnvConfig, RpcEnvFactory};

    fn env() -> RpcEnv {
        let world = LocalWorld::new();
        world.block_on(world.factory().create(RpcEnvConfig::client("env"))).unwrap()
    }

    #[divan::bench(args = SIZES)]
    fn encode_named(bencher: Bencher, size: usize) {
        let (env, message) = (env(), Msg::new(7, &payload(size)));
        bencher.bench_local(|| env.encode(black_box(&message)).unwrap());
    }

    #[divan::bench(args = SIZES)]
    fn encode_compact(bencher: Bencher, size: usize) {
        let message = Msg::new(7, &payload(size));
        bencher.bench_local(|| {
            let mut out = Vec::with_capacity(size + 64);
            rmp_serde::encode::write(&mut out, black_box(&message)).unwrap();
            out
        });
    }

    /// With the scan.
    #[divan::bench(args = SIZES)]
    fn decode_named(bencher: Bencher, size: usize) {
        let (env, bytes) = (env(), named(size));
        bencher.bench_local(|| env.decode::<Msg>(black_box(&bytes)).unwrap());
    }

    #[divan::bench(args = SIZES)]
    fn decode_compact(bencher: Bencher, size: usize) {
        let (env, bytes) = (env(), rmp_serde::to_vec(&Msg::new(7, &payload(size))).unwrap());
        bencher.bench_local(|| env.decode::<Msg>(black_box(&bytes)).unwrap());
    }

    #[divan::bench(args = SIZES)]
    fn scan(bencher: Bencher, size: usize) {
        let (bytes, limits) = (named(size), PrescanLimits::new(64, 1 << 20));
        bencher.bench_local(|| prescan(black_box(&bytes), &limits).is_ok());
    }

    /// A body of numbers is the scan's worst case: every byte is a value.
    #[divan::bench]
    fn scan_of_numbers(bencher: Bencher) {
        let bytes = rmp_serde::to_vec(&vec![7_u8; 4096]).unwrap();
        let limits = PrescanLimits::new(64, 1 << 20);
        bencher
            .counter(BytesCount::new(bytes.len()))
            .bench_local(|| prescan(black_box(&bytes), &limits).is_ok());
    }

    #[divan::bench]
    fn frame_header(bencher: Bencher) {
        let mut out = BytesMut::with_capacity(64);
        bencher.bench_local(|| {
            out.clear();
            put_header(&mut out, black_box(100), Kind::Ask, 0, 3);
            Header::read(black_box(&out)).is_some()
        });
    }
}

mod protocol {
    use super::*;
    use bytes::BytesMut;
    use rpc_core::proto::{
        Event, Hello, Hellos, PeerLimits, Request, Resolution, Session, Submission, TargetKey,
    };
    use rpc_core::spi::{Incarnation, Outgoing};
    use rpc_core::{Lane, Limits, Timestamp};
    use std::collections::VecDeque;
    use std::task::{Context, Waker};
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::START;

    fn session(name: &str, peer: u64) -> Session {
        let hello = |env| Hello::new(env, None, PeerLimits::default());
        let mut bytes = BytesMut::new();
        hello(peer).put(&mut bytes);
        let info = Hellos::new(hello(0), 65_536).receive(&mut bytes).unwrap().unwrap();
        let mut session = Session::new(Limits::default(), name);
        session.attach(NOW, info);
        session
    }

    /// Two sessions, and what carries bytes between them.
    struct Talk {
        asker: Session,
        answerer: Session,
        target: u32,
        bytes: BytesMut,
        events: Vec<Event>,
    }

    impl Talk {
        fn new() -> Self {
            let mut asker = session("answerer", 2);
            let target = asker.target(&TargetKey::new("bench", None)).unwrap();
            asker.resolve(NOW, target).unwrap();
            let answerer = session("asker", 1);
            let mut talk =
                Self { asker, answerer, target, bytes: BytesMut::new(), events: Vec::new() };
            talk.over();
            let life = Incarnation::new(2, 1);
            let resolution = Resolution::new(life, vec!["Msg".into()], 1 << 30, 1 << 40);
            talk.answerer.resolved(target, &resolution);
            talk.back();
            talk.events.clear();
            talk
        }

        fn over(&mut self) {
            carry(&mut self.asker, &mut self.answerer, &mut self.bytes, &mut self.events);
        }

        fn back(&mut self) {
            carry(&mut self.answerer, &mut self.asker, &mut self.bytes, &mut self.events);
        }

        /// So many asks, there and back.
        fn asks(&mut self, body: &[u8], count: usize) {
            let mut calls = Vec::with_capacity(count);
            for _ in 0..count {
                let mut body = body.to_vec().into();
                let mut message =
                    Outgoing::new("Msg", Lane::Normal, &mut body, NOW + Duration::from_secs(10));
                let request = Request::new(self.target, &mut message, Submission::Ask);
                calls.push(self.asker.submit(|| NOW, request).unwrap().unwrap());
            }
            self.over();
            let messages = |event| match event {
                Event::Message(message) => vec![message],
                Event::Messages(row) => row.into_messages().collect(),
                _ => Vec::new(),
            };
            for message in std::mem::take(&mut self.events).into_iter().flat_map(messages) {
                let mut body = message.body.to_vec().into();
                self.answerer.reply(message.call.unwrap(), &mut body).unwrap();
            }
            self.answerer.grant(self.target, count as u32, (count * body.len()) as u64);
            self.back();
            self.events.clear();
            let context = Context::from_waker(Waker::noop());
            for call in calls {
                assert!(self.asker.poll_call(call, &context).is_ready());
            }
        }
    }

    fn carry(from: &mut Session, to: &mut Session, bytes: &mut BytesMut, events: &mut Vec<Event>) {
        let mut out = VecDeque::new();
        from.transmit(|| NOW, usize::MAX, &mut out);
        for part in out {
            bytes.extend_from_slice(&part);
        }
        to.receive(NOW, bytes, events).unwrap();
    }

    /// Queue, frame, transmit, receive, reply and back, without I/O, locks and codec.
    #[divan::bench(args = [1, 128])]
    fn ask(bencher: Bencher, count: usize) {
        let (mut talk, body) = (Talk::new(), named(64));
        bencher.counter(ItemsCount::new(count)).bench_local(|| talk.asks(&body, count));
    }
}

mod dispatch {
    use super::*;
    use rpc_actix::{HandlerResult, RpcEndpointRef, RpcEnv, RpcEnvConfig, RpcMessage, endpoint};
    use serde::{Deserialize, Serialize};
    use tokio::runtime::{Builder, Runtime};
    use tokio::task::LocalSet;

    #[derive(Serialize, Deserialize, RpcMessage)]
    #[rpc(reply = u64)]
    struct Ask(u64);

    #[derive(Serialize, Deserialize, RpcMessage)]
    struct Tell(u64);

    #[derive(Default)]
    struct Sum(u64);

    #[endpoint]
    impl Sum {
        #[receive_and_reply]
        async fn ask(&mut self, msg: Ask) -> HandlerResult<u64> {
            Ok(self.0 + msg.0)
        }

        #[receive]
        async fn tell(&mut self, msg: Tell) -> HandlerResult<()> {
            self.0 = self.0.wrapping_add(msg.0);
            Ok(())
        }
    }

    const MESSAGES: usize = 1000;

    fn on_one_thread() -> (Runtime, LocalSet, RpcEnv, RpcEndpointRef<Sum>) {
        let (runtime, tasks) =
            (Builder::new_current_thread().enable_all().build().unwrap(), LocalSet::new());
        let (env, sum) = tasks.block_on(&runtime, async {
            let config = RpcEnvConfig::client("here").set("rpc.actix.mode", "inline").unwrap();
            let env = rpc_actix::create(config).await.unwrap();
            let sum = env.setup_endpoint("sum", Sum::default()).await.unwrap();
            (env, sum)
        });
        (runtime, tasks, env, sum)
    }

    #[divan::bench]
    fn local_ask(bencher: Bencher) {
        let (runtime, tasks, _env, sum) = on_one_thread();
        bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
            tasks.block_on(&runtime, async {
                for n in 0..MESSAGES as u64 {
                    black_box(sum.ask(Ask(n)).await.unwrap());
                }
            });
        });
    }

    #[divan::bench]
    fn local_send(bencher: Bencher) {
        let (runtime, tasks, _env, sum) = on_one_thread();
        bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
            tasks.block_on(&runtime, async {
                for n in 0..MESSAGES as u64 {
                    sum.send(Tell(n)).unwrap();
                }
                black_box(sum.ask(Ask(0)).await.unwrap());
            });
        });
    }
}
