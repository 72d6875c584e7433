//! Large buffers that have been used, for the next large body: the system takes as long to hand out
//! fresh memory, page by page, as copying into it does.

use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Smaller buffers are not kept: the allocator has them at hand.
pub(crate) const LEAST: usize = 128 * 1024;
/// The bytes that all of the process's spare buffers have together.
const MOST: usize = 16 * 1024 * 1024;
/// The number of them.
const COUNT: usize = 16;

static SPARES: Mutex<Spares> = Mutex::new(Spares(Vec::new()));
/// Whether any was taken or kept since the last [`rest`].
static USED: AtomicBool = AtomicBool::new(false);

fn lock() -> MutexGuard<'static, Spares> {
    SPARES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An empty buffer with room for `bytes`, and not for more than twice as much: who counts the bytes
/// of a body must not hold much more. `None` if there is none.
pub(crate) fn take(bytes: usize) -> Option<Vec<u8>> {
    if bytes < LEAST {
        return None;
    }
    USED.store(true, Ordering::Relaxed);
    lock().take(bytes)
}

/// The bytes in a buffer, which is for the next body when nobody has a part of them any more.
pub(crate) fn lend(buffer: Vec<u8>) -> Bytes {
    if (LEAST..=MOST).contains(&buffer.capacity()) {
        Bytes::from_owner(Lent(buffer))
    } else {
        Bytes::from(buffer)
    }
}

struct Lent(Vec<u8>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        buffer.clear();
        USED.store(true, Ordering::Relaxed);
        let old = lock().keep(buffer);
        // Giving it back to the system takes long: not under the lock.
        drop(old);
    }
}

/// Gives all of them back to the system if none was needed since the last time.
pub fn rest() {
    if !USED.swap(false, Ordering::Relaxed) {
        let old = std::mem::take(&mut lock().0);
        drop(old);
    }
}

/// The ones used last are at the end.
#[derive(Debug)]
struct Spares(Vec<Vec<u8>>);

impl Spares {
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| buffer.capacity() >= bytes && buffer.capacity() / 2 <= bytes;
        let place = self.0.iter().rposition(fits)?;
        Some(self.0.remove(place))
    }

    /// Keeps a buffer; the older ones for which there is no room any more.
    fn keep(&mut self, buffer: Vec<u8>) -> Vec<Vec<u8>> {
        self.0.push(buffer);
        let mut bytes = 0_usize;
        let kept = self.0.iter().rev().take(COUNT).take_while(|buffer| {
            bytes = bytes.saturating_add(buffer.capacity());
            bytes <= MOST
        });
        let old = self.0.len().saturating_sub(kept.count());
        self.0.drain(..old).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Held by the tests that use the buffers of the process: they would take each other's.
    static ALONE: Mutex<()> = Mutex::new(());

    fn kept(spares: &Spares) -> Vec<usize> {
        spares.0.iter().map(Vec::capacity).collect()
    }

    fn buffer(bytes: usize) -> Vec<u8> {
        Vec::with_capacity(bytes)
    }

    #[test]
    fn a_buffer_is_not_much_larger_than_what_it_is_for() {
        let mut spares = Spares(vec![buffer(LEAST), buffer(4 * LEAST)]);
        assert_eq!(spares.take(4 * LEAST + 1), None);
        assert_eq!(spares.take(2 * LEAST - 1), None);
        assert_eq!(spares.take(LEAST).unwrap().capacity(), LEAST);
        assert_eq!(spares.take(2 * LEAST).unwrap().capacity(), 4 * LEAST);
        assert_eq!(kept(&spares), [0; 0]);
    }

    #[test]
    fn the_newest_are_kept_within_their_number_and_bytes() {
        let mut spares = Spares(Vec::new());
        for more in 0..COUNT {
            assert_eq!(spares.keep(buffer(LEAST + more)).len(), 0);
        }
        assert_eq!(spares.keep(buffer(LEAST))[0].capacity(), LEAST);
        assert_eq!(kept(&spares).len(), COUNT);
        assert_eq!(spares.keep(buffer(MOST - LEAST)).len(), COUNT - 1);
        assert_eq!(kept(&spares), [LEAST, MOST - LEAST]);
        assert_eq!(spares.keep(buffer(MOST)).len(), 2);
    }

    /// Of a size that no other test of this process uses.
    #[test]
    fn a_body_of_which_nobody_has_a_part_is_kept() {
        let _alone = ALONE.lock();
        let size = 3 * 1024 * 1024 + 4321;
        let (body, place) = (lend(vec![7; size]), |body: &[u8]| body.as_ptr().addr());
        let (was, part) = (place(&body), body.slice(size - 1..));
        assert_eq!(&body[..], vec![7; size]);
        drop(body);
        assert_eq!(take(size), None, "a part of it is in use");
        drop(part);
        let buffer = take(size).unwrap();
        assert_eq!((place(&buffer), buffer.len(), buffer.capacity()), (was, 0, size));
        // Nobody needs it any more, unless another test does.
        drop(lend(buffer));
        let held = || lock().0.iter().any(|kept| kept.capacity() == size);
        assert!(held());
        while held() {
            rest();
        }
        for size in [LEAST - 1, MOST + 1] {
            drop(lend(vec![7; size]));
            assert_eq!(take(size), None, "{size}");
        }
    }

    /// Whether it happens. Other tests use the spare buffers of the process as well, and may be faster.
    fn in_time(mut happens: impl FnMut() -> bool) -> bool {
        (0..1000).any(|_| happens())
    }

    #[test]
    fn what_is_too_small_or_too_large_leaves_the_others_alone() {
        let _alone = ALONE.lock();
        let held = |size| lock().0.iter().any(|kept| kept.capacity() == size);
        let give = |size| drop(lend(vec![7; size]));
        for size in [LEAST, MOST] {
            let kept = in_time(|| {
                give(size);
                held(size)
            });
            assert!(kept, "{size}");
        }
        give(LEAST - 1);
        assert!(!held(LEAST - 1));
        let size = LEAST + 4321;
        let kept = in_time(|| {
            give(size);
            give(MOST + 1);
            held(size)
        });
        assert!(kept);
        let rested = in_time(|| {
            give(size);
            rest();
            held(size)
        });
        assert!(rested, "it was needed a moment ago");
        // Who needs little gets none of them, and who needs just enough does.
        let taken = in_time(|| {
            give(LEAST);
            assert_eq!(take(LEAST - 1), None);
            take(LEAST).is_some()
        });
        assert!(taken);
    }
}
