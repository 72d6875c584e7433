//! Trace context: which request of a larger system a message belongs to, in the words of the W3C.
//!
//! The library carries it and makes the numbers of spans. It samples nothing and exports nothing.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::sync::Arc;

/// A place in a trace: the trace, a span of it, whether it is sampled, and what vendors add.
///
/// Messages carry it from env to env, and handlers hand it on to what they ask and send. It is
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/), version 00: what
/// [`parse`](Self::parse) reads and `Display` writes is the value of a `traceparent` header.
///
/// A message that arrives with one is handled in a span of its own:
/// [`EndpointContext::trace`](crate::EndpointContext::trace) has the same trace id, a new span id,
/// and the sender's span as its [`parent_id`](Self::parent_id). Span ids come from a counter of the
/// env, mixed with the env's number, because nothing here is random: an env never makes one twice,
/// and two envs of one trace make the same one as rarely as random numbers would.
///
/// Cheap to clone.
///
/// ```
/// use rpc_core::TraceContext;
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let trace = TraceContext::parse(text).unwrap().with_tracestate("vendor=1");
/// assert_eq!(trace.to_string(), text);
/// assert!(trace.is_sampled());
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceContext(Arc<Inner>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Inner {
    trace: NonZeroU128,
    span: NonZeroU64,
    parent: Option<NonZeroU64>,
    flags: u8,
    state: Option<Arc<str>>,
}

/// Bytes of a tracestate that are carried; a longer one is dropped, as the W3C's text allows.
pub(crate) const MAX_TRACESTATE: usize = 512;

const SAMPLED: u8 = 0x01;
/// Sampled, and (level 2 of the standard) that the trace id is random. Others must not be sent on.
const KNOWN_FLAGS: u8 = 0x03;

impl TraceContext {
    /// A place in a trace, without a tracestate.
    #[must_use]
    pub fn new(trace_id: NonZeroU128, span_id: NonZeroU64, sampled: bool) -> Self {
        let flags = if sampled { SAMPLED } else { 0 };
        Self(Arc::new(Inner { trace: trace_id, span: span_id, parent: None, flags, state: None }))
    }

    /// Reads the value of a `traceparent` header: `00-<trace id>-<span id>-<flags>`, lower-case
    /// hexadecimal of 32, 16 and 2 digits. `None` if it is anything else, for which the standard's
    /// advice is to begin a new trace. Of a later version the same four fields are read.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace = NonZeroU128::new(hex(parts.next()?, 32)?)?;
        let span = NonZeroU64::new(u64::try_from(hex(parts.next()?, 16)?).ok()?)?;
        let flags = u8::try_from(hex(parts.next()?, 2)?).ok()? & KNOWN_FLAGS;
        let more = parts.next().is_some();
        if version == 0xff || (version == 0 && more) {
            return None;
        }
        Some(Self(Arc::new(Inner { trace, span, parent: None, flags, state: None })))
    }

    /// The same with the value of a `tracestate` header. One that is empty, longer than 512 bytes
    /// or not printable ASCII is dropped, and the one before it as well.
    #[must_use]
    pub fn with_tracestate(mut self, tracestate: &str) -> Self {
        let printable = tracestate.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        let fits = !tracestate.is_empty() && tracestate.len() <= MAX_TRACESTATE && printable;
        Arc::make_mut(&mut self.0).state = fits.then(|| Arc::from(tracestate));
        self
    }

    /// The place of a span that this one has caused: the same trace, with the span id given.
    #[must_use]
    pub fn child(&self, span_id: NonZeroU64) -> Self {
        let mut inner = (*self.0).clone();
        inner.parent = Some(inner.span);
        inner.span = span_id;
        Self(Arc::new(inner))
    }

    /// The trace: the same for everything that one request causes.
    #[must_use]
    pub fn trace_id(&self) -> u128 {
        self.0.trace.get()
    }

    /// The span: one piece of work within the trace. What travels in `traceparent`.
    #[must_use]
    pub fn span_id(&self) -> u64 {
        self.0.span.get()
    }

    /// The span that has caused this one, where it is known: in the context of a handler it is the
    /// sender's. It does not travel.
    #[must_use]
    pub fn parent_id(&self) -> Option<u64> {
        self.0.parent.map(NonZeroU64::get)
    }

    /// Whether whoever began the trace records it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.0.flags & SAMPLED != 0
    }

    /// What vendors add, as a `tracestate` header has it. It is carried unread.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.0.state.as_deref()
    }
}

