//! Every answer that is not a success: `application/problem+json` (RFC 9457), and the only place with its status codes.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::consensus::Revision;
use crate::coordinator::CoordinatorError;

/// A request that was not done, as the client sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiError {
    /// A part of the request is wrong: which, and why.
    Invalid { field: String, detail: String },
    /// A part of the request is too large.
    TooLarge { field: &'static str, detail: String },
    /// There is no such key.
    NotFound { key: String },
    /// There is no such path, or not for this method.
    NoSuchRoute { status: StatusCode, detail: String },
    /// The condition of a write does not hold; nothing changed.
    ConditionFailed { current: Option<Revision> },
    /// The request makes no sense in the cluster as it is.
    Conflict { detail: String },
    /// The client asked not to be forwarded, and this node does not lead.
    Misdirected { leader: Option<String> },
    /// The stored value cannot be given in the form asked for.
    NotAcceptable { detail: String },
    /// Not done, and certainly never will be.
    NotApplied { detail: String, retry_after: Option<Duration> },
    /// It may have been done, or may be done yet.
    Unknown { detail: String },
    /// A read found no quorum in time. Reads have no outcome.
    Unavailable { detail: String, retry_after: Option<Duration> },
    /// This client asks for more than it may; nothing of the request was read.
    Limited { retry_after: Duration },
    /// A handler failed in a way that nobody foresaw.
    Internal,
}

/// The body of an error answer.
#[derive(Debug, Serialize)]
struct Problem {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
    /// Present (and null when there is no such key) where a condition failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_revision: Option<Option<Revision>>,
}

/// How long a client should wait where nobody knows better: about an election.
const RETRY_AFTER: Duration = Duration::from_millis(500);

