//! What can be set, with its defaults and bounds.

use std::time::Duration;

use super::backoff::Backoff;
use crate::error::InvalidConfig;

/// Three attempts, the first included: a failure that two more tries do not cure is rarely one that time cures, and each
/// further attempt multiplies the load on a peer in trouble (Google SRE book, chapter 21).
pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;
/// No attempt starts later than half a minute after the call: by then an interactive caller has gone.
pub const DEFAULT_MAX_ELAPSED: Duration = Duration::from_secs(30);
/// A peer that has no room for a retry within a second is short of room, and a retry is the call to leave out.
pub const DEFAULT_MAX_READY_WAIT: Duration = Duration::from_secs(1);

/// Long enough to hold a few hundred calls of a middling service, short enough to forget an outage soon (as Finagle).
pub const DEFAULT_BUDGET_WINDOW: Duration = Duration::from_secs(10);
/// One retry for five calls: a total outage raises the load by a fifth, not by the number of attempts (as Finagle).
pub const DEFAULT_BUDGET_RATIO: f64 = 0.2;
/// One retry a second even without calls to pay for it, so that a quiet client can retry at all.
pub const DEFAULT_BUDGET_FLOOR_PER_SECOND: f64 = 1.0;

/// What a retry layer may do. Checked in [`RetryLayer::new`](crate::RetryLayer::new).
///
/// # Example
/// ```
/// use std::time::Duration;
/// use seawall::{Backoff, RetryConfig};
///
/// let config = RetryConfig::new("peer").max_attempts(4).backoff(Backoff::exponential(Duration::from_millis(20)));
/// assert_eq!(config.max_elapsed, Duration::from_secs(30));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct RetryConfig {
    /// Labels metrics and errors. No default: two layers that cannot be told apart cannot be watched.
    pub name: String,
    /// Attempts, the first included; 1 turns retries off. Default: [`DEFAULT_MAX_ATTEMPTS`].
    #[cfg_attr(feature = "serde", serde(default = "default_max_attempts"))]
    pub max_attempts: u32,
    /// No attempt starts later than this after the call; the time of the attempts counts. A running attempt is not cut: that
    /// is for [`timeout`](crate::timeout). Default: [`DEFAULT_MAX_ELAPSED`].
    #[cfg_attr(feature = "serde", serde(default = "default_max_elapsed"))]
    pub max_elapsed: Duration,
    /// How long a retry may wait for the service to be ready, after its delay. Default: [`DEFAULT_MAX_READY_WAIT`].
    #[cfg_attr(feature = "serde", serde(default = "default_max_ready_wait"))]
    pub max_ready_wait: Duration,
    /// The delay before each retry. Default: exponential from 50 ms to 5 s with full jitter.
    #[cfg_attr(feature = "serde", serde(default))]
    pub backoff: Backoff,
    /// Whether `seawall_call_duration_seconds` tells how long calls take, all their attempts and waits included. Default
    /// `false`: it takes a reading of the clock at the end of each call, and as many series for each name as the recorder has
    /// buckets.
    #[cfg_attr(feature = "serde", serde(default))]
    pub durations: bool,
}

impl RetryConfig {
    /// The defaults, under a name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            max_elapsed: DEFAULT_MAX_ELAPSED,
            max_ready_wait: DEFAULT_MAX_READY_WAIT,
            backoff: Backoff::default(),
            durations: false,
        }
    }

    /// At most `attempts`, the first included.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// No attempt starts later than `elapsed` after the call.
    #[must_use]
    pub fn max_elapsed(mut self, elapsed: Duration) -> Self {
        self.max_elapsed = elapsed;
        self
    }

    /// A retry waits at most `wait` for the service to be ready.
    #[must_use]
    pub fn max_ready_wait(mut self, wait: Duration) -> Self {
        self.max_ready_wait = wait;
        self
    }

    /// The delay before each retry.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Whether metrics tell how long calls take.
    #[must_use]
    pub fn durations(mut self, durations: bool) -> Self {
        self.durations = durations;
        self
    }

    /// Whether every value is within its bounds.
    ///
    /// # Errors
    /// [`InvalidConfig`] with the first field that is not.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if self.name.is_empty() {
            return Err(InvalidConfig::new("name", &self.name, "not empty"));
        }
        if self.max_attempts == 0 {
            return Err(InvalidConfig::new("max_attempts", self.max_attempts, "at least 1, the first attempt"));
        }
        if self.max_elapsed.is_zero() {
            return Err(InvalidConfig::new("max_elapsed", self.max_elapsed, "more than zero"));
        }
        self.backoff.check()
    }
}

/// How many retries all calls together may afford. Checked in [`RetryBudget::new`](crate::RetryBudget::new).
///
/// # Example
/// ```
/// use seawall::RetryBudgetConfig;
///
/// let config = RetryBudgetConfig::new().ratio(0.1);
/// assert_eq!(config.floor_per_second, 1.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RetryBudgetConfig {
    /// How long a call pays for retries, and how long a retry weighs. Default: [`DEFAULT_BUDGET_WINDOW`].
    pub window: Duration,
    /// Retries for each call within the window. Default: [`DEFAULT_BUDGET_RATIO`].
    pub ratio: f64,
    /// Retries for each second of the window without any call. All of a window's may be spent at once.
    /// Default: [`DEFAULT_BUDGET_FLOOR_PER_SECOND`].
    pub floor_per_second: f64,
}

impl Default for RetryBudgetConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl RetryBudgetConfig {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            window: DEFAULT_BUDGET_WINDOW,
            ratio: DEFAULT_BUDGET_RATIO,
            floor_per_second: DEFAULT_BUDGET_FLOOR_PER_SECOND,
        }
    }

    /// A call pays for retries, and a retry weighs, for as long as `window`.
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// This many retries for each call.
    #[must_use]
    pub const fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// This many retries each second without any call.
    #[must_use]
    pub const fn floor_per_second(mut self, floor: f64) -> Self {
        self.floor_per_second = floor;
        self
    }

    /// Whether every value is within its bounds.
    ///
    /// # Errors
    /// [`InvalidConfig`] with the first field that is not.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&self.window) {
            return Err(InvalidConfig::new("window", self.window, "from 100 ms to 1 h"));
        }
        // NaN is in no range.
        if !(0.0..=10.0).contains(&self.ratio) {
            return Err(InvalidConfig::new("ratio", self.ratio, "from 0 to 10 retries a call"));
        }
        if !(0.0..=1e6).contains(&self.floor_per_second) {
            return Err(InvalidConfig::new("floor_per_second", self.floor_per_second, "from 0 to 1,000,000"));
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
const fn default_max_attempts() -> u32 {
    DEFAULT_MAX_ATTEMPTS
}

#[cfg(feature = "serde")]
const fn default_max_elapsed() -> Duration {
    DEFAULT_MAX_ELAPSED
}

#[cfg(feature = "serde")]
const fn default_max_ready_wait() -> Duration {
    DEFAULT_MAX_READY_WAIT
}
