//! A cluster of three inside one test: a simulated network that misbehaves from a seed, and a clock that stands still
//! unless everybody waits.
//!
//! Faults and timers repeat from the seed. The disk is real, so which of two tasks runs first may differ.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use seawall::Deadline;
use seawall_kv::clock::Clock;
use seawall_kv::consensus::{Command, ConsensusConfig, Key, Precondition, Response};
use seawall_kv::coordinator::{CoordinatorError, Forwarding};
use seawall_kv::node::Replica;
use seawall_kv::peer::{LocalNode, NodeId};
use seawall_kv::transport::memory::{Faults, Network};
use seawall_tests::{eventually, say};

const SEEDS: [u64; 4] = [1, 2, 3, 4];
const NODES: [NodeId; 3] = [1, 2, 3];

/// Simulated time, which passes as fast as the machine computes.
const SOON: Duration = Duration::from_secs(60);

struct Simulation {
    network: Network,
    replicas: BTreeMap<NodeId, Replica>,
    founders: BTreeMap<NodeId, String>,
    dir: tempfile::TempDir,
    /// What was said of every write.
    said: BTreeMap<String, Said>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Done,
    NotApplied,
    Unknown,
}

fn address(node: NodeId) -> String {
    format!("127.0.0.1:{}", 7200 + node)
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let mut this = Self {
            network: Network::new(seed, Clock::system()),
            replicas: BTreeMap::new(),
            founders: NODES.iter().map(|node| (*node, address(*node))).collect(),
            dir: tempfile::tempdir().unwrap(),
            said: BTreeMap::new(),
        };
        for node in NODES {
            this.start(node).await;
        }
        let founding = this.replicas.values().map(|replica| replica.found(&this.founders));
        try_join_all(founding).await.unwrap();
        this
    }

    async fn start(&mut self, node: NodeId) {
        let data = self.dir.path().join(node.to_string());
        std::fs::create_dir_all(&data).unwrap();
        let config = ConsensusConfig { hold_clock_for_disk: true, ..ConsensusConfig::new(node, data) };
        let local = LocalNode::new(node, address(node), format!("127.0.0.1:{}", 7100 + node), None);
        let transport = Arc::new(self.network.transport(node));
        // The lock on the directory goes with the last task of the node's former life, which may still be ending.
        let replica = eventually("the directory is free", SOON, async || {
            let (local, config) = (local.clone(), config.clone());
            let started =
                Replica::start(local, config, Arc::clone(&transport) as _, NODES.into(), Clock::system()).await;
            started.map_err(|error| error.to_string())
        })
        .await;
        self.network.attach(node, &address(node), replica.inbound());
        self.replicas.insert(node, replica);
    }

    async fn stop(&mut self, node: NodeId) {
        self.replicas[&node].hand_over().await;
        self.replicas[&node].stop().await;
        self.network.detach(&address(node));
        self.replicas.remove(&node);
    }

    /// The leader by its own word, of the highest term.
    async fn leader_among(&self, nodes: &[NodeId]) -> NodeId {
        eventually("there is a leader", SOON, async || {
            let statuses: Vec<_> = nodes.iter().map(|node| self.replicas[node].consensus.status()).collect();
            let leader = statuses.iter().filter(|status| status.is_leader()).max_by_key(|status| status.term);
            let leader = leader.map(|status| status.node_id).filter(|leader| {
                statuses.iter().all(|status| status.leader == Some(*leader)) // and all know it
            });
            leader.ok_or_else(|| format!("{statuses:?}"))
        })
        .await
    }

    /// Writes a key of its own at `node`; an answer must come by the deadline.
    async fn write(&mut self, node: NodeId, deadline: Duration) -> Said {
        let key = format!("k{}", self.said.len());
        let command = Command::Put {
            key: Key::new(&key).unwrap(),
            value: Bytes::from(key.clone()),
            precondition: Precondition::Unconditional,
        };
        let start = tokio::time::Instant::now();
        let write = self.replicas[&node].coordinator.write(command, &key, Forwarding::Allowed);
        let said = match Deadline::after(deadline).scope(write).await {
            Ok(Response::Written { .. }) => Said::Done,
            Err(CoordinatorError::NotApplied { .. }) => Said::NotApplied,
            Err(CoordinatorError::Unknown { .. }) => Said::Unknown,
            other => panic!("{key} at node {node}: {other:?}"),
        };
        assert!(start.elapsed() <= deadline, "{key} at node {node} took {:?}", start.elapsed());
        self.said.insert(key, said);
        said
    }

    /// A linearizable read of the number of keys.
    async fn count(&self, node: NodeId) -> Result<usize, CoordinatorError> {
        let coordinator = &self.replicas[&node].coordinator;
        let read = coordinator.read_linearizable(Forwarding::Allowed, |keyspace| keyspace.len());
        Deadline::after(Duration::from_secs(1)).scope(read).await
    }

    /// Everything a node holds, with revisions.
    fn state(&self, node: NodeId) -> BTreeMap<String, (u64, Bytes)> {
        self.replicas[&node].consensus.read(|keyspace| {
            let all = keyspace.range("", None);
            all.map(|(key, entry)| (key.to_string(), (entry.mod_revision, entry.value.clone()))).collect()
        })
    }

    /// Waits until all nodes hold the same, then checks it against what was said.
    async fn converged(&self) {
        eventually("all nodes hold the same", SOON, async || {
            for node in self.replicas.keys() {
                self.count(*node).await.map_err(|error| format!("node {node}: {error}"))?;
            }
            let states: Vec<_> = self.replicas.keys().map(|node| self.state(*node)).collect();
            if states.windows(2).all(|pair| pair[0] == pair[1]) {
                Ok(())
            } else {
                Err(format!("{:?}", states.iter().map(BTreeMap::len).collect::<Vec<_>>()))
            }
        })
        .await;
        let state = self.state(*self.replicas.keys().next().unwrap());
        for (key, said) in &self.said {
            let found = state.get(key);
            match said {
                Said::Done => assert!(found.is_some_and(|(_, value)| value == key.as_bytes()), "{key} was lost"),
                Said::NotApplied => assert!(found.is_none(), "{key} was said to be not applied"),
                Said::Unknown => {}
            }
        }
        let mut revisions: Vec<_> = state.values().map(|(revision, _)| *revision).collect();
        revisions.sort_unstable();
        revisions.dedup();
        assert_eq!(revisions.len(), state.len(), "each write has its own revision, a duplicated message adds none");
    }

    fn said(&self, what: Said) -> usize {
        self.said.values().filter(|said| **said == what).count()
    }
}

