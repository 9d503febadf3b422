//! Retries as plain values: the shared budget, the handle, and the account of each call.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::backoff::{Bounds, Progress, Stop};
use super::budget::{Budget, Reservation, RetryBudgetStats};
use super::config::{RetryBudgetConfig, RetryConfig};
use super::future::ResponseFuture;
use super::layer::RetryLayer;
use super::policy::{Attempt, Decision, GaveUp, RetryErrors, RetryPolicy};
use super::service::Operation;
use crate::counts::{Counts, Ended};
use crate::deadline::Deadline;
use crate::error::{BoxError, InvalidConfig};
use crate::lent::{Lent, lend};
use crate::overrides::Overrides;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::telemetry::{Bound, Calls, Counter, Gauge};
use crate::{clock, rng};

/// How many retries all calls together may afford. Clones share one budget: give them to every layer and hedge that sends to
/// the same peer, and together they keep to it.
///
/// # Example
/// ```
/// use seawall::{RetryBudget, RetryBudgetConfig};
///
/// let budget = RetryBudget::new(RetryBudgetConfig::new().ratio(0.2).floor_per_second(0.0))?;
/// (0..5).for_each(|_| budget.deposit());
/// let retry = budget.try_reserve(1).unwrap();
/// assert!(budget.try_reserve(1).is_none(), "five calls pay for one retry");
/// drop(retry); // It was never sent.
/// budget.try_reserve(1).unwrap().spend();
/// assert_eq!(budget.stats().balance, 0.0);
/// # Ok::<_, seawall::InvalidConfig>(())
/// ```
#[derive(Debug, Clone)]
pub struct RetryBudget {
    budget: Arc<Budget>,
}

impl RetryBudget {
    /// A budget that has seen no calls.
    ///
    /// # Errors
    /// [`InvalidConfig`] with the field that is out of bounds.
    pub fn new(config: RetryBudgetConfig) -> Result<Self, InvalidConfig> {
        config.check()?;
        Ok(Self { budget: Arc::new(Budget::new(&config)) })
    }

    /// Counts a call, which pays for its share of a retry. Retry layers do this for each of theirs.
    pub fn deposit(&self) {
        self.budget.deposit(clock::now());
    }

    /// Books a retry that costs as much as `cost` ordinary ones, or says that the budget does not afford it.
    pub fn try_reserve(&self, cost: u32) -> Option<RetryReservation> {
        Budget::try_reserve(&self.budget, cost, clock::now()).map(RetryReservation)
    }

    /// What the budget has seen.
    pub fn stats(&self) -> RetryBudgetStats {
        self.budget.stats(clock::now())
    }

    /// Changes ratio, floor and window for all who share the budget. What was sent stays counted. If the window changes, the
    /// calls counted so far pay for nothing any more.
    ///
    /// # Errors
    /// [`InvalidConfig`] with the field that is out of bounds; nothing changes.
    pub fn update(&self, config: RetryBudgetConfig) -> Result<(), InvalidConfig> {
        config.check()?;
        self.budget.update(&config, clock::now());
        Ok(())
    }
}

impl Default for RetryBudget {
    /// One retry for five calls and one each second, over 10 s; see [`RetryBudgetConfig`].
    fn default() -> Self {
        Self { budget: Arc::new(Budget::new(&RetryBudgetConfig::new())) }
    }
}

/// A retry that the budget has granted; made by [`RetryBudget::try_reserve`].
///
/// It weighs on the budget while it waits and for a window after it was sent. Dropped before that, it is refunded.
#[derive(Debug)]
#[must_use = "a reservation that is dropped is refunded"]
pub struct RetryReservation(Reservation);

impl RetryReservation {
    /// The retry is being sent.
    pub fn spend(self) {
        self.0.spend(clock::now());
    }
}

