//! What a node makes of the snapshots it is sent, message by message.

use bytes::Bytes;
use futures_util::FutureExt;

use super::harness::{Cluster, put, soon};
use crate::consensus::Consensus;
use crate::consensus::raft::{LogId, StoredMembership, Vote};
use crate::consensus::wire::{self, SnapshotAnswer, SnapshotRequest, SnapshotSession};
use crate::peer::{MessageKind, PeerRequest, PeerResponse, RemoteError};

/// A snapshot as its sender knows it.
struct Sent {
    bytes: Bytes,
    last_log: LogId,
}

impl Sent {
    /// One made by node 1 of this cluster.
    async fn by(cluster: &Cluster) -> Self {
        cluster.propose(put("a", "1")).await;
        let node = cluster.node(1);
        node.compact().await.unwrap();
        node.wait_status(soon(), |status| status.snapshot.is_some()).await.unwrap();
        let status = node.status();
        let names = snapshots(cluster, 1);
        let bytes = std::fs::read(cluster.data_dir(1).join("snapshots").join(&names[0])).unwrap();
        Self { bytes: bytes.into(), last_log: LogId::new_term_index(status.term, status.snapshot.unwrap()) }
    }

    fn chunk(&self, session: &SnapshotSession, from: usize, to: usize) -> SnapshotRequest {
        SnapshotRequest::Chunk { session: session.clone(), offset: from as u64, bytes: self.bytes.slice(from..to) }
    }

    fn end(&self, session: &SnapshotSession) -> SnapshotRequest {
        SnapshotRequest::End {
            session: session.clone(),
            len: self.bytes.len() as u64,
            last_log: Some(self.last_log),
            membership: StoredMembership::default(),
        }
    }
}

fn session(term: u64, number: u64) -> SnapshotSession {
    SnapshotSession::new(Vote::new_committed(term, 1), number)
}

fn begin(session: &SnapshotSession) -> SnapshotRequest {
    SnapshotRequest::Begin { session: session.clone(), last_log: None }
}

async fn step(node: &Consensus, step: SnapshotRequest) -> SnapshotAnswer {
    answer(handle(node, &step).await)
}

fn handle(node: &Consensus, step: &SnapshotRequest) -> impl Future<Output = Result<PeerResponse, RemoteError>> + use<> {
    let (node, body) = (node.clone(), wire::encode(step).unwrap());
    async move { node.handle(PeerRequest { kind: MessageKind::Snapshot, body }).await }
}

fn answer(response: Result<PeerResponse, RemoteError>) -> SnapshotAnswer {
    wire::decode(&response.unwrap().body).unwrap()
}

/// The names of the snapshots a restart would find.
fn snapshots(cluster: &Cluster, id: u64) -> Vec<String> {
    let files = std::fs::read_dir(cluster.data_dir(id).join("snapshots")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".snap")).collect()
}

/// A restart would have loaded it, though Raft never agreed to it.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_raft_refuses_leaves_no_file() {
    let mut cluster = Cluster::formed([1], |_| {}).await;
    let mut sent = Sent::by(&cluster).await;
    let before = snapshots(&cluster, 1);
    sent.last_log = LogId::new_term_index(sent.last_log.leader_id.term, sent.last_log.index + 1000);
    let node = cluster.node(1).clone();
    let late = session(0, 1);
    step(&node, begin(&late)).await;
    step(&node, sent.chunk(&late, 0, sent.bytes.len())).await;
    match step(&node, sent.end(&late)).await {
        SnapshotAnswer::Installed(vote) => assert!(vote > late.vote, "{vote:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(snapshots(&cluster, 1), before);
    cluster.stop_all().await;
}

/// The sender would have been told that its transfer is lost, and would have begun again from the first byte.
#[tokio::test(start_paused = true)]
async fn strays_of_another_transfer_do_not_end_the_one_under_way() {
    let mut cluster = Cluster::formed([1], |_| {}).await;
    let sent = Sent::by(&cluster).await;
    cluster.start(2).await;
    let node = cluster.node(2).clone();
    let (old, current) = (session(1, 6), session(1, 7));
    assert_eq!(step(&node, begin(&old)).await, SnapshotAnswer::Received(0));
    assert_eq!(step(&node, begin(&current)).await, SnapshotAnswer::Received(0));
    assert_eq!(step(&node, sent.chunk(&current, 0, 10)).await, SnapshotAnswer::Received(10));
    for stray in [begin(&old), begin(&session(0, 9)), sent.chunk(&old, 0, 5), sent.end(&old)] {
        assert_eq!(step(&node, stray).await, SnapshotAnswer::Lost);
    }
    assert_eq!(step(&node, sent.end(&current)).await, SnapshotAnswer::Lost, "too early");
    let len = sent.bytes.len();
    assert_eq!(step(&node, sent.chunk(&current, 10, len)).await, SnapshotAnswer::Received(len as u64));
    assert_eq!(step(&node, sent.end(&current)).await, SnapshotAnswer::Installed(current.vote));
    cluster.stop_all().await;
}

/// A deadline drops the handler wherever it is.
#[tokio::test(start_paused = true)]
async fn a_message_given_up_loses_nothing_that_had_arrived() {
    let mut cluster = Cluster::formed([1], |_| {}).await;
    let sent = Sent::by(&cluster).await;
    cluster.start(2).await;
    let node = cluster.node(2).clone();
    let current = session(1, 1);
    let len = sent.bytes.len();
    assert_eq!(step(&node, begin(&current)).await, SnapshotAnswer::Received(0));
    assert_eq!(step(&node, sent.chunk(&current, 0, 10)).await, SnapshotAnswer::Received(10));
    // Polled once; the thread that writes may or may not be faster than that.
    drop(handle(&node, &sent.chunk(&current, 10, 20)).now_or_never());
    assert_eq!(step(&node, sent.chunk(&current, 20, len)).await, SnapshotAnswer::Received(len as u64));
    // The end as well: what it began goes on, and asking again, even twice, tells how it ended.
    assert!(handle(&node, &sent.end(&current)).now_or_never().is_none());
    for _ in 0..2 {
        assert_eq!(step(&node, sent.end(&current)).await, SnapshotAnswer::Installed(current.vote));
    }
    assert_eq!(snapshots(&cluster, 2), snapshots(&cluster, 1));
    assert_eq!(step(&node, begin(&current)).await, SnapshotAnswer::Received(len as u64));
    cluster.stop_all().await;
}
