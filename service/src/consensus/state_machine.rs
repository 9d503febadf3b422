//! Applies committed entries to the keyspace, and keeps its snapshots.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::consensus::raft::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::consensus::snapshot::{self, Current, SnapshotBuilder};
use crate::consensus::{Command, Keyspace, LogIndex};
use crate::storage::{SnapshotDir, SnapshotFile, StorageError};
use crate::telemetry::raft as names;

/// Entries applied under one lock: readers wait for at most so many.
const APPLY_BATCH: usize = 256;

/// The keyspace as everyone but the state machine sees it: to be read, and to be waited for.
#[derive(Debug)]
pub(super) struct State {
    /// Written by the state machine alone, a batch of entries at a time; never held across an await.
    keyspace: RwLock<Keyspace>,
    applied: watch::Sender<Option<LogIndex>>,
}

/// The state machine openraft drives.
pub(super) struct StateMachine {
    state: Arc<State>,
    dir: SnapshotDir,
    current: Current,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    stop: Arc<AtomicBool>,
    tracker: TaskTracker,
}

impl State {
    /// Shows the keyspace to `f`.
    pub(super) fn read<T>(&self, f: impl FnOnce(&Keyspace) -> T) -> T {
        f(&self.keyspace.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last applied index, to be waited on.
    pub(super) fn applied(&self) -> watch::Receiver<Option<LogIndex>> {
        self.applied.subscribe()
    }

    fn write<T>(&self, f: impl FnOnce(&mut Keyspace) -> T) -> T {
        f(&mut self.keyspace.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl StateMachine {
    /// Restores the newest valid snapshot, or the one before it if the log still continues from there. Blocks.
    ///
    /// # Errors
    ///
    /// No snapshot is valid that the log, whose entries up to `purged` are gone, continues from.
    pub(super) fn open(
        dir: SnapshotDir,
        purged: Option<LogIndex>,
        stop: Arc<AtomicBool>,
        tracker: TaskTracker,
    ) -> Result<Self, StorageError> {
        let mut restored = None;
        let mut damage = None;
        for file in dir.list()? {
            match snapshot::load(&file, &stop) {
                Ok((meta, keyspace)) => {
                    restored = Some((Snapshot { meta, snapshot: file }, keyspace));
                    break;
                }
                Err(error @ StorageError::Damaged { .. }) => {
                    tracing::error!(%error, "a snapshot is damaged; it is set aside and the one before it is tried");
                    dir.set_aside(&file)?;
                    damage.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let reaches = restored.as_ref().and_then(|(snapshot, _)| snapshot.meta.last_log_id.map(|id| id.index));
        if reaches < purged {
            return Err(damage.unwrap_or_else(|| StorageError::Damaged {
                path: dir.path().to_owned(),
                detail: format!("its newest snapshot ends at {reaches:?}, but the log begins after {purged:?}"),
            }));
        }
        let current = Current::default();
        let (last_applied, membership, keyspace) = match restored {
            Some((snapshot, keyspace)) => {
                let SnapshotMeta { last_log_id, last_membership } = snapshot.meta.clone();
                current.offer(snapshot);
                (last_log_id, last_membership, keyspace)
            }
            None => Default::default(),
        };
        let (applied, _) = watch::channel(last_applied.map(|id| id.index));
        let state = Arc::new(State { keyspace: RwLock::new(keyspace), applied });
        Ok(Self { state, dir, current, last_applied, membership, stop, tracker })
    }

    /// The state it keeps.
    pub(super) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    fn apply_batch(&mut self, batch: Vec<EntryResponder<TypeConfig>>) {
        let mut answers = Vec::with_capacity(batch.len());
        let mut applied = [0u64; 4];
        let (last_applied, membership) = (&mut self.last_applied, &mut self.membership);
        self.state.write(|keyspace| {
            for (entry, responder) in batch {
                let command = match entry.payload {
                    EntryPayload::Normal(command) => Some(command),
                    EntryPayload::Blank => None,
                    EntryPayload::Membership(members) => {
                        *membership = StoredMembership::new(Some(entry.log_id), members);
                        None
                    }
                };
                if let Some(kind) = command.as_ref().and_then(kind) {
                    applied[kind] += 1;
                }
                let response = keyspace.apply(entry.log_id.index, command);
                *last_applied = Some(entry.log_id);
                answers.extend(responder.map(|responder| (responder, response)));
            }
        });
        self.state.applied.send_replace(self.last_applied.map(|id| id.index));
        // After the lock: whoever is answered must see its own write, and must not wait for the rest of the batch.
        for (responder, response) in answers {
            responder.send(response);
        }
        for (count, name) in applied.into_iter().zip(KINDS) {
            if count > 0 {
                metrics::counter!(names::COMMANDS_APPLIED, "command" => name).increment(count);
            }
        }
    }
}

const KINDS: [&str; 4] = ["put", "delete", "form", "allocate_node"];

fn kind(command: &Command) -> Option<usize> {
    KINDS.iter().position(|name| *name == command.name())
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batches = entries.ready_chunks(APPLY_BATCH);
        while let Some(batch) = batches.next().await {
            let mut error = None;
            let batch = batch.into_iter().map_while(|entry| entry.map_err(|e| error = Some(e)).ok()).collect();
            self.apply_batch(batch);
            if let Some(error) = error {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            dir: self.dir.clone(),
            // Copies pointers to pages; the entries are shared until one of them is written.
            keyspace: self.state.read(Keyspace::clone),
            last_log: self.last_applied,
            membership: self.membership.clone(),
            current: self.current.clone(),
            stop: Arc::clone(&self.stop),
            alive: self.tracker.token(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let (alive, dir, stop) = (self.tracker.token(), self.dir.clone(), Arc::clone(&self.stop));
        let expected = meta.last_log_id;
        let load = move || {
            let _alive = alive;
            let (loaded, keyspace) = snapshot::load(&snapshot, &stop).map_err(io::Error::other)?;
            if loaded.last_log_id != expected {
                let error = format!("the snapshot is of {:?}, not of {expected:?}", loaded.last_log_id);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            // Only now may a restart find it: Raft has accepted it, and cut off what it contradicts in the log.
            let snapshot = dir.publish(&snapshot).map_err(io::Error::other)?;
            Ok((loaded, keyspace, snapshot))
        };
        let (loaded, keyspace, snapshot) = tokio::task::spawn_blocking(load).await??;
        self.last_applied = loaded.last_log_id;
        self.membership = loaded.last_membership.clone();
        let old = self.state.write(|current| std::mem::replace(current, keyspace));
        self.state.applied.send_replace(self.last_applied.map(|id| id.index));
        self.current.offer(Snapshot { meta: loaded, snapshot });
        // Freeing many keys takes a while, and nobody needs to wait for it.
        tokio::task::spawn_blocking(move || drop(old));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.current.get())
    }
}
