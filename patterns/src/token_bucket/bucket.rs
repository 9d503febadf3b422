//! The bucket as a plain value that threads share: one word that is taken from without a lock, and a lock for the rest.
//!
//! # The word
//! Most patterns here are a mutex around a pure core. This one is the exception: taking tokens is one compare-exchange on
//! the TAT, because a rate limiter stands in front of everything and does so little that a lock would be most of its cost.
//! The lowest bit of the word, `HELD`, says that the word belongs to whoever holds the lock: while calls wait, and during a
//! change of the setting. Then everybody else takes the lock first, and nobody overtakes.
//!
//! # The setting
//! Rate and burst are several words that change together, under the lock and with the word held. A reader loads the word,
//! the setting, and the word again; if the word is the same and not held, the setting is whole, and the compare-exchange
//! that follows succeeds only if it still is. The race that looks possible: a setting comes into force in between, and the
//! word happens to be the same again. It is not, because **no word comes back under another setting**: the new one counts
//! its ticks such that its first TAT, and with it every later one, lies above all that were ever stored, including those
//! that a refund took back.
//!
//! # The line
//! Calls wait in the order of their arrival. Only who stands in front knows when its turn comes, sleeps until then, and
//! takes its tokens itself: who leaves the line has taken nothing. Whoever takes or leaves wakes the next, who then asks for
//! its own time. A call is charged as of the instant at which it could have gone, and not of the one at which its timer
//! fired: a late timer admits all that are due by then, and costs no tokens. **The bound holds for those instants**; the
//! calls themselves go later by what their timers are late.

use std::task::Waker;
use std::time::Duration;

use super::gcra::{Setting, Shortage, Tat};
use crate::sync::{AtomicU64, Bug, Mutex, Ordering, bug};
use crate::waiters::{Key, Removed, Waiters};

/// The word belongs to the holder of the lock.
const HELD: u64 = 1;

/// A token bucket as a plain value.
#[derive(Debug)]
pub struct Bucket {
    /// The TAT times two, plus `HELD`.
    word: AtomicU64,
    /// As in the line, for who has no lock.
    setting: Whole,
    /// Guards the line, every change of the setting, and the word while it is held.
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    /// Who waits, and for how many tokens.
    waiters: Waiters<u32>,
    /// The tokens that all of them wait for.
    wanted: u64,
    /// The largest TAT that a refund took back.
    peak: Tat,
    /// The setting in force.
    setting: Setting,
}

/// The tokens of one call, for [`Bucket::refund`].
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Taken {
    before: Tat,
    after: Tat,
}

impl Taken {
    /// Of a call that took none.
    pub const NONE: Self = Self { before: Tat(0), after: Tat(0) };
}

/// A place in the line; good until it is [left](Bucket::leave), or its [turn](Bucket::turn) says that it is gone.
#[derive(Debug)]
pub struct Waiter {
    key: Key,
    cost: u32,
    since: Duration,
}

/// What became of a call that may wait.
#[derive(Debug)]
pub enum Joined {
    /// It need not.
    Taken(Taken),
    /// It stands in line.
    Waits(Waiter),
}

/// Why a call that may wait does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unjoined<E> {
    /// The line is full; were it longer, the turn would come at this time.
    Full(Duration),
    /// It would wait until this time, which the caller did not accept.
    TooLong(Duration, E),
    /// More tokens than the bucket holds.
    Never,
}

/// What a place in the line is good for.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// The tokens are taken and the place is gone.
    Taken(Taken),
    /// It is the next, at this time; ask again then, or when woken.
    At(Duration),
    /// Others are before it; ask again when woken.
    Behind,
    /// The place is gone: calls wait no longer.
    Dismissed,
    /// The place is gone: the bucket has become smaller than what it waited for.
    Never,
}

/// What a reader without the lock sees.
enum Look {
    /// The TAT and the setting it belongs to.
    Whole(Tat, Setting),
    /// Somebody has changed the word meanwhile.
    Changed,
    /// The word belongs to whoever holds the lock.
    Held,
}

