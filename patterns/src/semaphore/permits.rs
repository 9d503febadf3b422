//! The permits as a plain value: who has them, who waits for them.
//!
//! One word says how many permits there are and how many are in use, and while nobody waits it is all there is: taking is
//! one compare-exchange, giving back one subtraction. Behind it, under a mutex, stand the lines of those who wait.
//!
//! The two are kept in step by a bit in the word that says that somebody waits. It is set and cleared only under the
//! mutex. Who finds no permit takes the mutex, sets the bit *in the very exchange that finds no permit again*, and then
//! joins the line. A permit that is given back before that exchange makes it fail, and is found; one that is given back
//! after it sees the bit, waits for the mutex, and finds the line joined. So no waiter is forgotten. And while the bit is
//! set nobody takes a permit but under the mutex, in the order of the line: so nobody overtakes.
//!
//! Permits may be in use beyond the limit after it has shrunk. That debt needs no books: nobody is admitted until enough
//! came back.
//!
//! The permits may be divided among compartments, each with a share that it alone uses; what is in no share is for
//! whoever comes first. Then everything happens under the mutex, and each compartment has a line of its own.

use std::task::{Poll, Waker};

use super::config::Order;
use crate::error::Reason;
use crate::sync::{AtomicU64, Bug, Mutex, MutexGuard, Ordering, bug};
use crate::waiters::{Key, Waiters, WakeList};

/// What the permits are and how they are given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How many there are, 1 to [`MAX_LIMIT`](super::config::MAX_LIMIT).
    pub limit: u32,
    /// How many may wait for them.
    pub max_waiting: usize,
    /// Who is next.
    pub order: Order,
    /// The share of each compartment, in sum no more than the limit; empty where they are not divided. Their number does
    /// not change. The last compartment is for those who belong to no other; its share is 0.
    pub shares: Vec<u32>,
}

/// A number of permits, in use or waited for, and the compartment they belong to; 0 where they are not divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Units {
    /// How many, at least 1 unless they are [none](Self::NONE); where they are divided, exactly 1.
    pub count: u32,
    /// Whose.
    pub compartment: u32,
}

impl Units {
    /// None at all; never asked for.
    pub const NONE: Self = Self { count: 0, compartment: 0 };

    /// One that is not divided.
    pub const ONE: Self = Self { count: 1, compartment: 0 };

    /// So many that are not divided; 0 is taken as 1.
    #[inline]
    pub const fn of(count: u32) -> Self {
        Self { count: if count == 0 { 1 } else { count }, compartment: 0 }
    }
}

/// The permits of one limit.
#[derive(Debug)]
pub struct Permits {
    /// A [`Word`].
    word: AtomicU64,
    /// Guards those who wait, and where the permits are divided also who uses how many.
    lines: Mutex<Lines>,
}

/// From the top: 30 bits for the limit, 30 for the permits in use, 4 flags.
#[derive(Debug, Clone, Copy)]
struct Word(u64);

impl Word {
    /// Nothing is given out any more.
    const CLOSED: u64 = 1;
    /// Somebody stands in line. Set and cleared only under the mutex.
    const QUEUED: u64 = 2;
    /// The mutex must be asked for everything. Never changes.
    const DIVIDED: u64 = 4;
    /// Who finds no permit may wait.
    const ROOM: u64 = 8;
    const IN_USE: u32 = 4;
    const LIMIT: u32 = 34;
    const MASK: u64 = (1 << 30) - 1;

    const fn used(count: u32) -> u64 {
        (count as u64) << Self::IN_USE
    }

    const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    const fn in_use(self) -> u32 {
        ((self.0 >> Self::IN_USE) & Self::MASK) as u32
    }

    const fn limit(self) -> u32 {
        (self.0 >> Self::LIMIT) as u32
    }

    const fn with_limit(self, limit: u32) -> Self {
        Self(self.0 & ((1 << Self::LIMIT) - 1) | (limit as u64) << Self::LIMIT)
    }

    const fn with(self, flag: u64, set: bool) -> Self {
        Self(if set { self.0 | flag } else { self.0 & !flag })
    }
}