/// Tries `operation` until it succeeds or is not worth another attempt. Its errors say so themselves, by the marks
/// [`Permanent`](crate::Permanent) and [`Transient`](crate::Transient); see [`Decision::of_error`].
///
/// Each use has a [budget](RetryBudget) and statistics of its own. Code that is called often makes one [`RetryHandle`] instead.
///
/// # Errors
/// The error of the operation where the first attempt settled it, else [`GaveUp`] with the last error as its source;
/// [`InvalidConfig`].
///
/// # Example
/// ```
/// use seawall::{BoxError, Permanent, RetryConfig, find, retry};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let mut left = 2;
/// let answer = retry(RetryConfig::new("lookup"), || {
///     left -= 1;
///     let result = if left > 0 { Err(BoxError::from("connection reset")) } else { Ok(42) };
///     async move { result }
/// });
/// assert_eq!(answer.await.unwrap(), 42);
///
/// let refused = retry(RetryConfig::new("lookup"), || async { Err::<(), _>(Permanent::new("no such host")) });
/// assert!(find::<Permanent>(&*refused.await.unwrap_err()).is_some());
/// # });
/// ```
pub async fn retry<F, Fut, T, E>(config: RetryConfig, operation: F) -> Result<T, BoxError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    RetryHandle::new(config)?.call(operation).await
}

/// Retries that share one budget and one account; of a layer by [`RetryLayer::handle`](crate::RetryLayer::handle).
#[derive(Clone)]
pub struct RetryHandle {
    core: Arc<Core>,
}

impl RetryHandle {
    /// Retries on their own with a default [`RetryBudget`], for [`call`](Self::call).
    ///
    /// # Errors
    /// [`InvalidConfig`] with the field that is out of bounds.
    pub fn new(config: RetryConfig) -> Result<Self, InvalidConfig> {
        Ok(Self::of(Core::new(config, RetryBudget::default())?))
    }

    /// As [`new`](Self::new), with a budget that others use too.
    ///
    /// # Errors
    /// [`InvalidConfig`] with the field that is out of bounds.
    pub fn with_budget(config: RetryConfig, budget: RetryBudget) -> Result<Self, InvalidConfig> {
        Ok(Self::of(Core::new(config, budget)?))
    }

    pub(super) fn of(core: Arc<Core>) -> Self {
        Self { core }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Tries `operation` until it succeeds or is not worth another attempt; its errors say so themselves, see
    /// [`Decision::of_error`]. Anything that may not be applied twice must be marked [`Permanent`](crate::Permanent).
    ///
    /// # Errors
    /// The error of the operation where the first attempt settled it, else [`GaveUp`] with the last error as its source.
    ///
    /// Dropping the future drops the attempt; the call counts as neutral.
    ///
    /// # Example
    /// ```
    /// use seawall::{BoxError, RetryConfig, RetryHandle};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let retries = RetryHandle::new(RetryConfig::new("lookup"))?;
    /// let answer = retries.call(|| async { Ok::<_, BoxError>(42) }).await?;
    /// assert_eq!(answer, 42);
    /// assert_eq!(retries.stats().ok, 1);
    /// # Ok::<_, BoxError>(())
    /// # }).unwrap();
    /// ```
    pub fn call<F, Fut, T, E>(&self, operation: F) -> ResponseFuture<Operation<F>, RetryErrors<()>, ()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        self.call_with(RetryErrors::all_idempotent(), operation)
    }

