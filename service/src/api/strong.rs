//! `/v1/strong/{key}`: raw bytes in, raw bytes out, revisions as entity tags.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use seawall::Deadline;
use serde_json::json;

use super::extract::{Condition, Consistency, NoQuery, PathKey, ReadQuery, Value};
use super::{Api, ApiError, forwarding, request_id};
use crate::consensus::{Command, Entry, Key, Precondition, Response as Applied, Revision};
use crate::coordinator::{ANSWER_MARGIN, DEFAULT_DEADLINE};

/// The revision that created a key.
const CREATE_REVISION: &str = "x-seawall-create-revision";
/// The revision of the node's state that a stale read saw.
const STATE_REVISION: &str = "x-seawall-revision";

/// How long ago the node that answers a stale read last heard of its leader, in milliseconds.
const STATE_AGE: &str = "x-seawall-age-ms";

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
    Condition(precondition): Condition,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (stored, revision) = read(&api, &key, query.consistency, &headers).await?;
    let current = stored.as_ref().map(|stored| stored.mod_revision);
    let mut response = match stored {
        _ if !precondition.holds(current) => match precondition {
            Precondition::Absent | Precondition::RevisionIsNot(_) => StatusCode::NOT_MODIFIED.into_response(),
            _ => return Err(ApiError::ConditionFailed { current }),
        },
        None => return Err(ApiError::NotFound { key: key.to_string() }),
        Some(stored) => {
            let mut response = stored.value.into_response();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers.insert(CREATE_REVISION, HeaderValue::from(stored.create_revision));
            response
        }
    };
    let headers = response.headers_mut();
    if let Some(current) = current {
        headers.insert(header::ETAG, etag(current));
    }
    headers.insert(STATE_REVISION, HeaderValue::from(revision));
    if query.consistency == Consistency::Stale
        && let Some(age) = api.leader_heard_ago()
    {
        headers.insert(STATE_AGE, HeaderValue::from(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
    }
    Ok(response)
}

pub(super) async fn put(
    State(api): State<Api>,
    PathKey(key): PathKey,
    _: NoQuery,
    Condition(precondition): Condition,
    headers: HeaderMap,
    value: Value,
) -> Result<Response, ApiError> {
    let command = Command::Put { key, value: value.bytes.clone(), precondition };
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
        Consistency::Stale => {
            // Before that, the state may be older than one this node has shown already.
            let left = Deadline::remaining().unwrap_or(DEFAULT_DEADLINE).saturating_sub(ANSWER_MARGIN);
            if api.clock.timeout(left, api.readiness.started()).await.is_none() {
                let detail = "the node is still reading back its log".to_owned();
                return Err(ApiError::Unavailable { detail, retry_after: None });
            }
            api.coordinator.read_stale(look)
        }
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
