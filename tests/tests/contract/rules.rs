//! What every layer keeps, a function for each rule. A rule answers with what broke it.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use seawall::{BoxError, Rejected, find};
use seawall_tests::probe::{Answer, Broken, Event};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{advance, timeout};
use tower::{Service, ServiceExt};

use super::subject::{Boxed, Call, Subject};

/// Makes the same subject again and again.
pub type Make<'a> = &'a dyn Fn() -> Subject;

/// Nothing, or what broke the rule.
pub type Kept = Result<(), String>;

/// A rule by its name.
pub struct Rule {
    /// The name of its function.
    pub name: &'static str,
    keep: fn(Make<'_>) -> Kept,
}

impl Rule {
    /// Holds the subject against the rule; what broke it starts with the name of the rule.
    pub fn keep(&self, make: Make<'_>) -> Kept {
        (self.keep)(make).map_err(|broken| format!("{}: {broken}", self.name))
    }
}

macro_rules! rules {
    ($($rule:ident)*) => {
        /// Every rule.
        pub const RULES: &[Rule] = &[
            $(Rule { name: stringify!($rule), keep: |make| paused().block_on($rule(make)) },)*
            Rule { name: "calls_end_on_both_runtimes_cloned_or_kept", keep: calls_end_on_both_runtimes_cloned_or_kept },
        ];
    };
}

rules! {
    readiness_is_that_of_the_inner_service
    readiness_is_reserved_once
    readiness_runs_under_no_deadline
    the_latest_waker_is_woken
    a_service_that_is_not_ready_does_not_wake_itself
    a_failed_readiness_passes_and_keeps_nothing
    a_clone_carries_no_reservation
    a_dropped_service_returns_its_reservation
    only_ready_services_are_called
    the_readied_service_is_called
    nothing_stays_reserved_after_the_call
    each_request_is_sent_once_per_attempt
    a_refusal_calls_nothing
    an_answer_passes_unchanged
    an_error_passes_in_its_box_with_its_source
    a_finished_call_holds_nothing
    a_call_dropped_unpolled_leaves_nothing
    a_call_dropped_at_any_poll_leaves_nothing
    a_spurious_poll_changes_nothing
    a_panic_leaves_nothing
    clones_and_services_share_the_state_of_the_layer
}

/// Longer than any layer here waits.
const HOUR: Duration = Duration::from_secs(3600);
/// Longer than the delay of a retry.
const STEP: Duration = Duration::from_millis(100);
/// On a real clock, where a lost wake would stop the test: far longer than 200 calls take.
const SOON: Duration = Duration::from_secs(20);
const REQUEST: u64 = 42;

macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}

fn same<T: PartialEq + Debug>(what: &str, is: T, should: T) -> Kept {
    if is == should { Ok(()) } else { Err(format!("{what}: {is:?} and not {should:?}")) }
}

fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// The subject in its state.
async fn made(make: Make<'_>) -> Subject {
    let subject = make();
    advance(subject.after).await;
    subject
}

fn clean(subject: &Subject) -> Kept {
    same("breaches of the contract of services", subject.site.breaches(), vec![])
}

/// No call and no reservation is left.
fn quiet(subject: &Subject) -> Kept {
    let site = &subject.site;
    let left = (site.running(), site.held(), subject.in_flight());
    same("calls, reservations and counts that are left", left, (0, 0, 0))
        .map_err(|left| format!("{left}; what happened: {:?}", site.log()))?;
    clean(subject)
}

fn poll_ready(service: &mut Boxed, waker: &Waker) -> Poll<Result<(), BoxError>> {
    service.poll_ready(&mut Context::from_waker(waker))
}

fn poll(call: &mut Call, waker: &Waker) -> Poll<Result<u64, BoxError>> {
    call.as_mut().poll(&mut Context::from_waker(waker))
}

