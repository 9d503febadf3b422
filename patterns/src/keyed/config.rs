//! The settings of the limits for each key, their defaults and their check.

use std::time::Duration;

use crate::error::InvalidConfig;
use crate::mode::Mode;
use crate::sliding_window::{self, Algorithm, DEFAULT_ALGORITHM};
use crate::token_bucket::{self, Rate};

/// More clients than most services hear from within a minute, in a few megabytes; see the table in the
/// [module](super).
pub const DEFAULT_MAX_KEYS: u32 = 100_000;
/// The largest number of keys.
pub const MAX_KEYS: u32 = 10_000_000;
/// The largest limit of a log for each key: 8 KiB a key.
pub const MAX_LOG_PER_KEY: u32 = 1_024;

/// A limit, without the state: of each key, or of all together.
///
/// # Example
/// ```
/// use seawall::keyed::Quota;
/// use seawall::token_bucket::Rate;
/// use std::time::Duration;
///
/// let smooth = Quota::token_bucket(Rate::per_second(10), 20);
/// let sold = Quota::sliding_window(1000, Duration::from_secs(3600));
/// assert_ne!(smooth, sold);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
#[non_exhaustive]
pub enum Quota {
    /// A rate with a burst; see [`token_bucket`](crate::token_bucket). 8 bytes a key.
    TokenBucket {
        /// How fast the bucket fills.
        rate: Rate,
        /// How many tokens it holds.
        burst: u32,
    },
    /// At most so many in any window; see [`sliding_window`](crate::sliding_window). Its ring for each key.
    SlidingWindow {
        /// The cost that is admitted in any window.
        limit: u32,
        /// How long a call weighs.
        window: Duration,
        /// How the calls of the last window are remembered. Default
        /// [`sliding_window::DEFAULT_ALGORITHM`](crate::sliding_window::DEFAULT_ALGORITHM).
        #[cfg_attr(feature = "serde", serde(default = "default_algorithm"))]
        algorithm: Algorithm,
    },
}

#[cfg(feature = "serde")]
const fn default_algorithm() -> Algorithm {
    DEFAULT_ALGORITHM
}

/// The settings of the limits for each key; also their builder. Checked in [`KeyedLayer::new`](crate::KeyedLayer::new).
///
/// | field | default | why |
/// |---|---|---|
/// | `per_key` | none | what one client may do, only the owner knows |
/// | `global` | none | many do without |
/// | `max_keys` | [`DEFAULT_MAX_KEYS`] | bounded, whoever calls |
/// | `mode` | [`Mode::Enforce`] | a layer that was added should act |
///
/// # Example
/// ```
/// use seawall::keyed::{KeyedConfig, Quota};
/// use seawall::token_bucket::Rate;
///
/// let config = KeyedConfig::new("clients", Quota::token_bucket(Rate::per_second(10), 20))
///     .global(Quota::token_bucket(Rate::per_second(5_000), 500))
///     .max_keys(20_000);
/// assert!(config.check().is_ok());
/// assert_eq!(config.max_keys(0).check().unwrap_err().field, "max_keys");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct KeyedConfig {
    /// Labels metrics and refusals. Required, and bounded in number. Not changed live.
    pub name: String,
    /// The limit of each key by itself. Its kind, and the algorithm of a window, are not changed live.
    pub per_key: Quota,
    /// The limit of all keys together, of the same kind. Default `None`. Whether there is one is not changed live.
    #[cfg_attr(feature = "serde", serde(default))]
    pub global: Option<Quota>,
    /// How many keys may have something to account for at the same time, from 1 to [`MAX_KEYS`]. Default
    /// [`DEFAULT_MAX_KEYS`].
    #[cfg_attr(feature = "serde", serde(default = "default_max_keys"))]
    pub max_keys: u32,
    /// Whether refusals happen. Default [`Mode::Enforce`].
    #[cfg_attr(feature = "serde", serde(default))]
    pub mode: Mode,
}

#[cfg(feature = "serde")]
const fn default_max_keys() -> u32 {
    DEFAULT_MAX_KEYS
}

impl Quota {
    /// A bucket of `burst` tokens that fills at `rate`.
    pub const fn token_bucket(rate: Rate, burst: u32) -> Self {
        Self::TokenBucket { rate, burst }
    }

    /// At most `limit` in any `window`, counted by [`DEFAULT_ALGORITHM`](crate::sliding_window::DEFAULT_ALGORITHM).
    pub const fn sliding_window(limit: u32, window: Duration) -> Self {
        Self::SlidingWindow { limit, window, algorithm: DEFAULT_ALGORITHM }
    }

    /// The same in the numbers of its core.
    fn setting(self) -> Result<Setting, InvalidConfig> {
        Ok(match self {
            Self::TokenBucket { rate, burst } => {
                token_bucket::check_rate(rate, burst)?;
                Setting::TokenBucket(token_bucket::Setting::new(rate, burst))
            }
            Self::SlidingWindow { limit, window, algorithm } => {
                Setting::SlidingWindow(sliding_window::Setting::new(limit, window, algorithm)?)
            }
        })
    }
}

/// A checked quota.
#[derive(Debug, Clone, Copy)]
pub(super) enum Setting {
    TokenBucket(token_bucket::Setting),
    SlidingWindow(sliding_window::Setting),
}