/// A number of exactly so many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let fits = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if fits { u128::from_str_radix(text, 16).ok() } else { None }
}

/// The value of a `traceparent` header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { trace, span, flags, .. } = &*self.0;
        write!(f, "00-{trace:032x}-{span:016x}-{flags:02x}")
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

/// The `count`th number of the sequence that belongs to `env`: never the same twice, and of
/// different envs rarely the same (SplitMix64, whose steps are a permutation of all numbers).
pub(crate) fn mixed(env: u64, count: u64) -> u64 {
    let mut mixed = env.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn with(from: &str, to: &str) -> Option<TraceContext> {
        assert!(TEXT.contains(from));
        TraceContext::parse(&TEXT.replacen(from, to, 1))
    }

    #[test]
    fn a_traceparent_is_read_and_written() {
        let trace = TraceContext::parse(TEXT).unwrap();
        assert_eq!(trace.trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((trace.span_id(), trace.parent_id()), (0x00f0_67aa_0ba9_02b7, None));
        assert!(trace.is_sampled());
        assert_eq!(trace.to_string(), TEXT);
        let not_sampled = with("-01", "-00").unwrap();
        assert!(!not_sampled.is_sampled());
        assert_eq!(not_sampled.to_string(), TEXT.replace("-01", "-00"));
        // Flags that mean nothing yet are not sent on.
        assert_eq!(with("-01", "-ff").unwrap().to_string(), TEXT.replace("-01", "-03"));
        // Of a later version what is known of it is read.
        assert_eq!(with("00-", "cc-"), Some(trace.clone()));
        assert_eq!(TraceContext::parse(&format!("cc{}-more", &TEXT[2..])), Some(trace));
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for (from, to) in [
            ("00-", "ff-"),
            ("00-", "0-"),
            ("00-", ""),
            ("4bf9", "4BF9"),
            ("4bf9", "4bf"),
            ("4bf9", "+bf9"),
            ("00f0", "00g0"),
            ("00f0", "00f"),
            ("-01", "-01-"),
            ("-01", "-1"),
            ("-01", ""),
            ("-01", "-01 "),
            ("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            ("00f067aa0ba902b7", "0000000000000000"),
            ("4bf9", "\u{e4}f9"),
        ] {
            assert_eq!(with(from, to), None, "{to} for {from}");
        }
        assert_eq!(TraceContext::parse(""), None);
        assert_eq!(TraceContext::parse("----"), None);
    }

    #[test]
    fn a_tracestate_is_carried_if_it_may_be() {
        let trace = TraceContext::parse(TEXT).unwrap();
        let full = "a".repeat(MAX_TRACESTATE);
        assert_eq!(trace.clone().with_tracestate(&full).tracestate(), Some(full.as_str()));
        for bad in ["", "a\nb", "a=\u{e4}", &"a".repeat(MAX_TRACESTATE + 1)] {
            let trace = trace.clone().with_tracestate("x=1").with_tracestate(bad);
            assert_eq!(trace.tracestate(), None, "{bad}");
        }
    }

    #[test]
    fn a_child_is_in_the_same_trace() {
        let trace = TraceContext::parse(TEXT).unwrap().with_tracestate("x=1");
        let child = trace.child(NonZeroU64::MIN);
        assert_eq!(child.trace_id(), trace.trace_id());
        assert_eq!((child.span_id(), child.parent_id()), (1, Some(trace.span_id())));
        assert_eq!((child.is_sampled(), child.tracestate()), (true, Some("x=1")));
        assert_eq!(child.child(NonZeroU64::MAX).parent_id(), Some(1));
    }

    #[test]
    fn numbers_do_not_repeat() {
        let of = |env: u64| (1..10_000).map(move |count| mixed(env, count));
        let all: BTreeSet<u64> = (1..=5).flat_map(of).collect();
        assert_eq!(all.len(), 5 * 9_999);
    }
}
