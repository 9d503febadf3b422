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

pub use config::{ConsensusConfig, DEFAULT_KEEP_ENTRIES};
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
