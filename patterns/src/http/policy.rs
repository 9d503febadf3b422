//! What errors and responses mean: the status of an error, the health of who gave a response.

use std::error::Error;
use std::time::Duration;

use ::http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use ::http::{Request, Response, StatusCode};
use ::http_body::Body;

use super::body::GuardedBody;
use crate::admission::{Core, End, Permit};
use crate::circuit_breaker::{Admission, ByError, Classify, Conclude, Outcome};
use crate::error::{BoxError, Elapsed, Reason, Rejected, find};
use crate::retry::{Attempt, Decision, RetryPolicy};

/// The status for a [`Rejected`] or an [`Elapsed`] in `error` or among its sources; `None` if there is neither. See the table
/// of the [module](super).
///
/// # Example
/// ```
/// use seawall::{Reason, Rejected, http::status_of};
///
/// let status = |reason| status_of(&Rejected::new("layer", "api", reason)).unwrap().as_u16();
/// assert_eq!(status(Reason::Limited), 429);
/// assert_eq!(status(Reason::Open), 503);
/// assert_eq!(status_of(&std::io::Error::other("broken pipe")), None);
/// ```
pub fn status_of(error: &(dyn Error + 'static)) -> Option<StatusCode> {
    match Rejected::find(error) {
        Some(rejected) => Some(match rejected.reason {
            Reason::Limited | Reason::Never => StatusCode::TOO_MANY_REQUESTS,
            // Also what is added later: whoever says "not now" without blaming the caller is unavailable.
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }),
        None => find::<Elapsed>(error).map(|_| StatusCode::GATEWAY_TIMEOUT),
    }
}

/// The function behind [`RejectedToResponseLayer::status`](super::RejectedToResponseLayer::status) by default.
pub type StatusOf = fn(&BoxError) -> StatusCode;

/// [`status_of`], and 500 for every other error.
pub(super) fn status_or_500(error: &BoxError) -> StatusCode {
    status_of(&**error).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// How long a server asks its callers to stay away: the header `Retry-After` in seconds. `None` if there is none, or a date,
/// whose meaning depends on two clocks that may not agree.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
///
/// let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("120"))]);
/// assert_eq!(seawall::http::retry_after(&headers), Some(Duration::from_secs(120)));
/// ```
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// `wait` in whole seconds, rounded up: who comes back after it does not come too early.
pub(super) fn seconds_up(wait: Duration) -> HeaderValue {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).into()
}

/// Makes the response to an error.
///
/// Closures `Fn(StatusCode, &BoxError) -> Response<B>` do.
pub trait Problem<B> {
    /// The response to `error`, but for its status and its `Retry-After`, which the layer sets.
    fn problem(&self, status: StatusCode, error: &BoxError) -> Response<B>;
}

impl<F, B> Problem<B> for F
where
    F: Fn(StatusCode, &BoxError) -> Response<B>,
{
    fn problem(&self, status: StatusCode, error: &BoxError) -> Response<B> {
        self(status, error)
    }
}

/// Answers an error with the default of the body, which is empty: an error may tell more of the inside than a caller should
/// know.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmptyBody;

impl<B: Default> Problem<B> for EmptyBody {
    fn problem(&self, _: StatusCode, _: &BoxError) -> Response<B> {
        Response::default()
    }
}

/// Judges responses by their status.
///
/// - For a circuit breaker 429 and 503 are an overload with the server's `Retry-After`, any other 5xx is a failure, the rest
///   are successes. Errors are classified [`ByError`].
/// - For a retry 429, 502, 503 and 504 are worth another attempt, after the server's `Retry-After`, if the method is idempotent
///   (RFC 9110 §9.2.2). Any other response is the answer. Errors are judged by [`Decision::of_error`].
///
/// # Example
/// ```
/// use http::Response;
/// use seawall::circuit_breaker::{Classify, Outcome};
/// use seawall::http::ByStatus;
///
/// let outcome = |status| {
///     let response = Response::builder().status(status).body(()).unwrap();
///     ByStatus.classify(&Ok::<_, seawall::BoxError>(response))
/// };
/// assert_eq!(outcome(404), Outcome::Success);
/// assert_eq!(outcome(500), Outcome::Failure);
/// assert_eq!(outcome(503), Outcome::Overload { retry_after: None });
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct ByStatus;

impl ByStatus {
    fn of<B>(response: &Response<B>) -> Outcome {
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Outcome::Overload { retry_after: retry_after(response.headers()) }
            }
            status if status.is_server_error() => Outcome::Failure,
            _ => Outcome::Success,
        }
    }
}

impl<B, E: 'static> Classify<Response<B>, E> for ByStatus {
    fn classify(&self, result: &Result<Response<B>, E>) -> Outcome {
        result.as_ref().map_or_else(|_| ByError.classify(result), Self::of)
    }

    fn classify_boxed(&self, result: Result<Response<B>, E>) -> (Outcome, Result<Response<B>, BoxError>)
    where
        E: Into<BoxError>,
    {
        let (by_error, result) = ByError.classify_boxed(result);
        (result.as_ref().map_or(by_error, Self::of), result)
    }
}

