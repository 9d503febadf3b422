//! Layer and service on a paused clock.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, advance};
use tokio_test_free::{assert_pending, poll_once};
use tower::{Layer, Service, ServiceExt, service_fn};

use super::*;
use crate::{BoxError, Elapsed, Limit, Reason, Rejected, rng};

const SECOND: Duration = Duration::from_secs(1);

/// Polling by hand.
mod tokio_test_free {
    use super::*;

    pub async fn poll_once<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        poll_fn(|cx| Poll::Ready(poll(cx))).await
    }

    pub fn assert_pending<T>(poll: &Poll<T>) {
        assert!(poll.is_pending());
    }
}

/// Trips on the first failure, for exactly 10 s, and closes on one success.
fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::new("peer/2").consecutive_failures(1).open_for(10 * SECOND).jitter(0.0).probes(1)
}

fn layer() -> CircuitBreakerLayer {
    CircuitBreakerLayer::new(config()).unwrap()
}

fn broken() -> BoxError {
    "broken".into()
}

type Answer = Result<&'static str, BoxError>;

/// Answers what it is asked to.
fn echo() -> impl Service<Answer, Response = &'static str, Error = BoxError, Future: Send> + Clone {
    service_fn(|answer: Answer| async move { answer })
}

async fn trip(service: &mut impl Service<Answer, Response = &'static str, Error = BoxError>) {
    assert!(service.ready().await.unwrap().call(Err(broken())).await.is_err());
}

fn reason(result: Result<&'static str, BoxError>) -> Reason {
    Rejected::find(&*result.unwrap_err()).expect("a refusal").reason
}

/// Ready only with one of `permits`, which `call` spends; counts calls and calls without readiness.
struct Limited {
    permits: Arc<Semaphore>,
    reserved: Option<OwnedSemaphorePermit>,
    calls: Arc<AtomicUsize>,
}

impl Limited {
    fn new(permits: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(permits)), reserved: None, calls: Arc::default() }
    }
}

impl Clone for Limited {
    fn clone(&self) -> Self {
        Self { permits: self.permits.clone(), reserved: None, calls: self.calls.clone() }
    }
}

impl Service<Answer> for Limited {
    type Response = &'static str;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.reserved.is_none() {
            self.reserved = self.permits.clone().try_acquire_owned().ok();
        }
        if self.reserved.is_some() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, answer: Answer) -> Self::Future {
        let permit = self.reserved.take().expect("called without readiness");
        // ORDERING: Relaxed, a count that one thread reads after it wrote.
        self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let _permit = permit;
            answer
        })
    }
}

