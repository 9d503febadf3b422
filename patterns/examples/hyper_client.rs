//! The client of hyper-util behind timeouts, retries and a circuit breaker that judges a call when its body has been read.
//!
//! `cargo run -p seawall --features http --example hyper_client`

#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use seawall::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer};
use seawall::http::{ByStatus, ToBodyEnd};
use seawall::{Backoff, BoxError, RetryConfig, RetryLayer, TimeoutConfig, TimeoutLayer};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // A server that is busy at first.
    let calls = Arc::new(AtomicU32::new(0));
    let stock = move || {
        let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        async move { if first { (StatusCode::SERVICE_UNAVAILABLE, "busy") } else { (StatusCode::OK, "42 pieces") } }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/stock", listener.local_addr()?);
    let server = tokio::spawn(async move { axum::serve(listener, Router::new().route("/stock", get(stock))).await });

    let backoff = Backoff::constant(Duration::from_millis(10));
    let breaker = CircuitBreakerLayer::new(CircuitBreakerConfig::new("stock"))?;
    let mut client = ServiceBuilder::new()
        .layer(TimeoutLayer::new(TimeoutConfig::total("stock", Duration::from_secs(10)))?) // the whole call
        .layer(RetryLayer::new(RetryConfig::new("stock").backoff(backoff), ByStatus)?) // 503 on an idempotent method
        .layer(breaker.clone().conclude(ToBodyEnd(ByStatus))) // sees attempts, and their bodies
        .layer(TimeoutLayer::new(TimeoutConfig::attempt("stock", Duration::from_secs(5)))?) // one attempt, to its head
        .service(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());

    let response = client.ready().await?.call(Request::get(&url).body(Empty::new())?).await?; // a body that can be sent twice
    assert_eq!(response.status(), StatusCode::OK, "the second attempt");
    assert_eq!(breaker.handle().stats().in_flight, 1, "the body is still to be read");

    let body = response.into_body().collect().await?.to_bytes();
    assert_eq!(body, "42 pieces");
    let stats = breaker.handle().stats();
    assert_eq!((stats.failed, stats.succeeded, stats.in_flight), (1, 1, 0));
    println!("{} after one retry; {stats:?}", String::from_utf8_lossy(&body));

    server.abort();
    Ok(())
}

#[test]
fn it_runs() {
    main().expect("every answer is as it says");
}
