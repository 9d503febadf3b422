//! A node without its sockets: consensus, forwarding, pings, and what answers peers, over any transport.
//!
//! A process wraps it in listeners ([`super::Node`]); a test runs several of them on one simulated network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::consensus::{Consensus, ConsensusConfig, OpenError};
use crate::coordinator::Coordinator;
use crate::peer::{LocalNode, NodeId, PeerServer, PeerSet, Peers};
use crate::topology::{FormationError, Founding, Heartbeats};
use crate::transport::{Inbound, Transport};

/// How long a leader waits for its successor when it stops. An election without a hand-over takes about as long.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(1500);
/// A follower that acknowledged something this long ago is there: ten heartbeats by default.
const ACKED_LATELY: Duration = Duration::from_secs(1);

/// The parts of a node that know nothing of sockets.
pub struct Replica {
    /// Who it is.
    pub local: LocalNode,
    /// Its log and state.
    pub consensus: Consensus,
    /// Its way to the leader.
    pub coordinator: Coordinator,
    /// What it knows of the others.
    pub heartbeats: Heartbeats,
    /// Its time.
    pub clock: Clock,
    peers: Arc<PeerSet>,
    founders: Arc<[NodeId]>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Replica {
    /// Opens the data directory in `config` and starts the node's tasks. It answers peers once its [`Inbound`] is
    /// attached to a transport.
    ///
    /// `founders` may tell the node which cluster is being formed; empty unless it is one of them.
    ///
    /// # Errors
    /// The settings or the data directory cannot be used; nothing was changed.
    pub async fn start(
        local: LocalNode,
        config: ConsensusConfig,
        transport: Arc<dyn Transport>,
        founders: Arc<[NodeId]>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let timing = crate::peer::Timing {
            election_timeout_min: config.election_timeout_min,
            max_appends_in_flight: config.max_appends_in_flight,
        };
        let peers = Arc::new(PeerSet::new(transport, clock.clone(), timing));
        let consensus = Consensus::open(config, Arc::clone(&peers) as Arc<dyn Peers>).await?;
        if let Some(cluster) = consensus.cluster_id() {
            local.joined(&cluster.to_string());
        }
        let coordinator = Coordinator::new(consensus.clone(), Arc::clone(&peers) as Arc<dyn Peers>, clock.clone());
        let heartbeats = Heartbeats::new(local.id, Arc::clone(&peers) as Arc<dyn Peers>, clock.clone());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let members = consensus.clone();
        tasks.spawn(heartbeats.clone().run(
            move || members.status().members.iter().map(|(id, member)| (id, member.clone())).collect(),
            stop.clone(),
        ));
        Ok(Self { local, consensus, coordinator, heartbeats, clock, peers, founders, stop, tasks })
    }

    /// What answers other nodes.
    pub fn inbound(&self) -> Arc<dyn Inbound> {
        Arc::new(PeerServer::new(
            self.local.clone(),
            self.consensus.clone(),
            self.coordinator.clone(),
            Arc::clone(&self.founders),
        ))
    }

    /// Forms a cluster of this node alone; does nothing on a node that was part of one before.
    ///
    /// # Errors
    /// Consensus could not be started.
    pub async fn bootstrap(&self) -> Result<(), FormationError> {
        self.founding().alone().await
    }

    /// Takes part in forming a cluster of `founders` (id → peer address); resolves when it has formed.
    ///
    /// # Errors
    /// A founder belongs to another cluster, or to this one while this node has lost its data.
    pub async fn found(&self, founders: &BTreeMap<NodeId, String>) -> Result<(), FormationError> {
        self.founding().together(founders).await
    }

    /// Stops every task. A leader that can should [hand over](Self::hand_over) first; a message that arrives from now on
    /// is refused.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.consensus.shutdown().await;
        self.tasks.wait().await;
        self.peers.close();
    }

    /// Makes the best follower the leader, if this node leads and there is one.
    pub async fn hand_over(&self) {
        let status = self.consensus.status();
        if !status.is_leader() {
            return;
        }
        // Pings begin with the next look at the members: a leader that stops soon after it was elected, or after a node
        // has joined, knows its followers only by the log.
        let is_healthy = |id: &NodeId| self.heartbeats.get(*id).is_some_and(|peer| peer.healthy);
        let acked_lately = |id: &NodeId| {
            let last_ack = status.followers.get(id).and_then(|follower| follower.last_ack);
            last_ack.is_some_and(|at| self.clock.now().saturating_duration_since(at) < ACKED_LATELY)
        };
        let best = status
            .members
            .voters
            .keys()
            .filter(|id| **id != self.local.id && (acked_lately(id) || is_healthy(id)))
            .max_by_key(|id| status.followers.get(id).and_then(|follower| follower.matched));
        let Some(&successor) = best else { return };
        let hand_over = async {
            if let Err(error) = self.consensus.transfer_leadership(successor).await {
                tracing::warn!(peer = successor, action = "hand_over", %error, "leadership was not handed over");
                return;
            }
            let mut changes = self.consensus.watch();
            let _ = changes.wait_for(|now| now.leader.is_some_and(|leader| leader != self.local.id)).await;
            tracing::info!(peer = successor, action = "hand_over", "leadership handed over");
        };
        if self.clock.timeout(HAND_OVER_WITHIN, hand_over).await.is_none() {
            tracing::warn!(peer = successor, action = "hand_over", "no new leader was seen in time");
        }
    }

    fn founding(&self) -> Founding<'_> {
        Founding { local: &self.local, consensus: &self.consensus, peers: &*self.peers, clock: &self.clock }
    }
}
