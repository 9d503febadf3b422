//! `/health`: is the process alive, has it started, should it get traffic; and `/metrics`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::json;

use super::extract::NoQuery;
use super::{Api, Phase};

/// The process answers; nothing else is asked. A node without a quorum is alive: a restart would not help it.
pub(super) async fn live(State(api): State<Api>, _: NoQuery) -> Response {
    match api.consensus.status().failure {
        None => answer(true, "alive"),
        Some(failure) => answer(false, &failure),
    }
}

/// It has read back its log, up to what was committed when it stopped.
pub(super) async fn startup(State(api): State<Api>, _: NoQuery) -> Response {
    if api.readiness.phase() > Phase::Recovering { answer(true, "started") } else { answer(false, "recovering") }
}

/// It has started, is not stopping, and there is a leader to bring requests to.
pub(super) async fn ready(State(api): State<Api>, _: NoQuery) -> Response {
    match api.readiness.phase() {
        Phase::Stopping => answer(false, "stopping"),
        Phase::Recovering => answer(false, "recovering"),
        Phase::Started if api.leader().is_none() => answer(false, "there is no leader"),
        Phase::Started => answer(true, "ready"),
    }
}

pub(super) async fn metrics(State(api): State<Api>) -> Response {
    match &api.metrics {
        Some(metrics) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
        }
        None => (StatusCode::NOT_FOUND, "this process has no metrics recorder\n").into_response(),
    }
}

fn answer(good: bool, state: &str) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "status": state }))).into_response()
}
