//! The timeout as a plain value, and the account of each call.

use std::fmt;
use std::future::Future;
use std::mem;
use std::time::Duration;

use super::config::{Setting, TimeoutConfig};
use super::future::ResponseFuture;
use super::layer::TimeoutLayer;
use crate::clock;
use crate::counts::{Counts, Ended};
use crate::deadline::Deadline;
use crate::error::{BoxError, Elapsed, InvalidConfig, Limit, Reason, Rejected, find};
use crate::lent::{Lent, lend};
use crate::mode::Mode;
use crate::overrides::Overrides;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::telemetry::{Bound, Calls};

const PATTERN: &str = "timeout";

/// A timeout that is shared by everything made from it; of a layer by [`TimeoutLayer::handle`](crate::TimeoutLayer::handle).
///
/// # Example
/// ```
/// use std::time::Duration;
/// use seawall::{TimeoutConfig, TimeoutHandle};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let timeout = TimeoutHandle::new(TimeoutConfig::total("lookup", Duration::from_secs(1)))?;
/// let answer = timeout.call(async { Ok::<_, seawall::BoxError>(42) }).await?;
/// assert_eq!(answer, 42);
/// assert_eq!(timeout.stats().ok, 1);
/// # Ok::<_, seawall::BoxError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct TimeoutHandle {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    /// A [`Setting`], packed.
    setting: AtomicU64,
    counts: Counts,
    elapsed: AtomicU64,
    elapsed_ambient: AtomicU64,
    rejected: AtomicU64,
    /// Calls are counted under its lock, here and in the gauge.
    metrics: Bound<Calls>,
}

lend!(Shared);

/// What became of the calls: `admitted = ok + failed + neutral + in_flight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeoutStats {
    /// Calls that reached the inner service.
    pub admitted: u64,
    /// Calls that ended with `Ok` in time.
    pub ok: u64,
    /// Calls that ended with an error of the inner service or ran into the limit of this layer.
    pub failed: u64,
    /// Calls that were dropped by their caller or cut by the deadline of their caller.
    pub neutral: u64,
    /// Calls under way.
    pub in_flight: u64,
    /// Calls that ran into the limit of this layer; in [`Mode::Observe`], those that would have.
    pub elapsed: u64,
    /// Calls that ran into the ambient deadline; in [`Mode::Observe`], those that would have.
    pub elapsed_ambient: u64,
    /// Calls that were refused, their deadline having passed; in [`Mode::Observe`], those that would have been.
    pub rejected: u64,
}

