//! The account of the calls of one limit.

use super::admit::Core;
use crate::counts::{Counts, Ended};
use crate::error::{Reason, Refusal, Rejected};
use crate::mode::Mode;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Ordering};
use crate::telemetry::{AdmissionMetrics, Bound, Level, Since};

/// Who refuses and how seriously, and what became of the calls.
pub struct Account {
    pattern: &'static str,
    name: Arc<str>,
    reasons: &'static [Reason],
    /// A [`Mode`].
    mode: AtomicUsize,
    counts: Counts,
    rejected: AtomicU64,
    waiting: Level,
    /// Calls are counted under its lock, here and in the gauges.
    metrics: Bound<AdmissionMetrics>,
}

const ENFORCE: usize = 0;
const OBSERVE: usize = 1;
const DISABLED: usize = 2;

/// What became of the calls of a limit: `admitted = ok + failed + neutral + in_flight`, at every reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallStats {
    /// Calls that were let through.
    pub admitted: u64,
    /// Admitted calls that ended with `Ok`.
    pub ok: u64,
    /// Admitted calls that ended with an error or a panic.
    pub failed: u64,
    /// Admitted calls that were dropped before they ended, and permits that nobody said anything of.
    pub neutral: u64,
    /// Admitted calls under way.
    pub in_flight: u64,
    /// Calls that were refused; in [`Mode::Observe`], those that would have been.
    pub rejected: u64,
}

impl Account {
    /// The account of the limit called `name`, which refuses for `reasons` only.
    pub(crate) fn new(pattern: &'static str, name: &str, mode: Mode, reasons: &'static [Reason]) -> Self {
        let account = Self {
            pattern,
            name: name.into(),
            reasons,
            mode: AtomicUsize::new(ENFORCE),
            counts: Counts::default(),
            rejected: AtomicU64::new(0),
            waiting: Level::default(),
            metrics: Bound::new(AdmissionMetrics::new(pattern, name, reasons)),
        };
        account.set_mode(mode);
        account
    }

    pub(crate) fn pattern(&self) -> &'static str {
        self.pattern
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    #[inline]
    pub(crate) fn mode(&self) -> Mode {
        // ORDERING: Relaxed, the word is the whole setting and nothing else is read because of it.
        match self.mode.load(Ordering::Relaxed) {
            DISABLED => Mode::Disabled,
            OBSERVE => Mode::Observe,
            _ => Mode::Enforce,
        }
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        let mode = match mode {
            Mode::Enforce => ENFORCE,
            Mode::Observe => OBSERVE,
            Mode::Disabled => DISABLED,
        };
        // ORDERING: Relaxed, as in `mode`.
        self.mode.store(mode, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn start(&self) {
        self.metrics.with(|metrics| {
            self.counts.start();
            metrics.calls.start();
        });
    }

    #[inline]
    pub(crate) fn end(&self, ended: Ended) {
        self.metrics.with(|metrics| {
            self.counts.end(ended);
            metrics.calls.end(ended, || None);
        });
    }

    /// Counts a refusal; the error, unless the mode lets the call through.
    #[cold]
    pub(crate) fn refuse(&self, refusal: Refusal) -> Option<Rejected> {
        let mode = self.mode();
        if mode == Mode::Disabled {
            return None;
        }
        debug_assert!(self.reasons.contains(&refusal.reason), "{} is no reason of {}", refusal.reason, self.pattern);
        // ORDERING: Relaxed, a count that is read alone.
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.metrics.with(|metrics| metrics.calls.rejected(refusal.reason));
        if mode == Mode::Observe {
            return None;
        }
        let rejected = Rejected::new(self.pattern, Arc::clone(&self.name), refusal.reason);
        Some(match refusal.retry_after {
            Some(after) => rejected.retry_after(after),
            None => rejected,
        })
    }

    pub(crate) fn stats(&self) -> CallStats {
        let tally = self.counts.read();
        CallStats {
            admitted: tally.admitted,
            ok: tally.ok,
            failed: tally.failed,
            neutral: tally.neutral,
            in_flight: tally.in_flight,
            // ORDERING: Relaxed, as where it is counted.
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }

    /// Resolves the metric handles again.
    pub(crate) fn rebind_metrics(&self) {
        self.metrics.rebind_with(|| {
            let metrics = AdmissionMetrics::new(self.pattern, &self.name, self.reasons);
            metrics.calls.in_flight.set(self.counts.read().in_flight as f64);
            self.waiting.show(&metrics.queue_depth);
            metrics
        });
    }
}

/// A call that waits in line: counted until it is dropped, and then for how long it did.
pub struct Queued<C: Core> {
    core: Arc<C>,
    since: Since,
}

impl<C: Core> Queued<C> {
    /// Waits for `core` from now on.
    pub(crate) fn new(core: &Arc<C>) -> Self {
        let account = core.account();
        account.metrics.with(|metrics| account.waiting.raise(&metrics.queue_depth));
        Self { core: Arc::clone(core), since: Since::now() }
    }

    pub(crate) fn core(&self) -> &Arc<C> {
        &self.core
    }
}

impl<C: Core> Drop for Queued<C> {
    fn drop(&mut self) {
        let account = self.core.account();
        account.metrics.with(|metrics| {
            account.waiting.lower(&metrics.queue_depth);
            metrics.queue_wait.record_since(&self.since);
        });
    }
}
