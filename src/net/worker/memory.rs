//! The bound over what all connections hold together (`memory_max`), in one worker.
//!
//! Connections hold memory between two turns for an unfinished message, for parked bytes and for
//! what waits to be written. The [`Meter`] counts it; here is which connections hold how much, and
//! since when they make no progress.
//!
//! ```text
//! free  up to memory_max            everybody is read
//! over  up to 17 sixteenths of it   whoever holds something and makes no progress is not read; if
//!                                   it lasts, he is closed
//! full  beyond                      whoever holds something waits for his turn to be read, a few
//!                                   at a time, the oldest message first; whoever makes no progress
//!                                   is closed at once
//! ```
//!
//! A worker closes only as long as it holds more than its share, which some worker does whenever
//! all together hold too much. Victims come in the order of bytes × time since their last progress.
//! A connection is no victim while what has arrived of its message, paid for at
//! `progress_rate_min`, covers the time since.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::mem;
use std::time::Duration;

use super::slots::Slots;
use super::{Worker, mark};
use crate::base::limits::Limits;
use crate::base::meter::Meter;
use crate::base::slab::Key;
use crate::base::tick::{TICK_MS, Tick};
use crate::net::accounts::Accounts;
use crate::session::holding::Holding;

/// The farthest that progress covers the time ahead, and what a connection has when it begins to
/// hold something: a message may arrive in bursts.
const CREDIT: Duration = Duration::from_secs(1);

/// How long all together may hold more than `memory_max` before somebody is closed for it.
const OVER_FOR: Duration = Duration::from_secs(1);

/// Victims chosen at once, at least; otherwise a sixteenth of those who hold something. So a look
/// at all of them costs each victim that comes of it a bounded share.
const VICTIMS: usize = 64;
const VICTIMS_SHARE: usize = 16;

/// Connections that are read at a time while memory is full although they hold something.
const GRANTS: usize = 8;

/// Room in bytes for which one of those that waited to be read is read again.
const RELEASE_ROOM: usize = 1024 * 1024;

/// Bytes read at once, while memory is full, from a connection that holds nothing.
const FULL_READ_BYTES: usize = 16 * 1024;

/// Buffers that were of no use for so long are given back.
const SPARE_KEPT: Duration = Duration::from_secs(5);

/// Time between two lines in the log.
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// How much all connections hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Free,
    Over,
    Full,
}

/// A connection that holds something.
#[derive(Debug)]
struct Holder {
    key: Key,
    holding: Holding,
    /// When it began to hold something.
    since: Tick,
    /// When it last made progress: some of its message arrived, or its socket took some.
    progress: Tick,
    /// Until when its progress covers the time, in milliseconds of the worker's clock.
    covered_ms: u64,
    /// Its `progress_rate_min`.
    rate_min: usize,
    /// It is not read at the moment; how many milliseconds were covered when that began.
    held_back: Option<u64>,
    /// When that began, or was last counted.
    unread_since: Tick,
    /// It is one of the few that are read while memory is full, until its socket is empty.
    granted: bool,
}

impl Holder {
    fn is_covered(&self, now_ms: u64) -> bool {
        match self.held_back {
            Some(left) => left > 0,
            None => self.covered_ms > now_ms,
        }
    }

    /// Whether its message has arrived fast enough on the whole.
    fn is_on_time(&self, now_ms: u64) -> bool {
        let paid_ms = (self.holding.received as u64).saturating_mul(1_000);
        paid_ms / self.rate_min.max(1) as u64 >= now_ms - ms(self.since).min(now_ms)
    }

    /// What makes it a victim before others.
    fn weight(&self, now: Tick) -> u64 {
        let bytes = (self.holding.owned + self.holding.shared) as u64;
        let ticks = u64::from(now.ticks().saturating_sub(self.progress.ticks()));
        bytes.saturating_mul(ticks + 1)
    }
}

