//! What a breaker decides without its lock: nearly every call, as long as all is well, and nearly every refusal.
//!
//! Beside the lock stands a word in which its last holder wrote what may be done without it ([`Way`]). A call that finds its
//! answer there takes no lock; every other one does, and whoever has the lock has taken the word away first: until it is
//! published anew, it sends everybody to the lock.
//!
//! Nothing is lost by that, because what the word permits is what the machine would do:
//!
//! - A closed breaker admits, and an open one refuses until its time, without changing anything.
//! - [`Way::Quiet`]: the window is full, it holds nothing but successes, and no failure came last. One more success changes
//!   nothing, so reporting it is to have read the word.
//! - [`Way::Count`]: no number of successes can trip the breaker, so they may wait in the word, all in the newest bucket of a
//!   window by time, until the next holder of the lock takes them along with the word. Between two holders there are only
//!   successes, so their order does not matter.
//!
//! **The races that look possible.** A success that read the word before a failure was booked changes it, if at all, by
//! compare-and-exchange, which fails once a holder has taken the word away: the success goes to the lock. `until` and
//! `slow_after` are other words, and may belong to a later publication than the one that was read; a holder changes them only
//! after it has taken the word away and before it publishes one with the next version, so the exchange, or where nothing is
//! exchanged a second look at the word, fails then too. Generation and version are the lower 32 and 17 bits of what they
//! count: a call would have to be under way for four billion changes of state, or a report be interrupted for exactly
//! 131,072 turns of the lock between two of its instructions.
//!
//! **Time.** What is decided here is decided by the caller's own reading of the clock, which may be older than the largest that
//! the machine has seen. No decision goes back by that: what ends at a time that the machine has seen is not published. So an
//! open breaker whose time somebody has seen to be over refuses nobody here, and a success is counted in the newest bucket that
//! anybody has seen begin, as the machine would.

use std::time::Duration;

use super::state::{Kind, Permit, Refusal};
use super::window::nanos;
use crate::error::Reason;
use crate::sync::{AtomicU64, Bug, Ordering, bug};

/// So many successes may wait in the word: adding them to the window takes the next holder of the lock a microsecond.
const MOST_WAITING: u64 = 1023;

/// The word, in cache lines of its own: nobody who calls a healthy breaker writes to them.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shortcut {
    word: AtomicU64,
    /// The end of the newest bucket while calls flow, the end of the open time while open; in nanoseconds.
    until: AtomicU64,
    /// A longer call is slow; in nanoseconds.
    slow_after: AtomicU64,
}

/// What may be done without the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing.
    Ask,
    /// To refuse, before `until`.
    Refuse,
    /// To admit passengers.
    Pass,
    /// To admit.
    Admit,
    /// To admit, and to leave a success that was not slow and ended before `until` in the word.
    Count,
    /// To admit, and to forget such a success.
    Quiet,
}

/// What the holder of the lock publishes.
#[derive(Debug)]
pub struct Notice {
    /// What may be done.
    pub way: Way,
    /// Of the state.
    pub generation: u32,
    /// Whether a permit tells when its call began.
    pub times_calls: bool,
    /// Where the time plays a part.
    pub until: Option<Duration>,
    /// Where slow calls do.
    pub slow_after: Option<Duration>,
}

impl Default for Shortcut {
    /// Nothing may be done here.
    fn default() -> Self {
        Self { word: AtomicU64::new(0), until: AtomicU64::new(0), slow_after: AtomicU64::new(0) }
    }
}

impl Shortcut {
    /// Admits one call, if that can be done here; else the word that does not say so.
    #[inline]
    pub fn admit(&self, now: &mut Reading<impl FnOnce() -> Duration>) -> Result<Permit, Word> {
        let word = self.read();
        let kind = match word.way() {
            Way::Admit | Way::Count | Way::Quiet => Kind::Counted,
            Way::Pass => Kind::Passenger,
            Way::Refuse | Way::Ask => return Err(word),
        };
        let started = if word.has(TIMES_CALLS) { Some(now.get()) } else { None };
        Ok(Permit::new(word.generation(), kind, started))
    }

    /// Refuses one call, if that is what `word` says.
    pub fn refuse(&self, word: Word, now: &mut Reading<impl FnOnce() -> Duration>) -> Option<Refusal> {
        if word.way() != Way::Refuse {
            return None;
        }
        let now = now.get();
        // ORDERING: Acquire, pairs with the Release in `publish`: a later value shows in `still`.
        let until = Duration::from_nanos(self.until.load(Ordering::Acquire));
        let refused = now < until && self.still(word);
        refused.then(|| Refusal { reason: Reason::Open, retry_after: Some(until - now) })
    }

    /// Whether a service may be ready without a reservation.
    #[inline]
    pub fn is_ready(&self) -> bool {
        matches!(self.read().way(), Way::Pass | Way::Admit | Way::Count | Way::Quiet)
    }

    /// Whether the success of the call with `permit` needs nothing more.
    #[inline]
    pub fn succeed(&self, permit: &Permit, now: &mut Reading<impl FnOnce() -> Duration>) -> bool {
        let word = self.read();
        if !word.is_of(permit) || !matches!(word.way(), Way::Count | Way::Quiet) {
            return false;
        }
        let timed = word.has(TIMES_ENDS);
        if timed && !self.counts_as_good(permit, now.get()) {
            return false;
        }
        match word.way() {
            Way::Count => self.leave(word),
            _ => !timed || self.still(word),
        }
    }

