//! Raft: a replicated log of commands and the keyspace they build. The only place that names openraft.

mod config;
mod error;
mod types;

pub use config::ConsensusConfig;
pub use error::{
    InitialiseError, MembershipError, NotLeader, OpenError, ProposeError, ReadError, UnknownOutcome, WaitError,
    WriteOutcome,
};
pub use types::{
    Applied, ClusterId, Command, FollowerProgress, InvalidClusterId, InvalidKey, Key, LogIndex, MAX_KEY_BYTES,
    MAX_VALUE_BYTES, Member, Members, Precondition, ReadIndex, Response, Revision, Role, Status,
};
