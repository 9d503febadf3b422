//! Snapshot files: written whole or not at all, every piece checksummed, two kept.
//!
//! ```text
//! "SWKVSNAP"  format: u32  { length: u32  crc32: u32  bytes }*  0: u32  crc32 of all the crc32s: u32
//! ```
//!
//! Numbers are little-endian. The last record tells a file that was cut between two chunks from a complete one.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::storage::{StorageError, durable};

const MAGIC: &[u8; 8] = b"SWKVSNAP";
const FORMAT_VERSION: u32 = 1;
/// No chunk is larger, so a damaged length cannot ask for all memory.
const MAX_CHUNK_BYTES: usize = 8 * 1024 * 1024;
/// The newest serves; the one before it is there if the newest turns out to be damaged.
const KEPT: usize = 2;
const SUFFIX: &str = "snap";
const TEMPORARY_SUFFIX: &str = "tmp";

/// What a snapshot is called: the log position it stands for. A greater one is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    /// The index of the last log entry in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
}

/// The directory that holds the snapshots of one node.
#[derive(Debug, Clone)]
pub struct SnapshotDir {
    path: Arc<Path>,
    /// Tells temporary files of one process apart.
    next_temporary: Arc<AtomicU64>,
    /// Held while a snapshot gets its name and old ones go: one may be built while another arrives.
    publishing: Arc<Mutex<()>>,
}

/// A complete snapshot file, kept open: it can be read to its end even when a newer one has replaced it.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    name: SnapshotName,
    path: Arc<Path>,
    file: Arc<File>,
    len: u64,
    /// Of one that has arrived and is not published: its temporary name. It goes with the last copy of this.
    arrived: Option<Arc<Mutex<Temporary>>>,
}

/// Writes a snapshot under a temporary name. Dropped before [`finish`](Self::finish), it leaves nothing behind.
#[derive(Debug)]
pub struct SnapshotWriter {
    file: BufWriter<File>,
    temporary: Temporary,
    dir: SnapshotDir,
    checksums: crc32fast::Hasher,
}

/// Receives the bytes of a snapshot file made elsewhere, under a temporary name. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct IncomingSnapshot {
    file: File,
    temporary: Temporary,
    len: u64,
}

/// Removes its file when dropped, unless the file has been renamed.
#[derive(Debug)]
struct Temporary(Option<PathBuf>);

