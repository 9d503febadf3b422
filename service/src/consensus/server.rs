//! Consensus from its peers: what arrives on a lane, handed to openraft.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::consensus::Consensus;
use crate::consensus::error::ReadError;
use crate::consensus::raft::{LogId, Raft, Snapshot, SnapshotMeta, TypeConfig, Vote};
use crate::consensus::snapshot;
use crate::consensus::wire::{self, AppendAnswer, ReadIndexAnswer, SnapshotAnswer, SnapshotRequest, SnapshotSession};
use crate::peer::{MessageKind, PeerRequest, PeerResponse, RemoteCode, RemoteError};
use crate::storage::{IncomingSnapshot, SnapshotDir, StorageError};

/// How long the end of a transfer is waited for before the sender is told to ask again: well below the time its lane
/// gives one message.
const INSTALL_POLL: Duration = Duration::from_secs(2);

/// Receives snapshots, one at a time: a later transfer that begins ends the one before it.
#[derive(Debug)]
pub(super) struct SnapshotReceiver {
    dir: SnapshotDir,
    /// The newest transfer. Held across the write of one chunk by the thread that writes, so that a message whose sender
    /// gave up takes nothing with it.
    transfer: Arc<tokio::sync::Mutex<Option<Transfer>>>,
    tracker: TaskTracker,
    /// Ends the checking of a snapshot, which runs on a thread.
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Transfer {
    session: SnapshotSession,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Arriving(IncomingSnapshot),
    /// All `len` bytes are here; a task checks and installs them, and leaves its result.
    Installing {
        len: u64,
        result: InstallResult,
    },
}

type InstallResult = watch::Receiver<Option<Result<Vote, RemoteError>>>;

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
            MessageKind::SnapshotBegin | MessageKind::Snapshot => {
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
    pub(super) fn new(dir: SnapshotDir, tracker: TaskTracker, stop: Arc<AtomicBool>) -> Self {
        Self { dir, transfer: Arc::default(), tracker, stop }
    }

    async fn step(&self, raft: &Raft, step: SnapshotRequest) -> Result<SnapshotAnswer, RemoteError> {
        match step {
            SnapshotRequest::Begin { session, last_log } => self.begin(session, last_log).await,
            SnapshotRequest::Chunk { session, offset, bytes } => self.chunk(session, offset, bytes).await,
            SnapshotRequest::End { session, len, last_log, membership } => {
                self.end(raft, session, len, wire::meta(last_log, membership)).await
            }
        }
    }

    async fn begin(&self, session: SnapshotSession, last_log: Option<LogId>) -> Result<SnapshotAnswer, RemoteError> {
        let mut transfer = Arc::clone(&self.transfer).lock_owned().await;
        match transfer.as_ref() {
            Some(current) if current.session == session => return Ok(SnapshotAnswer::Received(current.len())),
            Some(current) if session.is_before(&current.session) => return Ok(SnapshotAnswer::Lost),
            _ => {}
        }
        tracing::info!(?session, ?last_log, "a snapshot begins to arrive");
        let dir = self.dir.clone();
        self.blocking(move || {
            *transfer = Some(Transfer { session, stage: Stage::Arriving(dir.receive()?) });
            Ok(SnapshotAnswer::Received(0))
        })
        .await
    }

    async fn chunk(&self, session: SnapshotSession, offset: u64, bytes: Bytes) -> Result<SnapshotAnswer, RemoteError> {
        let mut transfer = Arc::clone(&self.transfer).lock_owned().await;
        self.blocking(move || {
            // A chunk of another transfer is a stray, and the one under way goes on.
            let Some(current) = transfer.as_mut().filter(|current| current.session == session) else {
                return Ok(SnapshotAnswer::Lost);
            };
            if let Stage::Arriving(incoming) = &mut current.stage
                && offset == incoming.len()
                && let Err(error) = incoming.append(&bytes)
            {
                // Nobody knows how much of it was written.
                *transfer = None;
                return Err(error);
            }
            // Otherwise a chunk that came twice or not in its turn; the answer says what is missing.
            Ok(SnapshotAnswer::Received(current.len()))
        })
        .await
    }

    async fn end(
        &self,
        raft: &Raft,
        session: SnapshotSession,
        len: u64,
        meta: SnapshotMeta,
    ) -> Result<SnapshotAnswer, RemoteError> {
        let mut result = {
            let mut transfer = self.transfer.lock().await;
            let Some(current) = transfer.as_mut().filter(|current| current.session == session) else {
                return Ok(SnapshotAnswer::Lost);
            };
            if current.len() != len {
                return Ok(SnapshotAnswer::Lost);
            }
            current.install(|incoming| {
                let (sender, result) = watch::channel(None);
                // In a task, so that it goes on when the sender gives up waiting, and asking again finds it done.
                let (raft, tracker, stop) = (raft.clone(), self.tracker.clone(), Arc::clone(&self.stop));
                let work = async move {
                    let name = snapshot::name(meta.last_log_id);
                    let snapshot = blocking(&tracker, move || incoming.finish(name, &stop)).await?;
                    tracing::info!(bytes = len, last_log = ?meta.last_log_id, "a snapshot has arrived");
                    let snapshot = Snapshot { meta, snapshot };
                    let response = raft.install_full_snapshot(session.vote, snapshot).await.map_err(internal)?;
                    Ok(response.vote)
                };
                self.tracker.spawn(async move { sender.send_replace(Some(work.await)) });
                result
            })
        };
        let done = tokio::time::timeout(INSTALL_POLL, result.wait_for(Option::is_some)).await;
        match done.map(|done| done.ok().and_then(|done| done.clone())) {
            Ok(Some(installed)) => installed.map(SnapshotAnswer::Installed),
            Ok(None) => Err(stopped()),
            Err(_) => Ok(SnapshotAnswer::Installing),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, RemoteError> {
        blocking(&self.tracker, work).await
    }
}

impl Transfer {
    /// How many bytes have arrived.
    const fn len(&self) -> u64 {
        match &self.stage {
            Stage::Arriving(incoming) => incoming.len(),
            Stage::Installing { len, .. } => *len,
        }
    }

    /// Begins to install what has arrived, once; every caller gets the same result.
    fn install(&mut self, begin: impl FnOnce(IncomingSnapshot) -> InstallResult) -> InstallResult {
        let len = self.len();
        let (sender, result) = watch::channel(None);
        drop(sender);
        match std::mem::replace(&mut self.stage, Stage::Installing { len, result }) {
            Stage::Arriving(incoming) => {
                let result = begin(incoming);
                self.stage = Stage::Installing { len, result: result.clone() };
                result
            }
            Stage::Installing { result, .. } => {
                self.stage = Stage::Installing { len, result: result.clone() };
                result
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    tracker: &TaskTracker,
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, RemoteError> {
    match tracker.spawn_blocking(work).await {
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
