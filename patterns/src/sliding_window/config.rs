//! The settings of a sliding window, their defaults and their check.

use std::time::Duration;

use crate::error::InvalidConfig;
use crate::mode::Mode;

/// Ten buckets: a refused caller waits at most a tenth of the window longer than it would have to, and the window takes
/// 44 bytes whatever its limit.
pub const DEFAULT_ALGORITHM: Algorithm = Algorithm::Buckets(10);

/// The largest limit of [`Algorithm::Buckets`]: a sum of two stays within 32 bits.
pub const MAX_LIMIT: u32 = 1_000_000_000;
/// The largest limit of [`Algorithm::Log`]: 8 MiB, taken when the layer is made.
pub const MAX_LOG_LIMIT: u32 = 1 << 20;
/// The largest number of buckets: beyond a thousandth of the window there is nothing left to gain, and a refusal looks at
/// each of them.
pub const MAX_BUCKETS: u32 = 1_000;
/// Shorter than any timer can wait: almost certainly a number with the wrong unit.
pub const MIN_WINDOW: Duration = Duration::from_millis(1);
/// A leap year; sums of time stay far from overflow.
pub const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// How the calls of the last window are remembered. Neither ever admits more than the limit in any window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Algorithm {
    /// The instant of each: exact, at 8 bytes for each unit of the limit. A call of cost n writes n instants.
    Log,
    /// Counts in so many buckets, of which one more is kept than the window has: 4 bytes each, whatever the limit. With K
    /// of them a call is admitted at most a K-th of the window later than by the log, and a steady demand is
    /// admitted whole up to K/(K + 1) of the rate; one that never lets up gets that much.
    Buckets(u32),
}

/// The settings of one sliding window; also their builder. Checked in
/// [`SlidingWindowLayer::new`](crate::SlidingWindowLayer::new).
///
/// | field | default | why |
/// |---|---|---|
/// | `limit`, `window` | none | they are the promise, which only its owner knows |
/// | `algorithm` | [`DEFAULT_ALGORITHM`] | constant memory; the log where each refused call matters |
/// | `mode` | [`Mode::Enforce`] | a layer that was added should act |
///
/// # Example
/// ```
/// use seawall::sliding_window::{Algorithm, SlidingWindowConfig};
/// use std::time::Duration;
///
/// let config = SlidingWindowConfig::new("mail", 100, Duration::from_secs(3600)).algorithm(Algorithm::Log);
/// assert!(config.check().is_ok());
/// assert_eq!(config.algorithm(Algorithm::Buckets(0)).check().unwrap_err().field, "algorithm");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct SlidingWindowConfig {
    /// Labels metrics and refusals. Required, and bounded in number. Not changed live.
    pub name: String,
    /// The cost that is admitted in any window, in calls of cost 1: from 1 to [`MAX_LIMIT`], with the log to
    /// [`MAX_LOG_LIMIT`].
    pub limit: u32,
    /// How long a call weighs: one admitted at `t` has left at `t + window` and not a nanosecond before. From
    /// [`MIN_WINDOW`] to [`MAX_WINDOW`].
    pub window: Duration,
    /// How the calls of the last window are remembered. Default [`DEFAULT_ALGORITHM`]; buckets from 1 to [`MAX_BUCKETS`].
    /// Not changed live.
    #[cfg_attr(feature = "serde", serde(default = "default_algorithm"))]
    pub algorithm: Algorithm,
    /// Whether refusals happen. Default [`Mode::Enforce`].
    #[cfg_attr(feature = "serde", serde(default))]
    pub mode: Mode,
}

#[cfg(feature = "serde")]
const fn default_algorithm() -> Algorithm {
    DEFAULT_ALGORITHM
}

impl SlidingWindowConfig {
    /// At most `limit` calls in any `window`, under a name.
    pub fn new(name: impl Into<String>, limit: u32, window: Duration) -> Self {
        Self { name: name.into(), limit, window, algorithm: DEFAULT_ALGORITHM, mode: Mode::Enforce }
    }

    /// Sets [`limit`](Self::limit).
    #[must_use]
    pub fn limit(self, limit: u32) -> Self {
        Self { limit, ..self }
    }

