//! The bucket with an account, metrics and a wait that ends.

use std::task::Waker;
use std::time::Duration;

use super::PATTERN;
use super::bucket::{Bucket, Joined, Taken, Unjoined};
use super::config::{Rate, TokenBucketConfig};
use super::future::{InLine, Permit, Place};
use super::gcra::{Setting, Shortage};
use crate::admission::{Account, Core, Decision, Patience, Reserved};
use crate::clock::{self, nanos};
use crate::error::{Reason, Refusal};
use crate::lent::{Lent, lend};
use crate::mode::{Mode, Waiting};
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::telemetry::{self, Gauge, Glimpse};

/// Why a call is refused.
const REASONS: [Reason; 5] = [Reason::Limited, Reason::QueueFull, Reason::MaxWait, Reason::Deadline, Reason::Never];

/// The gauge moves so often while calls come: no scraper looks more often.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What the handle, the layer and the services of one bucket share.
pub struct Room {
    account: Account,
    pub(super) bucket: Bucket,
    /// In nanoseconds; 0 where nobody waits.
    max_wait: AtomicU64,
    waiting: Waiting,
    available: Glimpse,
}

/// What becomes of a call that asks.
pub(super) enum Entry {
    Permit(Permit),
    Line(InLine, Patience),
}

lend!(Room);

impl Core for Room {
    type Units = Taken;
    type Ref = Lent<Self>;

    #[inline]
    fn lend(self: &Arc<Self>) -> Lent<Self> {
        Lent::of(self)
    }

    fn account(&self) -> &Account {
        &self.account
    }

    #[inline]
    fn give_back(&self, taken: Taken, spent: bool) {
        if !spent && taken != Taken::NONE {
            self.bucket.refund(taken, clock::read());
        }
    }
}

impl Room {
    /// The bucket of a `config` that was checked.
    pub(super) fn new(config: &TokenBucketConfig) -> Self {
        Self {
            account: Account::new(PATTERN, &config.name, config.mode, &REASONS),
            bucket: Bucket::new(Setting::new(config.rate, config.burst), config.max_waiting),
            max_wait: AtomicU64::new(longest_wait(config)),
            waiting: config.waiting,
            available: Glimpse::new(gauge(&config.name)),
        }
    }

    /// Where callers wait.
    #[inline]
    pub(super) fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// Tokens now, or none. A cost of 0 is taken as 1.
    #[inline(always)] // as `Bucket::try_take`
    pub(super) fn try_take(&self, cost: u32) -> Result<Taken, Refusal> {
        let now = clock::now();
        self.take(cost, now).map_err(|shortage| refusal(shortage, now))
    }

    /// Decides of a call through the layer that cannot go now.
    pub(super) fn admit_later(self: &Arc<Self>, cost: u32, refusal: Refusal) -> Decision<Self, Place> {
        if self.waiting == Waiting::InReadiness {
            return Permit::refused(self, refusal).into();
        }
        match self.enter(cost, Patience::new) {
            Ok(Entry::Permit(permit)) => Decision::Admitted(permit),
            Ok(Entry::Line(line, patience)) => Decision::Wait(Place::in_line(self, line, patience)),
            Err(refusal) => Permit::refused(self, refusal).into(),
        }
    }

    /// Decides of a service that asks for readiness.
    pub(super) fn reserve(self: &Arc<Self>) -> Reserved<Self, Place> {
        match self.enter(1, |_| Ok(Patience::unbounded())) {
            Ok(Entry::Permit(permit)) => Reserved::Now(permit),
            Ok(Entry::Line(line, patience)) => Reserved::Wait(Place::in_line(self, line, patience)),
            Err(_) => Reserved::Undecided,
        }
    }

