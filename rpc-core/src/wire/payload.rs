//! MessagePack of user values: the only file that names rmp-serde.

use crate::error::{ErrorKind, RpcError, shortened};
use crate::message::Encoding;
use crate::wire::encoded::{Encoded, SMALL_BODY};
use crate::wire::in_place;
use crate::wire::prescan::{PrescanLimits, prescan};
use crate::wire::spare;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::Cell;
use std::io;

/// Scratch buffers above this are given back to the allocator instead of kept by the thread.
const KEPT_SCRATCH: usize = 64 * 1024;

/// Bodies up to this cost a message of credit and no bytes: what bounds their number bounds them,
/// and they do not wait until a large one of the other lane was handled.
const FREE_BODY: usize = 4096;

/// What a decoder may say of why it failed: it quotes texts of the peer, however long they are.
const MAX_CAUSE: usize = 1024;

/// The bytes of credit that a body costs.
pub(crate) fn charged(bytes: usize) -> usize {
    if bytes <= FREE_BODY { 0 } else { bytes }
}

thread_local! {
    /// In a box: it is taken out and put back with each value.
    static SCRATCH: Cell<Option<Box<Encoded>>> = const { Cell::new(None) };
}

/// A value in the scratch buffer of this thread, which may be taken out of it.
pub(crate) struct Scratch(Option<Box<Encoded>>);

impl Scratch {
    pub(crate) fn body(&mut self) -> &mut Encoded {
        self.0.get_or_insert_default()
    }
}

/// The buffer is for the next value.
impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        let Some(mut scratch) = self.0.take() else { return };
        scratch.clear();
        if scratch.own_mut().capacity() <= KEPT_SCRATCH {
            SCRATCH.set(Some(scratch));
        }
    }
}

/// Encodes `value` into the scratch buffer of this thread. User code (`Serialize`) runs outside of every
/// lock here, and may itself send messages.
///
/// # Errors
/// `Encode` if the value cannot be written, `TooLarge` as soon as it passes `max` bytes.
pub(crate) fn encoded<T: Serialize + ?Sized>(
    value: &T,
    encoding: Encoding,
    max: usize,
) -> Result<Scratch, RpcError> {
    let mut scratch = SCRATCH.take().unwrap_or_default();
    scratch.clear();
    encode_into(value, encoding, max, &mut scratch)?;
    if scratch.own().len() > SMALL_BODY {
        trim(scratch.own_mut());
    }
    Ok(Scratch(Some(scratch)))
}

/// A large body is taken, and may wait for long: it keeps a quarter of its size in vain at most.
fn trim(body: &mut Vec<u8>) {
    let room = body.len().saturating_add(body.len() / 4);
    if body.capacity() > room {
        body.shrink_to(room);
    }
}

/// Encodes `value` into a buffer of its own.
///
/// # Errors
/// As [`encoded`].
pub(crate) fn to_vec<T: Serialize + ?Sized>(
    value: &T,
    encoding: Encoding,
    max: usize,
) -> Result<Vec<u8>, RpcError> {
    Ok(encoded(value, encoding, max)?.body().to_vec())
}

fn encode_into<T: Serialize + ?Sized>(
    value: &T,
    encoding: Encoding,
    max: usize,
    into: &mut Encoded,
) -> Result<(), RpcError> {
    let mut writer = Capped { into, left: max, over: false };
    let result = match encoding {
        Encoding::Named => {
            let mut serializer = rmp_serde::Serializer::new(&mut writer).with_struct_map();
            value.serialize(&mut serializer)
        }
        Encoding::Compact => {
            let mut serializer = rmp_serde::Serializer::new(&mut writer);
            value.serialize(&mut serializer)
        }
    };
    if writer.over {
        return Err(RpcError::new(
            ErrorKind::TooLarge,
            format!(
                "the encoded value is larger than {max} bytes. This limit is controlled by rpc.message.maxSize"
            ),
        ));
    }
    result.map_err(|error| {
        RpcError::new(ErrorKind::Encode, format!("the value cannot be encoded: {error}"))
    })
}

/// Stops an encoder that runs over the limit, before its memory does.
struct Capped<'a> {
    into: &'a mut Encoded,
    /// What it may have in bytes of its own: a part that is shared takes from it.
    left: usize,
    over: bool,
}

impl Capped<'_> {
    /// Makes room for `length` bytes in all, at least twice what there was.
    #[cold]
    fn grow(&mut self, length: usize) {
        let own = self.into.own_mut();
        let room = length.max(own.capacity().saturating_mul(2));
        match spare::take(room) {
            Some(mut larger) => {
                larger.extend_from_slice(own);
                *own = larger;
            }
            None => own.reserve_exact(room.saturating_sub(own.len())),
        }
    }

    fn refuse(&mut self) -> io::Result<()> {
        self.over = true;
        Err(io::Error::from(io::ErrorKind::FileTooLarge))
    }

    /// Large bytes, which may be those that a field of the value offers to share.
    #[cold]
    fn write_large(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(part) = in_place::offered(bytes) else { return self.copy(bytes) };
        match self.left.checked_sub(part.len()) {
            Some(left) if left >= self.into.own().len() => {
                self.left = left;
                self.into.share(part);
                Ok(())
            }
            _ => self.refuse(),
        }
    }

    #[inline]
    fn copy(&mut self, bytes: &[u8]) -> io::Result<()> {
        let own = self.into.own_mut();
        let length = own.len().saturating_add(bytes.len());
        if length > self.left {
            return self.refuse();
        }
        if length > own.capacity() {
            self.grow(length);
        }
        self.into.own_mut().extend_from_slice(bytes);
        Ok(())
    }
}