#[derive(Debug)]
struct Lines {
    order: Order,
    max_waiting: usize,
    /// Those in all lines.
    waiting: usize,
    /// The number of the next arrival in any line.
    arrivals: u64,
    /// One for each compartment.
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    share: u32,
    /// Kept only where the permits are divided.
    in_use: u32,
    waiters: Waiters<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    arrival: u64,
    count: u32,
    /// Why it will get nothing; it stands in line no longer then.
    refused: Option<Reason>,
}

impl Permits {
    /// Permits of which none is in use. The lines are allocated here, and nothing is later.
    pub fn new(rules: &Rules) -> Self {
        let shares = if rules.shares.is_empty() { &[0][..] } else { &rules.shares };
        let line = |&share: &u32| Line { share, in_use: 0, waiters: Waiters::new(rules.max_waiting) };
        let word = Word(0)
            .with_limit(rules.limit)
            .with(Word::DIVIDED, !rules.shares.is_empty())
            .with(Word::ROOM, rules.max_waiting > 0);
        let lines = Lines {
            order: rules.order,
            max_waiting: rules.max_waiting,
            waiting: 0,
            arrivals: 0,
            lines: shares.iter().map(line).collect(),
        };
        Self { word: AtomicU64::new(word.0), lines: Mutex::new(lines) }
    }

    /// Takes `units` if they are free and nobody waits for them.
    ///
    /// # Errors
    /// [`Reason::Full`], [`Reason::Never`] or [`Reason::Closed`].
    #[inline]
    pub fn try_take(&self, units: Units) -> Result<(), Reason> {
        let mut word = self.word();
        loop {
            let shut = if bug(Bug::TryOvertakes) {
                Word::CLOSED | Word::DIVIDED
            } else {
                Word::CLOSED | Word::DIVIDED | Word::QUEUED
            };
            if word.has(shut) {
                return self.try_take_slowly(units);
            }
            if units.count > word.limit().saturating_sub(word.in_use()) {
                return Err(if units.count > word.limit() { Reason::Never } else { Reason::Full });
            }
            match self.exchange(word, Word(word.0 + Word::used(units.count))) {
                Ok(()) => return Ok(()),
                Err(now) => word = now,
            }
        }
    }

    #[cold]
    fn try_take_slowly(&self, units: Units) -> Result<(), Reason> {
        let mut lines = self.lines.lock();
        match self.take_now(&mut lines, units)? {
            None => Ok(()),
            Some(_) => Err(Reason::Full),
        }
    }

    /// Takes `units` after all (`None`), or joins the line for them, in which the key stands.
    ///
    /// # Errors
    /// [`Reason::Full`] where nobody may wait, [`Reason::QueueFull`], [`Reason::Never`] or [`Reason::Closed`].
    pub fn join(&self, units: Units) -> Result<Option<Key>, Reason> {
        let mut lines = self.lines.lock();
        loop {
            let Some(word) = self.take_now(&mut lines, units)? else { return Ok(None) };
            if lines.waiting >= lines.max_waiting {
                return Err(if lines.max_waiting == 0 { Reason::Full } else { Reason::QueueFull });
            }
            if self.exchange(word, word.with(Word::QUEUED, true)).is_err() {
                continue;
            }
            if bug(Bug::WakeBeforeQueued) {
                drop(lines);
                lines = self.lines.lock();
            }
            let arrival = lines.arrivals;
            let key = lines
                .line_mut(units.compartment)
                .and_then(|line| line.waiters.push(Waiter { arrival, count: units.count, refused: None }));
            if key.is_some() {
                lines.arrivals += 1;
                lines.waiting += 1;
            } else {
                // The places are taken by waiters that were refused and do not know yet.
                self.forget_line_if_empty(&lines);
            }
            return key.map(Some).ok_or(Reason::QueueFull);
        }
    }

    /// Under the mutex: takes `units` (`None`), or shows the word in which they were not to be had.
    fn take_now(&self, lines: &mut Lines, units: Units) -> Result<Option<Word>, Reason> {
        let mut word = self.word();
        loop {
            if word.has(Word::CLOSED) {
                return Err(Reason::Closed);
            }
            if units.count > lines.most(word, units.compartment) {
                return Err(Reason::Never);
            }
            if !lines.is_first(word, units) {
                return Ok(Some(word));
            }
            match self.exchange(word, Word(word.0 + Word::used(units.count))) {
                Ok(()) => {
                    lines.book(word, units);
                    return Ok(None);
                }
                Err(now) => word = now,
            }
        }
    }

