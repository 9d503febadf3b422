//! The log on disk: reopened, cut, damaged, rotated.

use std::fs;
use std::path::{Path, PathBuf};

use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::TypeConfigExt;
use tokio_util::task::TaskTracker;

use super::harness::put;
use crate::consensus::log_store::LogStore;
use crate::consensus::raft::{LogEntry, LogId, Payload, TypeConfig, Vote};

struct Log {
    store: LogStore,
    tracker: TaskTracker,
}

impl Log {
    fn open(dir: &Path) -> std::io::Result<Self> {
        let tracker = TaskTracker::new();
        let store = LogStore::open(dir, 1024 * 1024, false, tracker.token())?;
        tracker.close();
        Ok(Self { store, tracker })
    }

    async fn close(self) {
        drop(self.store);
        self.tracker.wait().await;
    }

    async fn entries(&mut self) -> Vec<LogEntry> {
        self.store.try_get_log_entries(..).await.unwrap()
    }

    async fn append(&mut self, entries: impl IntoIterator<Item = LogEntry, IntoIter: Send> + Send) {
        self.store.blocking_append(entries).await.unwrap();
    }
}

fn entry(index: u64, value: usize) -> LogEntry {
    let command = put(&format!("k{index}"), vec![b'v'; value]);
    LogEntry { log_id: LogId::new_term_index(1, index), payload: Payload::Normal(command) }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|suffix| suffix == "wal"));
    files.sort();
    files
}

/// A copy of the log in `from`, to be damaged.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in files(from) {
        fs::copy(&file, to.path().join(file.file_name().unwrap())).unwrap();
    }
    to
}

#[tokio::test]
async fn it_reopens_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    log.store.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    log.append((1..=20).map(|index| entry(index, 10))).await;
    log.store.truncate_after(Some(LogId::new_term_index(1, 15))).await.unwrap();
    log.store.save_committed(Some(LogId::new_term_index(1, 12))).await.unwrap();
    log.store.purge(LogId::new_term_index(1, 5)).await.unwrap();
    log.append([entry(16, 3)]).await;
    log.store.save_vote(&Vote::new(2, 3)).await.unwrap();
    log.close().await;

    let mut log = Log::open(dir.path()).unwrap();
    let state = log.store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(LogId::new_term_index(1, 5)));
    assert_eq!(state.last_log_id, Some(LogId::new_term_index(1, 16)));
    assert_eq!(log.store.read_committed().await.unwrap(), Some(LogId::new_term_index(1, 12)));
    assert_eq!(log.store.read_vote().await.unwrap(), Some(Vote::new(2, 3)));
    let expected: Vec<_> = (6..=15).map(|index| entry(index, 10)).chain([entry(16, 3)]).collect();
    assert_eq!(log.entries().await, expected);
    log.close().await;
}

/// A snapshot may be installed next, and after a power cut it must not meet the entries it contradicts.
#[tokio::test]
async fn entries_cut_off_are_gone_from_the_disk_when_that_returns() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    log.append((1..=20).map(|index| entry(index, 10))).await;
    log.store.truncate_after(Some(LogId::new_term_index(1, 15))).await.unwrap();
    let crashed = copy(dir.path());
    log.close().await;
    let mut log = Log::open(crashed.path()).unwrap();
    assert_eq!(log.entries().await.len(), 15);
    log.close().await;
}

