//! A layer whose calls wait for their turn, and what such a layer does wrong.

use std::future::{Future, poll_fn};
use std::mem;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::thread;
use std::time::Duration;

use seawall::{BoxError, Reason, Rejected, Waiting};
use seawall_tests::probe::Probe;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use super::faults::{self, InFlight};
use super::subject::{Call, Subject};

/// What a layer does wrong whose calls wait for their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Nothing,
    HasTwoTurns,
    StaysInLine,
    SpinsInLine,
    ForgetsTheWakerInLine,
    WaitsWithTheReservation,
    LeaksAServiceInLine,
    CallsTheCloneUnreadied,
    ReadiesOneAndCallsAnother,
    AsksUnderTheDeadlineOfTheCall,
    SpinsAfterTheWait,
    ForgetsTheWakerAfterTheWait,
    HidesTheFailureAfterTheWait,
    LosesTheTurnBeforeTheCall,
    LosesTheTurnOfAFailure,
    LosesTheTurnOfAPanic,
    GivesTheTurnBackTooSoon,
    ClonesTheTurn,
    DropsAReadyServiceWithItsTurn,
    KeepsTheTurnOfABrokenService,
}

use Fault::*;

/// Which rule finds which fault.
pub const FOUND_BY: &[(Fault, &str)] = &[
    (HasTwoTurns, "the_readied_service_is_called"),
    (StaysInLine, "a_call_dropped_at_any_poll_leaves_nothing"),
    (StaysInLine, "a_turn_passes_on_however_a_call_ends"),
    (SpinsInLine, "a_call_in_line_asks_for_nothing"),
    (ForgetsTheWakerInLine, "the_latest_waker_in_line_is_woken"),
    (WaitsWithTheReservation, "nothing_stays_reserved_after_the_call"),
    (LeaksAServiceInLine, "a_turn_passes_on_however_a_call_ends"),
    (CallsTheCloneUnreadied, "only_ready_services_are_called"),
    (ReadiesOneAndCallsAnother, "the_readied_service_is_called"),
    (AsksUnderTheDeadlineOfTheCall, "readiness_runs_under_no_deadline"),
    (SpinsAfterTheWait, "a_call_in_line_asks_for_nothing"),
    (ForgetsTheWakerAfterTheWait, "the_latest_waker_in_line_is_woken"),
    (HidesTheFailureAfterTheWait, "a_turn_passes_on_however_a_call_ends"),
    (LosesTheTurnBeforeTheCall, "a_call_dropped_at_any_poll_leaves_nothing"),
    (LosesTheTurnBeforeTheCall, "a_turn_passes_on_however_a_call_ends"),
    (LosesTheTurnOfAFailure, "a_turn_passes_on_however_a_call_ends"),
    (LosesTheTurnOfAPanic, "a_turn_passes_on_however_a_call_ends"),
    (GivesTheTurnBackTooSoon, "the_next_is_woken_when_the_call_before_is_gone"),
    (ClonesTheTurn, "a_clone_carries_no_reservation"),
    (DropsAReadyServiceWithItsTurn, "a_dropped_service_returns_its_reservation"),
    (KeepsTheTurnOfABrokenService, "a_failed_readiness_passes_and_keeps_nothing"),
];

impl Fault {
    /// The bad layer over a probe, with calls that wait where the fault is.
    pub fn subject(self) -> Subject {
        match self {
            ClonesTheTurn | DropsAReadyServiceWithItsTurn | KeepsTheTurnOfABrokenService => {
                Queue::subject(self, Waiting::InReadiness)
            }
            _ => Queue::subject(self, Waiting::InCall),
        }
    }
}

/// Lets one call in at a time.
#[derive(Clone)]
pub struct Queue {
    fault: Fault,
    at: Waiting,
    turns: Arc<Semaphore>,
    in_flight: Arc<AtomicU64>,
}

impl Queue {
    /// The layer over a probe.
    pub fn subject(fault: Fault, at: Waiting) -> Subject {
        let turns = Arc::new(Semaphore::new(if fault == HasTwoTurns { 2 } else { 1 }));
        let queue = Self { fault, at, turns: turns.clone(), in_flight: Arc::default() };
        let in_flight = queue.in_flight.clone();
        Subject::uncounted(queue)
            // ORDERING: Relaxed, a count.
            .counted(move || in_flight.load(Ordering::Relaxed))
            .waits(at, Duration::ZERO, move || {
                turns.clone().try_acquire_owned().map_err(|_| Rejected::new("bad", "bad", Reason::Full))
            })
    }

    fn in_flight(&self) -> InFlight {
        InFlight::new(faults::Fault::Nothing, &self.in_flight)
    }

    fn join(&self) -> Place {
        let (fault, turns) = (self.fault, self.turns.clone());
        let turn = async move { Turn { fault, permit: turns.acquire_owned().await.ok(), lost: false } };
        Place { fault, turn: Some(Box::pin(turn)), first: None }
    }

