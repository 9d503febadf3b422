//! Bodies with guards on real connections: a server drops a body as soon as it has sent what it announced, and a client may
//! go in the middle.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "a test reports by panicking, in its helpers too")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use seawall::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer};
use seawall::http::{ByStatus, GuardedBody, Held, RejectedToResponseLayer, ToBodyEnd};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower::ServiceBuilder;

/// Serves `app` for as long as the runtime of the test lives.
async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// The response of the server at `address`, with its body.
async fn ask(method: Method, address: SocketAddr) -> Response<Body> {
    let request = Request::builder().method(method).uri(format!("http://{address}/"));
    let client = Client::builder(TokioExecutor::new()).build_http();
    client.request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap().map(Body::new)
}

#[tokio::test]
async fn a_response_that_was_sent_is_a_success_whatever_tells_its_length() {
    let breaker = CircuitBreakerLayer::new(CircuitBreakerConfig::new("api")).unwrap();
    let layers = || {
        let judged = breaker.clone().conclude(ToBodyEnd(ByStatus));
        ServiceBuilder::new().layer(RejectedToResponseLayer::new()).layer(judged)
    };
    let chunked = || async {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
        tokio::spawn(async move { sender.send_data(Bytes::from_static(b"page")).await });
        Body::new(body)
    };
    let known = serve(Router::new().route("/", get(|| async { "page" })).layer(layers())).await;
    let unknown = serve(Router::new().route("/", get(chunked)).layer(layers())).await;

    let stats = || breaker.handle().stats();
    let response = ask(Method::GET, known).await;
    assert_eq!(response.headers()[CONTENT_LENGTH], "4");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "page");
    assert_eq!((stats().succeeded, stats().in_flight), (1, 0));

    let response = ask(Method::GET, unknown).await;
    assert_eq!(response.headers()[TRANSFER_ENCODING], "chunked");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "page");
    assert_eq!((stats().succeeded, stats().in_flight), (2, 0));

    assert_eq!(ask(Method::HEAD, known).await.status(), StatusCode::OK);
    assert_eq!((stats().succeeded, stats().in_flight, stats().neutral), (2, 0, 1), "its body was dropped unread");
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_of_a_body_frees_what_it_held() {
    let (freed, wait) = oneshot::channel::<()>();
    let (freed, kept) = (Arc::new(Mutex::new(Some(freed))), Arc::new(Mutex::new(None::<Sender<Bytes>>)));
    let keep = kept.clone();
    let endless = move || {
        let (freed, keep) = (freed.lock().unwrap().take(), keep.clone());
        async move {
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
            sender.send_data(Bytes::from_static(b"the first of many")).await.unwrap();
            *keep.lock().unwrap() = Some(sender);
            Body::new(GuardedBody::new(body, Held(freed)))
        }
    };
    let address = serve(Router::new().route("/", get(endless))).await;

    let mut response = ask(Method::GET, address).await;
    assert!(response.frame().await.unwrap().unwrap().is_data());
    assert!(kept.lock().unwrap().is_some(), "more could come");
    drop(response);
    assert!(wait.await.is_err(), "the guard, dropped with the body, held the other end");
}
