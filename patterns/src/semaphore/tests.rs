//! Layer, service and handle on a paused clock.

use std::future::{Future, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore as Tokens, oneshot};
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceExt, service_fn};

use super::*;
use crate::{BoxError, Deadline, Mode, Reason, Rejected, Waiting, clock};

const SECOND: Duration = Duration::from_secs(1);

/// One permit.
fn config() -> SemaphoreConfig {
    SemaphoreConfig::new("db", 1).max_waiting(2)
}

fn semaphore(config: SemaphoreConfig) -> SemaphoreHandle {
    SemaphoreHandle::new(config).unwrap()
}

fn poll_now<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn reason<T>(result: Result<T, BoxError>) -> Reason {
    Rejected::find(&*result.err().expect("an error")).expect("a refusal").reason
}

type Held = Arc<Tokens>;

/// Ready only with one of its tokens, which the call keeps until it is answered through the channel.
struct Slow {
    tokens: Held,
    reserved: Option<OwnedSemaphorePermit>,
    calls: Arc<AtomicUsize>,
}

impl Slow {
    fn new(tokens: usize) -> Self {
        Self { tokens: Arc::new(Tokens::new(tokens)), reserved: None, calls: Arc::default() }
    }
}

impl Clone for Slow {
    fn clone(&self) -> Self {
        Self { tokens: self.tokens.clone(), reserved: None, calls: self.calls.clone() }
    }
}

type Answer = oneshot::Receiver<Result<u32, BoxError>>;

