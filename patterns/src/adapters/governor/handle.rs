//! The plain value a user holds.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use super::PATTERN;
use super::config::GovernorConfig;
use super::layer::GovernorLayer;
use super::limiter::{Direct, Keyed, Limiter};
use super::service::{OneForAll, Permit};
use crate::admission::{Account, CallStats, Core};
use crate::clock;
use crate::error::{InvalidConfig, Reason, Refusal, Rejected};
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering};
use crate::telemetry::{Gauge, Glimpse};

/// A limiter of governor without tower, and the control of the layer around it. Clones are the same limit.
///
/// # Example
/// ```
/// use governor::{Quota, RateLimiter};
/// use seawall::Reason;
/// use seawall::adapters::governor::{Clock, GovernorConfig, GovernorHandle};
/// use std::num::NonZeroU32;
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let quota = Quota::per_second(NonZeroU32::new(10).unwrap());
/// let limiter = Arc::new(RateLimiter::direct_with_clock(quota, Clock));
/// let mail = GovernorHandle::direct(GovernorConfig::new("mail").max_cost(10), limiter)?;
/// mail.try_acquire_many(10)?.succeeded();
/// assert_eq!(mail.try_acquire().unwrap_err().retry_after, Some(Duration::from_millis(100)));
/// assert_eq!(mail.try_acquire_many(11).unwrap_err().reason, Reason::Never);
/// assert_eq!((mail.stats().calls.ok, mail.stats().calls.rejected), (1, 2));
/// # Ok::<_, seawall::BoxError>(())
/// # }).unwrap();
/// ```
pub struct GovernorHandle<L> {
    pub(super) room: Arc<Room<L>>,
    /// Guards the configuration in force, and lets one change be made at a time.
    config: Arc<Mutex<GovernorConfig>>,
}

/// What became of the calls, and how many keys there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GovernorStats {
    /// What became of the calls.
    pub calls: CallStats,
    /// Keys that are stored at most; 0 for a direct limiter.
    pub keys: usize,
    /// Calls of new keys that were refused since the start because there was no place.
    pub refused_for_space: u64,
}

impl<L> GovernorHandle<Direct<L>>
where
    Direct<L>: Limiter<Key = ()>,
{
    /// One limit for all calls: that of `limiter`, a `RateLimiter` with one state, whoever else asks it.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn direct(config: GovernorConfig, limiter: Arc<L>) -> Result<Self, InvalidConfig> {
        Self::new(config, Direct(limiter))
    }

    /// A layer whose services share this limit.
    pub fn layer(&self) -> GovernorLayer<Direct<L>, OneForAll> {
        GovernorLayer::of_handle(self.clone(), OneForAll)
    }

    /// Counts one call, now or not at all. What the permit stands for is counted already and does not come back when it is
    /// dropped; it tells only how the call ended.
    ///
    /// # Errors
    /// [`Rejected`]: limited.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<Direct<L>>, Rejected> {
        self.try_acquire_many(1)
    }

    /// As [`try_acquire`](Self::try_acquire), for a call that costs as much as `cost` ordinary ones, which is admitted
    /// whole or not at all. 0 is taken as 1.
    ///
    /// # Errors
    /// [`Rejected`]: limited, or never.
    #[inline]
    pub fn try_acquire_many(&self, cost: u32) -> Result<Permit<Direct<L>>, Rejected> {
        Permit::ask(&self.room, |room| room.try_take(&(), cost))
    }
}

impl<K, L> GovernorHandle<Keyed<L>>
where
    Keyed<L>: Limiter<Key = K>,
{
    /// One limit for each key: that of `limiter`, a `RateLimiter` over a [`Bounded`](super::Bounded) store, whoever else
    /// asks it.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn keyed(config: GovernorConfig, limiter: Arc<L>) -> Result<Self, InvalidConfig> {
        Self::new(config, Keyed::new(limiter))
    }

    /// A layer whose services share these limits; `key` says whose a request is. It runs for each call.
    pub fn layer<F, Req>(&self, key: F) -> GovernorLayer<Keyed<L>, F>
    where
        F: Fn(&Req) -> K,
    {
        GovernorLayer::of_handle(self.clone(), key)
    }

    /// Counts one call of `key`, now or not at all. What the permit stands for is counted already and does not come back
    /// when it is dropped; it tells only how the call ended.
    ///
    /// # Errors
    /// [`Rejected`]: limited, or too many keys.
    #[inline]
    pub fn try_acquire(&self, key: &K) -> Result<Permit<Keyed<L>>, Rejected> {
        self.try_acquire_many(key, 1)
    }

    /// As [`try_acquire`](Self::try_acquire), for a call that costs as much as `cost` ordinary ones, which is admitted
    /// whole or not at all. 0 is taken as 1.
    ///
    /// # Errors
    /// [`Rejected`]: limited, too many keys, or never.
    #[inline]
    pub fn try_acquire_many(&self, key: &K, cost: u32) -> Result<Permit<Keyed<L>>, Rejected> {
        Permit::ask(&self.room, |room| room.try_take(key, cost))
    }
}

