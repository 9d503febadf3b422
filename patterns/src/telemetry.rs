//! Metrics and logs of all patterns, and the only place that knows whether they are compiled in.
//!
//! Patterns always hold these types and call them; without the feature they are empty and the calls fold away.
//! Handles are resolved when a layer or handle is made: install the recorder before, or call `rebind_metrics()` after.
//!
//! | metric | labels |
//! |---|---|
//! | `seawall_calls_total` | `pattern`, `name`, `outcome` (success, failure, neutral, rejected), `reason` (empty unless rejected) |
//! | `seawall_circuit_breaker_state` | `name`, `state`: 1 for the state it is in, 0 for the others |
//! | `seawall_circuit_breaker_transitions_total` | `name`, `from`, `to`, `cause` |
//! | `seawall_in_flight`, `seawall_limit`, `seawall_queue_depth`, `seawall_queue_wait_seconds` | `pattern`, `name` |
//! | `seawall_call_duration_seconds` | `pattern`, `name`; there only where the configuration asks for `durations` |

#![cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody asks for the help texts"))]

#[cfg(all(test, feature = "metrics"))]
pub(crate) mod told;

use std::fmt;
use std::time::Duration;

use crate::circuit_breaker::{State, Transition};
use crate::counts::Ended;
use crate::error::Reason;

/// What each metric tells, for the page that a scraper reads. Every name in use must be here.
const HELP: [(&str, &str); 13] = [
    (
        "seawall_calls_total",
        "Calls through a layer, by outcome; a rejected call was never made, unless the layer only observes",
    ),
    ("seawall_call_duration_seconds", "How long admitted calls took, whatever came of them"),
    ("seawall_circuit_breaker_state", "1 for the state the circuit breaker is in, 0 for the others"),
    ("seawall_circuit_breaker_transitions_total", "Changes of state of a circuit breaker, by cause"),
    ("seawall_retry_attempts_total", "Retries that were sent, by the number of the attempt"),
    ("seawall_retry_gave_up_total", "Calls that would have been tried again, by what stopped them"),
    ("seawall_retry_budget_balance", "Retries that the budget allows right now"),
    ("seawall_in_flight", "Calls that were admitted and have not ended"),
    ("seawall_limit", "Units that may be in use at once"),
    ("seawall_rate_limit_keys", "Keys that a keyed limit has stored"),
    ("seawall_rate_limit_available", "What a rate limit would admit right now"),
    ("seawall_queue_depth", "Calls that wait for their turn"),
    ("seawall_queue_wait_seconds", "How long calls waited for their turn, whatever came of it"),
];

fn help(name: &str) -> &'static str {
    HELP.iter().find(|(known, _)| *known == name).map_or("", |(_, help)| help)
}

/// The labels of one metric.
pub(crate) type Labels<'a> = &'a [(&'static str, &'a str)];

/// A count that only grows.
#[derive(Clone, Default)]
pub(crate) struct Counter(imp::Counter);

impl Counter {
    /// The counter called `name` with these labels, registered now.
    pub(crate) fn new(name: &'static str, labels: Labels<'_>) -> Self {
        Self(imp::counter(name, labels))
    }

    pub(crate) fn increment(&self, by: u64) {
        imp::increment(&self.0, by);
    }
}

/// A value that goes up and down.
#[derive(Clone, Default)]
pub(crate) struct Gauge(imp::Gauge);

impl Gauge {
    /// The gauge called `name` with these labels, registered now.
    pub(crate) fn new(name: &'static str, labels: Labels<'_>) -> Self {
        Self(imp::gauge(name, labels))
    }

    pub(crate) fn set(&self, value: f64) {
        imp::set(&self.0, value);
    }

    /// Adds to the value, or takes from it.
    pub(crate) fn add(&self, by: f64) {
        imp::add(&self.0, by);
    }
}

/// A gauge that is told now and then by those who pass, because its value changes with every call and finding it out costs.
/// Without metrics it is nothing.
pub(crate) struct Glimpse(imp::Glimpse);

impl Glimpse {
    /// `gauge` is due at once.
    pub(crate) fn new(gauge: Gauge) -> Self {
        Self(imp::Glimpse::new(gauge))
    }

