//! Layers that break one rule each, to show that the suite sees it.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use seawall::{BoxError, Deadline, Reason, Rejected};
use seawall_tests::probe::Probe;
use tower::{Layer, Service};

use super::subject::{Call, Subject};

/// What a bad layer does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the layer passes everything through and counts.
    Nothing,
    /// As `Nothing`, but it refuses.
    OnlyRefuses,
    ReadyAlways,
    ReadiesOneAfterTheOther,
    AsksUnderADeadline,
    ForgetsTheWaker,
    WakesItself,
    HidesTheFailure,
    SharesTheInnerService,
    NeverDropsTheInnerService,
    CallsAClone,
    ReadiesAndCallsAClone,
    RefusesWithTheReservation,
    CallsTwice,
    RefusesAfterTheCall,
    ChangesTheAnswer,
    PrintsTheError,
    WrapsTheError,
    KeepsTheFinishedFuture,
    CountsFromTheFirstPoll,
    Detaches,
    CountsPolls,
    CountsPanicsNot,
    CountsByService,
    BlocksTheWorker,
}

use Fault::*;

/// Which rule finds which fault.
pub const FOUND_BY: &[(Fault, &str)] = &[
    (ReadyAlways, "readiness_is_that_of_the_inner_service"),
    (ReadiesOneAfterTheOther, "readiness_is_reserved_once"),
    (AsksUnderADeadline, "readiness_runs_under_no_deadline"),
    (ForgetsTheWaker, "the_latest_waker_is_woken"),
    (WakesItself, "a_service_that_is_not_ready_does_not_wake_itself"),
    (HidesTheFailure, "a_failed_readiness_passes_and_keeps_nothing"),
    (SharesTheInnerService, "a_clone_carries_no_reservation"),
    (NeverDropsTheInnerService, "a_dropped_service_returns_its_reservation"),
    (CallsAClone, "only_ready_services_are_called"),
    (ReadiesAndCallsAClone, "the_readied_service_is_called"),
    (RefusesWithTheReservation, "nothing_stays_reserved_after_the_call"),
    (CallsTwice, "each_request_is_sent_once_per_attempt"),
    (RefusesAfterTheCall, "a_refusal_calls_nothing"),
    (ChangesTheAnswer, "an_answer_passes_unchanged"),
    (PrintsTheError, "an_error_passes_in_its_box_with_its_source"),
    (WrapsTheError, "an_error_passes_in_its_box_with_its_source"),
    (KeepsTheFinishedFuture, "a_finished_call_holds_nothing"),
    (CountsFromTheFirstPoll, "a_call_dropped_unpolled_leaves_nothing"),
    (Detaches, "a_call_dropped_at_any_poll_leaves_nothing"),
    (CountsPolls, "a_spurious_poll_changes_nothing"),
    (CountsPanicsNot, "a_panic_leaves_nothing"),
    (CountsByService, "clones_and_services_share_the_state_of_the_layer"),
    (BlocksTheWorker, "calls_end_on_both_runtimes_cloned_or_kept"),
];

impl Fault {
    /// The bad layer over a probe.
    pub fn subject(self) -> Subject {
        let layer = BadLayer { fault: self, in_flight: Arc::default() };
        let in_flight = Arc::clone(&layer.in_flight);
        // ORDERING: Relaxed, a count.
        let subject = Subject::uncounted(layer).counted(move || in_flight.load(Ordering::Relaxed));
        match self {
            OnlyRefuses | RefusesWithTheReservation | RefusesAfterTheCall => subject.refuses(),
            _ => subject,
        }
    }
}

#[derive(Clone)]
struct BadLayer {
    fault: Fault,
    in_flight: Arc<AtomicU64>,
}

impl Layer<Probe> for BadLayer {
    type Service = Bad;

    fn layer(&self, inner: Probe) -> Bad {
        let inner = Arc::new(Mutex::new(inner));
        Bad { fault: self.fault, in_flight: self.in_flight.clone(), inner, former: Vec::new() }
    }
}

/// The service of every bad layer; the fault says where it goes wrong.
struct Bad {
    fault: Fault,
    in_flight: Arc<AtomicU64>,
    /// Shared only where that is the fault.
    inner: Arc<Mutex<Probe>>,
    /// Kept only where that is the fault.
    former: Vec<Probe>,
}

impl Bad {
    fn inner(&self) -> MutexGuard<'_, Probe> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self) -> Call {
        Box::pin(std::future::ready(Err(Rejected::new("bad", "bad", Reason::Open).into())))
    }
}