impl Service<Answer> for Slow {
    type Response = u32;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<u32, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.reserved.is_none() {
            self.reserved = self.tokens.clone().try_acquire_owned().ok();
        }
        if self.reserved.is_some() {
            return Poll::Ready(Ok(()));
        }
        // Asked again at the next turn of the scheduler.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, answer: Answer) -> Self::Future {
        let token = self.reserved.take().expect("called without readiness");
        // ORDERING: Relaxed, one thread.
        self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let _token = token;
            answer.await?
        })
    }
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_limit_wait_their_turn() {
    let layer = SemaphoreLayer::new(config()).unwrap();
    let mut service = layer.layer(Slow::new(9));
    let (first, answer) = oneshot::channel();
    let running = service.ready().await.unwrap().call(answer);
    let (second, answer) = oneshot::channel();
    let mut waiting = pin!(service.ready().await.unwrap().call(answer));
    assert!(poll_now(waiting.as_mut()).is_pending());
    let stats = layer.handle().stats();
    assert_eq!((stats.in_use, stats.waiting, stats.calls.admitted), (1, 1, 1));
    first.send(Ok(1)).unwrap();
    assert_eq!(running.await.unwrap(), 1);
    second.send(Ok(2)).unwrap();
    assert_eq!(waiting.await.unwrap(), 2);
    let stats = layer.handle().stats();
    assert_eq!((stats.calls.ok, stats.calls.in_flight, stats.in_use, stats.waiting), (2, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_after_max_wait_or_at_the_deadline() {
    let semaphore = semaphore(config());
    let _held = semaphore.try_acquire().unwrap();
    let start = Instant::now();
    assert_eq!(semaphore.acquire().await.unwrap_err().reason, Reason::MaxWait);
    assert_eq!(start.elapsed(), SECOND);
    let start = Instant::now();
    let cut = Deadline::after(SECOND / 4).scope(semaphore.acquire()).await;
    assert_eq!((cut.unwrap_err().reason, start.elapsed()), (Reason::Deadline, SECOND / 4));
    let passed = Deadline::after(Duration::ZERO).scope(semaphore.acquire());
    let Poll::Ready(Err(rejected)) = poll_now(pin!(passed)) else { panic!("it waits") };
    assert_eq!(rejected.reason, Reason::Deadline);
    assert_eq!(semaphore.stats().calls.rejected, 3);
}

#[tokio::test(start_paused = true)]
async fn every_refusal_has_its_reason() {
    let semaphore = semaphore(config().max_waiting(1));
    assert_eq!(semaphore.try_acquire_many(2).unwrap_err().reason, Reason::Never);
    assert_eq!(semaphore.acquire_many(2).await.unwrap_err().reason, Reason::Never);
    let _held = semaphore.try_acquire().unwrap();
    assert_eq!(semaphore.try_acquire().unwrap_err().reason, Reason::Full);
    let mut waiting = pin!(semaphore.acquire());
    assert!(poll_now(waiting.as_mut()).is_pending());
    assert_eq!(semaphore.acquire().await.unwrap_err().reason, Reason::QueueFull);
    semaphore.update(semaphore.config().max_waiting(0)).unwrap();
    assert_eq!(semaphore.acquire().await.unwrap_err().reason, Reason::Full);
    semaphore.close();
    assert_eq!(waiting.await.unwrap_err().reason, Reason::Closed);
    assert_eq!(semaphore.try_acquire().unwrap_err().reason, Reason::Closed);
    assert_eq!(
        semaphore.run(async { Ok::<_, BoxError>(()) }).await.map_err(|e| reason::<()>(Err(e))),
        Err(Reason::Closed)
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_or_waiting_call_returns_the_reservation_of_the_inner_service() {
    let inner = Slow::new(1);
    let tokens = inner.tokens.clone();
    let layer = SemaphoreLayer::new(config()).unwrap();
    let mut service = layer.layer(inner);
    let held = layer.handle().try_acquire().unwrap();
    service.ready().await.unwrap();
    assert_eq!(tokens.available_permits(), 0, "readiness holds a token");
    let (_answer, receiver) = oneshot::channel();
    let mut waiting = pin!(service.call(receiver));
    assert_eq!(tokens.available_permits(), 1, "a call in line holds none");
    assert!(poll_now(waiting.as_mut()).is_pending());
    drop(held);
    assert!(poll_now(waiting.as_mut()).is_pending());
    assert_eq!(tokens.available_permits(), 0, "its turn came");
    assert_eq!(layer.handle().stats().calls.in_flight, 1);
}

#[tokio::test(start_paused = true)]
async fn the_readiness_after_a_wait_is_bounded_too() {
    let inner = Slow::new(1);
    let tokens = inner.tokens.clone();
    let layer = SemaphoreLayer::new(config()).unwrap();
    let semaphore = layer.handle();
    let mut service = layer.layer(inner);
    let held = semaphore.try_acquire().unwrap();
    let (_answer, receiver) = oneshot::channel();
    let waiting = service.ready().await.unwrap().call(receiver);
    let _token = tokens.try_acquire_owned().unwrap();
    let task = tokio::spawn(waiting);
    advance(SECOND / 2).await;
    drop(held);
    assert!(!task.is_finished());
    // The inner service asks to be polled again and again, so that the paused clock does not move by itself.
    for _ in 0..60 {
        tokio::task::yield_now().await;
        advance(SECOND / 100).await;
    }
    assert_eq!(reason(task.await.unwrap()), Reason::MaxWait);
    let stats = semaphore.stats();
    assert_eq!((stats.in_use, stats.calls.admitted, stats.calls.in_flight, stats.calls.rejected), (0, 1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_permit_granted_to_a_dropped_waiter_goes_to_the_next() {
    let semaphore = semaphore(config());
    let held = semaphore.try_acquire().unwrap();
    let mut first = Box::pin(semaphore.acquire());
    let mut second = Box::pin(semaphore.acquire());
    assert!(poll_now(first.as_mut()).is_pending() && poll_now(second.as_mut()).is_pending());
    drop(held);
    assert_eq!(semaphore.stats().waiting, 1, "the first was granted and does not know");
    drop(first);
    assert!(matches!(poll_now(second.as_mut()), Poll::Ready(Ok(_))));
    assert_eq!(semaphore.available(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_comes_with_the_timer_is_kept() {
    let semaphore = semaphore(config());
    let held = semaphore.try_acquire().unwrap();
    let mut waiting = Box::pin(semaphore.acquire());
    assert!(poll_now(waiting.as_mut()).is_pending());
    advance(2 * SECOND).await;
    drop(held);
    assert!(matches!(poll_now(waiting.as_mut()), Poll::Ready(Ok(_))));
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes() {
    let semaphore = semaphore(config().limit(3));
    let one = semaphore.try_acquire().unwrap();
    let mut three = Box::pin(semaphore.acquire_many(3));
    assert!(poll_now(three.as_mut()).is_pending());
    assert_eq!((semaphore.try_acquire().unwrap_err().reason, semaphore.available()), (Reason::Full, 0));
    let mut late = Box::pin(semaphore.acquire());
    assert!(poll_now(late.as_mut()).is_pending());
    drop(three);
    assert!(poll_now(late.as_mut()).is_ready(), "it was in its way");
    drop(one);
    assert_eq!(semaphore.available(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_last_come_is_first_in_lifo() {
    let semaphore = semaphore(config().order(Order::Lifo));
    let held = semaphore.try_acquire().unwrap();
    let (mut old, mut new) = (Box::pin(semaphore.acquire()), Box::pin(semaphore.acquire()));
    assert!(poll_now(old.as_mut()).is_pending() && poll_now(new.as_mut()).is_pending());
    drop(held);
    assert!(poll_now(old.as_mut()).is_pending());
    assert!(poll_now(new.as_mut()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_shrunk_limit_is_a_debt_paid_as_permits_come_back() {
    let semaphore = semaphore(config().limit(4));
    let mut held: Vec<_> = (0..4).map(|_| semaphore.try_acquire().unwrap()).collect();
    let (mut heavy, mut light) = (Box::pin(semaphore.acquire_many(3)), Box::pin(semaphore.acquire()));
    assert!(poll_now(heavy.as_mut()).is_pending() && poll_now(light.as_mut()).is_pending());
    semaphore.resize(2).unwrap();
    let stats = semaphore.stats();
    assert_eq!((stats.limit, stats.in_use, stats.waiting), (2, 4, 1));
    assert_eq!(heavy.await.unwrap_err().reason, Reason::Never);
    for _ in 0..2 {
        held.pop();
        assert!(poll_now(light.as_mut()).is_pending());
    }
    held.pop();
    assert!(poll_now(light.as_mut()).is_ready());
    drop(held);
    semaphore.resize(5).unwrap();
    assert_eq!(semaphore.available(), 5);
}

#[tokio::test(start_paused = true)]
async fn growth_admits_those_who_wait() {
    let semaphore = semaphore(config());
    let _held = semaphore.try_acquire().unwrap();
    let tasks: Vec<_> = (0..2)
        .map(|_| {
            let semaphore = semaphore.clone();
            tokio::spawn(async move { semaphore.acquire().await.map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(semaphore.stats().waiting, 2);
    semaphore.resize(3).unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn updates_are_checked_whole() {
    let semaphore = semaphore(config());
    for (field, bad) in [
        ("limit", config().limit(0)),
        ("waiting", config().waiting(Waiting::InReadiness)),
        ("name", SemaphoreConfig::new("other", 1)),
    ] {
        assert_eq!(semaphore.update(bad).unwrap_err().field, field);
        assert_eq!(semaphore.config(), config());
    }
    let in_readiness = SemaphoreLayer::new(config().waiting(Waiting::InReadiness)).unwrap();
    assert_eq!(in_readiness.cost(|_: &Answer| 2).unwrap_err().field, "waiting");
}

#[tokio::test(start_paused = true)]
async fn the_cost_of_a_request_counts() {
    let layer = SemaphoreLayer::new(config().limit(3).max_waiting(0)).unwrap().cost(|cost: &u32| *cost).unwrap();
    let semaphore = layer.handle();
    let mut service = layer.layer(service_fn(|cost: u32| {
        let semaphore = semaphore.clone();
        async move { Ok::<_, BoxError>((cost, semaphore.stats().in_use)) }
    }));
    assert_eq!(service.ready().await.unwrap().call(2).await.unwrap(), (2, 2));
    assert_eq!(service.ready().await.unwrap().call(0).await.unwrap(), (0, 1));
    assert_eq!(reason(service.ready().await.unwrap().call(4).await), Reason::Never);
    let _held = semaphore.try_acquire_many(2).unwrap();
    assert_eq!(reason(service.ready().await.unwrap().call(2).await), Reason::Full);
}

#[tokio::test(start_paused = true)]
async fn observing_refuses_nothing_and_counts_what_it_would() {
    let semaphore = semaphore(config());
    let held = semaphore.try_acquire().unwrap();
    let mut waiting = Box::pin(semaphore.acquire());
    assert!(poll_now(waiting.as_mut()).is_pending());
    semaphore.update(config().mode(Mode::Observe)).unwrap();
    assert!(matches!(poll_now(waiting.as_mut()), Poll::Ready(Ok(_))), "who waits is let through");
    semaphore.try_acquire().unwrap().succeeded();
    assert!(matches!(poll_now(pin!(semaphore.acquire())), Poll::Ready(Ok(_))));
    let stats = semaphore.stats();
    assert_eq!((stats.in_use, stats.calls.rejected, stats.calls.admitted), (1, 3, 4));
    semaphore.update(config().mode(Mode::Disabled)).unwrap();
    semaphore.try_acquire_many(9).unwrap().failed();
    let stats = semaphore.stats();
    assert_eq!((stats.calls.rejected, stats.calls.ok, stats.calls.failed, stats.calls.neutral), (3, 1, 1, 2));
    drop(held);
    assert_eq!(semaphore.stats().calls.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_mode_lets_through_counts_as_refused_once() {
    let layer = SemaphoreLayer::new(config()).unwrap();
    let semaphore = layer.handle();
    let _held = semaphore.try_acquire().unwrap();
    let slow = Slow::new(1);
    let mut service = layer.layer(slow.clone());
    let (_answer, receiver) = oneshot::channel();
    let mut call = Box::pin(service.ready().await.unwrap().call(receiver));
    assert!(poll_now(call.as_mut()).is_pending());
    // Let through, it waits for the inner service, for longer than it would have waited in line.
    let token = slow.tokens.clone().acquire_owned().await.unwrap();
    semaphore.update(config().mode(Mode::Observe)).unwrap();
    assert!(poll_now(call.as_mut()).is_pending());
    advance(3600 * SECOND).await;
    assert!(poll_now(call.as_mut()).is_pending());
    assert_eq!(semaphore.stats().calls.rejected, 1);
    drop(token);
    assert!(poll_now(call.as_mut()).is_pending());
    assert_eq!((semaphore.stats().calls.rejected, slow.calls.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_patience_ends_while_only_observed_counts_as_refused_once() {
    let layer = SemaphoreLayer::new(config()).unwrap();
    let semaphore = layer.handle();
    let held = semaphore.try_acquire().unwrap();
    let slow = Slow::new(1);
    let mut service = layer.layer(slow.clone());
    let (_answer, receiver) = oneshot::channel();
    let mut call = Box::pin(service.ready().await.unwrap().call(receiver));
    assert!(poll_now(call.as_mut()).is_pending());
    let _token = slow.tokens.clone().acquire_owned().await.unwrap();
    drop(held);
    assert!(poll_now(call.as_mut()).is_pending());
    semaphore.update(config().mode(Mode::Observe)).unwrap();
    advance(3600 * SECOND).await;
    for _ in 0..2 {
        assert!(poll_now(call.as_mut()).is_pending());
        assert_eq!((semaphore.stats().calls.rejected, semaphore.stats().in_use), (1, 1));
    }
}

fn in_readiness(max_waiting: u32) -> SemaphoreLayer {
    SemaphoreLayer::new(config().max_waiting(max_waiting).waiting(Waiting::InReadiness)).unwrap()
}

async fn poll_ready<S: Service<Answer>>(service: &mut S) -> Poll<Result<(), S::Error>> {
    poll_fn(|cx| Poll::Ready(service.poll_ready(cx))).await
}

#[tokio::test(start_paused = true)]
async fn in_readiness_one_permit_is_reserved_and_spent_by_the_call() {
    let layer = in_readiness(2);
    let semaphore = layer.handle();
    let mut first = layer.layer(Slow::new(9));
    for _ in 0..2 {
        first.ready().await.unwrap();
        assert_eq!(semaphore.stats().in_use, 1);
    }
    let mut second = first.clone();
    assert!(poll_ready(&mut second).await.is_pending(), "a clone has no permit");
    let (answer, receiver) = oneshot::channel();
    let call = first.call(receiver);
    assert_eq!((semaphore.stats().calls.in_flight, semaphore.stats().in_use), (1, 1));
    answer.send(Ok(7)).unwrap();
    assert_eq!(call.await.unwrap(), 7);
    assert!(poll_ready(&mut second).await.is_ready());
    // A whole day: in readiness nobody is refused for waiting long.
    let mut third = second.clone();
    assert!(poll_ready(&mut third).await.is_pending());
    advance(24 * 3600 * SECOND).await;
    assert!(poll_ready(&mut third).await.is_pending());
    drop(second);
    third.ready().await.unwrap();
    assert_eq!(semaphore.stats().calls.rejected, 0);
}

#[tokio::test(start_paused = true)]
async fn in_readiness_a_dropped_service_wakes_the_next() {
    let layer = in_readiness(2);
    let mut first = layer.layer(Slow::new(9));
    first.ready().await.unwrap();
    let mut second = first.clone();
    let waiting = tokio::spawn(async move { second.ready().await.map(|_| ()) });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    waiting.await.unwrap().unwrap();
    assert_eq!(layer.handle().available(), 1);
}

#[tokio::test(start_paused = true)]
async fn in_readiness_the_call_is_refused_where_there_is_no_place_to_wait() {
    let layer = in_readiness(1);
    let mut first = layer.layer(Slow::new(9));
    first.ready().await.unwrap();
    let (mut second, mut third) = (first.clone(), first.clone());
    assert!(poll_ready(&mut second).await.is_pending());
    assert!(poll_ready(&mut third).await.is_ready());
    let (_answer, receiver) = oneshot::channel();
    assert_eq!(reason(third.call(receiver).await), Reason::Full);
    layer.handle().close();
    second.ready().await.unwrap();
    let (_answer, receiver) = oneshot::channel();
    assert_eq!(reason(second.call(receiver).await), Reason::Closed);
}

#[tokio::test(start_paused = true)]
async fn outcomes_are_counted_once() {
    let semaphore = semaphore(config());
    assert!(semaphore.run(async { Err::<(), BoxError>("broken".into()) }).await.is_err());
    semaphore.run(async { Ok::<_, BoxError>(()) }).await.unwrap();
    let mut dropped = Box::pin(semaphore.run(std::future::pending::<Result<(), BoxError>>()));
    assert!(poll_now(dropped.as_mut()).is_pending());
    assert_eq!(semaphore.stats().calls.in_flight, 1);
    drop(dropped);
    let calls = semaphore.stats().calls;
    assert_eq!((calls.admitted, calls.ok, calls.failed, calls.neutral, calls.in_flight), (3, 1, 1, 1, 0));
}

/// How a call ends that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Answered,
    Broken,
    Dropped,
    PanickedInCall,
    PanickedInPoll,
    /// Of the clone, after a wait.
    BrokenInReadiness,
    PanickedInReadiness,
}

/// Ends each call alike.
struct Ends {
    ending: Ending,
    is_clone: bool,
}

impl Clone for Ends {
    fn clone(&self) -> Self {
        Self { is_clone: true, ..*self }
    }
}

impl Service<()> for Ends {
    type Response = ();
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self.ending {
            Ending::BrokenInReadiness if self.is_clone => Poll::Ready(Err("not ready".into())),
            Ending::PanickedInReadiness if self.is_clone => resume_unwind(Box::new("in readiness")),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        match self.ending {
            Ending::PanickedInCall => resume_unwind(Box::new("in call")),
            Ending::PanickedInPoll => Box::pin(async { resume_unwind(Box::new("in poll")) }),
            Ending::Dropped => Box::pin(std::future::pending()),
            Ending::Broken => Box::pin(async { Err("broken".into()) }),
            _ => Box::pin(async { Ok(()) }),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_counted_once_however_it_was_let_in_and_ended() {
    let ways = [
        ("at once", config()),
        ("after a wait", config()),
        ("in readiness", config().waiting(Waiting::InReadiness)),
        ("by the mode", config().mode(Mode::Observe)),
        ("unasked", config().mode(Mode::Disabled)),
    ];
    let endings = [
        (Ending::Answered, (1, 0, 0)),
        (Ending::Broken, (0, 1, 0)),
        (Ending::Dropped, (0, 0, 1)),
        (Ending::PanickedInCall, (0, 1, 0)),
        (Ending::PanickedInPoll, (0, 1, 0)),
        (Ending::BrokenInReadiness, (0, 1, 0)),
        (Ending::PanickedInReadiness, (0, 1, 0)),
    ];
    for ((way, config), (ending, counted)) in ways.iter().flat_map(|way| endings.map(|ending| (way, ending))) {
        let waits = *way == "after a wait";
        if matches!(ending, Ending::BrokenInReadiness | Ending::PanickedInReadiness) && !waits {
            continue;
        }
        let layer = SemaphoreLayer::new(config.clone()).unwrap();
        let semaphore = layer.handle();
        let mut service = layer.layer(Ends { ending, is_clone: false });
        let held = (waits || *way == "by the mode").then(|| semaphore.try_acquire().unwrap());
        let others = u64::from(held.is_some());
        service.ready().await.unwrap();
        let before = semaphore.stats().calls;
        let _ended = catch_unwind(AssertUnwindSafe(|| {
            let mut call = pin!(service.call(()));
            if waits {
                assert!(poll_now(call.as_mut()).is_pending());
            }
            if *way == "unasked" {
                assert_eq!(semaphore.stats().in_use, 0, "{ending:?}");
            }
            drop(held);
            let _answer = poll_now(call);
        }));
        let stats = semaphore.stats();
        let after = stats.calls;
        // The permit that was held has ended as neutral.
        assert_eq!((after.ok, after.failed, after.neutral - others), counted, "{ending:?}, let in {way}");
        assert_eq!(after.admitted - before.admitted, 1, "{ending:?}, let in {way}");
        assert_eq!((after.in_flight, stats.in_use), (0, 0), "{ending:?}, let in {way}");
    }
}

/// Notes how many calls are in flight when it is woken.
struct InFlight {
    semaphore: SemaphoreHandle,
    seen: AtomicUsize,
}

impl Wake for InFlight {
    fn wake(self: Arc<Self>) {
        // ORDERING: Relaxed, one thread.
        self.seen.store(self.semaphore.stats().calls.in_flight as usize, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_are_in_flight_than_there_are_permits() {
    let semaphore = semaphore(config());
    let held = semaphore.try_acquire().unwrap();
    let woken = Arc::new(InFlight { semaphore: semaphore.clone(), seen: AtomicUsize::new(9) });
    let waker = Waker::from(woken.clone());
    let mut waiting = pin!(semaphore.acquire());
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(held);
    // ORDERING: Relaxed, one thread.
    assert_eq!(woken.seen.load(Ordering::Relaxed), 0, "woken while the call before was counted");
}

#[tokio::test]
async fn the_call_after_a_wait_shares_one_reading_of_the_clock() {
    let layer = SemaphoreLayer::new(config()).unwrap();
    let held = layer.handle().try_acquire().unwrap();
    let mut service = layer.layer(service_fn(|()| ready(Ok::<_, BoxError>(clock::stands_still()))));
    let mut call = pin!(service.ready().await.unwrap().call(()));
    assert!(poll_now(call.as_mut()).is_pending());
    drop(held);
    assert!(call.await.unwrap());
}

/// Sixteen tasks on two workers, some of which give up at every poll, under a limit that changes meanwhile.
#[test]
fn no_more_run_than_may_whoever_gives_up() {
    const TASKS: usize = 16;
    const CALLS: usize = 200;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let semaphore = semaphore(config().limit(3).max_waiting(TASKS as u32).max_wait(3_600 * SECOND));
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (semaphore, running, most) = (semaphore.clone(), running.clone(), most.clone());
                tokio::spawn(async move {
                    for call in 0..CALLS {
                        let mut waiting = Box::pin(semaphore.acquire());
                        if (task + call) % 3 == 0 && poll_now(waiting.as_mut()).is_pending() {
                            tokio::task::yield_now().await;
                            continue;
                        }
                        if (task + call) % 3 == 0 {
                            continue;
                        }
                        let permit = waiting.await.unwrap();
                        // ORDERING: SeqCst (all), so that a count too high is one that was there.
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        running.fetch_sub(1, Ordering::SeqCst);
                        permit.succeeded();
                    }
                })
            })
            .collect();
        for limit in (1..=3).cycle().take(100) {
            semaphore.resize(limit).unwrap();
            tokio::task::yield_now().await;
        }
        semaphore.resize(3).unwrap();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    let stats = semaphore.stats();
    assert_eq!((stats.in_use, stats.waiting, stats.calls.in_flight, stats.calls.rejected), (0, 0, 0, 0));
    assert!(stats.calls.ok as usize >= TASKS * CALLS / 2);
}

#[test]
fn futures_and_services_are_send() {
    fn send<T: Send>(_: &T) {}
    let layer = SemaphoreLayer::new(config()).unwrap();
    let mut service = layer.layer(service_fn(|(): ()| async { Ok::<_, BoxError>(()) }));
    send(&service);
    send(&service.call(()));
    send(&layer.handle().acquire());
    send(&layer.handle().run(async { Ok::<_, BoxError>(()) }));
}

#[cfg(feature = "metrics")]
#[tokio::test(start_paused = true)]
async fn metrics_follow_the_calls() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _local = ::metrics::set_default_local_recorder(&recorder);
    let values = || -> std::collections::BTreeMap<String, f64> {
        let name = |key: &::metrics::Key| {
            let reason = key.labels().find(|label| label.key() == "reason" && !label.value().is_empty());
            let outcome = key.labels().find(|label| label.key() == "outcome").map_or("", |label| label.value());
            format!("{} {outcome} {}", key.name(), reason.map_or("", |label| label.value())).trim().to_owned()
        };
        let value = |value| match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => values.iter().map(|value| value.into_inner()).sum(),
        };
        snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, it)| (name(key.key()), value(it))).collect()
    };
    let semaphore = semaphore(config());
    let held = semaphore.try_acquire().unwrap();
    let mut waiting = Box::pin(semaphore.acquire());
    assert!(poll_now(waiting.as_mut()).is_pending());
    let now = values();
    assert_eq!((now["seawall_in_flight"], now["seawall_queue_depth"], now["seawall_limit"]), (1.0, 1.0, 1.0));
    advance(SECOND / 2).await;
    held.succeeded();
    waiting.await.unwrap().failed();
    assert!(semaphore.try_acquire_many(2).is_err());
    semaphore.resize(3).unwrap();
    // The snapshot before has set all gauges to zero.
    let now = values();
    assert_eq!((now["seawall_in_flight"], now["seawall_queue_depth"], now["seawall_limit"]), (-1.0, -1.0, 3.0));
    assert_eq!(now["seawall_queue_wait_seconds"], 0.5);
    assert_eq!((now["seawall_calls_total success"], now["seawall_calls_total failure"]), (1.0, 1.0));
    assert_eq!(now["seawall_calls_total rejected never"], 1.0);
    let _held = semaphore.try_acquire().unwrap();
    semaphore.rebind_metrics();
    let now = values();
    assert_eq!((now["seawall_in_flight"], now["seawall_limit"]), (1.0, 3.0));
}

#[test]
#[cfg(target_pointer_width = "64")]
fn a_permit_is_three_words() {
    // The semaphore, the units, and how the call ends.
    assert_eq!(size_of::<Permit>(), 24);
}

#[cfg(feature = "metrics")]
mod metrics {
    use super::*;
    use crate::telemetry::told::{Told, follows_every_end, inner, shows, stays_in_step};

    #[tokio::test(start_paused = true)]
    async fn every_start_and_end_is_told() {
        let told = Told::new();
        for waiting in [Waiting::InCall, Waiting::InReadiness] {
            let layer = SemaphoreLayer::new(config().waiting(waiting)).unwrap();
            follows_every_end(&told, layer.layer(service_fn(inner))).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gauges_that_are_bound_again_are_in_step() {
        let (told, semaphore) = (Told::new(), semaphore(SemaphoreConfig::new("db", 3).max_waiting(3)));
        let rebind = || semaphore.rebind_metrics();
        let held = semaphore.try_acquire().unwrap();
        stays_in_step(&told, 1.0, || drop(semaphore.try_acquire().unwrap()), rebind);
        let runtime = tokio::runtime::Handle::current();
        let join = || {
            let _timers = runtime.enter();
            let mut place = Box::pin(semaphore.acquire_many(3));
            assert!(poll_now(place.as_mut()).is_pending());
            place
        };
        let _waits = join();
        shows(&told, "seawall_queue_depth", 1.0, || drop(join()), rebind);
        drop(held);
    }
}