    /// Gives `units` back; whoever is next gets them.
    #[inline]
    pub fn give(&self, units: Units) {
        // ORDERING: Release, pairs with the Acquire of whoever takes the units next: it sees what was done with them.
        let before = Word(self.word.fetch_sub(Word::used(units.count), Ordering::Release));
        debug_assert!(before.in_use() >= units.count, "more came back than was in use");
        if before.has(Word::DIVIDED | Word::QUEUED) {
            self.pass_on(before, units);
        }
    }

    #[cold]
    fn pass_on(&self, before: Word, units: Units) {
        let mut lines = self.lines.lock();
        if before.has(Word::DIVIDED)
            && let Some(line) = lines.line_mut(units.compartment)
        {
            line.in_use -= units.count;
        }
        self.pass(lines);
    }

    /// Looks whether the turn of `key` has come; if not, `waker` is woken when it has.
    ///
    /// # Errors
    /// [`Reason::Never`] or [`Reason::Closed`] for a waiter that will get nothing any more, or what it was
    /// [dismissed](Self::dismiss) with.
    pub fn poll(&self, units: Units, key: Key, waker: &Waker) -> Poll<Result<(), Reason>> {
        let mut lines = self.lines.lock();
        let Some(line) = lines.line_mut(units.compartment) else { return Poll::Ready(Err(Reason::Never)) };
        let former = match line.waiters.get(key) {
            None => return Poll::Ready(Ok(())),
            Some(Waiter { refused: Some(reason), .. }) => {
                let reason = *reason;
                let removed = line.waiters.remove(key);
                drop(lines);
                drop(removed);
                return Poll::Ready(Err(reason));
            }
            Some(_) => line.waiters.set_waker(key, waker),
        };
        // A waker may run code of others when it is dropped.
        drop(lines);
        drop(former);
        Poll::Pending
    }

    /// Leaves the line. True if the turn of `key` had come before: the caller has the units then.
    pub fn leave(&self, units: Units, key: Key) -> bool {
        let mut lines = self.lines.lock();
        let Some(line) = lines.line_mut(units.compartment) else { return false };
        let stood = line.waiters.len();
        let removed = line.waiters.remove(key);
        if line.waiters.len() < stood {
            lines.waiting -= 1;
            // It may have stood in the way of others that want less.
            self.pass(lines);
        } else {
            drop(lines);
        }
        removed.is_none()
    }

    /// Leaves the line, and passes on what was granted in that moment.
    pub fn cancel(&self, units: Units, key: Key) {
        if self.leave(units, key) && !bug(Bug::PermitNotHandedOn) {
            self.give(units);
        }
    }

    /// Changes the rules, for newcomers at once; wakes nobody. Those who wait learn of it when they are
    /// [settled](Self::settle).
    pub fn set(&self, rules: &Rules) {
        let mut lines = self.lines.lock();
        lines.order = rules.order;
        lines.max_waiting = rules.max_waiting;
        for (line, share) in lines.lines.iter_mut().zip(&rules.shares) {
            line.share = *share;
        }
        for line in &mut lines.lines {
            line.waiters.set_capacity(rules.max_waiting);
        }
        self.change(|word| word.with_limit(rules.limit).with(Word::ROOM, rules.max_waiting > 0));
    }

    /// Refuses who waits for more than there will ever be, and gives what is free to those who are next.
    pub fn settle(&self) {
        self.refuse(self.lines.lock(), |waiter, most| (waiter.count > most).then_some(Reason::Never));
    }

    /// Gives nothing out any more and refuses all who wait. What is in use comes back as ever.
    pub fn close(&self) {
        let lines = self.lines.lock();
        self.change(|word| word.with(Word::CLOSED, true));
        self.refuse(lines, |_, _| Some(Reason::Closed));
    }

    /// Refuses all who wait, for `reason`.
    pub fn dismiss(&self, reason: Reason) {
        self.refuse(self.lines.lock(), |_, _| Some(reason));
    }

