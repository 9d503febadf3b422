//! How a new cluster comes into being, exactly once.
//!
//! The founder with the lowest id draws the cluster's id and keeps it, tells it to every other founder by ping until
//! each has kept it too, and then starts consensus with all of them. A crash at any point goes on where it was: the id
//! is on disk, and consensus that has started is not started again. A founder with an empty directory that meets a
//! formed cluster has lost its data and must not come back under its old id.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Pong, ping};
use crate::clock::Clock;
use crate::consensus::{ClusterId, Consensus, InitialiseError, Member};
use crate::peer::{LocalNode, NodeId, PeerError, Peers, RemoteCode};

/// Between two rounds of asking the founders.
const ROUND: Duration = Duration::from_millis(200);
/// How long one founder may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A line in the log this often while founders are missing.
const TELL_EVERY: u32 = 25;

/// Why a cluster was not formed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormationError {
    /// The cluster exists, and this node's directory is empty.
    #[error(
        "node {node} belongs to cluster {cluster} already, but this node's data directory is empty; join that cluster \
         with --join under a new id, or start every founder with an empty directory"
    )]
    AlreadyFormed {
        /// The founder that belongs to it.
        node: NodeId,
        /// The cluster.
        cluster: String,
    },
    /// Somebody else answers at a founder's address.
    #[error("founder {node}: {detail}; check --nodes and --node-id")]
    WrongPeer {
        /// The founder that was looked for.
        node: NodeId,
        /// Who answered.
        detail: String,
    },
    /// Consensus did not start.
    #[error(transparent)]
    Initialise(#[from] InitialiseError),
    /// The cluster's id could not be kept.
    #[error(transparent)]
    Storage(#[from] crate::storage::StorageError),
}

/// What formation works with.
pub(crate) struct Founding<'a> {
    pub(crate) local: &'a LocalNode,
    pub(crate) consensus: &'a Consensus,
    pub(crate) peers: &'a dyn Peers,
    pub(crate) clock: &'a Clock,
}

impl Founding<'_> {
    /// Forms a cluster of this node alone.
    pub(crate) async fn alone(&self) -> Result<(), FormationError> {
        if self.has_begun() {
            return self.finish().await;
        }
        let cluster = self.keep_own_cluster().await?;
        self.initialise(cluster, BTreeMap::from([(self.local.id, self.member())])).await
    }

    /// Takes this node's part in forming a cluster of `founders`; resolves when it has formed.
    pub(crate) async fn together(&self, founders: &BTreeMap<NodeId, String>) -> Result<(), FormationError> {
        // Nobody is told a cluster's id once consensus has begun: a founder that lost its data would take it and vote.
        if self.has_begun() {
            return self.finish().await;
        }
        if founders.keys().next() == Some(&self.local.id) {
            self.lead(founders).await
        } else {
            self.follow(founders).await
        }
    }

    /// Whether the members are in this node's log: from then on the founders' addresses are of no interest.
    fn has_begun(&self) -> bool {
        !self.consensus.status().members.voters.is_empty()
    }

    /// Sees to it that the cluster's id gets into the log, if it is not there yet.
    async fn finish(&self) -> Result<(), FormationError> {
        match self.consensus.cluster_id() {
            Some(cluster) => self.formed(cluster, self.consensus.form(cluster).await),
            None => Ok(()), // a directory from before ids were kept takes it from the log
        }
    }

    async fn lead(&self, founders: &BTreeMap<NodeId, String>) -> Result<(), FormationError> {
        // Asked before anything is kept: a formed cluster must not meet a second id.
        self.refuse_formed(founders).await?;
        let cluster = self.keep_own_cluster().await?;
        let mut members = BTreeMap::from([(self.local.id, self.member())]);
        for round in 0_u32.. {
            for (node, address) in founders {
                if !members.contains_key(node)
                    && let Some(member) = self.tell(*node, address, cluster).await?
                {
                    members.insert(*node, member);
                }
            }
            if members.len() == founders.len() {
                break;
            }
            if round % TELL_EVERY == 0 {
                let missing: Vec<_> = founders.keys().filter(|node| !members.contains_key(node)).collect();
                tracing::info!(?missing, action = "wait", "waiting for the other founders");
            }
            self.clock.sleep(ROUND).await;
        }
        self.initialise(cluster, members).await
    }

    /// Tells a founder the cluster's id; gives its addresses once it has kept it.
    async fn tell(&self, node: NodeId, address: &str, cluster: ClusterId) -> Result<Option<Member>, FormationError> {
        let cluster = cluster.to_string();
        let Some(pong) = self.ask(node, address, Some(cluster.clone())).await? else { return Ok(None) };
        match pong.cluster {
            Some(theirs) if theirs == cluster => Ok(Some(pong.member)),
            Some(theirs) => Err(FormationError::AlreadyFormed { node, cluster: theirs }),
            None => Ok(None), // it is still starting
        }
    }

    async fn follow(&self, founders: &BTreeMap<NodeId, String>) -> Result<(), FormationError> {
        // The ping that tells the cluster's id is answered in `PeerServer`, which keeps it on disk first.
        while !self.has_begun() {
            self.refuse_formed(founders).await?;
            self.clock.sleep(ROUND).await;
        }
        self.finish().await
    }

    /// An error when any founder is part of a cluster that is at work.
    async fn refuse_formed(&self, founders: &BTreeMap<NodeId, String>) -> Result<(), FormationError> {
        if self.local.cluster().is_some() {
            return Ok(()); // this node was there when it formed
        }
        for (node, address) in founders.iter().filter(|(node, _)| **node != self.local.id) {
            if let Some(Pong { cluster: Some(cluster), committed: Some(_), .. }) = self.ask(*node, address, None).await?
                // It may have been told its cluster while we asked.
                && self.local.cluster().is_none()
            {
                return Err(FormationError::AlreadyFormed { node: *node, cluster });
            }
        }
        Ok(())
    }

    /// A founder's answer; `None` while it is not up.
    async fn ask(&self, node: NodeId, address: &str, adopt: Option<String>) -> Result<Option<Pong>, FormationError> {
        match self.clock.timeout(ANSWER_WITHIN, ping(self.peers, node, address, adopt)).await {
            Some(Ok(pong)) => Ok(Some(pong)),
            Some(Err(PeerError::Remote(error))) if error.code == RemoteCode::WrongPeer => {
                Err(FormationError::WrongPeer { node, detail: error.detail })
            }
            Some(Err(_)) | None => Ok(None),
        }
    }

    async fn keep_own_cluster(&self) -> Result<ClusterId, FormationError> {
        let cluster =
            self.consensus.cluster_id().unwrap_or_else(|| ClusterId::new(rand::make_rng::<StdRng>().random()));
        self.consensus.adopt_cluster(cluster).await?;
        self.local.joined(&cluster.to_string());
        Ok(cluster)
    }

    async fn initialise(&self, cluster: ClusterId, members: BTreeMap<NodeId, Member>) -> Result<(), FormationError> {
        self.formed(cluster, self.consensus.initialise(cluster, members).await)
    }

    fn formed(&self, cluster: ClusterId, result: Result<(), InitialiseError>) -> Result<(), FormationError> {
        match result {
            Ok(()) => {
                tracing::info!(%cluster, action = "form", "the cluster has formed");
                Ok(())
            }
            Err(InitialiseError::AlreadyFormed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn member(&self) -> Member {
        Member::new(&self.local.peer_addr, &self.local.api_addr)
    }
}
