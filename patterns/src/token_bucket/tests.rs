//! Layer, service and handle on a paused clock.

use std::future::{pending, ready};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceExt, service_fn};

use super::bucket::Bucket;
use super::gcra::Setting;
use super::*;
use crate::{BoxError, Deadline, Mode, Reason, Rejected, Waiting, clock};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const NANO: Duration = Duration::from_nanos(1);

/// Ten a second and two at once.
fn config() -> TokenBucketConfig {
    TokenBucketConfig::new("mail", Rate::per_second(10), 2)
}

fn bucket(config: TokenBucketConfig) -> TokenBucketHandle {
    TokenBucketHandle::new(config).unwrap()
}

fn emptied(config: TokenBucketConfig) -> TokenBucketHandle {
    let bucket = bucket(config);
    bucket.drain();
    bucket
}

fn echo() -> impl Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone {
    service_fn(|request: u32| ready(Ok::<_, BoxError>(request)))
}

fn refused<T>(result: Result<T, BoxError>) -> Rejected {
    let error = result.err().expect("an error");
    Rejected::find(&*error).expect("a refusal").clone()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_exactly_when_to_return() {
    for rate in [Rate::per_second(10), Rate::per_second(3), Rate::per_second(999_983)] {
        let bucket = bucket(config().rate(rate));
        bucket.try_acquire_many(2).unwrap().succeeded();
        advance(7 * NANO).await;
        let rejected = bucket.try_acquire().unwrap_err();
        assert_eq!((rejected.pattern, &*rejected.name, rejected.reason), ("token_bucket", "mail", Reason::Limited));
        advance(rejected.retry_after.unwrap() - NANO).await;
        assert_eq!(bucket.try_acquire().unwrap_err().retry_after, Some(NANO), "a nanosecond before");
        advance(NANO).await;
        bucket.try_acquire().unwrap().succeeded();
        assert_eq!((bucket.stats().calls.ok, bucket.stats().calls.rejected), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn three_a_second_are_three_a_second_after_a_day() {
    let bucket = emptied(config().rate(Rate::per_second(3)).burst(1));
    let start = Instant::now();
    for _ in 0..3 * 60 * 60 {
        let wait = bucket.try_acquire().unwrap_err().retry_after.unwrap();
        advance(wait).await;
        bucket.try_acquire().unwrap().succeeded();
    }
    // Each is told the first nanosecond that is late enough, counted from the true time and not from the one before.
    assert!(start.elapsed() - Duration::from_secs(60 * 60) < 2 * NANO, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_somebody_waits_for_is_not_available() {
    let bucket = bucket(config().max_waiting(1));
    bucket.try_acquire().unwrap().succeeded();
    let mut waiting = Box::pin(bucket.acquire_many(2));
    assert!(futures_poll(&mut waiting).await.is_none());
    assert_eq!(bucket.available(), 0);
    drop(waiting);
    assert_eq!(bucket.available(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cost_whose_ticks_overflow_is_never_there() {
    // 2³³ ns a token: the ticks of 2³¹ tokens are 0, modulo 2⁶⁴.
    let bucket = bucket(TokenBucketConfig::new("mail", Rate::every(Duration::from_nanos(1 << 33)), 1));
    assert_eq!(bucket.try_acquire_many(1 << 31).unwrap_err().reason, Reason::Never);
}

#[test]
fn a_word_that_was_refunded_does_not_come_back_under_another_setting() {
    let every = |nanos, burst| Setting::new(Rate::every(Duration::from_nanos(nanos)), burst);
    let bucket = Bucket::new(every(10, 2), 0);
    let taken = bucket.try_take(1, Duration::ZERO).unwrap();
    let seen = bucket.tat();
    assert!(bucket.refund(taken, Duration::ZERO));
    assert!(bucket.update(every(9, 1), Some(0), Duration::ZERO).is_empty());
    assert!(bucket.tat() > seen, "who has seen it would take at the rate that is no longer in force");
}

#[tokio::test]
async fn what_is_below_shares_the_reading_of_the_clock() {
    let below = service_fn(|()| ready(Ok::<_, BoxError>(clock::stands_still())));
    assert!(!below.oneshot(()).await.unwrap());
    assert!(TokenBucketLayer::new(config()).unwrap().layer(below).oneshot(()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_request_costs_what_the_layer_says() {
    let layer = TokenBucketLayer::new(config().burst(10)).unwrap().cost(|cost: &u32| *cost).unwrap();
    let mut service = layer.layer(echo());
    assert_eq!(service.ready().await.unwrap().call(7).await.unwrap(), 7);
    let limited = refused(service.ready().await.unwrap().call(4).await);
    assert_eq!((limited.reason, limited.retry_after), (Reason::Limited, Some(100 * MS)));
    let never = refused(service.ready().await.unwrap().call(11).await);
    assert_eq!((never.reason, never.retry_after), (Reason::Never, None));
    assert_eq!(service.ready().await.unwrap().call(0).await.unwrap(), 0);
    assert_eq!(layer.handle().available(), 2, "nothing passes for free");
}

#[tokio::test(start_paused = true)]
async fn calls_wait_in_order_a_period_apart() {
    let bucket = emptied(config().max_waiting(3));
    let layer = bucket.layer();
    let start = Instant::now();
    let calls: Vec<_> = (0..3)
        .map(|request| {
            let mut service = layer.layer(echo());
            tokio::spawn(async move {
                service.ready().await.unwrap().call(request).await.unwrap();
                start.elapsed()
            })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!((bucket.stats().waiting, bucket.available()), (3, 0));
    let overtaking = bucket.try_acquire().unwrap_err();
    assert_eq!((overtaking.reason, overtaking.retry_after), (Reason::Limited, Some(400 * MS)), "behind three");
    let full = bucket.acquire().await.unwrap_err();
    assert_eq!((full.reason, full.retry_after), (Reason::QueueFull, Some(400 * MS)));
    for (number, call) in (1..).zip(calls) {
        assert_eq!(call.await.unwrap(), number * 100 * MS);
    }
    assert_eq!((bucket.stats().waiting, bucket.stats().calls.ok), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_late_timer_costs_no_tokens() {
    let bucket = emptied(config().burst(1).max_waiting(3));
    let mut waits: Vec<_> = (0..3).map(|_| Box::pin(bucket.acquire())).collect();
    for wait in &mut waits {
        assert!(futures_poll(wait).await.is_none());
    }
    // Nobody was polled for so long that two of them are due.
    advance(250 * MS).await;
    let mut got = Vec::new();
    for wait in &mut waits {
        got.extend(futures_poll(wait).await.map(|permit| permit.unwrap().succeeded()));
    }
    assert_eq!(got.len(), 2);
    let start = Instant::now();
    waits.pop().unwrap().await.unwrap().succeeded();
    assert_eq!(start.elapsed(), 50 * MS, "300 ms after the bucket was empty");
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_line_has_taken_nothing() {
    let bucket = emptied(config().max_waiting(2));
    let (mut first, mut second) = (Box::pin(bucket.acquire_many(2)), Box::pin(bucket.acquire()));
    assert!(futures_poll(&mut first).await.is_none() && futures_poll(&mut second).await.is_none());
    let start = Instant::now();
    drop(first);
    second.await.unwrap().succeeded();
    assert_eq!(start.elapsed(), 100 * MS, "its own token's time, and not after the other's");
    assert_eq!(bucket.stats().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_does_not_fit_is_refused_at_once() {
    let bucket = emptied(config().max_waiting(100).max_wait(250 * MS));
    let start = Instant::now();
    let late = bucket.acquire_many(2);
    let rejected = Deadline::after(150 * MS).scope(late).await.unwrap_err();
    assert_eq!((rejected.reason, rejected.retry_after), (Reason::Deadline, Some(200 * MS)));
    let passed = Deadline::after(Duration::ZERO).scope(bucket.acquire()).await.unwrap_err();
    assert_eq!(passed.reason, Reason::Deadline);
    let (mut first, mut second) = (Box::pin(bucket.acquire()), Box::pin(bucket.acquire()));
    assert!(futures_poll(&mut first).await.is_none() && futures_poll(&mut second).await.is_none());
    let rejected = bucket.acquire().await.unwrap_err();
    assert_eq!((rejected.reason, rejected.retry_after), (Reason::MaxWait, Some(300 * MS)));
    assert_eq!(bucket.acquire_many(3).await.unwrap_err().reason, Reason::Never);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_update_reaches_those_who_wait() {
    let bucket = emptied(config().max_waiting(5));
    let start = Instant::now();
    let wait = tokio::spawn(bucket.acquire());
    tokio::task::yield_now().await;
    bucket.update(config().max_waiting(5).rate(Rate::per_second(100))).unwrap();
    wait.await.unwrap().unwrap().succeeded();
    assert_eq!(start.elapsed(), 10 * MS, "a faster rate brings the turn forward");

    let (pair, one) = (tokio::spawn(bucket.acquire_many(2)), tokio::spawn(bucket.acquire()));
    tokio::task::yield_now().await;
    bucket.update(config().max_waiting(5).burst(1)).unwrap();
    assert_eq!(pair.await.unwrap().unwrap_err().reason, Reason::Never, "more than the bucket now holds");
    one.await.unwrap().unwrap().succeeded();

    let slow = tokio::spawn(bucket.acquire());
    tokio::task::yield_now().await;
    bucket.update(config().max_waiting(5).burst(1).rate(Rate::every(60 * SECOND))).unwrap();
    assert_eq!(slow.await.unwrap().unwrap_err().reason, Reason::MaxWait, "put off for longer than it may wait");

    let through = tokio::spawn(bucket.acquire());
    bucket.update(config().max_waiting(5).burst(1)).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(bucket.stats().waiting, 1);
    bucket.update(config().max_waiting(5).mode(Mode::Observe)).unwrap();
    through.await.unwrap().unwrap().succeeded();
    assert_eq!(bucket.stats().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_rate_keeps_the_spent_tokens() {
    let bucket = bucket(config().burst(10));
    bucket.try_acquire_many(6).unwrap().succeeded();
    bucket.update(config().burst(10).rate(Rate::every(SECOND))).unwrap();
    assert_eq!(bucket.available(), 4);
    advance(SECOND - NANO).await;
    assert_eq!(bucket.available(), 4);
    advance(NANO).await;
    assert_eq!(bucket.available(), 5, "one a second now");
    bucket.update(config().burst(12)).unwrap();
    assert_eq!(bucket.available(), 7, "with what was added");
    bucket.update(config().burst(3)).unwrap();
    assert_eq!(bucket.available(), 0, "empty rather than in debt");
    advance(100 * MS).await;
    assert_eq!(bucket.available(), 1);
    assert_eq!(bucket.update(config().burst(0)).unwrap_err().field, "burst");
    assert_eq!(bucket.update(TokenBucketConfig::new("other", Rate::per_second(1), 1)).unwrap_err().field, "name");
    assert_eq!(bucket.update(config().waiting(Waiting::InReadiness)).unwrap_err().field, "waiting");
    assert_eq!(bucket.config(), config().burst(3), "nothing was changed");
}

#[tokio::test(start_paused = true)]
async fn an_unused_permit_is_refunded_if_nobody_took_since() {
    let bucket = bucket(config());
    let (first, second) = (bucket.try_acquire().unwrap(), bucket.try_acquire().unwrap());
    assert!(!first.refund(), "the second was built on it");
    assert!(second.refund());
    assert_eq!(bucket.available(), 1);
    let stats = bucket.stats().calls;
    assert_eq!((stats.admitted, stats.neutral, stats.in_flight), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refund_wakes_who_waits() {
    let bucket = bucket(config().max_waiting(1));
    let _spent = bucket.try_acquire().unwrap();
    let unused = bucket.try_acquire().unwrap();
    let start = Instant::now();
    let wait = tokio::spawn(bucket.acquire());
    tokio::task::yield_now().await;
    assert!(unused.refund());
    wait.await.unwrap().unwrap().succeeded();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_drained_bucket_starts_empty() {
    let bucket = bucket(config());
    bucket.drain();
    assert_eq!((bucket.available(), bucket.try_acquire().unwrap_err().retry_after), (0, Some(100 * MS)));
    bucket.drain();
    advance(200 * MS).await;
    assert_eq!(bucket.available(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_readiness_that_is_not_used_gives_its_token_back() {
    let config = config().burst(1).max_waiting(4).waiting(Waiting::InReadiness);
    let layer = TokenBucketLayer::new(config).unwrap();
    let (mut first, mut second) = (layer.layer(echo()), layer.layer(echo()));
    let bucket = layer.handle();
    first.ready().await.unwrap();
    assert_eq!(bucket.available(), 0, "reserved");
    let start = Instant::now();
    let clone = first.clone();
    drop(first);
    second.ready().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "given back");
    assert_eq!(second.call(1).await.unwrap(), 1);
    let mut third = clone;
    third.ready().await.unwrap();
    assert_eq!(start.elapsed(), 100 * MS, "spent, and the clone had none");
    assert_eq!(layer.cost(|_: &u32| 2).unwrap_err().field, "waiting");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_dropped_stays_paid() {
    let layer = TokenBucketLayer::new(config()).unwrap();
    let mut service = layer.layer(service_fn(|(): ()| pending::<Result<(), BoxError>>()));
    drop(service.ready().await.unwrap().call(()));
    let stats = layer.handle().stats();
    assert_eq!((stats.calls.neutral, stats.calls.in_flight, stats.available), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn only_an_enforcing_bucket_refuses() {
    let bucket = bucket(config().mode(Mode::Observe).max_waiting(3));
    for _ in 0..5 {
        bucket.acquire().await.unwrap().succeeded();
    }
    let stats = bucket.stats();
    assert_eq!((stats.calls.ok, stats.calls.rejected, stats.available), (5, 3, 0));
    bucket.update(config().mode(Mode::Disabled)).unwrap();
    advance(SECOND).await;
    bucket.try_acquire_many(100).unwrap().succeeded();
    assert_eq!((bucket.stats().calls.rejected, bucket.available()), (3, 2), "nothing is decided");
}

#[tokio::test(start_paused = true)]
async fn services_clones_and_handles_share_one_bucket() {
    let layer = TokenBucketLayer::new(config()).unwrap();
    let (mut first, mut second) = (layer.layer(echo()), layer.clone().layer(echo()).clone());
    first.ready().await.unwrap().call(1).await.unwrap();
    second.ready().await.unwrap().call(2).await.unwrap();
    assert!(layer.handle().try_acquire().is_err());
    assert!(layer.handle().layer().layer(echo()).ready().await.unwrap().call(3).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_empty_bucket_that_is_changed_all_the_time_fills_again() {
    // Each change once moved the count of ticks on by a burst, until the bucket was closed for good.
    let hour = 3600 * SECOND;
    let slow = config().rate(Rate::every(24 * hour)).burst(30);
    let bucket = emptied(slow.clone());
    for turn in 0..5_000 {
        let rate = if turn % 2 == 0 { Rate::every(12 * hour) } else { slow.rate };
        bucket.update(slow.clone().rate(rate)).unwrap();
        assert_eq!(bucket.available(), 0);
    }
    assert_eq!(bucket.try_acquire().unwrap_err().retry_after, Some(24 * hour));
    advance(24 * hour).await;
    bucket.try_acquire().unwrap().succeeded();
}

#[tokio::test(start_paused = true)]
async fn who_was_let_into_the_line_is_not_refused_because_timers_are_late() {
    // Ten tokens within the grain of a timer, and twice the demand: everybody in line is due just before it runs out of
    // patience.
    let bucket = emptied(config().rate(Rate::per_second(10_000)).burst(1).max_waiting(1000).max_wait(10 * MS));
    let mut calls = Vec::new();
    for _ in 0..1000 {
        let call = bucket.acquire();
        calls.push(tokio::spawn(async move {
            let start = Instant::now();
            (call.await.is_ok(), start.elapsed())
        }));
        tokio::task::yield_now().await;
        advance(50 * Duration::from_micros(1)).await;
    }
    let (mut admitted, mut in_vain) = (0, 0);
    for call in calls {
        let (ok, waited) = call.await.unwrap();
        admitted += u32::from(ok);
        in_vain += u32::from(!ok && !waited.is_zero());
    }
    assert!((500..=600).contains(&admitted), "{admitted}");
    assert_eq!(in_vain, 0, "waited for nothing");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Who waits goes in the order of arrival, and at the very instant at which one who serves them one after the other
    /// would let them go.
    #[test]
    fn those_in_line_go_in_order_and_on_the_instant(
        period in 1..50_u64,
        burst in 1..8_u64,
        script in prop::collection::vec((0..120_u64, 1..8_u64), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (mut full_again, mut now, mut expected) = (0, 0, Vec::new());
        let script: Vec<_> = script.into_iter().map(|(step, cost)| (step, cost.min(burst))).collect();
        for (caller, (step, cost)) in script.iter().enumerate() {
            now += step;
            full_again = now.max(full_again) + cost * period;
            expected.push((caller, now.max(full_again.saturating_sub(burst * period))));
        }
        let went = runtime.block_on(async {
            let config = config().rate(Rate::every(period as u32 * MS)).burst(burst as u32);
            let bucket = bucket(config.max_waiting(60).max_wait(3600 * SECOND));
            let (start, (tell, mut told)) = (Instant::now(), tokio::sync::mpsc::unbounded_channel());
            for (caller, (step, cost)) in script.into_iter().enumerate() {
                tokio::time::sleep(step as u32 * MS).await;
                let (bucket, tell) = (bucket.clone(), tell.clone());
                tokio::spawn(async move {
                    bucket.acquire_many(cost as u32).await.unwrap().succeeded();
                    tell.send((caller, start.elapsed().as_millis() as u64)).unwrap();
                });
                tokio::task::yield_now().await;
            }
            drop(tell);
            let mut went = Vec::new();
            while let Some(one) = told.recv().await {
                went.push(one);
            }
            went
        });
        prop_assert_eq!(went, expected);
    }
}
