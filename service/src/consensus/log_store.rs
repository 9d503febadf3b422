//! The replicated log on disk: votes and entries in one write-ahead log, so that their order is the order of the calls.
//!
//! **What blocks.** Encoding and the hand-over to the flush thread happen in the calling task under one lock; writing and
//! fsync happen in that thread. Three things reach the disk from the calling task: creating the next chunk file (once per
//! 8 MiB, with an fsync of the directory), reading an entry that has left the cache (a follower far behind), and a
//! hand-over when 64 MiB wait to be written. The flush queue itself never blocks: [`MAX_FLUSHES`] is below its length.
//!
//! **Failure.** An error of the flush thread reaches openraft, which stops; nothing is flushed again.

use std::fmt::Debug;
use std::io::{self, Read};
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use raft_log::RaftLog;
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::codeq::{Decode, Encode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::consensus::Command;
use crate::consensus::raft::{LogEntry, LogId, Payload, TypeConfig, Vote};
use crate::telemetry::raft as names;

/// Records of a chunk are bounded too, or a chunk of tiny entries would hold 8 million.
const CHUNK_MAX_RECORDS: usize = 128 * 1024;
/// Only closed chunks leave the cache and the disk, so the chunk size bounds how much of both is kept for nothing.
const CHUNK_MAX_BYTES: usize = 8 * 1024 * 1024;
/// What a follower that is a little behind is served from.
const CACHE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// As above, for tiny entries.
const CACHE_MAX_ENTRIES: usize = 20_000;
/// One buffer of this size replays a chunk at start.
const READ_BUFFER_BYTES: usize = 1024 * 1024;
/// How long the flush thread waits for company before an fsync. 0 would mean one fsync per append, with nobody joining.
const FLUSH_BATCH_WAIT: Duration = Duration::from_micros(6);
/// Flushes with an answer that may be under way; the queue of the flush thread holds 1024 requests, and each append may
/// be followed by a commit record that needs no answer.
const MAX_FLUSHES: usize = 400;
/// Entries handed to the state machine at a time when it catches up.
const APPLY_BATCH_ENTRIES: u64 = 1024;
/// No entry is longer; a damaged length cannot ask for all memory.
const MAX_ENTRY_BYTES: u32 = 64 * 1024 * 1024;

/// The log of one node. Clones share it, as readers do.
#[derive(Debug, Clone)]
pub(super) struct LogStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The write-ahead log. Held to encode and hand over, never while the disk flushes and never across an await.
    log: RwLock<RaftLog<LogTypes>>,
    flushes: Arc<Semaphore>,
    max_read_bytes: usize,
    hold_clock: bool,
    /// Released when the log is closed and its directory unlocked; so it stands after `log`.
    _open: TaskTrackerToken,
}

/// The type parameters of the write-ahead log.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct LogTypes;

