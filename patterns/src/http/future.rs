//! The future of a call.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::header::RETRY_AFTER;
use ::http::{Response, StatusCode};
use pin_project_lite::pin_project;

use super::policy::{Problem, seconds_up};
use crate::error::{BoxError, Rejected};

pin_project! {
    /// A call whose error becomes a response. Dropping it drops the call.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C, M> {
        #[pin]
        call: Call<F>,
        status: C,
        problem: M,
    }
}

pin_project! {
    #[project = CallProjection]
    enum Call<F> {
        Calling { #[pin] future: F },
        Failed { error: Option<BoxError> },
    }
}

impl<F, C, M> ResponseFuture<F, C, M> {
    pub(super) const fn calling(future: F, status: C, problem: M) -> Self {
        Self { call: Call::Calling { future }, status, problem }
    }

    pub(super) const fn failed(error: BoxError, status: C, problem: M) -> Self {
        Self { call: Call::Failed { error: Some(error) }, status, problem }
    }
}

impl<F, C, M, B, E> Future for ResponseFuture<F, C, M>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    C: Fn(&BoxError) -> StatusCode,
    M: Problem<B>,
{
    type Output = Result<Response<B>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = match this.call.as_mut().project() {
            CallProjection::Calling { future } => ready!(future.poll(cx)).map_err(Into::into),
            CallProjection::Failed { error } => match error.take() {
                Some(error) => Err(error),
                None => {
                    debug_assert!(false, "polled after it was ready");
                    return Poll::Pending;
                }
            },
        };
        // The inner future goes now and not when somebody drops this one: with it goes what it holds.
        this.call.set(Call::Failed { error: None });
        Poll::Ready(Ok(result.unwrap_or_else(|error| answer(this.status, this.problem, &error))))
    }
}

#[cold]
fn answer<C, M, B>(status: &C, problem: &M, error: &BoxError) -> Response<B>
where
    C: Fn(&BoxError) -> StatusCode,
    M: Problem<B>,
{
    let status = status(error);
    let mut response = problem.problem(status, error);
    *response.status_mut() = status;
    if let Some(after) = Rejected::find(&**error).and_then(|rejected| rejected.retry_after) {
        response.headers_mut().insert(RETRY_AFTER, seconds_up(after));
    }
    response
}

impl<F, C, M> fmt::Debug for ResponseFuture<F, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("http::ResponseFuture").finish_non_exhaustive()
    }
}