#[tokio::test]
async fn cut_at_any_byte_it_keeps_all_that_was_acknowledged_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    log.store.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    let file = files(dir.path()).pop().unwrap();
    let len = || fs::metadata(&file).unwrap().len();
    // The length of the file when each entry was acknowledged.
    let mut acknowledged = Vec::new();
    for index in 1..=6 {
        log.append([entry(index, 20)]).await;
        acknowledged.push((index, len()));
    }
    let (begin, end) = (acknowledged[0].1, len());
    for cut in begin..=end {
        let damaged = copy(dir.path());
        let copied = damaged.path().join(file.file_name().unwrap());
        fs::File::options().write(true).open(&copied).unwrap().set_len(cut).unwrap();
        let mut log = Log::open(damaged.path()).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let entries = log.entries().await;
        let durable = acknowledged.iter().filter(|(_, len)| *len <= cut).count();
        assert!(entries.len() >= durable, "cut at {cut}: {} of {durable}", entries.len());
        assert!(entries.iter().cloned().eq((1..=entries.len() as u64).map(|index| entry(index, 20))), "cut at {cut}");
        assert_eq!(log.store.read_vote().await.unwrap(), Some(Vote::new_committed(1, 1)));
        // And it goes on from there.
        let next = entries.len() as u64 + 1;
        log.append([entry(next, 5)]).await;
        log.close().await;
        let mut log = Log::open(damaged.path()).unwrap();
        assert_eq!(log.entries().await.last(), Some(&entry(next, 5)), "cut at {cut}");
        log.close().await;
    }
    log.close().await;
}

#[tokio::test]
async fn a_tail_of_zeros_is_cut_off_and_a_changed_byte_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    log.append((1..=5).map(|index| entry(index, 20))).await;
    log.close().await;
    let name = files(dir.path()).pop().unwrap().file_name().unwrap().to_owned();

    // The length reached the disk before the data, as some file systems allow.
    let damaged = copy(dir.path());
    let file = damaged.path().join(&name);
    let len = fs::metadata(&file).unwrap().len();
    fs::File::options().write(true).open(&file).unwrap().set_len(len + 4096).unwrap();
    let mut log = Log::open(damaged.path()).unwrap();
    assert_eq!(log.entries().await.len(), 5);
    log.close().await;

    let bytes = fs::read(dir.path().join(&name)).unwrap();
    for at in (0..bytes.len() - 60).step_by(7) {
        let damaged = copy(dir.path());
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x55;
        fs::write(damaged.path().join(&name), bytes).unwrap();
        match Log::open(damaged.path()) {
            Err(_) => {}
            // A length that reaches beyond the end looks like an incomplete tail; what is left is still a prefix.
            Ok(mut log) => {
                let entries = log.entries().await;
                assert!(entries.iter().cloned().eq((1..=entries.len() as u64).map(|index| entry(index, 20))), "{at}");
                log.close().await;
            }
        }
    }
}

#[tokio::test]
async fn it_rotates_under_load_and_removes_what_is_purged() {
    const VALUE: usize = 64 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path()).unwrap();
    let mut flushed = Vec::new();
    for batch in 0..30 {
        let (sender, receiver) = TypeConfig::oneshot();
        let entries: Vec<_> = (1..=10).map(|offset| entry(batch * 10 + offset, VALUE)).collect();
        log.store.append(entries, IOFlushed::signal(sender)).await.unwrap();
        flushed.push(receiver);
        // Readable at once, flushed or not.
        assert_eq!(log.store.try_get_log_entries(batch * 10 + 1..=batch * 10 + 10).await.unwrap().len(), 10);
    }
    for flushed in flushed {
        flushed.await.unwrap().unwrap();
    }
    assert!(files(dir.path()).len() >= 3, "{:?}", files(dir.path()));
    assert!(log.entries().await.into_iter().eq((1..=300).map(|index| entry(index, VALUE))));
    // One message's worth at a time, and never nothing.
    let limited = log.store.limited_get_log_entries(1, 301).await.unwrap().len();
    assert!((1..=16).contains(&limited), "{limited}");

    log.store.purge(LogId::new_term_index(1, 290)).await.unwrap();
    log.close().await;
    assert!(files(dir.path()).len() <= 2, "{:?}", files(dir.path()));
    let mut log = Log::open(dir.path()).unwrap();
    assert!(log.entries().await.into_iter().eq((291..=300).map(|index| entry(index, VALUE))));
    log.close().await;
}