/// What a worker's connections hold.
#[derive(Debug)]
pub(super) struct Memory {
    meter: Meter,
    max: usize,
    share: usize,
    /// Whether the connection in a slot is among `holders`.
    holds: Slots,
    /// By slot.
    holders: HashMap<u32, Holder>,
    /// Those that are not read although they made progress: whoever has held something for longest
    /// is the first to be read again. Some of them have ended since; likewise below.
    waiting: BinaryHeap<Reverse<(Tick, Key)>>,
    /// Those that are not read because they made no progress.
    stalled: Vec<Key>,
    granted: usize,
    /// When somebody who waited was last looked for.
    last_grant: Tick,
    over_since: Option<Tick>,
    /// Before this, a look for victims finds none that the last one did not.
    next_look: Tick,
    /// When spare buffers are looked at again.
    next_tidying: Tick,
    report: Report,
}

/// Victims that the log does not tell of yet.
#[derive(Debug, Default)]
struct Report {
    connections: usize,
    bytes: usize,
    next: Tick,
}

impl Memory {
    pub(super) fn new(accounts: &Accounts, meter: Meter) -> Self {
        Self {
            meter,
            max: accounts.memory_max(),
            share: accounts.memory_share(),
            holds: Slots::default(),
            holders: HashMap::new(),
            waiting: BinaryHeap::new(),
            stalled: Vec::new(),
            granted: 0,
            last_grant: Tick::START,
            over_since: None,
            next_look: Tick::START,
            next_tidying: Tick::NEVER,
            report: Report::default(),
        }
    }

    fn level(&self) -> Level {
        match self.meter.total() {
            total if total <= self.max => Level::Free,
            total if total <= self.max + self.max / 16 => Level::Over,
            _ => Level::Full,
        }
    }

    /// A connection holds this much now.
    #[inline]
    pub(super) fn note(&mut self, key: Key, holding: Holding, limits: &Limits, now: Tick) {
        if holding.owned + holding.shared > 0 {
            self.hold(key, holding, limits.progress_rate_min, now);
        } else if self.holds.contains(key.index()) {
            self.forget(key);
        }
    }

    fn hold(&mut self, key: Key, holding: Holding, rate_min: usize, now: Tick) {
        let now_ms = ms(now);
        let farthest = now_ms + CREDIT.as_millis() as u64;
        self.holds.insert(key.index());
        let holder = self.holders.entry(key.index()).or_insert_with(|| Holder {
            key,
            holding: Holding::default(),
            since: now,
            progress: now,
            covered_ms: farthest,
            rate_min,
            held_back: None,
            unread_since: now,
            granted: false,
        });
        let before = mem::replace(&mut holder.holding, holding);
        self.meter.subtract(before.owned);
        self.meter.add(holding.owned);
        let received = match holding.received.checked_sub(before.received) {
            Some(received) => received,
            // Another message has begun.
            None => {
                holder.since = now;
                holding.received
            }
        };
        let progress = received + before.queued.saturating_sub(holding.queued);
        if progress > 0 {
            holder.progress = now;
            let covers = (progress as u64).saturating_mul(1_000) / rate_min.max(1) as u64;
            holder.covered_ms = (holder.covered_ms.max(now_ms) + covers).min(farthest);
        }
    }

    /// A connection has ended, or holds nothing any more.
    pub(super) fn forget(&mut self, key: Key) {
        if self.holds.remove(key.index())
            && let Some(holder) = self.holders.remove(&key.index())
        {
            self.meter.subtract(holder.holding.owned);
            self.granted -= usize::from(holder.granted);
            if self.holders.is_empty() {
                // Of a flood nothing is to stay.
                self.holders.shrink_to_fit();
            }
        }
    }

    /// How many bytes may be read from a connection at once: all there are, unless memory is
    /// scarce. If none may, it is remembered, and marked as ready when some may.
    #[inline]
    pub(super) fn admit(&mut self, key: Key, hung_up: bool, now: Tick) -> usize {
        match self.level() {
            Level::Free => usize::MAX,
            level => self.admit_scarcely(level, key, hung_up, now),
        }
    }

