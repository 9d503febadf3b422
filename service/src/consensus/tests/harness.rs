//! Whole clusters in one test: real files, a simulated network, a paused clock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::consensus::{
    Applied, ClusterId, Command, Consensus, ConsensusConfig, Key, Keyspace, Member, Precondition, ProposeError,
};
use crate::peer::{Lane, NodeId, PeerClient, PeerRequest, PeerResponse, Peers, RemoteError};
use crate::transport::memory::Network;
use crate::transport::{Inbound, Target, Transport};

pub(super) const CLUSTER: ClusterId = ClusterId::new(0xc1);

/// Long on a paused clock, where waiting is free; a test that gets here has failed.
pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(super) struct Cluster {
    pub(super) network: Network,
    pub(super) nodes: BTreeMap<NodeId, Consensus>,
    dir: tempfile::TempDir,
    tune: fn(&mut ConsensusConfig),
}

struct NodePeers(Box<dyn Transport>);

impl Peers for NodePeers {
    fn client(&self, node: NodeId, address: &str, lane: Lane) -> PeerClient {
        self.0.lane(Target { node, address: address.to_owned(), lane })
    }
}

struct NodeInbound(Consensus);

impl Inbound for NodeInbound {
    fn handle(&self, _from: NodeId, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, RemoteError>> {
        let node = self.0.clone();
        async move { node.handle(request).await }.boxed()
    }

    fn append(
        &self,
        _from: NodeId,
        messages: BoxStream<'static, Bytes>,
    ) -> BoxStream<'static, Result<Bytes, RemoteError>> {
        self.0.append_session(messages).boxed()
    }
}

pub(super) fn address(node: NodeId) -> String {
    format!("node-{node}")
}

pub(super) fn member(node: NodeId) -> Member {
    Member::new(address(node), format!("api-{node}"))
}

pub(super) fn put(key: &str, value: impl Into<Bytes>) -> Command {
    Command::Put { key: Key::new(key).unwrap(), value: value.into(), precondition: Precondition::Unconditional }
}

impl Cluster {
    /// Nodes that know each other and have not formed a group.
    pub(super) async fn unformed(ids: impl IntoIterator<Item = NodeId>, tune: fn(&mut ConsensusConfig)) -> Self {
        let network = Network::new(7, Clock::system());
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { network, nodes: BTreeMap::new(), dir, tune };
        for id in ids {
            cluster.start(id).await;
        }
        cluster
    }

    /// A group of these nodes.
    pub(super) async fn formed(ids: impl IntoIterator<Item = NodeId>, tune: fn(&mut ConsensusConfig)) -> Self {
        let cluster = Self::unformed(ids, tune).await;
        let members = cluster.nodes.keys().map(|id| (*id, member(*id))).collect();
        let (_, first) = cluster.nodes.first_key_value().unwrap();
        first.initialise(CLUSTER, members).await.unwrap();
        cluster
    }

    pub(super) fn data_dir(&self, id: NodeId) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    pub(super) async fn start(&mut self, id: NodeId) {
        let data_dir = self.data_dir(id);
        tokio::fs::create_dir_all(&data_dir).await.unwrap();
        let mut config = ConsensusConfig::new(id, data_dir);
        config.hold_clock_for_disk = true;
        (self.tune)(&mut config);
        let peers = Arc::new(NodePeers(Box::new(self.network.transport(id))));
        let node = Consensus::open(config, peers).await.unwrap();
        self.network.attach(id, &address(id), Arc::new(NodeInbound(node.clone())));
        self.nodes.insert(id, node);
    }

    /// Takes a node off the network and stops it; its files stay.
    pub(super) async fn stop(&mut self, id: NodeId) {
        self.network.detach(&address(id));
        self.nodes.remove(&id).unwrap().shutdown().await;
    }

    pub(super) async fn stop_all(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop(id).await;
        }
    }

    pub(super) fn node(&self, id: NodeId) -> &Consensus {
        &self.nodes[&id]
    }

    /// The leader a majority of the running nodes agrees on.
    pub(super) async fn leader(&self) -> NodeId {
        let deadline = soon();
        loop {
            let mut votes: BTreeMap<NodeId, usize> = BTreeMap::new();
            for node in self.nodes.values() {
                *votes.entry(node.status().leader.unwrap_or_default()).or_default() += 1;
            }
            let most = votes.into_iter().max_by_key(|(_, votes)| *votes);
            if let Some((leader, votes)) = most
                && votes * 2 > self.nodes.len()
                && self.nodes.get(&leader).is_some_and(|node| node.status().is_leader())
            {
                return leader;
            }
            assert!(Instant::now() < deadline, "no leader");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Proposes to whoever leads until it is applied.
    pub(super) async fn propose(&self, command: Command) -> Applied {
        let deadline = soon();
        loop {
            let leader = self.leader().await;
            match self.node(leader).propose_by(command.clone(), deadline).await {
                Ok(applied) => return applied,
                Err(ProposeError::NotLeader(_) | ProposeError::Unknown(_)) if Instant::now() < deadline => {
                    // A paused clock moves only while everyone waits.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Waits until every running node has applied what this one has.
    pub(super) async fn settle(&self, id: NodeId) {
        let index = self.node(id).read(Keyspace::applied).unwrap();
        for node in self.nodes.values() {
            node.wait_applied(index, soon()).await.unwrap();
        }
    }
}

/// The value of a key as text, on one node.
pub(super) fn value(node: &Consensus, key: &str) -> Option<String> {
    node.read(|keyspace| keyspace.get(key).map(|entry| String::from_utf8_lossy(&entry.value).into_owned()))
}
