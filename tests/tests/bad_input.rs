//! Bad input: each has an error that says what was wrong, where, how much was allowed, and which
//! key changes it. The texts are compared as a whole.
#![cfg(test)]

#[path = "common/text.rs"]
mod text;

use rpc_actix::{
    EndpointContext, ErrorKind, HandlerError, HandlerResult, Outcome, RpcEndpointRef, RpcEnv,
    RpcEnvConfig, RpcEnvFactoryRegistry, RpcError, RpcMessage, Untyped, endpoint,
};
use serde::de::value::MapDeserializer;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use text::{plain, refused};
use tokio::sync::Notify;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct Echo {
    text: String,
}

impl Echo {
    fn of(text: &str) -> Self {
        Self { text: text.to_owned() }
    }
}

/// What an older or newer caller may take `Echo` for.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(name = "Echo", reply = String)]
struct OtherEcho {
    number: u64,
}

/// The same message as `Echo`, with another idea of its reply.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(name = "Echo", reply = u64)]
struct EchoOfNumber {
    text: String,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Note {
    text: String,
}

impl Note {
    fn of_size(bytes: usize) -> Self {
        Self { text: "x".repeat(bytes) }
    }
}

/// Answered with a text of that many bytes.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct Inflate {
    bytes: usize,
}

/// The handler asks a ref from its own thread, blocking.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = String)]
struct BlockOn {
    other: RpcEndpointRef<Echoing>,
}

/// The handler waits for the test.
#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Hold;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
struct Stranger;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct StrangeAsk;

#[derive(Default)]
struct Echoing {
    holding: Arc<Notify>,
    release: Arc<Notify>,
}

#[endpoint]
impl Echoing {
    #[receive_and_reply]
    async fn echo(&mut self, msg: Echo) -> HandlerResult<String> {
        Ok(msg.text)
    }

    #[receive_and_reply]
    async fn inflate(&mut self, msg: Inflate) -> HandlerResult<String> {
        Ok("x".repeat(msg.bytes))
    }

    #[receive_and_reply]
    async fn block_on(&mut self, msg: BlockOn) -> HandlerResult<String> {
        Ok(msg.other.ask_blocking(Echo::of("x"))?)
    }

    #[receive_and_reply]
    async fn hold(&mut self, _msg: Hold) -> HandlerResult<()> {
        self.holding.notify_one();
        self.release.notified().await;
        Ok(())
    }

    #[receive]
    async fn note(&mut self, _msg: Note) -> HandlerResult<()> {
        Ok(())
    }
}

/// Takes nothing.
struct Silent;

#[endpoint]
impl Silent {
    #[on_start]
    async fn started(&mut self, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
        Ok(())
    }
}

async fn server(settings: &[(&str, &str)]) -> RpcEnv {
    let config = RpcEnvConfig::server("server", "127.0.0.1:0");
    rpc_actix::create(config.set_all(settings.iter().copied()).unwrap()).await.unwrap()
}

async fn client(settings: &[(&str, &str)]) -> RpcEnv {
    let config = RpcEnvConfig::client("client");
    rpc_actix::create(config.set_all(settings.iter().copied()).unwrap()).await.unwrap()
}

/// A server with an `echo` endpoint, a client, and the client's ref.
async fn pair() -> (RpcEnv, RpcEnv, RpcEndpointRef<Echoing>) {
    pair_with(&[], &[]).await
}

async fn pair_with(
    server_settings: &[(&str, &str)],
    client_settings: &[(&str, &str)],
) -> (RpcEnv, RpcEnv, RpcEndpointRef<Echoing>) {
    let (server, client) = (server(server_settings).await, client(client_settings).await);
    server.setup_endpoint("echo", Echoing::default()).await.unwrap();
    let echo = client.endpoint_ref(&uri(&server, "echo")).await.unwrap();
    (server, client, echo)
}

fn uri(env: &RpcEnv, name: &str) -> String {
    format!("rpc://{name}@{}", env.address().unwrap())
}

// What is not there.

#[tokio::test]
async fn an_unknown_endpoint() {
    let (server, client, _) = pair().await;
    let text = "Cannot find endpoint: rpc://nobody@127.0.0.1:PORT";
    for env in [&server, &client] {
        let found = env.endpoint_ref::<Untyped>(&uri(&server, "nobody")).await;
        let error = refused(found, ErrorKind::EndpointNotFound, text);
        assert_eq!(error.outcome(), Outcome::NeverSent);
    }
    assert!(server.local_ref::<Untyped>("nobody").is_none());
}

