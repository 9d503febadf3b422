//! Whose data a directory holds, and the lock that keeps a second process out.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::storage::{SnapshotDir, StorageError, durable};

/// The version of everything in a data directory; a directory of a newer one is refused.
pub const FORMAT_VERSION: u32 = 1;

const IDENTITY_FILE: &str = "identity";
const LOCK_FILE: &str = "lock";
const LOG_DIR: &str = "log";
const SNAPSHOT_DIR: &str = "snapshots";

/// Whose data it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node_id: u64,
    /// The cluster; not known before the node has formed or joined one.
    pub cluster_id: Option<u128>,
}

impl Identity {
    /// Whose data the directory at `path` holds; `None` if it holds none. Takes no lock and changes nothing.
    ///
    /// # Errors
    ///
    /// The identity cannot be read, or is newer or damaged.
    pub fn read(path: &Path) -> Result<Option<Self>, StorageError> {
        let file = path.join(IDENTITY_FILE);
        Ok(durable::read(&file)?.map(|bytes| parse(&file, &bytes)).transpose()?.map(|kept| kept.identity))
    }
}

/// A data directory in use by this process alone. The lock goes with the value.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Guards the identity and the file that holds it, so that two writers cannot interleave.
    kept: Mutex<Kept>,
    _lock: File,
}

/// What the identity file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    identity: Identity,
    /// Whether the node has had a log: then it may have voted, and without that log it could vote again.
    has_log: bool,
}

/// The identity file: readable, because it is what an operator looks at first.
#[derive(Debug, Serialize, Deserialize)]
struct OnDisk {
    format: u32,
    node_id: u64,
    cluster_id: Option<String>,
    /// Absent in files written before it was kept.
    #[serde(default)]
    has_log: bool,
}

/// Read before the rest, whose shape depends on it.
#[derive(Debug, Deserialize)]
struct Format {
    format: u32,
}

impl DataDir {
    /// Locks the directory and checks that it belongs to this node, or makes it so if it is new.
    ///
    /// The directory must exist. When this returns, the identity is durable: a vote may follow.
    ///
    /// # Errors
    ///
    /// The directory is in use, or is another node's or cluster's, or is newer, damaged or not accessible, or the log
    /// this node had is gone. Nothing is overwritten.
    pub fn open(path: &Path, node_id: u64, cluster_id: Option<u128>) -> Result<Self, StorageError> {
        let lock = lock(path)?;
        let file = path.join(IDENTITY_FILE);
        let expected = Identity { node_id, cluster_id };
        let found = match durable::read(&file)? {
            Some(bytes) => Some(parse(&file, &bytes)?),
            None if has_data(path)? => {
                let detail = "it holds data but no identity file".to_owned();
                return Err(StorageError::Damaged { path: path.to_owned(), detail });
            }
            None => None,
        };
        let kept = Kept {
            identity: found.map_or(Ok(expected), |found| check(path, found.identity, expected))?,
            has_log: found.is_some_and(|found| found.has_log),
        };
        let this = Self { path: path.to_owned(), kept: Mutex::new(kept), _lock: lock };
        if kept.has_log && !has_log(&this.log_dir())? {
            let detail =
                "this node had a log, and it is gone with the votes in it; if it is on another disk, mount that";
            return Err(StorageError::Damaged { path: this.log_dir(), detail: detail.to_owned() });
        }
        if found != Some(kept) {
            this.write(kept)?;
        }
        durable::create_dir(&this.log_dir())?;
        Ok(this)
    }

    /// Whose data it is.
    pub fn identity(&self) -> Identity {
        self.kept().identity
    }

    /// Records, durably, that there is a log now: from here on a directory without it is refused. Call it when the log
    /// has been opened, before a vote.
    ///
    /// # Errors
    ///
    /// The log cannot be synchronised, or the identity file cannot be written.
    pub fn log_opened(&self) -> Result<(), StorageError> {
        let mut kept = self.kept();
        let next = Kept { has_log: true, ..*kept };
        if next != *kept {
            // First the log: a power cut must not leave a record of a log beside a file that is still empty.
            sync_files(&self.log_dir())?;
            self.write(next)?;
            *kept = next;
        }
        Ok(())
    }

    /// Records the cluster, durably, once it is known.
    ///
    /// # Errors
    ///
    /// The directory belongs to another cluster, or cannot be written.
    pub fn set_cluster(&self, cluster_id: u128) -> Result<(), StorageError> {
        let mut kept = self.kept();
        let expected = Identity { cluster_id: Some(cluster_id), ..kept.identity };
        let next = Kept { identity: check(&self.path, kept.identity, expected)?, ..*kept };
        if next != *kept {
            self.write(next)?;
            *kept = next;
        }
        Ok(())
    }