impl TimeoutHandle {
    /// A timeout on its own, for [`call`](Self::call).
    ///
    /// # Errors
    /// [`InvalidConfig`] with the field that is out of bounds.
    pub fn new(config: TimeoutConfig) -> Result<Self, InvalidConfig> {
        config.check()?;
        let setting = AtomicU64::new(Setting::pack(&config));
        let name: Arc<str> = config.name.into();
        let shared = Shared {
            metrics: Bound::new(metrics(&name, config.durations)),
            name,
            setting,
            counts: Counts::default(),
            elapsed: AtomicU64::new(0),
            elapsed_ambient: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Runs `future` within the limit, which starts now.
    ///
    /// # Errors
    /// The error of `future`; [`Elapsed`] when the limit or the ambient deadline cut it; [`Rejected`] with
    /// [`Reason::Deadline`] when the deadline had passed before and `future` was not polled.
    ///
    /// Dropping the returned future drops `future`; the call counts as neutral.
    pub fn call<F, T, E>(&self, future: F) -> ResponseFuture<F>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let entered = clock::enter();
        match self.run(entered.now(), future, |future| future) {
            Ok((future, running)) => ResponseFuture::running(future, running),
            Err(rejected) => ResponseFuture::refused(rejected),
        }
    }

    /// A layer that shares this limit and these statistics.
    pub fn layer(&self) -> TimeoutLayer {
        TimeoutLayer::of(self.clone())
    }

    /// The name in metrics and errors.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The configuration in force.
    pub fn config(&self) -> TimeoutConfig {
        let Setting { limit_nanos, scope, mode, durations } = self.shared.setting();
        let limit = Duration::from_nanos(limit_nanos);
        TimeoutConfig { name: self.name().to_owned(), limit, scope, mode, durations }
    }

    /// What became of the calls so far.
    pub fn stats(&self) -> TimeoutStats {
        let tally = self.shared.counts.read();
        // ORDERING: Relaxed (all three), each a count of its own that nothing is derived from.
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TimeoutStats {
            admitted: tally.admitted,
            ok: tally.ok,
            failed: tally.failed,
            neutral: tally.neutral,
            in_flight: tally.in_flight,
            elapsed: count(&self.shared.elapsed),
            elapsed_ambient: count(&self.shared.elapsed_ambient),
            rejected: count(&self.shared.rejected),
        }
    }

    /// Changes the limit, the scope and the mode for the calls that start from now on, and what is told of durations for those
    /// that end from now on.
    ///
    /// # Errors
    /// [`InvalidConfig`], and nothing changes: a value is out of bounds, or the name differs, which metrics carry already.
    pub fn update(&self, config: TimeoutConfig) -> Result<(), InvalidConfig> {
        config.check()?;
        if *config.name != *self.shared.name {
            return Err(InvalidConfig::new("name", config.name, "the name the layer was made with"));
        }
        // ORDERING: Relaxed, the word is the whole setting and nothing else is read because of it.
        self.shared.setting.store(Setting::pack(&config), Ordering::Relaxed);
        if self.shared.metrics.with(Calls::has_durations) != config.durations {
            self.rebind_metrics();
        }
        Ok(())
    }

    /// Resolves the metrics again, after a recorder was installed.
    pub fn rebind_metrics(&self) {
        let shared = &self.shared;
        shared.metrics.rebind_with(|| {
            let calls = metrics(&shared.name, shared.setting().durations);
            calls.in_flight.set(shared.counts.read().in_flight as f64);
            calls
        });
    }

    /// Opens the account of a call that starts at `started`, which is now, and makes it, or refuses it because its deadline has passed.
    ///
    /// The account is written after the call was made, straight to where it stays: writing a byte of it just before it is
    /// moved would hold up the move for as long as an atomic operation takes.
    #[inline]
    pub(super) fn run<Q, R>(
        &self,
        started: Duration,
        request: Q,
        call: impl FnOnce(Q) -> R,
    ) -> Result<(R, Running), Rejected> {
        let shared = &self.shared;
        let terms = Terms::new(shared.setting(), started);
        if terms.limits.is_some_and(|limits| limits.deadline.nanos() <= terms.started) {
            self.late(terms)?;
        }
        // Before the call: after it, nothing may stand in the way of what it gives, which is slow to move.
        let lent = Lent::of(shared);
        shared.start();
        let unwound = Unwound { shared, started: terms.started };
        let scope = terms.deadline().map(Deadline::set);
        let future = call(request);
        drop(scope);
        mem::forget(unwound);
        Ok((future, Running { shared: lent, terms, stepping: false, ended: false }))
    }

    /// The deadline has passed before the call.
    #[cold]
    fn late(&self, terms: Terms) -> Result<(), Rejected> {
        let shared = &self.shared;
        // ORDERING: Relaxed, a count that nothing is derived from.
        shared.rejected.fetch_add(1, Ordering::Relaxed);
        if !terms.enforced {
            return Ok(());
        }
        shared.metrics.with(|calls| calls.rejected(Reason::Deadline));
        Err(Rejected::new(PATTERN, Arc::clone(&shared.name), Reason::Deadline))
    }
}

impl Shared {
    #[inline]
    fn setting(&self) -> Setting {
        // ORDERING: Relaxed, the word is the whole setting; see `update`.
        Setting::unpack(self.setting.load(Ordering::Relaxed))
    }

    /// Counts a call that starts.
    #[inline]
    fn start(&self) {
        self.metrics.with(|calls| {
            self.counts.start();
            calls.start();
        });
    }

    /// Counts a call that has ended and started at `started`, in nanoseconds since the origin of the clock.
    #[inline]
    fn end(&self, ended: Ended, started: u64) {
        self.metrics.with(|calls| {
            self.counts.end(ended);
            calls.end(ended, || Some(since(started)));
        });
    }
}

/// How long ago `started` was, in nanoseconds since the origin of the clock.
fn since(started: u64) -> Duration {
    clock::read().saturating_sub(Duration::from_nanos(started))
}

/// Counts the call as failed if the inner service panics while it is made.
struct Unwound<'a> {
    shared: &'a Shared,
    started: u64,
}

impl Drop for Unwound<'_> {
    fn drop(&mut self) {
        self.shared.end(Ended::Failed, self.started);
    }
}

impl fmt::Debug for TimeoutHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutHandle").field("name", &self.shared.name).field("stats", &self.stats()).finish()
    }
}

/// The tighter of the layer's limit and the ambient deadline, for one call.
#[derive(Debug, Clone, Copy)]
struct Limits {
    deadline: Deadline,
    limit: Limit,
}

