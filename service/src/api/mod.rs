//! What clients see: the public HTTP interface. The only place that knows axum's routes and status codes.
//!
//! The router is a stack of tower-http layers, each with its reason in [`router`]. Bodies are bounded where they are read
//! (`extract.rs`), because the refusal must name the field that is too large.

mod client_limit;
mod cluster;
mod compat;
mod error;
mod extract;
mod health;
mod limits;
mod strong;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Semaphore, watch};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::trace::TraceLayer;

use crate::clock::Clock;
use crate::consensus::Consensus;
use crate::coordinator::{Coordinator, Forwarding};
use crate::peer::{LocalNode, NodeId};
use crate::topology::Heartbeats;

pub(crate) use client_limit::ClientLimits;
pub(crate) use error::ApiError;

/// Names a request in logs, here and at the node it is forwarded to.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The client wants this node's answer or none.
const NO_FORWARD: HeaderName = HeaderName::from_static("x-seawall-no-forward");

/// A leader that no quorum has acknowledged for so long has lost it: twenty heartbeats by default.
const FOLLOWED: Duration = Duration::from_secs(2);

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub(crate) local: LocalNode,
    pub(crate) consensus: Consensus,
    pub(crate) coordinator: Coordinator,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Option<PrometheusHandle>,
    pub(crate) clock: Clock,
    pub(crate) bodies: Bodies,
    pub(crate) client_limits: Option<ClientLimits>,
}

/// Bounds the memory that request bodies take while they arrive and are worked on.
#[derive(Debug, Clone)]
pub struct Bodies(Arc<Semaphore>);

/// Bytes of bodies at one time; beyond it a request is refused before its body is read.
const MAX_BODIES_BYTES: usize = 128 << 20;

impl Default for Bodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BODIES_BYTES)))
    }
}

impl Api {
    /// How long ago this node last heard of the leader; `None` if it never did.
    fn leader_heard_ago(&self) -> Option<Duration> {
        let status = self.consensus.status();
        let heard = match status.leader? {
            leader if leader == status.node_id => status.quorum_acked,
            leader => self.heartbeats.get(leader)?.last_answer,
        };
        Some(self.clock.now().saturating_duration_since(heard?))
    }

    /// The leader, if it can be reached, or if this node leads and is followed.
    fn leader(&self) -> Option<NodeId> {
        let status = self.consensus.status();
        let leader = status.leader?;
        let there = if leader == status.node_id {
            let acked = status.quorum_acked;
            let followed = acked.is_some_and(|at| self.clock.now().saturating_duration_since(at) < FOLLOWED);
            followed || status.members.voters.len() == 1
        } else {
            // Consensus names the last leader until it knows the next one; pings tell whether it is still there. Before
            // the first answer nothing speaks against it.
            self.heartbeats.get(leader).is_none_or(|peer| peer.healthy || peer.last_answer.is_none())
        };
        there.then_some(leader)
    }
}

/// How far the node is in its life. Clones share it.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<Phase>>);

/// The phases of a node's life, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It reads back its log; what it has applied may be older than what it had before it stopped.
    Recovering,
    /// It serves.
    Started,
    /// It finishes what it has begun.
    Stopping,
}

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Recovering)))
    }
}

impl Readiness {
    /// The log has been read back.
    pub fn set_started(&self) {
        self.reach(Phase::Started);
    }

    /// The node no longer wants traffic.
    pub fn set_stopping(&self) {
        self.reach(Phase::Stopping);
    }

    fn reach(&self, phase: Phase) {
        self.0.send_modify(|now| *now = phase.max(*now));
    }

    fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until the log has been read back.
    async fn started(&self) {
        // The sender lives in `self`: waiting ends only with the phase.
        let _ = self.0.subscribe().wait_for(|phase| *phase > Phase::Recovering).await;
    }
}

/// The public router, for a connection of the client at `from`.
pub fn router(api: Api, from: SocketAddr) -> Router {
    let stack = ServiceBuilder::new()
        // First, so that a header with a secret is marked before anything can log it.
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION, header::COOKIE, client_limit::API_KEY]))
        // Every request has an id, the client's or a new one, and the answer carries it back.
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        // One span a request, with its id: what is logged below says which request it was.
        .layer(TraceLayer::new_for_http().make_span_with(span).on_request(()).on_response(log_answer).on_failure(()))
        // Counts and times every answer, also those of the layers below.
        .layer(from_fn_with_state(api.clock.clone(), limits::measure))
        // A handler that panics is an answer 500 and a log line, not a closed connection.
        .layer(CatchPanicLayer::custom(answer_panic))
        // Answers in JSON may be long; raw values are the client's business and are not compressed.
        .layer(CompressionLayer::new().compress_when(limits::worth_compressing()))
        // What only nodes say to each other means nothing from outside.
        .layer(from_fn(limits::drop_internal_headers))
        // Innermost: everything that is done for a request is done within its deadline.
        .layer(from_fn_with_state(api.clock.clone(), limits::deadline));

    let key = get(strong::get).put(strong::put).delete(strong::delete).fallback(strong::not_allowed);
    let mut router = Router::new()
        .route("/v1/strong/{key}", key)
        .route("/v1/strong/", axum::routing::any(strong::empty_key))
        .route("/get/{key}", get(compat::get))
        .route("/set", post(compat::set))
        .route("/cluster/status", get(cluster::status))
        .route("/cluster/members", post(cluster::add_member))
        .route("/", get(cluster::index))
        .fallback(no_such_route);
    if let Some(limits) = &api.client_limits {
        router = limits.before(router, from);
    }
    router
        // Past the limit: who probes and scrapes is nobody's client, and a node that refuses it looks ill.
        .route("/health/live", get(health::live))
        .route("/health/startup", get(health::startup))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(stack)
        .with_state(api)
}

async fn no_such_route(request: Request) -> ApiError {
    let detail = format!("there is no path {}", request.uri().path());
    ApiError::NoSuchRoute { status: StatusCode::NOT_FOUND, detail }
}

async fn method_not_allowed(request: Request) -> ApiError {
    let detail = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::NoSuchRoute { status: StatusCode::METHOD_NOT_ALLOWED, detail }
}

fn span(request: &Request) -> tracing::Span {
    tracing::info_span!("request", request_id = request_id(request.headers()), method = %request.method(), path = request.uri().path())
}

fn log_answer<B>(response: &Response<B>, took: Duration, _: &tracing::Span) {
    let status = response.status();
    if status.is_server_error() {
        tracing::warn!(status = status.as_u16(), ?took, action = "answer");
    } else {
        tracing::debug!(status = status.as_u16(), ?took, action = "answer");
    }
}

fn answer_panic(panic: Box<dyn std::any::Any + Send + 'static>) -> Response<Body> {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = text, "a handler panicked");
    axum::response::IntoResponse::into_response(ApiError::Internal)
}

/// The id of a request; every request has one below the first layers.
fn request_id(headers: &HeaderMap) -> &str {
    headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

fn forwarding(headers: &HeaderMap) -> Forwarding {
    if headers.contains_key(NO_FORWARD) { Forwarding::Refused } else { Forwarding::Allowed }
}
