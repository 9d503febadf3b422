//! Consensus towards its peers: what openraft wants to say, put on the lane it belongs to.
//!
//! Entries go as one ordered stream of frames, several in flight, answered in order; the first failure ends the stream
//! and openraft begins another from what was acknowledged. Heartbeats, votes and hand-overs go ahead of any queue, and
//! snapshots where they delay nobody. No retry here: Raft retries.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkV2};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, Sleep};
use tower::{Service, ServiceExt};

use crate::consensus::raft::{Snapshot, TypeConfig, Vote};
use crate::consensus::wire::{self, AppendAnswer, SnapshotAnswer, SnapshotRequest, SnapshotSession};
use crate::consensus::{ConsensusConfig, Member};
use crate::peer::{Lane, MessageKind, NodeId, PeerClient, PeerError, PeerRequest, PeerResponse, Peers};
use crate::storage::SnapshotFile;

type AppendResult = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// Makes the links to the other members.
pub(super) struct Network {
    peers: Arc<dyn Peers>,
    settings: Settings,
}

/// What a link needs to know.
#[derive(Debug, Clone)]
struct Settings {
    max_appends_in_flight: usize,
    /// A stream of entries that gets no answer for so long has failed.
    stall: Duration,
    snapshot_chunk_bytes: usize,
    snapshots_sent: Arc<AtomicU64>,
}

/// One other member.
pub(super) struct Link {
    target: NodeId,
    address: String,
    peers: Arc<dyn Peers>,
    /// [`MessageKind::Append`], or [`MessageKind::Heartbeat`] on the link that carries only those.
    append: MessageKind,
    settings: Settings,
}

impl Network {
    pub(super) fn new(peers: Arc<dyn Peers>, config: &ConsensusConfig) -> Self {
        let settings = Settings {
            max_appends_in_flight: config.max_appends_in_flight,
            stall: config.election_timeout_min,
            snapshot_chunk_bytes: config.snapshot_chunk_bytes,
            snapshots_sent: Arc::default(),
        };
        Self { peers, settings }
    }

    fn link(&self, target: NodeId, member: &Member, append: MessageKind) -> Link {
        let (peers, settings) = (Arc::clone(&self.peers), self.settings.clone());
        Link { target, address: member.peer_addr.clone(), peers, append, settings }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> Link {
        self.link(target, member, MessageKind::Append)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, member: &Member) -> Link {
        self.link(target, member, MessageKind::Heartbeat)
    }
}

impl Link {
    fn client(&self, lane: Lane) -> PeerClient {
        self.peers.client(self.target, &self.address, lane)
    }

    async fn ask<A: DeserializeOwned>(&self, kind: MessageKind, message: &impl Serialize) -> Result<A, PeerError> {
        let body = wire::encode(message).map_err(|error| PeerError::Unreachable(error.into()))?;
        let response = self.client(kind.lane()).oneshot(PeerRequest { kind, body }).await?;
        wire::decode(&response.body).map_err(PeerError::Remote)
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: Snapshot) -> Result<SnapshotResponse<TypeConfig>, PeerError> {
        // ORDERING: Relaxed, only the number itself matters: every transfer gets another one.
        let number = self.settings.snapshots_sent.fetch_add(1, Ordering::Relaxed);
        let session = SnapshotSession::new(vote, number);
        let (file, meta) = (snapshot.snapshot, snapshot.meta);
        let begin = SnapshotRequest::Begin { session: session.clone(), last_log: meta.last_log_id };
        let mut received = self.snapshot_step(&begin).await?;
        while let SnapshotAnswer::Received(offset) = received {
            if offset >= file.len() {
                break;
            }
            let bytes = read_piece(file.clone(), offset, self.settings.snapshot_chunk_bytes).await?;
            let session = session.clone();
            received = self.snapshot_step(&SnapshotRequest::Chunk { session, offset, bytes: bytes.into() }).await?;
            // Every step must move forward, or a confused receiver would keep us here for ever.
            if matches!(received, SnapshotAnswer::Received(next) if next <= offset) {
                return Err(broken("the receiver of the snapshot does not advance"));
            }
        }
        if matches!(received, SnapshotAnswer::Received(_)) {
            let (last_log, membership) = (meta.last_log_id, meta.last_membership);
            let end = SnapshotRequest::End { session, len: file.len(), last_log, membership };
            received = self.snapshot_step(&end).await?;
            // Installing takes longer than one message may, if the snapshot is large. The time for all of it bounds this.
            while received == SnapshotAnswer::Installing {
                received = self.snapshot_step(&end).await?;
            }
        }
        match received {
            SnapshotAnswer::Installed(vote) => Ok(SnapshotResponse::new(vote)),
            SnapshotAnswer::Lost | SnapshotAnswer::Received(_) | SnapshotAnswer::Installing => {
                Err(broken("the receiver lost the snapshot"))
            }
        }
    }

