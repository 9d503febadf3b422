//! What an answer means: entity tags, JSON bodies and `application/problem+json`.

use std::time::Duration;

use http::{StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::ClientError;
use crate::client::transport::Answer;
use crate::client::types::{DeleteOutcome, PutOutcome, Value};
use crate::consensus::Revision;

/// The header with the write that created a key.
const CREATE_REVISION: &str = "x-seawall-create-revision";

/// The longest piece of a foreign body that is repeated in a message.
const MAX_QUOTE_BYTES: usize = 200;

/// The body of an error answer (RFC 9457), as far as a client reads it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Problem {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    pub(super) title: String,
    #[serde(default)]
    pub(super) detail: String,
    #[serde(default)]
    pub(super) field: Option<String>,
    #[serde(default)]
    pub(super) outcome: Option<Outcome>,
    #[serde(default)]
    retry_after_ms: Option<u64>,
    #[serde(default)]
    current_revision: Option<Revision>,
}

/// Whether a write that failed was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    NotApplied,
    /// Also any word of a later version: unsure is unknown.
    #[serde(other)]
    Unknown,
}

impl Answer {
    /// The answer as a problem; one without a readable body has its status only.
    pub(super) fn problem(&self) -> Problem {
        // Some other JSON that happens to have our fields must not make a write look safe to repeat.
        let problem = if self.is_problem() { serde_json::from_slice(&self.body).ok() } else { None };
        problem.unwrap_or_default()
    }

    /// When the node says to come back.
    pub(super) fn retry_after(&self, problem: &Problem) -> Option<Duration> {
        let header = || self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok();
        problem.retry_after_ms.map(Duration::from_millis).or_else(|| header().map(Duration::from_secs))
    }

    /// One line for a person about an answer that is not a success.
    pub(super) fn describe(&self, problem: &Problem) -> String {
        let what = match (problem.detail.as_str(), problem.title.as_str()) {
            ("", "") => quote(&self.body),
            ("", title) => title.to_owned(),
            (detail, _) => detail.to_owned(),
        };
        let status = self.status;
        if what.is_empty() { format!("{} answered {status}", self.node) } else { format!("{what} ({status})") }
    }

    /// A value, or nothing if there is no such key.
    pub(super) fn value(self) -> Result<Option<Value>, ClientError> {
        match self.status {
            StatusCode::OK => {
                let revision = self.etag()?;
                let create_revision =
                    self.headers.get(CREATE_REVISION).and_then(|text| text.to_str().ok()?.parse().ok());
                Ok(Some(Value { value: self.body, revision, create_revision }))
            }
            // Only a node's own 404 is about the key; that of some other server says nothing about it.
            StatusCode::NOT_FOUND if self.is_problem() && !self.problem().kind.ends_with("no-such-route") => Ok(None),
            _ => Err(self.refusal()),
        }
    }

    /// An acknowledged write.
    pub(super) fn written(self) -> Result<PutOutcome, ClientError> {
        #[derive(Deserialize)]
        struct Body {
            revision: Revision,
        }
        match self.status {
            StatusCode::OK | StatusCode::CREATED => {
                self.acknowledged().map(|Body { revision }| PutOutcome { revision })
            }
            _ => Err(self.refusal()),
        }
    }

    /// An acknowledged removal.
    pub(super) fn removed(self) -> Result<DeleteOutcome, ClientError> {
        #[derive(Deserialize)]
        struct Body {
            revision: Revision,
            deleted: bool,
        }
        match self.status {
            StatusCode::OK => self.acknowledged().map(|Body { revision, deleted }| DeleteOutcome { revision, deleted }),
            _ => Err(self.refusal()),
        }
    }

    /// A JSON body.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let detail = format!("the body is not what was expected: {}", quote(&self.body));
            ClientError::Protocol { node: self.node.to_string(), detail, source: Some(error.into()) }
        })
    }

    /// The JSON body of a write's success. One that cannot be read leaves the outcome open.
    fn acknowledged<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        self.json().map_err(|error| ClientError::Unknown {
            detail: "the acknowledgement cannot be understood".to_owned(),
            source: Some(error.into()),
        })
    }

    /// The error of an answer that is final and no success.
    pub(super) fn refusal(&self) -> ClientError {
        let problem = self.problem();
        match self.status {
            StatusCode::PRECONDITION_FAILED => ClientError::ConditionFailed { current: problem.current_revision },
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                let field = problem.field.clone().unwrap_or_else(|| "request".to_owned());
                ClientError::Invalid { field, detail: self.describe(&problem) }
            }
            status => {
                let detail = format!("{status} was not expected: {}", self.describe(&problem));
                ClientError::Protocol { node: self.node.to_string(), detail, source: None }
            }
        }
    }

    fn is_problem(&self) -> bool {
        let content_type = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        content_type.is_some_and(|value| value.starts_with("application/problem+json"))
    }

    fn etag(&self) -> Result<Revision, ClientError> {
        let tag = self.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
        tag.and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()).ok_or_else(|| {
            let detail = match tag {
                Some(tag) => format!("the ETag {tag} is no revision"),
                None => "there is no ETag".to_owned(),
            };
            ClientError::Protocol { node: self.node.to_string(), detail, source: None }
        })
    }
}

fn quote(body: &[u8]) -> String {
    let piece = body.get(..MAX_QUOTE_BYTES).unwrap_or(body);
    String::from_utf8_lossy(piece).trim().to_owned()
}
