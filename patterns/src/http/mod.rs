//! HTTP: refusals as responses, and guards that live to the end of a response body. Feature `http`, off by default.
//!
//! **When.** A server puts layers around its handlers, and its framework wants a response and no error. Or a call is not over
//! when its response head is there: the body may be long, and may break off.
//! **What.** [`RejectedToResponseLayer`] answers errors with the status that [`status_of`] names and with `Retry-After`.
//! [`ToBodyEnd`] makes a circuit breaker wait for the body before it takes a call for a success, [`WithBody`] makes a limit keep
//! the permit of a call as long; [`GuardedBody`] holds any other guard. [`ByStatus`] tells good responses from bad ones.
//! **How.** RFC 9110 (§10.2.3 `Retry-After`, §15.6 the 5xx) and RFC 6585 (§4, 429). Every future and body has a name; nothing
//! is boxed.
//!
//! | error | status | why |
//! |---|---|---|
//! | [`Rejected`], [`Limited`] or [`Never`] | 429 | the caller asks for more than its share |
//! | [`Rejected`], any other reason | 503 | we or who we need cannot do it now; it was not done |
//! | [`Elapsed`] | 504 | it took too long; whether it was done is unknown |
//! | any other | 500 | the layer knows nothing of it; a gateway answers 502, see [`status`] |
//!
//! ```
//! use axum::{Router, http::{Request, StatusCode}, routing::get};
//! use seawall::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer};
//! use seawall::http::RejectedToResponseLayer;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let breaker = CircuitBreakerLayer::new(CircuitBreakerConfig::new("reports"))?;
//! let app: Router = Router::new()
//!     .route("/report", get(|| async { "all is well" }))
//!     .layer(ServiceBuilder::new().layer(RejectedToResponseLayer::new()).layer(breaker.clone()));
//!
//! breaker.handle().force_open();
//! let response = app.oneshot(Request::get("/report").body(axum::body::Body::empty())?).await?;
//! assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
//! # Ok::<_, seawall::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! [`Rejected`]: crate::Rejected
//! [`Elapsed`]: crate::Elapsed
//! [`Limited`]: crate::Reason::Limited
//! [`Never`]: crate::Reason::Never
//! [`status`]: RejectedToResponseLayer::status

mod body;

mod layer;
mod service;

mod future;
mod policy;
#[cfg(test)]
mod tests;

pub use self::{
    body::{BodyEnd, BodyGuard, GuardedBody, Held},
    future::ResponseFuture,
    layer::RejectedToResponseLayer,
    policy::{ByStatus, EmptyBody, Problem, StatusOf, ToBodyEnd, WithBody, retry_after, status_of},
    service::RejectedToResponse,
};
