//! What nodes say to each other: the message kinds, the lane each travels on, and its envelope.
//!
//! The envelope is deliberately plain: a kind and bytes. Who owns a message encodes it (consensus its votes and
//! entries, forwarding its commands), so this module names neither openraft nor HTTP.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::peer::PeerError;

/// Identifies a node for the life of the cluster; never reused.
pub type NodeId = u64;

/// The version of the peer protocol; both ends must speak the same.
pub const PROTOCOL_VERSION: u32 = 2;

/// A connection of its own: what is slow on one lane never delays another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// AppendEntries, as one ordered stream.
    Append,
    /// Heartbeats, votes, pings and read indexes.
    Control,
    /// Client requests forwarded to the leader.
    Data,
    /// Snapshots.
    Bulk,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 4] = [Self::Append, Self::Control, Self::Data, Self::Bulk];

    /// The name in metrics, logs and paths.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Control => "control",
            Self::Data => "data",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// Raft log entries, in order.
    Append,
    /// A Raft heartbeat: an append without entries, ahead of any queue.
    Heartbeat,
    /// A Raft vote.
    Vote,
    /// A Raft pre-vote: would you vote for me?
    PreVote,
    /// The leader hands leadership to the receiver.
    TransferLeader,
    /// The first message of a snapshot: what comes, and for which position of the log.
    SnapshotBegin,
    /// One chunk of a snapshot that has begun, or its end.
    Snapshot,
    /// A follower asks the leader for a read index.
    ReadIndex,
    /// Are you there, and who are you?
    Ping,
    /// A request of a client or of a joining node, sent on to the leader.
    Forward,
}

impl MessageKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Append,
        Self::Heartbeat,
        Self::Vote,
        Self::PreVote,
        Self::TransferLeader,
        Self::SnapshotBegin,
        Self::Snapshot,
        Self::ReadIndex,
        Self::Ping,
        Self::Forward,
    ];

    /// The lane that carries it.
    pub const fn lane(self) -> Lane {
        match self {
            Self::Append => Lane::Append,
            Self::Heartbeat | Self::Vote | Self::PreVote | Self::TransferLeader | Self::ReadIndex | Self::Ping => {
                Lane::Control
            }
            Self::Forward => Lane::Data,
            Self::SnapshotBegin | Self::Snapshot => Lane::Bulk,
        }
    }

    /// The name in metrics, logs and paths.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Heartbeat => "heartbeat",
            Self::Vote => "vote",
            Self::PreVote => "pre_vote",
            Self::TransferLeader => "transfer_leader",
            Self::SnapshotBegin => "snapshot_begin",
            Self::Snapshot => "snapshot",
            Self::ReadIndex => "read_index",
            Self::Ping => "ping",
            Self::Forward => "forward",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One message to a peer. Cloning it copies no bytes.
#[derive(Debug, Clone)]
pub struct PeerRequest {
    /// What is asked.
    pub kind: MessageKind,
    /// The message, encoded by its owner.
    pub body: Bytes,
}

/// A peer's answer to one message, encoded by the message's owner.
#[derive(Debug, Clone)]
pub struct PeerResponse {
    /// The answer.
    pub body: Bytes,
}

/// One remote node on one lane: the whole stack of layers over its transport.
pub type PeerClient = tower::util::BoxCloneSyncService<PeerRequest, PeerResponse, PeerError>;

/// Makes clients of remote nodes; consensus and forwarding reach other nodes only through it.
pub trait Peers: Send + Sync + 'static {
    /// The client of `node` on `lane`, at `address`. Clients of the same node and lane share their stack's state;
    /// a changed address replaces it.
    fn client(&self, node: NodeId, address: &str, lane: Lane) -> PeerClient;
}