    /// Sets [`window`](Self::window).
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        Self { window, ..self }
    }

    /// Sets [`algorithm`](Self::algorithm).
    #[must_use]
    pub fn algorithm(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }

    /// Sets [`mode`](Self::mode).
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Whether every value is within its bounds.
    ///
    /// # Errors
    /// [`InvalidConfig`] with the first field that is not.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if self.name.is_empty() {
            return Err(InvalidConfig::new("name", &self.name, "not empty"));
        }
        Setting::new(self.limit, self.window, self.algorithm).map(|_| ())
    }

    /// The part of the configuration that the core works with.
    ///
    /// # Errors
    /// As [`check`](Self::check), but for the name.
    pub fn setting(&self) -> Result<Setting, InvalidConfig> {
        Setting::new(self.limit, self.window, self.algorithm)
    }
}

/// A limit, its window and its algorithm, checked, in the numbers of the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub(crate) limit: u32,
    pub(crate) window_nanos: u64,
    /// The buckets of the window; 0 stands for the log.
    pub(crate) buckets: u32,
    /// Rounded up, so that the buckets of a window are never shorter than the window.
    pub(crate) bucket_nanos: u64,
}

impl Setting {
    /// At most `limit` in any `window`.
    ///
    /// # Errors
    /// The first of the three that is out of its bound.
    pub fn new(limit: u32, window: Duration, algorithm: Algorithm) -> Result<Self, InvalidConfig> {
        let (buckets, max, bound) = match algorithm {
            Algorithm::Log => (0, MAX_LOG_LIMIT, "from 1 to 1,048,576 with a log"),
            Algorithm::Buckets(buckets) => (buckets, MAX_LIMIT, "from 1 to 1,000,000,000"),
        };
        if limit == 0 || limit > max {
            return Err(InvalidConfig::new("limit", limit, bound));
        }
        if window < MIN_WINDOW || window > MAX_WINDOW {
            return Err(InvalidConfig::new("window", window, "from 1 ms to 366 days"));
        }
        if algorithm == Algorithm::Buckets(0) || buckets > MAX_BUCKETS {
            return Err(InvalidConfig::new("algorithm", algorithm, "with 1 to 1,000 buckets"));
        }
        let window_nanos = nanos(window);
        Ok(Self { limit, window_nanos, buckets, bucket_nanos: window_nanos.div_ceil(u64::from(buckets.max(1))) })
    }
}

/// The nanoseconds of `time`. More than 292 years are as good as never; what is added to an instant is a few windows at
/// most, so the other half of the range keeps every sum from overflow.
#[inline]
pub fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into()).min(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn bad_values_are_refused_with_their_field_and_bound() {
        let config = SlidingWindowConfig::new("mail", 100, SECOND);
        let refused = |config: SlidingWindowConfig| config.check().unwrap_err().to_string();
        assert_eq!(refused(SlidingWindowConfig::new("", 1, SECOND)), "name is \"\", but must be not empty");
        assert_eq!(refused(config.clone().limit(0)), "limit is 0, but must be from 1 to 1,000,000,000");
        assert_eq!(
            refused(config.clone().limit(MAX_LOG_LIMIT + 1).algorithm(Algorithm::Log)),
            "limit is 1048577, but must be from 1 to 1,048,576 with a log"
        );
        assert!(refused(config.clone().limit(MAX_LIMIT + 1)).starts_with("limit is 1000000001"));
        assert_eq!(refused(config.clone().window(Duration::ZERO)), "window is 0ns, but must be from 1 ms to 366 days");
        assert!(refused(config.clone().window(Duration::MAX)).starts_with("window is"));
        for buckets in [0, MAX_BUCKETS + 1, u32::MAX] {
            let refused = config.clone().algorithm(Algorithm::Buckets(buckets)).check().unwrap_err();
            assert_eq!((refused.field, refused.bound), ("algorithm", "with 1 to 1,000 buckets"));
        }
    }

    #[test]
    fn the_bounds_themselves_are_accepted() {
        for (limit, window, algorithm) in [
            (1, MIN_WINDOW, Algorithm::Buckets(MAX_BUCKETS)),
            (MAX_LIMIT, MAX_WINDOW, Algorithm::Buckets(1)),
            (MAX_LOG_LIMIT, MAX_WINDOW, Algorithm::Log),
        ] {
            let setting = Setting::new(limit, window, algorithm).unwrap();
            assert!(u64::from(setting.buckets) * setting.bucket_nanos >= setting.window_nanos || setting.buckets == 0);
        }
    }
}
