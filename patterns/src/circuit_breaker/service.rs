//! The service: readiness, and who is called.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::time::Sleep;
use tower_service::Service;

use super::config::OnOpen;
use super::future::ResponseFuture;
use super::handle::{Admission, CircuitBreakerHandle, Reservation};
use super::policy::{AtOnce, Conclude, NeverRefuse, NoExemption};
use crate::clock;
use crate::error::BoxError;

/// A service behind a circuit breaker; made by [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
pub struct CircuitBreaker<S, P = AtOnce, N = NoExemption> {
    inner: S,
    handle: CircuitBreakerHandle,
    policy: P,
    exempt: N,
    /// The inner service was asked whether it is ready. It may hold a reservation of its own, or a place in a queue that
    /// becomes one while nobody polls it.
    inner_asked: bool,
    /// The probe under which this service is ready; only with [`OnOpen::NotReady`] and half-open.
    reservation: Option<Reservation>,
    /// What wakes a service that is not ready; kept from one poll to the next.
    waiting: Option<Waiting>,
}

struct Waiting {
    woken: Pin<Box<OwnedNotified>>,
    /// The next instant at which time alone may help, and the timer for it.
    timer: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl<S, P, N> CircuitBreaker<S, P, N> {
    pub(super) fn new(inner: S, handle: CircuitBreakerHandle, policy: P, exempt: N) -> Self {
        Self { inner, handle, policy, exempt, inner_asked: false, reservation: None, waiting: None }
    }

    /// The breaker itself.
    pub fn handle(&self) -> CircuitBreakerHandle {
        self.handle.clone()
    }

    /// The service below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The call for which a probe was reserved, if the reservation is still good.
    #[cold]
    fn claim(&mut self, entered: &mut Option<clock::Entered>) -> Option<Admission> {
        self.reservation.take()?.claim(entered.get_or_insert_with(clock::enter).now())
    }

    /// Waits until the breaker lets somebody in; reserves a probe if it is half-open.
    #[inline(never)]
    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.reservation.as_ref().is_some_and(Reservation::holds) {
            return Poll::Ready(());
        }
        self.reservation = None;
        loop {
            let wait = match self.handle.reserve() {
                Ok(reservation) => {
                    self.reservation = reservation;
                    self.waiting = None;
                    return Poll::Ready(());
                }
                Err(wait) => wait,
            };
            let Some(waiting) = &mut self.waiting else {
                // Listen first and ask once more: a change between the question and the listening would wake nobody.
                self.waiting = Some(Waiting { woken: self.handle.woken(), timer: None });
                continue;
            };
            if waiting.woken.as_mut().poll(cx).is_ready() {
                waiting.woken = self.handle.woken();
                continue;
            }
            match (wait.until, &mut waiting.timer) {
                (None, timer) => *timer = None,
                (Some(until), Some((at, _))) if *at == until => {}
                (Some(until), timer) => {
                    *timer = Some((until, Box::pin(tokio::time::sleep_until(clock::to_instant(until)))));
                }
            }
            match &mut waiting.timer {
                Some((_, sleep)) => ready!(sleep.as_mut().poll(cx)),
                None => return Poll::Pending,
            }
            waiting.timer = None;
        }
    }
}

impl<S: Clone, P, N> CircuitBreaker<S, P, N> {
    /// Gives back whatever the inner service has reserved for the call that does not come.
    fn release_inner(&mut self) {
        self.inner = self.inner.clone();
        self.inner_asked = false;
    }
}

impl<S, P, N, Req> Service<Req> for CircuitBreaker<S, P, N>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    P: Conclude<S::Response, S::Error> + Clone,
    N: NeverRefuse<Req>,
{
    type Response = P::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, P>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.handle.on_open() == OnOpen::NotReady && self.poll_gate(cx).is_pending() {
            if self.inner_asked {
                self.release_inner();
            }
            return Poll::Pending;
        }
        self.inner_asked = true;
        let ready = ready!(self.inner.poll_ready(cx)).map_err(Into::into);
        if ready.is_err() {
            // This service will not be called any more; the probe goes to one that will.
            self.reservation = None;
        }
        Poll::Ready(ready)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // One reading for this layer and those below, taken only if the breaker asks for it.
        let mut entered = None;
        let reserved = if self.reservation.is_some() { self.claim(&mut entered) } else { None };
        let admission = match reserved {
            Some(admission) => Ok(admission),
            None => {
                let now = || entered.get_or_insert_with(clock::enter).now();
                self.handle.ask(self.exempt.never_refuse(&request), now)
            }
        };
        match admission {
            Ok(mut admission) => {
                self.inner_asked = false;
                let future = admission.within(|| self.inner.call(request));
                ResponseFuture::running(future, admission, self.policy.clone())
            }
            Err(refusal) => {
                self.release_inner();
                ResponseFuture::refused(self.handle.error(refusal))
            }
        }
    }
}

impl<S: Clone, P: Clone, N: Clone> Clone for CircuitBreaker<S, P, N> {
    /// Shares the breaker; a reservation is never copied.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.handle.clone(), self.policy.clone(), self.exempt.clone())
    }
}

impl<S: fmt::Debug, P, N> fmt::Debug for CircuitBreaker<S, P, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker").field("inner", &self.inner).field("handle", &self.handle).finish()
    }
}
