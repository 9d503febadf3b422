//! What the limits with memory take of it: counted, byte by byte.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking, in its helpers too")]

use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use seawall::keyed::{KeyedConfig, KeyedHandle, KeyedLayer, Quota};
use seawall::sliding_window::{Algorithm, SlidingWindowConfig, SlidingWindowHandle, SlidingWindowLayer};
use seawall::token_bucket::Rate;
use tokio::runtime::Runtime;
use tower::{Layer, Service};

const SECOND: Duration = Duration::from_secs(1);

/// A runtime whose clock stands still.
fn paused() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Ten calls in a second; what was taken is forgotten after one.
fn quotas() -> [Quota; 3] {
    let log = Quota::SlidingWindow { limit: 10, window: SECOND, algorithm: Algorithm::Log };
    [Quota::token_bucket(Rate::per_second(10), 10), Quota::sliding_window(10, SECOND), log]
}

fn keyed(quota: Quota, max_keys: u32) -> KeyedHandle<u64> {
    KeyedHandle::new(KeyedConfig::new("clients", quota).max_keys(max_keys)).unwrap()
}

/// A first call of each key.
fn call_each(keyed: &KeyedHandle<u64>, keys: std::ops::Range<u64>) {
    for key in keys {
        assert!(keyed.try_acquire(key).is_ok(), "{key} was refused");
    }
}

#[test]
fn a_known_key_allocates_nothing() {
    let runtime = paused();
    for quota in quotas() {
        let config = KeyedConfig::new("clients", quota).global(quota);
        let layer = KeyedLayer::new(config, |request: &u64| request % 4).unwrap();
        let mut service =
            layer.layer(tower::service_fn(|request: u64| std::future::ready(Ok::<_, std::fmt::Error>(request))));
        let mut call = |request| runtime.block_on(service.call(request)).is_ok();
        assert!(call(1));
        let counted = measure(|| assert!(call(1)));
        assert_eq!(counted.count_total, 0, "{quota:?}: {counted:?}");
    }
}

#[test]
fn a_window_allocates_nothing_after_it_was_made() {
    let runtime = paused();
    for algorithm in [Algorithm::Log, Algorithm::Buckets(10)] {
        let layer =
            SlidingWindowLayer::new(SlidingWindowConfig::new("mail", 100, SECOND).algorithm(algorithm)).unwrap();
        let mut service = layer.layer(tower::service_fn(|()| std::future::ready(Ok::<_, std::fmt::Error>(()))));
        let mut call = || runtime.block_on(service.call(())).is_ok();
        assert!(call());
        let counted = measure(|| assert!(call()));
        assert_eq!(counted.count_total, 0, "{algorithm:?}: {counted:?}");
    }
}

#[test]
fn a_log_takes_its_memory_when_it_is_made() {
    let runtime = paused();
    let _entered = runtime.enter();
    let make = |algorithm| {
        let config = SlidingWindowConfig::new("mail", 100_000, SECOND).algorithm(algorithm);
        measure(move || std::mem::forget(SlidingWindowHandle::new(config).unwrap())).bytes_current
    };
    let (log, buckets) = (make(Algorithm::Log), make(Algorithm::Buckets(10)));
    let ring = log - buckets;
    assert!((799_000..=800_000).contains(&ring), "8 bytes for each unit of the limit, for 44 of the buckets: {ring}");
}

#[test]
fn a_key_takes_few_bytes() {
    const KEYS: u64 = 100_000;
    let runtime = paused();
    let _entered = runtime.enter();
    for (quota, most) in quotas().into_iter().zip([64, 160, 192]) {
        let keyed = keyed(quota, KEYS as u32);
        let AllocationInfo { bytes_current, .. } = measure(|| call_each(&keyed, 0..KEYS));
        let per_key = bytes_current / KEYS as i64;
        println!("{quota:?}: {per_key} bytes a key");
        assert!(per_key <= most, "{quota:?}: {per_key} bytes a key");
    }
}

#[test]
fn memory_stays_flat_however_many_keys_come() {
    let runtime = paused();
    for quota in quotas() {
        let keyed = runtime.block_on(async { keyed(quota, 10_000) });
        // A thousand new clients a second.
        let seconds = |seconds: std::ops::Range<u64>| {
            measure(|| {
                runtime.block_on(async {
                    for second in seconds {
                        call_each(&keyed, second * 1000..(second + 1) * 1000);
                        tokio::time::advance(SECOND).await;
                    }
                });
            })
        };
        let first = seconds(0..10).bytes_current;
        let rest = seconds(10..200).bytes_current;
        assert!(
            first > 0 && rest.abs() <= first / 10,
            "{quota:?}: {first} bytes for 10,000 keys, {rest} for 190,000 more"
        );
        let stats = keyed.stats();
        assert!(stats.keys <= 5_000 && stats.evicted >= 195_000 && stats.refused_for_space == 0, "{stats:?}");
    }
}
