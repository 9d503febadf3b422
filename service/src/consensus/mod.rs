//! Raft: a replicated log of commands and the keyspace they build. The only place that names openraft.

mod config;
mod error;
mod handle;
mod keyspace;
mod log_store;
mod membership;
mod network;
mod pages;
mod proposer;
mod raft;
mod reads;
mod server;
mod snapshot;
mod state_machine;
mod status;
mod types;
mod wire;

#[cfg(test)]
mod tests;

/// The log filter for the libraries below: what they do inside is of interest only when something is wrong with it. A
/// peer that is away is an error to them ten times a second.
pub const LIBRARY_LOGS: &str = "openraft=error,raft_log=warn,chunked_wal=warn";

pub use config::{
    CAUGHT_UP_ENTRIES, ConsensusConfig, DEFAULT_ELECTION_TIMEOUT_MAX, DEFAULT_ELECTION_TIMEOUT_MIN,
    DEFAULT_HEARTBEAT_INTERVAL, DEFAULT_KEEP_ENTRIES, DEFAULT_MAX_APPENDS_IN_FLIGHT, DEFAULT_MAX_PAYLOAD_BYTES,
    DEFAULT_MAX_PAYLOAD_ENTRIES, DEFAULT_MAX_PROPOSAL_BYTES, DEFAULT_MAX_PROPOSALS, DEFAULT_MAX_READS,
    DEFAULT_SNAPSHOT_CHUNK_BYTES, DEFAULT_SNAPSHOT_EVERY_ENTRIES, DEFAULT_SNAPSHOT_TIMEOUT,
};
pub use error::{
    InitialiseError, MembershipError, NotLeader, OpenError, ProposeError, ReadError, UnknownOutcome, WaitError,
    WriteOutcome,
};
pub use handle::Consensus;
pub use keyspace::{Entry, Keyspace};
pub use types::{
    Applied, ClusterId, Command, FollowerProgress, InvalidClusterId, InvalidKey, Key, LogIndex, MAX_KEY_BYTES,
    MAX_VALUE_BYTES, Member, Members, Precondition, ReadIndex, Response, Revision, Role, Status,
};