    /// Tokens, or a place in line; `patience` is asked with the longest wait, and only for the latter.
    pub(super) fn enter(
        self: &Arc<Self>,
        cost: u32,
        patience: impl FnOnce(Duration) -> Result<Patience, Reason>,
    ) -> Result<Entry, Refusal> {
        let mode = self.account.mode();
        if mode == Mode::Disabled {
            return Ok(Entry::Permit(Permit::new(self, Taken::NONE)));
        }
        let now = clock::now();
        let shortage = match self.take(cost, now) {
            Ok(taken) => return Ok(Entry::Permit(Permit::new(self, taken))),
            Err(shortage) => shortage,
        };
        // ORDERING: Relaxed, the word is the whole setting and nothing else is read because of it.
        let max_wait = self.max_wait.load(Ordering::Relaxed);
        // Where nobody is refused, nobody waits.
        if shortage == Shortage::Never || mode != Mode::Enforce || max_wait == 0 {
            return Err(refusal(shortage, now));
        }
        let patience = patience(Duration::from_nanos(max_wait))?;
        let later = |reason, at: Duration| Refusal { reason, retry_after: Some(at.saturating_sub(now)) };
        match self.bucket.join(cost.max(1), now, |at| patience.allows(at.saturating_sub(now))) {
            Ok(Joined::Taken(taken)) => Ok(Entry::Permit(Permit::new(self, taken))),
            Ok(Joined::Waits(waiter)) => Ok(Entry::Line(InLine::new(self, waiter), patience)),
            Err(Unjoined::Full(at)) => Err(later(Reason::QueueFull, at)),
            Err(Unjoined::TooLong(at, reason)) => Err(later(reason, at)),
            Err(Unjoined::Never) => Err(Reason::Never.into()),
        }
    }

    /// Changes what can be changed live, to a `config` that was checked; whom to wake.
    pub(super) fn set(&self, to: &TokenBucketConfig) -> Vec<Waker> {
        // ORDERING: Relaxed, as in `enter`.
        self.max_wait.store(longest_wait(to), Ordering::Relaxed);
        self.account.set_mode(to.mode);
        // Any other mode lets those through who wait.
        let max_waiting = (to.mode == Mode::Enforce).then_some(to.max_waiting);
        self.bucket.update(Setting::new(to.rate, to.burst), max_waiting, clock::now())
    }

    /// Tells of a change of rate and burst.
    pub(super) fn changed(&self, from: (Rate, u32), to: (Rate, u32)) {
        let now = clock::now();
        self.available.tell(now, |now| self.look(now));
        if from != to {
            telemetry::rate_changed(PATTERN, self.account.name(), &from, &to, self.bucket.available(now));
        }
    }

    pub(super) fn drain(&self) {
        let now = clock::now();
        let available = self.bucket.available(now);
        self.bucket.drain(now);
        self.available.tell(now, |now| self.look(now));
        telemetry::rate_drained(PATTERN, self.account.name(), available, self.bucket.waiting());
    }

    pub(super) fn rebind_metrics(&self) {
        self.account.rebind_metrics();
        self.available.rebind(gauge(self.account.name()), clock::now(), |now| self.look(now));
    }

    #[inline(always)] // as `Bucket::try_take`
    fn take(&self, cost: u32, now: Duration) -> Result<Taken, Shortage> {
        let answer = self.bucket.try_take(cost.max(1), now);
        self.available.pass(now, |now| self.look(now));
        answer
    }

    /// What is available, and for how long the gauge may say so.
    fn look(&self, now: Duration) -> (f64, Duration) {
        (f64::from(self.bucket.available(now)), TELL_EVERY)
    }
}

#[cold]
fn refusal(shortage: Shortage, now: Duration) -> Refusal {
    match shortage {
        Shortage::Until(at) => Refusal { reason: Reason::Limited, retry_after: Some(at.saturating_sub(now)) },
        Shortage::Never => Reason::Never.into(),
    }
}

fn gauge(name: &str) -> Gauge {
    Gauge::new("seawall_rate_limit_available", &[("name", name)])
}

fn longest_wait(config: &TokenBucketConfig) -> u64 {
    // 0 is no valid wait.
    if config.max_waiting == 0 { 0 } else { nanos(config.max_wait) }
}