    /// Tells the gauge if it is due at `now`: `look` says its value, and for how long that will do.
    #[inline(always)] // as the admission of a rate, of which it is a part
    pub(crate) fn pass(&self, now: Duration, look: impl FnOnce(Duration) -> (f64, Duration)) {
        if self.0.is_due(now) {
            self.tell(now, look);
        }
    }

    /// Tells the gauge whether it is due or not.
    #[cold]
    pub(crate) fn tell(&self, now: Duration, look: impl FnOnce(Duration) -> (f64, Duration)) {
        self.0.tell(None, now, look);
    }

    /// Replaces the gauge, and tells the new one.
    pub(crate) fn rebind(&self, gauge: Gauge, now: Duration, look: impl FnOnce(Duration) -> (f64, Duration)) {
        self.0.tell(Some(gauge), now, look);
    }
}

/// A distribution of durations in seconds.
#[derive(Clone, Default)]
pub(crate) struct Histogram(imp::Histogram);

impl Histogram {
    /// The histogram called `name` with these labels, registered now.
    pub(crate) fn new(name: &'static str, labels: Labels<'_>) -> Self {
        Self(imp::histogram(name, labels))
    }

    pub(crate) fn record(&self, value: Duration) {
        imp::record(&self.0, value.as_secs_f64());
    }

    /// Records how long ago `since` is.
    pub(crate) fn record_since(&self, since: &Since) {
        imp::record_since(&self.0, &since.0);
    }
}

/// When something began. Without metrics it is nothing, and no clock is read for it.
pub(crate) struct Since(imp::Since);

impl Since {
    pub(crate) fn now() -> Self {
        Self(imp::Since::now())
    }
}

/// A number that is kept only to be shown, and changes with its gauge under one [`Bound::with`]. Without metrics it is nothing.
#[derive(Default)]
pub(crate) struct Level(imp::Level);

impl Level {
    /// One more.
    pub(crate) fn raise(&self, gauge: &Gauge) {
        self.0.add(1);
        gauge.add(1.0);
    }

    /// One less.
    pub(crate) fn lower(&self, gauge: &Gauge) {
        self.0.add(-1);
        gauge.add(-1.0);
    }

    /// Sets another gauge to it, within [`Bound::rebind_with`].
    pub(crate) fn show(&self, gauge: &Gauge) {
        gauge.set(self.0.get());
    }
}

/// Metric handles that can be resolved again while in use.
///
/// Reading is a shared lock when metrics are compiled in, and free when they are not.
#[derive(Default)]
pub(crate) struct Bound<T>(imp::Cell<T>);

impl<T> Bound<T> {
    pub(crate) fn new(handles: T) -> Self {
        Self(imp::Cell::new(handles))
    }

    /// Replaces the handles by those that `make` gives while nobody uses any. A count that is kept only under
    /// [`with`](Self::with) stands still meanwhile, so that a gauge set from it is in step with it.
    pub(crate) fn rebind_with(&self, make: impl FnOnce() -> T) {
        self.0.replace(make);
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        self.0.with(f)
    }
}

/// What one layer tells of its calls: `seawall_calls_total`, `seawall_in_flight`, and `seawall_call_duration_seconds` where
/// that is asked for.
#[derive(Clone, Default)]
pub(crate) struct Calls {
    pub(crate) success: Counter,
    pub(crate) failure: Counter,
    pub(crate) neutral: Counter,
    rejected: Vec<(Reason, Counter)>,
    pub(crate) in_flight: Gauge,
    /// Not even registered where nobody asks: it would stand on the page as calls that took no time.
    duration: Option<Histogram>,
}

impl Calls {
    /// The metrics of the layer called `name`, which may refuse for `reasons`; with `durations`, how long its calls take too.
    pub(crate) fn new(pattern: &'static str, name: &str, reasons: &[Reason], durations: bool) -> Self {
        let layer = [("pattern", pattern), ("name", name)];
        let counter = |outcome, reason| {
            let labels = [layer[0], layer[1], ("outcome", outcome), ("reason", reason)];
            Counter::new("seawall_calls_total", &labels)
        };
        Self {
            success: counter("success", ""),
            failure: counter("failure", ""),
            neutral: counter("neutral", ""),
            rejected: reasons.iter().map(|&reason| (reason, counter("rejected", reason.as_str()))).collect(),
            in_flight: Gauge::new("seawall_in_flight", &layer),
            duration: durations.then(|| Histogram::new("seawall_call_duration_seconds", &layer)),
        }
    }

