//! [`Consensus`]: opens the parts, holds them together, and takes them down.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::{Config, SnapshotPolicy};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::consensus::error::{OpenError, ProposeError, ReadError, UnknownOutcome, WaitError};
use crate::consensus::log_store::LogStore;
use crate::consensus::network::Network;
use crate::consensus::proposer::Proposer;
use crate::consensus::raft::Raft;
use crate::consensus::reads::{self, Rounds};
use crate::consensus::server::SnapshotReceiver;
use crate::consensus::state_machine::{State, StateMachine};
use crate::consensus::{Applied, ClusterId, Command, ConsensusConfig, Keyspace, LogIndex, ReadIndex, Status, status};
use crate::peer::{NodeId, Peers};
use crate::storage::{DataDir, StorageError};

/// One node's part in the group. Clones share it.
#[derive(Clone)]
pub struct Consensus {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    config: ConsensusConfig,
    data: Arc<DataDir>,
    raft: Raft,
    state: Arc<State>,
    proposer: Proposer,
    local_reads: Rounds,
    any_reads: Rounds,
    snapshots: SnapshotReceiver,
    status: watch::Receiver<Status>,
    /// Ends our own tasks and the sessions of peers.
    pub(super) stop: CancellationToken,
    /// Ends the building, checking and loading of a snapshot, which run on threads.
    stop_threads: Arc<AtomicBool>,
    /// Counts our tasks, the threads at work, and the open log.
    tracker: TaskTracker,
}

impl Consensus {
    /// Opens the data directory, recovers what is in it and takes part in the group it belongs to, if any.
    ///
    /// When this returns, the identity file is durable and nothing has been voted for yet. The applied state may be
    /// older than it was before a restart: see [`wait_for_recovery`](Self::wait_for_recovery).
    ///
    /// # Errors
    ///
    /// A setting is out of range, the directory cannot be used, or what is in it cannot be recovered.
    pub async fn open(config: ConsensusConfig, peers: Arc<dyn Peers>) -> Result<Self, OpenError> {
        config.check()?;
        let tracker = TaskTracker::new();
        let stop_threads = Arc::new(AtomicBool::new(false));
        let recovery = {
            let (config, tracker, stop) = (config.clone(), tracker.clone(), Arc::clone(&stop_threads));
            move || recover(&config, &tracker, stop)
        };
        let recovered =
            tokio::task::spawn_blocking(recovery).await.map_err(|error| OpenError::Recovery(error.into()))?;
        let Recovered { data, log, state_machine, snapshots } = recovered?;
        let data = Arc::new(data);
        let state = state_machine.state();
        let network = Network::new(Arc::clone(&peers), &config);
        let raft_config = raft_config(&config).map_err(|error| OpenError::Recovery(error.into()))?;
        let raft = Raft::new(config.node_id, Arc::new(raft_config), network, log, state_machine)
            .await
            .map_err(|error| OpenError::Recovery(error.into()))?;

        let stop = CancellationToken::new();
        let (proposer, driver) = Proposer::new(raft.clone(), &config, stop.clone());
        tracker.spawn(driver.run());
        let (local_reads, serve) = Rounds::new(config.max_reads, stop.clone(), {
            let raft = raft.clone();
            move || reads::local_round(raft.clone())
        });
        tracker.spawn(serve);
        let (any_reads, serve) = Rounds::new(config.max_reads, stop.clone(), {
            let raft = raft.clone();
            move || reads::any_round(raft.clone(), Arc::clone(&peers))
        });
        tracker.spawn(serve);
        let (status_sender, status) = watch::channel(status::status(&raft));
        tracker.spawn(status::publish(raft.clone(), Arc::clone(&state), config.clone(), status_sender, stop.clone()));
        tracker.spawn(keep_identity(Arc::clone(&state), Arc::clone(&data), stop.clone()));
        let snapshots = SnapshotReceiver::new(snapshots, tracker.clone(), Arc::clone(&stop_threads));
        let inner = Inner {
            config,
            data,
            raft,
            state,
            proposer,
            local_reads,
            any_reads,
            snapshots,
            status,
            stop,
            stop_threads,
            tracker,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Proposes a command and waits until it is applied here. Only the leader can.
    ///
    /// Dropping the future leaves the outcome unknown.
    ///
    /// # Errors
    ///
    /// [`ProposeError::outcome`] says whether the command may yet be applied.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        self.inner.proposer.propose(command).await
    }

    /// As [`propose`](Self::propose), and gives up waiting at `deadline`.
    ///
    /// # Errors
    ///
    /// As [`propose`](Self::propose). After the deadline the outcome is unknown.
    pub async fn propose_by(&self, command: Command, deadline: Instant) -> Result<Applied, ProposeError> {
        tokio::time::timeout_at(deadline, self.propose(command))
            .await
            .unwrap_or(Err(ProposeError::Unknown(UnknownOutcome::Deadline)))
    }

    /// The index a read that begins now must wait for. Only the leader can tell.
    ///
    /// # Errors
    ///
    /// This node does not lead, or cannot be sure that it still does. Ask again for another attempt.
    pub async fn read_index(&self) -> Result<ReadIndex, ReadError> {
        self.inner.local_reads.join().await
    }

    /// Waits until a read of the local state is linearizable, on any node: a read index, here or from the leader, and
    /// then its application here.
    ///
    /// # Errors
    ///
    /// No index could be had, or the deadline passed. The read may be tried again.
    pub async fn linearize(&self, deadline: Instant) -> Result<(), ReadError> {
        let index = tokio::time::timeout_at(deadline, self.inner.any_reads.join());
        let ReadIndex { index } = index.await.unwrap_or(Err(ReadError::Deadline))?;
        self.wait_applied(index, deadline).await.map_err(|error| match error {
            WaitError::Deadline => ReadError::Deadline,
            WaitError::Stopping => ReadError::Stopping,
        })
    }

    /// Waits until the entry at `index` is applied here.
    ///
    /// # Errors
    ///
    /// The deadline passed, or the node is stopping.
    pub async fn wait_applied(&self, index: LogIndex, deadline: Instant) -> Result<(), WaitError> {
        let mut applied = self.inner.state.applied();
        if *applied.borrow() >= Some(index) {
            return Ok(());
        }
        tokio::select! {
            biased;
            reached = tokio::time::timeout_at(deadline, applied.wait_for(|applied| *applied >= Some(index))) => {
                match reached {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(_)) => Err(WaitError::Stopping),
                    Err(_) => Err(WaitError::Deadline),
                }
            }
            () = self.inner.stop.cancelled() => Err(WaitError::Stopping),
        }
    }