    /// Where the replicated log is kept.
    pub fn log_dir(&self) -> PathBuf {
        self.path.join(LOG_DIR)
    }

    /// Opens the directory of snapshots, which removes what an interrupted write left there.
    ///
    /// # Errors
    ///
    /// It cannot be created or read.
    pub fn snapshots(&self) -> Result<SnapshotDir, StorageError> {
        SnapshotDir::open(self.path.join(SNAPSHOT_DIR))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, Kept { identity, has_log }: Kept) -> Result<(), StorageError> {
        let on_disk = OnDisk {
            format: FORMAT_VERSION,
            node_id: identity.node_id,
            cluster_id: identity.cluster_id.map(|id| format!("{id:032x}")),
            has_log,
        };
        let file = self.path.join(IDENTITY_FILE);
        let mut bytes = serde_json::to_vec_pretty(&on_disk)
            .map_err(|error| StorageError::io("encode", &file)(std::io::Error::other(error)))?;
        bytes.push(b'\n');
        durable::replace(&file, &bytes)
    }
}

fn lock(path: &Path) -> Result<File, StorageError> {
    let file = path.join(LOCK_FILE);
    let handle = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file)
        .map_err(StorageError::io("open", &file))?;
    match handle.try_lock() {
        Ok(()) => Ok(handle),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(StorageError::io("lock", &file)(error)),
    }
}

fn parse(file: &Path, bytes: &[u8]) -> Result<Kept, StorageError> {
    let damaged = |detail: String| StorageError::Damaged { path: file.to_owned(), detail };
    let Format { format } = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if format > FORMAT_VERSION {
        return Err(StorageError::NewerFormat { path: file.to_owned(), found: format, known: FORMAT_VERSION });
    }
    let on_disk: OnDisk = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    let cluster_id = match on_disk.cluster_id {
        Some(text) => Some(u128::from_str_radix(&text, 16).map_err(|error| damaged(format!("cluster id: {error}")))?),
        None => None,
    };
    Ok(Kept { identity: Identity { node_id: on_disk.node_id, cluster_id }, has_log: on_disk.has_log })
}

/// What `found` and `expected` make together, if they agree.
fn check(path: &Path, found: Identity, expected: Identity) -> Result<Identity, StorageError> {
    let path = || path.to_owned();
    if found.node_id != expected.node_id {
        return Err(StorageError::OtherNode { path: path(), found: found.node_id, expected: expected.node_id });
    }
    match (found.cluster_id, expected.cluster_id) {
        (Some(found), Some(expected)) if found != expected => {
            Err(StorageError::OtherCluster { path: path(), found, expected })
        }
        (found_cluster, expected_cluster) => Ok(Identity { cluster_id: found_cluster.or(expected_cluster), ..found }),
    }
}

/// Whether a log or a snapshot is there: then the identity was lost, and guessing it could give two nodes one vote.
fn has_data(path: &Path) -> Result<bool, StorageError> {
    for name in [LOG_DIR, SNAPSHOT_DIR] {
        let directory = path.join(name);
        match fs::read_dir(&directory) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(StorageError::io("read", directory)(error)),
        }
    }
    Ok(false)
}

