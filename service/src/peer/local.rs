//! Who this node is to its peers, and how both ends of a connection make sure of each other.
//!
//! A node that belongs to no cluster yet may only be pinged and ping: a node that lost its data could otherwise vote
//! under its old id. It learns its cluster from the founder that forms it, or from the answer to its join request, and
//! keeps it on disk before it takes part.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::{Lane, MessageKind, NodeId, PROTOCOL_VERSION, RemoteCode, RemoteError};

/// Who this node is: fixed when it starts, but for the cluster, which a founder learns when the cluster forms.
#[derive(Debug, Clone)]
pub struct LocalNode {
    /// Its id.
    pub id: NodeId,
    /// Where its peers reach it, as `host:port`.
    pub peer_addr: String,
    /// Where clients reach it, as `host:port`.
    pub api_addr: String,
    cluster: Arc<OnceLock<String>>,
}

/// The first message on every connection, and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol the sender speaks.
    pub version: u32,
    /// The sender's cluster; `None` before it belongs to one.
    pub cluster: Option<String>,
    /// The sender.
    pub node: NodeId,
    /// Whom the sender believes to talk to.
    pub to: NodeId,
    /// What the connection is for.
    pub lane: Lane,
}

impl LocalNode {
    /// A node that may not belong to a cluster yet.
    pub fn new(id: NodeId, peer_addr: String, api_addr: String, cluster: Option<String>) -> Self {
        let cell = OnceLock::new();
        if let Some(cluster) = cluster {
            let _ = cell.set(cluster);
        }
        Self { id, peer_addr, api_addr, cluster: Arc::new(cell) }
    }

    /// The cluster it belongs to, once it does.
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.get().map(String::as_str)
    }

    /// The node belongs to `cluster` from now on; an earlier answer stands.
    pub fn joined(&self, cluster: &str) {
        let _ = self.cluster.set(cluster.to_owned());
    }

    /// What to say first on a connection.
    pub fn hello(&self, to: NodeId, lane: Lane) -> Hello {
        Hello { version: PROTOCOL_VERSION, cluster: self.cluster().map(str::to_owned), node: self.id, to, lane }
    }

    /// Whether `other` may connect, at least to ping.
    ///
    /// # Errors
    /// [`RemoteCode::WrongPeer`] with the difference spelled out.
    pub fn check(&self, other: &Hello) -> Result<(), RemoteError> {
        let refuse = |detail: String| Err(RemoteError::new(RemoteCode::WrongPeer, detail));
        if other.version != PROTOCOL_VERSION {
            return refuse(format!("protocol version {}, but this node speaks {PROTOCOL_VERSION}", other.version));
        }
        if other.to != self.id {
            return refuse(format!("looked for node {}, but this is node {}", other.to, self.id));
        }
        match (self.cluster(), &other.cluster) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                refuse(format!("node {} belongs to cluster {theirs}, but node {} to {ours}", other.node, self.id))
            }
            _ => Ok(()),
        }
    }

    /// Whether a node that greeted as one of `theirs` may send messages of `kind`, or be sent them.
    ///
    /// # Errors
    /// [`RemoteCode::WrongPeer`] for anything but a ping unless both are known to be of one cluster.
    pub fn check_message(&self, kind: MessageKind, theirs: Option<&str>) -> Result<(), RemoteError> {
        if kind == MessageKind::Ping || (theirs.is_some() && theirs == self.cluster()) {
            return Ok(());
        }
        let detail = format!("{kind} needs both nodes in one cluster: {:?} and {theirs:?}", self.cluster());
        Err(RemoteError::new(RemoteCode::WrongPeer, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: NodeId, cluster: Option<&str>) -> LocalNode {
        LocalNode::new(id, String::new(), String::new(), cluster.map(str::to_owned))
    }

    #[test]
    fn members_of_one_cluster_and_newcomers_may_talk() {
        let here = node(2, Some("c"));
        assert!(here.check(&node(1, Some("c")).hello(2, Lane::Data)).is_ok());
        assert!(here.check(&node(1, None).hello(2, Lane::Control)).is_ok());
    }

    #[test]
    fn a_node_without_a_cluster_only_pings() {
        let here = node(2, Some("c"));
        assert!(here.check_message(MessageKind::Ping, None).is_ok());
        assert!(here.check_message(MessageKind::Vote, None).is_err());
        assert!(node(2, None).check_message(MessageKind::Vote, None).is_err(), "two unknowns make no cluster");
        assert!(node(2, None).check_message(MessageKind::Vote, Some("c")).is_err());
        assert!(here.check_message(MessageKind::Vote, Some("c")).is_ok());
    }

    #[test]
    fn another_cluster_node_or_version_is_refused() {
        let here = node(2, Some("c"));
        let other = node(1, Some("d")).hello(2, Lane::Data);
        assert!(here.check(&other).unwrap_err().detail.contains("belongs to cluster d"));
        let other = node(1, Some("c")).hello(3, Lane::Data);
        assert!(here.check(&other).unwrap_err().detail.contains("looked for node 3"));
        let other = Hello { version: 99, ..node(1, Some("c")).hello(2, Lane::Data) };
        assert_eq!(here.check(&other).unwrap_err().code, RemoteCode::WrongPeer);
    }
}