    /// Shows the applied state to `f`, under a short lock: `f` must not block, and writes wait for it.
    pub fn read<T>(&self, f: impl FnOnce(&Keyspace) -> T) -> T {
        self.inner.state.read(f)
    }

    /// What this node knows of the group right now.
    pub fn status(&self) -> Status {
        status::status(&self.inner.raft)
    }

    /// The status as it changes: role, term, leader and members at once, progress once per heartbeat.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        self.inner.config.node_id
    }

    /// The cluster this node belongs to, once it knows: from the applied state, or from its identity file.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.read(Keyspace::cluster_id).or_else(|| self.inner.data.identity().cluster_id.map(ClusterId::new))
    }

    /// Runs `work` to its end, whether or not the caller waits for it; `None` when the node stopped meanwhile.
    pub(super) async fn tracked<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let stop = self.inner.stop.clone();
        let work = self.inner.tracker.spawn(async move { stop.run_until_cancelled_owned(work).await });
        work.await.ok().flatten()
    }

    /// Keeps on disk that this node belongs to `cluster_id`; a founder does so before it takes part.
    ///
    /// # Errors
    ///
    /// It belongs to another cluster already, or the identity file cannot be written.
    pub async fn adopt_cluster(&self, cluster_id: ClusterId) -> Result<(), StorageError> {
        let data = Arc::clone(&self.inner.data);
        tokio::task::spawn_blocking(move || data.set_cluster(cluster_id.get()))
            .await
            .unwrap_or_else(|error| Err(StorageError::io("keep the identity in", Path::new("identity"))(error.into())))
    }

    /// Waits until this node has applied everything it may have applied before it was restarted: reads of the local
    /// state before that may go back in time. A node without a leader does not recover.
    ///
    /// # Errors
    ///
    /// The deadline passed, or the node is stopping.
    pub async fn wait_for_recovery(&self, deadline: Instant) -> Result<(), WaitError> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        match self.inner.raft.wait_for_recovery(Some(timeout)).await {
            Ok(_) => Ok(()),
            Err(openraft::metrics::WaitError::Timeout(..)) => Err(WaitError::Deadline),
            Err(openraft::metrics::WaitError::ShuttingDown) => Err(WaitError::Stopping),
        }
    }

    /// Builds a snapshot now, and lets the log before it go. Resolves when it has been asked for.
    ///
    /// # Errors
    ///
    /// The node is stopping.
    #[cfg(test)]
    pub(super) async fn compact(&self) -> Result<(), WaitError> {
        self.inner.raft.trigger().snapshot().await.map_err(|_| WaitError::Stopping)
    }

    /// Stops, and returns when no task, thread or open file of this node is left. Hand leadership over first.
    ///
    /// Proposals and reads under way end with an error. Calling it again waits for the same end.
    pub async fn shutdown(&self) {
        let Inner { stop, stop_threads, tracker, raft, .. } = &*self.inner;
        // ORDERING: Relaxed, the flag is the whole message and whoever reads it polls.
        stop_threads.store(true, Ordering::Relaxed);
        stop.cancel();
        if let Err(error) = raft.shutdown().await {
            tracing::warn!(%error, "consensus did not stop cleanly");
        }
        tracker.close();
        tracker.wait().await;
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    pub(super) fn state(&self) -> &State {
        &self.inner.state
    }

    pub(super) fn snapshots(&self) -> &SnapshotReceiver {
        &self.inner.snapshots
    }

    pub(super) fn config(&self) -> &ConsensusConfig {
        &self.inner.config
    }
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("node_id", &self.node_id()).finish_non_exhaustive()
    }
}

