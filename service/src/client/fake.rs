//! For tests: one node's HTTP interface over a map in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;

/// A server on loopback that lives as long as its runtime.
#[derive(Debug, Clone)]
pub(crate) struct FakeNode {
    pub(crate) url: String,
    keys: Arc<Mutex<Keys>>,
}

#[derive(Debug, Default)]
struct Keys {
    revision: u64,
    values: BTreeMap<String, (u64, Bytes)>,
    /// Answers every write with this outcome instead of doing it.
    refuse: Option<&'static str>,
}

type Shared = State<Arc<Mutex<Keys>>>;

impl FakeNode {
    pub(crate) async fn new() -> Self {
        let keys = Arc::<Mutex<Keys>>::default();
        let app = Router::new()
            .route("/v1/strong/{key}", get(read).put(write).delete(remove))
            .route("/cluster/status", get(status))
            .with_state(keys.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, keys }
    }

    /// From now on every write ends with `outcome`.
    pub(crate) fn refuse(&self, outcome: &'static str) {
        self.keys.lock().unwrap().refuse = Some(outcome);
    }

    /// Its keys and values.
    pub(crate) fn values(&self) -> BTreeMap<String, Bytes> {
        self.keys.lock().unwrap().values.iter().map(|(key, (_, value))| (key.clone(), value.clone())).collect()
    }
}

fn problem(status: StatusCode, body: Json) -> Response {
    (status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

async fn read(State(keys): Shared, Path(key): Path<String>) -> Response {
    match keys.lock().unwrap().values.get(&key) {
        Some((revision, value)) => ([(ETAG, format!("\"{revision}\""))], value.clone()).into_response(),
        None => problem(StatusCode::NOT_FOUND, json!({ "detail": "no such key" })),
    }
}

async fn write(State(keys): Shared, Path(key): Path<String>, headers: HeaderMap, value: Bytes) -> Response {
    let mut keys = keys.lock().unwrap();
    if let Some(refusal) = keys.refusal(&key, &headers) {
        return refusal;
    }
    keys.revision += 1;
    let revision = keys.revision;
    keys.values.insert(key, (revision, value));
    ([(ETAG, format!("\"{revision}\""))], json!({ "revision": revision }).to_string()).into_response()
}

async fn remove(State(keys): Shared, Path(key): Path<String>, headers: HeaderMap) -> Response {
    let mut keys = keys.lock().unwrap();
    if let Some(refusal) = keys.refusal(&key, &headers) {
        return refusal;
    }
    let deleted = keys.values.remove(&key).is_some();
    keys.revision += u64::from(deleted);
    json!({ "revision": keys.revision, "deleted": deleted }).to_string().into_response()
}

async fn status(State(keys): Shared) -> String {
    let revision = keys.lock().unwrap().revision;
    json!({ "leader": 1, "term": 1, "revision": revision, "nodes": [] }).to_string()
}

impl Keys {
    fn refusal(&self, key: &str, headers: &HeaderMap) -> Option<Response> {
        if let Some(outcome) = self.refuse {
            let body = json!({ "detail": "refused", "outcome": outcome, "retry_after_ms": 60_000 });
            return Some(problem(StatusCode::SERVICE_UNAVAILABLE, body));
        }
        let current = self.values.get(key).map(|(revision, _)| *revision);
        let holds = match (headers.get(IF_MATCH), headers.get(IF_NONE_MATCH)) {
            (Some(tag), _) if tag == "*" => current.is_some(),
            (Some(tag), _) => current.is_some_and(|revision| *tag == format!("\"{revision}\"")),
            (None, Some(_)) => current.is_none(),
            (None, None) => true,
        };
        let body = json!({ "detail": "no", "current_revision": current });
        (!holds).then(|| problem(StatusCode::PRECONDITION_FAILED, body))
    }
}