    /// As [`call`](Self::call), with a policy for the boxed error.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_with<P, F, Fut, T, E>(&self, policy: P, operation: F) -> ResponseFuture<Operation<F>, P, ()>
    where
        P: RetryPolicy<(), T, BoxError>,
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        ResponseFuture::first(Operation(operation), policy, &self.core)
    }

    /// A layer that shares this budget and these statistics.
    pub fn layer<P>(&self, policy: P) -> RetryLayer<P> {
        RetryLayer::of(self.clone(), policy)
    }

    /// The name in metrics and errors.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// As [`RetryLayer::delays`](crate::RetryLayer::delays).
    #[must_use]
    pub fn delays<D, I>(self, delays: D) -> Self
    where
        D: Fn() -> I + Send + Sync + 'static,
        I: Iterator<Item = Duration> + Send + Sync + 'static,
    {
        Self::of(self.core.with_delays(Arc::new(move || Box::new(delays()))))
    }

    /// The configuration in force.
    pub fn config(&self) -> RetryConfig {
        self.core.config.lock().clone()
    }

    /// What became of the calls so far.
    pub fn stats(&self) -> RetryStats {
        let tally = self.core.counts.read();
        // ORDERING: Relaxed (all), each a count of its own that nothing is derived from.
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stopped = |stop: Stop| count(&self.core.stopped[stop as usize]);
        RetryStats {
            admitted: tally.admitted,
            ok: tally.ok,
            failed: tally.failed,
            neutral: tally.neutral,
            in_flight: tally.in_flight,
            retries: count(&self.core.retries),
            stopped: StopCounts {
                attempts: stopped(Stop::Attempts),
                elapsed: stopped(Stop::Elapsed),
                deadline: stopped(Stop::Deadline),
                budget: stopped(Stop::Budget),
                not_ready: stopped(Stop::NotReady),
                policy: stopped(Stop::Policy),
                exhausted: stopped(Stop::Exhausted),
            },
        }
    }

    /// The budget, to share or to change.
    pub fn budget(&self) -> RetryBudget {
        self.core.budget.clone()
    }

    /// Changes limits, backoff and what metrics tell. Calls under way go by the new values from their next failure on; a call
    /// that started while `max_attempts` was 1 kept no copy of its request and stays at one attempt.
    ///
    /// # Errors
    /// [`InvalidConfig`], and nothing changes: a value is out of bounds, or the name differs, which metrics carry already.
    pub fn update(&self, config: RetryConfig) -> Result<(), InvalidConfig> {
        config.check()?;
        if *config.name != *self.core.name {
            return Err(InvalidConfig::new("name", config.name, "the name the layer was made with"));
        }
        let durations = config.durations;
        {
            let mut current = self.core.config.lock();
            // ORDERING: Relaxed, a hint whether to copy requests; decisions read the config under its lock.
            self.core.max_attempts.store(u64::from(config.max_attempts), Ordering::Relaxed);
            *current = config;
        }
        if self.core.metrics.with(|metrics| metrics.calls.has_durations()) != durations {
            self.rebind_metrics();
        }
        Ok(())
    }

    /// Resolves the metrics again, after a recorder was installed.
    pub fn rebind_metrics(&self) {
        let core = &self.core;
        core.metrics.rebind_with(|| {
            let metrics = Metrics::new(&core.name, core.config.lock().durations);
            metrics.calls.in_flight.set(core.counts.read().in_flight as f64);
            metrics.balance.set(core.budget.stats().balance);
            metrics
        });
    }
}

impl fmt::Debug for RetryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryHandle").field("name", &self.core.name).field("stats", &self.stats()).finish()
    }
}

/// What became of the calls: `admitted = ok + failed + neutral + in_flight`. One call counts once, whatever its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryStats {
    /// Calls that came in.
    pub admitted: u64,
    /// Calls whose result the policy accepted; without a copy of the request, those that ended with `Ok`.
    pub ok: u64,
    /// Calls whose last result was a failure.
    pub failed: u64,
    /// Calls that were dropped by their caller.
    pub neutral: u64,
    /// Calls under way.
    pub in_flight: u64,
    /// Attempts that were sent beyond the first ones.
    pub retries: u64,
    /// Failed calls by the reason why there was no further attempt.
    pub stopped: StopCounts,
}

/// Failed calls by the reason why there was no further attempt; see [`Stop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StopCounts {
    /// [`Stop::Attempts`].
    pub attempts: u64,
    /// [`Stop::Elapsed`].
    pub elapsed: u64,
    /// [`Stop::Deadline`].
    pub deadline: u64,
    /// [`Stop::Budget`].
    pub budget: u64,
    /// [`Stop::NotReady`].
    pub not_ready: u64,
    /// [`Stop::Policy`].
    pub policy: u64,
    /// [`Stop::Exhausted`].
    pub exhausted: u64,
}

/// The delays of one call, from elsewhere.
type Delays = Box<dyn Iterator<Item = Duration> + Send + Sync>;

/// Makes the delays of each call anew, so that calls share nothing.
type MakeDelays = Arc<dyn Fn() -> Delays + Send + Sync>;

/// What the services of one layer share.
pub(super) struct Core {
    name: Arc<str>,
    /// Guards limits and backoff. Taken after a failure only; a call that succeeds at once does not touch it.
    config: Mutex<RetryConfig>,
    /// A copy of `config.max_attempts`.
    max_attempts: AtomicU64,
    budget: RetryBudget,
    /// Takes the place of `config.backoff`.
    delays: Option<MakeDelays>,
    counts: Counts,
    retries: AtomicU64,
    /// By [`Stop`].
    stopped: [AtomicU64; STOPS.len()],
    /// Calls are counted under its lock, here and in the gauge.
    metrics: Bound<Metrics>,
}

