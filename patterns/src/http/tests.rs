//! Responses to errors under axum, and guards in bodies.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use ::http::{Method, Request, Response, StatusCode};
use ::http_body::{Body as _, Frame, SizeHint};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use http_body_util::BodyExt;
use tokio::time::{advance, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use super::*;
use crate::circuit_breaker::{
    CancelPolicy, CircuitBreakerConfig, CircuitBreakerHandle, CircuitBreakerLayer, Outcome, State,
};
use crate::{
    Attempt, BoxError, Decision, Reason, Rejected, RetryPolicy, SemaphoreConfig, SemaphoreHandle, SemaphoreLayer,
    TimeoutConfig, TimeoutLayer, Transient,
};

const SECOND: Duration = Duration::from_secs(1);

/// Opens at the first failure, for 1.2 s.
fn breaker() -> CircuitBreakerLayer {
    let open_for = Duration::from_millis(1200);
    let config = CircuitBreakerConfig::new("api").consecutive_failures(1).open_for(open_for).jitter(0.0);
    CircuitBreakerLayer::new(config).unwrap()
}

async fn ask(app: &Router) -> Response<Body> {
    app.clone().oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap()
}

/// The response to `error`.
async fn answer<C, M>(layer: &RejectedToResponseLayer<C, M>, error: impl Into<BoxError>) -> Response<String>
where
    C: Fn(&BoxError) -> StatusCode + Clone,
    M: Problem<String> + Clone,
{
    let error = Mutex::new(Some(error.into()));
    let failing = service_fn(|()| ready(Err::<Response<String>, BoxError>(error.lock().unwrap().take().unwrap())));
    layer.layer(failing).oneshot(()).await.unwrap()
}

fn rejected(reason: Reason) -> Rejected {
    Rejected::new("layer", "api", reason)
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_under_axum_is_unavailable_for_whole_seconds_rounded_up() {
    let breaker = breaker();
    let app = Router::new()
        .route("/", get(|| async { "well" }))
        .layer(ServiceBuilder::new().layer(RejectedToResponseLayer::new()).layer(breaker.clone()));
    assert_eq!(ask(&app).await.status(), StatusCode::OK);

    breaker.handle().admit().unwrap().finish(Outcome::Failure);
    for (waited, retry_after) in [(0, "2"), (200, "1"), (999, "1")] {
        advance(Duration::from_millis(waited)).await;
        let response = ask(&app).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], retry_after);
        assert!(response.into_body().is_end_stream());
    }
    advance(Duration::from_millis(1)).await;
    assert_eq!(ask(&app).await.status(), StatusCode::OK, "the probe");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_is_a_gateway_timeout() {
    let timeout = TimeoutLayer::new(TimeoutConfig::total("api", SECOND)).unwrap();
    let slow = || async {
        sleep(2 * SECOND).await;
        "late"
    };
    let layers = ServiceBuilder::new().layer(RejectedToResponseLayer::new()).layer(timeout);
    let response = ask(&Router::new().route("/", get(slow)).layer(layers)).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(!response.headers().contains_key(RETRY_AFTER));
}

#[tokio::test]
async fn callers_over_their_share_get_429_and_every_other_refusal_503() {
    let layer = RejectedToResponseLayer::new();
    for (reason, status) in [
        (Reason::Limited, 429),
        (Reason::Never, 429),
        (Reason::LimitedGlobally, 503),
        (Reason::TooManyKeys, 503),
        (Reason::Open, 503),
        (Reason::Probing, 503),
        (Reason::ForcedOpen, 503),
        (Reason::Deadline, 503),
        (Reason::Full, 503),
        (Reason::QueueFull, 503),
        (Reason::MaxWait, 503),
        (Reason::Closed, 503),
    ] {
        assert_eq!(answer(&layer, rejected(reason)).await.status().as_u16(), status, "{reason}");
    }
}

#[tokio::test]
async fn a_refusal_is_found_wherever_it_is_in_the_chain() {
    let buried = Transient::new(rejected(Reason::Limited).retry_after(Duration::from_millis(1)));
    let response = answer(&RejectedToResponseLayer::new(), buried).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[RETRY_AFTER], "1", "never 0 while there is something to wait for");
}

