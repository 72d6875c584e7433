//! Buffers that connections read into.

use bytes::BytesMut;
use rpc_core::spi::READ_SIZE;
use rpc_core::wire::frame::{ALONE, is_alone};
use std::cell::Cell;

/// What a read has brought is moved out of its buffer if it is no more than this: a message that
/// waits in an inbox holds all of what it was read into, and must not hold much more than it counts.
/// Copying so little costs less than the next buffer would.
pub(crate) const SMALL_READ: usize = ALONE;

thread_local! {
    /// A buffer for whichever connection of this thread reads next, or none.
    static SPARE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// Makes room to read into.
pub(crate) fn make_room(read: &mut BytesMut) {
    if read.capacity() == 0 {
        *read = SPARE.take();
    }
    if read.capacity() == read.len() {
        read.reserve(READ_SIZE);
    }
}

/// Moves a few bytes, or none, out of a large buffer, which is for the thread's next read. A message
/// that came alone will be copied out by itself.
pub(crate) fn compact(read: &mut BytesMut) {
    if read.len() <= SMALL_READ && read.capacity() >= READ_SIZE && !is_alone(read) {
        let few = BytesMut::from(&**read);
        let mut large = std::mem::replace(read, few);
        large.clear();
        SPARE.set(large);
    }
}

/// An idle connection keeps no buffer; what is left of this one is in use elsewhere.
pub(crate) fn forget(read: &mut BytesMut) {
    if read.is_empty() && read.capacity() < READ_SIZE {
        *read = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffer: &mut BytesMut, bytes: usize) {
        make_room(buffer);
        buffer.extend_from_slice(&vec![7; bytes]);
        compact(buffer);
    }

    #[test]
    fn a_small_message_holds_no_large_buffer() {
        let mut buffer = BytesMut::new();
        for bytes in [1, 100, SMALL_READ] {
            read(&mut buffer, bytes);
            assert!(buffer.capacity() < 2 * bytes.max(32), "{}", buffer.capacity());
            assert_eq!(buffer.split(), vec![7; bytes]);
            forget(&mut buffer);
            assert_eq!(buffer.capacity(), 0);
        }
    }

    #[test]
    fn the_large_buffer_is_for_the_next_read_whoever_it_is_for() {
        let (mut one, mut other) = (BytesMut::new(), BytesMut::new());
        make_room(&mut one);
        let place = one.as_ptr();
        read(&mut one, 10);
        make_room(&mut other);
        assert_eq!(other.as_ptr(), place);
        // Nothing came: it goes back.
        compact(&mut other);
        assert_eq!((other.capacity(), one.len()), (0, 10));
        make_room(&mut other);
        assert_eq!(other.as_ptr(), place);
    }

    #[test]
    fn a_part_of_a_frame_waits_for_its_rest() {
        let mut buffer = BytesMut::new();
        read(&mut buffer, 10);
        let _ = buffer.split_to(4);
        forget(&mut buffer);
        assert_eq!(buffer.len(), 6);
        read(&mut buffer, 100_000);
        assert_eq!(buffer, vec![7; 100_006]);
        let message = buffer.split_to(100_000).freeze();
        read(&mut buffer, 10);
        assert_eq!((buffer.len(), message.len()), (16, 100_000));
    }
}
