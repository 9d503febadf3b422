//! The plain value a user holds.

use std::fmt;
use std::task::Waker;

use super::config::{Rate, TokenBucketConfig};
use super::future::{Acquire, Permit, Place};
use super::layer::TokenBucketLayer;
use super::room::Room;
use crate::admission::{CallStats, Core};
use crate::clock;
use crate::error::{InvalidConfig, Rejected};
use crate::sync::{Arc, Mutex};

/// A token bucket without tower, and the control of the layer that shares its state. Clones are the same bucket.
///
/// # Example
/// ```
/// use seawall::token_bucket::Rate;
/// use seawall::{TokenBucketConfig, TokenBucketHandle};
/// use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let config = TokenBucketConfig::new("mail", Rate::per_second(10), 2).max_waiting(5);
/// let bucket = TokenBucketHandle::new(config)?;
/// bucket.try_acquire_many(2)?;
/// assert_eq!(bucket.try_acquire().unwrap_err().retry_after, Some(Duration::from_millis(100)));
///
/// bucket.acquire().await?.succeeded();
/// assert_eq!(bucket.stats().calls.ok, 1);
/// # Ok::<_, seawall::BoxError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct TokenBucketHandle {
    pub(super) room: Arc<Room>,
    /// Guards the configuration in force, and lets one change be made at a time.
    config: Arc<Mutex<TokenBucketConfig>>,
}

/// What became of the calls of a token bucket, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenBucketStats {
    /// What became of the calls.
    pub calls: CallStats,
    /// How fast it fills.
    pub rate: Rate,
    /// How many tokens it holds.
    pub burst: u32,
    /// How many a call could take now; 0 while others wait.
    pub available: u32,
    /// How many calls wait.
    pub waiting: usize,
}

impl TokenBucketHandle {
    /// A full bucket.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn new(config: TokenBucketConfig) -> Result<Self, InvalidConfig> {
        config.check()?;
        Ok(Self { room: Arc::new(Room::new(&config)), config: Arc::new(Mutex::new(config)) })
    }

    /// A layer whose services share this bucket.
    pub fn layer(&self) -> TokenBucketLayer {
        TokenBucketLayer::from(self.clone())
    }

    /// Takes a token if there is one and nobody waits for it. It is spent from now on; the permit tells only how the call
    /// ended, and may be dropped at once where nobody cares.
    ///
    /// # Errors
    /// [`Rejected`]: limited, with the exact time after which there is one if nobody comes before.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit, Rejected> {
        self.try_acquire_many(1)
    }

    /// As [`try_acquire`](Self::try_acquire), for `count` tokens or none. 0 is taken as 1.
    ///
    /// # Errors
    /// [`Rejected`]: limited, or never where `count` is above the burst.
    #[inline]
    pub fn try_acquire_many(&self, count: u32) -> Result<Permit, Rejected> {
        Permit::ask(&self.room, |room| room.try_take(count))
    }

    /// Waits for a token, in line from the first poll on.
    ///
    /// # Errors
    /// [`Rejected`] with any reason named in the [module](super): at once, where the wait would be longer than allowed.
    ///
    /// # Cancellation
    /// Dropped, it leaves the line and has taken nothing.
    pub fn acquire(&self) -> Acquire {
        self.acquire_many(1)
    }

    /// As [`acquire`](Self::acquire), for `count` tokens at once. 0 is taken as 1. It holds up those behind it, so that it
    /// gets them in the end.
    pub fn acquire_many(&self, count: u32) -> Acquire {
        Acquire::new(Place::unasked(&self.room, count))
    }

    /// How many tokens [`try_acquire_many`](Self::try_acquire_many) would get now; 0 while somebody waits.
    pub fn available(&self) -> u32 {
        self.room.bucket.available(clock::now())
    }

    /// Empties the bucket, for a peer that says it is overloaded: the next token comes one period from now. Who waits
    /// and would then wait longer than it may is refused.
    pub fn drain(&self) {
        self.room.drain();
    }

    /// What became of the calls, and what is in the bucket.
    pub fn stats(&self) -> TokenBucketStats {
        let (rate, burst) = {
            let config = self.config.lock();
            (config.rate, config.burst)
        };
        TokenBucketStats {
            calls: self.room.account().stats(),
            rate,
            burst,
            available: self.available(),
            waiting: self.room.bucket.waiting(),
        }
    }

    /// The name that labels metrics, logs and refusals.
    pub fn name(&self) -> &str {
        self.room.account().name()
    }

    /// The configuration in force.
    pub fn config(&self) -> TokenBucketConfig {
        self.config.lock().clone()
    }

    /// Changes the configuration whole. Tokens that are spent stay spent, as tokens and not as time; a smaller bucket is
    /// empty rather than in debt, a larger one has what was added. Who stands in line stays there with the wait it came for,
    /// goes sooner or later as the rate says, and is refused as never if it wants more than the bucket now holds; where the
    /// mode refuses nobody any more it is let through.
    ///
    /// # Errors
    /// A field out of its bound, or a changed `name` or `waiting`; nothing was changed then.
    pub fn update(&self, config: TokenBucketConfig) -> Result<(), InvalidConfig> {
        let mut current = self.config.lock();
        config.check()?;
        if config.name != current.name {
            return Err(InvalidConfig::new("name", config.name, "the name it was made with"));
        }
        if config.waiting != current.waiting {
            return Err(InvalidConfig::new("waiting", config.waiting, "what it was made with"));
        }
        let (from, to) = ((current.rate, current.burst), (config.rate, config.burst));
        let woken = self.room.set(&config);
        *current = config;
        // Not under the lock: whom this wakes may ask for the configuration.
        drop(current);
        woken.into_iter().for_each(Waker::wake);
        self.room.changed(from, to);
        Ok(())
    }

    /// Resolves the metric handles again: for a recorder that was installed after the bucket was made.
    pub fn rebind_metrics(&self) {
        self.room.rebind_metrics();
    }
}

impl fmt::Debug for TokenBucketHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBucketHandle").field("name", &self.name()).field("available", &self.available()).finish()
    }
}
