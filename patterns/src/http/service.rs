//! The service.

use std::convert::Infallible;
use std::fmt;
use std::task::{Context, Poll, ready};

use ::http::{Response, StatusCode};
use tower_service::Service;

use super::future::ResponseFuture;
use super::policy::{EmptyBody, Problem, StatusOf};
use crate::error::BoxError;

/// A service whose errors are responses; made by [`RejectedToResponseLayer`](super::RejectedToResponseLayer).
///
/// An error of the inner service's readiness is the answer to the next call, for which the inner service is not called.
pub struct RejectedToResponse<S, C = StatusOf, M = EmptyBody> {
    inner: S,
    status: C,
    problem: M,
    /// The inner service failed to become ready.
    failed: Option<BoxError>,
}

impl<S, C, M> RejectedToResponse<S, C, M> {
    pub(super) const fn new(inner: S, status: C, problem: M) -> Self {
        Self { inner, status, problem, failed: None }
    }
}

impl<S, C, M, Req, B> Service<Req> for RejectedToResponse<S, C, M>
where
    S: Service<Req, Response = Response<B>>,
    S::Error: Into<BoxError>,
    C: Fn(&BoxError) -> StatusCode + Clone,
    M: Problem<B> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future, C, M>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.failed.is_none() {
            self.failed = ready!(self.inner.poll_ready(cx)).err().map(Into::into);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (status, problem) = (self.status.clone(), self.problem.clone());
        match self.failed.take() {
            None => ResponseFuture::calling(self.inner.call(request), status, problem),
            Some(error) => ResponseFuture::failed(error, status, problem),
        }
    }
}

impl<S: Clone, C: Clone, M: Clone> Clone for RejectedToResponse<S, C, M> {
    /// The error of a readiness is not copied.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.status.clone(), self.problem.clone())
    }
}

impl<S: fmt::Debug, C, M> fmt::Debug for RejectedToResponse<S, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectedToResponse").field("inner", &self.inner).finish_non_exhaustive()
    }
}