impl io::Write for Capped<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > SMALL_BODY { self.write_large(bytes) } else { self.copy(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether parts of a body may stay where they are.
pub(crate) fn may_stay(body: &[u8]) -> bool {
    body.len() >= in_place::SMALLEST_BODY
}

/// As [`decode`]; large byte strings may stay where they are.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_body<T: DeserializeOwned>(
    body: &Bytes,
    limits: &PrescanLimits,
) -> Result<T, RpcError> {
    in_place::within(body, || decode(body, limits))
}

/// Decodes one value that fills `bytes`, after the pre-scan has bounded what decoding may cost.
///
/// # Errors
/// `Decode`, naming the type, and where the bytes are at fault the offset.
pub(crate) fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    limits: &PrescanLimits,
) -> Result<T, RpcError> {
    let failed = |cause: &dyn std::fmt::Display| {
        let name = std::any::type_name::<T>();
        RpcError::new(
            ErrorKind::Decode,
            format!(
                "{} bytes do not decode as {name}: {}",
                bytes.len(),
                shortened(cause.to_string(), MAX_CAUSE)
            ),
        )
    };
    prescan(bytes, limits).map_err(|error| failed(&error))?;
    rmp_serde::from_slice(bytes).map_err(|error| failed(&error))
}

/// What the decoder alone makes of one value that fills `bytes`, without the pre-scan.
#[cfg(any(test, fuzzing))]
pub(crate) fn unscanned<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    let mut decoder = rmp_serde::Deserializer::new(bytes);
    let value = T::deserialize(&mut decoder)?;
    if decoder.get_ref().is_empty() {
        return Ok(value);
    }
    Err(serde::de::Error::custom("bytes follow the value"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use io::Write;

    /// The length and the capacity of the buffer that a string of so many bytes is encoded into.
    fn of_string(bytes: usize) -> (usize, usize) {
        let value = Bytes::from(vec![7; bytes]);
        let mut buffer = encoded(&value, Encoding::Named, usize::MAX).unwrap();
        (buffer.body().len(), buffer.body().own_mut().capacity())
    }

    #[test]
    fn a_value_may_be_as_large_as_the_limit_and_no_larger() {
        let value = Bytes::from(vec![7; 1000]);
        for encoding in [Encoding::Named, Encoding::Compact] {
            assert_eq!(to_vec(&value, encoding, 1003).unwrap().len(), 1003);
            for max in [1002, 3, 2, 0] {
                let error = to_vec(&value, encoding, max).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TooLarge);
                assert!(error.to_string().contains("rpc.message.maxSize"), "{error}");
            }
        }
    }

    #[test]
    fn the_writer_says_how_much_it_took() {
        let mut into = Encoded::default();
        let mut writer = Capped { into: &mut into, left: 5, over: false };
        assert_eq!((writer.write(b"").unwrap(), writer.write(b"abc").unwrap()), (0, 3));
        assert!(writer.write(b"def").is_err() && writer.over);
        assert_eq!(into.own(), b"abc");
    }

    #[test]
    fn a_thread_keeps_a_buffer_of_up_to_64_kib_and_no_larger_one() {
        let room = |bytes| of_string(bytes).1;
        assert_eq!(room(1000), 1003);
        // Just large enough is large enough.
        assert_eq!((room(1000), room(10)), (1003, 1003));
        assert_eq!((room(65_536 - 3), room(10)), (65_536, 65_536));
        assert!(room(65_536 - 2) > 65_536 && room(10) < 100);
    }

    #[test]
    fn a_body_that_waits_keeps_a_quarter_of_its_size_in_vain_at_most() {
        // Each part doubles the buffer if it does not fit.
        let parts = |bytes: [usize; 2]| {
            SCRATCH.set(None);
            let parts = bytes.map(|bytes| Bytes::from(vec![7; bytes]));
            let mut buffer = encoded(&parts, Encoding::Named, usize::MAX).unwrap();
            (buffer.body().len(), buffer.body().own_mut().capacity())
        };
        assert_eq!(parts([40_000, 1000]), (41_007, 41_007 + 41_007 / 4));
        assert_eq!(parts([40_000, 39_000]), (79_007, 2 * 40_004));
        // Small ones are copied, and what is kept is the thread's.
        SCRATCH.set(Some(Box::new(Encoded::from(Vec::with_capacity(60_000)))));
        assert_eq!(of_string(16_384 - 3), (16_384, 60_000));
        assert_eq!(of_string(16_384 - 2), (16_384 + 1, (16_384 + 1) * 5 / 4));
    }

    /// Whether it happens. Other tests use the spare buffers of the process as well, and may be faster.
    fn in_time(mut happens: impl FnMut() -> bool) -> bool {
        (0..1000).any(|_| happens())
    }

    #[test]
    fn the_buffer_of_a_large_body_that_is_decoded_is_for_the_next_one() {
        let bytes = 5 * 1024 * 1024 + 4321;
        let place = |body: &[u8]| body.as_ptr().addr();
        assert!(in_time(|| {
            let value = Bytes::from(vec![7; bytes]);
            let body = to_vec(&value, Encoding::Named, usize::MAX).unwrap();
            let before = place(&body);
            let body = spare::lend(body);
            assert_eq!(decode_body::<Bytes>(&body, &PrescanLimits::default()).unwrap(), value);
            drop(body);
            let mut again = encoded(&value, Encoding::Named, usize::MAX).unwrap();
            place(again.body().own()) == before
        }));
    }
}