#[tokio::test]
async fn an_endpoint_that_has_stopped() {
    let (server, client, echo) = pair().await;
    let pinned = server.local_ref::<Echoing>("echo").unwrap();
    let far_pinned: RpcEndpointRef<Echoing> =
        client.decode(&server.encode(&pinned).unwrap()).unwrap();
    assert_eq!(far_pinned.ask(Echo::of("x")).await.unwrap(), "x");
    server.stop(&pinned).unwrap();
    server.stopped(&pinned).await.unwrap();

    let gone = "the endpoint rpc://echo@127.0.0.1:PORT has been stopped";
    refused(pinned.ask(Echo::of("x")).await, ErrorKind::EndpointStopped, gone);
    refused(pinned.send(Note::of_size(1)), ErrorKind::EndpointStopped, gone);
    let unknown = "Cannot find endpoint: rpc://echo@127.0.0.1:PORT";
    // What is on its way when the endpoint stops is for the one that stopped.
    let later = loop {
        match echo.ask(Echo::of("x")).await {
            Err(error) if error.is_stopped() => assert_eq!(plain(error.text()), gone),
            later => break later,
        }
    };
    refused(later, ErrorKind::EndpointNotFound, unknown);
    let error = far_pinned.ask(Echo::of("x")).await;
    let error = refused(error, ErrorKind::EndpointStopped, gone);
    assert_eq!(error.outcome(), Outcome::NeverSent);
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let client = client(&[]).await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let found = client.endpoint_ref::<Untyped>(&format!("rpc://echo@127.0.0.1:{port}")).await;
    let text = "Failed to connect to 127.0.0.1:PORT: Connection refused (os error 111)";
    let error = refused(found, ErrorKind::Unreachable, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
}

#[tokio::test]
async fn a_client_that_is_not_connected() {
    let (server, client) = (server(&[]).await, client(&[]).await);
    let silent = client.setup_endpoint("silent", Silent).await.unwrap();
    let found = server.endpoint_ref::<Untyped>(&silent.endpoint_address().to_string()).await;
    let text = "cannot reach rpc-client://silent@ENV: its env does not listen, and has no connection to this one";
    refused(found, ErrorKind::Unreachable, text);
}

/// A message is not lost for a ref in it that leads nowhere; what is sent to the ref is.
#[tokio::test]
async fn a_ref_that_leads_nowhere() {
    #[derive(Serialize)]
    struct Ref {
        at: &'static str,
    }
    let client = client(&[]).await;
    for (at, kind, text) in [
        (
            "rpc-client://far@00000000000000aa",
            ErrorKind::Unreachable,
            "cannot reach rpc-client://far@00000000000000aa: its env does not listen, and has no connection to this one",
        ),
        (
            "rpc://far@10.1.2.3:7077",
            ErrorKind::SecurityRequired,
            "cannot reach 10.1.2.3:7077 without security: a plaintext RpcEnv listens on and dials loopback addresses only (127.0.0.0/8, ::1, localhost), unless it is built with the feature `dangerous-plaintext` for a network that nobody else can reach",
        ),
    ] {
        let bytes = rmp_serde::to_vec_named(&Ref { at }).unwrap();
        let far: RpcEndpointRef<Untyped> = client.decode(&bytes).unwrap();
        assert_eq!(far.to_string(), at);
        let error = far.ask(Echo::of("x")).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (kind, Outcome::NeverSent));
        assert_eq!(error.text(), text);
    }
}

// Messages that the endpoint does not take.

#[tokio::test]
async fn a_message_without_a_handler() {
    let (server, _client, echo) = pair().await;
    let local = server.local_ref::<Echoing>("echo").unwrap();
    for (echo, from) in [(echo, "127.0.0.1:PORT"), (local, "127.0.0.1:PORT")] {
        let text =
            format!("Unsupported message StrangeAsk from {from} to rpc://echo@127.0.0.1:PORT");
        let answer = echo.into_untyped().ask(StrangeAsk).await;
        let error = refused(answer, ErrorKind::Unsupported, &text);
        assert_eq!(error.outcome(), Outcome::NeverSent);
    }
}

#[tokio::test]
async fn an_endpoint_without_handlers() {
    let (server, client) = (server(&[]).await, client(&[]).await);
    let local = server.setup_endpoint("silent", Silent).await.unwrap().into_untyped();
    let remote = client.endpoint_ref::<Untyped>(&uri(&server, "silent")).await.unwrap();
    for silent in [local, remote] {
        let text = "rpc://silent@127.0.0.1:PORT won't reply anything (message StrangeAsk)";
        refused(silent.ask(StrangeAsk).await, ErrorKind::Unsupported, text);
    }
}

/// A one-way message has no caller to tell: `on_error` gets it.
#[tokio::test]
async fn a_one_way_message_without_a_handler_reaches_on_error() {
    let (server, client) = (server(&[]).await, client(&[]).await);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    server.setup_endpoint("strict", Strict { tell }).await.unwrap();
    let remote = client.endpoint_ref::<Untyped>(&uri(&server, "strict")).await.unwrap();
    remote.send(Stranger).unwrap();
    let text = "rpc://strict@127.0.0.1:PORT does not implement 'receive' (message Stranger)";
    let error = told.recv().await.unwrap();
    assert_eq!((plain(error.text()).as_str(), error.kind()), (text, ErrorKind::Unsupported));
}

struct Strict {
    tell: tokio::sync::mpsc::UnboundedSender<RpcError>,
}

#[endpoint]
impl Strict {
    #[receive_and_reply]
    async fn echo(&mut self, msg: Echo) -> HandlerResult<String> {
        Ok(msg.text)
    }

    #[on_error]
    async fn error(
        &mut self,
        error: RpcError,
        _cx: &mut EndpointContext<Self>,
    ) -> HandlerResult<()> {
        Ok(self.tell.send(error)?)
    }
}

/// The name is that of an ask, but it was sent without waiting for its answer, and the reverse.
#[tokio::test]
async fn an_ask_that_was_sent_and_a_one_way_that_was_asked() {
    #[derive(Debug, Serialize, Deserialize, RpcMessage)]
    #[rpc(name = "Note", reply = ())]
    struct NoteAsked {
        text: String,
    }
    let (server, _client, echo) = pair().await;
    let local = server.local_ref::<Echoing>("echo").unwrap();
    for echo in [echo.into_untyped(), local.into_untyped()] {
        let text = "Unsupported message Note to rpc://echo@127.0.0.1:PORT: it is one-way, but it was asked";
        refused(echo.ask(NoteAsked { text: String::new() }).await, ErrorKind::Unsupported, text);
    }
}

// Messages that cannot be read, written, or taken.

#[tokio::test]
async fn an_undecodable_message() {
    let (server, _client, echo) = pair().await;
    let local = server.local_ref::<Echoing>("echo").unwrap();
    for echo in [echo.into_untyped(), local.into_untyped()] {
        let text = "Echo to rpc://echo@127.0.0.1:PORT: 9 bytes do not decode as bad_input::Echo: missing field `text`";
        let answer = echo.ask(OtherEcho { number: 7 }).await;
        let error = refused(answer, ErrorKind::Decode, text);
        assert_eq!(error.outcome(), Outcome::NeverSent);
    }
}

