//! What handlers read from a request, each part checked, each mistake naming its part.

use std::sync::Arc;

use axum::RequestPartsExt;
use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use http_body_util::BodyExt;
use seawall::Deadline;
use tokio::sync::OwnedSemaphorePermit;

use super::{Api, ApiError, Bodies};
use crate::consensus::{Key, MAX_VALUE_BYTES, Precondition, Revision};
use crate::coordinator::ANSWER_MARGIN;

/// The key in the path, percent-decoded and checked.
pub(super) struct PathKey(pub(super) Key);

impl<S: Send + Sync> FromRequestParts<S> for PathKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Path(text) = parts
            .extract::<Path<String>>()
            .await
            .map_err(|error| ApiError::invalid("key", format!("the path cannot be decoded: {}", error.body_text())))?;
        let key = Key::new(&text).map_err(|error| ApiError::invalid("key", error.to_string()))?;
        Ok(Self(key))
    }
}

/// Which state a read may see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Consistency {
    /// At least every write that was acknowledged before the read began.
    #[default]
    Linearizable,
    /// This node's state, however old.
    Stale,
}

/// The query of a read.
pub(super) struct ReadQuery {
    pub(super) consistency: Consistency,
}

impl<S: Send + Sync> FromRequestParts<S> for ReadQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut consistency = None;
        for (name, value) in parameters(parts).await? {
            match (name.as_str(), value.as_str()) {
                ("consistency", _) if consistency.is_some() => {
                    return Err(ApiError::invalid(name, "given more than once"));
                }
                ("consistency", "linearizable") => consistency = Some(Consistency::Linearizable),
                ("consistency", "stale") => consistency = Some(Consistency::Stale),
                ("consistency", other) => {
                    return Err(ApiError::invalid(name, format!("{other:?} is neither linearizable nor stale")));
                }
                _ => return Err(unknown_parameter(name)),
            }
        }
        Ok(Self { consistency: consistency.unwrap_or_default() })
    }
}

/// Refuses any query: a misspelt parameter must not be ignored.
pub(super) struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match parameters(parts).await?.into_iter().next() {
            Some((name, _)) => Err(unknown_parameter(name)),
            None => Ok(Self),
        }
    }
}

async fn parameters(parts: &mut Parts) -> Result<Vec<(String, String)>, ApiError> {
    let Query(parameters) = parts
        .extract::<Query<Vec<(String, String)>>>()
        .await
        .map_err(|error| ApiError::invalid("query", error.body_text()))?;
    Ok(parameters)
}

fn unknown_parameter(name: String) -> ApiError {
    let detail = format!("there is no query parameter {name:?} here");
    ApiError::invalid(name, detail)
}

/// `If-Match` and `If-None-Match` (RFC 9110 §13.1) as what must hold of the key.
pub(super) struct Condition(pub(super) Precondition);

impl<S: Send + Sync> FromRequestParts<S> for Condition {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        condition(&parts.headers).map(Self)
    }
}

fn condition(headers: &HeaderMap) -> Result<Precondition, ApiError> {
    match (entity_tags(headers, &IF_MATCH)?, entity_tags(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(Precondition::Unconditional),
        (Some(Tags::Any), None) => Ok(Precondition::Exists),
        (Some(Tags::List(revisions)), None) => Ok(Precondition::RevisionIs(revisions)),
        (None, Some(Tags::Any)) => Ok(Precondition::Absent),
        (None, Some(Tags::List(revisions))) => Ok(Precondition::RevisionIsNot(revisions)),
        (Some(_), Some(_)) => Err(ApiError::invalid("If-None-Match", "cannot be combined with If-Match")),
    }
}

enum Tags {
    Any,
    List(Vec<Revision>),
}

/// The entity tags in a request: each the revision of a key in double quotes.
const MAX_TAGS: usize = 64;

fn entity_tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
    let field = if *name == IF_MATCH { "If-Match" } else { "If-None-Match" };
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::invalid(field, "given more than once"));
    }
    let text = value.to_str().map_err(|_| ApiError::invalid(field, "not plain text"))?.trim();
    if text == "*" {
        return Ok(Some(Tags::Any));
    }
    let revisions = text.split(',').map(|tag| revision(tag.trim())).collect::<Result<Vec<_>, _>>();
    match revisions {
        Ok(revisions) if revisions.len() > MAX_TAGS => {
            Err(ApiError::invalid(field, format!("more than {MAX_TAGS} tags")))
        }
        Ok(revisions) => Ok(Some(Tags::List(revisions))),
        Err(reason) => Err(ApiError::invalid(field, format!("{text}: {reason}"))),
    }
}