impl ApiError {
    /// `field` of the request is wrong.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), detail: detail.into() }
    }

    /// The outcome for a write, as in metrics and bodies.
    pub fn outcome(&self) -> Option<&'static str> {
        match self {
            Self::Unknown { .. } | Self::Internal => Some("unknown"),
            Self::Invalid { .. }
            | Self::TooLarge { .. }
            | Self::ConditionFailed { .. }
            | Self::Conflict { .. }
            | Self::Misdirected { .. }
            | Self::NotApplied { .. }
            | Self::Limited { .. } => Some("not_applied"),
            Self::NotFound { .. }
            | Self::NoSuchRoute { .. }
            | Self::NotAcceptable { .. }
            | Self::Unavailable { .. } => None,
        }
    }

    fn problem(self) -> Problem {
        let outcome = self.outcome();
        let (slug, title, status) = match &self {
            Self::Invalid { .. } => ("invalid", "The request is not valid", StatusCode::BAD_REQUEST),
            Self::TooLarge { .. } => ("too-large", "A part of the request is too large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::NotFound { .. } => ("not-found", "There is no such key", StatusCode::NOT_FOUND),
            Self::NoSuchRoute { status, .. } => ("no-such-route", "There is nothing here", *status),
            Self::ConditionFailed { .. } => {
                ("condition-failed", "The condition does not hold", StatusCode::PRECONDITION_FAILED)
            }
            Self::Conflict { .. } => ("conflict", "The cluster does not allow it", StatusCode::CONFLICT),
            Self::Misdirected { .. } => ("not-leader", "This node does not lead", StatusCode::MISDIRECTED_REQUEST),
            Self::NotAcceptable { .. } => {
                ("not-text", "The value cannot be shown this way", StatusCode::NOT_ACCEPTABLE)
            }
            Self::NotApplied { .. } => ("not-applied", "The write was not applied", StatusCode::SERVICE_UNAVAILABLE),
            Self::Unknown { .. } => ("unknown", "The outcome of the write is unknown", StatusCode::SERVICE_UNAVAILABLE),
            Self::Unavailable { .. } => {
                ("unavailable", "The read cannot be served now", StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::Limited { .. } => {
                ("too-many-requests", "This client sends too many requests", StatusCode::TOO_MANY_REQUESTS)
            }
            Self::Internal => ("internal", "The node failed", StatusCode::INTERNAL_SERVER_ERROR),
        };
        let mut problem = Problem {
            r#type: format!("urn:seawall-kv:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: String::new(),
            field: None,
            outcome,
            retry_after_ms: None,
            leader: None,
            current_revision: None,
        };
        match self {
            Self::Invalid { field, detail } => {
                problem.field = Some(field);
                problem.detail = detail;
            }
            Self::TooLarge { field, detail } => {
                problem.field = Some(field.to_owned());
                problem.detail = detail;
            }
            Self::NotFound { key } => problem.detail = format!("no key {key:?}"),
            Self::ConditionFailed { current } => {
                problem.detail = match current {
                    Some(revision) => format!("the key is at revision {revision}"),
                    None => "there is no such key".to_owned(),
                };
                problem.current_revision = Some(current);
            }
            Self::Misdirected { leader } => {
                problem.detail = match &leader {
                    Some(leader) => format!("the leader is at {leader}"),
                    None => "no leader is known".to_owned(),
                };
                problem.leader = leader;
            }
            Self::NotApplied { detail, retry_after } | Self::Unavailable { detail, retry_after } => {
                problem.detail = detail;
                problem.retry_after_ms = Some(millis(retry_after.unwrap_or(RETRY_AFTER)));
            }
            Self::Limited { retry_after } => {
                "this node answers no more requests of this client for now".clone_into(&mut problem.detail);
                problem.retry_after_ms = Some(millis(retry_after));
            }
            Self::NoSuchRoute { detail, .. }
            | Self::Conflict { detail }
            | Self::NotAcceptable { detail }
            | Self::Unknown { detail } => {
                problem.detail = detail;
            }
            Self::Internal => "the cause is in the node's log".clone_into(&mut problem.detail),
        }
        problem
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let outcome = self.outcome().unwrap_or("failed");
        let problem = self.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Strings and numbers always serialize.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(millis) = problem.retry_after_ms {
            // Whole seconds, rounded up for the same reason as the milliseconds.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000)));
        }
        super::limits::mark(response, outcome)
    }
}

impl From<CoordinatorError> for ApiError {
    fn from(error: CoordinatorError) -> Self {
        let detail = error.to_string();
        match error {
            CoordinatorError::NotApplied { retry_after, .. } => Self::NotApplied { detail, retry_after },
            CoordinatorError::Refused { reason } => Self::Conflict { detail: reason },
            CoordinatorError::Unknown { .. } => Self::Unknown { detail },
            CoordinatorError::Unavailable { retry_after, .. } => Self::Unavailable { detail, retry_after },
            CoordinatorError::NotLeader { leader } => {
                Self::Misdirected { leader: leader.map(|member| format!("http://{}", member.api_addr)) }
            }
        }
    }
}

/// Whole milliseconds, rounded up: earlier would be refused again.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(error: ApiError) -> serde_json::Value {
        serde_json::to_value(error.problem()).unwrap()
    }

    #[test]
    fn a_problem_names_the_field_and_the_outcome() {
        let body = body(ApiError::invalid("If-Match", "no entity tag"));
        assert_eq!(body["status"], 400);
        assert_eq!(body["field"], "If-Match");
        assert_eq!(body["outcome"], "not_applied");
    }

    #[test]
    fn a_failed_condition_tells_the_current_revision_even_when_there_is_none() {
        assert_eq!(body(ApiError::ConditionFailed { current: Some(7) })["current_revision"], 7);
        let absent = body(ApiError::ConditionFailed { current: None });
        assert!(absent.as_object().unwrap()["current_revision"].is_null());
        assert!(!body(ApiError::Internal).as_object().unwrap().contains_key("current_revision"));
    }

    /// Status, outcome, and `Retry-After` in seconds and milliseconds.
    fn refusal(error: impl Into<ApiError>) -> (u16, String, String, u64) {
        let error = error.into();
        let body = body(error.clone());
        let response = error.into_response();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.status().as_u16(), body["status"]);
        let seconds = response.headers()[header::RETRY_AFTER].to_str().unwrap().to_owned();
        let outcome = body["outcome"].as_str().unwrap_or("none").to_owned();
        (response.status().as_u16(), outcome, seconds, body["retry_after_ms"].as_u64().unwrap())
    }

    #[test]
    fn every_refusal_says_when_to_come_back_rounded_up() {
        let reason = String::new;
        for (nanos, seconds, millis) in [
            (0, "0", 0),
            (1, "1", 1),
            (1_000_000_000, "1", 1000),
            (1_000_000_001, "2", 1001),
            (1_001_000_000, "2", 1001),
        ] {
            let after = Duration::from_nanos(nanos);
            let expected = |status, outcome: &str| (status, outcome.to_owned(), seconds.to_owned(), millis);
            assert_eq!(refusal(ApiError::Limited { retry_after: after }), expected(429, "not_applied"));
            let write = CoordinatorError::NotApplied { reason: reason(), retry_after: Some(after) };
            assert_eq!(refusal(write), expected(503, "not_applied"));
            let read = CoordinatorError::Unavailable { reason: reason(), retry_after: Some(after) };
            assert_eq!(refusal(read), expected(503, "none"));
        }
        let unhinted = CoordinatorError::NotApplied { reason: reason(), retry_after: None };
        assert_eq!(refusal(unhinted), (503, "not_applied".to_owned(), "1".to_owned(), 500));
        let unhinted = CoordinatorError::Unavailable { reason: reason(), retry_after: None };
        assert_eq!(refusal(unhinted), (503, "none".to_owned(), "1".to_owned(), 500));
    }
}