#[tokio::test]
async fn an_undecodable_reply() {
    let (server, _client, echo) = pair().await;
    let local = server.local_ref::<Echoing>("echo").unwrap();
    for echo in [echo.into_untyped(), local.into_untyped()] {
        let answer = echo.ask(EchoOfNumber { text: "seven".into() }).await;
        let text = "the reply to Echo from rpc://echo@127.0.0.1:PORT: 6 bytes do not decode as u64: wrong msgpack marker FixStr(5)";
        let error = refused(answer, ErrorKind::Decode, text);
        assert_eq!(error.outcome(), Outcome::FailedInHandler);
    }
}

#[tokio::test]
async fn an_unencodable_message() {
    #[derive(Debug, Deserialize, RpcMessage)]
    struct Unwritable;
    impl Serialize for Unwritable {
        fn serialize<S: serde::Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("the clock is wrong"))
        }
    }
    let (_server, _client, echo) = pair().await;
    let text =
        "Unwritable to rpc://echo@127.0.0.1:PORT: the value cannot be encoded: the clock is wrong";
    let error = refused(echo.into_untyped().send(Unwritable), ErrorKind::Encode, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
}

const SMALL: (&str, &str) = ("rpc.message.maxSize", "1k");

#[tokio::test]
async fn a_message_that_is_too_large() {
    let (_server, _client, echo) = pair_with(&[], &[SMALL]).await;
    let text = |name| {
        format!(
            "{name} to rpc://echo@127.0.0.1:PORT: the encoded value is larger than 1024 bytes. This limit is controlled by rpc.message.maxSize"
        )
    };
    let error = refused(echo.send(Note::of_size(2000)), ErrorKind::TooLarge, &text("Note"));
    assert_eq!(error.outcome(), Outcome::NeverSent);
    let answer = echo.ask(Echo::of(&"x".repeat(2000))).await;
    refused(answer, ErrorKind::TooLarge, &text("Echo"));
    assert_eq!(echo.ask(Echo::of("x")).await.unwrap(), "x", "the connection goes on");
}

#[tokio::test]
async fn a_reply_that_is_too_large() {
    let (_server, _client, echo) = pair_with(&[SMALL], &[]).await;
    let answer = echo.ask(Inflate { bytes: 2000 }).await;
    let text = "the reply to Inflate from rpc://echo@127.0.0.1:PORT: the encoded value is larger than 1024 bytes. This limit is controlled by rpc.message.maxSize";
    let error = refused(answer, ErrorKind::TooLarge, text);
    assert_eq!(error.outcome(), Outcome::FailedInHandler);
    assert_eq!(echo.ask(Echo::of("x")).await.unwrap(), "x", "the connection goes on");
}

