//! The settings of a token bucket, their defaults and their check.

use std::time::Duration;

use crate::error::InvalidConfig;
use crate::mode::{Mode, Waiting};

/// Nobody waits: a caller that is told when to come back can decide better than a queue can.
pub const DEFAULT_MAX_WAITING: u32 = 0;
/// Where a queue is wanted, a second in it is as long as an interactive caller has patience for.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(1);

/// The fastest rate is one token a nanosecond, the grain of the clock. Limit bytes by the kilobyte where that is too slow.
pub const MAX_TOKENS_PER_NANOSECOND: u32 = 1;
/// The slowest rate is counted over 30 days; sums of time stay far from overflow.
pub const MAX_PER: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// An empty bucket is full again after 30 days at most, for the same reason.
pub const MAX_FILL: Duration = MAX_PER;
/// The longest queue, 2²⁰: its places are allocated from the start, some 80 bytes each.
pub const MAX_WAITING: u32 = 1 << 20;

/// So many tokens in so much time: exact, also where one token takes a fraction of a nanosecond more than a whole number.
///
/// # Example
/// ```
/// use seawall::token_bucket::Rate;
/// use std::time::Duration;
///
/// assert_eq!(Rate::per_second(3), Rate::new(3, Duration::from_secs(1)));
/// assert_eq!(Rate::every(Duration::from_millis(5)), Rate::new(1, Duration::from_millis(5)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Rate {
    /// How many tokens; at least 1.
    pub tokens: u32,
    /// In how much time; above 0, up to [`MAX_PER`].
    pub per: Duration,
}

impl Rate {
    /// `tokens` in every `per`.
    pub const fn new(tokens: u32, per: Duration) -> Self {
        Self { tokens, per }
    }

    /// `tokens` a second.
    pub const fn per_second(tokens: u32) -> Self {
        Self::new(tokens, Duration::from_secs(1))
    }

    /// `tokens` a minute.
    pub const fn per_minute(tokens: u32) -> Self {
        Self::new(tokens, Duration::from_secs(60))
    }

    /// One token every `period`.
    pub const fn every(period: Duration) -> Self {
        Self::new(1, period)
    }
}

/// The settings of one token bucket; also their builder.
///
/// # Example
/// ```
/// use seawall::token_bucket::{Rate, TokenBucketConfig};
///
/// let config = TokenBucketConfig::new("search", Rate::per_second(200), 50);
/// assert!(config.check().is_ok());
/// assert_eq!(config.burst(0).check().unwrap_err().field, "burst");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct TokenBucketConfig {
    /// Labels metrics, logs and refusals. Required, and bounded in number: a peer, not a request. Not changed live.
    pub name: String,
    /// Whether refusals happen. Default [`Mode::Enforce`].
    #[cfg_attr(feature = "serde", serde(default))]
    pub mode: Mode,
    /// How fast the bucket fills. Required: only the caller knows what the peer stands.
    pub rate: Rate,
    /// How many tokens the bucket holds, and what one call may cost at most; at least 1. Required: a burst that nobody
    /// chose is the commonest surprise in a rate limiter.
    pub burst: u32,
    /// How many calls may wait for tokens, up to [`MAX_WAITING`]; 0 refuses at once. Default [`DEFAULT_MAX_WAITING`].
    #[cfg_attr(feature = "serde", serde(default = "default_max_waiting"))]
    pub max_waiting: u32,
    /// A call that would wait longer is refused, at once; above 0 up to [`MAX_PER`]. Default [`DEFAULT_MAX_WAIT`].
    #[cfg_attr(feature = "serde", serde(default = "default_max_wait"))]
    pub max_wait: Duration,
    /// Where callers of the layer wait. In readiness one token is reserved for each service that is ready. Default
    /// [`Waiting::InCall`]. Not changed live.
    #[cfg_attr(feature = "serde", serde(default))]
    pub waiting: Waiting,
}

impl TokenBucketConfig {
    /// A bucket of `burst` tokens that fills at `rate`, the rest at its default, under `name`.
    pub fn new(name: impl Into<String>, rate: Rate, burst: u32) -> Self {
        Self {
            name: name.into(),
            mode: Mode::Enforce,
            rate,
            burst,
            max_waiting: DEFAULT_MAX_WAITING,
            max_wait: DEFAULT_MAX_WAIT,
            waiting: Waiting::InCall,
        }
    }

    /// Sets [`mode`](Self::mode).
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Sets [`rate`](Self::rate).
    #[must_use]
    pub fn rate(self, rate: Rate) -> Self {
        Self { rate, ..self }
    }