    #[cold]
    fn admit_scarcely(&mut self, level: Level, key: Key, hung_up: bool, now: Tick) -> usize {
        let Some(holder) = self.holders.get_mut(&key.index()) else {
            return if level == Level::Full { FULL_READ_BYTES } else { usize::MAX };
        };
        let now_ms = ms(now);
        // It was silent for a while and goes on: a client that did not come to it, as those of a busy
        // machine do not.
        if !holder.is_covered(now_ms) && holder.held_back.is_none() && holder.is_on_time(now_ms) {
            holder.covered_ms = now_ms + CREDIT.as_millis() as u64;
        }
        // What comes to its end soon holds nothing soon.
        if hung_up || holder.granted || (level == Level::Over && holder.is_covered(now_ms)) {
            return usize::MAX;
        }
        if holder.held_back.is_none() {
            let left = holder.covered_ms.saturating_sub(now_ms);
            (holder.held_back, holder.unread_since) = (Some(left), now);
            match left {
                0 => self.stalled.push(key),
                _ => self.waiting.push(Reverse((holder.since, key))),
            }
        }
        0
    }

    /// Whether some are read that have to say when their sockets are empty.
    #[inline]
    pub(super) fn grants(&self) -> bool {
        self.granted > 0
    }

    /// A connection's socket is empty: another one may be read.
    pub(super) fn is_drained(&mut self, key: Key) {
        if let Some(holder) = self.holders.get_mut(&key.index()) {
            self.granted -= usize::from(mem::take(&mut holder.granted));
        }
    }

    /// For how long a connection that waits to be read has not been read, since this was last asked.
    pub(super) fn unread_for(&mut self, key: Key, now: Tick) -> Option<Duration> {
        if !self.holds_back() {
            return None;
        }
        let holder = self.holders.get_mut(&key.index()).filter(|it| it.held_back.is_some())?;
        Some(now.since(mem::replace(&mut holder.unread_since, now)))
    }

    /// Connections that may be read again.
    fn release(&mut self, level: Level, now: Tick) -> Vec<(Key, Duration)> {
        let most = match level {
            Level::Free => 1 + self.max.saturating_sub(self.meter.total()) / RELEASE_ROOM,
            // With any more room they would take it all.
            _ if self.meter.total() > self.max + self.max / 8 => {
                usize::from(self.granted == 0 && self.last_grant < now)
            }
            Level::Over | Level::Full => GRANTS.saturating_sub(self.granted),
        };
        self.last_grant = now;
        let mut released = Vec::new();
        while released.len() < most
            && let Some(Reverse((_, key))) = self.waiting.pop()
        {
            released.extend(self.let_read(key, now));
        }
        if level == Level::Free {
            let rest = self.stalled.len().min(most - released.len());
            for key in self.stalled.split_off(self.stalled.len() - rest) {
                released.extend(self.let_read(key, now));
            }
        }
        if self.waiting.is_empty() && self.stalled.is_empty() {
            // Of a flood nothing is to stay.
            (self.waiting, self.stalled) = Default::default();
        }
        released
    }

    /// Has a connection that was held back be read, unless it has ended.
    fn let_read(&mut self, key: Key, now: Tick) -> Option<(Key, Duration)> {
        let Some(holder) = self.holders.get_mut(&key.index()).filter(|holder| holder.key == key)
        else {
            // If it is there and holds nothing any more, nothing is in its way.
            return Some((key, Duration::ZERO));
        };
        let left = holder.held_back.take()?;
        holder.covered_ms = ms(now) + left;
        self.granted += usize::from(!mem::replace(&mut holder.granted, true));
        Some((key, now.since(holder.unread_since)))
    }

    /// Those that make no progress, the worst first; not all of them if there are many.
    fn victims(&mut self, now: Tick) -> Vec<Key> {
        let now_ms = ms(now);
        let eligible = self.holders.values().filter(|holder| !holder.is_covered(now_ms));
        let mut victims: Vec<(Reverse<u64>, Key)> =
            eligible.map(|holder| (Reverse(holder.weight(now)), holder.key)).collect();
        let most = VICTIMS.max(victims.len() / VICTIMS_SHARE);
        self.next_look = if victims.len() > most {
            victims.select_nth_unstable(most);
            victims.truncate(most);
            now
        } else {
            Tick::new(now.ticks() + 1)
        };
        victims.sort_unstable();
        victims.into_iter().map(|(_, key)| key).collect()
    }

    /// Whether this worker is to close somebody.
    fn is_too_much(&self) -> bool {
        self.level() > Level::Free && self.meter.own() > self.share
    }

