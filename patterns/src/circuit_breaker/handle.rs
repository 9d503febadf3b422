//! The plain value a user holds: calls, readings, overrides.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, watch};

use super::breaker::Breaker;
use super::config::{CircuitBreakerConfig, OnOpen};
use super::future::ResponseFuture;
use super::policy::{AtOnce, ByError, Classify, Conclude};
use super::shortcut::Reading;
use super::state::{Effect, Gate, Outcome, Override, Permit, Refusal, State, Stats, Transition};
use super::{CircuitBreakerLayer, PATTERN};
use crate::error::{BoxError, InvalidConfig, Rejected};
use crate::lent::{Lent, lend};
use crate::telemetry::{self, Bound};
use crate::{clock, rng};

/// A circuit breaker without tower, and the control of the layer that shares its state. Clones are the same breaker.
///
/// # Example
/// ```
/// use seawall::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerHandle, State};
/// use seawall::Rejected;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let breaker = CircuitBreakerHandle::new(CircuitBreakerConfig::new("geocoder").consecutive_failures(1))?;
/// let broken = async { Err::<(), _>(std::io::Error::other("no route")) };
/// assert!(breaker.call(broken).await.is_err());
///
/// assert_eq!(breaker.state(), State::Open);
/// let error = breaker.call(async { Ok::<_, std::io::Error>("never runs") }).await.unwrap_err();
/// assert!(Rejected::find(&*error).unwrap().retry_after.is_some());
/// # Ok::<_, seawall::InvalidConfig>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct CircuitBreakerHandle {
    shared: Arc<Shared>,
    /// Apart, since a thread [keeps](crate::lent) the rest: who watches is told when nobody is left who could call.
    last: Arc<Last>,
}

/// The latest transition that was told.
type Last = watch::Sender<Option<Transition>>;

struct Shared {
    name: Arc<str>,
    on_open: OnOpen,
    breaker: Breaker,
    /// Calls are counted under its lock, in the breaker and in the gauge.
    metrics: Bound<telemetry::BreakerMetrics>,
    last: Weak<Last>,
    /// Woken whenever a caller that waits for readiness should ask again.
    waiting: Arc<Notify>,
}

lend!(Shared);