    /// Sets [`burst`](Self::burst).
    #[must_use]
    pub fn burst(self, burst: u32) -> Self {
        Self { burst, ..self }
    }

    /// Sets [`max_waiting`](Self::max_waiting).
    #[must_use]
    pub fn max_waiting(self, max_waiting: u32) -> Self {
        Self { max_waiting, ..self }
    }

    /// Sets [`max_wait`](Self::max_wait).
    #[must_use]
    pub fn max_wait(self, max_wait: Duration) -> Self {
        Self { max_wait, ..self }
    }

    /// Sets [`waiting`](Self::waiting).
    #[must_use]
    pub fn waiting(self, waiting: Waiting) -> Self {
        Self { waiting, ..self }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its bound.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if self.name.is_empty() {
            return Err(InvalidConfig::new("name", &self.name, "a non-empty name"));
        }
        check_rate(self.rate, self.burst)?;
        if self.max_waiting > MAX_WAITING {
            return Err(InvalidConfig::new("max_waiting", self.max_waiting, "at most 1048576"));
        }
        if self.max_wait.is_zero() || self.max_wait > MAX_PER {
            return Err(InvalidConfig::new("max_wait", self.max_wait, "above 0 and at most 30 days"));
        }
        Ok(())
    }
}

/// Checks what the arithmetic needs.
///
/// # Errors
/// As [`TokenBucketConfig::check`], of `rate` and `burst`.
pub fn check_rate(rate: Rate, burst: u32) -> Result<(), InvalidConfig> {
    let bad = |bound| Err(InvalidConfig::new("rate", rate, bound));
    if rate.tokens == 0 {
        return bad("at least 1 token");
    }
    if rate.per.is_zero() || rate.per > MAX_PER {
        return bad("counted over a time above 0 and at most 30 days");
    }
    if rate.per.as_nanos() * u128::from(MAX_TOKENS_PER_NANOSECOND) < u128::from(rate.tokens) {
        return bad("at most 1 token a nanosecond");
    }
    if burst == 0 {
        return Err(InvalidConfig::new("burst", burst, "at least 1"));
    }
    // burst / (tokens / per) ≤ MAX_FILL, multiplied out.
    if rate.per.as_nanos() * u128::from(burst) > MAX_FILL.as_nanos() * u128::from(rate.tokens) {
        return Err(InvalidConfig::new("burst", burst, "at most what the rate gives in 30 days"));
    }
    Ok(())
}

#[cfg(feature = "serde")]
const fn default_max_waiting() -> u32 {
    DEFAULT_MAX_WAITING
}

#[cfg(feature = "serde")]
const fn default_max_wait() -> Duration {
    DEFAULT_MAX_WAIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extremes_are_valid() {
        let nano = Duration::from_nanos(1);
        for (rate, burst) in [
            (Rate::per_second(1_000_000_000), u32::MAX),
            (Rate::new(1, nano), 1),
            (Rate::every(MAX_PER), 1),
            (Rate::new(u32::MAX, MAX_PER), u32::MAX),
        ] {
            assert_eq!(TokenBucketConfig::new("peer", rate, burst).check(), Ok(()));
        }
    }

    #[test]
    fn a_bad_value_is_refused_by_field() {
        let ok = || TokenBucketConfig::new("peer", Rate::per_second(10), 5);
        let nano = Duration::from_nanos(1);
        for (field, value, config) in [
            ("name", "\"\"", TokenBucketConfig { name: String::new(), ..ok() }),
            ("rate", "Rate { tokens: 0, per: 1s }", ok().rate(Rate::per_second(0))),
            ("rate", "Rate { tokens: 1, per: 0ns }", ok().rate(Rate::every(Duration::ZERO))),
            ("rate", "Rate { tokens: 2, per: 1ns }", ok().rate(Rate::new(2, nano))),
            ("rate", "Rate { tokens: 1, per: 2592000.000000001s }", ok().rate(Rate::every(MAX_PER + nano))),
            ("burst", "0", ok().burst(0)),
            ("burst", "2", ok().rate(Rate::every(MAX_PER)).burst(2)),
            ("max_waiting", "1048577", ok().max_waiting(MAX_WAITING + 1)),
            ("max_wait", "0ns", ok().max_wait(Duration::ZERO)),
            ("max_wait", "2592000.000000001s", ok().max_wait(MAX_PER + nano)),
        ] {
            let error = config.check().unwrap_err();
            assert_eq!((error.field, &*error.value), (field, value));
        }
    }
}
