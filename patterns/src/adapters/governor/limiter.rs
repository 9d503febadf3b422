//! What is asked of governor.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use ::governor::clock::{Clock, Reference};
use ::governor::middleware::{NoOpMiddleware, RateLimitingMiddleware};
use ::governor::state::direct::DirectStateStore;
use ::governor::state::keyed::ShrinkableKeyedStateStore;
use ::governor::state::{InMemoryState, NotKeyed};
use ::governor::{InsufficientCapacity, NotUntil, Quota, RateLimiter};

use super::store::Bounded;
use crate::clock;
use crate::error::{Reason, Refusal};
use crate::sync::{Arc, Mutex};

/// A limiter with one state by our clock; `RateLimiter::direct_with_clock(quota, Clock)` makes one.
pub type DirectLimiter = RateLimiter<NotKeyed, InMemoryState, super::Clock, NoOpMiddleware<Duration>>;
/// A limiter with a state for each of a bounded number of keys, by our clock.
pub type KeyedLimiter<K, S> = RateLimiter<K, Bounded<S>, super::Clock, NoOpMiddleware<Duration>>;

/// A limiter with a state for each of up to `max_keys` keys in `store`, by our clock.
///
/// `S` is governor's `HashMapStateStore` or `DashMapStateStore`, or another that can forget. A limiter with another clock or
/// middleware is made by `RateLimiter::new(quota, Bounded::new(store, max_keys), clock)`.
pub fn keyed_limiter<K, S>(quota: Quota, store: S, max_keys: usize) -> KeyedLimiter<K, S>
where
    S: ShrinkableKeyedStateStore<K>,
    K: Hash,
{
    RateLimiter::new(quota, Bounded::new(store, max_keys), super::Clock)
}

/// A limiter that is asked for one call.
pub trait Limiter {
    /// Whose a call is.
    type Key;

    /// Why a call is refused.
    const REASONS: &'static [Reason];

    /// Whether it has a state for each key.
    const KEYED: bool;

    /// Takes `cost` of `key`, or nothing.
    fn take(&self, key: &Self::Key, cost: NonZeroU32) -> Result<(), Refusal>;

    /// Keys stored; asked in the middle of calls, now and then.
    fn keys(&self) -> usize;
}

/// A limiter with one state for all calls.
#[derive(Debug)]
pub struct Direct<L>(pub(super) Arc<L>);

/// A limiter with a state for each key, and when it was last looked through for idle ones.
#[derive(Debug)]
pub struct Keyed<L> {
    limiter: Arc<L>,
    /// Guards when keys were last forgotten, and lets one call do it at a time.
    swept: Mutex<Swept>,
}

#[derive(Debug, Default)]
struct Swept {
    at: Option<Duration>,
    /// Entries that were left.
    kept: usize,
}

/// A newcomer may look for idle keys if nobody has for so long.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

impl<S, C, M> Limiter for Direct<RateLimiter<NotKeyed, S, C, M>>
where
    S: DirectStateStore,
    C: Clock,
    M: RateLimitingMiddleware<C::Instant, NegativeOutcome = NotUntil<C::Instant>>,
{
    type Key = ();

    const REASONS: &'static [Reason] = &[Reason::Limited, Reason::Never];
    const KEYED: bool = false;

    #[inline]
    fn take(&self, (): &(), cost: NonZeroU32) -> Result<(), Refusal> {
        answer(self.0.check_n(cost), self.0.clock())
    }

    fn keys(&self) -> usize {
        0
    }
}

impl<L> Keyed<L> {
    pub(super) fn new(limiter: Arc<L>) -> Self {
        Self { limiter, swept: Mutex::default() }
    }
}

impl<K, S, C, M> Limiter for Keyed<RateLimiter<K, Bounded<S>, C, M>>
where
    K: Hash + Eq + Clone,
    S: ShrinkableKeyedStateStore<K>,
    C: Clock,
    M: RateLimitingMiddleware<C::Instant, NegativeOutcome = NotUntil<C::Instant>>,
{
    type Key = K;

    const REASONS: &'static [Reason] = &[Reason::Limited, Reason::Never, Reason::TooManyKeys];
    const KEYED: bool = true;

    #[inline]
    fn take(&self, key: &K, cost: NonZeroU32) -> Result<(), Refusal> {
        match self.ask(key, cost) {
            Err(refusal) if refusal.reason == Reason::TooManyKeys && self.sweep() => self.ask(key, cost),
            answer => answer,
        }
    }

    fn keys(&self) -> usize {
        self.limiter.len()
    }
}

impl<K, S, C, M> Keyed<RateLimiter<K, Bounded<S>, C, M>>
where
    K: Hash + Eq + Clone,
    S: ShrinkableKeyedStateStore<K>,
    C: Clock,
    M: RateLimitingMiddleware<C::Instant, NegativeOutcome = NotUntil<C::Instant>>,
{
    #[inline]
    fn ask(&self, key: &K, cost: NonZeroU32) -> Result<(), Refusal> {
        match answer(self.limiter.check_key_n(key, cost), self.limiter.clock()) {
            Err(Refusal { retry_after: Some(wait), .. }) if Bounded::<S>::is_no_place(wait) => {
                Err(Reason::TooManyKeys.into())
            }
            answer => answer,
        }
    }

    /// Forgets idle keys if it is time; says whether it did.
    #[cold]
    fn sweep(&self) -> bool {
        let now = clock::now();
        let mut swept = self.swept.lock();
        let long_ago = swept.at.is_none_or(|at| now.saturating_sub(at) >= SWEEP_EVERY);
        if !long_ago && self.limiter.len() < swept.kept.saturating_mul(2) {
            return false;
        }
        self.limiter.retain_recent();
        *swept = Swept { at: Some(now), kept: self.limiter.len() };
        true
    }
}

#[inline]
fn answer<T, P: Reference>(
    answer: Result<Result<T, NotUntil<P>>, InsufficientCapacity>,
    clock: &impl Clock<Instant = P>,
) -> Result<(), Refusal> {
    match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(not_until)) => {
            let wait = not_until.wait_time_from(clock.now());
            Err(Refusal { reason: Reason::Limited, retry_after: Some(wait) })
        }
        Err(InsufficientCapacity(_)) => Err(Reason::Never.into()),
    }
}