    /// A call was admitted.
    #[inline]
    pub(crate) fn start(&self) {
        self.in_flight.add(1.0);
    }

    /// An admitted call has ended, and `took` so long where that is known; asked only if somebody wants to know.
    #[inline]
    pub(crate) fn end(&self, ended: Ended, took: impl FnOnce() -> Option<Duration>) {
        self.in_flight.add(-1.0);
        match ended {
            Ended::Ok => self.success.increment(1),
            Ended::Failed => self.failure.increment(1),
            Ended::Neutral => self.neutral.increment(1),
        }
        if self.has_durations()
            && let (Some(histogram), Some(took)) = (&self.duration, took())
        {
            histogram.record(took);
        }
    }

    /// Whether anybody is told how long calls take.
    #[inline]
    pub(crate) fn has_durations(&self) -> bool {
        cfg!(feature = "metrics") && self.duration.is_some()
    }

    /// Counts a refusal for one of the reasons named in [`new`](Self::new).
    pub(crate) fn rejected(&self, reason: Reason) {
        if let Some((_, counter)) = self.rejected.iter().find(|(known, _)| *known == reason) {
            counter.increment(1);
        }
    }
}

/// The metrics of one limit.
pub(crate) struct AdmissionMetrics {
    pub(crate) calls: Calls,
    pub(crate) queue_depth: Gauge,
    pub(crate) queue_wait: Histogram,
}

impl AdmissionMetrics {
    /// The metrics of the limit called `name`, which may refuse for `reasons`.
    pub(crate) fn new(pattern: &'static str, name: &str, reasons: &[Reason]) -> Self {
        let labels = [("pattern", pattern), ("name", name)];
        Self {
            calls: Calls::new(pattern, name, reasons, false),
            queue_depth: Gauge::new("seawall_queue_depth", &labels),
            queue_wait: Histogram::new("seawall_queue_wait_seconds", &labels),
        }
    }
}

/// Logs that a limit was changed by hand.
pub(crate) fn limit_changed(pattern: &str, name: &str, from: u32, to: u32, in_use: u32) {
    #[cfg(feature = "tracing")]
    tracing::info!(pattern, name, from, to, in_use, "limit changed");
    #[cfg(not(feature = "tracing"))]
    let _ = (pattern, name, from, to, in_use);
}

/// Logs that a rate limit was changed by hand: `from` and `to` are rate and burst.
pub(crate) fn rate_changed(pattern: &str, name: &str, from: &impl fmt::Debug, to: &impl fmt::Debug, available: u32) {
    #[cfg(feature = "tracing")]
    tracing::info!(pattern, name, ?from, ?to, available, "rate changed");
    #[cfg(not(feature = "tracing"))]
    let _ = (pattern, name, from, to, available);
}

/// Logs that a rate limit was emptied by hand of what was `available`.
pub(crate) fn rate_drained(pattern: &str, name: &str, available: u32, waiting: usize) {
    #[cfg(feature = "tracing")]
    tracing::info!(pattern, name, available, waiting, "rate limit drained");
    #[cfg(not(feature = "tracing"))]
    let _ = (pattern, name, available, waiting);
}

/// Logs that a limit was closed by hand: it refused those who waited, and those in use come back as ever.
pub(crate) fn limit_closed(pattern: &str, name: &str, in_use: u32, waiting: usize) {
    #[cfg(feature = "tracing")]
    tracing::warn!(pattern, name, in_use, waiting, "limit closed");
    #[cfg(not(feature = "tracing"))]
    let _ = (pattern, name, in_use, waiting);
}

/// The metrics of one circuit breaker.
pub(crate) struct BreakerMetrics {
    pub(crate) calls: Calls,
    states: [(State, Gauge); State::ALL.len()],
}

impl BreakerMetrics {
    /// The metrics of the breaker called `name`, which is in `state`; with `durations`, how long its calls take too.
    pub(crate) fn new(name: &str, state: State, durations: bool) -> Self {
        let reasons = [Reason::Open, Reason::Probing, Reason::ForcedOpen];
        let gauge =
            |state: State| Gauge::new("seawall_circuit_breaker_state", &[("name", name), ("state", state.as_str())]);
        let metrics = Self {
            calls: Calls::new("circuit_breaker", name, &reasons, durations),
            states: State::ALL.map(|state| (state, gauge(state))),
        };
        metrics.state(state);
        metrics
    }

