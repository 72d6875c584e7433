//! Headers of a message: what travels with it and is not for its handler. So far, trace context.

use super::close::Close;
use crate::message::Encoding;
use crate::trace::TraceContext;
use crate::wire::payload;
use crate::wire::prescan::PrescanLimits;
use crate::wire::read::Reader;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The capability of a side that reads headers.
pub(super) const CAPABILITY: &str = "headers";

/// Bytes of the map that a message may have.
const MAX_HEADERS: usize = 1024;

#[derive(Serialize)]
struct Outgoing<'a> {
    traceparent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
}

/// The headers that say this, behind their length. A tracestate has a limit of its own, so that
/// they always fit.
pub(super) fn put(trace: &TraceContext) -> Vec<u8> {
    let state = trace.tracestate();
    written(trace, state).or_else(|| written(trace, None)).unwrap_or_default()
}

fn written(trace: &TraceContext, tracestate: Option<&str>) -> Option<Vec<u8>> {
    let headers = Outgoing { traceparent: trace.to_string(), tracestate };
    let mut map = payload::to_vec(&headers, Encoding::Named, MAX_HEADERS).ok()?;
    let length = u16::try_from(map.len()).ok()?;
    map.splice(..0, length.to_be_bytes());
    Some(map)
}

/// Reads headers and their length. `None` if the frame ends before they do.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Result<Option<TraceContext>, Close>> {
    let length = usize::from(reader.u16()?);
    if length > MAX_HEADERS {
        let text = format!("headers of {length} bytes are over the limit of {MAX_HEADERS}");
        return Some(Err(Close::protocol(text)));
    }
    let map = payload::decode::<Incoming>(reader.take(length)?, &PrescanLimits::default());
    let unreadable = |error| Close::protocol(format!("headers are not readable: {error}"));
    Some(map.map(Incoming::into_trace).map_err(unreadable))
}

/// What is known of a map with string keys.
#[derive(Default)]
struct Incoming {
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Incoming {
    fn into_trace(self) -> Option<TraceContext> {
        let trace = TraceContext::parse(&self.traceparent?)?;
        Some(match self.tracestate {
            Some(state) => trace.with_tracestate(&state),
            None => trace,
        })
    }
}

impl<'de> Deserialize<'de> for Incoming {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Headers)
    }
}

struct Headers;

impl<'de> Visitor<'de> for Headers {
    type Value = Incoming;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with string keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Incoming, A::Error> {
        let mut headers = Incoming::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "traceparent" => headers.traceparent = map.next_value::<Text>()?.into_string(),
                "tracestate" => headers.tracestate = map.next_value::<Text>()?.into_string(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(headers)
    }
}

/// A string, or something else, which counts as absent.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Is(String),
    IsNot(IgnoredAny),
}

impl Text {
    fn into_string(self) -> Option<String> {
        match self {
            Self::Is(text) => Some(text),
            Self::IsNot(_) => None,
        }
    }
}
