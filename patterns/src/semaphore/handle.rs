//! The plain value a user holds.

use std::fmt;
use std::future::Future;

use super::PATTERN;
use super::config::SemaphoreConfig;
use super::future::{Acquire, Permit, Place};
use super::layer::SemaphoreLayer;
use super::permits::{Rules, Units};
use super::room::Room;
use crate::admission::{CallStats, Core, Run};
use crate::error::{BoxError, InvalidConfig, Rejected};
use crate::sync::{Arc, Mutex};

/// A semaphore without tower, and the control of the layer that shares its state. Clones are the same semaphore.
///
/// # Example
/// ```
/// use seawall::{SemaphoreConfig, SemaphoreHandle};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let semaphore = SemaphoreHandle::new(SemaphoreConfig::new("imports", 3))?;
/// let imported = semaphore.run(async { Ok::<_, std::io::Error>("all of it") }).await?;
/// assert_eq!((imported, semaphore.available()), ("all of it", 3));
///
/// semaphore.resize(1)?;
/// let _only = semaphore.acquire().await?;
/// assert_eq!(semaphore.available(), 0);
/// # Ok::<_, seawall::BoxError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct SemaphoreHandle {
    pub(super) room: Arc<Room>,
    /// Guards the configuration in force, and lets one change be made at a time.
    config: Arc<Mutex<SemaphoreConfig>>,
}

/// What became of the calls of a semaphore, and how full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SemaphoreStats {
    /// What became of the calls.
    pub calls: CallStats,
    /// How many permits there are.
    pub limit: u32,
    /// How many are in use; more than there are after the limit has shrunk, until enough came back.
    pub in_use: u32,
    /// How many calls wait.
    pub waiting: usize,
}

impl SemaphoreHandle {
    /// A semaphore with all its permits.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn new(config: SemaphoreConfig) -> Result<Self, InvalidConfig> {
        config.check()?;
        let room = Room::new(PATTERN, &config.name, config.mode, config.waiting, &rules(&config), config.max_wait);
        Ok(Self { room: Arc::new(room), config: Arc::new(Mutex::new(config)) })
    }

    /// A layer whose services share this semaphore.
    pub fn layer(&self) -> SemaphoreLayer {
        SemaphoreLayer::from(self.clone())
    }

    /// Takes a permit if one is free and nobody waits for it.
    ///
    /// # Errors
    /// [`Rejected`]: full or closed.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit, Rejected> {
        self.try_acquire_many(1)
    }

    /// As [`try_acquire`](Self::try_acquire), for `count` permits at once. 0 is taken as 1.
    ///
    /// # Errors
    /// [`Rejected`]: full, closed, or never where `count` is above the limit.
    #[inline]
    pub fn try_acquire_many(&self, count: u32) -> Result<Permit, Rejected> {
        Permit::ask(&self.room, |room| room.try_take(Units::of(count)))
    }

    /// Waits for a permit, in line from the first poll on.
    ///
    /// # Errors
    /// [`Rejected`] with any reason named in the [module](super).
    ///
    /// # Cancellation
    /// Dropped, it leaves the line, and what it was granted in that moment goes to the next.
    pub fn acquire(&self) -> Acquire {
        self.acquire_many(1)
    }

    /// As [`acquire`](Self::acquire), for `count` permits at once. 0 is taken as 1. It stands in line until all of them
    /// are free and, in [`Order::Fifo`](super::Order), holds up those behind it, so that it gets them in the end.
    pub fn acquire_many(&self, count: u32) -> Acquire {
        Acquire::new(self.room.acquire(Units::of(count)))
    }

    /// Runs `future` under a permit, for which it waits.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and `future` was not polled; else those of `future`.
    pub fn run<F, T, E>(&self, future: F) -> Run<F, Place>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        Run::new(self.room.acquire(Units::ONE), future)
    }

    /// How many permits [`try_acquire_many`](Self::try_acquire_many) would get now; 0 while somebody waits.
    pub fn available(&self) -> u32 {
        self.room.permits.available(0)
    }

    /// What became of the calls, and how full it is.
    pub fn stats(&self) -> SemaphoreStats {
        let permits = &self.room.permits;
        SemaphoreStats {
            calls: self.room.account().stats(),
            limit: permits.limit(),
            in_use: permits.in_use(),
            waiting: permits.waiting(),
        }
    }

    /// The name that labels metrics, logs and refusals.
    pub fn name(&self) -> &str {
        self.room.account().name()
    }

    /// The configuration in force.
    pub fn config(&self) -> SemaphoreConfig {
        self.config.lock().clone()
    }

    /// Changes the configuration whole, without waiting. After the limit has shrunk nobody is admitted until enough
    /// permits came back, and who waits for more than there are now is refused as never. Who stands in line stays there,
    /// with the wait it came for; where the mode refuses nobody any more it is let through.
    ///
    /// # Errors
    /// A field out of its bound, or a changed `name` or `waiting`; nothing was changed then.
    pub fn update(&self, config: SemaphoreConfig) -> Result<(), InvalidConfig> {
        self.change(|_| config)
    }

    /// [Changes](Self::update) the limit alone.
    ///
    /// # Errors
    /// `limit` is out of its bound.
    pub fn resize(&self, limit: u32) -> Result<(), InvalidConfig> {
        self.change(|config| config.limit(limit))
    }

    fn change(&self, to: impl FnOnce(SemaphoreConfig) -> SemaphoreConfig) -> Result<(), InvalidConfig> {
        let mut config = self.config.lock();
        let new = to(config.clone());
        new.check()?;
        if new.name != config.name {
            return Err(InvalidConfig::new("name", new.name, "the name it was made with"));
        }
        if new.waiting != config.waiting {
            return Err(InvalidConfig::new("waiting", new.waiting, "what it was made with"));
        }
        let before = self.room.set(new.mode, &rules(&new), new.max_wait);
        *config = new;
        // Not under the lock: whom this wakes may ask for the configuration.
        drop(config);
        self.room.settle(before);
        Ok(())
    }

    /// Refuses everybody from now on, those who wait included. What is in use comes back as ever. There is no way back.
    pub fn close(&self) {
        self.room.close();
    }

    /// Whether it was [closed](Self::close).
    pub fn is_closed(&self) -> bool {
        self.room.permits.is_closed()
    }

    /// Resolves the metric handles again: for a recorder that was installed after the semaphore was made.
    pub fn rebind_metrics(&self) {
        self.room.rebind_metrics();
    }
}

fn rules(config: &SemaphoreConfig) -> Rules {
    Rules { limit: config.limit, max_waiting: config.max_waiting as usize, order: config.order, shares: Vec::new() }
}

impl fmt::Debug for SemaphoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphoreHandle").field("name", &self.name()).field("available", &self.available()).finish()
    }
}