/// Term and index.
type LogKey = (u64, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
struct StoredVote(Vote);

#[derive(Debug, Clone)]
struct StoredPayload(Payload);

/// Waits for one flush. Dropped unanswered, because the flush thread died, it answers with an error.
struct Flushed {
    notify: Option<Notify>,
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

enum Notify {
    Append(IOFlushed<TypeConfig>),
    Flushed(oneshot::Sender<io::Result<()>>),
    Thread(std::sync::mpsc::SyncSender<io::Result<()>>),
}

impl LogStore {
    /// Opens the log in `dir` and replays it. Blocks.
    ///
    /// # Errors
    ///
    /// The log is damaged in the middle, or the disk fails. An incomplete end is cut off: nobody was told it is durable.
    pub(super) fn open(
        dir: &Path,
        max_read_bytes: usize,
        hold_clock: bool,
        open: TaskTrackerToken,
    ) -> io::Result<Self> {
        let mut wal = raft_log::chunked_wal::Config::new(dir.display());
        wal.chunk_max_size = Some(CHUNK_MAX_BYTES);
        wal.chunk_max_records = Some(CHUNK_MAX_RECORDS);
        wal.read_buffer_size = Some(READ_BUFFER_BYTES);
        wal.flush_batch_wait = Some(FLUSH_BATCH_WAIT);
        let config = raft_log::Config {
            wal,
            log_cache_max_items: Some(CACHE_MAX_ENTRIES),
            log_cache_capacity: Some(CACHE_MAX_BYTES),
        };
        let log = RwLock::new(RaftLog::open(Arc::new(config))?);
        let flushes = Arc::new(Semaphore::new(MAX_FLUSHES));
        Ok(Self { shared: Arc::new(Shared { log, flushes, max_read_bytes, hold_clock, _open: open }) })
    }

    /// The index up to which entries have been removed.
    pub(super) fn purged(&self) -> Option<u64> {
        self.read().log_state().purged().map(|key| key.1)
    }

    fn read(&self) -> RwLockReadGuard<'_, RaftLog<LogTypes>> {
        self.shared.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, RaftLog<LogTypes>> {
        self.shared.log.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn permit(&self) -> io::Result<OwnedSemaphorePermit> {
        Arc::clone(&self.shared.flushes).acquire_owned().await.map_err(io::Error::other)
    }

    /// Writes something that is no entry, and waits until it is durable with everything before it.
    async fn durably(&self, write: impl FnOnce(&mut RaftLog<LogTypes>) -> io::Result<()>) -> io::Result<()> {
        let permit = self.permit().await?;
        let hand_over = |notify| {
            let mut log = self.write();
            write(&mut log)?;
            log.flush(true, Some(Flushed::new(notify, permit)))
        };
        if self.shared.hold_clock {
            let (sender, receiver) = std::sync::mpsc::sync_channel(1);
            hand_over(Notify::Thread(sender))?;
            return tokio::task::spawn_blocking(move || receiver.recv()).await?.map_err(io::Error::other)?;
        }
        let (sender, receiver) = oneshot::channel();
        hand_over(Notify::Flushed(sender))?;
        receiver.await.map_err(io::Error::other)?
    }

    /// The entries from `start` up to before `end`, at least one and then no more than fit into `max_bytes`.
    fn entries(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<LogEntry>> {
        let log = self.read();
        let mut left = max_bytes;
        let mut entries = Vec::new();
        for entry in log.read(start, end) {
            let (key, StoredPayload(payload)) = entry?;
            let size = payload_bytes(&payload);
            if size > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(size);
            entries.push(LogEntry { log_id: log_id(key), payload });
        }
        Ok(entries)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<LogEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        self.entries(start, end, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        self.entries(start, end, self.shared.max_read_bytes)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<LogEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let log = self.clone();
        // Batch by batch: after a restart the range may be the whole log.
        let batches = stream::unfold(start, move |start| {
            let batch_end = end.min(start.saturating_add(APPLY_BATCH_ENTRIES));
            let batch = (start < end).then(|| log.entries(start, batch_end, log.shared.max_read_bytes));
            async move {
                match batch? {
                    Ok(entries) => {
                        let next = entries.last()?.log_id.index + 1;
                        Some((stream::iter(entries.into_iter().map(Ok).collect::<Vec<_>>()), next))
                    }
                    Err(error) => Some((stream::iter(vec![Err(error)]), end)),
                }
            }
        });
        futures_util::StreamExt::flatten(batches)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.read().log_state().vote().map(|vote| vote.0))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let log = self.read();
        let state = log.log_state();
        Ok(LogState {
            last_purged_log_id: state.purged().copied().map(log_id),
            last_log_id: state.last().copied().map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.durably(|log| log.save_vote(StoredVote(*vote)).map(drop)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed.map(key) else { return Ok(()) };
        let mut log = self.write();
        let state = log.log_state();
        // A commit beyond the log comes with a snapshot, which says it better; an older one is no news.
        if Some(&committed) > state.last() || Some(&committed) <= state.committed() {
            return Ok(());
        }
        log.commit(committed)?;
        log.flush(false, None)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.read().log_state().committed().copied().map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let permit = self.permit().await?;
        let notify = if self.shared.hold_clock {
            let (sender, receiver) = std::sync::mpsc::sync_channel(1);
            tokio::task::spawn_blocking(move || {
                callback.io_completed(receiver.recv().unwrap_or_else(|error| Err(io::Error::other(error))));
            });
            Notify::Thread(sender)
        } else {
            Notify::Append(callback)
        };
        let mut count = 0u32;
        // One lock for both, so that a flush covers exactly what was appended before it.
        let mut log = self.write();
        log.append(entries.into_iter().map(|entry| {
            count += 1;
            (key(entry.log_id), StoredPayload(entry.payload))
        }))?;
        metrics::histogram!(names::RAFT_APPEND_BATCH).record(f64::from(count));
        log.flush(true, Some(Flushed::new(notify, permit)))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let keep = last.map(key);
        if self.read().log_state().last() <= keep.as_ref() {
            return Ok(());
        }
        // Durable before anything that follows: a snapshot installed next must not meet the entries it contradicts.
        self.durably(|log| log.truncate(keep.map_or(0, |keep| keep.1 + 1)).map(drop)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut log = self.write();
        log.purge(key(upto))?;
        // Only a synchronised flush removes the chunk files that are no longer needed.
        log.flush(true, None)
    }
}

impl raft_log::Types for LogTypes {
    type LogId = LogKey;
    type LogPayload = StoredPayload;
    type Vote = StoredVote;
    type Callback = Flushed;
    type UserData = u64;

    fn log_index(log_id: &LogKey) -> u64 {
        log_id.1
    }

    fn payload_size(payload: &StoredPayload) -> u64 {
        payload_bytes(&payload.0) as u64
    }
}

impl Flushed {
    fn new(notify: Notify, permit: OwnedSemaphorePermit) -> Self {
        Self { notify: Some(notify), since: Instant::now(), _permit: permit }
    }

    fn notify(&mut self, result: io::Result<()>) {
        match self.notify.take() {
            Some(Notify::Append(callback)) => callback.io_completed(result),
            // Whoever waited may have gone; what was written is durable all the same.
            Some(Notify::Flushed(sender)) => drop(sender.send(result)),
            Some(Notify::Thread(sender)) => drop(sender.send(result)),
            None => {}
        }
    }
}

impl raft_log::Callback for Flushed {
    fn send(mut self, result: io::Result<()>) {
        metrics::histogram!(names::RAFT_FLUSH_SECONDS).record(self.since.elapsed());
        self.notify(result);
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        self.notify(Err(io::Error::other("the flush thread has stopped")));
    }
}

impl Encode for StoredVote {
    fn encode<W: io::Write>(&self, mut writer: W) -> io::Result<usize> {
        let Vote { leader_id, committed } = self.0;
        let mut written = leader_id.term.encode(&mut writer)?;
        written += leader_id.voted_for.encode(&mut writer)?;
        written += u8::from(committed).encode(&mut writer)?;
        Ok(written)
    }
}

impl Decode for StoredVote {
    fn decode<R: io::Read>(mut reader: R) -> io::Result<Self> {
        let term = u64::decode(&mut reader)?;
        let node_id = u64::decode(&mut reader)?;
        let committed = u8::decode(&mut reader)? != 0;
        Ok(Self(if committed { Vote::new_committed(term, node_id) } else { Vote::new(term, node_id) }))
    }
}

impl Encode for StoredPayload {
    fn encode<W: io::Write>(&self, mut writer: W) -> io::Result<usize> {
        let bytes = postcard::to_stdvec(&self.0).map_err(io::Error::other)?;
        let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= MAX_ENTRY_BYTES);
        let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a log entry of more than 64 MiB"))?;
        let written = len.encode(&mut writer)?;
        writer.write_all(&bytes)?;
        Ok(written + bytes.len())
    }
}

impl Decode for StoredPayload {
    fn decode<R: io::Read>(mut reader: R) -> io::Result<Self> {
        let invalid = |detail: String| io::Error::new(io::ErrorKind::InvalidData, detail);
        let len = u32::decode(&mut reader)?;
        if len > MAX_ENTRY_BYTES {
            return Err(invalid(format!("a log entry of {len} bytes")));
        }
        // `take` and not a buffer of that size: the length is not covered by a checksum yet.
        let mut bytes = Vec::new();
        reader.take(u64::from(len)).read_to_end(&mut bytes)?;
        if bytes.len() < len as usize {
            // The kind that marks an incomplete end, which recovery may cut off.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        postcard::from_bytes(&bytes).map(Self).map_err(|error| invalid(error.to_string()))
    }
}

fn key(log_id: LogId) -> LogKey {
    (log_id.leader_id.term, log_id.index)
}

fn log_id((term, index): LogKey) -> LogId {
    LogId::new_term_index(term, index)
}

/// What an entry holds on the heap.
fn payload_bytes(payload: &Payload) -> usize {
    const MEMBER: usize = 128;
    size_of::<Payload>()
        + match payload {
            Payload::Blank => 0,
            Payload::Normal(command) => Command::size_bytes(command),
            Payload::Membership(membership) => membership.nodes().count() * MEMBER,
        }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end.max(start))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn a_flush_that_nobody_answers_is_an_error() {
        let permit = || Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (sender, receiver) = oneshot::channel();
        drop(Flushed::new(Notify::Flushed(sender), permit()));
        assert!(receiver.await.unwrap().is_err());
        let (sender, receiver) = oneshot::channel();
        raft_log::Callback::send(Flushed::new(Notify::Flushed(sender), permit()), Ok(()));
        assert!(receiver.await.unwrap().is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(StoredPayload::decode(&bytes[..]));
            drop(StoredVote::decode(&bytes[..]));
        }

        #[test]
        fn a_vote_reads_back(term in any::<u64>(), node_id in any::<u64>(), committed in any::<bool>()) {
            let vote = StoredVote(if committed { Vote::new_committed(term, node_id) } else { Vote::new(term, node_id) });
            let mut bytes = Vec::new();
            vote.encode(&mut bytes).unwrap();
            prop_assert_eq!(StoredVote::decode(&bytes[..]).unwrap(), vote);
        }
    }
}
