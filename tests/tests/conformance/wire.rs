//! What crosses the wire, and how: S139-S150.

use bytes::{BufMut, Bytes, BytesMut};
use rpc_core::proto::{
    CloseCode, Event, Hello, Hellos, IncomingMessage, PeerInfo, PeerLimits, Request, Resolution,
    Session, Submission, TargetKey,
};
use rpc_core::spi::{CallEnd, Incarnation, Outgoing};
use rpc_core::wire::frame::{HEADER, Kind, MAGIC, put_header};
use rpc_core::{
    ErrorKind, HandlerResult, Lane, Limits, Outcome, RawMessage, RawReply, RpcCallContext,
    RpcEndpointRef, RpcError, RpcMessage, Timestamp, Untyped, endpoint,
};
use rpc_tests::harness::{Boom, Echo, Fail, Harness, Note, Probe, Relay, Wait};
use serde::de::value::{Error as ValueError, MapDeserializer};
use serde::ser::Impossible;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::{HashSet, VecDeque};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

// ---- between envs

async fn s140_a_failure_keeps_its_kind_outcome_and_text(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, [_, remote]) = pair.probe_both_ways("p").await?;
    let is = |error: &RpcError| (error.kind(), error.outcome(), error.text().to_owned());
    let failed = remote.ask(Fail("broken".into())).await.unwrap_err();
    assert_eq!(
        is(&failed),
        (ErrorKind::HandlerFailed, Outcome::FailedInHandler, "broken: the cause".into())
    );
    let panicked = remote.ask(Boom).await.unwrap_err();
    assert_eq!(
        is(&panicked),
        (
            ErrorKind::HandlerPanicked,
            Outcome::FailedInHandler,
            format!("a handler panicked: boom, with an answer (Boom at {remote})")
        )
    );
    // A text is for people, and bounded.
    let long = remote.ask(Fail("é".repeat(50_000))).await.unwrap_err();
    assert_eq!(long.kind(), ErrorKind::HandlerFailed);
    assert!(long.text().starts_with("éé") && long.text().len() <= 4096, "{}", long.text().len());
    Ok(())
}

/// A ref as another language sees it: a map.
#[derive(Debug, Serialize, Deserialize)]
struct OnTheWire {
    at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin: Option<(u64, u64)>,
}

async fn s141_a_ref_is_written_as_its_address_and_its_pin(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    let written: OnTheWire = pair.server.decode(&pair.server.encode(&local)?)?;
    let life = local.incarnation().expect("pinned");
    assert_eq!((written.at, written.pin), (local.to_string(), Some((life.env, life.endpoint))));
    let by_name: OnTheWire = pair.client.decode(&pair.client.encode(&remote)?)?;
    assert_eq!((by_name.at, by_name.pin), (local.to_string(), None));
    // The env that reads it attaches its own way there; keys of later versions are ignored.
    #[derive(Serialize)]
    struct Later {
        at: String,
        more: u64,
    }
    let bytes = pair.client.encode(&Later { at: local.to_string(), more: 7 })?;
    let read: RpcEndpointRef<Probe> = pair.client.decode(&bytes)?;
    read.send(Note(1))?;
    assert_eq!(watch.log.reaches(2).await, ["start", "note 1"]);
    let back: RpcEndpointRef<Probe> = pair.server.decode(&bytes)?;
    assert_eq!(back.ask(Echo::of("at home")).await?, "at home");
    Ok(())
}

/// A message that holds a ref, taken by hand.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct CallMe {
    who: RpcEndpointRef<Probe>,
}

/// The same, one way.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct TellMe {
    who: RpcEndpointRef<Probe>,
}

/// Decodes by hand what it gets.
struct ByHand;

#[endpoint]
impl ByHand {
    #[receive_raw]
    fn raw(&mut self, msg: RawMessage) -> HandlerResult<()> {
        msg.decode::<TellMe>()?.who.send(Note(5))?;
        Ok(())
    }