    /// Takes the word away, for whoever has the lock: what is read and left here until it is [published](Self::publish)
    /// again goes to the lock.
    pub fn take(&self) -> Taken {
        if bug(Bug::WordNotTaken) {
            // ORDERING: none, this is the defect.
            return Taken(Word(self.word.load(Ordering::Relaxed)));
        }
        // ORDERING: Relaxed, what the word says of the machine is known to who has the lock, and the successes in it are
        // nothing but their number.
        Taken(Word(self.word.swap(0, Ordering::Relaxed)))
    }

    /// Puts a word in the place of the one that was taken.
    pub fn publish(&self, taken: Taken, notice: Notice) {
        let Notice { way, generation, times_calls, until, slow_after } = notice;
        let times_ends = slow_after.is_some() || (until.is_some() && way != Way::Refuse);
        if let Way::Refuse | Way::Count | Way::Quiet = way {
            // ORDERING: Release (both), pairs with the Acquire where they are read: who sees the new value also sees that
            // the old word was taken away before.
            self.until.store(until.map_or(u64::MAX, nanos), Ordering::Release);
            self.slow_after.store(slow_after.map_or(u64::MAX, nanos), Ordering::Release);
        }
        let version = if bug(Bug::WordNotNumbered) { 0 } else { taken.0.version().wrapping_add(1) };
        let word = Word::new(generation, version, way, times_calls, times_ends);
        // ORDERING: Release, pairs with the Acquire in `read`: who sees the word sees what belongs to it.
        self.word.store(word.0, Ordering::Release);
    }

    /// Whether a call that ended well at `now` was not slow, and no bucket begins before.
    fn counts_as_good(&self, permit: &Permit, now: Duration) -> bool {
        // ORDERING: Acquire (both), pairs with the Release in `publish`: a later value shows in `still` or `leave`.
        let until = self.until.load(Ordering::Acquire);
        let slow_after = self.slow_after.load(Ordering::Acquire);
        nanos(now) < until && permit.ran(now).is_none_or(|ran| nanos(ran) <= slow_after)
    }

    fn read(&self) -> Word {
        if bug(Bug::WordNotAcquired) {
            // ORDERING: none, this is the defect.
            return Word(self.word.load(Ordering::Relaxed));
        }
        // ORDERING: Acquire, pairs with the Release in `publish`: `until` and `slow_after` are at least as new as the word.
        Word(self.word.load(Ordering::Acquire))
    }

    /// Whether what was read beside `word` belongs to it.
    fn still(&self, word: Word) -> bool {
        // ORDERING: Relaxed, the Acquires in between keep it after them, and show at least the swap that came before what
        // they have read.
        bug(Bug::WordNotReadAgain) || self.word.load(Ordering::Relaxed) == word.0
    }

    /// Leaves a success in `word`, if that is still there but for the number of successes.
    fn leave(&self, mut word: Word) -> bool {
        while word.waiting() < MOST_WAITING {
            // ORDERING: Relaxed (both), a success is nothing but its number, and nothing is read because of it.
            match self.word.compare_exchange(word.0, word.0 + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) if Word(other).but_for_waiting() == word.but_for_waiting() => word = Word(other),
                Err(_) => return false,
            }
        }
        false
    }
}

/// The word that a holder of the lock has taken away.
#[derive(Debug)]
#[must_use = "everybody waits for the lock until a word is published"]
pub struct Taken(Word);

impl Taken {
    /// The successes that were left in it.
    pub fn successes(&self) -> u64 {
        self.0.waiting()
    }
}

/// What stands in the word. From the lowest bit: successes that wait 10, way 3, flags 2, version 17, generation 32.
#[derive(Debug, Clone, Copy)]
pub struct Word(u64);

const WAY: u32 = 10;
const TIMES_CALLS: u64 = 1 << 13;
/// A success must know when it ended.
const TIMES_ENDS: u64 = 1 << 14;
const VERSION: u32 = 15;
const GENERATION: u32 = 32;

impl Word {
    fn new(generation: u32, version: u64, way: Way, times_calls: bool, times_ends: bool) -> Self {
        let flags = if times_calls { TIMES_CALLS } else { 0 } | if times_ends { TIMES_ENDS } else { 0 };
        let version = version & ((1 << (GENERATION - VERSION)) - 1);
        Self(u64::from(generation) << GENERATION | version << VERSION | flags | (way as u64) << WAY)
    }

    const fn generation(self) -> u32 {
        (self.0 >> GENERATION) as u32
    }

    const fn version(self) -> u64 {
        (self.0 & ((1 << GENERATION) - 1)) >> VERSION
    }

    const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    /// Whether the call with `permit` counts, and in the state that this is said of.
    fn is_of(self, permit: &Permit) -> bool {
        permit.kind() == Kind::Counted && (permit.generation() == self.generation() || bug(Bug::StaleSuccess))
    }

    const fn way(self) -> Way {
        match (self.0 >> WAY) & 7 {
            1 => Way::Refuse,
            2 => Way::Pass,
            3 => Way::Admit,
            4 => Way::Count,
            5 => Way::Quiet,
            _ => Way::Ask,
        }
    }

    const fn waiting(self) -> u64 {
        self.0 & MOST_WAITING
    }

    const fn but_for_waiting(self) -> u64 {
        self.0 & !MOST_WAITING
    }
}

/// A clock that is read at most once.
#[derive(Debug)]
pub struct Reading<F> {
    read: Option<F>,
    taken: Duration,
}

impl<F: FnOnce() -> Duration> Reading<F> {
    /// Reads when it is first asked.
    pub fn new(read: F) -> Self {
        Self { read: Some(read), taken: Duration::ZERO }
    }

    /// The time when it was first asked.
    #[inline]
    pub fn get(&mut self) -> Duration {
        if let Some(read) = self.read.take() {
            self.taken = read();
        }
        self.taken
    }
}
