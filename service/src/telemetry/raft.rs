//! The names and help texts of what consensus tells about itself.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// What the node is to the consensus group: 1 for the role it has, 0 for the others. Label `role`.
pub const RAFT_ROLE: &str = "seawall_kv_raft_role";
/// The term.
pub const RAFT_TERM: &str = "seawall_kv_raft_term";
/// The last entry in the log.
pub const RAFT_LAST_LOG_INDEX: &str = "seawall_kv_raft_last_log_index";
/// The last entry known to be committed.
pub const RAFT_COMMIT_INDEX: &str = "seawall_kv_raft_commit_index";
/// The last entry applied.
pub const RAFT_APPLIED_INDEX: &str = "seawall_kv_raft_applied_index";
/// The last entry in the newest snapshot.
pub const RAFT_SNAPSHOT_INDEX: &str = "seawall_kv_raft_snapshot_index";
/// How often this node saw another node become the leader.
pub const RAFT_LEADER_CHANGES: &str = "seawall_kv_raft_leader_changes_total";
/// Proposals by `outcome`.
pub const RAFT_PROPOSALS: &str = "seawall_kv_raft_proposals_total";
/// Entries written to the log at a time.
pub const RAFT_APPEND_BATCH: &str = "seawall_kv_raft_append_batch_entries";
/// From handing log records over to their fsync.
pub const RAFT_FLUSH_SECONDS: &str = "seawall_kv_raft_flush_seconds";
/// Reads answered by one round of heartbeats.
pub const RAFT_READ_BATCH: &str = "seawall_kv_raft_read_batch_reads";
/// Commands applied to the keyspace, by `command`.
pub const COMMANDS_APPLIED: &str = "seawall_kv_commands_applied_total";
/// Keys in the strong keyspace.
pub const STRONG_KEYS: &str = "seawall_kv_strong_keys";
/// Bytes of keys and values in the strong keyspace.
pub const STRONG_BYTES: &str = "seawall_kv_strong_bytes";

/// Gives the recorder the help texts.
pub fn describe() {
    describe_gauge!(RAFT_ROLE, "1 for the role this node has in the consensus group, else 0");
    describe_gauge!(RAFT_TERM, "The term of the consensus group");
    describe_gauge!(RAFT_LAST_LOG_INDEX, "The last entry in the log");
    describe_gauge!(RAFT_COMMIT_INDEX, "The last entry known to be committed");
    describe_gauge!(RAFT_APPLIED_INDEX, "The last entry applied to the keyspace");
    describe_gauge!(RAFT_SNAPSHOT_INDEX, "The last entry in the newest snapshot");
    describe_counter!(RAFT_LEADER_CHANGES, "How often another leader was seen");
    describe_counter!(RAFT_PROPOSALS, "Commands proposed here, by outcome");
    describe_histogram!(RAFT_APPEND_BATCH, Unit::Count, "Entries written to the log at a time");
    describe_histogram!(RAFT_FLUSH_SECONDS, Unit::Seconds, "Time from handing log records over to their fsync");
    describe_histogram!(RAFT_READ_BATCH, Unit::Count, "Reads answered by one round of heartbeats");
    describe_counter!(COMMANDS_APPLIED, "Commands applied to the keyspace");
    describe_gauge!(STRONG_KEYS, Unit::Count, "Keys in the strong keyspace");
    describe_gauge!(STRONG_BYTES, Unit::Bytes, "Bytes of keys and values in the strong keyspace");
}