    #[receive_and_reply_raw]
    async fn raw_ask(
        &mut self,
        msg: RawMessage,
        call: RpcCallContext<RawReply>,
    ) -> HandlerResult<()> {
        let who = msg.decode::<CallMe>()?.who;
        call.reply_with(&who.ask(Echo::of("by hand")).await?);
        Ok(())
    }
}

async fn s142_refs_are_read_and_written_within_an_env(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, local) = pair.probe("p").await?;
    // Outside of every env both are refused, with the way out in the text.
    let written = local.serialize(Outside).unwrap_err().to_string();
    assert!(written.contains("can only be encoded within an env"), "{written}");
    assert!(written.contains("RpcEnv::encode"), "{written}");
    let map = [("at", local.to_string())].into_iter();
    let read = RpcEndpointRef::<Probe>::deserialize(MapDeserializer::<_, ValueError>::new(map));
    let read = read.unwrap_err().to_string();
    assert!(read.contains("can only be decoded within an env"), "{read}");
    let bytes = pair.server.encode(&vec![local])?;
    let there: Vec<RpcEndpointRef<Probe>> = pair.client.decode(&bytes)?;
    assert_eq!(there[0].ask(Echo::of("x")).await?, "x");
    Ok(())
}

async fn s142_a_raw_handler_is_within_its_env(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let local = pair.server.setup_endpoint("by-hand", ByHand).await?.into_untyped();
    let (watch, mine) = Probe::at(&pair.client, "mine").await?;
    let remote = pair.client.endpoint_ref::<Untyped>(&local.to_string()).await?;
    assert_eq!(remote.ask(CallMe { who: mine.clone() }).await?, "by hand");
    remote.send(TellMe { who: mine })?;
    watch.log.has(|entry| entry == "note 5").await;
    let (_, own) = pair.probe("own").await?;
    assert_eq!(local.ask(CallMe { who: own }).await?, "by hand");
    Ok(())
}

/// [`TellMe`] of another crate's version: the same name, another type.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(name = "TellMe")]
struct TellMeToo {
    who: RpcEndpointRef<Probe>,
}

/// [`CallMe`] of another crate's version.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = RpcEndpointRef<Probe>, name = "CallMe")]
struct CallMeToo {
    who: RpcEndpointRef<Probe>,
}

/// Takes the other version.
struct Other;

#[endpoint]
impl Other {
    #[receive]
    fn tell(&mut self, msg: TellMeToo) -> HandlerResult<()> {
        Ok(msg.who.send(Note(6))?)
    }

    #[receive_and_reply]
    fn call(&mut self, msg: CallMeToo) -> HandlerResult<RpcEndpointRef<Probe>> {
        Ok(msg.who)
    }
}

/// What the callers of [`Other`] know.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = RpcEndpointRef<Probe>, name = "CallMe")]
struct CallMeThree {
    who: RpcEndpointRef<Probe>,
}

async fn s142_refs_survive_where_only_the_names_agree(h: &Harness) -> anyhow::Result<()> {
    let env = h.server("m").await?;
    let other = env.setup_endpoint("other", Other).await?.into_untyped();
    let (watch, own) = Probe::at(&env, "own").await?;
    let back = other.ask(CallMeThree { who: own.clone() }).await?;
    assert_eq!(back.ask(Echo::of("back")).await?, "back");
    other.send(TellMe { who: own })?;
    watch.log.has(|entry| entry == "note 6").await;
    Ok(())
}

/// Cannot be written.
#[derive(Debug, Deserialize)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("this stays here"))
    }
}

/// One way, and cannot be written.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct BadNote(Unwritable);

/// An ask that cannot be written.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct BadAsk(Unwritable);

