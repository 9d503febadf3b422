//! What is measured: our layers and, under the same name, what does the same thing elsewhere.

mod rates;

use std::fmt;
use std::future::{Future, Ready, pending, poll_fn, ready};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use failsafe::futures::CircuitBreaker as _;
use seawall::circuit_breaker::{Outcome, Window};
use seawall::{
    BulkheadConfig, BulkheadLayer, CircuitBreakerConfig, CircuitBreakerLayer, Rejected, RetryConfig, RetryErrors,
    RetryLayer, SemaphoreConfig, SemaphoreLayer, TimeoutConfig, TimeoutLayer,
};
use tower::limit::ConcurrencyLimitLayer;
use tower::retry::Policy;
use tower::retry::backoff::{Backoff, ExponentialBackoffMaker, MakeBackoff};
use tower::retry::budget::{Budget, TpsBudget};
use tower::util::service_fn;
use tower::{Layer, Service};
use tower_resilience::bulkhead::{BulkheadError, BulkheadServiceError};
use tower_resilience::circuitbreaker::{CircuitBreakerError, SlidingWindowType};
use tower_resilience::retry::RetryBudgetBuilder;

use crate::BoxError;
use crate::drive::{Calls, Echo, Readings, Request, Runtimes, Wide, Work, bytes};

/// The window of the breakers that count calls.
const WINDOW_CALLS: u32 = 100;
/// The window of the breakers that count over time.
const WINDOW_TIME: Duration = Duration::from_secs(10);
/// A call that is slow for a breaker; none is, in a measurement.
const SLOW: Duration = Duration::from_secs(1);
/// A limit that never fires during a measurement.
const NEVER: Duration = Duration::from_secs(3600);

/// More than ever run at once in a measurement.
const LIMIT: u32 = 64;

/// Calls per repetition: a few milliseconds' worth.
const CALLS: u64 = 40_000;
/// Calls per repetition where each goes through all calls before it: more would show nothing but their number.
const FEW_CALLS: u64 = 4_000;
/// Calls per repetition where each waits for a timer, a millisecond or two.
const WAITING_CALLS: u64 = 20;

/// One thing to measure.
pub struct Case {
    /// The crate that it comes from.
    pub group: &'static str,
    /// What it is, with the size of the request if that is not 8 bytes.
    pub case: String,
    time: Measured<f64>,
    time_two: Measured<Option<f64>>,
    allocations: Measured<f64>,
    bytes: Box<dyn Fn() -> Result<i64, BoxError>>,
    /// How many keys it holds, if any.
    keys: Option<u64>,
}

type Measured<T> = Box<dyn Fn(&Runtimes) -> Result<T, BoxError>>;

impl Case {
    /// Nanoseconds per call, on one thread.
    ///
    /// # Errors
    /// The layer cannot be made.
    pub fn time(&self, runtimes: &Runtimes) -> Result<f64, BoxError> {
        (self.time)(runtimes)
    }

    /// Nanoseconds per call in each of two tasks at the same time; none if the machine never let them.
    ///
    /// # Errors
    /// The layer cannot be made, or a task has panicked.
    pub fn time_two(&self, runtimes: &Runtimes) -> Result<Option<f64>, BoxError> {
        (self.time_two)(runtimes)
    }

    /// Heap allocations per call.
    ///
    /// # Errors
    /// The layer cannot be made.
    pub fn allocations(&self, runtimes: &Runtimes) -> Result<f64, BoxError> {
        (self.allocations)(runtimes)
    }

    /// Bytes held for each key, where there are keys.
    ///
    /// # Errors
    /// The layer cannot be made.
    pub fn bytes_per_key(&self) -> Result<Option<f64>, BoxError> {
        self.keys.map(|keys| Ok((self.bytes)()? as f64 / keys as f64)).transpose()
    }

    fn new<W: Work>(
        group: &'static str,
        case: String,
        calls: u64,
        make: impl Fn() -> Result<W, BoxError> + Clone + 'static,
    ) -> Self {
        let (make_one, make_two, make_kept) = (make.clone(), make.clone(), make.clone());
        Self {
            group,
            case,
            time: Box::new(move |runtimes| Ok(runtimes.time(make_one()?, calls))),
            time_two: Box::new(move |runtimes| runtimes.time_two(&make_two()?, calls)),
            allocations: Box::new(move |runtimes| Ok(runtimes.allocations(make()?, calls))),
            bytes: Box::new(move || bytes(&make_kept)),
            keys: None,
        }
    }