/// Whether a log is in its directory. The log's own lock file is empty, and no file of a log is.
fn has_log(directory: &Path) -> Result<bool, StorageError> {
    let read = |error| StorageError::io("read", directory)(error);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(read(error)),
    };
    for entry in entries {
        let metadata = entry.and_then(|entry| entry.metadata()).map_err(read)?;
        if metadata.is_file() && metadata.len() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes the files of a directory and their names durable.
fn sync_files(directory: &Path) -> Result<(), StorageError> {
    for entry in fs::read_dir(directory).map_err(StorageError::io("read", directory))? {
        let path = entry.map_err(StorageError::io("read", directory))?.path();
        let file = File::open(&path).map_err(StorageError::io("open", &path))?;
        file.sync_all().map_err(StorageError::io("fsync", &path))?;
        durable::sync_parent(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reopen(path: &Path, node_id: u64, cluster_id: Option<u128>) -> Result<Identity, StorageError> {
        DataDir::open(path, node_id, cluster_id).map(|dir| dir.identity())
    }

    #[test]
    fn a_new_directory_takes_the_identity_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let opened = DataDir::open(dir.path(), 3, None).unwrap();
        opened.set_cluster(0xfeed).unwrap();
        opened.set_cluster(0xfeed).unwrap();
        drop(opened);
        let identity = Identity { node_id: 3, cluster_id: Some(0xfeed) };
        assert_eq!(reopen(dir.path(), 3, None).unwrap(), identity);
        assert_eq!(reopen(dir.path(), 3, Some(0xfeed)).unwrap(), identity);
    }

    #[test]
    fn a_foreign_directory_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), 3, Some(7)).unwrap());
        let before = fs::read(dir.path().join(IDENTITY_FILE)).unwrap();
        let error = reopen(dir.path(), 4, None).unwrap_err();
        assert!(error.to_string().contains("belongs to node 3, not to node 4; start with node id 3"), "{error}");
        let error = reopen(dir.path(), 3, Some(8)).unwrap_err();
        assert!(matches!(error, StorageError::OtherCluster { found: 7, expected: 8, .. }), "{error}");
        let opened = DataDir::open(dir.path(), 3, None).unwrap();
        assert!(matches!(opened.set_cluster(8), Err(StorageError::OtherCluster { .. })));
        assert_eq!(fs::read(dir.path().join(IDENTITY_FILE)).unwrap(), before);
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), 1, None).unwrap();
        assert!(matches!(reopen(dir.path(), 1, None), Err(StorageError::Locked { .. })));
        drop(first);
        assert!(reopen(dir.path(), 1, None).is_ok());
    }

    #[test]
    fn a_newer_or_damaged_identity_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(IDENTITY_FILE);
        fs::write(&file, r#"{"format": 2, "whatever": []}"#).unwrap();
        assert!(matches!(reopen(dir.path(), 1, None), Err(StorageError::NewerFormat { found: 2, known: 1, .. })));
        for bytes in ["", "{", r#"{"format": 1}"#, r#"{"format":1,"node_id":1,"cluster_id":"xyz"}"#] {
            fs::write(&file, bytes).unwrap();
            assert!(matches!(reopen(dir.path(), 1, None), Err(StorageError::Damaged { .. })), "{bytes}");
            assert_eq!(fs::read_to_string(&file).unwrap(), bytes);
        }
    }

    #[test]
    fn data_without_an_identity_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(LOG_DIR)).unwrap();
        assert!(reopen(dir.path(), 1, None).is_ok());
        fs::remove_file(dir.path().join(IDENTITY_FILE)).unwrap();
        fs::write(dir.path().join(LOG_DIR).join("r-1.wal"), "x").unwrap();
        let error = reopen(dir.path(), 1, None).unwrap_err();
        assert!(error.to_string().contains("no identity file"), "{error}");
    }

    /// A node that voted and then lost its log could vote twice in one term.
    #[test]
    fn an_identity_whose_log_is_gone_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join(LOG_DIR);
        let opened = DataDir::open(dir.path(), 1, Some(7)).unwrap();
        fs::write(log.join("LOCK"), "").unwrap();
        fs::write(log.join("r-1.wal"), "x").unwrap();
        opened.log_opened().unwrap();
        drop(opened);
        assert!(reopen(dir.path(), 1, None).is_ok(), "with its log it opens");

        fs::remove_file(log.join("r-1.wal")).unwrap();
        let error = reopen(dir.path(), 1, None).unwrap_err();
        assert!(matches!(&error, StorageError::Damaged { path, .. } if *path == log), "{error}");
        fs::remove_dir_all(&log).unwrap();
        let error = reopen(dir.path(), 1, Some(7)).unwrap_err();
        assert!(error.to_string().contains("it is gone with the votes in it"), "{error}");
        assert!(error.to_string().contains("join under a new node id"), "{error}");
        assert!(!log.exists(), "and it was not made again");
        assert_eq!(Identity::read(dir.path()).unwrap(), Some(Identity { node_id: 1, cluster_id: Some(7) }));
    }

    #[test]
    fn an_identity_from_before_the_log_was_recorded_is_still_good() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(IDENTITY_FILE), r#"{"format":1,"node_id":1,"cluster_id":null}"#).unwrap();
        let opened = DataDir::open(dir.path(), 1, None).unwrap();
        fs::write(opened.log_dir().join("r-1.wal"), "x").unwrap();
        opened.log_opened().unwrap();
        opened.set_cluster(7).unwrap();
        drop(opened);
        fs::remove_dir_all(dir.path().join(LOG_DIR)).unwrap();
        assert!(reopen(dir.path(), 1, None).is_err(), "from its next start on, its log is expected");
    }
}