    async fn snapshot_step(&self, step: &SnapshotRequest) -> Result<SnapshotAnswer, PeerError> {
        // Whoever counts transfers tells them apart by their first message; the receiver reads the step itself.
        let begins = matches!(step, SnapshotRequest::Begin { .. });
        self.ask(if begins { MessageKind::SnapshotBegin } else { MessageKind::Snapshot }, step).await
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let answer: AppendAnswer = self.ask(self.append, &request).await.map_err(|error| rpc_error(&error))?;
        Ok(AppendEntriesResponse::from(StreamAppendResult::from(answer)))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendResult>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let frames = Frames {
            input,
            input_ended: false,
            kind: self.append,
            client: self.client(self.append.lane()),
            next: None,
            in_flight: VecDeque::new(),
            max_in_flight: self.settings.max_appends_in_flight,
            stall: self.settings.stall,
            stalled: Box::pin(tokio::time::sleep(self.settings.stall)),
            failed: false,
        };
        async move { Ok(frames.boxed()) }.boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(MessageKind::Vote, &request).await.map_err(|error| rpc_error(&error))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(MessageKind::PreVote, &request).await.map_err(|error| rpc_error(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = tokio::time::timeout(option.hard_ttl(), self.send_snapshot(vote, snapshot)) => match sent {
                Ok(sent) => sent.map_err(|error| StreamingError::from(rpc_error(&error))),
                Err(elapsed) => Err(StreamingError::Network(NetworkError::new(&elapsed))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(MessageKind::TransferLeader, &request).await.map_err(|error| rpc_error(&error))
    }
}

/// A stream of frames to one member, and the stream of its answers.
struct Frames<S> {
    input: S,
    input_ended: bool,
    kind: MessageKind,
    client: PeerClient,
    /// Taken from the input, waiting for the client to be ready.
    next: Option<PeerRequest>,
    in_flight: VecDeque<Answer>,
    max_in_flight: usize,
    stall: Duration,
    stalled: Pin<Box<Sleep>>,
    failed: bool,
}

/// An answer that may arrive before those it must come after.
enum Answer {
    Pending(<PeerClient as Service<PeerRequest>>::Future),
    Ready(Result<PeerResponse, PeerError>),
}

impl<S> Frames<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    /// Sends what may be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), PeerError> {
        while self.in_flight.len() < self.max_in_flight {
            if self.next.is_none() && !self.input_ended {
                match self.input.poll_next_unpin(cx) {
                    Poll::Ready(Some(request)) => {
                        let body =
                            wire::encode_append(&request).map_err(|error| PeerError::Unreachable(error.into()))?;
                        self.next = Some(PeerRequest { kind: self.kind, body });
                    }
                    Poll::Ready(None) => self.input_ended = true,
                    Poll::Pending => return Ok(()),
                }
            }
            if self.next.is_none() {
                return Ok(());
            }
            match self.client.poll_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok(()),
            }
            if let Some(request) = self.next.take() {
                if self.in_flight.is_empty() {
                    self.stalled.as_mut().reset(Instant::now() + self.stall);
                }
                self.in_flight.push_back(Answer::Pending(self.client.call(request)));
            }
        }
        Ok(())
    }

    /// The answer to the oldest frame. Polls them all: a call makes no progress unless it is polled.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<AppendAnswer, PeerError>>> {
        for answer in &mut self.in_flight {
            if let Answer::Pending(pending) = answer
                && let Poll::Ready(response) = pending.poll_unpin(cx)
            {
                *answer = Answer::Ready(response);
            }
        }
        match self.in_flight.pop_front() {
            None => Poll::Ready(None),
            Some(Answer::Ready(response)) => {
                self.stalled.as_mut().reset(Instant::now() + self.stall);
                let answer = response.and_then(|response| wire::decode(&response.body).map_err(PeerError::Remote));
                Poll::Ready(Some(answer))
            }
            Some(pending) => {
                self.in_flight.push_front(pending);
                ready!(self.stalled.poll_unpin(cx));
                Poll::Ready(Some(Err(PeerError::Elapsed("no answer to the entries sent".into()))))
            }
        }
    }
}

impl<S> Stream for Frames<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    type Item = AppendResult;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<AppendResult>> {
        let this = &mut *self;
        if this.failed {
            return Poll::Ready(None);
        }
        let answer = match this.poll_send(cx) {
            Err(error) => Err(error),
            Ok(()) => match this.poll_answer(cx) {
                Poll::Ready(Some(answer)) => answer,
                Poll::Ready(None) if this.input_ended && this.next.is_none() => return Poll::Ready(None),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            },
        };
        match answer {
            Ok(answer) => {
                let result = StreamAppendResult::from(answer);
                // What was sent after a frame that did not match cannot match either.
                this.failed = result.is_err();
                Poll::Ready(Some(Ok(result)))
            }
            Err(error) => {
                this.failed = true;
                Poll::Ready(Some(Err(rpc_error(&error))))
            }
        }
    }
}

async fn read_piece(file: SnapshotFile, offset: u64, max: usize) -> Result<Vec<u8>, PeerError> {
    let read = tokio::task::spawn_blocking(move || file.read_at(offset, max)).await;
    read.map_err(|error| PeerError::Unreachable(error.into()))?.map_err(|error| PeerError::Unreachable(error.into()))
}

fn broken(detail: &'static str) -> PeerError {
    PeerError::Broken(detail.into())
}

/// What openraft must know of a failure: whether the peer is worth another try at once, or only after a while.
fn rpc_error(error: &PeerError) -> RPCError<TypeConfig> {
    if error.never_sent() {
        RPCError::Unreachable(Unreachable::new(error))
    } else {
        RPCError::Network(NetworkError::new(error))
    }
}