    fn of_keys(self, keys: u64) -> Self {
        Self { keys: Some(keys), ..self }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("group", &self.group).field("case", &self.case).finish_non_exhaustive()
    }
}

/// Everything that is measured, those of one name beside each other.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new("baseline", "Instant::now".to_owned(), CALLS, || Ok(Readings))];
    let keys = rates::shuffled_keys();
    cases.extend(rates::governors(&keys));
    cases_with::<u64>(&mut cases, &keys);
    cases_with::<Wide>(&mut cases, &keys);
    cases
}

fn cases_with<R: Request>(cases: &mut Vec<Case>, keys: &Arc<[u64]>) {
    cases.extend([answered::<R, _>("baseline", "inner service alone", || Ok(Echo))]);

    let name = "circuit_breaker closed";
    cases.extend([
        answered::<R, _>("seawall", name, || Ok(CircuitBreakerLayer::new(by_calls())?.layer(Echo))),
        answered::<R, _>("tower-resilience", name, || Ok(resilience::breaker().build()?.layer(Echo))),
        answered::<R, _>("recloser", name, || {
            let breaker = recloser::AsyncRecloser::from(recloser());
            Ok(service_fn(move |request: R| breaker.call(Echo.call(request))))
        }),
        answered::<R, _>("failsafe", name, || {
            let backoff = failsafe::backoff::constant(NEVER);
            let policy = failsafe::failure_policy::consecutive_failures(10, backoff);
            let breaker = failsafe::Config::new().failure_policy(policy).build();
            Ok(service_fn(move |request: R| breaker.call(Echo.call(request))))
        }),
    ]);

    let name = "circuit_breaker closed slow calls";
    cases.extend([
        answered::<R, _>("seawall", name, || {
            Ok(CircuitBreakerLayer::new(by_calls().slow_calls(SLOW, 0.5))?.layer(Echo))
        }),
        answered::<R, _>("tower-resilience", name, || {
            let builder = resilience::breaker().slow_call_duration_threshold(SLOW).slow_call_rate_threshold(0.5);
            Ok(builder.build()?.layer(Echo))
        }),
    ]);

    let name = "circuit_breaker time window";
    cases.extend([
        answered::<R, _>("seawall", name, || {
            let config = CircuitBreakerConfig::new("bench").window(Window::Time(WINDOW_TIME));
            Ok(CircuitBreakerLayer::new(config)?.layer(Echo))
        }),
        with::<R, _, _>("tower-resilience", name, FEW_CALLS, is_answer, || {
            let builder = resilience::breaker().sliding_window_type(SlidingWindowType::TimeBased);
            Ok(builder.sliding_window_duration(WINDOW_TIME).build()?.layer(Echo))
        }),
        answered::<R, _>("failsafe", name, || {
            let backoff = failsafe::backoff::constant(NEVER);
            let policy = failsafe::failure_policy::success_rate_over_time_window(0.5, 20, WINDOW_TIME, backoff);
            let breaker = failsafe::Config::new().failure_policy(policy).build();
            Ok(service_fn(move |request: R| breaker.call(Echo.call(request))))
        }),
    ]);

    let name = "circuit_breaker open";
    cases.extend([
        with::<R, _, _>(
            "seawall",
            name,
            CALLS,
            |_, answer: &Result<u64, BoxError>| {
                answer.as_ref().is_err_and(|error| Rejected::find(&**error).is_some_and(|it| it.retry_after.is_some()))
            },
            || {
                let layer = CircuitBreakerLayer::new(
                    by_calls().consecutive_failures(1).jitter(0.0).open_for(NEVER).open_max(NEVER),
                )?;
                layer.handle().admit()?.finish(Outcome::Failure);
                Ok(layer.layer(Echo))
            },
        ),
        with::<R, _, _>(
            "tower-resilience",
            name,
            CALLS,
            |_, answer: &Result<u64, CircuitBreakerError<BoxError>>| {
                matches!(answer, Err(CircuitBreakerError::OpenCircuit))
            },
            || {
                let (layer, handle) = resilience::breaker().wait_duration_in_open(NEVER).build_with_handle()?;
                // Its lock is a future, which nobody else holds up here.
                at_once(handle.force_open())?;
                Ok(layer.layer(Echo))
            },
        ),
        with::<R, _, _>(
            "recloser",
            name,
            CALLS,
            |_, answer: &Result<u64, recloser::Error<BoxError>>| matches!(answer, Err(recloser::Error::Rejected)),
            || {
                let breaker = recloser();
                // One more than the window holds, since it decides before it counts the last one.
                for _ in 0..=WINDOW_CALLS {
                    let _ = breaker.call(|| Err::<(), _>(()));
                }
                let breaker = recloser::AsyncRecloser::from(breaker);
                Ok(service_fn(move |request: R| breaker.call(Echo.call(request))))
            },
        ),
        with::<R, _, _>(
            "failsafe",
            name,
            CALLS,
            |_, answer: &Result<u64, failsafe::Error<BoxError>>| matches!(answer, Err(failsafe::Error::Rejected)),
            || {
                let policy = failsafe::failure_policy::consecutive_failures(1, failsafe::backoff::constant(NEVER));
                let breaker = failsafe::Config::new().failure_policy(policy).build();
                breaker.on_error();
                Ok(service_fn(move |request: R| breaker.call(Echo.call(request))))
            },
        ),
    ]);

    let name = "retry";
    cases.extend([
        answered::<R, _>("seawall", name, || {
            Ok(RetryLayer::new(RetryConfig::new("bench"), RetryErrors::all_idempotent())?.layer(Echo))
        }),
        answered::<R, _>("tower", name, || Ok(tower::retry::RetryLayer::new(Budgeted::new(NoDelay)).layer(Echo))),
        answered::<R, _>("tower-resilience", name, || {
            let budget = RetryBudgetBuilder::new().token_bucket().build()?;
            let layer = tower_resilience::retry::RetryLayer::<R, u64, BoxError>::builder().budget(budget).build();
            Ok(layer.layer(Echo))
        }),
        answered::<R, _>("backon", name, || {
            Ok(service_fn(|request: R| (move || Echo.call(request.clone())).retry(ExponentialBuilder::default())))
        }),
    ]);
    // The leanest policy is under the name that ours is compared with; this one waits, as ours would.
    cases.push(answered::<R, _>("tower", "retry with backoff", || {
        let backoff = ExponentialBackoffMaker::default().make_backoff();
        Ok(tower::retry::RetryLayer::new(Budgeted::new(backoff)).layer(Echo))
    }));

    let name = "semaphore";
    cases.extend([
        answered::<R, _>(
            "seawall",
            name,
            || Ok(SemaphoreLayer::new(SemaphoreConfig::new("bench", LIMIT))?.layer(Echo)),
        ),
        answered::<R, _>("tower", name, || Ok(ConcurrencyLimitLayer::new(LIMIT as usize).layer(Echo))),
    ]);

    let name = "semaphore full";
    cases.extend([with::<R, _, _>("seawall", name, CALLS, is_refused, || {
        let layer = SemaphoreLayer::new(SemaphoreConfig::new("bench", 1).max_waiting(0))?;
        // Kept for good, by nobody.
        std::mem::forget(layer.handle().try_acquire()?);
        Ok(layer.layer(Echo))
    })]);

    let name = "bulkhead";
    cases.extend([
        answered::<R, _>("seawall", name, || Ok(BulkheadLayer::new(BulkheadConfig::new("bench", LIMIT))?.layer(Echo))),
        answered::<R, _>("tower", name, || Ok(ConcurrencyLimitLayer::new(LIMIT as usize).layer(Echo))),
        answered::<R, _>("tower-resilience", name, || {
            let builder = tower_resilience::bulkhead::BulkheadLayer::builder();
            Ok(builder.max_concurrent_calls(LIMIT as usize).build()?.layer(Echo))
        }),
    ]);

    let name = "bulkhead full";
    cases.extend([
        with::<R, _, _>("seawall", name, CALLS, is_refused, || {
            let layer = BulkheadLayer::new(BulkheadConfig::new("bench", 1))?;
            std::mem::forget(layer.handle().try_acquire()?);
            Ok(layer.layer(Echo))
        }),
        with::<R, _, _>(
            "tower-resilience",
            name,
            WAITING_CALLS,
            |_, answer: &Result<u64, BulkheadServiceError<BoxError>>| {
                matches!(answer, Err(BulkheadServiceError::Bulkhead(BulkheadError::Timeout)))
            },
            || {
                let builder = tower_resilience::bulkhead::BulkheadLayer::builder().max_concurrent_calls(1);
                let layer = builder.reject_when_full().build()?;
                let mut service = layer.layer(service_fn(|_: R| pending::<Result<u64, BoxError>>()));
                let mut call = service.call(R::numbered(0));
                at_once(poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())))?;
                std::mem::forget(call);
                Ok(service)
            },
        ),
    ]);

    let name = "timeout";
    cases.extend([
        answered::<R, _>(
            "seawall",
            name,
            || Ok(TimeoutLayer::new(TimeoutConfig::attempt("bench", NEVER))?.layer(Echo)),
        ),
        answered::<R, _>("tower", name, || Ok(tower::timeout::TimeoutLayer::new(NEVER).layer(Echo))),
        answered::<R, _>("tower-resilience", name, || {
            let builder = tower_resilience::timelimiter::TimeLimiterLayer::builder();
            Ok(builder.timeout_duration(NEVER).build().layer(Echo))
        }),
    ]);

    rates::cases::<R>(cases, keys);
}

