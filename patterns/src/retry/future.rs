//! The future of a call and of all its attempts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower_service::Service;

use super::backoff::Stop;
use super::handle::{Call, Core, Making, Next};
use super::policy::RetryPolicy;
use crate::clock;
use crate::deadline;
use crate::error::BoxError;
use crate::lent::Lent;
use crate::sync::Arc;

pin_project! {
    /// A call with its retries.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, P, Request>
    where
        S: Service<Request>,
    {
        #[pin]
        state: State<S::Future, S::Response, S::Error>,
        // What a retry needs: a clone of the service and a copy of the request. Either both are there, or neither.
        service: Option<S>,
        request: Option<Request>,
        policy: P,
        call: Call,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, T, E> {
        Calling {
            #[pin]
            future: F,
        },
        // Attempt failed → delay before the next. The last result is kept: it is the answer if there is no next attempt.
        Waiting {
            last: Option<Result<T, E>>,
        },
        // Delay is over → the service is polled ready.
        Readying {
            last: Option<Result<T, E>>,
        },
        Done,
    }
}

impl<S, P, Request> ResponseFuture<S, P, Request>
where
    S: Service<Request>,
{
    #[inline(always)]
    pub(super) fn new(future: S::Future, service: Option<S>, request: Option<Request>, policy: P, call: Call) -> Self {
        Self { state: State::Calling { future }, service, request, policy, call }
    }

    /// Attempts that were sent so far, the first included; after the result, all of them.
    pub fn attempts(&self) -> u32 {
        self.call.attempts()
    }

    /// How long ago the call started. Reads the clock.
    pub fn elapsed(&self) -> Duration {
        self.call.elapsed()
    }

    /// The same call, with a report of its attempts beside the result.
    pub fn reported(self) -> Reported<Self> {
        Reported { call: self }
    }
}

impl<S, P> ResponseFuture<S, P, ()>
where
    S: Service<()>,
{
    /// Makes the first attempt of a service that needs no readiness.
    pub(super) fn first(mut service: S, policy: P, core: &Arc<Core>) -> Self {
        let entered = clock::enter();
        let (again, lent) = (core.retries_at_all(), Lent::of(core));
        let making = Making::start(core, entered.now());
        let future = service.call(());
        Self::new(future, again.then_some(service), again.then_some(()), policy, making.made(lent))
    }
}

impl<S, P, Request> Future for ResponseFuture<S, P, Request>
where
    S: Service<Request>,
    S::Error: Into<BoxError>,
    P: RetryPolicy<Request, S::Response, S::Error>,
{
    type Output = Result<S::Response, BoxError>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let call = this.call;
        let output = loop {
            let next = match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    let result = ready!(call.step(|| future.poll(cx)));
                    let Some(request) = this.request.as_ref() else {
                        call.unjudged(result.is_ok());
                        break result.map_err(Into::into);
                    };
                    match call.decided(this.policy.decide(request, &result, call.attempt())) {
                        Next::Stands => break result.map_err(Into::into),
                        Next::Stop(stop) => break call.gave_up(stop, result.map_err(Into::into)),
                        Next::AfterWait => State::Waiting { last: Some(result) },
                    }
                }
                StateProj::Waiting { last } => {
                    ready!(call.poll_timer(cx));
                    State::Readying { last: last.take() }
                }
                StateProj::Readying { last } => {
                    let (Some(service), Some(request)) = (this.service.as_mut(), this.request.as_ref()) else {
                        return Poll::Pending;
                    };
                    let stop = match call.step(|| deadline::suspended(|| service.poll_ready(cx))) {
                        Poll::Ready(Ok(())) => match call.in_time().map(|()| this.policy.clone_request(request)) {
                            Ok(Some(copy)) => {
                                let _now = clock::enter();
                                call.sent();
                                let future = call.step(|| service.call(copy));
                                this.state.set(State::Calling { future });
                                continue;
                            }
                            Ok(None) => Stop::Policy,
                            Err(stop) => stop,
                        },
                        Poll::Ready(Err(error)) => break call.gave_up(Stop::NotReady, Err(error.into())),
                        Poll::Pending => ready!(call.poll_ready_limit(cx)),
                    };
                    let Some(last) = last.take() else { return Poll::Pending };
                    break call.gave_up(stop, last.map_err(Into::into));
                }
                StateProj::Done => {
                    debug_assert!(false, "polled after it was ready");
                    return Poll::Pending;
                }
            };
            this.state.set(next);
        };
        // Future, clone and copy go now and not when somebody drops this one: with them goes what they hold.
        this.state.set(State::Done);
        *this.service = None;
        *this.request = None;
        Poll::Ready(output)
    }
}

impl<S, P, Request> fmt::Debug for ResponseFuture<S, P, Request>
where
    S: Service<Request>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("retry::ResponseFuture").field("attempts", &self.attempts()).finish_non_exhaustive()
    }
}

/// What a call took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryReport {
    /// Attempts that were sent, the first included.
    pub attempts: u32,
    /// From the call to its result, all attempts and waits included.
    pub elapsed: Duration,
}

pin_project! {
    /// A call that gives its [`RetryReport`] beside the result; made by [`ResponseFuture::reported`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Reported<F> {
        #[pin]
        call: F,
    }
}

impl<S, P, Request> Future for Reported<ResponseFuture<S, P, Request>>
where
    S: Service<Request>,
    S::Error: Into<BoxError>,
    P: RetryPolicy<Request, S::Response, S::Error>,
{
    type Output = (Result<S::Response, BoxError>, RetryReport);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut call = self.project().call;
        let result = ready!(call.as_mut().poll(cx));
        Poll::Ready((result, RetryReport { attempts: call.attempts(), elapsed: call.elapsed() }))
    }
}
