//! What the HTTP glue allocates, counted: nothing on the happy path, the boxed error for a refusal.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test reports by panicking, in its helpers too")]

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use axum::body::Bytes;
use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use seawall::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer};
use seawall::http::{ByStatus, RejectedToResponseLayer, ToBodyEnd};
use tower::{Service, ServiceBuilder, service_fn};

type Answer = Ready<Result<Response<Full<Bytes>>, Infallible>>;

fn page(_: ()) -> Answer {
    ready(Ok(Response::new(Full::from("page"))))
}

fn now<F: Future>(future: F) -> F::Output {
    let Poll::Ready(output) = pin!(future).poll(&mut Context::from_waker(Waker::noop())) else { panic!("pending") };
    output
}

/// One call, its body read to the end.
fn call<S, B>(service: &mut S) -> StatusCode
where
    S: Service<(), Response = Response<B>, Error = Infallible>,
    B: Body,
{
    assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
    let (head, body) = now(service.call(())).unwrap().into_parts();
    let mut body = pin!(body);
    while !body.is_end_stream() {
        assert!(body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())).is_ready());
    }
    head.status
}

#[test]
fn a_call_judged_at_the_end_of_its_body_allocates_nothing_and_a_refusal_its_error() {
    let breaker = CircuitBreakerLayer::new(CircuitBreakerConfig::new("peer")).unwrap().conclude(ToBodyEnd(ByStatus));
    let mut service =
        ServiceBuilder::new().layer(RejectedToResponseLayer::new()).layer(breaker.clone()).service(service_fn(page));
    assert_eq!(call(&mut service), StatusCode::OK, "whatever is made once is made here");

    let happy = measure(|| assert_eq!(call(&mut service), StatusCode::OK));
    assert_eq!(happy.count_total, 0);
    assert_eq!(breaker.handle().stats().succeeded, 2);

    breaker.handle().force_open();
    let refused = measure(|| assert_eq!(call(&mut service), StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(refused.count_total, 1, "the boxed error");
}