#[tokio::test(start_paused = true)]
async fn refuses_with_the_remaining_time_and_closes_after_a_good_probe() {
    let layer = layer();
    let mut service = layer.layer(echo());
    trip(&mut service).await;
    advance(3 * SECOND).await;
    let error = service.ready().await.unwrap().call(Ok("late")).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!((rejected.pattern, &*rejected.name), ("circuit_breaker", "peer/2"));
    assert_eq!((rejected.reason, rejected.retry_after), (Reason::Open, Some(7 * SECOND)));
    advance(7 * SECOND).await;
    assert_eq!(service.ready().await.unwrap().call(Ok("pong")).await.unwrap(), "pong");
    assert_eq!(layer.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn everything_made_from_one_layer_shares_one_breaker() {
    let layer = layer();
    let mut first = layer.layer(echo());
    let mut others = [first.clone(), layer.clone().layer(echo()), layer.layer(echo())];
    trip(&mut first).await;
    for other in &mut others {
        assert_eq!(reason(other.ready().await.unwrap().call(Ok("")).await), Reason::Open);
    }
    let refused = layer.handle().call(async { Ok::<_, BoxError>("") }).await;
    assert_eq!(reason(refused), Reason::Open);
}

#[tokio::test(start_paused = true)]
async fn refused_call_returns_the_reservation_of_the_inner_service() {
    let inner = Limited::new(1);
    let (permits, calls) = (inner.permits.clone(), inner.calls.clone());
    let layer = layer();
    let mut service = layer.layer(inner);
    layer.handle().force_open();
    service.ready().await.unwrap();
    assert_eq!(permits.available_permits(), 0, "readiness holds a permit");
    let refused = service.call(Ok(""));
    assert_eq!(permits.available_permits(), 1, "back before the refusal is even polled");
    assert_eq!(reason(refused.await), Reason::ForcedOpen);
    // ORDERING: Relaxed, as the write.
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn admitted_call_uses_the_readied_service_and_not_a_clone() {
    let inner = Limited::new(1);
    let mut service = layer().layer(inner);
    for _ in 0..3 {
        assert_eq!(service.ready().await.unwrap().call(Ok("pong")).await.unwrap(), "pong");
    }
}

#[tokio::test(start_paused = true)]
async fn probe_cancelled_at_any_poll_returns_its_slot() {
    for polls in 0..4 {
        let layer = layer();
        let mut service = layer.layer(service_fn(|answer: Answer| async move {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            answer
        }));
        trip(&mut service).await;
        advance(10 * SECOND).await;
        let mut probe = Box::pin(service.ready().await.unwrap().call(Ok("")));
        for _ in 0..polls.min(3) {
            assert_pending(&poll_once(|cx| probe.as_mut().poll(cx)).await);
        }
        drop(probe);
        assert_eq!(layer.handle().stats().in_flight, 0);
        assert_eq!(service.ready().await.unwrap().call(Ok("pong")).await.unwrap(), "pong");
        assert_eq!(layer.handle().state(), State::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_outside_the_breaker_can_trip_it() {
    let config = config().cancel(CancelPolicy::FailureAfter(SECOND));
    let layer = CircuitBreakerLayer::new(config).unwrap();
    let mut service = layer.layer(service_fn(|_: ()| pending::<Answer>()));
    let call = |service: &mut _, limit| {
        let service: &mut CircuitBreaker<_> = service;
        tokio::time::timeout(limit, service.call(()))
    };
    service.ready().await.unwrap();
    assert!(call(&mut service, SECOND / 2).await.is_err());
    assert_eq!(layer.handle().state(), State::Closed);
    service.ready().await.unwrap();
    assert!(call(&mut service, SECOND).await.is_err());
    assert_eq!(layer.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn panic_of_the_inner_service_is_a_failure() {
    for in_call in [true, false] {
        let layer = layer();
        let mut service = layer.layer(service_fn(move |_: ()| {
            assert!(!in_call, "inner");
            async { panic!("inner") as Answer }
        }));
        let panicked = tokio::spawn(async move { service.ready().await.unwrap().call(()).await }).await;
        assert!(panicked.unwrap_err().is_panic());
        let stats = layer.handle().stats();
        assert_eq!((stats.state, stats.failed, stats.in_flight), (State::Open, 1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_from_below_are_neutral_and_timeouts_follow_their_limit() {
    let elapsed = |limit| -> BoxError { Elapsed::new(limit, SECOND, "below").into() };
    for (error, state) in [
        (Rejected::new("bulkhead", "below", Reason::Deadline).into(), State::Closed),
        (elapsed(Limit::Ambient), State::Closed),
        // Taken for a caller that gave up, it kept a breaker around a total timeout closed towards a peer that hangs.
        (elapsed(Limit::Total), State::Open),
        (elapsed(Limit::Attempt), State::Open),
    ] {
        let layer = layer();
        let answer = layer.layer(echo()).oneshot(Err(error)).await;
        assert!(answer.is_err());
        assert_eq!(layer.handle().state(), state, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn classifier_sees_responses_and_overload_lengthens_the_open_time() {
    let layer = CircuitBreakerLayer::new(config()).unwrap().classify(|result: &Result<u16, Infallible>| match result {
        Ok(503) => Outcome::Overload { retry_after: Some(60 * SECOND) },
        _ => Outcome::Success,
    });
    let mut service = layer.layer(service_fn(|status: u16| async move { Ok::<_, Infallible>(status) }));
    for status in [404, 503] {
        assert_eq!(service.ready().await.unwrap().call(status).await.unwrap(), status);
    }
    let error = service.ready().await.unwrap().call(200).await.unwrap_err();
    assert_eq!(Rejected::find(&*error).unwrap().retry_after, Some(60 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn boxed_error_is_not_boxed_again() {
    #[derive(Debug)]
    struct Mine;
    impl std::fmt::Display for Mine {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("mine")
        }
    }
    impl std::error::Error for Mine {}
    let error = layer().layer(echo()).oneshot(Err(Mine.into())).await.unwrap_err();
    assert!(error.downcast_ref::<Mine>().is_some());
}

#[tokio::test(start_paused = true)]
async fn exempt_requests_pass_an_open_breaker() {
    let layer =
        CircuitBreakerLayer::new(config()).unwrap().never_refuse(|answer: &Answer| matches!(answer, Ok("beat")));
    let mut service = layer.layer(echo());
    trip(&mut service).await;
    assert_eq!(reason(service.ready().await.unwrap().call(Ok("data")).await), Reason::Open);
    assert_eq!(service.ready().await.unwrap().call(Ok("beat")).await.unwrap(), "beat");
    assert_eq!(layer.handle().state(), State::Open);
    advance(10 * SECOND).await;
    assert_eq!(service.ready().await.unwrap().call(Ok("beat")).await.unwrap(), "beat");
    assert_eq!(layer.handle().state(), State::Closed, "the heartbeat was the probe");
}

fn not_ready(inner: Limited) -> (CircuitBreakerHandle, CircuitBreaker<Limited>) {
    let layer = CircuitBreakerLayer::new(config().on_open(OnOpen::NotReady)).unwrap();
    (layer.handle(), layer.layer(inner))
}

async fn poll_ready(service: &mut CircuitBreaker<Limited>) -> Poll<()> {
    poll_once(|cx| service.poll_ready(cx)).await.map(|ready| ready.unwrap())
}

#[tokio::test(start_paused = true)]
async fn not_ready_while_open_holds_nothing_of_the_inner_service() {
    let inner = Limited::new(2);
    let permits = inner.permits.clone();
    let (_, mut service) = not_ready(inner);
    let mut readied_before = service.clone();
    readied_before.ready().await.unwrap();
    trip(&mut service).await;
    assert_pending(&poll_ready(&mut service).await);
    assert_pending(&poll_ready(&mut readied_before).await);
    assert_eq!(permits.available_permits(), 2);
    let before = Instant::now();
    service.ready().await.unwrap();
    assert_eq!(before.elapsed(), 10 * SECOND, "woken by the end of the open time");
}

#[tokio::test(start_paused = true)]
async fn not_ready_while_open_leaves_the_queue_of_the_inner_service() {
    // Only a service that had said "ready" was let go. One that was still queued got its permit while the gate was closed,
    // and held it, idle, for the whole open time.
    let layer = CircuitBreakerLayer::new(config().on_open(OnOpen::NotReady)).unwrap();
    let limit = tower::limit::GlobalConcurrencyLimitLayer::new(1);
    let mut elsewhere = limit.layer(echo());
    let mut service = layer.layer(limit.layer(echo()));
    elsewhere.ready().await.unwrap();
    assert!(poll_once(|cx| service.poll_ready(cx)).await.is_pending());
    layer.handle().force_open();
    assert!(poll_once(|cx| service.poll_ready(cx)).await.is_pending());
    assert!(elsewhere.call(Ok("")).await.is_ok());
    assert!(poll_once(|cx| elsewhere.poll_ready(cx)).await.is_ready());
}

#[tokio::test(start_paused = true)]
async fn readiness_asked_for_within_a_call_sees_the_open_time_end() {
    // With the reading of the surrounding call, the fired timer was set again to the same instant, over and over, until the
    // task had used up its turn, and the service stayed not ready.
    let (_, mut service) = not_ready(Limited::new(9));
    trip(&mut service).await;
    assert_pending(&poll_ready(&mut service).await);
    let _call = crate::clock::enter();
    advance(10 * SECOND).await;
    assert!(poll_ready(&mut service).await.is_ready());
}

#[tokio::test(start_paused = true)]
async fn not_ready_reserves_one_probe_and_passes_it_on() {
    let (breaker, mut first) = not_ready(Limited::new(9));
    let mut second = first.clone();
    trip(&mut first).await;
    advance(10 * SECOND).await;
    assert!(poll_ready(&mut first).await.is_ready());
    assert_pending(&poll_ready(&mut second).await);
    assert_pending(&poll_ready(&mut first.clone()).await);
    let waiting = tokio::spawn(async move {
        second.ready().await.unwrap();
        second
    });
    tokio::task::yield_now().await;
    drop(first);
    let before = Instant::now();
    let mut second = waiting.await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO, "a dropped reservation wakes the next");
    assert_eq!(second.call(Ok("pong")).await.unwrap(), "pong");
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn unused_reservation_expires_and_its_late_call_is_refused() {
    let (breaker, mut first) = not_ready(Limited::new(9));
    let mut second = first.clone();
    trip(&mut first).await;
    advance(10 * SECOND).await;
    first.ready().await.unwrap();
    let before = Instant::now();
    second.ready().await.unwrap();
    assert_eq!(before.elapsed(), breaker.config().probe_timeout);
    assert_eq!(reason(first.call(Ok("")).await), Reason::Probing);
    assert_eq!(second.call(Ok("pong")).await.unwrap(), "pong");
}

#[tokio::test(start_paused = true)]
async fn overrides_wake_whoever_is_not_ready() {
    let (breaker, mut service) = not_ready(Limited::new(9));
    breaker.force_open();
    let waiting = tokio::spawn(async move { service.ready().await.map(|_| ()) });
    advance(1_000 * SECOND).await;
    assert!(!waiting.is_finished());
    breaker.reset();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_waiting_clones_admit_exactly_one_probe() {
    let inner = Limited::new(64);
    let calls = inner.calls.clone();
    let (breaker, mut service) = not_ready(inner);
    trip(&mut service).await;
    let (release, hold) = oneshot::channel::<()>();
    let hold = Arc::new(tokio::sync::Mutex::new(Some(hold)));
    for _ in 0..32 {
        let (mut service, hold) = (service.clone(), hold.clone());
        tokio::spawn(async move {
            service.ready().await.unwrap();
            let answer = service.call(Ok(""));
            let first = hold.lock().await.take();
            if let Some(hold) = first {
                let _ = hold.await;
            }
            answer.await
        });
    }
    tokio::time::sleep(11 * SECOND).await;
    // ORDERING: Relaxed, one thread.
    assert_eq!(calls.load(Ordering::Relaxed), 2, "the call that tripped it and one probe");
    release.send(()).unwrap();
    tokio::time::sleep(SECOND).await;
    // ORDERING: Relaxed, one thread.
    assert_eq!(calls.load(Ordering::Relaxed), 33);
    assert_eq!(breaker.stats().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn watch_shows_the_latest_transition() {
    let layer = layer();
    let breaker = layer.handle();
    let mut watch = breaker.watch();
    assert_eq!(*watch.borrow_and_update(), None);
    trip(&mut layer.layer(echo())).await;
    watch.changed().await.unwrap();
    let opened = watch.borrow_and_update().clone().unwrap();
    assert_eq!((opened.to, opened.cause, opened.generation), (State::Open, Cause::ConsecutiveFailures, 1));
    breaker.reset();
    watch.changed().await.unwrap();
    assert_eq!(watch.borrow().as_ref().unwrap().to, State::Closed);
}

#[tokio::test(start_paused = true)]
async fn watch_ends_with_the_breaker() {
    let layer = layer();
    let mut watch = layer.handle().watch();
    trip(&mut layer.layer(echo())).await;
    watch.changed().await.unwrap();
    drop(layer);
    assert!(watch.has_changed().is_err(), "a breaker that is gone will never change");
}

#[tokio::test(start_paused = true)]
async fn open_times_differ_and_stay_under_the_cap() {
    let _fixed = rng::fix(1);
    let layer = CircuitBreakerLayer::new(config().jitter(1.0).open_max(10 * SECOND)).unwrap();
    let mut service = layer.layer(echo());
    let mut open_times = Vec::new();
    for _ in 0..50 {
        trip(&mut service).await;
        let opened = layer.handle().watch().borrow().clone().unwrap();
        open_times.push(opened.open_for.unwrap());
        advance(10 * SECOND).await;
    }
    assert!(open_times.iter().all(|time| *time <= 10 * SECOND));
    open_times.sort();
    open_times.dedup();
    assert_eq!(open_times.len(), 50);
}

#[tokio::test(start_paused = true)]
async fn plain_handle_admits_and_counts() {
    let breaker = CircuitBreakerHandle::new(config()).unwrap();
    breaker.admit().unwrap().finish(Outcome::Success);
    drop(breaker.admit().unwrap());
    let waiting = breaker.admit().unwrap();
    let stats = breaker.stats();
    assert_eq!((stats.admitted, stats.succeeded, stats.neutral, stats.in_flight), (3, 1, 1, 1));
    waiting.finish(Outcome::Failure);
    assert!(breaker.admit().is_err());
    assert_eq!(breaker.stats().refused, 1);
    assert_eq!(CircuitBreakerHandle::new(config().probes(0)).unwrap_err().field, "probes");
}

#[test]
fn futures_and_services_are_send() {
    fn send<T: Send>(_: &T) {}
    let mut service = layer().layer(echo());
    send(&service);
    send(&service.call(Ok("")));
    send(&layer().handle().call(async { Ok::<_, BoxError>(()) }));
}

#[test]
#[cfg(target_pointer_width = "64")]
fn an_admission_is_three_words_with_metrics_and_without() {
    // The breaker, the grant, and the start.
    assert_eq!(size_of::<Admission>(), 24);
}

#[cfg(feature = "metrics")]
mod metrics {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

    use super::*;
    use crate::Mode;
    use crate::telemetry::told::{Told, follows_every_end, inner, stays_in_step};

    /// `name{label="value",…}` and its value, sorted.
    fn values(snapshotter: &Snapshotter) -> Vec<(String, f64)> {
        let mut values: Vec<_> = snapshotter
            .snapshot()
            .into_vec()
            .into_iter()
            .map(|(key, _, _, value)| {
                let (_, key) = key.into_parts();
                let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
                let value = match value {
                    DebugValue::Counter(count) => count as f64,
                    DebugValue::Gauge(value) => value.into_inner(),
                    DebugValue::Histogram(_) => f64::NAN,
                };
                (format!("{} {}", key.name(), labels.collect::<Vec<_>>().join(" ")), value)
            })
            .collect();
        values.sort_by(|a, b| a.0.cmp(&b.0));
        values
    }

    #[test]
    fn metrics_appear_with_one_hot_states() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let value =
            |values: &[(String, f64)], key: &str| values.iter().find(|(name, _)| name == key).map(|(_, value)| *value);
        let state = |state| format!("seawall_circuit_breaker_state name=peer/2 state={state}");
        ::metrics::with_local_recorder(&recorder, || {
            let breaker = CircuitBreakerHandle::new(config()).unwrap();
            assert_eq!(value(&values(&snapshotter), &state("closed")), Some(1.0));
            breaker.admit().unwrap().finish(Outcome::Success);
            breaker.admit().unwrap().finish(Outcome::Failure);
            assert!(breaker.admit().is_err());
            breaker.force_closed();
            breaker.reset();
            breaker.force_open();
        });
        let values = values(&snapshotter);
        let calls = "seawall_calls_total pattern=circuit_breaker name=peer/2";
        for (key, expected) in [
            (format!("{calls} outcome=success reason="), 1.0),
            (format!("{calls} outcome=failure reason="), 1.0),
            (format!("{calls} outcome=rejected reason=open"), 1.0),
            (state("closed"), 0.0),
            (state("open"), 0.0),
            (state("forced_open"), 1.0),
            (
                "seawall_circuit_breaker_transitions_total name=peer/2 from=closed to=open cause=consecutive_failures"
                    .to_owned(),
                1.0,
            ),
        ] {
            assert_eq!(value(&values, &key), Some(expected), "{key} in {values:#?}");
        }
    }

    #[test]
    fn a_recorder_installed_late_is_found_after_rebinding() {
        let breaker = CircuitBreakerHandle::new(config()).unwrap();
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        ::metrics::with_local_recorder(&recorder, || {
            breaker.admit().unwrap().finish(Outcome::Success);
            assert!(values(&snapshotter).is_empty());
            breaker.rebind_metrics();
            breaker.admit().unwrap().finish(Outcome::Success);
            assert!(!values(&snapshotter).is_empty());
        });
    }

    #[tokio::test(start_paused = true)]
    async fn every_start_and_end_is_told() {
        let told = Told::new();
        for on_open in [OnOpen::Refuse, OnOpen::NotReady] {
            let layer = CircuitBreakerLayer::new(config().consecutive_failures(None).on_open(on_open)).unwrap();
            follows_every_end(&told, layer.layer(service_fn(inner))).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn probes_and_refusals_are_told() {
        let told = Told::new();
        let layer = CircuitBreakerLayer::new(config().on_open(OnOpen::NotReady)).unwrap();
        let mut service = layer.layer(echo());
        trip(&mut service).await;
        assert!(layer.handle().admit().is_err());
        advance(10 * SECOND).await;
        service.ready().await.unwrap();
        assert_eq!(told.in_flight(), 0.0, "a reservation is no call yet");
        let probe = service.call(Ok("good"));
        assert_eq!(told.in_flight(), 1.0);
        probe.await.unwrap();
        assert_eq!((told.in_flight(), layer.handle().state()), (0.0, State::Closed));
    }

    #[test]
    fn a_gauge_that_is_bound_again_is_in_step() {
        let (told, breaker) = (Told::new(), CircuitBreakerHandle::new(config()).unwrap());
        let _held = breaker.admit().unwrap();
        let call = || breaker.admit().unwrap().finish(Outcome::Success);
        stays_in_step(&told, 1.0, call, || breaker.rebind_metrics());
    }

    #[tokio::test(start_paused = true)]
    async fn durations_are_told_while_they_are_asked_for() {
        let told = Told::new();
        let passing = |mode| config().consecutive_failures(None).mode(mode);
        for config in [passing(Mode::Enforce), passing(Mode::Disabled), passing(Mode::Enforce).slow_calls(SECOND, 1.0)]
        {
            let breaker = CircuitBreakerHandle::new(config.clone()).unwrap();
            let call = async |outcome| {
                let admission = breaker.admit().unwrap();
                advance(SECOND / 2).await;
                admission.finish(outcome);
            };
            call(Outcome::Success).await;
            assert!(told.durations().is_none_or(|told| told.is_empty()), "nobody has asked");
            breaker.update(config.clone().durations(true)).unwrap();
            call(Outcome::Success).await;
            call(Outcome::Failure).await;
            drop(breaker.admit().unwrap());
            assert_eq!(told.durations(), Some(vec![0.5, 0.5, 0.0]));
            breaker.update(config).unwrap();
            call(Outcome::Success).await;
            assert_eq!(told.durations(), Some(vec![]));
        }
    }
}

/// The finished future used to keep the inner one, and with it a permit or a connection, until somebody dropped it.
#[tokio::test]
async fn a_finished_call_holds_nothing() {
    struct Keeps(#[expect(dead_code, reason = "held, not read")] Arc<()>);
    impl Future for Keeps {
        type Output = Result<(), BoxError>;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Ready(Ok(()))
        }
    }
    let held = Arc::new(());
    let breaker = CircuitBreakerHandle::new(config()).unwrap();
    let mut call = std::pin::pin!(breaker.call(Keeps(held.clone())));
    call.as_mut().await.unwrap();
    assert_eq!(Arc::strong_count(&held), 1, "though the call itself lives on");
}

/// A service that broke while it was made ready used to keep the probe that it had reserved.
#[tokio::test(start_paused = true)]
async fn a_failed_readiness_gives_the_probe_back() {
    #[derive(Clone)]
    struct Breaks(bool);
    impl Service<Answer> for Breaks {
        type Response = &'static str;
        type Error = BoxError;
        type Future = std::future::Ready<Answer>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(if self.0 { Err(broken()) } else { Ok(()) })
        }

        fn call(&mut self, answer: Answer) -> Self::Future {
            std::future::ready(answer)
        }
    }
    let layer = CircuitBreakerLayer::new(config().on_open(OnOpen::NotReady)).unwrap();
    let (mut bad, mut good) = (layer.layer(Breaks(true)), layer.layer(Breaks(false)));
    trip(&mut good).await;
    advance(10 * SECOND).await;
    assert!(bad.ready().await.is_err());
    assert!(poll_once(|cx| good.poll_ready(cx)).await.is_ready());
}
