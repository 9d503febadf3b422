//! The settings of a circuit breaker, their defaults and their check.

use std::time::Duration;

use crate::error::InvalidConfig;
use crate::mode::Mode;

/// The window when nothing else is said: 10 s forget an outage soon after it ended, and hold
/// [`DEFAULT_MINIMUM_CALLS`] from 2 calls per second on.
pub const DEFAULT_WINDOW: Window = Window::Time(Duration::from_secs(10));
/// Below 20 calls one unlucky call moves the rate by more than 5 points.
pub const DEFAULT_MINIMUM_CALLS: u32 = 20;
/// A peer that fails every second call costs more, with retries, than it serves.
pub const DEFAULT_FAILURE_RATE: f64 = 0.5;
/// Every second call slow: with [`slow_after`](CircuitBreakerConfig::slow_after) set, as bad as every second one failed.
pub const DEFAULT_SLOW_RATE: f64 = 0.5;
/// Ten in a row are not chance at any failure rate worth calling healthy (at 10 %, once in 10¹⁰ calls), and they trip
/// a breaker with too little traffic for a rate.
pub const DEFAULT_CONSECUTIVE_FAILURES: u32 = 10;
/// The ceiling of the first open time: a restart takes about as long, and full jitter halves it on average.
pub const DEFAULT_OPEN_FOR: Duration = Duration::from_secs(5);
/// The ceiling of the last open time: a recovered peer idles a minute at most.
pub const DEFAULT_OPEN_MAX: Duration = Duration::from_secs(60);
/// Each failed round of probes doubles the ceiling.
pub const DEFAULT_OPEN_FACTOR: f64 = 2.0;
/// Full jitter, so that many clients of one peer do not return together.
pub const DEFAULT_JITTER: f64 = 1.0;
/// The longest wait a server may ask for: five minutes outlast a deployment, and a wrong hint still heals.
pub const DEFAULT_RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Closed this long, the next trip starts from [`open_for`](CircuitBreakerConfig::open_for) again.
pub const DEFAULT_STABLE_AFTER: Duration = Duration::from_secs(30);
/// Three trial calls let one unlucky call pass without letting a crowd in.
pub const DEFAULT_PROBES: u32 = 3;
/// Two of three.
pub const DEFAULT_PROBE_SUCCESS_RATE: f64 = 0.6;
/// Longer than the attempt timeout of most clients, so that it matters only where there is none.
pub const DEFAULT_PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest count window: one byte a call.
pub const MAX_WINDOW_CALLS: u32 = 1_000_000;
/// The shortest time window: a tenth of it is one bucket, and timers are no finer than a millisecond.
pub const MIN_WINDOW_TIME: Duration = Duration::from_millis(10);
/// The largest number of concurrent probes.
pub const MAX_PROBES: u32 = 1_000;
/// The longest of all durations here: 30 days; sums of time stay far from overflow.
pub const MAX_DURATION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What the failure and slow-call rates are taken over. Both kinds slide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Window {
    /// The last so many calls, however old.
    Calls(u32),
    /// The calls that ended in the last so long, counted in ten buckets: the window spans 0.9 to 1.0 of it.
    Time(Duration),
}

/// What a breaker does with callers while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum OnOpen {
    /// Stay ready and refuse each call with the time that remains. The default: a caller with one peer wants to know.
    #[default]
    Refuse,
    /// Be not ready, so that a balancer picks another endpoint. Not for a single peer: its callers would wait.
    NotReady,
}

/// What a call that was dropped before it answered says about the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum CancelPolicy {
    /// Nothing. The default: most callers cancel for reasons of their own.
    #[default]
    Neutral,
    /// A failure once it had run this long, so that a timeout outside the breaker can trip it.
    FailureAfter(Duration),
}

