//! What holds for every request, whatever its path: a deadline, a measure, and no headers from the inside.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, Method, header};
use seawall::Deadline;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use super::ApiError;
use crate::clock::Clock;
use crate::coordinator::DEFAULT_DEADLINE;
use crate::telemetry::metrics;

/// How long the client waits, in milliseconds.
const DEADLINE: HeaderName = HeaderName::from_static("x-seawall-deadline-ms");
/// The longest deadline that is taken; longer ones are cut to it, so that a request never holds its place for hours.
const MAX_DEADLINE: Duration = Duration::from_secs(60);
/// Smaller answers are not worth the time.
const COMPRESS_ABOVE_BYTES: u16 = 1024;
/// The headers that a client may set; all other `X-Seawall-*` are for nodes among themselves.
const CLIENT_HEADERS: [&str; 2] = ["x-seawall-deadline-ms", "x-seawall-no-forward"];

/// Runs the handler within the client's deadline (default 5 s).
///
/// Handlers answer in time by themselves, with the right outcome; the limit here is for what they forgot.
pub(super) async fn deadline(State(clock): State<Clock>, request: Request, next: Next) -> Result<Response, ApiError> {
    let limit = match request.headers().get(DEADLINE) {
        None => DEFAULT_DEADLINE,
        Some(value) => {
            let millis = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|millis| *millis > 0);
            let millis =
                millis.ok_or_else(|| ApiError::invalid(DEADLINE.as_str(), "not a number of milliseconds from 1"))?;
            Duration::from_millis(millis).min(MAX_DEADLINE)
        }
    };
    let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let answer = Deadline::after(limit).scope(next.run(request));
    clock.timeout(limit, answer).await.ok_or_else(|| {
        let detail = format!("no answer within {limit:?}");
        if writes { ApiError::Unknown { detail } } else { ApiError::Unavailable { detail, retry_after: None } }
    })
}

/// Counts and times the answer by route, method, status and outcome.
pub(super) async fn measure(State(clock): State<Clock>, request: Request, next: Next) -> Response {
    let start = clock.now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = method_name(request.method());
    let response = next.run(request).await;
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let outcome = response.extensions().get::<Outcome>().map_or("done", |outcome| outcome.0);
    metrics::request(route, method, response.status().as_u16(), outcome, clock.now() - start);
    response
}

/// The outcome of a request that was not done, for its metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome(pub(super) &'static str);

/// Labels must be few: a method that we do not serve is `other`.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Removes `X-Seawall-*` headers that are not a client's to set.
pub(super) async fn drop_internal_headers(mut request: Request, next: Next) -> Response {
    let internal: Vec<_> = request
        .headers()
        .keys()
        .filter(|name| name.as_str().starts_with("x-seawall-") && !CLIENT_HEADERS.contains(&name.as_str()))
        .cloned()
        .collect();
    for name in internal {
        request.headers_mut().remove(name);
    }
    next.run(request).await
}

/// Long JSON and metrics, never raw values.
pub(super) fn worth_compressing() -> impl Predicate {
    SizeAbove::new(COMPRESS_ABOVE_BYTES.into()).and(NotForContentType::const_new("application/octet-stream"))
}

/// Marks a problem's outcome on its response.
pub(super) fn mark(mut response: Response, outcome: &'static str) -> Response {
    response.extensions_mut().insert(Outcome(outcome));
    debug_assert!(response.headers().contains_key(header::CONTENT_TYPE), "a problem says what it is");
    response.into_response()
}
