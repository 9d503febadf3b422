//! Writes that survive a power cut, or did not happen.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::storage::StorageError;

/// Replaces `path` by `bytes`, whole: after a crash the file holds the old bytes or the new ones.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(StorageError::io("create", &temporary))?;
    file.write_all(bytes).map_err(StorageError::io("write", &temporary))?;
    file.sync_all().map_err(StorageError::io("fsync", &temporary))?;
    rename(&temporary, path)
}

/// Renames a file that is already durable, and makes the new name durable too.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StorageError> {
    fs::rename(from, to).map_err(StorageError::io("rename", from))?;
    // Until the directory is synchronised, a power cut may bring the old name back.
    sync_parent(to)
}

/// Makes what happened to the names in the directory of `path` durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), StorageError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let directory = File::open(parent).map_err(StorageError::io("open", parent))?;
    directory.sync_all().map_err(StorageError::io("fsync", parent))
}

/// The bytes of `path`, or `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io("read", path)(error)),
    }
}

/// Creates the directory of a node's data with what is missing above it.
///
/// # Errors
///
/// It cannot be created, or something that is no directory is in the way.
pub fn create_data_dir(path: &Path) -> Result<(), StorageError> {
    fs::create_dir_all(path).map_err(StorageError::io("create the data directory", path))
}

/// Creates a directory and its name, if it is not there.
pub(super) fn create_dir(path: &Path) -> Result<(), StorageError> {
    match fs::create_dir(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StorageError::io("create", path)(error)),
    }
}
