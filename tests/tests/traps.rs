//! Traps that other implementations of the patterns fell into, and for each the test that this one does not.
//!
//! The table is printed to standard error, a line as its test passes. "Before" names who fell into it, as found in their
//! code or their issues; the numbers are those of our notes on them and have gaps where a trap concerns other patterns.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::future::{Future, pending, ready};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::future::join_all;
use seawall::circuit_breaker::{
    Admission, Cause, CircuitBreakerConfig, CircuitBreakerHandle, DEFAULT_OPEN_FOR, DEFAULT_PROBE_TIMEOUT, Outcome,
    State, Window,
};
use seawall::{
    Backoff, BoxError, Deadline, Jitter, Reason, Rejected, RetryBudget, RetryBudgetConfig, RetryConfig, RetryErrors,
    RetryHandle, RetryLayer, TimeoutConfig, TimeoutLayer, Transient,
};
use seawall_tests::probe::{Answer, Site};
use seawall_tests::say;
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceExt, service_fn};

macro_rules! traps {
    ($($trap:ident, $before:literal: $law:ident;)*) => {
        /// The tests, one for each line of the table.
        mod table {
            $(
                #[tokio::test(start_paused = true)]
                async fn $law() {
                    super::$law().await;
                    super::say(concat!("trap ", stringify!($trap), " | ", $before, " | ", stringify!($law)));
                }
            )*
        }
    };
}

traps! {
    T1, "resilience4j: a call from before the trip counts as a probe": a_result_from_before_the_trip_is_no_probe;
    T2, "failsafe-go: a late result returns a permit it never took": a_late_result_returns_no_slot;
    T3, "Polly: a cancelled probe closes the circuit": a_cancelled_probe_does_not_close;
    T4, "Polly: a probe without an answer refuses for ever": a_probe_that_never_answers_does_not_wedge;
    T5, "linkerd2-proxy: a probe dropped early is lost": a_probe_dropped_before_its_answer_returns_its_slot;
    T6, "gobreaker: a probe that is never reported is lost": a_probe_that_is_never_reported_does_not_wedge;
    T7, "resilience4j: half-open lasts for ever by default": half_open_has_a_limit_by_default_and_cannot_be_without;
    T8, "resilience4j, Polly, failsafe-go: wall clocks": time_is_monotonic_and_no_wall_clock_is_read;
    T12, "resilience4j: old failures count for ever": failures_leave_the_default_window_with_time;
    T12, "gobreaker: sparse failures in a row are under-counted": failures_in_a_row_count_however_sparse;
    T15, "failsafe-go, tower: budgets over-grant under contention": a_budget_is_exact_under_contention;
    T16, "Polly, resilience4j, linkerd2-proxy: no jitter at the cap": delays_at_the_cap_keep_their_jitter;
    T16, "the same, for open times": open_times_at_the_cap_keep_their_jitter;
    T17, "tower-resilience: over-admission under contention": contention_admits_no_more_than_the_probes;
    T17, "tower-resilience: a retry calls a service that is not ready": a_retry_waits_for_readiness;
    T24, "safe-client-gateway: half-open lets a crowd in": half_open_lets_no_crowd_in;
    T25, "erpc: neutral probes keep it half-open for ever": neutral_probes_do_not_wedge_and_not_found_closes;
    T28, "failsafe-go: one failure opens for a minute": the_default_breaker_bears_chance_and_opens_in_an_outage;
    T28, "defaults that multiply the load": default_retries_do_not_multiply_an_outage;
    T30, "resilience4j: refusals from below count as failures": refusals_from_below_do_not_trip;
}

const SECOND: Duration = Duration::from_secs(1);
/// Enough for threads to meet between a check and its consequence.
const ROUNDS: usize = 3000;

/// Trips on the first failure for exactly 10 s, and closes after one good probe.
fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::new("peer").consecutive_failures(1).open_for(10 * SECOND).jitter(0.0).probes(1)
}

fn breaker(config: CircuitBreakerConfig) -> CircuitBreakerHandle {
    CircuitBreakerHandle::new(config).unwrap()
}

fn admitted(breaker: &CircuitBreakerHandle) -> Admission {
    breaker.admit().unwrap()
}

fn refused(breaker: &CircuitBreakerHandle) -> Reason {
    breaker.admit().unwrap_err().reason
}

/// Open, and its open time is over.
async fn due(config: CircuitBreakerConfig) -> CircuitBreakerHandle {
    let breaker = breaker(config);
    admitted(&breaker).finish(Outcome::Failure);
    assert_eq!(breaker.state(), State::Open);
    advance(10 * SECOND).await;
    breaker
}