lend!(Core);

/// In the order of their declaration, since counters are found by `stop as usize`.
const STOPS: [Stop; 7] =
    [Stop::Attempts, Stop::Elapsed, Stop::Deadline, Stop::Budget, Stop::NotReady, Stop::Policy, Stop::Exhausted];

impl Core {
    pub(super) fn new(config: RetryConfig, budget: RetryBudget) -> Result<Arc<Self>, InvalidConfig> {
        config.check()?;
        let name = config.name.as_str().into();
        Ok(Arc::new(Self::of(name, config, budget, None)))
    }

    /// The same settings with another budget and an account of its own.
    pub(super) fn with_budget(&self, budget: RetryBudget) -> Arc<Self> {
        let config = self.config.lock().clone();
        Arc::new(Self::of(Arc::clone(&self.name), config, budget, self.delays.clone()))
    }

    /// The same settings with delays from elsewhere and an account of its own.
    fn with_delays(&self, delays: MakeDelays) -> Arc<Self> {
        let config = self.config.lock().clone();
        Arc::new(Self::of(Arc::clone(&self.name), config, self.budget.clone(), Some(delays)))
    }

    fn of(name: Arc<str>, config: RetryConfig, budget: RetryBudget, delays: Option<MakeDelays>) -> Self {
        Self {
            metrics: Bound::new(Metrics::new(&name, config.durations)),
            name,
            max_attempts: AtomicU64::new(u64::from(config.max_attempts)),
            config: Mutex::new(config),
            budget,
            delays,
            counts: Counts::default(),
            retries: AtomicU64::new(0),
            stopped: Default::default(),
        }
    }

    /// Whether there may be a second attempt, so that the request is worth a copy.
    #[inline]
    pub(super) fn retries_at_all(&self) -> bool {
        // ORDERING: Relaxed, a hint; see `update`.
        self.max_attempts.load(Ordering::Relaxed) > 1 && !Overrides::current().forbids_retries()
    }

    /// Counts a call that starts.
    #[inline]
    fn start(&self) {
        self.metrics.with(|metrics| {
            self.counts.start();
            metrics.calls.start();
        });
    }

    /// Counts a call that has ended and started at `started`.
    #[inline]
    fn end(&self, ended: Ended, started: Duration) {
        self.metrics.with(|metrics| {
            self.counts.end(ended);
            metrics.calls.end(ended, || Some(clock::read().saturating_sub(started)));
        });
    }
}

/// A call whose first attempt is being made: should that panic, the call has failed.
///
/// The account that lasts is opened before, and written after the attempt, straight to where it stays: neither may stand in the
/// way of what the attempt gives, which is slow to move when it was just written.
pub(super) struct Making<'a> {
    core: &'a Core,
    started: Duration,
}

impl<'a> Making<'a> {
    /// Counts a call that starts at `started`, which is now.
    #[inline]
    pub(super) fn start(core: &'a Core, started: Duration) -> Self {
        if let Some(balance) = core.budget.budget.deposit(started) {
            core.metrics.with(|metrics| metrics.balance.set(balance));
        }
        core.start();
        Self { core, started }
    }

    /// The first attempt is made.
    #[inline]
    pub(super) fn made(self, core: Lent<Core>) -> Call {
        let call = Call { core, started: self.started, again: None, stepping: false, ended: false };
        mem::forget(self);
        call
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.core.end(Ended::Failed, self.started);
    }
}

/// What follows a result.
pub(super) enum Next {
    /// It is the answer, or an error that is none of our business.
    Stands,
    /// It is a failure, and the last result.
    Stop(Stop),
    /// Another attempt, when the [timer](Call::poll_timer) has fired.
    AfterWait,
}

/// The account of one call: closed with its outcome, or as neutral when it is dropped before. A retry that was granted and
/// not sent goes back to the budget with it.
pub(super) struct Call {
    core: Lent<Core>,
    started: Duration,
    /// `None` before the first failure: a call that succeeds at once carries one word of it.
    again: Option<Pin<Box<Again>>>,
    /// Within a step of the inner service.
    stepping: bool,
    ended: bool,
}