/// Waits for readiness, calls, and waits for the answer; each for an hour at most.
async fn answered(subject: &Subject, service: &mut Boxed, answer: Answer) -> Result<Result<u64, BoxError>, String> {
    let ready = timeout(HOUR, service.ready()).await.map_err(|_| "was never ready".to_owned())?;
    ready.map_err(|error| format!("readiness failed: {error}"))?;
    let call = subject.call(service, REQUEST, answer);
    timeout(HOUR, call).await.map_err(|_| "the call never ended".to_owned())
}

/// A call still goes through, on a clone.
async fn usable(subject: &Subject) -> Kept {
    subject.site.pending(0);
    match answered(subject, &mut subject.service.clone(), Answer::Good).await? {
        Err(error) if !subject.refuses => Err(format!("the next call failed: {error}")),
        Ok(_) if subject.refuses => Err("the next call was not refused".to_owned()),
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn new() -> (Arc<Self>, Waker) {
        let wakes = Arc::new(Self::default());
        (wakes.clone(), wakes.into())
    }

    fn count(&self) -> usize {
        // ORDERING: Relaxed, one thread.
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        // ORDERING: Relaxed, one thread.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

async fn readiness_is_that_of_the_inner_service(make: Make<'_>) -> Kept {
    let mut subject = made(make).await;
    subject.site.limit(0);
    ensure!(poll_ready(&mut subject.service, Waker::noop()).is_pending(), "ready above a service that is not");
    subject.site.limit(1);
    ensure!(poll_ready(&mut subject.service, Waker::noop()).is_ready(), "not ready above a service that is");
    same("reservations", subject.site.held(), 1)?;
    clean(&subject)
}

async fn readiness_is_reserved_once(make: Make<'_>) -> Kept {
    let mut subject = made(make).await;
    for _ in 0..3 {
        ensure!(poll_ready(&mut subject.service, Waker::noop()).is_ready(), "readiness did not last");
        same("reservations", subject.site.held(), 1)?;
    }
    Ok(())
}

async fn readiness_runs_under_no_deadline(make: Make<'_>) -> Kept {
    let mut subject = made(make).await;
    ensure!(poll_ready(&mut subject.service, Waker::noop()).is_ready(), "not ready");
    same("polls for readiness under a deadline", subject.site.polls_ready_under_a_deadline(), 0)
}

async fn the_latest_waker_is_woken(make: Make<'_>) -> Kept {
    let mut subject = made(make).await;
    subject.site.limit(0);
    let ((_, former), (wakes, latest)) = (Wakes::new(), Wakes::new());
    ensure!(poll_ready(&mut subject.service, &former).is_pending(), "ready above a service that is not");
    ensure!(poll_ready(&mut subject.service, &latest).is_pending(), "ready above a service that is not");
    subject.site.limit(1);
    ensure!(wakes.count() > 0, "whoever polled last was not woken");
    Ok(())
}

async fn a_service_that_is_not_ready_does_not_wake_itself(make: Make<'_>) -> Kept {
    let mut subject = made(make).await;
    subject.site.limit(0);
    let (wakes, waker) = Wakes::new();
    ensure!(poll_ready(&mut subject.service, &waker).is_pending(), "ready above a service that is not");
    same("polls of the inner service for one of the layer", subject.site.polls_ready(), 1)?;
    same("wakes before anything changed", wakes.count(), 0)
}

async fn a_failed_readiness_passes_and_keeps_nothing(make: Make<'_>) -> Kept {
    let mut subject = made(make).await;
    let (_, waker) = Wakes::new();
    subject.site.break_readiness();
    let Poll::Ready(Err(error)) = poll_ready(&mut subject.service, &waker) else {
        return Err("the error of the inner service was lost".to_owned());
    };
    same("the box", error.downcast_ref::<Broken>().map(Broken::place), subject.site.last_broken())?;
    same("reservations", subject.site.held(), 0)?;
    same("calls in flight", subject.in_flight(), 0)?;
    // The broken service still lives, and must not stand in the way of others.
    let mut other = subject.another();
    ensure!(poll_ready(&mut other, &waker).is_ready(), "another service of the layer is not ready at once");
    drop(other);
    subject.service = subject.another();
    usable(&subject).await
}

async fn a_clone_carries_no_reservation(make: Make<'_>) -> Kept {
    let mut subject = made(make).await;
    subject.site.limit(1);
    ensure!(poll_ready(&mut subject.service, Waker::noop()).is_ready(), "not ready");
    let mut clone = subject.service.clone();
    same("reservations after a clone", subject.site.held(), 1)?;
    ensure!(poll_ready(&mut clone, Waker::noop()).is_pending(), "the clone is ready by the reservation of another");
    drop(clone);
    same("reservations after the clone was dropped", subject.site.held(), 1)
}

async fn a_dropped_service_returns_its_reservation(make: Make<'_>) -> Kept {
    let Subject { site, mut service, .. } = made(make).await;
    site.limit(1);
    ensure!(poll_ready(&mut service, Waker::noop()).is_ready(), "not ready");
    let mut next = service.clone();
    let (wakes, waker) = Wakes::new();
    ensure!(poll_ready(&mut next, &waker).is_pending(), "two ready services with one reservation");
    drop(service);
    same("reservations", site.held(), 0)?;
    ensure!(wakes.count() > 0, "the next in line was not woken");
    ensure!(poll_ready(&mut next, &waker).is_ready(), "the next in line is not ready");
    Ok(())
}

async fn only_ready_services_are_called(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    subject.site.limit(1);
    let mut kept = subject.service.clone();
    for _ in 0..2 {
        let _ = answered(&subject, &mut kept, Answer::Good).await?;
        let _ = answered(&subject, &mut kept.clone(), Answer::Good).await?;
    }
    clean(&subject)
}

async fn the_readied_service_is_called(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    if subject.refuses {
        return Ok(());
    }
    let mut service = subject.service.clone();
    ensure!(poll_ready(&mut service, Waker::noop()).is_ready(), "not ready");
    let readied = subject.site.readied();
    drop(subject.call(&mut service, REQUEST, Answer::Good));
    same("instances called", subject.site.calls().iter().map(|call| call.instance).collect(), readied)
}

async fn nothing_stays_reserved_after_the_call(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    subject.site.pending(1);
    let mut service = subject.service.clone();
    ensure!(poll_ready(&mut service, Waker::noop()).is_ready(), "not ready");
    let mut call = subject.call(&mut service, REQUEST, Answer::Good);
    same("reservations before the call is even polled", subject.site.held(), 0)?;
    while poll(&mut call, Waker::noop()).is_pending() {
        same("reservations while the call waits", subject.site.held(), 0)?;
        advance(STEP).await;
    }
    same("reservations after the call", subject.site.held(), 0)?;
    // Between two attempts there is nothing to hold either: a retry waits without a place of the inner service.
    let mut alive = 0_usize;
    for event in subject.site.log() {
        match event {
            Event::Called { .. } => alive += 1,
            Event::CallDropped { .. } => alive -= 1,
            _ => {}
        }
        ensure!(alive <= 1, "one attempt began before the one before it was dropped");
    }
    Ok(())
}

async fn each_request_is_sent_once_per_attempt(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    let mut service = subject.service.clone();
    let _ = answered(&subject, &mut service, Answer::Good).await?;
    let requests: Vec<_> = subject.site.calls().iter().map(|call| call.request).collect();
    same("requests", requests, vec![REQUEST; if subject.refuses { 0 } else { subject.attempts }])
}

async fn a_refusal_calls_nothing(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    let mut service = subject.service.clone();
    for _ in 0..3 {
        let calls = subject.site.calls().len();
        let Err(error) = answered(&subject, &mut service, Answer::Good).await? else {
            ensure!(!subject.refuses, "not refused");
            return Ok(());
        };
        ensure!(Rejected::find(&*error).is_some(), "the error is no refusal: {error}");
        ensure!(error.is::<Rejected>(), "the refusal is wrapped: {error:?}");
        same("calls of the inner service", subject.site.calls().len() - calls, 0)?;
    }
    quiet(&subject)
}

async fn an_answer_passes_unchanged(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    match answered(&subject, &mut subject.service.clone(), Answer::Good).await? {
        Ok(answer) => same("the answer", answer, REQUEST),
        Err(error) => {
            if subject.refuses {
                Ok(())
            } else {
                Err(format!("the call failed: {error}"))
            }
        }
    }
}

async fn an_error_passes_in_its_box_with_its_source(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    if subject.refuses {
        return Ok(());
    }
    let Err(error) = answered(&subject, &mut subject.service.clone(), Answer::Broken).await? else {
        return Err("the error was lost".to_owned());
    };
    let Some(broken) = find::<Broken>(&*error) else { return Err(format!("no source tells of it: {error:?}")) };
    same("the box", Some(broken.place()), subject.site.last_broken())?;
    // After several attempts the layer has something of its own to say, with the error as its source.
    ensure!(error.is::<Broken>() || subject.attempts > 1, "it is wrapped: {error:?}");
    ensure!(std::error::Error::source(broken).is_some(), "its source is lost");
    Ok(())
}

async fn a_finished_call_holds_nothing(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    for answer in [Answer::Good, Answer::Broken] {
        let mut service = subject.service.clone();
        ensure!(service.ready().await.is_ok(), "readiness failed");
        let mut call = subject.call(&mut service, REQUEST, answer);
        ensure!(timeout(HOUR, call.as_mut()).await.is_ok(), "the call never ended");
        // The future of the call is still alive here.
        quiet(&subject)?;
        drop(call);
    }
    Ok(())
}

async fn a_call_dropped_unpolled_leaves_nothing(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    let mut service = subject.service.clone();
    ensure!(service.ready().await.is_ok(), "readiness failed");
    drop(subject.call(&mut service, REQUEST, Answer::Good));
    quiet(&subject)?;
    usable(&subject).await
}

async fn a_call_dropped_at_any_poll_leaves_nothing(make: Make<'_>) -> Kept {
    for polls in 1.. {
        ensure!(polls < 100, "the call does not end");
        let subject = made(make).await;
        subject.site.limit(1);
        subject.site.pending(2);
        let (wakes, waker) = Wakes::new();
        let mut service = subject.service.clone();
        ensure!(service.ready().await.is_ok(), "readiness failed");
        let mut call = subject.call(&mut service, REQUEST, Answer::Good);
        let mut ended = false;
        for turn in 0..polls {
            if turn > 0 {
                advance(STEP).await;
            }
            ended = poll(&mut call, &waker).is_ready();
            if ended {
                break;
            }
        }
        drop(call);
        quiet(&subject).map_err(|left| format!("after {polls} polls: {left}"))?;
        drop((waker, service));
        same("wakers that are kept", Arc::strong_count(&wakes) - 1, 0)?;
        usable(&subject).await.map_err(|broken| format!("after {polls} polls: {broken}"))?;
        if ended {
            break;
        }
    }
    Ok(())
}

async fn a_spurious_poll_changes_nothing(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    subject.site.pending(3);
    let mut service = subject.service.clone();
    ensure!(service.ready().await.is_ok(), "readiness failed");
    let mut call = subject.call(&mut service, REQUEST, Answer::Good);
    let mut result = Poll::Pending;
    for _ in 0..100 {
        // Three polls in an instant, though nothing has happened in between.
        for _ in 0..3 {
            if result.is_pending() {
                result = poll(&mut call, Waker::noop());
            }
        }
        advance(STEP).await;
    }
    drop(call);
    match result {
        Poll::Ready(Ok(REQUEST)) => {}
        Poll::Ready(Err(error)) if subject.refuses && error.is::<Rejected>() => return Ok(()),
        other => return Err(format!("the call ended with {other:?}")),
    }
    same("calls", subject.site.calls().len(), subject.attempts)?;
    quiet(&subject)
}

async fn a_panic_leaves_nothing(make: Make<'_>) -> Kept {
    for answer in [Answer::PanicInCall, Answer::PanicInPoll] {
        let subject = made(make).await;
        if subject.refuses || (subject.attempts > 1 && answer == Answer::PanicInCall) {
            continue;
        }
        let mut service = subject.service.clone();
        ensure!(service.ready().await.is_ok(), "readiness failed");
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut call = subject.call(&mut service, REQUEST, answer);
            // A retry waits between its attempts.
            while poll(&mut call, Waker::noop()).is_pending() && subject.attempts == 1 {}
            call
        }));
        match unwound {
            Err(_) => {}
            Ok(call) if subject.attempts > 1 => {
                advance(STEP).await;
                let joined = tokio::spawn(call).await;
                ensure!(joined.is_err_and(|error| error.is_panic()), "the panic was swallowed");
            }
            Ok(_) => return Err("the panic was swallowed".to_owned()),
        }
        drop(service);
        quiet(&subject).map_err(|left| format!("{answer:?}: {left}"))?;
    }
    Ok(())
}