impl SnapshotDir {
    pub(super) fn open(path: PathBuf) -> Result<Self, StorageError> {
        durable::create_dir(&path)?;
        for entry in fs::read_dir(&path).map_err(StorageError::io("read", &path))? {
            let file = entry.map_err(StorageError::io("read", &path))?.path();
            if file.extension().is_some_and(|suffix| suffix == TEMPORARY_SUFFIX) {
                fs::remove_file(&file).map_err(StorageError::io("remove", &file))?;
            }
        }
        Ok(Self { path: path.into(), next_temporary: Arc::default(), publishing: Arc::default() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The complete snapshots, newest first. Their checksums have not been looked at.
    ///
    /// # Errors
    ///
    /// The directory or a file cannot be read.
    pub fn list(&self) -> Result<Vec<SnapshotFile>, StorageError> {
        self.names()?.into_iter().map(|name| self.open_file(name)).collect()
    }

    /// Begins a snapshot made here.
    ///
    /// # Errors
    ///
    /// The file cannot be created.
    pub fn create(&self) -> Result<SnapshotWriter, StorageError> {
        let (temporary, file) = self.temporary()?;
        let mut writer = SnapshotWriter {
            file: BufWriter::with_capacity(256 * 1024, file),
            temporary,
            dir: self.clone(),
            checksums: crc32fast::Hasher::new(),
        };
        writer.write(MAGIC)?;
        writer.write(&FORMAT_VERSION.to_le_bytes())?;
        Ok(writer)
    }

    /// Begins to receive a snapshot made elsewhere.
    ///
    /// # Errors
    ///
    /// The file cannot be created.
    pub fn receive(&self) -> Result<IncomingSnapshot, StorageError> {
        let (temporary, file) = self.temporary()?;
        Ok(IncomingSnapshot { file, temporary, len: 0 })
    }

    /// Gives a snapshot that has arrived its name, durably, and removes those that are no longer kept. One that has its
    /// name already stays as it is.
    ///
    /// # Errors
    ///
    /// It cannot be renamed; then it does not exist.
    pub fn publish(&self, snapshot: &SnapshotFile) -> Result<SnapshotFile, StorageError> {
        match &snapshot.arrived {
            Some(arrived) => self.rename(&mut arrived.lock().unwrap_or_else(PoisonError::into_inner), snapshot.name),
            None => Ok(snapshot.clone()),
        }
    }

    /// Sets a damaged snapshot aside, so that it is never read again but can be looked at.
    ///
    /// # Errors
    ///
    /// It cannot be renamed.
    pub fn set_aside(&self, snapshot: &SnapshotFile) -> Result<(), StorageError> {
        durable::rename(&snapshot.path, &snapshot.path.with_extension("damaged"))
    }

    fn open_file(&self, name: SnapshotName) -> Result<SnapshotFile, StorageError> {
        let path = self.path.join(name.file_name());
        let file = File::open(&path).map_err(StorageError::io("open", &path))?;
        let len = file.metadata().map_err(StorageError::io("inspect", &path))?.len();
        Ok(SnapshotFile { name, path: path.into(), file: Arc::new(file), len, arrived: None })
    }

    fn temporary(&self) -> Result<(Temporary, File), StorageError> {
        // ORDERING: Relaxed, only the number itself matters: every caller gets another one.
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number}.{TEMPORARY_SUFFIX}"));
        let file = File::create(&path).map_err(StorageError::io("create", &path))?;
        Ok((Temporary(Some(path)), file))
    }

    /// The names of the complete snapshots, newest first.
    fn names(&self) -> Result<Vec<SnapshotName>, StorageError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(StorageError::io("read", &*self.path))? {
            let entry = entry.map_err(StorageError::io("read", &*self.path))?;
            names.extend(entry.file_name().to_str().and_then(SnapshotName::parse));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// Makes a durable temporary file a snapshot, and removes those that are no longer kept.
    fn rename(&self, temporary: &mut Temporary, name: SnapshotName) -> Result<SnapshotFile, StorageError> {
        let _publishing = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path.join(name.file_name());
        if let Some(from) = &temporary.0 {
            durable::rename(from, &path)?;
        }
        temporary.0 = None;
        // Open before anything is removed: this one goes too if two newer ones came first, and can be read all the same.
        let published = self.open_file(name)?;
        for old in self.names()?.into_iter().skip(KEPT) {
            let path = self.path.join(old.file_name());
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StorageError::io("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(published)
    }
}

impl SnapshotName {
    fn file_name(self) -> String {
        format!("{:020}-{:020}.{SUFFIX}", self.index, self.term)
    }

    fn parse(file_name: &str) -> Option<Self> {
        let (index, term) = file_name.strip_suffix(SUFFIX)?.strip_suffix('.')?.split_once('-')?;
        Some(Self { index: index.parse().ok()?, term: term.parse().ok()? })
    }
}

impl SnapshotFile {
    /// The log position it stands for.
    pub const fn name(&self) -> SnapshotName {
        self.name
    }

    /// Its length in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes at all; a complete one always has some.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes from `offset` on, at most `max` of them; fewer only at the end.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read_at(&self, offset: u64, max: usize) -> Result<Vec<u8>, StorageError> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; max.min(left)];
        self.file.read_exact_at(&mut bytes, offset).map_err(StorageError::io("read", &*self.path))?;
        Ok(bytes)
    }

    /// Reads the chunks in order, each checked before `visit` sees it, until `stop` is set.
    ///
    /// # Errors
    ///
    /// The file is cut, damaged or newer than this program, or `visit` refuses a chunk: its words become the detail. Or
    /// it was stopped.
    pub fn visit_chunks(
        &self,
        stop: &AtomicBool,
        mut visit: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), StorageError> {
        let damaged = |detail: &str| StorageError::Damaged { path: self.path.to_path_buf(), detail: detail.to_owned() };
        let mut reader = Positioned { file: &self.file, offset: 0 };
        let mut reader = BufReader::with_capacity(256 * 1024, &mut reader);
        let mut read = |buffer: &mut [u8]| {
            reader.read_exact(buffer).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
                _ => StorageError::io("read", &*self.path)(error),
            })
        };
        let mut magic = [0; 8];
        read(&mut magic)?;
        if magic != *MAGIC {
            return Err(damaged("it is no snapshot"));
        }
        let mut word = [0; 4];
        read(&mut word)?;
        let format = u32::from_le_bytes(word);
        if format > FORMAT_VERSION {
            let path = self.path.to_path_buf();
            return Err(StorageError::NewerFormat { path, found: format, known: FORMAT_VERSION });
        }
        let mut checksums = crc32fast::Hasher::new();
        let mut chunk = Vec::new();
        loop {
            // ORDERING: Relaxed, the flag is the whole message and a chunk more or less does not matter.
            if stop.load(Ordering::Relaxed) {
                return Err(StorageError::Stopped { path: self.path.to_path_buf() });
            }
            read(&mut word)?;
            let len = u32::from_le_bytes(word) as usize;
            read(&mut word)?;
            if len == 0 {
                let complete = u32::from_le_bytes(word) == checksums.finalize();
                return if complete { Ok(()) } else { Err(damaged("its chunks are not those it was made of")) };
            }
            if len > MAX_CHUNK_BYTES {
                return Err(damaged("a chunk has an impossible length"));
            }
            checksums.update(&word);
            chunk.resize(len, 0);
            read(&mut chunk)?;
            if crc32fast::hash(&chunk) != u32::from_le_bytes(word) {
                return Err(damaged("a chunk fails its checksum"));
            }
            visit(&chunk).map_err(|detail| damaged(&detail))?;
        }
    }
}

impl SnapshotWriter {
    /// Adds one chunk; it must not be empty, nor larger than 8 MiB.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        let len = u32::try_from(chunk.len()).ok().filter(|len| *len > 0 && chunk.len() <= MAX_CHUNK_BYTES);
        let Some(len) = len else {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "a chunk has 1 byte to 8 MiB");
            return Err(StorageError::io("write", self.temporary.path())(error));
        };
        let checksum = crc32fast::hash(chunk).to_le_bytes();
        self.checksums.update(&checksum);
        self.write(&len.to_le_bytes())?;
        self.write(&checksum)?;
        self.write(chunk)
    }