    /// Whether anybody may wait.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.word().has(Word::ROOM)
    }

    /// How many of the compartment could be taken one by one; 0 while somebody waits for the same, or when closed.
    pub fn available(&self, compartment: u32) -> u32 {
        let word = self.word();
        if word.has(Word::CLOSED) {
            return 0;
        }
        if word.has(Word::DIVIDED) {
            return self.lines.lock().available(self.word(), compartment);
        }
        if word.has(Word::QUEUED) { 0 } else { word.limit().saturating_sub(word.in_use()) }
    }

    /// How many are in use; more than the limit after that has shrunk.
    pub fn in_use(&self) -> u32 {
        self.word().in_use()
    }

    /// How many there are.
    pub fn limit(&self) -> u32 {
        self.word().limit()
    }

    /// How many stand in line.
    pub fn waiting(&self) -> usize {
        self.lines.lock().waiting
    }

    /// What one compartment uses, and how many wait for it; only where the permits are divided.
    pub fn compartment(&self, compartment: u32) -> Option<(u32, usize)> {
        let lines = self.lines.lock();
        lines.lines.get(compartment as usize).map(|line| (line.in_use, line.waiters.len()))
    }

    /// Whether they are closed.
    pub fn is_closed(&self) -> bool {
        self.word().has(Word::CLOSED)
    }

    /// Under the mutex: refuses whomever `reason` says, told how many there will ever be for it; then passes on what
    /// they stood in the way of.
    fn refuse<'a>(&'a self, mut lines: MutexGuard<'a, Lines>, reason: impl Fn(&Waiter, u32) -> Option<Reason>) {
        let mut wakes = WakeList::default();
        while lines.expel(self.word(), &mut wakes, &reason) {
            drop(lines);
            wakes.wake();
            lines = self.lines.lock();
        }
        self.pass(lines);
        wakes.wake();
    }

    /// Under the mutex, which it releases: gives what is free to those who are next, and wakes them.
    fn pass<'a>(&'a self, mut lines: MutexGuard<'a, Lines>) {
        let mut wakes = WakeList::default();
        loop {
            let more = self.grant(&mut lines, &mut wakes);
            drop(lines);
            wakes.wake();
            if !more {
                return;
            }
            lines = self.lines.lock();
        }
    }

    /// Whether there are more to be granted than `wakes` has room for.
    fn grant(&self, lines: &mut Lines, wakes: &mut WakeList) -> bool {
        while lines.waiting > 0 {
            let word = self.word();
            let Some((units, key)) = lines.next(word) else { return false };
            if wakes.is_full() {
                return true;
            }
            // ORDERING: Relaxed, what it hands on was acquired by the load above, and the waiter sees that through the
            // mutex. Nobody takes beside this, for somebody waits; so what was free is still.
            self.word.fetch_add(Word::used(units.count), Ordering::Relaxed);
            lines.book(word, units);
            lines.waiting -= 1;
            let granted = lines.line_mut(units.compartment).and_then(|line| line.waiters.remove(key));
            wakes.push(granted.and_then(|granted| granted.waker));
        }
        self.forget_line_if_empty(lines);
        false
    }

    /// Under the mutex.
    fn forget_line_if_empty(&self, lines: &Lines) {
        if lines.waiting == 0 && self.word().has(Word::QUEUED) {
            self.change(|word| word.with(Word::QUEUED, false));
        }
    }

    /// Changes what only a holder of the mutex changes.
    fn change(&self, to: impl Fn(Word) -> Word) {
        let mut word = self.word();
        while let Err(now) = self.exchange(word, to(word)) {
            word = now;
        }
    }

    #[inline]
    fn word(&self) -> Word {
        // ORDERING: Acquire, pairs with the Release in `give`: who passes units on has seen what was done with them.
        Word(self.word.load(Ordering::Acquire))
    }

    #[inline]
    fn exchange(&self, from: Word, to: Word) -> Result<(), Word> {
        // ORDERING: Acquire, pairs with the Release in `give`: who takes units sees what was done with them before.
        // On failure likewise, for the next attempt starts from there.
        match self.word.compare_exchange_weak(from.0, to.0, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(Word(now)),
        }
    }
}

impl Lines {
    fn divided(&self, word: Word) -> bool {
        word.has(Word::DIVIDED)
    }

