//! Gathers proposals into batches: one message to openraft carries what arrived while it took the last one.
//!
//! Each client write is still one log entry. What is accepted and not yet answered is bounded, in number and in bytes;
//! beyond that a proposal is refused at once, which costs its client less than a queue that cannot be served in time.

use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use openraft::errors::{ClientWriteError, Fatal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::consensus::error::{ProposeError, UnknownOutcome};
use crate::consensus::raft::{Raft, TypeConfig};
use crate::consensus::status::not_leader;
use crate::consensus::{Applied, Command, ConsensusConfig};
use crate::telemetry::raft as names;

/// Commands handed to openraft in one message.
const BATCH: usize = 1024;

/// Takes proposals in.
#[derive(Debug)]
pub(super) struct Proposer {
    queue: mpsc::Sender<Proposal>,
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// Hands them on; runs as a task.
pub(super) struct Driver {
    raft: Raft,
    queue: mpsc::Receiver<Proposal>,
    stop: CancellationToken,
}

struct Proposal {
    command: Command,
    waiting: Waiting,
}

/// Who waits for the answer, and the room taken meanwhile.
struct Waiting {
    answer: oneshot::Sender<Result<Applied, ProposeError>>,
    _room: [OwnedSemaphorePermit; 2],
}

impl Proposer {
    pub(super) fn new(raft: Raft, config: &ConsensusConfig, stop: CancellationToken) -> (Self, Driver) {
        let count = config.max_proposals.min(Semaphore::MAX_PERMITS);
        let bytes = config.max_proposal_bytes.min(Semaphore::MAX_PERMITS);
        let (sender, receiver) = mpsc::channel(count);
        let proposer =
            Self { queue: sender, count: Arc::new(Semaphore::new(count)), bytes: Arc::new(Semaphore::new(bytes)) };
        (proposer, Driver { raft, queue: receiver, stop })
    }

    /// Proposes and waits until it is applied. Dropping the future leaves the outcome unknown.
    pub(super) async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let result = self.submit(command).await;
        let outcome = result.as_ref().map_or_else(ProposeError::reason, |_| "applied");
        metrics::counter!(names::RAFT_PROPOSALS, "outcome" => outcome).increment(1);
        result
    }

    async fn submit(&self, command: Command) -> Result<Applied, ProposeError> {
        let size = u32::try_from(command.size_bytes()).unwrap_or(u32::MAX);
        let count = Arc::clone(&self.count).try_acquire_owned().map_err(|_| ProposeError::TooBusy)?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(size).map_err(|_| ProposeError::TooBusy)?;
        let (answer, answered) = oneshot::channel();
        let proposal = Proposal { command, waiting: Waiting { answer, _room: [count, bytes] } };
        self.queue.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::TooBusy,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopping,
        })?;
        // The driver answers or is gone; in the second case the command may have been handed on.
        answered.await.unwrap_or(Err(ProposeError::Unknown(UnknownOutcome::Stopped)))
    }
}

impl Driver {
    /// Runs until the node stops.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                received = self.queue.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        break;
                    }
                    if let Some(answers) = self.hand_on(&mut batch).await {
                        under_way.push(answers);
                    }
                }
            }
        }
        self.queue.close();
        while let Ok(proposal) = self.queue.try_recv() {
            proposal.waiting.answer(Err(ProposeError::Stopping));
        }
        // openraft answers or drops everything it was handed when it stops, which it is about to.
        while under_way.next().await.is_some() {}
    }

    async fn hand_on(&self, batch: &mut Vec<Proposal>) -> Option<impl Future<Output = ()> + use<>> {
        // Whoever gave up before its command was handed on need not have it executed.
        batch.retain(|proposal| !proposal.waiting.answer.is_closed());
        if batch.is_empty() {
            return None;
        }
        let (commands, waiting): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|proposal| (proposal.command, proposal.waiting)).unzip();
        match self.raft.client_write_many(commands).await {
            Ok(results) => Some(answer_all(results, waiting)),
            Err(_fatal) => {
                // The message may have been taken in before the failure.
                for waiting in waiting {
                    waiting.answer(Err(ProposeError::Unknown(UnknownOutcome::Stopped)));
                }
                None
            }
        }
    }
}

impl Waiting {
    fn answer(self, result: Result<Applied, ProposeError>) {
        // Whoever waited may have gone; then nobody is interested.
        drop(self.answer.send(result));
    }
}

type WriteResult = openraft::raft::WriteResult<TypeConfig>;

async fn answer_all(
    mut results: impl Stream<Item = Result<WriteResult, Fatal<TypeConfig>>> + Unpin,
    waiting: Vec<Waiting>,
) {
    for waiting in waiting {
        let result = match results.next().await {
            Some(Ok(Ok(response))) => Ok(Applied { log_index: response.log_id.index, response: response.response }),
            Some(Ok(Err(error))) => Err(propose_error(error)),
            Some(Err(_)) | None => Err(ProposeError::Unknown(UnknownOutcome::Stopped)),
        };
        waiting.answer(result);
    }
}

fn propose_error(error: ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(to) => ProposeError::NotLeader(not_leader(to)),
        ClientWriteError::LogEntryDiscarded(_) => ProposeError::Unknown(UnknownOutcome::Discarded),
        // These two are about changes of members, which do not come this way.
        ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_) => {
            ProposeError::Unknown(UnknownOutcome::Discarded)
        }
    }
}
