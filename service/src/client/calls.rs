//! The calls of a client.

use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tower::ServiceExt;

use crate::client::policy::conclude;
use crate::client::stack::Stack;
use crate::client::transport::{Answer, Call};
use crate::client::types::{Consistency, DeleteOutcome, GetOptions, NodeReport, PutOutcome, Value};
use crate::client::{ClientBuilder, ClientError};
use crate::consensus::{Key, MAX_VALUE_BYTES, Precondition, Revision};
use crate::topology::{JoinAnswer, JoinRequest};

/// What a path segment carries as it is (RFC 3986 §2.3); all else is encoded, `/` too.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A client of a cluster; clones share connections, breakers and the retry budget.
///
/// Dropping the future of a write that has begun leaves its outcome unknown.
#[derive(Debug, Clone)]
pub struct Client {
    stack: Stack,
    ids: Arc<RequestIds>,
}

/// Names requests, so that a call can be found in the logs of every node it touched.
#[derive(Debug)]
struct RequestIds {
    client: u32,
    next: AtomicU64,
}

impl Client {
    /// Begins a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    pub(super) fn new(stack: Stack) -> Self {
        // The hasher's keys are the one randomness that std offers; ids need to differ, not to be secret.
        let random = std::hash::RandomState::new().build_hasher().finish();
        let client = u32::try_from(random & u64::from(u32::MAX)).unwrap_or_default();
        Self { stack, ids: Arc::new(RequestIds { client, next: AtomicU64::new(0) }) }
    }

    /// Reads a key: at least every write acknowledged before the call began. `None` if there is no such key.
    ///
    /// # Errors
    ///
    /// Never [`ClientError::Unknown`] nor [`ClientError::ConditionFailed`].
    pub async fn get(&self, key: &str) -> Result<Option<Value>, ClientError> {
        self.get_with(key, GetOptions::default()).await
    }

    /// Reads a key as `options` say. `None` if there is no such key.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn get_with(&self, key: &str, options: GetOptions) -> Result<Option<Value>, ClientError> {
        let mut path = path_of(key)?;
        if options.consistency != Consistency::default() {
            path.push_str("?consistency=");
            path.push_str(options.consistency.name());
        }
        self.send(Call::new(Method::GET, path)).await?.value()
    }

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unknown`] if the write may have happened; every other error means that it did not.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<PutOutcome, ClientError> {
        self.put_if(key, value, Precondition::Unconditional).await
    }

    /// Writes a value if `condition` holds of the key at that moment.
    ///
    /// # Errors
    ///
    /// As [`Client::put`], and [`ClientError::ConditionFailed`].
    pub async fn put_if(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        condition: Precondition,
    ) -> Result<PutOutcome, ClientError> {
        let mut call = Call::new(Method::PUT, path_of(key)?);
        call.body = value.into();
        if call.body.len() > MAX_VALUE_BYTES {
            let detail = format!("the value has {} bytes; at most {MAX_VALUE_BYTES} are allowed", call.body.len());
            return Err(ClientError::invalid("value", detail));
        }
        set_condition(&mut call, &condition)?;
        self.send(call).await?.written()
    }

    /// Removes a key; removing one that is not there is no error.
    ///
    /// # Errors
    ///
    /// As [`Client::put`].
    pub async fn delete(&self, key: &str) -> Result<DeleteOutcome, ClientError> {
        self.delete_if(key, Precondition::Unconditional).await
    }

    /// Removes a key if `condition` holds of it at that moment.
    ///
    /// # Errors
    ///
    /// As [`Client::put`], and [`ClientError::ConditionFailed`].
    pub async fn delete_if(&self, key: &str, condition: Precondition) -> Result<DeleteOutcome, ClientError> {
        let mut call = Call::new(Method::DELETE, path_of(key)?);
        set_condition(&mut call, &condition)?;
        self.send(call).await?.removed()
    }

    /// Asks every node at once what it knows of the cluster, in the order the nodes were given.
    pub async fn status(&self) -> Vec<NodeReport> {
        let asked = self.stack.each().map(|(node, service)| async move {
            let call = self.named(Call::new(Method::GET, "/cluster/status"));
            let answer = conclude(true, service.oneshot(call).await);
            let status = answer
                .and_then(|answer| if answer.status.is_success() { answer.json() } else { Err(answer.refusal()) });
            NodeReport { url: node.to_string(), status }
        });
        join_all(asked).await
    }

    /// Asks for a new node to become a member; see [`crate::topology::JoinAnswer`] for how often.
    pub(crate) async fn join(&self, request: &JoinRequest) -> Result<JoinAnswer, ClientError> {
        let mut call = Call::new(Method::POST, "/cluster/members");
        call.body =
            serde_json::to_vec(request).map_err(|error| ClientError::invalid("body", error.to_string()))?.into();
        let answer = self.send(call).await?;
        if answer.status.is_success() { answer.json() } else { Err(answer.refusal()) }
    }

    async fn send(&self, call: Call) -> Result<Answer, ClientError> {
        let is_read = call.is_read();
        conclude(is_read, self.stack.all().oneshot(self.named(call)).await)
    }

    fn named(&self, mut call: Call) -> Call {
        // ORDERING: Relaxed, the number is the whole state and only has to differ.
        let number = self.ids.next.fetch_add(1, Ordering::Relaxed);
        if let Ok(id) = HeaderValue::try_from(format!("{:08x}-{number}", self.ids.client)) {
            call.headers.insert(REQUEST_ID, id);
        }
        call
    }
}

fn path_of(key: &str) -> Result<String, ClientError> {
    Key::new(key).map_err(|error| ClientError::invalid("key", error.to_string()))?;
    // A path segment of dots alone would be removed on the way (RFC 3986 §5.2.4), encoded or not.
    Ok(format!("/v1/strong/{}", utf8_percent_encode(key, SEGMENT)))
}

fn set_condition(call: &mut Call, condition: &Precondition) -> Result<(), ClientError> {
    let (name, value) = match condition {
        Precondition::Unconditional => return Ok(()),
        Precondition::Exists => (IF_MATCH, "*".to_owned()),
        Precondition::Absent => (IF_NONE_MATCH, "*".to_owned()),
        Precondition::RevisionIs(revisions) => (IF_MATCH, tags(revisions)?),
        Precondition::RevisionIsNot(revisions) => (IF_NONE_MATCH, tags(revisions)?),
    };
    let value = HeaderValue::try_from(value).map_err(|error| ClientError::invalid("condition", error.to_string()))?;
    call.headers.insert(name, value);
    Ok(())
}

fn tags(revisions: &[Revision]) -> Result<String, ClientError> {
    if revisions.is_empty() {
        return Err(ClientError::invalid("condition", "a list of revisions needs at least one"));
    }
    let mut tags = String::new();
    for revision in revisions {
        let comma = if tags.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(tags, "{comma}\"{revision}\"");
    }
    Ok(tags)
}
