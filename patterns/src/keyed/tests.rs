//! Layer, service and handle on a paused clock.

use std::time::Duration;

use tokio::time::advance;
use tower::{Layer, Service, ServiceExt, service_fn};

use super::*;
use crate::sliding_window::Algorithm;
use crate::token_bucket::Rate;
use crate::{BoxError, Mode, Reason, Rejected};

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

fn bucket() -> Quota {
    Quota::token_bucket(Rate::per_second(10), 2)
}

fn window(limit: u32) -> Quota {
    Quota::SlidingWindow { limit, window: SECOND, algorithm: Algorithm::Log }
}

fn keyed(config: KeyedConfig) -> KeyedHandle<u32> {
    KeyedHandle::new(config).unwrap()
}

/// Takes for `key` until it is refused.
fn drain(keyed: &KeyedHandle<u32>, key: u32) -> u32 {
    (0..100).take_while(|_| keyed.try_acquire(key).is_ok()).count() as u32
}

fn refused<T>(result: Result<T, BoxError>) -> Rejected {
    let error = result.err().expect("an error");
    Rejected::find(&*error).expect("a refusal").clone()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_exactly_when_to_return() {
    for quota in [bucket(), window(2), Quota::sliding_window(2, SECOND)] {
        let keyed = keyed(KeyedConfig::new("clients", quota));
        assert_eq!((drain(&keyed, 1), drain(&keyed, 2)), (2, 2), "one limit for each");
        let rejected = keyed.try_acquire(1).unwrap_err();
        assert_eq!((rejected.pattern, &*rejected.name, rejected.reason), ("keyed", "clients", Reason::Limited));
        advance(rejected.retry_after.unwrap() - NANO).await;
        assert_eq!(keyed.try_acquire(1).unwrap_err().retry_after, Some(NANO));
        advance(NANO).await;
        keyed.try_acquire(1).unwrap().succeeded();
    }
}

#[tokio::test(start_paused = true)]
async fn the_layer_asks_for_the_key_and_the_cost() {
    let config = KeyedConfig::new("clients", window(10)).global(window(15));
    let layer = KeyedLayer::new(config, |(client, _): &(u32, u32)| *client).unwrap();
    let layer = layer.cost(|(_, cost): &(u32, u32)| *cost);
    let mut service = layer.layer(service_fn(|(_, cost): (u32, u32)| async move { Ok::<_, BoxError>(cost) }));
    assert_eq!(service.ready().await.unwrap().call((1, 7)).await.unwrap(), 7);
    assert_eq!(refused(service.ready().await.unwrap().call((1, 4)).await).reason, Reason::Limited);
    let rejected = refused(service.clone().ready().await.unwrap().call((2, 9)).await);
    assert_eq!((rejected.reason, rejected.retry_after), (Reason::LimitedGlobally, Some(SECOND)));
    assert_eq!(refused(service.ready().await.unwrap().call((2, 11)).await).reason, Reason::Never);
    assert_eq!(service.ready().await.unwrap().call((2, 0)).await.unwrap(), 0, "which costs 1 all the same");
    let keyed = layer.handle();
    assert_eq!([1, 2, 3].map(|key| keyed.available(&key)), [3, 7, 7]);
    let stats = keyed.stats();
    assert_eq!((stats.calls.ok, stats.calls.rejected, stats.calls.in_flight, stats.keys), (2, 3, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_without_a_place_is_refused() {
    let keyed = keyed(KeyedConfig::new("clients", window(1)).max_keys(2));
    assert_eq!((drain(&keyed, 1), drain(&keyed, 2)), (1, 1));
    let rejected = keyed.try_acquire(3).unwrap_err();
    assert_eq!((rejected.reason, rejected.retry_after), (Reason::TooManyKeys, None));
    assert_eq!(keyed.stats().refused_for_space, 1);
    advance(SECOND).await;
    keyed.try_acquire(3).unwrap().succeeded();
    let stats = keyed.stats();
    assert!(stats.evicted > 0 && stats.keys <= 2, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn only_an_enforcing_limit_refuses() {
    let config = KeyedConfig::new("clients", bucket());
    let keyed = keyed(config.clone().mode(Mode::Observe));
    assert_eq!(drain(&keyed, 1), 100);
    let stats = keyed.stats();
    assert_eq!((stats.calls.admitted, stats.calls.rejected), (100, 98));
    keyed.update(config.clone().mode(Mode::Disabled)).unwrap();
    assert_eq!(drain(&keyed, 2), 100);
    assert_eq!((keyed.stats().keys, keyed.available(&2)), (1, 2), "nothing is decided");
    keyed.update(config).unwrap();
    assert_eq!((drain(&keyed, 1), drain(&keyed, 2)), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn an_update_is_taken_whole_or_not_at_all() {
    let config = || KeyedConfig::new("clients", bucket());
    let keyed = keyed(config());
    assert_eq!(drain(&keyed, 1), 2);
    let field = |config| keyed.update(config).unwrap_err().field;
    assert_eq!(field(config().max_keys(0)), "max_keys");
    assert_eq!(field(config().per_key(window(2))), "per_key");
    assert_eq!(field(config().global(bucket())), "global");
    assert_eq!(field(KeyedConfig::new("others", bucket())), "name");
    assert_eq!(keyed.config(), config());
    keyed.update(config().per_key(Quota::token_bucket(Rate::per_second(10), 5))).unwrap();
    assert_eq!((drain(&keyed, 1), drain(&keyed, 2)), (3, 5), "what was taken stays taken");
}

#[tokio::test(start_paused = true)]
async fn an_update_never_changes_the_algorithm() {
    let config = |quota| KeyedConfig::new("clients", quota);
    let keyed = keyed(config(window(2)).global(window(3)));
    let other = Quota::sliding_window(2, SECOND);
    assert_eq!(keyed.update(config(other).global(window(3))).unwrap_err().field, "per_key");
    assert_eq!(keyed.update(config(window(2)).global(other)).unwrap_err().field, "global");
    assert_eq!(keyed.update(config(window(2))).unwrap_err().field, "global");
    keyed.update(config(window(4)).global(window(5))).unwrap();
    assert_eq!((drain(&keyed, 1), drain(&keyed, 2)), (4, 1));
}

#[test]
fn limits_differ_in_the_secret_of_their_hashes() {
    // Were it the same, keys that fall together in one process could be crafted for all.
    let [first, second] = [crate::rng::bits(), crate::rng::bits()];
    assert_ne!(first, second);
}

#[cfg(feature = "metrics")]
#[tokio::test(start_paused = true)]
async fn the_gauge_follows_the_number_of_keys() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let keyed = metrics::with_local_recorder(&recorder, || keyed(KeyedConfig::new("clients", bucket())));
    drain(&keyed, 1);
    drain(&keyed, 2);
    advance(SECOND / 4).await;
    drain(&keyed, 3);
    let found = snapshotter.snapshot().into_vec();
    let gauges = found.iter().filter(|(key, ..)| key.key().name() == "seawall_rate_limit_keys");
    let values: Vec<_> = gauges.map(|(.., value)| value).collect();
    assert!(matches!(values[..], [DebugValue::Gauge(keys)] if keys.into_inner() >= 2.0), "{values:?}");
    let named = found.iter().any(|(key, ..)| key.key().labels().any(|label| label.key() == "key"));
    assert!(!named, "one series for each client");
}