async fn s143_what_cannot_be_written_is_an_error_of_the_caller(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [_, remote]) = pair.probe_both_ways("p").await?;
    let untyped = remote.clone().into_untyped();
    for error in [
        untyped.send(BadNote(Unwritable)).unwrap_err(),
        untyped.send_wait(BadNote(Unwritable)).await.unwrap_err(),
        untyped.ask(BadAsk(Unwritable)).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Encode);
        assert!(error.is_never_sent());
        assert!(error.text().contains("this stays here"), "{error}");
        assert!(error.text().starts_with("Bad"), "the message is named: {error}");
    }
    assert_eq!(remote.ask(Echo::of("fine")).await?, "fine");
    assert_eq!(watch.log.all(), ["start", "echo fine"]);
    Ok(())
}

async fn s147_one_connection_serves_both_directions(h: &Harness) -> anyhow::Result<()> {
    // The client listens nowhere, so what reaches it comes over its own connection.
    let pair = h.pair().await?;
    let (at_server, [local, remote]) = pair.probe_both_ways("p").await?;
    let (at_client, mine) = Probe::at(&pair.client, "mine").await?;
    let from_server = pair.server.endpoint_ref::<Probe>(&mine.to_string()).await?;
    let there: Vec<_> = (0..50).map(|n| remote.ask(Echo(format!("there {n}")))).collect();
    let back: Vec<_> = (0..50).map(|n| from_server.ask(Echo(format!("back {n}")))).collect();
    for (n, (there, back)) in there.into_iter().zip(back).enumerate() {
        assert_eq!((there.await?, back.await?), (format!("there {n}"), format!("back {n}")));
    }
    assert_eq!((at_server.log.len(), at_client.log.len()), (51, 51));
    // And a call within a call, over the same connection.
    assert_eq!(remote.ask(Relay { to: mine, text: "nested".into() }).await?, "nested");
    drop(local);
    Ok(())
}

async fn s149_more_calls_than_may_be_in_flight_all_end(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (watch, [local, remote]) = pair.probe_both_ways("p").await?;
    // 1,024 are in flight; the others wait their turn, and some of them are taken back.
    let held = local.ask(Wait(0));
    watch.log.reaches(2).await;
    let mut asks: Vec<_> = (0..3000).map(|n| remote.ask(Echo(format!("{n}")))).map(Some).collect();
    for ask in asks.iter_mut().step_by(7) {
        *ask = None;
    }
    watch.gate.open();
    held.await?;
    for (n, ask) in asks.into_iter().enumerate() {
        if let Some(ask) = ask {
            assert_eq!(ask.await?, format!("{n}"));
        }
    }
    Ok(())
}

async fn s149_each_call_gets_its_own_end(h: &Harness) -> anyhow::Result<()> {
    let pair = h.pair().await?;
    let (_, [_, remote]) = pair.probe_both_ways("p").await?;
    let mut calls: Vec<(usize, rpc_core::AskFuture<String>)> = Vec::new();
    let mut failures = Vec::new();
    for number in 0..200 {
        match number % 4 {
            0 => failures.push((number, remote.ask(Fail(format!("fail {number}"))))),
            1 => failures.push((number, remote.ask(Boom))),
            _ => calls.push((number, remote.ask(Echo(format!("echo {number}"))))),
        }
    }
    for (number, call) in calls {
        assert_eq!(call.await?, format!("echo {number}"));
    }
    for (number, call) in failures {
        let error = call.await.unwrap_err();
        match number % 4 {
            0 => assert_eq!(error.text(), format!("fail {number}: the cause")),
            _ => assert_eq!(error.kind(), ErrorKind::HandlerPanicked),
        }
    }
    Ok(())
}

/// An ask: is answered with so many bytes.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct Grow(usize);

/// Answers with much.
struct Grower;

#[endpoint]
impl Grower {
    #[receive_and_reply]
    fn grow(&mut self, msg: Grow) -> HandlerResult<String> {
        Ok("x".repeat(msg.0))
    }
}

