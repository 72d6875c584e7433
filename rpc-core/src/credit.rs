//! What a peer was granted of an inbox, and what of that is in it.

use crate::share::{Measure, Part, Used};
use crate::wire::payload::charged;

/// A number of messages and of the bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credit {
    /// Messages.
    pub messages: usize,
    /// Bytes of bodies.
    pub bytes: usize,
}

impl Credit {
    pub(crate) fn add(&mut self, more: Self) {
        self.messages = self.messages.saturating_add(more.messages);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }

    pub(crate) fn sub(&mut self, less: Self) {
        self.messages = self.messages.saturating_sub(less.messages);
        self.bytes = self.bytes.saturating_sub(less.bytes);
    }
}

/// The largest window of a peer: enough to keep a connection busy for a round trip.
const MOST: Credit = Credit { messages: 1024, bytes: 16 * 1024 * 1024 };
/// The window that every peer has, whatever the others hold.
const BASE: Credit = Credit { messages: 8, bytes: 256 * 1024 };
/// The messages of that at an endpoint of the system.
const SYSTEM_BASE: usize = 64;
/// What a peer begins with while most of the pool is free: most callers never need more.
const START: Credit = Credit { messages: 64, bytes: 1024 * 1024 };

/// The part of an inbox that is for peers.
#[derive(Debug)]
pub(crate) struct Pool {
    messages: Measure,
    bytes: Measure,
}

impl Pool {
    /// The pool of an inbox with these limits; `system` says that the endpoint is one of the system.
    pub(crate) fn new(limit: Credit, system: bool) -> Self {
        let base = if system { SYSTEM_BASE } else { BASE.messages };
        Self {
            messages: Measure::new(limit.messages, base, START.messages, MOST.messages),
            bytes: Measure::new(limit.bytes, BASE.bytes, START.bytes, MOST.bytes),
        }
    }

    /// What windows have of the pool.
    pub(crate) fn promised(&self) -> Credit {
        Credit { messages: self.messages.promised, bytes: self.bytes.promised }
    }

    /// Whether nobody has a window that is larger than its base, or wants one.
    pub(crate) fn is_unused(&self) -> bool {
        self.messages.is_unused() && self.bytes.is_unused()
    }

    /// Opens a window, for messages of at most `largest` bytes.
    pub(crate) fn open(&mut self, largest: usize) -> Account {
        let (messages, bytes) = (self.messages.open(), self.bytes.open());
        let mut account = Account {
            left: (0, 0),
            lowest: (0, 0),
            idle: true,
            owed: Credit::default(),
            queued: Credit::default(),
            under_way: 0,
            largest,
            messages,
            bytes,
        };
        account.give(account.window());
        account
    }

    /// Takes a window back.
    pub(crate) fn close(&mut self, account: &Account) {
        self.messages.close(&account.messages);
        self.bytes.close(&account.bytes);
    }
}

/// One peer's account: what it was granted, and what of that is in the inbox, given back, or still
/// its own.
#[derive(Debug)]
pub(crate) struct Account {
    messages: Part,
    bytes: Part,
    /// What the peer may still send, as it knows it or will know it: messages and bytes. Bytes may
    /// be below zero by a message.
    pub(crate) left: (i64, i64),
    /// The least of that in this round.
    lowest: (i64, i64),
    /// Whether nothing has arrived in this round.
    idle: bool,
    /// What has been taken out of the inbox in this round.
    owed: Credit,
    /// What is in the inbox.
    queued: Credit,
    /// Large messages that have begun to arrive.
    under_way: usize,
    largest: usize,
}

impl Account {
    /// All that the peer may have in the inbox.
    pub(crate) fn window(&self) -> Credit {
        Credit { messages: self.messages.window, bytes: self.bytes.window }
    }

    fn give(&mut self, credit: Credit) {
        self.left.0 = self.left.0.saturating_add(signed(credit.messages));
        self.left.1 = self.left.1.saturating_add(signed(credit.bytes));
        self.lowest = self.left;
    }

    /// What the peer has in the inbox.
    pub(crate) fn queued(&self) -> Credit {
        self.queued
    }

    /// A message of the peer is there. `false` if it was not allowed to send it.
    pub(crate) fn arrived(&mut self, bytes: usize) -> bool {
        self.enter(bytes);
        self.spend(bytes)
    }

    fn enter(&mut self, bytes: usize) {
        self.queued.messages = self.queued.messages.saturating_add(1);
        self.queued.bytes = self.queued.bytes.saturating_add(bytes);
    }

