//! What each of our layers allocates, counted: nothing on the happy path, one boxed error for a refusal.

use std::future::{Future, poll_fn, ready};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use allocation_counter::measure;
use seawall::{Backoff, RetryConfig, RetryErrors, RetryLayer, SemaphoreConfig, SemaphoreLayer};
use seawall_benches::{BoxError, Runtimes, cases};
use tokio::runtime::Builder;
use tower::{Layer, Service, ServiceExt, service_fn};

fn allocations(of: impl Fn(&str) -> bool) -> Result<Vec<(String, f64)>, BoxError> {
    let runtimes = Runtimes::new()?;
    let ours = cases().into_iter().filter(|case| case.group == "seawall" && of(&case.case));
    ours.map(|case| Ok((case.case.clone(), case.allocations(&runtimes)?))).collect()
}

fn refuses(case: &str) -> bool {
    ["open", "full", "limited"].iter().any(|state| case.contains(state))
}

#[test]
fn the_happy_path_of_every_layer_allocates_nothing() {
    let counted = allocations(|case| !refuses(case)).unwrap();
    assert_eq!(counted.len(), 24, "twelve cases, two sizes of the request: {counted:?}");
    for (case, allocations) in counted {
        assert_eq!(allocations, 0.0, "{case}");
    }
}

#[test]
fn a_refusal_allocates_at_most_its_boxed_error() {
    let counted = allocations(refuses).unwrap();
    assert_eq!(counted.len(), 12, "six cases, two sizes of the request: {counted:?}");
    for (case, allocations) in counted {
        assert_eq!(allocations, 1.0, "{case}");
    }
}

#[test]
fn a_call_that_waits_allocates_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let layer = SemaphoreLayer::new(SemaphoreConfig::new("bench", 1)).unwrap();
    let semaphore = layer.handle();
    let mut service = layer.layer(service_fn(|()| ready(Ok::<_, BoxError>(()))));
    let mut waits = |times: u32| {
        runtime.block_on(async {
            for _ in 0..times {
                let held = semaphore.try_acquire().unwrap();
                let mut call = pin!(service.ready().await.unwrap().call(()));
                // Far enough to have its timer.
                assert!(poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await.is_pending());
                drop(held);
                call.await.unwrap();
            }
        });
    };
    waits(100);
    let idle = allocation_counter::measure(|| waits(0)).count_total;
    let waited = allocation_counter::measure(|| waits(100)).count_total;
    assert_eq!(waited - idle, 100);
}

#[test]
fn the_counter_counts() {
    // Were it not linked in, every figure would be zero.
    let runtimes = Runtimes::new().unwrap();
    let boxed = cases().into_iter().find(|case| case.group == "tower-resilience" && case.case == "timeout").unwrap();
    assert!(boxed.allocations(&runtimes).unwrap() >= 1.0, "it boxes its future");
}

/// Fails as often as it is asked to, without an allocation: a box of nothing is none.
#[derive(Debug)]
struct Nothing;

impl std::fmt::Display for Nothing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nothing")
    }
}

impl std::error::Error for Nothing {}

#[test]
fn a_call_allocates_once_for_all_of_its_retries() {
    let config = RetryConfig::new("peer").max_attempts(9).backoff(Backoff::constant(Duration::from_millis(10)));
    let layer = RetryLayer::new(config, RetryErrors::all_idempotent()).unwrap();
    let mut left = 0;
    let failures = AtomicU32::new(0);
    let mut service = layer.layer(service_fn(|()| {
        let fails = failures.load(Ordering::Relaxed) > 0;
        failures.fetch_sub(u32::from(fails), Ordering::Relaxed);
        ready(if fails { Err(BoxError::from(Nothing)) } else { Ok(()) })
    }));
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut counted = |fail: u32| {
        failures.store(fail, Ordering::Relaxed);
        left += fail;
        measure(|| assert!(runtime.block_on(service.call(())).is_ok())).count_total
    };
    let idle = counted(0);
    assert_eq!([1, 2, 3].map(|fail| counted(fail) - idle), [1, 1, 1]);
    assert_eq!(layer.handle().stats().retries, u64::from(left));
}