pin_project! {
    /// What a call has to remember from its first failure on.
    struct Again {
        progress: Progress,
        // In place of the backoff, where the layer has any.
        delays: Option<Delays>,
        // Of the retry that is granted and not sent.
        reservation: Option<RetryReservation>,
        // Of the delay, then of the wait for readiness.
        #[pin]
        timer: Option<Sleep>,
        // What it means when the wait for readiness is over.
        stop: Stop,
    }
}

impl Again {
    fn new(delays: Option<&MakeDelays>) -> Self {
        Self {
            progress: Progress::first(),
            delays: delays.map(|make| make()),
            reservation: None,
            timer: None,
            stop: Stop::NotReady,
        }
    }
}

impl Call {
    /// Runs a step of the inner service.
    #[inline]
    pub(super) fn step<R>(&mut self, step: impl FnOnce() -> R) -> R {
        self.stepping = true;
        let result = step();
        self.stepping = false;
        result
    }

    #[inline]
    pub(super) fn attempt(&self) -> Attempt {
        Attempt::new(self.attempts(), self.started)
    }

    /// Takes the decision of the policy further: through the limits and the budget.
    #[inline]
    pub(super) fn decided(&mut self, decision: Decision) -> Next {
        match decision {
            Decision::Accept => {
                self.end(Ended::Ok);
                Next::Stands
            }
            Decision::GiveUp if self.attempts() == 1 => {
                self.stop(Stop::Policy);
                Next::Stands
            }
            Decision::GiveUp => Next::Stop(Stop::Policy),
            Decision::Retry { after, cost } => match self.plan(after, cost) {
                Ok(()) => Next::AfterWait,
                Err(stop) => Next::Stop(stop),
            },
        }
    }

    /// The call ends with the result of its only attempt, which nobody judges.
    #[inline]
    pub(super) fn unjudged(&mut self, ok: bool) {
        self.end(if ok { Ended::Ok } else { Ended::Failed });
    }

    #[cold]
    fn plan(&mut self, hint: Option<Duration>, cost: u32) -> Result<(), Stop> {
        let core = &self.core;
        let (backoff, bounds) = {
            let config = core.config.lock();
            let bounds = Bounds {
                max_attempts: config.max_attempts,
                elapsed_left: config.max_elapsed.saturating_sub(self.elapsed()),
                deadline_left: Deadline::remaining(),
            };
            (config.backoff, bounds)
        };
        let again = self.again.get_or_insert_with(|| Box::pin(Again::new(core.delays.as_ref())));
        let mut again = again.as_mut().project();
        let wait = match again.delays {
            None => again.progress.next(&backoff, bounds, hint, rng::draw())?,
            Some(delays) => again.progress.next_of(&mut **delays, bounds, hint)?,
        };
        // Last, since it is the only step that takes something.
        *again.reservation = Some(core.budget.try_reserve(cost).ok_or(Stop::Budget)?);
        again.timer.set((!wait.is_zero()).then(|| sleep(wait)));
        Ok(())
    }