/// The peer's limit counts as well: it is known from the hello.
#[tokio::test]
async fn a_message_that_is_too_large_for_the_peer() {
    let (_server, _client, echo) = pair_with(&[SMALL], &[]).await;
    let text = "Note to echo at 127.0.0.1:PORT: its 2009 bytes are over the limit of 1024 of the peer. This limit is controlled by rpc.message.maxSize";
    let error = refused(echo.send(Note::of_size(2000)), ErrorKind::TooLarge, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
}

/// Queued before the peer's limit is known, it is refused when that is, and costs nobody else.
#[tokio::test]
async fn a_message_that_turns_out_to_be_too_large_for_the_peer() {
    let (server, client) = (server(&[SMALL]).await, client(&[]).await);
    let echo = server.setup_endpoint("echo", Echoing::default()).await.unwrap();
    let echo: RpcEndpointRef<Echoing> = client.decode(&server.encode(&echo).unwrap()).unwrap();
    let small = echo.ask(Echo::of("before"));
    let large = echo.ask(Echo::of(&"x".repeat(20_000)));
    let other = echo.ask(Echo::of("after"));
    let text = "Echo to echo at 127.0.0.1:PORT: its 20009 bytes are over the limit of 1024 of the peer. This limit is controlled by rpc.message.maxSize";
    let error = refused(large.await, ErrorKind::TooLarge, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
    assert_eq!(small.await.unwrap(), "before");
    assert_eq!(other.await.unwrap(), "after");
}

#[tokio::test]
async fn a_reply_that_is_too_large_for_the_caller() {
    let (_server, _client, echo) = pair_with(&[], &[SMALL]).await;
    let answer = echo.ask(Inflate { bytes: 2000 }).await;
    let text = "the reply to Inflate from rpc://echo@127.0.0.1:PORT: its 2003 bytes are over the limit of 1024 of the peer. This limit is controlled by rpc.message.maxSize";
    let error = refused(answer, ErrorKind::TooLarge, text);
    assert_eq!(error.outcome(), Outcome::FailedInHandler);
}

// No room, no time.

/// A handler that is at work until it is released.
struct Busy {
    release: Arc<Notify>,
    _hold: tokio::task::JoinHandle<Result<(), RpcError>>,
}

async fn busy_server(settings: &[(&str, &str)]) -> (RpcEnv, RpcEndpointRef<Echoing>, Busy) {
    let server = server(settings).await;
    let endpoint = Echoing::default();
    let (holding, release) = (endpoint.holding.clone(), endpoint.release.clone());
    let slow = server.setup_endpoint("slow", endpoint).await.unwrap();
    let asked = slow.clone();
    let hold = tokio::spawn(async move { asked.ask(Hold).await });
    holding.notified().await;
    (server, slow, Busy { release, _hold: hold })
}

#[tokio::test]
async fn a_full_inbox() {
    let (_server, slow, busy) = busy_server(&[("rpc.inbox.maxMessages", "4")]).await;
    for _ in 0..4 {
        slow.send(Note::of_size(1)).unwrap();
    }
    let text = "rpc://slow@127.0.0.1:PORT has no room for Note: 4 messages are in its inbox. This limit is controlled by rpc.inbox.maxMessages (4)";
    let error = refused(slow.send(Note::of_size(1)), ErrorKind::Overloaded, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
    busy.release.notify_one();
}

#[tokio::test]
async fn an_inbox_with_too_many_bytes() {
    let (_server, slow, busy) = busy_server(&[("rpc.inbox.maxBytes", "30")]).await;
    slow.send(Note::of_size(1)).unwrap();
    let text = "rpc://slow@127.0.0.1:PORT has no room for the 24 bytes of Note: 24 bytes are in its inbox. This limit is controlled by rpc.inbox.maxBytes (30)";
    refused(slow.send(Note::of_size(1)), ErrorKind::Overloaded, text);
    busy.release.notify_one();
}

/// What peers may send is kept free for them, and the text says so.
#[tokio::test]
async fn an_inbox_whose_room_is_promised_to_peers() {
    let (server, slow, busy) = busy_server(&[("rpc.inbox.maxMessages", "64")]).await;
    let client = client(&[]).await;
    let _far = client.endpoint_ref::<Echoing>(&uri(&server, "slow")).await.unwrap();
    let refusal = (0..).find_map(|_| slow.send(Note::of_size(1)).err()).unwrap();
    let text = "rpc://slow@127.0.0.1:PORT has no room for Note: 60 messages are in its inbox, 4 places are kept for peers. This limit is controlled by rpc.inbox.maxMessages (64)";
    refused(Err::<(), _>(refusal), ErrorKind::Overloaded, text);
    busy.release.notify_one();
}

#[tokio::test]
async fn too_many_bytes_that_wait_for_room_in_an_inbox() {
    let settings = [("rpc.inbox.maxBytes", "30"), ("rpc.outbox.maxWaitingBytes", "50")];
    let (_server, slow, busy) = busy_server(&settings).await;
    let waiting: Vec<_> = (0..3).map(|_| slow.ask(Echo::of("x"))).collect();
    let text = "rpc://slow@127.0.0.1:PORT has no room for the 24 bytes of Echo: 72 bytes are in its inbox. This limit is controlled by rpc.outbox.maxWaitingBytes (50)";
    refused(slow.ask(Echo::of("x")).await, ErrorKind::Overloaded, text);
    busy.release.notify_one();
    for answer in waiting {
        answer.await.unwrap();
    }
}

#[tokio::test]
async fn too_many_that_wait_for_room_in_an_inbox() {
    let settings = [("rpc.inbox.maxMessages", "4"), ("rpc.outbox.maxWaiting", "2")];
    let (_server, slow, busy) = busy_server(&settings).await;
    let waiting: Vec<_> = (0..6).map(|_| slow.ask(Echo::of("x"))).collect();
    let text = "rpc://slow@127.0.0.1:PORT has no room for Echo: 6 messages are in its inbox, 2 of them wait for room. This limit is controlled by rpc.outbox.maxWaiting (2)";
    refused(slow.ask(Echo::of("x")).await, ErrorKind::Overloaded, text);
    busy.release.notify_one();
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), "x");
    }
}