impl Bucket {
    /// A full bucket with room for `max_waiting` calls in line.
    pub fn new(setting: Setting, max_waiting: u32) -> Self {
        let waiters = Waiters::new(max_waiting as usize);
        Self {
            word: AtomicU64::new(0),
            setting: Whole::new(&setting),
            line: Mutex::new(Line { waiters, wanted: 0, peak: Tat::default(), setting }),
        }
    }

    /// Takes `cost` tokens, or none. Never overtakes: while calls wait, the answer is when the turn of one more would come.
    ///
    /// # Errors
    /// [`Shortage`]; then nothing was taken.
    #[inline(always)] // every call passes here, and what is out of line is written to memory on its way back
    pub fn try_take(&self, cost: u32, now: Duration) -> Result<Taken, Shortage> {
        match self.look() {
            Look::Whole(before, setting) => {
                let after = before.take(&setting, now, cost)?;
                if self.exchange(before, after) { Ok(Taken { before, after }) } else { self.try_again(cost, now) }
            }
            Look::Changed => self.try_again(cost, now),
            Look::Held => self.take_alone(cost, now),
        }
    }

    /// As [`try_take`](Self::try_take), after somebody came between.
    #[cold]
    fn try_again(&self, cost: u32, now: Duration) -> Result<Taken, Shortage> {
        loop {
            match self.look() {
                Look::Whole(before, setting) => {
                    let after = before.take(&setting, now, cost)?;
                    if self.exchange(before, after) {
                        return Ok(Taken { before, after });
                    }
                }
                Look::Changed => {}
                Look::Held => return self.take_alone(cost, now),
            }
        }
    }

    #[cold]
    fn take_alone(&self, cost: u32, now: Duration) -> Result<Taken, Shortage> {
        self.hold(|tat, setting, line| line.take(tat, setting, cost, now))
    }

    /// Takes `cost` tokens, or stands in line for them if `accepts` the time at which its turn comes, if nobody before it
    /// leaves. Ask [`turn`](Self::turn) next, so that there is somebody to wake.
    ///
    /// # Errors
    /// [`Unjoined`]; then nothing was taken.
    pub fn join<E>(
        &self,
        cost: u32,
        now: Duration,
        accepts: impl FnOnce(Duration) -> Result<(), E>,
    ) -> Result<Joined, Unjoined<E>> {
        self.hold(|tat, setting, line| {
            let due = match line.take(tat, setting, cost, now) {
                Ok(taken) => return Ok(Joined::Taken(taken)),
                Err(Shortage::Until(due)) => due,
                Err(Shortage::Never) => return Err(Unjoined::Never),
            };
            accepts(due).map_err(|error| Unjoined::TooLong(due, error))?;
            let key = line.waiters.push(cost).ok_or(Unjoined::Full(due))?;
            line.wanted += u64::from(cost);
            Ok(Joined::Waits(Waiter { key, cost, since: now }))
        })
    }

    /// What `waiter` is to do; `waker` is woken when it should ask again, other than for the time it is told.
    pub fn turn(&self, waiter: &Waiter, now: Duration, waker: &Waker) -> Turn {
        let (turn, _former, next) = self.hold(|tat, setting, line| {
            let Waiter { key, cost, since } = *waiter;
            if line.waiters.get(key).is_none() {
                return (if setting.fits(cost) { Turn::Dismissed } else { Turn::Never }, None, None);
            }
            let former = line.waiters.set_waker(key, waker);
            if line.waiters.front() != Some(key) {
                return (Turn::Behind, former, None);
            }
            let before = *tat;
            match before.take_since(setting, setting.tick(since), setting.tick(now), cost) {
                Ok(after) => {
                    *tat = after;
                    let own = line.remove(key);
                    (Turn::Taken(Taken { before, after }), own.or(former), line.next())
                }
                Err(Shortage::Until(at)) => (Turn::At(at), former, None),
                // Not reached: `update` has removed those.
                Err(Shortage::Never) => (Turn::Never, line.remove(key).or(former), line.next()),
            }
        });
        wake(next);
        turn
    }