#[tokio::test]
async fn other_errors_are_500_or_what_the_user_says() {
    let layer = RejectedToResponseLayer::new();
    assert_eq!(answer(&layer, "broken").await.status(), StatusCode::INTERNAL_SERVER_ERROR);

    let gateway = layer.status(|error: &BoxError| status_of(&**error).unwrap_or(StatusCode::BAD_GATEWAY));
    assert_eq!(answer(&gateway, "broken").await.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(answer(&gateway, rejected(Reason::Open)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_user_makes_the_response_and_the_layer_its_status() {
    let layer = RejectedToResponseLayer::new().problem(|status: StatusCode, error: &BoxError| {
        let mut response = Response::new(format!("{}: {error}", status.as_u16()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    });
    let response = answer(&layer, rejected(Reason::Full).retry_after(SECOND)).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (&response.headers()[CONTENT_TYPE], &response.headers()[RETRY_AFTER]),
        (&HeaderValue::from_static("text/plain"), &HeaderValue::from_static("1"),)
    );
    assert_eq!(response.body(), "503: layer \"api\" refused the call: full, retry after 1s");
}

#[tokio::test]
async fn a_response_passes_as_it_is() {
    let teapot = service_fn(|()| {
        let response = Response::builder().status(418).header(RETRY_AFTER, "7").body("short".to_owned());
        ready(Ok::<_, BoxError>(response.unwrap()))
    });
    let response = RejectedToResponseLayer::new().layer(teapot).oneshot(()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.body().as_str()), (418, "short"));
    assert_eq!(response.headers()[RETRY_AFTER], "7");
}

/// Fails to become ready, as often as told; must not be called then.
#[derive(Clone)]
struct Unready(u32);

impl Service<()> for Unready {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Response<String>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                Poll::Ready(Err("no connection".into()))
            }
            None => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert_eq!(self.0, 0, "called though it is not ready");
        ready(Ok(Response::new("well".to_owned())))
    }
}

#[tokio::test]
async fn a_service_that_cannot_become_ready_is_an_answer_too() {
    let mut service = RejectedToResponseLayer::new().layer(Unready(1));
    let status = async |service: &mut RejectedToResponse<Unready>| {
        service.ready().await.unwrap().call(()).await.unwrap().status()
    };
    service.ready().await.unwrap();
    service.ready().await.unwrap();
    assert_eq!(status(&mut service.clone()).await, StatusCode::OK, "a clone makes its own experience");
    assert_eq!(status(&mut service).await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(status(&mut service).await, StatusCode::OK, "one error, one answer");
}

#[test]
fn idempotent_requests_are_tried_again_where_the_status_says_not_now() {
    let decide = |method: Method, status: u16, headers: &[(HeaderName, HeaderValue)]| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().extend(headers.iter().cloned());
        let request = Request::builder().method(method).body(()).unwrap();
        ByStatus.decide(&request, &Ok(response), Attempt::first())
    };
    for status in [429, 502, 503, 504] {
        assert_eq!(decide(Method::GET, status, &[]), Decision::retry());
        assert_eq!(decide(Method::POST, status, &[]), Decision::Accept, "it may have been done");
    }
    for status in [200, 304, 404, 500, 501] {
        assert_eq!(decide(Method::PUT, status, &[]), Decision::Accept);
    }
    let hint = [(RETRY_AFTER, HeaderValue::from_static("3"))];
    assert_eq!(decide(Method::PUT, 503, &hint), Decision::retry_after(3 * SECOND));

    let failed = |method| {
        let request = Request::builder().method(method).body(()).unwrap();
        ByStatus.decide(&request, &Err::<Response<()>, BoxError>("reset".into()), Attempt::first())
    };
    assert_eq!((failed(Method::DELETE), failed(Method::PATCH)), (Decision::retry(), Decision::GiveUp));
}

#[test]
fn retry_after_is_read_in_seconds() {
    let read = |value| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]));
    assert_eq!(read("0"), Some(Duration::ZERO));
    assert_eq!(read(" 120 "), Some(Duration::from_secs(120)));
    assert_eq!(read("Fri, 31 Dec 1999 23:59:59 GMT"), None);
    assert_eq!(read("-1"), None);
    assert_eq!(retry_after(&HeaderMap::new()), None);
}

#[test]
fn waits_are_written_in_seconds_rounded_up() {
    let written = |wait| policy::seconds_up(wait).to_str().unwrap().to_owned();
    assert_eq!(written(Duration::ZERO), "0");
    assert_eq!(written(Duration::from_nanos(1)), "1");
    assert_eq!(written(SECOND), "1");
    assert_eq!(written(Duration::from_millis(1200)), "2");
    assert_eq!(written(Duration::MAX), u64::MAX.to_string());
}

/// A body that does one step a poll.
#[derive(Debug, Default)]
struct Script(VecDeque<Step>);

#[derive(Debug, Clone, Copy)]
enum Step {
    Data(&'static str),
    Trailers,
    Wait,
    Error,
    Panic,
}

impl Script {
    fn response(steps: &[Step]) -> Response<Self> {
        Response::new(Self(steps.iter().copied().collect()))
    }
}

impl ::http_body::Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(step) = self.0.pop_front() else { return Poll::Ready(None) };
        match step {
            Step::Data(data) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(data.as_bytes()))))),
            Step::Trailers => Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::new())))),
            Step::Wait => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Step::Error => Poll::Ready(Some(Err("connection reset".into()))),
            Step::Panic => panic!("body"),
        }
    }
}