#[tokio::test]
async fn a_full_outbox() {
    let (server, _slow, busy) = busy_server(&[("rpc.inbox.maxMessages", "8")]).await;
    let client = client(&[("rpc.outbox.maxMessages", "4"), ("rpc.outbox.maxWaiting", "1")]).await;
    let slow = client.endpoint_ref::<Echoing>(&uri(&server, "slow")).await.unwrap();
    let (sent, refusal) = fill(&slow).await;
    let text = "no room for Note to slow at 127.0.0.1:PORT: 4 messages wait to be sent there. This limit is controlled by rpc.outbox.maxMessages (4)";
    let error = refused(Err::<(), _>(refusal), ErrorKind::Overloaded, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
    assert!(sent >= 4);

    let waiting = slow.ask(Echo::of("x"));
    let text = "no room for Echo to slow at 127.0.0.1:PORT: 5 messages wait, 1 of them for room, to be sent there. This limit is controlled by rpc.outbox.maxWaiting (1)";
    refused(slow.ask(Echo::of("x")).await, ErrorKind::Overloaded, text);
    busy.release.notify_one();
    assert_eq!(waiting.await.unwrap(), "x");
}

/// Sends until the window is used up and the queue is full: how many were taken, and the refusal.
async fn fill(slow: &RpcEndpointRef<Echoing>) -> (usize, RpcError) {
    let mut sent = 0;
    loop {
        // The connection writes what the window allows on another thread, so a refusal counts only
        // when some time for that has brought no room.
        let mut refusal = None;
        for _ in 0..200 {
            match slow.send(Note::of_size(1)) {
                Ok(()) => {
                    sent += 1;
                    refusal = None;
                    break;
                }
                Err(error) => refusal = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if let Some(error) = refusal {
            return (sent, error);
        }
    }
}

#[tokio::test]
async fn an_outbox_with_too_many_bytes() {
    let (server, _slow, busy) = busy_server(&[("rpc.inbox.maxMessages", "8")]).await;
    let client = client(&[("rpc.outbox.maxBytes", "50")]).await;
    let slow = client.endpoint_ref::<Echoing>(&uri(&server, "slow")).await.unwrap();
    let (_, refusal) = fill(&slow).await;
    let text = "no room for the 8 bytes of Note to slow at 127.0.0.1:PORT: 48 bytes wait to be sent there. This limit is controlled by rpc.outbox.maxBytes (50)";
    refused(Err::<(), _>(refusal), ErrorKind::Overloaded, text);
    busy.release.notify_one();
}

#[tokio::test]
async fn an_ask_that_takes_too_long_names_its_key_once_and_the_peer() {
    let (server, slow, busy) = busy_server(&[("rpc.askTimeout", "20ms")]).await;
    let text = |key| {
        format!(
            "Cannot receive any reply from rpc://slow@127.0.0.1:PORT in 20ms. This timeout is controlled by {key}"
        )
    };
    let error = refused(slow.ask(Hold).await, ErrorKind::Timeout, &text("rpc.askTimeout"));
    assert_eq!(error.outcome(), Outcome::NeverSent, "it was still queued");

    let client = client(&[("rpc.network.timeout", "20ms"), ("rpc.lookupTimeout", "10s")]).await;
    let slow = client.endpoint_ref::<Echoing>(&uri(&server, "slow")).await.unwrap();
    let error = refused(slow.ask(Hold).await, ErrorKind::Timeout, &text("rpc.network.timeout"));
    assert_eq!(error.outcome(), Outcome::Unknown, "it had left this process");

    let given = slow.ask_with_timeout(Hold, Duration::from_millis(20)).await;
    refused(given, ErrorKind::Timeout, &text("the caller"));
    busy.release.notify_one();
}

#[tokio::test]
async fn a_callee_without_an_address_is_named_by_its_socket() {
    let (server, client, echo) = pair_with(&[("rpc.askTimeout", "20ms")], &[]).await;
    let endpoint = Echoing::default();
    let slow = client.setup_endpoint("slow", endpoint).await.unwrap();
    echo.ask(Echo::of("connected")).await.unwrap();
    let slow: RpcEndpointRef<Echoing> = server.decode(&client.encode(&slow).unwrap()).unwrap();
    let text = "Cannot receive any reply from rpc-client://slow@ENV (127.0.0.1:PORT) in 20ms. This timeout is controlled by rpc.askTimeout";
    refused(slow.ask(Hold).await, ErrorKind::Timeout, text);
}

#[tokio::test]
async fn a_lookup_that_takes_too_long() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client(&[("rpc.lookupTimeout", "20ms")]).await;
    let uri = format!("rpc://echo@{}", silent.local_addr().unwrap());
    let found = client.endpoint_ref::<Untyped>(&uri).await;
    let text = "Cannot receive any reply from rpc://echo@127.0.0.1:PORT in 20ms. This timeout is controlled by rpc.lookupTimeout";
    let error = refused(found, ErrorKind::Timeout, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
}

/// A call to a peer that falls silent is told which key has ended its connection.
#[tokio::test]
async fn a_peer_that_falls_silent() {
    use rpc_tests::raw_peer::{RawPeer, hello, kind, resolved};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let uri = format!("rpc://echo@{address}");
    let silent = thread::spawn(move || {
        let mut peer = RawPeer::accept(&listener);
        peer.expect(kind::HELLO);
        peer.say(&hello(7, Some(&address)).with_heartbeat(Duration::from_millis(50)));
        let target = peer.expect(kind::RESOLVE).payload;
        let target = u32::from_be_bytes(target[..4].try_into().unwrap());
        peer.send(&resolved(target, &["Echo"], 9));
        peer.expect(kind::ASK);
        peer.reason().unwrap().text
    });
    let client = client(&[("rpc.io.heartbeat", "10ms"), ("rpc.io.deadAfter", "200ms")]).await;
    let echo = client.endpoint_ref::<Echoing>(&uri).await.unwrap();
    let why = "nothing was heard of the peer for 200ms (rpc.io.deadAfter)";
    let text = format!("the connection to 127.0.0.1:PORT was closed: {why}");
    let error = refused(echo.ask(Echo::of("x")).await, ErrorKind::Disconnected, &text);
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(silent.join().unwrap(), why, "it is told as well");
}

#[tokio::test]
async fn a_server_that_has_no_place() {
    let server = server(&[("rpc.io.maxConnections", "1")]).await;
    server.setup_endpoint("echo", Echoing::default()).await.unwrap();
    let (first, second) = (client(&[]).await, client(&[]).await);
    let echo = first.endpoint_ref::<Echoing>(&uri(&server, "echo")).await.unwrap();
    let text = "the connection to 127.0.0.1:PORT was closed: the peer says: 1 connections are open (rpc.io.maxConnections)";
    let found = second.endpoint_ref::<Echoing>(&uri(&server, "echo")).await;
    let error = refused(found, ErrorKind::Overloaded, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
    assert_eq!(echo.ask(Echo::of("x")).await.unwrap(), "x");
}

#[tokio::test]
async fn an_endpoint_that_has_no_time_to_drain() {
    let (server, slow, busy) = busy_server(&[("rpc.shutdown.drainTimeout", "20ms")]).await;
    let queued = slow.ask(Echo::of("x"));
    server.stop(&slow).unwrap();
    let text = "the endpoint rpc://slow@127.0.0.1:PORT has been stopped: the message still waited after 20ms. This timeout is controlled by rpc.shutdown.drainTimeout (20ms)";
    let error = refused(queued.await, ErrorKind::EndpointStopped, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
    busy.release.notify_one();
}

#[tokio::test]
async fn a_peer_that_never_says_hello() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client(&[("rpc.io.handshakeTimeout", "20ms")]).await;
    let uri = format!("rpc://echo@{}", silent.local_addr().unwrap());
    let found = client.endpoint_ref::<Untyped>(&uri).await;
    let text = "127.0.0.1:PORT sent no hello within 20ms (rpc.io.handshakeTimeout)";
    let error = refused(found, ErrorKind::Timeout, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
}

// Another protocol, another version.

/// Listens, sends those bytes to whoever connects, and gives back what came.
fn stranger(says: &'static [u8]) -> (String, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("rpc://echo@{}", listener.local_addr().unwrap());
    let heard = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(says).unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        heard
    });
    (uri, heard)
}

/// Connects to an env, sends those bytes, and gives back all that it answers until it closes.
async fn visitor(env: &RpcEnv, says: Vec<u8>) -> Vec<u8> {
    let address = env.address().unwrap().to_string();
    let visit = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&says).unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        let _ = stream.shutdown(Shutdown::Both);
        heard
    });
    visit.await.unwrap()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn dialling_something_that_speaks_another_protocol() {
    let client = client(&[]).await;
    for (says, seen) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "\"HTTP/1.1 400 Bad\" (that looks like HTTP)"),
        (b"\x16\x03\x01\x00\xa5", "\"\\x16\\x03\\x01\\x00\\xa5\" (that looks like TLS)"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "\"SSH-2.0-OpenSSH_\" (that looks like SSH)"),
        (b"hello?", "\"hello?\""),
    ] {
        let (uri, _heard) = stranger(says);
        let text = format!(
            "the connection to 127.0.0.1:PORT was closed: the peer does not speak this protocol: it began with {seen}"
        );
        let found = client.endpoint_ref::<Untyped>(&uri).await;
        let error = refused(found, ErrorKind::Protocol, &text);
        assert_eq!(error.outcome(), Outcome::NeverSent);
    }
}

