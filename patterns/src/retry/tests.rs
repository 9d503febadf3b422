//! The layer and its service on a paused clock.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};

use super::*;
use crate::{BoxError, Deadline, Reason, Rejected, TimeoutConfig, TimeoutLayer, find};

const MS: Duration = Duration::from_millis(1);
const DELAY: Duration = Duration::from_millis(100);

/// Ten attempts, 100 ms between them, no jitter, ample time.
fn config() -> RetryConfig {
    RetryConfig::new("peer").max_attempts(10).backoff(Backoff::constant(DELAY).jitter(Jitter::None))
}

fn ample() -> RetryBudget {
    RetryBudget::new(RetryBudgetConfig::new().floor_per_second(100.0)).unwrap()
}

fn layer(config: RetryConfig) -> RetryLayer<RetryErrors<()>> {
    RetryLayer::new(config, RetryErrors::all_idempotent()).unwrap().budget(ample())
}

/// What the next calls do. Checks tower's contract: each call on a reservation of its own, which a clone does not copy.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    answers: VecDeque<Answer>,
    /// Readiness that is refused with `Pending`, after so many reservations.
    ready: Option<usize>,
    held: usize,
    polls_ready: usize,
    ready_under: Vec<Option<Deadline>>,
    clones: usize,
    called_at: Vec<Instant>,
}

#[derive(Clone, Copy)]
enum Answer {
    Good,
    Bad,
    /// A failure after this time.
    BadAfter(Duration),
    Busy(Duration),
    Panic,
}

struct Probe {
    script: Script,
    reserved: bool,
}

impl Script {
    fn of(answers: &[Answer]) -> Self {
        let script = Self::default();
        script.0.lock().unwrap().answers.extend(answers);
        script
    }

    fn probe(&self) -> Probe {
        Probe { script: self.clone(), reserved: false }
    }

    /// No more than `reservations` are given from now on.
    fn ready(&self, reservations: usize) {
        self.0.lock().unwrap().ready = Some(reservations);
    }

    fn see<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.lock().unwrap())
    }

    /// When the calls were made, in milliseconds from the first.
    fn called_at(&self) -> Vec<u128> {
        self.see(|state| state.called_at.iter().map(|at| (*at - state.called_at[0]).as_millis()).collect())
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        self.script.see(|state| state.clones += 1);
        self.script.probe()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.script.see(|state| state.held -= usize::from(self.reserved));
    }
}

impl Service<&'static str> for Probe {
    type Response = &'static str;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<&'static str, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.script.see(|state| state.ready_under.push(Deadline::current()));
        let reserved = std::mem::replace(&mut self.reserved, true);
        let ready = self.script.see(|state| {
            state.polls_ready += 1;
            let room = reserved || state.ready.is_none_or(|ready| ready > 0);
            if !reserved && room {
                state.ready = state.ready.map(|ready| ready - 1);
                state.held += 1;
            }
            room
        });
        self.reserved = ready;
        if ready { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, request: &'static str) -> Self::Future {
        assert!(std::mem::take(&mut self.reserved), "called without readiness");
        let answer = self.script.see(|state| {
            state.held -= 1;
            state.called_at.push(Instant::now());
            state.answers.pop_front().unwrap_or(Answer::Good)
        });
        Box::pin(async move {
            match answer {
                Answer::Good => Ok(request),
                Answer::Bad => Err("bad".into()),
                Answer::BadAfter(wait) => {
                    sleep(wait).await;
                    Err("bad".into())
                }
                Answer::Busy(wait) => Err(Transient::new("busy").retry_after(wait).into()),
                Answer::Panic => panic!("inner"),
            }
        })
    }
}

