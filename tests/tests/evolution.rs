//! Old and new programs together: each row of the table in docs/GUIDE.md, section 18, over a real
//! connection, in both forms and both directions.
//!
//! In each case a field or a variant differs between `old` and `new`. A reader answers with what it
//! has understood.
#![cfg(test)]

use rpc_actix::{
    Ask, ErrorKind, HandlerResult, Outcome, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv,
    RpcEnvConfig, RpcError, RpcMessage, Untyped, endpoint,
};
use serde::{Deserialize, Serialize};

/// A version of the message `Job` in both forms, with an endpoint that reads it.
macro_rules! version {
    ($version:ident { $($field:tt)* } $($more:item)*) => {
        pub(crate) mod $version {
            use super::*;
            $($more)*
            version!(@form named () { $($field)* });
            version!(@form compact (, compact) { $($field)* });
        }
    };
    (@form $form:ident ($($option:tt)*) { $($field:tt)* }) => {
        pub(crate) mod $form {
            use super::*;

            #[derive(Debug, Serialize, Deserialize, RpcMessage)]
            #[rpc(reply = String, name = "Job" $($option)*)]
            pub(crate) struct Job { $($field)* }

            pub(crate) struct Reader;

            #[endpoint]
            impl Reader {
                #[receive_and_reply]
                fn job(&mut self, msg: Job) -> HandlerResult<String> {
                    Ok(format!("{msg:?}"))
                }
            }
        }
    };
}

/// Two envs with one connection, which must last as long as the case.
struct Pair {
    server: RpcEnv,
    client: RpcEnv,
    control: RpcEndpointRef<Control>,
    readers: u32,
}

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = ())]
struct Hold;

#[derive(Debug, Serialize, Deserialize, RpcMessage)]
#[rpc(reply = usize)]
struct Release;

/// Holds calls: they fail if their connection is lost.
#[derive(Default)]
struct Control {
    held: Vec<RpcCallContext<()>>,
}

#[endpoint]
impl Control {
    #[receive_and_reply]
    fn hold(&mut self, _msg: Hold, call: RpcCallContext<()>) -> HandlerResult<()> {
        self.held.push(call);
        Ok(())
    }

    #[receive_and_reply]
    fn release(&mut self, _msg: Release) -> HandlerResult<usize> {
        let held = self.held.len();
        self.held.drain(..).for_each(|call| call.reply(()));
        Ok(held)
    }
}

impl Pair {
    async fn new() -> Self {
        let server =
            rpc_actix::create(RpcEnvConfig::server("server", "127.0.0.1:0")).await.unwrap();
        server.setup_endpoint("control", Control::default()).await.unwrap();
        let client = rpc_actix::create(RpcEnvConfig::client("client")).await.unwrap();
        let uri = format!("rpc://control@{}", server.address().unwrap());
        let control = client.endpoint_ref(&uri).await.unwrap();
        Self { server, client, control, readers: 0 }
    }

    /// What the reader understands of the message.
    async fn told<E, M>(&mut self, reader: E, msg: M) -> Result<String, RpcError>
    where
        E: RpcEndpoint + Send,
        M: Ask<Reply = String>,
    {
        self.readers += 1;
        let name = format!("reader-{}", self.readers);
        let local = self.server.setup_endpoint(name, reader).await.unwrap();
        let uri = local.endpoint_address().to_string();
        let remote = self.client.endpoint_ref::<Untyped>(&uri).await.unwrap();
        remote.ask(msg).await
    }

    /// Understood as that text.
    #[track_caller]
    fn reads(&self, told: &Result<String, RpcError>, expected: &str) {
        assert_eq!(told.as_deref().unwrap(), expected);
    }

    /// Refused as a message that cannot be read: no handler has seen it.
    #[track_caller]
    fn refuses(&self, told: Result<String, RpcError>, text: &str) {
        let error = told.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Decode, Outcome::NeverSent));
        assert!(error.text().contains(text), "{error}");
    }
}

/// Runs a case, and sees that the connection was not lost by it.
fn together(case: impl AsyncFnOnce(&mut Pair)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut pair = Pair::new().await;
        let held = pair.control.ask(Hold);
        case(&mut pair).await;
        assert_eq!(pair.control.ask(Release).await.unwrap(), 1, "the held call is still there");
        held.await.unwrap();
        pair.client.shutdown().await;
        pair.server.shutdown().await;
    });
}

