//! The settings of consensus, each with its default and its check.

use std::path::PathBuf;
use std::time::Duration;

use seawall::InvalidConfig;

use crate::consensus::ClusterId;
use crate::peer::NodeId;

/// Well above the time of a slow fsync: a follower acknowledges a heartbeat only after flushing what it accepted.
pub const DEFAULT_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);
/// Three heartbeats may be lost before anyone stands for election.
pub const DEFAULT_ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(300);
/// Wide enough above the minimum that two candidates seldom stand at once.
pub const DEFAULT_ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(450);
/// A batch of 256 clients with room to spare; a frame of it stays far below a lane's window with small values.
pub const DEFAULT_MAX_PAYLOAD_ENTRIES: u64 = 2048;
/// One message to a follower holds about so many bytes of entries, and always at least one entry.
pub const DEFAULT_MAX_PAYLOAD_BYTES: usize = 1024 * 1024;
/// Frames sent to a follower before the first of them is answered.
pub const DEFAULT_MAX_APPENDS_IN_FLIGHT: usize = 16;
/// A restart replays at most about twice as many entries. Every snapshot writes the whole keyspace, so fewer would
/// write it over and over for little.
pub const DEFAULT_SNAPSHOT_EVERY_ENTRIES: u64 = 10_000;
/// A follower that was away for fewer entries than this catches up from the log, without a snapshot.
pub const DEFAULT_KEEP_ENTRIES: u64 = 20_000;
/// A follower so close to the leader's log, in entries, counts as caught up: what is missing is under way.
pub const CAUGHT_UP_ENTRIES: u64 = 1024;
/// The size of one piece of a snapshot on the bulk lane.
pub const DEFAULT_SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;
/// Long enough for a snapshot of 1 GiB to cross a slow network.
pub const DEFAULT_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);
/// Proposals accepted and not yet answered; the next one is refused as too busy.
pub const DEFAULT_MAX_PROPOSALS: usize = 16_384;
/// Bytes of proposals accepted and not yet answered; the next one is refused as too busy.
pub const DEFAULT_MAX_PROPOSAL_BYTES: usize = 64 * 1024 * 1024;
/// Reads waiting for a read index; the next one is refused as too busy.
pub const DEFAULT_MAX_READS: usize = 65_536;

/// How a node takes part in consensus: one struct, checked once by [`Consensus::open`](super::Consensus::open).
#[derive(Debug, Clone)]
pub struct ConsensusConfig {
    /// This node's id; never reused in the life of a cluster.
    pub node_id: NodeId,
    /// Where identity, log and snapshots are kept. It must exist.
    pub data_dir: PathBuf,
    /// The cluster this node must belong to, if that is known: a directory of another one is refused.
    pub cluster_id: Option<ClusterId>,
    /// How often the leader says that it leads. Default [`DEFAULT_HEARTBEAT_INTERVAL`].
    pub heartbeat_interval: Duration,
    /// The least silence after which a follower stands for election. Default [`DEFAULT_ELECTION_TIMEOUT_MIN`].
    pub election_timeout_min: Duration,
    /// The greatest. Also how long the leader trusts its last quorum. Default [`DEFAULT_ELECTION_TIMEOUT_MAX`].
    pub election_timeout_max: Duration,
    /// Entries in one message to a follower. Default [`DEFAULT_MAX_PAYLOAD_ENTRIES`].
    pub max_payload_entries: u64,
    /// Bytes in one message to a follower. Default [`DEFAULT_MAX_PAYLOAD_BYTES`].
    pub max_payload_bytes: usize,
    /// Messages to one follower before the first is answered. Default [`DEFAULT_MAX_APPENDS_IN_FLIGHT`].
    pub max_appends_in_flight: usize,
    /// Entries between two snapshots. Default [`DEFAULT_SNAPSHOT_EVERY_ENTRIES`].
    pub snapshot_every_entries: u64,
    /// Entries kept in the log behind the newest snapshot. Default [`DEFAULT_KEEP_ENTRIES`].
    pub keep_entries: u64,
    /// The size of one piece of a snapshot. Default [`DEFAULT_SNAPSHOT_CHUNK_BYTES`].
    pub snapshot_chunk_bytes: usize,
    /// How long sending one whole snapshot may take. Default [`DEFAULT_SNAPSHOT_TIMEOUT`].
    pub snapshot_timeout: Duration,
    /// Proposals under way. Default [`DEFAULT_MAX_PROPOSALS`].
    pub max_proposals: usize,
    /// Bytes of proposals under way. Default [`DEFAULT_MAX_PROPOSAL_BYTES`].
    pub max_proposal_bytes: usize,
    /// Reads that wait for a read index. Default [`DEFAULT_MAX_READS`].
    pub max_reads: usize,
    /// Whether tokio's clock stands still while the disk works. Default `false`; for tests on a paused clock.
    ///
    /// A paused clock jumps to the next timer whenever every task waits, and the disk is not a task: without this, an
    /// election would time out during the first fsync. With it, each flush holds a thread of the blocking pool.
    pub hold_clock_for_disk: bool,
}