type Guarded = GuardedBody<Script, crate::circuit_breaker::Admission>;

/// The response that a breaker gives for one with this body.
async fn through(breaker: &CircuitBreakerHandle, steps: &[Step]) -> Response<Guarded> {
    let layer = breaker.layer().conclude(ToBodyEnd(ByStatus));
    layer.layer(service_fn(|()| ready(Ok::<_, BoxError>(Script::response(steps))))).oneshot(()).await.unwrap()
}

/// Successes, failures, neutral calls and calls in flight.
fn counts(breaker: &CircuitBreakerHandle) -> (u64, u64, u64, u64) {
    let stats = breaker.stats();
    (stats.succeeded, stats.failed, stats.neutral, stats.in_flight)
}

#[tokio::test(start_paused = true)]
async fn a_call_is_in_flight_until_its_body_has_been_read() {
    let breaker = breaker().handle();
    let mut response = through(&breaker, &[Step::Data("a"), Step::Wait, Step::Data("b")]).await;
    for data in ["a", "b"] {
        assert_eq!(counts(&breaker), (0, 0, 0, 1));
        assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), data);
    }
    assert_eq!(counts(&breaker), (0, 0, 0, 1), "it may still break off");
    assert!(response.frame().await.is_none());
    assert_eq!(counts(&breaker), (1, 0, 0, 0));
    drop(response);
    assert_eq!(counts(&breaker), (1, 0, 0, 0), "counted once");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_opens_the_breaker() {
    let breaker = breaker().handle();
    let response = through(&breaker, &[Step::Data("a"), Step::Error]).await;
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(response.into_body().collect().await.unwrap_err().to_string(), "connection reset");
    assert_eq!(counts(&breaker), (0, 1, 0, 0));
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_is_a_failure() {
    let breaker = breaker().handle();
    let response = through(&breaker, &[Step::Panic]).await;
    assert!(tokio::spawn(response.into_body().collect()).await.unwrap_err().is_panic());
    assert_eq!(counts(&breaker), (0, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_dropped_counts_as_its_breaker_says() {
    let neutral = breaker().handle();
    let mut response = through(&neutral, &[Step::Data("a"), Step::Data("b")]).await;
    response.frame().await.unwrap().unwrap();
    drop(response);
    assert_eq!(counts(&neutral), (0, 0, 1, 0));

    let config = CircuitBreakerConfig::new("api").cancel(CancelPolicy::FailureAfter(SECOND));
    let late = CircuitBreakerLayer::new(config).unwrap().handle();
    let response = through(&late, &[Step::Data("a")]).await;
    advance(SECOND).await;
    drop(response);
    assert_eq!(counts(&late), (0, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn trailers_pass_and_end_the_body() {
    let breaker = breaker().handle();
    let mut response = through(&breaker, &[Step::Data("a"), Step::Trailers]).await;
    response.frame().await.unwrap().unwrap();
    assert!(response.frame().await.unwrap().unwrap().is_trailers());
    assert_eq!(counts(&breaker), (1, 0, 0, 0), "nothing comes after them");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_at_the_last_byte_has_read_all() {
    let breaker = breaker();
    let respond = |body: &'static str| {
        let layer = breaker.clone().conclude(ToBodyEnd(ByStatus));
        layer.layer(service_fn(move |()| ready(Ok::<_, BoxError>(Response::new(Body::from(body)))))).oneshot(())
    };
    let mut response = respond("page").await.unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(4), "the size passes through");
    assert!(!response.body().is_end_stream());
    response.frame().await.unwrap().unwrap();
    assert!(response.body().is_end_stream());
    assert_eq!(counts(&breaker.handle()), (1, 0, 0, 0));

    let empty = respond("").await.unwrap();
    assert_eq!(counts(&breaker.handle()), (2, 0, 0, 0), "nobody asks an empty body for a frame");
    assert!(!empty.body().is_guarded());
}

/// A body that knows its size and never says that it is over.
struct Counted(Option<&'static str>);

impl ::http_body::Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(Bytes::from_static(data.as_bytes())))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.map_or(0, str::len) as u64)
    }
}

#[tokio::test]
async fn a_body_of_which_nothing_is_left_has_been_read() {
    let held = Arc::new(());
    let mut body = GuardedBody::new(Counted(Some("page")), Held(held.clone()));
    assert!(body.is_guarded());
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "page");
    assert!(!body.is_guarded(), "a server that has sent as much as it announced asks for no more");
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bad_head_is_judged_before_its_body() {
    let breaker = breaker();
    let busy = service_fn(|()| {
        let response = Response::builder().status(503).header(RETRY_AFTER, "60").body(Body::from("busy"));
        ready(Ok::<_, Infallible>(response.unwrap()))
    });
    let peer = breaker.clone().conclude(ToBodyEnd(ByStatus)).layer(busy);
    let response = peer.clone().oneshot(()).await.unwrap();
    assert!(!response.body().is_guarded());
    assert_eq!(counts(&breaker.handle()), (0, 1, 0, 0));
    let refused = peer.oneshot(()).await.unwrap_err();
    assert_eq!(Rejected::find(&*refused).unwrap().retry_after, Some(60 * SECOND), "the server's hint");
}

#[tokio::test(start_paused = true)]
async fn a_good_body_makes_no_success_of_a_server_error() {
    let breaker = breaker();
    let broken = service_fn(|()| {
        let response = Response::builder().status(500).body(Body::from("a stack trace"));
        ready(Ok::<_, Infallible>(response.unwrap()))
    });
    let response = breaker.clone().conclude(ToBodyEnd(ByStatus)).layer(broken).oneshot(()).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(counts(&breaker.handle()), (0, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn under_axum_a_breaker_sees_the_whole_response() {
    let breaker = breaker();
    let layers = ServiceBuilder::new()
        .layer(RejectedToResponseLayer::new())
        .layer(breaker.clone().conclude(ToBodyEnd(ByStatus)));
    let app = Router::new().route("/", get(|| async { "well" })).layer(layers);
    let response = ask(&app).await;
    assert_eq!(counts(&breaker.handle()), (0, 0, 0, 1));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "well");
    assert_eq!(counts(&breaker.handle()), (1, 0, 0, 0));
    breaker.handle().force_open();
    assert_eq!(ask(&app).await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn any_guard_is_held_to_the_end_of_the_body() {
    let held = Arc::new(());
    let body = |steps: &[Step]| GuardedBody::new(Script::response(steps).into_body(), Held(held.clone()));
    let read = body(&[Step::Data("a")]);
    assert_eq!(Arc::strong_count(&held), 2);
    read.collect().await.unwrap();
    assert_eq!(Arc::strong_count(&held), 1);

    let mut broken = body(&[Step::Error, Step::Data("a")]);
    assert!(broken.frame().await.unwrap().is_err());
    assert_eq!(Arc::strong_count(&held), 1, "gone with the error, before the body is dropped");

    drop(body(&[Step::Data("a")]));
    assert_eq!(Arc::strong_count(&held), 1);
    let hint: SizeHint = GuardedBody::<_, Held<()>>::unguarded(Body::from("four")).size_hint();
    assert_eq!(hint.exact(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_given_back_with_the_outcome_of_the_body() {
    let semaphore = SemaphoreHandle::new(SemaphoreConfig::new("api", 1)).unwrap();
    let body = |steps: &[Step]| GuardedBody::new(Script::response(steps).into_body(), semaphore.try_acquire().unwrap());
    let read = body(&[Step::Data("a")]);
    assert_eq!(semaphore.available(), 0);
    read.collect().await.unwrap();
    body(&[Step::Error]).collect().await.unwrap_err();
    drop(body(&[Step::Data("a")]));
    assert_eq!(semaphore.available(), 1);
    let calls = semaphore.stats().calls;
    assert_eq!((calls.ok, calls.failed, calls.neutral, calls.in_flight), (1, 1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_limit_counts_a_call_until_its_body_has_been_read() {
    let limit = SemaphoreLayer::new(SemaphoreConfig::new("api", 1).max_waiting(0)).unwrap();
    let calls = || limit.handle().stats().calls;
    let answer = |steps: &'static [Step]| {
        let inner = service_fn(move |()| ready(Ok::<_, BoxError>(Script::response(steps))));
        limit.clone().end(WithBody).layer(inner).oneshot(())
    };
    let read = answer(&[Step::Data("a"), Step::Wait]).await.unwrap();
    let refused = answer(&[]).await.unwrap_err();
    assert_eq!(Rejected::find(&*refused).unwrap().reason, Reason::Full, "the only permit is in the body");
    read.into_body().collect().await.unwrap();
    assert_eq!((calls().ok, calls().in_flight), (1, 0));

    answer(&[Step::Error]).await.unwrap().into_body().collect().await.unwrap_err();
    drop(answer(&[Step::Data("a")]).await.unwrap());
    assert_eq!((calls().ok, calls().failed, calls().neutral, calls().in_flight), (1, 1, 1, 0));

    let broken = service_fn(|()| ready(Err::<Response<Script>, BoxError>("no head".into())));
    limit.clone().end(WithBody).layer(broken).oneshot(()).await.unwrap_err();
    assert_eq!((calls().failed, calls().in_flight, limit.handle().available()), (2, 0, 1));
}
