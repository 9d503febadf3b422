//! The plain value a user holds.

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use super::config::{KeyedConfig, Settings};
use super::keys::{KeyStats, Keys};
use super::layer::KeyedLayer;
use super::{PATTERN, Permit};
use crate::admission::{Account, CallStats, Core, OneUnit};
use crate::error::{InvalidConfig, Reason, Refusal, Rejected};
use crate::sliding_window::Counted;
use crate::sync::{Arc, Mutex};
use crate::telemetry::{Gauge, Glimpse};
use crate::token_bucket::Tat;
use crate::{clock, rng};

/// In how many parts the keys are locked: with 16, two of eight threads seldom meet.
const SHARDS: usize = 16;

/// A limit for each key without tower, and the control of the layer that shares its state. Clones are the same limits.
///
/// # Example
/// ```
/// use seawall::keyed::{KeyedConfig, KeyedHandle, Quota};
/// use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let quota = Quota::sliding_window(2, Duration::from_secs(60));
/// let exports = KeyedHandle::new(KeyedConfig::new("exports", quota))?;
/// drop(exports.try_acquire_many("ann", 2)?);
/// assert!(exports.try_acquire("ann").is_err());
/// assert_eq!(exports.available(&"ben"), 2);
/// assert_eq!(exports.stats().keys, 1);
/// # Ok::<_, seawall::BoxError>(())
/// # }).unwrap();
/// ```
pub struct KeyedHandle<K> {
    pub(super) room: Arc<Room<K>>,
    /// Guards the configuration in force, and lets one change be made at a time.
    config: Arc<Mutex<KeyedConfig>>,
}

/// What became of the calls of all keys, and how many keys there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyedStats {
    /// What became of the calls.
    pub calls: CallStats,
    /// Keys that are stored: those with something to account for, and some that are about to be forgotten.
    pub keys: usize,
    /// Keys that were forgotten since the start, because they were as good as new.
    pub evicted: u64,
    /// Calls of new keys that were refused since the start because there was no place.
    pub refused_for_space: u64,
}

impl<K: Hash + Eq> KeyedHandle<K> {
    /// Limits that no key has taken from. The memory for keys is taken as they come.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn new(config: KeyedConfig) -> Result<Self, InvalidConfig> {
        let max_keys = config.max_keys as usize;
        let seed = [rng::bits(), rng::bits()];
        let limits = match config.settings()? {
            Settings::TokenBucket(own, global) => Limits::TokenBucket(Keys::new(own, global, max_keys, SHARDS, seed)),
            Settings::SlidingWindow(own, global) => {
                Limits::SlidingWindow(Keys::new(own, global, max_keys, SHARDS, seed))
            }
        };
        let room = Room {
            account: Account::new(PATTERN, &config.name, config.mode, &REASONS),
            limits,
            keys: Glimpse::new(gauge(&config.name)),
        };
        Ok(Self { room: Arc::new(room), config: Arc::new(Mutex::new(config)) })
    }

    /// A layer whose services share these limits; `key` says whose a request is.
    pub fn layer<F, Req>(&self, key: F) -> KeyedLayer<K, F, OneUnit>
    where
        F: Fn(&Req) -> K,
    {
        KeyedLayer::of_handle(self.clone(), key)
    }

    /// Counts one call of `key`, now or not at all. What the permit stands for is counted already and does not come back
    /// when it is dropped; it tells only how the call ended, and may be dropped at once where nobody cares.
    ///
    /// # Errors
    /// [`Rejected`]: limited or limited globally, with the exact time after which the call fits if nobody comes before; too
    /// many keys.
    #[inline]
    pub fn try_acquire(&self, key: K) -> Result<Permit<K>, Rejected> {
        self.try_acquire_many(key, 1)
    }

    /// As [`try_acquire`](Self::try_acquire), for a call that costs as much as `cost` ordinary ones, which is admitted
    /// whole or not at all. 0 is taken as 1.
    ///
    /// # Errors
    /// As of [`try_acquire`](Self::try_acquire), or never where `cost` is more than a quota ever admits.
    #[inline]
    pub fn try_acquire_many(&self, key: K, cost: u32) -> Result<Permit<K>, Rejected> {
        Permit::ask(&self.room, |room| room.try_take(key, cost))
    }

    /// How much [`try_acquire_many`](Self::try_acquire_many) would admit of `key` now, if there is a place for it.
    pub fn available(&self, key: &K) -> u32 {
        self.room.limits.available(key, clock::now())
    }

    /// Changes the configuration whole and keeps what every key has taken, as
    /// [`TokenBucketHandle::update`](crate::TokenBucketHandle::update) or
    /// [`SlidingWindowHandle::update`](crate::SlidingWindowHandle::update) does. One part of the keys after the other goes
    /// over, each as a whole. A smaller `max_keys` displaces nobody.
    ///
    /// # Errors
    /// A field out of its bound, or something changed that stays as it was made; nothing was changed then.
    pub fn update(&self, config: KeyedConfig) -> Result<(), InvalidConfig> {
        let mut current = self.config.lock();
        let settings = config.settings()?;
        config.follows(&current)?;
        self.room.limits.update(settings, config.max_keys as usize, clock::now());
        self.room.account.set_mode(config.mode);
        *current = config;
        Ok(())
    }
}

