//! Everything that can go wrong in consensus, closed, with the three outcomes of a write kept apart.

use std::fmt;
use std::sync::Arc;

use seawall::{BoxError, InvalidConfig};
use serde::{Deserialize, Serialize};

use crate::consensus::Member;
use crate::peer::{NodeId, PeerError};
use crate::storage::StorageError;

/// What is certain about a write that gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteOutcome {
    /// It did not happen and never will: trying again is safe.
    NotApplied,
    /// It may have happened, or may yet.
    Unknown,
}

/// Why a proposal gave no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// This node does not lead; nothing was proposed.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// The queue of proposals is full; nothing was proposed.
    #[error("too many proposals under way")]
    TooBusy,
    /// The node was stopping before the command was proposed.
    #[error("the node is stopping")]
    Stopping,
    /// The command was proposed, and what became of it is not known.
    #[error("the outcome is unknown: {0}")]
    Unknown(UnknownOutcome),
}

/// Why the outcome of a proposal is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnknownOutcome {
    /// The leader changed before the entry was committed; a copy of it may survive on another node.
    Discarded,
    /// The deadline passed while the entry was under way.
    Deadline,
    /// The node stopped or failed while the entry was under way.
    Stopped,
}

/// This node does not lead the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotLeader {
    /// Who does, as far as this node knows.
    pub leader: Option<(NodeId, Member)>,
}

/// Why a read index could not be had. The read did not happen; it may be tried again with a new one.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// This node does not lead.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// Too few members answered to be sure that this node still leads.
    #[error("no quorum confirmed the leader")]
    NoQuorum,
    /// The queue of reads is full.
    #[error("too many reads under way")]
    TooBusy,
    /// The leader was asked and gave no usable answer.
    #[error("the leader gave no answer")]
    Leader(#[source] Arc<PeerError>),
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// The node is stopping or has failed.
    #[error("the node is stopping")]
    Stopping,
}

/// Why the group could not be formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitialiseError {
    /// This node holds data already; a group is formed once.
    #[error("this node belongs to a group already")]
    AlreadyFormed,
    /// The list of members is not one to start with.
    #[error("cannot start with these members: {0}")]
    Members(&'static str),
    /// Another of the founders formed the group first, under this identity.
    #[error("the group has formed under another identity, {0}")]
    OtherCluster(crate::consensus::ClusterId),
    /// The members are agreed; giving the cluster its identity did not succeed yet.
    #[error("the cluster has no identity yet: {0}")]
    Identity(#[from] ProposeError),
    /// The node is stopping or has failed.
    #[error("the node is stopping")]
    Stopping,
}

/// Why a change of members did not finish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// This node does not lead; nothing was proposed.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// Another change is under way; nothing was proposed.
    #[error("the cluster is forming, or another change of members is under way")]
    InProgress,
    /// The change makes no sense now; nothing was proposed.
    #[error("the change is refused: {0}")]
    Refused(String),
    /// The change was proposed; whether it holds is not known. The members in the status tell later.
    #[error("the outcome of the change is unknown: {0}")]
    Unknown(UnknownOutcome),
    /// The node was stopping before the change was proposed.
    #[error("the node is stopping")]
    Stopping,
}

/// Why an index was not applied in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The deadline passed first.
    #[error("the deadline passed before the index was applied")]
    Deadline,
    /// The node is stopping or has failed.
    #[error("the node is stopping")]
    Stopping,
}

/// Why consensus did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log or the newest state cannot be read back.
    #[error("the replicated log cannot be recovered")]
    Recovery(#[source] BoxError),
}

impl ProposeError {
    /// What is certain about the write.
    pub const fn outcome(&self) -> WriteOutcome {
        match self {
            Self::NotLeader(_) | Self::TooBusy | Self::Stopping => WriteOutcome::NotApplied,
            Self::Unknown(_) => WriteOutcome::Unknown,
        }
    }

    /// A short word for metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotLeader(_) => "not_leader",
            Self::TooBusy => "too_busy",
            Self::Stopping => "stopping",
            Self::Unknown(UnknownOutcome::Discarded) => "discarded",
            Self::Unknown(UnknownOutcome::Deadline) => "deadline",
            Self::Unknown(UnknownOutcome::Stopped) => "stopped",
        }
    }
}

impl fmt::Display for UnknownOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discarded => "the leader changed before the entry was committed",
            Self::Deadline => "the deadline passed",
            Self::Stopped => "the node stopped",
        })
    }
}

impl fmt::Display for NotLeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.leader {
            Some((id, member)) => write!(f, "not the leader; node {id} at {} is", member.api_addr),
            None => f.write_str("not the leader, and no leader is known"),
        }
    }
}

impl std::error::Error for NotLeader {}