impl Clone for Bad {
    fn clone(&self) -> Self {
        let inner = match self.fault {
            SharesTheInnerService => self.inner.clone(),
            _ => Arc::new(Mutex::new(self.inner().clone())),
        };
        let in_flight = match self.fault {
            CountsByService => Arc::default(),
            _ => self.in_flight.clone(),
        };
        Self { fault: self.fault, in_flight, inner, former: Vec::new() }
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        if self.fault == NeverDropsTheInnerService {
            mem::forget(self.inner.clone());
        }
    }
}

impl Service<u64> for Bad {
    type Response = u64;
    type Error = BoxError;
    type Future = Call;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self.fault {
            ReadyAlways => return Poll::Ready(Ok(())),
            ReadiesOneAfterTheOther => {
                let fresh = self.inner().clone();
                let former = mem::replace(&mut *self.inner(), fresh);
                self.former.push(former);
            }
            AsksUnderADeadline => {
                return Deadline::after(Duration::from_secs(1)).enter(|| self.inner().poll_ready(cx));
            }
            ForgetsTheWaker => return self.inner().poll_ready(&mut Context::from_waker(Waker::noop())),
            _ => {}
        }
        let ready = self.inner().poll_ready(cx);
        match (self.fault, ready) {
            (HidesTheFailure, Poll::Ready(Err(_))) => Poll::Ready(Ok(())),
            (WakesItself, Poll::Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            (_, ready) => ready,
        }
    }

    fn call(&mut self, request: u64) -> Call {
        let fault = self.fault;
        match fault {
            OnlyRefuses => {
                let fresh = self.inner().clone();
                *self.inner() = fresh;
                return self.refusal();
            }
            RefusesWithTheReservation => return self.refusal(),
            RefusesAfterTheCall => {
                drop(self.inner().call(request));
                return self.refusal();
            }
            _ => {}
        }
        let guard = InFlight::new(fault, &self.in_flight);
        let future = match fault {
            CallsAClone => {
                let mut clone = self.inner().clone();
                clone.call(request)
            }
            ReadiesAndCallsAClone => {
                let mut clone = self.inner().clone();
                let _ = clone.poll_ready(&mut Context::from_waker(Waker::noop()));
                clone.call(request)
            }
            _ => self.inner().call(request),
        };
        if fault == CallsTwice {
            let mut clone = self.inner().clone();
            let _ = clone.poll_ready(&mut Context::from_waker(Waker::noop()));
            drop(clone.call(request));
        }
        match fault {
            CountsFromTheFirstPoll => {
                mem::forget(guard);
                let in_flight = self.in_flight.clone();
                Box::pin(async move {
                    let _guard = InFlight(fault, in_flight);
                    future.await
                })
            }
            Detaches => {
                let work = async move {
                    let _guard = guard;
                    future.await
                };
                Box::pin(async move { tokio::spawn(work).await? })
            }
            KeepsTheFinishedFuture => Box::pin(Keeps { future: Box::pin(future), _guard: guard }),
            CountsPolls => Box::pin(Impatient { future: Box::pin(future), _guard: guard, polls: 0 }),
            _ => Box::pin(async move {
                let _guard = guard;
                if fault == BlocksTheWorker {
                    tokio::task::block_in_place(|| {});
                }
                match (fault, future.await) {
                    (ChangesTheAnswer, Ok(answer)) => Ok(answer + 1),
                    (PrintsTheError, Err(error)) => Err(error.to_string().into()),
                    (WrapsTheError, Err(error)) => Err(std::io::Error::other(error).into()),
                    (_, result) => result,
                }
            }),
        }
    }
}

/// A call under way.
pub struct InFlight(Fault, Arc<AtomicU64>);

impl InFlight {
    pub fn new(fault: Fault, count: &Arc<AtomicU64>) -> Self {
        // ORDERING: Relaxed, a count.
        count.fetch_add(1, Ordering::Relaxed);
        Self(fault, count.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0 == CountsPanicsNot && std::thread::panicking() {
            return;
        }
        // ORDERING: Relaxed, a count.
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Drops neither future nor count before it is dropped itself.
struct Keeps {
    future: Pin<Box<<Probe as Service<u64>>::Future>>,
    _guard: InFlight,
}

impl Future for Keeps {
    type Output = Result<u64, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.future.as_mut().poll(cx)
    }
}

/// Takes every poll for progress.
struct Impatient {
    future: Pin<Box<<Probe as Service<u64>>::Future>>,
    _guard: InFlight,
    polls: usize,
}

impl Future for Impatient {
    type Output = Result<u64, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.polls += 1;
        if self.polls == 3 {
            return Poll::Ready(Err("no progress".into()));
        }
        self.future.as_mut().poll(cx)
    }
}