fn gave_up(error: &BoxError) -> (Stop, u32) {
    let error = find::<GaveUp>(&**error).unwrap();
    (error.stop, error.attempts)
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_is_retried_until_it_has_passed() {
    let (layer, script) = (layer(config()), Script::of(&[Answer::Bad, Answer::Bad]));
    let mut service = layer.layer(script.probe());
    let (answer, report) = service.ready().await.unwrap().call("get").reported().await;
    assert_eq!(answer.unwrap(), "get");
    assert_eq!((report.attempts, report.elapsed), (3, 2 * DELAY), "readable on success too");
    assert_eq!(script.called_at(), [0, 100, 200]);
    let stats = layer.handle().stats();
    assert_eq!((stats.admitted, stats.ok, stats.retries, stats.in_flight), (1, 1, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_error_is_the_source_of_the_final_one() {
    let layer = layer(config().max_attempts(3));
    let error = layer.layer(Script::of(&[Answer::Bad; 9]).probe()).oneshot("get").await.unwrap_err();
    assert_eq!(gave_up(&error), (Stop::Attempts, 3));
    assert_eq!(error.source().unwrap().to_string(), "bad");
    assert_eq!(error.to_string(), "retry \"peer\" gave up after 3 attempts in 200ms (attempts): bad");
    let stats = layer.handle().stats();
    assert_eq!((stats.failed, stats.stopped.attempts), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_not_worth_a_retry_passes_as_it_is() {
    let layer = layer(config());
    let open = || Rejected::new("circuit_breaker", "peer", Reason::Open);
    let service = layer.layer(service_fn(|()| async { Err::<(), BoxError>(open().into()) }));
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!(error.downcast_ref::<Rejected>(), Some(&open()));
    let stats = layer.handle().stats();
    assert_eq!((stats.failed, stats.stopped.policy, stats.retries), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_retry_responses_and_see_request_attempt_and_time() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let policy = move |request: &u8, result: &Result<u16, BoxError>, attempt: Attempt| {
        note.lock().unwrap().push((*request, attempt.number(), attempt.elapsed()));
        if matches!(result, Ok(503)) { Decision::retry() } else { Decision::Accept }
    };
    let layer = RetryLayer::new(config().max_attempts(2), policy).unwrap();
    let service = layer.layer(service_fn(|_: u8| async {
        sleep(DELAY).await;
        Ok::<_, BoxError>(503_u16)
    }));
    assert_eq!(service.oneshot(7).await.unwrap(), 503, "the last response is the answer");
    assert_eq!(*seen.lock().unwrap(), [(7, 1, DELAY), (7, 2, 3 * DELAY)]);
    let stats = layer.handle().stats();
    assert_eq!((stats.ok, stats.failed, stats.stopped.attempts), (0, 1, 1), "though not a good one");
}

/// A policy that keeps no copy of anything.
#[derive(Clone)]
struct Once;

impl<Response> RetryPolicy<&'static str, Response, BoxError> for Once {
    fn clone_request(&self, _: &&'static str) -> Option<&'static str> {
        None
    }

    fn decide(&self, _: &&'static str, _: &Result<Response, BoxError>, _: Attempt) -> Decision {
        Decision::retry()
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_copied_is_sent_once_and_nothing_is_cloned() {
    for once in [true, false] {
        let script = Script::of(&[Answer::Bad; 3]);
        let (error, stats) = if once {
            let layer = RetryLayer::new(config(), Once).unwrap();
            (layer.layer(script.probe()).oneshot("put").await.unwrap_err(), layer.handle().stats())
        } else {
            let layer = layer(config().max_attempts(1));
            (layer.layer(script.probe()).oneshot("put").await.unwrap_err(), layer.handle().stats())
        };
        assert_eq!(error.to_string(), "bad");
        assert_eq!(script.see(|state| (state.called_at.len(), state.clones)), (1, 0));
        assert_eq!((stats.failed, stats.retries), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_idempotent_is_not_sent_twice() {
    let policy = RetryErrors::if_idempotent(|request: &&str| *request == "get");
    let layer = RetryLayer::new(config(), policy).unwrap().budget(ample());
    for (request, calls) in [("get", 2), ("increment", 1)] {
        let script = Script::of(&[Answer::Bad]);
        let result = layer.layer(script.probe()).oneshot(request).await;
        assert_eq!((result.is_ok(), script.called_at().len()), (calls == 2, calls));
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_the_attempts_counts() {
    let layer = layer(config().max_elapsed(5 * DELAY));
    let script = Script::of(&[Answer::BadAfter(2 * DELAY); 9]);
    let start = Instant::now();
    let error = layer.layer(script.probe()).oneshot("get").await.unwrap_err();
    assert_eq!(gave_up(&error), (Stop::Elapsed, 2));
    assert_eq!(start.elapsed(), 5 * DELAY, "and nobody waits for an attempt that will not come");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_does_not_fit_the_deadline_ends_the_call_at_once() {
    let layer = layer(config());
    let start = Instant::now();
    let call = layer.layer(Script::of(&[Answer::Bad; 9]).probe()).oneshot("get");
    let error = Deadline::after(DELAY * 5 / 2).scope(call).await.unwrap_err();
    assert_eq!(gave_up(&error), (Stop::Deadline, 3));
    assert_eq!(start.elapsed(), 2 * DELAY);
    assert_eq!(layer.handle().budget().stats().waiting, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_servers_hint_is_kept_and_ends_the_call_where_it_does_not_fit() {
    let layer = layer(config());
    let script = Script::of(&[Answer::Busy(10 * DELAY)]);
    layer.layer(script.probe()).oneshot("get").await.unwrap();
    assert_eq!(script.called_at(), [0, 1100], "the backoff's delay comes on top");
    let start = Instant::now();
    let hour = Script::of(&[Answer::Busy(Duration::from_secs(3600))]);
    let error = layer.layer(hour.probe()).oneshot("get").await.unwrap_err();
    assert_eq!(gave_up(&error), (Stop::Elapsed, 1));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_ends_the_call_at_once() {
    let budget = RetryBudget::new(RetryBudgetConfig::new().ratio(0.2).floor_per_second(0.0)).unwrap();
    let layer = layer(config()).budget(budget.clone());
    let script = Script::of(&[Answer::Bad; 99]);
    for call in 1..=4 {
        let error = layer.layer(script.probe()).oneshot("get").await.unwrap_err();
        assert_eq!(gave_up(&error), (Stop::Budget, 1), "call {call}");
    }
    let error = layer.layer(script.probe()).oneshot("get").await.unwrap_err();
    assert_eq!(gave_up(&error), (Stop::Budget, 2), "five calls pay for one retry");
    assert_eq!((budget.stats().granted, budget.stats().refused), (1, 5));
    assert_eq!(layer.handle().stats().stopped.budget, 5);
}

#[tokio::test(start_paused = true)]
async fn one_budget_is_shared_by_layers() {
    let budget = RetryBudget::new(RetryBudgetConfig::new().ratio(0.0).floor_per_second(0.1)).unwrap();
    let retried = async |layer: RetryLayer<RetryErrors<()>>| {
        let call = layer.budget(budget.clone()).layer(Script::of(&[Answer::Bad]).probe()).oneshot("get");
        call.await.is_ok()
    };
    assert!(retried(layer(config())).await);
    assert!(!retried(layer(config())).await, "the other layer has spent the one retry of the window");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_costs_two_retries() {
    let budget = RetryBudget::new(RetryBudgetConfig::new().ratio(0.0).floor_per_second(0.3)).unwrap();
    let layer = layer(config()).budget(budget.clone());
    let attempt = TimeoutLayer::new(TimeoutConfig::attempt("peer", DELAY)).unwrap();
    let script = Script::of(&[Answer::BadAfter(DELAY * 9); 9]);
    let error = layer.layer(attempt.layer(script.probe())).oneshot("get").await.unwrap_err();
    assert_eq!(gave_up(&error), (Stop::Budget, 2), "three are not twice two");
    assert_eq!(budget.stats().balance, 1.0);
}

#[tokio::test(start_paused = true)]
async fn each_retry_waits_for_readiness_and_gives_up_when_it_does_not_come() {
    let layer = layer(config().max_ready_wait(3 * DELAY));
    let script = Script::of(&[Answer::Bad; 9]);
    script.ready(2);
    let start = Instant::now();
    let error = layer.layer(script.probe()).oneshot("get").await.unwrap_err();
    assert_eq!(gave_up(&error), (Stop::NotReady, 2));
    assert_eq!(start.elapsed(), 5 * DELAY, "two delays and the wait");
    assert_eq!(error.source().unwrap().to_string(), "bad", "the last result is not lost");
    let stats = layer.handle().budget().stats();
    assert_eq!((stats.granted, stats.refunded, stats.waiting), (2, 1, 0.0), "the retry that was not sent is refunded");
    assert_eq!(script.see(|state| state.held), 0);
    assert!(script.see(|state| state.polls_ready) <= 5, "one poll a wake");
}

#[tokio::test(start_paused = true)]
async fn readiness_is_waited_for_no_longer_than_the_deadline() {
    let layer = layer(config().max_ready_wait(99 * DELAY));
    let script = Script::of(&[Answer::Bad; 9]);
    script.ready(1);
    let start = Instant::now();
    let call = layer.layer(script.probe()).oneshot("get");
    let error = Deadline::after(2 * DELAY).scope(call).await.unwrap_err();
    assert_eq!((gave_up(&error), start.elapsed()), ((Stop::Deadline, 1), 2 * DELAY));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_call_does_not_cover_the_readiness_for_its_retry() {
    // A retry is readied while its future is polled, and so was readied under the deadline of the layer outside.
    let total = TimeoutLayer::new(TimeoutConfig::total("peer", 9 * DELAY)).unwrap();
    let script = Script::of(&[Answer::Bad]);
    total.layer(layer(config()).layer(script.probe())).oneshot("get").await.unwrap();
    assert_eq!(script.see(|state| state.ready_under.clone()), [None, None]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_breaks_before_the_retry_ends_the_call_with_its_error() {
    /// Works once; its clones are broken.
    #[derive(Debug)]
    struct Breaks(bool);
    impl Clone for Breaks {
        fn clone(&self) -> Self {
            Self(true)
        }
    }
    impl Service<()> for Breaks {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Ready<Result<(), BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(if self.0 { Err("broken".into()) } else { Ok(()) })
        }
        fn call(&mut self, (): ()) -> Self::Future {
            std::future::ready(Err("bad".into()))
        }
    }
    let layer = layer(config());
    let mut service = layer.layer(Breaks(false));
    let error = service.ready().await.unwrap().call(()).await.unwrap_err();
    assert_eq!((gave_up(&error), error.source().unwrap().to_string()), ((Stop::NotReady, 1), "broken".to_owned()));
    assert_eq!(layer.handle().budget().stats().refunded, 1);
    let unready = service.clone().ready().await.unwrap_err().to_string();
    assert_eq!(unready, "broken", "outside of a retry it is passed as it is");
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_runs_on_the_readied_service_and_a_retry_on_one_clone() {
    let (layer, script) = (layer(config()), Script::of(&[Answer::Bad, Answer::Bad]));
    let mut service = layer.layer(script.probe());
    service.ready().await.unwrap();
    assert_eq!(script.see(|state| state.held), 1);
    service.call("get").await.unwrap();
    assert_eq!(script.see(|state| (state.clones, state.polls_ready, state.held)), (1, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_poll_leaves_nothing_and_refunds_what_it_did_not_send() {
    let drops = [0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    for polls in drops {
        let (layer, script) = (layer(config()), Script::of(&[Answer::Bad, Answer::BadAfter(DELAY)]));
        script.ready(3);
        let mut service = layer.layer(script.probe());
        service.ready().await.unwrap();
        let done = {
            let mut call = pin!(service.call("get"));
            let mut done = false;
            for _ in 0..polls {
                done = call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
                if done {
                    break;
                }
                tokio::time::advance(DELAY / 2 + MS).await;
            }
            done
        };
        let (stats, budget) = (layer.handle().stats(), layer.handle().budget().stats());
        assert_eq!((stats.admitted, stats.in_flight), (1, 0), "after {polls} polls");
        assert_eq!((stats.ok, stats.neutral), (u64::from(done), u64::from(!done)));
        assert_eq!(budget.granted - budget.refunded, stats.retries, "what was granted was sent or refunded");
        assert_eq!((budget.waiting, script.see(|state| state.held)), (0.0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_while_it_waits_for_readiness_refunds_its_retry() {
    let (layer, script) = (layer(config()), Script::of(&[Answer::Bad]));
    script.ready(1);
    let mut service = layer.layer(script.probe());
    service.ready().await.unwrap();
    {
        let mut call = pin!(service.call("get"));
        let waited = tokio::time::timeout(2 * DELAY, call.as_mut()).await;
        assert!(waited.is_err());
        assert_eq!(layer.handle().budget().stats().waiting, 1.0);
    }
    let stats = layer.handle().budget().stats();
    assert_eq!((stats.waiting, stats.refunded), (0.0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_there_is_a_future_is_a_failure() {
    let retries = RetryHandle::new(config()).unwrap();
    let panics = || -> std::future::Ready<Result<(), BoxError>> { std::panic::resume_unwind(Box::new("in call")) };
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(retries.call(panics))));
    assert!(made.is_err());
    assert_eq!((retries.stats().failed, retries.stats().in_flight), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_inner_service_is_a_failure() {
    let layer = layer(config());
    let call = layer.layer(Script::of(&[Answer::Bad, Answer::Panic]).probe()).oneshot("get");
    assert!(tokio::spawn(call).await.unwrap_err().is_panic());
    let stats = layer.handle().stats();
    assert_eq!((stats.failed, stats.in_flight, stats.retries), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn two_calls_that_fail_together_do_not_return_together() {
    let layer = layer(config().backoff(Backoff::constant(Duration::from_secs(1))));
    let script = Script::of(&[Answer::Bad; 20]);
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(layer.layer(script.probe()).oneshot("get"))).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let returned: std::collections::BTreeSet<_> = script.called_at()[20..].iter().copied().collect();
    assert!(returned.len() > 12, "each draws for itself: {returned:?}");
}

#[tokio::test(start_paused = true)]
async fn an_update_reaches_calls_under_way_and_keeps_the_counts() {
    let (layer, script) = (layer(config()), Script::of(&[Answer::Bad; 99]));
    let handle = layer.handle();
    let updater = async {
        sleep(DELAY + MS).await;
        handle.update(config().max_attempts(3)).unwrap();
    };
    let (result, ()) = tokio::join!(layer.layer(script.probe()).oneshot("get"), updater);
    assert_eq!(gave_up(&result.unwrap_err()), (Stop::Attempts, 3));
    assert_eq!(handle.stats().retries, 2);
    assert_eq!((handle.config(), handle.name()), (config().max_attempts(3), "peer"));
    let again = handle.layer(RetryErrors::all_idempotent()).layer(script.probe()).oneshot("get").await;
    assert_eq!((again.is_err(), handle.stats().retries), (true, 4), "a layer made by the handle shares its account");
    let field = |config| handle.update(config).unwrap_err().field;
    assert_eq!(field(config().max_attempts(0)), "max_attempts");
    assert_eq!(field(config().max_elapsed(Duration::ZERO)), "max_elapsed");
    assert_eq!(field(RetryConfig::new("other")), "name");
    assert_eq!(RetryHandle::new(RetryConfig::new("")).unwrap_err().field, "name");
    let budget = |config| RetryBudget::new(config).unwrap_err().field;
    assert_eq!(budget(RetryBudgetConfig::new().ratio(f64::NAN)), "ratio");
    assert_eq!(budget(RetryBudgetConfig::new().floor_per_second(-1.0)), "floor_per_second");
    assert_eq!(budget(RetryBudgetConfig::new().window(Duration::ZERO)), "window");
}

#[tokio::test(start_paused = true)]
async fn a_plain_operation_is_retried_by_the_marks_of_its_errors() {
    let handle = RetryHandle::with_budget(config(), ample()).unwrap();
    let mut left = 3;
    let mut call = pin!(handle.call(|| {
        left -= 1;
        let result = if left > 0 { Err(Transient::new("reset")) } else { Ok(left) };
        async move { result }
    }));
    assert_eq!(call.as_mut().await.unwrap(), 0);
    assert_eq!(call.attempts(), 3, "readable after the result");
    let permanent = handle.call(|| async { Err::<(), _>(Permanent::new("no")) }).await.unwrap_err();
    assert!(permanent.is::<Permanent>());
    let choosy = |(): &(), _: &Result<(), BoxError>, _: Attempt| Decision::GiveUp;
    assert_eq!(handle.call_with(choosy, || async { Err::<(), _>("bad") }).await.unwrap_err().to_string(), "bad");
    assert_eq!((handle.stats().admitted, handle.stats().ok, handle.stats().failed), (3, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_spurious_poll_changes_nothing() {
    let (layer, script) = (layer(config()), Script::of(&[Answer::Bad]));
    let mut call = pin!(layer.layer(script.probe()).oneshot("get"));
    let result = poll_fn(|cx| {
        let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        call.as_mut().poll(cx)
    });
    // The first poll may take the result; it does not while the delay runs, and the answer is ready at once after it.
    let _ = tokio::time::timeout(DELAY / 2, result).await;
    assert_eq!(script.called_at().len(), 1);
    assert_eq!(call.await.unwrap(), "get");
    assert_eq!(script.called_at(), [0, 100]);
}

#[test]
fn service_and_future_are_send_where_the_inner_ones_are() {
    fn check<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn send<T: Send>(_: &T) {}
    let layer = layer(config());
    let mut service = layer.layer(Script::default().probe());
    check(&service);
    check(&layer.handle());
    assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
    send(&service.call("get"));
    assert!(format!("{:?}", layer.handle()).contains("\"peer\""));
}

#[test]
#[cfg(target_pointer_width = "64")]
fn the_account_of_a_call_is_five_words_with_metrics_and_without() {
    // The layer, start, what it remembers from its first failure on, and flags.
    assert_eq!(size_of::<super::handle::Call>(), 40);
    type Call = ResponseFuture<Operation<fn() -> std::future::Ready<Result<(), BoxError>>>, RetryErrors<()>, ()>;
    assert_eq!(size_of::<Call>(), 88);
}

#[cfg(feature = "metrics")]
mod metrics {
    use super::*;
    use crate::telemetry::told::{Told, follows_every_end, inner, stays_in_step};

    #[test]
    fn retries_and_their_ends_are_counted_in_metrics() {
        use metrics_util::debugging::{DebugValue, DebuggingRecorder};

        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        ::metrics::with_local_recorder(&recorder, || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let layer = layer(config().max_attempts(12));
                let _ = layer.layer(Script::of(&[Answer::Bad; 99]).probe()).oneshot("get").await;
            });
        });
        let mut counted: Vec<String> = Vec::new();
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
            if let DebugValue::Counter(count @ 1..) = value {
                counted.push(format!("{} {} {count}", key.key().name(), labels.join(",")));
            }
        }
        counted.sort();
        let attempts = |n: &str, count| format!("seawall_retry_attempts_total peer,{n} {count}");
        let mut expected: Vec<_> = ["2", "3", "4", "5", "6", "7", "8", "9"].map(|n| attempts(n, 1)).into();
        expected.push(attempts("10+", 3));
        expected.push("seawall_calls_total retry,peer,failure, 1".to_owned());
        expected.push("seawall_retry_gave_up_total peer,attempts 1".to_owned());
        expected.sort();
        assert_eq!(counted, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn every_start_and_end_is_told() {
        let told = Told::new();
        let layer = RetryLayer::new(config(), RetryErrors::all_idempotent()).unwrap();
        follows_every_end(&told, layer.layer(service_fn(inner))).await;
        assert_eq!(layer.handle().stats().retries, 9, "the failure was tried ten times and is one call");
    }

    #[tokio::test(start_paused = true)]
    async fn a_gauge_that_is_bound_again_is_in_step() {
        let (told, retries) = (Told::new(), RetryHandle::new(config()).unwrap());
        let _held = retries.call(std::future::pending::<Result<(), BoxError>>);
        let call = || drop(retries.call(|| async { Ok::<_, BoxError>(()) }));
        stays_in_step(&told, 1.0, call, || retries.rebind_metrics());
    }

    #[tokio::test(start_paused = true)]
    async fn durations_are_told_while_they_are_asked_for() {
        let (told, retries) = (Told::new(), RetryHandle::new(config()).unwrap());
        let call = async |failures: u32| {
            let mut left = failures;
            let attempt = || {
                let fails = left > 0;
                left -= u32::from(fails);
                async move {
                    sleep(MS).await;
                    if fails { Err(BoxError::from("bad")) } else { Ok(()) }
                }
            };
            retries.call(attempt).await.unwrap();
        };
        call(0).await;
        assert_eq!(told.durations(), None, "nobody has asked");
        retries.update(config().durations(true)).unwrap();
        assert!(retries.config().durations);
        call(0).await;
        call(1).await;
        assert_eq!(told.durations(), Some(vec![0.001, 0.102]), "two attempts and the delay between them");
        retries.update(config()).unwrap();
        call(0).await;
        assert_eq!(told.durations(), Some(vec![]));
    }
}