fn revision(tag: &str) -> Result<Revision, &'static str> {
    if tag.starts_with("W/") {
        return Err("weak entity tags match no write; give the ETag as it came");
    }
    tag.strip_prefix('"')
        .and_then(|tag| tag.strip_suffix('"'))
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or("an entity tag is a revision in double quotes, as in \"42\", or * alone")
}

/// The body of a request, of at most `LIMIT` bytes, in one buffer of its exact size.
///
/// A slice of a connection's buffer must not reach the log: a small value would keep the whole buffer alive.
pub(super) struct Whole<const LIMIT: usize> {
    pub(super) bytes: Bytes,
    /// The share of the memory for bodies; kept until the request is answered.
    _share: OwnedSemaphorePermit,
}

/// The body as a value.
pub(super) type Value = Whole<MAX_VALUE_BYTES>;

impl<const LIMIT: usize> FromRequest<Api> for Whole<LIMIT> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let body = request.into_body();
        let share = share(&api.bodies, &body, LIMIT)?;
        let field = if LIMIT == MAX_VALUE_BYTES { "value" } else { "body" };
        let collect = collect(body, LIMIT, field);
        let collected = match Deadline::remaining() {
            Some(left) => api.clock.timeout(left.saturating_sub(ANSWER_MARGIN), collect).await,
            None => Some(collect.await),
        };
        let late = || ApiError::NotApplied {
            detail: "the body did not arrive before the deadline".to_owned(),
            retry_after: None,
        };
        Ok(Self { bytes: collected.ok_or_else(late)??, _share: share })
    }
}

/// Takes what the body may need from the memory for bodies.
fn share(bodies: &Bodies, body: &Body, limit: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let size = body.size_hint().upper().map_or(limit, |size| usize::try_from(size).unwrap_or(limit)).min(limit);
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    Arc::clone(&bodies.0).try_acquire_many_owned(size).map_err(|_| ApiError::NotApplied {
        detail: "too many request bodies at one time".to_owned(),
        retry_after: None,
    })
}

/// Reads `body`, of at most `limit` bytes, into one buffer of its exact size.
async fn collect(mut body: Body, limit: usize, field: &'static str) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::TooLarge { field, detail: format!("at most {limit} bytes are allowed") };
    let announced = usize::try_from(body.size_hint().lower()).map_err(|_| too_large())?;
    if announced > limit {
        return Err(too_large());
    }
    let mut value = Vec::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::invalid(field, format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if value.len() + data.len() > limit {
            return Err(too_large());
        }
        value.extend_from_slice(&data);
    }
    Ok(Bytes::from(value.into_boxed_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &'static str, value: &str) -> Result<Precondition, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        condition(&headers)
    }

    #[test]
    fn conditions_are_read_as_http_says() {
        assert_eq!(condition(&HeaderMap::new()), Ok(Precondition::Unconditional));
        assert_eq!(of("if-match", "*"), Ok(Precondition::Exists));
        assert_eq!(of("if-match", "\"42\""), Ok(Precondition::RevisionIs(vec![42])));
        assert_eq!(of("if-match", "\"1\", \"2\""), Ok(Precondition::RevisionIs(vec![1, 2])));
        assert_eq!(of("if-none-match", "*"), Ok(Precondition::Absent));
        assert_eq!(of("if-none-match", "\"7\""), Ok(Precondition::RevisionIsNot(vec![7])));
    }

    #[test]
    fn a_malformed_condition_names_its_header() {
        for text in ["42", "W/\"42\"", "\"\"", "\"x\"", "\"+4\"", "", "\"1\",*", "\"99999999999999999999\""] {
            match of("if-match", text) {
                Err(ApiError::Invalid { field, .. }) => assert_eq!(field, "If-Match", "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_value_has_its_exact_size_and_a_bound() {
        let value = collect(Body::from(vec![1; 100]), 100, "value").await.unwrap();
        assert_eq!(value.len(), 100);
        let error = collect(Body::from(vec![1; 101]), 100, "value").await.unwrap_err();
        assert!(matches!(error, ApiError::TooLarge { field: "value", .. }));
        let pieces = futures_util::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))));
        assert!(collect(Body::from_stream(pieces), 8, "value").await.is_err(), "without a length, too");
    }
}
