//! A circuit breaker around the handlers of an axum application: nothing but responses leaves it, so axum needs no
//! `HandleErrorLayer`.
//!
//! `cargo run -p seawall --features http --example axum_breaker`

#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use seawall::BoxError;
use seawall::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, State};
use seawall::http::{ByStatus, RejectedToResponseLayer};
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main(flavor = "current_thread", start_paused = true)] // A paused clock: nothing here waits.
async fn main() -> Result<(), BoxError> {
    let config =
        CircuitBreakerConfig::new("reports").consecutive_failures(3).open_for(Duration::from_millis(1200)).jitter(0.0);
    let breaker = CircuitBreakerLayer::new(config)?.classify(ByStatus);
    let problems = RejectedToResponseLayer::new().problem(|status: StatusCode, error: &BoxError| {
        let problem = format!(r#"{{"status":{},"detail":{:?}}}"#, status.as_u16(), error.to_string());
        ([(CONTENT_TYPE, "application/problem+json")], problem).into_response()
    });
    let app = Router::new()
        .route("/report", get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "the database is away") }))
        .layer(ServiceBuilder::new().layer(problems).layer(breaker.clone()));

    for _ in 0..3 {
        assert_eq!(ask(&app).await?.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(breaker.handle().state(), State::Open);

    // The handler is not called any more. 1.2 s are rounded up: who comes back then does not come too early.
    let refused = ask(&app).await?;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()[RETRY_AFTER], "2");
    println!("{} Retry-After: {:?}", refused.status(), refused.headers()[RETRY_AFTER]);
    Ok(())
}

async fn ask(app: &Router) -> Result<Response<Body>, BoxError> {
    Ok(app.clone().oneshot(Request::get("/report").body(Body::empty())?).await?)
}

#[test]
fn it_runs() {
    main().expect("every answer is as it says");
}