#[tokio::test]
async fn being_dialled_by_something_that_speaks_another_protocol() {
    let (server, _client, echo) = pair().await;
    for says in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"PUT /a HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0",
    ] {
        let heard = visitor(&server, says.to_vec()).await;
        assert!(heard.is_empty(), "a stranger learns nothing: {}", heard.escape_ascii());
    }
    assert_eq!(echo.ask(Echo::of("x")).await.unwrap(), "x", "other peers are not disturbed");
}

/// What we say comes back: a proxy that leads to ourselves, or a TCP connection to itself.
#[tokio::test]
async fn dialling_ourselves() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let echo_uri = format!("rpc://echo@{}", listener.local_addr().unwrap());
    let client = client(&[]).await;
    let mirror = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
        std::io::copy(&mut from, &mut to)
    });
    let found = client.endpoint_ref::<Untyped>(&echo_uri).await;
    let text =
        "the connection to 127.0.0.1:PORT was closed: this address leads back to the env itself";
    let error = refused(found, ErrorKind::Protocol, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
    let _ = mirror.join().unwrap();
}

#[tokio::test]
async fn a_peer_of_another_version() {
    use rpc_actix::proto::{Hello, PeerLimits};
    let hello = Hello::new(7, None, PeerLimits::default()).with_versions(2, 9);
    let mut bytes = bytes::BytesMut::new();
    hello.put(&mut bytes);

    let (uri, heard) = stranger(bytes.to_vec().leak());
    let client = client(&[]).await;
    let text = "the connection to 127.0.0.1:PORT was closed: no common protocol version: this side speaks 1 to 1, the other 2 to 9";
    let error =
        refused(client.endpoint_ref::<Untyped>(&uri).await, ErrorKind::VersionMismatch, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
    // The other side is told as well, in its own terms.
    let told = "no common protocol version: this side speaks 1 to 1, the other 2 to 9";
    assert!(contains(&heard.join().unwrap(), told));

    let (server, _client, echo) = pair().await;
    assert!(contains(&visitor(&server, bytes.to_vec()).await, told));
    assert_eq!(echo.ask(Echo::of("x")).await.unwrap(), "x", "other peers are not disturbed");
}

/// What the side gets that is refused for its version.
#[tokio::test]
async fn being_refused_for_the_version() {
    use rpc_actix::proto::{Close, CloseCode};
    let mut bytes = bytes::BytesMut::from(&b"ARPC"[..]);
    let text = "no common protocol version: this side speaks 2 to 9, the other 1 to 1";
    Close::new(CloseCode::Version, text).put(&mut bytes);
    let (uri, _heard) = stranger(bytes.to_vec().leak());
    let found = client(&[]).await.endpoint_ref::<Untyped>(&uri).await;
    let text = format!("the connection to 127.0.0.1:PORT was closed: the peer says: {text}");
    refused(found, ErrorKind::VersionMismatch, &text);
}

// Starting an env.

async fn fails_to_start(config: RpcEnvConfig, kind: ErrorKind, text: &str) -> RpcError {
    let name = config.name().to_owned();
    let error = refused(rpc_actix::create(config).await, kind, text);
    assert!(error.is_never_sent(), "{name}");
    error
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let first = server(&[]).await;
    let address = first.address().unwrap().to_string();
    let second = RpcEnvConfig::server("second", &address);
    let text = "the RpcEnv second cannot listen at 127.0.0.1:PORT: Address already in use (os error 98); choose another port (rpc.bind), port 0 for any free one, or let it try the next ones with port.maxRetries";
    let error = fails_to_start(second, ErrorKind::Bind, text).await;
    assert!(error.cause().is_some());

    // The next ports are taken as well: by sockets, because envs would move on.
    let (first, taken) = two_taken_ports();
    let second = RpcEnvConfig::server("second", format!("127.0.0.1:{first}"));
    let text = "the RpcEnv second cannot listen at 127.0.0.1:PORT: Address already in use (os error 98); 1 further ports were tried (port.maxRetries); choose another port or address (rpc.bind)";
    fails_to_start(second.with_max_port_retries(1), ErrorKind::Bind, text).await;
    drop(taken);
}

/// Two ports in a row that are in use, and what uses them.
fn two_taken_ports() -> (u16, [TcpListener; 2]) {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind(("127.0.0.1", port.saturating_add(1))) {
            return (port, [first, second]);
        }
    }
    panic!("no two ports in a row are free");
}