impl CircuitBreakerHandle {
    /// A closed breaker.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn new(config: CircuitBreakerConfig) -> Result<Self, InvalidConfig> {
        let name: Arc<str> = config.name.as_str().into();
        let (on_open, durations) = (config.on_open, config.durations);
        let breaker = Breaker::new(config)?;
        let metrics = telemetry::BreakerMetrics::new(&name, breaker.state(), durations);
        let last = Arc::new(Last::new(None));
        let shared = Shared {
            name,
            on_open,
            breaker,
            metrics: Bound::new(metrics),
            last: Arc::downgrade(&last),
            waiting: Arc::default(),
        };
        Ok(Self { shared: Arc::new(shared), last })
    }

    /// A layer whose services share this breaker.
    pub fn layer(&self) -> CircuitBreakerLayer {
        CircuitBreakerLayer::from(self.clone())
    }

    /// Runs `future` if the breaker admits it now; else the returned future ends with [`Rejected`] and `future` is
    /// dropped unpolled. Errors are classified [`ByError`].
    ///
    /// # Cancellation
    /// Dropping the returned future counts as [`CancelPolicy`](super::CancelPolicy) says and frees the probe.
    pub fn call<F, T, E>(&self, future: F) -> ResponseFuture<F, AtOnce>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError> + 'static,
    {
        self.call_with(ByError, future)
    }

    /// As [`call`](Self::call), with a classifier.
    pub fn call_with<F, T, E, P>(&self, policy: P, future: F) -> ResponseFuture<F, AtOnce<P>>
    where
        F: Future<Output = Result<T, E>>,
        P: Classify<T, E>,
        E: Into<BoxError>,
    {
        self.call_until(AtOnce(policy), future)
    }

    /// As [`call`](Self::call); `conclusion` says when the call is over, and how it went.
    pub fn call_until<F, T, E, P>(&self, conclusion: P, future: F) -> ResponseFuture<F, P>
    where
        F: Future<Output = Result<T, E>>,
        P: Conclude<T, E>,
    {
        match self.ask(false, clock::now) {
            Ok(admission) => ResponseFuture::running(future, admission, conclusion),
            Err(refusal) => ResponseFuture::refused(self.error(refusal)),
        }
    }

    /// Asks for one call that is not a future.
    ///
    /// # Errors
    /// [`Rejected`] while the breaker is open, or half-open with all its probes under way.
    pub fn admit(&self) -> Result<Admission, Rejected> {
        self.ask(false, clock::now).map_err(|refusal| self.rejected(refusal))
    }

    /// What the breaker is doing. An open breaker whose time is over stays open until the next call.
    pub fn state(&self) -> State {
        self.shared.breaker.state()
    }

    /// All counts, read together.
    pub fn stats(&self) -> Stats {
        self.shared.breaker.stats()
    }

    /// The name that labels metrics, logs and refusals.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The configuration in force.
    pub fn config(&self) -> CircuitBreakerConfig {
        self.shared.breaker.config()
    }

    /// The latest transition, `None` before the first. A reader that is slower than the breaker misses those between;
    /// [`Transition::generation`] tells how many. All of them are logged and counted. It ends with the last handle, layer and
    /// service.
    pub fn watch(&self) -> watch::Receiver<Option<Transition>> {
        self.last.subscribe()
    }

    /// Changes the configuration whole and keeps the state: an open breaker stays open until its time; the window
    /// starts empty only if its size changed.
    ///
    /// # Errors
    /// A field out of its bound, or a changed `name` or `on_open`; nothing was changed then.
    pub fn update(&self, config: CircuitBreakerConfig) -> Result<(), InvalidConfig> {
        let durations = config.durations;
        self.shared.publish(self.shared.breaker.update(config, clock::read())?);
        if self.shared.metrics.with(|metrics| metrics.calls.has_durations()) != durations {
            self.rebind_metrics();
        }
        Ok(())
    }

    /// Refuses everything until told otherwise.
    pub fn force_open(&self) {
        self.force(Some(Override::Open));
    }

    /// Admits everything until told otherwise: calls are counted and never trip the breaker.
    pub fn force_closed(&self) {
        self.force(Some(Override::Closed));
    }

    /// Admits everything until told otherwise and counts nothing in the window.
    pub fn disable(&self) {
        self.force(Some(Override::Disabled));
    }

    /// Decides, counts and logs until told otherwise, and refuses nothing.
    pub fn observe(&self) {
        self.force(Some(Override::Observe));
    }

    /// Ends any override and starts closed with an empty window. Calls that are under way belong to the time before: their
    /// results count in [`stats`](Self::stats) only. A reset is a transition like any other, also of a closed breaker.
    pub fn reset(&self) {
        self.force(None);
    }

    /// Resolves the metric handles again: for a recorder that was installed after the breaker was made.
    pub fn rebind_metrics(&self) {
        // Under the lock of `announce`: a change of state meanwhile would be shown by the old handles only.
        self.last.send_if_modified(|_| {
            self.shared.metrics.rebind_with(|| {
                let stats = self.stats();
                let metrics = telemetry::BreakerMetrics::new(&self.shared.name, stats.state, self.config().durations);
                metrics.calls.in_flight.set(stats.in_flight as f64);
                metrics
            });
            false
        });
    }

    pub(super) fn on_open(&self) -> OnOpen {
        self.shared.on_open
    }

    /// Asks for one call; an `exempt` one is not refused.
    #[inline]
    pub(super) fn ask(&self, exempt: bool, now: impl FnOnce() -> std::time::Duration) -> Result<Admission, Refusal> {
        let shared = &self.shared;
        let (answer, effect) = shared.metrics.with(|metrics| {
            let asked = shared.breaker.admit(exempt, now, rng::draw);
            if asked.0.is_ok() {
                metrics.calls.start();
            }
            asked
        });
        shared.publish(effect);
        answer.map(|permit| Admission { breaker: Lent::of(&self.shared), permit: Some(permit) })
    }

    /// The error for the caller.
    #[inline(never)]
    pub(super) fn error(&self, refusal: Refusal) -> BoxError {
        self.rejected(refusal).into()
    }

    #[inline]
    fn rejected(&self, refusal: Refusal) -> Rejected {
        self.shared.metrics.with(|metrics| metrics.calls.rejected(refusal.reason));
        let rejected = Rejected::new(PATTERN, self.shared.name.clone(), refusal.reason);
        match refusal.retry_after {
            Some(after) => rejected.retry_after(after),
            None => rejected,
        }
    }

    /// Readiness: `Ok(None)` while calls flow, a reservation while half-open.
    pub(super) fn reserve(&self) -> Result<Option<Reservation>, Wait> {
        // Read anew: a shared reading stands still, and a gate whose timer has fired would ask the same again and again.
        let (gate, effect) = self.shared.breaker.reserve(clock::read, rng::draw);
        self.shared.publish(effect);
        match gate {
            Gate::Pass => Ok(None),
            Gate::Reserved(permit) => Ok(Some(Reservation { breaker: self.clone(), permit: Some(permit) })),
            Gate::Wait(until) => Err(Wait { until }),
        }
    }

    /// Completes when whoever waits should ask again; counts from now on, polled or not.
    pub(super) fn woken(&self) -> Pin<Box<OwnedNotified>> {
        Box::pin(Arc::clone(&self.shared.waiting).notified_owned())
    }

    fn force(&self, to: Option<Override>) {
        self.shared.publish(self.shared.breaker.force(to, clock::read()));
    }
}