async fn s150_the_layer_itself_bounds_messages(h: &Harness) -> anyhow::Result<()> {
    let small = |config: rpc_core::RpcEnvConfig| config.set("rpc.message.maxSize", "64k");
    let server = h.create(small(h.server_config("server"))?).await?;
    let client = h.create(small(h.client_config("client"))?).await?;
    let (watch, local) = Probe::at(&server, "p").await?;
    let grower = server.setup_endpoint("grower", Grower).await?;
    let remote = client.endpoint_ref::<Probe>(&local.to_string()).await?;
    let fits = "x".repeat(65_000);
    assert_eq!(remote.ask(Echo(fits.clone())).await?, fits);
    watch.log.take().clear();
    let error = remote.ask(Echo("x".repeat(70_000))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.is_never_sent() && error.text().contains("rpc.message.maxSize"), "{error:?}");
    // The reply of a handler, too: its caller is told, and that the handler has run.
    let remote_grower = client.endpoint_ref::<Grower>(&grower.to_string()).await?;
    assert_eq!(remote_grower.ask(Grow(60_000)).await?.len(), 60_000);
    let error = remote_grower.ask(Grow(70_000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(!error.is_never_sent() && error.text().contains("rpc.message.maxSize"), "{error:?}");
    assert!(watch.log.is_empty());
    // By value nothing is written, so nothing is bounded.
    assert_eq!(grower.ask(Grow(70_000)).await?.len(), 70_000);
    Ok(())
}

rpc_tests::both! {
    s140_a_failure_keeps_its_kind_outcome_and_text,
    s141_a_ref_is_written_as_its_address_and_its_pin,
    s142_a_raw_handler_is_within_its_env,
    s142_refs_are_read_and_written_within_an_env,
    s142_refs_survive_where_only_the_names_agree,
    s143_what_cannot_be_written_is_an_error_of_the_caller,
    s147_one_connection_serves_both_directions,
    s149_each_call_gets_its_own_end,
    s149_more_calls_than_may_be_in_flight_all_end,
    s150_the_layer_itself_bounds_messages,
}

/// A serialiser that no env runs: it takes every scalar and refuses the rest.
struct Outside;

macro_rules! scalars {
    ($($method:ident $(<$value:ident>)? ($($arg:ty),*);)*) => {
        $(fn $method $(<$value: Serialize + ?Sized>)? (self $(, _: $arg)*) -> Result<(), ValueError> {
            Ok(())
        })*
    };
}

macro_rules! compounds {
    ($($method:ident($($arg:ty),*) -> $kind:ident;)*) => {
        type Ok = ();
        type Error = ValueError;
        $(type $kind = Impossible<(), ValueError>;)*
        $(fn $method(self $(, _: $arg)*) -> Result<Self::$kind, ValueError> {
            Err(serde::ser::Error::custom("a compound"))
        })*
    };
}

impl Serializer for Outside {
    scalars! {
        serialize_bool(bool); serialize_i8(i8); serialize_i16(i16); serialize_i32(i32);
        serialize_i64(i64); serialize_u8(u8); serialize_u16(u16); serialize_u32(u32);
        serialize_u64(u64); serialize_f32(f32); serialize_f64(f64); serialize_char(char);
        serialize_str(&str); serialize_bytes(&[u8]); serialize_none(); serialize_unit();
        serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
        serialize_some<T>(&T);
        serialize_newtype_struct<T>(&'static str, &T);
        serialize_newtype_variant<T>(&'static str, u32, &'static str, &T);
    }
    compounds! {
        serialize_seq(Option<usize>) -> SerializeSeq;
        serialize_tuple(usize) -> SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> SerializeTupleVariant;
        serialize_map(Option<usize>) -> SerializeMap;
        serialize_struct(&'static str, usize) -> SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> SerializeStructVariant;
    }
}

// ---- between sessions, byte by byte

const START: Timestamp = Timestamp::START;

fn hello(env: u64, address: Option<&str>) -> Hello {
    Hello::new(env, address.map(str::to_owned), PeerLimits::default())
}

fn peer(env: u64) -> PeerInfo {
    let mut bytes = BytesMut::new();
    hello(env, None).put(&mut bytes);
    Hellos::new(hello(0, None), 65_536).receive(&mut bytes).unwrap().unwrap()
}

fn session(name: &str, peer_env: u64) -> Session {
    let mut session = Session::new(Limits::default(), name);
    session.attach(Timestamp::START, peer(peer_env));
    session
}

fn output(session: &mut Session) -> BytesMut {
    let mut out = VecDeque::new();
    session.transmit(|| START, usize::MAX, &mut out);
    out.into_iter().flatten().collect()
}

fn input(session: &mut Session, bytes: &mut BytesMut) -> Vec<Event> {
    let mut events = Vec::new();
    session.receive(START, bytes, &mut events).unwrap();
    events
}

/// Two sessions that talk; the second one has the endpoint "p", whose only message is "Echo".
struct Talk {
    asker: Session,
    answerer: Session,
    target: u32,
}

impl Talk {
    fn new() -> Self {
        let mut asker = session("answerer", 2);
        let target = asker.target(&TargetKey::new("p", None)).unwrap();
        let mut talk = Self { asker, answerer: session("asker", 1), target };
        let resolve = talk.asker.resolve(START, target).unwrap();
        let events = input(&mut talk.answerer, &mut output(&mut talk.asker));
        let [Event::Resolve(id, key)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((*id, key.name.as_str(), key.pin), (target, "p", None));
        let resolution =
            Resolution::new(Incarnation::new(2, 1), vec!["Echo".into()], 1000, 1 << 20);
        talk.answerer.resolved(target, &resolution);
        assert!(input(&mut talk.asker, &mut output(&mut talk.answerer)).is_empty());
        assert!(matches!(talk.end_of(resolve), Some(Ok(_))));
        talk
    }

    fn ask(&mut self, body: &[u8]) -> u64 {
        let deadline = START + Duration::from_secs(10);
        let mut body = body.to_vec().into();
        let mut message = Outgoing::new("Echo", Lane::Normal, &mut body, deadline);
        let request = Request::new(self.target, &mut message, Submission::Ask);
        self.asker.submit(|| START, request).unwrap().unwrap()
    }

    /// Brings the asker's output to the other side.
    fn arrive(&mut self) -> Vec<IncomingMessage> {
        let events = input(&mut self.answerer, &mut output(&mut self.asker));
        let messages = |event| match event {
            Event::Message(message) => vec![message],
            Event::Messages(row) => row.into_messages().collect(),
            other => panic!("{other:?}"),
        };
        events.into_iter().flat_map(messages).collect()
    }

    /// Brings the answerer's output back.
    fn come_back(&mut self) {
        let events = input(&mut self.asker, &mut output(&mut self.answerer));
        assert!(events.is_empty(), "{events:?}");
    }

    fn end_of(&mut self, call: u64) -> Option<Result<Bytes, CallEnd>> {
        match self.asker.poll_call(call, &Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => Some(end),
            Poll::Pending => None,
        }
    }
}

#[test]
fn s139_a_request_says_who_to_whom_and_what() {
    // Who: the hello, once for each connection.
    let mut bytes = BytesMut::new();
    hello(77, Some("10.0.0.1:7077")).put(&mut bytes);
    let info = Hellos::new(hello(1, None), 65_536).receive(&mut bytes).unwrap().unwrap();
    assert_eq!((info.hello.env, info.hello.address.as_deref()), (77, Some("10.0.0.1:7077")));
    assert_eq!(peer(78).hello.address, None, "a client has none");
    // To whom and what: the target's and the message's numbers, the call, the time, the body.
    let mut talk = Talk::new();
    let mut calls = HashSet::new();
    for body in [&b"\xa1x"[..], b"\xc0"] {
        talk.ask(body);
        let arrived = talk.arrive();
        let [message] = &arrived[..] else { panic!("{arrived:?}") };
        assert_eq!((message.target, message.number, &message.name), (talk.target, 0, &None));
        assert!(calls.insert(message.call.expect("an ask has a number")));
        assert_eq!(message.deadline, START + Duration::from_secs(10));
        assert_eq!(&message.body[..], body);
    }
}

#[test]
fn s144_a_frame_is_a_header_of_eight_bytes_and_a_payload() {
    let mut talk = Talk::new();
    talk.ask(b"\xa1x");
    let frame = output(&mut talk.asker);
    let mut expected = BytesMut::new();
    expected.put_u32(8 + 4 + 4 + 2); // length: what follows the header
    expected.put_u8(0x11); // an ask
    expected.put_u8(0); // no flags
    expected.put_u16(0); // message number 0: "Echo"
    assert_eq!(expected.len(), HEADER);
    expected.put_u64(0); // the first call of this connection
    expected.put_u32(talk.target);
    expected.put_u32(10_000); // milliseconds left
    expected.extend_from_slice(b"\xa1x");
    assert_eq!(frame, expected);
    let mut bytes = BytesMut::new();
    hello(1, None).put(&mut bytes);
    assert_eq!(bytes[..4], MAGIC);
    assert_eq!(bytes[8], Kind::Hello as u8);
}

#[test]
fn s145_the_number_of_a_call_is_never_used_again() {
    let mut talk = Talk::new();
    let (mut ours, mut theirs) = (HashSet::new(), HashSet::new());
    for round in 0..2000 {
        let calls: Vec<u64> = (0..3).map(|_| talk.ask(b"\xc0")).collect();
        for call in &calls {
            assert!(ours.insert(*call), "call {call} of round {round} had that number before");
        }
        // Ended in all ways: given up before they went, given up there, answered.
        if round % 3 == 0 {
            calls.iter().for_each(|call| talk.asker.abandon(START, *call));
        }
        for message in talk.arrive() {
            let number = message.call.unwrap();
            assert!(theirs.insert(number), "{number} of round {round} came before");
            talk.answerer.reply(number, &mut b"\xc0".to_vec().into()).unwrap();
            talk.answerer.grant(talk.target, 1, 1);
        }
        if round % 3 == 1 {
            calls.iter().for_each(|call| talk.asker.abandon(START, *call));
        }
        talk.come_back();
        assert_eq!(talk.arrive().len(), 0);
        if round % 3 == 2 {
            assert!(calls.iter().all(|call| matches!(talk.end_of(*call), Some(Ok(_)))));
        }
        assert_eq!((talk.asker.open_calls(), talk.answerer.open_calls()), ((0, 0), (0, 0)));
    }
    assert_eq!((ours.len(), theirs.len()), (6000, 3999));
}

#[test]
fn s146_frames_may_be_split_at_any_byte() {
    // Everything that one side says, hello included, brought to the other one byte at a time.
    let mut spoken = BytesMut::new();
    hello(1, None).put(&mut spoken);
    let mut hellos = Hellos::new(hello(2, None), 65_536);
    let mut arrived = BytesMut::new();
    let mut greeted = None;
    for (index, byte) in spoken.iter().enumerate() {
        arrived.put_u8(*byte);
        greeted = hellos.receive(&mut arrived).unwrap();
        assert_eq!(greeted.is_some(), index + 1 == spoken.len());
    }
    assert_eq!(greeted.unwrap().hello.env, 1);

    let mut talk = Talk::new();
    let bodies: Vec<Vec<u8>> = [0, 1, 2, 100, 300_000].map(|size| vec![7; size]).into();
    for body in &bodies {
        talk.ask(body);
    }
    // The large one goes in two parts: all of it is asked for at once.
    let spoken = output(&mut talk.asker);
    let mut arrived = BytesMut::new();
    let (mut messages, mut begun) = (Vec::new(), 0);
    for byte in spoken {
        arrived.put_u8(byte);
        for event in input(&mut talk.answerer, &mut arrived) {
            match event {
                Event::Message(message) => messages.push(message.body.to_vec()),
                Event::Begun(0, 300_000) => begun += 1,
                event => panic!("{event:?}"),
            }
        }
    }
    assert!(arrived.is_empty());
    assert_eq!((messages, begun), (bodies, 1));
}

#[test]
fn s146_impossible_frames_end_the_connection_before_they_cost_anything() {
    let refuse = |bytes: &[u8]| {
        let mut session = session("hostile", 9);
        let mut bytes = BytesMut::from(bytes);
        session.receive(START, &mut bytes, &mut Vec::new()).unwrap_err()
    };
    // Lengths that are negative in other languages, and those over the limit: refused when the
    // header is there, without waiting for a body or making room for it.
    for length in [u32::MAX, 0x8000_0000, 0x7fff_ffff, 256 * 1024 + 1] {
        let mut bytes = BytesMut::new();
        bytes.put_u32(length);
        bytes.put_slice(&[0x11, 0, 0, 0]);
        let close = refuse(&bytes);
        assert!(close.is(CloseCode::TooLarge), "{close}");
        assert!(close.text.contains("rpc.frame.maxSize"), "{close}");
    }
    // Frames that are too short for their kind.
    for kind in [Kind::Ask, Kind::OneWay, Kind::Reply, Kind::Failure, Kind::Cancel, Kind::Ping] {
        let mut bytes = BytesMut::new();
        put_header(&mut bytes, 0, kind, 0, 0);
        let close = refuse(&bytes);
        assert!(close.is(CloseCode::Protocol) && close.text.contains("ends early"), "{close}");
    }
    // Kinds of no version, unless they say that they may be skipped.
    let close = refuse(&[0, 0, 0, 0, 0x7f, 0, 0, 0]);
    assert!(close.is(CloseCode::Protocol), "{close}");
    let mut skipped = BytesMut::from(&[0, 0, 0, 2, 0xff, 0, 0, 0, 1, 2][..]);
    assert!(input(&mut session("later", 9), &mut skipped).is_empty() && skipped.is_empty());
    // Another protocol, at its first byte.
    let mut http = BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]);
    let close = Hellos::new(hello(1, None), 65_536).receive(&mut http).unwrap_err();
    assert!(close.is(CloseCode::Protocol) && close.text.contains("HTTP"), "{close}");
    let mut first = BytesMut::from(&b"G"[..]);
    assert!(Hellos::new(hello(1, None), 65_536).receive(&mut first).is_err());
}

#[test]
fn s147_either_side_of_a_session_may_ask() {
    let mut talk = Talk::new();
    // The answerer asks for an endpoint of the asker while a call to it is open.
    let call = talk.ask(b"\xc0");
    let target = talk.answerer.target(&TargetKey::new("back", None)).unwrap();
    let resolve = talk.answerer.resolve(START, target).unwrap();
    let events = input(&mut talk.asker, &mut output(&mut talk.answerer));
    assert!(matches!(&events[..], [Event::Resolve(_, key)] if key.name == "back"), "{events:?}");
    let unknown = RpcError::new(ErrorKind::EndpointNotFound, "no back");
    talk.asker.unresolved(target, &unknown);
    let arrived = talk.arrive();
    let number = arrived[0].call.unwrap();
    let cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(CallEnd::Failed(error))) = talk.answerer.poll_call(resolve, &cx) else {
        panic!("the resolve has not ended");
    };
    assert_eq!((error.kind(), error.text()), (ErrorKind::EndpointNotFound, "no back"));
    talk.answerer.reply(number, &mut b"\x2a".to_vec().into()).unwrap();
    talk.come_back();
    assert_eq!(talk.end_of(call).unwrap().unwrap(), &b"\x2a"[..]);
}

#[test]
fn s95_a_callee_that_is_too_late_leaves_the_words_to_the_callers_timeout() {
    let mut talk = Talk::new();
    let call = talk.ask(b"\xc0");
    let number = talk.arrive()[0].call.unwrap();
    let late = RpcError::new(ErrorKind::Timeout, "too late").with_outcome(Outcome::NeverSent);
    talk.answerer.fail(number, &late);
    talk.come_back();
    assert!(matches!(talk.end_of(call), Some(Err(CallEnd::TimedOut { sent: false }))));
}

#[test]
fn s148_an_answer_that_nobody_waits_for() {
    let mut talk = Talk::new();
    // To a call that was given up: dropped.
    let call = talk.ask(b"\xc0");
    let number = talk.arrive()[0].call.unwrap();
    talk.answerer.reply(number, &mut b"\xc0".to_vec().into()).unwrap();
    let mut answer = output(&mut talk.answerer);
    talk.asker.abandon(START, call);
    let next = talk.ask(b"\xc0");
    assert!(input(&mut talk.asker, &mut answer).is_empty());
    assert!(talk.end_of(next).is_none(), "it is not the answer of another call");
    // To a call that never was: a peer that makes answers up is not believed any more.
    for kind in [Kind::Reply, Kind::Failure] {
        let mut made_up = BytesMut::new();
        put_header(&mut made_up, 9, kind, 0, 0);
        made_up.put_u64(12_345);
        made_up.put_u8(0xc0);
        let close = talk.asker.receive(START, &mut made_up, &mut Vec::new()).unwrap_err();
        assert!(close.is(CloseCode::Protocol), "{close}");
        assert!(close.text.contains("never made"), "{close}");
    }
    assert!(talk.end_of(next).is_none());
}

#[test]
fn s90_s91_a_second_answer_goes_nowhere() {
    let mut talk = Talk::new();
    let call = talk.ask(b"\xc0");
    let number = talk.arrive()[0].call.unwrap();
    talk.answerer.reply(number, &mut b"\x01".to_vec().into()).unwrap();
    let answer = output(&mut talk.answerer);
    assert!(input(&mut talk.asker, &mut answer.clone()).is_empty());
    let next = talk.ask(b"\xc0");
    // The same bytes once more, while the next call is open.
    assert!(input(&mut talk.asker, &mut answer.clone()).is_empty());
    assert_eq!(talk.end_of(call).unwrap().unwrap(), &b"\x01"[..]);
    assert!(talk.end_of(next).is_none());
}

#[test]
fn s151_a_large_message_holds_up_its_own_endpoint_only() {
    let mut talk = Talk::new();
    let other = talk.asker.target(&TargetKey::new("q", None)).unwrap();
    talk.asker.resolve(START, other).unwrap();
    let events = input(&mut talk.answerer, &mut output(&mut talk.asker));
    let [Event::Resolve(wire, _)] = &events[..] else { panic!("{events:?}") };
    let resolution = Resolution::new(Incarnation::new(2, 2), vec!["Echo".into()], 1000, 1 << 20);
    talk.answerer.resolved(*wire, &resolution);
    talk.come_back();
    let ask = |talk: &mut Talk, target, body: &[u8]| {
        let mut body = body.to_vec().into();
        let deadline = START + Duration::from_secs(10);
        let mut message = Outgoing::new("Echo", Lane::Normal, &mut body, deadline);
        let request = Request::new(target, &mut message, Submission::Ask);
        talk.asker.submit(|| START, request).unwrap();
    };
    let first = talk.target;
    ask(&mut talk, first, &[7; 1 << 19]);
    // It has begun to go when the small ones come: one to the same endpoint, one to another.
    let mut seen = Vec::new();
    for turn in 0..100 {
        let mut out = VecDeque::new();
        talk.asker.transmit(|| START, 1, &mut out);
        let mut bytes: BytesMut = out.into_iter().flatten().collect();
        if bytes.is_empty() {
            break;
        }
        for event in input(&mut talk.answerer, &mut bytes) {
            match event {
                Event::Message(message) => {
                    seen.push((message.target == *wire, message.body.len()));
                }
                Event::Begun(..) => assert_eq!(turn, 0),
                other => panic!("{other:?}"),
            }
        }
        if turn == 0 {
            assert!(seen.is_empty());
            ask(&mut talk, first, b"\x01");
            ask(&mut talk, other, b"\x02");
        }
    }
    assert_eq!(seen, [(true, 1), (false, 1 << 19), (false, 1)]);
}
