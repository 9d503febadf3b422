//! What a client gives and takes besides keys and bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::client::ClientError;
use crate::consensus::Revision;
use crate::peer::NodeId;

/// A value as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The bytes.
    pub value: Bytes,
    /// The write that stored them; the condition of a later write.
    pub revision: Revision,
    /// The write that created the key, where the node says so.
    pub create_revision: Option<Revision>,
}

/// A write that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutOutcome {
    /// The revision of the key now.
    pub revision: Revision,
}

/// A removal that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteOutcome {
    /// The revision of the keyspace now.
    pub revision: Revision,
    /// Whether there was something to remove.
    pub deleted: bool,
}

/// How to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GetOptions {
    /// Which state the read may see.
    pub consistency: Consistency,
}

/// Which state a read may see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Consistency {
    /// At least every write that was acknowledged before the read began.
    #[default]
    Linearizable,
    /// The state of the node that answers, however old.
    Stale,
}

impl Consistency {
    /// The word in a query.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Stale => "stale",
        }
    }
}

/// What one node said of the cluster, or why it said nothing.
#[derive(Debug)]
pub struct NodeReport {
    /// The node that was asked.
    pub url: String,
    /// Its answer.
    pub status: Result<ClusterStatus, ClientError>,
}

/// The cluster as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's identity, once it is formed.
    #[serde(default)]
    pub cluster_id: Option<String>,
    /// The node that answered.
    #[serde(default)]
    pub node_id: Option<NodeId>,
    /// Who leads, as far as that node knows.
    pub leader: Option<NodeId>,
    /// The term it is in.
    pub term: u64,
    /// The revision of its keyspace.
    #[serde(default)]
    pub revision: Option<Revision>,
    /// Every member.
    pub nodes: Vec<NodeStatus>,
}

/// One member, as another sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its number.
    pub id: NodeId,
    /// Where it serves clients.
    pub address: String,
    /// Where it serves other nodes.
    #[serde(default)]
    pub peer_address: String,
    /// What it is to the group: `leader`, `follower`, …; `unknown` while it has not answered.
    pub role: String,
    /// Whether it answers.
    pub healthy: bool,
    /// How long ago it was last heard of.
    #[serde(default)]
    pub last_heartbeat_ms: Option<u64>,
    /// The last log entry it is known to hold as committed.
    #[serde(default)]
    pub commit_index: Option<u64>,
    /// The last log entry in its state.
    #[serde(default)]
    pub last_applied: Option<u64>,
}

impl ClusterStatus {
    /// The member of that number.
    pub fn node(&self, id: NodeId) -> Option<&NodeStatus> {
        self.nodes.iter().find(|node| node.id == id)
    }
}
