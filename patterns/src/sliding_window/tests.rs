//! Layer, service and handle on a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::advance;
use tower::{Layer, Service, ServiceExt, service_fn};

use super::*;
use crate::{BoxError, Mode, Reason, Rejected};

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

/// Two in a second, exactly.
fn config() -> SlidingWindowConfig {
    SlidingWindowConfig::new("mail", 2, SECOND).algorithm(Algorithm::Log)
}

fn window(config: SlidingWindowConfig) -> SlidingWindowHandle {
    SlidingWindowHandle::new(config).unwrap()
}

fn refused<T>(result: Result<T, BoxError>) -> Rejected {
    let error = result.err().expect("an error");
    Rejected::find(&*error).expect("a refusal").clone()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_exactly_when_to_return() {
    for algorithm in [Algorithm::Log, Algorithm::Buckets(10)] {
        let window = window(config().algorithm(algorithm));
        window.try_acquire_many(2).unwrap().succeeded();
        advance(SECOND / 3).await;
        let rejected = window.try_acquire().unwrap_err();
        assert_eq!((rejected.pattern, &*rejected.name, rejected.reason), ("sliding_window", "mail", Reason::Limited));
        let wait = rejected.retry_after.unwrap();
        advance(wait - NANO).await;
        assert_eq!(window.try_acquire().unwrap_err().retry_after, Some(NANO));
        advance(NANO).await;
        window.try_acquire().unwrap().succeeded();
        assert_eq!(window.stats().calls.ok, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_not_made() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let layer = SlidingWindowLayer::new(config()).unwrap();
    let mut service = layer.layer(service_fn(move |request: u32| {
        // ORDERING: Relaxed, one thread.
        counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, BoxError>(request) }
    }));
    for request in 0..2 {
        assert_eq!(service.ready().await.unwrap().call(request).await.unwrap(), request);
    }
    let rejected = refused(service.ready().await.unwrap().call(2).await);
    assert_eq!((rejected.reason, rejected.retry_after), (Reason::Limited, Some(SECOND)));
    // ORDERING: Relaxed, one thread.
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    let stats = layer.handle().stats();
    assert_eq!((stats.calls.admitted, stats.calls.ok, stats.calls.rejected), (2, 2, 1));
    assert_eq!((stats.limit, stats.available), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_dropped_stays_counted() {
    let layer = SlidingWindowLayer::new(config()).unwrap();
    let mut service = layer.layer(service_fn(|(): ()| std::future::pending::<Result<(), BoxError>>()));
    drop(service.ready().await.unwrap().call(()));
    let stats = layer.handle().stats();
    assert_eq!((stats.calls.neutral, stats.calls.in_flight, stats.available), (1, 0, 1));
    let _kept = service.ready().await.unwrap().call(());
    let stats = layer.handle().stats();
    assert_eq!((stats.calls.in_flight, stats.available), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_costs_what_the_layer_says() {
    let layer = SlidingWindowLayer::new(config().limit(10)).unwrap().cost(|bytes: &Vec<u8>| bytes.len() as u32);
    let mut service = layer.layer(service_fn(|bytes: Vec<u8>| async move { Ok::<_, BoxError>(bytes.len()) }));
    assert_eq!(service.ready().await.unwrap().call(vec![0; 7]).await.unwrap(), 7);
    assert_eq!(refused(service.ready().await.unwrap().call(vec![0; 4]).await).reason, Reason::Limited);
    let never = refused(service.ready().await.unwrap().call(vec![0; 11]).await);
    assert_eq!((never.reason, never.retry_after), (Reason::Never, None));
    assert_eq!(service.ready().await.unwrap().call(vec![]).await.unwrap(), 0);
    assert_eq!(layer.handle().available(), 2, "nothing passes for free");
}

#[tokio::test(start_paused = true)]
async fn services_clones_and_handles_share_one_window() {
    let layer = SlidingWindowLayer::new(config()).unwrap();
    let inner = service_fn(|(): ()| async { Ok::<_, BoxError>(()) });
    let (mut first, mut second) = (layer.layer(inner), layer.clone().layer(inner).clone());
    first.ready().await.unwrap().call(()).await.unwrap();
    second.ready().await.unwrap().call(()).await.unwrap();
    assert!(layer.handle().try_acquire().is_err());
    assert!(layer.handle().layer().layer(inner).ready().await.unwrap().call(()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn only_an_enforcing_window_refuses() {
    let window = window(config().mode(Mode::Observe));
    for _ in 0..5 {
        window.try_acquire().unwrap().succeeded();
    }
    let stats = window.stats();
    assert_eq!((stats.calls.ok, stats.calls.rejected, stats.available), (5, 3, 0));
    window.update(config().mode(Mode::Disabled)).unwrap();
    advance(SECOND).await;
    window.try_acquire_many(100).unwrap().succeeded();
    assert_eq!((window.stats().calls.rejected, window.available()), (3, 2), "nothing is decided");
    window.update(config()).unwrap();
    assert_eq!(window.try_acquire_many(100).unwrap_err().reason, Reason::Never);
}

#[tokio::test(start_paused = true)]
async fn an_update_is_taken_whole_or_not_at_all() {
    let window = window(config());
    window.try_acquire_many(2).unwrap().succeeded();
    let field = |config| window.update(config).unwrap_err().field;
    assert_eq!(field(config().limit(0)), "limit");
    assert_eq!(field(config().algorithm(Algorithm::Buckets(3))), "algorithm");
    assert_eq!(field(SlidingWindowConfig { name: "other".into(), ..config().limit(9) }), "name");
    assert_eq!((window.config(), window.available()), (config(), 0));
    window.update(config().limit(3).window(2 * SECOND)).unwrap();
    assert_eq!(window.available(), 1);
    advance(SECOND).await;
    assert_eq!(window.available(), 1, "what was counted weighs by the new window");
    advance(SECOND).await;
    assert_eq!(window.available(), 3);
}

#[cfg(feature = "metrics")]
#[tokio::test(start_paused = true)]
async fn the_gauge_follows_what_is_available() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // Takes the value away: one that is not set again reads 0.
    let gauge = || {
        let found = snapshotter.snapshot().into_vec().into_iter();
        let mut found = found.filter(|(key, ..)| key.key().name() == "seawall_rate_limit_available");
        match found.next() {
            Some((_, _, _, DebugValue::Gauge(value))) => value.into_inner(),
            other => panic!("no gauge: {other:?}"),
        }
    };
    let window = metrics::with_local_recorder(&recorder, || window(config().limit(100)));
    window.try_acquire_many(30).unwrap().succeeded();
    assert_eq!(gauge(), 70.0);
    window.try_acquire_many(30).unwrap().succeeded();
    assert_eq!(gauge(), 0.0, "not with every call");
    advance(SECOND / 16).await;
    window.try_acquire().unwrap().succeeded();
    assert_eq!(gauge(), 39.0);
    metrics::with_local_recorder(&recorder, || window.rebind_metrics());
    assert_eq!(gauge(), 39.0, "without a call");
    window.update(config().limit(50)).unwrap();
    assert_eq!(gauge(), 0.0, "as soon as it changes");
    window.update(config().limit(200)).unwrap();
    assert_eq!(gauge(), 139.0, "as soon as it changes");
}
