//! The layer.

use std::fmt;

use ::http::StatusCode;
use tower_layer::Layer;

use super::policy::{EmptyBody, StatusOf, status_or_500};
use super::service::RejectedToResponse;
use crate::error::BoxError;

/// Answers the errors of what is below with responses, so that nothing but responses leaves it: outermost of the layers
/// around a handler.
///
/// A [`Rejected`](crate::Rejected) is answered with `Retry-After` where the core knows the time, in whole seconds rounded up;
/// that header is what this layer allocates. Other calls allocate nothing here.
#[derive(Clone, Copy)]
pub struct RejectedToResponseLayer<C = StatusOf, M = EmptyBody> {
    status: C,
    problem: M,
}

impl RejectedToResponseLayer {
    /// The statuses of the table in the [module](super), and empty bodies.
    pub const fn new() -> Self {
        Self { status: status_or_500, problem: EmptyBody }
    }
}

impl Default for RejectedToResponseLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<C, M> RejectedToResponseLayer<C, M> {
    /// Sets the status of every error.
    ///
    /// # Example
    /// ```
    /// use http::StatusCode;
    /// use seawall::{BoxError, http::{RejectedToResponseLayer, status_of}};
    ///
    /// // A gateway: what fails is whoever is behind it.
    /// let status = |error: &BoxError| status_of(&**error).unwrap_or(StatusCode::BAD_GATEWAY);
    /// let layer = RejectedToResponseLayer::new().status(status);
    /// # let _ = layer;
    /// ```
    pub fn status<D>(self, status: D) -> RejectedToResponseLayer<D, M>
    where
        D: Fn(&BoxError) -> StatusCode,
    {
        RejectedToResponseLayer { status, problem: self.problem }
    }

    /// Sets how the response to an error is made: a [`Problem`](super::Problem), such as a closure. The layer sets its status
    /// and its `Retry-After`.
    ///
    /// # Example
    /// ```
    /// use http::{Response, StatusCode, header::CONTENT_TYPE};
    /// use seawall::{BoxError, http::RejectedToResponseLayer};
    ///
    /// let layer = RejectedToResponseLayer::new().problem(|status: StatusCode, _: &BoxError| {
    ///     let mut response = Response::new(format!(r#"{{"title":"{}"}}"#, status.canonical_reason().unwrap_or_default()));
    ///     response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/problem+json"));
    ///     response
    /// });
    /// # let _ = layer;
    /// ```
    pub fn problem<N>(self, problem: N) -> RejectedToResponseLayer<C, N> {
        RejectedToResponseLayer { status: self.status, problem }
    }
}

impl<S, C: Clone, M: Clone> Layer<S> for RejectedToResponseLayer<C, M> {
    type Service = RejectedToResponse<S, C, M>;

    fn layer(&self, inner: S) -> Self::Service {
        RejectedToResponse::new(inner, self.status.clone(), self.problem.clone())
    }
}

impl<C, M> fmt::Debug for RejectedToResponseLayer<C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectedToResponseLayer").finish_non_exhaustive()
    }
}