impl ConsensusConfig {
    /// The defaults for this node and directory.
    pub fn new(node_id: NodeId, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_id,
            data_dir: data_dir.into(),
            cluster_id: None,
            heartbeat_interval: DEFAULT_HEARTBEAT_INTERVAL,
            election_timeout_min: DEFAULT_ELECTION_TIMEOUT_MIN,
            election_timeout_max: DEFAULT_ELECTION_TIMEOUT_MAX,
            max_payload_entries: DEFAULT_MAX_PAYLOAD_ENTRIES,
            max_payload_bytes: DEFAULT_MAX_PAYLOAD_BYTES,
            max_appends_in_flight: DEFAULT_MAX_APPENDS_IN_FLIGHT,
            snapshot_every_entries: DEFAULT_SNAPSHOT_EVERY_ENTRIES,
            keep_entries: DEFAULT_KEEP_ENTRIES,
            snapshot_chunk_bytes: DEFAULT_SNAPSHOT_CHUNK_BYTES,
            snapshot_timeout: DEFAULT_SNAPSHOT_TIMEOUT,
            max_proposals: DEFAULT_MAX_PROPOSALS,
            max_proposal_bytes: DEFAULT_MAX_PROPOSAL_BYTES,
            max_reads: DEFAULT_MAX_READS,
            hold_clock_for_disk: false,
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that is out of range, and what it may be.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let ms = Duration::from_millis(1);
        fn refuse<T>(
            field: &'static str,
            value: impl std::fmt::Debug,
            bound: &'static str,
        ) -> Result<T, InvalidConfig> {
            Err(InvalidConfig::new(field, value, bound))
        }
        if self.node_id == 0 {
            return refuse("node_id", self.node_id, "at least 1");
        }
        if self.heartbeat_interval < ms {
            return refuse("heartbeat_interval", self.heartbeat_interval, "at least 1 ms");
        }
        if self.election_timeout_min < self.heartbeat_interval * 2 {
            return refuse("election_timeout_min", self.election_timeout_min, "at least twice heartbeat_interval");
        }
        if self.election_timeout_max < self.election_timeout_min + ms {
            return refuse("election_timeout_max", self.election_timeout_max, "greater than election_timeout_min");
        }
        for (field, value) in [
            ("max_payload_bytes", self.max_payload_bytes),
            ("max_appends_in_flight", self.max_appends_in_flight),
            ("snapshot_chunk_bytes", self.snapshot_chunk_bytes),
            ("max_proposals", self.max_proposals),
            ("max_reads", self.max_reads),
        ] {
            if value == 0 {
                return refuse(field, value, "at least 1");
            }
        }
        if self.max_payload_entries == 0 {
            return refuse("max_payload_entries", self.max_payload_entries, "at least 1");
        }
        if self.snapshot_every_entries == 0 {
            return refuse("snapshot_every_entries", self.snapshot_every_entries, "at least 1");
        }
        if self.max_proposal_bytes < 2 * super::MAX_VALUE_BYTES {
            return refuse("max_proposal_bytes", self.max_proposal_bytes, "at least two of the largest values (2 MiB)");
        }
        Ok(())
    }
}
