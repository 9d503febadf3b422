//! Consensus from its peers: what arrives on a lane, handed to openraft.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use tokio_util::sync::CancellationToken;

use crate::consensus::Consensus;
use crate::consensus::error::ReadError;
use crate::consensus::raft::{Raft, Snapshot, TypeConfig};
use crate::consensus::snapshot;
use crate::consensus::wire::{self, AppendAnswer, ReadIndexAnswer, SnapshotAnswer, SnapshotRequest, SnapshotSession};
use crate::peer::{MessageKind, PeerRequest, PeerResponse, RemoteCode, RemoteError};
use crate::storage::{IncomingSnapshot, SnapshotDir, StorageError};

/// Receives snapshots, one at a time: a transfer that begins ends the one before it.
#[derive(Debug)]
pub(super) struct SnapshotReceiver {
    dir: SnapshotDir,
    /// The transfer under way. Held across the write of one chunk, never longer, by the one sender there is.
    transfer: tokio::sync::Mutex<Option<Transfer>>,
}

#[derive(Debug)]
struct Transfer {
    session: SnapshotSession,
    incoming: IncomingSnapshot,
}

impl Consensus {
    /// Answers a peer: votes, heartbeats, entries one frame at a time, hand-overs, snapshots and read indexes.
    ///
    /// Dropping the future may leave the message acted upon, as a lost answer would.
    ///
    /// # Errors
    ///
    /// [`RemoteCode::BadMessage`] for a message that is none or not for consensus, [`RemoteCode::Internal`] when the node
    /// failed while it worked on it.
    pub async fn handle(&self, request: PeerRequest) -> Result<PeerResponse, RemoteError> {
        let raft = self.raft();
        match request.kind {
            MessageKind::Append | MessageKind::Heartbeat => {
                let request: AppendEntriesRequest<TypeConfig> = wire::decode(&request.body)?;
                let prev = request.prev_log_id;
                let last = request.entries.last().map(|entry| entry.log_id).or(prev);
                let answer = match (raft.append_entries(request).await.map_err(internal)?, prev) {
                    (AppendEntriesResponse::Success, _) => AppendAnswer::Matched(last),
                    (AppendEntriesResponse::PartialSuccess(matched), _) => AppendAnswer::Matched(matched),
                    (AppendEntriesResponse::HigherVote(vote), _) => AppendAnswer::HigherVote(vote),
                    (AppendEntriesResponse::Conflict, Some(prev)) => AppendAnswer::Conflict(prev),
                    (AppendEntriesResponse::Conflict, None) => return Err(internal("a conflict with nothing")),
                };
                wire::answer(&answer)
            }
            MessageKind::Vote => {
                let request: VoteRequest<TypeConfig> = wire::decode(&request.body)?;
                wire::answer(&raft.vote(request).await.map_err(internal)?)
            }
            MessageKind::PreVote => {
                let request: VoteRequest<TypeConfig> = wire::decode(&request.body)?;
                wire::answer(&raft.pre_vote(request).await.map_err(internal)?)
            }
            MessageKind::TransferLeader => {
                let request: TransferLeaderRequest<TypeConfig> = wire::decode(&request.body)?;
                wire::answer(&raft.handle_transfer_leader(request).await.map_err(internal)?)
            }
            MessageKind::Snapshot => {
                let step: SnapshotRequest = wire::decode(&request.body)?;
                wire::answer(&self.snapshots().step(raft, step).await?)
            }
            MessageKind::ReadIndex => {
                let answer = match self.read_index().await {
                    Ok(index) => ReadIndexAnswer::Index(index),
                    Err(ReadError::NotLeader(not_leader)) => ReadIndexAnswer::NotLeader(not_leader),
                    Err(ReadError::TooBusy) => ReadIndexAnswer::TooBusy,
                    Err(ReadError::Stopping) => return Err(stopped()),
                    Err(_) => ReadIndexAnswer::NoQuorum,
                };
                wire::answer(&answer)
            }
            kind @ (MessageKind::Ping | MessageKind::Forward) => {
                Err(RemoteError::new(RemoteCode::BadMessage, format!("{kind} is not for consensus")))
            }
        }
    }

