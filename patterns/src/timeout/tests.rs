//! The layer and its service on a paused clock.

use std::future::{Future, pending, poll_fn, ready};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};

use super::{Timeout, TimeoutConfig, TimeoutHandle, TimeoutLayer};
use crate::{BoxError, Deadline, Elapsed, Limit, Mode, Reason, Rejected, find};

const LIMIT: Duration = Duration::from_millis(100);
const MS: Duration = Duration::from_millis(1);

fn layer() -> TimeoutLayer {
    TimeoutLayer::new(TimeoutConfig::attempt("peer", LIMIT)).unwrap()
}

/// Answers after as long as the request says, with what was left of the deadline when it was called.
fn sleeper(
    layer: &TimeoutLayer,
) -> impl Service<Duration, Response = Option<Duration>, Error = BoxError> + Clone + use<> {
    layer.layer(service_fn(|wait: Duration| {
        let left = Deadline::remaining();
        async move {
            sleep(wait).await;
            Ok::<_, BoxError>(left)
        }
    }))
}

async fn elapsed<T: std::fmt::Debug>(call: impl Future<Output = Result<T, BoxError>>) -> Elapsed {
    find::<Elapsed>(&*call.await.unwrap_err()).unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_call_within_its_limit_is_passed_through() {
    let layer = layer();
    assert_eq!(sleeper(&layer).oneshot(LIMIT - MS).await.unwrap(), Some(LIMIT), "and sees the limit as its deadline");
    let stats = layer.handle().stats();
    assert_eq!((stats.admitted, stats.ok, stats.elapsed), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_late_call_is_cut_at_its_limit() {
    let layer = layer();
    let start = Instant::now();
    let error = elapsed(sleeper(&layer).oneshot(LIMIT * 100)).await;
    assert_eq!((error.limit, error.after, &*error.name), (Limit::Attempt, LIMIT, "peer"));
    assert_eq!(start.elapsed(), LIMIT);
    let stats = layer.handle().stats();
    assert_eq!((stats.failed, stats.elapsed, stats.in_flight), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_tighter_of_limit_and_deadline_is_kept_and_named() {
    let layer = layer();
    let under = |deadline: Duration| Deadline::after(deadline).scope(elapsed(sleeper(&layer).oneshot(LIMIT * 9)));
    assert_eq!(under(LIMIT / 2).await.limit, Limit::Ambient);
    assert_eq!(under(LIMIT * 2).await.limit, Limit::Attempt);
    assert_eq!(under(LIMIT).await.limit, Limit::Attempt, "of two that end together the own one is named");
    let stats = layer.handle().stats();
    assert_eq!((stats.elapsed_ambient, stats.neutral), (1, 1), "an impatient caller is no failure of the peer");
    assert_eq!((stats.elapsed, stats.failed), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_total_limit_around_an_attempt_limit_says_total() {
    let total = TimeoutLayer::new(TimeoutConfig::total("peer", LIMIT / 2)).unwrap();
    let error = elapsed(total.layer(sleeper(&layer())).oneshot(LIMIT * 9)).await;
    // The inner layer sees the outer limit as its ambient deadline and is polled first. Its word was passed on, so that our
    // own limit was called the caller's and counted by nobody.
    assert_eq!((error.limit, error.after), (Limit::Total, LIMIT / 2));
    let stats = total.handle().stats();
    assert_eq!((stats.elapsed, stats.elapsed_ambient, stats.failed), (1, 0, 1));
    let call = total.layer(sleeper(&layer())).oneshot(LIMIT * 9);
    assert_eq!(Deadline::after(LIMIT / 4).scope(elapsed(call)).await.limit, Limit::Ambient);
    let stats = total.handle().stats();
    assert_eq!((stats.elapsed, stats.elapsed_ambient, stats.neutral), (1, 1, 1));
    let hangs = total.layer(service_fn(|()| pending::<Result<(), BoxError>>()));
    assert_eq!(elapsed(hangs.oneshot(())).await.limit, Limit::Total);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_ready_wins_over_the_timer() {
    let layer = layer();
    let call = sleeper(&layer).oneshot(LIMIT);
    assert!(call.await.is_ok(), "both end in the same instant");
    let handle = layer.handle();
    let mut late = pin!(handle.call(poll_fn(|_| Poll::Ready(Ok::<_, BoxError>(())))));
    advance(LIMIT * 9).await;
    assert!(late.as_mut().await.is_ok(), "a result that is there is not thrown away");
}

/// Counts the reservations that are held and the calls that were made.
#[derive(Default)]
struct Probe {
    held: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    reserved: bool,
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self { held: self.held.clone(), calls: self.calls.clone(), reserved: false }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.held.fetch_sub(usize::from(self.reserved), Ordering::Relaxed);
    }
}

impl Service<()> for Probe {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        assert_eq!(Deadline::current(), None, "the scope does not cover readiness");
        self.held.fetch_add(usize::from(!self.reserved), Ordering::Relaxed);
        self.reserved = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert!(std::mem::take(&mut self.reserved), "called without readiness");
        self.held.fetch_sub(1, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_passed_deadline_is_refused_and_the_reservation_is_returned() {
    let (layer, probe) = (layer(), Probe::default());
    let (held, calls) = (probe.held.clone(), probe.calls.clone());
    let mut service = layer.layer(probe);
    service.ready().await.unwrap();
    assert_eq!(held.load(Ordering::Relaxed), 1);
    let refused = Deadline::after(Duration::ZERO).enter(|| service.call(()));
    assert_eq!(held.load(Ordering::Relaxed), 0, "before the refusal is even polled");
    let error = refused.await.unwrap_err();
    assert_eq!(Rejected::find(&*error).map(|error| (error.pattern, error.reason)), Some(("timeout", Reason::Deadline)));
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    let stats = layer.handle().stats();
    assert_eq!((stats.admitted, stats.rejected), (0, 1));
    service.ready().await.unwrap().call(()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_the_call_and_every_poll() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let service = layer().layer(service_fn(move |()| {
        let note = note.clone();
        note.lock().unwrap().push(Deadline::remaining());
        async move {
            for _ in 0..2 {
                note.lock().unwrap().push(Deadline::remaining());
                sleep(LIMIT / 4).await;
            }
            note.lock().unwrap().push(Deadline::remaining());
            Ok::<_, BoxError>(())
        }
    }));
    service.oneshot(()).await.unwrap();
    let left: Vec<_> = seen.lock().unwrap().iter().map(|left| left.unwrap().as_millis()).collect();
    assert_eq!(left, [100, 100, 75, 50]);
    assert_eq!(Deadline::current(), None);
}

#[tokio::test(start_paused = true)]
async fn a_cut_call_drops_the_inner_future_at_once() {
    let held = Arc::new(());
    let token = held.clone();
    let handle = layer().handle();
    let mut call = pin!(handle.call(async move {
        let _token = token;
        pending::<Result<(), BoxError>>().await
    }));
    assert_eq!(elapsed(call.as_mut()).await.limit, Limit::Attempt);
    assert_eq!(Arc::strong_count(&held), 1, "though the call itself lives on");
}

#[tokio::test(start_paused = true)]
async fn a_busy_inner_future_does_not_starve_the_timer() {
    // Every poll uses up the task's share of the scheduler's turn, after which no timer is ever ready.
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let handle = layer().handle();
    let mut call = pin!(handle.call(poll_fn(move |cx| {
        loop {
            sender.send(()).unwrap();
            if receiver.poll_recv(cx).is_pending() {
                return Poll::<Result<(), BoxError>>::Pending;
            }
        }
    })));
    let first = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
    assert!(first);
    advance(LIMIT).await;
    let second = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
    assert!(second);
    assert_eq!(handle.stats().elapsed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_poll_is_neutral_and_leaves_nothing() {
    for polls in 0..4 {
        let layer = layer();
        {
            let mut call = pin!(sleeper(&layer).oneshot(LIMIT / 2));
            for _ in 0..polls {
                let pending = call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
                assert!(pending);
                advance(MS).await;
            }
        }
        let stats = layer.handle().stats();
        let called = u64::from(polls > 0);
        assert_eq!((stats.admitted, stats.neutral, stats.in_flight), (called, called, 0));
    }
    let handle = layer().handle();
    drop(handle.call(ready(Ok::<_, BoxError>(()))));
    assert_eq!((handle.stats().neutral, handle.stats().in_flight), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_inner_service_is_a_failure() {
    let layer = layer();
    let service = layer.layer(service_fn(|now: bool| {
        assert!(!now, "in call");
        async move {
            assert!(now, "in poll");
            Ok::<_, std::convert::Infallible>(())
        }
    }));
    for now in [true, false] {
        let service = service.clone();
        let joined = tokio::spawn(async move { service.oneshot(now).await.map_err(|_| ()) }).await;
        assert!(joined.unwrap_err().is_panic());
    }
    let stats = layer.handle().stats();
    assert_eq!((stats.admitted, stats.failed, stats.in_flight), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_update_reaches_every_service_and_clone() {
    let layer = layer();
    let service = sleeper(&layer);
    let config = TimeoutConfig::attempt("peer", LIMIT);
    let longer = TimeoutConfig { limit: LIMIT * 3, ..config.clone() };
    layer.handle().update(longer.clone()).unwrap();
    assert_eq!(layer.handle().config(), longer);
    assert_eq!(sleeper(&layer.handle().layer()).oneshot(MS).await.unwrap(), Some(LIMIT * 3));
    assert_eq!(service.clone().oneshot(LIMIT * 2).await.unwrap(), Some(LIMIT * 3));
    assert_eq!(sleeper(&layer.clone()).oneshot(MS).await.unwrap(), Some(LIMIT * 3));
    let wrong = |config| layer.handle().update(config).unwrap_err().field;
    assert_eq!(wrong(TimeoutConfig { limit: Duration::ZERO, ..config.clone() }), "limit");
    assert_eq!(wrong(TimeoutConfig { name: "other".into(), ..config }), "name");
    assert_eq!(service.oneshot(LIMIT * 2).await.unwrap(), Some(LIMIT * 3), "a refused update changes nothing");
}

#[tokio::test(start_paused = true)]
async fn observing_counts_and_cuts_nothing() {
    for (mode, counted) in [(Mode::Observe, 1), (Mode::Disabled, 0)] {
        let layer = TimeoutLayer::new(TimeoutConfig::attempt("peer", LIMIT).mode(mode)).unwrap();
        assert_eq!(sleeper(&layer).oneshot(LIMIT * 2).await.unwrap(), None, "what is below does not see the limit");
        assert!(Deadline::after(Duration::ZERO).scope(sleeper(&layer).oneshot(MS)).await.is_ok());
        let stats = layer.handle().stats();
        assert_eq!((stats.admitted, stats.ok), (2, 2));
        assert_eq!((stats.elapsed, stats.elapsed_ambient, stats.rejected), (counted, counted, counted), "{mode:?}");
    }
}

#[test]
fn service_and_future_are_send_and_sync_where_the_inner_ones_are() {
    fn check<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn send<T: Send>(_: &T) {}
    let mut service: Timeout<Probe> = layer().layer(Probe::default());
    check(&service);
    check(&layer().handle());
    assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
    send(&service.call(()));
    assert!(format!("{:?}", TimeoutHandle::new(TimeoutConfig::total("n", LIMIT)).unwrap()).contains("\"n\""));
}

#[test]
#[cfg(target_pointer_width = "64")]
fn the_account_of_a_call_is_six_words_with_metrics_and_without() {
    // The layer, start, deadline and whose it is, and flags.
    assert_eq!(size_of::<super::handle::Running>(), 48);
}

#[cfg(feature = "metrics")]
mod metrics {
    use super::*;
    use crate::telemetry::told::{End, Told, follows_every_end, inner, stays_in_step};

    #[tokio::test(start_paused = true)]
    async fn every_start_and_end_is_told() {
        let (told, layer) = (Told::new(), layer());
        let mut service = layer.layer(service_fn(inner));
        follows_every_end(&told, service.clone()).await;
        let refused = Deadline::after(Duration::ZERO).enter(|| service.call(End::Good)).await;
        assert!(Rejected::find(&*refused.unwrap_err()).is_some());
        assert_eq!(told.in_flight(), 0.0);
        let _ = elapsed(layer.handle().call(pending::<Result<(), BoxError>>())).await;
        assert_eq!(told.in_flight(), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gauge_that_is_bound_again_is_in_step() {
        let (told, layer) = (Told::new(), layer());
        let timeout = layer.handle();
        let _held = timeout.call(pending::<Result<(), BoxError>>());
        let call = || drop(timeout.call(ready(Ok::<_, BoxError>(()))));
        stays_in_step(&told, 1.0, call, || timeout.rebind_metrics());
    }

    #[tokio::test(start_paused = true)]
    async fn durations_are_told_while_they_are_asked_for() {
        let told = Told::new();
        for mode in [Mode::Enforce, Mode::Observe, Mode::Disabled] {
            let config = TimeoutConfig::total("peer", LIMIT).mode(mode);
            let timeout = TimeoutHandle::new(config.clone()).unwrap();
            let call = async |wait: Duration| {
                let sleeps = async {
                    sleep(wait).await;
                    Ok::<_, BoxError>(())
                };
                timeout.call(sleeps).await
            };
            call(MS).await.unwrap();
            assert!(told.durations().is_none_or(|told| told.is_empty()), "nobody has asked");
            timeout.update(config.clone().durations(true)).unwrap();
            assert!(timeout.config().durations);
            call(30 * MS).await.unwrap();
            let _ = call(LIMIT * 2).await;
            let longest = if mode == Mode::Enforce { 0.1 } else { 0.2 };
            assert_eq!(told.durations(), Some(vec![0.03, longest]));
            timeout.update(config).unwrap();
            call(MS).await.unwrap();
            assert_eq!(told.durations(), Some(vec![]));
        }
    }
}
