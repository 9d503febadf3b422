//! Where our layers do what their name says and a peer does not, shown on the peer itself.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use seawall::circuit_breaker::{State, Window};
use seawall::{Backoff, BoxError, CircuitBreakerConfig, CircuitBreakerLayer, RetryConfig, RetryErrors, RetryLayer};
use tokio::time::Instant;
use tower::retry::Policy;
use tower::retry::backoff::{Backoff as _, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff};
use tower::util::{BoxCloneService, service_fn};
use tower::{Layer, Service, ServiceExt};
use tower_resilience::circuitbreaker::{CircuitBreakerLayer as PeerBreakerLayer, CircuitState};

const SECOND: Duration = Duration::from_secs(1);

/// A service that fails from when it is told to.
#[derive(Clone, Default)]
struct Peer {
    broken: Arc<AtomicBool>,
}

impl Peer {
    fn service(&self) -> BoxCloneService<(), (), BoxError> {
        let broken = Arc::clone(&self.broken);
        BoxCloneService::new(service_fn(move |()| {
            ready(if broken.load(Ordering::Relaxed) { Err(BoxError::from("broken")) } else { Ok(()) })
        }))
    }

    fn breaks(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }
}

/// Calls until `open` says that the breaker is; how many calls failed until then, at most `limit`.
async fn failures_until_open<S: Service<()>>(service: &mut S, limit: u32, open: impl Fn() -> bool) -> Option<u32> {
    for failures in 1..=limit {
        let Ok(ready) = service.ready().await else { return None };
        assert!(ready.call(()).await.is_err());
        if open() {
            return Some(failures);
        }
    }
    None
}

async fn succeed<S: Service<()>>(service: &mut S, times: u32) -> Result<(), S::Error> {
    for _ in 0..times {
        service.ready().await?.call(()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn after_100_successes_a_window_of_10_opens_within_10_failures() {
    let peer = Peer::default();
    let config = CircuitBreakerConfig::new("peer")
        .window(Window::Calls(10))
        .minimum_calls(10)
        .failure_rate(0.5)
        .consecutive_failures(None);
    let layer = CircuitBreakerLayer::new(config).unwrap();
    let mut service = layer.layer(peer.service());
    succeed(&mut service, 100).await.unwrap();
    peer.breaks();
    let handle = layer.handle();
    let failures = failures_until_open(&mut service, 10, || handle.state() == State::Open).await;
    assert_eq!(failures, Some(5), "half of the last ten");
}

#[tokio::test]
async fn after_100_successes_tower_resiliences_window_of_10_needs_100_failures() {
    let peer = Peer::default();
    let builder = PeerBreakerLayer::builder().sliding_window_size(10).minimum_number_of_calls(10);
    let (layer, handle) = builder.failure_rate_threshold(0.5).build_with_handle().unwrap();
    let mut service = layer.layer(peer.service());
    succeed(&mut service, 100).await.unwrap();
    peer.breaks();
    let open = || handle.state() == CircuitState::Open;
    assert_eq!(failures_until_open(&mut service, 60, open).await, None, "closed after 60 failures in a row");
    // It counts every call since it was last closed, so that the rate is one half only now.
    assert_eq!(failures_until_open(&mut service, 60, open).await, Some(40));
}

#[tokio::test]
async fn after_100_successes_reclosers_window_of_10_opens_too() {
    let breaker = recloser::Recloser::custom().closed_len(10).error_rate(0.5).build();
    for _ in 0..100 {
        assert!(breaker.call(|| Ok::<_, ()>(())).is_ok());
    }
    let failures =
        (1..=10).take_while(|_| matches!(breaker.call(|| Err::<(), _>(())), Err(recloser::Error::Inner(())))).count();
    assert_eq!(failures, 5);
}

/// How long a call takes whose first attempt fails, on a paused clock: one delay.
async fn delay<S>(service: &mut S) -> Result<Duration, S::Error>
where
    S: Service<Arc<AtomicBool>, Response = ()>,
{
    let start = Instant::now();
    service.ready().await?.call(Arc::default()).await?;
    Ok(start.elapsed())
}

/// Fails the first attempt of each request.
fn fails_once(tried: Arc<AtomicBool>) -> Ready<Result<(), BoxError>> {
    ready(if tried.swap(true, Ordering::Relaxed) { Ok(()) } else { Err("the first attempt".into()) })
}

#[tokio::test(start_paused = true)]
async fn retries_with_a_base_of_one_second_spread() {
    let config = RetryConfig::new("peer").backoff(Backoff::exponential(SECOND));
    let budget = seawall::RetryBudget::new(seawall::RetryBudgetConfig::new().ratio(1.0)).unwrap();
    let layer = RetryLayer::new(config, RetryErrors::all_idempotent()).unwrap().budget(budget);
    let mut service = layer.layer(service_fn(fails_once));
    let mut delays = Vec::new();
    for _ in 0..100 {
        delays.push(delay(&mut service).await.unwrap());
    }
    delays.sort();
    // Each of these fails once in more than 10⁹ runs, the delays being uniform from 0 to 1 s.
    assert!(delays[0] < SECOND * 2 / 10, "{delays:?}");
    assert!(delays[99] > SECOND * 8 / 10, "{delays:?}");
    delays.dedup();
    assert!(delays.len() > 50, "{delays:?}");
}

/// Tries each request again after one delay of tower's own backoff.
#[derive(Clone)]
struct Delayed(ExponentialBackoff);

impl<R: Clone, E> Policy<R, (), E> for Delayed {
    type Future = tokio::time::Sleep;

    fn retry(&mut self, _: &mut R, result: &mut Result<(), E>) -> Option<tokio::time::Sleep> {
        result.is_err().then(|| self.0.next_backoff())
    }

    fn clone_request(&mut self, request: &R) -> Option<R> {
        Some(request.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn towers_backoff_with_a_base_of_one_second_waits_exactly_one_second() {
    let mut maker = ExponentialBackoffMaker::new(SECOND, 60 * SECOND, 0.99, Default::default()).unwrap();
    for _ in 0..100 {
        let layer = tower::retry::RetryLayer::new(Delayed(maker.make_backoff()));
        assert_eq!(delay(&mut layer.layer(service_fn(fails_once))).await.unwrap(), SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn towers_retry_gives_every_request_the_same_delay() {
    // The policy is cloned for each request, and its source of randomness with it.
    let mut maker = ExponentialBackoffMaker::new(SECOND / 2, 60 * SECOND, 0.99, Default::default()).unwrap();
    let mut service = tower::retry::RetryLayer::new(Delayed(maker.make_backoff())).layer(service_fn(fails_once));
    let first = delay(&mut service).await.unwrap();
    for _ in 0..100 {
        assert_eq!(delay(&mut service).await.unwrap(), first);
    }
}