    /// Gives the place up. Its place may be gone already.
    pub fn leave(&self, waiter: &Waiter) {
        let (_own, next) = self.hold(|_, _, line| {
            let was_next = line.waiters.front() == Some(waiter.key);
            let own = line.remove(waiter.key);
            (own, if was_next { line.next() } else { None })
        });
        wake(next);
    }

    /// Puts tokens back that were not used, if nobody has taken any since; says whether it did.
    ///
    /// Otherwise they stay spent: to subtract them from a TAT that others have built on would give back time that has
    /// passed already, and with it more than the burst.
    pub fn refund(&self, taken: Taken, now: Duration) -> bool {
        let (refunded, next) = self.hold(|tat, setting, line| {
            if bug(Bug::RefundBySubtraction) {
                tat.0 -= taken.after.0 - taken.before.0;
                return (true, None);
            }
            if *tat != taken.after {
                return (false, None);
            }
            line.peak = line.peak.max(*tat);
            // Those who wait are charged as of when they could have gone, which is not before now: the bucket fills to its
            // brim at most.
            let floor = if line.waiters.is_empty() { 0 } else { setting.tick(now).min(taken.after.0) };
            *tat = Tat(taken.before.0.max(floor));
            (true, line.next())
        });
        wake(next);
        refunded
    }

    /// Empties the bucket.
    pub fn drain(&self, now: Duration) {
        self.hold(|tat, setting, _| *tat = tat.drained(setting, now));
    }

    /// Puts `next` in force from `now`, with room for `max_waiting` in line; `None` sends those home who wait. What is spent
    /// stays spent, up to the new burst; who waits for more than that never gets it. Whom to wake, not under a lock.
    #[must_use = "somebody waits to be woken"]
    pub fn update(&self, next: Setting, max_waiting: Option<u32>, now: Duration) -> Vec<Waker> {
        self.hold(|tat, setting, line| {
            let now = tat.seen(setting, now);
            // The TAT and not `now` is to lie above all others. With `now` there, each change of an empty bucket would bring
            // the end of the ticks nearer by a burst, and a bucket that is changed all the time would close for good.
            let above = line.peak.max(*tat).0 + 1;
            let next = next.counting_from(now, above.saturating_sub(tat.owed(setting, &next, now)));
            *tat = tat.carried(setting, &next, now);
            line.setting = next;
            self.setting.store(setting, &next);
            line.waiters.set_capacity(max_waiting.unwrap_or(0) as usize);
            let mut woken = line.remove_if(|cost| max_waiting.is_none() || !next.fits(cost));
            woken.extend(line.next());
            woken
        })
    }

    /// How many tokens could be taken; none while calls wait for them.
    pub fn available(&self, now: Duration) -> u32 {
        match self.look() {
            Look::Whole(tat, setting) => tat.available(&setting, now),
            Look::Changed | Look::Held => self.hold(|tat, setting, line| match line.waiters.is_empty() {
                true => tat.available(setting, now),
                false => 0,
            }),
        }
    }

    #[cfg(test)]
    #[allow(dead_code, reason = "for the oracle, which is not mounted under loom")]
    pub(super) fn tat(&self) -> Tat {
        self.hold(|tat, _, _| *tat)
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.line.lock().waiters.len()
    }

