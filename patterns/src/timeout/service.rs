//! The service.

use std::mem;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::ResponseFuture;
use super::handle::TimeoutHandle;
use crate::clock;
use crate::error::BoxError;

/// Bounds how long a call of the inner service may take; made by [`TimeoutLayer`](crate::TimeoutLayer).
///
/// A future that is dropped drops the call of the inner service; it counts as neutral.
#[derive(Debug, Clone)]
pub struct Timeout<S> {
    inner: S,
    handle: TimeoutHandle,
}

impl<S> Timeout<S> {
    pub(super) fn new(inner: S, handle: TimeoutHandle) -> Self {
        Self { inner, handle }
    }
}

impl<S, Request> Service<Request> for Timeout<S>
where
    S: Service<Request> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline(always)]
    fn call(&mut self, request: Request) -> ResponseFuture<S::Future> {
        // Held to the end: what is below takes its time from this reading.
        let entered = clock::enter();
        match self.handle.run(entered.now(), request, |request| self.inner.call(request)) {
            Ok((future, running)) => ResponseFuture::running(future, running),
            Err(rejected) => {
                // The inner service was readied for a call that is not made: what it holds in reserve goes back at once.
                let fresh = self.inner.clone();
                drop(mem::replace(&mut self.inner, fresh));
                ResponseFuture::refused(rejected)
            }
        }
    }
}