async fn a_result_from_before_the_trip_is_no_probe() {
    for late in [Outcome::Success, Outcome::Failure, Outcome::Neutral] {
        let breaker = breaker(config());
        let (before, later) = (admitted(&breaker), admitted(&breaker));
        admitted(&breaker).finish(Outcome::Failure);
        advance(10 * SECOND).await;
        let probe = admitted(&breaker);
        before.finish(late);
        assert_eq!((breaker.state(), breaker.stats().stale), (State::HalfOpen, 1), "{late:?}");
        probe.finish(Outcome::Success);
        assert_eq!(breaker.state(), State::Closed, "the probe decides");
        later.finish(Outcome::Failure);
        assert_eq!((breaker.state(), breaker.stats().window.failed), (State::Closed, 0), "and the outage is over");
    }
}

async fn a_late_result_returns_no_slot() {
    let breaker = breaker(config());
    let before: Vec<_> = (0..5).map(|_| admitted(&breaker)).collect();
    admitted(&breaker).finish(Outcome::Failure);
    advance(10 * SECOND).await;
    let _probe = admitted(&breaker);
    for late in before {
        late.finish(Outcome::Success);
        assert_eq!(refused(&breaker), Reason::Probing);
    }
}

async fn a_cancelled_probe_does_not_close() {
    let breaker = due(config()).await;
    let cancelled = tokio::time::timeout(SECOND, breaker.call(pending::<Result<(), BoxError>>())).await;
    assert!(cancelled.is_err());
    assert_eq!(breaker.state(), State::HalfOpen);
    breaker.call(ready(Err::<(), BoxError>("down".into()))).await.unwrap_err();
    assert_eq!(breaker.state(), State::Open, "and nothing hides that the peer is still down");
}

async fn a_probe_that_never_answers_does_not_wedge() {
    let breaker = due(config()).await;
    let lost = tokio::spawn(breaker.call(pending::<Result<(), BoxError>>()));
    tokio::task::yield_now().await;
    assert_eq!(refused(&breaker), Reason::Probing);
    advance(DEFAULT_PROBE_TIMEOUT).await;
    assert_eq!(refused(&breaker), Reason::Open, "it has failed, and the next round comes later");
    advance(20 * SECOND).await;
    admitted(&breaker).finish(Outcome::Success);
    assert_eq!(breaker.state(), State::Closed);
    lost.abort();
}