    fn line_mut(&mut self, compartment: u32) -> Option<&mut Line> {
        self.lines.get_mut(compartment as usize)
    }

    /// How many are free that are in no share.
    fn common(&self, word: Word) -> u32 {
        if !self.divided(word) {
            return word.limit().saturating_sub(word.in_use());
        }
        let kept: u32 = self.lines.iter().map(|line| line.share.max(line.in_use)).sum();
        word.limit().saturating_sub(kept)
    }

    /// How many a compartment can have when nobody else has any.
    fn most(&self, word: Word, compartment: u32) -> u32 {
        let shares: u32 = self.lines.iter().map(|line| line.share).sum();
        let own = self.lines.get(compartment as usize).map_or(0, |line| line.share);
        word.limit().saturating_sub(shares - own)
    }

    fn available(&self, word: Word, compartment: u32) -> u32 {
        match self.lines.get(compartment as usize) {
            Some(line) if line.waiters.is_empty() => {
                let borrowed = if self.waiting == 0 { self.common(word) } else { 0 };
                let free = word.limit().saturating_sub(word.in_use());
                free.min(line.share.saturating_sub(line.in_use) + borrowed)
            }
            _ => 0,
        }
    }

    /// Whether as many are free for them.
    fn fits(&self, word: Word, units: Units) -> bool {
        let Some(line) = self.lines.get(units.compartment as usize) else { return false };
        let free = word.limit().saturating_sub(word.in_use());
        // What is free falls short of a share after that has grown, or the limit has shrunk.
        units.count <= free.min(line.share.saturating_sub(line.in_use) + self.common(word))
    }

    /// Whether a newcomer may have them before all who wait.
    fn is_first(&self, word: Word, units: Units) -> bool {
        let Some(line) = self.lines.get(units.compartment as usize) else { return false };
        let within_share = self.divided(word) && line.in_use < line.share;
        let nobody_before = match self.order {
            Order::Lifo => true,
            Order::Fifo if within_share => line.waiters.is_empty(),
            Order::Fifo => self.waiting == 0,
        };
        nobody_before && self.fits(word, units)
    }

    /// Who is next among those for whom there are enough. In each line, one that does not fit blocks those behind it.
    fn next(&self, word: Word) -> Option<(Units, Key)> {
        let mut next: Option<(u64, Units, Key)> = None;
        for (compartment, line) in (0..).zip(&self.lines) {
            let key = match self.order {
                Order::Fifo => line.waiters.front(),
                Order::Lifo => line.waiters.back(),
            };
            let Some((key, waiter)) = key.and_then(|key| Some((key, line.waiters.get(key)?))) else { continue };
            let units = Units { count: waiter.count, compartment };
            let sooner = next.is_none_or(|(arrival, ..)| match self.order {
                Order::Fifo => waiter.arrival < arrival,
                Order::Lifo => waiter.arrival > arrival,
            });
            if sooner && self.fits(word, units) {
                next = Some((waiter.arrival, units, key));
            }
        }
        next.map(|(_, units, key)| (units, key))
    }

    /// Notes that they are in use.
    fn book(&mut self, word: Word, units: Units) {
        if self.divided(word)
            && let Some(line) = self.line_mut(units.compartment)
        {
            line.in_use += units.count;
        }
    }

    /// Refuses whomever `reason` says. Whether there are more than `wakes` has room for.
    fn expel(&mut self, word: Word, wakes: &mut WakeList, reason: &impl Fn(&Waiter, u32) -> Option<Reason>) -> bool {
        for compartment in 0..self.lines.len() as u32 {
            let most = self.most(word, compartment);
            let Some(line) = self.line_mut(compartment) else { continue };
            let (mut next, mut refused) = (line.waiters.front(), 0);
            while let Some(key) = next {
                if wakes.is_full() {
                    self.waiting -= refused;
                    return true;
                }
                next = line.waiters.behind(key);
                let Some(waiter) = line.waiters.get_mut(key) else { continue };
                waiter.refused = reason(waiter, most);
                if waiter.refused.is_some() {
                    wakes.push(line.waiters.detach(key));
                    refused += 1;
                }
            }
            self.waiting -= refused;
        }
        false
    }
}
