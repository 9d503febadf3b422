//! What can be set, and within which bounds.

use std::time::Duration;

use crate::error::{InvalidConfig, Limit};
use crate::mode::Mode;

/// How long a call may take. Checked in [`TimeoutLayer::new`](crate::TimeoutLayer::new).
///
/// There is no default limit: how long an answer is worth waiting for is known to the caller only.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use seawall::{TimeoutConfig, TimeoutScope};
///
/// let config = TimeoutConfig::total("peer", Duration::from_secs(2));
/// assert_eq!(config.scope, TimeoutScope::Total);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct TimeoutConfig {
    /// Labels metrics and errors. No default: two layers that cannot be told apart cannot be watched.
    pub name: String,
    /// The longest a call may take, from `call` to its result; from [`MIN_LIMIT`] to [`MAX_LIMIT`]. No default.
    pub limit: Duration,
    /// Whether the layer stands around one attempt or around the whole call; the error says which. No default.
    pub scope: TimeoutScope,
    /// Default: [`Mode::Enforce`]. In [`Mode::Observe`] late calls are counted when they end and nothing is cut or refused;
    /// in that mode and in [`Mode::Disabled`] what is below does not see the limit.
    #[cfg_attr(feature = "serde", serde(default))]
    pub mode: Mode,
    /// Whether `seawall_call_duration_seconds` tells how long calls take. Default `false`: it takes a reading of the clock at
    /// the end of each call, and as many series for each name as the recorder has buckets.
    #[cfg_attr(feature = "serde", serde(default))]
    pub durations: bool,
}

/// What a timeout layer stands around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum TimeoutScope {
    /// One attempt: the layer is inside of the retries.
    Attempt,
    /// The whole call: the layer is outside of the retries.
    Total,
}

impl TimeoutConfig {
    /// At most `limit` for each attempt.
    pub fn attempt(name: impl Into<String>, limit: Duration) -> Self {
        Self::new(name.into(), limit, TimeoutScope::Attempt)
    }

    /// At most `limit` for the whole call, its retries included.
    pub fn total(name: impl Into<String>, limit: Duration) -> Self {
        Self::new(name.into(), limit, TimeoutScope::Total)
    }

    fn new(name: String, limit: Duration, scope: TimeoutScope) -> Self {
        Self { name, limit, scope, mode: Mode::Enforce, durations: false }
    }

    /// Whether late calls are cut, counted or ignored.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
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
        if self.limit < MIN_LIMIT || self.limit > MAX_LIMIT {
            return Err(InvalidConfig::new("limit", self.limit, "from 1 µs to 35 years"));
        }
        Ok(())
    }
}

/// Shorter than any call: almost certainly a number with the wrong unit.
pub const MIN_LIMIT: Duration = Duration::from_micros(1);
/// Longer than any process lives; the nanoseconds share a word with the other settings.
pub const MAX_LIMIT: Duration = Duration::from_secs(35 * 365 * 24 * 60 * 60);

impl TimeoutScope {
    pub(super) const fn limit(self) -> Limit {
        match self {
            Self::Attempt => Limit::Attempt,
            Self::Total => Limit::Total,
        }
    }
}

/// What a call needs to know, in one word, so that a call sees all of an update or nothing of it without a lock:
/// the limit in nanoseconds in the upper 60 bits, then one for durations, two for the mode and one for the scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) limit_nanos: u64,
    pub(super) scope: TimeoutScope,
    pub(super) mode: Mode,
    pub(super) durations: bool,
}

impl Setting {
    pub(super) const fn pack(config: &TimeoutConfig) -> u64 {
        let scope = match config.scope {
            TimeoutScope::Attempt => 0,
            TimeoutScope::Total => 1,
        };
        let mode = match config.mode {
            Mode::Enforce => 0,
            Mode::Observe => 1,
            Mode::Disabled => 2,
        };
        // 35 years are less than 2⁶⁰ ns, which is 36.
        (config.limit.as_nanos() as u64) << 4 | (config.durations as u64) << 3 | mode << 1 | scope
    }

    pub(super) const fn unpack(word: u64) -> Self {
        Self {
            limit_nanos: word >> 4,
            scope: if word & 1 == 0 { TimeoutScope::Attempt } else { TimeoutScope::Total },
            mode: match word >> 1 & 3 {
                0 => Mode::Enforce,
                1 => Mode::Observe,
                _ => Mode::Disabled,
            },
            durations: word >> 3 & 1 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_survives_its_word() {
        for limit in [MIN_LIMIT, Duration::from_millis(250), Duration::from_secs(1), MAX_LIMIT] {
            for scope in [TimeoutScope::Attempt, TimeoutScope::Total] {
                for mode in [Mode::Enforce, Mode::Observe, Mode::Disabled] {
                    for durations in [false, true] {
                        let config = TimeoutConfig { name: "n".into(), limit, scope, mode, durations };
                        assert_eq!(config.check(), Ok(()));
                        let setting = Setting { limit_nanos: limit.as_nanos() as u64, scope, mode, durations };
                        assert_eq!(Setting::unpack(Setting::pack(&config)), setting);
                    }
                }
            }
        }
    }

    #[test]
    fn bad_values_are_refused_with_their_field() {
        let field = |config: TimeoutConfig| config.check().unwrap_err().field;
        assert_eq!(field(TimeoutConfig::attempt("", Duration::from_secs(1))), "name");
        assert_eq!(field(TimeoutConfig::attempt("peer", Duration::ZERO)), "limit");
        assert_eq!(field(TimeoutConfig::total("peer", Duration::MAX)), "limit");
    }
}