impl<L: Limiter> GovernorHandle<L> {
    fn new(config: GovernorConfig, limiter: L) -> Result<Self, InvalidConfig> {
        config.check()?;
        let room = Room {
            account: Account::new(PATTERN, &config.name, config.mode, L::REASONS),
            keys: Glimpse::new(gauge::<L>(&config.name)),
            limiter,
            max_cost: AtomicUsize::new(config.max_cost as usize),
            refused_for_space: AtomicU64::new(0),
        };
        Ok(Self { room: Arc::new(room), config: Arc::new(Mutex::new(config)) })
    }

    /// What became of the calls, and how many keys there are.
    pub fn stats(&self) -> GovernorStats {
        GovernorStats {
            calls: self.room.account.stats(),
            keys: self.room.limiter.keys(),
            // ORDERING: Relaxed, a count that is read alone.
            refused_for_space: self.room.refused_for_space.load(Ordering::Relaxed),
        }
    }

    /// Resolves the metric handles again: for a recorder that was installed after the handle was made.
    pub fn rebind_metrics(&self) {
        let room = &self.room;
        room.account.rebind_metrics();
        room.keys.rebind(gauge::<L>(self.name()), clock::now(), |_| room.look());
    }
}

impl<L> GovernorHandle<L> {
    /// The name that labels metrics and refusals.
    pub fn name(&self) -> &str {
        self.room.account.name()
    }

    /// The configuration in force.
    pub fn config(&self) -> GovernorConfig {
        self.config.lock().clone()
    }

    /// Changes the configuration whole. The quota stays: governor cannot change it.
    ///
    /// # Errors
    /// A field out of its bound, or a changed `name`; nothing was changed then.
    pub fn update(&self, config: GovernorConfig) -> Result<(), InvalidConfig> {
        let mut current = self.config.lock();
        config.check()?;
        if config.name != current.name {
            return Err(InvalidConfig::new("name", config.name, "the name it was made with"));
        }
        // ORDERING: Relaxed, the word is the whole setting and nothing else is read because of it.
        self.room.max_cost.store(config.max_cost as usize, Ordering::Relaxed);
        self.room.account.set_mode(config.mode);
        *current = config;
        Ok(())
    }
}

impl<L> Clone for GovernorHandle<L> {
    fn clone(&self) -> Self {
        Self { room: Arc::clone(&self.room), config: Arc::clone(&self.config) }
    }
}

impl<L> fmt::Debug for GovernorHandle<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GovernorHandle").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// What the handle, the layer and the services of one limiter share.
pub struct Room<L> {
    account: Account,
    limiter: L,
    max_cost: AtomicUsize,
    refused_for_space: AtomicU64,
    /// Told only where there are keys.
    keys: Glimpse,
}

impl<L> Core for Room<L> {
    /// What was counted stays counted.
    type Units = ();
    type Ref = Arc<Self>;

    #[inline]
    fn lend(self: &Arc<Self>) -> Arc<Self> {
        Arc::clone(self)
    }

    fn account(&self) -> &Account {
        &self.account
    }
}

/// How often the gauge moves at most, while calls come: as that of a [`keyed`](crate::keyed) limit.
const TOLD_EVERY: Duration = Duration::from_millis(250);

impl<L: Limiter> Room<L> {
    /// Counts a call now, or does not. A cost of 0 is taken as 1.
    #[inline]
    pub(super) fn try_take(&self, key: &L::Key, cost: u32) -> Result<(), Refusal> {
        let cost = NonZeroU32::new(cost).unwrap_or(NonZeroU32::MIN);
        // ORDERING: Relaxed, as where it is stored.
        if cost.get() as usize > self.max_cost.load(Ordering::Relaxed) {
            return Err(Reason::Never.into());
        }
        // One reading for the decision and for the wait that follows from it.
        let clock = clock::enter();
        let answer = self.limiter.take(key, cost).inspect_err(|refusal| {
            if refusal.reason == Reason::TooManyKeys {
                // ORDERING: Relaxed, a count that nothing is derived from.
                self.refused_for_space.fetch_add(1, Ordering::Relaxed);
            }
        });
        if L::KEYED {
            self.keys.pass(clock.now(), |_| self.look());
        }
        answer
    }

    /// How many keys there are, and for how long the gauge may say so.
    fn look(&self) -> (f64, Duration) {
        (self.limiter.keys() as f64, TOLD_EVERY)
    }
}

/// The gauge of the keys, where there are any.
fn gauge<L: Limiter>(name: &str) -> Gauge {
    if L::KEYED { Gauge::new("seawall_rate_limit_keys", &[("name", name)]) } else { Gauge::default() }
}