    /// Whether there are connections that are not read.
    fn holds_back(&self) -> bool {
        !self.waiting.is_empty() || !self.stalled.is_empty()
    }

    /// When it is to be looked at again though nothing happens.
    pub(super) fn next(&self, now: Tick) -> Tick {
        let may_be_too_much = self.meter.own() > self.share / 2 && !self.holders.is_empty();
        match may_be_too_much || self.holds_back() || self.report.connections > 0 {
            true => Tick::new(now.ticks() + 1),
            false => self.next_tidying,
        }
    }

    fn say(&mut self, now: Tick) {
        let Report { connections, bytes, next } = self.report;
        if connections > 0 && now >= next {
            tracing::warn!(
                connections,
                bytes,
                held = self.meter.total(),
                memory_max = self.max,
                "memory_max is reached: connections that held memory without progress were closed"
            );
            self.report = Report { next: now.after(REPORT_PAUSE), ..Report::default() };
        }
    }
}

impl Worker {
    /// Counts what a connection holds now.
    #[inline]
    pub(super) fn note_memory(&mut self, key: Key) {
        if let Some(conn) = self.conns.get(key) {
            let limits = &self.dispatcher.routes[usize::from(conn.route)].limits;
            self.memory.note(key, conn.session.holding(), limits, self.dispatcher.now);
        }
    }

    /// Sees to it that connections hold no more together than they may. Towards the end of a turn.
    pub(super) fn relieve_memory(&mut self) {
        let now = self.dispatcher.now;
        let level = self.memory.level();
        if level == Level::Free {
            self.memory.over_since = None;
        } else {
            let since = *self.memory.over_since.get_or_insert(now);
            if level == Level::Full || now.since(since) >= OVER_FOR {
                self.shed_victims();
            }
        }
        if self.memory.holds_back() {
            let level = self.memory.level();
            for (key, unread) in self.memory.release(level, now) {
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.session.was_held_back(unread, now);
                    mark(&mut conn.flags.ready, &mut self.ready, key);
                }
            }
        }
        self.memory.say(now);
        self.give_back_spare();
    }

    /// Sees to it that memory which was kept for a flood does not outlast it by much.
    fn give_back_spare(&mut self) {
        let now = self.dispatcher.now;
        let turn = &mut self.dispatcher.turn;
        if now >= self.memory.next_tidying {
            turn.give_back_unused();
            self.memory.next_tidying = Tick::NEVER;
        }
        if self.memory.next_tidying == Tick::NEVER && turn.keeps_spare() {
            self.memory.next_tidying = now.after(SPARE_KEPT);
        }
    }

    fn shed_victims(&mut self) {
        let now = self.dispatcher.now;
        while self.memory.is_too_much() && self.memory.next_look <= now {
            for key in self.memory.victims(now) {
                if !self.memory.is_too_much() {
                    break;
                }
                let Some(conn) = self.conns.get_mut(key) else {
                    continue;
                };
                let before = conn.session.holding().owned;
                self.dispatcher.shed(conn, key);
                let after = conn.session.holding();
                mark(&mut conn.flags.dirty, &mut self.dirty, key);
                let limits = &self.dispatcher.routes[usize::from(conn.route)].limits;
                self.memory.note(key, after, limits, now);
                self.memory.report.connections += 1;
                self.memory.report.bytes += before.saturating_sub(after.owned);
                self.carry_out();
            }
        }
    }
}