/// The settings of one circuit breaker; also their builder.
///
/// # Example
/// ```
/// use seawall::circuit_breaker::{CircuitBreakerConfig, Window};
/// use std::time::Duration;
///
/// let config = CircuitBreakerConfig::new("peer/2/data")
///     .window(Window::Calls(100))
///     .failure_rate(0.3)
///     .open_for(Duration::from_secs(1));
/// assert!(config.check().is_ok());
/// assert_eq!(config.failure_rate(1.5).check().unwrap_err().field, "failure_rate");
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default = "CircuitBreakerConfig::unnamed")
)]
#[non_exhaustive]
pub struct CircuitBreakerConfig {
    /// Labels metrics, logs and refusals. Required, and bounded in number: a peer, not a request. Not changed live.
    pub name: String,
    /// Whether refusals happen. Default [`Mode::Enforce`].
    pub mode: Mode,
    /// What the rates are taken over. Default [`DEFAULT_WINDOW`].
    pub window: Window,
    /// No rate trips before so many calls are in the window. Default [`DEFAULT_MINIMUM_CALLS`].
    pub minimum_calls: u32,
    /// Trips at this share of failed calls, above 0 up to 1; `None` switches the check off. Default
    /// [`DEFAULT_FAILURE_RATE`].
    pub failure_rate: Option<f64>,
    /// A call that took longer is slow, whatever its outcome, and a slow probe counts as failed. Default `None`: only
    /// the caller knows what is slow, and without it no clock is read for it.
    pub slow_after: Option<Duration>,
    /// Trips at this share of slow calls, above 0 up to 1. Default [`DEFAULT_SLOW_RATE`].
    pub slow_rate: f64,
    /// Trips at so many failures in a row; `None` switches the check off. Default [`DEFAULT_CONSECUTIVE_FAILURES`].
    pub consecutive_failures: Option<u32>,
    /// The ceiling of the first open time. Default [`DEFAULT_OPEN_FOR`].
    pub open_for: Duration,
    /// The ceiling of every open time. Default [`DEFAULT_OPEN_MAX`].
    pub open_max: Duration,
    /// What each failed round of probes multiplies the ceiling by, 1 to 10. Default [`DEFAULT_OPEN_FACTOR`].
    pub open_factor: f64,
    /// The share of the ceiling that is left to chance, 0 to 1: the open time is drawn from the last `jitter` of it.
    /// Default [`DEFAULT_JITTER`].
    pub jitter: f64,
    /// The longest open time that a server's `Retry-After` can ask for. Default [`DEFAULT_RETRY_AFTER_MAX`].
    pub retry_after_max: Duration,
    /// Closed at least this long, the open time starts small again. Default [`DEFAULT_STABLE_AFTER`].
    pub stable_after: Duration,
    /// How many trial calls decide in the half-open state, all at once if they come so. Default [`DEFAULT_PROBES`].
    pub probes: u32,
    /// Closes when this share of the probes succeeded, above 0 up to 1. Default [`DEFAULT_PROBE_SUCCESS_RATE`].
    pub probe_success_rate: f64,
    /// A probe without an answer for so long has failed. Default [`DEFAULT_PROBE_TIMEOUT`].
    pub probe_timeout: Duration,
    /// What happens to callers while open. Default [`OnOpen::Refuse`]. Not changed live.
    pub on_open: OnOpen,
    /// What a dropped call counts as. Default [`CancelPolicy::Neutral`].
    pub cancel: CancelPolicy,
    /// Whether `seawall_call_duration_seconds` tells how long calls take. Default `false`: it takes two readings of the clock
    /// for each call, one where slow calls are counted too, and as many series for each name as the recorder has buckets.
    pub durations: bool,
}