impl Limits {
    #[inline]
    fn new(setting: Setting, started: u64, ambient: Option<Deadline>) -> Self {
        let limit = Overrides::current().timeout(setting.scope).map_or(setting.limit_nanos, clock::nanos);
        let own = Deadline::at_nanos(started.saturating_add(limit));
        // Of two that end together the own limit is named: it would have fired without the other.
        match ambient {
            Some(ambient) if ambient < own => Self { deadline: ambient, limit: Limit::Ambient },
            _ => Self { deadline: own, limit: setting.scope.limit() },
        }
    }
}

/// What holds for one call, whatever is updated meanwhile.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// In nanoseconds since the origin of the clock.
    started: u64,
    /// `None` when the layer is disabled.
    limits: Option<Limits>,
    enforced: bool,
}

impl Terms {
    #[inline]
    fn new(setting: Setting, started: Duration) -> Self {
        let started = clock::nanos(started);
        let limits = match setting.mode {
            Mode::Disabled => None,
            Mode::Enforce | Mode::Observe => Some(Limits::new(setting, started, Deadline::current())),
        };
        Self { started, limits, enforced: setting.mode == Mode::Enforce }
    }

    /// The deadline to keep, if one is to be kept.
    #[inline]
    fn deadline(self) -> Option<Deadline> {
        self.limits.filter(|_| self.enforced).map(|limits| limits.deadline)
    }

    /// Runs a step of the inner service with the limit as the ambient deadline.
    #[inline]
    fn within<R>(self, step: impl FnOnce() -> R) -> R {
        match self.deadline() {
            Some(deadline) => deadline.enter(step),
            None => step(),
        }
    }
}

/// The account of one call: closed with its outcome, or as neutral when it is dropped before.
pub(super) struct Running {
    shared: Lent<Shared>,
    terms: Terms,
    /// Within a step of the inner service.
    stepping: bool,
    ended: bool,
}

impl Running {
    /// The deadline to keep, if one is to be kept.
    #[inline]
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.terms.deadline()
    }

    /// Runs a step of the inner service with the limit as the ambient deadline.
    #[inline]
    pub(super) fn step<R>(&mut self, step: impl FnOnce() -> R) -> R {
        self.stepping = true;
        let result = self.terms.within(step);
        self.stepping = false;
        result
    }

    /// The inner service has answered.
    #[inline]
    pub(super) fn answered(&mut self, ok: bool) {
        if !self.terms.enforced
            && let Some(limits) = self.terms.limits
            && limits.deadline.has_passed()
        {
            self.count_elapsed(limits.limit);
        }
        self.end(if ok { Ended::Ok } else { Ended::Failed });
    }

    /// Whether `error` comes from a timeout below that kept our deadline, which is ambient there, and was polled before us:
    /// the call ran into our limit all the same.
    #[cold]
    pub(super) fn cut_below(&self, error: &BoxError) -> bool {
        self.deadline().is_some_and(Deadline::has_passed)
            && find::<Elapsed>(&**error).is_some_and(|elapsed| elapsed.limit == Limit::Ambient)
    }

    /// The timer has fired, here or below.
    pub(super) fn elapsed(&mut self) -> Elapsed {
        let (limit, after) = match self.terms.limits {
            Some(limits) => (limits.limit, since(self.terms.started)),
            // There is no timer without limits; the name below is all there would be to say.
            None => (Limit::Total, Duration::ZERO),
        };
        self.count_elapsed(limit);
        // The caller had less time than we allow: that says nothing about the service below.
        self.end(if limit == Limit::Ambient { Ended::Neutral } else { Ended::Failed });
        Elapsed::new(limit, after, Arc::clone(&self.shared.name))
    }

    fn count_elapsed(&self, limit: Limit) {
        let counter = if limit == Limit::Ambient { &self.shared.elapsed_ambient } else { &self.shared.elapsed };
        // ORDERING: Relaxed, a count that nothing is derived from.
        counter.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    fn end(&mut self, ended: Ended) {
        self.ended = true;
        self.shared.end(ended, self.terms.started);
    }

    #[cold]
    fn dropped(&mut self) {
        // A step that was not left in order has panicked, which is a failure of the inner service. Whether the thread is
        // unwinding now says less: the caller may have caught the panic, or may be unwinding for reasons of its own.
        self.end(if self.stepping { Ended::Failed } else { Ended::Neutral });
    }
}

impl Drop for Running {
    #[inline]
    fn drop(&mut self) {
        if !self.ended {
            self.dropped();
        }
    }
}

fn metrics(name: &str, durations: bool) -> Calls {
    Calls::new(PATTERN, name, &[Reason::Deadline], durations)
}