    /// Makes the snapshot durable under its name, and removes those that are no longer kept.
    ///
    /// # Errors
    ///
    /// It cannot be written; then it does not exist.
    pub fn finish(mut self, name: SnapshotName) -> Result<SnapshotFile, StorageError> {
        let checksums = std::mem::take(&mut self.checksums).finalize();
        self.write(&0u32.to_le_bytes())?;
        self.write(&checksums.to_le_bytes())?;
        self.file.flush().map_err(StorageError::io("write", self.temporary.path()))?;
        self.file.get_ref().sync_all().map_err(StorageError::io("fsync", self.temporary.path()))?;
        self.dir.rename(&mut self.temporary, name)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_all(bytes).map_err(StorageError::io("write", self.temporary.path()))
    }
}

impl IncomingSnapshot {
    /// How many bytes have arrived.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether no byte has arrived.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_all(bytes).map_err(StorageError::io("write", self.temporary.path()))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Checks every checksum. The snapshot is durable and has no name yet: only [`SnapshotDir::publish`] makes it one
    /// that a restart would find.
    ///
    /// # Errors
    ///
    /// What arrived is damaged or newer than this program, or cannot be written, or `stop` was set before all of it was
    /// checked; then it does not exist.
    pub fn finish(self, name: SnapshotName, stop: &AtomicBool) -> Result<SnapshotFile, StorageError> {
        self.file.sync_all().map_err(StorageError::io("fsync", self.temporary.path()))?;
        let path = self.temporary.path();
        let file = File::open(&path).map_err(StorageError::io("open", &path))?;
        let arrived = Some(Arc::new(Mutex::new(self.temporary)));
        let snapshot = SnapshotFile { name, path: path.into(), file: Arc::new(file), len: self.len, arrived };
        snapshot.visit_chunks(stop, |_| Ok(()))?;
        Ok(snapshot)
    }
}