    /// Shows the state: 1 for `now`, 0 for every other.
    pub(crate) fn state(&self, now: State) {
        for (state, gauge) in &self.states {
            gauge.set(if *state == now { 1.0 } else { 0.0 });
        }
    }
}

/// Counts and logs one change of state of the breaker called `name`.
pub(crate) fn breaker_transition(name: &str, transition: &Transition) {
    let (from, to, cause) = (transition.from.as_str(), transition.to.as_str(), transition.cause.as_str());
    let labels = [("name", name), ("from", from), ("to", to), ("cause", cause)];
    // Resolved here and not before: transitions are rare, and most of the combinations never happen.
    Counter::new("seawall_circuit_breaker_transitions_total", &labels).increment(1);
    #[cfg(feature = "tracing")]
    {
        let Transition { generation, open_for, consecutive_failures, counts, .. } = transition;
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    name,
                    from,
                    to,
                    cause,
                    generation,
                    ?open_for,
                    consecutive_failures,
                    calls = counts.calls,
                    failed = counts.failed,
                    slow = counts.slow,
                    "circuit breaker changed its state"
                )
            };
        }
        // While a peer is away its breaker probes again and again, which is news only to who looks closely.
        match (transition.from, transition.to) {
            (State::Open, State::HalfOpen) | (State::HalfOpen, State::Open) => log!(debug),
            _ => log!(warn),
        }
    }
}

#[cfg(feature = "metrics")]
mod imp {
    use std::sync::atomic::AtomicI64;
    use std::sync::{PoisonError, RwLock};
    use std::time::Duration;

    use super::Labels;
    use crate::clock::{self, nanos};
    use crate::sync::{AtomicU64, Mutex, Ordering};

    pub(super) struct Counter(metrics::Counter);
    pub(super) struct Gauge(metrics::Gauge);
    pub(super) struct Histogram(metrics::Histogram);

    macro_rules! handle {
        ($($name:ident)*) => {$(
            impl Clone for $name {
                fn clone(&self) -> Self {
                    Self(self.0.clone())
                }
            }
            impl Default for $name {
                fn default() -> Self {
                    Self(metrics::$name::noop())
                }
            }
        )*};
    }
    handle! { Counter Gauge Histogram }

    fn labels(labels: Labels<'_>) -> Vec<metrics::Label> {
        labels.iter().map(|&(key, value)| metrics::Label::new(key, value.to_owned())).collect()
    }

    pub(super) fn counter(name: &'static str, with: Labels<'_>) -> Counter {
        debug_assert!(!super::help(name).is_empty(), "{name} has no help text");
        metrics::describe_counter!(name, super::help(name));
        Counter(metrics::counter!(name, labels(with)))
    }

    pub(super) fn gauge(name: &'static str, with: Labels<'_>) -> Gauge {
        debug_assert!(!super::help(name).is_empty(), "{name} has no help text");
        metrics::describe_gauge!(name, super::help(name));
        Gauge(metrics::gauge!(name, labels(with)))
    }

    pub(super) fn histogram(name: &'static str, with: Labels<'_>) -> Histogram {
        debug_assert!(!super::help(name).is_empty(), "{name} has no help text");
        metrics::describe_histogram!(name, metrics::Unit::Seconds, super::help(name));
        Histogram(metrics::histogram!(name, labels(with)))
    }

    pub(super) fn increment(counter: &Counter, by: u64) {
        counter.0.increment(by);
    }

    pub(super) fn set(gauge: &Gauge, value: f64) {
        gauge.0.set(value);
    }

    pub(super) fn add(gauge: &Gauge, by: f64) {
        gauge.0.increment(by);
    }

    pub(super) fn record(histogram: &Histogram, value: f64) {
        histogram.0.record(value);
    }

    pub(super) fn record_since(histogram: &Histogram, since: &Since) {
        record(histogram, clock::read().saturating_sub(since.0).as_secs_f64());
    }

    pub(super) struct Since(Duration);

    impl Since {
        pub(super) fn now() -> Self {
            Self(clock::now())
        }
    }

    #[derive(Default)]
    pub(super) struct Level(AtomicI64);