    fn spend(&mut self, bytes: usize) -> bool {
        self.idle = false;
        self.left.0 = self.left.0.saturating_sub(1);
        self.left.1 = self.left.1.saturating_sub(signed(charged(bytes)));
        self.lowest.0 = self.lowest.0.min(self.left.0);
        self.lowest.1 = self.lowest.1.min(self.left.1);
        // The last message that the peer sent may overdraw the bytes. It need not arrive last: a
        // small one of the other lane overtakes it, and so may one that was large before it.
        self.left.0 >= 0 && self.left.1 >= signed(self.largest).saturating_neg()
    }

    /// A message has begun to arrive, and counts as a whole. `false` if that was not allowed.
    pub(crate) fn begun(&mut self, bytes: usize) -> bool {
        self.under_way = self.under_way.saturating_add(1);
        self.spend(bytes)
    }

    /// The last part of one has come.
    pub(crate) fn completed(&mut self, bytes: usize) {
        self.under_way = self.under_way.saturating_sub(1);
        self.enter(bytes);
    }

    /// The rest of one will not come: the peer has its credit again.
    pub(crate) fn given_up(&mut self, bytes: usize) {
        self.under_way = self.under_way.saturating_sub(1);
        self.left.0 = self.left.0.saturating_add(1);
        self.left.1 = self.left.1.saturating_add(signed(charged(bytes)));
    }

