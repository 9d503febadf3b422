//! The small JSON interface of the Raft project: `GET /get/{key}` and `POST /set`.
//!
//! Values are JSON here and are stored as their JSON text, so that both interfaces read what either wrote. A value that
//! is no JSON but text is shown as a string; one that is no text at all can only be read raw.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::extract::{Consistency, NoQuery, PathKey, Whole};
use super::strong::{read, write, written};
use super::{Api, ApiError};
use crate::consensus::{Command, Key, MAX_KEY_BYTES, MAX_VALUE_BYTES, Precondition};

/// Room for the key, the field names and escapes around the largest value.
const MAX_SET_BYTES: usize = MAX_VALUE_BYTES + 8 * MAX_KEY_BYTES;

pub(super) async fn get(
    State(api): State<Api>,
    PathKey(key): PathKey,
    _: NoQuery,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let (stored, _) = read(&api, &key, Consistency::Linearizable, &headers).await?;
    let Some(stored) = stored else { return Err(ApiError::NotFound { key: key.to_string() }) };
    let value = match serde_json::from_slice(&stored.value) {
        Ok(value) => value,
        Err(_) => Value::String(text(&stored.value, &key)?.to_owned()),
    };
    Ok(Json(json!({ "key": key.as_str(), "value": value, "revision": stored.mod_revision })))
}

pub(super) async fn set(
    State(api): State<Api>,
    _: NoQuery,
    headers: HeaderMap,
    body: Whole<MAX_SET_BYTES>,
) -> Result<Json<Value>, ApiError> {
    let body: Map<String, Value> =
        serde_json::from_slice(&body.bytes).map_err(|error| ApiError::invalid("body", error.to_string()))?;
    let (mut key, mut value) = (None, None);
    for (name, given) in body {
        match name.as_str() {
            "key" => key = Some(given),
            "value" => value = Some(given),
            _ => return Err(ApiError::invalid(name, "only key and value are known here")),
        }
    }
    let value = value.ok_or_else(|| ApiError::invalid("value", "it is missing"))?;
    let key = match &key {
        Some(Value::String(key)) => Key::new(key).map_err(|error| ApiError::invalid("key", error.to_string()))?,
        Some(_) => return Err(ApiError::invalid("key", "it is no string")),
        None => return Err(ApiError::invalid("key", "it is missing")),
    };
    let value = Bytes::from(value.to_string().into_bytes().into_boxed_slice());
    if value.len() > MAX_VALUE_BYTES {
        let detail = format!("at most {MAX_VALUE_BYTES} bytes of JSON are allowed");
        return Err(ApiError::TooLarge { field: "value", detail });
    }
    let command = Command::Put { key: key.clone(), value, precondition: Precondition::Unconditional };
    let revision = written(write(&api, command, &headers).await?)?;
    Ok(Json(json!({ "key": key.as_str(), "revision": revision })))
}

fn text<'a>(value: &'a [u8], key: &Key) -> Result<&'a str, ApiError> {
    std::str::from_utf8(value).map_err(|_| ApiError::NotAcceptable {
        detail: format!("the value of {key} is no text; GET /v1/strong/{key} gives its bytes"),
    })
}