    impl Level {
        pub(super) fn add(&self, by: i64) {
            // ORDERING: Relaxed, whoever shows it has the lock of the `Bound` alone, and with it all that was done before.
            self.0.fetch_add(by, Ordering::Relaxed);
        }

        pub(super) fn get(&self) -> f64 {
            // ORDERING: Relaxed, as in `add`.
            self.0.load(Ordering::Relaxed) as f64
        }
    }

    pub(super) struct Glimpse {
        /// When the gauge is due again, in nanoseconds.
        due: AtomicU64,
        /// Lets one at a time look and tell: a value found out before would else be told after it has changed.
        gauge: Mutex<super::Gauge>,
    }

    impl Glimpse {
        pub(super) fn new(gauge: super::Gauge) -> Self {
            Self { due: AtomicU64::new(0), gauge: Mutex::new(gauge) }
        }

        #[inline(always)]
        pub(super) fn is_due(&self, now: Duration) -> bool {
            // ORDERING: Relaxed, whoever reads an old time tells once more.
            nanos(now) >= self.due.load(Ordering::Relaxed)
        }

        pub(super) fn tell(
            &self,
            other: Option<super::Gauge>,
            now: Duration,
            look: impl FnOnce(Duration) -> (f64, Duration),
        ) {
            let mut gauge = self.gauge.lock();
            if let Some(other) = other {
                *gauge = other;
            }
            let (value, lasts) = look(now);
            // ORDERING: Relaxed, as where it is read.
            self.due.store(nanos(now).saturating_add(nanos(lasts)), Ordering::Relaxed);
            gauge.set(value);
        }
    }

    #[derive(Default)]
    pub(super) struct Cell<T>(RwLock<T>);

    impl<T> Cell<T> {
        pub(super) fn new(value: T) -> Self {
            Self(RwLock::new(value))
        }

        pub(super) fn replace(&self, make: impl FnOnce() -> T) {
            let mut value = self.0.write().unwrap_or_else(PoisonError::into_inner);
            *value = make();
        }

        pub(super) fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
            f(&self.0.read().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod imp {
    use std::time::Duration;

    use super::Labels;

    #[derive(Clone, Default)]
    pub(super) struct Counter;
    #[derive(Clone, Default)]
    pub(super) struct Gauge;
    #[derive(Clone, Default)]
    pub(super) struct Histogram;

    pub(super) fn counter(_: &'static str, _: Labels<'_>) -> Counter {
        Counter
    }

    pub(super) fn gauge(_: &'static str, _: Labels<'_>) -> Gauge {
        Gauge
    }

    pub(super) fn histogram(_: &'static str, _: Labels<'_>) -> Histogram {
        Histogram
    }

    pub(super) fn increment(_: &Counter, _: u64) {}
    pub(super) fn set(_: &Gauge, _: f64) {}
    pub(super) fn add(_: &Gauge, _: f64) {}
    pub(super) fn record(_: &Histogram, _: f64) {}
    pub(super) fn record_since(_: &Histogram, _: &Since) {}

    pub(super) struct Since;

    impl Since {
        pub(super) fn now() -> Self {
            Self
        }
    }

    #[derive(Default)]
    pub(super) struct Level;

    impl Level {
        pub(super) fn add(&self, _: i64) {}

        pub(super) fn get(&self) -> f64 {
            0.0
        }
    }

    pub(super) struct Glimpse;

    impl Glimpse {
        pub(super) fn new(_: super::Gauge) -> Self {
            Self
        }

        #[inline(always)]
        pub(super) fn is_due(&self, _: Duration) -> bool {
            false
        }

        pub(super) fn tell(&self, _: Option<super::Gauge>, _: Duration, _: impl FnOnce(Duration) -> (f64, Duration)) {}
    }

    #[derive(Default)]
    pub(super) struct Cell<T>(T);

    impl<T> Cell<T> {
        pub(super) fn new(value: T) -> Self {
            Self(value)
        }

        pub(super) fn replace(&self, _: impl FnOnce() -> T) {}

        pub(super) fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
            f(&self.0)
        }
    }
}

#[cfg(all(test, not(feature = "metrics")))]
mod tests {
    use super::*;

    #[test]
    fn without_metrics_there_is_nothing_of_them() {
        assert_eq!(size_of::<(Counter, Gauge, Histogram, Glimpse, Level, Since, Bound<Gauge>)>(), 0);
    }
}