impl CircuitBreakerConfig {
    /// The defaults under `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::unnamed() }
    }

    /// The defaults without the name, which a configuration file must give: an empty one is refused.
    fn unnamed() -> Self {
        Self {
            name: String::new(),
            mode: Mode::Enforce,
            window: DEFAULT_WINDOW,
            minimum_calls: DEFAULT_MINIMUM_CALLS,
            failure_rate: Some(DEFAULT_FAILURE_RATE),
            slow_after: None,
            slow_rate: DEFAULT_SLOW_RATE,
            consecutive_failures: Some(DEFAULT_CONSECUTIVE_FAILURES),
            open_for: DEFAULT_OPEN_FOR,
            open_max: DEFAULT_OPEN_MAX,
            open_factor: DEFAULT_OPEN_FACTOR,
            jitter: DEFAULT_JITTER,
            retry_after_max: DEFAULT_RETRY_AFTER_MAX,
            stable_after: DEFAULT_STABLE_AFTER,
            probes: DEFAULT_PROBES,
            probe_success_rate: DEFAULT_PROBE_SUCCESS_RATE,
            probe_timeout: DEFAULT_PROBE_TIMEOUT,
            on_open: OnOpen::Refuse,
            cancel: CancelPolicy::Neutral,
            durations: false,
        }
    }

    /// Sets [`mode`](Self::mode).
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Sets [`window`](Self::window).
    #[must_use]
    pub fn window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// Sets [`minimum_calls`](Self::minimum_calls).
    #[must_use]
    pub fn minimum_calls(self, minimum_calls: u32) -> Self {
        Self { minimum_calls, ..self }
    }

    /// Sets [`failure_rate`](Self::failure_rate), or switches it off with `None`.
    #[must_use]
    pub fn failure_rate(self, rate: impl Into<Option<f64>>) -> Self {
        Self { failure_rate: rate.into(), ..self }
    }

    /// Trips at the share `rate` of calls that took longer than `after`.
    #[must_use]
    pub fn slow_calls(self, after: Duration, rate: f64) -> Self {
        Self { slow_after: Some(after), slow_rate: rate, ..self }
    }

    /// Sets [`consecutive_failures`](Self::consecutive_failures), or switches it off with `None`.
    #[must_use]
    pub fn consecutive_failures(self, count: impl Into<Option<u32>>) -> Self {
        Self { consecutive_failures: count.into(), ..self }
    }

    /// Sets [`open_for`](Self::open_for).
    #[must_use]
    pub fn open_for(self, open_for: Duration) -> Self {
        Self { open_for, ..self }
    }

    /// Sets [`open_max`](Self::open_max).
    #[must_use]
    pub fn open_max(self, open_max: Duration) -> Self {
        Self { open_max, ..self }
    }

    /// Sets [`open_factor`](Self::open_factor).
    #[must_use]
    pub fn open_factor(self, open_factor: f64) -> Self {
        Self { open_factor, ..self }
    }

    /// Sets [`jitter`](Self::jitter).
    #[must_use]
    pub fn jitter(self, jitter: f64) -> Self {
        Self { jitter, ..self }
    }

    /// Sets [`retry_after_max`](Self::retry_after_max).
    #[must_use]
    pub fn retry_after_max(self, retry_after_max: Duration) -> Self {
        Self { retry_after_max, ..self }
    }

    /// Sets [`stable_after`](Self::stable_after).
    #[must_use]
    pub fn stable_after(self, stable_after: Duration) -> Self {
        Self { stable_after, ..self }
    }

    /// Sets [`probes`](Self::probes).
    #[must_use]
    pub fn probes(self, probes: u32) -> Self {
        Self { probes, ..self }
    }

    /// Sets [`probe_success_rate`](Self::probe_success_rate).
    #[must_use]
    pub fn probe_success_rate(self, rate: f64) -> Self {
        Self { probe_success_rate: rate, ..self }
    }

    /// Sets [`probe_timeout`](Self::probe_timeout).
    #[must_use]
    pub fn probe_timeout(self, probe_timeout: Duration) -> Self {
        Self { probe_timeout, ..self }
    }

    /// Sets [`on_open`](Self::on_open).
    #[must_use]
    pub fn on_open(self, on_open: OnOpen) -> Self {
        Self { on_open, ..self }
    }

    /// Sets [`cancel`](Self::cancel).
    #[must_use]
    pub fn cancel(self, cancel: CancelPolicy) -> Self {
        Self { cancel, ..self }
    }

    /// Sets [`durations`](Self::durations).
    #[must_use]
    pub fn durations(self, durations: bool) -> Self {
        Self { durations, ..self }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its bound.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if self.name.is_empty() {
            return Err(InvalidConfig::new("name", &self.name, "a non-empty name"));
        }
        match self.window {
            Window::Calls(calls) => {
                number("window", calls, MAX_WINDOW_CALLS, "1 to 1000000 calls")?;
                if self.minimum_calls > calls {
                    return Err(InvalidConfig::new(
                        "minimum_calls",
                        self.minimum_calls,
                        "no more than the window holds",
                    ));
                }
            }
            Window::Time(time) if !(MIN_WINDOW_TIME..=MAX_DURATION).contains(&time) => {
                return Err(InvalidConfig::new("window", time, "10 ms to 30 days"));
            }
            Window::Time(_) => {}
        }
        number("minimum_calls", self.minimum_calls, u32::MAX, "at least 1")?;
        rate("failure_rate", self.failure_rate.unwrap_or(1.0))?;
        duration("slow_after", self.slow_after.unwrap_or(MAX_DURATION))?;
        rate("slow_rate", self.slow_rate)?;
        number("consecutive_failures", self.consecutive_failures.unwrap_or(1), u32::MAX, "at least 1")?;
        duration("open_for", self.open_for)?;
        duration("open_max", self.open_max)?;
        if self.open_max < self.open_for {
            return Err(InvalidConfig::new("open_max", self.open_max, "no less than open_for"));
        }
        if !(1.0..=10.0).contains(&self.open_factor) {
            return Err(InvalidConfig::new("open_factor", self.open_factor, "1 to 10"));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(InvalidConfig::new("jitter", self.jitter, "0 to 1"));
        }
        if self.retry_after_max > MAX_DURATION {
            return Err(InvalidConfig::new("retry_after_max", self.retry_after_max, "at most 30 days"));
        }
        number("probes", self.probes, MAX_PROBES, "1 to 1000")?;
        rate("probe_success_rate", self.probe_success_rate)?;
        duration("probe_timeout", self.probe_timeout)
    }

    /// Whether admission must know when a call began.
    pub(crate) fn times_calls(&self) -> bool {
        self.slow_after.is_some() || self.durations || matches!(self.cancel, CancelPolicy::FailureAfter(_))
    }

    /// The smallest number of successful probes whose share reaches the success rate.
    pub(crate) fn probes_needed(&self) -> u32 {
        let share = |count: u32| f64::from(count) / f64::from(self.probes);
        // The product may round up past a share that is met exactly; division rounds to what the user wrote.
        let near = (self.probe_success_rate * f64::from(self.probes)).ceil() as u32;
        if near > 1 && share(near - 1) >= self.probe_success_rate { near - 1 } else { near.clamp(1, self.probes) }
    }
}