    #[inline]
    fn exchange(&self, before: Tat, after: Tat) -> bool {
        // ORDERING: Relaxed. `look` has acquired what this builds on; and a read-modify-write passes the Release of the store
        // in `hold` on, so that who reads this TAT sees the setting it was made under. On failure whoever goes on looks anew.
        self.word.compare_exchange(before.0 << 1, after.0 << 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Reads without the lock.
    #[inline]
    fn look(&self) -> Look {
        // ORDERING: Acquire, pairs with the Release in `hold`, also by way of each `exchange` since: the setting is no older.
        let word = self.word.load(Ordering::Acquire);
        if word & HELD != 0 {
            return Look::Held;
        }
        let setting = self.setting.load();
        // ORDERING: Relaxed. It stays below the loads of the setting, which are Acquire: whoever has seen a part of a newer
        // setting sees here that the word was held for it.
        if self.word.load(Ordering::Relaxed) == word { Look::Whole(Tat(word >> 1), setting) } else { Look::Changed }
    }

    /// Runs `f` alone: under the lock, with the word held. It stays held while calls wait.
    fn hold<R>(&self, f: impl FnOnce(&mut Tat, &Setting, &mut Line) -> R) -> R {
        let mut line = self.line.lock();
        // ORDERING: Relaxed. A read-modify-write reads the latest TAT, the lock orders what it guards, and each part of a new
        // setting is released after this.
        let mut tat = Tat(self.word.fetch_or(HELD, Ordering::Relaxed) >> 1);
        let setting = line.setting;
        let result = f(&mut tat, &setting, &mut line);
        let held = if line.waiters.is_empty() { 0 } else { HELD };
        // ORDERING: Release, pairs with the Acquire in `look`: who reads this TAT sees the setting it was made under.
        self.word.store(tat.0 << 1 | held, Ordering::Release);
        result
    }
}

impl Line {
    fn take(&self, tat: &mut Tat, setting: &Setting, cost: u32, now: Duration) -> Result<Taken, Shortage> {
        let before = *tat;
        let after = before.take(setting, now, cost);
        match after {
            Ok(after) if self.waiters.is_empty() => {
                *tat = after;
                Ok(Taken { before, after })
            }
            Err(Shortage::Never) => Err(Shortage::Never),
            _ => Err(Shortage::Until(before.due(setting, self.wanted, cost).max(now))),
        }
    }

    /// Whom to wake for being the next in line.
    fn next(&mut self) -> Option<Waker> {
        if bug(Bug::TurnNotPassedOn) {
            return None;
        }
        self.waiters.take_waker(self.waiters.front()?)
    }

    /// Takes a place out of the line. Its waker must outlive the lock.
    fn remove(&mut self, key: Key) -> Option<Waker> {
        let Removed { value: cost, waker } = self.waiters.remove(key)?;
        self.wanted -= u64::from(cost);
        waker
    }

    fn remove_if(&mut self, goes: impl Fn(u32) -> bool) -> Vec<Waker> {
        let mut removed = Vec::new();
        let mut next = self.waiters.front();
        while let Some(key) = next {
            next = self.waiters.behind(key);
            if self.waiters.get(key).is_some_and(|cost| goes(*cost)) {
                removed.extend(self.remove(key));
            }
        }
        removed
    }
}

/// Not under the lock: a waker may run code of others, which may come back for it.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A [`Setting`] in words; whole to whoever reads it as [`Bucket::look`] does.
#[derive(Debug)]
struct Whole([AtomicU64; 5]);

impl Whole {
    fn new(setting: &Setting) -> Self {
        Self(words(setting).map(AtomicU64::new))
    }

    #[inline]
    fn load(&self) -> Setting {
        // ORDERING: Acquire, pairs with the Release in `store`: who sees a part of a newer setting also sees that the word
        // was held before.
        let [ticks, nanos, origin, period, burst] = std::array::from_fn(|i| self.0[i].load(Ordering::Acquire));
        Setting { ticks, nanos, origin, period, burst }
    }

    /// Replaces `former`; what is the same stays in the readers' caches.
    fn store(&self, former: &Setting, next: &Setting) {
        for ((word, former), next) in self.0.iter().zip(words(former)).zip(words(next)) {
            if former != next {
                // ORDERING: Release, pairs with the Acquire in `load`.
                word.store(next, Ordering::Release);
            }
        }
    }
}

fn words(setting: &Setting) -> [u64; 5] {
    let Setting { ticks, nanos, origin, period, burst } = *setting;
    [ticks, nanos, origin, period, burst]
}