    /// Answers the frames of one append lane, in order, several under way at once.
    ///
    /// The answers end after the first that is an error or does not accept its frame, when the frames end, or when the
    /// node stops. Dropping them ends the session.
    pub fn append_session<S>(&self, frames: S) -> impl Stream<Item = Result<Bytes, RemoteError>> + Send + 'static
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        // openraft reads the frames in a task of its own; without the token it would wait for the next one for ever.
        let session = self.stop_token().child_token();
        let refused = Arc::new(Mutex::new(None));
        let requests = frames
            .take_until(session.clone().cancelled_owned())
            .map(|frame| wire::decode::<AppendEntriesRequest<TypeConfig>>(&frame))
            .scan(Arc::clone(&refused), |refused, decoded| {
                let request = decoded.map_err(|error| {
                    *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                });
                std::future::ready(request.ok())
            });
        let answers = self.raft().stream_append(requests).map(|answer| match answer {
            Ok(result) => wire::encode(&AppendAnswer::from(result)).map_err(internal),
            Err(fatal) => Err(internal(fatal)),
        });
        // A frame that cannot be decoded is answered last, after all those before it.
        let last = stream::once(async move {
            let error = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
            error.map(Err)
        });
        let guarded = (Box::pin(answers.chain(last.filter_map(std::future::ready))), session.drop_guard());
        stream::unfold(guarded, |(mut answers, guard)| async move {
            answers.next().await.map(|answer| (answer, (answers, guard)))
        })
    }

    fn stop_token(&self) -> &CancellationToken {
        &self.inner.stop
    }
}

impl SnapshotReceiver {
    pub(super) fn new(dir: SnapshotDir) -> Self {
        Self { dir, transfer: tokio::sync::Mutex::new(None) }
    }

    async fn step(&self, raft: &Raft, step: SnapshotRequest) -> Result<SnapshotAnswer, RemoteError> {
        let mut transfer = self.transfer.lock().await;
        match step {
            SnapshotRequest::Begin { session, last_log } => {
                if let Some(transfer) = transfer.as_ref().filter(|transfer| transfer.session == session) {
                    return Ok(SnapshotAnswer::Received(transfer.incoming.len()));
                }
                tracing::info!(?session, ?last_log, "a snapshot begins to arrive");
                let dir = self.dir.clone();
                let incoming = blocking(move || dir.receive()).await?;
                *transfer = Some(Transfer { session, incoming });
                Ok(SnapshotAnswer::Received(0))
            }
            SnapshotRequest::Chunk { session, offset, bytes } => {
                let Some(mut current) = transfer.take().filter(|transfer| transfer.session == session) else {
                    return Ok(SnapshotAnswer::Lost);
                };
                if offset == current.incoming.len() {
                    current = blocking(move || {
                        current.incoming.append(&bytes)?;
                        Ok(current)
                    })
                    .await?;
                }
                // Otherwise a chunk that came twice or not in its turn; the answer says what is missing.
                let received = current.incoming.len();
                *transfer = Some(current);
                Ok(SnapshotAnswer::Received(received))
            }
            SnapshotRequest::End { session, len, last_log, membership } => {
                let Some(current) = transfer.take().filter(|transfer| transfer.session == session) else {
                    return Ok(SnapshotAnswer::Lost);
                };
                if current.incoming.len() != len {
                    return Ok(SnapshotAnswer::Lost);
                }
                let file = blocking(move || current.incoming.finish(snapshot::name(last_log))).await?;
                tracing::info!(bytes = len, ?last_log, "a snapshot has arrived");
                let snapshot = Snapshot { meta: wire::meta(last_log, membership), snapshot: file };
                let response = raft.install_full_snapshot(session.vote, snapshot).await.map_err(internal)?;
                Ok(SnapshotAnswer::Installed(response.vote))
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, RemoteError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(internal),
        Err(error) => Err(internal(error)),
    }
}

fn internal(error: impl std::fmt::Display) -> RemoteError {
    RemoteError::new(RemoteCode::Internal, error.to_string())
}

fn stopped() -> RemoteError {
    RemoteError::new(RemoteCode::Unavailable, "the node is stopping")
}