impl Temporary {
    fn path(&self) -> PathBuf {
        self.0.clone().unwrap_or_default()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What cannot be removed now is removed when the directory is opened again.
            drop(fs::remove_file(path));
        }
    }
}

/// Reads a shared file from a position of its own.
struct Positioned<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKS: [&[u8]; 3] = [b"header", b"one", b"two two"];

    fn dir() -> (tempfile::TempDir, SnapshotDir) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = SnapshotDir::open(temporary.path().join("snapshots")).unwrap();
        (temporary, dir)
    }

    fn write(dir: &SnapshotDir, index: u64) -> SnapshotFile {
        let mut writer = dir.create().unwrap();
        for chunk in CHUNKS {
            writer.write_chunk(chunk).unwrap();
        }
        writer.finish(SnapshotName { index, term: 1 }).unwrap()
    }

    fn chunks(snapshot: &SnapshotFile) -> Result<Vec<Vec<u8>>, StorageError> {
        let mut chunks = Vec::new();
        snapshot.visit_chunks(&AtomicBool::new(false), |chunk| {
            chunks.push(chunk.to_vec());
            Ok(())
        })?;
        Ok(chunks)
    }

    #[test]
    fn a_snapshot_reads_back_chunk_by_chunk() {
        let (_temporary, dir) = dir();
        assert_eq!(chunks(&write(&dir, 5)).unwrap(), CHUNKS);
    }

    #[test]
    fn the_two_newest_are_kept() {
        let (_temporary, dir) = dir();
        for index in [9, 10, 100] {
            write(&dir, index);
        }
        let kept: Vec<_> = dir.list().unwrap().iter().map(|file| file.name().index).collect();
        assert_eq!(kept, [100, 10]);
    }

    /// One is built here while another arrives; an error of either would stop the node.
    #[test]
    fn snapshots_published_at_once_do_not_fail() {
        let (_temporary, dir) = dir();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let dir = &dir;
                scope.spawn(move || {
                    for round in 0..25 {
                        assert_eq!(chunks(&write(dir, round * 4 + thread)).unwrap(), CHUNKS);
                    }
                });
            }
        });
        let kept: Vec<_> = dir.list().unwrap().iter().map(|file| file.name().index).collect();
        assert_eq!(kept, [99, 98]);
    }

    #[test]
    fn one_older_than_those_kept_goes_and_can_still_be_read() {
        let (_temporary, dir) = dir();
        write(&dir, 10);
        write(&dir, 11);
        assert_eq!(chunks(&write(&dir, 5)).unwrap(), CHUNKS);
        let kept: Vec<_> = dir.list().unwrap().iter().map(|file| file.name().index).collect();
        assert_eq!(kept, [11, 10]);
    }

    #[test]
    fn an_open_snapshot_outlives_its_removal() {
        let (_temporary, dir) = dir();
        let first = write(&dir, 1);
        for index in [2, 3] {
            write(&dir, index);
        }
        assert!(!first.path().exists());
        assert_eq!(chunks(&first).unwrap(), CHUNKS);
    }

    #[test]
    fn any_cut_and_any_changed_byte_is_noticed() {
        let (_temporary, dir) = dir();
        let snapshot = write(&dir, 1);
        let bytes = fs::read(snapshot.path()).unwrap();
        for cut in 0..bytes.len() {
            fs::write(snapshot.path(), &bytes[..cut]).unwrap();
            assert!(chunks(&snapshot).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            fs::write(snapshot.path(), &changed).unwrap();
            assert!(chunks(&snapshot).is_err(), "changed at {at}");
        }
    }

    /// A shutdown would wait for the whole of a large file, and one that was not read must not pass for damaged.
    #[test]
    fn reading_ends_when_the_node_stops() {
        let (_temporary, dir) = dir();
        let (snapshot, stop) = (write(&dir, 1), AtomicBool::new(false));
        let mut seen = 0;
        let error = snapshot.visit_chunks(&stop, |_| {
            seen += 1;
            stop.store(true, Ordering::Relaxed);
            Ok(())
        });
        assert!(matches!(error, Err(StorageError::Stopped { .. })), "{error:?}");
        assert_eq!(seen, 1);
        let mut incoming = dir.receive().unwrap();
        incoming.append(&snapshot.read_at(0, usize::MAX).unwrap()).unwrap();
        let error = incoming.finish(SnapshotName { index: 2, term: 1 }, &stop);
        assert!(matches!(error, Err(StorageError::Stopped { .. })), "{error:?}");
    }

    #[test]
    fn a_newer_format_is_refused() {
        let (_temporary, dir) = dir();
        let snapshot = write(&dir, 1);
        let mut bytes = fs::read(snapshot.path()).unwrap();
        bytes[8] = 2;
        fs::write(snapshot.path(), &bytes).unwrap();
        assert!(matches!(chunks(&snapshot), Err(StorageError::NewerFormat { found: 2, known: 1, .. })));
    }

    #[test]
    fn what_is_not_finished_leaves_nothing_behind() {
        let (temporary, dir) = dir();
        let mut writer = dir.create().unwrap();
        writer.write_chunk(b"x").unwrap();
        drop(writer);
        fs::write(temporary.path().join("snapshots/77.tmp"), "left by a crash").unwrap();
        let dir = SnapshotDir::open(temporary.path().join("snapshots")).unwrap();
        assert_eq!(fs::read_dir(temporary.path().join("snapshots")).unwrap().count(), 0);
        assert!(dir.list().unwrap().is_empty());
    }

    #[test]
    fn a_received_snapshot_is_checked_before_it_counts() {
        let (_temporary, dir) = dir();
        let sent = write(&dir, 4);
        let bytes = sent.read_at(0, usize::MAX).unwrap();
        let mut incoming = dir.receive().unwrap();
        for piece in bytes.chunks(7) {
            incoming.append(piece).unwrap();
        }
        assert_eq!(incoming.len(), sent.len());
        let arrived = incoming.finish(SnapshotName { index: 6, term: 1 }, &AtomicBool::new(false)).unwrap();
        assert_eq!(chunks(&arrived).unwrap(), CHUNKS);
        assert_eq!(dir.list().unwrap()[0].name().index, 4, "nobody has accepted the one that arrived");
        let published = dir.publish(&arrived).unwrap();
        assert_eq!(dir.list().unwrap()[0].path(), published.path());
        drop(arrived);
        assert_eq!(chunks(&dir.publish(&published).unwrap()).unwrap(), CHUNKS);
        let mut incoming = dir.receive().unwrap();
        incoming.append(&bytes[..bytes.len() - 1]).unwrap();
        assert!(incoming.finish(SnapshotName { index: 8, term: 1 }, &AtomicBool::new(false)).is_err());
        let mut incoming = dir.receive().unwrap();
        incoming.append(&bytes).unwrap();
        drop(incoming.finish(SnapshotName { index: 9, term: 1 }, &AtomicBool::new(false)).unwrap());
        assert_eq!(dir.list().unwrap()[0].name().index, 6, "what nobody accepts never was");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