/// What all keys have in common, checked, and of one kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Settings {
    TokenBucket(token_bucket::Setting, Option<token_bucket::Setting>),
    SlidingWindow(sliding_window::Setting, Option<sliding_window::Setting>),
}

impl KeyedConfig {
    /// A limit for each key, the rest at its default, under `name`.
    pub fn new(name: impl Into<String>, per_key: Quota) -> Self {
        Self { name: name.into(), per_key, global: None, max_keys: DEFAULT_MAX_KEYS, mode: Mode::Enforce }
    }

    /// Sets [`per_key`](Self::per_key).
    #[must_use]
    pub fn per_key(self, per_key: Quota) -> Self {
        Self { per_key, ..self }
    }

    /// Sets [`global`](Self::global), or does without by `None`.
    #[must_use]
    pub fn global(self, global: impl Into<Option<Quota>>) -> Self {
        Self { global: global.into(), ..self }
    }

    /// Sets [`max_keys`](Self::max_keys).
    #[must_use]
    pub fn max_keys(self, max_keys: u32) -> Self {
        Self { max_keys, ..self }
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
        self.settings().map(|_| ())
    }

    /// The limits in the numbers of their core.
    pub(super) fn settings(&self) -> Result<Settings, InvalidConfig> {
        if self.name.is_empty() {
            return Err(InvalidConfig::new("name", &self.name, "not empty"));
        }
        if !(1..=MAX_KEYS).contains(&self.max_keys) {
            return Err(InvalidConfig::new("max_keys", self.max_keys, "from 1 to 10,000,000"));
        }
        match self.per_key {
            Quota::SlidingWindow { limit, algorithm: Algorithm::Log, .. } if limit > MAX_LOG_PER_KEY => {
                return Err(InvalidConfig::new("per_key", self.per_key, "with at most 1,024 in a log for each key"));
            }
            _ => {}
        }
        let own = self.per_key.setting().map_err(|error| within("per_key", error))?;
        let global = self.global.map(Quota::setting).transpose().map_err(|error| within("global", error))?;
        match (own, global) {
            (Setting::TokenBucket(own), None) => Ok(Settings::TokenBucket(own, None)),
            (Setting::SlidingWindow(own), None) => Ok(Settings::SlidingWindow(own, None)),
            (Setting::TokenBucket(own), Some(Setting::TokenBucket(all))) => Ok(Settings::TokenBucket(own, Some(all))),
            (Setting::SlidingWindow(own), Some(Setting::SlidingWindow(all))) => {
                Ok(Settings::SlidingWindow(own, Some(all)))
            }
            _ => Err(InvalidConfig::new("global", self.global, "of the same kind as per_key")),
        }
    }

    /// Whether `self` can take the place of `former` while keys are counted.
    pub(super) fn follows(&self, former: &Self) -> Result<(), InvalidConfig> {
        if self.name != former.name {
            return Err(InvalidConfig::new("name", &self.name, "the name it was made with"));
        }
        if kind(self.per_key) != kind(former.per_key) {
            return Err(InvalidConfig::new("per_key", self.per_key, "of the kind and algorithm it was made with"));
        }
        if self.global.map(kind) != former.global.map(kind) {
            return Err(InvalidConfig::new("global", self.global, "there or not, and of the kind, as it was made"));
        }
        Ok(())
    }
}

/// What of a quota stays as it was made: `None` for a bucket.
fn kind(quota: Quota) -> Option<Algorithm> {
    match quota {
        Quota::TokenBucket { .. } => None,
        Quota::SlidingWindow { algorithm, .. } => Some(algorithm),
    }
}

/// An error of a field of the quota in `field`.
fn within(field: &'static str, error: InvalidConfig) -> InvalidConfig {
    InvalidConfig { field, value: format!("a quota whose {} is {}", error.field, error.value), bound: error.bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn bad_values_are_refused_with_their_field_and_bound() {
        let bucket = Quota::token_bucket(Rate::per_second(10), 20);
        let window = Quota::sliding_window(10, SECOND);
        let log = |limit| Quota::SlidingWindow { limit, window: SECOND, algorithm: Algorithm::Log };
        let config = || KeyedConfig::new("clients", bucket);
        assert_eq!(config().check(), Ok(()));
        assert_eq!(config().global(bucket).max_keys(MAX_KEYS).check(), Ok(()));
        assert_eq!(config().per_key(log(MAX_LOG_PER_KEY)).global(log(MAX_LOG_PER_KEY + 1)).check(), Ok(()));
        for (field, config) in [
            ("name", KeyedConfig::new("", bucket)),
            ("max_keys", config().max_keys(0)),
            ("max_keys", config().max_keys(MAX_KEYS + 1)),
            ("per_key", config().per_key(log(MAX_LOG_PER_KEY + 1))),
            ("per_key", config().per_key(Quota::token_bucket(Rate::per_second(0), 1))),
            ("per_key", config().per_key(Quota::sliding_window(0, SECOND))),
            ("global", config().global(Quota::token_bucket(Rate::per_second(1), 0))),
            ("global", config().global(window)),
            ("global", config().per_key(window).global(bucket)),
        ] {
            assert_eq!(config.check().unwrap_err().field, field, "{config:?}");
        }
        assert_eq!(
            config().per_key(Quota::sliding_window(0, SECOND)).check().unwrap_err().to_string(),
            "per_key is a quota whose limit is 0, but must be from 1 to 1,000,000,000"
        );
    }
}
