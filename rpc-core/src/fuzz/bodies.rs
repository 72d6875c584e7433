//! Bodies of messages: the scan that bounds them, and what decodes them afterwards.

use super::input::Input;
use super::shapes::{self, Visit};
use crate::address::EndpointAddress;
use crate::config::RpcEnvConfig;
use crate::endpoint_ref::RpcEndpointRef;
use crate::env::RpcEnv;
use crate::factory::RpcEnvFactory;
use crate::local::LocalWorld;
use crate::message::{Encoding, Untyped};
use crate::wire::payload;
use crate::wire::prescan::{MAX_DEPTH, PrescanError, PrescanLimits, prescan as scan};

use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::cell::RefCell;
use std::fmt::Debug;

/// The scan alone: it agrees with a decoder about what a value is, tighter limits never allow more,
/// and nothing that follows a value is overlooked.
pub(super) fn prescan(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (depth, elements) = (input.below(MAX_DEPTH + 3), input.number::<2>() as usize);
    let body = input.rest();
    let widest = PrescanLimits::new(MAX_DEPTH, usize::MAX);
    let tight = PrescanLimits::new(depth, elements);
    let (wide, within) = (scan(body, &widest), scan(body, &tight));
    assert!(wide.is_ok() || within.is_err(), "tighter limits allow more: {within:?}, {wide:?}");
    if wide.is_ok() {
        let found = measured(&mut { body });
        let fits = found.0 <= tight.max_depth() && found.1 <= elements;
        assert_eq!(within.is_ok(), fits, "{found:?} within {tight:?}");
        for cut in [0, body.len() / 2, body.len() - 1] {
            assert!(scan(&body[..cut], &widest).is_err(), "a part of a value is none");
        }
        let longer = [body, &[0]].concat();
        assert!(scan(&longer, &widest).is_err(), "what follows a value is seen");
    }
    let read = payload::unscanned::<IgnoredAny>(body);
    // A decoder may go deeper than the scan does.
    let deep = matches!(wide, Err(PrescanError::TooDeep { .. }));
    assert!(deep || read.is_ok() == wide.is_ok(), "a decoder and the scan disagree: {wide:?}");
}

/// The depth of a value and its elements, taken off the bytes one value at a time. To be asked only of
/// what the scan has let through: this recurses.
fn measured(body: &mut &[u8]) -> (usize, usize) {
    let mut input = Input::new(body);
    let marker = input.byte();
    let children = match marker {
        0x80..=0x8f => usize::from(marker & 0x0f) * 2,
        0x90..=0x9f => usize::from(marker & 0x0f),
        0xdc => input.number::<2>() as usize,
        0xdd => input.number::<4>() as usize,
        0xde => input.number::<2>() as usize * 2,
        0xdf => input.number::<4>() as usize * 2,
        _ => {
            let content = match marker {
                0xa0..=0xbf => u64::from(marker & 0x1f),
                0xc4 | 0xd9 => input.number::<1>(),
                0xc5 | 0xda => input.number::<2>(),
                0xc6 | 0xdb => input.number::<4>(),
                0xc7 => input.number::<1>() + 1,
                0xc8 => input.number::<2>() + 1,
                0xc9 => input.number::<4>() + 1,
                0xcc | 0xd0 => 1,
                0xcd | 0xd1 | 0xd4 => 2,
                0xd5 => 3,
                0xca | 0xce | 0xd2 => 4,
                0xd6 => 5,
                0xcb | 0xcf | 0xd3 => 8,
                0xd7 => 9,
                0xd8 => 17,
                _ => 0,
            };
            input.take(content as usize);
            *body = input.rest();
            return (0, 0);
        }
    };
    *body = input.rest();
    let below = (0..children).map(|_| measured(body));
    below.fold((1, children), |(deep, all), (depth, more)| (deep.max(depth + 1), all + more))
}

/// A body as a handler would get it, in one of many shapes; what is read is written so that it can be
/// read again.
pub(super) fn body_decode(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let number = usize::from(input.byte());
    shapes::visit(number, &mut Decode(&Bytes::copy_from_slice(input.rest())));
}

struct Decode<'a>(&'a Bytes);

impl Visit for Decode<'_> {
    fn shape<T: DeserializeOwned + Serialize + Debug>(&mut self, name: &'static str) {
        let limits = PrescanLimits::default();
        match payload::decode_body::<T>(self.0, &limits) {
            Ok(value) => {
                for encoding in [Encoding::Named, Encoding::Compact] {
                    let body = payload::to_vec(&value, encoding, usize::MAX).unwrap();
                    let again = payload::decode::<T>(&body, &limits);
                    // Serde's flattened and tagged forms need the names.
                    let named = encoding == Encoding::Named;
                    assert!(again.is_ok() || !named, "{name}: {value:?} as {body:x?}: {again:?}");
                }
            }
            Err(error) => assert!(error.text().len() <= 4096, "an error as long as its cause"),
        }
    }
}

/// What decoding may take: so many bytes for each byte of a body, beside a first allowance.
const BYTES_PER_BYTE: u64 = 128;
const ALLOWANCE: u64 = 1 << 20;

/// The scan against the decoder: whatever the scan lets through is decoded, or refused, within its
/// budget of memory. `measure` runs what it is given, and says how many bytes that had at its peak.
pub fn prescan_vs_serde(bytes: &[u8], measure: impl Fn(&mut dyn FnMut()) -> u64) {
    let mut input = Input::new(bytes);
    let number = usize::from(input.byte());
    let body = input.rest();
    let limits = PrescanLimits::default();
    if scan(body, &limits).is_err() {
        return;
    }
    let peak = measure(&mut || shapes::visit(number, &mut Drain(body)));
    let most = ALLOWANCE + BYTES_PER_BYTE * body.len() as u64;
    assert!(peak <= most, "{peak} bytes for a body of {}, shape {number}", body.len());
}

struct Drain<'a>(&'a [u8]);

impl Visit for Drain<'_> {
    fn shape<T: DeserializeOwned + Serialize + Debug>(&mut self, _: &'static str) {
        // Either is fine: what matters is what it cost.
        let _ = payload::unscanned::<T>(self.0);
    }
}

thread_local! {
    static ENV: RefCell<Option<(LocalWorld, RpcEnv)>> = const { RefCell::new(None) };
}

/// Refs in bodies: what is read leads somewhere, and is written as it came.
pub(super) fn refs(bytes: &[u8]) {
    type Ref = RpcEndpointRef<Untyped>;
    let limits = PrescanLimits::default();
    assert!(payload::decode::<Ref>(bytes, &limits).is_err(), "a ref of no env");
    ENV.with_borrow_mut(|known| {
        let (_, env) = known.get_or_insert_with(env);
        let _ = env.decode::<Vec<Ref>>(bytes);
        let Ok(read) = env.decode::<Ref>(bytes) else { return };
        let body = env.encode(&read).unwrap();
        let again = env.decode::<Ref>(&body).unwrap();
        assert_eq!((&again, again.incarnation()), (&read, read.incarnation()));
        assert_eq!(env.encode(&again).unwrap(), body);
        let address = read.endpoint_address();
        assert_eq!(address.to_string().parse::<EndpointAddress>().unwrap(), *address);
    });
}

fn env() -> (LocalWorld, RpcEnv) {
    let world = LocalWorld::new();
    let config = RpcEnvConfig::server("fuzz", "fuzz:7077");
    let env = world.block_on(world.factory().create(config)).unwrap();
    (world, env)
}