impl<A: Clone, B> RetryPolicy<Request<A>, Response<B>, BoxError> for ByStatus {
    fn clone_request(&self, request: &Request<A>) -> Option<Request<A>> {
        Some(request.clone())
    }

    fn decide(&self, request: &Request<A>, result: &Result<Response<B>, BoxError>, _: Attempt) -> Decision {
        let idempotent = request.method().is_idempotent();
        match result {
            Err(error) => Decision::of_error(&**error, idempotent),
            Ok(response) if idempotent && matches!(response.status().as_u16(), 429 | 502..=504) => {
                retry_after(response.headers()).map_or(Decision::retry(), Decision::retry_after)
            }
            Ok(_) => Decision::Accept,
        }
    }
}

/// Lets a circuit breaker judge a call at the end of its response body; for
/// [`CircuitBreakerLayer::conclude`](crate::circuit_breaker::CircuitBreakerLayer::conclude) around a classifier.
///
/// - A head that the classifier takes for no success is judged at once: the body cannot make it better.
/// - Otherwise a complete body is a success and an error in it a failure. A body that is dropped before its end counts as
///   [`CancelPolicy`](crate::circuit_breaker::CancelPolicy) says: a caller may have read enough. So does the answer to a
///   `HEAD` whose body a server drops unread, as axum does.
/// - The call is in flight until then, and its duration, where slow calls count, includes the time in which the body is read.
///   A probe is given up after `probe_timeout`, body included.
///
/// # Example
/// ```
/// use axum::body::Body;
/// use http::Response;
/// use http_body_util::BodyExt;
/// use seawall::BoxError;
/// use seawall::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer};
/// use seawall::http::{ByStatus, ToBodyEnd};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let breaker = CircuitBreakerLayer::new(CircuitBreakerConfig::new("peer"))?.conclude(ToBodyEnd(ByStatus));
/// let peer = breaker.layer(service_fn(|()| async { Ok::<_, BoxError>(Response::new(Body::from("page"))) }));
///
/// let response = peer.oneshot(()).await?;
/// assert_eq!((breaker.handle().stats().in_flight, breaker.handle().stats().succeeded), (1, 0));
/// response.into_body().collect().await?;
/// assert_eq!((breaker.handle().stats().in_flight, breaker.handle().stats().succeeded), (0, 1));
/// # Ok::<_, BoxError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct ToBodyEnd<P = ByStatus>(pub P);

impl<P, B, E> Conclude<Response<B>, E> for ToBodyEnd<P>
where
    P: Classify<Response<B>, E>,
    B: Body,
    E: Into<BoxError>,
{
    type Response = Response<GuardedBody<B, Admission>>;

    fn conclude(
        &self,
        result: Result<Response<B>, E>,
        admission: &mut Option<Admission>,
    ) -> Result<Self::Response, BoxError> {
        match (self.0.classify_boxed(result), admission.take()) {
            ((Outcome::Success, Ok(response)), Some(admission)) => {
                Ok(response.map(|body| GuardedBody::new(body, admission)))
            }
            ((outcome, result), admission) => {
                if let Some(admission) = admission {
                    admission.finish(outcome);
                }
                result.map(|response| response.map(GuardedBody::unguarded))
            }
        }
    }
}

/// A limit gives the permit of a call back when its response body has been read; for
/// [`LimitLayer::end`](crate::admission::LimitLayer::end) of any limit.
///
/// A complete body is a success, an error in it a failure; one that is dropped before its end is neutral.
///
/// # Example
/// ```
/// use axum::body::Body;
/// use http::Response;
/// use http_body_util::BodyExt;
/// use seawall::http::WithBody;
/// use seawall::{BoxError, SemaphoreConfig, SemaphoreLayer};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let downloads = SemaphoreLayer::new(SemaphoreConfig::new("downloads", 8))?;
/// let files = service_fn(|()| async { Ok::<_, BoxError>(Response::new(Body::from("a film"))) });
///
/// let response = downloads.clone().end(WithBody).layer(files).oneshot(()).await?;
/// assert_eq!(downloads.handle().available(), 7);
/// response.into_body().collect().await?;
/// assert_eq!(downloads.handle().available(), 8);
/// # Ok::<_, BoxError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct WithBody;

impl<B, E, C> End<Response<B>, E, C> for WithBody
where
    B: Body,
    E: Into<BoxError>,
    C: Core,
{
    type Response = Response<GuardedBody<B, Permit<C>>>;

    fn end(&self, result: Result<Response<B>, E>, permit: &mut Option<Permit<C>>) -> Result<Self::Response, BoxError> {
        match result {
            Ok(response) => Ok(response.map(|body| match permit.take() {
                Some(permit) => GuardedBody::new(body, permit),
                None => GuardedBody::unguarded(body),
            })),
            Err(error) => {
                // In place, as at the end of any other call.
                if let Some(permit) = permit {
                    permit.answered(false);
                }
                Err(error.into())
            }
        }
    }
}