struct Recovered {
    data: DataDir,
    log: LogStore,
    state_machine: StateMachine,
    snapshots: crate::storage::SnapshotDir,
}

/// Opens everything on disk. Blocks.
fn recover(config: &ConsensusConfig, tracker: &TaskTracker, stop: Arc<AtomicBool>) -> Result<Recovered, OpenError> {
    let data = DataDir::open(Path::new(&config.data_dir), config.node_id, config.cluster_id.map(ClusterId::get))?;
    let log_dir = data.log_dir();
    let log = LogStore::open(&log_dir, config.max_payload_bytes, config.hold_clock_for_disk, tracker.token())
        .map_err(StorageError::io("recover the log in", log_dir))?;
    data.log_opened()?;
    let snapshots = data.snapshots()?;
    let state_machine = StateMachine::open(snapshots.clone(), log.purged(), stop, tracker.clone())?;
    Ok(Recovered { data, log, state_machine, snapshots })
}

fn raft_config(config: &ConsensusConfig) -> Result<Config, openraft::ConfigError> {
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let election_timeout_max = ms(config.election_timeout_max);
    let config = Config {
        cluster_name: "seawall-kv".to_owned(),
        heartbeat_interval: ms(config.heartbeat_interval),
        election_timeout_min: ms(config.election_timeout_min),
        election_timeout_max,
        // A leader that restarts at once would lead again with the state of its last snapshot and answer reads from it.
        enable_leader_restore: Some(false),
        // A node that was cut off must not raise the term of a group that is well without it.
        enable_pre_vote: Some(true),
        // A leader that lost its quorum falls silent, so that followers it still reaches may elect another.
        quorum_loss_probe_interval: Some(election_timeout_max.saturating_mul(2)),
        max_payload_entries: config.max_payload_entries,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every_entries),
        max_in_snapshot_log_to_keep: config.keep_entries,
        // Purging is a write and an fsync; entry by entry it would be as dear as the entries.
        purge_batch_size: 1024.min(config.snapshot_every_entries),
        // Only how `add_learner` decides that a learner is close; ours does not ask it to.
        replication_lag_threshold: config.snapshot_every_entries,
        install_snapshot_timeout: ms(config.snapshot_timeout),
        // Soon, because a peer that restarts is back within a second, and then half a second at most.
        backoff: "50ms 100ms 200ms ..500ms".to_owned(),
        ..Config::default()
    };
    config.validate()
}

/// Writes the identity of the cluster into the identity file once it is known.
async fn keep_identity(state: Arc<State>, data: Arc<DataDir>, stop: CancellationToken) {
    let mut applied = state.applied();
    while data.identity().cluster_id.is_none() {
        if let Some(cluster_id) = state.read(Keyspace::cluster_id) {
            let data = Arc::clone(&data);
            let written = tokio::task::spawn_blocking(move || data.set_cluster(cluster_id.get())).await;
            match written {
                Ok(Ok(())) => tracing::info!(%cluster_id, "this node belongs to a cluster now"),
                Ok(Err(error)) => tracing::error!(%error, "the identity of the cluster could not be written"),
                Err(error) => tracing::error!(%error, "the identity of the cluster could not be written"),
            }
            return;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return; },
        }
    }
}