impl<K> KeyedHandle<K> {
    /// What became of the calls, and how many keys there are.
    pub fn stats(&self) -> KeyedStats {
        let KeyStats { keys, evicted, refused_for_space } = self.room.limits.stats();
        KeyedStats { calls: self.room.account.stats(), keys, evicted, refused_for_space }
    }

    /// The name that labels metrics and refusals.
    pub fn name(&self) -> &str {
        self.room.account.name()
    }

    /// The configuration in force.
    pub fn config(&self) -> KeyedConfig {
        self.config.lock().clone()
    }

    /// Resolves the metric handles again: for a recorder that was installed after the limits were made.
    pub fn rebind_metrics(&self) {
        self.room.account.rebind_metrics();
        let room = &self.room;
        room.keys.rebind(gauge(self.name()), clock::now(), |_| room.look());
    }
}

impl<K> Clone for KeyedHandle<K> {
    fn clone(&self) -> Self {
        Self { room: Arc::clone(&self.room), config: Arc::clone(&self.config) }
    }
}

impl<K> fmt::Debug for KeyedHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedHandle").field("name", &self.name()).field("keys", &self.stats().keys).finish()
    }
}

/// Why a call is refused.
const REASONS: [Reason; 4] = [Reason::Limited, Reason::LimitedGlobally, Reason::Never, Reason::TooManyKeys];

/// What the handle, the layer and the services of one set of limits share.
pub struct Room<K> {
    account: Account,
    limits: Limits<K>,
    keys: Glimpse,
}

/// The limits by their kind.
enum Limits<K> {
    TokenBucket(Keys<K, Tat>),
    SlidingWindow(Keys<K, Counted>),
}

impl<K> Core for Room<K> {
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

/// How often the gauge moves at most, while calls come: more often than any scraper looks.
const TOLD_EVERY: Duration = Duration::from_millis(250);

impl<K: Hash + Eq> Room<K> {
    /// Counts a call now, or does not. A cost of 0 is taken as 1.
    #[inline]
    pub(super) fn try_take(&self, key: K, cost: u32) -> Result<(), Refusal> {
        let now = clock::now();
        let answer = self.limits.try_take(key, cost.max(1), now);
        self.keys.pass(now, |_| self.look());
        answer
    }
}

impl<K> Room<K> {
    /// How many keys there are, and for how long the gauge may say so.
    fn look(&self) -> (f64, Duration) {
        (self.limits.stats().keys as f64, TOLD_EVERY)
    }
}

impl<K: Hash + Eq> Limits<K> {
    #[inline]
    fn try_take(&self, key: K, cost: u32, now: Duration) -> Result<(), Refusal> {
        match self {
            Self::TokenBucket(keys) => keys.try_take(key, cost, now),
            Self::SlidingWindow(keys) => keys.try_take(key, cost, now),
        }
    }

    fn available(&self, key: &K, now: Duration) -> u32 {
        match self {
            Self::TokenBucket(keys) => keys.available(key, now),
            Self::SlidingWindow(keys) => keys.available(key, now),
        }
    }

    fn update(&self, settings: Settings, max_keys: usize, now: Duration) {
        match (self, settings) {
            (Self::TokenBucket(keys), Settings::TokenBucket(own, global)) => keys.update(own, global, max_keys, now),
            (Self::SlidingWindow(keys), Settings::SlidingWindow(own, global)) => {
                keys.update(own, global, max_keys, now);
            }
            _ => debug_assert!(false, "the kind of the limits was checked"),
        }
    }
}

impl<K> Limits<K> {
    fn stats(&self) -> KeyStats {
        match self {
            Self::TokenBucket(keys) => keys.stats(),
            Self::SlidingWindow(keys) => keys.stats(),
        }
    }
}

fn gauge(name: &str) -> Gauge {
    Gauge::new("seawall_rate_limit_keys", &[("name", name)])
}