/// The worker's clock in milliseconds.
fn ms(now: Tick) -> u64 {
    u64::from(now.ticks()) * TICK_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const RATE: usize = 4 * KIB;

    fn memory(max: usize) -> Memory {
        let accounts = Accounts::new(1, 100, max);
        Memory::new(&accounts, accounts.meter(0).clone())
    }

    fn key(index: u64) -> Key {
        Key::from_u64(1 << 32 | index).expect("of the first generation")
    }

    fn message(bytes: usize, received: usize) -> Holding {
        Holding { owned: bytes, received, ..Holding::default() }
    }

    fn note(memory: &mut Memory, key: Key, holding: Holding, now: Tick) {
        let limits = Limits { progress_rate_min: RATE, ..Limits::default() };
        memory.note(key, holding, &limits, now);
    }

    fn released(memory: &mut Memory, level: Level, now: Tick) -> Vec<Key> {
        memory.release(level, now).into_iter().map(|(key, _)| key).collect()
    }

    fn at(seconds: u32) -> Tick {
        Tick::new(10 * seconds)
    }

    #[test]
    fn what_is_held_is_counted_until_it_is_let_go() {
        let mut memory = memory(1_000);
        note(&mut memory, key(1), message(300, 10), at(0));
        note(&mut memory, key(1), message(500, 20), at(1));
        note(&mut memory, key(2), Holding { owned: 7, shared: 900, ..Holding::default() }, at(1));
        assert_eq!(memory.meter.total(), 507);
        note(&mut memory, key(2), Holding::default(), at(2));
        note(&mut memory, key(3), Holding::default(), at(2));
        assert_eq!((memory.meter.total(), memory.holders.len()), (500, 1));
        memory.forget(key(1));
        assert_eq!((memory.meter.total(), memory.next(at(3))), (0, Tick::NEVER));
    }

    #[test]
    fn whoever_holds_most_for_longest_is_the_first_victim() {
        let mut memory = memory(1_000);
        note(&mut memory, key(1), message(100 * KIB, 1), at(0));
        note(&mut memory, key(2), message(300 * KIB, 1), at(0));
        note(&mut memory, key(3), message(200 * KIB, 1), at(10));
        note(&mut memory, key(4), message(KIB, 1), Tick::new(189));
        assert_eq!(memory.victims(at(19)), [key(2), key(1), key(3)], "the last is new");
        assert!(memory.is_too_much());
        assert_eq!(memory.next_look, Tick::new(191), "another look finds nobody else now");
    }

    #[test]
    fn a_message_that_arrives_fast_enough_is_no_victim() {
        let mut memory = memory(1_000);
        let mut received = 0;
        for second in 0..60 {
            received += RATE;
            note(&mut memory, key(1), message(1024 * KIB, received), at(second));
            // A byte a second is no progress, however much came first.
            note(
                &mut memory,
                key(2),
                message(1024 * KIB, 1024 * KIB + second as usize),
                at(second),
            );
            assert!(!memory.victims(at(second)).contains(&key(1)), "{second} s");
            assert_eq!(memory.victims(at(second)).contains(&key(2)), second >= 1, "{second} s");
        }
        assert_eq!(memory.victims(at(62)), [key(1), key(2)], "both are silent now");
    }

    /// Who is on time on the whole, and silent for longer than progress covers, is not given up when he
    /// goes on; who is late is.
    #[test]
    fn a_message_that_goes_on_after_a_silence_is_read() {
        let mut memory = memory(1_000 * KIB);
        let (on_time, late) = (key(1), key(2));
        for (key, received) in [(on_time, 10 * RATE), (late, 3 * RATE)] {
            note(&mut memory, key, message(520 * KIB, received), at(0));
        }
        assert_eq!(memory.victims(at(4)), [on_time, late], "both are silent");
        assert_eq!(memory.admit(on_time, false, at(4)), usize::MAX);
        assert_eq!(memory.admit(late, false, at(4)), 0);
        assert_eq!(memory.victims(at(4)), [late]);
        // Held back in its turn, it is none either.
        note(&mut memory, key(3), message(100 * KIB, 1), at(4));
        assert_eq!(memory.admit(on_time, false, at(4)), 0);
        assert_eq!(memory.victims(at(20)), [late, key(3)]);
    }

    #[test]
    fn a_queue_that_is_taken_makes_progress() {
        let mut memory = memory(1_000);
        let queue = |queued| Holding { owned: 500 * KIB, queued, ..Holding::default() };
        note(&mut memory, key(1), queue(500 * KIB), at(0));
        note(&mut memory, key(2), queue(500 * KIB), at(0));
        for second in 1..10 {
            note(&mut memory, key(1), queue(500 * KIB - second as usize * 10 * KIB), at(second));
            note(&mut memory, key(2), queue(500 * KIB + second as usize), at(second));
        }
        assert_eq!(memory.victims(Tick::new(95)), [key(2)]);
    }

    #[test]
    fn a_look_finds_a_bounded_share() {
        let mut memory = memory(1_000);
        for index in 0..3_000 {
            note(&mut memory, key(index), message(KIB + index as usize, 1), at(0));
        }
        let victims = memory.victims(at(9));
        assert_eq!(victims.len(), 3_000 / VICTIMS_SHARE);
        let worst: Vec<Key> = (0..3_000).rev().take(victims.len()).map(key).collect();
        assert_eq!((victims, memory.next_look), (worst, at(9)));
    }

    #[test]
    fn who_is_read_depends_on_how_scarce_memory_is() {
        let mut memory = memory(800 * KIB);
        let (busy, silent, new) = (key(1), key(2), key(3));
        note(&mut memory, silent, message(400 * KIB, 1), at(0));
        note(&mut memory, busy, message(400 * KIB, 1), at(10));
        assert_eq!(memory.admit(silent, false, at(10)), usize::MAX);

        note(&mut memory, busy, message(450 * KIB, 2 * KIB), at(10));
        assert_eq!(memory.level(), Level::Over);
        assert_eq!(memory.admit(busy, false, at(10)), usize::MAX);
        assert_eq!(memory.admit(silent, false, at(10)), 0);
        assert_eq!(memory.admit(silent, true, at(10)), usize::MAX, "its end is there to be read");
        assert_eq!(memory.admit(new, false, at(10)), usize::MAX);
        assert_eq!(memory.unread_for(silent, at(12)), Some(Duration::from_secs(2)));
        assert_eq!(memory.unread_for(silent, at(12)), Some(Duration::ZERO));
        assert_eq!(memory.unread_for(busy, at(12)), None);

        note(&mut memory, busy, message(550 * KIB, 3 * KIB), at(10));
        assert_eq!(memory.level(), Level::Full);
        assert_eq!(memory.admit(busy, false, at(10)), 0);
        assert_eq!(memory.admit(new, false, at(10)), FULL_READ_BYTES);
        // Not being read is no lack of progress; its turn comes, and not that of the silent one.
        assert_eq!(memory.victims(at(30)), [silent]);
        assert_eq!(released(&mut memory, Level::Full, at(30)), [busy]);
        assert_eq!(memory.admit(busy, false, at(30)), usize::MAX);
        memory.is_drained(busy);
        assert_eq!(memory.admit(busy, false, at(30)), 0, "others have their turn");

        memory.forget(silent);
        assert_eq!(memory.level(), Level::Free);
        assert_eq!(released(&mut memory, Level::Free, at(31)), [busy]);
        assert_eq!(released(&mut memory, Level::Free, at(31)), [silent]);
        assert!(!memory.holds_back());
        memory.forget(busy);
        assert_eq!(memory.granted, 0);
    }

    #[test]
    fn only_a_few_are_read_while_memory_is_full() {
        let mut memory = memory(46 * KIB);
        for index in 0..50 {
            let since = if index < 42 { 100 } else { 95 };
            note(&mut memory, key(index), message(KIB, 1), Tick::new(since));
        }
        for index in 0..50 {
            assert_eq!(memory.admit(key(index), false, at(10)), 0);
        }
        let oldest: Vec<Key> = (42..50).map(key).collect();
        assert_eq!(released(&mut memory, Level::Full, at(10)), oldest);
        assert_eq!(released(&mut memory, Level::Full, at(10)), []);
        memory.forget(oldest[0]);
        memory.is_drained(oldest[1]);
        assert_eq!(released(&mut memory, Level::Full, at(10)), [key(0), key(1)]);
        // Where each of them could take it farther, one at a time.
        note(&mut memory, oldest[1], message(8 * KIB, 1), at(10));
        oldest[1..].iter().for_each(|&key| memory.is_drained(key));
        [key(0), key(1)].iter().for_each(|&key| memory.is_drained(key));
        assert_eq!(released(&mut memory, Level::Full, at(10)), [], "there was a look in this tick");
        assert_eq!(released(&mut memory, Level::Full, at(11)), [key(2)]);
        assert_eq!(released(&mut memory, Level::Full, at(12)), []);
    }
}