/// A case whose calls are all answered.
fn answered<R, S>(
    group: &'static str,
    case: &'static str,
    make: impl Fn() -> Result<S, BoxError> + Clone + 'static,
) -> Case
where
    R: Request,
    S: Service<R, Response = u64> + Clone + Send + 'static,
    S::Error: Send,
    S::Future: Send,
{
    with::<R, S, _>(group, case, CALLS, is_answer, make)
}

fn is_answer<E>(number: u64, answer: &Result<u64, E>) -> bool {
    answer.as_ref().is_ok_and(|answer| *answer == number)
}

fn is_refused(_: u64, answer: &Result<u64, BoxError>) -> bool {
    answer.as_ref().is_err_and(|error| Rejected::find(&**error).is_some())
}

fn with<R, S, C>(
    group: &'static str,
    case: &'static str,
    calls: u64,
    check: C,
    make: impl Fn() -> Result<S, BoxError> + Clone + 'static,
) -> Case
where
    R: Request,
    S: Service<R, Response = u64> + Clone + Send + 'static,
    S::Error: Send,
    S::Future: Send,
    C: Fn(u64, &Result<u64, S::Error>) -> bool + Clone + Send + Sync + 'static,
{
    let case = format!("{case}{}", R::SUFFIX);
    Case::new(group, case, calls, move || Ok(Calls::<S, R, C>::new(make()?, check.clone())))
}