// ---- a field with a default is added at the end; read the other way, it is removed

mod added {
    use super::*;
    version!(old { pub(crate) cores: u32, });
    version!(new { pub(crate) cores: u32, #[serde(default)] pub(crate) memory: u64, });
}

#[test]
fn a_field_with_a_default_is_added_at_the_end() {
    together(async |pair| {
        use added::{new, old};
        let told = pair.told(new::named::Reader, old::named::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cores: 4, memory: 0 }");
        let told = pair.told(old::named::Reader, new::named::Job { cores: 4, memory: 8 }).await;
        pair.reads(&told, "Job { cores: 4 }");
        // The compact form: a new reader fills it in, an old one has no place for it.
        let told = pair.told(new::compact::Reader, old::compact::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cores: 4, memory: 0 }");
        let told = pair.told(old::compact::Reader, new::compact::Job { cores: 4, memory: 8 }).await;
        pair.refuses(told, "array had incorrect length");
    });
}

mod added_first {
    use super::*;
    version!(old { pub(crate) cores: u32, });
    version!(new { #[serde(default)] pub(crate) memory: u64, pub(crate) cores: u32, });
}

#[test]
fn a_field_with_a_default_is_added_before_others() {
    together(async |pair| {
        use added_first::{new, old};
        let told = pair.told(new::named::Reader, old::named::Job { cores: 4 }).await;
        pair.reads(&told, "Job { memory: 0, cores: 4 }");
        let told = pair.told(old::named::Reader, new::named::Job { memory: 8, cores: 4 }).await;
        pair.reads(&told, "Job { cores: 4 }");
        let told = pair.told(new::compact::Reader, old::compact::Job { cores: 4 }).await;
        pair.refuses(told, "invalid length 1");
        let told = pair.told(old::compact::Reader, new::compact::Job { memory: 8, cores: 4 }).await;
        pair.refuses(told, "array had incorrect length");
    });
}

// ---- an optional field is added: an `Option` has nil as its default in maps

mod optional {
    use super::*;
    version!(old { pub(crate) cores: u32, });
    version!(new { pub(crate) cores: u32, pub(crate) memory: Option<u64>, });
}

#[test]
fn an_optional_field_is_added() {
    together(async |pair| {
        use optional::{new, old};
        let told = pair.told(new::named::Reader, old::named::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cores: 4, memory: None }");
        let written = new::named::Job { cores: 4, memory: Some(8) };
        let told = pair.told(old::named::Reader, written).await;
        pair.reads(&told, "Job { cores: 4 }");
        // An array has no nil for what is not there.
        let told = pair.told(new::compact::Reader, old::compact::Job { cores: 4 }).await;
        pair.refuses(told, "invalid length 1");
        let written = new::compact::Job { cores: 4, memory: None };
        let told = pair.told(old::compact::Reader, written).await;
        pair.refuses(told, "array had incorrect length");
    });
}

mod optional_at_the_end {
    use super::*;
    version!(old { pub(crate) cores: u32, });
    version!(new { pub(crate) cores: u32, #[serde(default)] pub(crate) memory: Option<u64>, });
}

#[test]
fn an_optional_field_with_a_default_is_added() {
    together(async |pair| {
        use optional_at_the_end::{new, old};
        let told = pair.told(new::named::Reader, old::named::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cores: 4, memory: None }");
        let written = new::named::Job { cores: 4, memory: Some(8) };
        let told = pair.told(old::named::Reader, written).await;
        pair.reads(&told, "Job { cores: 4 }");
        let told = pair.told(new::compact::Reader, old::compact::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cores: 4, memory: None }");
        let written = new::compact::Job { cores: 4, memory: None };
        let told = pair.told(old::compact::Reader, written).await;
        pair.refuses(told, "array had incorrect length");
    });
}

// ---- a field is added or removed that has no default

mod required {
    use super::*;
    version!(old { pub(crate) cores: u32, });
    version!(new { pub(crate) cores: u32, pub(crate) memory: u64, });
}

#[test]
fn a_field_without_a_default_is_added() {
    together(async |pair| {
        use required::{new, old};
        let told = pair.told(new::named::Reader, old::named::Job { cores: 4 }).await;
        pair.refuses(told, "missing field `memory`");
        let told = pair.told(old::named::Reader, new::named::Job { cores: 4, memory: 8 }).await;
        pair.reads(&told, "Job { cores: 4 }");
        let told = pair.told(new::compact::Reader, old::compact::Job { cores: 4 }).await;
        pair.refuses(told, "invalid length 1");
        let told = pair.told(old::compact::Reader, new::compact::Job { cores: 4, memory: 8 }).await;
        pair.refuses(told, "array had incorrect length");
    });
}

mod removed {
    use super::*;
    version!(old { pub(crate) cores: u32, #[serde(default)] pub(crate) memory: u64, });
    version!(new { pub(crate) cores: u32, });
}

#[test]
fn a_field_that_had_a_default_is_removed() {
    together(async |pair| {
        use removed::{new, old};
        let told = pair.told(new::named::Reader, old::named::Job { cores: 4, memory: 8 }).await;
        pair.reads(&told, "Job { cores: 4 }");
        let told = pair.told(old::named::Reader, new::named::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cores: 4, memory: 0 }");
        let told = pair.told(new::compact::Reader, old::compact::Job { cores: 4, memory: 8 }).await;
        pair.refuses(told, "array had incorrect length");
        let told = pair.told(old::compact::Reader, new::compact::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cores: 4, memory: 0 }");
    });
}

// ---- the order

mod reordered {
    use super::*;
    version!(old { pub(crate) cores: u32, pub(crate) memory: u32, });
    version!(new { pub(crate) memory: u32, pub(crate) cores: u32, });
}

#[test]
fn fields_change_their_order() {
    together(async |pair| {
        use reordered::{new, old};
        let told = pair.told(new::named::Reader, old::named::Job { cores: 4, memory: 8 }).await;
        pair.reads(&told, "Job { memory: 8, cores: 4 }");
        let told = pair.told(old::named::Reader, new::named::Job { memory: 8, cores: 4 }).await;
        pair.reads(&told, "Job { cores: 4, memory: 8 }");
        // The worst of all: the compact form is read without an error, and wrong.
        let told = pair.told(new::compact::Reader, old::compact::Job { cores: 4, memory: 8 }).await;
        pair.reads(&told, "Job { memory: 4, cores: 8 }");
        let told = pair.told(old::compact::Reader, new::compact::Job { memory: 8, cores: 4 }).await;
        pair.reads(&told, "Job { cores: 8, memory: 4 }");
    });
}

// ---- names

mod renamed {
    use super::*;
    version!(old { pub(crate) cores: u32, });
    version!(new { #[serde(alias = "cores")] pub(crate) cpus: u32, });
}

#[test]
fn a_field_is_renamed_with_an_alias() {
    together(async |pair| {
        use renamed::{new, old};
        let told = pair.told(new::named::Reader, old::named::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cpus: 4 }");
        // The alias is for readers; an old one does not know the new name.
        let told = pair.told(old::named::Reader, new::named::Job { cpus: 4 }).await;
        pair.refuses(told, "missing field `cores`");
        let told = pair.told(new::compact::Reader, old::compact::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cpus: 4 }");
        let told = pair.told(old::compact::Reader, new::compact::Job { cpus: 4 }).await;
        pair.reads(&told, "Job { cores: 4 }");
    });
}

mod renamed_here {
    use super::*;
    version!(old { pub(crate) cores: u32, });
    version!(new { #[serde(rename = "cores")] pub(crate) cpus: u32, });
}

#[test]
fn a_field_is_renamed_in_the_program_only() {
    together(async |pair| {
        use renamed_here::{new, old};
        let told = pair.told(new::compact::Reader, old::compact::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cpus: 4 }");
        let told = pair.told(old::compact::Reader, new::compact::Job { cpus: 4 }).await;
        pair.reads(&told, "Job { cores: 4 }");
        let told = pair.told(new::named::Reader, old::named::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cpus: 4 }");
        let told = pair.told(old::named::Reader, new::named::Job { cpus: 4 }).await;
        pair.reads(&told, "Job { cores: 4 }");
    });
}

// ---- enums

mod variants {
    use super::*;
    version!(old { pub(crate) state: State, }
        #[derive(Debug, Serialize, Deserialize)]
        pub(crate) enum State { Idle, Busy { job: u32 } }
    );
    version!(new { pub(crate) state: State, }
        // The new ones come first: it is the names that count, not the places.
        #[derive(Debug, Serialize, Deserialize)]
        pub(crate) enum State { Lost, Draining { left: u32 }, Idle, Busy { job: u32 } }
    );
}

#[test]
fn a_variant_is_added() {
    together(async |pair| {
        use variants::{new, old};
        let known = "Job { state: Busy { job: 7 } }";
        let written = old::named::Job { state: old::State::Busy { job: 7 } };
        let told = pair.told(new::named::Reader, written).await;
        pair.reads(&told, known);
        let written = old::compact::Job { state: old::State::Busy { job: 7 } };
        let told = pair.told(new::compact::Reader, written).await;
        pair.reads(&told, known);
        // What both know is understood by an old reader as well.
        let written = new::named::Job { state: new::State::Busy { job: 7 } };
        let told = pair.told(old::named::Reader, written).await;
        pair.reads(&told, known);
        let written = new::compact::Job { state: new::State::Idle };
        let told = pair.told(old::compact::Reader, written).await;
        pair.reads(&told, "Job { state: Idle }");
        // What it does not know costs that call, and nothing else.
        let written = new::named::Job { state: new::State::Lost };
        let told = pair.told(old::named::Reader, written).await;
        pair.refuses(told, "unknown variant `Lost`");
        let written = new::named::Job { state: new::State::Draining { left: 3 } };
        let told = pair.told(old::named::Reader, written).await;
        pair.refuses(told, "unknown variant `Draining`");
        let written = new::compact::Job { state: new::State::Lost };
        let told = pair.told(old::compact::Reader, written).await;
        pair.refuses(told, "unknown variant `Lost`");
        let written = new::compact::Job { state: new::State::Draining { left: 3 } };
        let told = pair.told(old::compact::Reader, written).await;
        pair.refuses(told, "unknown variant `Draining`");
    });
}

mod catch_all {
    use super::*;
    version!(old { pub(crate) state: State, }
        #[derive(Debug, Serialize, Deserialize)]
        pub(crate) enum State { Idle, #[serde(other)] Unknown }
    );
    version!(new { pub(crate) state: State, }
        #[derive(Debug, Serialize, Deserialize)]
        pub(crate) enum State { Idle, Lost }
    );
}

#[test]
fn a_variant_is_added_where_old_readers_have_one_for_the_rest() {
    together(async |pair| {
        use catch_all::{new, old};
        let written = old::named::Job { state: old::State::Idle };
        let told = pair.told(new::named::Reader, written).await;
        pair.reads(&told, "Job { state: Idle }");
        let written = old::compact::Job { state: old::State::Idle };
        let told = pair.told(new::compact::Reader, written).await;
        pair.reads(&told, "Job { state: Idle }");
        let written = new::named::Job { state: new::State::Lost };
        let told = pair.told(old::named::Reader, written).await;
        pair.reads(&told, "Job { state: Unknown }");
        let written = new::compact::Job { state: new::State::Lost };
        let told = pair.told(old::compact::Reader, written).await;
        pair.reads(&told, "Job { state: Unknown }");
    });
}

// ---- types

mod widened {
    use super::*;
    version!(old { pub(crate) cores: u32, });
    version!(new { pub(crate) cores: u64, });
}

#[test]
fn an_integer_is_widened() {
    together(async |pair| {
        use widened::{new, old};
        let told = pair.told(new::compact::Reader, old::compact::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cores: 4 }");
        let told = pair.told(new::named::Reader, old::named::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cores: 4 }");
        let told = pair.told(old::compact::Reader, new::compact::Job { cores: 4 }).await;
        pair.reads(&told, "Job { cores: 4 }");
        // An old reader takes what fits.
        let told = pair.told(old::named::Reader, new::named::Job { cores: 1 << 40 }).await;
        pair.refuses(told, "invalid value: integer `1099511627776`, expected u32");
    });
}

mod retyped {
    use super::*;
    version!(old { pub(crate) cores: u32, });
    version!(new { pub(crate) cores: String, });
}

#[test]
fn a_field_gets_another_type() {
    together(async |pair| {
        use retyped::{new, old};
        let told = pair.told(old::named::Reader, new::named::Job { cores: "4".into() }).await;
        pair.refuses(told, "wrong msgpack marker");
        let told = pair.told(new::compact::Reader, old::compact::Job { cores: 4 }).await;
        pair.refuses(told, "invalid type");
        let told = pair.told(new::named::Reader, old::named::Job { cores: 4 }).await;
        pair.refuses(told, "invalid type");
        let told = pair.told(old::compact::Reader, new::compact::Job { cores: "4".into() }).await;
        pair.refuses(told, "wrong msgpack marker");
    });
}

// ---- the form

#[test]
fn a_message_changes_its_form() {
    together(async |pair| {
        use reordered::old;
        // A reader takes both, so the form may be changed at any time.
        let told = pair.told(old::compact::Reader, old::named::Job { cores: 4, memory: 8 }).await;
        pair.reads(&told, "Job { cores: 4, memory: 8 }");
        let told = pair.told(old::named::Reader, old::compact::Job { cores: 4, memory: 8 }).await;
        pair.reads(&told, "Job { cores: 4, memory: 8 }");
    });
}

// ---- one way

mod one_way {
    use super::*;

    #[derive(Debug, Serialize, Deserialize, RpcMessage)]
    #[rpc(name = "Note")]
    pub(crate) struct Old {
        pub(crate) cores: u32,
    }

    #[derive(Debug, Serialize, Deserialize, RpcMessage)]
    #[rpc(name = "Note")]
    pub(crate) struct New {
        pub(crate) cpus: u32,
    }

    #[derive(Debug, Serialize, Deserialize, RpcMessage)]
    #[rpc(reply = Vec<String>)]
    pub(crate) struct Log;

    #[derive(Default)]
    pub(crate) struct Notes(Vec<String>);

    #[endpoint]
    impl Notes {
        #[receive]
        fn note(&mut self, msg: Old) -> HandlerResult<()> {
            self.0.push(format!("{msg:?}"));
            Ok(())
        }

        #[receive_and_reply]
        fn log(&mut self, _msg: Log) -> HandlerResult<Vec<String>> {
            Ok(self.0.clone())
        }

        #[on_error]
        fn failed(&mut self, error: RpcError) -> HandlerResult<()> {
            self.0.push(format!("{:?}", error.kind()));
            Ok(())
        }
    }
}

#[test]
fn a_one_way_message_that_cannot_be_read() {
    together(async |pair| {
        let local = pair.server.setup_endpoint("notes", one_way::Notes::default()).await.unwrap();
        let uri = local.endpoint_address().to_string();
        let remote = pair.client.endpoint_ref::<Untyped>(&uri).await.unwrap();
        remote.send(one_way::New { cpus: 1 }).unwrap();
        remote.send(one_way::Old { cores: 2 }).unwrap();
        let log = remote.ask(one_way::Log).await.unwrap();
        assert_eq!(log, ["Decode", "Old { cores: 2 }"]);
    });
}

// ---- replies

mod replies {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    pub(crate) enum Old {
        Known,
    }

    #[derive(Debug, Serialize, Deserialize)]
    pub(crate) enum New {
        Known,
        Unheard,
    }

    #[derive(Debug, Serialize, Deserialize, RpcMessage)]
    #[rpc(reply = Old, name = "State")]
    pub(crate) struct AsksOld(pub(crate) bool);

    #[derive(Debug, Serialize, Deserialize, RpcMessage)]
    #[rpc(reply = New, name = "State")]
    pub(crate) struct AsksNew(pub(crate) bool);

    pub(crate) struct Answers;

    #[endpoint]
    impl Answers {
        #[receive_and_reply]
        fn state(&mut self, AsksNew(known): AsksNew) -> HandlerResult<New> {
            Ok(if known { New::Known } else { New::Unheard })
        }
    }
}

#[test]
fn a_reply_that_the_caller_cannot_read() {
    together(async |pair| {
        let local = pair.server.setup_endpoint("answers", replies::Answers).await.unwrap();
        let uri = local.endpoint_address().to_string();
        let remote = pair.client.endpoint_ref::<Untyped>(&uri).await.unwrap();
        assert!(matches!(remote.ask(replies::AsksOld(true)).await, Ok(replies::Old::Known)));
        // The handler has done its work; what it said is lost.
        let error = remote.ask(replies::AsksOld(false)).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Decode, Outcome::FailedInHandler));
        assert!(error.text().contains("unknown variant `Unheard`"), "{error}");
    });
}
