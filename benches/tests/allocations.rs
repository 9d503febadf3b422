//! What each of our layers allocates, counted: nothing on the happy path, one boxed error for a refusal.

use std::future::{Future, poll_fn, ready};
use std::pin::pin;
use std::task::Poll;

use seawall::{SemaphoreConfig, SemaphoreLayer};
use seawall_benches::{BoxError, Runtimes, cases};
use tower::{Layer, Service, ServiceExt, service_fn};

fn allocations(of: impl Fn(&str) -> bool) -> Result<Vec<(String, f64)>, BoxError> {
    let runtimes = Runtimes::new()?;
    let ours = cases().into_iter().filter(|case| case.group == "seawall" && of(&case.case));
    ours.map(|case| Ok((case.case.clone(), case.allocations(&runtimes)?))).collect()
}

fn refuses(case: &str) -> bool {
    case.contains("open") || case.contains("full")
}

#[test]
fn the_happy_path_of_every_layer_allocates_nothing() {
    let counted = allocations(|case| !refuses(case)).unwrap();
    assert_eq!(counted.len(), 18, "nine cases, two sizes of the request: {counted:?}");
    for (case, allocations) in counted {
        assert_eq!(allocations, 0.0, "{case}");
    }
}

#[test]
fn a_refusal_allocates_at_most_its_boxed_error() {
    let counted = allocations(refuses).unwrap();
    assert_eq!(counted.len(), 6, "{counted:?}");
    for (case, allocations) in counted {
        assert!(allocations <= 1.0, "{case}: {allocations}");
    }
}

#[test]
fn a_wait_for_a_permit_allocates_nothing() {
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
    assert_eq!(waited, idle);
}

#[test]
fn the_counter_counts() {
    // Were it not linked in, every figure would be zero.
    let runtimes = Runtimes::new().unwrap();
    let boxed = cases().into_iter().find(|case| case.group == "tower-resilience" && case.case == "timeout").unwrap();
    assert!(boxed.allocations(&runtimes).unwrap() >= 1.0, "it boxes its future");
}
