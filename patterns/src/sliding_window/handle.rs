//! The plain value a user holds.

use std::fmt;
use std::time::Duration;

use super::config::SlidingWindowConfig;
use super::layer::SlidingWindowLayer;
use super::window::Window;
use super::{PATTERN, Permit};
use crate::admission::{Account, CallStats, Core, OneUnit};
use crate::clock;
use crate::error::{InvalidConfig, Reason, Refusal, Rejected};
use crate::lent::{Lent, lend};
use crate::sync::{Arc, Mutex};
use crate::telemetry::{Gauge, Glimpse};

/// A sliding window without tower, and the control of the layer that shares its state. Clones are the same window.
///
/// # Example
/// ```
/// use seawall::{Reason, SlidingWindowConfig, SlidingWindowHandle};
/// use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let window = SlidingWindowHandle::new(SlidingWindowConfig::new("reports", 10, Duration::from_secs(60)))?;
/// window.try_acquire_many(8)?;
/// assert_eq!(window.available(), 2);
/// assert_eq!(window.try_acquire_many(3).unwrap_err().reason, Reason::Limited);
/// assert_eq!(window.try_acquire_many(11).unwrap_err().reason, Reason::Never);
/// # Ok::<_, seawall::BoxError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct SlidingWindowHandle {
    pub(super) room: Arc<Room>,
    /// Guards the configuration in force, and lets one change be made at a time.
    config: Arc<Mutex<SlidingWindowConfig>>,
}

/// What became of the calls of a sliding window, and what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlidingWindowStats {
    /// What became of the calls.
    pub calls: CallStats,
    /// The cost that is admitted in any window.
    pub limit: u32,
    /// How much of it a call could take now.
    pub available: u32,
}

impl SlidingWindowHandle {
    /// A window in which nothing was admitted. A log takes its memory now.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn new(config: SlidingWindowConfig) -> Result<Self, InvalidConfig> {
        config.check()?;
        let room = Room {
            account: Account::new(PATTERN, &config.name, config.mode, &[Reason::Limited, Reason::Never]),
            window: Window::new(config.setting()?),
            available: Glimpse::new(gauge(&config.name)),
        };
        Ok(Self { room: Arc::new(room), config: Arc::new(Mutex::new(config)) })
    }

    /// A layer whose services share this window.
    pub fn layer(&self) -> SlidingWindowLayer<OneUnit> {
        SlidingWindowLayer::from(self.clone())
    }

    /// Counts one call, now or not at all. What the permit stands for is counted already and does not come back when it is
    /// dropped; it tells only how the call ended, and may be dropped at once where nobody cares.
    ///
    /// # Errors
    /// [`Rejected`]: limited, with the exact time after which the call fits if nobody comes before.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit, Rejected> {
        self.try_acquire_many(1)
    }

    /// As [`try_acquire`](Self::try_acquire), for a call that costs as much as `cost` ordinary ones, which is admitted
    /// whole or not at all. 0 is taken as 1.
    ///
    /// # Errors
    /// [`Rejected`]: limited, or never where `cost` is above the limit.
    #[inline]
    pub fn try_acquire_many(&self, cost: u32) -> Result<Permit, Rejected> {
        Permit::ask(&self.room, |room| room.try_take(cost))
    }

    /// How much [`try_acquire_many`](Self::try_acquire_many) would admit now.
    pub fn available(&self) -> u32 {
        self.room.window.available(clock::now())
    }

    /// What became of the calls, and what is left of the window.
    pub fn stats(&self) -> SlidingWindowStats {
        let limit = self.room.window.setting().limit;
        SlidingWindowStats { calls: self.room.account.stats(), limit, available: self.available() }
    }

    /// The name that labels metrics and refusals.
    pub fn name(&self) -> &str {
        self.room.account.name()
    }

    /// The configuration in force.
    pub fn config(&self) -> SlidingWindowConfig {
        self.config.lock().clone()
    }

    /// Changes the configuration whole and keeps what is counted.
    ///
    /// After a limit was lowered nothing is admitted until enough has left. Under another window every call that is still
    /// remembered weighs for as long as the new window says: with the log from the instant at which it was admitted, and
    /// with buckets from the end of its bucket, so that it may weigh longer by what the bucket was long, but never less.
    /// Remembered are, with the log, as many units as the largest limit so far, and with buckets what their window held. A
    /// ring is copied while calls wait for the lock; that of a log only where the limit grows.
    ///
    /// # Errors
    /// A field out of its bound, or a changed `name` or `algorithm`; nothing was changed then.
    pub fn update(&self, config: SlidingWindowConfig) -> Result<(), InvalidConfig> {
        let mut current = self.config.lock();
        config.check()?;
        if config.name != current.name {
            return Err(InvalidConfig::new("name", config.name, "the name it was made with"));
        }
        if config.algorithm != current.algorithm {
            return Err(InvalidConfig::new("algorithm", config.algorithm, "what it was made with"));
        }
        let now = clock::now();
        self.room.window.update(config.setting()?, now);
        self.room.account.set_mode(config.mode);
        *current = config;
        // Not under the lock: what is told may ask for the configuration.
        drop(current);
        self.room.available.tell(now, |now| self.room.look(now));
        Ok(())
    }

    /// Resolves the metric handles again: for a recorder that was installed after the window was made.
    pub fn rebind_metrics(&self) {
        self.room.account.rebind_metrics();
        let room = &self.room;
        room.available.rebind(gauge(self.name()), clock::now(), |now| room.look(now));
    }
}

impl fmt::Debug for SlidingWindowHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlidingWindowHandle").field("name", &self.name()).field("available", &self.available()).finish()
    }
}

/// What the handle, the layer and the services of one window share.
pub struct Room {
    account: Account,
    window: Window,
    available: Glimpse,
}

lend!(Room);

impl Core for Room {
    /// What was counted stays counted.
    type Units = ();
    type Ref = Lent<Self>;

    #[inline]
    fn lend(self: &Arc<Self>) -> Lent<Self> {
        Lent::of(self)
    }

    fn account(&self) -> &Account {
        &self.account
    }
}

/// The gauge moves so many times in a window while calls come: often enough for any scraper, and too seldom to cost.
const TOLD_PER_WINDOW: u64 = 16;

impl Room {
    /// Counts a call now, or does not. A cost of 0 is taken as 1.
    #[inline]
    pub(super) fn try_take(&self, cost: u32) -> Result<(), Refusal> {
        let now = clock::now();
        let answer = self.window.try_take(cost.max(1), now);
        self.available.pass(now, |now| self.look(now));
        answer
    }

    /// What is available, and for how long the gauge may say so.
    fn look(&self, now: Duration) -> (f64, Duration) {
        let lasts = Duration::from_nanos(self.window.setting().window_nanos / TOLD_PER_WINDOW);
        (f64::from(self.window.available(now)), lasts)
    }
}

fn gauge(name: &str) -> Gauge {
    Gauge::new("seawall_rate_limit_available", &[("name", name)])
}
