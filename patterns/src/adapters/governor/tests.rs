//! A limiter of governor behind our layers, on a paused clock.

use std::convert::Infallible;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::governor::clock::FakeRelativeClock;
use ::governor::middleware::{NoOpMiddleware, StateInformationMiddleware};
use ::governor::nanos::Nanos;
use ::governor::state::StateStore;
use ::governor::state::keyed::{DashMapStateStore, HashMapStateStore, ShrinkableKeyedStateStore};
use ::governor::{Quota, RateLimiter};
use proptest::prelude::*;
use tokio::time::advance;
use tower::{Service, ServiceExt, service_fn};

use super::*;
use crate::{Mode, Reason, Rejected, clock};

const NANO: Duration = Duration::from_nanos(1);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

/// One every 100 ms, and so many at once.
fn quota(burst: u32) -> Quota {
    Quota::with_period(ms(100)).unwrap().allow_burst(count(burst))
}

fn config() -> GovernorConfig {
    GovernorConfig::new("peer")
}

fn said<T: std::fmt::Debug>(answer: Result<T, Rejected>) -> (Reason, Option<Duration>) {
    let rejected = answer.unwrap_err();
    assert_eq!(rejected.pattern, "token_bucket");
    (rejected.reason, rejected.retry_after)
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_exact() {
    let limiter = Arc::new(RateLimiter::direct_with_clock(quota(2), Clock));
    let handle = GovernorHandle::direct(config(), limiter).unwrap();
    for _ in 0..2 {
        drop(handle.try_acquire().unwrap());
    }
    advance(ms(30)).await;
    assert_eq!(said(handle.try_acquire()), (Reason::Limited, Some(ms(70))));
    advance(ms(70) - NANO).await;
    assert_eq!(said(handle.try_acquire()), (Reason::Limited, Some(NANO)));
    advance(NANO).await;
    handle.try_acquire().unwrap().failed();
    let calls = handle.stats().calls;
    assert_eq!((calls.admitted, calls.neutral, calls.failed, calls.rejected), (3, 2, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn what_never_fits_is_refused_as_never() {
    let limiter = Arc::new(RateLimiter::direct_with_clock(quota(5), Clock));
    let handle = GovernorHandle::direct(config().max_cost(6), limiter).unwrap();
    assert_eq!(said(handle.try_acquire_many(6)), (Reason::Never, None), "more than the burst");
    assert_eq!(said(handle.try_acquire_many(u32::MAX)), (Reason::Never, None), "more than may be asked for");
    drop(handle.try_acquire_many(4).unwrap());
    drop(handle.try_acquire_many(0).unwrap());
    assert_eq!(said(handle.try_acquire_many(3)), (Reason::Limited, Some(ms(300))), "nothing costs one");
    // A period of a day times four billion does not fit 64 bits.
    let daily = Arc::new(RateLimiter::direct_with_clock(Quota::with_period(ms(86_400_000)).unwrap(), Clock));
    let daily = GovernorHandle::direct(config(), daily).unwrap();
    assert_eq!(said(daily.try_acquire_many(u32::MAX)), (Reason::Never, None));
}

#[tokio::test(start_paused = true)]
async fn a_stack_shares_one_reading() {
    let limiter = Arc::new(RateLimiter::direct_with_clock(quota(1), Clock));
    let handle = GovernorHandle::direct(config(), limiter).unwrap();
    let shared = clock::enter();
    drop(handle.try_acquire().unwrap());
    advance(ms(100)).await;
    assert_eq!(said(handle.try_acquire()), (Reason::Limited, Some(ms(100))), "the reading of the outermost layer");
    drop(shared);
    drop(handle.try_acquire().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_limiter_has_its_own_clock_and_middleware_if_it_likes() {
    let clock = FakeRelativeClock::default();
    let limiter = RateLimiter::direct_with_clock(quota(1), clock.clone());
    let limiter = limiter.with_middleware::<StateInformationMiddleware>();
    let handle = GovernorHandle::direct(config(), Arc::new(limiter)).unwrap();
    drop(handle.try_acquire().unwrap());
    clock.advance(ms(40));
    assert_eq!(said(handle.try_acquire()), (Reason::Limited, Some(ms(60))));
    clock.advance(ms(60));
    drop(handle.try_acquire().unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_layer_weighs_refuses_and_observes() {
    let limiter = Arc::new(RateLimiter::direct_with_clock(quota(3), Clock));
    let handle = GovernorHandle::direct(config().max_cost(3), limiter).unwrap();
    let layer = handle.layer().cost(|cost: &u32| *cost);
    let mut service = tower::Layer::layer(&layer, service_fn(|cost: u32| async move { Ok::<_, Infallible>(cost) }));
    assert_eq!(service.ready().await.unwrap().call(3).await.unwrap(), 3);
    let error = service.ready().await.unwrap().call(2).await.unwrap_err();
    assert_eq!(Rejected::find(&*error).unwrap().retry_after, Some(ms(200)));
    let refused = handle.stats().calls;
    assert_eq!((refused.ok, refused.rejected, refused.in_flight), (1, 1, 0));

    handle.update(handle.config().mode(Mode::Observe)).unwrap();
    assert_eq!(service.ready().await.unwrap().call(2).await.unwrap(), 2);
    handle.update(handle.config().mode(Mode::Disabled)).unwrap();
    assert_eq!(service.ready().await.unwrap().call(2).await.unwrap(), 2);
    let calls = layer.handle().stats().calls;
    assert_eq!((calls.ok, calls.rejected), (3, 2), "observed once, and not asked once");

    let renamed = GovernorConfig { name: "other".to_owned(), ..handle.config() };
    assert_eq!(handle.update(renamed).unwrap_err().field, "name");
    assert_eq!(handle.update(handle.config().max_cost(0)).unwrap_err().field, "max_cost");
    assert_eq!(GovernorConfig::new("").check().unwrap_err().field, "name");
}

/// Counts how often all keys were looked at.
struct Counting<S>(S, Arc<AtomicUsize>);

impl<S: StateStore> StateStore for Counting<S> {
    type Key = S::Key;

    fn measure_and_replace<T, F, E>(&self, key: &S::Key, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

impl<K: Hash + Eq + Clone, S: ShrinkableKeyedStateStore<K>> ShrinkableKeyedStateStore<K> for Counting<S> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.retain_recent(drop_below);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

async fn keys_are_bounded(store: impl ShrinkableKeyedStateStore<u32>) {
    let sweeps = Arc::new(AtomicUsize::new(0));
    let store = Bounded::new(Counting(store, Arc::clone(&sweeps)), 100);
    // Full again after 2 s.
    let limiter = Arc::new(RateLimiter::<_, _, _, NoOpMiddleware<_>>::new(quota(20), store, Clock));
    let clients = GovernorHandle::keyed(config().max_cost(20), Arc::clone(&limiter)).unwrap();
    for client in 0..100 {
        drop(clients.try_acquire_many(&client, 20).unwrap());
    }
    assert_eq!(sweeps.load(Ordering::Relaxed), 0, "nobody looks while there are places");
    let mut most = 0;
    for client in 100..10_000 {
        assert_eq!(said(clients.try_acquire(&client)), (Reason::TooManyKeys, None));
        most = most.max(limiter.len());
    }
    assert!((100..=200).contains(&most), "{most} entries");
    assert_eq!(clients.stats().refused_for_space, 9900);
    let looks = sweeps.load(Ordering::Relaxed);
    assert!((90..=100).contains(&looks), "one look in a hundred refusals, but {looks}");

    for client in 0..100 {
        assert_eq!(said(clients.try_acquire(&client)), (Reason::Limited, Some(ms(100))), "who is known stays known");
    }
    // Idle, and one period later.
    advance(ms(2000 + 100)).await;
    drop(clients.try_acquire(&100).unwrap());
    assert_eq!(clients.stats().keys, 1);
    assert_eq!(sweeps.load(Ordering::Relaxed), looks + 1);
    for client in 0..99 {
        drop(clients.try_acquire(&client).unwrap());
    }
    assert_eq!(said(clients.try_acquire(&99)), (Reason::TooManyKeys, None));
}

#[tokio::test(start_paused = true)]
async fn keys_are_bounded_in_a_hash_map() {
    keys_are_bounded(HashMapStateStore::<u32>::default()).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_bounded_in_a_dash_map() {
    keys_are_bounded(DashMapStateStore::<u32>::default()).await;
}

#[test]
fn threads_take_a_place_for_each_key_and_no_more() {
    let store = Bounded::new(DashMapStateStore::<u32>::default(), 50);
    let limiter = RateLimiter::<_, _, _, NoOpMiddleware<_>>::new(quota(1000), store, FakeRelativeClock::default());
    let clients = GovernorHandle::keyed(config(), Arc::new(limiter)).unwrap();
    let admitted = std::thread::scope(|scope| {
        let ask = || (0..100).map(|key| clients.try_acquire(&key).is_ok()).collect::<Vec<_>>();
        let threads = [0; 4].map(|_| scope.spawn(ask));
        threads.map(|thread| thread.join().unwrap())
    });
    let keys = (0..100).filter(|key| admitted.iter().any(|answers| answers[*key])).count();
    assert_eq!(keys, 50);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_places_for_all_every_answer_is_that_of_an_unbounded_limiter(
        script in prop::collection::vec((0..10_u32, 1..6_u32, 0..300_u64), 1..200),
    ) {
        let clock = FakeRelativeClock::default();
        let plain = RateLimiter::hashmap_with_clock(quota(4), clock.clone());
        let bounded = Bounded::new(HashMapStateStore::<u32>::default(), 10);
        let bounded = Arc::new(RateLimiter::<_, _, _, NoOpMiddleware<_>>::new(quota(4), bounded, clock.clone()));
        let clients = GovernorHandle::keyed(config().max_cost(u32::MAX), Arc::clone(&bounded)).unwrap();
        for (key, cost, step) in script {
            clock.advance(ms(step));
            let expected = match plain.check_key_n(&key, count(cost)) {
                Ok(Ok(())) => None,
                Ok(Err(until)) => Some((Reason::Limited, Some(until.wait_time_from(::governor::clock::Clock::now(&clock))))),
                Err(_) => Some((Reason::Never, None)),
            };
            let answer = clients.try_acquire_many(&key, cost).err().map(|refused| (refused.reason, refused.retry_after));
            prop_assert_eq!(answer, expected);
            prop_assert_eq!(bounded.len(), plain.len());
        }
    }
}

#[cfg(feature = "metrics")]
#[tokio::test(start_paused = true)]
async fn the_gauge_follows_the_number_of_keys() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // Takes the value away: one that is not set again reads 0.
    let gauges = || -> Vec<f64> {
        let found = snapshotter.snapshot().into_vec().into_iter();
        let found = found.filter(|(key, ..)| key.key().name() == "seawall_rate_limit_keys");
        let value = |value| if let DebugValue::Gauge(value) = value { value.into_inner() } else { f64::NAN };
        found.map(|(.., it)| value(it)).collect()
    };
    let _local = metrics::set_default_local_recorder(&recorder);
    let direct = Arc::new(RateLimiter::direct_with_clock(quota(1), Clock));
    let direct = GovernorHandle::direct(config(), direct).unwrap();
    drop(direct.try_acquire().unwrap());
    direct.rebind_metrics();
    assert!(gauges().is_empty(), "it has none");

    let limiter = keyed_limiter(quota(1), HashMapStateStore::<u32>::default(), 9);
    let keyed = GovernorHandle::keyed(config(), Arc::new(limiter)).unwrap();
    drop(keyed.try_acquire(&1).unwrap());
    assert_eq!(gauges(), [1.0]);
    drop(keyed.try_acquire(&2).unwrap());
    assert_eq!(gauges(), [0.0], "not with every call");
    advance(ms(250)).await;
    drop(keyed.try_acquire(&3).unwrap());
    assert_eq!(gauges(), [3.0]);
    keyed.rebind_metrics();
    assert_eq!(gauges(), [3.0], "without a call");
}