    /// Until the delay is over.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(again) = &mut self.again else { return Poll::Ready(()) };
        let mut timer = again.as_mut().project().timer;
        if let Some(timer) = timer.as_mut().as_pin_mut() {
            ready!(timer.poll(cx));
        }
        timer.set(None);
        Poll::Ready(())
    }

    /// While the service is not ready for the retry: until it has had its time, and then what that means. The timer is made
    /// when this is asked for the first time.
    pub(super) fn poll_ready_limit(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        let (within, stop) = self.ready_within();
        let Some(again) = &mut self.again else { return Poll::Ready(stop) };
        let mut again = again.as_mut().project();
        if again.timer.is_none() {
            again.timer.set(Some(sleep(within)));
            *again.stop = stop;
        }
        if let Some(timer) = again.timer.as_mut().as_pin_mut() {
            ready!(timer.poll(cx));
        }
        Poll::Ready(*again.stop)
    }

    /// What is left for the retry to start, and what it means when that is used up.
    fn time_left(&self, max_elapsed: Duration) -> (Duration, Stop) {
        let elapsed = (max_elapsed.saturating_sub(self.elapsed()), Stop::Elapsed);
        match Deadline::remaining() {
            Some(left) if left < elapsed.0 => (left, Stop::Deadline),
            _ => elapsed,
        }
    }

    /// How long the service may take to be ready for the retry, and what it means if it takes longer.
    fn ready_within(&self) -> (Duration, Stop) {
        let config = self.core.config.lock();
        let left = self.time_left(config.max_elapsed);
        if left.0 < config.max_ready_wait { left } else { (config.max_ready_wait, Stop::NotReady) }
    }

    /// Whether there is still time for the retry: timers fire late, and readiness may have come late.
    pub(super) fn in_time(&self) -> Result<(), Stop> {
        let max_elapsed = self.core.config.lock().max_elapsed;
        let (left, stop) = self.time_left(max_elapsed);
        if left.is_zero() { Err(stop) } else { Ok(()) }
    }

    /// The retry is being sent.
    pub(super) fn sent(&mut self) {
        // ORDERING: Relaxed, a count that nothing is derived from.
        self.core.retries.fetch_add(1, Ordering::Relaxed);
        let again = self.again.as_mut().map(|again| again.as_mut().project());
        let balance = again.and_then(|mut again| {
            again.progress.sent();
            again.timer.set(None);
            again.reservation.take().map(|reservation| reservation.0.spend(clock::now()))
        });
        self.core.metrics.with(|metrics| {
            metrics.retry(self.attempts());
            if let Some(balance) = balance {
                metrics.balance.set(balance);
            }
        });
    }

    /// The call ends with `result`, because of `stop`.
    pub(super) fn gave_up<T>(&mut self, stop: Stop, result: Result<T, BoxError>) -> Result<T, BoxError> {
        // Before the caller hears of it: the next call may be made with what this one gives back.
        if let Some(again) = &mut self.again {
            drop(again.as_mut().project().reservation.take());
        }
        self.stop(stop);
        result.map_err(|source| {
            let name = Arc::clone(&self.core.name);
            GaveUp::new(name, stop, self.attempts(), self.elapsed(), source).into()
        })
    }

    /// Attempts that were sent, the first included.
    #[inline]
    pub(super) fn attempts(&self) -> u32 {
        self.progress().attempts
    }

    fn progress(&self) -> Progress {
        self.again.as_ref().map_or(Progress::first(), |again| again.progress)
    }

    pub(super) fn elapsed(&self) -> Duration {
        clock::read().saturating_sub(self.started)
    }

    fn stop(&mut self, stop: Stop) {
        // ORDERING: Relaxed, a count that nothing is derived from.
        self.core.stopped[stop as usize].fetch_add(1, Ordering::Relaxed);
        self.core.metrics.with(|metrics| metrics.gave_up[stop as usize].increment(1));
        self.end(Ended::Failed);
    }

    #[inline]
    fn end(&mut self, ended: Ended) {
        self.ended = true;
        self.core.end(ended, self.started);
    }

    #[cold]
    fn dropped(&mut self) {
        // A step that was not left in order has panicked, which is a failure of the inner service.
        self.end(if self.stepping { Ended::Failed } else { Ended::Neutral });
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        if !self.ended {
            self.dropped();
        }
    }
}

/// The label of each retry, by its attempt number from 2.
const ATTEMPTS: [&str; 9] = ["2", "3", "4", "5", "6", "7", "8", "9", "10+"];

struct Metrics {
    calls: Calls,
    retries: [Counter; ATTEMPTS.len()],
    gave_up: [Counter; STOPS.len()],
    balance: Gauge,
}

impl Metrics {
    fn new(name: &str, durations: bool) -> Self {
        Self {
            calls: Calls::new("retry", name, &[], durations),
            retries: ATTEMPTS
                .map(|attempt| Counter::new("seawall_retry_attempts_total", &[("name", name), ("attempt", attempt)])),
            gave_up: STOPS
                .map(|stop| Counter::new("seawall_retry_gave_up_total", &[("name", name), ("stop", stop.as_str())])),
            balance: Gauge::new("seawall_retry_budget_balance", &[("name", name)]),
        }
    }

    fn retry(&self, attempt: u32) {
        let index = (attempt as usize).saturating_sub(2).min(ATTEMPTS.len() - 1);
        self.retries[index].increment(1);
    }
}
