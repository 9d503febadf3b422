//! Everything a call can end with besides its answer, closed.

use std::time::Duration;

use seawall::BoxError;

use crate::consensus::Revision;

/// Why a call gave no answer. Only [`ClientError::Unknown`] leaves open whether a write happened.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The condition of a write does not hold; nothing was changed.
    #[error("the condition does not hold: {}", match .current {
        Some(revision) => format!("the key is at revision {revision}"),
        None => "there is no such key".to_owned(),
    })]
    ConditionFailed {
        /// The key's revision now, or `None` if there is no such key.
        current: Option<Revision>,
    },
    /// A part of the call breaks a rule; it will never succeed as it is. Nothing was changed.
    #[error("{field}: {detail}")]
    Invalid {
        /// The part: `key`, `value`, or what a node named.
        field: String,
        /// The rule.
        detail: String,
    },
    /// No node could do it before the retries or the time ran out. Nothing was changed.
    #[error("not done: {detail}")]
    Unavailable {
        /// What the last attempt ended with.
        detail: String,
        /// When to come back, where somebody knows.
        retry_after: Option<Duration>,
        /// The error below, where there is one.
        #[source]
        source: Option<BoxError>,
    },
    /// The write may have been done, or may be done yet. Read the key to find out, or write again if that is harmless.
    #[error("the outcome is unknown: {detail}")]
    Unknown {
        /// What went wrong after the write was sent.
        detail: String,
        /// The error below, where there is one.
        #[source]
        source: Option<BoxError>,
    },
    /// A node answered a read with something that is not the protocol.
    #[error("the answer of {node} cannot be understood: {detail}")]
    Protocol {
        /// The node.
        node: String,
        /// What is wrong with its answer.
        detail: String,
        /// The error below, where there is one.
        #[source]
        source: Option<BoxError>,
    },
    /// The client itself is configured wrongly.
    #[error("{field}: {detail}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl ClientError {
    /// `field` of a call breaks a rule.
    pub(super) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), detail: detail.into() }
    }

    /// Whether it is certain that nothing was changed.
    pub const fn is_not_applied(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }
}
