//! The service: readiness, and who is called.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tower_service::Service;

use super::admit::{Admit, Core, Decision, Gate, Reserved};
use super::future::{ResponseFuture, Start};
use super::later::Later;
use super::permit::{Making, Permit};
use super::policy::{AtAnswer, End};
use crate::clock;
use crate::error::{BoxError, Refusal};
use crate::mode::{Mode, Waiting};

/// A service behind a limit.
pub struct Limited<S, A: Gate, E = AtAnswer> {
    inner: S,
    gate: A,
    end: E,
    /// What the next call spends; only where callers wait in readiness.
    reserved: Option<Permit<A::Core>>,
    /// The place in line of a service that is not ready; likewise.
    queued: Option<Pin<Box<A::Wait>>>,
}

impl<S, A: Gate, E> Limited<S, A, E> {
    pub(super) fn new(inner: S, gate: A, end: E) -> Self {
        Self { inner, gate, end, reserved: None, queued: None }
    }

    /// The service below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Waits until one unit is reserved for the next call, or until that is for the call to decide.
    fn poll_reserved(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.reserved.is_none() {
            if let Some(queued) = &mut self.queued {
                // If it ends without a permit, then `call` asks again and tells why.
                self.reserved = ready!(queued.as_mut().poll(cx)).ok();
                self.queued = None;
                break;
            }
            match self.gate.reserve() {
                Reserved::Now(permit) => self.reserved = Some(permit),
                Reserved::Wait(wait) => self.queued = Some(Box::pin(wait)),
                Reserved::Undecided => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S, A, E, Req> Service<Req> for Limited<S, A, E>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    A: Admit<Req>,
    E: End<S::Response, S::Error, A::Core> + Clone,
{
    type Response = E::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, A, Req, E>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.gate.waiting() == Waiting::InReadiness {
            ready!(self.poll_reserved(cx));
        }
        let ready = ready!(self.inner.poll_ready(cx)).map_err(Into::into);
        if ready.is_err() {
            // This service will not be called any more; the unit goes to one that will.
            self.reserved = None;
        }
        Poll::Ready(ready)
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        // Held to the end: what is below takes its time from this reading.
        let _now = self.gate.reads_the_clock().then(clock::enter);
        if self.reserved.is_some()
            && let Some(permit) = self.reserved.take()
        {
            return ResponseFuture::new(self.call_under(permit, request), self.end.clone());
        }
        let units = match self.gate.core().account().mode() {
            Mode::Disabled => Ok(Default::default()),
            _ => self.gate.try_admit(&request),
        };
        match units {
            Ok(units) => {
                let making = Making::start(self.gate.core(), units);
                let core = self.gate.core().lend();
                let future = self.inner.call(request);
                ResponseFuture::new(Start::Running(future, making.made(core)), self.end.clone())
            }
            Err(refusal) => ResponseFuture::new(self.call_later(request, refusal), self.end.clone()),
        }
    }
}

impl<S: Clone, A: Gate, E> Limited<S, A, E> {
    fn call_under<Req>(&mut self, permit: Permit<A::Core>, request: Req) -> Start<S, A, Req>
    where
        S: Service<Req>,
    {
        let mut permit = permit.start();
        let future = permit.within(|| self.inner.call(request));
        Start::Running(future, permit)
    }

    #[cold]
    fn call_later<Req>(&mut self, request: Req, refusal: Refusal) -> Start<S, A, Req>
    where
        S: Service<Req>,
        A: Admit<Req>,
    {
        match self.gate.admit_later(&request, refusal) {
            Decision::Admitted(permit) => self.call_under(permit, request),
            Decision::Wait(wait) => {
                self.release_inner();
                Start::Waiting(Box::pin(Later::new(wait, self.inner.clone(), request)))
            }
            Decision::Refused(rejected) => {
                self.release_inner();
                Start::Refused(rejected.into())
            }
        }
    }

    /// Gives back whatever the inner service has reserved for the call that is not made now.
    fn release_inner(&mut self) {
        let fresh = self.inner.clone();
        drop(mem::replace(&mut self.inner, fresh));
    }
}

impl<S: Clone, A: Gate + Clone, E: Clone> Clone for Limited<S, A, E> {
    /// Shares the limit; a reservation is never copied.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.gate.clone(), self.end.clone())
    }
}

impl<S: fmt::Debug, A: Gate + fmt::Debug, E> fmt::Debug for Limited<S, A, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited").field("inner", &self.inner).field("gate", &self.gate).finish_non_exhaustive()
    }
}