/// Without security, plaintext stays on this machine, in both directions.
#[tokio::test]
async fn an_address_that_needs_security() {
    for bind in ["0.0.0.0:7077", "10.1.2.3:7077", "[::]:7077", "node-1:7077"] {
        let text = format!(
            "cannot listen on {bind} without security: a plaintext RpcEnv listens on and dials loopback addresses only (127.0.0.0/8, ::1, localhost), unless it is built with the feature `dangerous-plaintext` for a network that nobody else can reach"
        );
        let config = RpcEnvConfig::server("server", bind);
        fails_to_start(config, ErrorKind::SecurityRequired, &text).await;
    }
    let text = "cannot reach 10.1.2.3:7077 without security: a plaintext RpcEnv listens on and dials loopback addresses only (127.0.0.0/8, ::1, localhost), unless it is built with the feature `dangerous-plaintext` for a network that nobody else can reach";
    let found = client(&[]).await.endpoint_ref::<Untyped>("rpc://echo@10.1.2.3:7077").await;
    refused(found, ErrorKind::SecurityRequired, text);
}

#[tokio::test]
async fn an_unusable_port() {
    let config = RpcEnvConfig::server("server", "127.0.0.1:80");
    let text = "startPort should be between 1024 and 65535 (inclusive), or 0 for a random free port. The port given is 80.";
    fails_to_start(config, ErrorKind::InvalidConfig, text).await;
    let config = RpcEnvConfig::server("server", "127.0.0.1");
    let text = "Invalid address \"127.0.0.1\": the port is missing; expected host:port, as in 10.0.0.1:7077, node-1:7077 or [::1]:7077";
    fails_to_start(config, ErrorKind::InvalidAddress, text).await;
}

#[tokio::test]
async fn an_unknown_factory() {
    let text = "there is no RpcEnvFactory called \"akka\" (key rpc.env); known: actix, local";
    let config = RpcEnvConfig::client("client").with_factory("akka");
    fails_to_start(config.clone(), ErrorKind::UnknownFactory, text).await;

    let text = "there is no RpcEnvFactory called \"akka\" (key rpc.env); known: none";
    let created = RpcEnvFactoryRegistry::new().create(config).await;
    refused(created, ErrorKind::UnknownFactory, text);
}

#[test]
fn a_misspelt_key_and_a_bad_value() {
    for (key, value, text) in [
        (
            "rpc.askTimout",
            "1s",
            "unknown configuration key \"rpc.askTimout\"; did you mean \"rpc.askTimeout\"?",
        ),
        (
            "colour",
            "red",
            "unknown configuration key \"colour\"; RpcEnvConfig::known_keys() lists the known ones",
        ),
        (
            "rpc.askTimeout",
            "soon",
            "rpc.askTimeout cannot be \"soon\"; expected a duration from 1ms to 10000h, as in 500ms, 10s, 2min or 1h",
        ),
        (
            "rpc.message.maxSize",
            "3g",
            "rpc.message.maxSize cannot be \"3g\"; expected a size from 1B to 2047MiB, as in 4096, 64k, 256KiB or 4MiB",
        ),
        (
            "rpc.inbox.maxMessages",
            "0",
            "rpc.inbox.maxMessages cannot be \"0\"; expected a number from 1 to 4294967295",
        ),
        (
            "rpc.bind",
            "nowhere",
            "rpc.bind: Invalid address \"nowhere\": the port is missing; expected host:port, as in 10.0.0.1:7077, node-1:7077 or [::1]:7077",
        ),
    ] {
        let set = RpcEnvConfig::client("client").set(key, value);
        refused(set, ErrorKind::InvalidConfig, text);
    }
}

#[tokio::test]
async fn a_bad_value_of_a_backend_key() {
    for (key, value, text) in [
        ("rpc.actix.mode", "fast", "rpc.actix.mode cannot be \"fast\"; expected threads or inline"),
        (
            "rpc.actix.arbiters",
            "0",
            "rpc.actix.arbiters cannot be \"0\"; expected a number from 1 to 1024",
        ),
    ] {
        let config = RpcEnvConfig::client("client").with_backend_option(key, value);
        fails_to_start(config, ErrorKind::InvalidConfig, text).await;
    }
    // What is no number is known to be none where it is set.
    let text = "rpc.actix.arbiters cannot be \"many\"; expected a number from 1 to 1024";
    let set = RpcEnvConfig::client("client").set("rpc.actix.arbiters", "many");
    refused(set, ErrorKind::InvalidConfig, text);
}

#[tokio::test]
async fn inline_mode_where_no_actor_can_live() {
    let text = "rpc.actix.mode is \"inline\", but this thread is in no actix System and no LocalSet, where actors can live; start it from #[actix::main], or leave the key out";
    let config = || RpcEnvConfig::client("client").set("rpc.actix.mode", "inline").unwrap();
    fails_to_start(config(), ErrorKind::InvalidConfig, text).await;
    let on_a_thread = thread::spawn(move || {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match Box::pin(rpc_actix::create(config())).as_mut().poll(&mut cx) {
            std::task::Poll::Ready(created) => created,
            std::task::Poll::Pending => panic!("it is refused at once"),
        }
    });
    refused(on_a_thread.join().unwrap(), ErrorKind::InvalidConfig, text);
}

// Registering and naming endpoints.

#[tokio::test]
async fn a_name_that_is_taken() {
    let (server, client, _) = pair().await;
    let text = "There is already an RpcEndpoint called echo";
    refused(server.setup_endpoint("echo", Silent).await, ErrorKind::NameTaken, text);
    let text = "There is already an RpcEndpoint called endpoint-verifier";
    refused(server.setup_endpoint("endpoint-verifier", Silent).await, ErrorKind::NameTaken, text);
    client.setup_endpoint("echo", Silent).await.unwrap();
}

#[tokio::test]
async fn a_bad_endpoint_name() {
    let client = client(&[]).await;
    let expected =
        "expected 1 to 255 bytes without white space, control characters and @ / : ? # [ ]";
    let long = "x".repeat(300);
    let shown = "x".repeat(255);
    for (name, wrong) in [
        ("", "\"\": it is empty".to_owned()),
        ("a b", "\"a b\": it contains ' '".to_owned()),
        ("a@b", "\"a@b\": it contains '@'".to_owned()),
        (&long, format!("\"{shown}\"..: it has 300 bytes, the limit is 255")),
    ] {
        let text = format!("Invalid endpoint name {wrong}; {expected}");
        let registered = client.setup_endpoint(name, Silent).await;
        refused(registered, ErrorKind::InvalidAddress, &text);
    }
}

