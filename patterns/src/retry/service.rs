//! The service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::future::ResponseFuture;
use super::handle::{Core, Making};
use super::policy::RetryPolicy;
use crate::clock;
use crate::error::BoxError;
use crate::lent::Lent;
use crate::sync::Arc;

/// Tries again what its policy says is worth it; made by [`RetryLayer`](crate::RetryLayer).
///
/// # Errors
/// The error of the inner service where the first attempt settled it, else [`GaveUp`](crate::GaveUp) with the last error as its
/// source.
#[derive(Clone)]
pub struct Retry<S, P> {
    inner: S,
    policy: P,
    core: Arc<Core>,
}

impl<S, P> Retry<S, P> {
    pub(super) fn new(inner: S, policy: P, core: Arc<Core>) -> Self {
        Self { inner, policy, core }
    }
}

impl<S: fmt::Debug, P> fmt::Debug for Retry<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, P, Request> Service<Request> for Retry<S, P>
where
    S: Service<Request> + Clone,
    S::Error: Into<BoxError>,
    P: RetryPolicy<Request, S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, P, Request>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline(always)]
    fn call(&mut self, request: Request) -> ResponseFuture<S, P, Request> {
        // Held to the end: what is below takes its time from this reading.
        let entered = clock::enter();
        let copy = if self.core.retries_at_all() { self.policy.clone_request(&request) } else { None };
        // The clone is for retries; the readied service makes the first attempt, with what it holds in reserve.
        let spare = copy.is_some().then(|| self.inner.clone());
        let (policy, core) = (self.policy.clone(), Lent::of(&self.core));
        let making = Making::start(&self.core, entered.now());
        let future = self.inner.call(request);
        ResponseFuture::new(future, spare, copy, policy, making.made(core))
    }
}

/// An operation as a service without a request; made by [`RetryHandle::call`](crate::RetryHandle::call).
#[derive(Debug, Clone)]
pub struct Operation<F>(pub(super) F);

impl<F, Fut, T, E> Service<()> for Operation<F>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Response = T;
    type Error = BoxError;
    type Future = OperationFuture<Fut>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> OperationFuture<Fut> {
        OperationFuture { future: (self.0)() }
    }
}

pin_project! {
    /// One attempt of an [`Operation`].
    #[derive(Debug)]
    pub struct OperationFuture<F> {
        #[pin]
        future: F,
    }
}

impl<F, T, E> Future for OperationFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(cx).map_err(Into::into)
    }
}