async fn clones_and_services_share_the_state_of_the_layer(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    if subject.refuses || !subject.counts() {
        return Ok(());
    }
    for (which, mut service) in [("clone", subject.service.clone().clone()), ("other service", subject.another())] {
        subject.site.pending(1);
        ensure!(service.ready().await.is_ok(), "readiness failed");
        let call = subject.call(&mut service, REQUEST, Answer::Good);
        let counted = subject.in_flight();
        drop(call);
        ensure!(counted > 0, "a call of a {which} is not counted");
        same("calls in flight", subject.in_flight(), 0)?;
    }
    Ok(())
}

fn calls_end_on_both_runtimes_cloned_or_kept(make: Make<'_>) -> Kept {
    for workers in [0, 2] {
        for kept in [true, false] {
            let subject = make();
            let run = many_calls(&subject, kept);
            let runtime = match workers {
                0 => paused(),
                _ => Builder::new_multi_thread().worker_threads(workers).enable_time().build().unwrap(),
            };
            let within = |broken| format!("{workers} workers, kept {kept}: {broken}");
            runtime.block_on(run).map_err(within)?;
            drop(runtime);
            quiet(&subject).map_err(within)?;
        }
    }
    Ok(())
}

/// Eight tasks with 25 calls each, over a probe with room for three.
fn many_calls(subject: &Subject, kept: bool) -> Pin<Box<dyn Future<Output = Kept>>> {
    const TASKS: u64 = 8;
    const CALLS: u64 = 25;
    let (site, service, refuses) = (subject.site.clone(), subject.service.clone(), subject.refuses);
    Box::pin(async move {
        site.limit(3);
        site.pending(1);
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let mut service = service.clone();
                tokio::spawn(async move {
                    let mut answered = 0_usize;
                    for number in task * CALLS..(task + 1) * CALLS {
                        let result = if kept {
                            match service.ready().await {
                                Ok(ready) => ready.call(number).await,
                                Err(error) => Err(error),
                            }
                        } else {
                            service.clone().oneshot(number).await
                        };
                        match result {
                            Ok(answer) if answer == number => answered += 1,
                            Err(error) if error.is::<Rejected>() => {}
                            other => return Err(format!("call {number} ended with {other:?}")),
                        }
                    }
                    Ok(answered)
                })
            })
            .collect();
        let mut answered = 0;
        for task in tasks {
            let joined = timeout(SOON, task).await.map_err(|_| "calls never ended".to_owned())?;
            answered += joined.map_err(|error| error.to_string())??;
        }
        same("calls of the probe", site.calls().len(), answered)?;
        ensure!(refuses || answered > 0, "every call was refused");
        Ok(())
    })
}
