//! The future of a call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use super::handle::Running;
use crate::error::{BoxError, Elapsed, Rejected};

pin_project! {
    /// A call that runs within its limit, or was refused.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Running {
            #[pin]
            future: F,
            // Made when `future` is pending for the first time: a call that is answered at once needs none.
            #[pin]
            timer: Option<Sleep>,
            running: Running,
        },
        Refused {
            error: Option<BoxError>,
        },
        Done,
    }
}

impl<F> ResponseFuture<F> {
    #[inline(always)]
    pub(super) fn running(future: F, running: Running) -> Self {
        Self { state: State::Running { future, timer: None, running } }
    }

    #[inline]
    pub(super) fn refused(rejected: Rejected) -> Self {
        Self { state: State::Refused { error: Some(rejected.into()) } }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let output = match state.as_mut().project() {
            StateProj::Running { future, timer, running } => match running.step(|| future.poll(cx)) {
                Poll::Ready(result) => match result.map_err(Into::into) {
                    Err(error) if running.cut_below(&error) => Err(running.elapsed().into()),
                    result => {
                        running.answered(result.is_ok());
                        result
                    }
                },
                Poll::Pending => match running.poll_limit(timer, cx) {
                    Poll::Ready(elapsed) => Err(elapsed.into()),
                    Poll::Pending => return Poll::Pending,
                },
            },
            StateProj::Refused { error } => match error.take() {
                Some(error) => Err(error),
                None => return Poll::Pending,
            },
            StateProj::Done => {
                debug_assert!(false, "polled after it was ready");
                return Poll::Pending;
            }
        };
        // The inner future goes now and not when somebody drops this one: with it goes what it holds.
        state.set(State::Done);
        Poll::Ready(output)
    }
}

impl Running {
    /// The call is pending: until the limit is reached. Apart from the poll, which is short without it where it is not needed.
    #[inline(never)]
    fn poll_limit(&mut self, mut timer: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> Poll<Elapsed> {
        let Some(deadline) = self.deadline() else { return Poll::Pending };
        if timer.is_none() {
            timer.set(Some(sleep_until(deadline.instant())));
        }
        let fired = timer.as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready());
        // A timer is never ready in a task that has used up its share of the scheduler's turn, and a busy inner future may use
        // it up in every poll. The clock tells the truth then.
        if fired || deadline.has_passed() { Poll::Ready(self.elapsed()) } else { Poll::Pending }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("timeout::ResponseFuture").finish_non_exhaustive()
    }
}
