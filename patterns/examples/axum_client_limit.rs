//! A limit for each client of an axum application: who asks too often is told when to come back, the others notice nothing.
//!
//! `cargo run -p seawall --features http --example axum_client_limit`

#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::RETRY_AFTER;
use axum::http::{Request, Response, StatusCode};
use axum::routing::get;
use seawall::BoxError;
use seawall::http::RejectedToResponseLayer;
use seawall::keyed::{KeyedConfig, KeyedLayer, Quota};
use seawall::sliding_window::Algorithm;
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main(flavor = "current_thread", start_paused = true)] // A paused clock: the waits take no time here.
async fn main() -> Result<(), BoxError> {
    // Two requests in any 1.2 seconds; all clients together have what is there for all.
    let quota = Quota::SlidingWindow { limit: 2, window: Duration::from_millis(1200), algorithm: Algorithm::Log };
    let limit = KeyedLayer::new(KeyedConfig::new("clients", quota), address)?;
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .layer(ServiceBuilder::new().layer(RejectedToResponseLayer::new()).layer(limit.clone()));

    let (ann, ben) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    for _ in 0..2 {
        assert_eq!(ask(&app, ann).await?.status(), StatusCode::OK);
    }
    let refused = ask(&app, ann).await?;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()[RETRY_AFTER], "2", "1.2 s, rounded up");
    assert_eq!(ask(&app, ben).await?.status(), StatusCode::OK, "another client has a limit of its own");
    println!("{}: {} Retry-After: {:?}", ann, refused.status(), refused.headers()[RETRY_AFTER]);

    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(ask(&app, ann).await?.status(), StatusCode::OK, "who waits as long as asked is let in");
    println!("{:?}", limit.handle().stats());
    Ok(())
}

/// Whose request it is. `axum::serve` knows with `into_make_service_with_connect_info::<SocketAddr>()`; behind a proxy of
/// yours, take the address that it vouches for. Requests of nobody known share one limit.
fn address(request: &Request<Body>) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip())
}

/// A request as it arrives from `client`.
async fn ask(app: &Router, client: IpAddr) -> Result<Response<Body>, BoxError> {
    let from = ConnectInfo(SocketAddr::from((client, 40_000)));
    Ok(app.clone().oneshot(Request::get("/").extension(from).body(Body::empty())?).await?)
}

#[test]
fn it_runs() {
    main().expect("every answer is as it says");
}