fn by_calls() -> CircuitBreakerConfig {
    CircuitBreakerConfig::new("bench").window(Window::Calls(WINDOW_CALLS))
}

fn recloser() -> recloser::Recloser {
    recloser::Recloser::custom().closed_len(WINDOW_CALLS as usize).error_rate(0.5).open_wait(NEVER).build()
}

mod resilience {
    use tower_resilience::circuitbreaker::{CircuitBreakerConfigBuilder, CircuitBreakerLayer, DefaultClassifier};

    pub(super) fn breaker() -> CircuitBreakerConfigBuilder<DefaultClassifier> {
        CircuitBreakerLayer::builder().failure_rate_threshold(0.5).sliding_window_size(super::WINDOW_CALLS as usize)
    }
}

/// The result of a future that does not wait.
fn at_once<F: Future>(future: F) -> Result<F::Output, BoxError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(future))
}

/// tower's retry with a budget, as its documentation asks the user to write it.
#[derive(Clone)]
struct Budgeted<B> {
    budget: Arc<TpsBudget>,
    retries_left: u32,
    backoff: B,
}

impl<B> Budgeted<B> {
    fn new(backoff: B) -> Self {
        Self { budget: Arc::new(TpsBudget::new(WINDOW_TIME, 1, 0.2)), retries_left: 2, backoff }
    }
}

impl<R: Clone, E, B: Backoff> Policy<R, u64, E> for Budgeted<B> {
    type Future = B::Future;

    fn retry(&mut self, _: &mut R, result: &mut Result<u64, E>) -> Option<B::Future> {
        if result.is_ok() {
            self.budget.deposit();
            return None;
        }
        let again = self.retries_left > 0 && self.budget.withdraw();
        again.then(|| {
            self.retries_left -= 1;
            self.backoff.next_backoff()
        })
    }

    fn clone_request(&mut self, request: &R) -> Option<R> {
        Some(request.clone())
    }
}

/// No delay between attempts: the leanest that tower's retry can be.
#[derive(Clone)]
struct NoDelay;

impl Backoff for NoDelay {
    type Future = Ready<()>;

    fn next_backoff(&mut self) -> Ready<()> {
        ready(())
    }
}