/// One whole life of a cluster; returns what the network did.
async fn life(seed: u64) -> (seawall_kv::transport::memory::Counts, usize) {
    let mut cluster = Simulation::new(seed).await;
    let leader = cluster.leader_among(&NODES).await;

    // A quiet network: every write is done, at whichever node.
    for turn in 0..30 {
        let node = NODES[turn % NODES.len()];
        assert_eq!(cluster.write(node, Duration::from_secs(1)).await, Said::Done, "node {node}, leader {leader}");
    }
    cluster.converged().await;

    // Messages get lost, come twice, late and out of order.
    for from in NODES {
        for to in NODES.into_iter().filter(|to| *to != from) {
            let faults = Faults { drop: 0.03, duplicate: 0.1, delay_up_to: Duration::from_millis(20) };
            cluster.network.link(from, to, faults);
        }
    }
    for turn in 0..60 {
        cluster.write(NODES[turn % NODES.len()], Duration::from_secs(2)).await;
    }
    assert!(cluster.said(Said::Done) > 30, "nothing was done on a bad network: {:?}", cluster.said);
    let counts = cluster.network.counts();
    assert!(counts.dropped > 0 && counts.duplicated > 0, "{counts:?}");
    cluster.network.heal();
    cluster.converged().await;

    // The leader is alone; the others go on without it.
    let old = cluster.leader_among(&NODES).await;
    let others: Vec<_> = NODES.into_iter().filter(|node| *node != old).collect();
    cluster.network.isolate(old, others.iter().copied());
    assert_ne!(cluster.write(old, Duration::from_secs(1)).await, Said::Done, "a write without a quorum");
    let new = cluster.leader_among(&others).await;
    assert_ne!(new, old);
    for turn in 0..10 {
        assert_eq!(cluster.write(others[turn % 2], Duration::from_secs(2)).await, Said::Done);
    }
    let alone = cluster.count(old).await;
    assert!(matches!(alone, Err(CoordinatorError::Unavailable { .. })), "a read without a quorum: {alone:?}");

    // It comes back, has missed nothing, and what it alone had written was never said to be done.
    cluster.network.heal();
    cluster.converged().await;

    // A follower stops and starts again with its directory.
    let leader = cluster.leader_among(&NODES).await;
    let follower = NODES.into_iter().find(|node| *node != leader).unwrap();
    cluster.stop(follower).await;
    for _ in 0..10 {
        assert_eq!(cluster.write(leader, Duration::from_secs(1)).await, Said::Done);
    }
    cluster.start(follower).await;
    cluster.converged().await;

    // The leader stops: it hands over, and writes go on.
    let leader = cluster.leader_among(&NODES).await;
    cluster.stop(leader).await;
    let left: Vec<_> = cluster.replicas.keys().copied().collect();
    let start = tokio::time::Instant::now();
    cluster.leader_among(&left).await;
    assert!(start.elapsed() < Duration::from_millis(300), "it left without handing over: {:?}", start.elapsed());
    assert_eq!(cluster.write(left[0], Duration::from_secs(1)).await, Said::Done);
    cluster.start(leader).await;
    cluster.converged().await;

    let counts = cluster.network.counts();
    let done = cluster.said(Said::Done);
    join_all(cluster.replicas.values().map(Replica::stop)).await;
    for node in NODES {
        cluster.network.detach(&address(node));
    }
    (counts, done)
}

#[tokio::test(start_paused = true)]
async fn a_cluster_converges_whatever_the_network_does() {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    for seed in SEEDS {
        let start = tokio::time::Instant::now();
        let (counts, done) = life(seed).await;
        eventually("no task is left", Duration::from_secs(5), async || {
            if alive() <= before { Ok(()) } else { Err(format!("{} tasks, {before} before", alive())) }
        })
        .await;
        say(&format!("seed {seed}: {done} writes, {:.1?} simulated, {counts:?}", start.elapsed()));
    }
}