    async fn wait_and_call(self, mut service: Probe, request: u64) -> Result<u64, BoxError> {
        if self.fault == LeaksAServiceInLine {
            mem::forget(service.clone());
        }
        let mut turn = self.join().await;
        turn.lost = self.fault == LosesTheTurnBeforeTheCall;
        if self.fault != CallsTheCloneUnreadied {
            let mut first = None;
            let ready = poll_fn(|cx| {
                let latest = cx.waker().clone();
                match self.fault {
                    AsksUnderTheDeadlineOfTheCall => service.poll_ready(cx),
                    ForgetsTheWakerAfterTheWait => ask(&mut service, first.get_or_insert(latest)),
                    SpinsAfterTheWait => {
                        cx.waker().wake_by_ref();
                        ask(&mut service, &latest)
                    }
                    _ => ask(&mut service, &latest),
                }
            });
            match ready.await {
                Err(_) if self.fault == HidesTheFailureAfterTheWait => {}
                Err(error) => {
                    turn.lost = self.fault == LosesTheTurnOfAFailure;
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        turn.lost = false;
        let in_flight = self.in_flight();
        let call = if self.fault == ReadiesOneAndCallsAnother {
            let mut other = service.clone();
            let _ = other.poll_ready(&mut Context::from_waker(Waker::noop()));
            other.call(request)
        } else {
            service.call(request)
        };
        self.run(turn.into(), in_flight, call).await
    }

    async fn run(
        self,
        turn: Arc<Turn>,
        in_flight: InFlight,
        call: <Probe as Service<u64>>::Future,
    ) -> Result<u64, BoxError> {
        // Variables are dropped from the last to the first.
        if self.fault == GivesTheTurnBackTooSoon {
            let mut call = Box::pin(call);
            let _held = (in_flight, turn);
            return call.as_mut().await;
        }
        let _held = (in_flight, turn);
        call.await
    }
}

/// Asks on a thread of its own, where no deadline is ambient.
fn ask(service: &mut Probe, waker: &Waker) -> Poll<Result<(), BoxError>> {
    let poll = || service.poll_ready(&mut Context::from_waker(waker));
    thread::scope(|scope| scope.spawn(poll).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// A place in line.
struct Place {
    fault: Fault,
    turn: Option<Pin<Box<dyn Future<Output = Turn> + Send + Sync>>>,
    first: Option<Waker>,
}

impl Future for Place {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Turn> {
        let this = &mut *self;
        let Some(turn) = &mut this.turn else { return Poll::Pending };
        let ready = match this.fault {
            ForgetsTheWakerInLine => {
                let first = this.first.get_or_insert_with(|| cx.waker().clone());
                ready!(turn.as_mut().poll(&mut Context::from_waker(first)))
            }
            SpinsInLine => {
                cx.waker().wake_by_ref();
                ready!(turn.as_mut().poll(cx))
            }
            _ => ready!(turn.as_mut().poll(cx)),
        };
        this.turn = None;
        Poll::Ready(ready)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.fault == StaysInLine {
            mem::forget(self.turn.take());
        }
    }
}

/// Leave for one call.
struct Turn {
    fault: Fault,
    permit: Option<OwnedSemaphorePermit>,
    /// It does not come back if it is dropped now.
    lost: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.lost || (self.fault == LosesTheTurnOfAPanic && thread::panicking()) {
            mem::forget(self.permit.take());
        }
    }
}

impl Layer<Probe> for Queue {
    type Service = Queued;

    fn layer(&self, inner: Probe) -> Queued {
        Queued { queue: self.clone(), inner, place: None, turn: None }
    }
}

/// The service of the layer.
pub struct Queued {
    queue: Queue,
    inner: Probe,
    /// Where calls wait in readiness.
    place: Option<Place>,
    /// For the next call. Shared only where that is the fault.
    turn: Option<Arc<Turn>>,
}

impl Clone for Queued {
    fn clone(&self) -> Self {
        let turn = self.turn.clone().filter(|_| self.queue.fault == ClonesTheTurn);
        Self { queue: self.queue.clone(), inner: self.inner.clone(), place: None, turn }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if self.queue.fault == DropsAReadyServiceWithItsTurn {
            mem::forget(self.turn.take());
        }
    }
}

impl Service<u64> for Queued {
    type Response = u64;
    type Error = BoxError;
    type Future = Call;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.queue.at == Waiting::InReadiness && self.turn.is_none() {
            let place = self.place.get_or_insert_with(|| self.queue.join());
            self.turn = Some(Arc::new(ready!(Pin::new(place).poll(cx))));
            self.place = None;
        }
        let ready = ready!(self.inner.poll_ready(cx));
        if ready.is_err() && self.queue.fault != KeepsTheTurnOfABrokenService {
            self.turn = None;
        }
        Poll::Ready(ready)
    }

    fn call(&mut self, request: u64) -> Call {
        let queue = self.queue.clone();
        if let Some(turn) = self.turn.take() {
            let in_flight = queue.in_flight();
            return Box::pin(queue.run(turn, in_flight, self.inner.call(request)));
        }
        let fresh = self.inner.clone();
        let readied = mem::replace(&mut self.inner, fresh);
        if queue.fault == WaitsWithTheReservation {
            return Box::pin(queue.wait_and_call(readied, request));
        }
        drop(readied);
        Box::pin(queue.wait_and_call(self.inner.clone(), request))
    }
}
