//! What every layer keeps, a function for each rule. A rule answers with what broke it.

use std::fmt::Debug;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use seawall::{BoxError, Deadline, Rejected, Waiting, find};
use seawall_tests::probe::{Answer, Broken, Event, Site};
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
    a_call_in_line_asks_for_nothing
    the_latest_waker_in_line_is_woken
    a_turn_passes_on_however_a_call_ends
    the_next_is_woken_when_the_call_before_is_gone
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

/// The subject in its state. Where calls wait for their turn, they do.
async fn made(make: Make<'_>) -> Subject {
    let subject = make();
    advance(subject.after).await;
    subject.occupy().unwrap();
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

/// The turn of whoever is the first in line comes. Nothing changes where nobody waits.
async fn let_in(subject: &Subject) {
    subject.vacate();
    advance(subject.period()).await;
}

/// If it is `at` this place that calls wait, `poll` waits in line, and its turn comes: the next poll is the first after that.
async fn wait_in_line<T>(subject: &Subject, at: Waiting, mut poll: impl FnMut(&Waker) -> Poll<T>) -> Kept {
    if subject.waits_at() != Some(at) {
        return Ok(());
    }
    let calls = subject.site.calls().len();
    let (wakes, waker) = Wakes::new();
    ensure!(poll(&waker).is_pending(), "its turn came too soon");
    let held = (subject.site.held(), subject.site.calls().len() - calls, subject.in_flight());
    same("reservations, calls and counts in line", held, (0, 0, 0))?;
    let_in(subject).await;
    ensure!(wakes.count() > 0, "its turn came, and it was not woken");
    Ok(())
}

/// From here on `service` is as ready as the inner service.
async fn at_its_turn(subject: &Subject, service: &mut Boxed) -> Kept {
    wait_in_line(subject, Waiting::InReadiness, |waker| poll_ready(service, waker)).await
}

/// Makes `service` ready. Once its turn has come, it is so at once.
async fn readied(subject: &Subject, service: &mut Boxed) -> Kept {
    at_its_turn(subject, service).await?;
    let ready = poll_ready(service, Waker::noop());
    if matches!(ready, Poll::Ready(Ok(()))) { Ok(()) } else { Err(format!("readiness: {ready:?}")) }
}

/// Calls `service`, which is ready. The call goes on with its next poll, whether it had to wait or not.
async fn called(subject: &Subject, service: &mut Boxed, answer: Answer) -> Result<Call, String> {
    let mut call = subject.call(service, REQUEST, answer);
    wait_in_line(subject, Waiting::InCall, |waker| poll(&mut call, waker)).await?;
    Ok(call)
}

/// Waits for readiness, calls, and waits for the answer; each for an hour at most.
async fn answered(subject: &Subject, service: &mut Boxed, answer: Answer) -> Result<Result<u64, BoxError>, String> {
    occupied(subject)?;
    at_its_turn(subject, service).await?;
    let ready = timeout(HOUR, service.ready()).await.map_err(|_| "was never ready".to_owned())?;
    ready.map_err(|error| format!("readiness failed: {error}"))?;
    let call = called(subject, service, answer).await?;
    timeout(HOUR, call).await.map_err(|_| "the call never ended".to_owned())
}

fn occupied(subject: &Subject) -> Kept {
    subject.occupy().map_err(|rejected| format!("a turn was lost: {rejected}"))
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
    let subject = made(make).await;
    let mut service = subject.service.clone();
    at_its_turn(&subject, &mut service).await?;
    subject.site.limit(0);
    ensure!(poll_ready(&mut service, Waker::noop()).is_pending(), "ready above a service that is not");
    subject.site.limit(1);
    ensure!(poll_ready(&mut service, Waker::noop()).is_ready(), "not ready above a service that is");
    same("reservations", subject.site.held(), 1)?;
    clean(&subject)
}

async fn readiness_is_reserved_once(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    let mut service = subject.service.clone();
    at_its_turn(&subject, &mut service).await?;
    for _ in 0..3 {
        ensure!(poll_ready(&mut service, Waker::noop()).is_ready(), "readiness did not last");
        same("reservations", subject.site.held(), 1)?;
    }
    Ok(())
}

async fn readiness_runs_under_no_deadline(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    let mut service = subject.service.clone();
    readied(&subject, &mut service).await?;
    if subject.waits_at() == Some(Waiting::InCall) {
        // The call asks once more, after the wait.
        let deadline = Deadline::after(2 * HOUR);
        let mut call: Call =
            Box::pin(deadline.scope(deadline.enter(|| subject.call(&mut service, REQUEST, Answer::Good))));
        wait_in_line(&subject, Waiting::InCall, |waker| poll(&mut call, waker)).await?;
        ensure!(timeout(HOUR, call).await.is_ok(), "the call never ended");
    }
    same("polls for readiness under a deadline", subject.site.polls_ready_under_a_deadline(), 0)
}

async fn the_latest_waker_is_woken(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    let mut service = subject.service.clone();
    at_its_turn(&subject, &mut service).await?;
    subject.site.limit(0);
    let ((_, former), (wakes, latest)) = (Wakes::new(), Wakes::new());
    ensure!(poll_ready(&mut service, &former).is_pending(), "ready above a service that is not");
    ensure!(poll_ready(&mut service, &latest).is_pending(), "ready above a service that is not");
    subject.site.limit(1);
    ensure!(wakes.count() > 0, "whoever polled last was not woken");
    Ok(())
}

async fn a_service_that_is_not_ready_does_not_wake_itself(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    let mut service = subject.service.clone();
    at_its_turn(&subject, &mut service).await?;
    subject.site.limit(0);
    let (wakes, waker) = Wakes::new();
    ensure!(poll_ready(&mut service, &waker).is_pending(), "ready above a service that is not");
    same("polls of the inner service for one of the layer", subject.site.polls_ready(), 1)?;
    same("wakes before anything changed", wakes.count(), 0)
}

async fn a_failed_readiness_passes_and_keeps_nothing(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    let mut service = subject.service.clone();
    at_its_turn(&subject, &mut service).await?;
    let (_, waker) = Wakes::new();
    subject.site.break_readiness();
    let Poll::Ready(Err(error)) = poll_ready(&mut service, &waker) else {
        return Err("the error of the inner service was lost".to_owned());
    };
    same("the box", error.downcast_ref::<Broken>().map(Broken::place), subject.site.last_broken())?;
    same("reservations", subject.site.held(), 0)?;
    same("calls in flight", subject.in_flight(), 0)?;
    // The broken service still lives, and must not stand in the way of others.
    let mut other = subject.another();
    ensure!(poll_ready(&mut other, &waker).is_ready(), "another service of the layer is not ready at once");
    drop(other);
    usable(&subject).await
}

async fn a_clone_carries_no_reservation(make: Make<'_>) -> Kept {
    // Either the inner service has room for one only, or the layer has.
    for limit in [1, 2] {
        let subject = made(make).await;
        if limit > 1 && subject.waits_at() != Some(Waiting::InReadiness) {
            continue;
        }
        let mut service = subject.service.clone();
        subject.site.limit(limit);
        readied(&subject, &mut service).await?;
        let mut clone = service.clone();
        same("reservations after a clone", subject.site.held(), 1)?;
        ensure!(poll_ready(&mut clone, Waker::noop()).is_pending(), "the clone is ready by the reservation of another");
        drop(clone);
        same("reservations after the clone was dropped", subject.site.held(), 1)?;
    }
    Ok(())
}

async fn a_dropped_service_returns_its_reservation(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    let (site, mut service) = (&subject.site, subject.service.clone());
    site.limit(1);
    readied(&subject, &mut service).await?;
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
    readied(&subject, &mut service).await?;
    let mut call = called(&subject, &mut service, Answer::Good).await?;
    let mut readied = subject.site.readied();
    if subject.waits_at() == Some(Waiting::InCall) {
        // What was ready before the wait is not called after it, but a clone is that was made ready then.
        ensure!(poll(&mut call, Waker::noop()).is_ready(), "its turn came, and it was not called");
        readied = subject.site.readied().split_off(readied.len());
    }
    drop(call);
    same("instances called", subject.site.calls().iter().map(|call| call.instance).collect(), readied)
}

async fn nothing_stays_reserved_after_the_call(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    subject.site.pending(1);
    let mut service = subject.service.clone();
    readied(&subject, &mut service).await?;
    let mut call = subject.call(&mut service, REQUEST, Answer::Good);
    same("reservations before the call is even polled", subject.site.held(), 0)?;
    wait_in_line(&subject, Waiting::InCall, |waker| poll(&mut call, waker)).await?;
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
        occupied(&subject)?;
        readied(&subject, &mut service).await?;
        let mut call = called(&subject, &mut service, answer).await?;
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
    readied(&subject, &mut service).await?;
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
        readied(&subject, &mut service).await?;
        let mut call = subject.call(&mut service, REQUEST, Answer::Good);
        // A call that waits finds nobody ready at its turn.
        subject.site.limit(0);
        let mut ended = false;
        for turn in 0..polls {
            match turn {
                0 => {}
                1 => let_in(&subject).await,
                2 => subject.site.limit(1),
                _ => advance(STEP).await,
            }
            ended = poll(&mut call, &waker).is_ready();
            if ended {
                break;
            }
        }
        drop(call);
        subject.site.limit(1);
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
    readied(&subject, &mut service).await?;
    let mut call = subject.call(&mut service, REQUEST, Answer::Good);
    let mut result = Poll::Pending;
    for turn in 0..100 {
        // Three polls in an instant, though nothing has happened in between.
        for _ in 0..3 {
            if result.is_pending() {
                result = poll(&mut call, Waker::noop());
            }
        }
        if turn == 1 {
            let_in(&subject).await;
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
    // `None`: in readiness, which after a wait is that of the clone.
    for answer in [None, Some(Answer::PanicInCall), Some(Answer::PanicInPoll)] {
        let subject = made(make).await;
        if subject.refuses && answer.is_some() {
            continue;
        }
        let mut call = subject.oneshot(REQUEST, answer.unwrap_or(Answer::Good));
        if subject.waits_at().is_some() {
            ensure!(poll(&mut call, Waker::noop()).is_pending(), "its turn came too soon");
        }
        if answer.is_none() {
            subject.site.panic_in_readiness();
        }
        let_in(&subject).await;
        let joined = timeout(HOUR, tokio::spawn(call)).await.map_err(|_| "the call never ended".to_owned())?;
        ensure!(joined.is_err_and(|error| error.is_panic()), "the panic was swallowed");
        quiet(&subject).map_err(|left| format!("{answer:?}: {left}"))?;
    }
    Ok(())
}

async fn a_call_in_line_asks_for_nothing(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    if subject.waits_at().is_none() {
        return Ok(());
    }
    let (wakes, waker) = Wakes::new();
    let mut call = subject.oneshot(REQUEST, Answer::Good);
    ensure!(poll(&mut call, &waker).is_pending(), "its turn came too soon");
    let asked = subject.site.polls_ready();
    ensure!(poll(&mut call, &waker).is_pending(), "its turn came too soon");
    same("polls for readiness in line", subject.site.polls_ready() - asked, 0)?;
    same("wakes in line", wakes.count(), 0)?;
    subject.site.limit(0);
    let_in(&subject).await;
    let (wakes, waker) = Wakes::new();
    ensure!(poll(&mut call, &waker).is_pending(), "called above a service that is not ready");
    same("polls for readiness after the wait", subject.site.polls_ready() - asked, 1)?;
    same("wakes before the inner service is ready", wakes.count(), 0)
}

async fn the_latest_waker_in_line_is_woken(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    if subject.waits_at().is_none() {
        return Ok(());
    }
    let mut call = subject.oneshot(REQUEST, Answer::Good);
    for place in ["in line", "after the wait"] {
        let ((_, former), (wakes, latest)) = (Wakes::new(), Wakes::new());
        ensure!(poll(&mut call, &former).is_pending(), "{place}: not pending");
        ensure!(poll(&mut call, &latest).is_pending(), "{place}: not pending");
        if place == "in line" {
            subject.site.limit(0);
            let_in(&subject).await;
        } else {
            subject.site.limit(1);
        }
        ensure!(wakes.count() > 0, "{place}: whoever polled last was not woken");
    }
    ensure!(poll(&mut call, Waker::noop()).is_ready(), "not answered");
    Ok(())
}

/// How a call ends that had to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    DroppedInLine,
    /// Its turn has come, but it was not polled since.
    DroppedAtItsTurn,
    /// Its turn has come, but the inner service is not ready.
    DroppedBeforeTheCall,
    DroppedInTheCall,
    FailedInReadiness,
    PanickedInReadiness,
    Answered(Answer),
}

async fn a_turn_passes_on_however_a_call_ends(make: Make<'_>) -> Kept {
    for end in [
        End::DroppedInLine,
        End::DroppedAtItsTurn,
        End::DroppedBeforeTheCall,
        End::DroppedInTheCall,
        End::FailedInReadiness,
        End::PanickedInReadiness,
        End::Answered(Answer::Good),
        End::Answered(Answer::Broken),
        End::Answered(Answer::PanicInCall),
        End::Answered(Answer::PanicInPoll),
    ] {
        let subject = made(make).await;
        if subject.waits_at().is_some() {
            a_turn_passes_on(&subject, end).await.map_err(|broken| format!("{end:?}: {broken}"))?;
        }
    }
    Ok(())
}

async fn a_turn_passes_on(subject: &Subject, end: End) -> Kept {
    let site = &subject.site;
    let before = instances(site);
    let (wakes, waker) = Wakes::new();
    let (mut first, mut next) = two_in_line(subject, &waker)?;

    match end {
        End::DroppedInLine | End::DroppedAtItsTurn => {}
        End::DroppedBeforeTheCall => site.limit(0),
        End::DroppedInTheCall => site.pending(1),
        End::FailedInReadiness => site.break_readiness(),
        End::PanickedInReadiness => site.panic_in_readiness(),
        End::Answered(answer) => site.answers([answer]),
    }
    if end != End::DroppedInLine {
        let_in(subject).await;
    }
    if !matches!(end, End::DroppedInLine | End::DroppedAtItsTurn) {
        let polled = catch_unwind(AssertUnwindSafe(|| poll(&mut first, Waker::noop())));
        let expected = match (end, &polled) {
            (End::DroppedBeforeTheCall | End::DroppedInTheCall, Ok(Poll::Pending))
            | (End::Answered(Answer::Good), Ok(Poll::Ready(Ok(REQUEST))))
            | (End::PanickedInReadiness | End::Answered(Answer::PanicInCall | Answer::PanicInPoll), Err(_)) => true,
            (End::FailedInReadiness | End::Answered(Answer::Broken), Ok(Poll::Ready(Err(error)))) => {
                error.downcast_ref::<Broken>().map(Broken::place) == site.last_broken()
            }
            _ => false,
        };
        ensure!(expected, "it ended with {:?}", polled.map_err(|_| "a panic"));
    }
    drop(first);

    site.limit(1);
    site.pending(0);
    if end == End::DroppedInLine {
        let_in(subject).await;
    }
    if !site.calls().is_empty() {
        // A call that was made has used its turn up; one that was dropped or failed before has not.
        advance(subject.period()).await;
    }
    ensure!(wakes.count() > 0, "the next in line was not woken");
    let answer = poll(&mut next, Waker::noop());
    ensure!(matches!(answer, Poll::Ready(Ok(REQUEST))), "the next in line ended with {answer:?}");
    quiet(subject)?;
    drop(next);
    same("instances of the inner service that were never dropped", instances(site) - before, 0)
}

/// Two calls that wait; the second one, whose turn comes after that of the first, with this waker.
fn two_in_line(subject: &Subject, waker: &Waker) -> Result<(Call, Call), String> {
    let [mut first, mut next] = [(); 2].map(|()| subject.oneshot(REQUEST, Answer::Good));
    let mut in_line = [(&mut first, Waker::noop()), (&mut next, waker)];
    if subject.newest_first {
        in_line.reverse();
    }
    for (call, waker) in in_line {
        ensure!(poll(call, waker).is_pending(), "its turn came too soon");
    }
    Ok((first, next))
}

/// How many clones of the probe are alive.
fn instances(site: &Site) -> isize {
    let log = site.log();
    let one = |event: &Event| match event {
        Event::Cloned { .. } => 1,
        Event::ServiceDropped { .. } => -1,
        _ => 0,
    };
    log.iter().map(one).sum()
}

async fn the_next_is_woken_when_the_call_before_is_gone(make: Make<'_>) -> Kept {
    for answered in [true, false] {
        let subject = made(make).await;
        if subject.waits_at().is_none() {
            return Ok(());
        }
        let witness = Arc::new(Witness { site: subject.site.clone(), running: Mutex::default() });
        let (mut first, _next) = two_in_line(&subject, &witness.clone().into())?;
        subject.site.pending(1);
        let_in(&subject).await;
        ensure!(poll(&mut first, Waker::noop()).is_pending(), "the call ended too soon");
        same("calls", subject.site.running(), 1)?;
        witness.running.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if answered {
            ensure!(poll(&mut first, Waker::noop()).is_ready(), "the call did not end");
        }
        drop(first);
        let seen = witness.running.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(!seen.is_empty() || !subject.period().is_zero(), "the next in line was not woken");
        ensure!(seen.iter().all(|running| *running == 0), "woken while the call before was alive");
    }
    Ok(())
}

/// Notes how many calls of the probe are alive when it is woken.
struct Witness {
    site: Site,
    running: Mutex<Vec<usize>>,
}

impl Wake for Witness {
    fn wake(self: Arc<Self>) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(self.site.running());
    }
}

async fn clones_and_services_share_the_state_of_the_layer(make: Make<'_>) -> Kept {
    let subject = made(make).await;
    if subject.refuses || !subject.counts() {
        return Ok(());
    }
    for (which, mut service) in [("clone", subject.service.clone().clone()), ("other service", subject.another())] {
        subject.site.pending(1);
        occupied(&subject)?;
        readied(&subject, &mut service).await?;
        let mut call = called(&subject, &mut service, Answer::Good).await?;
        if subject.waits_at() == Some(Waiting::InCall) {
            ensure!(poll(&mut call, Waker::noop()).is_pending(), "the call ended too soon");
        }
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
            occupied(&subject)?;
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
fn many_calls(subject: &Subject, kept: bool) -> Pin<Box<dyn Future<Output = Kept> + '_>> {
    const TASKS: u64 = 8;
    const CALLS: u64 = 25;
    Box::pin(async move {
        let site = &subject.site;
        site.limit(3);
        site.pending(1);
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let mut service = subject.service.clone();
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
        // Most of them stand in line by now.
        tokio::task::yield_now().await;
        subject.vacate();
        let mut answered = 0;
        for task in tasks {
            let joined = timeout(SOON, task).await.map_err(|_| "calls never ended".to_owned())?;
            answered += joined.map_err(|error| error.to_string())??;
        }
        same("calls of the probe", site.calls().len(), answered)?;
        ensure!(subject.refuses || answered > 0, "every call was refused");
        ensure!(subject.waits_at().is_none() || answered as u64 == TASKS * CALLS, "only {answered} were admitted");
        Ok(())
    })
}
