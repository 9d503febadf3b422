//! The keyspace as a file and back.
//!
//! The first chunk is a [`Header`]; every other is a run of keys with their entries, in order.

use openraft::RaftSnapshotBuilder;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::consensus::keyspace::Summary;
use crate::consensus::raft::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::consensus::{Entry, Key, Keyspace};
use crate::storage::{SnapshotDir, SnapshotFile, SnapshotName, StorageError};

/// Entries are gathered into chunks of about this size; a larger entry has a chunk of its own.
const CHUNK_BYTES: usize = 256 * 1024;

/// What a snapshot says before its entries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Header {
    last_log: Option<LogId>,
    membership: StoredMembership,
    summary: Summary,
}

/// The newest snapshot, which is what a follower that is far behind is sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Current(Arc<Mutex<Option<Snapshot>>>);

/// Writes the state of one moment, on a thread of its own.
pub(super) struct SnapshotBuilder {
    pub(super) dir: SnapshotDir,
    pub(super) keyspace: Keyspace,
    pub(super) last_log: Option<LogId>,
    pub(super) membership: StoredMembership,
    pub(super) current: Current,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) alive: TaskTrackerToken,
}

impl Header {
    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last_log, last_membership: self.membership.clone() }
    }
}

impl Current {
    pub(super) fn get(&self) -> Option<Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the newer of the two: a snapshot built here may finish after one from the leader was installed.
    pub(super) fn offer(&self, snapshot: Snapshot) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|current| current.meta.last_log_id <= snapshot.meta.last_log_id) {
            *current = Some(snapshot);
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let header =
            Header { last_log: self.last_log, membership: self.membership.clone(), summary: self.keyspace.summary() };
        let (dir, keyspace, stop) = (self.dir.clone(), self.keyspace.clone(), Arc::clone(&self.stop));
        let (current, alive) = (self.current.clone(), self.alive.clone());
        let work = move || {
            let _alive = alive;
            let file = write(&dir, &header, &keyspace, &stop)?;
            let snapshot = Snapshot { meta: header.meta(), snapshot: file };
            current.offer(snapshot.clone());
            Ok::<_, io::Error>(snapshot)
        };
        tokio::task::spawn_blocking(work).await?
    }
}

/// What a snapshot of this log position is called.
pub(super) fn name(last_log: Option<LogId>) -> SnapshotName {
    let (index, term) = last_log.map_or((0, 0), |log_id| (log_id.index, log_id.leader_id.term));
    SnapshotName { index, term }
}

/// Writes a snapshot. Blocks.
fn write(dir: &SnapshotDir, header: &Header, keyspace: &Keyspace, stop: &AtomicBool) -> io::Result<SnapshotFile> {
    let mut writer = dir.create().map_err(io::Error::other)?;
    writer.write_chunk(&postcard::to_stdvec(header).map_err(io::Error::other)?).map_err(io::Error::other)?;
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    for entry in keyspace.iter() {
        chunk = postcard::to_extend(&entry, chunk).map_err(io::Error::other)?;
        if chunk.len() >= CHUNK_BYTES {
            writer.write_chunk(&chunk).map_err(io::Error::other)?;
            chunk.clear();
            // ORDERING: Relaxed, the flag is the whole message and a chunk more or less does not matter.
            if stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("the node is stopping"));
            }
        }
    }
    if !chunk.is_empty() {
        writer.write_chunk(&chunk).map_err(io::Error::other)?;
    }
    writer.finish(name(header.last_log)).map_err(io::Error::other)
}

/// Reads a snapshot back, unless `stop` is set meanwhile. Blocks.
///
/// # Errors
///
/// The file is cut, damaged or newer than this program, or the node is stopping.
pub(super) fn load(file: &SnapshotFile, stop: &AtomicBool) -> Result<(SnapshotMeta, Keyspace), StorageError> {
    let mut loaded: Option<(Header, Keyspace)> = None;
    file.visit_chunks(stop, |chunk| match &mut loaded {
        None => {
            let header: Header = postcard::from_bytes(chunk).map_err(|error| format!("its header: {error}"))?;
            let keyspace = Keyspace::restore(header.summary);
            loaded = Some((header, keyspace));
            Ok(())
        }
        Some((_, keyspace)) => {
            let mut rest = chunk;
            while !rest.is_empty() {
                let ((key, entry), left) =
                    postcard::take_from_bytes::<(Key, Entry)>(rest).map_err(|error| format!("an entry: {error}"))?;
                keyspace.restore_entry(key, entry);
                rest = left;
            }
            Ok(())
        }
    })?;
    let damaged = |detail: &str| StorageError::Damaged { path: file.path().to_owned(), detail: detail.to_owned() };
    let (header, keyspace) = loaded.ok_or_else(|| damaged("it has no header"))?;
    if keyspace.len() as u64 != header.summary.len {
        return Err(damaged("it does not hold as many keys as it says"));
    }
    Ok((header.meta(), keyspace))
}
