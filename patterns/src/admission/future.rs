//! The futures: of a call through the layer, of a plain operation, and of a plain permit.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::admit::{Core, Gate, Wait};
use super::later::Later;
use super::permit::Permit;
use super::policy::{AtAnswer, End};
use crate::error::{BoxError, Rejected};

pin_project! {
    /// A call through a limit: under way, in line, or refused. Dropping it drops the call of the inner service, then the
    /// permit, or gives up the place in line.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, A, Req, E = AtAnswer>
    where
        S: Service<Req>,
        A: Gate,
    {
        #[pin]
        state: State<S::Future, A::Core, Later<S, A, Req>>,
        end: E,
    }
}

pin_project! {
    // As small as can be, since it moves with every call: what a call needs to wait lies elsewhere.
    #[project = Projection]
    enum State<F, C: Core, L> {
        // The inner future is dropped before the permit is given back.
        Running { #[pin] future: F, permit: Option<Permit<C>> },
        Waiting { later: Pin<Box<L>> },
        Refused { error: Option<BoxError> },
        Done,
    }
}

/// How a call begins.
pub(super) enum Start<S: Service<Req>, A: Gate, Req> {
    Running(S::Future, Permit<A::Core>),
    Waiting(Pin<Box<Later<S, A, Req>>>),
    Refused(BoxError),
}

impl<S, A, Req, E> ResponseFuture<S, A, Req, E>
where
    S: Service<Req>,
    A: Gate,
{
    #[inline(always)]
    pub(super) fn new(start: Start<S, A, Req>, end: E) -> Self {
        let state = match start {
            Start::Running(future, permit) => State::Running { future, permit: Some(permit) },
            Start::Waiting(later) => State::Waiting { later },
            Start::Refused(error) => State::Refused { error: Some(error) },
        };
        Self { state, end }
    }
}

impl<S, A, Req, E> Future for ResponseFuture<S, A, Req, E>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    A: Gate,
    E: End<S::Response, S::Error, A::Core>,
{
    type Output = Result<E::Response, BoxError>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut state = this.state;
        if let Projection::Waiting { later } = state.as_mut().project() {
            match ready!(later.as_mut().poll(cx)) {
                Ok((future, permit)) => state.set(State::Running { future, permit: Some(permit) }),
                Err(error) => state.set(State::Refused { error: Some(error) }),
            }
        }
        let output = match state.as_mut().project() {
            Projection::Running { future, permit } => {
                let Some(running) = permit else { return Poll::Pending };
                let answer = ready!(running.within(|| future.poll(cx)));
                // In place: to move what was just written is slow.
                this.end.end(answer, permit)
            }
            Projection::Refused { error } => match error.take() {
                Some(error) => Err(error),
                None => return Poll::Pending,
            },
            Projection::Waiting { .. } | Projection::Done => {
                debug_assert!(false, "polled after it was ready");
                return Poll::Pending;
            }
        };
        // The inner future goes now and not when somebody drops this one: with it goes what it holds.
        state.set(State::Done);
        Poll::Ready(output)
    }
}

impl<S, A, Req, E> fmt::Debug for ResponseFuture<S, A, Req, E>
where
    S: Service<Req>,
    A: Gate,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("admission::ResponseFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// Waits for a permit. It asks when it is polled for the first time, and stands in line from then on.
    ///
    /// # Errors
    /// [`Rejected`] with the reason.
    ///
    /// # Cancellation
    /// Dropped, it leaves the line; what it was granted in that moment goes to the next.
    #[must_use = "futures do nothing unless polled"]
    pub struct Acquire<W> {
        #[pin]
        wait: W,
    }
}

impl<W: Wait> Acquire<W> {
    pub(crate) fn new(wait: W) -> Self {
        Self { wait }
    }
}

impl<W: Wait> Future for Acquire<W> {
    type Output = Result<Permit<W::Core>, Rejected>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut wait = self.project().wait;
        let granted = ready!(wait.as_mut().poll(cx));
        Poll::Ready(granted.or_else(|refusal| Permit::refused(wait.core(), refusal)).map(Permit::start))
    }
}

impl<W: Wait> fmt::Debug for Acquire<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").finish_non_exhaustive()
    }
}

pin_project! {
    /// Runs a future under a permit, for which it asks when it is polled for the first time.
    ///
    /// # Errors
    /// [`Rejected`] if there is none, and the future is dropped unpolled; else what the future ends with.
    ///
    /// # Cancellation
    /// Dropping it drops the future and gives the permit back, or leaves the line.
    #[must_use = "futures do nothing unless polled"]
    pub struct Run<F, W: Wait> {
        #[pin]
        state: RunState<F, W, W::Core>,
    }
}

pin_project! {
    #[project = RunProjection]
    enum RunState<F, W, C: Core> {
        Acquiring { #[pin] acquire: Acquire<W>, future: Option<F> },
        Running { #[pin] future: F, permit: Permit<C> },
        Done,
    }
}

impl<F, W: Wait> Run<F, W> {
    pub(crate) fn new(wait: W, future: F) -> Self {
        Self { state: RunState::Acquiring { acquire: Acquire::new(wait), future: Some(future) } }
    }
}

impl<F, W, T, E> Future for Run<F, W>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    W: Wait,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let output = loop {
            let next = match state.as_mut().project() {
                RunProjection::Acquiring { acquire, future } => match ready!(acquire.poll(cx)) {
                    Ok(permit) => {
                        let Some(future) = future.take() else { return Poll::Pending };
                        RunState::Running { future, permit }
                    }
                    Err(rejected) => break Err(rejected.into()),
                },
                RunProjection::Running { future, permit } => {
                    let result = ready!(permit.within(|| future.poll(cx)));
                    permit.answered(result.is_ok());
                    break result.map_err(Into::into);
                }
                RunProjection::Done => {
                    debug_assert!(false, "polled after it was ready");
                    return Poll::Pending;
                }
            };
            state.set(next);
        };
        state.set(RunState::Done);
        Poll::Ready(output)
    }
}

impl<F, W: Wait> fmt::Debug for Run<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").finish_non_exhaustive()
    }
}