impl Shared {
    /// Hands in the outcome of one call.
    #[inline]
    fn report(&self, permit: Permit, outcome: Outcome) {
        let mut now = Reading::new(clock::read);
        let effect = self.metrics.with(|metrics| {
            let (counted, effect) = self.breaker.report(permit, outcome, || now.get(), rng::draw);
            metrics.calls.end(counted.ended(), || permit.ran(now.get()));
            effect
        });
        self.publish(effect);
    }

    /// As [`report`](Self::report), where that is rare.
    #[cold]
    fn report_cut_off(&self, permit: Permit, outcome: Outcome) {
        self.report(permit, outcome);
    }

    #[inline]
    fn publish(&self, effect: Effect) {
        if effect.wake || effect.transition.is_some() {
            self.announce(effect);
        }
    }

    #[cold]
    fn announce(&self, effect: Effect) {
        if effect.wake {
            self.waiting.notify_waiters();
        }
        let Some(transition) = effect.transition else { return };
        telemetry::breaker_transition(&self.name, &transition);
        let Some(last) = self.last.upgrade() else { return };
        // Two threads may arrive here in either order; the watch and the gauge keep the newer state.
        last.send_if_modified(|last| {
            if last.as_ref().is_some_and(|last| last.generation > transition.generation) {
                return false;
            }
            self.metrics.with(|metrics| metrics.state(transition.to));
            *last = Some(*transition);
            true
        });
    }
}

impl fmt::Debug for CircuitBreakerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerHandle").field("name", &self.shared.name).field("state", &self.state()).finish()
    }
}

/// One admitted call. Hand in its outcome with [`finish`](Self::finish); dropped, it counts as cancelled.
#[must_use = "an admission that is dropped counts as a cancelled call"]
pub struct Admission {
    breaker: Lent<Shared>,
    /// Taken when the outcome is handed in.
    permit: Option<Permit>,
}

impl Admission {
    /// Hands in the outcome of the call.
    #[inline]
    pub fn finish(mut self, outcome: Outcome) {
        self.report(outcome);
    }

    /// As [`finish`](Self::finish), in place.
    #[inline]
    pub(super) fn report(&mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take() {
            self.breaker.report(permit, outcome);
        }
    }

    /// Runs the inner service; if it panics, the call has failed.
    #[inline]
    pub(super) fn within<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let unwinding = Unwinding(self);
        let result = f();
        mem::forget(unwinding);
        result
    }
}

impl Drop for Admission {
    #[inline]
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.breaker.report_cut_off(permit, Outcome::Cancelled);
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("name", &self.breaker.name).field("permit", &self.permit).finish()
    }
}

/// Dropped only by a panic of the inner service.
struct Unwinding<'a>(&'a mut Admission);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.0.permit.take() {
            self.0.breaker.report_cut_off(permit, Outcome::Failure);
        }
    }
}

/// A probe held by a service that is ready; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    breaker: CircuitBreakerHandle,
    permit: Option<Permit>,
}

impl Reservation {
    pub(super) fn holds(&self) -> bool {
        self.permit.as_ref().is_some_and(|permit| self.breaker.shared.breaker.holds(permit, clock::read()))
    }

    /// The call for which the probe was reserved; `None` if it has expired.
    pub(super) fn claim(mut self, now: std::time::Duration) -> Option<Admission> {
        let permit = self.permit.take()?;
        let shared = &self.breaker.shared;
        let permit = shared.metrics.with(|metrics| {
            let permit = shared.breaker.claim(permit, now)?;
            metrics.calls.start();
            Some(permit)
        })?;
        Some(Admission { breaker: Lent::of(shared), permit: Some(permit) })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            let effect = self.breaker.shared.breaker.release(permit);
            self.breaker.shared.publish(effect);
        }
    }
}

/// Not now; ask again at `until`, if time alone can help, or when woken.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) until: Option<std::time::Duration>,
}