fn number(field: &'static str, value: u32, max: u32, bound: &'static str) -> Result<(), InvalidConfig> {
    if (1..=max).contains(&value) { Ok(()) } else { Err(InvalidConfig::new(field, value, bound)) }
}

fn rate(field: &'static str, value: f64) -> Result<(), InvalidConfig> {
    if value > 0.0 && value <= 1.0 { Ok(()) } else { Err(InvalidConfig::new(field, value, "above 0 and at most 1")) }
}

fn duration(field: &'static str, value: Duration) -> Result<(), InvalidConfig> {
    let fits = value > Duration::ZERO && value <= MAX_DURATION;
    if fits { Ok(()) } else { Err(InvalidConfig::new(field, value, "above 0 and at most 30 days")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(CircuitBreakerConfig::new("peer").check(), Ok(()));
    }

    #[test]
    fn a_bad_value_is_refused_by_field() {
        let ok = || CircuitBreakerConfig::new("peer");
        let zero = Duration::ZERO;
        for (field, config) in [
            ("name", CircuitBreakerConfig::new("")),
            ("window", ok().window(Window::Calls(0))),
            ("window", ok().window(Window::Time(Duration::from_millis(1)))),
            ("minimum_calls", ok().minimum_calls(0)),
            ("minimum_calls", ok().window(Window::Calls(10)).minimum_calls(11)),
            ("failure_rate", ok().failure_rate(0.0)),
            ("failure_rate", ok().failure_rate(f64::NAN)),
            ("slow_after", ok().slow_calls(zero, 0.5)),
            ("slow_rate", ok().slow_calls(Duration::from_secs(1), 1.1)),
            ("consecutive_failures", ok().consecutive_failures(0)),
            ("open_for", ok().open_for(zero)),
            ("open_max", ok().open_max(zero)),
            ("open_max", ok().open_for(Duration::from_secs(2)).open_max(Duration::from_secs(1))),
            ("open_factor", ok().open_factor(0.5)),
            ("jitter", ok().jitter(1.5)),
            ("retry_after_max", ok().retry_after_max(Duration::MAX)),
            ("probes", ok().probes(0)),
            ("probe_success_rate", ok().probe_success_rate(0.0)),
            ("probe_timeout", ok().probe_timeout(zero)),
        ] {
            assert_eq!(config.check().map_err(|error| error.field), Err(field));
        }
    }

    #[test]
    fn probes_needed_is_the_least_count_that_reaches_the_rate() {
        for (probes, rate, needed) in
            [(1, 0.5, 1), (3, 0.6, 2), (3, 1.0, 3), (10, 0.7, 7), (100, 0.07, 7), (5, 0.01, 1)]
        {
            let config = CircuitBreakerConfig::new("peer").probes(probes).probe_success_rate(rate);
            assert_eq!(config.probes_needed(), needed, "{rate} of {probes}");
        }
    }
}
