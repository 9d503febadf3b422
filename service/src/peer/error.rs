//! Everything that can go wrong between two nodes, closed.

use std::fmt;
use std::time::Duration;

use seawall::BoxError;
use serde::{Deserialize, Serialize};

/// Why a message to a peer got no usable answer.
///
/// The one question that matters to a write is [`PeerError::never_sent`].
#[derive(Debug)]
#[non_exhaustive]
pub enum PeerError {
    /// A layer of our own stack refused the message: the peer never saw it.
    Refused(seawall::Rejected),
    /// No connection could be made: the peer never saw the message.
    Unreachable(BoxError),
    /// The time for the answer ran out after the message was handed to the transport.
    Elapsed(BoxError),
    /// The connection broke after the message may have left.
    Broken(BoxError),
    /// The peer answered with an error of its own.
    Remote(RemoteError),
}

/// What a peer answers when it cannot do what a message asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteError {
    /// What kind of failure.
    pub code: RemoteCode,
    /// One line for a person.
    pub detail: String,
}

/// The kinds of answer a peer gives instead of the one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteCode {
    /// Another protocol version, cluster or node than was dialled.
    WrongPeer,
    /// The message could not be decoded.
    BadMessage,
    /// The peer is starting, stopping or too busy; it did nothing.
    Unavailable,
    /// The peer failed while it worked on the message: the outcome is unknown.
    Internal,
}

impl PeerError {
    /// Whether it is certain that the peer did not act on the message.
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Unreachable(_) => true,
            Self::Elapsed(_) | Self::Broken(_) => false,
            Self::Remote(error) => error.code != RemoteCode::Internal,
        }
    }

    /// When the peer may be asked again, where a layer of our own stack knows.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Refused(rejected) = self { rejected.retry_after } else { None }
    }

    /// Whether a limit of our own stack refused the message because too much is under way to the peer.
    pub fn is_overload(&self) -> bool {
        use seawall::Reason::{Full, Limited, MaxWait, Never, QueueFull};
        matches!(self, Self::Refused(rejected) if matches!(rejected.reason, Full | QueueFull | MaxWait | Limited | Never))
    }

    /// A short word for metrics.
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Elapsed(_) => "elapsed",
            Self::Broken(_) => "broken",
            Self::Remote(_) => "remote",
        }
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_) => f.write_str("our own stack refused the message"),
            Self::Unreachable(_) => f.write_str("the peer cannot be reached"),
            Self::Elapsed(_) => f.write_str("no answer in time"),
            Self::Broken(_) => f.write_str("the connection broke before the answer"),
            Self::Remote(error) => write!(f, "the peer answered {:?}: {}", error.code, error.detail),
        }
    }
}

impl std::error::Error for PeerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Unreachable(error) | Self::Elapsed(error) | Self::Broken(error) => Some(&**error),
            Self::Remote(_) => None,
        }
    }
}

impl RemoteError {
    /// An answer of this code with a line for a person.
    pub fn new(code: RemoteCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}