    /// Whether a message is in the middle.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way > 0
    }

    /// A message was taken out of the inbox. `true` if a round is over: half of a window at a time
    /// is rarely enough to cost nothing, and soon enough not to stall the peer.
    pub(crate) fn consumed(&mut self, bytes: usize) -> bool {
        self.queued.messages = self.queued.messages.saturating_sub(1);
        self.queued.bytes = self.queued.bytes.saturating_sub(bytes);
        self.owed.messages = self.owed.messages.saturating_add(1);
        self.owed.bytes = self.owed.bytes.saturating_add(charged(bytes));
        self.owed.messages >= self.messages.window.div_ceil(2)
            || self.owed.bytes >= self.bytes.window.div_ceil(2)
    }

    /// Ends a round: what the peer is to be granted.
    pub(crate) fn round(&mut self, pool: &mut Pool) -> Credit {
        let owed = std::mem::take(&mut self.owed);
        // Half is owed when a round ends, so a window counts as used up when another quarter was
        // in the inbox: a peer that sends one at a time never gets there.
        let used = |lowest: i64, window: usize| match self.idle {
            true => Used::Nothing,
            false if lowest <= signed(window / 4) => Used::Up,
            false => Used::Partly,
        };
        let messages = used(self.lowest.0, self.messages.window);
        let bytes = used(self.lowest.1, self.bytes.window);
        let credit = Credit {
            messages: pool.messages.round(&mut self.messages, owed.messages, messages),
            bytes: pool.bytes.round(&mut self.bytes, owed.bytes, bytes),
        };
        self.give(credit);
        self.idle = true;
        credit
    }
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Credit = Credit { messages: 4096, bytes: 64 << 20 };

    fn pool() -> Pool {
        Pool::new(LIMIT, false)
    }

    /// A peer that sends whatever it may, and has all of it handled.
    fn burst(pool: &mut Pool, account: &mut Account, size: usize) {
        let mut sent = 0;
        while account.left.0 > 0 && account.left.1 > 0 {
            assert!(account.arrived(size));
            sent += 1;
        }
        (0..sent).for_each(|_| handle(pool, account, size));
    }

    fn handle(pool: &mut Pool, account: &mut Account, size: usize) {
        if account.consumed(size) {
            account.round(pool);
        }
    }

    fn one_by_one(pool: &mut Pool, account: &mut Account, count: usize) {
        for _ in 0..count {
            assert!(account.arrived(1));
            handle(pool, account, 1);
        }
    }

    #[test]
    fn a_busy_peer_has_the_full_window_after_a_few_rounds() {
        let mut pool = pool();
        let mut account = pool.open(1 << 20);
        assert_eq!(account.window(), START);
        (0..5).for_each(|_| burst(&mut pool, &mut account, 4));
        assert_eq!(account.window().messages, MOST.messages);
        assert_eq!(account.window().bytes, START.bytes, "bytes were not what it was short of");
        let mut account = pool.open(1 << 20);
        (0..6).for_each(|_| burst(&mut pool, &mut account, 100_000));
        assert_eq!(account.window().bytes, MOST.bytes);
    }

    #[test]
    fn a_peer_that_sends_one_at_a_time_does_not_grow() {
        for system in [false, true] {
            let mut pool = Pool::new(LIMIT, system);
            let mut account = pool.open(1 << 20);
            one_by_one(&mut pool, &mut account, 10_000);
            assert_eq!(account.window(), START);
        }
    }

    #[test]
    fn the_base_is_there_for_everyone() {
        for (system, base) in [(false, BASE.messages), (true, SYSTEM_BASE)] {
            let mut pool = Pool::new(LIMIT, system);
            let accounts: Vec<_> = (0..5000).map(|_| pool.open(1)).collect();
            assert!(accounts.iter().all(|account| account.window().messages >= base));
            assert!(accounts.iter().all(|account| account.window().bytes >= BASE.bytes));
            // Peers that are only there have not taken what busy ones need.
            assert!(pool.messages.free() >= LIMIT.messages / 4);
            accounts.iter().for_each(|account| pool.close(account));
            assert_eq!(pool.promised(), Credit::default());
            assert!(pool.messages.is_unused() && pool.bytes.is_unused());
        }
    }

    #[test]
    fn small_inboxes_have_small_windows() {
        let mut pool = Pool::new(Credit { messages: 1, bytes: 10 }, false);
        assert_eq!(pool.open(1).window(), Credit { messages: 1, bytes: 10 });
        let mut pool = Pool::new(Credit { messages: 64, bytes: 1 << 20 }, true);
        assert_eq!(pool.open(1).window().messages, 64);
    }

    #[test]
    fn busy_peers_end_with_equal_shares() {
        for peers in [2, 3, 8, 40] {
            let mut pool = pool();
            let mut accounts: Vec<_> = (0..peers).map(|_| pool.open(1 << 20)).collect();
            // The first one comes long before the others.
            (0..20).for_each(|_| burst(&mut pool, &mut accounts[0], 4));
            assert_eq!(accounts[0].window().messages, MOST.messages);
            for _ in 0..60 {
                accounts.iter_mut().for_each(|account| burst(&mut pool, account, 4));
            }
            let fair = (BASE.messages + 2048 / peers).min(MOST.messages);
            for account in &accounts {
                let window = account.window().messages;
                assert!((fair * 2 / 3..=fair * 2).contains(&window), "{window} of {fair}");
            }
        }
    }

    #[test]
    fn what_others_want_is_not_for_the_largest() {
        let mut pool = pool();
        let mut accounts: Vec<_> = (0..3).map(|_| pool.open(1 << 20)).collect();
        for _ in 0..20 {
            burst(&mut pool, &mut accounts[0], 4);
            burst(&mut pool, &mut accounts[1], 4);
        }
        // All of the pool is in use; the third one is still small, and wants more.
        burst(&mut pool, &mut accounts[2], 4);
        let small = accounts[2].window().messages;
        assert!(small < 256);
        // Whatever the large ones do now, what they let go is not for them.
        let large = accounts[..2].iter().map(|account| account.window().messages).sum::<usize>();
        for _ in 0..10 {
            burst(&mut pool, &mut accounts[0], 4);
            burst(&mut pool, &mut accounts[1], 4);
        }
        let after = accounts[..2].iter().map(|account| account.window().messages).sum::<usize>();
        assert!(after < large, "{after} of {large}");
        assert!(pool.messages.free() >= small.min(64));
        let mut last = small;
        for _ in 0..6 {
            burst(&mut pool, &mut accounts[2], 4);
            assert!(accounts[2].window().messages >= last);
            last = accounts[2].window().messages;
            burst(&mut pool, &mut accounts[0], 4);
            burst(&mut pool, &mut accounts[1], 4);
        }
        assert!(last >= 400, "{last}");
    }

    #[test]
    fn what_nobody_wants_stays_where_it_is() {
        let mut pool = pool();
        let (mut busy, mut slow) = (pool.open(1), pool.open(1));
        (0..20).for_each(|_| burst(&mut pool, &mut busy, 4));
        one_by_one(&mut pool, &mut slow, 1000);
        burst(&mut pool, &mut busy, 4);
        assert_eq!(busy.window().messages, MOST.messages);
        assert_eq!(slow.window().messages, START.messages);
    }

    #[test]
    fn more_than_was_granted_is_noticed() {
        let mut pool = pool();
        let mut account = pool.open(1000);
        assert!((0..START.messages).all(|_| account.arrived(0)));
        assert!(!account.arrived(0));
        let mut account = pool.open(5000);
        // One message may overdraw the bytes, and the announced size is what counts.
        assert!(account.begun(START.bytes) && account.is_under_way());
        assert!(account.arrived(5000));
        // A small one costs no bytes.
        assert!(account.arrived(4096));
        assert!(!account.arrived(5000));
        let mut account = pool.open(5000);
        assert!(!account.begun(START.bytes + 5001));
        // What is given up has not been sent.
        account.given_up(START.bytes + 5001);
        assert!(!account.is_under_way() && account.begun(START.bytes));
        // What was handled is not granted before the round is over.
        let mut account = pool.open(1000);
        (0..START.messages).for_each(|_| assert!(account.arrived(0)));
        (0..START.messages / 2 - 1).for_each(|_| assert!(!account.consumed(0)));
        assert!(!account.arrived(0));
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % end as u64).unwrap()
        }
    }

    /// A peer with its own idea of its credit, which grants reach late.
    struct Peer {
        account: Account,
        credit: (i64, i64),
        grants: Vec<Credit>,
        queued: Vec<usize>,
        owed: Credit,
    }

    impl Peer {
        fn new(pool: &mut Pool) -> Self {
            let account = pool.open(1 << 20);
            let window = account.window();
            let credit = (signed(window.messages), signed(window.bytes));
            Self {
                account,
                credit,
                grants: Vec::new(),
                queued: Vec::new(),
                owed: Credit::default(),
            }
        }

        fn step(&mut self, pool: &mut Pool, random: &mut Random) {
            match random.below(10) {
                0..6 => {
                    let size = [0, 10, 5000, 1 << 20][random.below(4)];
                    for _ in 0..random.below(200) {
                        if self.credit.0 > 0 && (self.credit.1 > 0 || charged(size) == 0) {
                            let cost = signed(charged(size));
                            self.credit = (self.credit.0 - 1, self.credit.1 - cost);
                            assert!(self.account.arrived(size), "a peer within its credit");
                            self.queued.push(size);
                        }
                    }
                }
                6..8 => self.handle(pool, random.below(300)),
                _ => self.hear(),
            }
        }

        fn handle(&mut self, pool: &mut Pool, most: usize) {
            for _ in 0..most.min(self.queued.len()) {
                let size = self.queued.pop().unwrap();
                self.owed.messages += 1;
                self.owed.bytes += charged(size);
                if self.account.consumed(size) {
                    let given = self.account.round(pool);
                    self.grants.push(given);
                    self.owed = Credit::default();
                }
            }
        }

        fn hear(&mut self) {
            for credit in self.grants.drain(..) {
                self.credit.0 += signed(credit.messages);
                self.credit.1 += signed(credit.bytes);
            }
        }
    }

    #[test]
    fn whatever_happens_windows_stay_within_the_pool_and_no_credit_is_lost() {
        for seed in 1..200_u64 {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let limit =
                Credit { messages: 16 << random.below(9), bytes: 1 << (18 + random.below(9)) };
            let system = random.below(2) == 0;
            let mut pool = Pool::new(limit, system);
            let base = Credit { messages: pool.messages.base, bytes: pool.bytes.base };
            let mut peers = Vec::new();
            for _ in 0..600 {
                match random.below(30) {
                    0 => peers.push(Peer::new(&mut pool)),
                    1 if !peers.is_empty() => {
                        let gone: Peer = peers.swap_remove(random.below(peers.len()));
                        pool.close(&gone.account);
                    }
                    _ if !peers.is_empty() => {
                        let peer = random.below(peers.len());
                        peers[peer].step(&mut pool, &mut random);
                    }
                    _ => {}
                }
                let windows = peers.iter().map(|peer| peer.account.window());
                let sum = windows.clone().map(|window| window.messages).sum::<usize>();
                assert!(sum <= limit.messages / 2 + base.messages * peers.len());
                let sum = windows.clone().map(|window| window.bytes).sum::<usize>();
                assert!(sum <= limit.bytes / 2 + base.bytes * peers.len());
                for window in windows {
                    assert!(window.messages >= base.messages && window.bytes >= base.bytes);
                }
            }
            for peer in &mut peers {
                peer.handle(&mut pool, usize::MAX);
                peer.hear();
                let window = peer.account.window();
                let whole = (
                    signed(window.messages - peer.owed.messages),
                    signed(window.bytes) - signed(peer.owed.bytes),
                );
                assert_eq!(peer.credit, whole, "credit was lost or made");
                assert_eq!(peer.account.left, whole);
                assert!(peer.credit.0 > 0 && peer.credit.1 > 0, "the peer cannot go on");
                pool.close(&peer.account);
            }
            assert!(pool.messages.is_unused() && pool.bytes.is_unused());
        }
    }
}
