//! Laws of a group of nodes.

use std::time::Duration;

use tokio::time::Instant;

use super::harness::{CLUSTER, Cluster, member, put, soon, value};
use crate::consensus::{
    InitialiseError, Keyspace, MembershipError, NotLeader, OpenError, ProposeError, ReadError, Response, Role,
    WaitError, WriteOutcome,
};
use crate::peer::{MessageKind, PeerRequest, RemoteCode};
use crate::storage::StorageError;
use crate::transport::memory::Faults;

#[tokio::test(start_paused = true)]
async fn three_nodes_elect_a_leader_and_apply_what_it_commits() {
    let mut cluster = Cluster::formed([1, 2, 3], |_| {}).await;
    let applied = cluster.propose(put("a", "1")).await;
    assert_eq!(applied.response, Response::Written { revision: 1 });
    let leader = cluster.leader().await;
    cluster.settle(leader).await;
    for node in cluster.nodes.values() {
        assert_eq!(value(node, "a").as_deref(), Some("1"));
        assert_eq!(node.cluster_id(), Some(CLUSTER));
        let status = node.status();
        assert_eq!(status.members.voters.len(), 3);
        assert_eq!(status.leader_member(), Some((leader, member(leader))));
        assert_eq!(status.is_leader(), node.node_id() == leader);
        assert_eq!(status.followers.len(), if status.is_leader() { 2 } else { 0 });
    }
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_refuses_and_names_the_leader() {
    let mut cluster = Cluster::formed([1, 2, 3], |_| {}).await;
    let leader = cluster.leader().await;
    cluster.settle(leader).await;
    let follower = cluster.nodes.values().find(|node| node.node_id() != leader).unwrap();
    let expected = NotLeader { leader: Some((leader, member(leader))) };
    let error = follower.propose(put("a", "1")).await.unwrap_err();
    assert_eq!(error, ProposeError::NotLeader(expected.clone()));
    assert_eq!(error.outcome(), WriteOutcome::NotApplied);
    match follower.read_index().await {
        Err(ReadError::NotLeader(not_leader)) => assert_eq!(not_leader, expected),
        other => panic!("{other:?}"),
    }
    let error = follower.transfer_leadership(leader).await.unwrap_err();
    assert_eq!(error, MembershipError::NotLeader(expected));
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn another_node_leads_when_the_leader_stops_and_nothing_is_lost() {
    let mut cluster = Cluster::formed([1, 2, 3], |_| {}).await;
    cluster.propose(put("a", "1")).await;
    let first = cluster.leader().await;
    let stopped = Instant::now();
    cluster.stop(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    let took = stopped.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert_eq!(cluster.propose(put("b", "2")).await.response, Response::Written { revision: 2 });
    cluster.start(first).await;
    cluster.node(first).wait_for_recovery(soon()).await.unwrap();
    cluster.settle(second).await;
    assert_eq!(value(cluster.node(first), "a").as_deref(), Some("1"));
    assert_eq!(value(cluster.node(first), "b").as_deref(), Some("2"));
    assert_eq!(cluster.node(first).cluster_id(), Some(CLUSTER));
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_cluster_restarts_with_everything() {
    let mut cluster = Cluster::formed([1, 2, 3], |_| {}).await;
    for number in 0..100 {
        cluster.propose(put(&format!("k{number:03}"), format!("v{number}"))).await;
    }
    cluster.stop_all().await;
    for id in [1, 2, 3] {
        cluster.start(id).await;
    }
    let leader = cluster.leader().await;
    cluster.node(leader).linearize(soon()).await.unwrap();
    assert_eq!(cluster.node(leader).read(|keyspace| (keyspace.len(), keyspace.revision())), (100, 100));
    assert_eq!(value(cluster.node(leader), "k042").as_deref(), Some("v42"));
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn any_node_reads_what_was_acknowledged_before() {
    let mut cluster = Cluster::formed([1, 2, 3], |_| {}).await;
    for number in 0..20 {
        cluster.propose(put("a", number.to_string())).await;
        for node in cluster.nodes.values() {
            node.linearize(soon()).await.unwrap();
            assert_eq!(value(node, "a"), Some(number.to_string()), "node {}", node.node_id());
        }
    }
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_a_quorum_gives_no_read_index_and_no_answer() {
    let mut cluster = Cluster::formed([1, 2, 3], |_| {}).await;
    cluster.propose(put("a", "1")).await;
    let old = cluster.leader().await;
    cluster.network.isolate(old, [1, 2, 3].into_iter().filter(|id| *id != old));
    let pending = cluster.node(old).propose_by(put("a", "lost?"), Instant::now() + Duration::from_secs(2));
    let (read, write) = tokio::join!(cluster.node(old).read_index(), pending);
    assert!(matches!(read, Err(ReadError::NoQuorum | ReadError::NotLeader(_))), "{read:?}");
    let error = write.unwrap_err();
    assert_eq!(error.outcome(), WriteOutcome::Unknown, "{error}");
    // Two nodes are left, and they go on.
    let others: Vec<_> = cluster.nodes.values().filter(|node| node.node_id() != old).cloned().collect();
    let new = loop {
        if let Some(node) = others.iter().find(|node| node.status().is_leader()) {
            break node.clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    new.propose(put("a", "2")).await.unwrap();
    cluster.network.heal();
    cluster.settle(new.node_id()).await;
    assert_eq!(value(cluster.node(old), "a").as_deref(), Some("2"));
    assert!(!cluster.node(old).status().is_leader());
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_follower_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::formed([1, 2, 3], |config| {
        config.snapshot_every_entries = 200;
        config.keep_entries = 10;
        config.snapshot_chunk_bytes = 1000;
    })
    .await;
    let leader = cluster.leader().await;
    let late = [1, 2, 3].into_iter().find(|id| *id != leader).unwrap();
    cluster.stop(late).await;
    for number in 0..600 {
        cluster.propose(put(&format!("k{}", number % 300), format!("value {number}"))).await;
    }
    let leader = cluster.leader().await;
    let deadline = soon();
    while cluster.node(leader).status().purged.unwrap_or_default() < 300 {
        assert!(Instant::now() < deadline, "{:?}", cluster.node(leader).status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.start(late).await;
    cluster.settle(leader).await;
    let snapshot = cluster.node(late).status().snapshot;
    assert!(snapshot.is_some(), "it was sent a snapshot");
    let content = |keyspace: &Keyspace| {
        let entries: Vec<_> = keyspace.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
        (keyspace.revision(), keyspace.bytes(), entries)
    };
    assert_eq!(cluster.node(late).read(content), cluster.node(leader).read(content));
    // And it restarts from what it was sent.
    cluster.stop(late).await;
    cluster.start(late).await;
    assert!(cluster.node(late).read(Keyspace::applied) >= snapshot);
    cluster.settle(leader).await;
    assert_eq!(cluster.node(late).read(content), cluster.node(leader).read(content));
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_joins_votes_and_leaves() {
    let mut cluster = Cluster::formed([1], |_| {}).await;
    cluster.propose(put("a", "1")).await;
    let first = cluster.node(1).clone();
    let id = first.allocate_node().await.unwrap();
    assert!(id > 1);
    assert_ne!(first.allocate_node().await.unwrap(), id);
    cluster.start(id).await;
    first.add_learner(id, member(id)).await.unwrap();
    first.wait_caught_up(id, soon()).await.unwrap();
    assert!(first.status().members.learners.contains_key(&id));
    first.promote(id).await.unwrap();
    assert!(first.status().members.voters.contains_key(&id));
    cluster.settle(1).await;
    assert_eq!(value(cluster.node(id), "a").as_deref(), Some("1"));
    assert_eq!(cluster.node(id).status().role, Role::Follower);
    first.add_learner(id, member(id)).await.unwrap();
    assert!(matches!(first.promote(99).await, Err(MembershipError::Refused(_))));
    first.remove(id).await.unwrap();
    assert_eq!(first.status().members.iter().map(|(id, _)| id).collect::<Vec<_>>(), [1]);
    assert!(matches!(first.remove(1).await, Err(MembershipError::Refused(_))));
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn leadership_moves_where_it_is_sent() {
    let mut cluster = Cluster::formed([1, 2, 3], |_| {}).await;
    let old = cluster.leader().await;
    cluster.settle(old).await;
    let new = [1, 2, 3].into_iter().find(|id| *id != old).unwrap();
    let began = Instant::now();
    cluster.node(old).transfer_leadership(new).await.unwrap();
    assert_eq!(cluster.leader().await, new);
    assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
    assert!(matches!(cluster.node(new).transfer_leadership(99).await, Err(MembershipError::Refused(_))));
    cluster.propose(put("a", "1")).await;
    assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_is_formed_once() {
    let mut cluster = Cluster::unformed([1, 2], |_| {}).await;
    let members: std::collections::BTreeMap<_, _> = [(1, member(1)), (2, member(2))].into();
    let without = [(2, member(2))].into();
    assert!(matches!(cluster.node(1).initialise(CLUSTER, without).await, Err(InitialiseError::Members(_))));
    // Both founders at once, with the same list.
    let (first, second) = tokio::join!(
        cluster.node(1).initialise(CLUSTER, members.clone()),
        cluster.node(2).initialise(CLUSTER, members.clone())
    );
    assert!(matches!(first, Ok(()) | Err(InitialiseError::AlreadyFormed)), "{first:?}");
    assert!(matches!(second, Ok(()) | Err(InitialiseError::AlreadyFormed)), "{second:?}");
    assert_eq!(cluster.node(1).initialise(CLUSTER, members).await, Err(InitialiseError::AlreadyFormed));
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_leaves_no_task_and_frees_the_directory() {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(alive(), 0);
    let mut cluster = Cluster::formed([1, 2, 3], |config| config.snapshot_every_entries = 50).await;
    for number in 0..120 {
        cluster.propose(put("a", number.to_string())).await;
    }
    let node = cluster.node(1).clone();
    cluster.stop_all().await;
    assert_eq!(node.propose(put("a", "late")).await, Err(ProposeError::Stopping));
    assert!(matches!(node.read_index().await, Err(ReadError::Stopping)));
    assert_eq!(node.wait_applied(1_000_000, soon()).await, Err(WaitError::Stopping));
    assert_eq!(node.status().role, Role::Stopped);
    node.shutdown().await;
    drop(node);
    // The simulated network's own tasks end when the nodes they carried for are gone.
    cluster.network.detach("node-1");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(alive(), 0);
    cluster.start(1).await;
    cluster.stop(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_group_survives_a_bad_network() {
    let mut cluster = Cluster::formed([1, 2, 3], |_| {}).await;
    for from in 1..=3 {
        for to in 1..=3 {
            let delay_up_to = Duration::from_millis(20);
            cluster.network.link(from, to, Faults { drop: 0.05, duplicate: 0.05, delay_up_to });
        }
    }
    let mut acknowledged = Vec::new();
    for number in 0..60 {
        let key = format!("k{number}");
        let leader = cluster.leader().await;
        let deadline = Instant::now() + Duration::from_secs(1);
        if cluster.node(leader).propose_by(put(&key, "v"), deadline).await.is_ok() {
            acknowledged.push(key);
        }
    }
    cluster.network.heal();
    let applied = cluster.propose(put("last", "v")).await;
    assert!(acknowledged.len() > 20, "{} of 60", acknowledged.len());
    for node in cluster.nodes.values() {
        node.wait_applied(applied.log_index, soon()).await.unwrap();
        for key in &acknowledged {
            assert!(value(node, key).is_some(), "{key} was acknowledged and is gone from node {}", node.node_id());
        }
    }
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_message_is_refused_and_harms_nobody() {
    let mut cluster = Cluster::formed([1], |_| {}).await;
    let node = cluster.node(1).clone();
    for kind in MessageKind::ALL {
        let expected = if kind == MessageKind::ReadIndex { None } else { Some(RemoteCode::BadMessage) };
        let answer = node.handle(PeerRequest { kind, body: bytes::Bytes::from_static(&[0xff; 40]) }).await;
        assert_eq!(answer.err().map(|error| error.code), expected, "{kind}");
    }
    let frames = futures_util::stream::iter([bytes::Bytes::from_static(b"\xff\xff")]);
    let answers: Vec<_> = futures_util::StreamExt::collect(node.append_session(frames)).await;
    assert_eq!(answers.len(), 1);
    assert!(matches!(&answers[0], Err(error) if error.code == RemoteCode::BadMessage));
    node.propose(put("a", "1")).await.unwrap();
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn proposals_beyond_the_bound_are_refused() {
    let mut cluster = Cluster::formed([1, 2, 3], |config| config.max_proposals = 4).await;
    let leader = cluster.leader().await;
    cluster.network.isolate(leader, [1, 2, 3].into_iter().filter(|id| *id != leader));
    let node = cluster.node(leader).clone();
    let deadline = Instant::now() + Duration::from_millis(50);
    let results = futures_util::future::join_all((0..6).map(|_| node.propose_by(put("a", "1"), deadline))).await;
    let busy = results.iter().filter(|result| matches!(result, Err(ProposeError::TooBusy))).count();
    assert_eq!(busy, 2, "{results:?}");
    cluster.network.heal();
    cluster.stop_all().await;
}

/// Not run: it compiles only while every future can move between threads.
#[expect(dead_code, reason = "checked by the compiler")]
fn every_future_is_send(node: crate::consensus::Consensus) {
    fn send<T: Send>(_: T) {}
    send(node.initialise(CLUSTER, Default::default()));
    send(node.propose_by(put("a", "1"), soon()));
    send(node.linearize(soon()));
    send(node.handle(PeerRequest { kind: MessageKind::Vote, body: bytes::Bytes::new() }));
    send(node.allocate_node());
    send(node.add_learner(2, member(2)));
    send(node.wait_caught_up(2, soon()));
    send(node.promote(2));
    send(node.remove(2));
    send(node.transfer_leadership(2));
    send(node.wait_for_recovery(soon()));
    send(node.shutdown());
}

/// A node on its own with two snapshots and a few entries after them.
async fn with_two_snapshots(keep_everything: bool) -> Cluster {
    let tune: fn(&mut crate::consensus::ConsensusConfig) =
        if keep_everything { |config| config.keep_entries = 1_000_000 } else { |config| config.keep_entries = 0 };
    let mut cluster = Cluster::formed([1], tune).await;
    for round in 0..2 {
        // A thousand and more, because purging comes in batches of that; together, because each would wait for the disk.
        let proposals = (0..1500).map(|n| cluster.node(1).propose(put(&format!("k{}", n % 50), format!("{round}"))));
        assert!(futures_util::future::join_all(proposals).await.iter().all(Result::is_ok));
        let before = cluster.node(1).status().snapshot;
        cluster.node(1).compact().await.unwrap();
        let deadline = soon();
        while cluster.node(1).status().snapshot == before {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    cluster.propose(put("last", "1")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.node(1).status().purged.is_none(), keep_everything, "{:?}", cluster.node(1).status());
    cluster.stop(1).await;
    cluster
}

fn damage_newest_snapshot(cluster: &Cluster) {
    let mut snapshots: Vec<_> = std::fs::read_dir(cluster.data_dir(1).join("snapshots"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|suffix| suffix == "snap"))
        .collect();
    snapshots.sort();
    assert_eq!(snapshots.len(), 2);
    let newest = snapshots.pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(newest, bytes).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_older_snapshot_serves_while_the_log_reaches_back_to_it() {
    let mut cluster = with_two_snapshots(true).await;
    damage_newest_snapshot(&cluster);
    cluster.start(1).await;
    cluster.leader().await;
    cluster.node(1).linearize(soon()).await.unwrap();
    assert_eq!(value(cluster.node(1), "k0").as_deref(), Some("1"));
    assert_eq!(value(cluster.node(1), "last").as_deref(), Some("1"));
    assert_eq!(cluster.node(1).read(Keyspace::revision), 2 * 1500 + 1);
    cluster.stop(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_that_the_log_cannot_replace_is_refused() {
    let cluster = with_two_snapshots(false).await;
    damage_newest_snapshot(&cluster);
    let config = crate::consensus::ConsensusConfig::new(1, cluster.data_dir(1));
    let error = crate::consensus::Consensus::open(config, std::sync::Arc::new(NoPeers)).await.unwrap_err();
    assert!(matches!(error, OpenError::Storage(StorageError::Damaged { .. })), "{error}");
    assert!(error.to_string().contains("join under a new node id"), "{error}");
}

/// It would have forgotten its vote, and could give it to another candidate of the same term.
#[tokio::test(start_paused = true)]
async fn a_node_whose_log_is_gone_does_not_start() {
    let mut cluster = Cluster::formed([1], |_| {}).await;
    cluster.propose(put("a", "1")).await;
    cluster.stop(1).await;
    let log = cluster.data_dir(1).join("log");
    for empty in [true, false] {
        std::fs::remove_dir_all(&log).unwrap();
        if empty {
            std::fs::create_dir(&log).unwrap();
        }
        let config = crate::consensus::ConsensusConfig::new(1, cluster.data_dir(1));
        let error = crate::consensus::Consensus::open(config, std::sync::Arc::new(NoPeers)).await.unwrap_err();
        assert!(matches!(error, OpenError::Storage(StorageError::Damaged { .. })), "{error}");
    }
}

/// Killed right after its first start, before its first vote, it must not look as if it had lost something.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_only_opened_starts_again() {
    let mut cluster = Cluster::unformed([1], |_| {}).await;
    let copy = tempfile::tempdir().unwrap();
    for directory in ["", "log"] {
        std::fs::create_dir_all(copy.path().join(directory)).unwrap();
        for file in std::fs::read_dir(cluster.data_dir(1).join(directory)).unwrap().map(Result::unwrap) {
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), copy.path().join(directory).join(file.file_name())).unwrap();
            }
        }
    }
    cluster.stop(1).await;
    let config = crate::consensus::ConsensusConfig::new(1, copy.path());
    let node = crate::consensus::Consensus::open(config, std::sync::Arc::new(NoPeers)).await.unwrap();
    node.shutdown().await;
}

struct NoPeers;

impl crate::peer::Peers for NoPeers {
    fn client(&self, _: u64, _: &str, _: crate::peer::Lane) -> crate::peer::PeerClient {
        unreachable!("a node that does not start calls nobody")
    }
}