#[tokio::test]
async fn a_bad_uri() {
    let client = client(&[]).await;
    let expected = "expected rpc://name@host:port or rpc-client://name@<env id>";
    for (uri, wrong) in [
        ("echo", "it has no scheme"),
        ("http://echo@127.0.0.1:7077", "the scheme is \"http\""),
        ("rpc://127.0.0.1:7077", "the endpoint name before '@' is missing"),
        ("rpc://echo@127.0.0.1", "the port is missing"),
        ("rpc://echo@127.0.0.1:x", "the port \"x\" is not a number from 0 to 65535"),
        ("rpc://echo@127.0.0.1:7077/x", "it has a path"),
        ("rpc-client://echo@7", "the env id is not 16 hexadecimal digits"),
    ] {
        let text = plain(&format!("Invalid endpoint address {uri:?}: {wrong}; {expected}"));
        let found = client.endpoint_ref::<Untyped>(uri).await;
        refused(found, ErrorKind::InvalidAddress, &text);
    }
}

#[tokio::test]
async fn a_start_that_fails() {
    struct Broken;
    #[endpoint]
    impl Broken {
        #[on_start]
        async fn started(&mut self, _cx: &mut EndpointContext<Self>) -> HandlerResult<()> {
            Err(HandlerError::msg("the disk is full"))
        }
    }
    let client = client(&[]).await;
    refused(
        client.setup_endpoint("broken", Broken).await,
        ErrorKind::HandlerFailed,
        "the disk is full",
    );
    client.setup_endpoint("broken", Silent).await.unwrap();
}

// Refs and envs in the wrong place or at the wrong time.

#[tokio::test]
async fn a_ref_outside_of_an_env() {
    let (_server, _client, echo) = pair().await;
    let text = |what| {
        format!(
            "an RpcEndpointRef can only be {what} within an env: send it in a message, or use RpcEnv::encode and RpcEnv::decode"
        )
    };
    let encoded = rmp_serde::to_vec(&echo).unwrap_err();
    assert_eq!(encoded.to_string(), text("encoded"));
    let wire = [("at", "rpc://echo@127.0.0.1:7077")];
    let decoded = RpcEndpointRef::<Echoing>::deserialize(MapDeserializer::new(wire.into_iter()));
    let decoded: Result<_, serde::de::value::Error> = decoded;
    assert_eq!(decoded.unwrap_err().to_string(), text("decoded"));
}

#[tokio::test]
async fn stopping_an_endpoint_of_another_env() {
    let (server, client, echo) = pair().await;
    let text = "rpc://echo@127.0.0.1:PORT is not an endpoint of the RpcEnv client";
    refused(client.stop(&echo), ErrorKind::WrongRef, text);
    refused(client.stopped(&echo).await, ErrorKind::WrongRef, text);
    let local = client.setup_endpoint("local", Silent).await.unwrap();
    let text = "rpc-client://local@ENV is not an endpoint of the RpcEnv server";
    refused(server.stop(&local), ErrorKind::WrongRef, text);
    assert_eq!(echo.ask(Echo::of("x")).await.unwrap(), "x");
}

#[tokio::test]
async fn an_env_that_was_shut_down() {
    let (server, client, echo) = pair().await;
    let local = client.setup_endpoint("local", Echoing::default()).await.unwrap();
    client.shutdown().await;
    let text = "RpcEnv has been stopped";
    let (stopped, uri) = (ErrorKind::EnvStopped, uri(&server, "echo"));
    refused(client.setup_endpoint("late", Silent).await, stopped, text);
    refused(client.endpoint_ref::<Untyped>(&uri).await, stopped, text);
    refused(echo.send(Note::of_size(1)), stopped, text);
    let error = refused(echo.ask(Echo::of("x")).await, stopped, text);
    assert_eq!(error.outcome(), Outcome::NeverSent);
    let text = "the endpoint rpc-client://local@ENV has been stopped";
    refused(local.ask(Echo::of("x")).await, ErrorKind::EndpointStopped, text);
    client.shutdown().await;
}

#[tokio::test]
async fn a_peer_that_was_shut_down() {
    let (server, client, echo) = pair().await;
    server.shutdown().await;
    let text = "Failed to connect to 127.0.0.1:PORT: Connection refused (os error 111)";
    // The goodbye may still be on its way, but not for ever.
    let error = loop {
        let error = echo.ask(Echo::of("x")).await.unwrap_err();
        if error.is_unreachable() {
            break error;
        }
        assert!(error.is_disconnected() || error.is_stopped(), "{error:?}");
    };
    assert_eq!((plain(error.text()).as_str(), error.outcome()), (text, Outcome::NeverSent));
    client.shutdown().await;
}

#[tokio::test]
async fn a_blocking_ask_on_an_arbiter() {
    let (server, _client, echo) = pair().await;
    let other = server.setup_endpoint("other", Echoing::default()).await.unwrap();
    let text = "a blocking ask of Echo to rpc://other@127.0.0.1:PORT was refused: this thread runs endpoints, and the answer may need it; use ask(..).await, or a thread without endpoints";
    let error =
        refused(echo.ask(BlockOn { other: other.clone() }).await, ErrorKind::HandlerFailed, text);
    assert_eq!(error.outcome(), Outcome::FailedInHandler);
    let elsewhere = tokio::task::spawn_blocking(move || other.ask_blocking(Echo::of("x")));
    assert_eq!(elsewhere.await.unwrap().unwrap(), "x");
}