async fn a_probe_dropped_before_its_answer_returns_its_slot() {
    for polls in 0..3 {
        let breaker = due(config()).await;
        let mut probe = Box::pin(breaker.call(pending::<Result<(), BoxError>>()));
        for _ in 0..polls {
            assert!(probe.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(refused(&breaker), Reason::Probing);
        drop(probe);
        admitted(&breaker).finish(Outcome::Success);
        assert_eq!(breaker.state(), State::Closed, "dropped after {polls} polls");
    }
}

async fn a_probe_that_is_never_reported_does_not_wedge() {
    let breaker = due(config()).await;
    std::mem::forget(admitted(&breaker));
    advance(DEFAULT_PROBE_TIMEOUT).await;
    assert_eq!(refused(&breaker), Reason::Open);
    advance(20 * SECOND).await;
    admitted(&breaker).finish(Outcome::Success);
    assert_eq!(breaker.state(), State::Closed);
}

async fn half_open_has_a_limit_by_default_and_cannot_be_without() {
    let limit = CircuitBreakerConfig::new("peer").probe_timeout;
    assert!(limit > Duration::ZERO && limit <= 60 * SECOND, "{limit:?}");
    for none in [Duration::ZERO, Duration::MAX] {
        let error = CircuitBreakerHandle::new(config().probe_timeout(none)).unwrap_err();
        assert_eq!(error.field, "probe_timeout");
    }
}

async fn time_is_monotonic_and_no_wall_clock_is_read() {
    // The wall clock stands still here, and an hour passes all the same.
    let breaker = breaker(config().open_for(3600 * SECOND).open_max(3600 * SECOND));
    admitted(&breaker).finish(Outcome::Failure);
    advance(3599 * SECOND).await;
    assert_eq!(breaker.admit().unwrap_err().retry_after, Some(SECOND));
    advance(SECOND).await;
    admitted(&breaker).finish(Outcome::Success);
    // That none is read anywhere can only be seen in the source.
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../patterns/src")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let wall = std::fs::read_to_string(&path).unwrap().contains("SystemTime");
                assert!(!wall, "{} names the wall clock", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 20, "the source was there to be read");
}

async fn failures_leave_the_default_window_with_time() {
    let breaker = breaker(CircuitBreakerConfig::new("peer").consecutive_failures(None));
    for _ in 0..19 {
        admitted(&breaker).finish(Outcome::Failure);
    }
    advance(11 * SECOND).await;
    admitted(&breaker).finish(Outcome::Failure);
    let stats = breaker.stats();
    assert_eq!((stats.state, stats.window.failed), (State::Closed, 1), "19 failures of long ago count no more");
    for _ in 0..19 {
        admitted(&breaker).finish(Outcome::Failure);
    }
    assert_eq!(breaker.state(), State::Open, "20 within the window do");
}

async fn failures_in_a_row_count_however_sparse() {
    for window in [Window::Time(10 * SECOND), Window::Calls(100)] {
        let breaker = breaker(config().window(window).consecutive_failures(5));
        for failures in 1..=5 {
            assert_eq!(breaker.state(), State::Closed);
            admitted(&breaker).finish(Outcome::Failure);
            assert_eq!(breaker.stats().consecutive_failures, failures);
            advance(24 * 3600 * SECOND).await;
        }
        let opened = breaker.watch().borrow().clone().unwrap();
        assert_eq!(opened.cause, Cause::ConsecutiveFailures);
    }
}

/// In each round two threads make one `attempt` at the same time, and give back what they got when both have tried: how many
/// got something in a round, each number once.
fn contended<T>(attempt: impl Fn() -> Option<T> + Sync) -> BTreeSet<usize> {
    let arrived = AtomicUsize::new(0);
    // A barrier that wakes sleepers lets them go one after the other; these start within nanoseconds.
    let meet = |times: usize| {
        // ORDERING: Relaxed, it only makes them meet; what they race for synchronises by itself.
        arrived.fetch_add(1, Ordering::Relaxed);
        for spins in 0_u64.. {
            // ORDERING: Relaxed, as above.
            if arrived.load(Ordering::Relaxed) >= 2 * times {
                break;
            }
            if spins < 500 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    };
    let run = || {
        let round = |round| {
            meet(2 * round + 1);
            let got = attempt();
            meet(2 * round + 2);
            let count = usize::from(got.is_some());
            drop(got);
            count
        };
        (0..ROUNDS).map(round).collect::<Vec<_>>()
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(run);
        (run(), other.join().unwrap())
    });
    one.into_iter().zip(other).map(|(one, other)| one + other).collect()
}

async fn a_budget_is_exact_under_contention() {
    let budget = RetryBudget::new(RetryBudgetConfig::new().ratio(0.1).floor_per_second(0.0)).unwrap();
    (0..10).for_each(|_| budget.deposit());
    let granted = contended(|| budget.try_reserve(1));
    assert_eq!(granted, [1].into(), "ten calls pay for one retry");
    let stats = budget.stats();
    assert_eq!((stats.balance, stats.refunded, stats.refused), (1.0, ROUNDS as u64, ROUNDS as u64));
}

async fn delays_at_the_cap_keep_their_jitter() {
    for jitter in [Jitter::Full, Jitter::Equal, Jitter::Fraction(0.5)] {
        for backoff in [Backoff::constant(SECOND).cap(SECOND), Backoff::exponential(SECOND / 50).cap(SECOND)] {
            let (low, high) = backoff.jitter(jitter).range(30, None);
            assert!(low <= high / 2 && high <= SECOND, "{jitter:?}: {low:?} to {high:?}");
        }
    }
    // And so do the delays themselves: 40 calls that fail together, each retried once.
    let config = RetryConfig::new("peer").max_attempts(2).backoff(Backoff::constant(SECOND).cap(SECOND));
    let ample = RetryBudget::new(RetryBudgetConfig::new().floor_per_second(100.0)).unwrap();
    let retries = RetryHandle::with_budget(config, ample).unwrap();
    let start = Instant::now();
    let calls = (0..40).map(|_| async {
        let operation = || ready(Err::<(), _>(Transient::new("busy")));
        retries.call(operation).await.unwrap_err();
        start.elapsed()
    });
    let ended = join_all(calls).await;
    assert!(ended.iter().all(|after| *after <= SECOND + Duration::from_millis(1)), "{ended:?}");
    let distinct: BTreeSet<_> = ended.iter().map(Duration::as_millis).collect();
    assert!(distinct.len() > 20, "they return together: {distinct:?}");
}

async fn open_times_at_the_cap_keep_their_jitter() {
    let breaker = breaker(config().open_max(10 * SECOND).jitter(1.0));
    let mut open_times = BTreeSet::new();
    for _ in 0..40 {
        admitted(&breaker).finish(Outcome::Failure);
        open_times.insert(breaker.watch().borrow().clone().unwrap().open_for.unwrap());
        advance(10 * SECOND).await;
    }
    assert!(open_times.iter().all(|time| *time <= 10 * SECOND), "{open_times:?}");
    assert!(open_times.len() > 20, "{open_times:?}");
}

async fn contention_admits_no_more_than_the_probes() {
    let breaker = due(config()).await;
    // The threads read the real clock, which is behind the paused one. The breaker goes by the latest time it has seen: this.
    drop(admitted(&breaker));
    let probes = contended(|| breaker.admit().ok());
    assert_eq!(probes, [1].into());
    assert_eq!(breaker.state(), State::HalfOpen);
}

async fn a_retry_waits_for_readiness() {
    let config = RetryConfig::new("peer").backoff(Backoff::constant(SECOND).jitter(Jitter::None));
    let layer = RetryLayer::new(config.max_ready_wait(10 * SECOND), RetryErrors::all_idempotent()).unwrap();
    let site = Site::default();
    site.answers([Answer::Fleeting, Answer::Good]);
    let mut service = layer.layer(site.probe());
    let call = tokio::spawn(service.ready().await.unwrap().call(7));
    tokio::task::yield_now().await;
    site.limit(0);
    advance(5 * SECOND).await;
    tokio::task::yield_now().await;
    assert_eq!(site.calls().len(), 1, "not ready, so not called");
    site.limit(1);
    assert_eq!(call.await.unwrap().unwrap(), 7);
    assert_eq!((site.calls().len(), site.breaches()), (2, vec![]));
}

async fn half_open_lets_no_crowd_in() {
    let breaker = due(config().probes(3)).await;
    let site = Site::default();
    site.pending(usize::MAX);
    let service = breaker.layer().layer(site.probe());
    let mut crowd = Vec::new();
    for request in 0..1000 {
        let mut service = service.clone();
        let mut call = Box::pin(service.ready().await.unwrap().call(request));
        let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        crowd.push(call);
    }
    assert_eq!(site.calls().len(), 3);
    assert_eq!(breaker.stats().refused, 997);
}

async fn neutral_probes_do_not_wedge_and_not_found_closes() {
    let breaker = due(config()).await;
    for _ in 0..1000 {
        admitted(&breaker).finish(Outcome::Neutral);
        assert_eq!(breaker.state(), State::HalfOpen);
    }
    // A timely "not found" is a success of the peer and no neutral answer.
    assert_eq!(breaker.call(ready(Ok::<_, BoxError>(None::<u64>))).await.unwrap(), None);
    assert_eq!(breaker.state(), State::Closed);
}

async fn the_default_breaker_bears_chance_and_opens_in_an_outage() {
    let breaker = breaker(CircuitBreakerConfig::new("peer"));
    for call in 0..1000 {
        // One call in ten fails, and now and then three in a row.
        let outcome = if call % 10 == 0 || call % 100 < 3 { Outcome::Failure } else { Outcome::Success };
        admitted(&breaker).finish(outcome);
    }
    assert_eq!(breaker.state(), State::Closed);
    advance(60 * SECOND).await;
    let failures = (0..100).take_while(|_| breaker.admit().map(|call| call.finish(Outcome::Failure)).is_ok()).count();
    assert!((2..=20).contains(&failures), "{failures} failures until it opened");
    let wait = breaker.admit().unwrap_err().retry_after.unwrap();
    assert!(wait <= DEFAULT_OPEN_FOR && DEFAULT_OPEN_FOR <= 10 * SECOND, "a restart later it is asked again: {wait:?}");
}

async fn default_retries_do_not_multiply_an_outage() {
    let retries = RetryHandle::new(RetryConfig::new("peer")).unwrap();
    let calls = (0..100).map(|_| retries.call(|| ready(Err::<(), _>(Transient::new("down")))));
    let failed = join_all(calls).await.iter().filter(|result| result.is_err()).count();
    assert_eq!(failed, 100);
    let sent = retries.stats().retries;
    assert!((1..=30).contains(&sent), "a fifth of 100 calls and one a second for ten seconds, not 200: {sent}");
}

async fn refusals_from_below_do_not_trip() {
    // An open breaker of the next hop, and a timeout whose deadline has passed, below a breaker that one failure opens.
    let (outer, next) = (breaker(config()), breaker(config()));
    next.force_open();
    let peer = service_fn(|()| async { Ok::<_, BoxError>(()) });
    let timeout = TimeoutLayer::new(TimeoutConfig::attempt("peer", SECOND)).unwrap();
    let error = outer.layer().layer(next.layer().layer(peer)).oneshot(()).await.unwrap_err();
    assert_eq!(Rejected::find(&*error).map(|refusal| refusal.reason), Some(Reason::ForcedOpen));
    let late = Deadline::after(Duration::ZERO).scope(outer.layer().layer(timeout.layer(peer)).oneshot(()));
    let error = late.await.unwrap_err();
    assert_eq!(Rejected::find(&*error).map(|refusal| refusal.reason), Some(Reason::Deadline));
    let stats = outer.stats();
    assert_eq!((stats.state, stats.neutral, stats.failed), (State::Closed, 2, 0));
}
