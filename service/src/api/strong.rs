//! `/v1/strong/{key}`: raw bytes in, raw bytes out, revisions as entity tags.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::extract::{Condition, Consistency, NoQuery, PathKey, ReadQuery, Value};
use super::{Api, ApiError, forwarding, request_id};
use crate::consensus::{Command, Entry, Key, Response as Applied, Revision};

/// The revision that created a key.
const CREATE_REVISION: &str = "x-seawall-create-revision";
/// The revision of the node's state that a stale read saw.
const STATE_REVISION: &str = "x-seawall-revision";

/// A value as it was stored.
pub(super) struct Stored {
    pub(super) value: Bytes,
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
}

impl From<&Entry> for Stored {
    fn from(entry: &Entry) -> Self {
        Self { value: entry.value.clone(), create_revision: entry.create_revision, mod_revision: entry.mod_revision }
    }
}

pub(super) async fn get(
    State(api): State<Api>,
    PathKey(key): PathKey,
    query: ReadQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (stored, revision) = read(&api, &key, query.consistency, &headers).await?;
    let Some(stored) = stored else { return Err(ApiError::NotFound { key: key.to_string() }) };
    let mut response = stored.value.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ETAG, etag(stored.mod_revision));
    headers.insert(CREATE_REVISION, HeaderValue::from(stored.create_revision));
    headers.insert(STATE_REVISION, HeaderValue::from(revision));
    Ok(response)
}

pub(super) async fn put(
    State(api): State<Api>,
    PathKey(key): PathKey,
    _: NoQuery,
    Condition(precondition): Condition,
    headers: HeaderMap,
    Value(value): Value,
) -> Result<Response, ApiError> {
    let command = Command::Put { key, value, precondition };
    let revision = written(write(&api, command, &headers).await?)?;
    let mut response = Json(json!({ "revision": revision })).into_response();
    response.headers_mut().insert(header::ETAG, etag(revision));
    Ok(response)
}

pub(super) async fn delete(
    State(api): State<Api>,
    PathKey(key): PathKey,
    _: NoQuery,
    Condition(precondition): Condition,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match write(&api, Command::Delete { key, precondition }, &headers).await? {
        Applied::Deleted { revision, existed } => {
            Ok(Json(json!({ "revision": revision, "deleted": existed })).into_response())
        }
        other => written(other).map(|revision| Json(json!({ "revision": revision })).into_response()),
    }
}

pub(super) async fn empty_key() -> ApiError {
    ApiError::invalid("key", "the key is empty; it needs at least one character")
}

/// Reads a key and the revision of the state it was read from.
pub(super) async fn read(
    api: &Api,
    key: &Key,
    consistency: Consistency,
    headers: &HeaderMap,
) -> Result<(Option<Stored>, Revision), ApiError> {
    let look =
        |keyspace: &crate::consensus::Keyspace| (keyspace.get(key.as_str()).map(Stored::from), keyspace.revision());
    Ok(match consistency {
        Consistency::Linearizable => api.coordinator.read_linearizable(forwarding(headers), look).await?,
        Consistency::Stale => api.coordinator.read_stale(look),
    })
}

/// Sends a write through the log; a condition that does not hold is an error here.
pub(super) async fn write(api: &Api, command: Command, headers: &HeaderMap) -> Result<Applied, ApiError> {
    match api.coordinator.write(command, request_id(headers), forwarding(headers)).await? {
        Applied::ConditionFailed { current } => Err(ApiError::ConditionFailed { current }),
        applied => Ok(applied),
    }
}

/// The revision of a write.
pub(super) fn written(applied: Applied) -> Result<Revision, ApiError> {
    match applied {
        Applied::Written { revision } => Ok(revision),
        other => {
            tracing::error!(?other, "a write was answered with something else");
            Err(ApiError::Internal)
        }
    }
}

fn etag(revision: Revision) -> HeaderValue {
    // Digits in quotes are always a valid header.
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}

/// What a path under `/v1/strong` answers to another method.
pub(super) async fn not_allowed() -> ApiError {
    let detail = "a key takes GET, PUT and DELETE".to_owned();
    ApiError::NoSuchRoute { status: StatusCode::METHOD_NOT_ALLOWED, detail }
}
