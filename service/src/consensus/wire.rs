//! The messages of consensus as bytes: postcard, with keys and values as they are.
//!
//! What arrives is not trusted: any bytes decode to a message or to an error, and nothing is reserved on their word.

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::consensus::raft::{LogId, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use crate::consensus::{NotLeader, ReadIndex};
use crate::peer::{PeerResponse, RemoteCode, RemoteError};

/// The answer to one frame of entries, or to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum AppendAnswer {
    /// The log holds everything up to here.
    Matched(Option<LogId>),
    /// The log has no such entry to continue from.
    Conflict(LogId),
    /// Another leader or candidate is ahead.
    HigherVote(Vote),
}

/// One step of sending a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SnapshotRequest {
    /// Begins a transfer, and ends an earlier one that was under way.
    Begin {
        /// The transfer.
        session: SnapshotSession,
        /// The position the snapshot stands for.
        last_log: Option<LogId>,
    },
    /// The next bytes of the file.
    Chunk {
        /// The transfer.
        session: SnapshotSession,
        /// Where they belong.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// All bytes were sent: check and install them.
    End {
        /// The transfer.
        session: SnapshotSession,
        /// The length of the file.
        len: u64,
        /// The position the snapshot stands for.
        last_log: Option<LogId>,
        /// The members at that position.
        membership: StoredMembership,
    },
}

/// One transfer of one snapshot. The vote is the leader's, so a transfer never outlives its term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotSession {
    /// The leader and its term.
    pub(super) vote: Vote,
    /// Counts the leader's transfers.
    pub(super) number: u64,
}

/// The answer to one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SnapshotAnswer {
    /// So many bytes have arrived.
    Received(u64),
    /// There is no such transfer; begin again.
    Lost,
    /// The snapshot is installed, or another leader is ahead.
    Installed(Vote),
    /// All has arrived and is being installed; ask again.
    Installing,
}

/// The answer to a request for a read index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ReadIndexAnswer {
    /// The index.
    Index(ReadIndex),
    /// Ask another node.
    NotLeader(NotLeader),
    /// No quorum confirmed the leader.
    NoQuorum,
    /// Too many reads are under way.
    TooBusy,
}

impl From<StreamAppendResult<TypeConfig>> for AppendAnswer {
    fn from(result: StreamAppendResult<TypeConfig>) -> Self {
        match result {
            Ok(matched) => Self::Matched(matched),
            Err(StreamAppendError::Conflict(log_id)) => Self::Conflict(log_id),
            Err(StreamAppendError::HigherVote(vote)) => Self::HigherVote(vote),
        }
    }
}

impl From<AppendAnswer> for StreamAppendResult<TypeConfig> {
    fn from(answer: AppendAnswer) -> Self {
        match answer {
            AppendAnswer::Matched(matched) => Ok(matched),
            AppendAnswer::Conflict(log_id) => Err(StreamAppendError::Conflict(log_id)),
            AppendAnswer::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
        }
    }
}

impl SnapshotSession {
    pub(super) const fn new(vote: Vote, number: u64) -> Self {
        Self { vote, number }
    }

    /// Whether it began before the other: under an older leader, or earlier under the same one.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        (self.vote.leader_id.term, self.number) < (other.vote.leader_id.term, other.number)
    }
}

/// The position and members of a snapshot as one value.
pub(super) fn meta(last_log: Option<LogId>, membership: StoredMembership) -> SnapshotMeta {
    SnapshotMeta { last_log_id: last_log, last_membership: membership }
}

/// A message of ours as bytes.
pub(super) fn encode(message: &impl Serialize) -> Result<Bytes, postcard::Error> {
    postcard::to_stdvec(message).map(Bytes::from)
}

/// Entries as bytes, in a buffer that need not grow.
pub(super) fn encode_append(request: &AppendEntriesRequest<TypeConfig>) -> Result<Bytes, postcard::Error> {
    const PER_ENTRY: usize = 32;
    let payload = |entry: &super::raft::LogEntry| match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.size_bytes(),
        _ => 0,
    };
    let size = request.entries.iter().map(|entry| PER_ENTRY + payload(entry)).sum::<usize>();
    postcard::to_extend(request, Vec::with_capacity(64 + size)).map(Bytes::from)
}

/// Bytes from a peer as a message.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RemoteError> {
    postcard::from_bytes(bytes).map_err(|error| RemoteError::new(RemoteCode::BadMessage, error.to_string()))
}

/// An answer of ours to a peer.
pub(super) fn answer(message: &impl Serialize) -> Result<PeerResponse, RemoteError> {
    let body = encode(message).map_err(|error| RemoteError::new(RemoteCode::Internal, error.to_string()))?;
    Ok(PeerResponse { body })
}

#[cfg(test)]
mod tests {
    use openraft::raft::{TransferLeaderRequest, VoteRequest, VoteResponse};
    use proptest::prelude::*;

    use super::*;
    use crate::consensus::raft::{LogEntry, Payload};
    use crate::consensus::{Command, Key, Precondition};

    fn log_id(term: u64, index: u64) -> LogId {
        LogId::new_term_index(term, index)
    }

    #[test]
    fn entries_travel_whole_and_values_are_not_spelled_out() {
        let value = Bytes::from(vec![0xff; 1000]);
        let command = Command::Put {
            key: Key::new("k").unwrap(),
            value: value.clone(),
            precondition: Precondition::RevisionIs(vec![1, 2]),
        };
        let entries = vec![
            LogEntry { log_id: log_id(2, 7), payload: Payload::Normal(command) },
            LogEntry { log_id: log_id(2, 8), payload: Payload::Blank },
        ];
        let request = AppendEntriesRequest::<TypeConfig> {
            vote: Vote::new_committed(2, 1),
            prev_log_id: Some(log_id(1, 6)),
            entries: entries.clone(),
            leader_commit: None,
        };
        let bytes = encode_append(&request).unwrap();
        assert!(bytes.len() < 1000 + 64, "{} bytes", bytes.len());
        let decoded: AppendEntriesRequest<TypeConfig> = decode(&bytes).unwrap();
        assert_eq!((decoded.vote, decoded.prev_log_id), (request.vote, request.prev_log_id));
        assert_eq!(decoded.entries, entries);
        // A slice of the frame would keep the whole frame in memory for as long as the value is there.
        let openraft::EntryPayload::Normal(Command::Put { value: decoded, .. }) = &decoded.entries[0].payload else {
            panic!("{:?}", decoded.entries[0]);
        };
        assert!(!bytes.as_ptr_range().contains(&decoded.as_ptr()), "the value has a buffer of its own");
        let answer = AppendAnswer::from(Err(StreamAppendError::Conflict(log_id(1, 6))));
        assert_eq!(decode::<AppendAnswer>(&encode(&answer).unwrap()).unwrap(), answer);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(decode::<AppendEntriesRequest<TypeConfig>>(&bytes));
            drop(decode::<VoteRequest<TypeConfig>>(&bytes));
            drop(decode::<VoteResponse<TypeConfig>>(&bytes));
            drop(decode::<TransferLeaderRequest<TypeConfig>>(&bytes));
            drop(decode::<AppendAnswer>(&bytes));
            drop(decode::<SnapshotRequest>(&bytes));
            drop(decode::<SnapshotAnswer>(&bytes));
            drop(decode::<ReadIndexAnswer>(&bytes));
        }
    }
}
