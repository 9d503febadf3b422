//! Read indexes, gathered: one round answers every read that waited when it began.
//!
//! One round is under way at a time. It takes exactly the reads that arrived before it was issued, so its index is valid
//! for each of them; those that arrive meanwhile wait for the next. A failed round fails its reads: a retry gets an index
//! of its own.

use std::future::Future;
use std::sync::Arc;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::consensus::error::ReadError;
use crate::consensus::raft::Raft;
use crate::consensus::status::{not_leader, status};
use crate::consensus::wire::{self, ReadIndexAnswer};
use crate::consensus::{NotLeader, ReadIndex};
use crate::peer::{Lane, MessageKind, PeerError, PeerRequest, Peers};
use crate::telemetry::raft as names;

type Answer = Result<ReadIndex, ReadError>;

/// Where reads wait for their round.
#[derive(Debug)]
pub(super) struct Rounds {
    queue: mpsc::Sender<oneshot::Sender<Answer>>,
}

impl Rounds {
    /// A queue of at most `max_reads`, and the task that serves it by asking `round` again and again.
    pub(super) fn new<R, F>(
        max_reads: usize,
        stop: CancellationToken,
        round: R,
    ) -> (Self, impl Future<Output = ()> + use<R, F>)
    where
        R: Fn() -> F,
        F: Future<Output = Answer>,
    {
        let (sender, receiver) = mpsc::channel(max_reads);
        (Self { queue: sender }, run(receiver, max_reads, stop, round))
    }

    /// Waits for the index of the next round.
    pub(super) async fn join(&self) -> Answer {
        let (sender, receiver) = oneshot::channel();
        self.queue.try_send(sender).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadError::TooBusy,
            mpsc::error::TrySendError::Closed(_) => ReadError::Stopping,
        })?;
        receiver.await.unwrap_or(Err(ReadError::Stopping))
    }
}

async fn run<R, F>(
    mut queue: mpsc::Receiver<oneshot::Sender<Answer>>,
    max_reads: usize,
    stop: CancellationToken,
    round: R,
) where
    R: Fn() -> F,
    F: Future<Output = Answer>,
{
    let mut group = Vec::new();
    let serve = async {
        // `recv_many` takes what is queued now: the group is closed before the round is issued.
        while queue.recv_many(&mut group, max_reads).await > 0 {
            group.retain(|waiting: &oneshot::Sender<Answer>| !waiting.is_closed());
            if group.is_empty() {
                continue;
            }
            metrics::histogram!(names::RAFT_READ_BATCH).record(group.len() as f64);
            let answer = round().await;
            for waiting in group.drain(..) {
                // Whoever waited may have given up.
                drop(waiting.send(answer.clone()));
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = serve => {}
    }
}

/// One round of the leader: a quorum confirms, by an answer sent after this call, that this node still leads.
pub(super) async fn local_round(raft: Raft) -> Answer {
    match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => Ok(ReadIndex { index: linearizer.read_log_id().index() }),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
            Err(ReadError::NotLeader(not_leader(to)))
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(ReadError::NoQuorum),
        Err(RaftError::Fatal(_)) => Err(ReadError::Stopping),
    }
}

/// One round of any node: its own if it leads, else it asks the leader.
pub(super) async fn any_round(raft: Raft, peers: Arc<dyn Peers>) -> Answer {
    let status = status(&raft);
    if status.is_leader() {
        return local_round(raft).await;
    }
    let Some((leader, member)) = status.leader_member().filter(|(leader, _)| *leader != status.node_id) else {
        return Err(ReadError::NotLeader(NotLeader { leader: None }));
    };
    let request = PeerRequest { kind: MessageKind::ReadIndex, body: bytes::Bytes::new() };
    let client = peers.client(leader, &member.peer_addr, Lane::Control);
    let unusable = |error: PeerError| ReadError::Leader(Arc::new(error));
    let response = client.oneshot(request).await.map_err(unusable)?;
    match wire::decode(&response.body).map_err(|error| unusable(PeerError::Remote(error)))? {
        ReadIndexAnswer::Index(index) => Ok(index),
        ReadIndexAnswer::NotLeader(not_leader) => Err(ReadError::NotLeader(not_leader)),
        ReadIndexAnswer::NoQuorum => Err(ReadError::NoQuorum),
        ReadIndexAnswer::TooBusy => Err(ReadError::TooBusy),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_round_takes_only_reads_that_came_before_it() {
        let rounds = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&rounds);
        let (reads, serve) = Rounds::new(10, CancellationToken::new(), move || {
            let round = {
                let mut rounds = counter.lock().unwrap();
                *rounds += 1;
                *rounds
            };
            async move {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                Ok(ReadIndex { index: round })
            }
        });
        let serve = tokio::spawn(serve);
        let first = tokio::join!(reads.join(), reads.join(), async {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            tokio::join!(reads.join(), reads.join())
        });
        let index = |answer: Answer| answer.unwrap().index;
        assert_eq!((index(first.0), index(first.1)), (1, 1));
        assert_eq!((index(first.2.0), index(first.2.1)), (2, 2));
        assert_eq!(*rounds.lock().unwrap(), 2);
        drop(reads);
        serve.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_and_a_stopped_one_says_so() {
        let stop = CancellationToken::new();
        let (reads, serve) = Rounds::new(1, stop.clone(), std::future::pending::<Answer>);
        let serve = tokio::spawn(serve);
        let reads = Arc::new(reads);
        let join = |reads: &Arc<Rounds>| {
            let reads = Arc::clone(reads);
            tokio::spawn(async move { reads.join().await })
        };
        let taken = join(&reads);
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let queued = join(&reads);
        tokio::task::yield_now().await;
        assert!(matches!(reads.join().await, Err(ReadError::TooBusy)));
        stop.cancel();
        serve.await.unwrap();
        assert!(matches!(taken.await.unwrap(), Err(ReadError::Stopping)));
        assert!(matches!(queued.await.unwrap(), Err(ReadError::Stopping)));
        assert!(matches!(reads.join().await, Err(ReadError::Stopping)));
    }
}
